"""Tests of events as stored text."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from rasa_core_api.concurrency import Slices
from rasa_core_api.events import Event, SlotSet
from rasa_core_api.tracker_store.texts import StoredEvents


class Counted(Slices):
    """Counts how often the reactor is given its turn."""

    rounds = 0

    async def breathe(self) -> None:
        self.rounds += 1


def text_of(*values: int) -> str:
    return "\n".join(SlotSet(key="n", value=value, timestamp=1.0).as_json() for value in values)


def decoded(texts: list[str]) -> tuple[list[list[Event]], int]:
    """The events of each text, and how often the reactor had its turn."""
    slices = Counted(Clock())
    results: list[list[list[Event]]] = []
    Deferred.fromCoroutine(StoredEvents(lambda: "", slices).decode_each(texts)).addCallback(results.append)
    return results[0], slices.rounds


def test_many_short_blocks_are_one_slice() -> None:
    """Each block's events come by themselves; who reads many short ones need not wait for as many rounds."""
    numbers = [(1,), (), (2, 3), *((n,) for n in range(40))]
    found, rounds = decoded([text_of(*each) for each in numbers])
    assert [[event.value for event in events if isinstance(event, SlotSet)] for events in found] == [
        list(each) for each in numbers
    ]
    assert rounds == 1


def test_long_blocks_are_slices_of_their_own() -> None:
    """Much text is worked off with pauses."""
    found, rounds = decoded([text_of(*range(100))] * 5)
    assert [len(events) for events in found] == [100] * 5
    assert rounds >= 5


def test_blocks_that_are_gone() -> None:
    """What was deleted has no text, wherever a slice ends."""
    for ahead in (1, 2):
        numbers = [(0,)] * ahead + [(1,), ()] * 300
        found, _ = decoded([text_of(*each) for each in numbers])
        assert [len(events) for events in found] == [len(each) for each in numbers]
