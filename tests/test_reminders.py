"""Tests of reminders: when they begin, what becomes of those that fail, and of those that another process left."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import datetime, timezone
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs

from rasa_core_api.concurrency import Slices
from rasa_core_api.events import Event, ReminderScheduled, Restarted, SlotSet, UserUttered
from rasa_core_api.exceptions import AgentNotReady, RasaCoreError, StoreUnavailable, UnknownAction
from rasa_core_api.reminders import (
    AT_ONCE,
    LEFT,
    LOOK,
    LOOK_SHARED,
    MOST_AT_ONCE,
    MOST_KNOWN,
    MOST_TAKEN,
    RETRY,
    SLOW,
    WORD,
    Reminders,
    due_at,
    standing,
    unfired,
)
from rasa_core_api.tracker_store.memory import MemoryStore
from rasa_core_api.tracker_store.turns import Reminder, TurnNote
from rasa_core_api.trackers import Tracker
from tests.conftest import LoggedFailures
from tests.test_anonymising import DOMAIN


class Rounds(Clock):
    """A clock on which a round of the reactor takes a millisecond."""

    def callLater(self, delay: float, callable: Any, *args: object, **kw: object) -> Any:
        return super().callLater(max(delay, 0.001), callable, *args, **kw)


class Bench:
    """Reminders on a fake clock; `fired` has the names in order. No slice has room for two."""

    def __init__(self, error: Exception | None = None) -> None:
        self.clock = Rounds()
        self.ahead = 0.0  # of the clock: the time of day
        self.fired: list[str] = []
        self.error = error
        self.slow: list[Deferred[None]] | None = None  # what those that fire wait for
        self.store = MemoryStore(self.clock)
        self.reminders = self.made()

    def made(self) -> Reminders:
        times = iter(range(1_000_000))
        slices = Slices(self.clock, 0.5, lambda: float(next(times)))
        return Reminders(self.clock, lambda: self.clock.seconds() + self.ahead, self.store, self.fire, slices)

    async def fire(self, reminder: Reminder, channel: object) -> bool:
        self.fired.append(f"{reminder.sender_id} {reminder.name}")
        if self.slow is not None:
            self.slow.append(Deferred())
            await self.slow[-1]
        if self.error is not None:
            raise self.error
        return False

    def do(self, work: Coroutine[Deferred[Any], Any, Any]) -> Any:
        results: list[Any] = []
        Deferred.fromCoroutine(work).addCallback(results.append)
        return results[0]

    def stored(self, sender_id: str = "u") -> list[str]:
        return [reminder.name for reminder in self.do(self.store.reminders(sender_id))]

    def remind(self, name: str, due: float, sender_id: str = "u", known: bool = True) -> Reminder:
        """Store a reminder; unless `known`, as another process does."""
        tail = self.do(self.store.read(sender_id))
        end = 0 if tail is None else tail.end
        reminder = Reminder(sender_id, name, due, end)
        when = datetime(2000, 1, 1, tzinfo=timezone.utc)
        event = ReminderScheduled(action_name="a", trigger_date_time=when, name=name, timestamp=0.0)
        self.do(self.store.append(sender_id, end, [event], TurnNote(reminders=[reminder])))
        if known:
            self.reminders.scheduled(reminder, None)
        return reminder


def test_one_name_is_one_reminder() -> None:
    """A reminder replaces the one of its name, in its own conversation."""
    bench = Bench()
    bench.remind("r", 5)
    bench.remind("r", 9)
    bench.remind("r", 5, "v")
    bench.clock.advance(6)
    assert bench.fired == ["v r"]
    bench.clock.advance(3)
    assert bench.fired == ["v r", "u r"]
    assert bench.stored() == bench.stored("v") == []


def test_many_at_once_begin_in_slices() -> None:
    """What is due at one moment does not run in one round of the reactor."""
    bench = Bench()
    for number in range(100):
        bench.remind(str(number), 5)
    bench.clock.advance(5)
    assert len(bench.fired) < 10
    bench.clock.pump([0.001] * 200)
    assert bench.fired == [f"u {number}" for number in range(100)]
    bench.remind("later", 6)
    bench.clock.advance(1)
    assert bench.fired[-1] == "u later"


def test_stopping_leaves_all_to_the_store() -> None:
    """Nothing begins after the end, be it due already or not; the next start finds it."""
    bench = Bench()
    for number in range(10):
        bench.remind(str(number), 5)
    bench.remind("later", 6)
    bench.clock.advance(5)
    begun = len(bench.fired)
    assert begun < 10
    bench.reminders.stop()
    bench.clock.pump([0.001] * 20)
    bench.clock.advance(10)
    assert len(bench.fired) == begun
    again = bench.made()
    again.start()
    bench.clock.pump([0.001] * 40)
    assert len(bench.fired) == 11
    again.stop()


def test_few_run_at_once() -> None:
    """Of many that are due a bounded number is under way, so that users find room; the next begins when one ends."""
    bench = Bench()
    bench.slow = []
    for number in range(3 * AT_ONCE):
        bench.remind("r", 5, f"u{number}")
    bench.clock.advance(5)
    bench.clock.pump([0.001] * int(SLOW / 0.001 - 2))
    assert len(bench.fired) == AT_ONCE
    bench.slow[7].callback(None)
    bench.clock.pump([0.001] * 5)
    assert len(bench.fired) == AT_ONCE + 1
    while len(bench.fired) < 3 * AT_ONCE:
        for waiting in bench.slow:
            if not waiting.called:
                waiting.callback(None)
        bench.clock.pump([0.001] * 5)
    assert len(set(bench.fired)) == 3 * AT_ONCE


def test_slow_actions_keep_no_others_waiting() -> None:
    """Where none of those under way comes to an end, more begin, up to a bound."""
    bench = Bench()
    bench.slow = []
    for number in range(MOST_AT_ONCE + 5):
        bench.remind("r", 5, f"u{number}")
    bench.clock.advance(5)
    bench.clock.pump([0.001] * 150)
    assert AT_ONCE < len(bench.fired) <= 4 * AT_ONCE
    bench.clock.pump([0.001] * 5_000)
    assert len(bench.fired) == MOST_AT_ONCE
    for waiting in list(bench.slow):
        waiting.callback(None)
    bench.clock.pump([0.01] * 20)
    assert len(bench.fired) == MOST_AT_ONCE + 5


def test_turn_took_longer_than_the_time() -> None:
    """A reminder that became due while the turn that asked for it went on fires as soon as the turn is stored."""
    bench = Bench()
    bench.clock.advance(60)
    bench.remind("r", 5)
    bench.clock.pump([0.001] * 3)
    assert bench.fired == ["u r"]


def test_one_at_a_time_in_a_conversation() -> None:
    """A conversation's reminders do not fill its line: a user's message waits for one of them at most."""
    bench = Bench()
    bench.slow = []
    for number in range(3):
        bench.remind(str(number), 5 + number / 10)
    bench.remind("r", 6, "v")
    bench.clock.pump([6.0, *[0.001] * 10])
    assert bench.fired == ["u 0", "v r"]
    bench.slow[0].callback(None)
    bench.clock.pump([0.001] * 10)
    assert bench.fired == ["u 0", "v r", "u 1"]
    bench.reminders.stop()
    bench.slow[1].callback(None)
    bench.slow[2].callback(None)
    bench.clock.pump([0.001] * 10)
    assert len(bench.fired) == 3


def test_all_that_were_left_fire_at_once() -> None:
    """After a restart more reminders than one look takes are fired without waiting for the next look."""
    bench = Bench()
    for number in range(2 * MOST_TAKEN + 50):
        bench.remind("r", 5, f"u{number}", known=False)
    bench.clock.advance(10)
    bench.reminders.start()
    bench.clock.pump([0.001] * 3 * (2 * MOST_TAKEN + 50))
    assert len(set(bench.fired)) == len(bench.fired) == 2 * MOST_TAKEN + 50
    bench.reminders.stop()


def test_those_that_wait_hide_no_others() -> None:
    """However many early ones have to be tried again, later ones are found."""
    bench = Bench(AgentNotReady("no model"))
    for number in range(MOST_TAKEN + 10):
        bench.remind("r", 5, f"u{number}", known=False)
    bench.clock.advance(10)
    bench.reminders.start()
    bench.clock.pump([0.001] * 2_000)
    assert len(bench.fired) >= MOST_TAKEN
    bench.remind("last", 6, known=False)
    bench.clock.pump([LOOK, *[0.001] * 2_000])
    assert "u last" in bench.fired
    bench.reminders.stop()


def test_waiting_is_told_once_in_a_while() -> None:
    """Thousands that wait for a model are no thousands of lines in the log."""
    bench = Bench(AgentNotReady("no model"))
    for number in range(50):
        bench.remind(str(number), 5, f"u{number}")
    with capturedLogs() as told:
        bench.clock.pump([5.0, *[0.001] * 200])
        assert len(told) == 1 and told[0]["reason"] == "no model"
        bench.clock.pump([WORD, *[0.001] * 200])
    assert len(told) == 2
    bench.reminders.stop()


@pytest.mark.parametrize("ahead", [3_600.0, -3_600.0])
def test_time_of_day_jumps(ahead: float) -> None:
    """A reminder fires at its time of day, also where that comes sooner or later than it seemed."""
    bench = Bench()
    bench.remind("r", 4_000)
    bench.clock.advance(10)
    bench.ahead = ahead
    for _ in range(0, 8_000, 10):
        if bench.fired:
            break
        bench.clock.advance(10)
    assert 4_000 <= bench.clock.seconds() + ahead <= 4_000 + LOOK
    bench.reminders.stop()


def test_same_name_again_and_again() -> None:
    """Who puts a reminder off with each message leaves nothing behind."""
    bench = Bench()
    for number in range(2_000):
        bench.remind("r", 1e9 + number)
    assert len(bench.reminders) == 1 and len(bench.reminders._times) < 300
    assert len(bench.clock.getDelayedCalls()) == 1


def test_far_ones_are_left_to_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many wait here; those beyond are found in the store when their time comes."""
    assert MOST_KNOWN > 1_000
    monkeypatch.setattr("rasa_core_api.reminders.MOST_KNOWN", 10)
    bench = Bench()
    bench.reminders.start()
    for number in range(20):
        bench.remind("r", 100 + number, f"u{number}")
    bench.remind("soon", 5)
    assert len(bench.reminders) == 11
    for _ in range(140):
        bench.clock.advance(1)
    assert len(set(bench.fired)) == len(bench.fired) == 21
    bench.reminders.stop()


def test_left_to_the_process_that_asked() -> None:
    """Of a shared store each process fires its own; what nobody fired is taken over a moment later."""
    bench = Bench()
    bench.store.shared = bench.store.claims = True
    bench.reminders.start()
    bench.remind("mine", 5)
    bench.remind("theirs", 5, known=False)
    bench.clock.pump([0.25] * 20)
    assert bench.fired == ["u mine"]
    bench.clock.pump([0.25] * int((LEFT + LOOK_SHARED) / 0.25 + 1))
    assert bench.fired == ["u mine", "u theirs"]
    bench.reminders.stop()


def test_conversation_begun_anew_elsewhere() -> None:
    """A reminder of a conversation that another process deleted and began anew is not kept waiting by the old one."""
    bench = Bench()
    bench.store.shared = bench.store.claims = True
    bench.reminders.start()
    bench.do(bench.store.append("u", 0, [said("hi")]))
    bench.remind("r", 500)
    bench.do(bench.store.delete("u"))
    bench.remind("r", 5, known=False)
    bench.clock.pump([0.25] * int((5 + LEFT + LOOK_SHARED) / 0.25 + 1))
    assert bench.fired == ["u r"]
    bench.reminders.stop()


def test_each_process_begins_elsewhere() -> None:
    """Several processes that find the same many reminders do not all try the same ones."""
    bench = Bench()
    bench.store.shared = True
    for number in range(AT_ONCE * 4):
        bench.remind("r", 5, f"u{number}", known=False)
    bench.clock.advance(10)
    begun = []
    for owner in "ab":
        bench.fired, bench.slow = [], []
        reminders = Reminders(bench.clock, bench.clock.seconds, bench.store, bench.fire, owner=owner)
        reminders.start()
        bench.clock.pump([0.001] * 5)
        begun.append(set(bench.fired))
        reminders.stop()
    assert len(begun[0]) == len(begun[1]) == AT_ONCE
    assert len(begun[0] & begun[1]) < AT_ONCE / 2


def test_reminders_of_others_are_found() -> None:
    """What another process left is fired on time when a look comes before, else at the next look."""
    bench = Bench()
    bench.remind("early", 10, known=False)
    bench.reminders.start()
    bench.remind("unseen", 12, known=False)
    bench.remind("far", 3 * LOOK, known=False)
    bench.clock.advance(10)
    assert bench.fired == ["u early"]
    bench.clock.advance(LOOK - 10)
    bench.clock.advance(0.01)
    assert bench.fired == ["u early", "u unseen"]
    for _ in range(3):
        bench.clock.advance(LOOK)
    assert bench.fired == ["u early", "u unseen", "u far"]
    bench.reminders.stop()
    assert not bench.clock.getDelayedCalls()


def test_log_that_was_made_anonymous() -> None:
    """A reminder whose event got another number fires on time all the same."""
    bench = Bench()
    bench.reminders.start()
    asked = bench.remind("r", 5)
    bench.clock.advance(1)
    events = bench.do(bench.store.read("u")).events
    bench.do(bench.store.replace("u", events, TurnNote(reminders=[evolve(asked, seq=1)])))
    bench.clock.advance(4)
    bench.clock.advance(0.1)
    assert bench.fired == ["u r"]
    bench.reminders.stop()


def test_removed_reminder_does_not_fire() -> None:
    """A reminder that was removed from the store, or fired by somebody else, is not fired here."""
    bench = Bench()
    bench.do(bench.store.forget(bench.remind("r", 5)))
    bench.clock.advance(5)
    assert bench.fired == []


@pytest.mark.parametrize("year", [1, 9999])
def test_absurd_dates(year: int) -> None:
    """The first and the last year are dates like others."""
    bench = Bench()
    when = datetime(year, 12, 31, 23, 59, tzinfo=timezone.utc)
    event = ReminderScheduled(action_name="a", trigger_date_time=when, name="r", timestamp=0.0)
    bench.remind("r", due_at(event))
    bench.clock.pump([100.0, 0.1])
    assert len(bench.reminders) == len(bench.stored()) == (year == 9999)
    bench.reminders.stop()
    assert not bench.clock.getDelayedCalls()


def test_failures_are_told_in_one_line() -> None:
    """A reminder for an action that is gone is one line in the log, and is not tried again."""
    bench = Bench(UnknownAction("there is no 'x'\nsecond line"))
    bench.remind("r", 1)
    with capturedLogs() as told:
        bench.clock.advance(1)
    (line,) = [event for event in told if event["log_level"] is LogLevel.error]
    assert line["reason"] == "there is no 'x'"
    assert bench.stored() == []


def test_store_that_is_away_is_waited_for() -> None:
    """While the store is away a reminder waits, and fires when it is back."""
    bench = Bench(StoreUnavailable("away"))
    bench.remind("r", 1)
    bench.clock.advance(1)
    bench.clock.advance(RETRY)
    assert bench.fired == ["u r", "u r"] and bench.stored() == ["r"]
    bench.error = None
    bench.clock.advance(RETRY)
    assert bench.fired == ["u r", "u r", "u r"] and bench.stored() == []
    bench.clock.advance(RETRY)
    assert len(bench.fired) == 3


def test_outage_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that cannot be asked is one line in the log, and is asked again."""
    bench = Bench()
    asked: list[float] = []

    async def away(before: float, limit: int) -> list[Reminder]:
        asked.append(before)
        raise StoreUnavailable("away")

    monkeypatch.setattr(bench.store, "due", away)
    with capturedLogs() as told:
        bench.reminders.start()
        for _ in range(3):
            bench.clock.advance(LOOK)
    assert len(asked) == 4
    assert [event["reason"] for event in told if event["log_level"] is LogLevel.error] == ["away"]
    bench.reminders.stop()


def test_surprises_are_told_with_their_traceback(logged: LoggedFailures) -> None:
    """What nobody expected is logged as it is, and the next reminder begins all the same."""
    bench = Bench(ZeroDivisionError())
    bench.remind("r", 1)
    bench.remind("s", 2)
    bench.clock.advance(1)
    bench.clock.advance(1)
    assert bench.fired == ["u r", "u s"]
    assert logged.take() == [ZeroDivisionError, ZeroDivisionError]


def test_store_without_reminders() -> None:
    """Where a store of somebody's own keeps none, reminders live as long as the process."""
    bench = Bench()

    class Bare(MemoryStore):
        async def due(self, before: float, limit: int) -> list[Reminder]:
            raise self._lacks("reminders")

        async def reminders(self, sender_id: str) -> list[Reminder]:
            raise self._lacks("reminders")

        async def waits(self, reminder: Reminder) -> bool:
            raise self._lacks("reminders")

        async def forget(self, reminder: Reminder) -> bool:
            raise self._lacks("reminders")

    bench.store = Bare(bench.clock)
    bench.reminders = bench.made()
    bench.reminders.start()
    bench.reminders.scheduled(Reminder("u", "r", 5.0, 0), None)
    bench.clock.advance(5)
    assert bench.fired == ["u r"]
    assert isinstance(bench.store._lacks("x"), RasaCoreError)


@pytest.mark.parametrize(("late", "void"), [(0.5, False), (60.0, True)])
def test_one_that_was_past_when_it_was_asked_for(late: float, void: bool) -> None:
    """It is void for whoever finds it in the store; a moment of lateness does not matter."""
    asked = 1_600_000_000.0
    when = datetime.fromtimestamp(asked - late, timezone.utc)
    reminder = ReminderScheduled(action_name="utter_greet", trigger_date_time=when, name="r", timestamp=asked)
    tracker = Tracker("u", DOMAIN)
    tracker.extend([reminder])
    assert (standing(tracker, [Reminder("u", "r", asked - late, 0)]) == []) is void


def asks(name: str, due: float, kill: bool = True, timestamp: float = 1.0) -> ReminderScheduled:
    when = datetime.fromtimestamp(due, timezone.utc)
    return ReminderScheduled(
        action_name="utter_greet", trigger_date_time=when, name=name, kill_on_user_message=kill, timestamp=timestamp
    )


def said(text: str | None) -> UserUttered:
    return UserUttered(text=text, parse_data={}, timestamp=1.0)


SET = SlotSet(key="nobody knows it", value=1, timestamp=1.0)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([SET, asks("r", 20.0), SET], {1: ("r", 20.0)}),
        ([asks("r", 10.0)], {}),
        ([asks("r", 20.0), SET, asks("r", 30.0), asks("s", 15.0)], {2: ("r", 30.0), 3: ("s", 15.0)}),
        ([asks("r", 20.0), asks("r", 5.0)], {}),
        ([asks("r", 20.0), asks("s", 20.0, kill=False), said("hi")], {1: ("s", 20.0)}),
        ([asks("r", 20.0), said(None)], {0: ("r", 20.0)}),
        ([asks("r", 20.0), Restarted(timestamp=1.0), asks("s", 20.0)], {2: ("s", 20.0)}),
        ([asks("r", 20.0, timestamp=99.0)], {}),
        ([SET], {}),
    ],
    ids=["later", "past", "one name", "moved ahead", "user spoke", "nothing said", "restart", "late", "none"],
)
def test_reminders_of_a_log_alone(events: list[Event], expected: dict[int, tuple[str, float]]) -> None:
    """What would fire yet in the process that kept the reminders of this log in its memory, at second 10."""
    found = unfired("u", events, 10.0)
    assert {index: (each.name, each.due) for index, each in found.items()} == expected
    assert all(each.seq == index and each.sender_id == "u" for index, each in found.items())
