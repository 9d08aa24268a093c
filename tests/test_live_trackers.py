"""Tests of trackers that are kept alive between turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from rasa_core_api.concurrency import Slices
from rasa_core_api.events import Event
from rasa_core_api.exceptions import StoreUnavailable
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

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.reads: list[int] = []

    async def read(self, sender_id: str, after: int = 0, limit: int | None = None) -> Tail | None:
        if after:
            self.reads.append(after)
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
#: Events of a log that is read in three pages.
LONG = 17_000


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
    keeper.append([LISTEN, *[user("greet")] * LONG])
    assert keeper.current().end == LONG + 1
    assert keeper.store.reads == [8_000, 16_000]


class Slow(CountingStore):
    """A store whose pages come when they are let through."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.gate: Deferred[None] = Deferred()

    async def read(self, sender_id: str, after: int = 0, limit: int | None = None) -> Tail | None:
        if after:
            self.reads.append(after)
            await self.gate
        return await super().read(sender_id, after, limit)


def slow_reading(keeper: Keeper) -> tuple[Slow, Deferred[object]]:
    """A long log whose second page is on its way while the first one is applied."""
    keeper.append([LISTEN, *[user("greet")] * LONG])
    store = Slow(keeper.clock)
    store.__dict__.update({**keeper.store.__dict__, "gate": store.gate})
    keeper.live = LiveTrackers(store, Slices(keeper.clock), keeper.clock.seconds)
    reading: Deferred[object] = Deferred.fromCoroutine(keeper.live.current("u", keeper.domain))
    assert store.reads == [8_000]
    return store, reading


def test_a_store_that_fails_at_a_later_page() -> None:
    """Whoever reads hears of it, and nothing is kept."""
    keeper = Keeper()
    store, reading = slow_reading(keeper)
    failures: list[Failure] = []
    reading.addErrback(failures.append)
    store.gate.errback(StoreUnavailable("gone"))
    for _ in range(1_000):
        keeper.clock.advance(0)
    assert [failure.type for failure in failures] == [StoreUnavailable]
    assert len(keeper.live) == 0


def test_reading_that_is_given_up() -> None:
    """The page that is on its way is given up, too, whether the reader waits for it or still applies the one before."""
    for steps in (0, 1_000):
        keeper = Keeper()
        store, reading = slow_reading(keeper)
        for _ in range(steps):
            keeper.clock.advance(0)
        failures: list[Failure] = []
        reading.addErrback(failures.append)
        reading.cancel()
        assert [failure.type for failure in failures] == [CancelledError]
        assert store.gate.called
        assert len(keeper.live) == 0


def test_a_log_that_is_replaced_while_it_is_read() -> None:
    """It is read from the beginning, as it is then."""
    keeper = Keeper()
    store, reading = slow_reading(keeper)
    results: list[Any] = []
    reading.addCallback(results.append)
    keeper.wait(keeper.store.replace("u", [LISTEN]))
    store.gate.callback(None)
    for _ in range(1_000):
        keeper.clock.advance(0)
    ((tracker, end),) = results
    assert (len(tracker.events), tracker.end) == (1, end)


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
    keeper.append([LISTEN, *[user("greet")] * LONG])
    request = RequestKey("k", "digest")
    opened = keeper.wait(keeper.live.open("u", keeper.domain, request, "mine"))
    assert (opened.stored, opened.tracker.end, opened.earlier) == (LONG + 1, LONG + 1, None)
    opened = keeper.wait(keeper.live.open("u", keeper.domain, request, "mine"))
    assert (opened.stored, opened.tracker.end, opened.earlier.end) == (LONG + 2, LONG + 2, LONG + 2)


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
