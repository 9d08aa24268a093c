"""Base classes of channels: ways in for users' messages and ways out for the bot's.

The methods have their historical names. Where the historical ones blocked, these may also return a
coroutine or a Deferred: whoever calls them waits for it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred

from rasa_core_api.channels.collecting import collect
from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.messages import BotMessage, UserMessage
from rasa_core_api.releases import BY_NAME, Release

if TYPE_CHECKING:
    from klein import Klein
    from twisted.web.resource import IResource

    from rasa_core_api.endpoints import OutgoingHTTP

#: Hands a user's message to the bot. Without an `output` on the message the answers are returned.
OnNewMessage = Callable[[UserMessage], Coroutine["Deferred[Any]", Any, list[BotMessage]]]


C = TypeVar("C", bound="InputChannel")


class InputChannel:
    """Takes messages of users over HTTP, below `/webhooks/<url_prefix>/`."""

    #: Calls other servers; set before `blueprint` is asked for.
    http: OutgoingHTTP

    @classmethod
    def name(cls) -> str:
        """What trackers and logs call the channel."""
        return cls.__name__

    @classmethod
    def from_credentials(cls: type[C], credentials: Mapping[str, JSON] | None) -> C:
        """The channel with the settings of its section in the credentials file; None where there is none.

        Raises `InvalidConfiguration` for settings that are missing or wrong.
        """
        return cls()

    @staticmethod
    def raise_missing_credentials_exception(name: str = "this") -> None:
        """For `from_credentials` of a channel that cannot do without settings."""
        raise InvalidConfiguration(
            f"To use the {name} input channel, you need to pass a credentials file using '--credentials'. "
            f"It is a YAML file with a section '{name}:' that holds the channel's settings."
        )

    def url_prefix(self) -> str:
        """The path below `/webhooks/`."""
        return self.name()

    def connect(self, http: OutgoingHTTP) -> None:
        """Called once, before `blueprint`."""
        self.http = http

    def blueprint(self, on_new_message: OnNewMessage) -> Klein | IResource:
        """The routes. `GET /` among them is the health check."""
        raise NotImplementedError(f"{type(self).__name__} has no routes: it needs a method 'blueprint'")

    def reminder_output(self) -> OutputChannel | None:
        """Where messages go that no request waits for any more, as those of reminders after a restart."""
        return None

    def started(self, port: int) -> None:
        """Called when the server listens."""
        return None


class OutputChannel:
    """Sends what the bot says to one user or many.

    At least `send_text_message` is to be implemented; all else has a form in text.
    """

    @classmethod
    def name(cls) -> str:
        """What response generators and logs call the channel."""
        return cls.__name__

    def channel_name(self) -> str:
        """The name of this very object."""
        return self.name()

    async def send(self, recipient_id: str, response: Mapping[str, JSON]) -> None:
        """Send one response and wait until it is sent."""
        await settled(self.send_response(recipient_id, response))

    def send_response(self, recipient_id: str, message: Mapping[str, JSON]) -> Any:
        """Send a response by its members: elements, else buttons, else text; then image and attachment."""
        return _at_once(self._send_parts(recipient_id, message))

    async def _send_parts(self, recipient_id: str, message: Mapping[str, JSON]) -> None:
        text, buttons, elements = message.get("text"), message.get("buttons"), message.get("elements")
        if elements:
            await settled(self.send_custom_message(recipient_id, elements))
        elif buttons:
            await settled(self.send_text_with_buttons(recipient_id, text or "", buttons))
        elif text:
            await settled(self.send_text_message(recipient_id, text))
        if message.get("image"):
            await settled(self.send_image_url(recipient_id, message["image"]))
        if message.get("attachment"):
            await settled(self.send_attachment(recipient_id, message["attachment"]))

    def send_text_message(self, recipient_id: str, message: str) -> Any:
        """Send a text."""
        raise NotImplementedError(f"{type(self).__name__} sends nothing: it needs a method 'send_text_message'")

    def send_image_url(self, recipient_id: str, image_url: str) -> Any:
        """Send an image; here its URL as text."""
        return self.send_text_message(recipient_id, f"Image: {image_url}")

    def send_attachment(self, recipient_id: str, attachment: JSON) -> Any:
        """Send an attachment; here as text."""
        return self.send_text_message(recipient_id, f"Attachment: {attachment}")

    def send_text_with_buttons(
        self, recipient_id: str, message: str, buttons: Sequence[Mapping[str, JSON]], **kwargs: Any
    ) -> Any:
        """Send a text with buttons; here each button is a text of its own."""
        return _at_once(self._send_lines(recipient_id, [message, *button_lines(buttons)]))

    async def _send_lines(self, recipient_id: str, lines: Sequence[str]) -> None:
        for line in lines:
            await settled(self.send_text_message(recipient_id, line))

    def send_custom_message(self, recipient_id: str, elements: Sequence[Mapping[str, JSON]]) -> Any:
        """Send cards; here each is a text with buttons."""
        return _at_once(self._send_cards(recipient_id, elements))

    async def _send_cards(self, recipient_id: str, elements: Sequence[Mapping[str, JSON]]) -> None:
        for element in elements:
            text = f"{element.get('title', '')} : {element.get('subtitle', '')}"
            await settled(self.send_text_with_buttons(recipient_id, text, element.get("buttons") or []))


class CollectingOutputChannel(OutputChannel):
    """Keeps what the bot says, as the messages that clients of the HTTP API get.

    `release` decides where images and attachments are texts (before 0.11).
    """

    def __init__(self, release: Release = BY_NAME["0.11"]) -> None:
        self._release = release
        self.collected: list[BotMessage] = []

    @classmethod
    def name(cls) -> str:
        return "collector"

    @property
    def messages(self) -> list[dict[str, JSON]]:
        """The messages so far, as JSON objects."""
        return [message.as_dict() for message in self.collected]

    def latest_output(self) -> dict[str, JSON] | None:
        """The last message, None where there is none."""
        return self.collected[-1].as_dict() if self.collected else None

    def keep(self, messages: Sequence[BotMessage]) -> Any:
        """Called with the messages of each response, in order."""
        self.collected += messages

    def send_response(self, recipient_id: str, message: Mapping[str, JSON]) -> Any:
        return self.keep(collect(recipient_id, message, self._release))

    def send_text_message(self, recipient_id: str, message: str) -> Any:
        return self.send_response(recipient_id, {"text": message})

    def send_image_url(self, recipient_id: str, image_url: str) -> Any:
        return self.send_response(recipient_id, {"image": image_url})

    def send_attachment(self, recipient_id: str, attachment: JSON) -> Any:
        return self.send_response(recipient_id, {"attachment": attachment})

    def send_text_with_buttons(
        self, recipient_id: str, message: str, buttons: Sequence[Mapping[str, JSON]], **kwargs: Any
    ) -> Any:
        return self.send_response(recipient_id, {"text": message, "buttons": list(buttons)})

    def send_custom_message(self, recipient_id: str, elements: Sequence[Mapping[str, JSON]]) -> Any:
        return self.send_response(recipient_id, {"elements": list(elements)})


def button_lines(buttons: Sequence[Mapping[str, JSON]]) -> list[str]:
    """Buttons as texts: `1: title (payload)`, other members behind that as JSON."""
    lines = []
    for number, button in enumerate(buttons, 1):
        line = f"{number}: {button.get('title', '')}"
        if "payload" in button:
            line += f" ({button['payload']})"
        rest = {name: value for name, value in button.items() if name not in ("title", "payload")}
        lines.append(f"{line} - {json.dumps(rest, sort_keys=True)}" if rest else line)
    return lines


async def settled(result: Any) -> Any:
    """The value of a plain result, or of a coroutine or Deferred once it has one."""
    return await result if isawaitable(result) else result


def _at_once(work: Coroutine[Deferred[Any], Any, None]) -> Awaitable[None]:
    """Begin now, so that a caller who does not wait still sends in order."""
    return Deferred.fromCoroutine(work)
