"""Conversations in Redis, shared by any number of processes; an append is one script, done as a whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rasa_core_api.constants import JSON
from rasa_core_api.events import Event
from rasa_core_api.exceptions import ConversationHeld, InvalidConfiguration, StoreUnavailable
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.checks import check_sender_id, conflict, no_position, unknown_cursor
from rasa_core_api.tracker_store.redis_scripts import (
    APPEND,
    CHECK,
    CLAIM,
    CURSOR,
    DELETE,
    DUE,
    FEED,
    FEED_END,
    FEED_LOST,
    FORGET,
    HOLD,
    LOOK,
    NAMES,
    RELEASE,
    REMINDER,
    REMINDERS,
    RENEW,
    REPLACE,
    SET_CURSOR,
    Script,
)
from rasa_core_api.tracker_store.texts import StoredEvents
from rasa_core_api.tracker_store.turns import NO_NOTE, Earlier, FeedEntry, Opening, Reminder, Tail, TurnNote

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
    births = True

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
        self._renewed = 0.0  # the clock's seconds

    async def open(self) -> None:
        try:
            from rasa_core_api.tracker_store import redis_pool
        except ImportError as error:
            raise InvalidConfiguration(
                "tracker_store.type: the store 'redis' needs txredisapi; install rasa_core_api[redis]"
            ) from error
        self._errors = redis_pool.ERRORS
        self._missing = redis_pool.UNKNOWN_SCRIPT
        self._response = redis_pool.REFUSAL
        self._state = redis_pool.state
        self._renew_connections = redis_pool.renew
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
            reason = redis_pool.reason(self._connection, error)
            await self.close()
            raise self._unavailable(reason) from error
        await self._check_commands()
        await self._check_durability()
        await self._tell_historical()

    async def _check_commands(self) -> None:
        """Refuse a server on which scripts might end half way. Raises `InvalidConfiguration`."""
        try:
            await self._do("eval", CHECK.text, [PREFIX], [])
        except self._errors as error:
            if self._refused(error):
                await self.close()
                raise InvalidConfiguration(
                    f"tracker_store: redis at {self._host}:{self._port} does not do what the store needs (Redis 6.2 or"
                    f" later, and the right to all commands that read and write): {error}"
                ) from error

    def _refused(self, error: Exception) -> bool:
        """Whether the server said no, and not for a state that it may leave."""
        return isinstance(error, self._response) and self._state(error) in (None, "NOPERM")

    async def _tell_historical(self) -> None:
        """Where the database has keys, and none of ours, these may be the historical store's conversations."""
        try:
            if await self._do("exists", f"{PREFIX}rows"):
                return
            keys = await self._do("execute_command", "DBSIZE")
        except (StoreUnavailable, *self._errors):
            return  # managed servers may forbid it
        if keys:
            log.warn(
                "redis has {keys} keys that are not ours: conversations that Rasa Core stored are copied by "
                "'python -m rasa_core_api.conversations migrate --historical' (see docs/stores.md)",
                keys=keys,
            )

    async def _check_durability(self) -> None:
        try:
            answer = await self._do("execute_command", "CONFIG", "GET", "*append*")
            answer += await self._do("execute_command", "CONFIG", "GET", "maxmemory*")
        except (StoreUnavailable, *self._errors):
            return  # managed servers keep their settings to themselves
        kept = dict(zip(answer[::2], answer[1::2], strict=False))
        if kept.get("maxmemory") == "0":
            kept.pop("maxmemory-policy", None)
        self._warnings = [
            f"{key} is '{kept[key]}'" for key, wanted in _DURABLE.items() if key in kept and kept[key] != wanted
        ]
        if self._warnings:
            log.warn(
                "redis may forget answered turns, when it crashes or is full: {reasons} (see docs/stores.md)",
                reasons=", ".join(self._warnings),
            )

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect()

    def _unavailable(self, reason: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"The conversation store at {self._host}:{self._port} cannot be used: {reason.rstrip('.')}."
        )

    async def _do(self, command: str, *arguments: Any) -> Any:
        """Run a command now: while there is no connection it is refused, not kept until there is one."""
        connection = self._connection
        if connection is None:
            raise StoreUnavailable("The conversation store is closed.")
        if not connection._factory.size:
            raise StoreUnavailable(f"The conversation store at {self._host}:{self._port} is not connected.")
        return await getattr(connection, command)(*arguments).addTimeout(TIME_LIMIT, self._clock)

    async def _run(self, script: Script, *arguments: Any) -> Any:
        try:
            try:
                return await self._do("evalsha", script.sha, [PREFIX], list(arguments))
            except self._missing:
                return await self._do("eval", script.text, [PREFIX], list(arguments))
        except self._errors as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> StoreUnavailable:
        """What an error means; a server that became a replica is not asked again over connections that it has."""
        state = self._state(error)
        now = self._clock.seconds()
        if state == "READONLY" and self._connection is not None and now >= self._renewed + _RENEW_EVERY:
            self._renewed = now
            self._renew_connections(self._connection)
        return self._unavailable(state or type(error).__name__)

    # --- logs ----------------------------------------------------------------------------------------

    async def read(self, sender_id: str, after: int = 0, limit: int | None = None) -> Tail | None:
        return (await self.look(sender_id, after, limit)).tail

    async def append(self, sender_id: str, end: int, events: Sequence[Event], note: TurnNote = NO_NOTE) -> int:
        return (await self._append(sender_id, end, events, note))[0]

    async def begin(self, sender_id: str, events: Sequence[Event], note: TurnNote = NO_NOTE) -> tuple[int, int]:
        return await self._append(sender_id, 0, events, note)

    async def _append(self, sender_id: str, end: int, events: Sequence[Event], note: TurnNote) -> tuple[int, int]:
        check_sender_id(sender_id)
        place = f"{end} {'' if note.start is None else note.start} {note.birth or ''}"
        answer = await self._run(APPEND, sender_id, place, self._lifetime, *_note(note, events))
        self._check_held(sender_id, answer)
        if int(answer[0]) == 1:
            return int(answer[1]), int(answer[2])
        conflict(sender_id, end, int(answer[1]) if len(answer) > 1 else None)

    async def replace(self, sender_id: str, events: Sequence[Event], note: TurnNote = NO_NOTE) -> tuple[int, int]:
        check_sender_id(sender_id)
        answer = await self._run(REPLACE, sender_id, int(note.forgets), self._lifetime, *_note(note, events))
        self._check_held(sender_id, answer)
        return int(answer[1]), int(answer[2])

    @staticmethod
    def _check_held(sender_id: str, answer: list[Any]) -> None:
        if int(answer[0]) == -2:
            raise ConversationHeld(sender_id, int(answer[1]) / 1000)

    async def sender_ids(self, after: str | None = None, limit: int | None = None, prefix: str = "") -> list[str]:
        row = "0"
        if after is not None:
            try:
                score = await self._do("zscore", f"{PREFIX}names", after)
            except self._errors as error:
                raise self._failure(error) from error
            if score is None:
                raise unknown_cursor(after)
            row = str(int(float(score)))
        return await self._names(row, limit, "", prefix)

    async def idle(self, before: float, limit: int) -> list[str]:
        return await self._names("0", limit, repr(before), "")

    async def _names(self, row: str, limit: int | None, before: str, prefix: str) -> list[str]:
        names: list[str] = []
        while limit is None or len(names) < limit:
            last, found = await self._run(NAMES, row, _NAMES, before)
            names += [name for name in found if name.startswith(prefix)]
            if last == "":
                break
            row = last
        return names[:limit]

    async def delete(self, sender_id: str) -> bool:
        check_sender_id(sender_id)
        return int(await self._run(DELETE, sender_id)) == 1

    # --- turns ---------------------------------------------------------------------------------------

    async def look(
        self, sender_id: str, after: int = 0, limit: int | None = None, key: str | None = None, owner: str = ""
    ) -> Opening:
        check_sender_id(sender_id)
        while True:
            opening = await self._look(sender_id, after, limit, key or "", owner)
            if not isinstance(opening, _Replaced):
                return opening

    async def _look(self, sender_id: str, after: int, limit: int | None, key: str, owner: str) -> Opening | _Replaced:
        """Read in pages, the next one on its way while one is decoded.

        The log's end, the answer and the claim are those that the first page told.
        """

        def ask(seq: int, most: int) -> Deferred[list[Any]]:
            return Deferred.fromCoroutine(self._run(LOOK, sender_id, seq, most, key, owner))

        events: list[Event] = []
        most = _PAGE if limit is None else min(_PAGE, limit)
        answer = await ask(after, most)
        opening = Opening(None, _earlier(answer[1]), int(answer[0]) / 1000)
        if len(answer) == 2:
            return opening
        tail = Tail(int(answer[2]), int(answer[3]), events, int(answer[5]))
        seq = max(after, tail.start)
        stop = tail.end if limit is None else min(tail.end, seq + limit)
        while True:
            seq += most
            most = min(_PAGE, stop - seq)
            following = ask(seq, most) if most > 0 else None
            try:
                if answer[4]:
                    events += await self._stored.decode([answer[4]])
            except BaseException:
                if following is not None:
                    following.addErrback(lambda _: None)
                raise
            if following is None:
                return evolve(opening, tail=tail)
            answer = await following
            if len(answer) == 2 or (int(answer[2]), int(answer[5])) != (tail.start, tail.birth):
                return _Replaced()

    async def claim(
        self, sender_id: str, end: int, owner: str, key: str | None, seconds: float, birth: int = 0
    ) -> None:
        check_sender_id(sender_id)
        answer = await self._run(CLAIM, sender_id, end, owner, _milliseconds(seconds), birth or "")
        self._check_held(sender_id, answer)
        if int(answer[0]) != 1:
            conflict(sender_id, end, int(answer[1]) if len(answer) > 1 else None)

    async def renew(self, owner: str, seconds: float) -> None:
        await self._run(RENEW, owner, _milliseconds(seconds))

    async def release(self, owner: str, sender_id: str | None = None) -> None:
        await self._run(RELEASE, owner, *([] if sender_id is None else [sender_id]))

    # --- reminders -----------------------------------------------------------------------------------

    async def due(self, before: float, limit: int) -> list[Reminder]:
        found = await self._run(DUE, repr(before), limit)
        return [_reminder(*found[begin : begin + 3]) for begin in range(0, len(found), 3)]

    async def reminders(self, sender_id: str) -> list[Reminder]:
        check_sender_id(sender_id)
        found = await self._run(REMINDERS, sender_id)
        made = [_reminder(sender_id, found[begin], found[begin + 1]) for begin in range(0, len(found), 2)]
        return sorted(made, key=lambda reminder: (reminder.due, reminder.seq))

    async def waits(self, reminder: Reminder) -> bool:
        kept = await self._run(REMINDER, reminder.sender_id, reminder.name)
        if kept is None:
            return False
        found = _reminder(reminder.sender_id, reminder.name, kept)
        return (found.seq, found.due) == (reminder.seq, reminder.due)

    async def forget(self, reminder: Reminder) -> bool:
        return int(await self._run(FORGET, reminder.sender_id, reminder.name, reminder.seq)) == 1

    # --- the order of all appends ----------------------------------------------------------------------

    async def feed(self, after: str | None, limit: int) -> list[FeedEntry]:
        found = await self._run(FEED, _position(after), limit)
        each = await self._stored.decode_each([row[3] for row in found])
        return [FeedEntry(row[0], row[1], int(row[2]), events) for row, events in zip(found, each, strict=True)]

    async def feed_lost(self, after: str) -> bool:
        return int(await self._run(FEED_LOST, _position(after))) == 1

    async def feed_end(self) -> str:
        return str(await self._run(FEED_END))

    async def cursor(self, name: str) -> str | None:
        found = await self._run(CURSOR, name)
        return None if found is None else str(found)

    async def set_cursor(self, name: str, position: str) -> None:
        await self._run(SET_CURSOR, name, _position(position))

    async def hold(self, role: str, owner: str, seconds: float) -> bool:
        return int(await self._run(HOLD, role, owner, _milliseconds(seconds))) == 1

    def status(self) -> dict[str, JSON]:
        return {"type": self.name, "warnings": list(self._warnings)}


class _Replaced:
    """A log was replaced or deleted while it was read."""


_POSITION = re.compile(r"\d{1,19}-\d{1,19}", re.ASCII)
_DURABLE = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
}
#: Seconds between two times that all connections are made anew.
_RENEW_EVERY = 1.0


def _note(note: TurnNote, events: Sequence[Event]) -> list[Any]:
    """The arguments of a script that writes, from the owner on."""
    fired = note.fired
    arguments: list[Any] = [
        note.owner,
        int(note.done),
        repr(events[-1].timestamp) if events else "0",
        note.key or "",
        note.base,
        note.answer,
        _milliseconds(note.keep),
        "" if fired is None else fired.name,
        "" if fired is None else fired.seq,
        len(note.reminders),
    ]
    for reminder in note.reminders:
        arguments += [reminder.name, repr(reminder.due), reminder.seq, json.dumps(reminder.channel)]
    arguments += [event.as_json() for event in events]
    return arguments


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _earlier(kept: str) -> Earlier | None:
    if not kept:
        return None
    _, base, end, done, answer = kept.split(" ", 4)
    return Earlier(int(base), int(end), answer, done == "1")


def _reminder(sender_id: str, name: str, kept: str) -> Reminder:
    found = json.loads(kept)
    return Reminder(sender_id, name, found["due"], found["seq"], found["channel"])


def _position(text: str | None) -> str:
    if text is None:
        return "0-0"
    if not _POSITION.fullmatch(text):
        raise no_position()
    return text
