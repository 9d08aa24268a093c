"""Forms: while one is active it runs after every message, unless the stories know better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from twisted.logger import Logger

from rasa_core_api.constants import ACTION_LISTEN
from rasa_core_api.domain import Domain
from rasa_core_api.events import FormValidation
from rasa_core_api.policies.fallback import one_action
from rasa_core_api.policies.files import read_priority, unsupported
from rasa_core_api.policies.memoization import read_memory
from rasa_core_api.policies.policy import LoadContext, Policy, Scores, nothing
from rasa_core_api.states import StateNode, state_text
from rasa_core_api.trackers import Tracker

log = Logger()

#: States in a key: the one before the message, and the one with it.
MAX_HISTORY = 2


def form_key(states: Sequence[StateNode | None]) -> str:
    """The plain key of two states: of the older one only the action before it, the newer one as it is."""
    older, newest = states
    before = None
    if older is not None:
        before = {name: value for name, value in older.entries.items() if "prev_" in name and value > 0}
    return f"[{state_text(before)}, {state_text(None) if newest is None else newest.text}]"


class FormPolicy(Policy):
    """Keeps an active form going.

    `lookup` maps keys of situations in which a story leaves the form's own path to the name of the form.
    """

    name = "FormPolicy"
    default_priority = 4

    def __init__(self, lookup: Mapping[str, str], priority: int | None = None) -> None:
        super().__init__(priority)
        self.lookup = lookup

    @classmethod
    def load(cls, directory: Path, context: LoadContext) -> FormPolicy:
        path = directory / "memorized_turns.json"
        lookup, rest = read_memory(path)
        for value in lookup.values():
            if not isinstance(value, str):
                raise unsupported(path, f"{value!r} is not the name of a form")
        return cls(lookup, read_priority(rest))

    def predict(self, tracker: Tracker, domain: Domain) -> Scores:
        """Score the form or `action_listen`.

        A form that the domain lacks has no say: its conversation would never get out of it.
        After a rejection in a situation that the stories know, the form has no say and its next validation is
        called off: a `form_validation` event is logged on the tracker, at the time of the latest event.
        """
        form = tracker.form_name
        if form is None:
            return nothing(domain)
        if form not in domain.action_index:
            log.warn("the form {form} is active and no action of this model: it has no say", form=form[:100])
            return nothing(domain)
        last = tracker.latest_action_name
        score = domain.release.form_score
        if last == ACTION_LISTEN:
            if tracker.active_form.get("rejected") and self._leaves(tracker, form):
                tracker.update(FormValidation(validate=False, timestamp=tracker.latest_event_time or 0.0))
                return nothing(domain)
            return one_action(domain, form, score)
        if last == form:
            return one_action(domain, ACTION_LISTEN, score)
        return nothing(domain)

    def _leaves(self, tracker: Tracker, form: str) -> bool:
        """Whether a story goes on without the form from here."""
        return self.lookup.get(form_key(tracker.state_window(MAX_HISTORY))) == form
