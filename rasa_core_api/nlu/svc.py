"""Intents from a support vector classifier that scikit-learn trained (its parameters, not its code).

Classes are told apart in pairs (one decision function each); Platt's sigmoid makes a probability of each decision, and
the second method of Wu, Lin and Weng (2004), "Probability estimates for multi-class classification by pairwise
coupling", makes one probability per class of them. Its iteration stops where LIBSVM stops, so that numbers agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import frozen

from rasa_core_api.nlu.message import RANKING_LENGTH, Message, set_ranking

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

_LEAST = 1e-7  # of a pair's probability
_ACCURACY = 0.005  # of the coupled probabilities, divided by the number of classes
_ROUNDS = 100
_MAX_DEGREE = 20
_KERNELS = ("linear", "rbf", "poly", "sigmoid")
_ARRAYS = ("vectors", "coefficients", "intercepts", "slopes", "offsets")


@frozen(eq=False)
class SupportVectors:
    """A trained classifier of K classes, with arrays as scikit-learn's `SVC` holds them.

    `vectors` (S, features), grouped by class, `per_class` of each; `coefficients` (K - 1, S); for each pair of classes
    (0, 1), (0, 2) ... one number in `intercepts`, `slopes` (probA) and `offsets` (probB).
    """

    kernel: str
    gamma: float
    constant: float
    degree: int
    vectors: Array
    coefficients: Array
    per_class: tuple[int, ...]
    intercepts: Array
    slopes: Array
    offsets: Array

    def check(self) -> None:
        """Raises ValueError where the kernel is unknown or shapes do not fit together."""
        classes = len(self.per_class)
        pairs = classes * (classes - 1) // 2
        if self.kernel not in _KERNELS:
            raise ValueError(f"an unknown kernel {self.kernel!r}")
        if not (np.isfinite(self.gamma) and np.isfinite(self.constant) and 0 <= self.degree <= _MAX_DEGREE):
            raise ValueError("kernel parameters that are out of range")
        if classes < 2 or any(count < 1 for count in self.per_class) or self.vectors.ndim != 2:
            raise ValueError("a classifier without support vectors")
        number = sum(self.per_class)
        if len(self.vectors) != number or self.coefficients.shape != (classes - 1, number):
            raise ValueError("support vectors and coefficients do not fit together")
        if not self.intercepts.shape == self.slopes.shape == self.offsets.shape == (pairs,):
            raise ValueError("it has no probabilities")
        if not all(np.isfinite(getattr(self, name)).all() for name in _ARRAYS):
            raise ValueError("parameters that are no numbers")


class SvcIntents:
    """`intent_classifier_sklearn`: ranks all intents by their probabilities."""

    name = "intent_classifier_sklearn"

    def __init__(self, machine: SupportVectors, intents: Sequence[str]) -> None:
        """`intents` in the order of the classes. Raises ValueError where something does not fit."""
        machine.check()
        if len(intents) != len(machine.per_class):
            raise ValueError("the list of intents does not fit the classifier")
        self.machine = machine
        self.intents = list(intents)
        self._columns = np.ascontiguousarray(machine.vectors.T)
        self._squares = (machine.vectors**2).sum(axis=1)
        self._starts = np.concatenate(([0], np.cumsum(machine.per_class)[:-1]))
        self._first, self._second = np.triu_indices(len(intents), 1)

    def width(self) -> int:
        """The number of feature columns of a text."""
        return len(self._columns)

    def process(self, message: Message) -> None:
        """Set intent and ranking."""
        probabilities = self.probabilities(message.counts)
        order = probabilities.argsort(kind="stable")[::-1][:RANKING_LENGTH]
        names = self.intents
        set_ranking(message, [(names[number], float(probabilities[number])) for number in order])

    def probabilities(self, counts: Mapping[int, float]) -> Array:
        """The probability of each class for a text with these feature counts (column to value)."""
        machine = self.machine
        products = self._products(counts)
        # what the vectors of each class (column) say in the role of each row of coefficients
        votes = np.add.reduceat(machine.coefficients * products, self._starts, axis=1)
        first, second = self._first, self._second
        decisions = votes[second - 1, first] + votes[first, second] + machine.intercepts
        chances = 0.5 - 0.5 * np.tanh(0.5 * (decisions * machine.slopes + machine.offsets))  # 1 / (1 + exp(x))
        chances = np.clip(chances, _LEAST, 1.0 - _LEAST)
        pairs = np.zeros((len(self.intents), len(self.intents)))
        pairs[first, second] = chances
        pairs[second, first] = 1.0 - chances
        return couple(pairs)

    def _products(self, counts: Mapping[int, float]) -> Array:
        machine = self.machine
        values = np.fromiter(counts.values(), np.float64, len(counts))
        products: Array = values @ self._columns.take(np.fromiter(counts, np.intp, len(counts)), 0)
        if machine.kernel == "rbf":
            distances = np.maximum(self._squares + float(values @ values) - 2.0 * products, 0.0)
            return np.asarray(np.exp(-machine.gamma * distances))
        if machine.kernel == "poly":
            return np.asarray((machine.gamma * products + machine.constant) ** machine.degree)
        if machine.kernel == "sigmoid":
            return np.asarray(np.tanh(machine.gamma * products + machine.constant))
        return products


def couple(pairs: npt.NDArray[Any]) -> Array:
    """One probability per class from those of pairs: `pairs[a, b]` is that of a where only a and b are possible."""
    number = len(pairs)
    # minimise p Q p over probabilities p; the diagonal of Q sums squares, the rest are products
    matrix = -pairs.T * pairs
    np.fill_diagonal(matrix, 0.0)
    diagonal = (pairs.T**2).sum(axis=1)
    matrix[np.arange(number), np.arange(number)] = diagonal
    p: Array = np.full(number, 1.0 / number)
    for _ in range(max(_ROUNDS, number)):
        slope = matrix @ p
        total = float(p @ slope)
        if np.abs(slope - total).max() < _ACCURACY / number:
            break
        for t in range(number):
            step = (total - slope[t]) / diagonal[t]
            p[t] += step
            scale = 1.0 / (1.0 + step)
            total = (total + step * (step * diagonal[t] + 2.0 * slope[t])) * scale * scale
            slope = (slope + step * matrix[t]) * scale
            p *= scale
    return p
