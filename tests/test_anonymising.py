"""Tests of taking persons out of logs: what goes, and that predictions stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasa_core_api.anonymising import PLACEHOLDER, anonymised, slot_value
from rasa_core_api.domain import Domain
from rasa_core_api.events import Event
from rasa_core_api.events.reading import EventReader
from rasa_core_api.models.loader import load_generation
from rasa_core_api.releases import BY_NAME
from rasa_core_api.trackers import Tracker

SLOTS: dict[str, Any] = {
    "name": {"type": "text"},
    "size": {"type": "categorical", "values": ["small", "large"]},
    "count": {"type": "float", "min_value": 0, "max_value": 10},
    "milk": {"type": "list"},
    "loyal": {"type": "bool"},
    "address": {"type": "unfeaturized"},
    "requested_slot": {"type": "unfeaturized"},
}
READER = EventReader(lambda: 0.0, lambda: "id")


@pytest.fixture(scope="module")
def domain() -> Domain:
    return make_domain()


def make_domain() -> Domain:
    text = {"intents": ["inform"], "entities": list(SLOTS), "slots": SLOTS, "templates": {}, "actions": ["utter_x"]}
    return Domain.from_json(text, BY_NAME["0.12"])


DOMAIN = make_domain()
values = st.recursive(
    st.none() | st.booleans() | st.integers(-20, 20) | st.floats(-20, 20) | st.text(max_size=8)
    | st.sampled_from(["small", "Large", "secret"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


@given(st.sampled_from([*SLOTS, "unknown"]), values)
def test_features_stay(name: str, value: Any) -> None:
    """The value that takes another one's place has the same features."""
    replaced = slot_value(DOMAIN, name, value)
    slot = DOMAIN.slot_by_name.get(name)
    if slot is not None:
        assert slot.features(replaced) == slot.features(value)
    assert (replaced is None) == (value is None)


@given(st.lists(st.tuples(st.sampled_from(list(SLOTS)), values), max_size=6))
def test_states_stay(filled: list[tuple[str, Any]]) -> None:
    """The states that policies see are the same before and after, event by event."""
    events = [event for name, value in filled for event in turn(name, value)]
    before, after = Tracker("u", DOMAIN), Tracker("u", DOMAIN)
    for event, masked in zip(events, anonymised(events, DOMAIN), strict=True):
        before.update(event)
        after.update(masked)
        one, two = before.newest_state(), after.newest_state()
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            assert (one.slots, one.entries, one.action) == (two.slots, two.entries, two.action)


def turn(name: str, value: Any) -> list[Event]:
    entity = {"entity": name, "value": value, "start": 3, "end": 9, "extractor": "ner_crf"}
    parse = {"intent": {"name": "inform", "confidence": 0.9}, "entities": [entity], "text": "my secret"}
    items = [
        {"event": "user", "text": "my secret", "parse_data": parse, "timestamp": 5.0},
        {"event": "slot", "name": name, "value": value, "timestamp": 5.0},
        {"event": "action", "name": "utter_x", "timestamp": 5.0},
        {"event": "bot", "text": "your secret", "data": {"buttons": [{"title": "secret"}], "image": None}},
        {"event": "action", "name": "action_listen", "timestamp": 5.0},
    ]
    return READER.read_list(items)


def test_nothing_of_a_person_is_left(domain: Domain) -> None:
    """Texts and values are gone; intents, names, confidences, times and the number of events stay."""
    events = [*turn("name", "secret"), *turn("address", {"street": "secret"}), *turn("milk", ["secret"])]
    masked = anonymised(events, domain)
    assert "secret" not in json.dumps([event.as_dict() for event in masked])
    assert [event.timestamp for event in masked] == [event.timestamp for event in events]
    first = masked[0].as_dict()
    assert first["parse_data"]["intent"] == {"name": "inform", "confidence": 0.9}
    assert first["parse_data"]["entities"] == [
        {"entity": "name", "value": PLACEHOLDER, "start": 0, "end": 0, "extractor": "ner_crf"}
    ]
    assert masked[3].as_dict()["data"] == {"buttons": PLACEHOLDER, "image": None}


def test_only_known_members_stay(domain: Domain) -> None:
    """What else a client or an NLU server put there goes, and names that the domain does not have: without an NLU a
    text is its own intent."""
    entity = {"entity": "name", "value": "secret", "extractor": "ner_crf", "confidence": 0.5, "role": "secret"}
    parse = {
        "intent": {"name": "inform", "confidence": 0.9, "by": "secret"},
        "intent_ranking": [{"name": "inform", "confidence": 0.9, "by": "secret"}],
        "entities": [entity],
        "language": "secret",
    }
    items = [
        {"event": "user", "text": "secret", "parse_data": parse, "metadata": "secret"},
        {"event": "slot", "name": "requested_slot", "value": "secret"},
        {"event": "user", "text": "secret", "parse_data": {"intent": None}},
        {"event": "user", "text": "secret", "parse_data": {"intent": {"name": "secret", "confidence": 1.0}}},
        {"event": "user", "text": "/back", "parse_data": {"intent": {"name": "back", "confidence": 1.0}}},
    ]
    masked = anonymised(READER.read_list(items), domain)
    assert "secret" not in json.dumps([event.as_dict() for event in masked])
    assert masked[0].as_dict()["parse_data"]["intent"] == {"name": "inform", "confidence": 0.9}
    assert [event.as_dict()["parse_data"]["intent"]["name"] for event in masked[3:]] == [PLACEHOLDER, "back"]


def test_what_is_a_feature_stays(domain: Domain) -> None:
    """Categories, truths and numbers are what policies look at; the slot that a form asks for is a name."""
    assert slot_value(domain, "size", "small") == "small"
    assert slot_value(domain, "size", "my own") == PLACEHOLDER
    assert slot_value(domain, "count", 7.5) == 7.5
    assert slot_value(domain, "loyal", True) is True
    assert slot_value(domain, "requested_slot", "address") == "address"
    assert slot_value(domain, "address", 12) == 0 and slot_value(domain, "address", "x") == PLACEHOLDER


@pytest.mark.conformance
@pytest.mark.parametrize("model", ["rasa-core-0.11.12/cafe-full", "rasa-core-0.14.5/hotel-full"])
def test_recorded_conversations_go_on_alike(model: str, conformance: Path) -> None:
    """After every event of recorded conversations the policies choose the same action with the same confidence."""
    generation = load_generation(conformance / "models" / model)
    recorded = conformance / "transcripts" / ("cafe-full.jsonl" if "cafe" in model else "hotel14.jsonl")
    reader = EventReader(lambda: 0.0, lambda: "id")
    checked = 0
    for events in trackers_in(recorded):
        log = [event for item in events if (event := reader.read(item)) is not None]
        before = Tracker("u", generation.domain)
        after = Tracker("u", generation.domain)
        for event, masked in zip(log, anonymised(log, generation.domain), strict=True):
            before.update(event)
            after.update(masked)
            one, two = generation.ensemble.choose(before), generation.ensemble.choose(after)
            assert (one.index, one.policy, one.confidence) == (two.index, two.policy, two.confidence)
            checked += 1
        if checked > 1500:
            break
    assert checked > 100


def trackers_in(file: Path) -> list[list[dict[str, Any]]]:
    """The longest list of events in each recorded conversation."""
    found = []
    for line in file.read_text("utf-8").splitlines():
        logs: list[list[dict[str, Any]]] = []
        waiting: list[Any] = [json.loads(line)]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                events = value.get("events")
                if isinstance(events, list) and events and all(isinstance(e, dict) and "event" in e for e in events):
                    logs.append(events)
                waiting += value.values()
            elif isinstance(value, list):
                waiting += value
        if logs:
            found.append(max(logs, key=len))
    return found
