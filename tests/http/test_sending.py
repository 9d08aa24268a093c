"""Tests of sending JSON, short and long."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.web.server import Request

from rasa_core_api.concurrency import Slices
from rasa_core_api.events import Event, SlotSet
from rasa_core_api.http import sending
from rasa_core_api.http.routing import App, Routes
from rasa_core_api.http.sending import (
    STALL,
    Replies,
    list_texts,
    message_dict,
    send_json,
    send_nothing,
    send_text,
    texts_of,
    view_texts,
)
from rasa_core_api.messages import BotMessage
from rasa_core_api.tracker_views import TrackerView
from tests.conftest import LoggedFailures
from tests.http.conftest import MakeWire
from tests.wire import Connection, Wire

STATE = {"sender_id": "ü", "active_form": {}, "slots": {"a": None}, "paused": False}


def events(count: int, size: int = 10) -> list[Event]:
    return [SlotSet(key="a", value="x" * size, timestamp=float(number)) for number in range(count)]


class Bench:
    app = App()

    def __init__(self, clock: Clock) -> None:
        self.replies = Replies(Slices(clock), clock)
        self.view = TrackerView(STATE, events(3))
        self.made = 0

    @app.route("/tracker", methods=["GET"])
    async def tracker(self, request: Request) -> bytes | None:
        return await self.replies.tracker(request, self.view)

    @app.route("/members", methods=["GET"])
    async def members(self, request: Request) -> bytes | None:
        return await self.replies.members(request, {"tracker": self.view, "messages": [1], "z": None})

    @app.route("/pieces", methods=["GET"])
    async def pieces(self, request: Request) -> bytes | None:
        return await self.replies.texts(request, self.texts)

    def texts(self) -> Iterator[str]:
        for self.made in range(1, 2_001):
            yield "x" * 1_000

    @app.route("/text", methods=["GET"])
    def text(self, request: Request) -> bytes:
        return send_text(request, "ä", b"text/markdown; charset=utf-8")

    @app.route("/nothing", methods=["POST"])
    def nothing(self, request: Request) -> bytes:
        return send_nothing(request)

    @app.route("/created", methods=["GET"])
    def created(self, request: Request) -> bytes:
        return send_json(request, {"b": 1, "a": "ü\u2028", "c": [1.0, None]}, 201)


@pytest.fixture
def bench(clock: Clock) -> Bench:
    return Bench(clock)


@pytest.fixture
def wire(bench: Bench, serve: MakeWire) -> Wire:
    return serve(Routes(bench.app))


def expected(view: TrackerView) -> dict[str, Any]:
    shown = None if view.events is None else [event.as_dict() for event in view.events]
    return {**view.state, "events": shown}


def test_json(wire: Wire) -> None:
    """Compact, sorted, ASCII, with a newline; the length is told."""
    response = wire.get("/created")
    assert response.status == 201
    assert response.body == b'{"a":"\\u00fc\\u2028","b":1,"c":[1.0,null]}\n'
    assert response.headers["content-length"] == str(len(response.body))
    assert response.headers["content-type"] == "application/json"
    assert "transfer-encoding" not in response.headers


def test_other_bodies(wire: Wire) -> None:
    """Text has its type, and nothing is nothing."""
    response = wire.get("/text")
    assert (response.text, response.headers["content-type"]) == ("ä", "text/markdown; charset=utf-8")
    response = wire.post("/nothing")
    assert (response.status, response.body) == (204, b"")
    assert "content-length" not in response.headers and "content-type" not in response.headers


def test_messages() -> None:
    """Buttons are mirrored to `data`; what is not there is left out."""
    buttons = [{"title": "a", "payload": "/a"}]
    assert message_dict(BotMessage("u", "hi", buttons=buttons)) == {
        "recipient_id": "u",
        "text": "hi",
        "buttons": buttons,
        "data": buttons,
    }
    assert message_dict(BotMessage("u", image="http://i")) == {"recipient_id": "u", "image": "http://i"}


@pytest.mark.parametrize("shown", [None, [], events(1), events(3)])
@pytest.mark.parametrize("state", [STATE, {"a": 1}, {"z": 1}])
def test_tracker_texts(shown: list[Event] | None, state: dict[str, Any]) -> None:
    """A tracker's text in pieces is the text of the whole, its members sorted."""
    view = TrackerView(state, shown)
    text = "".join(view_texts(view))
    assert text == sending.encode(expected(view))
    members = {"tracker": view, "b": [1], "x": "ü"}
    assert "".join(texts_of(members)) == sending.encode({**members, "tracker": expected(view)})


def test_list_texts() -> None:
    """A list in pieces is the text of the whole."""
    for values in ([], ["a"], ["a", "ü", {"b": None}]):
        assert "".join(list_texts(values)) == sending.encode(values)
    assert "".join(texts_of({})) == "{}"


@pytest.mark.parametrize("count", [0, 3, 5_000])
def test_trackers(wire: Wire, bench: Bench, count: int) -> None:
    """A tracker arrives whole, its length told first, however long it is."""
    bench.view = TrackerView(STATE, events(count))
    response = wire.get("/tracker")
    assert response.json() == expected(bench.view)
    assert response.headers["content-length"] == str(len(response.body))
    assert wire.get("/members").json() == {"tracker": expected(bench.view), "messages": [1], "z": None}
    head = wire.ask("HEAD", "/tracker")
    assert (head.headers["content-length"], head.body) == (response.headers["content-length"], b"")


class SlowClient:
    """Reads an answer only when told."""

    def __init__(self, wire: Wire, path: bytes = b"/tracker") -> None:
        self.connection: Connection = wire.connect()
        self.transport = self.connection.transport
        self.transport.capacity = 64_000
        self.taken = b""
        self.connection.send(b"GET " + path + b" HTTP/1.1\r\n\r\n")
        self.connection.rounds()

    def take(self) -> None:
        """Read what is there, which makes room for more."""
        self.taken += self.transport.value()
        self.transport.clear()
        self.transport.producer.resumeProducing()
        self.connection.rounds()


@pytest.fixture
def slow(wire: Wire, bench: Bench) -> SlowClient:
    bench.view = TrackerView(STATE, events(2_000, 1_000))
    return SlowClient(wire)


def test_slow_clients(slow: SlowClient) -> None:
    """A client that reads slowly is sent no more than it takes, and gets everything in the end."""
    for _ in range(3):
        assert 0 < len(slow.transport.value()) < 200_000
        slow.take()
    while slow.transport.value():
        slow.take()
    head, _, body = slow.taken.partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % len(body) in head
    assert len(json.loads(body)["events"]) == 2_000


def test_memory_of_slow_clients(wire: Wire, bench: Bench) -> None:
    """What a slow client has no room for yet is not made."""
    slow = SlowClient(wire, b"/pieces")
    assert 0 < bench.made < 200
    while slow.transport.value():
        slow.take()
    assert bench.made == 2_000
    assert slow.taken.partition(b"\r\n\r\n")[2] == b"x" * 2_000_000 + b"\n"


def test_stalled_clients(slow: SlowClient, clock: Clock) -> None:
    """A client that takes nothing for long is cut off; one that takes a little gets more time."""
    clock.advance(STALL - 1)
    slow.take()
    clock.advance(STALL - 1)
    assert not slow.transport.aborted
    clock.advance(1)
    assert slow.transport.aborted


def test_hang_up_in_the_middle(slow: SlowClient, clock: Clock, logged: LoggedFailures) -> None:
    """A client that leaves in the middle of an answer leaves nothing behind."""
    slow.transport.producer.stopProducing()
    slow.connection.hang_up()
    slow.connection.rounds()
    assert clock.getDelayedCalls() == []
    assert logged.take() == []


def test_json_that_is_none(wire: Wire, bench: Bench, logged: LoggedFailures) -> None:
    """A value that is no JSON is the server's fault, told before anything is sent."""
    bench.view = TrackerView({**STATE, "slots": {"a": float("inf")}}, events(5_000))
    response = wire.get("/tracker")
    assert response.status == 500
    assert json.loads(response.body)["message"] == "internal error"
    assert logged.take() == [ValueError]
