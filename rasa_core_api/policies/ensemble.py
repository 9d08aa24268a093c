"""The ensemble: which policy's opinion counts, under the rules of the model's release."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from attrs import frozen
from twisted.logger import Logger

from rasa_core_api.constants import ACTION_LISTEN
from rasa_core_api.domain import Domain
from rasa_core_api.events import ActionExecutionRejected
from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.policies.policy import OneHot, Policy, Scores
from rasa_core_api.trackers import Tracker

log = Logger()


@runtime_checkable
class Fallback(Protocol):
    """A policy that can take over when nobody knows what the user wants."""

    def fallback_scores(self, domain: Domain) -> Scores:
        """All zero but for the fallback action."""


@frozen
class Choice:
    """The winner's scores (not yet normalised), its name in the ensemble and the index of the best action."""

    scores: Scores
    policy: str | None
    index: int
    confidence: float  # of the best action after normalisation

    def normalised(self, how: str) -> list[float]:
        """The scores as clients see them; `how` is the release's way (`none`, `l2` or `sum`)."""
        return normalise(self.scores.to_list(), how)


def normalise(scores: list[float], how: str) -> list[float]:
    """Scale scores to sum 1 (`sum`) or to Euclidean length 1 (`l2`); zeros and numbers that are none stay."""
    known = [score for score in scores if not math.isnan(score)]
    if how == "none" or math.fsum(known) == 0:
        return scores
    if how == "l2":
        size = math.hypot(*known)
    else:
        size = math.fsum(known)
    return [score / size for score in scores]


class Ensemble:
    """An ordered list of policies, one of which decides.

    Raises `InvalidConfiguration` where forms are used without a form policy.
    """

    def __init__(self, policies: Sequence[Policy], domain: Domain) -> None:
        if domain.forms and domain.release.has_forms and not any(policy.name == "FormPolicy" for policy in policies):
            raise InvalidConfiguration("the domain has forms, so the policies need a FormPolicy")
        self.policies = tuple(policies)
        self.domain = domain
        release = domain.release
        self._names = [f"policy_{index}_{policy.name}" for index, policy in enumerate(policies)]
        self._uses_priorities = release.uses_priorities
        self._rejection = release.rejection
        self._normalisation = release.normalisation
        self._listen_index = domain.action_index[ACTION_LISTEN]
        self._listen_rule = release.listen_after_user_rule
        self._fallback = next(
            ((i, policy) for i, policy in enumerate(policies) if policy.is_fallback and isinstance(policy, Fallback)),
            None,
        )
        self._form_at = next((i for i, policy in enumerate(policies) if policy.name == "FormPolicy"), len(policies))
        # cheap policies first; among equals the order of the list
        self._order = sorted(range(len(policies)), key=lambda index: policies[index].costly)

    def choose(self, tracker: Tracker) -> Choice:
        """Ask the policies and pick one, as the release did.

        A costly policy is not asked where its ceiling proves that it cannot win.
        """
        winner = -1
        scores: Scores | None = None
        best_index, best_rank = 0, (-math.inf, -math.inf, -math.inf)
        rejected = self._rejected(tracker)
        for index in self._order:
            policy = self.policies[index]
            priority = policy.priority if self._uses_priorities else 0
            # equal confidence: the higher priority, then the earlier policy
            if policy.costly and (policy.ceiling, priority, -index) < best_rank:
                continue
            opinion = policy.predict(tracker, self.domain)
            barred = rejected
            if rejected is not None and index >= self._form_at:
                barred = self._rejected(tracker)
            if barred is not None:
                opinion = opinion.without(barred)
            action, confidence = opinion.best()
            rank = (confidence, priority, -index)
            if scores is None or rank > best_rank:
                winner, scores, best_index, best_rank = index, opinion, action, rank
        if scores is None:
            raise InvalidConfiguration("the model has no policies")
        name = self._names[winner]
        if (
            self._listen_rule
            and best_index == self._listen_index
            and tracker.latest_action_name == ACTION_LISTEN
            and self._fallback is not None
            and not self.policies[winner].is_memoization
        ):
            winner, fallback = self._fallback
            assert isinstance(fallback, Fallback)
            scores = fallback.fallback_scores(self.domain)
            best_index = scores.best()[0]
            name = self._names[winner]
        return Choice(scores, name, best_index, self._confidence(scores, best_index))

    def _confidence(self, scores: Scores, index: int) -> float:
        if isinstance(scores, OneHot) and self._normalisation != "none":
            return 1.0 if scores.value > 0 else 0.0
        return normalise(scores.to_list(), self._normalisation)[index]

    def _rejected(self, tracker: Tracker) -> int | None:
        if not self._rejection or not tracker.events:
            return None
        last = tracker.events[-1]
        if type(last) is not ActionExecutionRejected:
            return None
        return self.domain.action_index.get(last.action_name)
