"""The linear intent classifier: words, word pairs and characters, weighted and added up.

A text is cut at blanks into chunks. Each chunk gives words (runs of letters and digits; other marks one by one),
pairs of neighbouring words, and the 2- to 5-character pieces of the chunk with a blank on both sides, in lower case
and with digits alike. A piece counts idf times its number in the chunk. Words and pairs together, and characters
together, are divided by the root of the summed squares of their pieces. That norm adds up over chunks, so what a
chunk contributes to the scores of all intents is a constant vector. It is computed once per chunk and kept, which
leaves a handful of look-ups per text.

Confidences are the softmax of the scores over a temperature, see `linear_training`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rasa_core_api.constants import JSON
from rasa_core_api.nlu.message import RANKING_LENGTH, Message, set_ranking

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

#: Temperatures times this put as many right answers above 0.8 as the original's cosine does (measured on two bots).
LEGACY_FACTOR = 0.7
MAX_WORDS = 1000  # pieces between blanks of one text; the rest is not looked at
SIZES = range(2, 6)  # characters of a piece
MAX_CHUNKS = 20_000  # remembered, and as many pairs; all are dropped when there are more
MAX_BYTES = 16 << 20  # of the vectors that are remembered
LONG_CHUNK = 40  # characters; longer chunks are not remembered
_LONGEST = 1000  # characters of a chunk that are looked at
_STEP = 500  # characters that are worked on in one step: about a millisecond if all are new

_DIGITS = re.compile(r"\d+")
_WORD = re.compile(r"\w+|[^\w\s]")
_ANYTHING = re.compile(r"[^\s.,!?]")


def chunks_of(text: str) -> list[str]:
    """The pieces between blanks, in lower case and with each run of digits as one `0`."""
    return _DIGITS.sub("0", text.lower()).split(None, MAX_WORDS)[:MAX_WORDS]


def words_of(chunk: str) -> list[str]:
    """The words of a chunk; marks are words of their own."""
    return _WORD.findall(chunk[:_LONGEST])


def characters_of(chunk: str) -> Counter[str]:
    """How often each piece of 2 to 5 characters occurs in a chunk with a blank on both sides."""
    padded = f" {chunk[:_LONGEST]} "
    return Counter(padded[start : start + size] for size in SIZES for start in range(len(padded) - size + 1))


class _Chunk:
    """What is remembered of a chunk: rows of its vectors in the table, their squared norms, first and last word."""

    __slots__ = ("character_row", "character_square", "first", "last", "word_row", "word_square")

    def __init__(self, row: int, word_square: float, character_square: float, first: str, last: str) -> None:
        self.word_row = row
        self.character_row = row + 1
        self.word_square = word_square
        self.character_square = character_square
        self.first = first
        self.last = last


class _Sums(NamedTuple):
    """What chunks come to: sums of vectors (None where there is no known piece), of squares, and the last word."""

    words: npt.NDArray[np.float64] | None
    characters: npt.NDArray[np.float64] | None
    word_square: float
    character_square: float
    last: str


_NOTHING = _Sums(None, None, 0.0, 0.0, "")


class LinearIntents:
    """`intent_classifier_linear`, also serving for `intent_classifier_sklearn` and `intent_classifier_mitie`.

    `weights` has one row per feature, first `words` (pairs have a blank between their words), then `characters`, and
    one column per intent; `idf` belongs to the features, `bias` to the intents. `temperature` is the one that fits
    best; `settings["confidence_scale"]` says whether it is used (`calibrated`) or lowered (`legacy`).
    """

    name = "intent_classifier_linear"

    def __init__(
        self,
        settings: Mapping[str, JSON],
        intents: Sequence[str],
        words: Sequence[str],
        characters: Sequence[str],
        weights: Floats,
        idf: Floats,
        bias: Floats,
        temperature: float,
    ) -> None:
        """Raises ValueError when the parts do not fit together."""
        features = len(words) + len(characters)
        if weights.shape != (features, len(intents)) or idf.shape != (features,) or bias.shape != (len(intents),):
            raise ValueError("the sizes of features, intents and weights do not fit together")
        if not (temperature > 0 and np.isfinite(weights).all() and np.isfinite(idf).all() and np.isfinite(bias).all()):
            raise ValueError("a weight is not a number, or the temperature is not above 0")
        self.settings = dict(settings)
        self.intents = list(intents)
        self.words, self.characters = list(words), list(characters)
        self.weights, self.idf, self.bias, self.temperature = weights, idf, bias, float(temperature)
        factor = LEGACY_FACTOR if settings.get("confidence_scale", "legacy") == "legacy" else 1.0
        self._inverse_temperature = 1.0 / (factor * self.temperature)
        self._bias = bias.astype(np.float64)
        self._weighted = weights * idf[:, None]
        self._squares: list[float] = (idf.astype(np.float64) ** 2).tolist()
        self._word_numbers = {word: number for number, word in enumerate(self.words)}
        self._character_numbers = {piece: number for number, piece in enumerate(self.characters, len(self.words))}
        self._most = max(4 * MAX_WORDS, min(3 * MAX_CHUNKS, MAX_BYTES // (8 * max(1, len(self.intents)))))
        self._forget()

    def process(self, message: Message) -> None:
        """Rank the intents; a text without any known feature, or of nothing but `.`, `,`, `!`, `?`, has none."""
        self._rank(message, self.scores(message.text))

    def steps(self, message: Message) -> Iterator[None]:
        """Rank the intents, some chunks at a time."""
        sums = _NOTHING
        batch: list[str] = []
        size = 0
        for chunk in chunks_of(message.text) if _ANYTHING.search(message.text) else ():
            batch.append(chunk)
            size += min(len(chunk), _LONGEST)
            if size > _STEP:
                sums = self._add_chunks(sums, batch)
                batch, size = [], 0
                yield
        self._rank(message, self._scores(self._add_chunks(sums, batch) if batch else sums))

    def _rank(self, message: Message, scores: npt.NDArray[np.float64] | None) -> None:
        if scores is None:
            set_ranking(message, [])
            return
        order = (-scores).argsort(kind="stable")
        best = scores.take(order)
        best -= best[0]
        best *= self._inverse_temperature
        confidences = np.exp(best, best)
        confidences /= np.add.reduce(confidences)
        names = self.intents
        set_ranking(
            message,
            [
                (names[number], value)
                for number, value in zip(
                    order[:RANKING_LENGTH].tolist(), confidences[:RANKING_LENGTH].tolist(), strict=True
                )
            ],
        )

    def scores(self, text: str) -> npt.NDArray[np.float64] | None:
        """The score of each intent before the softmax; None where the text gives nothing to go by."""
        if not _ANYTHING.search(text):
            return None
        return self._scores(self._add_chunks(_NOTHING, chunks_of(text)))

    def _add_chunks(self, sums: _Sums, chunks: Sequence[str]) -> _Sums:
        """The sums with those of further chunks."""
        if len(self._chunks) + len(self._pairs) + len(chunks) > MAX_CHUNKS or self._used + 3 * len(chunks) > self._most:
            self._forget()
        known, pairs = self._chunks, self._pairs
        word_rows, character_rows = [], []
        words, characters, word_square, character_square, last = sums
        for text_chunk in chunks:
            chunk = known.get(text_chunk)
            if chunk is None:
                chunk = self._learn(text_chunk)
            word_rows.append(chunk.word_row)
            character_rows.append(chunk.character_row)
            word_square += chunk.word_square
            character_square += chunk.character_square
            if last and chunk.first:
                pair = pairs.get((last, chunk.first))
                if pair is None:
                    pair = self._learn_pair(last, chunk.first)
                if pair[1]:
                    word_rows.append(pair[0])
                    word_square += pair[1]
            last = chunk.last
        table = self._table
        if word_square:
            added = np.add.reduce(table.take(word_rows, 0))
            words = added if words is None else words + added
        if character_square:
            added = np.add.reduce(table.take(character_rows, 0))
            characters = added if characters is None else characters + added
        return _Sums(words, characters, word_square, character_square, last)

    def _scores(self, sums: _Sums) -> npt.NDArray[np.float64] | None:
        if sums.words is None and sums.characters is None:
            return None
        total = self._bias
        if sums.words is not None:
            total = total + sums.words / math.sqrt(sums.word_square)
        if sums.characters is not None:
            total = total + sums.characters / math.sqrt(sums.character_square)
        return total

    def _forget(self) -> None:
        self._chunks: dict[str, _Chunk] = {}
        self._pairs: dict[tuple[str, str], tuple[int, float]] = {}
        self._table = np.zeros((64, len(self.intents)))
        self._used = 0

    def _rows(self, number: int) -> int:
        """The first of so many fresh rows of the table."""
        first = self._used
        self._used += number
        if self._used > len(self._table):
            larger = np.zeros((2 * self._used, len(self.intents)))
            larger[: len(self._table)] = self._table
            self._table = larger
        return first

    def _learn(self, text: str) -> _Chunk:
        row = self._rows(2)
        words = words_of(text)
        word_numbers, character_numbers = self._word_numbers, self._character_numbers
        known = [word_numbers[word] for word in words if word in word_numbers]
        if len(words) > 1:
            for left, right in pairwise(words):
                number = word_numbers.get(f"{left} {right}")
                if number is not None:
                    known.append(number)
        word_square = self._add(row, known)
        found = [
            (character_numbers[piece], count)
            for piece, count in characters_of(text).items()
            if piece in character_numbers
        ]
        character_square = self._add(row + 1, [number for number, _ in found], [count for _, count in found])
        first, last = (words[0], words[-1]) if words else ("", "")
        chunk = _Chunk(row, word_square, character_square, first, last)
        if len(text) <= LONG_CHUNK:
            self._chunks[text] = chunk
        return chunk

    def _learn_pair(self, left: str, right: str) -> tuple[int, float]:
        number = self._word_numbers.get(f"{left} {right}")
        if number is None:
            pair = (0, 0.0)
        else:
            row = self._rows(1)
            pair = (row, self._add(row, [number]))
        if len(left) + len(right) <= LONG_CHUNK:
            self._pairs[left, right] = pair
        return pair

    def _add(self, row: int, numbers: list[int], counts: list[int] | None = None) -> float:
        """Fill a row with the sum of features, times `counts` if given; returns the squared norm of the features."""
        if not numbers:
            return 0.0
        squares = self._squares
        vectors = self._weighted.take(numbers, 0)
        if counts is None or max(counts) == 1:
            np.add.reduce(vectors, out=self._table[row])
            return sum([squares[number] for number in numbers])
        np.dot(np.array(counts, np.float64), vectors, out=self._table[row])
        return sum([squares[number] * count * count for number, count in zip(numbers, counts, strict=True)])
