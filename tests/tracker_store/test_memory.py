from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from rasa_core_api.concurrency import Slices
from rasa_core_api.events import BotUttered, Event, SlotSet
from rasa_core_api.exceptions import StoreUnavailable
from rasa_core_api.tracker_store.memory import MemoryStore
from rasa_core_api.tracker_store.turns import TurnNote
from rasa_core_api.tracker_store.weights import weigh

from .stores import slots, turn, wait

HOUR = 3600.0


def names(store: MemoryStore) -> list[str]:
    return wait(store.sender_ids())


def test_least_recently_used_goes_first() -> None:
    """At its bound the store drops the conversation that was not used for longest."""
    clock = Clock()
    store = MemoryStore(clock, max_conversations=3)
    for name in "abc":
        wait(store.append(name, 0, slots(1)))
        clock.advance(1)
    wait(store.read("a"))
    clock.advance(HOUR)
    wait(store.append("d", 0, slots(1)))
    assert names(store) == ["a", "c", "d"]
    assert store.status()["dropped"] == 1


def test_young_conversations_stay() -> None:
    """While all were used within the hour new ones are refused, and known ones go on."""
    clock = Clock()
    store = MemoryStore(clock, max_conversations=2)
    wait(store.append("a", 0, slots(1)))
    wait(store.append("b", 0, slots(1)))
    clock.advance(HOUR - 1)
    for work in (store.append("c", 0, slots(1)), store.replace("c", slots(1))):
        with pytest.raises(StoreUnavailable, match="max_conversations"):
            wait(work)
    assert wait(store.append("a", 1, slots(2))) == 2
    clock.advance(2)
    wait(store.append("c", 0, slots(1)))
    assert names(store) == ["a", "c"]


def test_turn_in_flight_is_never_dropped() -> None:
    """A conversation stays as long as one of its turns is under way."""
    clock = Clock()
    store = MemoryStore(clock, max_conversations=1)
    wait(store.append("a", 0, slots(1)))
    store.pin("a")
    store.pin("a")
    store.unpin("a")
    clock.advance(2 * HOUR)
    with pytest.raises(StoreUnavailable):
        wait(store.append("b", 0, slots(1)))
    store.unpin("a")
    wait(store.append("b", 0, slots(1)))
    assert names(store) == ["b"]


def test_bound_of_bytes() -> None:
    """Growing conversations push others out, and are refused themselves where nothing may go."""
    clock = Clock()
    store = MemoryStore(clock, max_mb=1)
    wait(store.append("old", 0, slots("x" * 150_000)))
    clock.advance(HOUR)
    wait(store.append("a", 0, slots("x" * 200_000)))
    assert names(store) == ["old", "a"]
    wait(store.append("a", 1, slots("x" * 200_000)))
    assert names(store) == ["a"]
    with pytest.raises(StoreUnavailable):
        wait(store.append("b", 0, slots("x" * 200_000)))
    wait(store.append("a", 2, slots("x" * 200_000)))  # into the spare quarter
    for work in (store.append("a", 3, slots("x" * 200_000)), store.replace("a", slots("x" * 700_000))):
        with pytest.raises(StoreUnavailable):
            wait(work)
    assert wait(store.replace("a", slots(1))) == (3, 4)
    wait(store.append("b", 0, slots("x" * 200_000)))
    wait(store.delete("a"))
    wait(store.delete("b"))
    assert store.status()["bytes"] == 0


def test_drops_are_told_once_a_minute() -> None:
    """What was dropped is said at once, then once a minute with a count."""
    clock = Clock()
    store = MemoryStore(clock, max_conversations=5)
    counts: list[int] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_namespace") == "rasa_core_api.tracker_store.memory":
            counts.append(event["count"])

    globalLogPublisher.addObserver(observe)
    try:
        for number in range(5):
            wait(store.append(f"s{number}", 0, slots(f"x{number}")))
        clock.advance(HOUR)
        wait(store.append("t0", 0, slots(1)))
        clock.advance(0)
        assert counts == [1]
        for number in (1, 2, 3):
            wait(store.append(f"t{number}", 0, slots(1)))
        clock.advance(59)
        assert counts == [1]
        clock.advance(1)
        assert counts == [1, 3]
        wait(store.append("t4", 0, slots(1)))
        wait(store.close())
        assert counts == [1, 3, 1]
    finally:
        globalLogPublisher.removeObserver(observe)
    assert clock.getDelayedCalls() == []


def test_weight_is_near_the_truth() -> None:
    """The estimate is between two thirds and twice of what the interpreter really takes, texts included."""

    def spoken(number: int) -> list[Event]:
        buttons = [{"title": f"title {number}", "payload": f"/inform {number}"} for _ in range(3)]
        return [BotUttered(text=f"How may I help {number}?", data={"buttons": buttons}, timestamp=float(number))]

    def listed(number: int) -> list[Event]:
        return [SlotSet(key="x", value=[f"value {number}-{part}" for part in range(20)], timestamp=float(number))]

    for build in (spoken, listed, lambda number: turn(f"some text {number}", float(number))):
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            events = [event for number in range(500) for event in build(number)]
            for event in events:
                event.as_json()
            real = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert 2 / 3 < weigh(events) / real < 2, (weigh(events), real)


def test_long_logs_are_weighed_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Storing many events lets others work in between, and counts them all the same."""
    clock = Clock()
    store = MemoryStore(clock)
    times = itertools.count()
    monkeypatch.setattr(store, "_slices", Slices(clock, 0.5, lambda: float(next(times))))
    stored: list[object] = []
    events = [SlotSet(key="k", value="v", timestamp=1.0) for _ in range(5_000)]
    Deferred.fromCoroutine(store.replace("u", events)).addCallback(stored.append)
    assert stored == []
    clock.advance(0)
    assert stored == [(0, 5_000)]
    assert store.status()["bytes"] > weigh(events)


class Counted(dict[str, Any]):
    """Counts what those who go through it meet."""

    met = 0

    def items(self) -> Any:
        self.met += len(self)
        return super().items()


def test_many_answers_of_one_conversation() -> None:
    """Answers that ran out go as often as the number of answers doubles, so that many slow nothing down."""
    clock = Clock()
    store = MemoryStore(clock)
    wait(store.append("a", 0, slots(1)))
    answers = store._logs["a"].answers = Counted()
    for number in range(1_000):
        wait(store.append("a", 1, [], TurnNote(key=f"k{number}", keep=60)))
    assert len(answers) == 1_000 and answers.met < 2_000
    clock.advance(60)
    for number in range(100):
        wait(store.append("a", 1, [], TurnNote(key=f"l{number}", keep=60)))
    assert len(answers) == 100
