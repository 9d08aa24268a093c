"""Conversations as the historical stores kept them: pickled dialogues in Redis, tracker documents in MongoDB.

The shapes are those of `rasa_core.conversation.Dialogue` (0.8 to 0.14): a name and a list of event objects whose
attributes are their state. The pickles are read as data; nothing in them is called or imported.
"""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from attrs import define
from twisted.internet.interfaces import IReactorTime

from rasa_core_api.constants import JSON
from rasa_core_api.events import Event
from rasa_core_api.events.reading import EventReader
from rasa_core_api.exceptions import InvalidConfiguration, InvalidEvent, StoreUnavailable, UnreadableFile
from rasa_core_api.legacy import FAILURES, Damage
from rasa_core_api.legacy.arrays import plain_of
from rasa_core_api.legacy.pickles import Record, attribute, bytes_of, class_name, load_inert

#: Seconds for one command, and until there has to be a connection.
TIME_LIMIT = 30
_CONNECT = 5
_KEYS = 500

# class: the event's type, and of each JSON member the attributes it may have had, the newest first
_CLASSES: Mapping[str, tuple[str, Mapping[str, tuple[str, ...]]]] = {
    "UserUttered": ("user", {"text": ("text",), "parse_data": ("parse_data",), "input_channel": ("input_channel",)}),
    "ActionExecuted": (
        "action",
        {"name": ("action_name",), "policy": ("policy",), "confidence": ("confidence", "policy_confidence")},
    ),
    "SlotSet": ("slot", {"name": ("key",), "value": ("value",)}),
    "BotUttered": ("bot", {"text": ("text",), "data": ("data",)}),
    "AgentUttered": ("agent", {"text": ("text",), "data": ("data",)}),
    "ReminderScheduled": (
        "reminder",
        {
            "action": ("action_name",),
            "date_time": ("trigger_date_time",),
            "name": ("name",),
            "kill_on_user_msg": ("kill_on_user_message",),
        },
    ),
    "FollowupAction": ("followup", {"name": ("action_name",)}),
    "Form": ("form", {"name": ("name",)}),
    "FormValidation": ("form_validation", {"validate": ("validate",)}),
    "ActionExecutionRejected": (
        "action_execution_rejected",
        {"name": ("action_name",), "policy": ("policy",), "confidence": ("confidence",)},
    ),
    "StoryExported": ("export", {}),
    "Restarted": ("restart", {}),
    "UserUtteranceReverted": ("rewind", {}),
    "ActionReverted": ("undo", {}),
    "AllSlotsReset": ("reset_slots", {}),
    "ConversationPaused": ("pause", {}),
    "ConversationResumed": ("resume", {}),
}
#: Events of old releases that have no effect and are left out.
_DROPPED = frozenset({"TopicSet"})
_MAX_DEPTH = 60
#: Instructions of one pickled dialogue: 100 000 events with long rankings of intents.
_MAX_OPERATIONS = 16_000_000
#: Bytes that one event counts at least, and how much larger than its pickle a dialogue may become.
_EVENT_SIZE = 200
_GROWTH = 50


def read_stored(data: bytes, source: str, reader: EventReader) -> list[Event]:
    """The events of one stored conversation: a pickled dialogue, or JSON (a list of events, or a tracker's state).

    Raises `UnreadableFile`, naming `source`, for anything else.
    """
    try:
        if data.lstrip()[:1] in (b"[", b"{"):
            value = json.loads(data)
            items = value.get("events") if isinstance(value, dict) else value
            if not isinstance(items, list):
                raise Damage("the document holds no list of events")
        else:
            dialogue = load_inert(data, source, _MAX_OPERATIONS)
            if class_name(dialogue) != "Dialogue":
                raise Damage("the pickle is no dialogue")
            reading = _Reading(len(data) * _GROWTH + _EVENT_SIZE)
            items = [item for item in map(reading.event, _list(attribute(dialogue, "events"))) if item is not None]
        return reader.read_list(items)
    except UnreadableFile:
        raise
    except (*FAILURES, RecursionError, InvalidEvent) as error:
        reason = str(error) if isinstance(error, (Damage, InvalidEvent)) else "its content is damaged"
        raise UnreadableFile(f"{source}: {reason}") from error


def _list(value: object) -> list[Any]:
    if isinstance(value, list):
        return value
    if class_name(value) == "deque" and isinstance(value, Record):
        return value.items
    raise Damage("the events are no list")


@define
class _Reading:
    """Makes JSON of one dialogue's objects. `left` is how much may still come of them, in bytes, roughly.

    What a pickle shares is written out each time, so that a small one could stand for terabytes.
    """

    left: int

    def event(self, value: object) -> dict[str, JSON] | None:
        """The JSON form of one event object, None for a type that is dropped."""
        kind = class_name(value)
        if kind in _DROPPED:
            return None
        found = _CLASSES.get(kind or "")
        if found is None:
            raise Damage(f"unknown event class {kind!r}")
        self._take(_EVENT_SIZE)
        name, members = found
        event: dict[str, JSON] = {"event": name, "timestamp": self.plain(_attribute(value, "timestamp"))}
        for member, attributes in members.items():
            for one in attributes:
                event[member] = self.plain(_attribute(value, one))
                if event[member] is not None:
                    break
        if name == "user" and event["parse_data"] is None:
            event["parse_data"] = {
                "intent": self.plain(_attribute(value, "intent")) or {},
                "entities": self.plain(_attribute(value, "entities")) or [],
                "text": event["text"],
            }
        if name == "reminder" and event["kill_on_user_msg"] is None:
            event["kill_on_user_msg"] = True
        return event

    def plain(self, value: Any, depth: int = 0) -> JSON:
        """A JSON value of what an attribute held."""
        if depth > _MAX_DEPTH:
            raise Damage("a value is nested too deep")
        self._take(8)
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, (str, bytes)):
            self._take(len(value))
            return value.decode("utf-8") if isinstance(value, bytes) else value
        if isinstance(value, (list, tuple)):
            return [self.plain(item, depth + 1) for item in value]
        if isinstance(value, dict):
            return self._pairs(value, depth + 1)
        kind = class_name(value)
        if kind == "datetime":
            return _date_time(value).isoformat()
        if kind == "scalar":  # numpy's: confidences are
            return plain_of(value)
        if kind in ("OrderedDict", "defaultdict") and isinstance(value, Record):
            return self._pairs(value.pairs, depth + 1)
        raise Damage(f"a value of the class {kind!r}")

    def _pairs(self, pairs: Mapping[Any, Any], depth: int) -> dict[str, JSON]:
        found: dict[str, JSON] = {}
        for key, item in pairs.items():
            text = _text(key)
            self._take(len(text))
            found[text] = self.plain(item, depth)
        return found

    def _take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise Damage("it says the same too often")


def _attribute(value: object, name: str) -> Any:
    try:
        return attribute(value, name)
    except KeyError:
        return None


def _text(key: object) -> str:
    if isinstance(key, bytes):
        return key.decode("utf-8")
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, (bool, int)):
        return json.dumps(key)
    raise Damage("a key that is no text")


def _date_time(value: Record) -> datetime:
    """A `datetime`, whose pickle holds ten bytes and perhaps a time zone."""
    packed = bytes_of(value.arguments[0])
    year, month, day, hour, minute, second, high, low = struct.unpack(">HBBBBBBH", packed)
    zone = _zone(value.arguments[1]) if len(value.arguments) > 1 else None
    return datetime(year, month & 0x7F, day, hour, minute, second, (high << 16) | low, zone)


def _zone(value: object) -> timezone:
    """UTC of any library, or a fixed offset of the standard library, `dateutil` or `pytz`; Damage for rules."""
    kind = class_name(value)
    if kind in ("tzutc", "_UTC", "UTC"):
        return timezone.utc
    if kind == "timezone" and isinstance(value, Record):
        return timezone(_duration(value.arguments[0]))
    if kind == "tzoffset":
        return timezone(_duration(attribute(value, "_offset")))
    if kind == "tzlocal" and not attribute(value, "_hasdst"):
        return timezone(_duration(attribute(value, "_std_offset")))
    if kind == "_p" and isinstance(value, Record) and len(value.arguments) == 4:  # pytz: the offset of this moment
        return timezone(timedelta(seconds=int(value.arguments[1])))
    raise Damage(f"a time zone of the class {kind!r}")


def _duration(value: object) -> timedelta:
    if class_name(value) != "timedelta" or not isinstance(value, Record):
        raise Damage("an offset that is no timedelta")
    days, seconds, micros = (int(part) for part in value.arguments)
    return timedelta(days, seconds, micros)


class HistoricalRedis:
    """Reads a Redis that the historical store wrote: every key is a sender id. Nothing in it is changed."""

    def __init__(self, clock: IReactorTime, host: str, port: int, db: int, password: str | None) -> None:
        self._clock = clock
        self._address = (host, port, db, password)
        self._connection: Any = None

    async def open(self) -> None:
        """Connect. Raises `StoreUnavailable`, and `InvalidConfiguration` without txredisapi."""
        try:
            from rasa_core_api.tracker_store import redis_pool
        except ImportError as error:
            raise InvalidConfiguration("reading Redis needs txredisapi; install rasa_core_api[redis]") from error
        self._errors = redis_pool.ERRORS
        self._connection = redis_pool.connect(*self._address, 1, charset=None, convertNumbers=False)
        try:
            await self._connection.ping().addTimeout(_CONNECT, self._clock)
        except self._errors as error:
            reason = redis_pool.reason(self._connection, error)
            await self.close()
            raise self._unreadable(reason) from error

    async def close(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            await self._connection.disconnect()

    async def _do(self, *command: Any) -> Any:
        try:
            return await self._connection.execute_command(*command).addTimeout(TIME_LIMIT, self._clock)
        except self._errors as error:
            raise self._unreadable(type(error).__name__) from error

    def _unreadable(self, reason: str) -> StoreUnavailable:
        host, port = self._address[:2]
        return StoreUnavailable(f"Redis at {host}:{port} cannot be read: {reason.rstrip('.')}.")

    async def count(self) -> int:
        """About how many conversations there are: all keys."""
        return int(await self._do("DBSIZE"))

    async def conversations(self, ours: bytes) -> AsyncIterator[tuple[str, bytes]]:
        """Every sender id and what is stored under it; keys that begin with `ours`, or hold no text, are left out."""
        cursor = b"0"
        seen: set[bytes] = set()  # a scan may name a key twice
        while True:
            cursor, keys = await self._do("SCAN", cursor, "COUNT", str(_KEYS))
            for key in keys:
                if key in seen or key.startswith(ours) or await self._do("TYPE", key) not in (b"string", "string"):
                    continue
                seen.add(key)
                value = await self._do("GET", key)
                if value is not None:
                    yield key.decode("utf-8", "replace"), value
            if cursor == b"0":
                return
