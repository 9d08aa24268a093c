"""NLU models from a model server of their own (`nlu_model:`), swapped like dialogue models."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rasa_core_api.agent import Agent
from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import RasaCoreError
from rasa_core_api.interpreter import Interpreter
from rasa_core_api.model_poller import ModelPoller
from rasa_core_api.models.download import Delivery, Nothing, Target
from rasa_core_api.models.installation import Installer
from rasa_core_api.models.pull_settings import PullSettings
from rasa_core_api.models.workshop import KEPT_NLU, Kept, Workshop

log = Logger()


@define
class NluDelivery:
    """Pulls NLU models and has the agent understand texts with the last good one; it is kept on disk as well."""

    agent: Agent
    installer: Installer
    pulls: PullSettings
    _ask: Callable[[Target, str, str | None], Awaitable[Delivery | Nothing]]
    _clock: IReactorTime
    _now: Callable[[], float]
    _worker: Callable[..., Awaitable[Any]]
    poller: ModelPoller = field(init=False)
    _shop: Workshop | None = field(default=None, init=False)
    _tag: str = field(default="", init=False)
    _content: tuple[str, str | None] | None = field(default=None, init=False)  # its SHA-256 and signature
    _loaded_at: float | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.poller = ModelPoller(
            self._clock,
            lambda fingerprint, unwanted: self._ask(self.pulls.target, fingerprint, unwanted),
            self._install,
            lambda delivery: _unlink(delivery.path),
            lambda: self._tag,
            lambda: bool(self._tag),
            self.pulls.interval,
            self.pulls.target.shown,
            self._now,
        )

    async def start(self) -> None:
        """Understand with the kept model if there is one, and begin to pull."""
        try:
            await self._serve_kept(await self._worker(self._open_shop))
        except CancelledError:
            raise
        except RasaCoreError as error:
            log.warn("the kept NLU model cannot be used: {error}", error=str(error))
        except Exception:  # whatever is wrong with what was kept, the server is asked
            log.failure("the kept NLU model could not be loaded")
        self.poller.start()

    def _open_shop(self) -> Workshop:
        if self._shop is None:
            self._shop = Workshop.open(self.pulls.keep, KEPT_NLU)
        return self._shop

    async def _serve_kept(self, shop: Workshop) -> None:
        found = await self._worker(shop.recall)
        if found is None:
            return
        path, kept = found
        try:
            if kept.asked == self.pulls.identity:
                self._serve(await self._load(path, kept), kept)
        finally:
            _unlink(path)

    async def stop(self) -> None:
        """End what is under way; nothing but the kept model is left on disk."""
        await self.poller.stop()
        if self._shop is not None:
            self._shop.close()
            self._shop = None

    async def _load(self, path: Path, kept: Kept) -> Interpreter:
        return await self.installer.load_nlu(
            path, kept.source, checks=self.pulls.checks, sha256=kept.sha256, signature=kept.signature
        )

    async def _install(self, delivery: Delivery) -> None:
        kept = Kept(
            delivery.tag,
            delivery.sha256,
            delivery.signature,
            self.pulls.target.shown,
            self.pulls.identity,
            self._now(),
        )
        try:
            if (delivery.sha256, delivery.signature) == self._content:  # replicas may disagree about the ETag
                self._tag = delivery.tag
            else:
                self._serve(await self._load(delivery.path, kept), kept)
            try:
                await self._worker(self._open_shop().keep, delivery.path, kept)
            except RasaCoreError as error:
                log.warn("{error}", error=str(error))
        finally:
            _unlink(delivery.path)

    def _serve(self, interpreter: Interpreter, kept: Kept) -> None:
        self.agent.served.install_interpreter(interpreter)
        self._tag, self._content = kept.tag, (kept.sha256, kept.signature)
        self._loaded_at = self._now()
        log.info("understanding texts with the NLU model of {source}", source=self.pulls.target.shown)

    def status(self) -> dict[str, JSON]:
        """The member `nlu` of the `model` block of `/status`."""
        return {"fingerprint": self._tag or None, "loaded_at": self._loaded_at, **self.poller.status()}


def _unlink(path: Path) -> None:
    with suppress(OSError):
        os.unlink(path)
