"""A slow tracker that replays everything, as an oracle for the fast one (states of conversations without forms
that run undisturbed, and with them by the rules of prediction)."""

from __future__ import annotations

from typing import Any

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

EMPTY = {"intent": {}, "entities": [], "text": None}


def applied(events: list[Event]) -> list[Event]:
    """Fold a log into the events that count."""
    result: list[Event] = []

    def cut_after(kind: type[Event]) -> None:
        while result:
            if isinstance(result.pop(), kind):
                return

    for event in events:
        if isinstance(event, Restarted):
            result.clear()
        elif isinstance(event, ActionReverted):
            cut_after(ActionExecuted)
        elif isinstance(event, UserUtteranceReverted):
            cut_after(UserUttered)
            cut_after(ActionExecuted)
        else:
            result.append(event)
    return result


class Naive:
    """State after replaying `events`, none of which takes anything back."""

    def __init__(self, domain: Domain, events: list[Event]) -> None:
        self.domain = domain
        self.slots = dict(domain.initial_slots)
        self.paused = False
        self.followup = domain.release.initial_followup
        self.message: Any = EMPTY
        self.action: str | None = None
        self.form: dict[str, Any] = {}
        for event in events:
            self.apply(event)

    def apply(self, event: Event) -> None:
        if isinstance(event, UserUttered):
            self.message = event.parse_data
            self.clear()
        elif isinstance(event, ActionExecuted):
            self.action = event.action_name
            self.clear()
            if self.form.get("name"):
                self.form = {**self.form, "validate": True}
                if self.form["name"] == event.action_name:
                    self.form["rejected"] = False
        elif isinstance(event, SlotSet):
            if event.key in self.slots:
                self.slots[event.key] = event.value
        elif isinstance(event, AllSlotsReset):
            self.slots = dict(self.domain.initial_slots)
        elif isinstance(event, ConversationPaused | ConversationResumed):
            self.paused = isinstance(event, ConversationPaused)
        elif isinstance(event, FollowupAction):
            self.followup = event.action_name
        elif isinstance(event, Form):
            self.form = {}
            if event.name is not None:
                self.form = {"name": event.name, "validate": True, "rejected": False}
                if self.domain.release.trigger_message:
                    self.form["trigger_message"] = self.message
        elif isinstance(event, FormValidation):
            self.form = {**self.form, "validate": event.validate}
        elif isinstance(event, ActionExecutionRejected) and event.action_name == self.form.get("name"):
            self.form = {**self.form, "rejected": True}

    def clear(self) -> None:
        self.followup = None

    def features(self, message: Any = None) -> dict[str, float]:
        message = self.message if message is None else message
        entries: dict[str, float] = {}
        intent = (message.get("intent") or {}).get("name")
        if self.domain.uses_entities(intent):
            entries.update({f"entity_{entity['entity']}": 1.0 for entity in message.get("entities") or []})
        if intent:
            entries[f"intent_{intent}"] = 1.0
        for name, value in self.slots.items():
            entries.update(self.domain.slot_features(name, value))
        if self.action in self.domain.action_index:
            entries[f"prev_{self.action}"] = 1.0
        if self.form.get("name") and self.domain.release.has_forms:
            entries[f"active_form_{self.form['name']}"] = 1.0
        return entries


def states(domain: Domain, events: list[Event]) -> list[dict[str, float]]:
    """The sequence of prediction states of applied events, with the rules for forms."""
    naive = Naive(domain, [])
    message, buffer, result = EMPTY, [], []
    forms = domain.release.has_forms
    for event in events:
        active = naive.form.get("name") if forms else None
        if isinstance(event, UserUttered) and active is None:
            naive.apply(event)
            message = naive.message
            continue
        if isinstance(event, Form) and forms:
            naive.message = message
        if isinstance(event, ActionExecuted):
            if active is None:
                result.append(naive.features())
            elif naive.form["rejected"]:
                result += buffer
                buffer = []
                if not naive.form["validate"] or event.action_name != active:
                    message = naive.message
                else:
                    naive.message = message
                result.append(naive.features())
            elif event.action_name != active:
                buffer.append(naive.features(message))
            if event.action_name == active:
                buffer = []
        naive.apply(event)
    active = naive.form.get("name") if forms else None
    if active is None:
        result.append(naive.features())
    elif naive.form["rejected"]:
        result += [*buffer, naive.features()]
    return result
