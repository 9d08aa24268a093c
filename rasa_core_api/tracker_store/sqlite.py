"""Conversations in a SQLite file: durable, and fast because all turns that wait are committed together."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic, time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from rasa_core_api.constants import JSON
from rasa_core_api.events import Event
from rasa_core_api.exceptions import RasaCoreError
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.checks import check_sender_id, position_of
from rasa_core_api.tracker_store.sqlite_jobs import Append, Claim, Delete, Forget, Replace, Truncate, TurnJob, WriteJob
from rasa_core_api.tracker_store.sqlite_reader import (
    RawTail,
    SqliteReader,
    read_feed,
    read_idle,
    read_names,
    read_opening,
    read_reminders,
    read_value,
)
from rasa_core_api.tracker_store.sqlite_writer import SqliteWriter
from rasa_core_api.tracker_store.texts import StoredEvents, numbered_blocks
from rasa_core_api.tracker_store.threads import CallJob, JobThread, Reactor
from rasa_core_api.tracker_store.turns import NO_NOTE, FeedEntry, Opening, Reminder, Tail, TurnNote

log = Logger()

#: Seconds after a deletion in which more may come before the write-ahead log is emptied; and until the next try where
#: somebody was reading from it.
TIDY, TIDY_AGAIN = 5.0, 1.0


class SqliteStore(TrackerStore):
    """Keeps conversations in one file. `where` is the configuration's key that named it."""

    name = "sqlite"
    births = True

    def __init__(
        self,
        path: Path,
        reactor: Reactor,
        stored: StoredEvents,
        where: str = "tracker_store.path",
        now: Callable[[], float] = time,
        steady: Callable[[], float] = monotonic,
    ) -> None:
        self.path = path
        self._stored = stored
        self._now = now
        self._steady = steady
        self._reactor = reactor
        self._tidying: IDelayedCall | None = None
        self._shared = False
        self._writes = SqliteWriter(path, where, self._foreign, now, steady)
        self._writer: JobThread[WriteJob] = JobThread(reactor, "conversations-writer", self._writes)
        self._reader: JobThread[CallJob] = JobThread(reactor, "conversations-reader", SqliteReader(path, where))

    async def open(self) -> None:
        await self._writer.start()
        try:
            await self._reader.start()
        except BaseException:
            await self._writer.stop()
            raise

    async def close(self) -> None:
        await self._reader.stop()
        if self._tidying is not None:
            self._tidying.cancel()
            await self._tidy()
        if self._tidying is not None:
            self._tidying.cancel()
        await self._writer.stop()

    @property
    def shared(self) -> bool:
        """From the moment on that another process opens the file: then kept trackers have to catch up."""
        if not self._shared and self._writes.others():
            self._shared = True
        return self._shared

    @shared.setter
    def shared(self, value: bool) -> None:
        self._shared = value

    def _foreign(self) -> None:
        self._shared = True  # it wrote, though nobody saw it come: where files cannot be locked

    # --- logs ----------------------------------------------------------------------------------------

    async def read(self, sender_id: str, after: int = 0, limit: int | None = None) -> Tail | None:
        check_sender_id(sender_id)
        found, _, _ = await self._ask(read_opening, sender_id, after, limit, None, "", 0.0, 0.0)
        return await self._tail(found, after, limit)

    async def _tail(self, found: RawTail | None, after: int, limit: int | None) -> Tail | None:
        if found is None:
            return None
        start, end, first, texts, birth = found
        events = await self._stored.decode(texts, max(after, start) - first, limit) if texts else []
        return Tail(start, end, events, birth)

    async def _ask(self, function: Callable[..., Any], *arguments: object) -> Any:
        return await self._reader.submit(CallJob(function, *arguments))

    async def append(self, sender_id: str, end: int, events: Sequence[Event], note: TurnNote = NO_NOTE) -> int:
        check_sender_id(sender_id)
        job = Append(sender_id, end, len(events), numbered_blocks(end, events), note)
        result: int = await self._writer.submit(job)
        return result

    async def begin(self, sender_id: str, events: Sequence[Event], note: TurnNote = NO_NOTE) -> tuple[int, int]:
        check_sender_id(sender_id)
        job = Append(sender_id, 0, len(events), numbered_blocks(0, events), note)
        return await self._writer.submit(job), job.birth

    async def replace(self, sender_id: str, events: Sequence[Event], note: TurnNote = NO_NOTE) -> tuple[int, int]:
        check_sender_id(sender_id)
        job = Replace(sender_id, len(events), numbered_blocks(0, events), note)
        result: tuple[int, int] = await self._writer.submit(job)
        if note.forgets:
            self._tidy_later(TIDY)
        return result

    async def sender_ids(self, after: str | None = None, limit: int | None = None, prefix: str = "") -> list[str]:
        pages = await self._reader.submit(CallJob(read_names, after, limit, prefix))
        return [name for page in pages for name in json.loads(page)]

    async def delete(self, sender_id: str) -> bool:
        check_sender_id(sender_id)
        result: bool = await self._writer.submit(Delete(sender_id))
        if result:
            self._tidy_later(TIDY)
        return result

    def _tidy_later(self, seconds: float) -> None:
        """What was deleted is to go from the write-ahead log, too."""
        if self._tidying is None:
            self._tidying = self._reactor.callLater(seconds, self._tidy)

    def _tidy(self) -> Deferred[None]:
        self._tidying = None
        return Deferred.fromCoroutine(self._truncate())

    async def _truncate(self) -> None:
        try:
            if not await self._writer.submit(Truncate()):
                self._tidy_later(TIDY_AGAIN)
        except RasaCoreError as error:
            log.warn("the write-ahead log still has what was deleted: {reason}", reason=str(error))

    async def idle(self, before: float, limit: int) -> list[str]:
        found: list[str] = await self._ask(read_idle, before, limit)
        return found

    # --- turns ---------------------------------------------------------------------------------------

    async def look(
        self, sender_id: str, after: int = 0, limit: int | None = None, key: str | None = None, owner: str = ""
    ) -> Opening:
        check_sender_id(sender_id)
        found, earlier, held = await self._ask(
            read_opening, sender_id, after, limit, key, owner, self._now(), self._steady()
        )
        return Opening(await self._tail(found, after, limit), earlier, held)

    async def claim(
        self, sender_id: str, end: int, owner: str, key: str | None, seconds: float, birth: int = 0
    ) -> None:
        check_sender_id(sender_id)
        await self._writer.submit(Claim(sender_id, end, owner, key, seconds, birth))

    async def renew(self, owner: str, seconds: float) -> None:
        await self._writer.submit(TurnJob(lambda turns: turns.renew(owner, seconds)))

    async def release(self, owner: str, sender_id: str | None = None) -> None:
        await self._writer.submit(TurnJob(lambda turns: turns.release(owner, sender_id)))

    # --- reminders -----------------------------------------------------------------------------------

    async def due(self, before: float, limit: int) -> list[Reminder]:
        found: list[Reminder] = await self._ask(read_reminders, "due < ? ORDER BY due, seq LIMIT ?", (before, limit))
        return found

    async def reminders(self, sender_id: str) -> list[Reminder]:
        found: list[Reminder] = await self._ask(read_reminders, "sender_id = ? ORDER BY due, seq", (sender_id,))
        return found

    async def waits(self, reminder: Reminder) -> bool:
        key = reminder.sender_id, reminder.name, reminder.seq, reminder.due
        return bool(await self._ask(read_reminders, "sender_id = ? AND name = ? AND seq = ? AND due = ?", key))

    async def forget(self, reminder: Reminder) -> bool:
        found: bool = await self._writer.submit(Forget(lambda turns: turns.forget_reminder(reminder)))
        return found

    # --- the order of all appends ----------------------------------------------------------------------

    async def feed(self, after: str | None, limit: int) -> list[FeedEntry]:
        rows = await self._ask(read_feed, position_of(after), limit)
        found = await self._stored.decode_each([row[3] for row in rows])
        return [FeedEntry(str(row[0]), row[1], row[2], events) for row, events in zip(rows, found, strict=True)]

    async def feed_end(self) -> str:
        found = await self._ask(read_value, "SELECT seq FROM sqlite_sequence WHERE name = 'blocks'")
        return str(found or 0)

    async def cursor(self, name: str) -> str | None:
        found = await self._ask(read_value, "SELECT position FROM cursors WHERE name = ?", (name,))
        return None if found is None else str(found)

    async def set_cursor(self, name: str, position: str) -> None:
        await self._writer.submit(TurnJob(lambda turns: turns.set_cursor(name, position)))

    async def hold(self, role: str, owner: str, seconds: float) -> bool:
        found: bool = await self._writer.submit(TurnJob(lambda turns: turns.hold(role, owner, seconds)))
        return found

    def status(self) -> dict[str, JSON]:
        return {"type": self.name, "shared": self.shared}
