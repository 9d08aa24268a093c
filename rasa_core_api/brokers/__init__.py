"""Event brokers: where the events of all conversations go after they were stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from attrs import frozen

from rasa_core_api.exceptions import RasaCoreError
from rasa_core_api.jsontext import encode
from rasa_core_api.tracker_store.turns import FeedEntry

#: Messages of one publication.
BATCH = 500


class BrokerFailed(RasaCoreError):
    """A broker cannot be reached or did not take what it was sent; it is tried again.

    `taken` is how many messages at the beginning of the batch it confirmed: they are not sent again.
    """

    def __init__(self, message: str, taken: int = 0) -> None:
        super().__init__(message)
        self.taken = taken


class MessageRefused(BrokerFailed):
    """A broker will never take the message behind the `taken` first ones, such as one that is too large for it."""


@frozen
class Message:
    """One event as brokers carry it: `seq` is its number in the conversation, `body` is JSON in ASCII.

    The body is what Rasa Core sent, `{"sender_id": ..., **event}`, with the member `seq` added: readers of events pick
    the members that they know.
    """

    sender_id: str
    seq: int
    body: str


def messages_of(entry: FeedEntry) -> list[Message]:
    """The messages of what one append added."""
    sender = encode(entry.sender_id)
    return [
        Message(entry.sender_id, seq, f'{{"sender_id":{sender},"seq":{seq},{event.as_json()[1:]}')
        for seq, event in enumerate(entry.events, entry.seq)
    ]


class EventBroker(ABC):
    """Takes messages and keeps them. One call at a time; `close` may come while another is given up.

    Each method may raise anything; the caller closes, waits and opens again. A call that is cancelled leaves nothing
    behind that `close` does not end.
    """

    name: ClassVar[str] = ""

    @property
    def at_once(self) -> int:
        """Messages that it is given at once, at the most; one at a time where it may take any but the one before."""
        return BATCH

    @abstractmethod
    async def open(self) -> None:
        """Connect."""

    @abstractmethod
    async def publish(self, messages: Sequence[Message]) -> None:
        """Send messages, in this order; returns when the broker has all of them.

        `BrokerFailed` may tell how many it has, and `MessageRefused` which one it never takes: it is left out.
        """

    @abstractmethod
    async def close(self) -> None:
        """Disconnect, whatever state the connection is in."""
