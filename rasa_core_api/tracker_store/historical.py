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

from twisted.internet.interfaces import IReactorTime

from rasa_core_api.constants import JSON
from rasa_core_api.events import Event
from rasa_core_api.events.reading import EventReader
from rasa_core_api.exceptions import InvalidConfiguration, InvalidEvent, StoreUnavailable, UnreadableFile
from rasa_core_api.legacy import Damage
from rasa_core_api.legacy.pickles import Record, attribute, bytes_of, class_name, load_inert

#: Seconds for one command.
TIME_LIMIT = 30
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
            dialogue = load_inert(data, source)
            if class_name(dialogue) != "Dialogue":
                raise Damage("the pickle is no dialogue")
            items = [item for item in map(_event, _list(attribute(dialogue, "events"))) if item is not None]
        return reader.read_list(items)
    except UnreadableFile:
        raise
    except (ValueError, LookupError, TypeError, RecursionError, struct.error, InvalidEvent) as error:
        raise UnreadableFile(f"{source}: {error}") from error


def _list(value: object) -> list[Any]:
    if isinstance(value, list):
        return value
    if class_name(value) == "deque" and isinstance(value, Record):
        return value.items
    raise Damage("the events are no list")


def _event(value: object) -> dict[str, JSON] | None:
    """The JSON form of one event object, None for a type that is dropped."""
    kind = class_name(value)
    if kind in _DROPPED:
        return None
    found = _CLASSES.get(kind or "")
    if found is None:
        raise Damage(f"unknown event class {kind!r}")
    name, members = found
    event: dict[str, JSON] = {"event": name, "timestamp": _plain(_attribute(value, "timestamp"))}
    for member, attributes in members.items():
        for one in attributes:
            event[member] = _plain(_attribute(value, one))
            if event[member] is not None:
                break
    if name == "user" and event["parse_data"] is None:
        event["parse_data"] = {
            "intent": _plain(_attribute(value, "intent")) or {},
            "entities": _plain(_attribute(value, "entities")) or [],
            "text": event["text"],
        }
    if name == "reminder" and event["kill_on_user_msg"] is None:
        event["kill_on_user_msg"] = True
    return event


def _attribute(value: object, name: str) -> Any:
    try:
        return attribute(value, name)
    except KeyError:
        return None


def _plain(value: Any, depth: int = 0) -> JSON:
    """A JSON value of what an attribute held."""
    if depth > _MAX_DEPTH:
        raise Damage("a value is nested too deep")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_text(key): _plain(item, depth + 1) for key, item in value.items()}
    if class_name(value) == "datetime":
        return _date_time(value).isoformat()
    if class_name(value) in ("OrderedDict", "defaultdict") and isinstance(value, Record):
        return {_text(key): _plain(item, depth + 1) for key, item in value.pairs.items()}
    raise Damage(f"a value of the class {class_name(value)!r}")


def _text(key: object) -> str:
    if isinstance(key, bytes):
        return key.decode("utf-8")
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, (bool, int)):
        return json.dumps(key)
    raise Damage("a key that is no text")


def _date_time(value: Record) -> datetime:
    """A `datetime`, whose pickle holds ten bytes and perhaps a time zone; a zone of another kind than UTC or
    `dateutil`'s own offset is refused."""
    packed = bytes_of(value.arguments[0])
    year, month, day, hour, minute, second, high, low = struct.unpack(">HBBBBBBH", packed)
    zone: timezone | None = None
    if len(value.arguments) > 1:
        kind = class_name(value.arguments[1])
        if kind in ("tzutc", "_UTC", "UTC"):
            zone = timezone.utc
        elif kind == "timezone":
            offset = value.arguments[1].arguments[0]
            days, seconds, micros = (int(part) for part in offset.arguments)
            zone = timezone(timedelta(days, seconds, micros))
        else:
            raise Damage(f"a time zone of the class {kind!r}")
    return datetime(year, month & 0x7F, day, hour, minute, second, (high << 16) | low, zone)


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
            await self._do("PING")
        except StoreUnavailable:
            await self.close()
            raise

    async def close(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            await self._connection.disconnect()

    async def _do(self, *command: Any) -> Any:
        try:
            return await self._connection.execute_command(*command).addTimeout(TIME_LIMIT, self._clock)
        except self._errors as error:
            host, port = self._address[:2]
            raise StoreUnavailable(f"Redis at {host}:{port} cannot be read: {type(error).__name__}.") from error

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
