"""Actions: what a bot can do. Built in, templates, or run by an action server."""

from __future__ import annotations

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
    """What an action is run with. `turn_id` is the same whenever the same turn is tried again."""

    tracker: Tracker
    domain: Domain
    dispatcher: Dispatcher
    now: Callable[[], float] = field(repr=False)  # seconds since the epoch
    turn_id: str = ""


class Action(ABC):
    """Something that the bot does. `name` is what stories call it."""

    name: ClassVar[str] = ""

    @abstractmethod
    async def run(self, call: ActionCall) -> list[Event]:
        """Do it; what is said goes to the dispatcher, what happened is returned.

        Raises `ActionRejected` where the action refuses, any other exception where it fails.
        """
