"""Training of the linear intent classifier: one-against-all ridge regression on the kernel, solved exactly.

With the features X (one row per example), the kernel G = X X' + 1 (the 1 is the bias) and targets Y of -1 and +1, the
weights are X' A with A = (G + r I)^-1 Y. Leaving example i out changes its scores to Y_i - A_i / ((G + r I)^-1)_ii
exactly, so all leave-one-out scores come without training again. The ridge r and the temperature of the softmax are
those with the smallest log-loss of these scores; nothing is random.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from attrs import frozen

from rasa_core_api.constants import JSON
from rasa_core_api.nlu.data import Example
from rasa_core_api.nlu.linear import LinearIntents, characters_of, chunks_of, words_of

if TYPE_CHECKING:
    import numpy.typing as npt

    Doubles = npt.NDArray[np.float64]

RIDGES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
USUAL_RIDGE = 0.8  # nearly always the best; taken without trying others where that would take long
TEMPERATURES = tuple(0.02 * 1.08**step for step in range(60))
MAX_TRIED = 3000  # examples up to which all ridges are tried (one eigen-decomposition, cubic)
MAX_EXAMPLES = 6000  # examples that are used; more are thinned out per intent (cubic time, square memory)
_BLOCK = 4096  # columns of features that are dense at one time


@frozen(eq=False)
class _Matrix:
    """Sparse features: value `values[k]` in row `rows[k]`, column `columns[k]`."""

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    values: Doubles
    shape: tuple[int, int]

    def gram(self) -> Doubles:
        """The matrix times its transpose. Columns with one value only add to the diagonal."""
        height, width = self.shape
        counts = np.bincount(self.columns, minlength=width)
        alone = counts[self.columns] == 1
        result: Doubles = np.diag(
            np.bincount(self.rows[alone], self.values[alone] ** 2, minlength=height).astype(np.float64)
        )
        rows, values = self.rows[~alone], self.values[~alone]
        numbers = np.cumsum(counts > 1) - 1
        columns = numbers[self.columns[~alone]]
        for start in range(0, int(columns.max(initial=-1)) + 1, _BLOCK):
            inside = (columns >= start) & (columns < start + _BLOCK)
            block = np.zeros((height, _BLOCK), dtype=np.float32)
            block[rows[inside], columns[inside] - start] = values[inside]
            result += block @ block.T
        return result

    def transposed_times(self, factors: Doubles) -> Doubles:
        """The transpose of the matrix times dense columns."""
        order = np.argsort(self.columns, kind="stable")
        columns = self.columns[order]
        result: Doubles = np.zeros((self.shape[1], factors.shape[1]))
        step = max(1, 4_000_000 // max(1, factors.shape[1]))
        for start in range(0, len(order), step):
            part = order[start : start + step]
            found, first = np.unique(columns[start : start + step], return_index=True)
            products = self.values[part, None] * factors[self.rows[part]]
            result[found] += np.add.reduceat(products, first, axis=0)
        return result


def train_linear(examples: Sequence[Example], settings: Mapping[str, JSON]) -> tuple[LinearIntents, list[str]]:
    """Train on examples that have an intent (at least one); returns the classifier and remarks for the operator."""
    remarks = []
    used = thinned(examples)
    if len(used) < len(examples):
        remarks.append(f"intents are learnt from {len(used)} of {len(examples)} examples, chosen evenly per intent")
    intents = sorted({str(example.intent) for example in used})
    numbers = {intent: number for number, intent in enumerate(intents)}
    matrix, words, characters, idf = _features([example.text for example in used])
    labels = np.array([numbers[str(example.intent)] for example in used])
    targets = np.full((len(used), len(intents)), -1.0)
    targets[np.arange(len(used)), labels] = 1.0
    kernel = matrix.gram()
    kernel += 1.0
    factors, temperature = (_best if len(used) <= MAX_TRIED else _usual)(kernel, targets, labels)
    weights = matrix.transposed_times(factors)
    # the features already hold idf; prediction multiplies with it itself
    classifier = LinearIntents(
        settings,
        intents,
        words,
        characters,
        weights.astype(np.float32),
        idf.astype(np.float32),
        factors.sum(axis=0).astype(np.float32),
        temperature,
    )
    return classifier, remarks


def thinned(examples: Sequence[Example], most: int = MAX_EXAMPLES) -> list[Example]:
    """At most so many examples: repeated texts of an intent once, then large intents thinned evenly to one size."""
    if len(examples) <= most:
        return list(examples)
    groups: dict[str, dict[str, Example]] = {}
    for example in examples:
        groups.setdefault(str(example.intent), {}).setdefault(" ".join(chunks_of(example.text)), example)
    sizes = sorted(len(group) for group in groups.values())
    room, limit = most, 0
    for position, size in enumerate(sizes):
        limit = room // (len(sizes) - position)
        if size > limit:
            break
        room -= size
        limit = size
    kept = []
    for group in groups.values():
        members = list(group.values())
        number = min(len(members), max(1, limit))
        kept += [members[place * len(members) // number] for place in range(number)]
    return kept


def _features(texts: Sequence[str]) -> tuple[_Matrix, list[str], list[str], Doubles]:
    chunks = [chunks_of(text) for text in texts]
    characters = {chunk: characters_of(chunk) for chunk in {chunk for row in chunks for chunk in row}}
    words = []
    for row in chunks:
        found = [word for chunk in row for word in words_of(chunk)]
        words.append(found + [f"{left} {right}" for left, right in pairwise(found)])
    word_documents = Counter(word for row in words for word in set(row))
    character_documents = Counter(piece for row in chunks for piece in set().union(*(characters[c] for c in row)))
    word_names, character_names = sorted(word_documents), sorted(character_documents)
    numbers = {word: number for number, word in enumerate(word_names)}
    character_numbers = {piece: number for number, piece in enumerate(character_names, len(word_names))}
    documents = [word_documents[word] for word in word_names]
    documents += [character_documents[piece] for piece in character_names]
    # smoothed as if one more text had every feature; plus 1, so that no feature weighs nothing
    idf = np.log((1.0 + len(texts)) / (1.0 + np.array(documents, dtype=np.float64))) + 1.0
    weights = idf.tolist()
    squares = {
        chunk: math.fsum((weights[character_numbers[piece]] * count) ** 2 for piece, count in counts.items())
        for chunk, counts in characters.items()
    }
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    for row_number, (found, row) in enumerate(zip(words, chunks, strict=True)):
        counted = Counter(numbers[word] for word in found)
        norm = math.sqrt(math.fsum(weights[number] ** 2 * count for number, count in counted.items())) or 1.0
        entries = {number: count * weights[number] / norm for number, count in counted.items()}
        pieces: Counter[str] = Counter()
        for chunk in row:
            pieces.update(characters[chunk])
        norm = math.sqrt(math.fsum(squares[chunk] for chunk in row)) or 1.0
        for piece, count in pieces.items():
            number = character_numbers[piece]
            entries[number] = count * weights[number] / norm
        rows += [row_number] * len(entries)
        columns += entries
        values += entries.values()
    matrix = _Matrix(
        np.array(rows, dtype=np.int64),
        np.array(columns, dtype=np.int64),
        np.array(values, dtype=np.float64),
        (len(texts), len(weights)),
    )
    return matrix, word_names, character_names, idf


def leave_one_out(factors: Doubles, diagonal: Doubles, targets: Doubles) -> Doubles:
    """The scores each example would get from a classifier trained without it.

    `factors` solve the ridge problem, `diagonal` is that of the inverse of the kernel with the ridge.
    """
    return targets - factors / diagonal[:, None]


def best_temperature(scores: Doubles, labels: npt.NDArray[np.int64]) -> tuple[float, float]:
    """The temperature with the smallest log-loss, and that loss."""
    scores = scores - scores.max(axis=1, keepdims=True)
    right = scores[np.arange(len(labels)), labels]
    losses = [
        (float(np.mean(np.log(np.exp(scores / temperature).sum(axis=1)) - right / temperature)), temperature)
        for temperature in TEMPERATURES
    ]
    loss, temperature = min(losses)
    return temperature, loss


def _best(kernel: Doubles, targets: Doubles, labels: npt.NDArray[np.int64]) -> tuple[Doubles, float]:
    spread, vectors = np.linalg.eigh(kernel)
    spread = np.maximum(spread, 0.0)
    projected, squared = vectors.T @ targets, vectors**2
    found = []
    for ridge in RIDGES:
        shrunk = 1.0 / (spread + ridge)
        factors = vectors @ (shrunk[:, None] * projected)
        temperature, loss = best_temperature(leave_one_out(factors, squared @ shrunk, targets), labels)
        found.append((loss, factors, temperature))
    _, factors, temperature = min(found, key=lambda item: item[0])
    return factors, temperature


def _usual(kernel: Doubles, targets: Doubles, labels: npt.NDArray[np.int64]) -> tuple[Doubles, float]:
    kernel[np.diag_indices_from(kernel)] += USUAL_RIDGE
    inverse = np.linalg.inv(kernel)
    factors = inverse @ targets
    temperature, _ = best_temperature(leave_one_out(factors, np.diag(inverse), targets), labels)
    return factors, temperature
