"""Tests of what the server does for channels."""

from __future__ import annotations

import pytest
from klein import Klein
from twisted.internet.task import Clock
from twisted.web.resource import Resource
from twisted.web.server import Request

from rasa_core_api.concurrency import Slices
from rasa_core_api.http.auth import Access, TokenReader
from rasa_core_api.http.context import body_json, identity_of
from rasa_core_api.http.cors import Origins
from rasa_core_api.http.mounts import Channels
from rasa_core_api.http.reading import Bodies
from rasa_core_api.http.routing import App
from rasa_core_api.http.sending import send_json
from tests.http.conftest import MakeWire
from tests.http.test_auth import SECRET, now, signed, user
from tests.wire import Wire

app = App()


@app.route("/", methods=["GET"])
def health(request: Request) -> bytes:
    return send_json(request, {"status": "ok"})


@app.route("/webhook", methods=["POST"])
async def webhook(request: Request) -> bytes:
    body = await body_json(request)
    identity_of(request).check(body["sender"])
    return send_json(request, body)


plain = Klein()


@plain.route("/webhook", methods=["POST"])
def plain_webhook(request: Request) -> bytes:
    return b"plain"


class Foreign(Resource):
    isLeaf = True

    def render(self, request: Request) -> bytes:
        return b"foreign"


class Site(Resource):
    """Stands for the root that knows where the channels are."""

    def __init__(self, channels: Channels) -> None:
        Resource.__init__(self)
        self.putChild(b"webhooks", channels)


def wire_with(
    serve: MakeWire, clock: Clock, access: Access | None = None, origins: Origins | None = None, limit: int = 500
) -> Wire:
    mounts = [("rest", app), ("/custom/v1/", app), ("plain", plain), ("foreign", Foreign()), ("custom/v2", Foreign())]
    channels = Channels(mounts, Bodies(limit, Slices(clock)), origins, access, "0.14.5")
    return serve(Site(channels))


@pytest.fixture
def wire(serve: MakeWire, clock: Clock) -> Wire:
    return wire_with(serve, clock)


@pytest.mark.parametrize("prefix", ["rest", "custom/v1"])
def test_applications(wire: Wire, prefix: str) -> None:
    """An application is served below its prefix, which may have several segments."""
    assert wire.get(f"/webhooks/{prefix}/").json() == {"status": "ok"}
    assert wire.post(f"/webhooks/{prefix}/webhook", {"sender": "u"}).json() == {"sender": "u"}
    redirect = wire.get(f"/webhooks/{prefix}")
    assert (redirect.status, redirect.headers["location"]) == (308, f"/webhooks/{prefix}/")
    response = wire.get(f"/webhooks/{prefix}/webhook")
    assert (response.status, response.headers["allow"]) == (405, "OPTIONS, POST")


def test_other_resources(wire: Wire) -> None:
    """A plain Klein application and any other resource are served as they are."""
    assert wire.post("/webhooks/plain/webhook").text == "plain"
    assert wire.get("/webhooks/foreign/any/where").text == "foreign"
    assert wire.get("/webhooks/custom/v2").text == "foreign"


@pytest.mark.parametrize(
    "path",
    [
        "/webhooks/nobody",
        "/webhooks/nobody/webhook",
        "/webhooks/custom",
        "/webhooks/custom/v3/x",
        "/webhooks/rest/x",
        "/webhooks/",
    ],
)
def test_nothing_there(wire: Wire, path: str) -> None:
    """A path that no channel has is 404 in the envelope of the configured release."""
    response = wire.get(path)
    assert (response.status, response.json()["reason"]) == (404, "NotFound")
    assert response.json()["version"] == "0.14.5"


def test_limit(wire: Wire) -> None:
    """A body beyond the limit reaches no channel."""
    for name in ("rest", "plain"):
        response = wire.post(f"/webhooks/{name}/webhook", b"x" * 501)
        assert (response.status, response.json()["reason"]) == (413, "PayloadTooLarge")
    assert wire.post("/webhooks/rest/webhook", b"{").json()["reason"] == "InvalidJson"


def test_origins(serve: MakeWire, clock: Clock) -> None:
    """The channels' origins hold for all of them, for failures and preflights too."""
    wire = wire_with(serve, clock, origins=Origins(["*"]))
    asked = {"Origin": "http://a", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "b,a"}
    for path in ("/webhooks/rest/webhook", "/webhooks/plain/webhook", "/webhooks/foreign/x"):
        response = wire.ask("OPTIONS", path, headers=asked)
        assert (response.status, response.body) == (200, b"")
        assert response.headers["access-control-allow-origin"] == "http://a"
        assert response.headers["access-control-allow-headers"] == "a, b"
    assert wire.get("/webhooks/nobody").headers["access-control-allow-origin"] == "*"
    assert wire.post("/webhooks/rest/webhook", {"sender": "u"}).headers["access-control-allow-origin"] == "*"
    assert wire.ask("OPTIONS", "/webhooks/nobody", headers=asked).status == 404
    assert wire.ask("OPTIONS", "/webhooks/foreign/x").text == "foreign"


def test_rights(serve: MakeWire, clock: Clock) -> None:
    """With rights on, channels ask for the API's token or JWT; a user may be nobody else. Health is open."""
    access = Access("t", TokenReader.from_settings(SECRET, "HS256", now))
    wire = wire_with(serve, clock, access)
    path = "/webhooks/rest/webhook"
    assert wire.post(path, {"sender": "u"}).status == 401
    assert wire.post("/webhooks/plain/webhook").status == 401
    assert wire.post(path + "?token=t", {"sender": "u"}).status == 200
    alice = f"Bearer {signed(user('user', username='alice'))}"
    assert wire.post(path, {"sender": "alice"}, Authorization=alice).status == 200
    assert wire.post(path, {"sender": "bob"}, Authorization=alice).status == 403
    assert wire.get("/webhooks/rest/").status == 200
    assert wire.ask("OPTIONS", path).status == 200


def test_application_on_its_own(serve: MakeWire) -> None:
    """An application that is served without the server reads bodies and lets everybody in."""
    assert serve(app.resource()).post("/webhook", {"sender": "u"}).json() == {"sender": "u"}
