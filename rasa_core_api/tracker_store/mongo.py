"""Conversations in MongoDB, shared by any number of processes and machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from rasa_core_api.constants import JSON
from rasa_core_api.events import Event
from rasa_core_api.exceptions import InvalidConfiguration, RasaCoreError, StoreUnavailable
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.checks import check_sender_id
from rasa_core_api.tracker_store.mongo_tables import MongoTables, RawTail
from rasa_core_api.tracker_store.settings import Settings
from rasa_core_api.tracker_store.texts import StoredEvents
from rasa_core_api.tracker_store.turns import NO_NOTE, FeedEntry, Opening, Reminder, Tail, TurnNote

log = Logger()

#: Seconds to connect, and for one command.
TIME_LIMIT = 10
#: Threads that wait for the database.
_THREADS = 8
#: Seconds between two looks for answers that ran out.
_SWEEP_EVERY = 300


class MongoStore(TrackerStore):
    """`connect` makes a client like pymongo's; it is called in a thread."""

    name = "mongod"
    shared = True
    births = True

    def __init__(self, reactor: Any, stored: StoredEvents, connect: Callable[[], Any], database: str = "rasa") -> None:
        self._reactor = reactor
        self._stored = stored
        self._connect = connect
        self._database = database
        self._client: Any = None
        self._tables: MongoTables | None = None
        self._pool: ThreadPool | None = None
        self._sweeping: LoopingCall | None = None

    async def open(self) -> None:
        try:
            import pymongo  # noqa: F401
        except ImportError as error:
            raise InvalidConfiguration(
                "tracker_store.type: the store 'mongod' needs pymongo; install rasa_core_api[mongo]"
            ) from error
        self._pool = ThreadPool(1, _THREADS, "conversations")
        self._pool.start()
        try:
            self._tables = await deferToThreadPool(self._reactor, self._pool, self._prepare)
        except BaseException:
            await self.close()
            raise
        self._sweeping = LoopingCall(lambda: Deferred.fromCoroutine(self._sweep()))
        self._sweeping.clock = self._reactor
        self._sweeping.start(_SWEEP_EVERY, now=False)

    def _prepare(self) -> MongoTables:
        from pymongo.errors import InvalidName, PyMongoError

        self._client = client = self._connect()
        try:
            database = client[self._database]
            offset = _offset(client)
            tables = MongoTables(database, lambda: time() + offset)
            tables.prepare()
        except InvalidName as error:
            raise InvalidConfiguration(f"tracker_store.db: {error}") from None
        except PyMongoError as error:
            raise StoreUnavailable(f"The conversation store cannot be used: {reason(error)}.") from error
        return tables

    async def _sweep(self) -> None:
        try:
            await self._do(MongoTables.sweep)
        except RasaCoreError as error:
            log.warn("answers that ran out were not removed: {reason}", reason=str(error))

    async def close(self) -> None:
        if self._sweeping is not None and self._sweeping.running:
            self._sweeping.stop()
        self._tables = None
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()  # waits for what is under way, each of which has its time limit
        client, self._client = self._client, None
        if client is not None:
            client.close()

    async def _do(self, function: Callable[..., Any], *arguments: object) -> Any:
        tables = self._tables
        if tables is None:
            raise StoreUnavailable("The conversation store is closed.")
        return await self._run(function, tables, *arguments)

    async def _run(self, function: Callable[..., Any], *arguments: object) -> Any:
        from pymongo.errors import PyMongoError

        assert self._pool is not None
        try:
            return await deferToThreadPool(self._reactor, self._pool, function, *arguments)
        except PyMongoError as error:
            raise StoreUnavailable(f"The conversation store cannot be used: {type(error).__name__}.") from error

    # --- logs ----------------------------------------------------------------------------------------

    async def read(self, sender_id: str, after: int = 0, limit: int | None = None) -> Tail | None:
        check_sender_id(sender_id)
        return await self._tail(await self._do(MongoTables.read, sender_id, after, limit), after, limit)

    async def _tail(self, found: RawTail | None, after: int, limit: int | None) -> Tail | None:
        if found is None:
            return None
        start, end, first, texts, birth = found
        events = await self._stored.decode(texts, max(after, start) - first, limit) if texts else []
        return Tail(start, end, events, birth)

    async def append(self, sender_id: str, end: int, events: Sequence[Event], note: TurnNote = NO_NOTE) -> int:
        check_sender_id(sender_id)
        result: int = await self._do(MongoTables.append, sender_id, end, *_block(events), note)
        return result

    async def replace(self, sender_id: str, events: Sequence[Event], note: TurnNote = NO_NOTE) -> tuple[int, int]:
        check_sender_id(sender_id)
        result: tuple[int, int] = await self._do(MongoTables.replace, sender_id, *_block(events), note)
        return result

    async def sender_ids(self, after: str | None = None, limit: int | None = None, prefix: str = "") -> list[str]:
        names: list[str] = await self._do(MongoTables.names, after, limit, prefix)
        return names

    async def delete(self, sender_id: str) -> bool:
        check_sender_id(sender_id)
        result: bool = await self._do(MongoTables.delete, sender_id)
        return result

    async def idle(self, before: float, limit: int) -> list[str]:
        names: list[str] = await self._do(MongoTables.idle, before, limit)
        return names

    # --- turns ---------------------------------------------------------------------------------------

    async def look(
        self, sender_id: str, after: int = 0, limit: int | None = None, key: str | None = None, owner: str = ""
    ) -> Opening:
        check_sender_id(sender_id)
        found, earlier, held = await self._do(MongoTables.look, sender_id, after, limit, key, owner)
        return Opening(await self._tail(found, after, limit), earlier, held)

    async def claim(
        self, sender_id: str, end: int, owner: str, key: str | None, seconds: float, birth: int = 0
    ) -> None:
        check_sender_id(sender_id)
        await self._do(MongoTables.claim, sender_id, end, owner, key, seconds, birth)

    async def renew(self, owner: str, seconds: float) -> None:
        await self._do(MongoTables.renew, owner, seconds)

    async def release(self, owner: str, sender_id: str | None = None) -> None:
        await self._do(MongoTables.release, owner, sender_id)

    # --- reminders -----------------------------------------------------------------------------------

    async def due(self, before: float, limit: int) -> list[Reminder]:
        found: list[Reminder] = await self._do(MongoTables.due, before, limit)
        return found

    async def reminders(self, sender_id: str) -> list[Reminder]:
        found: list[Reminder] = await self._do(MongoTables.reminders, sender_id)
        return found

    async def forget(self, reminder: Reminder) -> bool:
        found: bool = await self._do(MongoTables.forget, reminder)
        return found

    # --- the order of all appends ----------------------------------------------------------------------

    async def feed(self, after: str | None, limit: int) -> list[FeedEntry]:
        rows = await self._do(MongoTables.feed, after, limit)
        found = await self._stored.decode_each([row[3] for row in rows])
        return [FeedEntry(str(row[0]), row[1], row[2], events) for row, events in zip(rows, found, strict=True)]

    async def feed_end(self) -> str:
        return str(await self._do(MongoTables.feed_end))

    async def cursor(self, name: str) -> str | None:
        found = await self._do(MongoTables.cursor, name)
        return None if found is None else str(found)

    async def set_cursor(self, name: str, position: str) -> None:
        await self._do(MongoTables.set_cursor, name, position)

    async def hold(self, role: str, owner: str, seconds: float) -> bool:
        found: bool = await self._do(MongoTables.hold, role, owner, seconds)
        return found

    def status(self) -> dict[str, JSON]:
        return {"type": self.name, "database": self._database}


def _block(events: Sequence[Event]) -> tuple[str, int, float]:
    """The text of an append, its count, and the time of its last event."""
    return "\n".join([event.as_json() for event in events]), len(events), events[-1].timestamp if events else 0.0


def _offset(client: Any) -> float:
    """How far the server's clock is ahead of ours, in seconds; leases are counted by it."""
    began = time()
    try:
        told: Mapping[str, Any] = client.admin.command("hello")
        server = told["localTime"].timestamp()
    except (KeyError, AttributeError, NotImplementedError):
        return 0.0
    return float(server) - (began + time()) / 2


def reason(error: Exception) -> str:
    """Why MongoDB cannot be used at all, in its client's own words; not for what failed amid conversations."""
    words = " ".join(str(error).split())
    for rest in (" (configured timeouts", ", Timeout: ", ", full error: "):
        words = words.partition(rest)[0]
    return words[:500].rstrip(".") or type(error).__name__


def connect_with(options: Settings) -> Callable[[], Any]:
    """Connects with the keys that the historical store had."""
    username, password = options.text("username", None), options.text("password", None)
    if password is not None and username is None:
        raise options.wrong("username", "is missing beside the password")
    return client_factory(
        options.text("url", None) or "mongodb://localhost:27017",
        username,
        password,
        options.text("auth_source", None) or (None if username is None else "admin"),
    )


def client_factory(
    url: str, username: str | None, password: str | None, auth_source: str | None
) -> Callable[[], Any]:
    """Connects as the historical store did; a write is acknowledged by a majority, from its journal.

    Time limits that the URL sets itself are kept. What it makes raises `InvalidConfiguration` for settings that the
    client does not take.
    """

    def connect() -> Any:
        import pymongo

        limits = ("connectTimeoutMS", "socketTimeoutMS", "serverSelectionTimeoutMS")
        options: dict[str, Any] = {name: TIME_LIMIT * 1000 for name in limits if name.lower() not in url.lower()}
        if username is not None:
            options |= {"username": username, "password": password}
        if auth_source is not None:
            options["authSource"] = auth_source
        try:
            return pymongo.MongoClient(
                url,
                w="majority",
                journal=True,
                tz_aware=True,
                appname="rasa_core_api",
                **options,
            )
        except (pymongo.errors.ConfigurationError, ValueError) as error:  # a wrong port is the latter
            key = "password" if username is not None and password is None else "url"
            raise InvalidConfiguration(f"tracker_store.{key}: {error}") from None

    return connect
