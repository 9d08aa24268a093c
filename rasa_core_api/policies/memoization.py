"""Memoization: what the stories said in exactly this situation."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from rasa_core_api.constants import JSON
from rasa_core_api.domain import Domain
from rasa_core_api.exceptions import UnsupportedModel
from rasa_core_api.policies.memory_text import decode_memory
from rasa_core_api.policies.policy import LoadContext, OneHot, Policy, Scores, nothing
from rasa_core_api.states import StateNode, state_text
from rasa_core_api.trackers import Tracker

#: A memory file, and one key of it unpacked, may not be larger than this (bytes).
MAX_FILE = 512 * 1024 * 1024
MAX_KEY = 1024 * 1024

DEFAULT_MAX_HISTORY = 5

_Entries = list[dict[str, float] | None]


def read_key(key: str) -> str:
    """The plain form of a persisted key: Base64 of deflated text, or the text itself."""
    if key.startswith("["):
        return key
    try:
        packed = base64.b64decode(key, validate=True)
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(packed, MAX_KEY)
        plain = text.decode("utf-8")
    except (ValueError, zlib.error):
        return key
    if unpacker.unconsumed_tail:
        raise ValueError("a key is larger than 1 MB unpacked")
    return plain


def write_key(plain: str) -> str:
    """A key as the releases persist it."""
    return base64.b64encode(zlib.compress(plain.encode("utf-8"))).decode("ascii")


def key_of(states: Sequence[StateNode | None]) -> str:
    """The plain key of a window of states (0.9 and later)."""
    return f"[{', '.join('null' if state is None else state.text for state in states)}]"


def old_key_of(states: Sequence[StateNode | None], columns: Mapping[str, int]) -> str:
    """The plain key of 0.8: lists of pairs in feature order, an empty state like padding."""
    rows: list[JSON] = []
    for state in states:
        entries = {} if state is None else state.entries
        pairs = sorted((columns[name], name, value) for name, value in entries.items() if name in columns and value)
        rows.append([[name, _short(value)] for _, name, value in pairs] or None)
    return json.dumps(rows, sort_keys=True).replace('"', "")


def _short(value: float) -> float:
    rounded = round(value, 8)
    return int(rounded) if rounded == int(rounded) else rounded


def read_memory(path: Path) -> tuple[dict[str, JSON], dict[str, JSON]]:
    """The memory of a file (plain key to action index or form name) and its other members.

    A file that is missing is an empty memory. Raises `UnsupportedModel`.
    """
    try:
        if path.stat().st_size > MAX_FILE:
            raise UnsupportedModel(f"{path}: larger than {MAX_FILE} bytes")
        data = decode_memory(path.read_bytes())
        lookup = data.pop("lookup")
        return {read_key(key): value for key, value in lookup.items()}, data
    except FileNotFoundError:
        return {}, {}
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise UnsupportedModel(f"{path}: not a memory of turns ({error or type(error).__name__})") from error


class MemoizationPolicy(Policy):
    """Knows the turns of the stories; certain where it knows, silent elsewhere."""

    name = "MemoizationPolicy"
    default_priority = 2
    is_memoization: ClassVar[bool] = True

    def __init__(
        self, lookup: Mapping[str, int], max_history: int, priority: int | None = None, old_keys: bool = False
    ) -> None:
        super().__init__(priority)
        self.lookup = lookup
        self.max_history = max_history
        self._old_keys = old_keys

    @classmethod
    def load(cls, directory: Path, context: LoadContext) -> MemoizationPolicy:
        path = directory / "memorized_turns.json"
        lookup, rest = read_memory(path)
        actions = len(context.domain.action_names)
        for index in lookup.values():
            if type(index) is not int or not 0 <= index < actions:
                raise UnsupportedModel(f"{path}: {index!r} is not the number of an action")
        max_history = context.max_history
        if max_history is None:
            max_history = _featurizer_history(directory / "featurizer.json")
        priority = rest.get("priority")
        return cls(
            lookup,
            max_history,
            priority if type(priority) is int else None,
            old_keys=context.domain.release.states_key == "features",
        )

    def predict(self, tracker: Tracker, domain: Domain) -> Scores:
        index = self.recall(tracker, domain)
        if index is None:
            return nothing(domain)
        return OneHot(len(domain.action_names), index, domain.release.memoization_score)

    def recall(self, tracker: Tracker, domain: Domain) -> int | None:
        """Index of the remembered action."""
        return self._find(tracker.state_window(self.max_history), domain)

    def _find(self, states: Sequence[StateNode | None], domain: Domain) -> int | None:
        if self._old_keys:
            return self.lookup.get(old_key_of(states, _columns(domain)))
        return self.lookup.get(key_of(states))


def _columns(domain: Domain) -> dict[str, int]:
    return {name: column for column, name in enumerate(domain.states)}


def _featurizer_history(path: Path) -> int:
    try:
        history = json.loads(path.read_bytes()).get("max_history", DEFAULT_MAX_HISTORY)
    except FileNotFoundError:
        return DEFAULT_MAX_HISTORY
    except (OSError, ValueError, AttributeError) as error:
        raise UnsupportedModel(f"{path}: not a featurizer ({error})") from error
    if type(history) is not int or not 0 < history <= 10_000:
        raise UnsupportedModel(f"{path}: max_history is {history!r}, expected a number from 1 to 10 000")
    return history


class AugmentedMemoizationPolicy(MemoizationPolicy):
    """Also looks for the situation as it was if the conversation had begun later.

    The original forgot the oldest action event again and again, replayed the rest and looked again. Cutting
    there changes the visible states only where the cut passes an event they are made of; so only those cuts
    are evaluated, oldest first, without replaying anything.
    """

    name = "AugmentedMemoizationPolicy"

    def recall(self, tracker: Tracker, domain: Domain) -> int | None:
        states = tracker.state_window(self.max_history)
        index = self._find(states, domain)
        if index is not None:
            return index
        if domain.release.nulling_recall:
            return self._recall_forgetful(tracker, domain, states)
        return self._recall_shortened(tracker, domain, states)

    def _recall_shortened(self, tracker: Tracker, domain: Domain, states: list[StateNode | None]) -> int | None:
        second = tracker.second_action_position()
        if second is None:
            return None
        seen = [state for state in states if state is not None]
        hidden_from = tracker.applied_count
        if tracker.knew_forms:
            # a cut beyond the oldest state, or beyond the start of its form, can bring back what a form hid
            hidden_from = 0
            if seen:
                hidden_from = seen[0].position if seen[0].form is None else min(seen[0].position, seen[0].form_index)
        passed = {second - 1}
        for state in seen:
            passed.add(state.position)
            passed.add(state.position - 1)
            passed.add(state.heard.index)
            passed.add(state.form_index)
            passed.update(index for _, index in state.slots.values())
        cuts = {cut for index in passed if (cut := tracker.first_action_after(index)) is not None and cut >= second}
        tried = [None if state is None else state.entries for state in states]
        for cut in sorted(cuts):
            if cut > hidden_from:
                break
            tried, found = self._try(tried, _cut(seen, cut, self.max_history, domain))
            if found is not None:
                return found
        if not tracker.knew_forms:
            return None
        applied = tracker.applied_events()
        for cut in tracker.action_positions_after(max(hidden_from, second - 1)):
            rest = Tracker(tracker.sender_id, domain)
            rest.extend(applied[cut:])
            window = rest.state_window(self.max_history)
            tried, found = self._try(tried, [None if state is None else state.entries for state in window])
            if found is not None:
                return found
        return None

    def _try(self, tried: _Entries, entries: _Entries) -> tuple[_Entries, int | None]:
        if entries == tried:
            return tried, None
        return entries, self.lookup.get(f"[{', '.join(map(state_text, entries))}]")

    def _recall_forgetful(self, tracker: Tracker, domain: Domain, states: list[StateNode | None]) -> int | None:
        """0.9: forget the oldest states, then look at shortened conversations in the same way."""
        found = self._find_nulled(states, domain)
        if found is not None:
            return found
        applied = tracker.applied_events()
        positions = tracker.action_positions()
        if positions and positions[0] == 0:
            positions = positions[1:]
        for cut in positions[-self.max_history :]:
            rest = Tracker(tracker.sender_id, domain)
            rest.extend(applied[cut:])
            found = self._find_nulled(rest.state_window(self.max_history), domain)
            if found is not None:
                return found
        return None

    def _find_nulled(self, states: Sequence[StateNode | None], domain: Domain) -> int | None:
        for forgotten in range(len(states)):
            found = self._find([None] * forgotten + list(states[forgotten:]), domain)
            if found is not None:
                return found
        return None


def _cut(states: Sequence[StateNode], cut: int, length: int, domain: Domain) -> _Entries:
    """The last `length` states (oldest first) if the applied events before place `cut` had never been."""
    rows: _Entries = []
    for state in states:
        if state.position < cut:
            continue
        entries: dict[str, float] = {}
        if state.heard.index >= cut:
            entries.update(state.heard.best(domain))
        for name, (features, index) in state.slots.items():
            entries.update(features if index >= cut else domain.initial_slot_features.get(name, ()))
        if state.position > cut and state.action is not None and state.action in domain.action_index:
            entries[f"prev_{state.action}"] = 1.0
        if state.form is not None and state.form_index >= cut:
            entries[f"active_form_{state.form}"] = 1.0
        rows.append(entries)
    return [None] * (length - len(rows)) + rows
