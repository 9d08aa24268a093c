"""Tests of templates and how they are filled."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from rasa_core_api.events import SlotSet
from rasa_core_api.nlg import Response
from rasa_core_api.nlg.templates import TemplateGenerator, fill
from rasa_core_api.trackers import Tracker
from tests.samples import domain

VARIABLES: dict[str, Any] = {
    "city": "rome",
    "n": 3.5,
    "none": None,
    "list": ["a", "b"],
    "map": {"k": "v"},
    "a.b": "dot",
}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("hello {city}", "hello rome"),
        ("{none}", "None"),
        ("{n:.2f} {city!r} {city:>6}", "3.50 'rome'   rome"),
        ("{list[1]} {map[k]}", "b v"),
        ("{{city}}", "{city}"),
        ("{unknown} {city}", "{unknown} {city}"),
        ("{city", "{city"),
        ("{}", "{}"),
        ("{0}", "{0}"),
        ("{city.__class__}", "{city.__class__}"),
        ("{map[k].__class__.__mro__}", "{map[k].__class__.__mro__}"),
        ("{city:>1000000000}", "{city:>1000000000}"),
        ("{list[9]}", "{list[9]}"),
    ],
)
def test_format_strings(text: str, filled: str) -> None:
    """Up to 0.13 texts are format strings over JSON values; what cannot be filled stays as it is."""
    assert fill(text, VARIABLES, item_templates=False) == filled


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("hello {city}", "hello rome"),
        ("{a.b}", "dot"),
        ("{city:>6}", "{city:>6}"),
        ("{unknown} {city}", "{unknown} {city}"),
        ("{ci\nty}", "{ci\nty}"),
    ],
)
def test_item_templates(text: str, filled: str) -> None:
    """In 0.14 whatever stands between braces on one line is looked up as it is."""
    assert fill(text, VARIABLES, item_templates=True) == filled


def generate(generator: TemplateGenerator, name: str, tracker: Tracker, **arguments: Any) -> Response | None:
    results: list[Response | None] = []
    Deferred.fromCoroutine(generator.generate(name, tracker, "collector", arguments)).addCallback(results.append)
    return results[0]


def test_arguments_win_over_slots() -> None:
    """A template is filled from slots, then from what the caller gives."""
    rules = domain("0.11")
    tracker = Tracker("u", rules)
    tracker.update(SlotSet(key="city", value="rome", timestamp=1.0))
    generator = TemplateGenerator(rules.templates, rules.release, lambda items: items[0])
    assert generate(generator, "utter_hi", tracker) == {"text": "hello rome"}
    assert generate(generator, "utter_hi", tracker, city="oslo") == {"text": "hello oslo"}


def test_the_domain_is_not_changed_by_what_is_done_to_a_response() -> None:
    """A response may be completed without touching the template."""
    rules = domain("0.11")
    generator = TemplateGenerator(rules.templates, rules.release, lambda items: items[0])
    response = generate(generator, "utter_bye", Tracker("u", rules))
    assert response is not None
    response["buttons"].append({"title": "x"})
    response["buttons"][0]["title"] = "changed"
    assert generate(generator, "utter_bye", Tracker("u", rules)) == {
        "text": "bye", "buttons": [{"title": "again", "payload": "/greet"}],
    }  # fmt: skip


def test_the_given_choice_picks_the_variation() -> None:
    """Which variation is said is decided by the choice that was handed over."""
    rules = domain("0.11", templates={"utter_hi": ["a", "b", "c"]})
    generator = TemplateGenerator(rules.templates, rules.release, lambda items: items[-1])
    assert generate(generator, "utter_hi", Tracker("u", rules)) == {"text": "c"}


def test_missing_template() -> None:
    """A name that has no template gives nothing."""
    rules = domain("0.11")
    generator = TemplateGenerator(rules.templates, rules.release, lambda items: items[0])
    assert generate(generator, "utter_nothing", Tracker("u", rules)) is None
