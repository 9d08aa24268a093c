"""Puts the server together from its settings; the only place that knows all parts."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from rasa_core_api.agent import Agent
from rasa_core_api.brokers.factory import create_broker
from rasa_core_api.channels.channel import InputChannel
from rasa_core_api.channels.registry import open_channels
from rasa_core_api.concurrency import Slices
from rasa_core_api.config import read_yaml_file
from rasa_core_api.constants import JSON
from rasa_core_api.endpoints import Endpoints, OutgoingHTTP, read_endpoints
from rasa_core_api.events.reading import EventReader
from rasa_core_api.exceptions import InvalidConfiguration, StoreUnavailable, UnsafeArchive, UnsupportedModel
from rasa_core_api.http.auth import DEFAULT_METHOD, TokenReader
from rasa_core_api.http.connections import connections_within_reach
from rasa_core_api.http.cors import names_no_origin
from rasa_core_api.http.site import ApiSite
from rasa_core_api.model_delivery import ModelDelivery, build_delivery
from rasa_core_api.model_learning import ModelLearning
from rasa_core_api.models.archives import is_archive, unpack
from rasa_core_api.models.generation import Generation
from rasa_core_api.models.loader import load_generation
from rasa_core_api.nlu.loader import make_interpreter
from rasa_core_api.outbox import Outbox
from rasa_core_api.releases import LATEST, release_of
from rasa_core_api.retention import Retention
from rasa_core_api.server import Root, Server
from rasa_core_api.server_settings import ServerSettings
from rasa_core_api.settings import RunSettings
from rasa_core_api.slots import ClassFinder
from rasa_core_api.tracker_store.factory import WHERE, create_store
from rasa_core_api.tracker_store.settings import split_retention
from rasa_core_api.training.learning_apart import learn_apart
from rasa_core_api.training.project_checks import check_at_start, check_credentials
from rasa_core_api.trusted import class_finder
from rasa_core_api.worker import PREDECESSOR, LearnsNowhere, Line, Uploads, Worker

log = Logger()

#: The variable that names this process among all that share a store; without it a name is made up.
OWNER = "RASA_CORE_API_OWNER"

#: Seconds that turns in flight get to end when the server stops.
GRACE = 20.0

#: Seconds that connections are kept at least, for clients that are just sending their next request, and that answers
#: get to leave where no turn is under way any more.
LINGER, LEAVE = 0.1, 2.0

#: Seconds that the event broker gets to take the last events; what it does not take goes out after the next start.
FLUSH = 5.0

#: The version that action servers of 0.13 and later are told where the wire speaks an older one.
_NEWEST = f"{LATEST}.5"


@define
class Service:
    """A server that is built and not started: `start` opens what needs the reactor, `stop` ends it."""

    settings: RunSettings
    reactor: Any
    agent: Agent
    server: Server
    channels: list[InputChannel]
    http: OutgoingHTTP
    delivery: ModelDelivery
    worker: Worker | None = None
    predecessor: str | None = None  # the owner of claims that nobody will end
    outbox: Outbox | None = None
    retention: Retention | None = None
    root: Root = field(init=False)
    _site: ApiSite | None = field(default=None, init=False)
    _line: Line | None = field(default=None, init=False)
    _allowed: Deferred[None] = field(factory=Deferred, init=False)
    _stopping: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.root = self.server.resource()
        if self.worker is not None:
            in_thread = partial(deferToThreadPool, self.reactor, self.reactor.getThreadPool())
            self.agent.installer = Uploads(
                self.agent, self.delivery, self.worker.shared, in_thread, self._say, self.reactor
            )
            self.agent.learner = LearnsNowhere()

    @property
    def site(self) -> ApiSite:
        """The site to listen with."""
        if self._site is None:
            self._site = self.server.site(self.root, connections_within_reach(self.settings.max_connections))
        return self._site

    async def start(self) -> None:
        """Open the store and whatever else needs the running reactor. Raises `InvalidConfiguration`."""
        try:
            await self.agent.store.open()
            if self.outbox is not None:
                await self.outbox.start()
        except InvalidConfiguration as error:
            raise InvalidConfiguration(f"{self.settings.endpoints}: {error}", **error.details) from error
        except StoreUnavailable as error:
            raise StoreUnavailable(f"{self.settings.endpoints}: {WHERE}: {error}", **error.details) from error
        if self.predecessor is not None:
            await self.agent.store.release(self.predecessor)
        self.agent.start()
        if self.retention is not None:
            self.retention.start()
        self.delivery.start()

    async def may_listen(self) -> None:
        """Tell the parent that all is open, and wait until it wants connections to be accepted."""
        assert self.worker is not None
        self._line = self.worker.connect(self.reactor, self._told, self._parent_gone)
        self._line.say(ready=True)
        await self._allowed

    def listening(self) -> None:
        """Tell the parent that connections are accepted."""
        assert self._line is not None
        self._line.say(listening=True)

    async def _told(self, message: dict[str, Any]) -> None:
        if "listen" in message:
            self._allowed.callback(None)
        else:
            assert isinstance(self.agent.installer, Uploads)
            await self.agent.installer.told(message)

    def _say(self, **message: JSON) -> None:
        assert self._line is not None
        self._line.say(**message)

    def _parent_gone(self) -> None:
        if not self._stopping:
            log.error("the parent is gone, or this worker cannot follow it: it ends")
            self.reactor.stop()

    async def stop(self) -> None:
        """Let the turns in flight end, then close the store and all connections."""
        self._stopping = True
        if self._site is not None:
            self._site.ending = True
        self.server.close()
        self.agent.stop()
        if self.retention is not None:
            self.retention.stop()
        await self.delivery.stop()
        await self._quiet()
        if self.agent.busy:
            log.warn("{count} turns were not over after {grace:g} s", count=self.agent.busy, grace=GRACE)
        if self.agent.served.interpreter is not None:
            await self.agent.served.interpreter.stop()
        if self.outbox is not None:
            await self.outbox.stop(FLUSH)
        await self.agent.store.close()
        await self.http.close()

    async def _quiet(self) -> None:
        """Wait until no turn is under way and all answers left, for a while."""
        began = busy = self.reactor.seconds()
        while (now := self.reactor.seconds()) < began + GRACE:
            crowd = None if self._site is None else self._site.crowd
            if self.agent.busy:
                busy = now
            elif not crowd or (not crowd.answering and now >= began + LINGER) or now >= busy + LEAVE:
                return
            await deferLater(self.reactor, 0.02)

    def stopping(self) -> Deferred[None]:
        """`stop` for the reactor's shutdown."""
        return Deferred.fromCoroutine(self.stop())


def build_service(
    settings: RunSettings, reactor: Any, environ: Mapping[str, str], worker: Worker | None = None
) -> Service:
    """Read all files, load the models and connect the parts.

    Raises `InvalidConfiguration` and `UnsupportedModel`, naming file, key path and reason.
    """
    endpoints = Endpoints() if settings.endpoints is None else read_endpoints(settings.endpoints, environ)
    trusted = list(settings.trusted_modules)
    if settings.connector is not None and "." in settings.connector:
        trusted.append(settings.connector.rpartition(".")[0])
    find_class = class_finder(trusted)
    http = OutgoingHTTP(reactor)
    slices = Slices(reactor)

    def new_id() -> str:
        return secrets.token_hex(16)

    reader = EventReader(time.time, new_id)
    try:
        store = create_store(
            endpoints.tracker_store, reactor=reactor, event_reader=reader, trusted_modules=trusted, slices=slices
        )
        _, days = split_retention(endpoints.tracker_store, WHERE)
    except InvalidConfiguration as error:
        raise InvalidConfiguration(f"{endpoints.source}: {error}", **error.details) from None
    if worker is not None:
        worker.join(store)
    wire = settings.compatibility_version
    agent = Agent(
        store=store,
        http=http,
        clock=reactor,
        endpoints=endpoints,
        interpreter=make_interpreter(
            settings.nlu,
            endpoints.nlu,
            http=http,
            clock=reactor,
            environ=environ,
            new_id=new_id,
            breathe=slices.breathe,
        ),
        new_id=new_id,
        failure_template=settings.failure_template,
        owner=environ.get(OWNER, ""),
        keep_answers=settings.keep_answers,
        line_limit=settings.max_waiting,
        turn_limit=settings.max_turns,
        version=wire if release_of(wire).sends_version else _NEWEST,
        slices=slices,
    )
    outbox = _outbox(agent, reactor, environ.get(OWNER) or new_id(), trusted, slices)
    if endpoints.model is None:
        generation = load_core(settings.core, find_class)
        if endpoints.nlg is None:
            _check_template(settings.failure_template, generation)
        agent.install(generation)
    delivery = build_delivery(
        agent,
        endpoints.model,
        endpoints.nlu_model,
        reactor=reactor,
        environ=environ,
        trusted_modules=trusted,
        now=time.time,
        new_id=new_id,
    )
    agent.learner = ModelLearning(
        delivery.installer, slices, lambda task: learn_apart(task, reactor), tuple(trusted)
    )
    channels = open_channels(
        settings.connector,
        settings.credentials,
        environ=environ,
        find_class=find_class,
        http=http,
    )
    agent.in_thread = partial(deferToThreadPool, reactor, reactor.getThreadPool())
    agent.output_of = {channel.name(): channel.reminder_output for channel in channels}
    _tell_mistakes(agent, settings, environ)
    tokens = None
    if settings.jwt_secret is not None:
        tokens = TokenReader.from_settings(settings.jwt_secret, settings.jwt_method)
    elif settings.jwt_method != DEFAULT_METHOD:
        log.warn("jwt_method: without a jwt_secret no token is checked")
    for origin in filter(names_no_origin, settings.cors):
        log.warn("cors: no page has the origin {origin!r}; one looks like https://chat.example.com", origin=origin)
    server = Server(
        agent,
        ServerSettings(
            enable_api=settings.enable_api,
            auth_token=settings.auth_token,
            tokens=tokens,
            cors=settings.cors,
            compatibility_version=wire,
            max_body=settings.max_body,
            channel_auth=settings.channel_auth,
            access_log=settings.log_level == "debug",
            process={"worker": {"number": 1, "of": 1, "pid": os.getpid()}} if worker is None else worker.status,
        ),
        [(channel.url_prefix(), channel.blueprint(agent.handle_message)) for channel in channels],
    )
    retention = None
    if days is not None:
        retention = agent.retention = Retention(agent.care, reactor, time.time, days)
    if endpoints.calls():
        http.prepare()
    predecessor = environ.get(PREDECESSOR)
    return Service(settings, reactor, agent, server, channels, http, delivery, worker, predecessor, outbox, retention)


def _outbox(
    agent: Agent, reactor: Any, owner: str, trusted: list[str], slices: Slices
) -> Outbox | None:
    """What publishes the events, where the endpoint file names a broker."""
    settings, source = agent.endpoints.event_broker, agent.endpoints.source
    if settings is None:
        return None
    try:
        broker = create_broker(settings, reactor=reactor, trusted_modules=trusted)
    except InvalidConfiguration as error:
        raise InvalidConfiguration(f"{source}: {error}", **error.details) from None
    outbox = Outbox(agent.store, broker, reactor, slices, owner)
    agent.after_commit.append(outbox.wake)
    agent.status_of["event_broker"] = outbox.status
    return outbox


def _check_template(name: str | None, generation: Generation) -> None:
    """A template that is not there would only be missed when an action fails."""
    if name is not None and name not in generation.domain.templates:
        raise InvalidConfiguration(f"failure_template: the model has no template {name!r}")


#: Mistakes that are told at start; `check` tells all.
_TOLD = 20


def _tell_mistakes(agent: Agent, settings: RunSettings, environ: Mapping[str, str]) -> None:
    """A line of the log for each mistake in model, endpoints and credentials; none of them keeps the server down."""
    domain = agent.model.domain if agent.is_ready else None
    findings = check_at_start(domain, str(settings.core), agent.endpoints)
    if settings.credentials is not None:
        file = str(settings.credentials)
        findings += check_credentials(read_yaml_file(file, environ), file)
    for finding in findings[:_TOLD]:
        log.warn("{finding}", finding=str(finding))
    if len(findings) > _TOLD:
        log.warn("and {count} more, see `python -m rasa_core_api.check`", count=len(findings) - _TOLD)


def load_core(path: Path, find_class: ClassFinder) -> Generation:
    """The dialogue model in a directory or an archive. Raises `UnsupportedModel`."""
    if not is_archive(path):
        return evolve(load_generation(path, find_class=find_class), directory=path)
    with tempfile.TemporaryDirectory(prefix="rasa_core_api-") as scratch:
        directory = Path(scratch) / "model"
        try:
            unpack(path, directory)
        except UnsafeArchive as error:
            raise UnsafeArchive(f"{path}: {error}", **error.details) from error
        try:
            return load_generation(directory, find_class=find_class, source=str(path))
        except UnsupportedModel as error:  # nobody knows the temporary directory by its name
            raise UnsupportedModel(str(error).replace(str(directory), str(path)), **error.details) from error
