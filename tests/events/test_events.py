"""Tests of what events have in common: what makes two of them equal."""

from __future__ import annotations

import copy

from hypothesis import given

from rasa_core_api.events import AgentUttered, BotUttered, Event, SlotSet, UserUttered
from tests.samples import EVENTS


@given(EVENTS)
def test_the_same_at_another_time(event: Event) -> None:
    """Events that say the same are equal, and not unequal, whatever their time and however they were copied."""
    for other in (event.changed(timestamp=event.timestamp + 1.0), copy.deepcopy(event)):
        assert event == other
        assert (event != other) is False


def test_what_says_something_else() -> None:
    """Another text, value or speaker makes them unequal, and so does what is no event."""
    slot, said = SlotSet(key="a", value=1, timestamp=1.0), BotUttered(text="hi", timestamp=1.0)
    user = UserUttered(text="hi", parse_data={}, timestamp=1.0)
    for one, other in (
        (slot, slot.changed(value=2)),
        (said, AgentUttered(text="hi", timestamp=1.0)),
        (user, user.changed(text="ho")),
        (user, said),
        (slot, None),
    ):
        assert one != other
        assert (one == other) is False
