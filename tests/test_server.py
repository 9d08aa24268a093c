"""Tests of the API's routes that are about the server and its model."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.web.server import Request

from rasa_core_api.config import read_yaml_text
from rasa_core_api.exceptions import EvaluationFailed, InvalidConfiguration, InvalidTrainingData, UnsafeArchive
from rasa_core_api.http.auth import TokenReader
from rasa_core_api.http.routing import App
from rasa_core_api.http.sending import send_json
from rasa_core_api.http.site import ApiSite
from rasa_core_api.models.generation import Generation
from rasa_core_api.server import Server
from rasa_core_api.server_settings import ServerSettings
from tests.fakes import Bot
from tests.http.test_auth import SECRET, signed, user
from tests.http.test_multipart import form
from tests.samples import domain
from tests.wire import Response, Wire

SCRIPT: dict[str | None, list[str]] = {"greet": ["utter_hi"], "bye": ["utter_bye"], "inform": ["action_search"]}

#: Every route: path, methods that it has, whether it needs rights and what it answers without a model.
ROUTES = [
    ("/", "GET", False, 200),
    ("/version", "GET", False, 200),
    ("/healthz", "GET", False, 200),
    ("/status", "GET", True, 200),
    ("/domain", "GET", True, 503),
    ("/conversations", "GET", True, 200),
    ("/conversations/u/tracker", "GET", True, 503),
    ("/conversations/u/tracker", "PUT", True, 503),
    ("/conversations/u/tracker/events", "POST", True, 503),
    ("/conversations/u/tracker/events", "PUT", True, 503),
    ("/conversations/u/respond", "GET", True, 503),
    ("/conversations/u/respond", "POST", True, 503),
    ("/conversations/u/execute", "POST", True, 503),
    ("/conversations/u/predict", "POST", True, 503),
    ("/conversations/u/messages", "POST", True, 503),
    ("/conversations/u/story", "GET", True, 503),
    ("/conversations/u/parse", "GET", True, 503),
    ("/conversations/u/parse", "POST", True, 503),
    ("/conversations/u/continue", "POST", True, 503),
    ("/predict", "POST", True, 503),
    ("/parse", "POST", True, 503),
    ("/finetune", "POST", True, 503),
    ("/evaluate", "POST", True, 503),
    ("/model", "POST", True, 400),
    ("/load", "POST", True, 400),
]
PATHS = sorted({path for path, *_ in ROUTES})


@pytest.fixture
def bot() -> Bot:
    return Bot(domain("0.11"), SCRIPT)


def serve(bot: Bot, channels: Any = (), **settings: Any) -> Wire:
    return Wire(Server(bot.agent, ServerSettings(**settings), channels).site(), bot.clock)


@pytest.fixture
def wire(bot: Bot) -> Wire:
    return serve(bot)


def empty(bot: Bot) -> Bot:
    """The same bot before any model is loaded."""
    bot.agent.served.current = None
    return bot


# --- every route ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "method", "protected", "status"), ROUTES)
def test_rights(bot: Bot, path: str, method: str, protected: bool, status: int) -> None:
    """All routes but two ask who is there, before they look whether a model is loaded or at the body."""
    wire = serve(empty(bot), auth_token="t", tokens=TokenReader.from_settings(SECRET))
    assert wire.ask(method, path, b"{").status == (401 if protected else 200)
    assert wire.ask(method, path + "?token=t", b"{").status == status
    assert bot.wait(bot.agent.sender_ids()) == []


@pytest.mark.parametrize(("path", "method", "protected", "status"), ROUTES)
def test_roles(bot: Bot, path: str, method: str, protected: bool, status: int) -> None:
    """A user gets to the own conversation only."""
    wire = serve(empty(bot), tokens=TokenReader.from_settings(SECRET))
    own = {"Authorization": f"Bearer {signed(user('user', username='u'))}"}
    other = {"Authorization": f"Bearer {signed(user('user', username='v'))}"}
    expected = status if not protected or path.startswith("/conversations/u/") else 403
    assert wire.ask(method, path, b"{", own).status == expected
    assert wire.ask(method, path, b"{", other).status == (403 if protected else status)


@pytest.mark.parametrize(("path", "method", "protected", "status"), ROUTES)
def test_without_a_model(bot: Bot, path: str, method: str, protected: bool, status: int) -> None:
    """Before the first model most routes are not there yet, whatever is asked of them."""
    response = serve(empty(bot)).ask(method, f"{path}?include_events=x&until=x", b"{")
    assert response.status == status
    if status != 503:
        return
    body = response.json()
    assert body["help"].endswith("/server.html#running-the-http-server")
    if path.endswith("/story") or (path.endswith("/tracker") and method == "GET"):
        assert body["reason"] == "NoDomain"
        assert body["error"] == ("Could not retrieve tracker. Most likely because there is no domain set on the agent.")
    else:
        assert body["reason"] == "NoAgent"
        assert body["error"] == (
            "No agent loaded. To continue processing, a model of a trained agent needs to be loaded."
        )


@pytest.mark.parametrize("path", PATHS)
def test_options_and_other_methods(bot: Bot, path: str) -> None:
    """OPTIONS tells every path's methods without asking who is there; other methods get them with a 405."""
    methods = {method for other, method, *_ in ROUTES if other == path}
    allow = ", ".join(sorted(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())))
    wire = serve(empty(bot), auth_token="t", cors=("http://a",))
    response = wire.ask("OPTIONS", path, headers={"Origin": "http://a", "Access-Control-Request-Method": "PUT"})
    assert (response.status, response.headers["allow"], response.body) == (200, allow, b"")
    assert response.headers["access-control-allow-origin"] == "http://a"
    response = wire.ask("DELETE", path)
    assert (response.status, response.headers["allow"]) == (405, allow)


@pytest.mark.parametrize(("path", "method", "protected", "status"), [route for route in ROUTES if route[1] == "GET"])
def test_head(bot: Bot, path: str, method: str, protected: bool, status: int) -> None:
    """HEAD works wherever GET does."""
    path += "?q=/bye"
    wire = serve(bot)
    wire.get("/conversations/u/tracker")
    head = wire.ask("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["content-length"]) > 0


@pytest.mark.parametrize(
    "path",
    [
        "/jobs",
        "/intentEvaluation",
        "/conversations/u/trigger_intent",
        "/static/x",
        "/webhooks/rest/webhook",
    ],
)
def test_routes_that_never_were(wire: Wire, path: str) -> None:
    """What belongs to other products is 404."""
    for method in ("GET", "POST", "PUT"):
        assert wire.ask(method, path).status == 404


def test_api_off(bot: Bot) -> None:
    """Without the API only channels are there."""
    app = App()

    @app.route("/webhook", methods=["POST"])
    def webhook(request: Request) -> bytes:
        return send_json(request, [])

    wire = serve(bot, [("rest", app)], enable_api=False, cors=("http://a",))
    for path in ("/", "/version", "/status"):
        response = wire.get(path)
        assert (response.status, response.json()["reason"]) == (404, "NotFound")
    response = wire.post("/webhooks/rest/webhook", {}, Origin="http://a")
    assert response.json() == []
    assert response.headers["access-control-allow-origin"] == "http://a"
    assert "access-control-allow-origin" not in wire.post("/webhooks/rest/webhook", {}, Origin="http://b").headers


def test_channels_beside_the_api(bot: Bot) -> None:
    """Beside the API channels are open to all origins, and to everybody unless they are to ask for rights."""
    app = App()

    @app.route("/webhook", methods=["POST"])
    def webhook(request: Request) -> bytes:
        return send_json(request, [])

    wire = serve(bot, [("rest", app)], auth_token="t", cors=("http://a",))
    response = wire.post("/webhooks/rest/webhook", {}, Origin="http://b")
    assert response.json() == []
    assert response.headers["access-control-allow-origin"] == "http://b"
    assert "access-control-allow-origin" not in wire.get("/version", Origin="http://b").headers
    strict = serve(bot, [("rest", app)], auth_token="t", channel_auth=True)
    assert strict.post("/webhooks/rest/webhook", {}).status == 401
    with pytest.raises(InvalidConfiguration, match="channel_auth"):
        serve(bot, [("rest", app)], channel_auth=True)


def test_holding_requests(bot: Bot) -> None:
    """Requests that come before the store is open are answered when it is; those who left are forgotten."""
    root = Server(bot.agent).resource()
    root.hold()
    wire = Wire(ApiSite(root, bot.clock, 1_000), bot.clock)
    waiting = [wire.begin("GET", path) for path in ("/version", "/nowhere", "/conversations/u/tracker", "/status")]
    waiting[-1].hang_up()
    assert [connection.transport.value() for connection in waiting] == [b""] * 4
    root.release()
    assert [connection.response().status for connection in waiting[:3]] == [200, 404, 200]
    assert waiting[-1].transport.value() == b""
    assert wire.get("/version").status == 200


def test_body_limit(bot: Bot) -> None:
    """The operator's limit holds for every body."""
    wire = serve(bot, max_body=100)
    for path, method in (("/conversations/u/respond", "POST"), ("/model", "POST"), ("/conversations/u/tracker", "PUT")):
        response = wire.ask(method, path, b" " * 101, {"Content-Type": "multipart/form-data; boundary=x"})
        assert (response.status, response.json()["reason"]) == (413, "PayloadTooLarge")


# --- the server ----------------------------------------------------------------------------------------


def test_hello(bot: Bot, wire: Wire) -> None:
    """The root says hello in the words of the release that is spoken."""
    response = wire.get("/")
    assert response.text == "hello from Rasa Core: 0.11.12"
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert serve(bot, compatibility_version="0.14.5").get("/").text == "hello from Rasa Core: 0.14.5"


@pytest.mark.parametrize(("version", "oldest"), [("0.11.12", "0.11.0"), ("0.14.5", "0.14.0a3")])
def test_version(bot: Bot, version: str, oldest: str) -> None:
    """The release whose shapes are answered, and the oldest models that it loaded."""
    wire = serve(bot, compatibility_version=version)
    assert wire.get("/version").json() == {"version": version, "minimum_compatible_version": oldest}
    assert wire.get("/nowhere").json()["version"] == version


def test_status(bot: Bot, wire: Wire) -> None:
    """The model in service, and whether there is one."""
    status = wire.get("/status").json()
    assert (status["model_fingerprint"], status["is_ready"]) == ("f-1", True)
    status = serve(empty(bot)).get("/status").json()
    assert status["is_ready"] is False
    assert isinstance(status["model_fingerprint"], str)


# --- the domain ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "*/*",
        "application/json",
        "application/*",
        "Application/JSON; q=0.5",
        "text/html, application/json",
        "text/json",
        "a/b, */*;q=0.1",
        "",
    ],
)
def test_domain_as_json(bot: Bot, wire: Wire, accept: str | None) -> None:
    """JSON for all who take it, as curl and most libraries do."""
    response = wire.ask("GET", "/domain", headers={} if accept is None else {"Accept": accept})
    assert response.json() == bot.domain.as_dict()
    assert b'"intents":[{"greet":{"use_entities":true}},{"bye":' in response.body


@pytest.mark.parametrize(
    "accept",
    [
        "application/x-yml",
        "application/x-yaml",
        "application/yaml",
        "text/yaml",
        "x-yml",
        "application/x-yml, */*",
        "application/json;q=0, text/yaml",
        "application/json; q=0.1, text/yaml",
    ],
)
def test_domain_as_yaml(bot: Bot, wire: Wire, accept: str) -> None:
    """YAML for those who name it first."""
    response = wire.get("/domain", Accept=accept)
    assert response.headers["content-type"] == "application/x-yml"
    assert response.text.startswith("%YAML 1.1\n---\n")
    assert read_yaml_text(response.text, "answer") == bot.domain.as_dict()
    assert wire.get("/domain", Accept=accept).body == response.body


@pytest.mark.parametrize("accept", ["text/html", "image/*", "text/plain, text/html;q=0.9"])
def test_domain_as_nothing_else(wire: Wire, accept: str) -> None:
    """Other types are refused."""
    response = wire.get("/domain", Accept=accept)
    assert (response.status, response.json()["reason"]) == (406, "InvalidHeader")
    assert response.json()["message"].startswith("Invalid accept header. Domain can be provided as json")


# --- models --------------------------------------------------------------------------------------------


class Installer:
    """Takes archives; `work` says what comes of them."""

    def __init__(self, work: Callable[[bytes], Any]) -> None:
        self.work = work
        self.path: Path | None = None

    async def install_archive(self, archive: Path, signature: str | None = None) -> Generation:
        self.path = archive
        result = self.work(archive.read_bytes())  # noqa: ASYNC240 - a few bytes
        if isinstance(result, Deferred):
            result = await result
        assert isinstance(result, Generation)
        return result

    def status(self) -> dict[str, Any]:
        return {"uploads": 0 if self.path is None else 1}


def archive() -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("domain.yml", "intents: [greet]")
    return buffer.getvalue()


def upload(wire: Wire, path: str = "/model", content: bytes | None = None) -> Response:
    body = form(('; name="model"; filename="model.zip"', archive() if content is None else content))
    return wire.ask("POST", path, body, {"Content-Type": "multipart/form-data; boundary=XyZ"})


def other_model(bot: Bot) -> Generation:
    other = domain("0.12", intents=["other"])
    return Generation(domain=other, ensemble=Bot(other, {}).agent.model.ensemble, fingerprint="f-2", metadata={})


@pytest.mark.parametrize(
    ("path", "version", "status", "body"),
    [
        ("/model", "0.11.12", 200, {"success": 1}),
        ("/model", "0.12.0", 204, None),
        ("/load", "0.11.12", 200, {"success": 1}),
        ("/load", "0.14.5", 200, {"success": 1}),
    ],
)
def test_upload(bot: Bot, path: str, version: str, status: int, body: Any) -> None:
    """An uploaded model replaces domain and policies at once; conversations stay."""
    bot.say("/greet")
    bot.agent.installer = installer = Installer(lambda content: other_model(bot))
    wire = serve(bot, compatibility_version=version)
    response = upload(wire, path)
    assert response.status == status
    assert (response.json() if body else response.body) == (body or b"")
    assert wire.get("/status").json()["model_fingerprint"] == "f-2"
    assert wire.get("/domain").json()["intents"] == [{"other": {"use_entities": True}}]
    assert wire.get("/status").json()["model"] == {"uploads": 1}
    assert wire.get("/conversations").json() == ["u"]
    assert installer.path is not None and not installer.path.exists()


def test_bad_upload(bot: Bot, wire: Wire) -> None:
    """An archive that cannot be served is refused with the reason, and the old model stays."""

    def refuse(content: bytes) -> Any:
        raise UnsafeArchive("model.zip: the member '../x' leads out of the archive")

    bot.agent.installer = installer = Installer(refuse)
    response = upload(wire)
    assert (response.status, response.json()["reason"]) == (400, "InvalidParameter")
    assert "../x" in response.json()["message"]
    assert response.json()["details"] == {"parameter": "model", "in": "body"}
    assert wire.get("/status").json()["model_fingerprint"] == "f-1"
    assert installer.path is not None and not installer.path.exists()


@pytest.mark.parametrize("path", ["/model", "/load"])
def test_upload_of_nothing(wire: Wire, path: str) -> None:
    """Without the file the answer says so."""
    response = wire.post(path, b"{}")
    assert response.status == 400
    assert response.json()["message"] == "You did not supply a model as part of your request."


def test_upload_by_a_client_that_leaves(bot: Bot, wire: Wire) -> None:
    """A model is installed to the end though its sender hangs up."""
    gate: Deferred[Any] = Deferred()
    bot.agent.installer = installer = Installer(lambda content: gate)
    body = form(('; name="model"; filename="model.zip"', archive()))
    connection = wire.begin("POST", "/model", body, {"Content-Type": "multipart/form-data; boundary=XyZ"})
    connection.hang_up()
    assert installer.path is not None and installer.path.exists()
    gate.callback(other_model(bot))
    assert not installer.path.exists()
    assert bot.agent.fingerprint == "f-2"


# --- learning and testing --------------------------------------------------------------------------------


def test_finetune(wire: Wire) -> None:
    """A loaded model cannot learn; what is wrong with the request is told before."""
    response = wire.post("/finetune?epochs=2&batch_size=1", [{"event": "restart"}])
    assert (response.status, response.json()["reason"]) == (500, "TrainingException")
    for query in ("epochs=0", "epochs=x", "batch_size=-1", "batch_size=1.5"):
        response = wire.post(f"/finetune?{query}", [])
        assert (response.status, response.json()["details"]["in"]) == (400, "query")
    for body in ({}, "x", None, [{"event": "nonsense"}], [1]):
        response = wire.post("/finetune", body if body is not None else b"null")
        assert response.status == 400
        assert response.json()["message"].startswith("Supplied events are not valid. ")


def test_evaluate(wire: Wire) -> None:
    """Stories are held against what the model predicts; what are none are refused."""
    report = wire.post("/evaluate", b"## story\n* greet\n - utter_hi\n* bye\n - utter_hi\n").json()
    assert report["is_end_to_end_evaluation"] is False
    assert [action["predicted"] for action in report["actions"]] == [
        "utter_hi",
        "action_listen",
        "utter_bye",
        "action_listen",
    ]
    assert 0 < report["accuracy"] < 1
    report = wire.post("/evaluate?e2e=true", b"## story\n* greet: /greet\n - utter_hi\n").json()
    assert report["is_end_to_end_evaluation"] is True
    for stories in (b"", b"## empty\n", b"* greet\n - slot{x\n"):
        response = wire.post("/evaluate", stories)
        assert (response.status, response.json()["reason"]) == (400, "FailedEvaluation")
        assert response.json()["message"].startswith("Evaluation could not be created. Error: ")
    assert wire.post("/evaluate", b"\xff").json()["reason"] == "InvalidParameter"


def test_stories_are_joined_in_a_thread(bot: Bot) -> None:
    """What cannot pause happens elsewhere, for one evaluation after the other; what is wrong with it comes back."""
    waiting: list[Deferred[None]] = []

    async def elsewhere(function: Any, *arguments: Any) -> Any:
        waiting.append(Deferred())
        await waiting[-1]
        return function(*arguments)

    bot.agent.in_thread = elsewhere
    answers: list[Any] = []
    for text in ("## story\n* greet\n - utter_hi\n", "## story\n* bye\n - utter_bye\n", "## story\n* greet\n"):
        Deferred.fromCoroutine(bot.agent.evaluate(text, False)).addBoth(answers.append)
    bot.clock.pump([0.0] * 100)
    assert (len(waiting), answers) == (1, [])
    for number in (1, 2):
        waiting[-1].callback(None)
        bot.clock.pump([0.0] * 100)
        assert (len(waiting), answers[-1]["accuracy"]) == (number + 1, 1.0)
    waiting[-1].errback(InvalidTrainingData("too many checkpoints"))
    bot.clock.pump([0.0] * 100)
    assert answers[2].check(EvaluationFailed)


# --- texts and events without a conversation -----------------------------------------------------------


def test_parse(wire: Wire) -> None:
    """The interpreter's view of a text; an empty one is a text too."""
    assert wire.post("/parse", {"q": '/greet{"city": "rome"}'}).json()["intent"]["name"] == "greet"
    assert wire.post("/parse", {"q": ""}).status == 200
    for body in ({}, {"q": None}, {"q": 1}, {"query": "x"}):
        response = wire.post("/parse", body)
        assert (response.status, response.json()["details"]) == (400, {"parameter": "q", "in": "body"})


def test_predict(bot: Bot, wire: Wire) -> None:
    """A map of scores, as in 0.11, or with the request's or the operator's word an object, as in 0.12."""
    events = [{"event": "user", "text": "/greet", "parse_data": {"intent": {"name": "greet"}, "entities": []}}]
    assert wire.post("/predict", events).json() == {
        name: 1.0 if name == "utter_hi" else 0.0 for name in bot.domain.action_names
    }
    for answer in (
        wire.post("/predict?include_events=ALL", events).json(),
        serve(bot, compatibility_version="0.12.0").post("/predict", events).json(),
    ):
        assert answer["scores"][0] == {"action": "action_listen", "score": 0.0}
        assert [entry["action"] for entry in answer["scores"]] == list(bot.domain.action_names)
        assert (answer["policy"], answer["confidence"]) == ("policy_0_ScriptPolicy", 1.0)
        assert answer["tracker"]["sender_id"] == "default"
        assert len(answer["tracker"]["events"]) == 1
    assert wire.get("/conversations").json() == []


def test_predict_asks_the_policies_alone(bot: Bot, wire: Wire) -> None:
    """In every release follow-up actions and the restart intent decided in conversations only."""
    user = {"event": "user", "text": "/greet", "parse_data": {"intent": {"name": "greet"}, "entities": []}}
    for name in ("action_default_fallback", "no_such_action"):
        answer = wire.post("/predict", [user, {"event": "followup", "name": name}])
        assert (answer.status, answer.json()["utter_hi"]) == (200, 1.0)
    modern = wire.post("/predict?include_events=NONE", [user, {"event": "followup", "name": "action_listen"}]).json()
    assert (modern["policy"], modern["tracker"]["followup_action"]) == ("policy_0_ScriptPolicy", "action_listen")
    restart = {"event": "user", "text": "/restart", "parse_data": {"intent": {"name": "restart"}, "entities": []}}
    assert wire.post("/predict", [restart]).json()["action_restart"] == 0.0


def test_predict_errors(bot: Bot, wire: Wire) -> None:
    """0.11 refused what names no event, 0.12 skipped it; unknown events are refused by both."""
    modern = serve(bot, compatibility_version="0.14.5")
    response = wire.post("/predict", [{}])
    assert (response.status, response.json()["message"]) == (400, "Invalid list of events provided.")
    assert modern.post("/predict", [{}]).status == 200
    for each in (wire, modern):
        response = each.post("/predict", [{"event": "x"}])
        assert response.status == 400
        assert response.json()["message"] == "Supplied events are not valid. Unknown event name 'x'."
        response = each.post("/predict", {"event": "restart"})
        assert response.status == 400
        assert response.json()["message"].startswith("Supplied events are not valid.")
    assert wire.post("/predict?include_events=SOME", []).status == 404
