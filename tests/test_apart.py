"""Tests of asking a process of its own."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from rasa_core_api.apart import Ended, NotStarted, Overdue, ask_apart


class FakeReactor(Clock):
    """Starts no process; a test plays it."""

    def __init__(self, room: bool = True) -> None:
        super().__init__()
        self.room = room
        self.seen: list[Any] = []

    def spawnProcess(self, protocol: Any, *args: Any, **options: Any) -> FakeReactor:
        if not self.room:
            raise OSError(12, "Cannot allocate memory")
        self.seen += [args[1], sorted(set(options["env"]) & {"PYTHONPATH", "OMP_NUM_THREADS"})]
        self.protocol = protocol
        protocol.makeConnection(self)
        return self

    def write(self, data: bytes) -> None:
        self.seen.append(data)

    def closeStdin(self) -> None:
        self.seen.append("closed")

    def signalProcess(self, name: str) -> None:
        self.seen.append(name)
        raise ProcessExitedAlready

    def ask(self) -> tuple[Deferred[bytes], list[Any]]:
        found: list[Any] = []
        asked = Deferred.fromCoroutine(ask_apart(["-m", "it"], {"a": "ü"}, self, time_limit=10.0, longest=4))
        asked.addBoth(found.append)
        return asked, found


def test_question_and_answer() -> None:
    """The question goes in whole, the answer comes back within its bound, and no timer stays."""
    reactor = FakeReactor()
    _, found = reactor.ask()
    assert reactor.seen == [
        [sys.executable, "-m", "it"], ["OMP_NUM_THREADS", "PYTHONPATH"], b'{"a": "\\u00fc"}', "closed",
    ]  # fmt: skip
    for part in (b"123", b"456"):
        reactor.protocol.outReceived(part)
    reactor.protocol.processEnded(Failure(ProcessDone(0)))
    assert found == [b"1234"] and reactor.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("end", "how"), [(ProcessTerminated(3), "exit code 3"), (ProcessTerminated(None, 9), "signal 9")]
)
def test_a_process_that_dies(end: ProcessTerminated, how: str) -> None:
    """It is told how it ended, with its last words."""
    reactor = FakeReactor()
    _, found = reactor.ask()
    reactor.protocol.errReceived(b"x" * 5000 + b" the end")
    reactor.protocol.processEnded(Failure(end))
    error = found[0].value
    assert isinstance(error, Ended) and str(error) == how
    assert error.errors.endswith(" the end") and len(error.errors) == 2000


def test_a_process_that_lingers() -> None:
    """It is killed when the time is over, and nobody waits for its end: a grandchild may hold its pipes."""
    reactor = FakeReactor()
    _, found = reactor.ask()
    reactor.advance(10.0)
    assert isinstance(found[0].value, Overdue) and reactor.seen[-1] == "KILL"
    reactor.protocol.processEnded(Failure(ProcessTerminated(None, 9)))
    assert len(found) == 1


def test_a_question_that_is_taken_back() -> None:
    """Whoever stops waiting ends the process."""
    reactor = FakeReactor()
    asked, found = reactor.ask()
    asked.cancel()
    assert reactor.seen[-1] == "KILL" and len(found) == 1 and reactor.getDelayedCalls() == []


def test_no_room() -> None:
    """A machine that starts no process says why."""
    _, found = FakeReactor(room=False).ask()
    assert isinstance(found[0].value, NotStarted) and "memory" in str(found[0].value)
