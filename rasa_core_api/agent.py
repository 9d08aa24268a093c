"""The agent: one facade over conversations and the model that serves them.

It holds one immutable model, swapped in one assignment; what is under way keeps the model it began with.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from attrs import Factory, define, evolve, field, frozen
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rasa_core_api.actions.registry import ActionRegistry, ActionServer
from rasa_core_api.claims import Claims
from rasa_core_api.concurrency import Lines, Slices
from rasa_core_api.constants import ACTION_LISTEN, DEFAULT_SENDER_ID, JSON
from rasa_core_api.domain import Domain
from rasa_core_api.endpoints import Endpoints, OutgoingHTTP
from rasa_core_api.events import ActionExecuted, Event
from rasa_core_api.events.reading import EventReader
from rasa_core_api.exceptions import (
    AgentNotReady,
    EvaluationFailed,
    InvalidEvent,
    InvalidParameter,
    InvalidTrainingData,
    ModelBusy,
    NoDomain,
    NotBuilt,
    PredictionFailed,
    RasaCoreError,
    TrainingFailed,
    UnsupportedModel,
)
from rasa_core_api.interpreter import Interpreter, RegexInterpreter
from rasa_core_api.live_trackers import AT_ONCE, LiveTrackers, replay
from rasa_core_api.messages import KEEP_ANSWERS, BotMessage, RequestKey, UserMessage, message_key
from rasa_core_api.models.generation import Generation
from rasa_core_api.nlg import ResponseGenerator
from rasa_core_api.nlg.callback import CallbackGenerator
from rasa_core_api.nlg.templates import TemplateGenerator
from rasa_core_api.processor import Predicted, Processor
from rasa_core_api.reminders import Reminders
from rasa_core_api.retention import Retention
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.turns import Reminder
from rasa_core_api.tracker_views import EventVerbosity, TrackerView
from rasa_core_api.trackers import Tracker
from rasa_core_api.training.story_writer import story_of
from rasa_core_api.turn_values import Model, Observer, Outcome, Turn, Work
from rasa_core_api.turns import Turns

log = Logger()

#: Dialogues that stories sent for evaluation may have.
MAX_EVALUATED = 2000

#: What is said of models that keep no training data.
NOT_TRAINED_HERE = "this model was loaded, not trained here, so it holds no stories to learn with"

#: Conversations that wait to be learnt from.
MAX_LESSONS = 8

PAUSED = "Bot is currently paused and no restart was received yet."
NO_NEED_TO_CONTINUE = (
    "You do not need to call continue after action listen got returned for the previous continue call. "
    "You are expected to call 'parse' with the next user message."
)


@frozen
class Scored:
    """A prediction as clients see it: `(action, score)` in domain order."""

    scores: list[tuple[str, float]]
    policy: str | None
    confidence: float
    view: TrackerView


@frozen
class NextAction:
    """Answer of the remote-execution protocol of 0.8 to 0.10."""

    action: str | None
    info: str | None
    view: TrackerView


class Installer(Protocol):
    """Loads a model without stopping the reactor."""

    async def install_archive(self, archive: Path, signature: str | None = None) -> Generation:
        """The generation in an uploaded archive, checked. Raises `UnsupportedModel`."""

    def status(self) -> dict[str, JSON]:
        """The member `model` of `/status`."""


class Learner(Protocol):
    """Teaches a model one more conversation without stopping the reactor."""

    async def learn(self, model: Model, events: Sequence[Event], epochs: int, batch_size: int) -> Generation:
        """The model that also knows the conversation. Raises `TrainingFailed`, and `InvalidParameter`."""


@define
class Agent:
    """What the server and the channels talk to.

    `store` is open before the first request. Clock, time (`now`, seconds since the epoch), ids and
    random choices are given, so that the same requests give the same answers.
    """

    store: TrackerStore
    http: OutgoingHTTP
    clock: IReactorTime
    endpoints: Endpoints = field(factory=Endpoints)
    interpreter: Interpreter | None = None
    now: Callable[[], float] = time.time
    new_id: Callable[[], str] = field(default=lambda: secrets.token_hex(16))
    choose: Callable[[Sequence[JSON]], JSON] = random.choice
    failure_template: str | None = None
    version: str = "0.11.12"
    line_limit: int | None = None  # waiting in one conversation
    turn_limit: int | None = None  # under way or waiting in all
    installer: Installer | None = None
    retention: Retention | None = None
    owner: str = ""  # of claims; no other process that runs has it
    keep_answers: float = KEEP_ANSWERS  # seconds, for requests that come again
    #: Makes the output channel of a name, for reminders of other processes and earlier runs.
    output_of: Mapping[str, Callable[[], object | None]] = field(factory=dict, repr=False)
    learner: Learner | None = None
    slices: Slices = field(default=Factory(lambda self: Slices(self.clock), takes_self=True))
    #: Called with the sender id after each append and replacement that this agent stored; they must not block.
    after_commit: list[Callable[[str], None]] = field(factory=list)
    #: Members of `/status` that others answer for.
    status_of: dict[str, Callable[[], JSON]] = field(factory=dict)
    _model: Model | None = field(default=None, init=False)
    _router: Callable[[str], Model | None] | None = field(default=None, init=False)
    _observer: Observer | None = field(default=None, init=False)
    _also_served: tuple[Domain, ...] = field(default=(), init=False)
    _lessons: DeferredLock = field(factory=DeferredLock, init=False)

    event_reader: EventReader = field(init=False)
    turns: Turns = field(init=False)
    _trackers: LiveTrackers = field(init=False)
    _lines: Lines = field(init=False)
    _reminders: Reminders = field(init=False)
    _processor: Processor = field(init=False)
    _empty_fingerprint: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.event_reader = EventReader(self.now, self.new_id)
        self._trackers = LiveTrackers(self.store, self.slices, self.now)
        self._lines = Lines(self.clock, self.line_limit, self.store.pin, self.store.unpin, self.turn_limit)
        self._reminders = Reminders(self.clock, self.now, self.store, self._remind, self.slices)
        self._empty_fingerprint = self.new_id()
        claims = Claims(self.store, self.clock, self.owner or self.new_id())
        self.turns = Turns(
            self.store,
            self._trackers,
            self._lines,
            self.slices,
            self.clock,
            claims,
            self._reminders.scheduled,
            self.stored,
        )
        self._processor = Processor(
            self.turns, self.slices, self.now, self.failure_template, self._empty_fingerprint
        )

    # --- the model -----------------------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        return self._model is not None

    @property
    def model(self) -> Model:
        """The model in service. Raises `AgentNotReady`."""
        if self._model is None:
            raise AgentNotReady(
                "No agent loaded. To continue processing, a model of a trained agent needs to be loaded."
            )
        return self._model

    @property
    def domain(self) -> Domain:
        return self.model.domain

    @property
    def fingerprint(self) -> str:
        """Changes with every model that is put into service."""
        return self._empty_fingerprint if self._model is None else self._model.fingerprint

    def install(self, generation: Generation, interpreter: Interpreter | None = None) -> Model:
        """Serve another model from the next turn on; an interpreter of its own comes with it."""
        if interpreter is not None:
            self.interpreter = interpreter
        self._model = evolve(self.prepare(generation), observer=self._observer)
        self._drop_trackers()
        log.info("serving the model {source}", source=generation.source or generation.fingerprint)
        return self._model

    def rename(self, fingerprint: str) -> None:
        """The model in service has another fingerprint from now on: its server gave the same bytes another name."""
        self._model = evolve(self.model, fingerprint=fingerprint)

    def route(self, router: Callable[[str], Model | None] | None, *domains: Domain) -> None:
        """Let other models serve some conversations: those for whose sender `router` gives one.

        `domains` are the domains of these models. The choice for one sender should not change from turn to turn:
        each change reads the conversation anew.
        """
        self._router = router
        self._also_served = domains
        self._drop_trackers()

    def install_interpreter(self, interpreter: Interpreter) -> None:
        """Understand texts otherwise from the next turn on, unless the model in service brought its own NLU."""
        before, self.interpreter = self.interpreter, interpreter
        model = self._model
        if model is not None and (model.interpreter is before or isinstance(model.interpreter, RegexInterpreter)):
            self._model = evolve(model, interpreter=interpreter)

    def observe(self, observer: Observer | None) -> None:
        """Have the model in service watched from the next turn on, and every one that replaces it."""
        self._observer = observer
        if self._model is not None:
            self._model = evolve(self._model, observer=observer)

    def model_of(self, sender_id: str) -> Model:
        """The model that serves a conversation. Raises `AgentNotReady`."""
        model = self.model
        if self._router is None:
            return model
        return self._router(sender_id) or model

    def _drop_trackers(self) -> None:
        """Let go of the models that are out of service; trackers hold theirs."""
        domains = self._also_served if self._model is None else (self._model.domain, *self._also_served)
        Deferred.fromCoroutine(self._trackers.serve(*domains)).addErrback(
            lambda failure: log.failure("trackers of the old model could not be dropped", failure)
        )

    def prepare(self, generation: Generation) -> Model:
        """The generation with what a turn needs around it; nothing is put into service."""
        domain = generation.domain
        templates = TemplateGenerator(domain.templates, domain.release, self.choose)
        generator: ResponseGenerator = templates
        if self.endpoints.nlg is not None:
            generator = CallbackGenerator(self.endpoints.nlg, self.http, self.slices)
        server = ActionServer(self.endpoints.action_endpoint, self.http, self.event_reader, self.slices, self.version)
        fingerprints = generation.metadata.get("action_fingerprints")
        return Model(
            domain=domain,
            ensemble=generation.ensemble,
            actions=ActionRegistry(domain, server),
            generator=generator,
            own_templates=None if generator is templates else templates,
            interpreter=generation.interpreter or self.interpreter or RegexInterpreter(domain.release),
            fingerprint=generation.fingerprint,
            action_fingerprints=fingerprints if isinstance(fingerprints, Mapping) else {},
            source=generation.source,
            directory=generation.directory,
        )

    async def install_archive(self, archive: Path, signature: str | None = None) -> None:
        """Serve the model of an uploaded archive. Raises `UnsupportedModel`; the old one then stays."""
        if self.installer is None:
            raise NotBuilt("this server does not take models")
        self.install(await self.installer.install_archive(archive, signature))

    def status(self) -> dict[str, JSON]:
        """Members of `/status`."""
        status: dict[str, JSON] = {
            "model_fingerprint": self.fingerprint,
            "is_ready": self.is_ready,
            "tracker_store": {"type": self.store.name, **self.store.status()},
        }
        if self.retention is not None:
            status["retention"] = self.retention.status()
        if self.installer is not None:
            status["model"] = self.installer.status()
        for name, tell in self.status_of.items():
            status[name] = tell()
        return status

    # --- talking -------------------------------------------------------------------------------------

    async def handle_message(self, message: UserMessage) -> list[BotMessage]:
        """One turn. While no model is loaded the message is dropped and nothing is answered."""
        if self._model is None:
            log.info("a message was dropped: no model is loaded yet")
            return []
        if message.request is None and message.message_id is not None and message.input_channel is not None:
            message = evolve(message, request=message_key(message, self.keep_answers))
        return await self._processor.handle_message(self.model_of(message.sender_id), message)

    async def handle_text(self, text: str, sender_id: str, request: RequestKey | None = None) -> list[BotMessage]:
        """One turn for a text over the HTTP API."""
        return await self._processor.handle_message(
            self.model_of(sender_id), UserMessage(text=text, sender_id=sender_id, request=request)
        )

    async def parse(self, text: str) -> dict[str, JSON]:
        """What the interpreter makes of a text; no conversation is touched."""
        await self.slices.breathe()
        return await self._processor.parse(self.model, text)

    # --- trackers ------------------------------------------------------------------------------------

    async def tracker(
        self,
        sender_id: str,
        verbosity: EventVerbosity = EventVerbosity.AFTER_RESTART,
        until: float | None = None,
    ) -> TrackerView:
        """A conversation, created where it is new; `until` shows it as it was at that time (seconds)."""
        async with self._lines.of(sender_id):
            await self.slices.breathe()
            tracker = await self._current(sender_id)
            if until is None:
                return tracker.view(verbosity)
            events = list(tracker.events)
            domain = tracker.domain
        past = Tracker(sender_id, domain)
        await replay(past, _until(events, until), self.slices)
        return past.view(verbosity)

    async def _current(self, sender_id: str) -> Tracker:
        """The tracker, stored when it is new; the caller holds its place in line."""
        if self._model is None:
            raise NoDomain("Could not retrieve tracker. Most likely because there is no domain set on the agent.")
        return await self.turns.current(sender_id, self.model_of(sender_id).domain)

    def stored(self, sender_id: str) -> None:
        """Tell those who follow the logs; what goes wrong there is not the turn's business."""
        for tell in self.after_commit:
            try:
                tell(sender_id)
            except Exception:
                log.failure("somebody who was told of a stored turn failed")

    async def append(
        self,
        sender_id: str,
        items: AsyncIterator[JSON] | Iterable[JSON],
        single: bool,
        verbosity: EventVerbosity = EventVerbosity.AFTER_RESTART,
        request: RequestKey | None = None,
    ) -> TrackerView:
        """Append events to the log, all or none; nothing is predicted. Raises `InvalidParameter`.

        In a list, objects that name no event are skipped, but one event there must be.
        """
        self.model  # not ready comes before what is wrong with the body  # noqa: B018
        events, ignored = await self._read_events(items, skip=not single)
        if not events and not ignored:
            raise InvalidParameter(
                "Couldn't extract a proper event from the request body.", parameter="", **{"in": "body"}
            )

        async def work(turn: Turn) -> None:
            await replay(turn.tracker, events, self.slices)

        return await self._viewed(sender_id, work, verbosity, request)

    async def _viewed(
        self, sender_id: str, work: Work, verbosity: EventVerbosity, request: RequestKey | None
    ) -> TrackerView:
        """Do a turn and show the conversation as it is then."""
        return (await self._run(sender_id, work, verbosity, request))[0]

    async def _run(
        self, sender_id: str, work: Work, verbosity: EventVerbosity, request: RequestKey | None
    ) -> tuple[TrackerView, Outcome]:
        outcome = await self.turns.run(
            self.model_of(sender_id), sender_id, work, request=request, verbosity=verbosity
        )
        assert outcome.view is not None
        return outcome.view, outcome

    async def replace(
        self,
        sender_id: str,
        items: AsyncIterator[JSON] | Iterable[JSON],
        verbosity: EventVerbosity = EventVerbosity.AFTER_RESTART,
        request: RequestKey | None = None,
    ) -> TrackerView:
        """Discard the conversation and begin a new one from these events. Raises `InvalidParameter`."""
        domain = self.model_of(sender_id).domain
        events, _ = await self._read_events(items, skip=True)
        return await self.turns.replace(sender_id, domain, events, verbosity, request)

    async def _read_events(self, items: AsyncIterator[JSON] | Iterable[JSON], skip: bool) -> tuple[list[Event], int]:
        """Events, and how many entries were accepted without being one."""
        events: list[Event] = []
        ignored = 0
        count = 0
        read = self.event_reader.read
        async for item in _each(items):
            count += 1
            if not count % 64:
                await self.slices.breathe()
            if skip and isinstance(item, Mapping) and item.get("event") is None:
                continue
            event = read(item)
            if event is None:
                ignored += 1
            else:
                events.append(event)
        return events, ignored

    async def sender_ids(self, after: str | None = None, limit: int | None = None, prefix: str = "") -> list[str]:
        """Conversations of the store, in the order of their creation. Raises `InvalidParameter`."""
        return await self.store.sender_ids(after, limit, prefix)

    async def story(self, sender_id: str, until: float | None = None) -> str:
        """The conversation as an end-to-end story."""
        view = await self.tracker(sender_id, EventVerbosity.APPLIED, until)
        await self.slices.breathe()
        return story_of(sender_id, view.events or (), e2e=True)

    # --- parts of a turn -----------------------------------------------------------------------------

    async def execute(
        self,
        sender_id: str,
        action_name: str,
        policy: str | None = None,
        confidence: float | None = None,
        verbosity: EventVerbosity = EventVerbosity.AFTER_RESTART,
        request: RequestKey | None = None,
    ) -> tuple[TrackerView, list[BotMessage]]:
        """Run exactly one action. Raises `UnknownAction`."""
        self.model_of(sender_id).domain.index_of(action_name)

        async def work(turn: Turn) -> None:
            await self._processor.run_action(turn, action_name, policy, confidence)

        view, outcome = await self._run(sender_id, work, verbosity, request)
        return view, outcome.answers

    async def predict(self, sender_id: str, verbosity: EventVerbosity = EventVerbosity.AFTER_RESTART) -> Scored:
        """What the bot would do next; a follow-up action is used for this answer only."""
        model = self.model_of(sender_id)
        async with self._lines.of(sender_id):
            await self.slices.breathe()
            tracker = await self.turns.current(sender_id, model.domain)
            try:
                return _scored(self._predicted(model, tracker), tracker, verbosity)
            finally:
                tracker.release_followup()

    @staticmethod
    def _predicted(model: Model, tracker: Tracker) -> Predicted:
        try:
            return Processor.predict(model, tracker)
        except RasaCoreError as error:
            raise PredictionFailed(f"Server failure. Error: {error}") from error

    async def predict_events(
        self,
        items: AsyncIterator[JSON] | Iterable[JSON],
        verbosity: EventVerbosity = EventVerbosity.AFTER_RESTART,
        skip: bool = False,
    ) -> Scored:
        """What the bot would do after these events; nothing is stored. Raises `InvalidParameter`."""
        model = self.model
        try:
            events, _ = await self._read_events(items, skip)
        except InvalidEvent as error:
            raise InvalidParameter(f"Supplied events are not valid. {error}", parameter="", **{"in": "body"}) from error
        tracker = Tracker(DEFAULT_SENDER_ID, model.domain)
        await replay(tracker, events, self.slices)
        return _scored(self._predicted(model, tracker), tracker, verbosity)

    async def log_message(
        self,
        sender_id: str,
        text: str,
        parse_data: Mapping[str, JSON] | None = None,
        verbosity: EventVerbosity = EventVerbosity.AFTER_RESTART,
        request: RequestKey | None = None,
    ) -> TrackerView:
        """Log a message of the user without answering it."""
        message = UserMessage(text=text, sender_id=sender_id, parse_data=parse_data)

        async def work(turn: Turn) -> None:
            await self._processor.log_message(turn, message)

        return await self._viewed(sender_id, work, verbosity, request)

    # --- the remote-execution protocol of 0.8 to 0.10 ------------------------------------------------

    async def parse_old(self, sender_id: str, text: str, request: RequestKey | None = None) -> NextAction:
        """Log a message and predict the one action that the caller is to run."""

        async def work(turn: Turn) -> None:
            await self._processor.log_message(turn, UserMessage(text=text, sender_id=sender_id))
            if Processor.may_predict(turn.tracker, turn.model.domain):
                turn.extra["action"] = self._next(turn.model, turn.tracker)
            else:
                # as these releases did: what is said to a paused bot over this route is not kept
                raise _Paused(turn.tracker.view(EventVerbosity.NONE))

        try:
            view, outcome = await self._run(sender_id, work, EventVerbosity.NONE, request)
        except _Paused as paused:
            return NextAction(None, PAUSED, paused.view)
        return _next_action(outcome, view)

    async def continue_old(
        self, sender_id: str, executed_action: str | None, items: Iterable[JSON], request: RequestKey | None = None
    ) -> NextAction:
        """Log what the caller ran and predict the next action. Raises `UnknownAction`, `InvalidParameter`."""
        if executed_action is not None:
            self.model_of(sender_id).domain.index_of(executed_action)
        events, _ = await self._read_events(items, skip=True)

        async def work(turn: Turn) -> None:
            if executed_action == ACTION_LISTEN:
                turn.extra["info"] = NO_NEED_TO_CONTINUE
                return
            tracker = turn.tracker
            if executed_action is not None:
                tracker.update(ActionExecuted(action_name=executed_action, timestamp=self.now()))
            for begin in range(0, len(events), AT_ONCE):
                await self.slices.breathe()
                tracker.extend(self._processor.retimed(events[begin : begin + AT_ONCE]))
            turn.extra["action"] = self._next(turn.model, tracker)

        view, outcome = await self._run(sender_id, work, EventVerbosity.NONE, request)
        return _next_action(outcome, view)

    def _next(self, model: Model, tracker: Tracker) -> str:
        predicted = self._predicted(model, tracker)
        if predicted.action == ACTION_LISTEN:
            tracker.update(
                ActionExecuted(
                    action_name=ACTION_LISTEN,
                    policy=predicted.policy,
                    confidence=predicted.confidence,
                    timestamp=self.now(),
                )
            )
        return predicted.action

    # --- learning ------------------------------------------------------------------------------------

    async def finetune(self, items: AsyncIterator[JSON] | Iterable[JSON], epochs: int, batch_size: int) -> None:
        """Learn from a correct conversation, one after the other; the model it makes is then in service.

        Only a model whose directory keeps its training data can. Raises `TrainingFailed`, `InvalidParameter` and,
        where many wait already, `ModelBusy`.
        """
        self.model  # not ready comes before what is wrong with the body  # noqa: B018
        try:
            events, _ = await self._read_events(items, skip=True)
        except InvalidEvent as error:
            raise InvalidParameter(f"Supplied events are not valid. {error}", parameter="", **{"in": "body"}) from error
        if len(self._lessons.waiting) >= MAX_LESSONS:
            raise ModelBusy(f"{MAX_LESSONS} conversations wait to be learnt already. Try again later")
        await self._lessons.acquire()
        try:
            await self._learn(events, epochs, batch_size)
        finally:
            self._lessons.release()

    async def _learn(self, events: Sequence[Event], epochs: int, batch_size: int) -> None:
        model = self.model
        try:
            if self.learner is None:
                raise TrainingFailed(NOT_TRAINED_HERE)
            generation = await self.learner.learn(model, events, epochs, batch_size)
        except (TrainingFailed, UnsupportedModel) as error:
            raise TrainingFailed(f"Server failure. Error: {error}") from error
        if self.fingerprint != model.fingerprint:
            raise TrainingFailed("Server failure. Error: the model was replaced by another one while it learned")
        self.install(generation)

    async def evaluate(self, stories: str, e2e: bool) -> dict[str, JSON]:
        """How well the model predicts stories; with `e2e` they hold messages, which the interpreter is asked about."""
        from rasa_core_api.training.evaluation import evaluate_stories
        from rasa_core_api.training.story_reader import StoryReader

        model = self.model
        reader = StoryReader(model.domain.release, RegexInterpreter(model.domain.release).parse_sync, e2e=e2e)
        try:
            reader.read_text(stories, "stories")
            result = await evaluate_stories(
                reader.files.steps,
                model.domain,
                model.ensemble,
                parse=model.interpreter.parse if e2e else None,
                max_dialogues=MAX_EVALUATED,
                pause=self.slices.breathe,
            )
        except InvalidTrainingData as error:
            raise EvaluationFailed(f"Evaluation could not be created. Error: {error}", **error.details) from error
        return result.as_dict()

    # --- reminders and the end -----------------------------------------------------------------------

    async def _remind(self, reminder: Reminder, output: object) -> None:
        if output is None and reminder.channel is not None:
            output = self.output_of.get(reminder.channel, _no_output)()
        await self._processor.run_reminder(self.model_of(reminder.sender_id), reminder, output)

    def start(self) -> None:
        """The store is open: reminders that were left in it fire from now on."""
        self._reminders.start()

    @property
    def busy(self) -> int:
        """How many conversations have a turn under way."""
        return len(self._lines)

    def stop(self) -> None:
        """No reminder fires any more."""
        self._reminders.stop()


def _scored(predicted: Predicted, tracker: Tracker, verbosity: EventVerbosity) -> Scored:
    scores = predicted.scores(tracker.domain)
    return Scored(
        [
            (name, score if score == score else 0.0)
            for name, score in zip(tracker.domain.action_names, scores, strict=True)
        ],
        predicted.policy,
        predicted.confidence,
        tracker.view(verbosity),
    )


def _no_output() -> None:
    """The channel is not open any more."""


class _Paused(Exception):
    """The conversation is paused; nothing is to be stored."""

    def __init__(self, view: TrackerView) -> None:
        super().__init__()
        self.view = view


def _next_action(outcome: Outcome, view: TrackerView) -> NextAction:
    action, info = outcome.extra.get("action"), outcome.extra.get("info")
    return NextAction(action, info, view)


def _until(events: Sequence[Event], until: float) -> list[Event]:
    chosen: list[Event] = []
    for event in events:
        if event.timestamp > until:
            break
        chosen.append(event)
    return chosen


async def _each(items: AsyncIterator[JSON] | Iterable[JSON]) -> AsyncIterator[JSON]:
    if isinstance(items, AsyncIterator):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
