"""What a turn is made of: the model that serves it, where its answers go, what is under way, and what it came to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from attrs import define, field, frozen
from twisted.logger import Logger

from rasa_core_api.actions.registry import ActionRegistry
from rasa_core_api.constants import JSON
from rasa_core_api.dispatcher import Dispatcher
from rasa_core_api.domain import Domain
from rasa_core_api.events import ReminderScheduled
from rasa_core_api.interpreter import Interpreter
from rasa_core_api.messages import BotMessage, RequestKey
from rasa_core_api.nlg import Response, ResponseGenerator
from rasa_core_api.policies.ensemble import Ensemble
from rasa_core_api.releases import Release
from rasa_core_api.reminders import due_at, is_late
from rasa_core_api.tracker_store.turns import Reminder
from rasa_core_api.tracker_views import TrackerView
from rasa_core_api.trackers import Tracker

log = Logger()

#: Name of the output channel that collects answers for the caller.
COLLECTOR = "collector"


class OutputChannel(Protocol):
    """Where the answers of a turn go when they are not collected."""

    def channel_name(self) -> str:
        """What response generators and logs call it."""

    async def send(self, recipient_id: str, response: Response) -> None:
        """Send one response."""


@runtime_checkable
class RequestOutput(Protocol):
    """An output channel to whoever sent the message: a request that comes again gets the messages again."""

    answers_request: bool

    def keep(self, messages: Sequence[BotMessage]) -> Any:
        """Send messages."""


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
    #: Where its files lie, if they stay there.
    directory: Path | None = None

    @property
    def release(self) -> Release:
        return self.domain.release


@define
class Turn:
    """What is under way in one conversation; `stored` is the log's end in the store, `base` the turn's first number."""

    model: Model
    tracker: Tracker
    dispatcher: Dispatcher
    stored: int
    base: int
    output: OutputChannel | None = None
    request: RequestKey | None = None
    fired: Reminder | None = None  # the reminder that it comes from
    resumed: bool = False  # a part of it was stored before the process that ran it ended
    answers: list[BotMessage] = field(factory=list)
    responses: list[Response] = field(factory=list)  # what went to the output, for a request that may come again
    extra: dict[str, JSON] = field(factory=dict)  # what else the request is answered with
    reminders: dict[str, Reminder] = field(factory=dict)  # not stored yet, by name
    failed: bool = False  # an action did
    claimed: bool = False
    open: bool = False  # a part was stored, and that more is to come
    effects: bool = False  # something left the process, or a part was stored
    start: int | None = None  # of the log as it was read, where somebody else may replace it

    def remind(self, event: ReminderScheduled) -> None:
        """Keep a reminder whose event was logged last."""
        if is_late(event):  # it takes the place of one of its name, is void, and is forgotten when it fires
            log.warn("a reminder was past when it was asked for, and is dropped")
        name = None if self.output is None else self.output.channel_name()
        tracker = self.tracker
        self.reminders.pop(event.name, None)  # the later one is scheduled later, too
        self.reminders[event.name] = Reminder(tracker.sender_id, event.name, due_at(event), tracker.end - 1, name)


@frozen
class Outcome:
    """What a turn came to, now or when the same request came before."""

    answers: list[BotMessage]
    extra: Mapping[str, JSON]
    view: TrackerView | None = None


#: What a turn does between its beginning and its end; it may be run again when nothing of it left the process.
Work = Callable[[Turn], Awaitable[None]]
