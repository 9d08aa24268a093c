"""Tests of the channel `callback`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from rasa_core_api.channels.callback import CallbackInput
from rasa_core_api.endpoints import ConnectionFailed
from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.server import Server
from rasa_core_api.server_settings import ServerSettings
from tests.fakes import Bot, FakeHTTP
from tests.samples import domain
from tests.wire import Wire

URL = "http://ours/bot"
WEBHOOK = "/webhooks/callback/webhook"


class HTTP(FakeHTTP):
    """A fake that can be prepared."""

    def prepare(self) -> None:
        self.prepared = True


def serve(answer: Callable[[Any], Any]) -> tuple[Bot, HTTP, Wire]:
    http = HTTP({URL: answer})
    bot = Bot(domain("0.11"), {"greet": ["utter_hi", "utter_bye"]}, http=http)
    channel = CallbackInput.from_credentials({"url": URL, "token": "secret"})
    channel.connect(http)  # type: ignore[arg-type]
    mounts = [(channel.url_prefix(), channel.blueprint(bot.agent.handle_message))]
    return bot, http, Wire(Server(bot.agent, ServerSettings(), mounts).site(), bot.clock)


def test_answers_are_posted() -> None:
    """Each message is a request, in order; the webhook answers when all are posted."""
    bot, http, wire = serve(lambda content: (200, b""))
    answer = wire.post(WEBHOOK, {"sender": "ann", "message": "/greet"})
    assert (answer.status, answer.text) == (200, "success")
    assert http.prepared
    assert [url for url, _ in http.calls] == [URL, URL]
    assert all(content["recipient_id"] == "ann" and "text" in content for _, content in http.calls)
    (user,) = [event for event in bot.log("ann") if event["event"] == "user"]
    assert user["input_channel"] == "callback"


def test_each_waits_for_the_one_before() -> None:
    """The second message is posted when the first was taken, and only what is stored is posted."""
    waiting: list[Deferred[Any]] = []

    def answer(content: Any) -> Deferred[Any]:
        waiting.append(Deferred())
        return waiting[-1]

    bot, _, wire = serve(answer)
    connection = wire.begin("POST", WEBHOOK, {"sender": "ann", "message": "/greet"})
    assert len(waiting) == 1
    assert [event["name"] for event in bot.log("ann") if event["event"] == "action"][-1] == "utter_hi"
    waiting[0].callback((200, b""))
    connection.rounds()
    assert len(waiting) == 2
    waiting[1].callback((200, b""))
    connection.rounds()
    assert connection.response("POST").text == "success"


def test_messages_that_nobody_takes() -> None:
    """A refusal or a failure is logged without what was said; the turn goes on."""

    def refuse(content: Any) -> Any:
        if len(http.calls) == 1:
            raise ConnectionFailed("http://ours/bot cannot be reached: refused")
        return (500, b"")

    events: list[LogEvent] = []
    bot, http, wire = serve(refuse)
    globalLogPublisher.addObserver(events.append)  # type: ignore[arg-type]
    try:
        assert wire.post(WEBHOOK, {"sender": "ann", "message": "/greet"}).text == "success"
    finally:
        globalLogPublisher.removeObserver(events.append)  # type: ignore[arg-type]
    errors = [event for event in events if event["log_level"].name == "error"]
    assert [event.get("status") for event in errors] == [None, 500]
    assert bot.kinds("ann")[-1] == "action action_listen"


def test_unknown_keys() -> None:
    """A key that means nothing is told, not passed over in silence."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    try:
        CallbackInput.from_credentials({"url": URL, "timeout": 3, "timout": 3})
    finally:
        globalLogPublisher.removeObserver(observe)
    assert lines == ["callback.timout: nothing uses this key"]


def test_bad_bodies() -> None:
    """A message without text is refused."""
    _, _, wire = serve(lambda content: (200, b""))
    assert wire.post(WEBHOOK, {"sender": "ann"}).status == 400
    assert wire.get("/webhooks/callback/").json() == {"status": "ok"}


@pytest.mark.parametrize("section", [None, {}])
def test_missing_settings(section: Any) -> None:
    """The channel cannot do without its URL."""
    with pytest.raises(InvalidConfiguration, match="To use the callback input channel"):
        CallbackInput.from_credentials(section)
    with pytest.raises(InvalidConfiguration, match=r"callback\.url"):
        CallbackInput.from_credentials({"token": "x"})
