"""Reading events from JSON: what clients push, action servers answer and stores keep."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from attrs import frozen
from twisted.logger import Logger

from rasa_core_api.constants import JSON
from rasa_core_api.events import (
    ActionExecuted,
    ActionExecutionRejected,
    ActionReverted,
    AgentUttered,
    AllSlotsReset,
    BotUttered,
    ConversationPaused,
    ConversationResumed,
    Event,
    FollowupAction,
    Form,
    FormValidation,
    ReminderScheduled,
    Restarted,
    SlotSet,
    StoryExported,
    UserUtteranceReverted,
    UserUttered,
)
from rasa_core_api.exceptions import InvalidEvent, UnknownEvent

log = Logger()

#: Types of old releases that are accepted and have no effect.
IGNORED_TYPES = frozenset({"topic"})

_DATE_TIME = re.compile(
    r"(\d{4})-?(\d\d)-?(\d\d)[T ]?(?:(\d\d):?(\d\d)(?::?(\d\d)(?:[.,](\d{1,9}))?)?)?"
    r"\s*(Z|z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?"
)


def parse_date_time(text: str) -> datetime:
    """An ISO 8601 time, with or without an offset, seconds or a time of day. Raises ValueError."""
    match = _DATE_TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:60]!r} is not a time such as 2018-09-03T11:41:10+02:00")
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    fraction, zone = match[7], match[8]
    tzinfo: timezone | None = None
    if zone in ("Z", "z", "UTC", "GMT"):
        tzinfo = timezone.utc
    elif zone:
        digits = zone[1:].replace(":", "").ljust(4, "0")
        offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        tzinfo = timezone(-offset if zone[0] == "-" else offset)
    micros = int((fraction or "0").ljust(6, "0")[:6])
    return datetime(year, month, day, hour, minute, second, micros, tzinfo)


@frozen
class EventReader:
    """Reads events; `now` dates those without a time (seconds since the epoch), `new_id` names reminders."""

    now: Callable[[], float]
    new_id: Callable[[], str]

    def read(self, data: JSON) -> Event | None:
        """The event of one JSON object, None for a type that is ignored.

        Raises `UnknownEvent` for a type that no release knew, `InvalidEvent` for a member of the wrong
        type or one that is missing.
        """
        if type(data) is not dict and not isinstance(data, Mapping):
            raise InvalidEvent("An event is a JSON object.", parameter="", **{"in": "body"})
        kind = data.get("event")
        if not isinstance(kind, str):
            raise InvalidEvent("Couldn't extract a proper event from the request body.", parameter="", **{"in": "body"})
        reader = _READERS.get(kind)
        if reader is None:
            if kind in IGNORED_TYPES:
                log.warn("events of type {kind} have no effect", kind=kind)
                return None
            raise UnknownEvent(f"Unknown event name '{kind[:100]}'.", parameter="event", **{"in": "body"})
        time = data.get("timestamp")
        if type(time) is not float or not 0 < time < math.inf:
            time = self._time(data, kind)
        return reader(data, time, self)

    def read_list(self, items: Iterable[JSON]) -> list[Event]:
        """The events of a list; objects that name no event are skipped."""
        events = []
        for item in items:
            if isinstance(item, Mapping) and item.get("event") is None:
                continue
            event = self.read(item)
            if event is not None:
                events.append(event)
        return events

    def _time(self, data: Mapping[str, JSON], kind: str) -> float:
        value = data.get("timestamp")
        if value is None or (kind == StoryExported.type_name and isinstance(value, str)):
            return self.now()
        if not _is_number(value):
            raise _invalid(kind, "timestamp", "a finite number")
        return float(value) or self.now()


def _is_number(value: JSON) -> bool:
    """Whether this is a number that a float can hold."""
    if type(value) is float:
        return -math.inf < value < math.inf
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _invalid(kind: str, name: str, wanted: str) -> InvalidEvent:
    return InvalidEvent(f"The member '{name}' of a '{kind}' event must be {wanted}.", parameter=name, **{"in": "body"})


# --- members of an event object; errors name them ----------------------------------------------------------

_Data = Mapping[str, JSON]


def _text(data: _Data, name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str):
        raise _invalid(data["event"], name, "a text")
    return value


def _optional_text(data: _Data, name: str) -> str | None:
    value = data.get(name)
    if value is not None and not isinstance(value, str):
        raise _invalid(data["event"], name, "a text")
    return value


def _optional_number(data: _Data, *names: str) -> float | None:
    for name in names:
        value: float | None = data.get(name)
        if value is not None:
            if not _is_number(value):
                raise _invalid(data["event"], name, "a number")
            return value
    return None


def _flag(data: _Data, name: str, default: bool | None) -> bool:
    value = data.get(name, default)
    if not isinstance(value, bool):
        raise _invalid(data["event"], name, "true or false")
    return value


def _is_map(value: JSON) -> bool:
    """Whether this is a JSON object; a look at the abstract class takes longer than reading most events."""
    return type(value) is dict or isinstance(value, Mapping)


# --- parse data --------------------------------------------------------------------------------------------


def checked_parse_data(value: JSON, text: str | None, kind: str = "user") -> dict[str, JSON]:
    """Parse data with `intent`, `entities` and `text` in the types that trackers rely on. Raises `InvalidEvent`."""
    if value is None:
        return {"intent": {}, "entities": [], "text": text}
    if not _is_map(value):
        raise _invalid(kind, "parse_data", "an object")
    data = dict(value)
    data.setdefault("intent", {})
    if data.get("entities") is None:
        data["entities"] = []
    _check_parse_data(data, kind)
    return data


def is_checked(data: Mapping[str, JSON]) -> bool:
    """Whether parse data is such as `checked_parse_data` gives. Raises `InvalidEvent` where it refuses them."""
    if "intent" not in data or data.get("entities") is None:
        return False
    _check_parse_data(data, "user")
    return True


def _check_parse_data(data: Mapping[str, JSON], kind: str) -> None:
    intent = data["intent"]
    if intent is not None:
        if not _is_map(intent):
            raise _invalid(kind, "parse_data.intent", "an object")
        _check_intent(intent, "parse_data.intent", kind)
    entities = data["entities"]
    if entities != []:
        _check_entities(entities, kind)
    ranking = data.get("intent_ranking")
    if ranking is not None:
        _check_ranking(ranking, kind)


def _check_ranking(ranking: JSON, kind: str) -> None:
    if not isinstance(ranking, list):
        raise _invalid(kind, "parse_data.intent_ranking", "a list of objects")
    for item in ranking:
        if (
            type(item) is dict
            and type(item.get("name")) is str
            and type(confidence := item.get("confidence")) is float
            and -math.inf < confidence < math.inf
        ):
            continue  # what nearly all are, told apart at the least cost
        if not _is_map(item):
            raise _invalid(kind, "parse_data.intent_ranking", "a list of objects")
        _check_intent(item, "parse_data.intent_ranking", kind)


def _check_entities(entities: JSON, kind: str) -> None:
    if not isinstance(entities, list) or not all(
        _is_map(entity) and isinstance(entity.get("entity"), str) for entity in entities
    ):
        raise _invalid(kind, "parse_data.entities", "a list of objects with 'entity' and 'value'")


def _check_intent(intent: _Data, name: str, kind: str) -> None:
    called = intent.get("name")
    if called is not None and not isinstance(called, str):
        raise _invalid(kind, f"{name}.name", "a text")
    confidence = intent.get("confidence")
    if confidence is not None and not _is_number(confidence):
        raise _invalid(kind, f"{name}.confidence", "a number")


# --- one reader a type -------------------------------------------------------------------------------------

_Reader = Callable[[_Data, float, EventReader], Event]


def _user(data: _Data, time: float, reader: EventReader) -> Event:
    text = _optional_text(data, "text")
    return UserUttered(
        text=text,
        parse_data=checked_parse_data(data.get("parse_data"), text),
        input_channel=_optional_text(data, "input_channel"),
        timestamp=time,
    )


def _reminder(data: _Data, time: float, reader: EventReader) -> Event:
    try:
        when = parse_date_time(_text(data, "date_time"))
    except ValueError as error:
        raise InvalidEvent(
            f"The member 'date_time' of a 'reminder' event: {error}", parameter="date_time", **{"in": "body"}
        ) from None
    return ReminderScheduled(
        action_name=_text(data, "action"),
        trigger_date_time=when,
        name=_optional_text(data, "name") or reader.new_id(),
        kill_on_user_message=_flag(data, "kill_on_user_msg", True),
        timestamp=time,
    )


def _bare(kind: type[Any]) -> _Reader:
    def read(data: _Data, time: float, reader: EventReader) -> Event:
        event: Event = kind(timestamp=time)
        return event

    return read


def _utterance(kind: type[BotUttered]) -> _Reader:
    def read(data: _Data, time: float, reader: EventReader) -> Event:
        return kind(text=_optional_text(data, "text"), data=data.get("data"), timestamp=time)

    return read


_READERS: Mapping[str, _Reader] = {
    "user": _user,
    "bot": _utterance(BotUttered),
    "agent": _utterance(AgentUttered),
    "slot": lambda d, t, r: SlotSet(key=_text(d, "name"), value=d.get("value"), timestamp=t),
    "action": lambda d, t, r: ActionExecuted(
        action_name=_text(d, "name"),
        policy=_optional_text(d, "policy"),
        confidence=_optional_number(d, "confidence", "policy_confidence"),
        timestamp=t,
    ),
    "followup": lambda d, t, r: FollowupAction(action_name=_text(d, "name"), timestamp=t),
    "reminder": _reminder,
    "form": lambda d, t, r: Form(name=_optional_text(d, "name"), timestamp=t),
    "form_validation": lambda d, t, r: FormValidation(validate=_flag(d, "validate", None), timestamp=t),
    "action_execution_rejected": lambda d, t, r: ActionExecutionRejected(
        action_name=_text(d, "name"),
        policy=_optional_text(d, "policy"),
        confidence=_optional_number(d, "confidence"),
        timestamp=t,
    ),
    **{
        kind.type_name: _bare(kind)
        for kind in (
            AllSlotsReset,
            Restarted,
            UserUtteranceReverted,
            ActionReverted,
            ConversationPaused,
            ConversationResumed,
            StoryExported,
        )
    },
}
