"""Conversations in PostgreSQL, shared by any number of processes and machines."""

from __future__ import annotations

from collections.abc import Sequence

from rasa_core_api.events import Event
from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.checks import check_sender_id
from rasa_core_api.tracker_store.postgres_worker import Reader, ReadJob, WriteJob, Writer
from rasa_core_api.tracker_store.texts import StoredEvents, numbered_blocks
from rasa_core_api.tracker_store.threads import JobThread, Reactor
from rasa_core_api.tracker_store.turns import NO_NOTE, Opening, Tail, TurnNote


class PostgresStore(TrackerStore):
    """`url` is a connection string of libpq; what it leaves out comes from libpq's own environment."""

    name = "postgres"
    shared = True
    claims = False

    def __init__(self, url: str, reactor: Reactor, stored: StoredEvents) -> None:
        self._stored = stored
        self._writer: JobThread[WriteJob] = JobThread(reactor, "conversations-writer", Writer(url))
        self._reader: JobThread[ReadJob] = JobThread(reactor, "conversations-reader", Reader(url))

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

    async def close(self) -> None:
        await self._reader.stop()
        await self._writer.stop()

    async def read(self, sender_id: str, after: int = 0, limit: int | None = None) -> Tail | None:
        check_sender_id(sender_id)
        found = await self._reader.submit(ReadJob(sender_id, after, limit))
        if found is None:
            return None
        start, end, first, texts = found
        if not texts:
            return Tail(start, end, [])
        return Tail(start, end, await self._stored.decode(texts, max(after, start) - first, limit))

    async def append(self, sender_id: str, end: int, events: Sequence[Event], note: TurnNote = NO_NOTE) -> int:
        check_sender_id(sender_id)
        self._refuse(note)
        job = WriteJob("append", sender_id, end, len(events), numbered_blocks(0, events))
        result: int = await self._writer.submit(job)
        return result

    async def replace(self, sender_id: str, events: Sequence[Event], note: TurnNote = NO_NOTE) -> tuple[int, int]:
        check_sender_id(sender_id)
        self._refuse(note)
        job = WriteJob("replace", sender_id, 0, len(events), numbered_blocks(0, events))
        result: tuple[int, int] = await self._writer.submit(job)
        return result

    def _refuse(self, note: TurnNote) -> None:
        if note.key is not None:
            raise self._lacks("notes")

    async def look(
        self, sender_id: str, after: int = 0, limit: int | None = None, key: str | None = None, owner: str = ""
    ) -> Opening:
        return Opening(await self.read(sender_id, after, limit))

    async def claim(self, sender_id: str, end: int, owner: str, key: str | None, seconds: float) -> None:
        raise self._lacks("claims")

    async def renew(self, owner: str, seconds: float) -> None:
        raise self._lacks("claims")

    async def release(self, owner: str, sender_id: str | None = None) -> None:
        raise self._lacks("claims")

    async def sender_ids(self, after: str | None = None, limit: int | None = None, prefix: str = "") -> list[str]:
        if after is not None:
            check_sender_id(after)
        check_sender_id(prefix)
        names: list[str] = await self._reader.submit(ReadJob(None, after, limit, prefix))
        return names

    async def delete(self, sender_id: str) -> bool:
        check_sender_id(sender_id)
        result: bool = await self._writer.submit(WriteJob("delete", sender_id))
        return result
