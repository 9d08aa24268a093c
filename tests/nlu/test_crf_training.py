from __future__ import annotations

import sys
from typing import Any

import pytest

from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.nlu.components import defaults
from rasa_core_api.nlu.crf import sentence_attributes
from rasa_core_api.nlu.crf_training import tags_of, train_crf
from rasa_core_api.nlu.data_markdown import parse_example
from rasa_core_api.nlu.message import Message
from rasa_core_api.nlu.tokenizers import tokenize

ITEMS = [
    "i am from [Berlin](city)",
    "she is from [New York](city)",
    "he comes from [New Delhi](city), i think",
    "are you from [Rome](city)?",
    "we are from [Great Old Paris](city)",
    "call [Anna](name) now",
    "tell [Bob](name) that i am here",
    "hello there",
    "good morning",
]


def message(text: str) -> Message:
    result = Message(text)
    result.tokens = tokenize(text)
    return result


def texts(*items: str) -> list[tuple[Message, Any]]:
    examples = [parse_example(item, None) for item in items]
    return [(message(example.text), example.entities) for example in examples]


def span(start: int, end: int, name: str = "e") -> dict[str, Any]:
    return {"start": start, "end": end, "entity": name}


@pytest.mark.parametrize(
    ("entities", "bilou", "expected", "whole"),
    [
        ([], True, ["O", "O", "O", "O"], True),
        ([span(0, 1)], True, ["U-e", "O", "O", "O"], True),
        ([span(0, 4)], True, ["B-e", "L-e", "O", "O"], True),
        ([span(2, 9, "x")], True, ["O", "B-x", "I-x", "L-x"], True),
        ([span(2, 9, "x")], False, ["O", "x", "x", "x"], True),
        ([span(2, 3)], True, ["O", "-", "O", "O"], False),
        ([span(3, 6)], True, ["O", "-", "-", "O"], False),
        ([span(3, 6), span(5, 6)], True, ["O", "-", "U-e", "O"], False),
    ],
)
def test_tags(entities: list[dict[str, Any]], bilou: bool, expected: list[str], whole: bool) -> None:
    """Words get the tags of the original; those of an entity that cuts through a word are marked as such."""
    assert tags_of(tokenize("a bb c ddd"[:9]), entities, bilou) == (expected, whole)


@pytest.mark.parametrize("bilou", [True, False])
def test_learns(bilou: bool) -> None:
    """The model finds what it was taught, with the extractor's name, and tells of its progress."""
    seen: list[tuple[int, int]] = []
    settings = {**defaults("ner_crf"), "BILOU_flag": bilou}
    model, remarks = train_crf(texts(*ITEMS), settings, "CRFEntityExtractor", lambda *done: seen.append(done))
    assert model is not None and remarks == []
    found = message("i think she is from New York")
    model.process(found)
    named = [(entity["value"], entity["entity"], entity["extractor"]) for entity in found.entities]
    values = ["New York"] if bilou else ["New", "York"]
    assert named == [(value, "city", "CRFEntityExtractor") for value in values]
    assert seen and all(done <= most == 50 for done, most in seen)


def test_same_as_the_library() -> None:
    """The file is CRFsuite's, and what the library makes of it is what we find."""
    import pycrfsuite

    model, _ = train_crf(texts(*ITEMS), defaults("ner_crf"))
    assert model is not None
    tagger = pycrfsuite.Tagger()
    tagger.open_inmemory(model.content)
    found = message("call Anna from New Delhi")
    model.process(found)
    tagger.set(pycrfsuite.ItemSequence(sentence_attributes(found.tokens, [], model.features)))

    def confidence(name: str, position: int) -> float:
        return sum(tagger.marginal(label, position) for label in tagger.labels() if label.endswith(f"-{name}"))

    assert tagger.tag() == ["O", "U-name", "O", "B-city", "L-city"]
    assert [entity["confidence"] for entity in found.entities] == [
        pytest.approx(confidence("name", 1), abs=1e-12),
        pytest.approx(min(confidence("city", 3), confidence("city", 4)), abs=1e-12),
    ]


def test_same_data_same_file() -> None:
    """Training is not random."""
    one, _ = train_crf(texts(*ITEMS), defaults("ner_crf"))
    two, _ = train_crf(texts(*ITEMS), defaults("ner_crf"))
    assert one is not None and two is not None and one.content == two.content


def test_nothing_to_learn() -> None:
    """Without an entity of its own there is no model; entities may be meant for other extractors."""
    assert train_crf(texts("hello", "good morning"), defaults("ner_crf")) == (None, [])
    other = [(message("at five"), [{**span(3, 7), "extractor": "ner_duckling_http"}])]
    assert train_crf(other, defaults("ner_crf"))[0] is None


def test_remarks() -> None:
    """Unknown features and entities that cut through words are told, not hidden."""
    settings = {**defaults("ner_crf"), "features": [["low"], ["low", "pos"], ["low"]]}
    _, remarks = train_crf([*texts(*ITEMS), (message("Berlin"), [span(0, 3, "city")])], settings)
    assert "'pos'" in remarks[0] and remarks[1].startswith("1 texts")


def test_odd_characters() -> None:
    """Control characters and empty texts are learnt like others."""
    model, _ = train_crf([*texts(*ITEMS, "a\x00b \x01 [\u00e9\u4e2d](city)"), (message("!!"), [])], defaults("ner_crf"))
    assert model is not None
    found = message("a\x00b \ud800 from New York")
    model.process(found)
    assert [entity["value"] for entity in found.entities] == ["New York"]


def test_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without python-crfsuite the operator learns what to do."""
    monkeypatch.setitem(sys.modules, "pycrfsuite", None)
    with pytest.raises(InvalidConfiguration, match="python-crfsuite"):
        train_crf(texts(*ITEMS), defaults("ner_crf"))
