"""From states to columns: the featurizers that a model was trained with, read from their `featurizer.json`.

A state becomes a sparse row, a map from column to number. Padding, the time before a conversation began, is a row
of -1 in every column; it never comes through here. The stored maps count, not maps computed from the domain.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

from rasa_core_api.constants import ACTION_LISTEN, JSON
from rasa_core_api.domain import Domain
from rasa_core_api.states import StateNode

MODULE = "rasa_core.featurizers"
DEFAULT_MAX_HISTORY = 5
#: Longer windows than this are refused.
MAX_HISTORY_LIMIT = 10_000

_PREVIOUS = "prev_"
_LISTENING = f"{_PREVIOUS}{ACTION_LISTEN}"


class StateEncoder(ABC):
    """Gives the entries of one state their columns; `width` is the number of columns."""

    width: int

    @abstractmethod
    def encode(self, entries: Mapping[str, float]) -> dict[int, float]:
        """Column to value, for columns that are not zero. Entries without a column are left out."""


class BinaryEncoder(StateEncoder):
    """One column a state name."""

    def __init__(self, columns: Mapping[str, int], width: int) -> None:
        self.columns = columns
        self.width = width

    def encode(self, entries: Mapping[str, float]) -> dict[int, float]:
        columns = self.columns
        return {columns[name]: value for name, value in entries.items() if name in columns}


class BestIntentEncoder(BinaryEncoder):
    """The encoder of 0.8: takes all ranked intents and keeps the best, the last one of equals, as 1."""

    def encode(self, entries: Mapping[str, float]) -> dict[int, float]:
        best: str | None = None
        kept: dict[str, float] = {}
        for name, value in entries.items():
            if not name.startswith("intent_"):
                kept[name] = value
            elif best is None or value >= entries[best]:
                best = name
        if best is not None:
            kept[best] = 1.0
        return super().encode(kept)


class LabelTokenEncoder(StateEncoder):
    """Bags of the words that names are made of: user words, slot features, words of the previous action.

    User words count only right after a message. The blocks lie in this order, `user_width` and `slot_width` columns
    wide, the rest belongs to the previous action.
    """

    def __init__(
        self,
        *,
        user_labels: Iterable[str],
        slot_labels: Sequence[str],
        bot_labels: Iterable[str],
        user_vocabulary: Mapping[str, int],
        bot_vocabulary: Mapping[str, int],
        split_symbol: str = "_",
    ) -> None:
        self.user_width = len(user_vocabulary)
        self.slot_width = len(slot_labels)
        self.bot_width = len(bot_vocabulary)
        self.width = self.user_width + self.slot_width + self.bot_width
        self._split_symbol = split_symbol
        self._bot_vocabulary = bot_vocabulary
        before = self.user_width + self.slot_width
        self._user = {name: self._tokens(name, user_vocabulary, 0) for name in user_labels}
        self._slots = {name: self.user_width + column for column, name in enumerate(slot_labels)}
        self._actions = {_PREVIOUS + name: self._tokens(name, bot_vocabulary, before) for name in bot_labels}

    def _tokens(self, label: str, vocabulary: Mapping[str, int], offset: int) -> list[int]:
        return [offset + vocabulary[token] for token in label.split(self._split_symbol) if token in vocabulary]

    def encode(self, entries: Mapping[str, float]) -> dict[int, float]:
        row: dict[int, float] = {}
        listening = _LISTENING in entries
        for name, value in entries.items():
            tokens = self._user.get(name)
            if tokens is not None:
                if not listening:
                    continue
            elif name in self._slots:
                row[self._slots[name]] = value
                continue
            else:
                tokens = self._actions.get(name, [])
            for column in tokens:
                row[column] = row.get(column, 0.0) + value
        return row

    def action_tokens(self, action_name: str) -> set[int]:
        """Columns of an action's words, counted from the beginning of the last block."""
        return set(self._tokens(action_name, self._bot_vocabulary, 0))


@frozen
class TrackerFeaturizer:
    """Which states of a conversation count and how they are encoded.

    `max_history` None: all of them. `encoder` None: the states stay as they are (memoization).
    """

    encoder: StateEncoder | None
    max_history: int | None
    use_intent_probabilities: bool = False

    def row(self, state: StateNode) -> dict[int, float]:
        """The state's columns. A featurizer without an encoder has none."""
        assert self.encoder is not None
        return self.encoder.encode(state.raw if self.use_intent_probabilities else state.entries)


def featurizer_from_json(data: JSON, domain: Domain, max_history: int | None = None) -> TrackerFeaturizer:
    """The featurizer that a `featurizer.json`, decoded, describes.

    `max_history` is what the metadata says, needed for 0.8 alone, whose featurizer knows neither its history nor
    its columns. Raises ValueError with the reason.
    """
    kind = _kind(data)
    if kind in ("BinaryFeaturizer", "ProbabilisticFeaturizer"):
        columns = {name: column for column, name in enumerate(domain.states)}
        encoder_kind = BestIntentEncoder if kind == "BinaryFeaturizer" else BinaryEncoder
        return TrackerFeaturizer(
            encoder_kind(columns, len(columns)), _history(max_history or DEFAULT_MAX_HISTORY), True
        )
    if kind not in ("MaxHistoryTrackerFeaturizer", "FullDialogueTrackerFeaturizer"):
        raise ValueError(f"the featurizer {data['py/object']!r} is not one of ours")
    encoder = _encoder(data.get("state_featurizer"))
    probabilities = data.get("use_intent_probabilities") is True
    if kind == "FullDialogueTrackerFeaturizer":
        return TrackerFeaturizer(encoder, None, probabilities)
    return TrackerFeaturizer(encoder, _history(data.get("max_history", DEFAULT_MAX_HISTORY)), probabilities)


def _kind(data: JSON) -> str:
    path = data.get("py/object") if isinstance(data, dict) else None
    if not isinstance(path, str):
        raise ValueError("it names no featurizer ('py/object')")
    module, _, name = path.rpartition(".")
    return name if module == MODULE else path


def _history(value: JSON) -> int:
    if type(value) is not int or not 0 < value <= MAX_HISTORY_LIMIT:
        raise ValueError(f"max_history is {value!r}, expected a number from 1 to {MAX_HISTORY_LIMIT}")
    return value


def _encoder(data: JSON) -> StateEncoder | None:
    if data is None:
        return None
    kind = _kind(data)
    if kind == "SingleStateFeaturizer":
        return None
    if kind == "BinarySingleStateFeaturizer":
        columns = data.get("input_state_map")
        width = data.get("num_features")
        if width is None and isinstance(columns, dict):
            width = len(columns)
        if type(width) is not int or width < 0:
            raise ValueError("num_features is not a number")
        return BinaryEncoder(_columns(columns, "input_state_map", width), width)
    if kind == "LabelTokenizerSingleStateFeaturizer":
        return _label_token_encoder(data)
    raise ValueError(f"the state featurizer {data['py/object']!r} is not one of ours")


def _label_token_encoder(data: Mapping[str, JSON]) -> LabelTokenEncoder:
    vocabularies = {}
    for key in ("user_vocab", "bot_vocab"):
        vocabulary = data.get(key)
        # a shared vocabulary is written once; the second time it is a reference to the first
        if not isinstance(vocabulary, dict) or "py/id" not in vocabulary:
            vocabularies[key] = vocabulary
    if not vocabularies:
        raise ValueError("it has no vocabulary")
    shared = next(iter(vocabularies.values()))
    user, bot = (vocabularies.get(key, shared) for key in ("user_vocab", "bot_vocab"))
    symbol = data.get("split_symbol", "_")
    if not isinstance(symbol, str) or not symbol:
        raise ValueError("split_symbol is not a text")
    encoder = LabelTokenEncoder(
        user_labels=_labels(data, "user_labels"),
        slot_labels=_labels(data, "slot_labels"),
        bot_labels=_labels(data, "bot_labels"),
        user_vocabulary=_columns(user, "user_vocab"),
        bot_vocabulary=_columns(bot, "bot_vocab"),
        split_symbol=symbol,
    )
    if data.get("num_features", encoder.width) != encoder.width:
        raise ValueError(f"num_features is {data['num_features']!r}, its parts make {encoder.width}")
    return encoder


def _labels(data: Mapping[str, JSON], key: str) -> list[str]:
    labels = data.get(key)
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"{key} is not a list of names")
    return labels


def _columns(data: JSON, key: str, width: int | None = None) -> dict[str, int]:
    if not isinstance(data, dict):
        raise ValueError(f"{key} is not a map of names to columns")
    limit = len(data) if width is None else width
    for name, column in data.items():
        if type(column) is not int or not 0 <= column < limit:
            raise ValueError(f"{key}: {name!r} has the column {column!r}, expected 0 to {limit - 1}")
    return data
