"""One turn: understand, predict, act, store, and only then answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from attrs import define, evolve, field, frozen
from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from rasa_core_api.actions import ActionCall
from rasa_core_api.actions.registry import ActionRegistry
from rasa_core_api.channels.collecting import collect
from rasa_core_api.concurrency import Lines, Slices
from rasa_core_api.constants import ACTION_LISTEN, ACTION_RESTART, JSON, MAX_ACTIONS_PER_TURN
from rasa_core_api.dispatcher import Dispatcher
from rasa_core_api.domain import Domain
from rasa_core_api.events import (
    EMPTY_PARSE_DATA,
    ActionExecuted,
    ActionExecutionRejected,
    BotUttered,
    Event,
    ReminderScheduled,
    SlotSet,
    UserUttered,
)
from rasa_core_api.exceptions import ActionFailed, ActionRejected, ResponseFailed
from rasa_core_api.interpreter import Interpreter, RegexInterpreter
from rasa_core_api.live_trackers import LiveTrackers
from rasa_core_api.messages import BotMessage, UserMessage
from rasa_core_api.nlg import Response, ResponseGenerator
from rasa_core_api.policies.ensemble import Choice, Ensemble
from rasa_core_api.policies.policy import OneHot
from rasa_core_api.releases import Release
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.trackers import Tracker

log = Logger()

#: Events, responses and reminders that are handled before the reactor gets its turn.
_AT_ONCE = 128

#: Name of the output channel that collects answers for the caller.
COLLECTOR = "collector"


class OutputChannel(Protocol):
    """Where the answers of a turn go when they are not collected."""

    def channel_name(self) -> str:
        """What response generators and logs call it."""

    async def send(self, recipient_id: str, response: Response) -> None:
        """Send one response."""


class Observer(Protocol):
    """Watches what a model does in turns."""

    def predicted(self, tracker: Tracker, action: str) -> None:
        """The policies chose an action; the tracker does not have it yet."""

    def turn_over(self, failed: bool) -> None:
        """A turn ended; `failed`: it or one of its actions did."""


@frozen(kw_only=True)
class Model:
    """A generation in service: everything a turn needs, immutable, swapped as a whole."""

    domain: Domain
    ensemble: Ensemble
    actions: ActionRegistry
    generator: ResponseGenerator
    interpreter: Interpreter
    fingerprint: str
    action_fingerprints: Mapping[str, JSON] = field(factory=dict, repr=False)
    source: str = ""
    observer: Observer | None = field(default=None, repr=False)
    #: The templates of the domain, where a server generates the responses.
    own_templates: ResponseGenerator | None = None

    @property
    def release(self) -> Release:
        return self.domain.release


@frozen
class Predicted:
    """The next action; `choice` is None where no policy was asked."""

    action: str
    policy: str | None
    confidence: float
    choice: Choice | None

    def scores(self, domain: Domain) -> list[float]:
        """A number an action, as clients see them."""
        if self.choice is None:
            return OneHot(len(domain.action_names), domain.index_of(self.action), 1.0).to_list()
        return self.choice.normalised(domain.release.normalisation)


@define
class Turn:
    """What is under way in one conversation; `stored` is the log's end in the store."""

    model: Model
    tracker: Tracker
    dispatcher: Dispatcher
    stored: int
    output: OutputChannel | None = None
    answers: list[BotMessage] = field(factory=list)
    reminders: list[ReminderScheduled] = field(factory=list)
    failed: bool = False  # an action did


@define
class Processor:
    """Runs turns; the turns of one conversation one after another, in the order they came.

    `now` gives seconds since the epoch. A turn that fails leaves nothing in the store, and the next turn
    begins from what is stored. `schedule` is told of reminders once they are stored.
    """

    store: TrackerStore
    trackers: LiveTrackers
    lines: Lines
    slices: Slices
    now: Callable[[], float]
    schedule: Callable[[str, ReminderScheduled, object], None]
    failure_template: str | None = None
    run: str = ""  # id of this run of the server
    stored: Callable[[str], None] = lambda _: None  # told the sender id of each turn, once it is in the store
    _regex: dict[str, RegexInterpreter] = field(factory=dict, init=False)

    # --- turns ---------------------------------------------------------------------------------------

    async def begin(self, model: Model, sender_id: str, output: OutputChannel | None = None) -> Turn:
        """A turn of a conversation whose place in line the caller holds."""
        tracker, stored = await self.trackers.current(sender_id, model.domain)
        name = COLLECTOR if output is None else output.channel_name()
        return Turn(model, tracker, Dispatcher(model.generator, name, model.release), stored, output)

    async def commit(self, turn: Turn) -> None:
        """Store the turn's new events, then schedule its reminders and send what is to be sent."""
        tracker = turn.tracker
        if tracker.end > turn.stored:
            turn.stored = await self.store.append(tracker.sender_id, turn.stored, tracker.events_since(turn.stored))
            self.stored(tracker.sender_id)
            self.trackers.keep(tracker)
        if turn.reminders:
            reminders, turn.reminders = turn.reminders, []
            for number, reminder in enumerate(reminders, 1):
                self.schedule(tracker.sender_id, reminder, turn.output)
                if not number % _AT_ONCE:
                    await self.slices.breathe()
        responses = turn.dispatcher.responses
        if responses:
            turn.dispatcher.responses = []
            if turn.output is None:
                release = turn.model.release
                for number, response in enumerate(responses, 1):
                    turn.answers += collect(tracker.sender_id, response, release)
                    if not number % _AT_ONCE:
                        await self.slices.breathe()
            else:
                await self._send(turn.output, tracker.sender_id, responses)

    async def _send(self, output: OutputChannel, sender_id: str, responses: Sequence[Response]) -> None:
        for response in responses:
            try:
                await output.send(sender_id, response)
            except CancelledError:
                raise
            except Exception:
                log.failure("a message could not be sent over {channel}", channel=output.channel_name())

    def abandon(self, turn: Turn) -> None:
        """Give up what was not stored."""
        self.trackers.drop(turn.tracker.sender_id)

    async def handle_message(self, model: Model, message: UserMessage) -> list[BotMessage]:
        """One turn for one message of a user; answers that go to a channel are not returned."""
        output = message.output if message.output is None else _as_output(message.output)
        async with self.lines.of(message.sender_id):
            await self.slices.breathe()
            turn = await self.begin(model, message.sender_id, output)
            try:
                await self.log_message(turn, message)
                await self.act(turn)
                await self.commit(turn)
            except BaseException as error:
                turn.failed = turn.failed or isinstance(error, Exception)
                self.abandon(turn)
                raise
            finally:
                turn.tracker.release_followup()
                if model.observer is not None:
                    model.observer.turn_over(turn.failed)
            return turn.answers

    async def log_message(self, turn: Turn, message: UserMessage) -> None:
        """Understand a message and log it, with the slots that its entities fill."""
        tracker, release = turn.tracker, turn.model.release
        text = message.text
        if text is not None and (release.strips_text or message.input_channel is not None):
            text = text.strip()
        parse_data = message.parse_data
        if parse_data is None:
            parse_data = await self.parse(turn.model, text or "", message.message_id)
        tracker.update(
            UserUttered(text=text, parse_data=parse_data, input_channel=message.input_channel, timestamp=self.now())
        )
        entities = parse_data.get("entities")
        if entities:
            for name, value in turn.model.domain.slots_from_entities(entities):
                tracker.update(SlotSet(key=name, value=value, timestamp=self.now()))

    async def parse(self, model: Model, text: str, message_id: str | None = None) -> dict[str, JSON]:
        """Parse data of a text; intent messages never reach the NLU."""
        release = model.release
        if text[:1] and text[0] in release.prefixes:
            regex = self._regex.get(release.name)
            if regex is None:
                regex = self._regex[release.name] = RegexInterpreter(release)
            return regex.parse_sync(text)
        data = await model.interpreter.parse(text, message_id)
        if release.names_nlu_model and model.interpreter.embedded:
            data = {**data, "project": "default", "model": "current"}
        return data

    # --- predicting and acting -----------------------------------------------------------------------

    @staticmethod
    def may_predict(tracker: Tracker, domain: Domain) -> bool:
        """A paused conversation only listens for the restart intent."""
        return not tracker.paused or tracker.intent_name == domain.restart_intent

    @staticmethod
    def predict(model: Model, tracker: Tracker) -> Predicted:
        """The next action. Raises `UnknownAction` for a follow-up action that the domain lacks."""
        domain = model.domain
        followup = tracker.followup_action
        if followup is not None:
            domain.index_of(followup)
            tracker.take_followup()
            return Predicted(followup, None, 1.0, None)
        if domain.release.hard_coded_restart and tracker.intent_name == domain.restart_intent:
            return Predicted(ACTION_RESTART, None, 1.0, None)
        choice = model.ensemble.choose(tracker)
        return Predicted(domain.action_names[choice.index], choice.policy, choice.confidence, choice)

    async def act(self, turn: Turn) -> None:
        """Predict and run actions until the bot listens, or the circuit breaker ends it."""
        model, tracker = turn.model, turn.tracker
        for _ in range(MAX_ACTIONS_PER_TURN):
            if not self.may_predict(tracker, model.domain):
                return
            predicted = self.predict(model, tracker)
            if model.observer is not None and predicted.choice is not None:
                model.observer.predicted(tracker, predicted.action)
            await self.run_action(turn, predicted.action, predicted.policy, predicted.confidence)
            if predicted.action == ACTION_LISTEN:
                return
            await self.slices.breathe()
        if self.may_predict(tracker, model.domain):
            log.warn("circuit breaker: a turn ended after {count} actions without a listen", count=MAX_ACTIONS_PER_TURN)

    async def run_action(self, turn: Turn, name: str, policy: str | None, confidence: float | None) -> None:
        """Run one action and log what came of it; a turn for a channel is stored and sent after each one.

        An action that fails is logged as executed; one that is rejected leaves a rejection instead.
        """
        model, tracker, dispatcher = turn.model, turn.tracker, turn.dispatcher
        action = model.actions.get(name)
        events: list[Event] = []
        if name != ACTION_LISTEN or name in model.domain.overridden_defaults:
            call = ActionCall(tracker, model.domain, dispatcher, self.now, turn.stored, self.run)
            try:
                events = await action.run(call)
            except ActionRejected:
                log.debug("the action {action} was rejected", action=name)
                tracker.update(
                    ActionExecutionRejected(
                        action_name=name, policy=policy, confidence=confidence, timestamp=self.now()
                    )
                )
                return
            except CancelledError:
                raise
            except (ActionFailed, ResponseFailed) as error:
                log.error("{reason}", reason=str(error))
                await self._apologise(turn, isinstance(error, ResponseFailed))
            except Exception:
                log.failure("the action {action} failed", action=name)
                await self._apologise(turn)
        release = model.release
        if release.bot_events_first:
            await self._log_said(turn)
        tracker.update(ActionExecuted(action_name=name, policy=policy, confidence=confidence, timestamp=self.now()))
        if events:
            self._warn_of_slots(model, tracker, name, events)
        for number, event in enumerate(events, 1):
            if release.retimes_action_events:
                event = evolve(event, timestamp=self.now())
            tracker.update(event)
            if isinstance(event, ReminderScheduled):
                turn.reminders.append(event)
            if not number % _AT_ONCE:
                await self.slices.breathe()
        await self._log_said(turn)
        if turn.output is not None:
            await self.commit(turn)

    def retimed(self, events: Sequence[Event]) -> list[Event]:
        """The same events, dated now."""
        return [evolve(event, timestamp=self.now()) for event in events]

    async def _apologise(self, turn: Turn, generator_failed: bool = False) -> None:
        """Say the failure template; where the response generation server fails too, as the model words it."""
        turn.failed = True
        name, own = self.failure_template, turn.model.own_templates
        if name is None:
            return
        if own is None or not generator_failed:
            try:
                await turn.dispatcher.utter_template(name, turn.tracker)
                return
            except ResponseFailed as error:
                log.error("{reason}", reason=str(error))
        if own is not None:
            response = await own.generate(name, turn.tracker, turn.dispatcher.channel, {})
            if response is not None:
                turn.dispatcher.utter_response(response)

    async def _log_said(self, turn: Turn) -> None:
        for number, said in enumerate(turn.dispatcher.take_said(), 1):
            turn.tracker.update(BotUttered(text=said.text, data=said.data, timestamp=self.now()))
            if not number % _AT_ONCE:
                await self.slices.breathe()

    @staticmethod
    def _warn_of_slots(model: Model, tracker: Tracker, name: str, events: Sequence[Event]) -> None:
        """Policies do not know what follows when an action sets a featurized slot that it never set in training."""
        known = model.action_fingerprints.get(name)
        if not isinstance(known, Mapping):
            return
        trained = known.get("slots") or []
        new = sorted(
            event.key
            for event in events
            if isinstance(event, SlotSet)
            and event.key not in trained
            and event.key in model.domain.slot_by_name
            and model.domain.slot_by_name[event.key].width
        )
        if new:
            log.warn("the action {action} sets slots that it never set in the stories: {slots}", action=name, slots=new)

    # --- reminders -----------------------------------------------------------------------------------

    async def run_reminder(
        self,
        model: Model,
        sender_id: str,
        reminder: ReminderScheduled,
        output: object,
        is_cancelled: Callable[[Tracker, ReminderScheduled], bool],
    ) -> None:
        """Run the action of a reminder that is due, unless the conversation made it void."""
        async with self.lines.of(sender_id):
            await self.slices.breathe()
            turn = await self.begin(model, sender_id, None if output is None else _as_output(output))
            if is_cancelled(turn.tracker, reminder):
                log.debug("a reminder for {action} is void", action=reminder.action_name)
                return
            try:
                turn.tracker.update(UserUttered(text=None, parse_data=EMPTY_PARSE_DATA, timestamp=self.now()))
                await self.run_action(turn, reminder.action_name, None, None)
                if reminder.action_name != ACTION_LISTEN:
                    await self.act(turn)
                await self.commit(turn)
            except BaseException:
                self.abandon(turn)
                raise
            finally:
                turn.tracker.release_followup()


def _as_output(output: object) -> OutputChannel:
    """A channel as the processor uses it."""
    assert hasattr(output, "channel_name") and hasattr(output, "send")
    return output
