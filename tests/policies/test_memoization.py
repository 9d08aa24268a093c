"""Tests of memoization: keys, and the forgetful look at conversations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasa_core_api.domain import Domain
from rasa_core_api.events import Event, Form, SlotSet
from rasa_core_api.exceptions import UnsupportedModel
from rasa_core_api.policies.memoization import (
    AugmentedMemoizationPolicy,
    MemoizationPolicy,
    key_of,
    read_key,
    write_key,
)
from rasa_core_api.policies.policy import LoadContext
from rasa_core_api.trackers import Tracker
from tests import naive
from tests.samples import LOGS, action, domain, user

DOMAINS = {name: domain(name) for name in ("0.11", "0.12", "0.14")}
HISTORY = 3


def plain(entries: list[dict[str, float] | None]) -> str:
    return json.dumps(entries, sort_keys=True).replace('"', "")


def naive_window(rules: Domain, events: list[Event]) -> list[dict[str, float] | None]:
    found = naive.states(rules, events)[-HISTORY:]
    return [None] * (HISTORY - len(found)) + found


def naive_windows(rules: Domain, events: list[Event]) -> list[str]:
    """Keys that the forgetful recall looks up, in its order."""
    keys = [plain(naive_window(rules, events))]
    positions = [i for i, event in enumerate(events) if event.type_name == "action"]
    for cut in positions[1:]:
        key = plain(naive_window(rules, events[cut:]))
        if key != keys[-1]:
            keys.append(key)
    return keys


def test_key_of_the_beginning() -> None:
    """The state before the first action is empty, padding before it is null."""
    tracker = Tracker("u", domain("0.11", slots={}))
    assert key_of(tracker.state_window(3)) == "[null, null, {}]"
    tracker.extend([action("action_listen"), user("greet")])
    assert key_of(tracker.state_window(3)) == "[null, {}, {intent_greet: 1.0, prev_action_listen: 1.0}]"


@given(st.text())
def test_keys_round_trip(text: str) -> None:
    """A persisted key reads back as its plain form; so does one that was never compressed."""
    assert read_key(write_key(text)) == text
    assert read_key("[" + text) == "[" + text


@given(st.sampled_from(sorted(DOMAINS)), LOGS, st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_forgetful_recall_equals_replay(release: str, events: list[Event], random: object) -> None:
    """Evaluating only the cuts that matter finds what cutting and replaying everywhere finds."""
    rules = DOMAINS[release]
    if not rules.release.has_forms:
        events = [event for event in events if not isinstance(event, Form)]
    keys = naive_windows(rules, naive.applied(events))
    known = {key: index % len(rules.action_names) for index, key in enumerate(keys) if random.random() < 0.3}  # type: ignore[attr-defined]
    tracker = Tracker("u", rules)
    tracker.extend(events)
    policy = AugmentedMemoizationPolicy(known, HISTORY)
    expected = next((known[key] for key in keys if key in known), None)
    assert policy.recall(tracker, rules) == expected


def test_forgotten_slot_takes_its_initial_value() -> None:
    """A slot that was emptied before the cut has its initial value again behind it."""
    rules = DOMAINS["0.11"]
    events = [action("action_listen"), SlotSet(key="place", value=None, timestamp=1.0), user("greet"),
              action("utter_hi"), action("action_listen"), user("bye")]  # fmt: skip
    tracker = Tracker("u", rules)
    tracker.extend(events)
    key = "[{slot_place_0: 1.0}, {prev_utter_hi: 1.0, slot_place_0: 1.0}, " \
        "{intent_bye: 1.0, prev_action_listen: 1.0, slot_place_0: 1.0}]"  # fmt: skip
    assert AugmentedMemoizationPolicy({key: 4}, HISTORY).recall(tracker, rules) == 4
    assert MemoizationPolicy({key: 4}, HISTORY).recall(tracker, rules) is None


def test_scores_follow_the_release() -> None:
    """A hit scores what the release gave it."""
    for release, score in (("0.11", 1.0), ("0.13", 1.1), ("0.14", 1.0)):
        rules = domain(release)
        tracker = Tracker("u", rules)
        policy = MemoizationPolicy({key_of(tracker.state_window(2)): 3}, 2)
        assert policy.predict(tracker, rules).best() == (3, score)


def test_missing_memory_is_empty(tmp_path: Path) -> None:
    """A directory without a memory file loads as a policy without opinions."""
    policy = MemoizationPolicy.load(tmp_path, LoadContext(domain=DOMAINS["0.11"], max_history=2))
    assert policy.lookup == {}


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"lookup": 3}', '{"lookup": {"[null]": 99}}', '{"lookup": {"[null]": "x"}}', "[" * 100_000]
)
def test_broken_memory_is_named(tmp_path: Path, content: str) -> None:
    """A file that is no memory is refused by name."""
    (tmp_path / "memorized_turns.json").write_text(content)
    with pytest.raises(UnsupportedModel, match="memorized_turns.json"):
        MemoizationPolicy.load(tmp_path, LoadContext(domain=DOMAINS["0.11"], max_history=2))


def test_bomb_in_a_key_is_refused(tmp_path: Path) -> None:
    """A key that unpacks to megabytes is not unpacked."""
    (tmp_path / "memorized_turns.json").write_text(json.dumps({"lookup": {write_key("x" * 5_000_000): 0}}))
    with pytest.raises(UnsupportedModel, match="1 MB"):
        MemoizationPolicy.load(tmp_path, LoadContext(domain=DOMAINS["0.11"], max_history=2))
