from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from rasa_core_api.exceptions import InvalidTrainingData
from rasa_core_api.nlu.data import Example, Lookup, TrainingData
from rasa_core_api.nlu.data_json import (
    Document,
    read_dialogflow_entity,
    read_dialogflow_intent,
    read_luis,
    read_rasa,
    read_wit,
    write_json,
)

from .test_data_markdown import data_sets

RASA = {
    "rasa_nlu_data": {
        "common_examples": [
            {
                "text": "i am from Berlin",
                "intent": " inform ",
                "entities": [{"start": 10, "end": 16, "value": "Berlin", "entity": "city", "extractor": "ner_crf"}],
            },
            {"text": "no intent"},
        ],
        "intent_examples": [{"text": "hey", "intent": "greet"}],
        "regex_features": [{"name": "zipcode", "pattern": "[0-9]{5}"}],
        "lookup_tables": [{"name": "currencies", "elements": ["Yen", "USD"]}, {"name": "x", "elements": "x.txt"}],
        "entity_synonyms": [{"value": "New York", "synonyms": ["NYC", "New York"]}],
    }
}


def span(start: Any, end: Any) -> dict[str, Any]:
    return {"start": start, "end": end, "entity": "e"}


def document(value: Any) -> Document:
    return Document(json.dumps(value, indent=1), "data.json")


def test_rasa() -> None:
    """Examples keep their entities' further members; old spellings are read with a warning."""
    data = read_rasa(document(RASA))
    city = {"start": 10, "end": 16, "value": "Berlin", "entity": "city", "extractor": "ner_crf"}
    assert data.examples == [
        Example("i am from Berlin", "inform", (city,)),
        Example("no intent"),
        Example("hey", "greet"),
    ]
    assert data.regexes == [{"name": "zipcode", "pattern": "[0-9]{5}"}]
    assert data.lookups == [Lookup("currencies", ("Yen", "USD")), Lookup("x", "x.txt")]
    assert data.synonyms == {"NYC": "New York", "New York": "New York"}
    assert len(data.warnings) == 1 and "'intent_examples'" in data.warnings[0]


@given(data_sets())
def test_round_trip(data: TrainingData) -> None:
    """What is written is read again as the same data."""
    assert read_rasa(Document(write_json(data), "")) == data


def test_writing_synonyms() -> None:
    """Synonyms are grouped by value and those that stand for themselves are dropped."""
    data = TrainingData(synonyms={"NYC": "New York", "New York": "New York", "big apple": "New York", "LA": "L.A."})
    assert data.as_json()["rasa_nlu_data"]["entity_synonyms"] == [
        {"value": "New York", "synonyms": ["NYC", "big apple"]},
        {"value": "L.A.", "synonyms": ["LA"]},
    ]


@pytest.mark.parametrize(
    ("change", "line", "reason"),
    [
        ({"common_examples": [{"text": "a"}, {"intent": "x"}]}, 7, "common_examples[1].text: a text is wanted"),
        ({"common_examples": [{"text": ""}]}, 5, "no character"),
        ({"common_examples": [{"text": "a", "intent": 3}]}, 6, "intent: a text is wanted, not a number"),
        ({"common_examples": [{"text": "a", "entities": [span(0, 9)]}]}, 7, "0 to 9 is no part"),
        ({"common_examples": [{"text": "a", "entities": [span("0", 1)]}]}, 8, "whole number"),
        ({"common_examples": {"text": "a"}}, 3, "a list is wanted, not an object"),
        ({"lookup_tables": [{"name": "x", "elements": [1]}]}, 7, "elements[0]: a text is wanted"),
        ({"regex_features": [{"name": "x"}]}, 4, "pattern: a text is wanted, not nothing"),
    ],
)  # fmt: skip
def test_errors_name_their_line(change: dict[str, Any], line: int, reason: str) -> None:
    """What the schema forbids is refused with the file, the line and the place in the document."""
    with pytest.raises(InvalidTrainingData) as caught:
        read_rasa(document({"rasa_nlu_data": change}))
    assert str(caught.value).startswith(f"data.json, line {line}: ") and reason in str(caught.value)
    assert caught.value.details["line"] == line


@pytest.mark.parametrize(
    ("text", "line"), [('{"a":\n 1\n x}', 3), ("[" * 200, None), ("", 1), ('{"a": 1} x', 1), ("[[[", 1)]
)
def test_not_json(text: str, line: int | None) -> None:
    """Text that is not JSON is refused with the line where reading stopped."""
    with pytest.raises(InvalidTrainingData, match="not JSON") as caught:
        Document(text, "data.json")
    assert caught.value.details["line"] == line


def test_other_member_at_the_top() -> None:
    """Only rasa_nlu_data may stand at the top."""
    with pytest.raises(InvalidTrainingData, match="'version'"):
        read_rasa(document({"rasa_nlu_data": {}, "version": 1}))


def test_lone_surrogates() -> None:
    """Half a character is replaced, and entities stay where they are."""
    value = {"rasa_nlu_data": {"common_examples": [{"text": "a\ud800 b", "entities": [span(3, 4)]}]}}
    example = read_rasa(document(value)).examples[0]
    assert example.text == "a\ufffd b" and example.entities[0]["value"] == "b"


def test_wit() -> None:
    """The entity called intent is the intent; quotes around values are dropped."""
    data = read_wit(
        document(
            {
                "data": [
                    {
                        "text": "to Rome",
                        "entities": [
                            {"entity": "intent", "value": '"travel"'},
                            {"entity": "city", "value": '"Rome"', "start": 3, "end": 7},
                            {"entity": "mood", "value": "good"},
                        ],
                    }
                ]
            }
        )
    )
    rome = {"start": 3, "end": 7, "value": "Rome", "entity": "city"}
    assert data.examples == [Example("to Rome", "travel", (rome,))]


def test_luis() -> None:
    """The end of an entity is its last character; only active regexes are taken."""
    content = {
        "luis_schema_version": "2.1",
        "utterances": [
            {"text": "to Rome", "intent": "travel", "entities": [{"entity": "city", "startPos": 3, "endPos": 6}]}
        ],
        "regex_features": [
            {"name": "zip", "pattern": "[0-9]", "activated": True},
            {"name": "off", "pattern": "x", "activated": False},
        ],
    }
    data = read_luis(document(content))
    rome = {"start": 3, "end": 7, "value": "Rome", "entity": "city"}
    assert data.examples == [Example("to Rome", "travel", (rome,))]
    assert data.regexes == [{"name": "zip", "pattern": "[0-9]"}]
    with pytest.raises(InvalidTrainingData, match=r"line 2: luis_schema_version: only version 2"):
        read_luis(document({"luis_schema_version": "3.0"}))


def test_dialogflow() -> None:
    """Chunks are joined to texts, those with an alias are entities; entries give synonyms."""
    says = [
        {
            "data": [
                {"text": "to "},
                {"text": "Rome", "meta": "@sys.geo-city", "alias": "city"},
                {"text": " today", "meta": "@sys.ignore"},
                {"text": " 5", "meta": "@sys.number"},
            ]
        }
    ]
    data = read_dialogflow_intent(document({"name": "travel", "responses": []}), document(says))
    rome = {"start": 3, "end": 7, "value": "Rome", "entity": "city"}
    five = {"start": 13, "end": 15, "value": " 5", "entity": "@sys.number"}
    assert data.examples == [Example("to Rome today 5", "travel", (rome, five))]
    entries = [{"value": "Rome", "synonyms": ["Rome", "Roma"]}]
    assert read_dialogflow_entity(document({"isEnum": False}), document(entries)).synonyms["Roma"] == "Rome"
