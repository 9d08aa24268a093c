"""The collecting channel: a response as the messages that clients of the HTTP API get."""

from __future__ import annotations

from collections.abc import Mapping

from rasa_core_api.constants import JSON
from rasa_core_api.messages import BotMessage
from rasa_core_api.releases import Release


def collect(recipient_id: str, response: Mapping[str, JSON], release: Release) -> list[BotMessage]:
    """The messages of one response, in the order they are shown.

    Plain text is split at blank lines, a text with buttons is one message, each card of `elements` is one
    with its title and subtitle as text. An image and an attachment follow as messages of their own.
    """
    messages: list[BotMessage] = []
    text, buttons = response.get("text"), response.get("buttons")
    if response.get("elements"):
        messages += [
            BotMessage(
                recipient_id,
                text=f"{element.get('title', '')} : {element.get('subtitle', '')}",
                buttons=element.get("buttons") or [],
            )
            for element in response["elements"]
        ]
    elif buttons:
        messages.append(BotMessage(recipient_id, text=text, buttons=buttons))
    elif text:
        if "\n\n" in text:
            messages += [BotMessage(recipient_id, text=part) for part in text.split("\n\n") if part]
        else:
            messages.append(BotMessage(recipient_id, text=text))
    image, attachment = response.get("image"), response.get("attachment")
    if image:
        if release.image_as_text:
            messages.append(BotMessage(recipient_id, text=f"Image: {image}"))
        else:
            messages.append(BotMessage(recipient_id, image=image))
    if attachment:
        if release.image_as_text:
            messages.append(BotMessage(recipient_id, text=f"Attachment: {attachment}"))
        else:
            messages.append(BotMessage(recipient_id, attachment=attachment))
    return messages
