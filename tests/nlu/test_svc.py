"""A support vector classifier gives the probabilities that LIBSVM gives."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from attrs import evolve

from rasa_core_api.nlu.message import Message
from rasa_core_api.nlu.svc import SupportVectors, SvcIntents, couple


def machine(classes: int, kernel: str = "linear", seed: int = 0) -> SupportVectors:
    """A classifier with random parameters: three support vectors a class, seven features."""
    random = np.random.default_rng(seed)
    pairs = classes * (classes - 1) // 2
    return SupportVectors(
        kernel=kernel,
        gamma=0.3,
        constant=0.2,
        degree=2,
        vectors=random.integers(0, 3, (3 * classes, 7)).astype(float),
        coefficients=random.normal(size=(classes - 1, 3 * classes)),
        per_class=(3,) * classes,
        intercepts=random.normal(size=pairs),
        slopes=-np.abs(random.normal(size=pairs)),
        offsets=random.normal(size=pairs),
    )


def kernel_value(m: SupportVectors, a: np.ndarray, b: np.ndarray) -> float:
    product = float(a @ b)
    return {
        "linear": product,
        "rbf": math.exp(-m.gamma * float(((a - b) ** 2).sum())),
        "poly": (m.gamma * product + m.constant) ** m.degree,
        "sigmoid": math.tanh(m.gamma * product + m.constant),
    }[m.kernel]


def pair_chances(m: SupportVectors, counts: dict[int, float]) -> np.ndarray:
    """The pairwise probabilities, from the definition."""
    x = np.zeros(7)
    for column, value in counts.items():
        x[column] = value
    classes = len(m.per_class)
    chances = np.zeros((classes, classes))
    for number, (a, b) in enumerate(itertools.combinations(range(classes), 2)):
        decision = m.intercepts[number]
        for place, vector in enumerate(m.vectors):
            owner = place // 3
            if owner in (a, b):
                coefficient = m.coefficients[b - 1 if owner == a else a, place]
                decision += coefficient * kernel_value(m, vector, x)
        chance = 1 / (1 + math.exp(decision * m.slopes[number] + m.offsets[number]))
        chances[a, b] = min(max(chance, 1e-7), 1 - 1e-7)
        chances[b, a] = 1 - chances[a, b]
    return chances


@pytest.mark.parametrize("kernel", ["linear", "rbf", "poly", "sigmoid"])
@pytest.mark.parametrize("classes", [2, 3, 6])
def test_probabilities(classes: int, kernel: str) -> None:
    """Sparse sums by class equal the definition with a dense text."""
    for seed, counts in enumerate(({}, {0: 1.0}, {1: 2.0, 6: 1.0})):
        m = machine(classes, kernel, seed)
        found = SvcIntents(m, [str(number) for number in range(classes)]).probabilities(counts)
        np.testing.assert_allclose(found, couple(pair_chances(m, counts)), rtol=1e-9)
        assert found.sum() == pytest.approx(1.0)


def test_coupling() -> None:
    """Consistent pairs give the probabilities that they come from; two classes give those of the pair."""
    p = np.array([0.5, 0.3, 0.15, 0.05])
    pairs = p[:, None] / (p[:, None] + p[None, :])
    np.fill_diagonal(pairs, 0.0)
    np.testing.assert_allclose(couple(pairs), p, atol=2e-3)
    assert couple(np.array([[0.0, 0.9], [0.1, 0.0]])) == pytest.approx([0.9, 0.1], abs=2e-3)


def test_ranking() -> None:
    """The ten most likely intents, best first, also for a text without known words."""
    intents = [f"i{number:02d}" for number in range(12)]
    message = Message("x")
    part = SvcIntents(machine(12), intents)
    part.process(message)
    probabilities = part.probabilities({})
    assert message.intent_ranking is not None and len(message.intent_ranking) == 10
    assert [item["name"] for item in message.intent_ranking] == [intents[n] for n in np.argsort(-probabilities)[:10]]
    assert message.intent == message.intent_ranking[0]


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": "precomputed"},
        {"per_class": (3, 3, 2)},
        {"per_class": (9, 0, 0)},
        {"per_class": (9,)},
        {"slopes": np.zeros(0)},
        {"intercepts": np.full(3, np.nan)},
        {"vectors": np.zeros(9)},
        {"degree": 10**9},
        {"gamma": math.inf},
    ],
)
def test_misfits(change: dict[str, Any]) -> None:
    """Parameters that do not fit together are refused."""
    with pytest.raises(ValueError):
        SvcIntents(evolve(machine(3), **change), ["a", "b", "c"])
    with pytest.raises(ValueError, match="list of intents"):
        SvcIntents(machine(3), ["a", "b"])
