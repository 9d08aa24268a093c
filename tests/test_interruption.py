"""Tests of signals that end a program before its reactor runs."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from rasa_core_api.interruption import ended_by


@contextmanager
def nobody_waiting() -> Iterator[None]:
    """As in a program without a reactor; the tests' own one waits for SIGTERM."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
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
