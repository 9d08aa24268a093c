"""The embedding classifier's forward pass, and the rules of its ranking."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from rasa_core_api.nlu.embedding import COSINE, INNER, EmbeddingIntents, EmbeddingWeights, Layer
from rasa_core_api.nlu.message import Message

NAMES = [f"intent_{number:02d}" for number in range(13)]


def layer(random: np.random.Generator, inputs: int, outputs: int) -> Layer:
    kernel = random.normal(size=(inputs, outputs)).astype(np.float32)
    return Layer(kernel, random.normal(size=outputs).astype(np.float32))


def network(text: list[int], intent: list[int], names: list[str] = NAMES) -> EmbeddingWeights:
    """Random layers of these widths, inputs first."""
    random = np.random.default_rng(3)
    a = [layer(random, *pair) for pair in pairwise(text)]
    b = [layer(random, *pair) for pair in pairwise(intent)]
    inputs = np.eye(len(names), intent[0], dtype=np.float32)
    return EmbeddingWeights(tuple(a[:-1]), a[-1], tuple(b[:-1]), b[-1], inputs)


def dense(weights: EmbeddingWeights, counts: dict[int, float], similarity: str) -> np.ndarray:
    """The same with a dense input, in double precision, straight from the definition."""

    def through(x: np.ndarray, hidden: tuple[Layer, ...], last: Layer) -> np.ndarray:
        for step in hidden:
            x = np.maximum(x @ step.kernel.astype(np.float64) + step.bias, 0)
        return x @ last.kernel.astype(np.float64) + last.bias

    x = np.zeros(weights.width())
    for column, value in counts.items():
        x[column] = value
    point = through(x, weights.text_hidden, weights.text_last)
    points = through(weights.intents.astype(np.float64), weights.intent_hidden, weights.intent_last)
    if similarity == COSINE:
        return points @ point / np.linalg.norm(point) / np.linalg.norm(points, axis=1)
    powers = np.exp(points @ point - (points @ point).max())
    return powers / powers.sum()


@pytest.mark.parametrize("similarity", [COSINE, INNER])
@pytest.mark.parametrize("text", [[30, 5], [30, 16, 8, 5]])
@pytest.mark.parametrize("intent", [[13, 5], [17, 9, 5]])
def test_forward_pass(similarity: str, text: list[int], intent: list[int]) -> None:
    """Similarities equal those of a dense reference, with and without hidden layers on either side."""
    weights = network(text, intent)
    counts = {3: 1.0, 7: 2.0, 29: 1.0}
    found = EmbeddingIntents(weights, NAMES, similarity).similarities(counts)
    np.testing.assert_allclose(found, dense(weights, counts, similarity), atol=1e-6)


def test_inner_products_of_0_12() -> None:
    """In rasa_nlu 0.12 inner products were confidences as they are."""
    weights, counts = network([30, 5], [13, 5]), {3: 1.0, 7: 2.0}
    found = EmbeddingIntents(weights, NAMES, INNER, of_0_12=True).similarities(counts)
    assert found.max() > 1 and found.min() < 0
    shares = np.exp(found - found.max()) / np.exp(found - found.max()).sum()
    np.testing.assert_allclose(shares, dense(weights, counts, INNER), atol=1e-5)


def test_equal_intents() -> None:
    """Of intents that are equally likely the later in the model's order comes first, as in the original."""
    weights = EmbeddingWeights((), Layer(np.ones((1, 1), "f4"), np.zeros(1, "f4")), (),
                               Layer(np.ones((3, 1), "f4"), np.zeros(1, "f4")), np.eye(3, dtype="f4"))  # fmt: skip
    message = Message("x", counts={0: 1.0}, width=1)
    EmbeddingIntents(weights, ["a", "b", "c"]).process(message)
    assert [item["name"] for item in message.intent_ranking or ()] == ["c", "b", "a"]


def test_ranking() -> None:
    """The ten most similar intents, best first; negative similarities are shown as 0 in their true order."""
    weights = network([30, 8, 5], [13, 5])
    message = Message("x", counts={1: 1.0, 2: 1.0})
    EmbeddingIntents(weights, NAMES).process(message)
    expected = dense(weights, message.counts, COSINE)
    order = [NAMES[number] for number in np.argsort(-expected)][:10]
    assert message.intent_ranking is not None
    assert [item["name"] for item in message.intent_ranking] == order
    values = [item["confidence"] for item in message.intent_ranking]
    assert min(values) == 0.0 < max(values)
    assert message.intent == message.intent_ranking[0]


@pytest.mark.parametrize("counts", [{}, {4: 0.0}])
def test_nothing_to_go_by(counts: dict[int, float]) -> None:
    """A text without any known feature has no intent and an empty ranking."""
    message = Message("???", counts=counts, intent_ranking=None)
    EmbeddingIntents(network([30, 5], [13, 5]), NAMES).process(message)
    assert message.intent == {"name": None, "confidence": 0.0}
    assert message.intent_ranking == []


def test_misfits() -> None:
    """Layers, spaces, names or settings that do not fit together are refused."""
    good = network([30, 8, 5], [13, 5])
    other = network([30, 8, 6], [13, 5])
    with pytest.raises(ValueError, match="different spaces"):
        EmbeddingIntents(other, NAMES)
    with pytest.raises(ValueError, match="list of intents"):
        EmbeddingIntents(good, NAMES[:-1])
    with pytest.raises(ValueError, match="similarity type"):
        EmbeddingIntents(good, NAMES, "euclid")
    broken = Layer(good.text_last.kernel[:-1], good.text_last.bias)
    with pytest.raises(ValueError, match="layers that do not fit"):
        EmbeddingIntents(EmbeddingWeights(good.text_hidden, broken, (), good.intent_last, good.intents), NAMES)
    nothing = Layer(good.text_last.kernel * np.float32("nan"), good.text_last.bias)
    with pytest.raises(ValueError, match="no numbers"):
        EmbeddingIntents(EmbeddingWeights(good.text_hidden, nothing, (), good.intent_last, good.intents), NAMES)
    for value in ("nan", "inf", "1e38"):
        intents = good.intents.copy()
        intents[0] = np.float32(value)
        with pytest.raises(ValueError, match="intents that are no numbers, or too large"):
            EmbeddingIntents(EmbeddingWeights(good.text_hidden, good.text_last, (), good.intent_last, intents), NAMES)


@pytest.mark.parametrize("similarity", [COSINE, INNER])
@pytest.mark.parametrize("size", [1e38, -1e38, 1e20])
def test_text_weights_that_overflow_are_refused_where_the_intents_alone_would_not_tell(
    similarity: str, size: float
) -> None:
    weights = network([6, 9, 4], [13, 4])
    for kernel in (weights.text_hidden[0].kernel, weights.text_last.kernel):
        kernel[...] = size
    with pytest.raises(ValueError, match="so large that similarities"):
        EmbeddingIntents(weights, NAMES, similarity)
