"""Tests of the header `Idempotency-Key`, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from rasa_core_api.channels.rest import RestInput
from rasa_core_api.endpoints import EndpointConfig, Endpoints
from rasa_core_api.server import Server
from rasa_core_api.server_settings import ServerSettings
from tests.fakes import Bot, FakeHTTP
from tests.samples import domain
from tests.wire import Wire

ACTIONS = "http://actions"
SCRIPT: dict[str | None, list[str]] = {"greet": ["utter_hi"], "inform": ["action_search"]}
RESPOND = "/conversations/u/respond"


class Served:
    """A bot behind its API and its rest channel, with an action server that waits while there is a gate."""

    def __init__(self) -> None:
        self.gate: Deferred[Any] | None = None
        found = (200, {"events": [], "responses": [{"text": "found"}]})
        self.http = FakeHTTP({ACTIONS: lambda call: self.gate or found})
        endpoints = Endpoints(action_endpoint=EndpointConfig(url=ACTIONS))
        self.bot = Bot(domain("0.11"), SCRIPT, http=self.http, endpoints=endpoints)
        channels = [("rest", RestInput().blueprint(self.bot.agent.handle_message))]
        self.wire = Wire(Server(self.bot.agent, ServerSettings(), channels).site(), self.bot.clock)

    def ask(self, text: str, key: str | None, path: str = RESPOND) -> Any:
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.wire.ask("POST", path, {"query": text}, headers)


@pytest.fixture
def served() -> Served:
    return Served()


def test_repeat_is_answered_as_before(served: Served) -> None:
    """The same request with the same key is answered with the same bytes, and runs nothing."""
    first = served.ask("/inform", "a key")
    assert first.status == 200 and first.json() == [{"recipient_id": "u", "text": "found"}]
    assert served.ask("/inform", "a key").body == first.body
    assert served.ask("/inform", "a key", RESPOND + "?token=other").body == first.body  # who asks is not what is asked
    assert len(served.http.calls) == 1
    assert served.ask("/inform", None).body == first.body
    assert len(served.http.calls) == 2


def test_other_body_or_path_under_the_key(served: Served) -> None:
    """A key that was used for something else is answered with 422."""
    served.ask("/inform", "k")
    for answer in (
        served.ask("/greet", "k"),
        served.ask("/inform", "k", RESPOND + "?x=1"),
        served.ask("/inform", "k", "/conversations/u/parse"),
    ):
        assert (answer.status, answer.json()["reason"]) == (422, "IdempotencyKeyReused")
    assert len(served.http.calls) == 1


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "caf\xe9", "a\x01b"])
def test_keys_that_are_none(served: Served, key: str) -> None:
    """A key is 1 to 255 printable ASCII characters."""
    answer = served.ask("/greet", key)
    assert answer.status == 400
    assert served.bot.kinds() == []


def test_first_client_hung_up(served: Served) -> None:
    """A turn whose client left is finished, and the client that asks again gets its answer."""
    served.gate = Deferred()
    connection = served.wire.connect()
    body = b'{"query": "/inform"}'
    connection.send(
        b"POST " + RESPOND.encode() + b" HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\nContent-Length: %d\r\n\r\n"
        % len(body) + body
    )  # fmt: skip
    connection.rounds()
    connection.hang_up()
    gate, served.gate = served.gate, None
    gate.callback((200, {"events": [], "responses": [{"text": "slow"}]}))
    served.bot.clock.pump([0] * 10)
    assert served.ask("/inform", "k").json()[0]["text"] == "slow"
    assert len(served.http.calls) == 1


def test_message_id_of_the_rest_channel(served: Served) -> None:
    """The channel's `message_id` is a key: at once, as a stream, and from one to the other."""
    ask = {"sender": "u", "message": "/inform", "message_id": 17}
    first = served.wire.post("/webhooks/rest/webhook", ask)
    assert served.wire.post("/webhooks/rest/webhook", ask).body == first.body
    stream = served.wire.post("/webhooks/rest/webhook?stream=true", {**ask, "message_id": "17"})
    assert stream.body == b'{"recipient_id": "u", "text": "found"}\n'
    assert len(served.http.calls) == 1
    assert served.wire.post("/webhooks/rest/webhook", {**ask, "message": "/greet"}).status == 422
    for wrong in ({}, [1], "x" * 256, "a\nb", 1.5, True):
        answer = served.wire.post("/webhooks/rest/webhook", {**ask, "message_id": wrong})
        assert answer.status == 400 and answer.json()["details"]["parameter"] == "message_id"
