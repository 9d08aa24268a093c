"""How models reach the agent: uploaded, pulled from a model server, or kept from the last run."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from rasa_core_api.agent import Agent
from rasa_core_api.constants import JSON
from rasa_core_api.endpoints import EndpointConfig
from rasa_core_api.exceptions import RasaCoreError
from rasa_core_api.interpreter import Interpreter
from rasa_core_api.model_nlu import NluDelivery
from rasa_core_api.model_poller import ModelPoller
from rasa_core_api.model_rollout import Canary, Second, Shadow
from rasa_core_api.models.download import Delivery, Nothing, Target, fetch
from rasa_core_api.models.generation import Generation
from rasa_core_api.models.installation import NO_CHECKS, Checks, Installer, sha256_of
from rasa_core_api.models.pull_settings import PullSettings
from rasa_core_api.models.rehearsal import Rehearsal, rehearse_apart
from rasa_core_api.models.workshop import Kept, Workshop
from rasa_core_api.nlu.loader import EmbeddedInterpreter, cache_directory, load_nlu

if TYPE_CHECKING:
    from treq.client import HTTPClient

log = Logger()


@define
class ModelDelivery:
    """The agent's installer, and its poller where a model server is configured.

    `start` needs the running reactor. `worker` runs a function in a thread, `new_http` makes what is asked for
    models.
    """

    agent: Agent
    installer: Installer
    _clock: IReactorTime
    _now: Callable[[], float]  # seconds since the epoch
    _worker: Callable[..., Awaitable[Any]]
    _new_http: Callable[[], HTTPClient]
    pulls: PullSettings | None = None
    nlu_pulls: PullSettings | None = None
    poller: ModelPoller | None = field(default=None, init=False)
    _shadow: Shadow | None = field(default=None, init=False)
    _canary: Canary | None = field(default=None, init=False)
    _seconds: dict[str, Second] = field(factory=dict, init=False)
    _nlu: NluDelivery | None = field(default=None, init=False)
    _loaded_at: float | None = field(default=None, init=False)
    #: Fingerprint, SHA-256 and signature of the last model that was pulled.
    _pulled: tuple[str, str, str | None] | None = field(default=None, init=False)
    _last_upload_error: str | None = field(default=None, init=False)
    _starting: Deferred[None] | None = field(default=None, init=False)
    _http: HTTPClient | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.agent.installer = self
        if self.agent.is_ready:
            self._loaded_at = self._now()
        if self.pulls is not None:
            self.poller = ModelPoller(
                self._clock,
                self._fetch,
                self._install,
                _remove,
                lambda: self.agent.fingerprint,
                lambda: self.agent.is_ready,
                self.pulls.interval,
                self.pulls.target.shown,
                self._now,
            )
            self._add_seconds(self.pulls)
        if self.nlu_pulls is not None:
            self._nlu = NluDelivery(
                self.agent, self.installer, self.nlu_pulls, self._ask, self._clock, self._now, self._worker
            )

    def _add_seconds(self, pulls: PullSettings) -> None:
        checks = Checks(public_key=pulls.checks.public_key)  # a pinned hash is that of the model in service

        def add(name: str, target: Target, serve: Callable[[Generation], None]) -> None:
            self._seconds[name] = Second(
                target, checks, self.installer, self._ask, self._clock, pulls.interval, self._now, serve
            )

        if pulls.shadow is not None:
            self._shadow = Shadow(self.agent)
            add("shadow", pulls.shadow, self._shadow.serve)
        if pulls.canary is not None:
            self._canary = Canary(self.agent, pulls.canary)
            add("canary", pulls.canary.target, self._canary.serve)

    # --- the model server ----------------------------------------------------------------------------

    def start(self) -> None:
        """Serve the kept model if there is one, and begin to pull."""
        self._starting = Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        with suppress(CancelledError):
            if self._nlu is not None:
                await self._nlu.start()
            if self.poller is None:
                return
            try:
                await self._serve_kept()
            except CancelledError:
                raise
            except RasaCoreError as error:
                log.warn("the kept model cannot be served: {error}", error=str(error))
            except Exception:  # whatever is wrong with what was kept, the server is asked
                log.failure("the kept model could not be loaded")
            self.poller.start()
            for second in self._seconds.values():
                second.poller.start()

    async def stop(self) -> None:
        """End pulls and installations that are under way; nothing but the kept model is left on disk."""
        if self._starting is not None:
            self._starting.cancel()
            await self._starting
        if self.poller is not None:
            await self.poller.stop()
        for second in self._seconds.values():
            await second.poller.stop()
        if self._nlu is not None:
            await self._nlu.stop()
        for watcher in (self._shadow, self._canary):
            if watcher is not None:
                watcher.close()
        self.installer.close()

    async def _serve_kept(self) -> None:
        assert self.pulls is not None
        shop = await self.installer.opened()
        found = await self._worker(shop.recall)
        if found is None:
            return
        path, kept = found
        try:
            if kept.asked != self.pulls.identity:
                return
            generation = await self.installer.load(
                path,
                kept.tag,
                f"{kept.source} (kept)",
                checks=self.pulls.checks,
                sha256=kept.sha256,
                signature=kept.signature,
            )
            if not self.agent.is_ready:
                self._serve(generation)
                self._pulled = (kept.tag, kept.sha256, kept.signature)
        finally:  # it stays on disk in any case: what failed today may be this machine's fault
            _unlink(path)

    async def _fetch(self, fingerprint: str, unwanted: str | None) -> Delivery | Nothing:
        assert self.pulls is not None
        return await self._ask(self.pulls.target, fingerprint, unwanted)

    async def _ask(self, target: Target, fingerprint: str, unwanted: str | None) -> Delivery | Nothing:
        if self._http is None:
            self._http = self._new_http()
        place = (await self.installer.opened()).place("download")
        return await fetch(self._http, target, fingerprint or None, place, self._clock, unwanted)

    async def _install(self, delivery: Delivery) -> None:
        assert self.pulls is not None
        source = self.pulls.target.shown
        try:
            # replicas of a server may disagree about the ETag of the same bytes
            if self._pulled == (self.agent.fingerprint, delivery.sha256, delivery.signature):
                self.agent.served.rename(delivery.tag)
            else:
                generation = await self.installer.load(
                    delivery.path,
                    delivery.tag,
                    source,
                    checks=self.pulls.checks,
                    sha256=delivery.sha256,
                    signature=delivery.signature,
                )
                self._serve(generation)
            self._pulled = (delivery.tag, delivery.sha256, delivery.signature)
            kept = Kept(delivery.tag, delivery.sha256, delivery.signature, source, self.pulls.identity, self._now())
            try:
                await self._worker(self.installer.workshop.keep, delivery.path, kept)
            except RasaCoreError as error:
                log.warn("{error}", error=str(error))
        finally:
            _remove(delivery)

    def _serve(self, generation: Generation) -> None:
        self.agent.install(generation)
        self._in_service()

    # --- uploads -------------------------------------------------------------------------------------

    async def install_archive(self, archive: Path, signature: str | None = None) -> Generation:
        """An uploaded model, for the agent, under the checks that pulled ones are under.

        Raises `UnsupportedModel`, and `ModelBusy` for the later of two.
        """
        checks = NO_CHECKS if self.pulls is None else self.pulls.checks
        try:
            sha256 = None if checks.sha256 is None else await self._worker(sha256_of, archive)
            generation = await self.installer.install_archive(
                archive, checks=checks, sha256=sha256, signature=signature
            )
        except RasaCoreError as error:
            self._last_upload_error = str(error)
            raise
        self._in_service()
        return generation

    def _in_service(self) -> None:
        self._last_upload_error = None
        self._loaded_at = self._now()
        if self._canary is not None:
            self._canary.main_replaced()

    # --- seeing it -----------------------------------------------------------------------------------

    def status(self) -> dict[str, JSON]:
        """The `model` block of `/status`; times are seconds since the epoch, `age` is in seconds."""
        loaded = self._loaded_at
        status: dict[str, JSON] = {
            "fingerprint": self.agent.fingerprint,
            "release": None,
            "source": None,
            "loaded_at": loaded,
            "age": None if loaded is None else round(max(0.0, self._now() - loaded), 3),
            "installing": self.installer.busy,
            "last_check": None,
            "last_error": self._last_upload_error,
        }
        if self.agent.is_ready:
            status["release"] = str(self.agent.model.release)
            status["source"] = self.agent.model.source
        if self.poller is not None:
            pulled = self.poller.status()
            status |= {**pulled, "last_error": pulled["last_error"] or self._last_upload_error}
        if self._nlu is not None:
            status["nlu"] = self._nlu.status()
        watchers = {"shadow": self._shadow, "canary": self._canary}
        for name, second in self._seconds.items():
            watcher = watchers[name]
            assert watcher is not None
            status[name] = {**second.poller.status(), **watcher.status()}
        return status


def build_delivery(
    agent: Agent,
    endpoint: EndpointConfig | None,
    nlu_endpoint: EndpointConfig | None = None,
    *,
    reactor: Any,
    environ: Mapping[str, str],
    trusted_modules: Sequence[str],
    now: Callable[[], float],
    new_id: Callable[[], str],
) -> ModelDelivery:
    """The delivery of a server: models are tried in processes and loaded in the reactor's threads.

    Nothing is opened before `start`. Raises `InvalidConfiguration`.
    """
    pulls = None if endpoint is None else PullSettings.from_endpoint(endpoint, environ)

    # one thread: what it frees it uses again, where each of many would keep its own share of memory
    pool = ThreadPool(0, 1, "models")

    def worker(function: Callable[..., Any], *args: Any, **options: Any) -> Deferred[Any]:
        if not pool.started:
            pool.start()
            reactor.addSystemEventTrigger("after", "shutdown", pool.stop)
        return deferToThreadPool(reactor, pool, function, *args, **options)

    async def rehearse(task: Rehearsal) -> None:
        await rehearse_apart(task, reactor)

    installer = Installer(
        lambda: Workshop.open(None if pulls is None else pulls.keep),
        rehearse,
        worker,
        tuple(trusted_modules),
        nlu_cache=cache_directory(environ),
        load_interpreter=_interpreter_loader(agent, reactor, environ),
        new_fingerprint=new_id,
    )
    nlu_pulls = None if nlu_endpoint is None else PullSettings.from_endpoint(nlu_endpoint, environ)
    return ModelDelivery(agent, installer, reactor, now, worker, lambda: _new_http(reactor), pulls, nlu_pulls)


def _interpreter_loader(agent: Agent, reactor: Any, environ: Mapping[str, str]) -> Callable[[Path], Interpreter]:
    def load(directory: Path) -> Interpreter:
        """In a thread; what calls other servers is made ready in the reactor's own."""
        from rasa_core_api.nlu.duckling import duckling_factory
        from rasa_core_api.nlu.message import NetworkComponent

        connect = duckling_factory(agent.http, reactor, environ)
        model = load_nlu(directory, cache=cache_directory(environ), connect=connect)
        if any(isinstance(component, NetworkComponent) for component in model.components):
            reactor.callFromThread(agent.http.prepare)
        return EmbeddedInterpreter(model, agent.slices.breathe)

    return load


def _new_http(reactor: Any) -> HTTPClient:
    from rasa_core_api.models.connecting import new_client  # who pulls no model need not pay for a client

    return new_client(reactor)


def _remove(delivery: Delivery) -> None:
    _unlink(delivery.path)


def _unlink(path: Path) -> None:
    with suppress(OSError):
        os.unlink(path)
