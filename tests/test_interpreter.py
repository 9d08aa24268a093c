"""Tests of messages that spell their intent."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasa_core_api.exceptions import MessageFailed
from rasa_core_api.interpreter import RegexInterpreter
from rasa_core_api.releases import BY_NAME
from tests.cpu import cpu_limit


def parse(text: str, release: str = "0.11") -> dict[str, Any]:
    return RegexInterpreter(BY_NAME[release]).parse_sync(text)


def test_the_whole_syntax() -> None:
    """Intent, confidence and entities are read; each entity spans the JSON part."""
    assert parse('/inform@0.9{"a": 1}') == {
        "text": '/inform@0.9{"a": 1}',
        "intent": {"name": "inform", "confidence": 0.9},
        "intent_ranking": [{"name": "inform", "confidence": 0.9}],
        "entities": [{"entity": "a", "start": 11, "end": 19, "value": 1}],
    }


@pytest.mark.parametrize(
    ("text", "release", "name", "confidence"),
    [
        ("/greet", "0.11", "greet", 1.0),
        ("greet ", "0.11", "greet", 1.0),
        ("_greet", "0.11", "greet", 1.0),
        ("_greet", "0.13", "_greet", 1.0),
        ("", "0.11", None, 0.0),
        ("", "0.9", None, 1.0),
        ('{"a": 1}', "0.11", None, 0.0),
        ("@0.5", "0.11", None, 0.0),
        ("@0.5", "0.9", "@0.5", 1.0),
        ("order@0.85", "0.9", "order@0.85", 1.0),
        ("/order@0.85", "0.11", "order", 0.85),
        ("/order@1.2.3", "0.11", "order", 0.0),
        ('/{"a": 1}', "0.11", "/", 1.0),
        ("/greet@high", "0.11", "greet", 1.0),
        ("/greet@" + "9" * 400, "0.11", "greet", 0.0),
    ],
)
def test_intents(text: str, release: str, name: str | None, confidence: float) -> None:
    """The intent ends at the confidence or the entities; the prefix is optional."""
    assert parse(text, release)["intent"] == {"name": name, "confidence": confidence}


def test_lists_give_several_entities() -> None:
    """A list value gives one entity an item."""
    assert [entity["value"] for entity in parse('/a{"x": [1, "b"], "y": null}')["entities"]] == [1, "b", None]


@pytest.mark.parametrize("text", ["/a{", "/a{x}", '/a{"x": NaN}', "/a{}", '/a{"x": 1}}'])
def test_bad_entities_are_left_out(text: str) -> None:
    """Entities that are no JSON object are left out, the intent stays."""
    assert parse(text)["entities"] == []
    assert parse(text)["intent"]["name"] == "a"


@pytest.mark.parametrize(
    ("text", "release", "shown"),
    [
        ("greet", "0.11", "greet"),
        ("greet", "0.12", "/greet"),
        ("_greet", "0.12", "_greet"),
        ("_greet", "0.13", "/_greet"),
        ("", "0.14", "/"),
    ],
)
def test_shown_text(text: str, release: str, shown: str) -> None:
    """From 0.12 on the parse data of a message without prefix shows one."""
    assert parse(text, release)["text"] == shown


def test_brackets() -> None:
    """The first releases also read brackets; each entity spans its value."""
    assert parse("_Greet [name=Ada,city=x y]") == {
        "text": "_Greet [name=Ada,city=x y]",
        "intent": {"name": "greet ", "confidence": 1.0},
        "intent_ranking": [{"name": "greet ", "confidence": 1.0}],
        "entities": [
            {"entity": "name", "start": 13, "end": 16, "value": "Ada"},
            {"entity": "city", "start": 22, "end": 25, "value": "x y"},
        ],
    }
    assert parse("/greet[name=Ada]", "0.13")["intent"]["name"] == "greet[name=Ada]"


def test_brackets_without_intent() -> None:
    """Nothing in front of the brackets is an error, in 0.9 an unknown intent."""
    assert parse("[a=b]", "0.9")["intent"]["name"] is None
    with pytest.raises(MessageFailed):
        parse("[a=b]", "0.11")


@given(st.text(), st.sampled_from(["0.9", "0.11", "0.12", "0.14"]))
def test_any_text_is_read(text: str, release: str) -> None:
    """Whatever is said, the result has its members; only empty brackets may fail."""
    try:
        data = parse(text, release)
    except MessageFailed:
        return
    assert set(data) == {"text", "intent", "intent_ranking", "entities"}
    assert data["intent"] == data["intent_ranking"][0]


def test_long_brackets_take_no_longer_than_their_length() -> None:
    """A long name without a value is read once, not once a character."""
    with cpu_limit():
        assert parse("g[" + "a" * 1_000_000)["entities"] == []
        assert parse("g[" + "a" * 500_000 + "=b]")["entities"][0]["value"] == "b"


@pytest.mark.parametrize("text", ['/a{"x": [' + "1," * 500_000 + "1]}", "g[" + "a=b," * 250_000 + "]"])
def test_too_many_entities_are_left_out(text: str) -> None:
    """A message of half a million entities keeps its intent only, and nobody waits for it."""
    with cpu_limit():
        assert parse(text)["entities"] == []


def test_a_long_value_is_kept() -> None:
    """A message may carry one long text."""
    text = "x, " * 3_000 + "y" * 900_000
    assert parse('/a{"note": "' + text + '"}')["entities"][0]["value"] == text


@given(st.text("ab=,[] ", max_size=12))
def test_any_brackets(text: str) -> None:
    """Brackets are read by the rule: a name without marks, `=`, and a value up to the next comma."""
    rule = re.compile(r"([^=,\[\]]+)=([^,\]]*)")
    inside = text.partition("]")[0]
    expected = [(pair[1].strip(), pair[2], pair.start(2) + 2) for pair in rule.finditer(inside)]
    found = parse(f"g[{text}")["entities"]
    assert [(entity["entity"], entity["value"], entity["start"]) for entity in found] == expected
