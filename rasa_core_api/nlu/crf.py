"""Entities from a linear-chain conditional random field, as rasa_nlu 0.12-0.15 finds them.

Weights come from a CRFsuite file (`legacy.crfsuite`). What a word contributes to the scores of labels depends on
nothing but the word and the regular expressions it takes part in, so it is computed once per word and kept.
Marginals are those of the forward-backward algorithm (Rabiner 1989, section III), in numpy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.legacy.crfsuite import CrfModel, read_crfsuite
from rasa_core_api.nlu.message import Message, Token, finished

if TYPE_CHECKING:
    import numpy.typing as npt

DEFAULT_FEATURES: tuple[tuple[str, ...], ...] = (
    ("low", "title", "upper"),
    ("bias", "low", "prefix5", "prefix2", "suffix5", "suffix3", "suffix2", "upper", "title", "digit", "pattern"),
    ("low", "title", "upper"),
)
MAX_WORDS = 20_000  # words whose scores are kept; all are dropped when there are more
MAX_WORD_BYTES = 16 << 20  # of the scores that are kept
LONG_WORD = 40  # characters; longer words are not kept
_STEP = 400  # tokens that the algorithm goes over in one step: about a millisecond
_WORDS_STEP = 100  # words whose scores are looked up, or worked out, in one
MAX_MARGINAL_EXPONENT = 600.0  # rescale before products of probabilities get smaller than e to minus this

_TEXTS: dict[str, Callable[[str], str]] = {
    "low": str.lower,
    "prefix5": lambda word: word[:5],
    "prefix2": lambda word: word[:2],
    "suffix5": lambda word: word[-5:],
    "suffix3": lambda word: word[-3:],
    "suffix2": lambda word: word[-2:],
    "suffix1": lambda word: word[-1:],
    "bias": lambda word: "bias",
}
_FLAGS: dict[str, Callable[[str], bool]] = {"title": str.istitle, "upper": str.isupper, "digit": str.isdigit}
KNOWN_FEATURES = frozenset({*_TEXTS, *_FLAGS, "pattern"})

#: Features of one place of the window: prefixes and texts, names and tests, and the prefix of patterns.
_Template = tuple[list[tuple[str, Callable[[str], str]]], list[tuple[str, Callable[[str], bool]]], str]


def word_attributes(word: str, flags: Mapping[str, bool], features: Sequence[str], offset: int) -> dict[str, float]:
    """The attributes a word gives to the position `offset` places before it, with their weights (1 or 0).

    `flags` says which regular expressions the word takes part in, `features` which features are configured for that
    offset; names outside of KNOWN_FEATURES are left out. A weight of 0 means nothing for prediction, but does for
    training, where such an attribute can get a weight for the label it was seen with.
    """
    found: dict[str, float] = {}
    for feature in features:
        if feature in _TEXTS:
            found[f"{offset}:{feature}:{_TEXTS[feature](word)}"] = 1.0
        elif feature in _FLAGS:
            found[f"{offset}:{feature}"] = float(_FLAGS[feature](word))
        elif feature == "pattern":
            for name, matched in flags.items():
                found[f"{offset}:pattern:{name}"] = float(matched)
    return found


def sentence_attributes(
    tokens: Sequence[Token], flags: Sequence[Mapping[str, bool]], features: Sequence[Sequence[str]]
) -> list[dict[str, float]]:
    """The attributes of each position: those of the words around it and `BOS` or `EOS` where there are none.

    `features` has one list per place of the window, the word itself in the middle; `flags` is empty or has one
    mapping per token.
    """
    half = len(features) // 2
    sentence = []
    for position in range(len(tokens)):
        found: dict[str, float] = {}
        for offset in range(-half, half + 1):
            place = position + offset
            if place >= len(tokens):
                found["EOS"] = 1.0
            elif place < 0:
                found["BOS"] = 1.0
            else:
                known = flags[place] if flags else {}
                found.update(word_attributes(tokens[place].text, known, features[half + offset], offset))
        sentence.append(found)
    return sentence


class CrfEntities:
    """`ner_crf`: adds entities with their confidence.

    `settings` are the component's (`features`, `BILOU_flag`), `extractor` the name that entities carry: `ner_crf`
    or, for models of rasa_nlu 0.15, `CRFEntityExtractor`. `content` is the CRFsuite file that the model was read from.
    """

    name = "ner_crf"

    def __init__(self, content: bytes, settings: Mapping[str, JSON], source: str, extractor: str = "ner_crf") -> None:
        """Raises UnreadableFile (`source` names the file) when the content cannot be used, InvalidConfiguration for
        an even number of feature lists."""
        self.content = content
        self.settings = dict(settings)
        self.extractor = extractor
        self.model = read_crfsuite(content, source)
        self.features = [list(row) for row in settings.get("features") or DEFAULT_FEATURES]
        if len(self.features) % 2 == 0:
            raise InvalidConfiguration(f"{source}: `features` of ner_crf needs an odd number of lists", key="features")
        self._scores = WordScores(self.model, self.features)
        self._bilou = bool(settings.get("BILOU_flag", True))
        labels = self.model.labels
        self._tags = [label[:2] for label in labels] if self._bilou else [label[:1] + "-" for label in labels]
        self._entities = [label[2:] if self._bilou else label for label in labels]
        same = [[(self._bilou and a[2:] == b[2:]) or a == b for b in labels] for a in labels]
        self._same = np.array(same, dtype=np.float64)

    def process(self, message: Message) -> None:
        """Add the entities of the message's tokens."""
        for _ in self.steps(message):
            pass

    def steps(self, message: Message) -> Iterator[None]:
        """Add them, some tokens at a time."""
        tokens = message.tokens
        if not tokens:
            return
        probabilities = yield from self._scores.marginal_steps(tokens, message.pattern_flags)
        if probabilities is None:
            return
        if len(tokens) > _STEP:
            yield
        best = probabilities.argmax(axis=1)
        confidences = (probabilities * self._same[best]).sum(axis=1).tolist()
        for start, end, label, confidence in self._spans(best.tolist(), confidences):
            message.entities.append(
                {
                    "start": tokens[start].offset,
                    "end": tokens[end].end,
                    "value": " ".join([token.text for token in tokens[start : end + 1]]),
                    "entity": self._entities[label],
                    "confidence": confidence,
                    "extractor": self.extractor,
                }
            )

    def _spans(self, best: list[int], confidences: list[float]) -> list[tuple[int, int, int, float]]:
        """First and last token, label and confidence of each entity; the rules of rasa_nlu, odd ones included.

        An entity that was begun counts as ended by any label but `I-`; its confidence is the smallest of all tokens
        looked at, also of the one that ended it, and 0 where the text ended first.
        """
        spans = []
        position = 0
        while position < len(best):
            label = best[position]
            confidence = confidences[position]
            tag = self._tags[label]
            end = position
            if not self._bilou:
                if self._entities[label] != "O":
                    spans.append((position, position, label, confidence))
            elif tag == "U-":
                spans.append((position, position, label, confidence))
            elif tag == "B-":
                while True:
                    end += 1
                    confidence = min(confidence, confidences[end] if end < len(best) else 0.0)
                    tag = self._tags[best[end]] if end < len(best) else ""
                    if tag != "I-":
                        break
                if tag != "L-":
                    end -= 1
                spans.append((position, end, label, confidence))
            position = end + 1
        return spans


class WordScores:
    """What words contribute to the scores of labels, and marginal probabilities from that."""

    def __init__(self, model: CrfModel, features: Sequence[Sequence[str]]) -> None:
        self._model = model
        self._features = features
        self._half = len(features) // 2
        self._templates = [_template(row, place - self._half) for place, row in enumerate(features)]
        self._patterns = any(pattern for _, _, pattern in self._templates)
        width = len(model.labels)
        self._begin = self._sum("BOS")
        self._end = self._sum("EOS")
        transitions = model.transitions
        self._chain = np.exp(transitions - transitions.max())
        self._chain_back = np.ascontiguousarray(self._chain.T)
        spread = float(transitions.max() - transitions.min()) + math.log(width)
        self._rescale = max(1, int(MAX_MARGINAL_EXPONENT / max(spread, 1e-9)))
        self._rows: dict[object, int] = {}
        row_bytes = len(features) * width * 8
        self._most = max(1, min(MAX_WORDS, MAX_WORD_BYTES // row_bytes))
        self._table = np.empty((min(256, self._most), len(features), width))

    def marginals(self, tokens: Sequence[Token], flags: Sequence[Mapping[str, bool]]) -> npt.NDArray[np.float64] | None:
        """The probability of each label (column) at each token (row).

        None if the weights are so far apart that no probability is left.
        """
        return finished(self.marginal_steps(tokens, flags))

    def marginal_steps(
        self, tokens: Sequence[Token], flags: Sequence[Mapping[str, bool]]
    ) -> Generator[None, None, npt.NDArray[np.float64] | None]:
        """The same, some tokens at a time."""
        scores = yield from self._score_steps(tokens, flags)
        emitted = np.exp(scores - scores.max(axis=1, keepdims=True))
        length = len(emitted)
        product: npt.NDArray[np.float64] = emitted
        if length > 1:
            forward = np.empty_like(emitted)
            backward = np.empty_like(emitted)
            forward[0] = emitted[0]
            backward[-1] = 1.0
            chain, back, rescale = self._chain, self._chain_back, self._rescale
            for t in range(1, length):
                row = forward[t]
                np.dot(forward[t - 1], chain, out=row)
                row *= emitted[t]
                if t % rescale == 0:
                    row /= row.max() or 1.0
                if t % _STEP == 0:
                    yield
            for t in range(length - 2, -1, -1):
                row = backward[t]
                np.dot(emitted[t + 1] * backward[t + 1], back, out=row)
                if t % rescale == 0:
                    row /= row.max() or 1.0
                if t % _STEP == 0:
                    yield
            product = forward * backward
        total = product.sum(axis=1, keepdims=True)
        if not total.all():
            return None
        product /= total
        return product

    def scores(self, tokens: Sequence[Token], flags: Sequence[Mapping[str, bool]]) -> npt.NDArray[np.float64]:
        """The summed weights of each label (column) at each token (row)."""
        return finished(self._score_steps(tokens, flags))

    def _score_steps(
        self, tokens: Sequence[Token], flags: Sequence[Mapping[str, bool]]
    ) -> Generator[None, None, npt.NDArray[np.float64]]:
        length, half = len(tokens), self._half
        if not self._patterns:
            flags = ()
        if length <= _WORDS_STEP:
            words = self._words(tokens, flags)
        else:
            words = np.empty((length, *self._table.shape[1:]))
            for start in range(0, length, _WORDS_STEP):
                part = slice(start, start + _WORDS_STEP)
                words[part] = self._words(tokens[part], flags[part])
                yield
        scores = words[:, half]
        for offset in range(1, half + 1):
            scores[offset:] += words[:-offset, half - offset]
            scores[:-offset] += words[offset:, half + offset]
        if half:
            scores[:half] += self._begin
            scores[max(0, length - half) :] += self._end
        return scores

    def _words(self, tokens: Sequence[Token], flags: Sequence[Mapping[str, bool]]) -> npt.NDArray[np.float64]:
        """A fresh array (tokens, places of the window, labels)."""
        rows = self._rows
        if not flags:
            keys: list[object] = [token.text for token in tokens]
        else:
            keys = []
            for token, known in zip(tokens, flags, strict=True):
                matched = tuple([name for name, value in known.items() if value])
                keys.append((token.text, matched) if matched else token.text)
        try:
            return self._table[[rows[key] for key in keys]]
        except KeyError:
            pass
        if len(rows) + len(keys) > self._most:
            rows.clear()
        single: dict[int, npt.NDArray[np.float64]] = {}
        places = []
        for position, (key, token) in enumerate(zip(keys, tokens, strict=True)):
            place = rows.get(key)
            if place is None:
                row = self._row(token.text, flags[position] if flags else {})
                place = len(rows)
                if len(token.text) > LONG_WORD or place >= self._most:
                    single[position] = row
                    place = 0
                else:
                    self._keep(place, row)
                    rows[key] = place
            places.append(place)
        words: npt.NDArray[np.float64] = self._table[places]
        for position, row in single.items():
            words[position] = row
        return words

    def _keep(self, place: int, row: npt.NDArray[np.float64]) -> None:
        if place >= len(self._table):
            larger = np.empty((min(self._most, 2 * len(self._table)), *self._table.shape[1:]))
            larger[: len(self._table)] = self._table
            self._table = larger
        self._table[place] = row

    def _row(self, word: str, flags: Mapping[str, bool]) -> npt.NDArray[np.float64]:
        """What a word gives to the position that is 1, 0, -1 ... places behind it: the sum over `word_attributes`."""
        row = np.zeros((len(self._features), len(self._model.labels)))
        for total, (texts, tests, pattern) in zip(row, self._templates, strict=True):
            for prefix, value in texts:
                self._add(total, prefix + value(word))
            for name, test in tests:
                if test(word):
                    self._add(total, name)
            if pattern:
                for known, matched in flags.items():
                    if matched:
                        self._add(total, pattern + known)
        return row

    def _add(self, total: npt.NDArray[np.float64], name: str) -> None:
        model = self._model
        number = model.attributes.get(name)
        if number is not None:
            span = slice(model.starts[number], model.starts[number + 1])
            total[model.targets[span]] += model.weights[span]

    def _sum(self, name: str) -> npt.NDArray[np.float64]:
        total = np.zeros(len(self._model.labels))
        self._add(total, name)
        return total


def _template(features: Sequence[str], offset: int) -> _Template:
    """The names of `word_attributes`, as far as they do not depend on the word."""
    names = list(dict.fromkeys(features))
    texts = [(f"{offset}:{name}:", _TEXTS[name]) for name in names if name in _TEXTS]
    tests = [(f"{offset}:{name}", _FLAGS[name]) for name in names if name in _FLAGS]
    return texts, tests, f"{offset}:pattern:" if "pattern" in names else ""
