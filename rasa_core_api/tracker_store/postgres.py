"""Conversations in PostgreSQL, shared by any number of processes and machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from rasa_core_api.events import Event
from rasa_core_api.exceptions import InvalidConfiguration, RasaCoreError
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store import postgres_notes as notes
from rasa_core_api.tracker_store import postgres_reader as reading
from rasa_core_api.tracker_store.checks import check_sender_id, unknown_cursor
from rasa_core_api.tracker_store.postgres_jobs import AnyJob, ClaimJob, WriteJob
from rasa_core_api.tracker_store.postgres_reader import LookJob, Reader
from rasa_core_api.tracker_store.postgres_writer import Writer
from rasa_core_api.tracker_store.texts import StoredEvents, numbered_blocks
from rasa_core_api.tracker_store.threads import CallJob, JobThread, Reactor
from rasa_core_api.tracker_store.turns import NO_NOTE, FeedEntry, Opening, Reminder, Tail, TurnNote

log = Logger()

#: Seconds between two looks for answers that ran out.
_SWEEP_EVERY = 300


class PostgresStore(TrackerStore):
    """`url` is a connection string of libpq; what it leaves out comes from libpq's own environment."""

    name = "postgres"
    shared = True
    births = True

    def __init__(self, url: str, reactor: Reactor, stored: StoredEvents) -> None:
        self._reactor = reactor
        self._stored = stored
        writer, reader = Writer(url), Reader(url)
        self._writer: JobThread[AnyJob] = JobThread(
            reactor, "conversations-writer", writer, interrupt=writer.interrupt
        )
        self._reader: JobThread[LookJob | CallJob] = JobThread(
            reactor, "conversations-reader", reader, interrupt=reader.interrupt
        )
        self._sweeping = LoopingCall(lambda: Deferred.fromCoroutine(self._sweep()))

    async def open(self) -> None:
        try:
            import psycopg  # noqa: F401
        except ImportError as error:
            raise InvalidConfiguration(
                "tracker_store.type: the store 'postgres' needs psycopg; install rasa_core_api[postgres]"
            ) from error
        await self._writer.start()
        try:
            await self._reader.start()
        except BaseException:
            await self._writer.stop()
            raise
        self._sweeping.clock = self._reactor  # type: ignore[assignment]
        self._sweeping.start(_SWEEP_EVERY, now=False)

    async def close(self) -> None:
        if self._sweeping.running:
            self._sweeping.stop()
        await self._reader.stop()
        await self._writer.stop()

    async def _sweep(self) -> None:
        try:
            await self._change(notes.sweep)
        except RasaCoreError as error:
            log.warn("answers that ran out were not removed: {reason}", reason=str(error))

    async def _ask(self, function: Callable[..., Any], *arguments: object) -> Any:
        return await self._reader.submit(CallJob(function, *arguments))

    async def _change(self, function: Callable[..., Any], *arguments: object) -> Any:
        return await self._writer.submit(CallJob(function, *arguments))

    # --- logs ----------------------------------------------------------------------------------------

    async def read(self, sender_id: str, after: int = 0, limit: int | None = None) -> Tail | None:
        return (await self.look(sender_id, after, limit)).tail

    async def append(self, sender_id: str, end: int, events: Sequence[Event], note: TurnNote = NO_NOTE) -> int:
        check_sender_id(sender_id)
        job = WriteJob("append", sender_id, end, len(events), numbered_blocks(0, events), note)
        result: int = await self._writer.submit(job)
        return result

    async def begin(self, sender_id: str, events: Sequence[Event], note: TurnNote = NO_NOTE) -> tuple[int, int]:
        check_sender_id(sender_id)
        job = WriteJob("append", sender_id, 0, len(events), numbered_blocks(0, events), note)
        return await self._writer.submit(job), job.birth

    async def replace(self, sender_id: str, events: Sequence[Event], note: TurnNote = NO_NOTE) -> tuple[int, int]:
        check_sender_id(sender_id)
        job = WriteJob("replace", sender_id, 0, len(events), numbered_blocks(0, events), note)
        result: tuple[int, int] = await self._writer.submit(job)
        return result

    async def sender_ids(self, after: str | None = None, limit: int | None = None, prefix: str = "") -> list[str]:
        if after is not None and "\0" in after:
            raise unknown_cursor(after)
        if "\0" in prefix:  # which no id has, and no parameter of a statement
            return []
        names: list[str] = await self._ask(reading.read_names, after, limit, prefix)
        return names

    async def delete(self, sender_id: str) -> bool:
        check_sender_id(sender_id)
        result: bool = await self._writer.submit(WriteJob("delete", sender_id))
        return result

    async def idle(self, before: float, limit: int) -> list[str]:
        names: list[str] = await self._ask(reading.read_idle, before, limit)
        return names

    # --- turns ---------------------------------------------------------------------------------------

    async def look(
        self, sender_id: str, after: int = 0, limit: int | None = None, key: str | None = None, owner: str = ""
    ) -> Opening:
        check_sender_id(sender_id)
        found, earlier, held = await self._reader.submit(LookJob(sender_id, after, limit, key, owner))
        if found is None:
            return Opening(None, earlier, held)
        start, end, first, texts, birth = found
        events = await self._stored.decode(texts, max(after, start) - first, limit) if texts else []
        return Opening(Tail(start, end, events, birth), earlier, held)

    async def claim(
        self, sender_id: str, end: int, owner: str, key: str | None, seconds: float, birth: int = 0
    ) -> None:
        check_sender_id(sender_id)
        await self._writer.submit(ClaimJob(sender_id, end, owner, seconds, birth))

    async def renew(self, owner: str, seconds: float) -> None:
        await self._change(notes.renew, owner, seconds)

    async def release(self, owner: str, sender_id: str | None = None) -> None:
        await self._change(notes.release, owner, sender_id)

    # --- reminders -----------------------------------------------------------------------------------

    async def due(self, before: float, limit: int) -> list[Reminder]:
        found: list[Reminder] = await self._ask(reading.read_due, before, limit)
        return found

    async def reminders(self, sender_id: str) -> list[Reminder]:
        check_sender_id(sender_id)
        found: list[Reminder] = await self._ask(reading.read_reminders, sender_id)
        return found

    async def waits(self, reminder: Reminder) -> bool:
        found: bool = await self._ask(reading.reminder_waits, reminder)
        return found

    async def forget(self, reminder: Reminder) -> bool:
        found: bool = await self._change(notes.forget, reminder)
        return found

    # --- the order of all appends ----------------------------------------------------------------------

    async def feed(self, after: str | None, limit: int) -> list[FeedEntry]:
        rows = await self._ask(reading.read_feed, after, limit)
        found = await self._stored.decode_each([row[3] for row in rows])
        return [FeedEntry(row[0], row[1], row[2], events) for row, events in zip(rows, found, strict=True)]

    async def feed_end(self) -> str:
        found: str = await self._ask(reading.read_feed_end)
        return found

    async def cursor(self, name: str) -> str | None:
        found: str | None = await self._ask(reading.read_cursor, name)
        return found

    async def set_cursor(self, name: str, position: str) -> None:
        reading.position_of(position)
        await self._change(notes.set_cursor, name, position)

    async def hold(self, role: str, owner: str, seconds: float) -> bool:
        found: bool = await self._change(notes.hold, role, owner, seconds)
        return found
