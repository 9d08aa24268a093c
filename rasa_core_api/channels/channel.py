"""The interfaces of channels; method names are those that custom channels were written against."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from rasa_core_api.constants import JSON
from rasa_core_api.messages import BotMessage, UserMessage

#: Hands a message to the agent; answers that go to a channel are not returned.
OnNewMessage = Callable[[UserMessage], Awaitable[list[BotMessage]]]


class InputChannel:
    """Where messages of users come from: routes below `/webhooks/<url_prefix>/`."""

    @classmethod
    def name(cls) -> str:
        """The name in credential files and in the log of conversations."""
        return cls.__name__

    @classmethod
    def from_credentials(cls, credentials: Mapping[str, JSON] | None) -> InputChannel:
        """The channel that a section of a credentials file configures. Raises `InvalidConfiguration`."""
        return cls()

    def url_prefix(self) -> str:
        """The path below `/webhooks/`."""
        return self.name()

    def blueprint(self, on_new_message: OnNewMessage) -> Any:
        """The routes: a Klein application or a Twisted resource."""
        raise NotImplementedError(f"the channel {self.name()!r} has no routes")

    def started(self, port: int) -> None:
        """The server listens."""


class OutputChannel:
    """Where the answers of a bot go. Methods may be plain, coroutines or return Deferreds."""

    @classmethod
    def name(cls) -> str:
        """What response generation servers are told."""
        return cls.__name__

    def channel_name(self) -> str:
        return self.name()

    async def send(self, recipient_id: str, response: Mapping[str, JSON]) -> None:
        """Send one response, in the historical order of its parts."""
        await settled(self.send_response(recipient_id, dict(response)))

    async def send_response(self, recipient_id: str, message: dict[str, JSON]) -> None:
        """Elements, else buttons, else text; then the image; then the attachment."""
        if message.get("elements"):
            await settled(self.send_custom_message(recipient_id, message["elements"]))
        elif message.get("buttons"):
            await settled(
                self.send_text_with_buttons(recipient_id, message.get("text") or "", message["buttons"])
            )
        elif message.get("text"):
            await settled(self.send_text_message(recipient_id, message["text"]))
        if message.get("image"):
            await settled(self.send_image_url(recipient_id, message["image"]))
        if message.get("attachment"):
            await settled(self.send_attachment(recipient_id, message["attachment"]))

    def send_text_message(self, recipient_id: str, message: str) -> Any:
        """Send a text. Every channel has to know how."""
        raise NotImplementedError(f"the channel {self.name()!r} cannot send texts")

    async def send_image_url(self, recipient_id: str, image_url: str) -> None:
        await settled(self.send_text_message(recipient_id, f"Image: {image_url}"))

    async def send_attachment(self, recipient_id: str, attachment: JSON) -> None:
        await settled(self.send_text_message(recipient_id, f"Attachment: {attachment}"))

    async def send_text_with_buttons(
        self, recipient_id: str, message: str, buttons: list[dict[str, JSON]], **options: JSON
    ) -> None:
        """The text, then a line a button."""
        await settled(self.send_text_message(recipient_id, message))
        for number, button in enumerate(buttons, 1):
            await settled(self.send_text_message(recipient_id, button_line(number, button)))

    async def send_custom_message(self, recipient_id: str, elements: list[dict[str, JSON]]) -> None:
        """A text with buttons for each card."""
        for element in elements:
            text = f"{element.get('title', '')} : {element.get('subtitle', '')}"
            await settled(self.send_text_with_buttons(recipient_id, text, element.get("buttons") or []))


def button_line(number: int, button: Mapping[str, JSON]) -> str:
    """`1: title (payload)`, with whatever else the button has behind it."""
    line = f"{number}: {button.get('title', '')} ({button.get('payload', '')})"
    rest = {key: value for key, value in button.items() if key not in ("title", "payload")}
    return f"{line} - {json.dumps(rest, sort_keys=True)}" if rest else line


async def settled(result: Any) -> None:
    """Wait for what a channel's method returned, if there is anything to wait for."""
    if isinstance(result, Deferred) or inspect.isawaitable(result):
        await result


def split_text(text: str) -> list[str]:
    """The parts of a text between blank lines, each a message of its own."""
    return [part for part in text.split("\n\n") if part]
