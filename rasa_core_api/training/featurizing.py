"""Which states and columns a policy learns from, and the `featurizer.json` that says so."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from rasa_core_api.constants import JSON
from rasa_core_api.domain import Domain

_MODULE = "rasa_core.featurizers"

BINARY = "BinarySingleStateFeaturizer"
LABEL_TOKENS = "LabelTokenizerSingleStateFeaturizer"
MAX_HISTORY = "MaxHistoryTrackerFeaturizer"
FULL_DIALOGUE = "FullDialogueTrackerFeaturizer"


@frozen(kw_only=True)
class FeaturizerSettings:
    """What a policy file says of a featurizer. `encoder` None: the states as they are (memoization)."""

    kind: str = MAX_HISTORY
    max_history: int = 5
    encoder: str | None = BINARY
    use_intent_probabilities: bool = False
    remove_duplicates: bool = True
    use_shared_vocab: bool = False
    split_symbol: str = "_"

    @property
    def history(self) -> int | None:
        """How many states count; None: all."""
        return self.max_history if self.kind == MAX_HISTORY else None

    def as_json(self, domain: Domain, longest: int) -> dict[str, JSON]:
        """The `featurizer.json` for a domain; `longest` is the length of the longest dialogue in states."""
        data: dict[str, JSON] = {
            "py/object": f"{_MODULE}.{self.kind}",
            "state_featurizer": self._encoder_json(domain),
            "use_intent_probabilities": self.use_intent_probabilities,
        }
        if self.kind == MAX_HISTORY:
            return {**data, "max_history": self.max_history, "remove_duplicates": self.remove_duplicates}
        return {**data, "max_len": longest}

    def _encoder_json(self, domain: Domain) -> dict[str, JSON]:
        if self.encoder is None:
            path = f"{_MODULE}.SingleStateFeaturizer"
            return {"py/object": path, "user_feature_len": None, "slot_feature_len": None}
        users = [*(f"intent_{name}" for name in domain.intent_names), *(f"entity_{name}" for name in domain.entities)]
        slots = [f"slot_{slot.name}_{i}" for slot in domain.slots for i in range(slot.width)]
        data: dict[str, JSON] = {"py/object": f"{_MODULE}.{self.encoder}"}
        if self.encoder == BINARY:
            return {
                **data,
                "user_feature_len": len(users),
                "slot_feature_len": len(slots),
                "num_features": len(domain.states),
                "input_state_map": {name: column for column, name in enumerate(domain.states)},
            }
        bots = list(domain.action_names)
        user_words, bot_words = self._words(users), self._words(bots)
        if self.use_shared_vocab:
            user_words = bot_words = self._words([*users, *bots])
        return {
            **data,
            "bot_labels": bots,
            "bot_vocab": bot_words,
            "num_features": len(user_words) + len(slots) + len(bot_words),
            "slot_feature_len": len(slots),
            "slot_labels": slots,
            "split_symbol": self.split_symbol,
            "use_shared_vocab": self.use_shared_vocab,
            "user_feature_len": len(user_words),
            "user_labels": users,
            "user_vocab": user_words,
        }

    def _words(self, labels: Iterable[str]) -> dict[str, int]:
        words = sorted({word for label in labels for word in label.split(self.split_symbol)})
        return {word: number for number, word in enumerate(words)}
