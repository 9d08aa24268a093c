"""The interface of policies and the scores that they answer."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from attrs import frozen

from rasa_core_api.domain import Domain
from rasa_core_api.slots import ClassFinder, refuse_classes
from rasa_core_api.trackers import Tracker

if TYPE_CHECKING:
    from pathlib import Path


class Scores(ABC):
    """One number an action, in domain order."""

    @abstractmethod
    def best(self) -> tuple[int, float]:
        """The lowest index that holds the maximum, and the maximum."""

    @abstractmethod
    def to_list(self) -> list[float]:
        """The numbers as a fresh list."""

    @abstractmethod
    def without(self, index: int) -> Scores:
        """The same scores with a zero at `index`."""


class OneHot(Scores):
    """Zero but for one action."""

    __slots__ = ("index", "value", "width")

    def __init__(self, width: int, index: int = 0, value: float = 0.0) -> None:
        self.width = width
        self.index = index
        self.value = value

    def best(self) -> tuple[int, float]:
        return (self.index, self.value) if self.value > 0 else (0, 0.0)

    def to_list(self) -> list[float]:
        scores = [0.0] * self.width
        scores[self.index] = self.value
        return scores

    def without(self, index: int) -> Scores:
        return OneHot(self.width) if index == self.index else self


class Dense(Scores):
    """A number for every action."""

    __slots__ = ("values",)

    def __init__(self, values: Sequence[float]) -> None:
        self.values = values if isinstance(values, list) else list(values)

    def best(self) -> tuple[int, float]:
        highest = max(self.values)
        return self.values.index(highest), highest

    def to_list(self) -> list[float]:
        return list(self.values)

    def without(self, index: int) -> Scores:
        values = list(self.values)
        values[index] = 0.0
        return Dense(values)


def nothing(domain: Domain) -> Scores:
    """Zeros: the policy has no opinion."""
    return OneHot(len(domain.action_names))


@frozen(kw_only=True)
class LoadContext:
    """What a policy's loader may need besides its directory.

    `max_history` is the entry of the metadata for this policy; `find_class` finds classes in modules that
    the operator trusts.
    """

    domain: Domain
    max_history: int | None = None
    find_class: ClassFinder = refuse_classes


class Policy(ABC):
    """Scores the actions that may come next.

    `name` is the historical class name. `ceiling` is a confidence that no prediction exceeds. `costly`
    policies are only asked where their answer can win.
    """

    name: ClassVar[str]
    default_priority: ClassVar[int] = 1
    ceiling: float = math.inf
    costly: ClassVar[bool] = False
    is_memoization: ClassVar[bool] = False
    is_fallback: ClassVar[bool] = False

    def __init__(self, priority: int | None = None) -> None:
        self.priority = self.default_priority if priority is None else priority

    @abstractmethod
    def predict(self, tracker: Tracker, domain: Domain) -> Scores:
        """Score every action of the domain.

        Only a form policy writes to the tracker: it may log a `form_validation` event.
        """

    @classmethod
    @abstractmethod
    def load(cls, directory: Path, context: LoadContext) -> Policy:
        """The policy persisted in `directory`. Raises `UnsupportedModel` naming the file and the reason."""
