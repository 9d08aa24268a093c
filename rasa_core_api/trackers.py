"""A conversation's state, kept up to date event by event.

Nothing is recomputed from the start of the log: each applied action leaves a mark from which `undo` and
`rewind` restore the state as it was, so that every event costs the same at any length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rasa_core_api.constants import JSON
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
from rasa_core_api.states import Heard, StateNode, window
from rasa_core_api.tracker_state import NO_FORM, WARM_STATES, Mark, TrackerState


class Tracker(TrackerState):
    """The state of one conversation under one domain: events change it, policies look at the states it was in."""

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
        self._warm_at = (self._warm_at + 1) % WARM_STATES

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
        self.latest_input_channel = event.input_channel
        self._heard = Heard(event.parse_data, len(self._applied))
        self._applied.append(event)
        self._told = self._heard
        if self.form_name is None:
            self._message = self._heard
        self._followup = None
        self._followup_taken = False
        self._current = None

    def _action(self, event: ActionExecuted) -> None:
        mark = Mark(self)
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

    def _restore(self, mark: Mark) -> None:
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
            self.active_form = NO_FORM
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
