"""Long texts are understood in steps, with the same result as at once."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from rasa_core_api.concurrency import Slices
from rasa_core_api.nlu.config import config_from_json
from rasa_core_api.nlu.data import Example, Lookup, TrainingData
from rasa_core_api.nlu.loader import EmbeddedInterpreter
from rasa_core_api.nlu.message import Message, NetworkComponent, Stepwise
from rasa_core_api.nlu.model import NluModel
from rasa_core_api.nlu.training import train_model

SENTENCE = "go to rome 12345 or ice cream x1x2 ü now? "
DATA = TrainingData(
    [Example("hello there", "greet"), Example("hi you", "greet"), Example("bye now", "bye"),
     Example("go to rome", "go", ({"start": 6, "end": 10, "value": "rome", "entity": "city"},))],
    [{"name": "zip", "pattern": "[0-9]{5}"}, {"name": "odd", "pattern": "(x[0-9]?)*"},
     {"name": "bad", "pattern": "(a+)+$"}],
    [Lookup("cities", ("rome", "ice cream"))],
)  # fmt: skip


def trained(*pipeline: Any) -> NluModel:
    return train_model(config_from_json({"pipeline": list(pipeline)}, "c.yml"), DATA)[0]


@pytest.mark.parametrize("regexes", ["intent_entity_featurizer_regex", "RegexFeaturizer"])
def test_same_result(regexes: str) -> None:
    """Every part that works in steps finds what it finds at once, while other texts are understood between them."""
    model = trained(
        "tokenizer_whitespace",
        regexes,
        {"name": "intent_featurizer_count_vectors", "max_ngram": 2},
        {"name": "CountVectorsFeaturizer", "analyzer": "char_wb", "max_ngram": 4},
        {"name": "CountVectorsFeaturizer", "analyzer": "char", "max_ngram": 3},
        "ner_crf",
        "intent_classifier_linear",
    )
    at_once, in_steps = Message(SENTENCE * 250), Message(SENTENCE * 250)
    for component in model.components:
        assert not isinstance(component, NetworkComponent)
        component.process(at_once)
        if isinstance(component, Stepwise):
            steps = sum(1 for _ in component.steps(in_steps) if model.parse("bye now, something else"))
            assert steps >= 2
        else:
            component.process(in_steps)
        assert in_steps.counts == at_once.counts and in_steps.width == at_once.width
        assert in_steps.pattern_flags == at_once.pattern_flags
        assert in_steps.entities == at_once.entities
    assert at_once.entities and at_once.intent_ranking and in_steps.intent_ranking
    for found, expected in zip(in_steps.intent_ranking, at_once.intent_ranking, strict=True):
        assert found["name"] == expected["name"]
        assert found["confidence"] == pytest.approx(expected["confidence"], abs=1e-9)


def test_others_have_their_turn() -> None:
    """A long text gives way after a slice; a short one is answered at once, without being asked to wait."""
    clock = Clock()
    seconds = iter(range(10_000))
    slices = Slices(clock, budget=0.5, timer=lambda: float(next(seconds)))
    model = trained("tokenizer_whitespace", "ner_crf", "intent_classifier_linear")
    interpreter = EmbeddedInterpreter(model, slices.breathe)
    done: list[Any] = []
    Deferred.fromCoroutine(interpreter.parse(SENTENCE * 250)).addCallback(done.append)
    Deferred.fromCoroutine(interpreter.parse("hello there")).addCallback(done.append)
    assert [parse["text"] for parse in done] == ["hello there"]
    clock.advance(0)
    assert len(done) == 2
    assert done[1]["entities"] == model.parse(SENTENCE * 250)["entities"] != []
