"""Finetuning in a process of its own (`training/finetuning.py`), so that the server answers meanwhile.

The process reads one JSON object from its input and writes one to its output: `{"learnt": {...}}`, or
`{"error": "the reason"}`, with `"invalid": true` where the conversation is the reason.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import InvalidParameter, TrainingFailed, UnsupportedModel
from rasa_core_api.models.layout import read_layout

log = Logger()

#: What a model keeps of its training data.
KEPT_FILE = "training_data.npz"

_LONGEST_ANSWER = 1 << 20
#: Seconds that a lesson may take.
TIME_LIMIT = 600.0


@frozen(kw_only=True)
class Lesson:
    """A model directory and its fingerprint, where the new one is to lie, and how much to learn.

    An epoch is one step of a network, on the conversation and `batch_size - 1` times as many other turns.
    """

    directory: Path
    fingerprint: str
    into: Path
    epochs: int = 30
    batch_size: int = 5


def keeps_data(directory: Path) -> bool:
    """Whether the model in a directory can go on learning."""
    try:
        return (read_layout(directory).root / KEPT_FILE).is_file()
    except UnsupportedModel:
        return False


@frozen
class Task:
    """A lesson, and the file with the conversation: a JSON object of an event a line."""

    lesson: Lesson
    events: Path
    trusted_modules: tuple[str, ...] = ()

    def as_json(self) -> dict[str, JSON]:
        lesson = self.lesson
        return {
            "directory": str(lesson.directory),
            "fingerprint": lesson.fingerprint,
            "into": str(lesson.into),
            "epochs": lesson.epochs,
            "batch_size": lesson.batch_size,
            "events": str(self.events),
            "trusted_modules": list(self.trusted_modules),
        }

    @classmethod
    def from_json(cls, data: JSON) -> Task:
        lesson = Lesson(
            directory=Path(data["directory"]),
            fingerprint=data["fingerprint"],
            into=Path(data["into"]),
            epochs=data["epochs"],
            batch_size=data["batch_size"],
        )
        return cls(lesson, Path(data["events"]), tuple(data["trusted_modules"]))


class _Process(ProcessProtocol):
    def __init__(self, task: Task, done: Deferred[bytes]) -> None:
        self._task = task
        self._done = done
        self._answer = b""
        self._errors = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(json.dumps(self._task.as_json()).encode("ascii"))
        self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self._answer = (self._answer + data)[:_LONGEST_ANSWER]

    def errReceived(self, data: bytes) -> None:
        self._errors = (self._errors + data)[-2000:]

    def processEnded(self, reason: Failure) -> None:
        if self._done.called:
            return
        if reason.check(ProcessDone):
            self._done.callback(self._answer)
            return
        log.warn("the process that learned wrote: {errors}", errors=self._errors.decode("utf-8", "replace"))
        self._done.errback(TrainingFailed("the process that learned ended without an answer; the log tells more"))


async def learn_apart(task: Task, reactor: Any, time_limit: float = TIME_LIMIT) -> dict[str, JSON]:
    """`learn` in a process of its own, at low priority, ended after `time_limit` seconds or when this is cancelled."""
    done: Deferred[bytes] = Deferred(lambda _: process.signalProcess("KILL"))
    path = os.pathsep.join(place for place in sys.path if place)
    environment = {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "rasa_core_api.training.finetuning"]
    try:
        process = reactor.spawnProcess(_Process(task, done), command[0], command, env=environment)
    except OSError as error:
        raise TrainingFailed(f"no process can be started to learn: {error.strerror}") from error
    overdue: list[bool] = []

    def end() -> None:
        overdue.append(True)
        process.signalProcess("KILL")

    timer = reactor.callLater(time_limit, end)
    try:
        raw = await done
    except TrainingFailed:
        if overdue:
            raise TrainingFailed(f"it took more than {time_limit:g} s; ask for fewer epochs") from None
        raise
    finally:
        if timer.active():
            timer.cancel()
    answer = json.loads(raw)
    if "learnt" in answer:
        learnt: dict[str, JSON] = answer["learnt"]
        return learnt
    if answer.get("invalid"):
        raise InvalidParameter(str(answer["error"]), parameter="", **{"in": "body"})
    raise TrainingFailed(str(answer["error"]))
