"""What policies see of a conversation: a chain of states, kept up to date event by event.

A state is a map of state names to numbers (domain layout). The chain holds one state for the moment
before each action that counts, newest last; every part is shared and immutable, so that taking a turn
back costs nothing and a turn costs the same in a conversation of any length.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from rasa_core_api.constants import JSON
from rasa_core_api.domain import Domain
from rasa_core_api.events import EMPTY_PARSE_DATA
from rasa_core_api.jsontext import writer

_write = writer(", ", ": ", True)

#: Active features of a slot and the place among the applied events where it took its value (-1: initially).
SlotFeatures = Mapping[str, tuple[tuple[tuple[str, float], ...], int]]


class Heard:
    """A user message as features; `index` is its place among the applied events (-1: nothing was said)."""

    __slots__ = ("_best", "_raw", "index", "parse_data")

    def __init__(self, parse_data: Mapping[str, JSON], index: int) -> None:
        self.parse_data = parse_data
        self.index = index
        self._raw: dict[str, float] | None = None
        self._best: dict[str, float] | None = None

    def raw(self, domain: Domain) -> dict[str, float]:
        """Entities, and every ranked intent with its confidence."""
        if self._raw is None:
            entries = self._entity_entries(domain)
            for name, confidence in self._intents():
                entries[f"intent_{name}"] = confidence
            self._raw = entries
        return self._raw

    def best(self, domain: Domain) -> dict[str, float]:
        """Entities, and the most likely intent with the value 1; ties go to the earlier rank."""
        if self._best is None:
            entries = self._entity_entries(domain)
            intents = self._intents()
            if intents:
                entries[f"intent_{max(intents, key=lambda intent: intent[1])[0]}"] = 1.0
            self._best = entries
        return self._best

    def _entity_entries(self, domain: Domain) -> dict[str, float]:
        entities = self.parse_data.get("entities")
        if not entities:
            return {}
        if not domain.uses_entities((self.parse_data.get("intent") or {}).get("name")):
            return {}
        return {f"entity_{entity['entity']}": 1.0 for entity in entities}

    def _intents(self) -> list[tuple[str, float]]:
        ranking = self.parse_data.get("intent_ranking")
        if ranking is None:
            ranking = [self.parse_data.get("intent") or {}]
        return [
            (intent["name"], 1.0 if intent.get("confidence") is None else float(intent["confidence"]))
            for intent in ranking
            if intent.get("name")
        ]


NOTHING_HEARD = Heard(EMPTY_PARSE_DATA, -1)


class StateNode:
    """One state of a conversation and the one before it.

    `position` is the number of applied events before it. `cache` and `kept` belong to policies, each under a
    key of its own; what is kept stays when the state is forgotten.
    """

    __slots__ = (
        "_cache",
        "_entries",
        "_text",
        "action",
        "domain",
        "form",
        "form_index",
        "heard",
        "kept",
        "position",
        "previous",
        "slots",
    )

    def __init__(
        self,
        domain: Domain,
        heard: Heard,
        slots: SlotFeatures,
        action: str | None,
        form: str | None,
        form_index: int,
        position: int,
        previous: StateNode | None,
    ) -> None:
        self.domain = domain
        self.heard = heard
        self.slots = slots
        self.action = action
        self.form = form
        self.form_index = form_index
        self.position = position
        self.previous = previous
        self._entries: dict[str, float] | None = None
        self._text: str | None = None
        self._cache: dict[Hashable, object] | None = None
        self.kept: dict[Hashable, object] | None = None

    def _complete(self, entries: dict[str, float]) -> dict[str, float]:
        for features, _ in self.slots.values():
            entries.update(features)
        if self.action is not None and self.action in self.domain.action_index:
            entries[f"prev_{self.action}"] = 1.0
        if self.form is not None:
            entries[f"active_form_{self.form}"] = 1.0
        return entries

    @property
    def raw(self) -> dict[str, float]:
        """Active entries with every ranked intent at its confidence."""
        return self._complete(dict(self.heard.raw(self.domain)))

    @property
    def entries(self) -> dict[str, float]:
        """Active entries as policies predict from them: only the most likely intent, at 1."""
        if self._entries is None:
            self._entries = self._complete(dict(self.heard.best(self.domain)))
        return self._entries

    @property
    def text(self) -> str:
        """The entries as memoization keys spell them: JSON with sorted keys and without quotes."""
        if self._text is None:
            self._text = state_text(self.entries)
        return self._text

    @property
    def cache(self) -> dict[Hashable, object]:
        if self._cache is None:
            self._cache = {}
        return self._cache

    def recall(self, key: Hashable) -> object | None:
        """What `cache` or `kept` holds under a key."""
        for values in (self._cache, self.kept):
            if values is not None and key in values:
                return values[key]
        return None

    def forget(self) -> None:
        """Drop what can be computed again."""
        self._entries = self._text = self._cache = None

    def after(self, previous: StateNode | None) -> StateNode:
        """The same state behind another predecessor."""
        if previous is self.previous:
            return self
        return StateNode(
            self.domain, self.heard, self.slots, self.action, self.form, self.form_index, self.position, previous
        )


def state_text(entries: Mapping[str, float] | None) -> str:
    """One state as memoization keys spell it; `null` stands for padding."""
    return _write(entries).replace('"', "")


def window(newest: StateNode | None, length: int) -> list[StateNode | None]:
    """The last `length` states, oldest first, padded in front with None."""
    states: list[StateNode | None] = [None] * length
    node = newest
    for index in range(length - 1, -1, -1):
        if node is None:
            break
        states[index] = node
        node = node.previous
    return states
