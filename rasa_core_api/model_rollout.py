"""Second models beside the one in service: a shadow that only predicts, a canary that serves a share."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from weakref import ref

from attrs import define, evolve, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rasa_core_api.agent import Agent
from rasa_core_api.constants import JSON
from rasa_core_api.domain import Domain
from rasa_core_api.interpreter import Interpreter
from rasa_core_api.model_poller import ModelPoller
from rasa_core_api.models.download import Delivery, Nothing, Target
from rasa_core_api.models.generation import Generation
from rasa_core_api.models.installation import Checks, Installer
from rasa_core_api.models.pull_settings import CanarySettings
from rasa_core_api.models.rollout import Comparison, Trial, chosen
from rasa_core_api.trackers import Tracker
from rasa_core_api.turn_values import Model

log = Logger()

#: Asks a model server: target, fingerprint, unwanted tag.
Fetch = Callable[[Target, str, str | None], Awaitable[Delivery | Nothing]]


@define
class Second:
    """One more model that is pulled; `serve` puts it to its use."""

    _target: Target
    _checks: Checks
    _installer: Installer
    _fetch: Fetch
    _clock: IReactorTime
    _interval: float | None
    _now: Callable[[], float]
    _serve: Callable[[Generation], None]
    tag: str = field(default="", init=False)
    _sha256: str | None = field(default=None, init=False)
    poller: ModelPoller = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.poller = ModelPoller(
            self._clock,
            lambda fingerprint, unwanted: self._fetch(self._target, fingerprint, unwanted),
            self._install,
            lambda delivery: _unlink(delivery),
            lambda: self.tag,
            lambda: bool(self.tag),
            self._interval,
            self._target.shown,
            self._now,
        )

    async def _install(self, delivery: Delivery) -> None:
        if delivery.sha256 == self._sha256:  # the same bytes under another name: what is counted goes on
            _unlink(delivery)
            self.tag = delivery.tag
            return
        try:
            generation = await self._installer.load(
                delivery.path,
                delivery.tag,
                self._target.shown,
                checks=self._checks,
                sha256=delivery.sha256,
                signature=delivery.signature,
            )
        finally:
            _unlink(delivery)
        self._serve(generation)
        self.tag, self._sha256 = delivery.tag, delivery.sha256


def _unlink(delivery: Delivery) -> None:
    with suppress(OSError):
        os.unlink(delivery.path)


def _is_of(model: Model, against: ref[Domain] | None) -> bool:
    """Whether this is still the model that was compared with; its fingerprint may have changed."""
    return against is not None and against() is model.domain


@define
class Shadow:
    """Predicts what the model in service predicts, tells nobody, and counts where they agree.

    Counting begins anew with every new model on either side.
    """

    _agent: Agent
    _generation: Generation | None = field(default=None, init=False)
    _comparison: Comparison | None = field(default=None, init=False)
    _against: ref[Domain] | None = field(default=None, init=False)  # that of the model in service

    def serve(self, generation: Generation) -> None:
        """Compare with this model from now on."""
        self.close()
        self._generation = generation
        self._against = None
        self._agent.served.observe(self)
        log.info("the shadow {source} predicts beside the model in service", source=generation.source)

    def predicted(self, tracker: Tracker, action: str) -> None:
        """An observer's part."""
        if self._generation is None:
            return
        if self._comparison is None or not _is_of(self._agent.model, self._against):
            self.close()
            self._against = ref(self._agent.model.domain)
            self._comparison = Comparison(self._generation, self._agent.slices)
        self._comparison.predicted(tracker, action)

    def turn_over(self, failed: bool) -> None:
        """An observer's part: a shadow answers for nothing."""

    def close(self) -> None:
        """Let go of what is being compared."""
        if self._comparison is not None:
            self._comparison.close()
            self._comparison = None

    def status(self) -> dict[str, JSON]:
        """Part of `/status`."""
        status: dict[str, JSON] = {"fingerprint": None if self._generation is None else self._generation.fingerprint}
        return status if self._comparison is None else status | self._comparison.as_json()


@define
class Canary:
    """Serves a share of the conversations, chosen by a hash of the sender, until its rates pass a limit."""

    _agent: Agent
    _settings: CanarySettings
    _generation: Generation | None = field(default=None, init=False)
    _model: Model | None = field(default=None, init=False)
    _trial: Trial | None = field(default=None, init=False)
    _interpreter: Interpreter | None = field(default=None, init=False)  # the agent's when the model was prepared
    _against: ref[Domain] | None = field(default=None, init=False)  # that of the model in service
    withdrawn: str | None = field(default=None, init=False)  # the reason

    def serve(self, generation: Generation) -> None:
        """Serve the share with this model from the next turn on; its trial begins."""
        self.close()
        settings = self._settings
        self.withdrawn = None
        self._against = None
        self._trial = Trial(settings.max_error_rate, settings.max_disagreement, settings.min_turns, self._withdraw)
        self._generation = generation
        self._prepare(generation)
        self._agent.served.route(self._route, generation.domain)
        log.info(
            "the canary {source} serves {share:g} of the conversations", source=generation.source, share=settings.share
        )

    def _prepare(self, generation: Generation) -> None:
        self._interpreter = self._agent.served.interpreter
        self._model = evolve(self._agent.served.prepare(generation), observer=self)

    def _route(self, sender_id: str) -> Model | None:
        if not chosen(sender_id, self._settings.share):
            return None
        if self._interpreter is not self._agent.served.interpreter and self._generation is not None:
            self._prepare(self._generation)  # another NLU model is in service
        return self._model

    def main_replaced(self) -> None:
        """Let go of the model that was in service; comparing begins anew with the next one."""
        self._against = None
        if self._trial is not None and self._trial.comparison is not None and not self._trial.over:
            self._trial.comparison.close()
            self._trial.comparison = None

    def predicted(self, tracker: Tracker, action: str) -> None:
        """An observer's part."""
        trial = self._trial
        if trial is None or trial.over:
            return
        main = self._agent.model
        if trial.comparison is None or not _is_of(main, self._against):
            if trial.comparison is not None:
                trial.comparison.close()
            self._against = ref(main.domain)
            generation = Generation(
                domain=main.domain,
                ensemble=main.ensemble,
                fingerprint=main.fingerprint,
                metadata={},
                source=main.source,
            )
            trial.comparison = Comparison(generation, self._agent.slices, trial.judge)
        trial.predicted(tracker, action)

    def turn_over(self, failed: bool) -> None:
        """An observer's part."""
        if self._trial is not None:
            self._trial.turn_over(failed)

    def _withdraw(self, reason: str) -> None:
        self.withdrawn = reason
        source = "" if self._model is None else self._model.source
        self._model = self._generation = None
        self._agent.served.route(None)
        if self._trial is not None and self._trial.comparison is not None:
            self._trial.comparison.close()
        log.error("the canary {source} is withdrawn: {reason}", source=source, reason=reason)

    def close(self) -> None:
        """Serve nobody any more."""
        if self._trial is not None and self._trial.comparison is not None:
            self._trial.comparison.close()
        if self._model is not None:
            self._model = self._generation = None
            self._agent.served.route(None)

    def status(self) -> dict[str, JSON]:
        """Part of `/status`."""
        trial = self._trial
        status: dict[str, JSON] = {
            "fingerprint": None if self._model is None else self._model.fingerprint,
            "share": self._settings.share,
            "serving": self._model is not None,
            "withdrawn": self.withdrawn,
            "turns": 0 if trial is None else trial.turns,
            "errors": 0 if trial is None else trial.errors,
        }
        if trial is not None and trial.comparison is not None:
            status |= trial.comparison.as_json()
        return status
