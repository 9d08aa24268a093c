"""One of several processes that serve together: what its parent told it, and the line to the parent.

Both sides write JSON objects, one a line. The worker says `ready` when its store is open, `listening` when it accepts
connections, `upload` with a file that holds a model it tried, and `installed`. The parent says `install`, `listen` and
`uploaded`. A line that breaks means that the parent is gone.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from rasa_core_api.agent import Agent, Installer
from rasa_core_api.constants import JSON
from rasa_core_api.events import Event
from rasa_core_api.exceptions import InvalidConfiguration, ModelBusy, TrainingFailed
from rasa_core_api.models.generation import Generation
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.turn_values import Model

log = Logger()

#: The variables that a parent sets for its workers.
WORKER, PREDECESSOR = "RASA_CORE_API_WORKER", "RASA_CORE_API_PREDECESSOR"


#: Seconds before a model is tried again where another one is being installed.
BUSY = 0.5
#: Deals with one message of the parent.
Told = Callable[[dict[str, Any]], Awaitable[None]]


@frozen
class Worker:
    """What the parent told this process."""

    number: int  # from 1
    of: int
    listens: int  # descriptor of the listening socket
    line: int  # descriptor of the socket to the parent
    shared: Path  # directory for uploaded models

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Worker | None:
        """None in a process that serves alone. Raises `InvalidConfiguration`."""
        text = environ.get(WORKER)
        if text is None:
            return None
        try:
            told = json.loads(text)
            return cls(told["number"], told["of"], told["listens"], told["line"], Path(told["shared"]))
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidConfiguration(f"{WORKER}: only `run --workers` sets it") from error

    @property
    def status(self) -> dict[str, JSON]:
        """Members of `/status`."""
        return {"worker": {"number": self.number, "of": self.of, "pid": os.getpid()}}

    def join(self, store: TrackerStore) -> None:
        """Let a store know from its first turn on that others write to it. Raises `InvalidConfiguration`."""
        if store.name == "sqlite":
            store.shared = True
        if not store.shared:
            raise InvalidConfiguration(
                f"workers: the conversation store {store.name or type(store).__name__!r} is of one process alone; "
                "several need sqlite, postgres, redis or mongod, or a store of yours with `shared = True`"
            )

    def connect(self, reactor: Any, told: Told, gone: Callable[[], None]) -> Line:
        """Begin to listen to the parent."""
        os.set_blocking(self.line, False)
        line = Line(told, gone)
        reactor.adoptStreamConnection(self.line, socket.AF_UNIX, Factory.forProtocol(lambda: line))
        os.close(self.line)
        return line


class Line(LineOnlyReceiver):
    """Messages from the parent are dealt with one after another."""

    delimiter = b"\n"

    def __init__(self, told: Told, gone: Callable[[], None]) -> None:
        self._told = told
        self._gone = gone
        self._messages: deque[dict[str, Any]] = deque()
        self._busy = False

    def say(self, **message: JSON) -> None:
        """Tell the parent."""
        assert self.transport is not None
        self.transport.write(json.dumps(message).encode("ascii") + self.delimiter)

    def lineReceived(self, line: bytes) -> None:
        self._messages.append(json.loads(line))
        if not self._busy:
            self._busy = True
            Deferred.fromCoroutine(self._work()).addErrback(self._broken)

    async def _work(self) -> None:
        try:
            while self._messages:
                await self._told(self._messages.popleft())
        finally:
            self._busy = False

    def _broken(self, failure: Failure) -> None:
        log.failure("what the parent asked for could not be done, this worker ends", failure)
        self._gone()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone()


@define
class Uploads:
    """The agent's installer in a worker: what one takes, all take, in the order that the parent sees.

    `worker` runs a function in a thread.
    """

    _agent: Agent
    _installer: Installer
    _shared: Path
    _worker: Callable[..., Awaitable[Any]]
    _say: Callable[..., None]
    _clock: IReactorTime
    _mine: dict[str, Deferred[None]] = field(factory=dict, init=False)

    async def install_archive(self, archive: Path, signature: str | None = None) -> Generation:
        """Try a model, have all other workers serve it, then give it back to be served here too."""
        generation = await self._installer.install_archive(archive, signature)
        path = self._shared / f"{self._agent.new_id()}.model"
        await self._worker(shutil.copyfile, archive, path)
        spread: Deferred[None] = Deferred()
        self._mine[str(path)] = spread
        self._say(upload=str(path), facts={"signature": signature, "fingerprint": generation.fingerprint})
        await spread
        return generation

    async def told(self, message: Mapping[str, Any]) -> None:
        """Deal with `install` and `uploaded`. Raises where this worker cannot serve what all others serve."""
        if "uploaded" in message:
            self._mine.pop(message["uploaded"]).callback(None)
            return
        path = message["install"]
        if path not in self._mine:
            await self._follow(Path(path), **message["facts"])
        self._say(installed=path)

    async def _follow(self, archive: Path, signature: str | None, fingerprint: str) -> None:
        """Serve what another worker tried, under the fingerprint that it has there."""
        while True:
            try:
                generation = await self._installer.install_archive(archive, signature)
            except ModelBusy:  # the parent's patience ends this
                await deferLater(self._clock, BUSY)
            else:
                self._agent.install(evolve(generation, fingerprint=fingerprint))
                return

    def status(self) -> dict[str, JSON]:
        """What the installer says."""
        return self._installer.status()


class LearnsNowhere:
    """Stands for the learner of an agent: what one worker learned, the others would not know."""

    async def learn(self, model: Model, events: Sequence[Event], epochs: int, batch_size: int) -> Generation:
        """Raises `TrainingFailed`."""
        raise TrainingFailed(
            "This server runs several workers, and what one of them learned the others would not know: "
            "train the model elsewhere and upload it, or serve with --workers 1."
        )
