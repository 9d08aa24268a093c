"""Training the Keras policy's network on the generated dialogues."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from rasa_core_api.domain import Domain
from rasa_core_api.exceptions import TrainingFailed
from rasa_core_api.featurizers import StateEncoder
from rasa_core_api.training.examples import PADDING, DialogueExample, all_windows, dialogues, windows
from rasa_core_api.training.generator import TrainingData
from rasa_core_api.training.learners.recurrent import Adam, RecurrentNetwork, batches

#: Called with the share of the work that is done (0 to 1) and what is being done.
Progress = Callable[[float, str], None]

DROPOUT = 0.2

#: Steps that are enough where nobody says how many epochs, and the largest batch that anybody may ask for.
_STEPS = 4000
_LARGEST = 1 << 16


@frozen(kw_only=True)
class NetworkSettings:
    """How to train. What is None is chosen by the number of examples."""

    epochs: int | None = None
    rnn_size: int = 32
    batch_size: int | None = None
    learning_rate: float | None = None
    validation_split: float = 0.0
    random_seed: int = 42


@frozen
class Fitted:
    """A trained network and how it went."""

    network: RecurrentNetwork
    examples: int
    epochs: int
    loss: float
    accuracy: float
    validation_accuracy: float | None


@frozen
class Matrix:
    """Examples as numbers: a table of distinct rows (the last one is padding), and row numbers.

    `inputs` (example, time) rows of the table; `labels` (example,) actions, or (example, time) with -1 where
    nothing counts.
    """

    table: NDArray[np.float32]
    inputs: NDArray[np.int32]
    labels: NDArray[np.intp]


def encoded(states: Iterable[dict[str, float]], encoder: StateEncoder) -> NDArray[np.float32]:
    """One row a state, and a last one of -1 that stands for padding."""
    rows = [encoder.encode(state) for state in states]
    table = np.zeros((len(rows) + 1, encoder.width), np.float32)
    for number, row in enumerate(rows):
        table[number, list(row)] = list(row.values())
    table[-1] = -1
    return table


def _index_of(domain: Domain, action: str) -> int:
    try:
        return domain.action_index[action]
    except KeyError:
        raise TrainingFailed(f"the stories run {action!r}, which is no action of the domain", action=action) from None


def window_matrix(data: TrainingData, encoder: StateEncoder, max_history: int, distinct: bool = True) -> Matrix:
    """The windows of `max_history` states, each once where they are to be `distinct`."""
    found = list(windows(data, max_history) if distinct else all_windows(data, max_history))
    inputs = np.array([window for window, _ in found], np.int32).reshape(-1, max_history)
    labels = np.array([_index_of(data.domain, action) for _, action in found], np.intp)
    return Matrix(encoded(data.contexts.states, encoder), inputs, labels)


def dialogue_matrix(data: TrainingData, encoder: StateEncoder, examples: Sequence[DialogueExample] = ()) -> Matrix:
    """Whole dialogues, padded at the end."""
    found = list(examples) or list(dialogues(data))
    length = max((len(example.states) for example in found), default=0)
    inputs = np.full((len(found), length), PADDING, np.int32)
    labels = np.full((len(found), length), -1, np.intp)
    for number, example in enumerate(found):
        inputs[number, : len(example.states)] = example.states
        labels[number, : len(example.actions)] = [_index_of(data.domain, action) for action in example.actions]
    return Matrix(encoded(data.contexts.states, encoder), inputs, labels)


def schedule(settings: NetworkSettings, examples: int, largest: int = _LARGEST) -> tuple[int, int, float]:
    """Epochs, batch size (at most `largest`) and first rate; the rate falls linearly to 0 over all steps.

    Measured: with 10 000 to 20 000 examples batches of 128 and rates of 0.003 (16 000 steps) to 0.01 (2 000
    steps) generalise best, and more than 4 000 steps add nothing; a few dozen examples need small batches and the high
    rate, or there are too few steps.
    """
    batch = min(largest, settings.batch_size or min(128, max(4, 2 ** round(math.log2(examples / 40 + 1)))))
    each = max(1, math.ceil(examples / batch))
    epochs = settings.epochs or min(100, max(25, math.ceil(_STEPS / each)))
    steps = epochs * each
    rate = settings.learning_rate or min(0.01, max(0.003, 0.01 * math.sqrt(2000 / steps)))
    return epochs, batch, rate


def fit(
    matrix: Matrix, actions: int, settings: NetworkSettings, progress: Progress, network: RecurrentNetwork | None = None
) -> Fitted:
    """Train a network, or go on training one that is given."""
    count = len(matrix.inputs)
    if not count:
        raise TrainingFailed("there are no training examples: the stories have no actions")
    random = np.random.default_rng(settings.random_seed)
    if network is None:
        network = RecurrentNetwork(matrix.table.shape[1], settings.rnn_size, actions)
        network.initialise(random)
    order: NDArray[np.intp] = random.permutation(count)
    held_out = order[count - int(count * settings.validation_split) :]
    order = order[: count - len(held_out)]
    epochs, size, rate = schedule(settings, len(order), 32 if matrix.labels.ndim == 2 else _LARGEST)
    steps = max(1, epochs * math.ceil(len(order) / size))
    optimiser, gradient = Adam(network.vector), np.empty_like(network.vector)
    done, loss, right = 0, 0.0, 0
    for epoch in range(epochs):
        progress(epoch / epochs, f"network: epoch {epoch + 1} of {epochs}, loss {loss:.4f}")
        random.shuffle(order)
        loss, right = 0.0, 0
        for part in batches(order, size):
            part_loss, part_right = step_on(
                network, matrix, part, optimiser, gradient, rate * (1 - done / steps), random
            )
            done += 1
            loss += part_loss * len(part) / len(order)
            right += part_right
    progress(1.0, "network: measuring")
    return Fitted(
        network,
        count,
        epochs,
        loss,
        accuracy(network, matrix, order),
        accuracy(network, matrix, held_out) if len(held_out) else None,
    )


def step_on(
    network: RecurrentNetwork,
    matrix: Matrix,
    part: NDArray[np.intp],
    optimiser: Adam,
    gradient: NDArray[Any],
    rate: float,
    random: np.random.Generator,
    dropout: float = DROPOUT,
) -> tuple[float, int]:
    """One step on the examples `part`, with dropout; the loss before it and how many labels were right."""
    inputs, padded, labels = _batch(matrix, part)
    kept = round(256 * (1 - dropout))  # of 256: random bytes are cheap
    shape = (4, len(part), network.features)
    drops = np.multiply(random.integers(0, 256, shape, np.uint8) < kept, np.float32(256 / kept), dtype=np.float32)
    found = network.loss(inputs, padded, labels, list(drops), gradient)
    optimiser.step(gradient, rate)
    return found


def accuracy(network: RecurrentNetwork, matrix: Matrix, examples: NDArray[np.intp] | None = None) -> float:
    """The share of labels that are the most likely action, without dropout."""
    order = np.arange(len(matrix.inputs)) if examples is None else examples
    right = counted = 0
    for part in batches(order, 512):
        inputs, padded, labels = _batch(matrix, part)
        right += network.loss(inputs, padded, labels)[1]
        counted += int((labels >= 0).sum())
    return right / max(1, counted)


def _batch(matrix: Matrix, part: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.intp]]:
    rows = np.ascontiguousarray(matrix.inputs[part].T)  # the rows of the table then lie in this order too
    padded = rows == PADDING
    labels = matrix.labels[part]
    if labels.ndim == 2:
        longest = int((~padded).any(axis=1).sum())
        rows, padded, labels = rows[:longest], padded[:longest], labels[:, :longest].T
    return matrix.table[rows], padded, labels
