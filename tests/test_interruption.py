"""Tests of signals that end a program before its reactor runs."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from rasa_core_api.interruption import ended_by, stop_once


@contextmanager
def nobody_waiting() -> Iterator[None]:
    """As in a program without a reactor; the tests' own one waits for SIGTERM."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_what_a_block_made_is_removed(tmp_path: Path) -> None:
    """A signal ends the block like an exception, with the status that a shell would tell."""
    with nobody_waiting():
        with pytest.raises(SystemExit) as ended, ended_by("SIGTERM"), tempfile.TemporaryDirectory(dir=tmp_path):
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("the block went on")
        assert ended.value.code == 143
        assert not list(tmp_path.iterdir())
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_whose_signals_are_left_alone() -> None:
    """What is ignored stays ignored, and a handler that took over meanwhile stays."""
    with nobody_waiting():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with ended_by("SIGTERM", "SIGHUP", "SIGNOWHERE"):
            signal.raise_signal(signal.SIGHUP)
            signal.signal(signal.SIGTERM, print)
        assert signal.getsignal(signal.SIGTERM) is print


def test_other_threads() -> None:
    """Only the main thread may take signals, and only it gets them; blocks of others just run."""
    ran: list[bool] = []

    def work() -> None:
        with ended_by("SIGTERM"):
            ran.append(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)

    with nobody_waiting():
        thread = Thread(target=work)
        thread.start()
        thread.join()
    assert ran == [True]


class FakeReactor:
    """Notes what it is asked to do."""

    def __init__(self) -> None:
        self.called: list[Any] = []
        self.before_shutdown: Any = None

    def callFromThread(self, function: Any, *_: object) -> None:
        self.called.append(function.__name__)

    def stop(self) -> None:
        """Only its name is asked for."""

    def addSystemEventTrigger(self, phase: str, event: str, function: Any) -> None:
        assert (phase, event) == ("before", "shutdown")
        self.before_shutdown = function


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_stop(first: signal.Signals) -> None:
    """The first signal goes the reactor's way, whichever it is; two at once are no defect."""
    reactor, own = FakeReactor(), list[int]()
    with nobody_waiting():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: own.append(number))
        stop_once(reactor)
        for number in (first, signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
    assert own == ([] if first == signal.SIGHUP else [first])
    assert reactor.called == (["stop"] if first == signal.SIGHUP else []) + ["info"] * 3


def test_a_stop_by_other_means() -> None:
    """Once the server stops, signals change nothing; what is ignored is ignored all the time."""
    reactor, own = FakeReactor(), list[int]()
    with nobody_waiting():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda number, _: own.append(number))
        stop_once(reactor)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        reactor.before_shutdown()
        for number in (signal.SIGHUP, signal.SIGTERM):
            signal.raise_signal(number)
    assert (own, reactor.called) == ([], ["info"])
