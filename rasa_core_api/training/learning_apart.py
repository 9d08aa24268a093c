"""Finetuning in a process of its own (`training/finetuning.py`), so that the server answers meanwhile.

The process reads one JSON object from its input and writes one to its output: `{"learnt": {...}}`, or
`{"error": "the reason"}`, with `"invalid": true` where the conversation is the reason.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.logger import Logger

from rasa_core_api.apart import Ended, NotStarted, Overdue, ask_apart
from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import InvalidParameter, TrainingFailed, UnsupportedModel
from rasa_core_api.models.layout import read_layout

log = Logger()

#: What a model keeps of its training data.
KEPT_FILE = "training_data.npz"

_LONGEST_ANSWER = 1 << 20
_COMMAND = ("-m", "rasa_core_api.training.finetuning")
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


async def learn_apart(task: Task, reactor: Any, time_limit: float = TIME_LIMIT) -> dict[str, JSON]:
    """`learn` in a process of its own, at low priority, ended after `time_limit` seconds or when this is cancelled."""
    try:
        raw = await ask_apart(_COMMAND, task.as_json(), reactor, time_limit=time_limit, longest=_LONGEST_ANSWER)
    except NotStarted as error:
        raise TrainingFailed(f"no process can be started to learn: {error}") from error
    except Overdue as error:
        raise TrainingFailed(f"{error}; ask for fewer epochs") from None
    except Ended as error:
        log.warn("the process that learned wrote: {errors}", errors=error.errors)
        raise TrainingFailed("the process that learned ended without an answer; the log tells more") from error
    answer = json.loads(raw)
    if "learnt" in answer:
        learnt: dict[str, JSON] = answer["learnt"]
        return learnt
    if answer.get("invalid"):
        raise InvalidParameter(str(answer["error"]), parameter="", **{"in": "body"})
    raise TrainingFailed(str(answer["error"]))
