"""Tests of the outbox: what reaches the broker, and what becomes of it when broker, process or store fail."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from rasa_core_api.brokers import BATCH, Message
from rasa_core_api.concurrency import Slices
from rasa_core_api.events import SlotSet
from rasa_core_api.exceptions import InvalidConfiguration, NotBuilt, StoreUnavailable
from rasa_core_api.outbox import LEASE, LONGEST_PAUSE, NAME, TIME_LIMIT, Outbox
from rasa_core_api.tracker_store import memory_order
from rasa_core_api.tracker_store.memory import MemoryStore
from rasa_core_api.tracker_store.turns import FeedEntry
from tests.brokers.fakes import FakeBroker


class Bench:
    """One store, on a fake clock; any number of processes with an outbox and a broker connection each."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore(self.clock)
        self.ends: dict[str, int] = {}

    def do(self, work: Coroutine[Deferred[Any], Any, Any]) -> Any:
        results: list[Any] = []
        failures: list[Any] = []
        Deferred.fromCoroutine(work).addCallbacks(results.append, failures.append)
        for _ in range(600):
            if results or failures:
                break
            self.clock.advance(0.05)
        if failures:
            failures[0].raiseException()
        return results[0]

    def outbox(self, broker: FakeBroker, owner: str = "one") -> Outbox:
        self.clock.advance(0.01)
        outbox = Outbox(self.store, broker, self.clock, Slices(self.clock), owner, lambda: 0.5)
        self.do(outbox.start())
        return outbox

    def append(self, sender_id: str = "u", count: int = 1, tell: Outbox | None = None) -> None:
        end = self.ends.get(sender_id, 0)
        events = [SlotSet(key="n", value=end + n, timestamp=float(end + n)) for n in range(count)]
        self.ends[sender_id] = self.do(self.store.append(sender_id, end, events))
        if tell is not None:
            tell.wake(sender_id)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)


def kill(outbox: Outbox) -> None:
    """End a process without a word: its loop goes no further."""
    running, outbox._stopping = outbox._running, True
    assert running is not None
    running.cancel()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_what_is_stored_goes_out(bench: Bench) -> None:
    """Each event of a turn is a message in the historical shape, with its number beside it, a moment later."""
    broker = FakeBroker()
    outbox = bench.outbox(broker)
    bench.append(count=2, tell=outbox)
    assert broker.taken == [], "no turn waits"
    bench.run(0.2)
    assert broker.bodies() == [
        {"sender_id": "u", "seq": n, "event": "slot", "name": "n", "value": n, "timestamp": float(n)} for n in (0, 1)
    ]
    assert outbox.status() == {"type": "fake", "state": "publishing", "published": 2}


def test_it_begins_behind_what_is_there(bench: Bench) -> None:
    """The first start publishes nothing of the past; what comes after it does not get lost."""
    bench.append("old", 3)
    broker = FakeBroker()
    outbox = bench.outbox(broker)
    bench.append("new", tell=outbox)
    bench.run(1)
    assert [message.sender_id for message in broker.taken] == ["new"]


def test_a_burst_goes_out_in_batches(bench: Bench) -> None:
    """Batches are bounded, however much one append added, and many small appends go out together."""
    broker = FakeBroker()
    outbox = bench.outbox(broker)
    bench.append("long", 2 * BATCH + 1, tell=outbox)
    bench.run(1)
    assert broker.batches == [BATCH, BATCH, 1] and broker.seqs("long") == list(range(2 * BATCH + 1))
    broker.batches.clear()
    for number in range(300):
        end = bench.ends.get(f"s{number % 3}", 0)
        event = SlotSet(key="n", value=end, timestamp=1.0)
        done = Deferred.fromCoroutine(bench.store.append(f"s{number % 3}", end, [event]))
        assert done.called
        bench.ends[f"s{number % 3}"] = end + 1
        outbox.wake("s")
    bench.run(1)
    assert len(broker.batches) == 2 and broker.seqs("s1") == list(range(100))


def test_large_appends_follow_one_another(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the store hands over fewer than were asked for, since they are large, nobody waits for news."""
    feed = bench.store.feed

    async def cut(after: str | None, limit: int) -> list[FeedEntry]:
        return (await feed(after, limit))[:1]

    monkeypatch.setattr(bench.store, "feed", cut)
    monkeypatch.setattr("rasa_core_api.tracker_store.turns.FEED_SIZE", 100)
    broker = FakeBroker()
    outbox = bench.outbox(broker)
    for number in range(5):
        bench.append(f"s{number}")
    outbox.wake("s4")
    bench.run(1)
    assert [message.sender_id for message in broker.taken] == [f"s{number}" for number in range(5)]


def test_other_processes_appends_are_found(bench: Bench) -> None:
    """What another process stored goes out within about a second."""
    bench.store.shared = True
    broker = FakeBroker()
    bench.outbox(broker)
    bench.run(5)
    bench.append()
    bench.run(1.3)
    assert broker.seqs("u") == [0]


def test_a_broker_that_is_down(bench: Bench) -> None:
    """An outage costs a line in the log when it begins and when it ends, ever rarer tries, and no event."""
    broker = FakeBroker()
    broker.mode = "down"
    with capturedLogs() as lines:
        outbox = bench.outbox(broker)
        for _ in range(300):
            bench.append(tell=outbox)
            bench.run(1)
        status = outbox.status()
        assert status["state"] == "failing" and status["down_seconds"] == pytest.approx(300, abs=35)
        assert status["reason"] == "nobody answers"
        assert broker.opened < 25
        broker.mode = "up"
        bench.run(LONGEST_PAUSE)
    assert broker.seqs("u") == list(range(300))
    assert outbox.status()["state"] == "publishing"
    told = [line["log_format"] for line in lines if line["log_namespace"].endswith("outbox")]
    assert [text.partition("{")[0] for text in told] == ["events cannot be published to ", "events are published to "]


def test_nothing_is_read_for_a_broker_that_is_down(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries to reach it cost no look into the store, however much waits there."""
    broker = FakeBroker()
    broker.mode = "down"
    outbox = bench.outbox(broker)
    bench.append(count=500, tell=outbox)
    bench.run(1)
    assert outbox.status()["state"] == "failing"
    looks = []
    feed = bench.store.feed
    monkeypatch.setattr(bench.store, "feed", lambda after, limit: (looks.append(after), feed(after, limit))[1])
    opened = broker.opened
    bench.run(120)
    assert broker.opened > opened and looks == []
    broker.mode = "up"
    bench.run(LONGEST_PAUSE)
    assert broker.seqs("u") == list(range(500))


@pytest.mark.parametrize("when", ["open", "publish"])
def test_a_broker_that_hangs(bench: Bench, when: str) -> None:
    """No answer is an outage too, after the time limit."""
    broker = FakeBroker()
    outbox = bench.outbox(broker)
    if when == "publish":
        bench.append(tell=outbox)
        bench.run(1)
    broker.mode = "hangs"
    bench.append(tell=outbox)
    bench.run(TIME_LIMIT + 1)
    assert outbox.status()["state"] == "failing" and not broker.is_open
    broker.mode = "up"
    bench.run(TIME_LIMIT + 3)  # the try that was under way hangs too
    assert broker.seqs("u") == list(range(bench.ends["u"]))


def test_a_crash_before_the_cursor_moved(bench: Bench) -> None:
    """What was taken and not noted goes out again, with the same numbers; nothing is left out."""
    broker = FakeBroker()
    outbox = bench.outbox(broker)
    broker.mode = "deaf"
    bench.append(count=2, tell=outbox)
    bench.run(0.3)
    kill(outbox)
    assert broker.seqs("u") == [0, 1]
    broker.mode = "up"
    bench.run(LEASE)
    bench.outbox(broker, "two")
    bench.append()
    bench.run(10)
    assert broker.seqs("u") == [0, 1, 0, 1, 2]


def test_a_restart_resumes(bench: Bench) -> None:
    """What was stored while no outbox ran is published by the next one, and nothing twice after an orderly stop."""
    first = FakeBroker()
    outbox = bench.outbox(first)
    bench.append(tell=outbox)
    bench.do(outbox.stop(5.0))
    assert first.seqs("u") == [0] and not first.is_open, "the last events go out before the end"
    bench.append()
    second = FakeBroker()
    bench.outbox(second, "two")
    bench.run(1)
    assert second.seqs("u") == [1], "the role was given back: nobody waits for it to run out"


def test_a_stop_during_an_outage(bench: Bench) -> None:
    """A broker that is down does not hold up the end of the server."""
    broker = FakeBroker()
    outbox = bench.outbox(broker)
    broker.mode = "hangs"
    bench.append(tell=outbox)
    bench.run(1)
    began = bench.clock.seconds()
    bench.do(outbox.stop(5.0))
    assert bench.clock.seconds() - began < 9
    second = FakeBroker()
    bench.outbox(second, "two")
    bench.run(1)
    assert second.seqs("u") == [0]


def test_one_publishes_at_a_time(bench: Bench) -> None:
    """Of two processes one publishes; the other takes over soon after the first is gone, in order."""
    one, two = FakeBroker(), FakeBroker()
    first = bench.outbox(one)
    second = bench.outbox(two, "two")
    for _ in range(100):
        bench.append(tell=second)
        first.wake("u")
        bench.run(1)
    assert second.status()["state"] == "standby"
    assert one.seqs("u") == list(range(100)) and two.taken == []
    kill(first)
    bench.append(tell=second)
    bench.run(LEASE + 8)
    assert two.seqs("u") == [100]


def test_who_lost_the_role_does_not_go_on(bench: Bench) -> None:
    """A process that slept beyond its time begins anew at the common cursor, and not at its own."""
    one, two = FakeBroker(), FakeBroker()
    first = bench.outbox(one)
    bench.append(tell=first)
    bench.run(1)
    # the role goes to somebody else, who publishes
    bench.clock.rightNow += LEASE + 1
    assert bench.do(bench.store.hold(NAME, "two", LEASE))
    bench.append()
    bench.do(bench.store.set_cursor(NAME, bench.do(bench.store.feed_end())))
    first.wake("u")
    bench.run(2)
    assert one.seqs("u") == [0] and first.status()["state"] == "standby" and two.taken == []
    bench.run(2 * LEASE)
    bench.append(tell=first)
    bench.run(1)
    assert one.seqs("u") == [0, 2]


def test_a_broker_that_takes_little(bench: Bench) -> None:
    """What a broker took of a batch is not sent again, though an append is torn; it gets on as there is room."""
    broker = FakeBroker()
    outbox = bench.outbox(broker)
    broker.room = 3
    bench.append(count=5)
    bench.append(count=5, tell=outbox)
    bench.run(3)
    assert broker.seqs("u") == [0, 1, 2] and outbox.status()["published"] == 3
    for _ in range(7):
        broker.room = 1
        bench.run(3)  # pauses do not grow while it takes something
    assert broker.seqs("u") == list(range(10))
    bench.run(3)
    assert outbox.status() == {"type": "fake", "state": "publishing", "published": 10}


def test_a_broker_that_takes_one_at_a_time(bench: Bench) -> None:
    """It gets no more at once than it asks for, for as long as it does."""
    broker = FakeBroker()
    outbox = bench.outbox(broker)
    broker.most = 1
    bench.append(count=5, tell=outbox)
    bench.run(1)
    broker.most = BATCH
    bench.append(count=5, tell=outbox)
    bench.run(1)
    assert broker.batches == [1, 1, 1, 1, 1, 5] and broker.seqs("u") == list(range(10))


def test_a_failure_of_any_kind_repeats_one_batch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that were taken before the one that failed are not sent again, whatever the failure was."""
    broker = FakeBroker()
    outbox = bench.outbox(broker)
    publish = broker.publish

    async def little(batch: Sequence[Message]) -> None:
        if len(batch) > 4:
            raise OSError("no space left")
        await publish(batch)

    monkeypatch.setattr(broker, "publish", little)
    bench.append(count=12)
    bench.append(count=12, tell=outbox)
    bench.run(20)
    assert broker.seqs("u") == list(range(24)) and max(broker.batches) == 4


def test_a_restart_during_an_outage_repeats_little(bench: Bench) -> None:
    """The cursor stands behind the last append that the broker has as a whole."""
    broker = FakeBroker()
    outbox = bench.outbox(broker)
    broker.room = 7
    bench.append(count=5)
    bench.append(count=5, tell=outbox)
    bench.run(1)
    kill(outbox)
    bench.run(LEASE)
    second = FakeBroker()
    bench.outbox(second, "two")
    bench.run(10)
    assert second.seqs("u") == [5, 6, 7, 8, 9]


def test_an_event_that_is_never_taken(bench: Bench) -> None:
    """It is left out and told, with its number and nothing of what it says; all others go out."""
    broker = FakeBroker()
    outbox = bench.outbox(broker)
    broker.never = {3, 40}
    with capturedLogs() as logged:
        for _ in range(60):
            bench.append(count=2, tell=outbox)
        bench.run(10)
    assert broker.seqs("u") == [seq for seq in range(120) if seq not in broker.never]
    assert outbox.status() == {"type": "fake", "state": "publishing", "published": 118, "refused": 2}
    told = [line["seq"] for line in logged if "never takes event" in str(line.get("log_format"))]
    assert told == [3, 40]


def test_a_store_that_is_down(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outbox goes on when the store is there again."""
    broker = FakeBroker()
    outbox = bench.outbox(broker)

    async def fails(*_: object) -> Any:
        raise StoreUnavailable("away")

    with monkeypatch.context() as away:
        away.setattr(bench.store, "feed", fails)
        bench.append(tell=outbox)
        bench.run(5)
        assert outbox.status()["reason"] == "away"
    bench.run(10)
    assert broker.seqs("u") == [0]


def test_a_store_without_an_order(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that cannot tell the order of its appends refuses at the start."""

    async def lacks(*_: object) -> Any:
        raise NotBuilt("The conversation store 'mine' has no feed.")

    monkeypatch.setattr(bench.store, "hold", lacks)
    with pytest.raises(InvalidConfiguration, match=r"event_broker: .*no feed"):
        bench.outbox(FakeBroker())


def test_what_was_replaced_is_gone(bench: Bench) -> None:
    """Events that left the log before they were published are not published; those in their place are."""
    broker = FakeBroker()
    outbox = bench.outbox(broker)
    broker.mode = "down"
    bench.append(count=2, tell=outbox)
    bench.do(bench.store.replace("u", [SlotSet(key="n", value=7, timestamp=1.0)]))
    broker.mode = "up"
    bench.run(10)
    assert broker.seqs("u") == [2]


def test_behind_what_is_remembered(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the store forgot before it could be published is told, once; what it remembers goes out."""
    monkeypatch.setattr(memory_order, "KEPT", 250)
    monkeypatch.setattr(memory_order, "MOST", 400)
    kill(bench.outbox(FakeBroker()))
    for _ in range(502):
        bench.append()
    broker = FakeBroker()
    with capturedLogs() as logged:
        outbox = bench.outbox(broker)
        bench.run(3)
    assert [body["seq"] for body in broker.bodies()] == list(range(101, 502))
    assert outbox.status() == {"type": "fake", "state": "publishing", "published": 401, "gaps": 1}
    assert len([line for line in logged if "not published to" in str(line.get("log_format"))]) == 1


def test_large_events_behind_what_is_remembered(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the store forgot is told, too, where it hands out fewer appends at once since they are large."""
    monkeypatch.setattr(memory_order, "KEPT", 250)
    monkeypatch.setattr(memory_order, "MOST", 400)
    monkeypatch.setattr("rasa_core_api.tracker_store.turns.FEED_SIZE", 4_000)
    kill(bench.outbox(FakeBroker()))
    for _ in range(502):
        bench.append()
    feed = bench.store.feed
    monkeypatch.setattr(bench.store, "feed", lambda after, limit: feed(after, min(limit, 50)))
    broker = FakeBroker()
    outbox = bench.outbox(broker)
    bench.run(3)
    assert [body["seq"] for body in broker.bodies()] == list(range(101, 502))
    assert outbox.status()["gaps"] == 1


def test_a_stop_while_the_store_hangs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that says nothing does not hold up the end of the server by the role that was to be given back."""
    outbox = bench.outbox(FakeBroker())

    async def says_nothing(*_: object) -> Any:
        await Deferred()

    monkeypatch.setattr(bench.store, "hold", says_nothing)
    began = bench.clock.seconds()
    bench.do(outbox.stop(5.0))
    assert bench.clock.seconds() - began < 10.0
    assert not bench.clock.getDelayedCalls()
