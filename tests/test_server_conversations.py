"""Tests of the API's routes that are about conversations."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from twisted.internet.defer import Deferred

from rasa_core_api.endpoints import EndpointConfig, Endpoints
from rasa_core_api.exceptions import StoreUnavailable
from rasa_core_api.http.reading import DEFAULT_LIMIT
from rasa_core_api.server import Server
from rasa_core_api.server_settings import ServerSettings
from tests.conftest import LoggedFailures
from tests.fakes import Bot, FakeHTTP
from tests.samples import domain
from tests.wire import Response, Wire

SCRIPT: dict[str | None, list[str]] = {"greet": ["utter_hi"], "bye": ["utter_bye"], "inform": ["action_search"]}
ACTIONS = "http://actions"
SLOT = {"event": "slot", "name": "city", "value": "rome"}
EMPTY = {"entities": [], "intent": {}, "text": None}


class Actions:
    """Answers action calls; a gate holds the answer back."""

    def __init__(self) -> None:
        self.answer: Any = (200, {"events": [SLOT], "responses": [{"text": "found"}]})
        self.gate: Deferred[Any] | None = None

    def __call__(self, call: Any) -> Any:
        return self.answer if self.gate is None else self.gate


@pytest.fixture
def actions() -> Actions:
    return Actions()


@pytest.fixture
def bot(actions: Actions) -> Bot:
    endpoints = Endpoints(action_endpoint=EndpointConfig(url=ACTIONS))
    return Bot(domain("0.12"), SCRIPT, http=FakeHTTP({ACTIONS: actions}), endpoints=endpoints)


def serve(bot: Bot, **settings: Any) -> Wire:
    return Wire(Server(bot.agent, ServerSettings(**settings)).site(), bot.clock)


@pytest.fixture
def wire(bot: Bot) -> Wire:
    return serve(bot)


def refused(response: Response, status: int = 400, reason: str = "InvalidParameter") -> dict[str, Any]:
    """The envelope of a refusal."""
    body: dict[str, Any] = response.json()
    assert (response.status, body["reason"], body["code"]) == (status, reason, status)
    assert body["error"] == body["message"]
    return body


def kinds(tracker: dict[str, Any]) -> list[str] | None:
    return None if tracker["events"] is None else [event["event"] for event in tracker["events"]]


# --- respond -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ask",
    [
        lambda wire: wire.post("/conversations/u/respond", {"query": "/greet"}),
        lambda wire: wire.post("/conversations/u/respond", {"q": "/greet"}),
        lambda wire: wire.post("/conversations/u/respond", {"q": "/bye", "query": "/greet"}),
        lambda wire: wire.post("/conversations/u/respond?q=/bye", {"query": {"text": "/greet"}}),
        lambda wire: wire.get("/conversations/u/respond?query=/greet"),
        lambda wire: wire.get("/conversations/u/respond?q=%2Fgreet"),
        lambda wire: wire.get("/conversations/u/respond?q=/bye&query=/greet"),
    ],
)
def test_respond(wire: Wire, ask: Any) -> None:
    """A text may come in two members, as an object, or in the query string."""
    assert ask(wire).json() == [{"recipient_id": "u", "text": "hello None"}]


def test_respond_with_buttons(wire: Wire) -> None:
    """Buttons are there under their old name too."""
    buttons = [{"title": "again", "payload": "/greet"}]
    assert wire.post("/conversations/u/respond", {"query": "/bye"}).json() == [
        {"recipient_id": "u", "text": "bye", "buttons": buttons, "data": buttons}
    ]


@pytest.mark.parametrize("text", ["", "no intent", "/unknown"])
def test_respond_with_nothing(wire: Wire, text: str) -> None:
    """A bot that has nothing to say answers with an empty list."""
    assert wire.post("/conversations/u/respond", {"query": text}).json() == []


@pytest.mark.parametrize("body", [{}, {"text": "x"}, {"message": "x"}])
def test_respond_without_a_message(bot: Bot, wire: Wire, body: Any) -> None:
    """Without the parameter the answer names it, and no conversation begins."""
    answer = refused(wire.post("/conversations/u/respond", body))
    assert answer["message"] == "Invalid respond parameter specified."
    assert answer["details"] == {"parameter": "query", "in": "query"}
    assert refused(wire.get("/conversations/u/respond"))["message"] == "Invalid respond parameter specified."
    assert wire.get("/conversations").json() == []


@pytest.mark.parametrize("value", [None, 1, 1.5, True, [], ["x"], {}, {"text": None}, {"text": 1}])
def test_respond_with_another_type(wire: Wire, value: Any) -> None:
    """A message that is no text is refused, even where the other member is one."""
    answer = refused(wire.post("/conversations/u/respond", {"query": value, "q": "/greet"}))
    assert answer["details"] == {"parameter": "query", "in": "body"}
    assert wire.get("/conversations").json() == []


@pytest.mark.parametrize("body", [b"", b"{", b'{"query": "\\ud800"}', b'{"query": "x", "y": NaN}', b"\xff"])
def test_respond_with_malformed_json(wire: Wire, body: bytes) -> None:
    """What is not JSON is told apart from what is wrong in it."""
    refused(wire.post("/conversations/u/respond", body), reason="InvalidJson")
    refused(wire.post("/conversations/u/respond", b"[]"))


def test_respond_to_a_failure_that_is_known(bot: Bot, wire: Wire) -> None:
    """A turn that fails is told as one; the next one goes on."""
    bot.install({"greet": ["nowhere"]})
    response = wire.post("/conversations/u/respond", {"query": "/greet"})
    answer = refused(response, 500, "ValueError")
    assert answer["message"].startswith("Cannot access action 'nowhere'")
    bot.install(SCRIPT)
    assert wire.post("/conversations/u/respond", {"query": "/greet"}).status == 200


def test_respond_to_a_store_that_is_down(bot: Bot, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store is down clients are asked to come back; nothing of the turn stays."""

    async def down(*_: Any) -> int:
        raise StoreUnavailable("the database is locked")

    with monkeypatch.context() as patch:
        patch.setattr(type(bot.agent.store), "append", down)
        response = wire.post("/conversations/u/respond", {"query": "/greet"})
        refused(response, 503, "Unavailable")
        assert response.headers["retry-after"] == "1"
    assert wire.post("/conversations/u/respond", {"query": "/greet"}).status == 200
    assert bot.kinds().count("user") == 1


def test_respond_to_a_surprise(bot: Bot, wire: Wire, monkeypatch: pytest.MonkeyPatch, logged: LoggedFailures) -> None:
    """What nobody expected is told as an internal error, with nothing of its text."""

    async def broken(*_: Any) -> Any:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(type(bot.agent), "handle_text", broken)
    answer = refused(wire.post("/conversations/u/respond", {"query": "/greet"}), 500, "ServerError")
    assert answer["message"] == "internal error"
    assert logged.take() == [ZeroDivisionError]


def test_too_many_waiting(actions: Actions) -> None:
    """A conversation whose line is full asks for patience."""
    bot = Bot(
        domain("0.12"),
        SCRIPT,
        http=FakeHTTP({ACTIONS: actions}),
        endpoints=Endpoints(action_endpoint=EndpointConfig(url=ACTIONS)),
        line_limit=1,
    )
    wire = serve(bot)
    actions.gate = Deferred()
    waiting = [wire.begin("POST", "/conversations/u/respond", {"query": "/inform"}) for _ in range(2)]
    response = wire.post("/conversations/u/respond", {"query": "/greet"})
    refused(response, 429, "TooManyRequests")
    assert response.headers["retry-after"] == "1"
    assert wire.post("/conversations/v/respond", {"query": "/greet"}).status == 200
    gate, actions.gate = actions.gate, None
    gate.callback(actions.answer)
    for connection in waiting:
        connection.rounds()
        assert connection.response("POST").json() == [{"recipient_id": "u", "text": "found"}]


def test_too_much_work(actions: Actions) -> None:
    """A server that is full refuses turns for a moment; who looks after it is answered, and room comes back."""
    bot = Bot(
        domain("0.12"),
        SCRIPT,
        http=FakeHTTP({ACTIONS: actions}),
        endpoints=Endpoints(action_endpoint=EndpointConfig(url=ACTIONS)),
        turn_limit=3,
    )
    wire = serve(bot)
    actions.gate = Deferred()
    waiting = [wire.begin("POST", f"/conversations/{name}/respond", {"query": "/inform"}) for name in "uuu"]
    for path in ("/conversations/u/respond", "/conversations/w/respond"):
        response = wire.post(path, {"query": "/greet"})
        refused(response, 503, "Unavailable")
        assert response.headers["retry-after"] == "1"
    for path in ("/", "/version", "/status", "/healthz", "/readyz"):
        assert wire.get(path).status == 200
    waiting[1].hang_up()
    gate, actions.gate = actions.gate, None
    gate.callback(actions.answer)
    for connection in (waiting[0], waiting[2]):
        connection.rounds()
        assert connection.response("POST").status == 200
    assert [wire.post("/conversations/w/respond", {"query": "/greet"}).status for _ in range(4)] == [200] * 4
    assert bot.agent.busy == 0


def test_hanging_up_in_the_middle_of_a_turn(bot: Bot, wire: Wire, actions: Actions) -> None:
    """A turn whose client leaves is finished and stored."""
    actions.gate = Deferred()
    connection = wire.begin("POST", "/conversations/u/respond", {"query": "/inform"})
    connection.hang_up()
    actions.gate.callback(actions.answer)
    connection.rounds()
    assert bot.kinds() == [
        "action action_listen",
        "user",
        "action action_search",
        "slot city",
        "bot",
        "action action_listen",
    ]


def test_actions_do_not_hold_others_up(wire: Wire, actions: Actions) -> None:
    """While one conversation waits for its action the others go on."""
    actions.gate = Deferred()
    connection = wire.begin("POST", "/conversations/u/respond", {"query": "/inform"})
    assert wire.post("/conversations/v/respond", {"query": "/greet"}).status == 200
    assert wire.get("/version").status == 200
    assert connection.transport.value() == b""
    actions.gate.callback(actions.answer)
    connection.rounds()
    assert connection.response("POST").status == 200


@pytest.mark.parametrize("answer", [(500, {}), (200, b"<html>"), (200, b'{"events'), (404, b""), (200, [])])
def test_actions_that_fail(bot: Bot, wire: Wire, actions: Actions, answer: Any) -> None:
    """An action that fails is no failure of the request, and the next turn goes on."""
    actions.answer = answer
    assert wire.post("/conversations/u/respond", {"query": "/inform"}).json() == []
    assert wire.post("/conversations/u/respond", {"query": "/greet"}).status == 200
    assert "action action_search" in bot.kinds()


# --- ids -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "sender_id"), [("a%20b", "a b"), ("%F0%9F%98%80", "😀"), ("default", "default"), ("x" * 1024, "x" * 1024)]
)
def test_sender_ids(wire: Wire, path: str, sender_id: str) -> None:
    """Ids are what they were sent as."""
    assert wire.post(f"/conversations/{path}/respond", {"query": "/greet"}).json()[0]["recipient_id"] == sender_id
    assert wire.get(f"/conversations/{path}/tracker").json()["sender_id"] == sender_id
    assert wire.get("/conversations").json() == [sender_id]


@pytest.mark.parametrize("path", ["%FF", "a%00", "x" * 10_240])
def test_bad_sender_ids(wire: Wire, path: str) -> None:
    """Ids that cannot be are refused on every route, and nothing is made of them."""
    for method, rest in (("GET", "tracker"), ("POST", "respond"), ("PUT", "tracker"), ("GET", "story")):
        refused(wire.ask(method, f"/conversations/{path}/{rest}", b"[]"))
    assert wire.get("/conversations").json() == []


def test_conversations(wire: Wire) -> None:
    """Ids come in the order in which the conversations began, thousands of them too."""
    ids = [f"ü{number}" for number in range(1_500)]
    for sender_id in ids:
        wire.put(f"/conversations/%C3%BC{sender_id[1:]}/tracker", [])
    assert wire.get("/conversations").json() == ids


# --- tracker -------------------------------------------------------------------------------------------


def test_new_tracker(wire: Wire) -> None:
    """Reading a conversation begins it, with one listen."""
    assert wire.get("/conversations/new/tracker").json() == {
        "sender_id": "new",
        "slots": {"city": None, "mood": None, "place": "window", "sure": None, "note": None, "requested_slot": None},
        "latest_message": EMPTY,
        "latest_event_time": 1_000_000.0,
        "followup_action": None,
        "paused": False,
        "latest_input_channel": None,
        "active_form": {},
        "latest_action_name": "action_listen",
        "events": [
            {
                "event": "action",
                "name": "action_listen",
                "policy": None,
                "confidence": None,
                "timestamp": 1_000_000.0,
            }
        ],
    }
    assert wire.get("/conversations").json() == ["new"]


@pytest.fixture
def talk(bot: Bot, wire: Wire) -> list[str]:
    """A conversation with a restart in the middle and an undone action; the kinds of its events."""
    wire.post("/conversations/u/respond", {"query": "/greet"})
    wire.post("/conversations/u/tracker/events", [{"event": "restart"}, SLOT])
    bot.clock.advance(100)
    wire.post("/conversations/u/respond", {"query": "/bye"})
    wire.post("/conversations/u/tracker/events", {"event": "undo"})
    return [event["event"] for event in bot.log()]


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", "AFTER_RESTART"),
        ("?include_events=all", "ALL"),
        ("?include_events=NONE", "NONE"),
        ("?include_events=Applied", "APPLIED"),
        ("?include_events=after_restart", "AFTER_RESTART"),
        ("?ignore_restarts=true", "ALL"),
        ("?ignore_restarts=True&events=true", "ALL"),
        ("?ignore_restarts=1", "AFTER_RESTART"),
        ("?events=false", "NONE"),
        ("?events=", "NONE"),
        ("?events=false&ignore_restarts=true", "NONE"),
        ("?events=false&include_events=ALL", "ALL"),
        ("?ignore_restarts=true&include_events=none", "NONE"),
    ],
)
def test_verbosity(wire: Wire, talk: list[str], query: str, shown: str) -> None:
    """Which events are shown, and that nothing else changes with it."""
    tracker = wire.get(f"/conversations/u/tracker{query}").json()
    after = talk[talk.index("restart") + 1 :]
    assert (
        kinds(tracker)
        == {
            "ALL": talk,
            "NONE": None,
            "AFTER_RESTART": after,
            "APPLIED": ["slot", "user", "action", "bot"],
        }[shown]
    )
    assert tracker["latest_message"]["intent"]["name"] == "bye"
    assert tracker["slots"]["city"] == "rome"


@pytest.mark.parametrize("verbosity", ["SOME", "", "none,all"])
def test_unknown_verbosity(wire: Wire, verbosity: str) -> None:
    """An unknown verbosity is 404 wherever it may be given, before anything is done."""
    for method, path, body in (
        ("GET", "tracker", None),
        ("PUT", "tracker", []),
        ("PUT", "tracker/events", []),
        ("POST", "tracker/events", SLOT),
        ("POST", "tracker/events", [SLOT]),
        ("POST", "execute", {"action": "utter_hi"}),
        ("POST", "predict", None),
        ("POST", "messages", {"text": "/greet", "sender": "user"}),
    ):
        answer = refused(wire.ask(method, f"/conversations/u/{path}?include_events={verbosity}", body), 404)
        assert answer["details"] == {"parameter": "include_events", "in": "query"}
        assert answer["message"] == (
            "Invalid parameter value for 'include_events'. Should be one of NONE, APPLIED, AFTER_RESTART, ALL"
        )
    assert wire.get("/conversations").json() == []


def test_until(bot: Bot, wire: Wire, talk: list[str]) -> None:
    """A conversation as it was, under its own name; nothing is stored by looking."""
    tracker = wire.get("/conversations/u/tracker?until=1000050&include_events=ALL").json()
    assert tracker["sender_id"] == "u"
    assert kinds(tracker) == talk[: talk.index("restart") + 2]
    tracker = wire.get("/conversations/u/tracker?until=5").json()
    assert (tracker["events"], tracker["latest_event_time"], tracker["followup_action"]) == ([], None, "action_listen")
    assert [event["event"] for event in bot.log()] == talk
    story = wire.get("/conversations/u/story?until=1000050")
    assert story.text.startswith("## u\n")


@pytest.mark.parametrize("until", ["x", "", "nan", "inf", "1e999"])
def test_absurd_until(wire: Wire, until: str) -> None:
    """A time that is no number is refused, and no conversation begins."""
    for path in ("tracker", "story"):
        answer = refused(wire.get(f"/conversations/u/{path}?until={until}"))
        assert answer["details"] == {"parameter": "until", "in": "query"}
    assert wire.get("/conversations").json() == []


def test_story(wire: Wire) -> None:
    """A conversation as a story."""
    wire.post("/conversations/u/respond", {"query": "/greet"})
    response = wire.get("/conversations/u/story")
    assert response.headers["content-type"] == "text/markdown; charset=utf-8"
    assert response.text == "## u\n* greet: /greet\n    - utter_hi\n"


# --- append --------------------------------------------------------------------------------------------


def test_append_an_object(wire: Wire) -> None:
    """One event is answered with the events."""
    tracker = wire.post("/conversations/u/tracker/events", SLOT).json()
    assert kinds(tracker) == ["action", "slot"]
    assert tracker["slots"]["city"] == "rome"
    assert wire.post("/conversations/u/tracker/events?include_events=NONE", SLOT).json()["events"] is None


def test_append_a_list(wire: Wire) -> None:
    """A list is answered without the events, unless they are asked for."""
    tracker = wire.post("/conversations/u/tracker/events", [SLOT, {"event": "action", "name": "action_listen"}]).json()
    assert tracker["events"] is None
    assert tracker["slots"]["city"] == "rome"
    tracker = wire.post("/conversations/u/tracker/events?include_events=ALL", [SLOT]).json()
    assert kinds(tracker) == ["action", "slot", "action", "slot"]


@pytest.mark.parametrize("body", [[SLOT, {}], [{"event": None}, SLOT], [SLOT, {"event": "topic", "topic": "x"}]])
def test_append_what_is_skipped(wire: Wire, body: Any) -> None:
    """What names no event is skipped beside one that does, and topics mean nothing."""
    assert wire.post("/conversations/u/tracker/events", body).status == 200
    assert kinds(wire.get("/conversations/u/tracker").json()) == ["action", "slot"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"event": None},
        {"name": "x"},
        {"event": 1},
        {"event": "nonsense"},
        {"event": "slot"},
        {"event": "slot", "name": 1},
        {"event": "slot", "name": "city", "timestamp": "x"},
        {"event": "reminder", "action": "a", "date_time": "tomorrow"},
        {"event": "form_validation"},
        {"event": "user", "text": "x", "parse_data": []},
        [{}],
        [SLOT, {"event": "nonsense"}],
        [SLOT, 1],
        [SLOT, [SLOT]],
        "x",
        1,
        True,
    ],
)
def test_append_nonsense(wire: Wire, body: Any) -> None:
    """What is no event is refused as a whole."""
    answer = refused(wire.post("/conversations/u/tracker/events", body))
    assert answer["details"]["in"] == "body"
    assert wire.get("/conversations").json() == []


def test_append_a_topic(wire: Wire) -> None:
    """An event that means nothing is accepted."""
    assert wire.post("/conversations/u/tracker/events", {"event": "topic", "topic": "x"}).status == 200


def test_append_keeps_time(wire: Wire) -> None:
    """A time that is given stays; without one, and with 0, it is now."""
    events = [{**SLOT, "timestamp": time} for time in (5.5, 0, None)]
    wire.post("/conversations/u/tracker/events", [*events, SLOT])
    times = [event["timestamp"] for event in wire.get("/conversations/u/tracker").json()["events"]]
    assert times == [1_000_000.0, 5.5, 1_000_000.0, 1_000_000.0, 1_000_000.0]


# --- replace -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["tracker", "tracker/events"])
def test_replace(wire: Wire, path: str) -> None:
    """A conversation is replaced by what is sent, no more and no less."""
    wire.post("/conversations/u/respond", {"query": "/greet"})
    tracker = wire.put(f"/conversations/u/{path}", [SLOT, {"event": "action", "name": "action_listen"}]).json()
    assert kinds(tracker) == ["slot", "action"]
    assert tracker["latest_message"] == EMPTY
    assert tracker["slots"]["city"] == "rome"
    assert wire.get("/conversations/u/tracker?include_events=ALL").json() == tracker
    assert wire.put(f"/conversations/u/{path}?include_events=NONE", [SLOT]).json()["events"] is None


@pytest.mark.parametrize("body", [[], [{}], [{"event": "topic"}]])
def test_replace_by_nothing(wire: Wire, body: Any) -> None:
    """An empty conversation waits to listen."""
    tracker = wire.put("/conversations/u/tracker", body).json()
    assert (tracker["events"], tracker["followup_action"]) == ([], "action_listen")


def test_replace_by_one(wire: Wire) -> None:
    """One event is a list of one."""
    assert kinds(wire.put("/conversations/u/tracker", SLOT).json()) == ["slot"]


@pytest.mark.parametrize("body", [{}, {"events": []}, "x", 1, [1], [{"event": "nonsense"}], [SLOT, {"event": "slot"}]])
def test_replace_by_nonsense(bot: Bot, wire: Wire, body: Any) -> None:
    """What is no list of events leaves the old conversation as it was."""
    wire.post("/conversations/u/respond", {"query": "/greet"})
    before = bot.log()
    refused(wire.put("/conversations/u/tracker", body))
    assert bot.log() == before


def test_round_trip(wire: Wire, talk: list[str]) -> None:
    """What was read can be put back."""
    before = wire.get("/conversations/u/tracker?include_events=ALL").json()
    wire.put("/conversations/v/tracker", before["events"])
    assert wire.get("/conversations/v/tracker?include_events=ALL").json() == {**before, "sender_id": "v"}


@pytest.mark.parametrize("count", [40_000])
def test_large_conversations(wire: Wire, count: int) -> None:
    """A conversation of many events is replaced, read and appended to as any other."""
    events = [{**SLOT, "value": str(number), "timestamp": float(number + 1)} for number in range(count)]
    assert len(json.dumps(events)) < DEFAULT_LIMIT
    tracker = wire.put("/conversations/u/tracker", events).json()
    assert tracker["events"] == events
    assert wire.get("/conversations/u/tracker?include_events=ALL").json() == tracker
    tracker = wire.post("/conversations/u/tracker/events", events[:2_000]).json()
    assert tracker["slots"]["city"] == "1999"


def test_large_nonsense(bot: Bot, wire: Wire) -> None:
    """What is wrong far behind in a large body undoes all of it."""
    wire.post("/conversations/u/respond", {"query": "/greet"})
    before = bot.log()
    events = [SLOT] * 10_000
    refused(wire.put("/conversations/u/tracker", [*events, {"event": "nonsense"}]))
    refused(wire.post("/conversations/u/tracker/events", [*events, {"event": "nonsense"}]))
    refused(wire.put("/conversations/u/tracker", json.dumps(events)[:-1].encode()), reason="InvalidJson")
    assert bot.log() == before


# --- execute, predict, messages ------------------------------------------------------------------------


def test_execute(wire: Wire) -> None:
    """One action runs, and its answers come back."""
    body = {"name": "utter_bye", "action": "utter_hi", "policy": "me", "confidence": 0.5}
    answer = wire.post("/conversations/u/execute", body).json()
    buttons = [{"title": "again", "payload": "/greet"}]
    assert answer["messages"] == [{"recipient_id": "u", "text": "bye", "buttons": buttons, "data": buttons}]
    assert kinds(answer["tracker"]) == ["action", "action", "bot"]
    executed = answer["tracker"]["events"][1]
    assert (executed["name"], executed["policy"], executed["confidence"]) == ("utter_bye", "me", 0.5)
    answer = wire.post("/conversations/u/execute?include_events=NONE", {"action": "utter_hi"}).json()
    assert answer["tracker"]["events"] is None
    assert answer["messages"] == [{"recipient_id": "u", "text": "hello None"}]


def test_execute_an_unknown_action(wire: Wire) -> None:
    """An action that the domain lacks is told with those that it has, and no conversation begins."""
    answer = refused(wire.post("/conversations/u/execute", {"action": "x"}), 500, "ValueError")
    assert answer["message"].startswith(
        "Server failure. Error: Cannot access action 'x', as that name is not a registered action for this domain. "
        "Available actions are: \n\t - action_listen\n\t - "
    )
    assert wire.get("/conversations").json() == []


@pytest.mark.parametrize(
    "body",
    [{}, {"name": ""}, {"name": 1}, {"action": None}, {"action": ["utter_hi"]}, [], "utter_hi",
     {"name": "utter_hi", "policy": 1}, {"name": "utter_hi", "confidence": "1"},
     {"name": "utter_hi", "confidence": True}],
)  # fmt: skip
def test_execute_nonsense(wire: Wire, body: Any) -> None:
    """What names no action, or not properly, is refused."""
    refused(wire.post("/conversations/u/execute", body))
    assert wire.get("/conversations").json() == []


def test_execute_a_rejection(wire: Wire, actions: Actions) -> None:
    """An action server that rejects leaves a rejection."""
    actions.answer = (400, {"action_name": "action_search", "error": "no"})
    answer = wire.post("/conversations/u/execute", {"name": "action_search"}).json()
    assert kinds(answer["tracker"]) == ["action", "action_execution_rejected"]


def test_predict(wire: Wire) -> None:
    """All actions with their scores, the best first, then by name."""
    wire.post("/conversations/u/messages", {"text": "/bye", "sender": "user"})
    answer = wire.post("/conversations/u/predict").json()
    names = [entry["action"] for entry in answer["scores"]]
    assert names[0] == "utter_bye" and names[1:] == sorted(names[1:])
    assert answer["scores"][0]["score"] == answer["confidence"] == 1.0
    assert answer["policy"] == "policy_0_ScriptPolicy"
    assert kinds(answer["tracker"]) == ["action", "user"]
    answer = wire.post("/conversations/u/predict?include_events=NONE", b"ignored").json()
    assert answer["tracker"]["events"] is None


def test_predict_a_followup(wire: Wire) -> None:
    """A follow-up action decides for this answer, and is back for the next one."""
    wire.post("/conversations/u/tracker/events", {"event": "followup", "name": "utter_hi"})
    for _ in range(2):
        answer = wire.post("/conversations/u/predict").json()
        assert answer["scores"][0] == {"action": "utter_hi", "score": 1.0}
        assert (answer["policy"], answer["tracker"]["followup_action"]) == (None, None)
        assert wire.get("/conversations/u/tracker").json()["followup_action"] == "utter_hi"


def test_predict_an_unknown_followup(wire: Wire) -> None:
    """A prediction that fails is told as one."""
    wire.post("/conversations/u/tracker/events", {"event": "followup", "name": "nowhere"})
    answer = refused(wire.post("/conversations/u/predict"), 500, "PredictionException")
    assert answer["message"].startswith("Server failure. Error: Cannot access action 'nowhere'")


@pytest.mark.parametrize(
    "body",
    [
        {"text": '/inform{"city": "oslo"}', "sender": "user"},
        {"message": '/inform{"city": "oslo"}', "text": "x", "sender": "user"},
        {"query": '/inform{"city": "oslo"}', "sender": "user", "parse_data": None},
        {
            "text": "oslo!",
            "sender": "user",
            "parse_data": {"intent": {"name": "inform"}, "entities": [{"entity": "city", "value": "oslo"}]},
        },
    ],
)
def test_messages(wire: Wire, body: Any) -> None:
    """A message is logged with the slots that it fills, and nothing is answered."""
    tracker = wire.post("/conversations/u/messages", body).json()
    assert kinds(tracker) == ["action", "user", "slot"]
    assert tracker["slots"]["city"] == "oslo"
    assert tracker["latest_message"]["intent"]["name"] == "inform"
    assert wire.post("/conversations/u/messages?include_events=NONE", body).json()["events"] is None


@pytest.mark.parametrize("sender", ["bot", None, 1])
def test_messages_of_others(wire: Wire, sender: Any) -> None:
    """Only users can be quoted."""
    answer = refused(wire.post("/conversations/u/messages", {"text": "x", "sender": sender}), 500, "NotSupported")
    assert answer["message"] == (
        "Currently, only user messages can be passed to this endpoint. "
        f"Messages of sender '{sender}' can not be handled. "
    )
    assert answer["details"] == {"parameter": "sender", "in": "body"}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"text": None},
        {"text": 1},
        *(
            {"text": "x", "parse_data": parse_data}
            for parse_data in (
                [],
                {},
                {"intent": {}},
                {"entities": []},
                {"intent": [], "entities": []},
                {"intent": {}, "entities": {}},
                {"intent": {"name": 1}, "entities": []},
                {"intent": {}, "entities": [{}]},
            )
        ),
    ],
)
def test_messages_that_are_none(wire: Wire, body: Any) -> None:
    """A message without a text, or with parse data that nothing can be made of, is refused."""
    answer = refused(wire.post("/conversations/u/messages", {"sender": "user", **body}))
    assert answer["details"]["in"] == "body"
    assert wire.get("/conversations").json() == []


# --- the remote-execution protocol ---------------------------------------------------------------------


def test_remote_execution(wire: Wire) -> None:
    """The caller runs the actions that it is told, one after another."""
    answer = wire.post("/conversations/u/parse", {"query": "/greet"}).json()
    assert answer["next_action"] == "utter_hi"
    assert answer["tracker"]["events"] is None
    assert "info" not in answer
    answer = wire.post("/conversations/u/continue", {"executed_action": "utter_hi", "events": [SLOT]}).json()
    assert (answer["next_action"], answer["tracker"]["slots"]["city"]) == ("action_listen", "rome")
    answer = wire.post("/conversations/u/continue", {"executed_action": "action_listen"}).json()
    assert answer["next_action"] is None
    assert answer["info"].startswith("You do not need to call continue after action listen")
    assert wire.get("/conversations/u/parse?q=/bye").json()["next_action"] == "utter_bye"
    assert wire.post("/conversations/u/continue", {"executed_action": None, "events": None}).status == 200


def test_remote_execution_while_paused(wire: Wire) -> None:
    """A paused conversation says why nothing is to be done."""
    wire.post("/conversations/u/tracker/events", {"event": "pause"})
    answer = wire.post("/conversations/u/parse", {"q": "/greet"}).json()
    assert answer["next_action"] is None
    assert answer["info"] == "Bot is currently paused and no restart was received yet."


def test_remote_execution_errors(wire: Wire) -> None:
    """What cannot be understood is refused."""
    assert refused(wire.get("/conversations/u/parse"))["message"] == "Invalid parse parameter specified."
    assert refused(wire.post("/conversations/u/parse", {}))["message"] == "Invalid parse parameter specified."
    answer = refused(wire.post("/conversations/u/continue", {"executed_action": "x"}))
    assert "'x'" in answer["message"]
    for body in ([], {"events": {}}, {"events": [{"event": "x"}]}, {"executed_action": 1}):
        refused(wire.post("/conversations/u/continue", body))
    assert wire.get("/conversations").json() == []


# --- the page's own examples ---------------------------------------------------------------------------


def test_published_examples(wire: Wire) -> None:
    """The requests of the published page have the results that it shows."""
    listen = {"event": "action", "name": "action_listen"}
    cuisine = {"event": "slot", "name": "cuisine", "value": "mexican"}
    replaced = wire.put("/conversations/default/tracker", [cuisine, listen]).json()
    assert [
        {key: event[key] for key in wanted} for event, wanted in zip(replaced["events"], (cuisine, listen), strict=True)
    ] == [
        cuisine,
        listen,
    ]
    assert (replaced["latest_message"], replaced["paused"], replaced["sender_id"]) == (EMPTY, False, "default")
    appended = wire.post("/conversations/default/tracker/events", [cuisine, listen]).json()
    assert appended["events"] is None
    assert wire.get("/conversations").json() == ["default"]


# --- care of data ----------------------------------------------------------------------------------------


def test_delete(bot: Bot, wire: Wire) -> None:
    """A deleted conversation is gone, its key too; deleting it again is 404."""
    wire.ask("POST", "/conversations/u/respond", {"query": "/greet"}, {"Idempotency-Key": "k"})
    answer = wire.ask("DELETE", "/conversations/u")
    assert (answer.status, answer.body) == (204, b"")
    assert wire.get("/conversations").json() == []
    refused(wire.ask("DELETE", "/conversations/u"), 404, "NotFound")
    wire.ask("POST", "/conversations/u/respond", {"query": "/greet"}, {"Idempotency-Key": "k"})
    assert bot.kinds().count("user") == 1


def test_delete_waits_for_the_turn(bot: Bot, wire: Wire, actions: Actions) -> None:
    """A conversation is deleted when the turn that is under way is over."""
    actions.gate = Deferred()
    talking = wire.begin("POST", "/conversations/u/respond", {"query": "/inform"})
    deleting = wire.begin("DELETE", "/conversations/u")
    actions.gate.callback(actions.answer)
    talking.rounds()
    assert talking.response().status == 200
    assert deleting.response().status == 204
    assert bot.kinds() == []


def test_pages(wire: Wire) -> None:
    """The list comes in pages on request; `Link` names the next one while there is one."""
    names = ["a1", "b 1ü", "a2", "a3"]
    for name in names:
        wire.post(f"/conversations/{quote(name, safe='')}/respond", {"query": "/greet"})
    assert wire.get("/conversations").json() == names
    page = wire.get("/conversations?limit=2")
    assert page.json() == names[:2]
    path, rel = page.headers["link"].split("; ")
    assert rel == 'rel="next"'
    rest = wire.get(path[1:-1])
    assert rest.json() == names[2:] and "link" not in rest.headers
    page = wire.get("/conversations?prefix=a&limit=2")
    assert page.json() == ["a1", "a2"]
    assert wire.get(page.headers["link"].split("; ")[0][1:-1]).json() == ["a3"]
    for wrong in ("limit=0", "limit=x", "after=nobody"):
        refused(wire.get(f"/conversations?{wrong}"))


def test_export(bot: Bot, wire: Wire) -> None:
    """A conversation is exported as lines of JSON, which have all events."""
    events = [{"event": "slot", "name": "city", "value": number, "timestamp": 1.0} for number in range(2500)]
    wire.put("/conversations/u/tracker/events", events)
    answer = wire.get("/conversations/u/export")
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [(line["sender_id"], line["seq"], len(line["events"])) for line in lines] == [
        ("u", 0, 1000), ("u", 1000, 1000), ("u", 2000, 500),
    ]  # fmt: skip
    assert [event for line in lines for event in line["events"]] == bot.log()
    refused(wire.get("/conversations/nobody/export"), 404, "NotFound")
    assert wire.ask("HEAD", "/conversations/u/export").body == b""


def test_anonymise(bot: Bot, wire: Wire) -> None:
    """Texts and values are gone from the log and from the answers that are kept; the bot goes on as before."""
    ask = {"query": '/greet{"city": "Reykjavik"}'}
    wire.ask("POST", "/conversations/u/respond", ask, {"Idempotency-Key": "k"})
    assert wire.ask("POST", "/conversations/u/anonymise").status == 204
    assert "Reykjavik" not in json.dumps(bot.log())
    assert bot.kinds()[:4] == ["action action_listen", "user", "slot city", "action utter_hi"]
    log = bot.log()
    again = wire.ask("POST", "/conversations/u/respond", ask, {"Idempotency-Key": "k"})
    assert again.json() == [] and bot.log() == log
    wire.ask("POST", "/conversations/u/respond", {"query": "/greet"})
    assert [event["text"] for event in bot.log()[len(log) :] if event["event"] == "bot"] == ["hello ..."]
    refused(wire.ask("POST", "/conversations/nobody/anonymise"), 404, "NotFound")


def test_reminders(bot: Bot, wire: Wire, actions: Actions) -> None:
    """The reminders of a conversation are listed and removed, and survive that it is made anonymous."""
    reminder = {"event": "reminder", "action": "utter_bye", "date_time": "1970-01-13T00:00:00", "name": "r/1"}
    actions.answer = (200, {"events": [reminder]})
    wire.post("/conversations/u/respond", {"query": "/inform"})
    assert wire.get("/conversations/u/reminders").json() == [{"name": "r/1", "due": 1_036_800.0}]
    wire.ask("POST", "/conversations/u/anonymise")
    (kept,) = bot.wait(bot.agent.store.reminders("u"))
    assert bot.log()[kept.seq - 5]["event"] == "reminder"
    refused(wire.ask("DELETE", "/conversations/u/reminders/other"), 404, "NotFound")
    refused(wire.ask("DELETE", "/conversations/u/reminders?name=other"), 404, "NotFound")
    assert wire.ask("DELETE", "/conversations/u/reminders?name=r/1").status == 204
    assert wire.get("/conversations/u/reminders").json() == []
    actions.answer = (200, {"events": [reminder, {**reminder, "name": "second"}]})
    wire.post("/conversations/u/respond", {"query": "/inform"})
    assert wire.ask("DELETE", "/conversations/u/reminders/second").status == 204
    assert [found["name"] for found in wire.get("/conversations/u/reminders").json()] == ["r/1"]
    assert wire.ask("DELETE", "/conversations/u/reminders").status == 204
    assert wire.get("/conversations/u/reminders").json() == []
    assert wire.get("/conversations/nobody/reminders").json() == []


@pytest.mark.parametrize(
    ("then", "left"),
    [("/greet", ["stays"]), ("/restart", []), (None, ["goes", "stays"])],
)
def test_void_reminders_are_not_listed(wire: Wire, actions: Actions, then: str | None, left: list[str]) -> None:
    """A reminder that will not fire, since the conversation went on, waits no more."""
    reminder = {"event": "reminder", "action": "utter_bye", "date_time": "1970-01-13T00:00:00"}
    events = [{**reminder, "name": "goes"}, {**reminder, "name": "stays", "kill_on_user_msg": False}]
    actions.answer = (200, {"events": events})
    wire.post("/conversations/u/respond", {"query": "/inform"})
    if then is not None:
        wire.post("/conversations/u/respond", {"query": then})
    assert [found["name"] for found in wire.get("/conversations/u/reminders").json()] == left
