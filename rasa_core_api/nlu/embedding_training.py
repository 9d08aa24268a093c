"""Training of the embedding classifier, in numpy.

The network, the loss and the optimizer are those of rasa_nlu 0.12-0.15 (after StarSpace, Wu et al. 2017): texts and
intents are mapped into one space; per example the similarity with its intent is pushed above `mu_pos`, those with
`num_neg` random other intents below `-mu_neg`, and intents away from each other (`C_emb`). Gradients are written out by
hand and tested against finite differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import define, frozen

from rasa_core_api.constants import JSON
from rasa_core_api.nlu.embedding import COSINE, SMALLEST_SQUARE, EmbeddingIntents, EmbeddingWeights, Layer

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

DEFAULT_SEED = 20180911  # used where no random_seed is set, so that the same data gives the same model
LEARNING_RATE = 0.001
_DECAY = (0.9, 0.999)  # of Adam's two averages
_EPSILON = 1e-8

#: Epochs done, epochs in all, mean loss, and the share of training examples that are right (every now and then).
Epoch = Callable[[int, int, float, "float | None"], None]


@frozen(eq=False)
class Batch:
    """Some examples: their counts in the columns that occur in them, the numbers of their intents, and other intents.

    `masks` multiply the output of each hidden layer (dropout): first those of the text side, then of the intents.
    """

    columns: Array
    counts: Array  # (examples, columns)
    labels: Array  # (examples,)
    others: Array  # (examples, num_neg)
    masks: tuple[Array, ...]


@define(eq=False)
class Network:
    """Kernels and biases of both sides, last layers included; `intents` is the input of the intent side."""

    text: list[tuple[Array, Array]]
    intent: list[tuple[Array, Array]]
    intents: Array

    @classmethod
    def random(cls, width: int, intents: Array, settings: Mapping[str, JSON], random: Any, dtype: Any) -> Network:
        """Kernels after Glorot and Bengio (2010), uniform; biases 0."""

        def side(inputs: int, sizes: Sequence[int]) -> list[tuple[Array, Array]]:
            layers = []
            for outputs in (*sizes, int(settings["embed_dim"])):
                limit = math.sqrt(6.0 / (inputs + outputs))
                kernel = random.uniform(-limit, limit, (inputs, outputs)).astype(dtype)
                layers.append((kernel, np.zeros(outputs, dtype)))
                inputs = outputs
            return layers

        text = side(width, settings["hidden_layers_sizes_a"])
        return cls(text, side(intents.shape[1], settings["hidden_layers_sizes_b"]), intents.astype(dtype))

    def parameters(self) -> list[Array]:
        """All kernels and biases, text side first."""
        return [array for layer in (*self.text, *self.intent) for array in layer]

    def weights(self) -> EmbeddingWeights:
        """The network as the classifier takes it."""
        text, intent = ([Layer(kernel, bias) for kernel, bias in side] for side in (self.text, self.intent))
        return EmbeddingWeights(tuple(text[:-1]), text[-1], tuple(intent[:-1]), intent[-1], self.intents)

    def loss(self, batch: Batch, settings: Mapping[str, JSON]) -> tuple[float, list[Array]]:
        """The loss of a batch and its gradient for each of `parameters()`."""
        hidden = len(self.text) - 1
        texts = _forward(self.text, batch.counts, batch.masks[:hidden], batch.columns)
        intents = _forward(self.intent, self.intents, batch.masks[hidden:])
        cosine = settings["similarity_type"] == COSINE
        text_points, text_norms = _unit(texts[-1]) if cosine else (texts[-1], None)
        intent_points, intent_norms = _unit(intents[-1]) if cosine else (intents[-1], None)

        size = len(batch.labels)
        row = np.arange(size)
        similar = text_points @ intent_points.T
        slope = np.zeros_like(similar)
        right = similar[row, batch.labels]
        gap = settings["mu_pos"] - right
        total = np.maximum(gap, 0.0).sum()
        slope[row, batch.labels] -= gap > 0
        wrong = np.take_along_axis(similar, batch.others, axis=1) + settings["mu_neg"]
        if settings["use_max_sim_neg"]:
            worst = wrong.argmax(axis=1)
            excess = wrong[row, worst]
            total += np.maximum(excess, 0.0).sum()
            np.add.at(slope, (row, batch.others[row, worst]), excess > 0)
        else:
            total += np.maximum(wrong, 0.0).sum()
            np.add.at(slope, (row[:, None], batch.others), wrong > 0)
        slope /= size

        between = intent_points @ intent_points.T
        close = between[batch.labels[:, None], batch.others]
        nearest = close.argmax(axis=1)
        excess = close[row, nearest]
        total += settings["C_emb"] * np.maximum(excess, 0.0).sum()
        slope_between = np.zeros_like(between)
        np.add.at(
            slope_between,
            (batch.labels, batch.others[row, nearest]),
            (excess > 0) * between.dtype.type(settings["C_emb"] / size),
        )

        text_slope = slope @ intent_points
        intent_slope = slope.T @ text_points + (slope_between + slope_between.T) @ intent_points
        if cosine:
            text_slope = _unit_slope(text_slope, text_points, text_norms)
            intent_slope = _unit_slope(intent_slope, intent_points, intent_norms)
        gradients = _backward(self.text, texts, batch.masks[:hidden], text_slope, batch.columns)
        gradients += _backward(self.intent, intents, batch.masks[hidden:], intent_slope)
        penalty = 0.0
        for number, (kernel, _) in enumerate((*self.text, *self.intent)):
            flat = kernel.ravel()
            penalty += 0.5 * float(flat @ flat)
            gradients[2 * number] += kernel * kernel.dtype.type(settings["C2"])
        return float(total) / size + settings["C2"] * penalty, gradients


def _forward(
    layers: Sequence[tuple[Array, Array]], values: Array, masks: Sequence[Array], columns: Array | None = None
) -> list[Array]:
    """The input and the output of every layer; the first layer may have some of its columns only."""
    outputs = [values]
    for number, (kernel, bias) in enumerate(layers):
        rows = kernel if number or columns is None else kernel[columns]
        values = values @ rows + bias
        if number < len(masks):
            values = np.maximum(values, 0.0) * masks[number]
        outputs.append(values)
    return outputs


def _backward(
    layers: Sequence[tuple[Array, Array]],
    outputs: Sequence[Array],
    masks: Sequence[Array],
    slope: Array,
    columns: Array | None = None,
) -> list[Array]:
    """Gradients for kernels and biases from the slope of the last output."""
    gradients: list[Array] = []
    for number in range(len(layers) - 1, -1, -1):
        kernel, _ = layers[number]
        if number < len(masks):
            slope = slope * masks[number] * (outputs[number + 1] > 0)
        gradient = outputs[number].T @ slope
        if columns is not None and number == 0:
            whole = np.zeros_like(kernel)
            whole[columns] = gradient
            gradient = whole
        gradients = [gradient, slope.sum(axis=0), *gradients]
        if number:
            slope = slope @ kernel.T
    return gradients


def _unit(points: Array) -> tuple[Array, Array]:
    norms = np.sqrt(np.maximum((points * points).sum(axis=1, keepdims=True), SMALLEST_SQUARE))
    return points / norms, norms


def _unit_slope(slope: Array, points: Array, norms: Array | None) -> Array:
    assert norms is not None
    inner = (slope * points).sum(axis=1, keepdims=True)
    inner[norms <= math.sqrt(SMALLEST_SQUARE)] = 0.0  # a norm held at its least does not depend on the point
    result: Array = (slope - points * inner) / norms
    return result


class Adam:
    """Steps after Kingma and Ba (2015), with the corrections folded into the rate."""

    def __init__(self, parameters: Sequence[Array]) -> None:
        self._parameters = parameters
        self._first = [np.zeros_like(array) for array in parameters]
        self._second = [np.zeros_like(array) for array in parameters]
        self._steps = 0

    def step(self, gradients: Sequence[Array]) -> None:
        """Move the parameters; the gradients are used up."""
        self._steps += 1
        one, two = _DECAY
        rate = LEARNING_RATE * math.sqrt(1 - two**self._steps) / (1 - one**self._steps)
        for array, gradient, first, second in zip(self._parameters, gradients, self._first, self._second, strict=True):
            first *= one
            first += (1 - one) * gradient
            gradient *= gradient
            gradient *= 1 - two
            second *= two
            second += gradient
            np.sqrt(second, out=gradient)
            gradient += _EPSILON
            np.divide(first, gradient, out=gradient)
            gradient *= rate
            array -= gradient


def train_embedding(
    examples: Sequence[tuple[Mapping[int, float], str]],
    width: int,
    settings: Mapping[str, JSON],
    epoch: Epoch | None = None,
) -> EmbeddingIntents | None:
    """Train on feature counts (column -> value, `width` columns) with their intents.

    `settings` are the component's, with defaults; `epoch` is told of progress. None where there are fewer than two
    intents or no features.
    """
    names = sorted({intent for _, intent in examples})
    if len(names) < 2 or not width:
        return None
    random = np.random.default_rng(DEFAULT_SEED if settings["random_seed"] is None else settings["random_seed"])
    network = Network.random(width, _intent_inputs(names, settings), settings, random, np.float32)
    adam = Adam(network.parameters())
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers[intent] for _, intent in examples])
    data = _Examples([counts for counts, _ in examples])
    epochs, every = int(settings["epochs"]), int(settings["evaluate_every_num_epochs"])
    for done in range(epochs):
        size = _batch_size(settings["batch_size"], done, epochs)
        order = random.permutation(len(labels))
        losses = []
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            batch = _draw(data, chosen, labels[chosen], network, settings, random)
            loss, gradients = network.loss(batch, settings)
            adam.step(gradients)
            losses.append(loss)
        if epoch is not None:
            right = None
            if (every and (done + 1) % every == 0) or done + 1 == epochs:
                # looks at the first of a shuffled list, and draws nothing: what is shown changes no model
                right = _accuracy(network, data, labels, order[: int(settings["evaluate_on_num_examples"])], settings)
            epoch(done + 1, epochs, float(np.mean(losses)), right)
    return EmbeddingIntents(network.weights(), names, settings["similarity_type"])


def _intent_inputs(names: Sequence[str], settings: Mapping[str, JSON]) -> Array:
    """One row per intent: a 1 of its own, or a 1 for each part of its name."""
    if not settings["intent_tokenization_flag"]:
        return np.eye(len(names))
    symbol = settings["intent_split_symbol"]
    parts = [set(name.split(symbol) if symbol else [name]) for name in names]
    known = sorted(set().union(*parts))
    return np.array([[1.0 if part in own else 0.0 for part in known] for own in parts])


def _batch_size(setting: JSON, epoch: int, epochs: int) -> int:
    """A fixed size, or one that grows in equal steps from the first epoch to the last."""
    if isinstance(setting, int):
        return setting
    first, last = setting
    return int(first + epoch * (last - first) / (epochs - 1)) if epochs > 1 else int(first)


class _Examples:
    """Feature counts of all examples, sparse."""

    def __init__(self, counts: Sequence[Mapping[int, float]]) -> None:
        self._starts = np.cumsum([0, *(len(row) for row in counts)])
        self._columns = np.array([column for row in counts for column in row], dtype=np.int64)
        self._values = np.array([value for row in counts for value in row.values()], dtype=np.float32)

    def dense(self, chosen: Array) -> tuple[Array, Array]:
        """The columns that occur in some examples, and their counts there."""
        starts, ends = self._starts[chosen], self._starts[chosen + 1]
        places = np.concatenate([np.arange(start, end) for start, end in zip(starts, ends, strict=True)])
        rows = np.repeat(np.arange(len(chosen)), ends - starts)
        columns, numbers = np.unique(self._columns[places], return_inverse=True)
        counts = np.zeros((len(chosen), len(columns)), np.float32)
        counts[rows, numbers] = self._values[places]
        return columns, counts


def _draw(
    data: _Examples, chosen: Array, labels: Array, network: Network, settings: Mapping[str, JSON], random: Any
) -> Batch:
    columns, counts = data.dense(chosen)
    others = random.integers(
        0, len(network.intents) - 1, (len(chosen), min(settings["num_neg"], len(network.intents) - 1))
    )
    others += others >= labels[:, None]
    keep = 1.0 - settings["droprate"]
    sides = ((network.text, len(chosen)), (network.intent, len(network.intents)))
    masks = tuple(
        ((random.random((rows, len(bias)), dtype=np.float32) < keep) / keep).astype(np.float32)
        for side, rows in sides
        for _, bias in side[:-1]
    )
    return Batch(columns, counts, labels, others, masks)


def _accuracy(
    network: Network, data: _Examples, labels: Array, chosen: Array, settings: Mapping[str, JSON]
) -> float | None:
    if not len(chosen):
        return None
    columns, counts = data.dense(chosen)
    ones = [np.ones(1, np.float32)]
    points = _forward(network.text, counts, ones * (len(network.text) - 1), columns)[-1]
    intents = _forward(network.intent, network.intents, ones * (len(network.intent) - 1))[-1]
    if settings["similarity_type"] == COSINE:
        intents = _unit(intents)[0]
    return float(np.mean((points @ intents.T).argmax(axis=1) == labels[chosen]))
