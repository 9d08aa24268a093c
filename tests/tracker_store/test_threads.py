from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Event
from typing import Any

import pytest
from twisted.internet.task import Clock

from rasa_core_api.exceptions import StoreUnavailable
from rasa_core_api.tracker_store import threads
from rasa_core_api.tracker_store.threads import END_LIMIT, LAST_LIMIT, Job, JobThread

from ..conftest import LoggedFailures


class FakeReactor(Clock):
    """Time by hand; what threads call is kept until the test lets it run."""

    def __init__(self) -> None:
        super().__init__()
        self.from_threads: SimpleQueue[tuple[Callable[..., Any], tuple[object, ...]]] = SimpleQueue()

    def callFromThread(self, callable: Callable[..., Any], *args: object) -> None:
        self.from_threads.put((callable, args))

    def run_one(self) -> None:
        function, arguments = self.from_threads.get(timeout=10)
        function(*arguments)


class Adder:
    """Counts how its jobs are grouped, and lets them wait for `go`."""

    def __init__(self) -> None:
        self.groups: list[int] = []
        self.go = Event()
        self.fails = False

    def open(self) -> None:
        return None

    def close(self) -> None:
        return None

    def run(self, jobs: Sequence[Job[int]]) -> None:
        self.go.wait(10)
        self.groups.append(len(jobs))
        if self.fails:
            raise RuntimeError("broken")
        for job in jobs:
            job.result = 1


def started(
    worker: Adder, interrupt: Callable[[], None] | None = None
) -> tuple[FakeReactor, JobThread[Job[int]]]:
    reactor = FakeReactor()
    thread: JobThread[Job[int]] = JobThread(reactor, "test", worker, time_limit=30, interrupt=interrupt)
    thread.start()
    reactor.run_one()
    return reactor, thread


def test_what_waits_is_one_group() -> None:
    """Jobs of one round of the reactor are a group, and those that come while the worker is busy are the next one."""
    worker = Adder()
    reactor, thread = started(worker)
    done: list[Any] = []
    for _ in range(20):
        thread.submit(Job()).addCallback(done.append)
    reactor.advance(0)
    for _ in range(30):
        thread.submit(Job()).addCallback(done.append)
    reactor.advance(0)
    worker.go.set()
    while len(done) < 50:
        reactor.run_one()
        reactor.advance(0)
    assert worker.groups == [20, 30]
    thread.stop()
    reactor.run_one()
    assert reactor.getDelayedCalls() == []


def test_stuck_worker() -> None:
    """Callers of a worker that gives no answer are told after the time limit, once."""
    worker = Adder()
    reactor, thread = started(worker)
    failures: list[Any] = []
    thread.submit(Job()).addErrback(failures.append)
    reactor.advance(20)
    late = thread.submit(Job())
    late.addErrback(failures.append)
    reactor.advance(10)
    assert [failure.type for failure in failures] == [StoreUnavailable]
    reactor.advance(20)
    assert len(failures) == 2
    worker.go.set()
    stopped = thread.stop()
    while not stopped.called:
        reactor.run_one()
    assert worker.groups == [1]  # what was given up before it began is not done any more
    assert len(failures) == 2


def test_stop_works_off_what_waits() -> None:
    """Jobs that wait when the thread is told to stop are done; nothing is taken on any more."""
    worker = Adder()
    worker.go.set()
    reactor, thread = started(worker)
    done: list[Any] = []
    thread.submit(Job()).addCallback(done.append)
    stopped = thread.stop()
    with pytest.raises(StoreUnavailable, match="closed"):
        thread.submit(Job())
    reactor.advance(0)
    while not stopped.called:
        reactor.run_one()
    assert done == [1]
    assert reactor.getDelayedCalls() == []


def test_too_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a bound jobs are refused at once."""
    monkeypatch.setattr(threads, "MAX_WAITING", 2)
    worker = Adder()
    _, thread = started(worker)
    thread.submit(Job())
    thread.submit(Job())
    with pytest.raises(StoreUnavailable, match="overloaded"):
        thread.submit(Job())
    worker.go.set()
    thread.stop()


def test_broken_worker(logged: LoggedFailures) -> None:
    """An error that a worker did not foresee fails its group and is logged; the next group goes on."""
    worker = Adder()
    worker.go.set()
    worker.fails = True
    reactor, thread = started(worker)
    failures: list[Any] = []
    thread.submit(Job()).addErrback(failures.append)
    reactor.advance(0)
    reactor.run_one()
    reactor.run_one()
    assert [failure.type for failure in failures] == [StoreUnavailable]
    assert logged.take() == [RuntimeError]
    worker.fails = False
    results: list[Any] = []
    thread.submit(Job()).addCallback(results.append)
    reactor.advance(0)
    reactor.run_one()
    assert results == [1]
    thread.stop()


def test_a_database_that_says_nothing() -> None:
    """What blocks the thread is interrupted after the time limit, so that what comes next has a chance."""
    worker = Adder()
    reactor, thread = started(worker, worker.go.set)
    failures: list[Any] = []
    thread.submit(Job()).addErrback(failures.append)
    reactor.advance(0)
    reactor.advance(20)
    thread.submit(Job()).addErrback(failures.append)  # the thread is not at it yet
    reactor.advance(9)
    assert not worker.go.is_set()
    reactor.advance(1)
    assert worker.go.is_set() and [failure.type for failure in failures] == [StoreUnavailable]
    reactor.run_one()
    reactor.advance(0)
    reactor.run_one()
    assert worker.groups == [1, 1] and len(failures) == 1
    thread.stop()
    reactor.run_one()


@pytest.mark.parametrize("interrupts", [True, False])
def test_ending_while_it_hangs(interrupts: bool) -> None:
    """The end is not waited for without a limit: what hangs is interrupted, then left behind."""
    worker = Adder()
    reactor = FakeReactor()
    thread: JobThread[Job[int]] = JobThread(
        reactor, "test", worker, time_limit=30, interrupt=worker.go.set if interrupts else None
    )
    thread.start()
    reactor.run_one()
    thread.submit(Job()).addErrback(lambda _: None)
    reactor.advance(0)
    reactor.advance(5)
    ended: list[None] = []
    thread.stop().addCallback(ended.append)
    reactor.advance(END_LIMIT - 5)
    assert worker.go.is_set() == interrupts and not ended
    if interrupts:
        reactor.run_one()
        reactor.run_one()
    else:
        reactor.advance(LAST_LIMIT)
    assert ended == [None]
    assert not reactor.getDelayedCalls()
    worker.go.set()
    if not interrupts:  # it comes to its end after all
        reactor.run_one()
        reactor.run_one()
    assert ended == [None]
    assert not reactor.getDelayedCalls()


@pytest.mark.parametrize("elapsed", [0.0, 3600.0])
def test_time_before_a_group_is_not_its_own(elapsed: float) -> None:
    """A job that just came is not taken for one that hangs since the group before it, however long ago that was."""
    worker = Adder()
    worker.go.set()
    reactor = FakeReactor()
    interrupted: list[float] = []
    thread: JobThread[Job[int]] = JobThread(
        reactor, "test", worker, time_limit=30, interrupt=lambda: interrupted.append(reactor.seconds())
    )
    thread.start()
    reactor.run_one()
    thread.submit(Job())
    reactor.advance(0)
    reactor.run_one()
    reactor.advance(elapsed)
    worker.go.clear()
    done: list[Any] = []
    thread.submit(Job()).addCallback(done.append)
    stopped = thread.stop()
    reactor.advance(0.5)
    assert interrupted == []
    worker.go.set()
    while not stopped.called:
        reactor.run_one()
    assert done == [1]


def test_a_group_that_hangs_a_moment_after_its_jobs_came() -> None:
    """It has its whole time, and is interrupted then, though nobody waits for it any more."""
    worker = Adder()
    reactor, thread = started(worker, worker.go.set)
    failures: list[Any] = []
    thread.submit(Job()).addErrback(failures.append)
    reactor.advance(0.125)  # of a busy reactor
    reactor.advance(29.875)
    assert len(failures) == 1
    reactor.advance(0.125)
    assert worker.go.is_set()
    reactor.run_one()
    thread.stop()
    reactor.run_one()
    assert not reactor.getDelayedCalls()
