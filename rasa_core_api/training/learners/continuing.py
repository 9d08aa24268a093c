"""Going on to train a network with one more conversation, without forgetting what it knew."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasa_core_api.exceptions import TrainingFailed
from rasa_core_api.legacy.keras_hdf5 import KerasLayer
from rasa_core_api.training.examples import PADDING
from rasa_core_api.training.learners.network import Matrix, Progress, accuracy, step_on
from rasa_core_api.training.learners.recurrent import Adam, RecurrentNetwork

#: The rate falls linearly to 0 over the steps. Measured on the demo bot of 2018: within the default 30 steps four
#: conversations against its stories were learnt whole, and of the turns of the stories 0.97 to 0.99 stayed right (0.99
#: before); half the rate learns half as much. Dropout only made it noisier.
RATE = 0.01
#: Fresh windows are repeated until they are so many: as many as a dialogue of stories may have.
_WINDOWS = 64


def merged(old: Matrix, new: Matrix) -> tuple[Matrix, NDArray[np.intp]]:
    """Both as one, and the numbers of the new examples in it.

    Where a new example has the same states as an old one, the old one is left out, whatever its action was; of whole
    dialogues the actions are left out that differ where the states up to them are the same.
    """
    table = np.concatenate([old.table[:-1], new.table])
    first = len(old.table) - 1
    time = max(old.inputs.shape[1], new.inputs.shape[1])
    old_inputs = _padded(old.inputs, time, PADDING)
    new_inputs = _padded(np.where(new.inputs == PADDING, PADDING, new.inputs + first).astype(np.int32), time, PADDING)
    old_labels, new_labels = old.labels, new.labels
    if old.labels.ndim == 2:
        old_labels, new_labels = (_padded(labels, time, -1) for labels in (old_labels, new_labels))
    same = _first_alike(table)
    if old.labels.ndim == 2:
        for row, labels in zip(new_inputs, new_labels, strict=True):
            alike = np.logical_and.accumulate(same[old_inputs] == same[row], axis=1)
            old_labels[alike & (labels >= 0) & (old_labels != labels)] = -1
    known = {same[row].tobytes() for row in new_inputs}
    keep = np.array([same[row].tobytes() not in known for row in old_inputs], bool)
    inputs = np.concatenate([old_inputs[keep], new_inputs])
    labels = np.concatenate([old_labels[keep], new_labels])
    return Matrix(table, inputs, labels), np.arange(int(keep.sum()), len(inputs))


def _padded(rows: NDArray[Any], time: int, filler: int) -> NDArray[Any]:
    return np.pad(rows, ((0, 0), (0, time - rows.shape[1])), constant_values=filler)


def _first_alike(table: NDArray[np.float32]) -> NDArray[np.int32]:
    """For each row the number of the first equal one; the last is that of padding, which row number -1 finds."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(row.tobytes(), number) for number, row in enumerate(table)], np.int32)


def learn_on(
    network: RecurrentNetwork,
    matrix: Matrix,
    fresh: NDArray[np.intp],
    *,
    epochs: int,
    batch_size: int,
    random_seed: int,
    progress: Progress,
) -> float:
    """Train `network` in place: each epoch is one step on the fresh examples and `batch_size - 1` times as many others.

    The result is the share of the fresh examples that it predicts afterwards.
    """
    random = np.random.default_rng(random_seed)
    others = np.setdiff1d(np.arange(len(matrix.inputs)), fresh)
    again = fresh if matrix.labels.ndim == 2 else np.tile(fresh, math.ceil(_WINDOWS / len(fresh)))
    count = (batch_size - 1) * len(again) if len(others) else 0
    optimiser, gradient = Adam(network.vector), np.empty_like(network.vector)
    for epoch in range(epochs):
        progress(epoch / epochs, f"network: step {epoch + 1} of {epochs}")
        part = np.concatenate([again, random.choice(others, count, replace=count > len(others))])
        step_on(network, matrix, part, optimiser, gradient, RATE * (1 - epoch / epochs), random, dropout=0.0)
    return accuracy(network, matrix, fresh)


def stressed(matrix: Matrix, fresh: NDArray[np.intp]) -> Matrix:
    """The examples with the fresh ones as often as they need to be heard among many: a fifth of all at most."""
    others = np.setdiff1d(np.arange(len(matrix.inputs)), fresh)
    times = min(math.ceil(_WINDOWS / len(fresh)), max(1, len(others) // (4 * len(fresh))))
    order = np.concatenate([others, np.tile(fresh, times)])
    return Matrix(matrix.table, matrix.inputs[order], matrix.labels[order])


def network_of(layers: list[KerasLayer]) -> RecurrentNetwork:
    """The trainable form of a network that was trained here. Raises `TrainingFailed` where it is another."""
    by_kind = {layer.kind: layer.weights for layer in layers}
    lstm, dense = by_kind.get("LSTM"), by_kind.get("Dense", by_kind.get("TimeDistributed"))
    kinds = [layer.kind for layer in layers]
    if lstm is None or dense is None or kinds[0::2] not in (["Masking", "Dense"], ["Masking", "TimeDistributed"]):
        raise TrainingFailed(f"a network of the layers {', '.join(kinds)} cannot go on learning here")
    network = RecurrentNetwork(lstm["kernel"].shape[0], lstm["recurrent_kernel"].shape[0], dense["kernel"].shape[1])
    network.parameters["kernel"][:] = lstm["kernel"]
    network.parameters["recurrent"][:] = lstm["recurrent_kernel"]
    network.parameters["bias"][:] = lstm["bias"]
    network.parameters["dense"][:] = dense["kernel"]
    network.parameters["dense_bias"][:] = dense["bias"]
    return network
