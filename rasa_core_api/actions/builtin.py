"""The actions that every bot has, and those that say a template."""

from __future__ import annotations

from collections.abc import Mapping

from rasa_core_api.actions import Action, ActionCall
from rasa_core_api.constants import (
    ACTION_BACK,
    ACTION_DEACTIVATE_FORM,
    ACTION_DEFAULT_ASK_AFFIRMATION,
    ACTION_DEFAULT_ASK_REPHRASE,
    ACTION_DEFAULT_FALLBACK,
    ACTION_LISTEN,
    ACTION_RESTART,
    ACTION_REVERT_FALLBACK_EVENTS,
    REQUESTED_SLOT,
)
from rasa_core_api.events import (
    ActionExecuted,
    Event,
    Form,
    Restarted,
    SlotSet,
    UserUtteranceReverted,
    UserUttered,
)


class ListenAction(Action):
    """Wait for the user."""

    name = ACTION_LISTEN

    async def run(self, call: ActionCall) -> list[Event]:
        return []


class TemplateAction(Action):
    """Say the template of the action's name."""

    def __init__(self, name: str) -> None:
        self.name = name  # type: ignore[misc]

    async def run(self, call: ActionCall) -> list[Event]:
        said = await call.dispatcher.utter_template(self.name, call.tracker)
        if not said and call.domain.release.undefined_template_text:
            call.dispatcher.utter_text(f"Undefined utter template <{self.name}>.")
        return []


class _SilentTemplateAction(Action):
    """Say a template where the bot has it."""

    template: str

    async def run(self, call: ActionCall) -> list[Event]:
        said = await call.dispatcher.utter_template(self.template, call.tracker, silent=True)
        if not said:
            self.not_said(call)
        return self.events(call)

    def not_said(self, call: ActionCall) -> None:
        """The bot has no such template."""

    def events(self, call: ActionCall) -> list[Event]:
        return []


class RestartAction(_SilentTemplateAction):
    """Begin anew."""

    name = ACTION_RESTART
    template = "utter_restart"

    def not_said(self, call: ActionCall) -> None:
        if call.domain.release.undefined_restart_text:
            call.dispatcher.utter_text(f"Undefined utter template <{self.template}>.")

    def events(self, call: ActionCall) -> list[Event]:
        return [Restarted(timestamp=call.now())]


class DefaultFallbackAction(_SilentTemplateAction):
    """Say that nothing was understood and forget the message."""

    name = ACTION_DEFAULT_FALLBACK
    template = "utter_default"

    def events(self, call: ActionCall) -> list[Event]:
        return [UserUtteranceReverted(timestamp=call.now())]


class BackAction(_SilentTemplateAction):
    """Go back by one message of the user."""

    name = ACTION_BACK
    template = "utter_back"

    def events(self, call: ActionCall) -> list[Event]:
        return [UserUtteranceReverted(timestamp=call.now()), UserUtteranceReverted(timestamp=call.now())]


class AskRephraseAction(_SilentTemplateAction):
    """Ask the user to say it in other words."""

    name = ACTION_DEFAULT_ASK_REPHRASE
    template = "utter_ask_rephrase"


class AskAffirmationAction(Action):
    """Ask whether the most likely intent was meant."""

    name = ACTION_DEFAULT_ASK_AFFIRMATION

    async def run(self, call: ActionCall) -> list[Event]:
        intent = call.tracker.intent_name
        call.dispatcher.utter_buttons(
            f"Did you mean '{intent}'?",
            [
                {"title": "Yes", "payload": f"/{intent}"},
                {"title": "No", "payload": "/out_of_scope"},
            ],
        )
        return []


class DeactivateFormAction(Action):
    """End the active form."""

    name = ACTION_DEACTIVATE_FORM

    async def run(self, call: ActionCall) -> list[Event]:
        return [Form(name=None, timestamp=call.now()), SlotSet(key=REQUESTED_SLOT, value=None, timestamp=call.now())]


class RevertFallbackEventsAction(Action):
    """Forget the questions of a two-stage fallback and keep what the user meant."""

    name = ACTION_REVERT_FALLBACK_EVENTS

    async def run(self, call: ActionCall) -> list[Event]:
        tracker, now = call.tracker, call.now
        last = tracker.last_executed()
        message = tracker.latest_user_event()
        if message is None:
            return []

        def rewinds(count: int) -> list[Event]:
            listen = ActionExecuted(action_name=ACTION_LISTEN, timestamp=now())
            return [*(UserUtteranceReverted(timestamp=now()) for _ in range(count)), listen]

        if last == ACTION_DEFAULT_ASK_REPHRASE:
            return [*rewinds(3), _copy(message, now())]
        if last == ACTION_DEFAULT_ASK_AFFIRMATION:
            events = rewinds(2)
            if tracker.last_executed(skip=1) == ACTION_DEFAULT_ASK_REPHRASE:
                events += rewinds(3)
            return [*events, _affirmed(message, now(), call.domain.release.fallback_score)]
        return []


def _copy(message: UserUttered, timestamp: float) -> UserUttered:
    return UserUttered(
        text=message.text, parse_data=message.parse_data, input_channel=message.input_channel, timestamp=timestamp
    )


def _affirmed(message: UserUttered, timestamp: float, confidence: float) -> UserUttered:
    """The message with an intent that the user confirmed."""
    intent = {**(message.parse_data.get("intent") or {}), "confidence": confidence}
    return UserUttered(
        text=message.text,
        parse_data={**message.parse_data, "intent": intent},
        input_channel=message.input_channel,
        timestamp=timestamp,
    )


BUILTIN_ACTIONS: Mapping[str, Action] = {
    action.name: action
    for action in (
        ListenAction(),
        RestartAction(),
        DefaultFallbackAction(),
        DeactivateFormAction(),
        BackAction(),
        AskAffirmationAction(),
        AskRephraseAction(),
        RevertFallbackEventsAction(),
    )
}
