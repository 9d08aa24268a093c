"""What clients see of a tracker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

from attrs import frozen

from rasa_core_api.constants import JSON
from rasa_core_api.events import Event
from rasa_core_api.exceptions import UnknownVerbosity


class EventVerbosity(Enum):
    """Which events a tracker's JSON shows."""

    NONE = "NONE"
    APPLIED = "APPLIED"
    AFTER_RESTART = "AFTER_RESTART"
    ALL = "ALL"

    @classmethod
    def from_text(cls, text: str) -> EventVerbosity:
        """The verbosity of that name, in any case. Raises `UnknownVerbosity`."""
        try:
            return cls[text.upper()]
        except KeyError:
            names = ", ".join(cls.__members__)
            raise UnknownVerbosity(
                f"Invalid parameter value for 'include_events'. Should be one of {names}",
                parameter="include_events",
                **{"in": "query"},
            ) from None


@frozen
class TrackerView:
    """What a client sees of a tracker: every member but the events, and the events apart (None: not shown)."""

    state: Mapping[str, JSON]
    events: Sequence[Event] | None
