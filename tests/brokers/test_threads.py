"""Tests of the thread of brokers whose calls block."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import threading

from twisted.internet import reactor

from rasa_core_api.brokers.threads import one_thread

run = one_thread(reactor, "broker")
began = []
run(lambda: began.append(threading.current_thread().name)).addCallback(lambda _: {then})
reactor.run()
print("ended", len(began))
"""


def _ran(then: str) -> str:
    code = PROGRAM.format(then=then)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20).stdout


def test_thread_ends_with_the_reactor() -> None:
    """Nobody has to stop it."""
    assert _ran("reactor.stop()") == "ended 1\n"


def test_stuck_work_does_not_keep_the_process() -> None:
    """A call that waits for a lock of a database for ever ends with the process, and work behind it is not begun."""
    then = "(run(threading.Event().wait), run(lambda: began.append(1)), reactor.callLater(0.2, reactor.stop))"
    assert _ran(then) == "ended 1\n"
