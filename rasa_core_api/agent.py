"""The agent: one facade over conversations and the model that serves them.

What it holds together has modules of its own: the model in service, turns, trackers, reminders, lessons.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from attrs import Factory, define, evolve, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rasa_core_api.care import Care
from rasa_core_api.claims import Claims
from rasa_core_api.concurrency import Lines, Slices
from rasa_core_api.constants import DEFAULT_SENDER_ID, JSON
from rasa_core_api.domain import Domain
from rasa_core_api.endpoints import Endpoints, OutgoingHTTP
from rasa_core_api.events import Event
from rasa_core_api.events.lists import read_events
from rasa_core_api.events.reading import EventReader
from rasa_core_api.exceptions import InvalidEvent, InvalidParameter, NoDomain, NotBuilt
from rasa_core_api.interpreter import Interpreter
from rasa_core_api.lessons import InThread, Learner, Lessons
from rasa_core_api.live_trackers import LiveTrackers, replay
from rasa_core_api.messages import KEEP_ANSWERS, BotMessage, RequestKey, UserMessage, message_key
from rasa_core_api.models.generation import Generation
from rasa_core_api.predictions import Scored, predicted_by, preferred_by, scored
from rasa_core_api.processor import Processor
from rasa_core_api.reminders import Reminders, standing
from rasa_core_api.remote_protocol import NextAction, RemoteProtocol
from rasa_core_api.retention import Retention
from rasa_core_api.served_model import ServedModel
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.turns import Reminder
from rasa_core_api.tracker_views import EventVerbosity, TrackerView
from rasa_core_api.trackers import Tracker
from rasa_core_api.training.story_writer import story_of
from rasa_core_api.turn_values import Model, Outcome, Turn, Work
from rasa_core_api.turns import Turns

log = Logger()

class Installer(Protocol):
    """Loads a model without stopping the reactor."""

    async def install_archive(self, archive: Path, signature: str | None = None) -> Generation:
        """The generation in an uploaded archive, checked. Raises `UnsupportedModel`."""

    def status(self) -> dict[str, JSON]:
        """The member `model` of `/status`."""


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
    _interpreter: Interpreter | None = None  # until a model brings its own
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
    in_thread: InThread | None = None  # for what takes long and cannot pause
    slices: Slices = field(default=Factory(lambda self: Slices(self.clock), takes_self=True))
    #: Called with the sender id after each append and replacement that this agent stored; they must not block.
    after_commit: list[Callable[[str], None]] = field(factory=list)
    #: Members of `/status` that others answer for.
    status_of: dict[str, Callable[[], JSON]] = field(factory=dict)

    event_reader: EventReader = field(init=False)
    served: ServedModel = field(init=False)
    turns: Turns = field(init=False)
    care: Care = field(init=False)
    _trackers: LiveTrackers = field(init=False)
    _lines: Lines = field(init=False)
    _reminders: Reminders = field(init=False)
    _processor: Processor = field(init=False)
    _remote: RemoteProtocol = field(init=False)
    _lessons: Lessons = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.event_reader = EventReader(self.now, self.new_id)
        self._trackers = LiveTrackers(self.store, self.slices, self.now)
        self._lines = Lines(self.clock, self.line_limit, self.store.pin, self.store.unpin, self.turn_limit)
        owner = self.owner or self.new_id()
        self._reminders = Reminders(self.clock, self.now, self.store, self._remind, self.slices, owner)
        self.served = ServedModel(
            self.endpoints,
            self.http,
            self.slices,
            self.event_reader,
            self.choose,
            self.version,
            lambda domains: self._trackers.serve(*domains),
            self.new_id(),
            self._interpreter,
        )
        claims = Claims(self.store, self.clock, owner)
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
        self.care = Care(
            self.store, self._trackers, self._lines, self.slices, self.clock, claims, self.stored
        )
        self._processor = Processor(
            self.turns, self.slices, self.now, self.failure_template, self.served.empty_fingerprint
        )
        self._remote = RemoteProtocol(self._processor)
        self._lessons = Lessons(self.served, self.slices)

    # --- the model -----------------------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        return self.served.current is not None

    @property
    def model(self) -> Model:
        """The model in service. Raises `AgentNotReady`."""
        return self.served.model

    @property
    def domain(self) -> Domain:
        return self.model.domain

    @property
    def fingerprint(self) -> str:
        """Changes with every model that is put into service."""
        return self.served.fingerprint

    def model_of(self, sender_id: str) -> Model:
        """The model that serves a conversation. Raises `AgentNotReady`."""
        return self.served.model_of(sender_id)

    def install(self, generation: Generation, interpreter: Interpreter | None = None) -> Model:
        """Serve another model from the next turn on; an interpreter of its own comes with it."""
        return self.served.install(generation, interpreter)

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
        if self.served.current is None:
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
        if self.served.current is None:
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
        events, ignored = await read_events(self.event_reader, items, not single, self.slices)
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
        events, _ = await read_events(self.event_reader, items, True, self.slices)
        return await self.care.replace(sender_id, domain, events, verbosity, request)

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
                return scored(predicted_by(model, tracker), tracker, verbosity)
            finally:
                tracker.release_followup()

    async def predict_events(
        self,
        items: AsyncIterator[JSON] | Iterable[JSON],
        verbosity: EventVerbosity = EventVerbosity.AFTER_RESTART,
        skip: bool = False,
    ) -> Scored:
        """What the policies would do after these events, whatever follows up; nothing is stored.

        Raises `InvalidParameter`.
        """
        model = self.model
        try:
            events, _ = await read_events(self.event_reader, items, skip, self.slices)
        except InvalidEvent as error:
            raise InvalidParameter(f"Supplied events are not valid. {error}", parameter="", **{"in": "body"}) from error
        tracker = Tracker(DEFAULT_SENDER_ID, model.domain)
        await replay(tracker, events, self.slices)
        return scored(preferred_by(model, tracker), tracker, verbosity)

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
        return await self._remote.parse(self.model_of(sender_id), sender_id, text, request)

    async def continue_old(
        self, sender_id: str, executed_action: str | None, items: Iterable[JSON], request: RequestKey | None = None
    ) -> NextAction:
        """Log what the caller ran and predict the next action. Raises `UnknownAction`, `InvalidParameter`."""
        model = self.model_of(sender_id)
        if executed_action is not None:
            model.domain.index_of(executed_action)
        events, _ = await read_events(self.event_reader, items, True, self.slices)
        return await self._remote.go_on(self.model_of(sender_id), sender_id, executed_action, events, request)

    # --- learning ------------------------------------------------------------------------------------

    async def finetune(self, items: AsyncIterator[JSON] | Iterable[JSON], epochs: int, batch_size: int) -> None:
        """Learn from a correct conversation, one after the other; the model it makes is then in service.

        Only a model whose directory keeps its training data can. Raises `TrainingFailed`, `InvalidParameter` and,
        where many wait already, `ModelBusy`.
        """
        self.model  # not ready comes before what is wrong with the body  # noqa: B018
        try:
            events, _ = await read_events(self.event_reader, items, True, self.slices)
        except InvalidEvent as error:
            raise InvalidParameter(f"Supplied events are not valid. {error}", parameter="", **{"in": "body"}) from error
        await self._lessons.learn(self.learner, events, epochs, batch_size)

    async def evaluate(self, stories: str, e2e: bool) -> dict[str, JSON]:
        """How well the model predicts stories; with `e2e` they hold messages, which the interpreter is asked about."""
        return await self._lessons.evaluate(stories, e2e, self.in_thread)

    # --- reminders and the end -----------------------------------------------------------------------

    async def reminders(self, sender_id: str) -> list[Reminder]:
        """Those that wait for their time, the earliest first; what the conversation made void is not among them."""
        found = await self.store.reminders(sender_id)
        if not found or not self.is_ready:
            return found
        async with self._lines.of(sender_id):
            await self.slices.breathe()
            return standing(await self._current(sender_id), found)

    async def _remind(self, reminder: Reminder, output: object) -> bool:
        if output is None and reminder.channel is not None:
            output = self.output_of.get(reminder.channel, _no_output)()
        return await self._processor.run_reminder(self.model_of(reminder.sender_id), reminder, output)

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


def _no_output() -> None:
    """The channel is not open any more."""


def _until(events: Sequence[Event], until: float) -> list[Event]:
    chosen: list[Event] = []
    for event in events:
        if event.timestamp > until:
            break
        chosen.append(event)
    return chosen
