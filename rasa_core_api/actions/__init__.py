"""Actions: what a bot can do. Built in, templates, or run by an action server."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import ClassVar

from attrs import field, frozen

from rasa_core_api.constants import ACTION_LISTEN
from rasa_core_api.dispatcher import Dispatcher
from rasa_core_api.domain import Domain
from rasa_core_api.events import ActionExecuted, Event
from rasa_core_api.trackers import Tracker


async def _unclaimed() -> None:
    """Where no other process can come in between."""


@frozen
class ActionCall:
    """What an action is run with.

    `base` is the number of the turn's first event, `run` the id of this run of the server, `key` tells the request
    when it may come again. `claim` is awaited before anything leaves this process; what it raises is to be passed on.
    """

    tracker: Tracker
    domain: Domain
    dispatcher: Dispatcher
    now: Callable[[], float] = field(repr=False)  # seconds since the epoch
    base: int = 0
    run: str = ""
    key: str | None = None
    claim: Callable[[], Awaitable[None]] = field(default=_unclaimed, repr=False)

    @property
    def turn_id(self) -> str:
        """The same for every attempt at this turn, another one for every other turn.

        A request with a key is told apart by that. Else the number of the turn's first event counts; it would come
        again where a conversation was lost or deleted and begins anew, so the time of the last event before it counts
        too, and before there is one the run of the server and which beginning that is.
        """
        tracker = self.tracker
        if self.key is not None:
            text = f"{tracker.sender_id}\0{self.key}"
        else:
            stored = self.base - tracker.start
            before = repr(tracker.events[stored - 1].timestamp) if stored > 0 else f"{self.run} {tracker.beginning}"
            text = f"{tracker.sender_id}\0{self.base}\0{before}"
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    @property
    def step(self) -> int:
        """How many actions of this turn were executed before."""
        tracker = self.tracker
        first = max(0, self.base - tracker.start)
        return sum(
            isinstance(event, ActionExecuted) and event.action_name != ACTION_LISTEN
            for event in tracker.events[first:]
        )


class Action(ABC):
    """Something that the bot does. `name` is what stories call it."""

    name: ClassVar[str] = ""

    @abstractmethod
    async def run(self, call: ActionCall) -> list[Event]:
        """Do it; what is said goes to the dispatcher, what happened is returned.

        Raises `ActionRejected` where the action refuses, any other exception where it fails.
        """
