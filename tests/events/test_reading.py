"""Tests of reading events from JSON."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasa_core_api.events import EVENT_TYPES, ActionExecuted, Event, ReminderScheduled, SlotSet, UserUttered
from rasa_core_api.events.reading import EventReader, parse_date_time
from rasa_core_api.exceptions import InvalidEvent, UnknownEvent
from rasa_core_api.jsontext import decode
from tests.samples import EVENTS

READER = EventReader(lambda: 7.0, lambda: "id-1")


@given(EVENTS)
def test_round_trip(event: Event) -> None:
    """Writing, reading and writing an event gives the same text."""
    text = event.as_json()
    again = READER.read(decode(text.encode()))
    assert again is not None
    assert again.as_json() == text
    assert again == event


@given(st.datetimes(timezones=st.none() | st.just(timezone(timedelta(hours=-3, minutes=-30)))))
def test_reminder_round_trip(when: datetime) -> None:
    """A reminder keeps its time with the offset it was given."""
    reminder = ReminderScheduled(
        action_name="action_search", trigger_date_time=when, name="n", kill_on_user_message=False, timestamp=3.0
    )
    again = READER.read(reminder.as_dict())
    assert isinstance(again, ReminderScheduled)
    assert again.as_json() == reminder.as_json()


@pytest.mark.parametrize("stamp", [None, 0, 0.0])
def test_missing_time_is_now(stamp: object) -> None:
    """An absent, null or zero time becomes the present."""
    event = READER.read({"event": "restart", "timestamp": stamp})
    assert event is not None and event.timestamp == 7.0


def test_user_without_parse_data() -> None:
    """A user event that was not parsed has an empty intent and no entities."""
    event = READER.read({"event": "user", "text": "hi"})
    assert isinstance(event, UserUttered)
    assert event.parse_data == {"intent": {}, "entities": [], "text": "hi"}


def test_parse_data_is_kept_verbatim() -> None:
    """Members of parse data that nobody knows survive."""
    data = {"intent": {"name": "greet", "confidence": 0.5}, "entities": [], "text": "hi", "project": "p"}
    event = READER.read({"event": "user", "text": "hi", "parse_data": data})
    assert isinstance(event, UserUttered) and event.parse_data == data


def test_old_confidence_name() -> None:
    """The confidence of an action may come under its old name."""
    event = READER.read({"event": "action", "name": "a", "policy": "p", "policy_confidence": 0.25})
    assert isinstance(event, ActionExecuted) and event.confidence == 0.25


def test_topics_are_ignored() -> None:
    """Topics of old releases are accepted and have no effect."""
    assert READER.read({"event": "topic", "topic": "x"}) is None


def test_export_never_takes_a_path() -> None:
    """A path smuggled in as the time of an export is ignored."""
    event = READER.read({"event": "export", "timestamp": "/tmp/x", "path": "/tmp/y"})
    assert event is not None and event.as_dict() == {"event": "export", "timestamp": 7.0}


def test_lists_skip_what_is_no_event() -> None:
    """Objects of a list that name no event are skipped."""
    events = READER.read_list([{}, {"event": None}, {"event": "slot", "name": "a"}])
    assert events == [SlotSet(key="a", timestamp=1.0)]


def test_unknown_type() -> None:
    """A type that no release knew is refused by name."""
    with pytest.raises(UnknownEvent, match="Unknown event name 'set_slot'"):
        READER.read({"event": "set_slot"})


@pytest.mark.parametrize(
    ("data", "member"),
    [
        ({"event": "slot"}, "name"),
        ({"event": "slot", "name": 3}, "name"),
        ({"event": "action"}, "name"),
        ({"event": "user", "text": 3}, "text"),
        ({"event": "user", "text": "a", "parse_data": []}, "parse_data"),
        ({"event": "user", "text": "a", "parse_data": {"intent": "greet"}}, "intent"),
        ({"event": "user", "text": "a", "parse_data": {"intent": {"name": 3}}}, "intent.name"),
        ({"event": "user", "text": "a", "parse_data": {"entities": [{}]}}, "entities"),
        ({"event": "user", "text": "a", "parse_data": {"intent_ranking": {}}}, "intent_ranking"),
        ({"event": "reminder", "action": "a"}, "date_time"),
        ({"event": "reminder", "action": "a", "date_time": "soon"}, "date_time"),
        ({"event": "reminder", "date_time": "2020-01-01"}, "action"),
        ({"event": "form_validation"}, "validate"),
        ({"event": "restart", "timestamp": "now"}, "timestamp"),
        ({"event": "restart", "timestamp": True}, "timestamp"),
        ({"event": "restart", "timestamp": 10**400}, "timestamp"),
        ({"event": "action", "name": "a", "confidence": "high"}, "confidence"),
        ({"event": "action", "name": "a", "policy_confidence": 10**400}, "policy_confidence"),
        ({"event": "user", "text": "a", "parse_data": {"intent": {"confidence": 10**400}}}, "intent.confidence"),
        ({"event": 3}, "event"),
        ({}, "event"),
        ("slot", "object"),
    ],
)
def test_wrong_members_are_named(data: object, member: str) -> None:
    """A member that is missing or of the wrong type is named."""
    with pytest.raises(InvalidEvent, match=member):
        READER.read(data)


def test_every_type_can_be_read() -> None:
    """There is a reader for each type of event."""
    samples = {"user": {"text": "a"}, "slot": {"name": "a"}, "action": {"name": "a"}, "followup": {"name": "a"},
               "reminder": {"action": "a", "date_time": "2020-01-01T00:00:00"}, "form_validation": {"validate": True},
               "action_execution_rejected": {"name": "a"}}  # fmt: skip
    for name, kind in EVENT_TYPES.items():
        assert type(READER.read({"event": name, **samples.get(name, {})})) is kind


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2018-09-03T11:41:10.128172+02:00", datetime(2018, 9, 3, 11, 41, 10, 128172, timezone(timedelta(hours=2)))),
        ("2018-09-03 11:41:10", datetime(2018, 9, 3, 11, 41, 10)),
        ("2018-09-03T11:41Z", datetime(2018, 9, 3, 11, 41, tzinfo=timezone.utc)),
        ("20180903T114110", datetime(2018, 9, 3, 11, 41, 10)),
        ("2018-09-03", datetime(2018, 9, 3)),
        (
            "2018-09-03T11:41:10.5-0330",
            datetime(2018, 9, 3, 11, 41, 10, 500000, timezone(-timedelta(hours=3, minutes=30))),
        ),
    ],
)
def test_times(text: str, expected: datetime) -> None:
    """Times are read leniently, with and without offsets."""
    assert parse_date_time(text) == expected
