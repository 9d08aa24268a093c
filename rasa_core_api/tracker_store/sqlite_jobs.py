"""What can be asked of the one who writes to a SQLite file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rasa_core_api.tracker_store.checks import conflict
from rasa_core_api.tracker_store.sqlite_turns import TurnTables
from rasa_core_api.tracker_store.texts import Block
from rasa_core_api.tracker_store.threads import Job
from rasa_core_api.tracker_store.turns import NO_NOTE, TurnNote

if TYPE_CHECKING:
    from rasa_core_api.tracker_store.sqlite_writer import SqliteWriter


class WriteJob(Job[Any]):
    """Something that changes the file, as part of a transaction.

    `apply` raises errors of the domain before its first change, or not at all.
    """

    __slots__ = ()

    #: Whether its group is on the disk before anybody is told. What only lives as long as its processes need not be.
    durable = True

    def apply(self, writer: SqliteWriter) -> Any:
        raise NotImplementedError


class LogJob(WriteJob):
    """Something about a conversation's log."""

    __slots__ = ("sender_id",)

    def __init__(self, sender_id: str) -> None:
        super().__init__()
        self.sender_id = sender_id


class Append(LogJob):
    """Add blocks to the log that ends at `end`; the result is the new end."""

    __slots__ = ("birth", "blocks", "count", "end", "note")

    def __init__(self, sender_id: str, end: int, count: int, blocks: list[Block], note: TurnNote = NO_NOTE) -> None:
        super().__init__(sender_id)
        self.birth = 0  # of the conversation, once it is done
        self.end = end
        self.count = count
        self.blocks = blocks
        self.note = note

    def apply(self, writer: SqliteWriter) -> int:
        note = self.note
        writer.turns.check(self.sender_id, note.owner)
        place = writer.place_to_append(self.sender_id, self.end)
        if not self.is_of(place):
            conflict(self.sender_id, self.end, self.end)
        self.birth = place[0]
        writer.add_blocks(place, self.blocks)
        writer.turns.leave(self.sender_id, note, note.base, self.end + self.count)
        return self.end + self.count

    def is_of(self, place: list[int]) -> bool:
        """Whether the log at this place is the one that the writer knew: neither replaced nor begun anew since."""
        return self.note.start in (None, place[2]) and self.note.birth in (0, place[0])


class Replace(LogJob):
    """Put another log in the place of the old one; the blocks count from 0. The result is its start and end."""

    __slots__ = ("blocks", "count", "note")

    def __init__(self, sender_id: str, count: int, blocks: list[Block], note: TurnNote = NO_NOTE) -> None:
        super().__init__(sender_id)
        self.count = count
        self.blocks = blocks
        self.note = note

    def apply(self, writer: SqliteWriter) -> tuple[int, int]:
        writer.turns.check(self.sender_id, self.note.owner)
        place = writer.place(self.sender_id)
        if place is None:
            place = writer.create(self.sender_id)
        else:
            writer.clear(place)
            writer.turns.clear_reminders(self.sender_id)
            if self.note.forgets:
                writer.turns.empty_answers(self.sender_id)
        start = place[1]
        writer.add_blocks(place, [(seq + start, *rest) for seq, *rest in self.blocks])  # type: ignore[misc]
        writer.turns.leave(self.sender_id, self.note, start + self.note.base, start + self.count)
        return start, start + self.count


class Delete(LogJob):
    """Remove a conversation; the result tells whether there was one."""

    __slots__ = ()

    def apply(self, writer: SqliteWriter) -> bool:
        return writer.delete(self.sender_id)


class Claim(LogJob):
    """Claim the log that ends at `end`."""

    __slots__ = ("birth", "end", "key", "owner", "seconds")
    durable = False

    def __init__(self, sender_id: str, end: int, owner: str, key: str | None, seconds: float, birth: int = 0) -> None:
        super().__init__(sender_id)
        self.birth = birth
        self.end = end
        self.owner = owner
        self.key = key
        self.seconds = seconds

    def apply(self, writer: SqliteWriter) -> None:
        writer.turns.check(self.sender_id, self.owner)
        place = writer.place(self.sender_id)
        if (0 if place is None else place[1]) != self.end:
            conflict(self.sender_id, self.end, None if place is None else place[1])
        if place is not None and self.birth not in (0, place[0]):
            conflict(self.sender_id, self.end, self.end)
        writer.turns.claim(self.sender_id, self.owner, self.key, self.end, self.seconds)


class Truncate(WriteJob):
    """Empty the write-ahead log, which has old pages of what was deleted; the result is whether it is empty."""

    __slots__ = ()
    durable = False


class TurnJob(WriteJob):
    """Does one thing with the tables beside the logs; what that is need not survive a power cut."""

    __slots__ = ("work",)
    durable = False

    def __init__(self, work: Callable[[TurnTables], Any]) -> None:
        super().__init__()
        self.work = work

    def apply(self, writer: SqliteWriter) -> Any:
        return self.work(writer.turns)


class Forget(TurnJob):
    """Removes a reminder."""

    __slots__ = ()
    durable = True
