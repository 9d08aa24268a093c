"""The model in service: swapped in one assignment, while what is under way keeps the one it began with."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from rasa_core_api.actions.registry import ActionRegistry, ActionServer
from rasa_core_api.concurrency import Slices
from rasa_core_api.constants import JSON
from rasa_core_api.domain import Domain
from rasa_core_api.endpoints import Endpoints, OutgoingHTTP
from rasa_core_api.events.reading import EventReader
from rasa_core_api.exceptions import AgentNotReady
from rasa_core_api.interpreter import Interpreter, RegexInterpreter
from rasa_core_api.models.generation import Generation
from rasa_core_api.nlg import ResponseGenerator
from rasa_core_api.nlg.callback import CallbackGenerator
from rasa_core_api.nlg.templates import TemplateGenerator
from rasa_core_api.turn_values import Model, Observer

log = Logger()


@define
class ServedModel:
    """Holds one immutable model, and what every model is surrounded with.

    `drop` lets go of the trackers of other domains than these; `empty_fingerprint` stands for having no model.
    """

    _endpoints: Endpoints
    _http: OutgoingHTTP
    _slices: Slices
    _event_reader: EventReader
    _choose: Callable[[Sequence[JSON]], JSON]
    _version: str
    _drop: Callable[[tuple[Domain, ...]], Coroutine[Deferred[Any], Any, None]]
    empty_fingerprint: str
    interpreter: Interpreter | None = None
    current: Model | None = field(default=None, init=False)
    _router: Callable[[str], Model | None] | None = field(default=None, init=False)
    _observer: Observer | None = field(default=None, init=False)
    _also_served: tuple[Domain, ...] = field(default=(), init=False)

    @property
    def model(self) -> Model:
        """The model in service. Raises `AgentNotReady`."""
        if self.current is None:
            raise AgentNotReady(
                "No agent loaded. To continue processing, a model of a trained agent needs to be loaded."
            )
        return self.current

    @property
    def fingerprint(self) -> str:
        """Changes with every model that is put into service."""
        return self.empty_fingerprint if self.current is None else self.current.fingerprint

    def install(self, generation: Generation, interpreter: Interpreter | None = None) -> Model:
        """Serve another model from the next turn on; an interpreter of its own comes with it."""
        if interpreter is not None:
            self.interpreter = interpreter
        self.current = evolve(self.prepare(generation), observer=self._observer)
        self._drop_trackers()
        log.info("serving the model {source}", source=generation.source or generation.fingerprint)
        return self.current

    def rename(self, fingerprint: str) -> None:
        """The model in service has another fingerprint from now on: its server gave the same bytes another name."""
        self.current = evolve(self.model, fingerprint=fingerprint)

    def route(self, router: Callable[[str], Model | None] | None, *domains: Domain) -> None:
        """Let other models serve some conversations: those for whose sender `router` gives one.

        `domains` are the domains of these models. The choice for one sender should not change from turn to turn:
        each change reads the conversation anew.
        """
        self._router = router
        self._also_served = domains
        self._drop_trackers()

    def install_interpreter(self, interpreter: Interpreter) -> None:
        """Understand texts otherwise from the next turn on, unless the model in service brought its own NLU."""
        before, self.interpreter = self.interpreter, interpreter
        model = self.current
        if model is not None and (model.interpreter is before or isinstance(model.interpreter, RegexInterpreter)):
            self.current = evolve(model, interpreter=interpreter)

    def observe(self, observer: Observer | None) -> None:
        """Have the model in service watched from the next turn on, and every one that replaces it."""
        self._observer = observer
        if self.current is not None:
            self.current = evolve(self.current, observer=observer)

    def model_of(self, sender_id: str) -> Model:
        """The model that serves a conversation. Raises `AgentNotReady`."""
        model = self.model
        if self._router is None:
            return model
        return self._router(sender_id) or model

    def _drop_trackers(self) -> None:
        """Let go of the models that are out of service; trackers hold theirs."""
        domains = self._also_served if self.current is None else (self.current.domain, *self._also_served)
        Deferred.fromCoroutine(self._drop(domains)).addErrback(
            lambda failure: log.failure("trackers of the old model could not be dropped", failure)
        )

    def prepare(self, generation: Generation) -> Model:
        """The generation with what a turn needs around it; nothing is put into service."""
        domain = generation.domain
        templates = TemplateGenerator(domain.templates, domain.release, self._choose)
        generator: ResponseGenerator = templates
        if self._endpoints.nlg is not None:
            generator = CallbackGenerator(self._endpoints.nlg, self._http, self._slices)
        server = ActionServer(
            self._endpoints.action_endpoint, self._http, self._event_reader, self._slices, self._version
        )
        fingerprints = generation.metadata.get("action_fingerprints")
        return Model(
            domain=domain,
            ensemble=generation.ensemble,
            actions=ActionRegistry(domain, server),
            generator=generator,
            own_templates=None if generator is templates else templates,
            interpreter=generation.interpreter or self.interpreter or RegexInterpreter(domain.release),
            fingerprint=generation.fingerprint,
            action_fingerprints=fingerprints if isinstance(fingerprints, Mapping) else {},
            source=generation.source,
            directory=generation.directory,
        )
