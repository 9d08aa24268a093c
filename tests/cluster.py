"""Several servers on one store, on one clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from rasa_core_api.endpoints import EndpointConfig, Endpoints
from rasa_core_api.messages import BotMessage, RequestKey, UserMessage
from rasa_core_api.tracker_store.memory import MemoryStore
from tests.fakes import Bot, FakeHTTP
from tests.samples import domain

ACTIONS = "http://actions/webhook"
ENDPOINTS = Endpoints(action_endpoint=EndpointConfig(url=ACTIONS))
SCRIPT: dict[str | None, list[str]] = {
    "greet": ["utter_hi"],
    "bye": ["utter_bye"],
    "inform": ["action_search", "utter_hi"],
}
FOUND = (200, {"events": [], "responses": [{"text": "found"}]})
KEY = RequestKey("k", "d")


class SharedStore(MemoryStore):
    """A store that several processes use: here several agents of one process."""

    shared = True
    claims = True


class ActionServer:
    """Counts calls; those that arrive while it is `slow` wait for `answer`."""

    def __init__(self) -> None:
        self.slow = False
        self.waiting: list[Deferred[Any]] = []
        self.http = FakeHTTP({ACTIONS: self})

    def __call__(self, call: Any) -> Any:
        if not self.slow:
            return FOUND
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def answer(self) -> None:
        waiting, self.waiting = self.waiting, []
        for call in waiting:
            call.callback(FOUND)

    @property
    def turn_ids(self) -> list[str]:
        return [headers["X-Turn-Id"] for headers in self.http.headers]


class Cluster:
    """Two servers on one store, and their action server, on one clock."""

    def __init__(self, release: str = "0.11") -> None:
        self.actions = ActionServer()
        first = Bot(domain(release), SCRIPT, http=self.actions.http, endpoints=ENDPOINTS)
        self.clock: Clock = first.clock
        self.store = SharedStore(self.clock)
        self.bots = [self._bot(release, name) for name in ("one", "two")]

    def _bot(self, release: str, owner: str) -> Bot:
        made = Bot(
            domain(release), SCRIPT, store=self.store, http=self.actions.http, endpoints=ENDPOINTS, owner=owner,
            clock=self.clock,
        )  # fmt: skip
        return made

    def ask(self, bot: int, text: str, request: RequestKey | None = None, **members: Any) -> list[Any]:
        """Begin a turn; the list gets its answers, or what it failed with, once it is over."""
        results: list[Any] = []
        message = UserMessage(text=text, request=request, **{"sender_id": "u", **members})
        waiting = Deferred.fromCoroutine(self.bots[bot].agent.handle_message(message))
        waiting.addCallbacks(results.append, lambda failure: results.append(failure.value))
        self.rounds()
        return results

    def rounds(self) -> None:
        for _ in range(50):
            self.clock.advance(0)

    def advance(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)
            self.rounds()

    def kinds(self) -> list[str]:
        return self.bots[0].kinds()

    def kill(self, bot: int) -> None:
        """Nothing of this server happens any more."""
        loop = self.bots[bot].agent.turns.claims._loop
        assert loop is not None
        loop.stop()


ONE_GREETING = ["action action_listen", "user", "action utter_hi", "bot", "action action_listen"]


def said(messages: Sequence[BotMessage]) -> list[str | None]:
    return [message.text for message in messages]
