from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from rasa_core_api.nlu.data import Example
from rasa_core_api.nlu.linear import LEGACY_FACTOR, LinearIntents, characters_of, chunks_of, words_of
from rasa_core_api.nlu.linear_training import (
    USUAL_RIDGE,
    _features,
    _usual,
    leave_one_out,
    thinned,
    train_linear,
)
from rasa_core_api.nlu.message import Message, as_parse

TEXTS = {
    "greet": ["Hello there!", "hi", "good morning", "hey, good evening", "hello again"],
    "bye": ["good bye", "see you later", "bye bye", "see you tomorrow"],
    "order": ["I want 2 pizzas", "bring me 10 pizzas", "a pizza please", "one margherita, please", "I'd like pasta"],
    "thanks": ["thanks a lot", "thank you", "many thanks!"],
}
EXAMPLES = [Example(text, intent) for intent, texts in TEXTS.items() for text in texts]


def trained(**settings: Any) -> LinearIntents:
    return train_linear(EXAMPLES, settings)[0]


def parsed(model: LinearIntents, text: str) -> dict[str, Any]:
    message = Message(text)
    model.process(message)
    return as_parse(message)


def plain_scores(model: LinearIntents, text: str) -> Any:
    """The scores by the definition: one feature vector, times the weights."""
    vector = np.zeros(len(model.idf))
    words = [word for chunk in chunks_of(text) for word in words_of(chunk)]
    squares = [0.0, 0.0]
    for piece in words + [f"{a} {b}" for a, b in pairwise(words)]:
        if piece in model.words:
            number = model.words.index(piece)
            vector[number] += model.idf[number]
            squares[0] += model.idf[number] ** 2
    for chunk in chunks_of(text):
        for piece, count in characters_of(chunk).items():
            if piece in model.characters:
                number = len(model.words) + model.characters.index(piece)
                vector[number] += model.idf[number] * count
                squares[1] += (model.idf[number] * count) ** 2
    vector[: len(model.words)] /= math.sqrt(squares[0]) or 1.0
    vector[len(model.words) :] /= math.sqrt(squares[1]) or 1.0
    return vector @ model.weights + model.bias


def test_pieces() -> None:
    """Words, marks and characters come from chunks in lower case with digits alike."""
    assert chunks_of("I'd like 12 Pizzas!") == ["i'd", "like", "0", "pizzas!"]
    assert words_of("i'd") == ["i", "'", "d"]
    assert characters_of("aa") == Counter([" a", "aa", "a ", " aa", "aa ", " aa "])
    assert characters_of("aaa")["aa"] == 2


@pytest.mark.parametrize(
    "text", ["hello there", "Bring me 7 PIZZAS now", "xyzzy bye", "good, good morning good", "é Pizza"]
)
def test_remembered_chunks_change_nothing(text: str) -> None:
    """Scores from remembered chunks equal those from one feature vector, the first time and later."""
    model = trained()
    expected = plain_scores(model, text)
    for _ in range(2):
        scores = model.scores(text)
        assert scores is not None and np.allclose(scores, expected, atol=1e-6)


def test_training_texts() -> None:
    """The classifier knows what it was taught, and ranks all intents with confidences that sum to 1."""
    model = trained()
    for example in EXAMPLES:
        result = parsed(model, example.text)
        assert result["intent"]["name"] == example.intent
        assert result["intent_ranking"][0] == result["intent"]
        values = [item["confidence"] for item in result["intent_ranking"]]
        assert len(values) == 4 and values == sorted(values, reverse=True) and sum(values) == pytest.approx(1.0)


@pytest.mark.parametrize("text", ["!!!", "?", "   ", "...,", "\u4e2d\u6587"])
def test_nothing_to_go_by(text: str) -> None:
    """A text without known features has no intent and an empty ranking."""
    assert parsed(trained(), text) == {
        "intent": {"name": None, "confidence": 0.0},
        "entities": [],
        "intent_ranking": [],
        "text": text,
    }


def test_confidence_scales() -> None:
    """The legacy scale is the softmax with 0.7 times the fitted temperature, the calibrated one with the fitted."""
    legacy, calibrated = trained(), trained(confidence_scale="calibrated")
    scores = legacy.scores("good pizza")
    assert scores is not None
    for model, factor in ((legacy, LEGACY_FACTOR), (calibrated, 1.0)):
        powers = np.exp(scores / (factor * model.temperature))
        expected = float((powers / powers.sum()).max())
        assert parsed(model, "good pizza")["intent"]["confidence"] == pytest.approx(expected, abs=1e-9)


def test_leave_one_out() -> None:
    """The formula gives what training again without the example gives."""
    matrix, *_ = _features([example.text for example in EXAMPLES])
    dense = np.zeros(matrix.shape)
    dense[matrix.rows, matrix.columns] = matrix.values
    kernel = dense @ dense.T + 1.0
    assert np.allclose(matrix.gram() + 1.0, kernel, atol=1e-6)
    intents = sorted(TEXTS)
    targets = np.array([[1.0 if example.intent == intent else -1.0 for intent in intents] for example in EXAMPLES])
    inverse = np.linalg.inv(kernel + USUAL_RIDGE * np.eye(len(kernel)))
    scores = leave_one_out(inverse @ targets, np.diag(inverse), targets)
    for left in range(len(EXAMPLES)):
        others = [number for number in range(len(EXAMPLES)) if number != left]
        part = kernel[np.ix_(others, others)] + USUAL_RIDGE * np.eye(len(others))
        factors = np.linalg.solve(part, targets[others])
        assert np.allclose(kernel[left, others] @ factors, scores[left], atol=1e-9)
    assert np.allclose(matrix.transposed_times(targets), dense.T @ targets)


def test_large_data_uses_one_ridge() -> None:
    """The way for many examples gives the weights of the usual ridge."""
    kernel = np.array([[2.0, 0.5], [0.5, 2.0]])
    targets = np.array([[1.0, -1.0], [-1.0, 1.0]])
    factors, _ = _usual(kernel.copy(), targets, np.array([0, 1]))
    assert np.allclose(factors, np.linalg.solve(kernel + USUAL_RIDGE * np.eye(2), targets))


def test_thinning() -> None:
    """Too many examples are thinned out: small intents stay whole, large ones lose evenly, repeats go first."""
    many = [Example(f"word{'x' * number}", "large") for number in range(100)]
    many += [Example(f"tale{'x' * number}", "medium") for number in range(30)]
    many += [Example("same", "small"), Example("Same", "small"), Example("other", "small")]
    kept = Counter(example.intent for example in thinned(many, 50))
    assert kept["small"] == 2 and kept["medium"] == kept["large"] == 24
    assert thinned(many, 200) == many


def test_forgetting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered is bounded, however many different chunks come; long ones are not remembered at all."""
    monkeypatch.setattr("rasa_core_api.nlu.linear.MAX_CHUNKS", 50)
    model = trained()
    before = model.scores("good morning")
    for number in range(200):
        model.process(Message(f"good pizza{'x' * (number % 39)}{chr(0x4E00 + number)} {'y' * 1000}"))
        assert len(model._chunks) + len(model._pairs) <= 53
    assert all(len(chunk) <= 40 for chunk in model._chunks)
    after = model.scores("good morning")
    assert before is not None and after is not None and np.array_equal(before, after)


def test_one_intent() -> None:
    """With a single intent it is always the answer, with confidence 1."""
    model, _ = train_linear([Example("hello", "greet"), Example("hi", "greet")], {})
    assert parsed(model, "hello you")["intent_ranking"] == [{"name": "greet", "confidence": 1.0}]
    assert parsed(model, "??")["intent_ranking"] == []


def test_same_data_same_weights() -> None:
    """Training is not random."""
    one, two = trained(), trained()
    assert np.array_equal(one.weights, two.weights) and one.temperature == two.temperature


def test_parts_that_do_not_fit() -> None:
    """Weights of other sizes, or that are no numbers, are refused."""
    weights, two = np.zeros((2, 2), np.float32), np.zeros(2, np.float32)
    LinearIntents({}, ["a", "b"], ["x"], ["y"], weights, two, two, 1.0)
    for broken in (np.zeros((3, 2), np.float32), np.full((2, 2), np.nan, np.float32)):
        with pytest.raises(ValueError):
            LinearIntents({}, ["a", "b"], ["x"], ["y"], broken, two, two, 1.0)
