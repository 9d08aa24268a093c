"""A conversation's state as policies, actions and clients read it, and the marks from which it is restored."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from rasa_core_api.constants import ACTION_LISTEN, JSON
from rasa_core_api.domain import Domain
from rasa_core_api.events import ActionExecuted, Event, UserUttered
from rasa_core_api.states import NOTHING_HEARD, SlotFeatures, StateNode
from rasa_core_api.tracker_views import EventVerbosity, TrackerView

#: States that keep what was computed of them.
WARM_STATES = 24

NO_FORM: Mapping[str, JSON] = {}


class Mark:
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

    def __init__(self, tracker: TrackerState) -> None:
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


class TrackerState:
    """The state of one conversation under one domain, as it is read.

    `events` are the log from sequence number `start` on; `end` is the number the next event gets. `birth` is that of
    the conversation in its store, 0 where it is not known. `beginning` tells one that is not stored yet from those of
    the same id that this process began and stored before.
    """

    def __init__(self, sender_id: str, domain: Domain, start: int = 0) -> None:
        self.sender_id = sender_id
        self.domain = domain
        self.start = start
        self.birth = 0
        self.beginning = 0
        self.events: list[Event] = []
        self.slots: dict[str, JSON] = {}
        self.latest_input_channel: str | None = None
        self._after_restart = 0  # index in `events`
        self._followup_taken = False
        self._has_forms = domain.release.has_forms
        self._warm: list[StateNode | None] = [None] * WARM_STATES
        self._warm_at = 0
        self._current: list[StateNode] | None = None
        self._reset()

    def _reset(self) -> None:
        self._applied: list[Event] = []
        self._marks: list[Mark] = []
        self.slots = dict(self.domain.initial_slots)
        self._slot_changes: list[tuple[str, JSON]] = []
        self._reset_state()

    def _reset_state(self) -> None:
        self.paused = False
        self._followup = self.domain.release.initial_followup
        self.latest_action_name: str | None = None
        self.active_form: Mapping[str, JSON] = NO_FORM
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


def _position(mark: Mark) -> int:
    return mark.position
