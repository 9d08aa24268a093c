"""A conversation's state, kept up to date event by event.

Nothing is recomputed from the start of the log: each applied action leaves a mark from which `undo` and
`rewind` restore the state as it was, so that every event costs the same at any length.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

from attrs import frozen

from rasa_core_api.constants import ACTION_LISTEN, JSON
from rasa_core_api.domain import Domain
from rasa_core_api.events import (
    ActionExecuted,
    ActionExecutionRejected,
    ActionReverted,
    AllSlotsReset,
    ConversationPaused,
    ConversationResumed,
    Event,
    FollowupAction,
    Form,
    FormValidation,
    Restarted,
    SlotSet,
    UserUtteranceReverted,
    UserUttered,
)
from rasa_core_api.exceptions import UnknownVerbosity
from rasa_core_api.states import NOTHING_HEARD, Heard, SlotFeatures, StateNode, window

#: States that keep what was computed of them.
_WARM_STATES = 24

_NO_FORM: Mapping[str, JSON] = {}


class EventVerbosity(Enum):
    """Which events a tracker's JSON shows."""

    NONE = "NONE"
    APPLIED = "APPLIED"
    AFTER_RESTART = "AFTER_RESTART"
    ALL = "ALL"

    @classmethod
    def from_text(cls, text: str) -> EventVerbosity:
        """The verbosity of that name, in any case. Raises `UnknownVerbosity`."""
        try:
            return cls[text.upper()]
        except KeyError:
            names = ", ".join(cls.__members__)
            raise UnknownVerbosity(
                f"Invalid parameter value for 'include_events'. Should be one of {names}",
                parameter="include_events",
                **{"in": "query"},
            ) from None


@frozen
class TrackerView:
    """What a client sees of a tracker: every member but the events, and the events apart (None: not shown)."""

    state: Mapping[str, JSON]
    events: Sequence[Event] | None


class _Mark:
    """The state right before an applied action, at `position` among the applied events."""

    __slots__ = (
        "active_form",
        "buffer",
        "followup",
        "form_index",
        "heard",
        "last_action",
        "message",
        "node",
        "paused",
        "position",
        "slot_features",
        "told",
        "undone_slots",
    )

    def __init__(self, tracker: Tracker) -> None:
        self.position = len(tracker._applied)
        self.undone_slots = len(tracker._slot_changes)
        self.heard = tracker._heard
        self.paused = tracker.paused
        self.followup = tracker._followup
        self.last_action = tracker.latest_action_name
        self.active_form = tracker.active_form
        self.form_index = tracker._form_index
        self.slot_features = tracker._slot_features
        self.node = tracker._node
        self.told = tracker._told
        self.message = tracker._message
        self.buffer = tracker._buffer


class Tracker:
    """The state of one conversation under one domain.

    `events` are the log from sequence number `start` on; `end` is the number the next event gets.
    """

    def __init__(self, sender_id: str, domain: Domain, start: int = 0) -> None:
        self.sender_id = sender_id
        self.domain = domain
        self.start = start
        self.events: list[Event] = []
        self.slots: dict[str, JSON] = {}
        self.latest_input_channel: str | None = None
        self._after_restart = 0  # index in `events`
        self._followup_taken = False
        self._has_forms = domain.release.has_forms
        self._warm: list[StateNode | None] = [None] * _WARM_STATES
        self._warm_at = 0
        self._current: list[StateNode] | None = None
        self._reset()

    def _reset(self) -> None:
        self._applied: list[Event] = []
        self._marks: list[_Mark] = []
        self.slots = dict(self.domain.initial_slots)
        self._slot_changes: list[tuple[str, JSON]] = []
        self._reset_state()

    def _reset_state(self) -> None:
        self.paused = False
        self._followup = self.domain.release.initial_followup
        self.latest_action_name: str | None = None
        self.active_form: Mapping[str, JSON] = _NO_FORM
        self._form_index = -1
        self._heard = NOTHING_HEARD
        self._slot_features: SlotFeatures = {
            name: (features, -1) for name, features in self.domain.initial_slot_features.items()
        }
        # the chain of states; with forms its latest message (`_told`) and what it remembers of the time
        # before the form (`_message`) differ from the tracker's own
        self._node: StateNode | None = None
        self._told = NOTHING_HEARD
        self._message = NOTHING_HEARD
        self._buffer: tuple[StateNode, ...] = ()
        self._current = None

    # --- reading -------------------------------------------------------------------------------------

    @property
    def end(self) -> int:
        return self.start + len(self.events)

    @property
    def latest_message(self) -> Mapping[str, JSON]:
        """Parse data of the latest user message that counts."""
        return self._heard.parse_data

    @property
    def intent_name(self) -> str | None:
        name: str | None = (self._heard.parse_data.get("intent") or {}).get("name")
        return name

    @property
    def latest_event_time(self) -> float | None:
        return self.events[-1].timestamp if self.events else None

    @property
    def followup_action(self) -> str | None:
        return None if self._followup_taken else self._followup

    @property
    def form_name(self) -> str | None:
        """Name of the active form."""
        name: str | None = self.active_form.get("name")
        return name

    def take_followup(self) -> None:
        """Use the follow-up action up, until `release_followup`; no event records that."""
        self._followup_taken = True

    def release_followup(self) -> None:
        """End of a request: a follow-up action that no event cleared is there again."""
        self._followup_taken = False

    def applied_events(self) -> list[Event]:
        """The events that count: after the last restart, without what was taken back."""
        return list(self._applied)

    def events_after_restart(self) -> list[Event]:
        return self.events[self._after_restart :]

    def events_since(self, sequence: int) -> list[Event]:
        """The events from sequence number `sequence` on."""
        return self.events[sequence - self.start :]

    def last_executed(self, skip: int = 0) -> str | None:
        """Name of the latest applied action that is no listen; `skip` looks that many further back."""
        for mark in reversed(self._marks):
            action = self._applied[mark.position]
            assert isinstance(action, ActionExecuted)
            if action.action_name != ACTION_LISTEN:
                if not skip:
                    return action.action_name
                skip -= 1
        return None

    def latest_action(self) -> ActionExecuted | None:
        """The latest applied action event."""
        if not self._marks:
            return None
        action = self._applied[self._marks[-1].position]
        assert isinstance(action, ActionExecuted)
        return action

    def latest_user_event(self) -> UserUttered | None:
        """The latest applied user event."""
        if self._heard.index < 0:
            return None
        event = self._applied[self._heard.index]
        return event if isinstance(event, UserUttered) else None

    def action_positions(self) -> list[int]:
        """Places of the action events among the applied events."""
        return [mark.position for mark in self._marks]

    def action_positions_after(self, index: int) -> list[int]:
        """Places of the applied action events beyond the applied event `index`."""
        return [mark.position for mark in self._marks[bisect_right(self._marks, index, key=_position) :]]

    @property
    def applied_count(self) -> int:
        return len(self._applied)

    def first_action_after(self, index: int) -> int | None:
        """The place of the first applied action event beyond the applied event `index`."""
        marks = self._marks
        found = bisect_right(marks, index, key=_position)
        return marks[found].position if found < len(marks) else None

    def second_action_position(self) -> int | None:
        return self._marks[1].position if len(self._marks) > 1 else None

    @property
    def knew_forms(self) -> bool:
        """Whether any applied event started or ended a form."""
        return self._has_forms and self._form_index >= 0

    def state(self) -> dict[str, JSON]:
        """The members of the tracker's JSON besides `events`."""
        return {
            "sender_id": self.sender_id,
            "slots": dict(self.slots),
            "latest_message": self._heard.parse_data,
            "latest_event_time": self.latest_event_time,
            "followup_action": self.followup_action,
            "paused": self.paused,
            "latest_input_channel": self.latest_input_channel,
            "active_form": self.active_form,
            "latest_action_name": self.latest_action_name,
        }

    def view(self, verbosity: EventVerbosity) -> TrackerView:
        """A snapshot that later events do not change."""
        events: Sequence[Event] | None = None
        if verbosity is EventVerbosity.ALL:
            events = list(self.events)
        elif verbosity is EventVerbosity.AFTER_RESTART:
            events = self.events_after_restart()
        elif verbosity is EventVerbosity.APPLIED:
            events = self.applied_events()
        return TrackerView(self.state(), events)

    # --- states for policies -------------------------------------------------------------------------

    def newest_state(self) -> StateNode | None:
        """The state that a prediction ends with; its predecessors are linked.

        While a form runs undisturbed the moment itself is no state: the chain ends where the form began.
        """
        chain = self._final_states()
        return chain[-1] if chain else self._node

    def state_window(self, length: int) -> list[StateNode | None]:
        """The last `length` states, oldest first, padded in front with None."""
        return window(self.newest_state(), length)

    def _final_states(self) -> list[StateNode]:
        if self._current is None:
            if not self._has_forms or self.form_name is None:
                self._current = [self._make_state(self._node)]
            elif self.active_form.get("rejected"):
                self._current = self._chained(self._buffer)
                self._current.append(self._make_state(self._current[-1] if self._current else self._node))
            else:
                self._current = []
        return self._current

    def _make_state(self, previous: StateNode | None, told: Heard | None = None) -> StateNode:
        return StateNode(
            self.domain,
            told or self._told,
            self._slot_features,
            self.latest_action_name,
            self.form_name if self._has_forms else None,
            self._form_index,
            len(self._applied),
            previous,
        )

    def _chained(self, states: Iterable[StateNode]) -> list[StateNode]:
        chain: list[StateNode] = []
        previous = self._node
        for state in states:
            previous = state.after(previous)
            chain.append(previous)
        return chain

    def _deliver(self, node: StateNode) -> None:
        self._node = node
        old = self._warm[self._warm_at]
        if old is not None:
            old.forget()
        self._warm[self._warm_at] = node
        self._warm_at = (self._warm_at + 1) % _WARM_STATES

    def _before_action(self, action_name: str) -> None:
        """Take the state before an action, where forms do not hide it."""
        form = self.form_name if self._has_forms else None
        if form is None:
            self._deliver(self._final_states()[-1])
            return
        if self.active_form.get("rejected"):
            for state in self._chained(self._buffer):
                self._deliver(state)
            self._buffer = ()
            if not self.active_form.get("validate") or action_name != form:
                self._message = self._told
            else:
                self._told = self._message
            self._deliver(self._make_state(self._node))
        elif action_name != form:
            self._buffer = (*self._buffer, self._make_state(None, self._message))
        if action_name == form:
            self._buffer = ()

    # --- writing -------------------------------------------------------------------------------------

    def update(self, event: Event) -> None:
        """Append an event to the log and let it act."""
        self.events.append(event)
        if type(event) is UserUttered:
            self.latest_input_channel = event.input_channel
        apply = _EFFECTS.get(type(event))
        if apply is not None:
            apply(self, event)
        else:
            self._applied.append(event)

    def extend(self, events: Iterable[Event]) -> None:
        for event in events:
            self.update(event)

    def _set_slot(self, name: str, value: JSON) -> None:
        self._slot_changes.append((name, self.slots[name]))
        self.slots[name] = value
        features = self.domain.slot_features(name, value)
        if features or name in self._slot_features:
            self._slot_features = {**self._slot_features, name: (features, len(self._applied) - 1)}
            self._current = None

    def _user(self, event: UserUttered) -> None:
        self._heard = Heard(event.parse_data, len(self._applied))
        self._applied.append(event)
        self._told = self._heard
        if self.form_name is None:
            self._message = self._heard
        self._followup = None
        self._followup_taken = False
        self._current = None

    def _action(self, event: ActionExecuted) -> None:
        mark = _Mark(self)
        self._before_action(event.action_name)
        self._marks.append(mark)
        self._applied.append(event)
        self.latest_action_name = event.action_name
        self._followup = None
        self._followup_taken = False
        form = self.form_name
        if form is not None:
            changed = {**self.active_form, "validate": True}
            if form == event.action_name:
                changed["rejected"] = False
            self.active_form = changed
        self._current = None

    def _slot(self, event: SlotSet) -> None:
        self._applied.append(event)
        if event.key in self.slots:
            self._set_slot(event.key, event.value)
        else:
            self.domain.report_unknown_slot(event.key)

    def _reset_slots(self, event: AllSlotsReset) -> None:
        self._applied.append(event)
        for name, value in self.domain.initial_slots.items():
            self._set_slot(name, value)

    def _restart(self, event: Restarted) -> None:
        self._after_restart = len(self.events)
        self._reset()

    def _undo(self, event: ActionReverted) -> None:
        self._revert_action()

    def _rewind(self, event: UserUtteranceReverted) -> None:
        applied = self._applied
        index = len(applied) - 1
        while index >= 0 and not isinstance(applied[index], UserUttered):
            index -= 1
        while self._marks and self._marks[-1].position > index:
            self._restore(self._marks.pop())
        self._revert_action()

    def _revert_action(self) -> None:
        """Go back to before the last applied action; without one, to the beginning."""
        if self._marks:
            self._restore(self._marks.pop())
        else:
            self._restore_slots(0)
            self._applied.clear()
            self._reset_state()

    def _restore(self, mark: _Mark) -> None:
        self._restore_slots(mark.undone_slots)
        del self._applied[mark.position :]
        self.paused = mark.paused
        self._followup = mark.followup
        self._followup_taken = False
        self.latest_action_name = mark.last_action
        self.active_form = mark.active_form
        self._form_index = mark.form_index
        self._heard = mark.heard
        self._slot_features = mark.slot_features
        self._node = mark.node
        self._told = mark.told
        self._message = mark.message
        self._buffer = mark.buffer
        self._current = None

    def _restore_slots(self, length: int) -> None:
        changes = self._slot_changes
        while len(changes) > length:
            name, value = changes.pop()
            self.slots[name] = value

    def _pause(self, event: ConversationPaused) -> None:
        self._applied.append(event)
        self.paused = True

    def _resume(self, event: ConversationResumed) -> None:
        self._applied.append(event)
        self.paused = False

    def _follow_up(self, event: FollowupAction) -> None:
        self._applied.append(event)
        self._followup = event.action_name
        self._followup_taken = False

    def _form(self, event: Form) -> None:
        self._told = self._message
        if event.name is None:
            self.active_form = _NO_FORM
        else:
            record = {"name": event.name, "validate": True, "rejected": False}
            if self.domain.release.trigger_message:
                record["trigger_message"] = self._heard.parse_data
            self.active_form = record
        self._form_index = len(self._applied)
        self._applied.append(event)
        self._current = None

    def _validation(self, event: FormValidation) -> None:
        self._applied.append(event)
        self.active_form = {**self.active_form, "validate": event.validate}

    def _rejection(self, event: ActionExecutionRejected) -> None:
        self._applied.append(event)
        if event.action_name == self.form_name:
            self.active_form = {**self.active_form, "rejected": True}
            self._current = None


def _position(mark: _Mark) -> int:
    return mark.position


_EFFECTS: Mapping[type[Event], Callable[[Tracker, Any], None]] = {
    UserUttered: Tracker._user,
    ActionExecuted: Tracker._action,
    SlotSet: Tracker._slot,
    AllSlotsReset: Tracker._reset_slots,
    Restarted: Tracker._restart,
    ActionReverted: Tracker._undo,
    UserUtteranceReverted: Tracker._rewind,
    ConversationPaused: Tracker._pause,
    ConversationResumed: Tracker._resume,
    FollowupAction: Tracker._follow_up,
    Form: Tracker._form,
    FormValidation: Tracker._validation,
    ActionExecutionRejected: Tracker._rejection,
}
