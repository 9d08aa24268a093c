"""Actions: what a bot can do. Built in, templates, or run by an action server."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from attrs import field, frozen

from rasa_core_api.dispatcher import Dispatcher
from rasa_core_api.domain import Domain
from rasa_core_api.events import Event
from rasa_core_api.trackers import Tracker


@frozen
class ActionCall:
    """What an action is run with.

    `base` is the number of the first event that the turn will store, `run` the id of this run of the server.
    """

    tracker: Tracker
    domain: Domain
    dispatcher: Dispatcher
    now: Callable[[], float] = field(repr=False)  # seconds since the epoch
    base: int = 0
    run: str = ""

    @property
    def turn_id(self) -> str:
        """The same for every attempt at this turn, another one for every other turn.

        A number alone would come again where a conversation was lost or deleted and begins anew; so the time of the
        last stored event counts, and before there is one the run of the server.
        """
        tracker = self.tracker
        stored = self.base - tracker.start
        before = repr(tracker.events[stored - 1].timestamp) if stored > 0 else self.run
        text = f"{tracker.sender_id}\0{self.base}\0{before}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, digest_size=16).hexdigest()


class Action(ABC):
    """Something that the bot does. `name` is what stories call it."""

    name: ClassVar[str] = ""

    @abstractmethod
    async def run(self, call: ActionCall) -> list[Event]:
        """Do it; what is said goes to the dispatcher, what happened is returned.

        Raises `ActionRejected` where the action refuses, any other exception where it fails.
        """
