"""Conversation stores: append-only logs of events, one a conversation.

The events of a conversation are numbered 0, 1, 2, ... for as long as it exists. Replacing the log does not restart
the numbers: the new log begins where the old one ended.

Beside the logs a store keeps claims (a turn with side effects is under way), answers (of requests that may come
again), reminders and the order of all appends; see `turns`. Times are measured by the store's own clock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from rasa_core_api.constants import JSON
from rasa_core_api.events import Event
from rasa_core_api.exceptions import NotBuilt
from rasa_core_api.tracker_store.turns import NO_NOTE, FeedEntry, Opening, Reminder, TurnNote
from rasa_core_api.tracker_store.turns import Tail as Tail


class TrackerStore(ABC):
    """Where conversations are kept.

    Every method may raise `StoreUnavailable`: nothing was changed then, or, where the connection broke while an
    answer was due, it is unknown whether it was; reading the log again tells.
    """

    name: ClassVar[str] = ""

    #: Whether other processes may write to the same conversations, so that a tracker that was kept has to catch up.
    shared: bool = False

    #: Whether a turn needs a claim before its first side effect: not where no other process can ever write.
    claims: bool = True

    #: Whether tails have a `birth`.
    births: bool = False

    async def open(self) -> None:
        """Connect. Called once, when the reactor runs and before anything else.

        Raises `InvalidConfiguration` where what lies in the store cannot be used.
        """
        return None

    async def close(self) -> None:
        """Finish what was begun, then disconnect."""
        return None

    # --- logs ----------------------------------------------------------------------------------------

    @abstractmethod
    async def read(self, sender_id: str, after: int = 0, limit: int | None = None) -> Tail | None:
        """The events numbered `after` and higher, at most `limit` of them; None where the conversation is unknown."""

    @abstractmethod
    async def append(self, sender_id: str, end: int, events: Sequence[Event], note: TurnNote = NO_NOTE) -> int:
        """Add events to a log that ends at `end`; 0 creates a conversation. Returns the new end.

        When this returns, the events are as durable as the store can make them, and with them what the note says:
        all of it, or nothing. The claim of the note's owner ends, unless the note says that more is to come; one that
        ran out ends too. Raises `ConversationHeld` where another owner's claim lasts, and `StoreConflict` where the log
        ends elsewhere, or where `end` is not 0 and it is unknown.
        """

    async def begin(self, sender_id: str, events: Sequence[Event], note: TurnNote = NO_NOTE) -> tuple[int, int]:
        """Append to a log that ends at 0, as `append` does. Returns the new end, and the conversation's birth.

        A birth of 0 says that it has to be looked for.
        """
        return await self.append(sender_id, 0, events, note), 0

    @abstractmethod
    async def replace(self, sender_id: str, events: Sequence[Event], note: TurnNote = NO_NOTE) -> tuple[int, int]:
        """Put another log in the place of the old one, or create it. Returns its start and end.

        Reminders that the old log asked for are forgotten; `base` of the note counts from the new log's first event.
        Raises `ConversationHeld` like `append`.
        """

    @abstractmethod
    async def sender_ids(self, after: str | None = None, limit: int | None = None, prefix: str = "") -> list[str]:
        """Conversations in the order of their creation: those beyond `after`, whose ids begin with `prefix`.

        Raises `InvalidParameter` where `after` is unknown.
        """

    @abstractmethod
    async def delete(self, sender_id: str) -> bool:
        """Remove a conversation and all that is kept of it, its claim and answers too; whether there was one."""

    # --- turns ---------------------------------------------------------------------------------------

    @abstractmethod
    async def look(
        self, sender_id: str, after: int = 0, limit: int | None = None, key: str | None = None, owner: str = ""
    ) -> Opening:
        """What a turn of `owner` finds: like `read`, with what the key left and the claim of somebody else.

        All of one moment: a tail that has the events of a request comes with its answer.
        """

    @abstractmethod
    async def claim(
        self, sender_id: str, end: int, owner: str, key: str | None, seconds: float, birth: int = 0
    ) -> None:
        """Keep all other owners from appending for so many seconds, unless `renew` makes that longer.

        Raises `ConversationHeld` where another owner's claim lasts, and `StoreConflict` where the log does not end at
        `end` (an unknown conversation ends at 0), or where the conversation is not the one of this `birth`, which only
        stores that have `births` are given. A claim need not outlive the store's machine.
        """

    @abstractmethod
    async def renew(self, owner: str, seconds: float) -> None:
        """Let all claims of this owner last so many seconds from now on."""

    @abstractmethod
    async def release(self, owner: str, sender_id: str | None = None) -> None:
        """End the owner's claim of this conversation, or all its claims."""

    # --- reminders -----------------------------------------------------------------------------------

    async def due(self, before: float, limit: int) -> list[Reminder]:
        """Reminders that are due before a time (seconds since the epoch), the earliest first."""
        raise self._lacks("reminders")

    async def reminders(self, sender_id: str) -> list[Reminder]:
        """The reminders of a conversation, the earliest first."""
        raise self._lacks("reminders")

    async def waits(self, reminder: Reminder) -> bool:
        """Whether a reminder is still there: neither removed, nor replaced by another one, nor fired.

        One of a conversation that was deleted and begun anew may have its number; for another time it is another one.
        Asked for each one that fires; a store whose conversations have many answers it without reading them all.
        """
        return reminder in await self.reminders(reminder.sender_id)

    async def forget(self, reminder: Reminder) -> bool:
        """Remove a reminder, unless another one has taken its name; whether it was there."""
        raise self._lacks("reminders")

    # --- the order of all appends ----------------------------------------------------------------------

    async def feed(self, after: str | None, limit: int) -> list[FeedEntry]:
        """What was appended after a position, at most `limit` entries; None begins with the oldest kept.

        There may be fewer than there are, where their events have `FEED_SIZE` characters of JSON or more.
        Entries of one conversation come in their order, and none is ever added before one that was handed out. What was
        replaced or deleted since is not there any more. Raises `InvalidParameter` for what is no position.
        """
        raise self._lacks("feed")

    async def feed_lost(self, after: str) -> bool:
        """Whether something that was appended after a position is forgotten already, so that `feed` leaves it out."""
        return False

    async def feed_end(self) -> str:
        """The position after which everything is new."""
        raise self._lacks("feed")

    async def cursor(self, name: str) -> str | None:
        """The position that was kept under a name."""
        raise self._lacks("feed")

    async def set_cursor(self, name: str, position: str) -> None:
        """Keep a position."""
        raise self._lacks("feed")

    async def hold(self, role: str, owner: str, seconds: float) -> bool:
        """Take or keep a role that one owner has at a time; whether it is the owner's for so many seconds."""
        raise self._lacks("feed")

    def _lacks(self, what: str) -> NotBuilt:
        return NotBuilt(f"The conversation store {self.name or type(self).__name__!r} has no {what}.")

    # --- the rest ------------------------------------------------------------------------------------

    async def idle(self, before: float, limit: int) -> list[str]:
        """Conversations whose last event is from before a time (seconds since the epoch), at most `limit`."""
        raise self._lacks("times")

    def gone(self, sender_id: str) -> bool:
        """Whether a conversation that was stored is there no more, though nobody removed it: dropped at a bound."""
        return False

    def pin(self, sender_id: str) -> None:
        """A turn of this conversation begins: it is not to be dropped. Each call is undone by one of `unpin`."""
        return None

    def unpin(self, sender_id: str) -> None:
        """A turn of this conversation ended."""
        return None

    def status(self) -> dict[str, JSON]:
        """What the server's status page says about this store."""
        return {"type": self.name}
