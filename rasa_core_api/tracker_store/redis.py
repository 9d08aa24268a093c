"""Conversations in Redis, shared by any number of processes; an append is one script, done as a whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rasa_core_api.constants import JSON
from rasa_core_api.events import Event
from rasa_core_api.exceptions import InvalidConfiguration, StoreUnavailable
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.checks import check_sender_id, conflict, unknown_cursor
from rasa_core_api.tracker_store.redis_scripts import APPEND, DELETE, NAMES, READ, REPLACE, Script
from rasa_core_api.tracker_store.texts import StoredEvents
from rasa_core_api.tracker_store.turns import NO_NOTE, Opening, Tail, TurnNote

log = Logger()

#: What all our keys begin with; the historical store used bare sender ids, so that both can lie in one database.
PREFIX = "rasa_core_api:"
#: Seconds for one command, and for a connection.
TIME_LIMIT = 10
#: Connections; commands of several callers share one.
_POOL = 4
#: Events of one answer.
_PAGE = 1_000
#: Sender ids of one answer.
_NAMES = 1_000


class RedisStore(TrackerStore):
    """`lifetime` in seconds removes conversations that were not written to for so long (0: never)."""

    name = "redis"
    shared = True
    claims = False

    def __init__(
        self,
        clock: IReactorTime,
        stored: StoredEvents,
        host: str = "localhost",
        port: int = 6379,
        db: int = 0,
        password: str | None = None,
        lifetime: int = 0,
    ) -> None:
        self._clock = clock
        self._stored = stored
        self._host = host
        self._port = port
        self._db = db
        self._password = password
        self._lifetime = str(lifetime)
        self._connection: Any = None
        self._warnings: list[str] = []

    async def open(self) -> None:
        try:
            from rasa_core_api.tracker_store import redis_pool
        except ImportError as error:
            raise InvalidConfiguration(
                "tracker_store.type: the store 'redis' needs txredisapi; install rasa_core_api[redis]"
            ) from error
        self._errors = redis_pool.ERRORS
        self._missing = redis_pool.UNKNOWN_SCRIPT
        self._connection = redis_pool.connect(
            self._host,
            self._port,
            self._db,
            self._password,
            _POOL,
            connectTimeout=TIME_LIMIT,
            replyTimeout=TIME_LIMIT,
            convertNumbers=False,
        )
        try:
            # waits for the first connection, unlike the commands of a turn
            await self._connection.ping().addTimeout(TIME_LIMIT, self._clock)
        except self._errors as error:
            await self.close()
            raise self._unavailable(error) from error
        await self._check_durability()

    async def _check_durability(self) -> None:
        try:
            answer = await self._do("execute_command", "CONFIG", "GET", "append*")
        except (StoreUnavailable, *self._errors):
            return  # managed servers keep their settings to themselves
        kept = dict(zip(answer[::2], answer[1::2], strict=False))
        self._warnings = [
            f"{key} is '{kept[key]}'" for key, wanted in _DURABLE.items() if key in kept and kept[key] != wanted
        ]
        if self._warnings:
            log.warn(
                "redis may forget answered turns when it crashes: {reasons} (see docs/stores.md)",
                reasons=", ".join(self._warnings),
            )

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect()

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(
            f"The conversation store at {self._host}:{self._port} cannot be used: {type(error).__name__}."
        )

    async def _do(self, command: str, *arguments: Any) -> Any:
        """Run a command now: while there is no connection it is refused, not kept until there is one."""
        connection = self._connection
        if connection is None:
            raise StoreUnavailable("The conversation store is closed.")
        if not connection._factory.size:
            raise StoreUnavailable(f"The conversation store at {self._host}:{self._port} is not connected.")
        return await getattr(connection, command)(*arguments).addTimeout(TIME_LIMIT, self._clock)

    async def _run(self, script: Script, sender_id: str, arguments: list[Any]) -> Any:
        keys = [f"{PREFIX}head:{sender_id}", f"{PREFIX}log:{sender_id}", f"{PREFIX}names", f"{PREFIX}rows"]
        try:
            try:
                return await self._do("evalsha", script.sha, keys, arguments)
            except self._missing:
                return await self._do("eval", script.text, keys, arguments)
        except self._errors as error:
            raise self._unavailable(error) from error

    async def read(self, sender_id: str, after: int = 0, limit: int | None = None) -> Tail | None:
        check_sender_id(sender_id)
        while True:
            tail = await self._read(sender_id, after, limit)
            if not isinstance(tail, _Replaced):
                return tail

    async def _read(self, sender_id: str, after: int, limit: int | None) -> Tail | _Replaced | None:
        """Read in pages; the log's end is the one that the first page told."""
        events: list[Event] = []
        bounds: tuple[int, int] | None = None
        seq = after
        while True:
            most = _PAGE if limit is None else min(_PAGE, limit - len(events))
            if bounds is not None:
                most = min(most, bounds[1] - seq)
            answer = await self._run(READ, sender_id, [seq, most])
            start = int(answer[0]) if answer else None
            if bounds is None:
                if start is None:
                    return None
                bounds = start, int(answer[1])
                seq = max(after, start)
            elif start != bounds[0]:
                return _Replaced()
            if answer[2]:
                page = await self._stored.decode([answer[2]])
                events += page
                seq += len(page)
            if not answer[2] or seq >= bounds[1] or (limit is not None and len(events) >= limit):
                return Tail(*bounds, events)

    async def append(self, sender_id: str, end: int, events: Sequence[Event], note: TurnNote = NO_NOTE) -> int:
        check_sender_id(sender_id)
        self._refuse(note)
        answer = await self._run(APPEND, sender_id, [sender_id, end, self._lifetime, *_texts(events)])
        if int(answer[0]) == 1:
            return int(answer[1])
        conflict(sender_id, end, int(answer[1]) if len(answer) > 1 else None)

    async def replace(self, sender_id: str, events: Sequence[Event], note: TurnNote = NO_NOTE) -> tuple[int, int]:
        check_sender_id(sender_id)
        self._refuse(note)
        answer = await self._run(REPLACE, sender_id, [sender_id, self._lifetime, *_texts(events)])
        return int(answer[0]), int(answer[1])

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
        row = "0"
        if after is not None:
            try:
                score = await self._do("zscore", f"{PREFIX}names", after)
            except self._errors as error:
                raise self._unavailable(error) from error
            if score is None:
                raise unknown_cursor(after)
            row = str(int(float(score)))
        names: list[str] = []
        while limit is None or len(names) < limit:
            last, found = await self._run(NAMES, "", [row, _NAMES, f"{PREFIX}head:"])
            names += [name for name in found if name.startswith(prefix)]
            if last == "":
                break
            row = last
        return names[:limit]

    async def delete(self, sender_id: str) -> bool:
        check_sender_id(sender_id)
        return int(await self._run(DELETE, sender_id, [sender_id])) == 1

    def status(self) -> dict[str, JSON]:
        return {"type": self.name, "warnings": list(self._warnings)}


class _Replaced:
    """A log was replaced or deleted while it was read."""


_DURABLE = {"appendonly": "yes", "appendfsync": "always"}


def _texts(events: Sequence[Event]) -> list[str]:
    return [event.as_json() for event in events]
