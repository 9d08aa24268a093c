"""Events: the frozen entries of a conversation's log, and the JSON forms of the wire and the store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar

from attrs import field, frozen

from rasa_core_api.constants import JSON
from rasa_core_api.jsontext import encode

#: Parse data of "nothing was said": before the first message, and for a reminder that fires.
EMPTY_PARSE_DATA: Mapping[str, JSON] = {"intent": {}, "entities": [], "text": None}


@frozen(kw_only=True)
class Event:
    """Base of all events. Two events are equal when they say the same, whatever their time.

    `timestamp` is in seconds since the epoch.
    """

    type_name: ClassVar[str] = ""

    timestamp: float = field(eq=False)
    _text: str | None = field(default=None, init=False, eq=False, repr=False)

    def fields(self) -> dict[str, JSON]:
        """The JSON members besides `event` and `timestamp`."""
        return {}

    def as_dict(self) -> dict[str, JSON]:
        """The JSON form, as the HTTP API and action servers see it."""
        return {"event": self.type_name, "timestamp": self.timestamp, **self.fields()}

    def as_json(self) -> str:
        """The JSON form as compact text; encoded once and kept."""
        text = self._text
        if text is None:
            text = encode(self.as_dict())
            object.__setattr__(self, "_text", text)
        return text


@frozen(kw_only=True, eq=False)
class UserUttered(Event):
    """The user said something; `parse_data` is kept and dumped as it came."""

    type_name = "user"
    text: str | None
    parse_data: Mapping[str, JSON]
    input_channel: str | None = None

    @property
    def intent_name(self) -> str | None:
        name = (self.parse_data.get("intent") or {}).get("name")
        return name if isinstance(name, str) else None

    @property
    def entities(self) -> list[dict[str, JSON]]:
        return self.parse_data.get("entities") or []

    def fields(self) -> dict[str, JSON]:
        return {"text": self.text, "parse_data": self.parse_data, "input_channel": self.input_channel}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, UserUttered):
            return NotImplemented
        return (self.text, self.intent_name, self.entities) == (other.text, other.intent_name, other.entities)

    def __hash__(self) -> int:
        return hash((self.text, self.intent_name))


@frozen(kw_only=True)
class BotUttered(Event):
    """The bot said something; `data` holds `elements`, `buttons` and `attachment`, or is null."""

    type_name = "bot"
    text: str | None = None
    data: JSON = None

    def fields(self) -> dict[str, JSON]:
        return {"text": self.text, "data": self.data}


@frozen(kw_only=True)
class AgentUttered(BotUttered):
    """A human operator said something."""

    type_name = "agent"


@frozen(kw_only=True)
class SlotSet(Event):
    """A slot took a value; `None` empties it."""

    type_name = "slot"
    key: str
    value: JSON = None

    def fields(self) -> dict[str, JSON]:
        return {"name": self.key, "value": self.value}


@frozen(kw_only=True)
class AllSlotsReset(Event):
    """All slots went back to their initial values."""

    type_name = "reset_slots"


@frozen(kw_only=True)
class ActionExecuted(Event):
    """An action ran; `policy` and `confidence` tell who chose it and how sure it was."""

    type_name = "action"
    action_name: str
    policy: str | None = field(default=None, eq=False)
    confidence: float | None = field(default=None, eq=False)
    unpredictable: bool = field(default=False, eq=False)  # opens a story; never a training target

    def fields(self) -> dict[str, JSON]:
        return {"name": self.action_name, "policy": self.policy, "confidence": self.confidence}


@frozen(kw_only=True)
class FollowupAction(Event):
    """The next action is decided."""

    type_name = "followup"
    action_name: str

    def fields(self) -> dict[str, JSON]:
        return {"name": self.action_name}


@frozen(kw_only=True)
class Restarted(Event):
    """The conversation begins anew."""

    type_name = "restart"


@frozen(kw_only=True)
class UserUtteranceReverted(Event):
    """The last user message and all that followed it do not count."""

    type_name = "rewind"


@frozen(kw_only=True)
class ActionReverted(Event):
    """The last action and all that followed it do not count."""

    type_name = "undo"


@frozen(kw_only=True)
class ConversationPaused(Event):
    """The bot is silent until it is resumed or restarted."""

    type_name = "pause"


@frozen(kw_only=True)
class ConversationResumed(Event):
    """The bot speaks again."""

    type_name = "resume"


@frozen(kw_only=True)
class ReminderScheduled(Event):
    """An action is to run at `trigger_date_time`; a naive time is UTC."""

    type_name = "reminder"
    action_name: str = field(eq=False)
    trigger_date_time: datetime = field(eq=False)
    name: str
    kill_on_user_message: bool = field(default=True, eq=False)

    def fields(self) -> dict[str, JSON]:
        return {
            "action": self.action_name,
            "date_time": self.trigger_date_time.isoformat(),
            "name": self.name,
            "kill_on_user_msg": self.kill_on_user_message,
        }


@frozen(kw_only=True)
class StoryExported(Event):
    """A marker without effect: a path is neither read nor written."""

    type_name = "export"


@frozen(kw_only=True)
class Form(Event):
    """A form was activated (`name`) or deactivated (`None`)."""

    type_name = "form"
    name: str | None = None

    def fields(self) -> dict[str, JSON]:
        return {"name": self.name}


@frozen(kw_only=True)
class FormValidation(Event):
    """Whether the active form validates the next message."""

    type_name = "form_validation"
    validate: bool

    def fields(self) -> dict[str, JSON]:
        return {"validate": self.validate}


@frozen(kw_only=True)
class ActionExecutionRejected(Event):
    """An action refused to run."""

    type_name = "action_execution_rejected"
    action_name: str
    policy: str | None = field(default=None, eq=False)
    confidence: float | None = field(default=None, eq=False)

    def fields(self) -> dict[str, JSON]:
        return {"name": self.action_name, "policy": self.policy, "confidence": self.confidence}


EVENT_TYPES: Mapping[str, type[Event]] = {
    kind.type_name: kind
    for kind in (
        UserUttered,
        BotUttered,
        AgentUttered,
        SlotSet,
        AllSlotsReset,
        ActionExecuted,
        FollowupAction,
        Restarted,
        UserUtteranceReverted,
        ActionReverted,
        ConversationPaused,
        ConversationResumed,
        ReminderScheduled,
        StoryExported,
        Form,
        FormValidation,
        ActionExecutionRejected,
    )
}
