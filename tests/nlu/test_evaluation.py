from __future__ import annotations

import json
from collections import Counter
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from rasa_core_api.nlu.config import config_from_json
from rasa_core_api.nlu.data import Example
from rasa_core_api.nlu.evaluation import (
    NO_INTENT,
    Evaluation,
    Score,
    answers_of,
    averages,
    cross_validate,
    stratified,
    total,
)
from rasa_core_api.nlu.evaluation_page import page

from .test_training import DATA


def span(start: int, end: int, name: str) -> dict[str, Any]:
    return {"start": start, "end": end, "entity": name, "value": "v"}


SAID = {
    "hi": ("greet", 0.9, []),
    "hello <b>": ("bye", 0.45, []),
    "bye": ("bye", 1.0, []),
    "to Rome": ("go", 0.31, [span(3, 7, "city")]),
    "to Oslo": (None, 0.0, [span(3, 7, "name")]),
    "Paris": ("go", 0.5, [span(0, 5, "city")]),
}
EXAMPLES = [
    Example("hi", "greet"),
    Example("hello <b>", "greet"),
    Example("bye", "bye"),
    Example("to Rome", "go", (span(3, 7, "city"),)),
    Example("to Oslo", "go", (span(3, 7, "city"),)),
    Example("Paris", None, (span(0, 5, "city"),)),
]


def parse(text: str) -> dict[str, Any]:
    name, confidence, entities = SAID[text]
    return {"intent": {"name": name, "confidence": confidence}, "entities": entities, "text": text}


@pytest.fixture
def evaluation() -> Evaluation:
    return Evaluation(answers_of(parse, EXAMPLES), "a & b")


def test_intents(evaluation: Evaluation) -> None:
    """Scores come from right answers, answers and examples; an answer without intent is a class of its own."""
    assert evaluation.accuracy() == 3 / 5
    assert evaluation.intents() == {
        NO_INTENT: Score(0, 1, 0),
        "bye": Score(1, 2, 1),
        "go": Score(1, 1, 2),
        "greet": Score(1, 1, 2),
    }
    score = evaluation.intents()["greet"]
    assert (score.precision, score.recall, score.f1) == (1.0, 0.5, pytest.approx(2 / 3))
    assert averages(evaluation.intents()) == {"macro_f1": 0.6667, "weighted_f1": 0.6667}


def test_entities(evaluation: Evaluation) -> None:
    """An entity counts when name and place agree."""
    assert evaluation.entities() == {"city": Score(2, 2, 3), "name": Score(0, 1, 0)}
    assert total(evaluation.entities()) == Score(2, 3, 3)


def test_confusion_and_confidence(evaluation: Evaluation) -> None:
    """Confusions are counted in pairs, confidences in bins, and thresholds say what would pass."""
    names, counts = evaluation.confusion()
    assert names == [NO_INTENT, "bye", "go", "greet"]
    assert counts == {
        ("greet", "greet"): 1,
        ("greet", "bye"): 1,
        ("bye", "bye"): 1,
        ("go", "go"): 1,
        ("go", NO_INTENT): 1,
    }
    bins = {round(low, 2): (right, wrong) for low, right, wrong in evaluation.histogram() if right or wrong}
    assert bins == {0.9: (1, 0), 0.45: (0, 1), 0.95: (1, 0), 0.3: (1, 0), 0.0: (0, 1)}
    assert evaluation.coverage()[:2] == [(0.3, 1.0, 0.5), (0.5, 2 / 3, 0.0)]


def test_json(evaluation: Evaluation) -> None:
    """The report for programs has every figure, and the examples that were not understood."""
    report = json.loads(json.dumps(evaluation.as_json()))
    assert report["intent_evaluation"]["accuracy"] == 0.6
    assert report["intent_evaluation"]["confusion"]["go"] == {NO_INTENT: 1, "go": 1}
    assert report["entity_evaluation"]["micro"] == {
        "precision": 0.6667,
        "recall": 0.6667,
        "f1-score": 0.6667,
        "support": 3,
    }
    assert [error["text"] for error in report["errors"]] == ["hello <b>", "to Oslo"]


class Page(HTMLParser):
    """Collects what a page loads, and its texts."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: Counter[str] = Counter()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.links += [str(value) for name, value in attrs if name in ("src", "href", "action", "data")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_page(evaluation: Evaluation) -> None:
    """The page shows drawings and texts, loads nothing, runs nothing, and no text of the data becomes markup."""
    text = page(evaluation)
    found = Page()
    found.feed(text)
    assert found.links == [] and found.tags["script"] == 0 and found.tags["b"] == 5
    assert "http://" not in text and "https://" not in text and "url(" not in text
    assert "hello <b>" in found.texts and "a & b" in found.texts
    drawings = [ElementTree.fromstring(part + "</svg>") for part in _svgs(text)]
    assert len(drawings) == 2
    hints = [title.text for title in drawings[0].iter("title")]
    assert "greet → bye: 1 of 2" in hints


def test_confidences_of_few_errors() -> None:
    """Among many right answers the bars of the few wrong ones are still seen, and the drawing has no empty half."""
    answers = answers_of(parse, [EXAMPLES[0]] * 400 + [EXAMPLES[1]] * 3)
    drawing = ElementTree.fromstring(_svgs(page(Evaluation(answers)))[1] + "</svg>")
    bars = {bar.attrib["class"]: bar.attrib for bar in drawing.iter("rect")}
    assert float(bars["good"]["height"]) == float(bars["bad"]["height"]) == 160
    bottom = float(bars["bad"]["y"]) + float(bars["bad"]["height"])
    assert bottom < float(drawing.attrib["height"]) < bottom + 50


def _svgs(text: str) -> list[str]:
    return ["<svg" + part.split("</svg>")[0] for part in text.split("<svg")[1:]]


def test_page_of_nothing() -> None:
    """Data without intents or entities gives a page as well."""
    assert "<h1>" in page(Evaluation([]))


def test_folds() -> None:
    """Every intent is spread evenly over the folds, the same way each time; another seed deals otherwise."""
    examples = [Example(str(number), f"i{number % 3}") for number in range(60)]
    folds = stratified(examples, 5)
    assert folds == stratified(examples, 5) != stratified(examples, 5, seed=1)
    counts = Counter((example.intent, fold) for example, fold in zip(examples, folds, strict=True))
    assert set(counts.values()) == {4}


def test_cross_validation() -> None:
    """Each example is asked about once, of a model that has not seen it."""
    seen: list[tuple[int, int]] = []
    config = config_from_json({"pipeline": ["tokenizer_whitespace", "ner_crf", "intent_classifier_linear"]}, "c.yml")
    found = cross_validate(config, DATA, 3, fold_done=lambda *told: seen.append(told))
    assert [answer.text for answer in found.answers] == [example.text for example in DATA.examples]
    assert seen == [(1, 3), (2, 3), (3, 3)] and 0.3 < found.accuracy() <= 1.0
