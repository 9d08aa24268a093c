"""Intents that lead straight to an action (0.14)."""

from __future__ import annotations

from pathlib import Path

from rasa_core_api.constants import ACTION_BACK, ACTION_LISTEN, ACTION_RESTART
from rasa_core_api.domain import Domain
from rasa_core_api.policies.fallback import one_action
from rasa_core_api.policies.policy import LoadContext, Policy, Scores, nothing
from rasa_core_api.trackers import Tracker

#: Intents that need no `triggers` in the domain.
_BUILT_IN = {"restart": ACTION_RESTART, "back": ACTION_BACK}


class MappingPolicy(Policy):
    """Runs the action that the latest intent triggers. Nothing of it is persisted."""

    name = "MappingPolicy"
    default_priority = 5

    @classmethod
    def load(cls, directory: Path, context: LoadContext) -> MappingPolicy:
        return cls()

    def predict(self, tracker: Tracker, domain: Domain) -> Scores:
        intent = tracker.intent_name
        triggered = domain.triggered_action(intent)
        last = tracker.latest_action_name
        action: str | None = None
        if last == ACTION_LISTEN:
            action = triggered or _BUILT_IN.get(intent or "")
        elif triggered is not None and last == triggered:
            executed = tracker.latest_action()
            # ensembles record the place as well ("policy_3_MappingPolicy"): an action that they chose is not meant
            if executed is not None and executed.policy == self.name:
                action = ACTION_LISTEN
        return nothing(domain) if action is None else one_action(domain, action, 1.0)
