"""Tests of the channel `rest`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from rasa_core_api.channels.rest import RestInput
from rasa_core_api.exceptions import StoreUnavailable
from rasa_core_api.messages import BotMessage, UserMessage
from rasa_core_api.server import Server
from rasa_core_api.server_settings import ServerSettings
from tests.conftest import LoggedFailures
from tests.fakes import Bot
from tests.samples import domain
from tests.wire import Wire

SCRIPT: dict[str | None, list[str]] = {"greet": ["utter_hi", "utter_hi"], "bye": ["utter_bye"]}
WEBHOOK = "/webhooks/rest/webhook"


def serve(bot: Bot, on_new_message: Callable[[UserMessage], Any] | None = None, **settings: Any) -> Wire:
    channel = RestInput()
    mounts = [(channel.url_prefix(), channel.blueprint(on_new_message or bot.agent.handle_message))]
    return Wire(Server(bot.agent, ServerSettings(**settings), mounts).site(), bot.clock)


@pytest.fixture
def bot() -> Bot:
    return Bot(domain("0.11"), SCRIPT)


@pytest.fixture
def wire(bot: Bot) -> Wire:
    return serve(bot)


def lines(body: bytes) -> list[Any]:
    assert body == b"" or body.endswith(b"\n")
    return [json.loads(line) for line in body.splitlines()]


def test_health(wire: Wire) -> None:
    """The health check answers; without its slash it points there."""
    assert wire.get("/webhooks/rest/").json() == {"status": "ok"}
    moved = wire.get("/webhooks/rest?x=1")
    assert (moved.status, moved.headers["location"]) == (308, "/webhooks/rest/?x=1")


def test_a_message(bot: Bot, wire: Wire) -> None:
    """The answers are a list; the log says which channel it was."""
    answer = wire.post(WEBHOOK, {"sender": "ann", "message": "/greet"})
    assert answer.status == 200
    assert [message["recipient_id"] for message in answer.json()] == ["ann", "ann"]
    (user,) = [event for event in bot.log("ann") if event["event"] == "user"]
    assert (user["text"], user["input_channel"]) == ("/greet", "rest")


def test_any_content_type(wire: Wire) -> None:
    """The body is read as JSON whatever its type says."""
    body = b'{"message": "/greet"}'
    answer = wire.post(WEBHOOK, body, Content_Type="application/x-www-form-urlencoded")
    assert [message["recipient_id"] for message in answer.json()] == ["default", "default"]


@pytest.mark.parametrize(("sender", "stored"), [(None, "default"), ("", "default"), (17, "17"), ("a b/ü😀", "a b/ü😀")])
def test_senders(bot: Bot, wire: Wire, sender: Any, stored: str) -> None:
    """No sender is the default one; numbers are texts."""
    assert wire.post(WEBHOOK, {"sender": sender, "message": "/bye"}).status == 200
    assert bot.wait(bot.agent.sender_ids()) == [stored]


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ([], ""),
        ({}, "message"),
        ({"sender": "a"}, "message"),
        ({"message": None}, "message"),
        ({"message": 1}, "message"),
        ({"message": "x", "sender": ["a"]}, "sender"),
        ({"message": "x", "sender": True}, "sender"),
        ({"message": "x", "sender": "a\nb"}, "sender"),
        ({"message": "x", "sender": "a" * 1025}, "sender"),
    ],
)
def test_bad_bodies(bot: Bot, wire: Wire, body: Any, parameter: str) -> None:
    """What is missing or wrong is named, and nothing is stored."""
    for query in ("", "?stream=true"):
        answer = wire.post(WEBHOOK + query, body)
        assert answer.status == 400
        assert answer.json()["details"] == {"parameter": parameter, "in": "body"}
    assert bot.wait(bot.agent.sender_ids()) == []


def test_malformed_json(wire: Wire) -> None:
    """A body that is no JSON is told so."""
    assert (wire.post(WEBHOOK, b"{").status, wire.post(WEBHOOK, b"{").json()["reason"]) == (400, "InvalidJson")


def test_no_model_yet(bot: Bot, wire: Wire) -> None:
    """While no model is loaded the message is dropped and the answer is empty."""
    bot.agent.served.current = None
    assert wire.post(WEBHOOK, {"message": "/greet"}).json() == []
    assert wire.post(WEBHOOK + "?stream=true", {"message": "/greet"}).body == b""


def test_streaming(bot: Bot, wire: Wire) -> None:
    """A stream has a line of JSON for each message, and says so in its type."""
    answer = wire.post(WEBHOOK + "?stream=True&token=", {"sender": "ann", "message": "/greet"})
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["transfer-encoding"] == "chunked"
    assert [line["recipient_id"] for line in lines(answer.body)] == ["ann", "ann"]
    assert answer.body.startswith(b'{"recipient_id": "ann", "text": ')


class Slow:
    """Handles messages by hand: says what it is told to, when it is told to."""

    def __init__(self) -> None:
        self.messages: list[UserMessage] = []
        self.over: Deferred[list[BotMessage]] = Deferred()

    async def __call__(self, message: UserMessage) -> list[BotMessage]:
        self.messages.append(message)
        return await self.over

    def say(self, **response: Any) -> None:
        output: Any = self.messages[0].output
        Deferred.fromCoroutine(output.send(self.messages[0].sender_id, response))


def test_a_stream_flows(bot: Bot) -> None:
    """Each message leaves when it is said; the stream ends with the turn."""
    bot_by_hand = Slow()
    connection = serve(bot, bot_by_hand).begin("POST", WEBHOOK + "?stream=true", {"message": "hi"})
    assert connection.transport.value() == b""
    bot_by_hand.say(text="one\n\ntwo", buttons=None)
    assert connection.transport.value().count(b"recipient_id") == 2
    bot_by_hand.say(text="t", buttons=[{"title": "a", "payload": "/b"}], image="i", attachment={"x": 1})
    assert not connection.transport.value().endswith(b"0\r\n\r\n")
    bot_by_hand.over.callback([])
    answer = connection.response("POST")
    assert answer.body.splitlines()[2:] == [
        b'{"recipient_id": "default", "text": "t", "buttons": [{"title": "a", "payload": "/b"}]}',
        b'{"recipient_id": "default", "image": "i"}',
        b'{"recipient_id": "default", "attachment": {"x": 1}}',
    ]


@pytest.mark.parametrize(("error", "traces"), [(RuntimeError("broken"), 1), (StoreUnavailable("away"), 0)])
def test_a_stream_is_cut_off_on_errors(bot: Bot, logged: LoggedFailures, error: Exception, traces: int) -> None:
    """A failure after the first message is logged, and the stream cannot pass for complete: the client asks again."""
    bot_by_hand = Slow()
    connection = serve(bot, bot_by_hand).begin("POST", WEBHOOK + "?stream=true", {"message": "hi"})
    bot_by_hand.say(text="one")
    bot_by_hand.over.errback(error)
    connection.rounds()
    sent = connection.transport.value()
    assert sent.count(b"recipient_id") == 1 and not sent.endswith(b"0\r\n\r\n")
    assert connection.transport.disconnecting
    assert logged.take() == [type(error)] * traces


def test_a_stream_that_fails_at_once(bot: Bot) -> None:
    """A failure before the first message has its status, so that the client can try again."""
    bot_by_hand = Slow()
    connection = serve(bot, bot_by_hand).begin("POST", WEBHOOK + "?stream=true", {"message": "hi"})
    bot_by_hand.over.errback(StoreUnavailable("the store is full"))
    answer = connection.response("POST")
    assert (answer.status, answer.json()["reason"]) == (503, "Unavailable")


def test_a_client_that_hangs_up(bot: Bot) -> None:
    """The turn goes on when the client of its stream is gone; what it says then is not sent."""
    bot_by_hand = Slow()
    connection = serve(bot, bot_by_hand).begin("POST", WEBHOOK + "?stream=true", {"message": "hi"})
    bot_by_hand.say(text="one")
    connection.hang_up()
    sent = connection.transport.value()
    bot_by_hand.say(text="two")
    bot_by_hand.over.callback([])
    assert connection.transport.value() == sent


def test_rights(bot: Bot) -> None:
    """Channels are open unless they are to ask for the token too; the health check stays open."""
    body = {"sender": "ann", "message": "/greet"}
    assert serve(bot, auth_token="secret").post(WEBHOOK, body).status == 200
    closed = serve(bot, auth_token="secret", channel_auth=True)
    assert closed.post(WEBHOOK, body).status == 401
    assert closed.post(WEBHOOK + "?token=secret", body).status == 200
    assert closed.get("/webhooks/rest/").status == 200


def test_a_channel_derived_from_it(bot: Bot) -> None:
    """A channel of one's own may decide whose message it is and what it is called."""

    class Mine(RestInput):
        @classmethod
        def name(cls) -> str:
            return "mine"

        async def sender_of(self, request: Any, body: Any) -> str:
            return f"mine-{body['sender']}"

    channel = Mine()
    mounts = [(channel.url_prefix(), channel.blueprint(bot.agent.handle_message))]
    wire = Wire(Server(bot.agent, ServerSettings(), mounts).site(), bot.clock)
    assert wire.post("/webhooks/mine/webhook", {"sender": "ann", "message": "/greet"}).status == 200
    (user,) = [event for event in bot.log("mine-ann") if event["event"] == "user"]
    assert user["input_channel"] == "mine"
