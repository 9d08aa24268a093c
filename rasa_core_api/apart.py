"""A question to a process of its own: one JSON object in, one answer out, within a time limit.

Whatever happens to that process - a crash, endless work, too much memory - happens to nobody else.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from rasa_core_api.constants import JSON

#: Bytes of the errors that are kept, the last ones.
_ERRORS = 2000


class NoAnswer(Exception):
    """The process gave none; the text says why."""


class NotStarted(NoAnswer):
    """This machine has no room for another process."""


class Overdue(NoAnswer):
    """The time was over, and the process was killed."""


class Ended(NoAnswer):
    """It ended by a signal or with another status than 0; `errors` is the end of what it wrote to standard error."""

    def __init__(self, how: str, errors: str) -> None:
        super().__init__(how)
        self.errors = errors


class _Talk(ProcessProtocol):
    def __init__(self, question: bytes, longest: int, done: Deferred[bytes]) -> None:
        self._question = question
        self._longest = longest
        self._done = done
        self._answer = b""
        self._errors = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._question)
        self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self._answer = (self._answer + data)[: self._longest]

    def errReceived(self, data: bytes) -> None:
        self._errors = (self._errors + data)[-_ERRORS:]

    def processEnded(self, reason: Failure) -> None:
        if self._done.called:
            return
        if reason.check(ProcessDone):
            self._done.callback(self._answer)
            return
        signal = getattr(reason.value, "signal", None)
        how = f"signal {signal}" if signal else f"exit code {getattr(reason.value, 'exitCode', None)}"
        self._done.errback(Ended(how, self._errors.decode("utf-8", "replace")))


async def ask_apart(
    arguments: Sequence[str], question: JSON, reactor: Any, *, time_limit: float, longest: int
) -> bytes:
    """What a Python process with these arguments answers to the question, at most `longest` bytes of it.

    It is killed after `time_limit` seconds, and where this is cancelled. Raises `NoAnswer`.
    """
    done: Deferred[bytes] = Deferred(lambda _: kill())
    path = os.pathsep.join(place for place in sys.path if place)
    environment = {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    talk = _Talk(json.dumps(question).encode("ascii"), longest, done)
    try:
        process = reactor.spawnProcess(talk, command[0], command, env=environment)
    except OSError as error:
        raise NotStarted(str(error.strerror)) from error

    def kill() -> None:
        with suppress(ProcessExitedAlready):
            process.signalProcess("KILL")

    def end() -> None:
        # at once: where a grandchild holds the pipes the end of the process is never told
        done.errback(Overdue(f"it took more than {time_limit:g} s"))
        kill()

    timer: IDelayedCall = reactor.callLater(time_limit, end)
    try:
        return await done
    finally:
        if timer.active():
            timer.cancel()
