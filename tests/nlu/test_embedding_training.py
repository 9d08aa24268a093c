from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rasa_core_api.nlu.components import defaults
from rasa_core_api.nlu.embedding_training import Adam, Batch, Network, _batch_size, _intent_inputs, train_embedding
from rasa_core_api.nlu.message import Message

NAME = "intent_classifier_tensorflow_embedding"
SMALL = {**defaults(NAME), "hidden_layers_sizes_a": [6, 5], "embed_dim": 4, "num_neg": 2}


def batch(network: Network, dropout: bool) -> Batch:
    random = np.random.default_rng(1)
    columns = np.array([0, 2, 3, 6])
    sides = ((network.text, 5), (network.intent, len(network.intents)))
    masks = tuple(
        (random.random((rows, len(bias))) < 0.7) / 0.7 if dropout else np.ones((rows, len(bias)))
        for side, rows in sides
        for _, bias in side[:-1]
    )
    labels = np.array([0, 1, 2, 3, 1])
    others = np.array([[1, 3], [0, 0], [3, 1], [2, 0], [2, 3]])
    return Batch(columns, random.integers(0, 3, (5, 4)).astype(float), labels, others, masks)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_max_sim_neg": False},
        {"similarity_type": "inner"},
        {"hidden_layers_sizes_b": [7], "intent_tokenization_flag": True},
        {"hidden_layers_sizes_a": [], "C2": 0.0, "C_emb": 0.0},
        {"mu_pos": 1.0, "mu_neg": 1.0, "C_emb": 2.0},
    ],
)
@pytest.mark.parametrize("dropout", [False, True])
def test_gradients(settings: dict[str, Any], dropout: bool) -> None:
    """Every gradient equals the finite difference of the loss."""
    chosen = {**SMALL, **settings}
    names = ["ask_price", "ask_time", "buy", "say_price"]
    random = np.random.default_rng(3)
    network = Network.random(8, _intent_inputs(names, chosen), chosen, random, np.float64)
    for array in network.parameters():
        array += random.normal(0, 0.1, array.shape)
    data = batch(network, dropout)
    _, gradients = network.loss(data, chosen)
    step = 1e-6
    for array, gradient in zip(network.parameters(), gradients, strict=True):
        flat = array.reshape(-1)
        for place in random.permutation(flat.size)[:12]:
            kept = flat[place]
            flat[place] = kept + step
            above, _ = network.loss(data, chosen)
            flat[place] = kept - step
            below, _ = network.loss(data, chosen)
            flat[place] = kept
            expected = (above - below) / (2 * step)
            assert gradient.reshape(-1)[place] == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_adam() -> None:
    """The first step moves each weight by the rate against its gradient's sign, later steps keep the averages."""
    weights = np.array([1.0, 1.0])
    adam = Adam([weights])
    adam.step([np.array([0.5, -2.0])])
    assert weights == pytest.approx([0.999, 1.001])
    adam.step([np.array([0.0, 0.0])])
    # averages: 0.9 * 0.1 * g and 0.999 * 0.001 * g^2, both corrected
    move = 0.001 * np.sqrt(1 - 0.999**2) / (1 - 0.9**2) * 0.09 / np.sqrt(0.000999)
    assert weights == pytest.approx([0.999 - move, 1.001 + move], abs=1e-8)


def test_batch_sizes() -> None:
    """The size is fixed, or grows from the first epoch to the last."""
    assert [_batch_size([64, 256], epoch, 5) for epoch in range(5)] == [64, 112, 160, 208, 256]
    assert _batch_size([64, 256], 0, 1) == 64 and _batch_size(32, 3, 5) == 32


def test_intent_inputs() -> None:
    """Intents are numbers, or the parts of their names."""
    assert _intent_inputs(["a", "b"], SMALL).tolist() == [[1, 0], [0, 1]]
    inputs = _intent_inputs(["ask+x", "say+x"], {**SMALL, "intent_tokenization_flag": True, "intent_split_symbol": "+"})
    assert inputs.tolist() == [[1, 0, 1], [0, 1, 1]]


WORDS = {"greet": [{0, 1}, {0}], "bye": [{2}, {2, 3}], "thank": [{4}, {4, 5}]}
EXAMPLES = [(dict.fromkeys(words, 1.0), intent) for intent in WORDS for words in WORDS[intent]] * 4


def answer(model: Any, counts: dict[int, float]) -> Any:
    message = Message("x", counts=counts)
    model.process(message)
    return message.intent


@pytest.mark.parametrize(
    "settings", [{}, {"similarity_type": "inner"}, {"hidden_layers_sizes_b": [8]}, {"batch_size": 5}]
)
def test_learns(settings: dict[str, Any]) -> None:
    """The classifier learns separable intents and tells of its progress."""
    seen: list[tuple[int, int, float, float | None]] = []
    chosen = {**defaults(NAME), "epochs": 60, "hidden_layers_sizes_a": [32, 16], **settings}
    model = train_embedding(EXAMPLES, 6, chosen, lambda *told: seen.append(told))
    assert model is not None and model.intents == ["bye", "greet", "thank"]
    for counts, intent in EXAMPLES:
        assert answer(model, dict(counts))["name"] == intent
    assert [told[0] for told in seen] == list(range(1, 61)) and seen[-1][2] < seen[0][2]
    assert [told[0] for told in seen if told[3] is not None] == [10, 20, 30, 40, 50, 60] and seen[-1][3] == 1.0


def test_seeds() -> None:
    """The same seed gives the same model, also the fixed one used where none is set; another seed another model."""

    def kernel(seed: int | None) -> Any:
        model = train_embedding(EXAMPLES, 6, {**defaults(NAME), "epochs": 3, "random_seed": seed})
        assert model is not None
        return model.weights.text_last.kernel

    assert np.array_equal(kernel(None), kernel(None)) and np.array_equal(kernel(5), kernel(5))
    assert not np.array_equal(kernel(5), kernel(6))


def test_nothing_to_learn() -> None:
    """Fewer than two intents, or no features, leave the classifier untrained."""
    assert train_embedding([({0: 1.0}, "greet")], 1, defaults(NAME)) is None
    assert train_embedding([({}, "greet"), ({}, "bye")], 0, defaults(NAME)) is None


def test_examples_without_features() -> None:
    """Examples whose words are all unknown are no obstacle."""
    settings = {**defaults(NAME), "epochs": 2, "batch_size": 2}
    model = train_embedding([({}, "greet"), ({0: 1.0}, "bye"), ({}, "bye"), ({}, "greet")], 1, settings)
    assert model is not None and answer(model, {}) == {"name": None, "confidence": 0.0}
