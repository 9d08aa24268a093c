"""Tests of reading what this project wrote: quick, and never another result than the careful reader's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rasa_core_api.events import EVENT_TYPES, Event, ReminderScheduled
from rasa_core_api.events.reading import EventReader
from rasa_core_api.events.written import read_written
from rasa_core_api.exceptions import RasaCoreError
from tests.samples import EVENTS

READER = EventReader(lambda: 0.0, lambda: "id-1")

_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**40), 10**40),
    st.sampled_from([2**63, -(2**64), 10**300]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=4),
)
_VALUES = st.recursive(
    _LEAVES,
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=3), each, max_size=3),
    max_leaves=6,
)


def _mostly(good: st.SearchStrategy[object], bad: st.SearchStrategy[object] = _LEAVES) -> st.SearchStrategy[object]:
    return st.integers(0, 9).flatmap(lambda number: good if number else bad)


_TEXTS = _mostly(st.text(max_size=3))
_OPTIONAL = _mostly(st.none() | st.text(max_size=3))
_NUMBERS = _mostly(st.none() | st.integers(-3, 2**70) | st.floats(allow_nan=False, allow_infinity=False))
_FLAGS = _mostly(st.booleans())
_INTENTS = _mostly(
    st.none() | st.fixed_dictionaries({}, optional={"name": _OPTIONAL, "confidence": _NUMBERS, "other": _VALUES}),
    _VALUES,
)
_ENTITIES = st.lists(st.fixed_dictionaries({"entity": _TEXTS, "value": _VALUES}), max_size=2)
_PARSE_DATA = st.fixed_dictionaries(
    {"intent": _INTENTS, "entities": _mostly(_ENTITIES, _VALUES)},
    optional={
        "intent_ranking": _mostly(st.lists(_INTENTS, max_size=2), _VALUES),
        "text": _OPTIONAL,
        "project": _VALUES,
    },
)
_BROKEN = _VALUES | st.fixed_dictionaries({}, optional={"intent": _INTENTS, "entities": _VALUES})


def _is_time(value: object) -> bool:
    return repr(value) != "-0.0"  # a zero was given a time before it was written


#: Objects that are events, nearly so, or not at all.
OBJECTS = st.fixed_dictionaries(
    {
        "event": st.sampled_from([*EVENT_TYPES, "user", "slot", "action", "topic", "nothing"]),
        "timestamp": _mostly(st.just(5.0), _LEAVES.filter(_is_time)),
        "name": _TEXTS,
        "validate": _FLAGS,
        "parse_data": _mostly(_PARSE_DATA, _BROKEN),
    },
    optional={
        "text": _OPTIONAL,
        "input_channel": _OPTIONAL,
        "data": _VALUES,
        "value": _VALUES,
        "policy": _OPTIONAL,
        "confidence": _NUMBERS,
        "action": _TEXTS,
        "date_time": _mostly(st.just("2018-09-03T11:41:10+02:00")),
        "kill_on_user_msg": _FLAGS,
        "-text": _LEAVES,
        "other": _VALUES,
    },
)


def members(event: Event) -> list[str]:
    """All that an event holds, numbers as they are written, but for the text it keeps."""
    return [
        f"{name} {json.dumps(getattr(event, name), sort_keys=True, default=str)}"
        for name in event.__struct_fields__
        if name != "_text"
    ]


@given(st.lists(EVENTS, max_size=6))
def test_what_was_written_is_read(events: list[Event]) -> None:
    """Events come back as they were, with their text."""
    lines = [event.as_json() for event in events]
    again = read_written(lines)
    assert again == events
    assert [members(event) for event in again] == [members(event) for event in events]
    assert [event.as_json() for event in again] == lines


@given(OBJECTS)
@example({"event": "slot", "name": "a", "value": 10**40, "timestamp": 1})
@example({"event": "user", "text": "hi", "parse_data": {"intent": {}}, "timestamp": 1.0})
@example({"event": "bot", "text": None, "data": None, "timestamp": 0})
@example({"event": "slot", "name": "a", "value": 1, "timestamp": 1.0, "-text": "{}"})
def test_the_careful_reader_agrees(data: dict[str, Any]) -> None:
    """Whatever is read quickly is what the careful reader makes of it; what that one refuses is not read."""
    line = json.dumps(data)
    events = read_written([line])
    if events is None:
        return
    careful = READER.read(json.loads(line))
    assert careful is not None
    assert type(events[0]) is type(careful)
    assert members(events[0]) == members(careful)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{}",
        "null",
        '{"event":"restart","timestamp":1.0},{"event":"restart","timestamp":1.0}',
        '{"event":"restart","timestamp":1e999}',
        '{"event":"restart"}',
        '{"event":"topic","timestamp":1.0}',
        '{"event":"slot","name":"a","timestamp":1.0,"value":"\\ud800"}',
        '{"event":"slot","name":"a","timestamp":1.0,"value":' + "[" * 50_000 + "]" * 50_000 + "}",
    ],
)
def test_what_was_not_written_here(line: str) -> None:
    """Anything else is left to the careful reader."""
    assert read_written([line]) is None


def test_reminders_are_left_to_the_careful_reader() -> None:
    """Their times have spellings of their own."""
    data = {"action": "a", "date_time": "2018-09-03T11:41:10.5+02:00", "name": "n", "kill_on_user_msg": True}
    event = READER.read({"event": "reminder", "timestamp": 1.0, **data})
    assert isinstance(event, ReminderScheduled)
    assert read_written([event.as_json()]) is None


def test_most_kinds_are_read_quickly() -> None:
    """All but reminders: their members carry the names of the JSON form."""
    data = {"name": "a", "text": "t", "value": 1, "validate": True, "parse_data": {"intent": {}, "entities": []}}
    for kind in EVENT_TYPES:
        try:
            event = READER.read({"event": kind, "timestamp": 1.0, **data})
        except RasaCoreError:
            assert kind == ReminderScheduled.type_name
            continue
        assert event is not None
        assert [type(found) for found in read_written([event.as_json()]) or ()] == [type(event)]
