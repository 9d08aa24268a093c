"""What to do when nobody is sure: after an unclear message, or when no other policy is confident enough."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from rasa_core_api.constants import ACTION_LISTEN
from rasa_core_api.domain import Domain
from rasa_core_api.policies.files import read_json, read_name, read_number, read_priority, unsupported
from rasa_core_api.policies.policy import LoadContext, OneHot, Policy, Scores
from rasa_core_api.trackers import Tracker

DEFAULT_THRESHOLD = 0.3


def message_confidence(tracker: Tracker) -> float:
    """How sure the NLU was of the latest message's intent; 1 where it did not say."""
    confidence = (tracker.latest_message.get("intent") or {}).get("confidence")
    return float(confidence) if isinstance(confidence, (int, float)) else 1.0


def one_action(domain: Domain, action_name: str, value: float) -> Scores:
    """Zero but for one action. Raises `UnknownAction`."""
    return OneHot(len(domain.action_names), domain.index_of(action_name), value)


class FallbackPolicy(Policy):
    """Runs its action after a message below `nlu_threshold`, and competes with `core_threshold` everywhere else."""

    name = "FallbackPolicy"
    default_priority = 3
    is_fallback: ClassVar[bool] = True

    def __init__(
        self,
        nlu_threshold: float = DEFAULT_THRESHOLD,
        core_threshold: float = DEFAULT_THRESHOLD,
        fallback_action_name: str = ACTION_LISTEN,
        priority: int | None = None,
    ) -> None:
        super().__init__(priority)
        self.nlu_threshold = nlu_threshold
        self.core_threshold = core_threshold
        self.fallback_action_name = fallback_action_name

    @classmethod
    def load(cls, directory: Path, context: LoadContext) -> FallbackPolicy:
        path = directory / "fallback_policy.json"
        data = read_json(path) or {}
        domain = context.domain
        action = read_name(path, data, "fallback_action_name", domain.release.default_fallback_action)
        if action not in domain.action_index:
            raise unsupported(path, f"the fallback action {action!r} is not an action of the domain")
        return cls(
            read_number(path, data, "nlu_threshold", DEFAULT_THRESHOLD),
            read_number(path, data, "core_threshold", DEFAULT_THRESHOLD),
            action,
            read_priority(data),
        )

    def fallback_scores(self, domain: Domain) -> Scores:
        return one_action(domain, self.fallback_action_name, domain.release.fallback_score)

    def unclear(self, tracker: Tracker, domain: Domain) -> bool:
        """Whether the latest message calls for the fallback."""
        last = tracker.latest_action_name
        at_place = last == ACTION_LISTEN if domain.release.fallback_needs_listen else last != self.fallback_action_name
        return at_place and message_confidence(tracker) < self.nlu_threshold

    def predict(self, tracker: Tracker, domain: Domain) -> Scores:
        if tracker.latest_action_name == self.fallback_action_name:
            return one_action(domain, ACTION_LISTEN, domain.release.fallback_score)
        if self.unclear(tracker, domain):
            return self.fallback_scores(domain)
        return one_action(domain, self.fallback_action_name, self.core_threshold)
