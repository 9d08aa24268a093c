"""What users say and what bots answer."""

from __future__ import annotations

from attrs import field, frozen

from rasa_core_api.constants import DEFAULT_SENDER_ID, JSON


@frozen(kw_only=True)
class UserMessage:
    """One message of a user, as a channel or the HTTP API hands it over.

    `parse_data`, when given, replaces the interpreter. `output` is the channel that the answers go to;
    None collects them for the caller.
    """

    text: str | None
    sender_id: str = DEFAULT_SENDER_ID
    input_channel: str | None = None
    parse_data: JSON = None
    message_id: str | None = None
    output: object | None = field(default=None, repr=False)


@frozen
class BotMessage:
    """One message of a bot as clients of the HTTP API and of the rest channel see it."""

    recipient_id: str
    text: str | None = None
    image: str | None = None
    buttons: JSON = None  # list of {"title", "payload", ...}
    attachment: JSON = None

    def as_dict(self) -> dict[str, JSON]:
        """The members that are there, in the order of the streaming protocol."""
        entries: dict[str, JSON] = {"recipient_id": self.recipient_id}
        if self.text is not None:
            entries["text"] = self.text
        if self.image is not None:
            entries["image"] = self.image
        if self.buttons is not None:
            entries["buttons"] = self.buttons
        if self.attachment is not None:
            entries["attachment"] = self.attachment
        return entries
