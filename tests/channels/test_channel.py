"""Tests of the base classes of channels."""

from __future__ import annotations

from typing import Any

import pytest
from klein import Klein
from twisted.internet.defer import Deferred, succeed

from rasa_core_api.channels import CollectingOutputChannel, InputChannel, OutputChannel, UserMessage
from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.releases import BY_NAME
from rasa_core_api.server import Server
from rasa_core_api.server_settings import ServerSettings
from tests.fakes import Bot
from tests.samples import domain
from tests.wire import Wire

BUTTONS = [{"title": "Yes", "payload": "/affirm"}, {"title": "No"}, {"payload": "/x", "type": "web", "a": 1}]


class Recorder(OutputChannel):
    """Keeps the texts that it is to send."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []

    def send_text_message(self, recipient_id: str, message: str) -> Any:
        self.sent.append((recipient_id, message))


class Coroutines(Recorder):
    """The same in coroutines."""

    async def send_text_message(self, recipient_id: str, message: str) -> Any:
        await succeed(None)
        self.sent.append((recipient_id, message))


class Deferreds(Recorder):
    """The same with a Deferred that fires late."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Deferred[None]] = []

    def send_text_message(self, recipient_id: str, message: str) -> Any:
        waiter: Deferred[None] = Deferred()
        waiter.addCallback(lambda _: self.sent.append((recipient_id, message)))
        self.waiting.append(waiter)
        return waiter


def sent(channel: Recorder, **response: Any) -> list[str]:
    done: list[Any] = []
    Deferred.fromCoroutine(channel.send("u", response)).addCallback(done.append)
    assert done
    return [text for _, text in channel.sent]


@pytest.mark.parametrize("kind", [Recorder, Coroutines])
@pytest.mark.parametrize(
    ("response", "texts"),
    [
        ({"text": "a\n\nb"}, ["a\n\nb"]),
        ({"text": None}, []),
        ({"text": "a", "buttons": BUTTONS}, ["a", "1: Yes (/affirm)", "2: No", '3:  (/x) - {"a": 1, "type": "web"}']),
        ({"text": None, "buttons": BUTTONS[:1]}, ["", "1: Yes (/affirm)"]),
        ({"text": "a", "image": "http://i", "attachment": {"x": 1}}, ["a", "Image: http://i", "Attachment: {'x': 1}"]),
        ({"text": "a", "elements": [{"title": "T", "buttons": BUTTONS[:1]}, {}]}, ["T : ", "1: Yes (/affirm)", " : "]),
        ({"custom": 1}, []),
    ],
)
def test_forms_in_text(kind: type[Recorder], response: dict[str, Any], texts: list[str]) -> None:
    """What a channel has no form for is sent as text; elements suppress text and buttons."""
    assert sent(kind(), **response) == texts


def test_buttons_are_left_as_they_were() -> None:
    """Formatting takes nothing out of a button."""
    buttons = [dict(button) for button in BUTTONS]
    sent(Recorder(), text="a", buttons=buttons)
    assert buttons == BUTTONS


def test_sending_waits() -> None:
    """The next part is sent when the one before it is."""
    channel = Deferreds()
    done: list[Any] = []
    Deferred.fromCoroutine(channel.send("u", {"text": "a", "image": "b"})).addCallback(done.append)
    assert len(channel.waiting) == 1 and not done
    channel.waiting[0].callback(None)
    assert len(channel.waiting) == 2 and not done
    channel.waiting[1].callback(None)
    assert done and [text for _, text in channel.sent] == ["a", "Image: b"]


def test_a_method_that_does_not_wait() -> None:
    """A channel written for blocking calls may override one form and send in order without waiting."""

    class Old(Recorder):
        def send_response(self, recipient_id: str, message: Any) -> None:
            self.send_text_with_buttons(recipient_id, "a", BUTTONS[:1])
            self.send_text_message(recipient_id, "b")

    assert sent(Old(), text="x") == ["a", "1: Yes (/affirm)", "b"]


def test_a_channel_that_sends_nothing() -> None:
    """A channel without texts says what it lacks."""
    with pytest.raises(NotImplementedError, match="OutputChannel sends nothing"):
        OutputChannel().send_text_message("u", "x")
    with pytest.raises(NotImplementedError, match="needs a method 'blueprint'"):
        InputChannel().blueprint(None)  # type: ignore[arg-type]


def test_names() -> None:
    """A channel is called after its class unless it says otherwise; its path likewise."""
    assert (Recorder.name(), Recorder().channel_name(), InputChannel().url_prefix()) == (
        "Recorder",
        "Recorder",
        "InputChannel",
    )
    assert CollectingOutputChannel.name() == "collector"


def test_missing_credentials() -> None:
    """A channel that needs settings can say so."""
    with pytest.raises(InvalidConfiguration, match=r"To use the mine input channel, .* '--credentials'\."):
        InputChannel.raise_missing_credentials_exception("mine")


def test_collecting() -> None:
    """The collecting channel keeps messages as clients of the HTTP API get them."""
    channel = CollectingOutputChannel()
    assert channel.latest_output() is None
    done: list[Any] = []
    Deferred.fromCoroutine(channel.send("u", {"text": "a\n\nb", "image": "i"})).addCallback(done.append)
    channel.send_text_message("u", "c")
    channel.send_text_with_buttons("u", "d", [{"title": "t"}])
    channel.send_attachment("u", {"x": 1})
    channel.send_custom_message("u", [{"title": "t"}])
    assert channel.messages == [
        {"recipient_id": "u", "text": "a"},
        {"recipient_id": "u", "text": "b"},
        {"recipient_id": "u", "image": "i"},
        {"recipient_id": "u", "text": "c"},
        {"recipient_id": "u", "text": "d", "buttons": [{"title": "t"}]},
        {"recipient_id": "u", "attachment": {"x": 1}},
        {"recipient_id": "u", "text": "t : ", "buttons": []},
    ]
    assert channel.latest_output() == channel.messages[-1]


def test_collecting_before_images_had_a_form() -> None:
    """Before 0.11 an image was a text."""
    channel = CollectingOutputChannel(BY_NAME["0.9"])
    channel.send_image_url("u", "i")
    assert channel.messages == [{"recipient_id": "u", "text": "Image: i"}]


class Text(InputChannel):
    """A channel of somebody's own, on a plain Klein application."""

    def __init__(self, output: OutputChannel) -> None:
        self.output = output

    def blueprint(self, on_new_message: Any) -> Any:
        app = Klein()

        @app.route("/", methods=["GET"])
        def health(request: Any) -> bytes:
            return b"ok"

        @app.route("/webhook", methods=["POST"])
        async def receive(request: Any) -> bytes:
            text = request.content.read().decode("utf-8")
            message = UserMessage(text=text, sender_id="ada", input_channel=self.name(), output=self.output)
            await on_new_message(message)
            return b"taken"

        return app


def test_a_channel_of_ones_own() -> None:
    """A channel with plain Klein routes talks to the bot; the log has its name."""
    bot = Bot(domain("0.11"), {"greet": ["utter_bye"]})
    output = Recorder()
    channel = Text(output)
    mounts = [(channel.url_prefix(), channel.blueprint(bot.agent.handle_message))]
    wire = Wire(Server(bot.agent, ServerSettings(), mounts).site(), bot.clock)
    assert wire.get("/webhooks/Text/").text == "ok"
    assert wire.post("/webhooks/Text/webhook", b"/greet").text == "taken"
    assert output.sent == [("ada", "bye"), ("ada", "1: again (/greet)")]
    (user,) = [event for event in bot.log("ada") if event["event"] == "user"]
    assert user["input_channel"] == "Text"
