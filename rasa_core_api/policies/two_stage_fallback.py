"""Clearing up an unclear message in two stages: ask whether it was meant so, then ask to say it again."""

from __future__ import annotations

from pathlib import Path

from rasa_core_api.constants import (
    ACTION_DEFAULT_ASK_AFFIRMATION,
    ACTION_DEFAULT_ASK_REPHRASE,
    ACTION_DEFAULT_FALLBACK,
    ACTION_LISTEN,
    ACTION_REVERT_FALLBACK_EVENTS,
)
from rasa_core_api.domain import Domain
from rasa_core_api.policies.fallback import DEFAULT_THRESHOLD, FallbackPolicy, one_action
from rasa_core_api.policies.files import read_json, read_name, read_number, read_priority, unsupported
from rasa_core_api.policies.policy import LoadContext, Scores
from rasa_core_api.trackers import Tracker

DEFAULT_DENY_INTENT = "out_of_scope"


class TwoStageFallbackPolicy(FallbackPolicy):
    """Asks twice before it gives up (0.13 and later).

    `fallback_action_name` is the action for the case that no policy is sure, `fallback_nlu_action_name` the one for
    a user who was not understood.
    """

    name = "TwoStageFallbackPolicy"

    def __init__(
        self,
        nlu_threshold: float = DEFAULT_THRESHOLD,
        core_threshold: float = DEFAULT_THRESHOLD,
        fallback_core_action_name: str = ACTION_DEFAULT_FALLBACK,
        fallback_nlu_action_name: str = ACTION_DEFAULT_FALLBACK,
        deny_suggestion_intent_name: str = DEFAULT_DENY_INTENT,
        priority: int | None = None,
    ) -> None:
        super().__init__(nlu_threshold, core_threshold, fallback_core_action_name, priority)
        self.fallback_nlu_action_name = fallback_nlu_action_name
        self.deny_suggestion_intent_name = deny_suggestion_intent_name

    @classmethod
    def load(cls, directory: Path, context: LoadContext) -> TwoStageFallbackPolicy:
        path = directory / "two_stage_fallback_policy.json"
        data = read_json(path) or {}
        domain = context.domain
        actions = {}
        for key in ("fallback_core_action_name", "fallback_nlu_action_name"):
            actions[key] = read_name(path, data, key, ACTION_DEFAULT_FALLBACK)
            if actions[key] not in domain.action_index:
                raise unsupported(path, f"{key}: {actions[key]!r} is not an action of the domain")
        needed = {ACTION_DEFAULT_ASK_AFFIRMATION, ACTION_DEFAULT_ASK_REPHRASE, ACTION_REVERT_FALLBACK_EVENTS}
        if not needed <= domain.action_index.keys():
            raise unsupported(path, f"the domain of a {domain.release} model has no actions to ask twice")
        deny = read_name(path, data, "deny_suggestion_intent_name", DEFAULT_DENY_INTENT)
        if deny not in domain.intents:
            raise unsupported(path, f"deny_suggestion_intent_name: {deny!r} is not an intent of the domain")
        return cls(
            read_number(path, data, "nlu_threshold", DEFAULT_THRESHOLD),
            read_number(path, data, "core_threshold", DEFAULT_THRESHOLD),
            actions["fallback_core_action_name"],
            actions["fallback_nlu_action_name"],
            deny,
            read_priority(data),
        )

    def predict(self, tracker: Tracker, domain: Domain) -> Scores:
        action = self._next(tracker, domain)
        if action is None:
            return one_action(domain, self.fallback_action_name, self.core_threshold)
        return one_action(domain, action, domain.release.fallback_score)

    def _next(self, tracker: Tracker, domain: Domain) -> str | None:
        """The action of the first rule that applies; None if the message is clear and nothing was asked."""
        if tracker.latest_action_name in (
            ACTION_DEFAULT_ASK_AFFIRMATION,
            ACTION_DEFAULT_ASK_REPHRASE,
            self.fallback_action_name,
        ):
            return ACTION_LISTEN
        asked = tracker.last_executed()
        unclear = self.unclear(tracker, domain)
        if asked == ACTION_DEFAULT_ASK_AFFIRMATION:
            if tracker.intent_name == self.deny_suggestion_intent_name:
                if tracker.last_executed(skip=1) == ACTION_DEFAULT_ASK_REPHRASE:
                    return self.fallback_nlu_action_name
                return ACTION_DEFAULT_ASK_REPHRASE
            return self.fallback_nlu_action_name if unclear else ACTION_REVERT_FALLBACK_EVENTS
        if asked == ACTION_DEFAULT_ASK_REPHRASE:
            return ACTION_DEFAULT_ASK_AFFIRMATION if unclear else ACTION_REVERT_FALLBACK_EVENTS
        return ACTION_DEFAULT_ASK_AFFIRMATION if unclear else None
