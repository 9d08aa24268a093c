"""What users say and what bots answer."""

from __future__ import annotations

import hashlib

from attrs import field, frozen

from rasa_core_api.constants import DEFAULT_SENDER_ID, JSON

#: Seconds that the answer to a request is kept for the case that it comes again, unless the operator says otherwise.
KEEP_ANSWERS = 86_400.0


@frozen
class RequestKey:
    """What tells a request that comes again from others of its conversation.

    `digest` stands for what was asked: another one under the same key is a mistake. `keep` is in seconds.
    """

    key: str
    digest: str = ""
    keep: float = KEEP_ANSWERS


@frozen(kw_only=True)
class UserMessage:
    """One message of a user, as a channel or the HTTP API hands it over.

    `parse_data`, when given, replaces the interpreter. `output` is the channel that the answers go to; None collects
    them for the caller. `message_id` is the channel's own: a message that comes again is told by it, or by `request`,
    and is not handled again.
    """

    text: str | None
    sender_id: str = DEFAULT_SENDER_ID
    input_channel: str | None = None
    parse_data: JSON = None
    message_id: str | None = None
    output: object | None = field(default=None, repr=False)
    request: RequestKey | None = None


def message_key(message: UserMessage, keep: float) -> RequestKey:
    """What tells a channel's message by its id; its answer is kept for so many seconds."""
    text = (message.text or "").encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, digest_size=16).hexdigest()
    return RequestKey(f"{message.input_channel} {message.message_id}", digest, keep)


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
