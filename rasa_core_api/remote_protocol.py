"""The remote-execution protocol of 0.8 to 0.10: the caller runs the actions, one request for each."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, frozen

from rasa_core_api.constants import ACTION_LISTEN
from rasa_core_api.events import ActionExecuted, Event
from rasa_core_api.live_trackers import AT_ONCE
from rasa_core_api.messages import RequestKey, UserMessage
from rasa_core_api.predictions import predicted_by
from rasa_core_api.processor import Processor
from rasa_core_api.tracker_views import EventVerbosity, TrackerView
from rasa_core_api.trackers import Tracker
from rasa_core_api.turn_values import Model, Turn, Work

PAUSED = "Bot is currently paused and no restart was received yet."
NO_NEED_TO_CONTINUE = (
    "You do not need to call continue after action listen got returned for the previous continue call. "
    "You are expected to call 'parse' with the next user message."
)


@frozen
class NextAction:
    """Answer of the remote-execution protocol of 0.8 to 0.10."""

    action: str | None
    info: str | None
    view: TrackerView


@define
class RemoteProtocol:
    """Predicts one action at a time; nothing is run here."""

    _processor: Processor

    async def parse(self, model: Model, sender_id: str, text: str, request: RequestKey | None) -> NextAction:
        """Log a message and predict the one action that the caller is to run."""

        async def work(turn: Turn) -> None:
            await self._processor.log_message(turn, UserMessage(text=text, sender_id=sender_id))
            if Processor.may_predict(turn.tracker, turn.model.domain):
                turn.extra["action"] = self._next(turn.model, turn.tracker)
            else:
                # as these releases did: what is said to a paused bot over this route is not kept
                raise _Paused(turn.tracker.view(EventVerbosity.NONE))

        try:
            return await self._run(model, sender_id, work, request)
        except _Paused as paused:
            return NextAction(None, PAUSED, paused.view)

    async def go_on(
        self,
        model: Model,
        sender_id: str,
        executed_action: str | None,
        events: Sequence[Event],
        request: RequestKey | None,
    ) -> NextAction:
        """Log what the caller ran and predict the next action."""

        async def work(turn: Turn) -> None:
            if executed_action == ACTION_LISTEN:
                turn.extra["info"] = NO_NEED_TO_CONTINUE
                return
            tracker = turn.tracker
            if executed_action is not None:
                tracker.update(ActionExecuted(action_name=executed_action, timestamp=self._processor.now()))
            for begin in range(0, len(events), AT_ONCE):
                await self._processor.slices.breathe()
                tracker.extend(self._processor.retimed(events[begin : begin + AT_ONCE]))
            turn.extra["action"] = self._next(turn.model, tracker)

        return await self._run(model, sender_id, work, request)

    def _next(self, model: Model, tracker: Tracker) -> str:
        predicted = predicted_by(model, tracker)
        if predicted.action == ACTION_LISTEN:
            tracker.update(
                ActionExecuted(
                    action_name=ACTION_LISTEN,
                    policy=predicted.policy,
                    confidence=predicted.confidence,
                    timestamp=self._processor.now(),
                )
            )
        return predicted.action

    async def _run(self, model: Model, sender_id: str, work: Work, request: RequestKey | None) -> NextAction:
        outcome = await self._processor.turns.run(
            model, sender_id, work, request=request, verbosity=EventVerbosity.NONE
        )
        assert outcome.view is not None
        return NextAction(outcome.extra.get("action"), outcome.extra.get("info"), outcome.view)


class _Paused(Exception):
    """The conversation is paused; nothing is to be stored."""

    def __init__(self, view: TrackerView) -> None:
        super().__init__()
        self.view = view
