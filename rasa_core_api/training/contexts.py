"""Numbers for states and for sequences of them, so that millions of training turns stay small.

A *context* is all that the state of a dialogue depends on: slots, latest message, last action and active
form. Equal states have one number, and a sequence of states is one number in a tree of sequences.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import define, field, frozen
from twisted.logger import Logger

from rasa_core_api.constants import JSON
from rasa_core_api.domain import Domain
from rasa_core_api.events import ActionExecuted, AllSlotsReset, Event, Form, SlotSet, UserUttered
from rasa_core_api.states import NOTHING_HEARD, Heard, state_text

log = Logger()


@frozen(eq=False)
class Context:
    """One moment of a dialogue; every distinct moment exists once."""

    key: tuple[int, int, str | None, str | None]
    slots: Mapping[str, JSON]
    state: int
    after: dict[int, Context]  # by number of an event


@define(eq=False)
class Contexts:
    """All contexts of one domain, and the states they have."""

    domain: Domain
    states: list[dict[str, float]] = field(factory=list, init=False)
    _numbers: dict[tuple[tuple[str, float], ...], int] = field(factory=dict, init=False)
    _contexts: dict[tuple[int, int, str | None, str | None], Context] = field(factory=dict, init=False)
    _slots: list[Mapping[str, JSON]] = field(factory=list, init=False)
    _slot_numbers: dict[str, int] = field(factory=dict, init=False)
    _heard: list[Heard] = field(factory=list, init=False)
    _heard_numbers: dict[str, int] = field(factory=dict, init=False)
    _events: list[Event] = field(factory=list, init=False)
    _event_numbers: dict[Any, int] = field(factory=dict, init=False)
    _texts: dict[int, str] = field(factory=dict, init=False)
    start: Context = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._heard.append(NOTHING_HEARD)
        self.start = self._context(self._slots_number(self.domain.initial_slots), 0, None, None)

    def text(self, state: int) -> str:
        """The state as memoization keys spell it."""
        if state not in self._texts:
            self._texts[state] = state_text(self.states[state])
        return self._texts[state]

    def number_of(self, event: Event) -> int:
        """A number that equal events share (their time does not count); -1: no effect on states."""
        effect = _EFFECTS.get(type(event))
        if effect is None:
            return -1
        key = (type(event), json.dumps(event.fields(), sort_keys=True, default=str))
        number = self._event_numbers.get(key)
        if number is None:
            number = self._event_numbers[key] = len(self._events)
            self._events.append(event)
        return number

    def after(self, context: Context, number: int) -> Context:
        """The context that the event with this number leads to."""
        if number < 0:
            return context
        found = context.after.get(number)
        if found is None:
            event = self._events[number]
            found = context.after[number] = self._context(*_EFFECTS[type(event)](self, context, event))
        return found

    def _context(self, slots: int, heard: int, action: str | None, form: str | None) -> Context:
        key = (slots, heard, action, form)
        found = self._contexts.get(key)
        if found is None:
            found = self._contexts[key] = Context(key, self._slots[slots], self._state(*key), {})
        return found

    def _state(self, slots: int, heard: int, action: str | None, form: str | None) -> int:
        entries = dict(self._heard[heard].raw(self.domain))
        for name, value in self._slots[slots].items():
            entries.update(self.domain.slot_features(name, value))
        if action is not None:
            if action in self.domain.action_index:
                entries[f"prev_{action}"] = 1.0
            else:
                log.warn("the stories run {action}, which the domain does not have", action=action)
        if form is not None:
            entries[f"active_form_{form}"] = 1.0
        key = tuple(sorted(entries.items()))
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.states)
            self.states.append(entries)
        return number

    def _slots_number(self, slots: Mapping[str, JSON]) -> int:
        key = json.dumps(slots, sort_keys=True, default=str)
        number = self._slot_numbers.get(key)
        if number is None:
            number = self._slot_numbers[key] = len(self._slots)
            self._slots.append(slots)
        return number

    def _heard_number(self, event: UserUttered) -> int:
        key = json.dumps(event.parse_data, sort_keys=True, default=str)
        number = self._heard_numbers.get(key)
        if number is None:
            number = self._heard_numbers[key] = len(self._heard)
            self._heard.append(Heard(event.parse_data, 0))
        return number

    def _user(self, context: Context, event: UserUttered) -> tuple[int, int, str | None, str | None]:
        slots, _, action, form = context.key
        return slots, self._heard_number(event), action, form

    def _action(self, context: Context, event: ActionExecuted) -> tuple[int, int, str | None, str | None]:
        slots, heard, _, form = context.key
        return slots, heard, event.action_name, form

    def _slot(self, context: Context, event: SlotSet) -> tuple[int, int, str | None, str | None]:
        if event.key not in context.slots:
            log.warn("the stories set the slot {slot}, which the domain does not have", slot=event.key)
            return context.key
        return (self._slots_number({**context.slots, event.key: event.value}), *context.key[1:])

    def _reset(self, context: Context, event: AllSlotsReset) -> tuple[int, int, str | None, str | None]:
        return (self._slots_number({**context.slots, **self.domain.initial_slots}), *context.key[1:])

    def _form(self, context: Context, event: Form) -> tuple[int, int, str | None, str | None]:
        return (*context.key[:3], event.name)


_Effect = Callable[[Contexts, Context, Any], tuple[int, int, "str | None", "str | None"]]
_EFFECTS: Mapping[type[Event], _Effect] = {
    UserUttered: Contexts._user,
    ActionExecuted: Contexts._action,
    SlotSet: Contexts._slot,
    AllSlotsReset: Contexts._reset,
    Form: Contexts._form,
}


class Sequences:
    """A tree of turns: each node is a state, the action taken in it, and the node before.

    Node 0 is the beginning. `states_of[node]` numbers the sequence of states alone: it is the first node that
    had this sequence, whatever the action was. There can be millions of nodes, so all parts are plain numbers.
    A state tells which action came before it, so that one entry a sequence of states is enough; only where a
    sequence is followed by a second action is there a node more.
    """

    def __init__(self) -> None:
        self.parent = array("i", [-1])
        self.state = array("i", [-1])
        self.depth = array("i", [0])
        self.states_of = array("i", [0])
        self.actions: list[str] = [""]
        self._label = array("i", [0])  # number of the action, doubled, plus one where nobody can predict it
        self._action_numbers: dict[str, int] = {}
        self._nodes: dict[int, int] = {}
        self._others: dict[tuple[int, int], int] = {}  # by node and label: a second action in the same states

    def __len__(self) -> int:
        return len(self.parent)

    def action(self, node: int) -> str:
        """The action that was taken in this turn."""
        return self.actions[self._label[node] >> 1]

    def unpredictable(self, node: int) -> bool:
        """Whether the action opened a conversation unprompted."""
        return bool(self._label[node] & 1)

    def path(self, node: int, state: int) -> int:
        """The number of the states up to this turn followed by one more."""
        key = self.states_of[node] << 32 | state
        found = self._nodes.get(key)
        if found is None:
            found = self._nodes[key] = self._add(node, state, len(self.parent), 0)
        return found

    def _add(self, parent: int, state: int, states_of: int, label: int) -> int:
        self.parent.append(parent)
        self.state.append(state)
        self.depth.append(self.depth[parent] + 1)
        self.states_of.append(states_of)
        self._label.append(label)
        return len(self.parent) - 1

    def append(self, node: int, state: int, action: str, unpredictable: bool) -> int:
        """The node of one more turn."""
        number = self._action_numbers.get(action)
        if number is None:
            number = self._action_numbers[action] = len(self.actions)
            self.actions.append(action)
        label = number << 1 | unpredictable
        found = self.path(node, state)
        if self._label[found] == label:
            return found
        if self._label[found] == 0:  # so far only somebody's last state
            self._label[found] = label
            self.parent[found] = node
            return found
        other = self._others.get((found, label))
        if other is None:
            other = self._others[(found, label)] = self._add(node, state, found, label)
        return other

    def window(self, node: int, length: int) -> tuple[int, ...]:
        """The states of the last `length` turns, oldest first; fewer where there are not that many."""
        found: list[int] = []
        state, parent = self.state, self.parent
        while node > 0 and len(found) < length:
            found.append(state[node])
            node = parent[node]
        found.reverse()
        return tuple(found)

    def turns(self, node: int) -> Sequence[int]:
        """The nodes from the first turn to this one."""
        found = []
        while node > 0:
            found.append(node)
            node = self.parent[node]
        found.reverse()
        return found
