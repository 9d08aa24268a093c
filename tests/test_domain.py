"""Tests of domains under the rules of releases."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.logger import capturedLogs, formatEvent

from rasa_core_api.domain import Domain
from rasa_core_api.events import SlotSet
from rasa_core_api.exceptions import InvalidDomain, UnknownAction
from rasa_core_api.releases import BY_NAME
from rasa_core_api.slots import Slot, TextSlot, UnfeaturizedSlot
from rasa_core_api.trackers import Tracker
from tests.samples import SPECIFICATION, domain

EXAMPLE: dict[str, Any] = {
    "intents": ["greet", "bye"],
    "entities": ["city"],
    "slots": {"city": {"type": "text"}, "ok": {"type": "bool"}},
    "actions": ["utter_hi"],
}


def test_layout_of_0_11() -> None:
    """Intents are sorted, booleans have one feature, three default actions come first."""
    assert Domain.from_json(EXAMPLE, BY_NAME["0.11"]).states == [
        "intent_bye", "intent_greet", "entity_city", "slot_city_0", "slot_ok_0", "prev_action_listen",
        "prev_action_restart", "prev_action_default_fallback", "prev_utter_hi",
    ]  # fmt: skip


def test_layout_of_0_9() -> None:
    """Up to 0.9 intents keep the order of the file and there is no fallback action."""
    assert Domain.from_json(EXAMPLE, BY_NAME["0.9"]).states == [
        "intent_greet", "intent_bye", "entity_city", "slot_city_0", "slot_ok_0", "prev_action_listen",
        "prev_action_restart", "prev_utter_hi",
    ]  # fmt: skip


def test_layout_of_0_14() -> None:
    """0.14 has eight default actions and two features a boolean; forms follow at the end."""
    states = Domain.from_json({**EXAMPLE, "forms": ["f"]}, BY_NAME["0.14"]).states
    assert len(states) == 17
    assert states[3:6] == ["slot_city_0", "slot_ok_0", "slot_ok_1"]
    assert states[-3:] == ["prev_utter_hi", "prev_f", "active_form_f"]


class Wide(Slot):
    """A foreign class that says less than it gives."""

    def as_feature(self) -> list[float]:
        return [1.0, 0.0, float(len(self.value or ""))]


def test_entries_of_slots() -> None:
    """What differs from 0 has an entry under its column's name; a slot that the domain lacks has none."""
    rules = Domain(BY_NAME["0.11"], intents={}, slots=[TextSlot("city"), UnfeaturizedSlot("note")])
    for _ in range(2):
        assert rules.slot_features("city", "Rome") == (("slot_city_0", 1.0),)
        assert rules.slot_features("city", None) == ()
    assert rules.slot_features("note", "x") == rules.slot_features("other", "x") == ()


def test_entries_of_foreign_slots() -> None:
    """All that a class gives is named, however many values it has had."""
    rules = Domain(BY_NAME["0.11"], intents={}, slots=[Wide("w")])
    for length in range(2_000):
        entries = rules.slot_features("w", "x" * length)
        assert entries == (("slot_w_0", 1.0), *([("slot_w_2", float(length))] if length else []))


def test_requested_slot_comes_with_forms() -> None:
    """A domain with forms has the slot that they ask for, without features, behind the others."""
    slots = domain("0.12").slots
    assert slots[-1].name == "requested_slot"
    assert slots[-1].width == 0


def test_own_default_action_keeps_its_place() -> None:
    """A bot that lists a default action runs its own, at the default's place."""
    rules = Domain.from_json({**EXAMPLE, "actions": ["utter_hi", "action_restart"]}, BY_NAME["0.11"])
    assert rules.action_names.index("action_restart") == 1
    assert rules.overridden_defaults == {"action_restart"}


def test_action_names_of_old_domains() -> None:
    """Up to 0.10 the names of actions stand apart from their class paths."""
    data = {**EXAMPLE, "actions": ["utter_hi", "bot.Search"], "action_names": ["utter_hi", "action_search"]}
    assert Domain.from_json(data, BY_NAME["0.10"]).action_names[-2:] == ("utter_hi", "action_search")


def test_slots_from_entities() -> None:
    """A list slot takes all values of its entity, any other the last one; slots may opt out."""
    rules = Domain.from_json(
        {"slots": {"b": {"type": "list"}, "a": {"type": "text"}, "c": {"type": "text", "auto_fill": False}}},
        BY_NAME["0.12"],
    )
    entities = [{"entity": name, "value": value} for name, value in [("b", 1), ("a", 2), ("b", 3), ("a", 4), ("c", 5)]]
    assert rules.slots_from_entities(entities) == [("a", 4), ("b", [1, 3])]


def test_intents_that_ignore_entities() -> None:
    """Only the truth of `use_entities` counts."""
    rules = domain("0.11", intents=["a", {"b": {"use_entities": []}}, {"c": {"use_entities": ["city"]}}])
    assert [rules.uses_entities(name) for name in ("a", "b", "c", "other", None)] == [True, False, True, True, True]


def test_unknown_action_lists_what_there_is() -> None:
    """The error for an unknown action lists the known ones, one a line."""
    with pytest.raises(UnknownAction, match="Cannot access action 'x'.*\n\t - action_listen\n\t - action_restart"):
        domain("0.11").index_of("x")


def test_long_names_are_cut() -> None:
    """What a client made up fills neither the answer nor the log."""
    with pytest.raises(UnknownAction) as caught:
        domain("0.11").index_of("x" * 100_000)
    assert "'" + "x" * 100 + "'" in str(caught.value)
    assert caught.value.details == {"action": "x" * 100}


def test_unknown_slots_are_told_once() -> None:
    """However often a slot that is not there is set, the log says it once; and not of any number of slots."""
    bot = domain("0.11")
    with capturedLogs() as told:
        for _ in range(3):
            Tracker("u", bot).extend([SlotSet(key="no\nwhere", value=1, timestamp=1.0)])
        assert [formatEvent(event) for event in told] == [
            "the domain has no slot 'no\\nwhere': its value is kept in the log only"
        ]
        for number in range(200):
            bot.report_unknown_slot(str(number))
    assert len(told) == 100


def test_json_has_historical_types() -> None:
    """Clients see slots under the module paths of history, categories in lower case."""
    shown = domain("0.12").as_dict()
    assert shown["slots"]["mood"] == {
        "type": "rasa_core.slots.CategoricalSlot", "initial_value": None, "values": ["good", "bad"], "auto_fill": True,
    }  # fmt: skip
    assert shown["intents"] == [
        {"greet": {"use_entities": True}}, {"bye": {"use_entities": False}}, {"inform": {"use_entities": True}},
    ]  # fmt: skip
    assert shown["templates"]["utter_hi"] == [{"text": "hello {city}"}]
    assert shown["actions"] == SPECIFICATION["actions"]


def test_json_reads_back() -> None:
    """A domain's JSON is a specification of the same domain."""
    for release in ("0.9", "0.11", "0.14"):
        rules = domain(release)
        again = Domain.from_json(rules.as_dict(), rules.release)
        assert again.states == rules.states
        assert again.as_json() == rules.as_json()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"intents": "greet"}, "intents: expected a list"),
        ({"intents": [3]}, r"intents\[0\]"),
        ({"intents": [{"a": 1}]}, r"intents\[0\].a"),
        ({"actions": ["utter_hi", True]}, r"actions\[1\].*quote it"),
        ({"actions": ["a", "a"]}, "a named more than once"),
        ({"templates": {"utter_hi": "hi"}}, "templates.utter_hi: expected a list"),
        ({"templates": {"utter_hi": [{"image": "x"}]}}, r"templates.utter_hi\[0\]"),
        ({"config": {"colour": 1}}, "config.colour"),
        ({"slots": []}, "slots: expected a map"),
        ({"slots": {"a": {"type": "x"}}}, "slots.a.type"),
    ],
)
def test_refusals_name_the_key(changes: dict[str, Any], reason: str) -> None:
    """A wrong specification is refused by key path."""
    with pytest.raises(InvalidDomain, match=reason):
        Domain.from_json({**EXAMPLE, **changes}, BY_NAME["0.11"])
