"""A model in service that goes on learning: its directory, a conversation, and the model that comes of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import define, field

from rasa_core_api.concurrency import Slices
from rasa_core_api.constants import JSON
from rasa_core_api.events import Event
from rasa_core_api.exceptions import TrainingFailed
from rasa_core_api.lessons import NOT_TRAINED_HERE
from rasa_core_api.models.generation import Generation
from rasa_core_api.models.installation import Installer
from rasa_core_api.training.learning_apart import Lesson, Task, keeps_data
from rasa_core_api.turn_values import Model

_AT_ONCE = 64  # events that are written between two looks at other work


@define
class ModelLearning:
    """What the agent asks to learn. `learn` works somewhere else; tests do it in place."""

    installer: Installer
    slices: Slices
    _learn: Callable[[Task], Awaitable[dict[str, JSON]]]
    _trusted_modules: tuple[str, ...] = ()
    _made: list[Path] = field(factory=list, init=False)

    async def learn(self, model: Model, events: Sequence[Event], epochs: int, batch_size: int) -> Generation:
        """The model that also knows the conversation. Raises `InvalidParameter` and `TrainingFailed`."""
        directory = model.directory
        if directory is None or not keeps_data(directory):
            raise TrainingFailed(NOT_TRAINED_HERE)
        shop = self.installer.workshop
        into, place = shop.place("learnt"), shop.place("conversation")
        task = Task(
            Lesson(directory=directory, fingerprint=model.fingerprint, into=into, epochs=epochs, batch_size=batch_size),
            place,
            self._trusted_modules,
        )
        try:
            await self._write(place, events)
            await self._learn(task)
            generation = await self.installer.load_directory(into, model.source)
        except BaseException:
            shutil.rmtree(into, ignore_errors=True)
            raise
        finally:
            with suppress(OSError):
                place.unlink()
        self._forget()
        self._made.append(into)
        return generation

    async def _write(self, place: Path, events: Sequence[Event]) -> None:
        with place.open("x", encoding="ascii") as file:
            for begin in range(0, len(events), _AT_ONCE):
                await self.slices.breathe()
                for event in events[begin : begin + _AT_ONCE]:
                    file.write(json.dumps(event.as_dict()) + "\n")

    def _forget(self) -> None:
        """Remove what the last lesson wrote: its files have been read, and the next builds on a newer model."""
        while self._made:
            shutil.rmtree(self._made.pop(), ignore_errors=True)
