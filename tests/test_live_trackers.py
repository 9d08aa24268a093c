"""Tests of trackers that are kept alive between turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from rasa_core_api.concurrency import Slices
from rasa_core_api.events import Event
from rasa_core_api.live_trackers import LiveTrackers
from rasa_core_api.messages import RequestKey
from rasa_core_api.tracker_store import Tail
from rasa_core_api.tracker_store.memory import MemoryStore
from rasa_core_api.tracker_store.turns import Opening, TurnNote
from rasa_core_api.trackers import Tracker
from tests.samples import action, domain, user


class CountingStore(MemoryStore):
    """Counts the events that are read."""

    read_events = 0

    async def read(self, sender_id: str, after: int = 0, limit: int | None = None) -> Tail | None:
        tail = await super().read(sender_id, after, limit)
        self.read_events += len(tail.events) if tail else 0
        return tail


class Keeper:
    def __init__(self, **limits: int) -> None:
        self.clock = Clock()
        self.store = CountingStore(self.clock)
        self.domain = domain("0.11")
        self.live = LiveTrackers(self.store, Slices(self.clock), self.clock.seconds, **limits)

    def wait(self, work: Any) -> Any:
        results: list[Any] = []
        waiting = Deferred.fromCoroutine(work).addCallback(results.append)
        waiting.addErrback(lambda failure: failure.raiseException())
        for _ in range(10_000):
            if results:
                break
            self.clock.advance(0)
        return results[0]

    def current(self, sender_id: str = "u") -> Tracker:
        return self.wait(self.live.current(sender_id, self.domain))[0]  # type: ignore[no-any-return]

    def append(self, events: Sequence[Event], sender_id: str = "u") -> None:
        tail = self.wait(self.store.read(sender_id))
        self.wait(self.store.append(sender_id, tail.end if tail else 0, events))
        self.store.read_events = 0


LISTEN = action("action_listen")


def test_unknown_conversations_begin_with_a_listen() -> None:
    """A new conversation has one event that is not stored yet."""
    keeper = Keeper()
    tracker, stored = keeper.wait(keeper.live.current("u", keeper.domain))
    assert (tracker.end, stored, tracker.latest_action_name) == (1, 0, "action_listen")


def test_a_kept_tracker_reads_nothing() -> None:
    """While this process alone writes, a tracker that is alive needs no store."""
    keeper = Keeper()
    keeper.append([LISTEN, user("greet")])
    first = keeper.current()
    assert keeper.store.read_events == 2
    assert keeper.current() is first
    assert keeper.store.read_events == 2


def test_a_shared_store_is_caught_up_with() -> None:
    """Where others write too, a tracker reads only what came since."""
    keeper = Keeper()
    keeper.store.shared = True
    keeper.append([LISTEN, user("greet")])
    tracker = keeper.current()
    keeper.append([action("utter_hi"), LISTEN])
    assert keeper.current() is tracker
    assert keeper.store.read_events == 2
    assert tracker.end == 4


def test_a_replaced_log_is_read_anew() -> None:
    """When somebody replaced the conversation, the tracker begins with the new log."""
    keeper = Keeper()
    keeper.store.shared = True
    keeper.append([LISTEN, user("greet")])
    keeper.current()
    keeper.wait(keeper.store.replace("u", [LISTEN, user("bye"), LISTEN]))
    assert keeper.current().intent_name == "bye"
    assert keeper.current().start == 2


def test_another_domain_needs_another_tracker() -> None:
    """A tracker that was built under another model's domain is not used."""
    keeper = Keeper()
    keeper.append([LISTEN])
    first = keeper.current()
    keeper.domain = domain("0.12")
    assert keeper.current() is not first


def test_long_logs_are_read_in_pages() -> None:
    """A log of many pages comes back whole."""
    keeper = Keeper()
    keeper.append([LISTEN, *[user("greet")] * 5_000])
    assert keeper.current().end == 5_001


class Busy(CountingStore):
    """A store in which another process ends a turn after the first look."""

    idle = True

    async def look(
        self, sender_id: str, after: int = 0, limit: int | None = None, key: str | None = None, owner: str = ""
    ) -> Opening:
        opening = await super().look(sender_id, after, limit, key, owner)
        if self.idle and opening.tail is not None:
            self.idle = False
            end = opening.tail.end
            note = TurnNote(owner="other", key="k", base=end, answer="{}", keep=60, done=True)
            await self.append(sender_id, end, [LISTEN], note)
        return opening


def test_the_events_of_a_request_come_with_its_answer() -> None:
    """What is stored while a long log is read is left for the next look, since its answers were not asked for."""
    keeper = Keeper()
    keeper.store = Busy(keeper.clock)
    keeper.store.shared = True
    keeper.live = LiveTrackers(keeper.store, Slices(keeper.clock), keeper.clock.seconds)
    keeper.append([LISTEN, *[user("greet")] * 5_000])
    request = RequestKey("k", "digest")
    opened = keeper.wait(keeper.live.open("u", keeper.domain, request, "mine"))
    assert (opened.stored, opened.tracker.end, opened.earlier) == (5_001, 5_001, None)
    opened = keeper.wait(keeper.live.open("u", keeper.domain, request, "mine"))
    assert (opened.stored, opened.tracker.end, opened.earlier.end) == (5_002, 5_002, 5_002)


def test_the_cache_is_bounded() -> None:
    """The least recently used trackers go when there are too many, or too many events."""
    keeper = Keeper(max_trackers=2)
    for sender_id in "abc":
        keeper.append([LISTEN], sender_id)
        keeper.current(sender_id)
    assert len(keeper.live) == 2
    keeper = Keeper(max_events=25)
    for sender_id in "abc":
        keeper.append([LISTEN] * 10, sender_id)
        keeper.current(sender_id)
    assert len(keeper.live) == 2


def test_trackers_of_old_models() -> None:
    """Trackers of a model that is out of service are dropped, also those that come back from a turn."""
    keeper = Keeper()
    served = domain("0.11")
    old = [Tracker(f"s{number}", keeper.domain) for number in range(300)]
    for tracker in old:
        keeper.live.keep(tracker)
    keeper.live.keep(Tracker("new", served))
    keeper.wait(keeper.live.serve(served))
    assert len(keeper.live) == 1
    keeper.live.keep(old[0])
    assert len(keeper.live) == 1
