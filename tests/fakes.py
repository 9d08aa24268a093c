"""Fakes that behave like the real thing, without sockets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from rasa_core_api.agent import Agent
from rasa_core_api.domain import Domain
from rasa_core_api.endpoints import Answer, EndpointConfig, Endpoints
from rasa_core_api.models.generation import Generation
from rasa_core_api.policies.ensemble import Ensemble
from rasa_core_api.policies.policy import LoadContext, OneHot, Policy, Scores, nothing
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.memory import MemoryStore
from rasa_core_api.trackers import Tracker

T = TypeVar("T")


class FakeHTTP:
    """Answers outgoing requests from functions; keeps what was asked.

    A function gets the request's JSON and returns `(status, JSON or bytes)`, a Deferred of that, or raises.
    """

    def __init__(self, answers: Mapping[str, Callable[[Any], Any]] | None = None) -> None:
        self.answers = dict(answers or {})
        self.calls: list[tuple[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []

    async def request_json(
        self,
        endpoint: EndpointConfig,
        method: str,
        subpath: str | None = None,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        **_: Any,
    ) -> Answer:
        content = json.loads(body or b"null")
        self.calls.append((endpoint.url, content))
        self.headers.append(headers or {})
        given = self.answers[endpoint.url](content)
        if isinstance(given, Deferred):
            given = await given
        status, answer = given
        return Answer(status, answer if isinstance(answer, bytes) else json.dumps(answer).encode())


class ScriptPolicy(Policy):
    """Answers an intent with a list of actions, then listens."""

    name = "ScriptPolicy"

    def __init__(self, script: Mapping[str | None, list[str]]) -> None:
        super().__init__()
        self.script = script

    def predict(self, tracker: Tracker, domain: Domain) -> Scores:
        position = 0
        for event in reversed(tracker.applied_events()):
            if event.type_name == "user":
                break
            if event.type_name == "action":
                position += 1
        actions = [*self.script.get(tracker.intent_name, []), "action_listen"]
        if position >= len(actions):
            return nothing(domain)
        return OneHot(len(domain.action_names), domain.index_of(actions[position]), 0.9)

    @classmethod
    def load(cls, directory: Any, context: LoadContext) -> Policy:
        raise NotImplementedError


class Bot:
    """An agent on a fake clock with a scripted policy."""

    def __init__(
        self,
        domain: Domain,
        script: Mapping[str | None, list[str]],
        *,
        store: TrackerStore | None = None,
        http: FakeHTTP | None = None,
        endpoints: Endpoints | None = None,
        clock: Clock | None = None,
        **settings: Any,
    ) -> None:
        if clock is None:
            clock = Clock()
            clock.advance(1_000_000.0)
        self.clock = clock
        self.http = http or FakeHTTP()
        ids = iter(f"id-{number}" for number in range(1_000_000))
        self.agent = Agent(
            store=store or MemoryStore(self.clock),
            http=self.http,  # type: ignore[arg-type]
            clock=self.clock,
            endpoints=endpoints or Endpoints(),
            now=self.clock.seconds,
            choose=lambda items: items[0],
            **{"new_id": lambda: next(ids), **settings},
        )
        self.domain = domain
        self.install(script)

    def install(self, script: Mapping[str | None, list[str]], fingerprint: str = "f-1") -> None:
        ensemble = Ensemble([ScriptPolicy(script), _Form()], self.domain)
        self.agent.install(Generation(domain=self.domain, ensemble=ensemble, fingerprint=fingerprint, metadata={}))

    def wait(self, work: Any) -> Any:
        """The result of a coroutine that needs nothing but rounds of the reactor; raises what it raises."""
        results: list[Any] = []
        failures: list[Any] = []
        Deferred.fromCoroutine(work).addCallbacks(results.append, failures.append)
        for _ in range(10_000):
            if results or failures:
                break
            self.clock.advance(0)
        if failures:
            failures[0].raiseException()
        assert results, "the work waits for something"
        return results[0]

    def say(self, text: str, sender_id: str = "u") -> list[dict[str, Any]]:
        """What the bot answers to a text."""
        return [message.as_dict() for message in self.wait(self.agent.handle_text(text, sender_id))]

    def log(self, sender_id: str = "u") -> list[dict[str, Any]]:
        """The stored events."""
        tail = self.wait(self.agent.store.read(sender_id))
        return [] if tail is None else [event.as_dict() for event in tail.events]

    def kinds(self, sender_id: str = "u") -> list[str]:
        """The stored events in short."""
        return [" ".join([e["event"], *([e["name"]] if e.get("name") else [])]) for e in self.log(sender_id)]


class _Form(Policy):
    """Stands for the form policy that a domain with forms needs."""

    name = "FormPolicy"

    def predict(self, tracker: Tracker, domain: Domain) -> Scores:
        return nothing(domain)

    @classmethod
    def load(cls, directory: Any, context: LoadContext) -> Policy:
        raise NotImplementedError
