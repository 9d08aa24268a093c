"""Numbers from a text: which regular expressions match, and counts of words or characters.

A featurizer appends a block of columns behind those that are there already. The rules and defaults are those of
rasa_nlu 0.12-0.15, so that weights trained on its columns keep their meaning.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from itertools import islice

from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import InvalidConfiguration, InvalidTrainingData
from rasa_core_api.nlu.data import TrainingData, broken
from rasa_core_api.nlu.message import Message
from rasa_core_api.nlu.patterns import LookupPattern, Pattern, RegexPattern, compile_pattern
from rasa_core_api.nlu.stopwords import ENGLISH

NUMBER = "__NUMBER__"  # stands for a run of digits between word boundaries
NUMBER_OF_0_12 = "NUMBER"  # the same in rasa_nlu 0.12
#: Expressions that search in linear time although their bound does not show it.
_LINEAR_TOKENS = frozenset({r"(?u)\b\w\w+\b", r"(?u)\b\w+\b", r"\b\w\w+\b", r"\b\w+\b", r"\w+", r"\w\w+", r"(?u)\w+"})

_DIGITS = re.compile(r"\b[0-9]+\b")
_BLANKS = re.compile(r"\s\s+")
_STEP = 4_000  # features that are counted in one step: about a millisecond


class RegexFeatures:
    """`intent_entity_featurizer_regex`: one column per pattern, and per word which patterns it takes part in.

    `patterns` are mappings with `name` and `pattern`. One that cannot be used is given to `refused`, and then
    never matches, so that the columns keep their places; without `refused` the error is raised.

    As rasa_nlu 0.12-0.14 did, a pattern's first match sets its column and marks the words it overlaps; with
    `every_match`, as 0.15 did, every match marks words, and the column is set when a word is marked.
    """

    name = "intent_entity_featurizer_regex"

    def __init__(
        self,
        patterns: Iterable[Mapping[str, str]],
        refused: Callable[[InvalidTrainingData], None] | None = None,
        *,
        every_match: bool = False,
    ) -> None:
        self.every_match = every_match
        self.patterns: list[tuple[str, Pattern]] = []
        for item in patterns:
            try:
                self.patterns.append((item["name"], compile_pattern(item["name"], item["pattern"])))
            except InvalidTrainingData as error:
                if refused is None:
                    raise
                refused(error)
                self.patterns.append((item["name"], _Nothing(item["pattern"])))

    def process(self, message: Message) -> None:
        """Search every pattern; of two patterns with one name the later decides what words know of it."""
        if not self.patterns:
            return
        text = message.text
        flags: list[dict[str, bool]] = [{} for _ in message.tokens]
        for column, (name, pattern) in enumerate(self.patterns, message.width):
            if self.every_match:
                spans = pattern.spans(text)
            else:
                first = pattern.search(text)
                spans = [] if first is None else [first]
            self._mark(message, flags, column, name, spans)
        message.width += len(self.patterns)
        message.pattern_flags = flags

    def steps(self, message: Message) -> Iterator[None]:
        """Search every pattern, a pattern or a part of the text at a time."""
        if not self.patterns:
            return
        flags: list[dict[str, bool]] = [{} for _ in message.tokens]
        for column, (name, pattern) in enumerate(self.patterns, message.width):
            spans = yield from pattern.steps(message.text, self.every_match)
            yield
            self._mark(message, flags, column, name, spans)
            yield
        message.width += len(self.patterns)
        message.pattern_flags = flags

    def _mark(
        self, message: Message, flags: list[dict[str, bool]], column: int, name: str, spans: list[tuple[int, int]]
    ) -> None:
        """Note down where a pattern matched."""
        marked = False
        next_span = 0
        for token, known in zip(message.tokens, flags, strict=True):
            # spans and tokens both go forward and do not overlap each other
            while next_span < len(spans) and spans[next_span][1] <= token.offset:
                next_span += 1
            known[name] = next_span < len(spans) and spans[next_span][0] < token.end
            marked = marked or known[name]
        if marked if self.every_match else spans:
            message.counts[column] = 1.0

    def as_json(self) -> list[dict[str, str]]:
        """The content of `regex_featurizer.json`."""
        return [{"name": name, "pattern": pattern.pattern} for name, pattern in self.patterns]


class _Nothing:
    """Stands for an expression that cannot be used."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern

    def search(self, text: str) -> tuple[int, int] | None:
        return None

    def spans(self, text: str) -> list[tuple[int, int]]:
        return []

    def steps(self, text: str, every: bool) -> Generator[None, None, list[tuple[int, int]]]:
        yield from ()
        return []


class CountVectors:
    """`intent_featurizer_count_vectors`: how often each known word, or character n-gram, occurs.

    `settings` are the component's with defaults filled in (`config.DEFAULTS`), `vocabulary` maps a feature to its
    column within this block; it is empty before training. `of_0_12` counts as rasa_nlu 0.12 did: in the raw text,
    with another word for numbers, without OOV token and accent stripping, and in place of all columns before. Raises
    InvalidConfiguration for a `token_pattern` that cannot be used.
    """

    name = "intent_featurizer_count_vectors"

    def __init__(self, settings: Mapping[str, JSON], vocabulary: Mapping[str, int], *, of_0_12: bool = False) -> None:
        if of_0_12:
            settings = {**settings, "OOV_token": None, "OOV_words": [], "strip_accents": None, "analyzer": "word"}
        self.settings = dict(settings)
        self.of_0_12 = of_0_12
        self._number = NUMBER_OF_0_12 if of_0_12 else NUMBER
        self.vocabulary = dict(vocabulary)
        self._lowercase = bool(settings.get("lowercase", True))
        self._strip = {"ascii": _ascii, "unicode": _without_accents}.get(settings.get("strip_accents") or "")
        self._sizes = range(int(settings.get("min_ngram", 1)), int(settings.get("max_ngram", 1)) + 1)
        self._characters = {"char": _character_ngrams, "char_wb": _word_character_ngrams}.get(
            settings.get("analyzer") or "word"
        )
        words = settings.get("stop_words")
        self._stop_words = ENGLISH if words == "english" else frozenset(words or ())
        self._find_tokens = _token_finder(settings.get("token_pattern") or r"(?u)\b\w\w+\b")
        self._oov_token = self._cased(settings.get("OOV_token"))
        self._oov_words = frozenset(self._cased(word) for word in settings.get("OOV_words") or ())

    def process(self, message: Message) -> None:
        """Append this block to the message's counts."""
        if self.of_0_12:
            message.counts.clear()
            message.width = 0
        self._count(message, self.features(message))
        message.width += len(self.vocabulary)

    def _count(self, message: Message, features: Iterable[str]) -> None:
        start, known = message.width, self.vocabulary
        counts = message.counts
        for feature in features:
            column = known.get(feature)
            if column is not None:
                counts[start + column] = counts.get(start + column, 0.0) + 1.0

    def steps(self, message: Message) -> Iterator[None]:
        """Append this block, some thousand features at a time."""
        if self.of_0_12:
            message.counts.clear()
            message.width = 0
        if self._characters is None:
            features = self._word_features(self._text(message))
            yield
        else:
            features = self._characters(self._text(message), self._sizes)
        while batch := list(islice(features, _STEP)):
            self._count(message, batch)
            yield
        message.width += len(self.vocabulary)

    def features(self, message: Message) -> list[str]:
        """The features of a text, those outside the vocabulary included.

        Once there is a vocabulary with the OOV token, unknown words are that token; before, the words listed in
        `OOV_words` are.
        """
        text = self._text(message)
        return list(self._word_features(text) if self._characters is None else self._characters(text, self._sizes))

    def _text(self, message: Message) -> str:
        text = message.text
        if message.tokens and not self.of_0_12:
            text = " ".join([token.text for token in message.tokens])
        if self._lowercase:
            text = text.lower()
        return text if self._strip is None else self._strip(text)

    def _word_features(self, text: str) -> Iterator[str]:
        words = self._find_tokens(_DIGITS.sub(self._number, text))
        token = self._oov_token
        if token:
            if not self.vocabulary:
                words = [token if word in self._oov_words else word for word in words]
            elif token in self.vocabulary:
                words = [word if word in self.vocabulary else token for word in words]
        if self._stop_words:
            words = [word for word in words if word not in self._stop_words]
        return iter(words) if self._sizes == range(1, 2) else _word_ngrams(words, self._sizes)

    def train(self, messages: Iterable[Message]) -> list[str]:
        """Learn the vocabulary, in alphabetical order; returns warnings for the operator.

        A feature is kept when the number (or, for a float, the share) of texts that have it lies between `min_df`
        and `max_df`; of these the `max_features` most frequent.
        """
        self.vocabulary = {}
        documents: Counter[str] = Counter()
        total: Counter[str] = Counter()
        number = 0
        for message in messages:
            found = self.features(message)
            documents.update(set(found))
            total.update(found)
            number += 1
        least, most = self._frequency("min_df", number), self._frequency("max_df", number)
        kept = sorted(feature for feature, count in documents.items() if least <= count <= most)
        limit = self.settings.get("max_features")
        if limit is not None and len(kept) > limit:
            kept = sorted(sorted(kept, key=lambda feature: -total[feature])[:limit])
        self.vocabulary = {feature: column for column, feature in enumerate(kept)}
        return self._warnings()

    def _frequency(self, key: str, number: int) -> float:
        value = self.settings.get(key)
        if value is None:
            value = 1 if key == "min_df" else 1.0
        return value * number if isinstance(value, float) else float(value)

    def _warnings(self) -> list[str]:
        if self._characters is not None:
            return []
        found = []
        if self._oov_token and self._oov_token not in self.vocabulary:
            found.append(
                f"the OOV_token {self._oov_token!r} does not occur in the training data: unknown words are left out"
            )
        if self._oov_words and not self._oov_token:
            found.append("OOV_words has no effect without OOV_token")
        return found

    def _cased(self, word: JSON) -> str | None:
        if word is None:
            return None
        return str(word).lower() if self._lowercase else str(word)


def train_regex_features(data: TrainingData, *, every_match: bool = False) -> RegexFeatures:
    """The featurizer for a data set: its regexes, then one pattern per lookup table whose elements are known.

    Raises InvalidTrainingData for a pattern that cannot be used, by its name, file and line.
    """
    features = RegexFeatures((), every_match=every_match)
    for item in data.sorted_regexes():
        name, expression = item["name"], item["pattern"]
        try:
            features.patterns.append((name, compile_pattern(name, expression)))
        except InvalidTrainingData as error:
            if (name, expression) not in data.places:
                raise
            file, line = data.places[name, expression]
            raise broken(file, line, str(error)) from None
    for table in data.lookups:
        if not isinstance(table.elements, str):
            features.patterns.append((table.name, LookupPattern(table.elements)))
    return features


def _token_finder(pattern: str) -> Callable[[str], list[str]]:
    if pattern in _LINEAR_TOKENS:
        return re.compile(pattern).findall
    try:
        return RegexPattern("token_pattern", pattern).findall
    except InvalidTrainingData as error:
        raise InvalidConfiguration(f"token_pattern {pattern!r}: {error}", key="token_pattern") from None


def _ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")


def _without_accents(text: str) -> str:
    if text.isascii():
        return text
    taken_apart = unicodedata.normalize("NFKD", text)
    if taken_apart == text:
        return text  # the original's vectorizer leaves accents in a text that comes in this form
    return "".join(char for char in taken_apart if not unicodedata.combining(char))


def _word_ngrams(words: list[str], sizes: range) -> Iterator[str]:
    return (" ".join(words[start : start + size]) for size in sizes for start in range(len(words) - size + 1))


def _character_ngrams(text: str, sizes: range) -> Iterator[str]:
    text = _BLANKS.sub(" ", text)
    return (text[start : start + size] for size in sizes for start in range(len(text) - size + 1))


def _word_character_ngrams(text: str, sizes: range) -> Iterator[str]:
    """Character n-grams inside words, each word with one blank on both sides; a short word counts once."""
    for word in text.split():
        word = f" {word} "
        for size in sizes:
            if size >= len(word):
                yield word
                break
            for start in range(len(word) - size + 1):
                yield word[start : start + size]
