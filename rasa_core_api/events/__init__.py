"""Events: the frozen entries of a conversation's log, and the JSON forms of the wire and the store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, TypeVar

from msgspec import Struct, field
from msgspec.structs import force_setattr, replace

from rasa_core_api.constants import JSON
from rasa_core_api.jsontext import encode

#: Parse data of "nothing was said": before the first message, and for a reminder that fires.
EMPTY_PARSE_DATA: Mapping[str, JSON] = {"intent": {}, "entities": [], "text": None}


EventT = TypeVar("EventT", bound="Event")


class Event(Struct, frozen=True, kw_only=True, eq=False, tag_field="event"):
    """Base of all events. Two events are equal when they say the same, whatever their time.

    `timestamp` is in seconds since the epoch. Structure and names are those of the JSON form, so that what this
    project wrote is read without a step between.
    """

    type_name: ClassVar[str] = ""
    #: Members that tell two events of a type apart.
    compared: ClassVar[tuple[str, ...]] = ()

    timestamp: float
    _text: str | None = field(default=None, name="-text")

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
            self.written_as(text)
        return text

    def written_as(self, text: str) -> None:
        """Keep this text of the event, so that it is not encoded again."""
        force_setattr(self, "_text", text)

    def changed(self: EventT, **members: Any) -> EventT:
        """A copy with other members."""
        return replace(self, _text=None, **members)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.compared)

    def __ne__(self, other: object) -> bool:  # that of structures does not ask `__eq__`
        return not self == other

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, name) for name in self.compared)))

    def __repr__(self) -> str:
        members = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name != "_text")
        return f"{type(self).__name__}({', '.join(members)})"


class UserUttered(Event, frozen=True, kw_only=True, eq=False, tag="user"):
    """The user said something; `parse_data` is kept and dumped as it came."""

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


class BotUttered(Event, frozen=True, kw_only=True, eq=False, tag="bot"):
    """The bot said something; `data` holds `elements`, `buttons` and `attachment`, or is null."""

    compared = ("text", "data")

    text: str | None = None
    data: JSON = None

    def fields(self) -> dict[str, JSON]:
        return {"text": self.text, "data": self.data}


class AgentUttered(BotUttered, frozen=True, kw_only=True, eq=False, tag="agent"):
    """A human operator said something."""


class SlotSet(Event, frozen=True, kw_only=True, eq=False, tag="slot"):
    """A slot took a value; `None` empties it."""

    compared = ("key", "value")

    key: str = field(name="name")
    value: JSON = None

    def fields(self) -> dict[str, JSON]:
        return {"name": self.key, "value": self.value}


class AllSlotsReset(Event, frozen=True, kw_only=True, eq=False, tag="reset_slots"):
    """All slots went back to their initial values."""


class ActionExecuted(Event, frozen=True, kw_only=True, eq=False, tag="action"):
    """An action ran; `policy` and `confidence` tell who chose it and how sure it was."""

    compared = ("action_name",)

    action_name: str = field(name="name")
    policy: str | None = None
    confidence: float | int | None = None
    unpredictable: bool = field(default=False, name="-unpredictable")  # opens a story; never a training target

    def fields(self) -> dict[str, JSON]:
        return {"name": self.action_name, "policy": self.policy, "confidence": self.confidence}


class FollowupAction(Event, frozen=True, kw_only=True, eq=False, tag="followup"):
    """The next action is decided."""

    compared = ("action_name",)

    action_name: str = field(name="name")

    def fields(self) -> dict[str, JSON]:
        return {"name": self.action_name}


class Restarted(Event, frozen=True, kw_only=True, eq=False, tag="restart"):
    """The conversation begins anew."""


class UserUtteranceReverted(Event, frozen=True, kw_only=True, eq=False, tag="rewind"):
    """The last user message and all that followed it do not count."""


class ActionReverted(Event, frozen=True, kw_only=True, eq=False, tag="undo"):
    """The last action and all that followed it do not count."""


class ConversationPaused(Event, frozen=True, kw_only=True, eq=False, tag="pause"):
    """The bot is silent until it is resumed or restarted."""


class ConversationResumed(Event, frozen=True, kw_only=True, eq=False, tag="resume"):
    """The bot speaks again."""


class ReminderScheduled(Event, frozen=True, kw_only=True, eq=False, tag="reminder"):
    """An action is to run at `trigger_date_time`; a naive time is UTC."""

    compared = ("name",)

    action_name: str = field(name="action")
    trigger_date_time: datetime = field(name="date_time")
    name: str
    kill_on_user_message: bool = field(default=True, name="kill_on_user_msg")

    def fields(self) -> dict[str, JSON]:
        return {
            "action": self.action_name,
            "date_time": self.trigger_date_time.isoformat(),
            "name": self.name,
            "kill_on_user_msg": self.kill_on_user_message,
        }


class StoryExported(Event, frozen=True, kw_only=True, eq=False, tag="export"):
    """A marker without effect: a path is neither read nor written."""


class Form(Event, frozen=True, kw_only=True, eq=False, tag="form"):
    """A form was activated (`name`) or deactivated (`None`)."""

    compared = ("name",)

    name: str | None = None

    def fields(self) -> dict[str, JSON]:
        return {"name": self.name}


class FormValidation(Event, frozen=True, kw_only=True, eq=False, tag="form_validation"):
    """Whether the active form validates the next message."""

    compared = ("validate",)

    validate: bool

    def fields(self) -> dict[str, JSON]:
        return {"validate": self.validate}


class ActionExecutionRejected(Event, frozen=True, kw_only=True, eq=False, tag="action_execution_rejected"):
    """An action refused to run."""

    compared = ("action_name",)

    action_name: str = field(name="name")
    policy: str | None = None
    confidence: float | int | None = None

    def fields(self) -> dict[str, JSON]:
        return {"name": self.action_name, "policy": self.policy, "confidence": self.confidence}


EVENT_TYPES: Mapping[str, type[Event]] = {
    str(kind.__struct_config__.tag): kind
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
for _name, _kind in EVENT_TYPES.items():
    _kind.type_name = _name
