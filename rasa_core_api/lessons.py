"""A model in service that learns one more conversation, or is examined with stories."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import DeferredLock

from rasa_core_api.concurrency import Slices
from rasa_core_api.constants import JSON
from rasa_core_api.events import Event
from rasa_core_api.exceptions import (
    EvaluationFailed,
    InvalidTrainingData,
    ModelBusy,
    TrainingFailed,
    UnsupportedModel,
)
from rasa_core_api.interpreter import RegexInterpreter
from rasa_core_api.models.generation import Generation
from rasa_core_api.served_model import ServedModel
from rasa_core_api.turn_values import Model

#: Runs a function with its arguments in a thread.
InThread = Callable[..., Awaitable[Any]]

#: Dialogues that stories sent for evaluation may have.
MAX_EVALUATED = 2000

#: What is said of models that keep no training data.
NOT_TRAINED_HERE = "this model was loaded, not trained here, so it holds no stories to learn with"

#: Conversations that wait to be learnt from.
MAX_LESSONS = 8


class Learner(Protocol):
    """Teaches a model one more conversation without stopping the reactor."""

    async def learn(self, model: Model, events: Sequence[Event], epochs: int, batch_size: int) -> Generation:
        """The model that also knows the conversation. Raises `TrainingFailed`, and `InvalidParameter`."""


@define
class Lessons:
    """Conversations are learnt one after the other; the model that comes of one is then in service."""

    _served: ServedModel
    _slices: Slices
    _line: DeferredLock = field(factory=DeferredLock, init=False)
    _joining: DeferredLock = field(factory=DeferredLock, init=False)

    async def learn(self, learner: Learner | None, events: Sequence[Event], epochs: int, batch_size: int) -> None:
        """Learn. Raises `TrainingFailed`, `InvalidParameter` and, where many wait already, `ModelBusy`."""
        if len(self._line.waiting) >= MAX_LESSONS:
            raise ModelBusy(f"{MAX_LESSONS} conversations wait to be learnt already. Try again later")
        await self._line.acquire()
        try:
            await self._learn(learner, events, epochs, batch_size)
        finally:
            self._line.release()

    async def _learn(
        self, learner: Learner | None, events: Sequence[Event], epochs: int, batch_size: int
    ) -> None:
        model = self._served.model
        try:
            if learner is None:
                raise TrainingFailed(NOT_TRAINED_HERE)
            generation = await learner.learn(model, events, epochs, batch_size)
        except (TrainingFailed, UnsupportedModel) as error:
            raise TrainingFailed(f"Server failure. Error: {error}") from error
        if self._served.fingerprint != model.fingerprint:
            raise TrainingFailed("Server failure. Error: the model was replaced by another one while it learned")
        self._served.install(generation)

    async def evaluate(self, stories: str, e2e: bool, in_thread: InThread | None = None) -> dict[str, JSON]:
        """How well the model predicts stories; with `e2e` they hold messages, which the interpreter is asked about.

        What cannot pause runs in a thread, for one evaluation after the other.
        """
        from rasa_core_api.training.evaluation import evaluate_stories
        from rasa_core_api.training.story_reader import StoryReader

        model = self._served.model
        reader = StoryReader(model.domain.release, RegexInterpreter(model.domain.release).parse_sync, e2e=e2e)
        try:
            for _ in reader.reading(stories, "stories"):
                await self._slices.breathe()
            result = await evaluate_stories(
                reader.files.steps,
                model.domain,
                model.ensemble,
                parse=model.interpreter.parse if e2e else None,
                max_dialogues=MAX_EVALUATED,
                pause=self._slices.breathe,
                apart=None if in_thread is None else partial(self._joining.run, in_thread),
            )
        except InvalidTrainingData as error:
            raise EvaluationFailed(f"Evaluation could not be created. Error: {error}", **error.details) from error
        return result.as_dict()
