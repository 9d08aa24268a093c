"""Tests of reminders: when they begin, and what becomes of those that fail."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs

from rasa_core_api.concurrency import Slices
from rasa_core_api.events import ReminderScheduled
from rasa_core_api.exceptions import UnknownAction
from rasa_core_api.reminders import Reminders
from tests.conftest import LoggedFailures


class Rounds(Clock):
    """A clock on which a round of the reactor takes a millisecond."""

    def callLater(self, delay: float, callable: Any, *args: object, **kw: object) -> Any:
        return super().callLater(max(delay, 0.001), callable, *args, **kw)


class Bench:
    """Reminders on a fake clock; `fired` has the names in order. No slice has room for two."""

    def __init__(self, error: Exception | None = None) -> None:
        self.clock = Rounds()
        self.fired: list[str] = []
        self.error = error
        times = iter(range(1_000_000))
        slices = Slices(self.clock, 0.5, lambda: float(next(times)))
        self.reminders = Reminders(self.clock, self.clock.seconds, self.fire, slices)

    async def fire(self, sender_id: str, reminder: ReminderScheduled, channel: object) -> None:
        self.fired.append(f"{sender_id} {reminder.name}")
        if self.error is not None:
            raise self.error

    def remind(self, name: str, second: int, sender_id: str = "u", **changes: Any) -> None:
        when = datetime.fromtimestamp(second, timezone.utc)
        values = {"action_name": "a", "trigger_date_time": when, "name": name, "timestamp": 0.0, **changes}
        self.reminders.schedule(sender_id, ReminderScheduled(**values), None)


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


def test_stopping_forgets_all() -> None:
    """Nothing begins after the end, be it due already or not."""
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


@pytest.mark.parametrize("year", [1, 9999])
def test_absurd_dates(year: int) -> None:
    """The first and the last year are dates like others."""
    bench = Bench()
    bench.remind("r", 0, trigger_date_time=datetime(year, 12, 31, 23, 59, tzinfo=timezone.utc))
    assert len(bench.reminders) == (year == 9999)
    bench.reminders.stop()


def test_failures_are_told_in_one_line() -> None:
    """A reminder for an action that is gone is one line in the log, whatever it is called."""
    bench = Bench(UnknownAction("there is no 'x'\nsecond line"))
    bench.remind("r", 1, action_name="x" * 1000)
    with capturedLogs() as told:
        bench.clock.advance(1)
    (line,) = [event for event in told if event["log_level"] is LogLevel.error]
    assert line["reason"] == "there is no 'x'" and len(line["action"]) == 100


def test_surprises_are_told_with_their_traceback(logged: LoggedFailures) -> None:
    """What nobody expected is logged as it is, and the next reminder begins all the same."""
    bench = Bench(ZeroDivisionError())
    bench.remind("r", 1)
    bench.remind("s", 2)
    bench.clock.advance(1)
    bench.clock.advance(1)
    assert bench.fired == ["u r", "u s"]
    assert logged.take() == [ZeroDivisionError, ZeroDivisionError]
