"""Intents from the embedding classifier of rasa_nlu (after StarSpace, Wu et al. 2017): the forward pass.

A text's feature counts and every intent are mapped into one small space; an intent's confidence is how alike the two
points are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from attrs import frozen

from rasa_core_api.nlu.message import RANKING_LENGTH, Message, set_ranking

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float32]

COSINE = "cosine"
INNER = "inner"
SMALLEST_SQUARE = 1e-12  # of a length; keeps the zero vector from dividing by zero
MOST_FEATURES = 1e5  # of one text, each time it occurs
LARGEST = 1e37  # of single precision, with some room


@frozen(eq=False)
class Layer:
    """A dense layer: `x @ kernel + bias`."""

    kernel: Array
    bias: Array


@frozen(eq=False)
class EmbeddingWeights:
    """The network: hidden layers (ReLU) and a last, linear layer on either side.

    `intents` has a row of inputs for each intent: a single 1 each, or a 1 for every word of its name.
    """

    text_hidden: tuple[Layer, ...]
    text_last: Layer
    intent_hidden: tuple[Layer, ...]
    intent_last: Layer
    intents: Array

    def width(self) -> int:
        """The number of feature columns of a text."""
        return int((self.text_hidden or (self.text_last,))[0].kernel.shape[0])


class EmbeddingIntents:
    """`intent_classifier_tensorflow_embedding`: ranks all intents.

    The similarity is `cosine`, where negative values count as 0, or `inner`, a softmax over inner products. `of_0_12`
    does as rasa_nlu 0.12 did: negative cosines are kept, inner products are the confidences themselves, and a text
    without any known feature is ranked as well.
    """

    name = "intent_classifier_tensorflow_embedding"

    def __init__(
        self, weights: EmbeddingWeights, intents: Sequence[str], similarity: str = COSINE, *, of_0_12: bool = False
    ) -> None:
        """`intents` are the names in the order of the rows of `weights.intents`.

        Raises ValueError where shapes do not fit together or the similarity is unknown.
        """
        _check(weights, len(intents))
        if similarity not in (COSINE, INNER):
            raise ValueError(f"an unknown similarity type {similarity!r}")
        self.weights = weights
        self.intents = list(intents)
        self.similarity = similarity
        self.of_0_12 = of_0_12
        with np.errstate(over="ignore", invalid="ignore"):
            points = _dense(weights.intents, weights.intent_hidden, weights.intent_last)
        if not np.isfinite(points).all():
            raise ValueError("intents that are no numbers, or too large ones")
        if not _largest(weights, points) < LARGEST:
            raise ValueError("weights so large that similarities would be no numbers")
        if similarity == COSINE:
            points = points / np.sqrt(np.maximum((points * points).sum(axis=1, keepdims=True), SMALLEST_SQUARE))
        self._points = np.ascontiguousarray(points.T)
        layers = (*weights.text_hidden, weights.text_last)
        self._first = layers[0]
        self._others = layers[1:]

    def process(self, message: Message) -> None:
        """Set intent and ranking; a text without any known feature gets none."""
        counts = message.counts
        if not (self.of_0_12 or any(counts.values())):
            set_ranking(message, [])
            return
        similarities = self.similarities(counts)
        order = similarities.argsort(kind="stable")[::-1][:RANKING_LENGTH]  # the original's order of equal ones
        values = similarities[order]
        if self.similarity == COSINE and not self.of_0_12:
            values = np.maximum(values, 0.0)
        names = self.intents
        set_ranking(message, [(names[number], value) for number, value in zip(order, values.tolist(), strict=True)])

    def similarities(self, counts: dict[int, float]) -> Array:
        """How alike a text with these feature counts (column to value) is to each intent."""
        first = self._first
        # the input is all zeros but for a few columns: only their rows of the kernel take part
        values = np.fromiter(counts.values(), np.float32, len(counts))
        point = values @ first.kernel.take(np.fromiter(counts, np.intp, len(counts)), 0)
        point += first.bias
        for layer in self._others:
            point = np.maximum(point, 0.0) @ layer.kernel
            point += layer.bias
        similarities: Array = point @ self._points
        if self.similarity == COSINE:
            similarities /= np.sqrt(max(float(point @ point), SMALLEST_SQUARE))
        elif not self.of_0_12:
            similarities = np.exp(similarities - similarities.max())
            similarities /= similarities.sum()
        return similarities


def _dense(values: Array, hidden: Sequence[Layer], last: Layer) -> Array:
    for layer in hidden:
        values = np.maximum(values @ layer.kernel + layer.bias, 0.0)
    return values @ last.kernel + last.bias


def _largest(weights: EmbeddingWeights, points: Array) -> float:
    """No number that a text of up to `MOST_FEATURES` makes on its way to a similarity is larger than this."""
    first, *others = (*weights.text_hidden, weights.text_last)
    bound = MOST_FEATURES * _size(first.kernel) + _size(first.bias)
    for layer in others:
        bound = bound * layer.kernel.shape[0] * _size(layer.kernel) + _size(layer.bias)
    return float(bound * points.shape[1] * max(bound, _size(points)))


def _size(values: Array) -> float:
    return float(np.abs(values).max(initial=0.0))


def _check(weights: EmbeddingWeights, intents: int) -> None:
    for layers in ((*weights.text_hidden, weights.text_last), (*weights.intent_hidden, weights.intent_last)):
        for layer in layers:
            if layer.kernel.ndim != 2 or layer.bias.shape != layer.kernel.shape[1:]:
                raise ValueError("a layer whose kernel and bias do not fit together")
            if not (np.isfinite(layer.kernel).all() and np.isfinite(layer.bias).all()):
                raise ValueError("weights that are no numbers")
        for before, after in pairwise(layers):
            if before.kernel.shape[1] != after.kernel.shape[0]:
                raise ValueError("layers that do not fit together")
    if weights.text_last.kernel.shape[1] != weights.intent_last.kernel.shape[1]:
        raise ValueError("text and intents are mapped into different spaces")
    inputs = (weights.intent_hidden or (weights.intent_last,))[0].kernel.shape[0]
    if weights.intents.shape != (intents, inputs) or not intents:
        raise ValueError("the list of intents does not fit the network")
