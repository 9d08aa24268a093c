"""From an archive to a generation that may serve, while the reactor goes on serving.

The work that is dangerous - to unpack, to read for the first time, to try a turn - is done by a process of its own
(`models/rehearsal.py`). What it found good is then loaded here by a thread, whose every step is short: with the
interpreter handed over every half millisecond a request waits a few milliseconds, not for the load.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, evolve, field, frozen
from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from rasa_core_api.concurrency import uninterrupted
from rasa_core_api.exceptions import ModelBusy, UnsafeArchive, UnsupportedModel
from rasa_core_api.interpreter import Interpreter
from rasa_core_api.models.archives import DEFAULT_LIMITS, Limits
from rasa_core_api.models.generation import Generation
from rasa_core_api.models.loader import load_generation
from rasa_core_api.models.nlu_part import beside_dialogue_model, nlu_directory
from rasa_core_api.models.rehearsal import Rehearsal
from rasa_core_api.models.workshop import Workshop
from rasa_core_api.trusted import class_finder

log = Logger()
T = TypeVar("T")

#: Seconds that a thread keeps the interpreter while a model is loaded; Python's own is 0.005.
_SWITCH = 0.0005
_CHUNK = 256 * 1024  # bytes


@frozen
class Checks:
    """What an archive must show before it is opened: a SHA-256 (hexadecimal), or an Ed25519 key's signature."""

    sha256: str | None = None
    public_key: str | None = None  # 32 bytes, Base64


NO_CHECKS = Checks()


@define
class Installer:
    """Loads one archive at a time.

    `rehearse` tries a model somewhere else, `worker` runs a function in a thread; tests run both in place.
    `load_interpreter` loads the NLU model in a directory; `nlu_cache` keeps what had to be trained again.
    """

    _open_workshop: Callable[[], Workshop]
    _rehearse: Callable[[Rehearsal], Awaitable[None]]
    _worker: Callable[..., Awaitable[Any]]
    _trusted_modules: tuple[str, ...] = ()
    _limits: Limits = DEFAULT_LIMITS
    _nlu_cache: Path | None = None
    _load_interpreter: Callable[[Path], Interpreter] = field(kw_only=True)
    _new_fingerprint: Callable[[], str] = field(kw_only=True)
    _line: DeferredLock = field(factory=DeferredLock, init=False)
    _workshop: Workshop | None = field(default=None, init=False)
    _closed: bool = field(default=False, init=False)

    @property
    def workshop(self) -> Workshop:
        """Opened at the first use: after a daemon has forked, and only where models are delivered."""
        if self._workshop is None:
            self._workshop = self._open_workshop()
        return self._workshop

    async def opened(self) -> Workshop:
        """The workshop, opened in a thread: it clears up first, and what a killed process left may be large."""
        if self._workshop is None and not self._closed:
            await uninterrupted(self._open())
        return self.workshop

    async def _open(self) -> None:
        shop: Workshop = await self._worker(self._open_workshop)
        if self._workshop is not None or self._closed:  # somebody was faster
            shop.close()
        else:
            self._workshop = shop

    def close(self) -> None:
        """Remove everything from disk but the kept model."""
        self._closed = True
        if self._workshop is not None:
            self._workshop.close()
            self._workshop = None

    @property
    def busy(self) -> bool:
        """Whether a model is being installed."""
        return self._line.locked

    async def install_archive(
        self, archive: Path, *, checks: Checks = NO_CHECKS, sha256: str | None = None, signature: str | None = None
    ) -> Generation:
        """An uploaded model under a fingerprint of its own. Raises `ModelBusy` while another is installed."""
        if self.busy:
            raise ModelBusy("another model is being installed; the one in service stays. Try again later")
        return await self.load(
            archive, self._new_fingerprint(), "upload", checks=checks, sha256=sha256, signature=signature
        )

    async def load(
        self,
        archive: Path,
        fingerprint: str,
        source: str,
        *,
        checks: Checks = NO_CHECKS,
        sha256: str | None = None,
        signature: str | None = None,
    ) -> Generation:
        """The model of an archive, tried and loaded, after the one that is under way. Raises `UnsupportedModel`.

        The archive stays, everything unpacked is removed.
        """
        return await self._install(
            Rehearsal(str(archive), "", self._trusted_modules, checks.public_key, signature, self._limits),
            lambda room: self._load_generation(room, fingerprint, source),
            checks,
            sha256,
        )

    async def load_directory(self, directory: Path, source: str) -> Generation:
        """A model that this program wrote itself; its files stay where they are. Raises `UnsupportedModel`."""
        await self._line.acquire()
        try:
            with _brisk():
                generation: Generation = await self._worker(
                    load_generation, directory, find_class=class_finder(self._trusted_modules), source=source
                )
            return evolve(generation, directory=directory)
        finally:
            self._line.release()

    async def load_nlu(
        self,
        archive: Path,
        source: str,
        *,
        checks: Checks = NO_CHECKS,
        sha256: str | None = None,
        signature: str | None = None,
    ) -> Interpreter:
        """The NLU model of an archive, in the same way. Raises `UnsupportedModel`."""
        task = Rehearsal(str(archive), "", (), checks.public_key, signature, self._limits, nlu=True)
        return await self._install(task, lambda room: self._load_interpreter(nlu_directory(room)), checks, sha256)

    async def _install(self, task: Rehearsal, load: Callable[[Path], T], checks: Checks, sha256: str | None) -> T:
        if checks.sha256 is not None and sha256 != checks.sha256:
            raise UnsafeArchive(f"the model's SHA-256 is {sha256}, the endpoint file asks for {checks.sha256}")
        await self._line.acquire()
        try:
            room = (await self.opened()).place("unpacked")
            cache = None if self._nlu_cache is None else str(self._nlu_cache)
            try:
                await self._rehearse(evolve(task, into=str(room), nlu_cache=cache))
                with _brisk():
                    loaded: T = await self._worker(load, room)
                return loaded
            except UnsupportedModel as error:
                raise type(error)(_without(room, str(error)), **error.details) from error
            finally:
                await self._worker(shutil.rmtree, room, ignore_errors=True)
        finally:
            self._line.release()

    def _load_generation(self, room: Path, fingerprint: str, source: str) -> Generation:
        generation = load_generation(
            room, find_class=class_finder(self._trusted_modules), fingerprint=fingerprint, source=source
        )
        nlu = beside_dialogue_model(room)
        return generation if nlu is None else evolve(generation, interpreter=self._load_interpreter(nlu))


def _without(room: Path, reason: str) -> str:
    """A reason that names files of the model, and not where it was unpacked: that is new each time, and private."""
    return reason.replace(f"{room}{os.sep}", "").replace(str(room), "the model")


def sha256_of(archive: Path) -> str:
    """Hexadecimal digits. Reads the whole file: call it in a worker."""
    digest = hashlib.sha256()
    with archive.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _brisk() -> Iterator[None]:
    """Threads hand the interpreter over more often, so that a busy one delays nobody."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
