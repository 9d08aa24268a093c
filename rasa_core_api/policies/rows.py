"""Policies that compute with rows of features, and what they need not compute twice."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Generic, TypeVar

from rasa_core_api.domain import Domain
from rasa_core_api.featurizers import TrackerFeaturizer
from rasa_core_api.policies.policy import Dense, Policy, Scores
from rasa_core_api.policies.recent import Recent
from rasa_core_api.states import StateNode
from rasa_core_api.trackers import Tracker

T = TypeVar("T")

#: Distinct rows whose projections are kept, and windows of rows whose scores are.
_ROWS = 4096
_WINDOWS = 2048


class Row(Generic[T]):
    """A distinct row of features as the policy needs it; equal rows are the same object while they are kept."""

    __slots__ = ("projection",)

    def __init__(self, projection: T) -> None:
        self.projection = projection


class RowPolicy(Policy, Generic[T]):
    """A policy that projects each row of features on its own, and then scores the rows of the last states.

    A bot sees few distinct states and few distinct windows of them, whoever talks to it. So both are looked up
    before they are computed; results do not depend on it.
    """

    costly = True

    def __init__(self, featurizer: TrackerFeaturizer, priority: int | None = None) -> None:
        super().__init__(priority)
        self.featurizer = featurizer
        self._rows: Recent[frozenset[tuple[int, float]], Row[T]] = Recent(_ROWS)
        self._windows: Recent[tuple[Row[T] | None, ...], Dense] = Recent(_WINDOWS)

    @abstractmethod
    def project(self, features: Mapping[int, float]) -> T:
        """The part of the computation that one row allows."""

    @abstractmethod
    def score(self, rows: tuple[Row[T] | None, ...]) -> list[float]:
        """The scores for the rows of the last states, oldest first; None is padding."""

    def predict(self, tracker: Tracker, domain: Domain) -> Scores:
        assert self.featurizer.max_history is not None
        rows = tuple(map(self._kept_row, tracker.state_window(self.featurizer.max_history)))
        scores = self._windows.get(rows)
        if scores is None:
            scores = Dense(self.score(rows))
            self._windows.put(rows, scores)
        return scores

    def row(self, state: StateNode) -> Row[T]:
        """The row of a state, which is not asked to keep it."""
        features = self.featurizer.row(state)
        key = frozenset(features.items())
        row = self._rows.get(key)
        if row is None:
            row = Row(self.project(features))
            self._rows.put(key, row)
        return row

    def _kept_row(self, state: StateNode | None) -> Row[T] | None:
        if state is None:
            return None
        row = state.recall(self)
        if row is None:
            row = state.cache[self] = self.row(state)
        assert isinstance(row, Row)
        return row
