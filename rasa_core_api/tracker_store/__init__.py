"""Conversation stores: append-only logs of events, one a conversation.

The events of a conversation are numbered 0, 1, 2, ... for as long as it exists. Replacing the log does not restart
the numbers: the new log begins where the old one ended.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from attrs import frozen

from rasa_core_api.constants import JSON
from rasa_core_api.events import Event


@frozen
class Tail:
    """The end of a log: it holds the numbers from `start` to below `end`; `events` are those that were asked for."""

    start: int
    end: int
    events: list[Event]


class TrackerStore(ABC):
    """Where conversations are kept.

    Every method may raise `StoreUnavailable`: nothing was changed then, or, where the connection broke while an
    answer was due, it is unknown whether it was; reading the log again tells.
    """

    name: ClassVar[str] = ""

    #: Whether other processes may write to the same conversations, so that a tracker that was kept has to catch up.
    shared: bool = False

    async def open(self) -> None:
        """Connect. Called once, when the reactor runs and before anything else.

        Raises `InvalidConfiguration` where what lies in the store cannot be used.
        """
        return None

    async def close(self) -> None:
        """Finish what was begun, then disconnect."""
        return None

    @abstractmethod
    async def read(self, sender_id: str, after: int = 0, limit: int | None = None) -> Tail | None:
        """The events numbered `after` and higher, at most `limit` of them; None where the conversation is unknown."""

    @abstractmethod
    async def append(self, sender_id: str, end: int, events: Sequence[Event]) -> int:
        """Add events to a log that ends at `end`; 0 creates a conversation. Returns the new end.

        When this returns, the events are as durable as the store can make them: all of them, or none.
        Raises `StoreConflict` where the log ends elsewhere, and where `end` is not 0 and it is unknown.
        """

    @abstractmethod
    async def replace(self, sender_id: str, events: Sequence[Event]) -> tuple[int, int]:
        """Put another log in the place of the old one, or create it. Returns its start and end."""

    @abstractmethod
    async def sender_ids(self, after: str | None = None, limit: int | None = None, prefix: str = "") -> list[str]:
        """Conversations in the order of their creation: those beyond `after`, whose ids begin with `prefix`.

        Raises `InvalidParameter` where `after` is unknown.
        """

    @abstractmethod
    async def delete(self, sender_id: str) -> bool:
        """Remove a conversation and all that is kept of it; whether there was one."""

    def pin(self, sender_id: str) -> None:
        """A turn of this conversation begins: it is not to be dropped. Each call is undone by one of `unpin`."""
        return None

    def unpin(self, sender_id: str) -> None:
        """A turn of this conversation ended."""
        return None

    def status(self) -> dict[str, JSON]:
        """What the server's status page says about this store."""
        return {"type": self.name}
