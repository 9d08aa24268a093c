"""One turn: understand, predict, act."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from rasa_core_api.actions import ActionCall
from rasa_core_api.concurrency import Slices
from rasa_core_api.constants import ACTION_LISTEN, ACTION_RESTART, JSON, MAX_ACTIONS_PER_TURN
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
from rasa_core_api.exceptions import (
    ActionFailed,
    ActionRejected,
    ConversationHeld,
    ResponseFailed,
    StoreConflict,
    StoreUnavailable,
)
from rasa_core_api.interpreter import RegexInterpreter
from rasa_core_api.messages import BotMessage, RequestKey, UserMessage
from rasa_core_api.policies.ensemble import Choice
from rasa_core_api.policies.policy import OneHot
from rasa_core_api.reminders import reminder_event, standing
from rasa_core_api.tracker_store.turns import Reminder
from rasa_core_api.trackers import Tracker
from rasa_core_api.turn_values import Model, OutputChannel, Turn
from rasa_core_api.turns import Turns

log = Logger()

#: Events that are handled before the reactor gets its turn.
_AT_ONCE = 128


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
class Processor:
    """What happens in a turn; `turns` makes one transaction of it.

    `now` gives seconds since the epoch.
    """

    turns: Turns
    slices: Slices
    now: Callable[[], float]
    failure_template: str | None = None
    run: str = ""  # id of this run of the server
    _regex: dict[str, RegexInterpreter] = field(factory=dict, init=False)

    async def handle_message(self, model: Model, message: UserMessage) -> list[BotMessage]:
        """One turn for one message of a user; answers that go to a channel are not returned."""

        async def work(turn: Turn) -> None:
            if not turn.resumed:
                await self.turns.end_torn(turn, self.now())
                await self.log_message(turn, message)
            await self.act(turn)

        outcome = await self.turns.run(
            model,
            message.sender_id,
            work,
            output=None if message.output is None else _as_output(message.output),
            request=message.request,
            over=None if model.observer is None else model.observer.turn_over,
        )
        return outcome.answers if message.output is None else []

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
        return Processor.preferred(model, tracker)

    @staticmethod
    def preferred(model: Model, tracker: Tracker) -> Predicted:
        """What the policies alone make of a conversation."""
        domain, choice = model.domain, model.ensemble.choose(tracker)
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
            request = turn.request
            key = None if request is None else f"{request.key}\0{request.digest}"
            call = ActionCall(
                tracker, model.domain, dispatcher, self.now, turn.base, self.run, key, partial(self.turns.claim, turn)
            )
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
            except (CancelledError, StoreConflict, ConversationHeld, StoreUnavailable):
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
                event = event.changed(timestamp=self.now())
            tracker.update(event)
            if isinstance(event, ReminderScheduled):
                turn.remind(event)
            if not number % _AT_ONCE:
                await self.slices.breathe()
        await self._log_said(turn)
        if turn.output is not None and name != ACTION_LISTEN:  # with a listen the turn ends
            await self.turns.commit(turn, done=False)

    def retimed(self, events: Sequence[Event]) -> list[Event]:
        """The same events, dated now."""
        return [event.changed(timestamp=self.now()) for event in events]

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
        slots = known.get("slots")
        trained = slots if isinstance(slots, list) else []
        new = sorted(
            {
                event.key
                for event in events
                if isinstance(event, SlotSet)
                and event.key not in trained
                and event.key in model.domain.slot_by_name
                and model.domain.slot_by_name[event.key].width
            }
        )
        if new:
            log.warn("the action {action} sets slots that it never set in the stories: {slots}", action=name, slots=new)

    # --- reminders -----------------------------------------------------------------------------------

    async def run_reminder(self, model: Model, reminder: Reminder, output: object) -> bool:
        """Run the action of a reminder that is due, unless the conversation made it void; once, whoever else tries.

        Whether a turn began that is stored now; none does where the same reminder fired before.
        """
        began = False

        async def work(turn: Turn) -> None:
            nonlocal began
            began = True
            tracker = turn.tracker
            if not turn.resumed:
                event = reminder_event(tracker, reminder)
                if event is None or not standing(tracker, [reminder]):
                    log.debug("a reminder is void")
                    return
                await self.turns.end_torn(turn, self.now())
                tracker.update(UserUttered(text=None, parse_data=EMPTY_PARSE_DATA, timestamp=self.now()))
                await self.run_action(turn, event.action_name, None, None)
                if event.action_name == ACTION_LISTEN:
                    return
            await self.act(turn)

        await self.turns.run(
            model,
            reminder.sender_id,
            work,
            output=None if output is None else _as_output(output),
            # number and name come again where a conversation was lost and begun anew, the time does not
            request=RequestKey(f"reminder {reminder.seq} {reminder.due!r} {reminder.name}"),
            fired=reminder,
        )
        return began


def _as_output(output: object) -> OutputChannel:
    """A channel as the processor uses it."""
    assert hasattr(output, "channel_name") and hasattr(output, "send")
    return output
