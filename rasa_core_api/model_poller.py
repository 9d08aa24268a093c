"""Keeps the model in service in step with a model server: asks, fetches, has the model installed, asks again.

    STARTING ──▶ CURRENT ◀──▶ ABSENT        the server has our model / has none
        │           ▲  │
        ▼           │  ▼
    UNREACHABLE ◀──▶ UNUSABLE               no usable answer / a model that cannot be served

Every state leads to every other but STARTING; whatever happens, the model in service stays until a better one
was really loaded. One log line a change of state, and one where another model is refused for another reason; none for
a quiet pull.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from enum import Enum

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import RasaCoreError, UnsupportedModel
from rasa_core_api.models.download import Delivery, Nothing

log = Logger()

#: Pauses grow to this many times the interval while the server cannot be used.
_LONGEST_PAUSE = 8
#: The first pause (seconds) while there is no model to serve; it doubles up to the interval.
_EAGER = 1.0
#: The interval (seconds) of a poller that stops after its first answer, while there is none.
_ONCE_INTERVAL = 100.0
#: A model that was refused is fetched again after this many pulls, then after twice as many...
_REFUSED_PULLS = 4
_REFUSED_PULLS_MOST = 64
#: Reasons that are told while models are refused without a good one between.
_MOST_REASONS = 10


class State(Enum):
    """What the last pull found."""

    STARTING = "starting"
    CURRENT = "current"
    ABSENT = "absent"
    UNREACHABLE = "unreachable"
    UNUSABLE = "unusable"


@define
class _Refused:
    """A model that could not be installed: its tag, and how many more pulls will pass it by."""

    tag: str
    pass_by: int
    times: int = 1


@define
class ModelPoller:
    """Pulls every `interval` seconds, counted from the end of a pull; None pulls until one was answered.

    `fetch(fingerprint, unwanted)` asks the server and passes a model by that has the unwanted tag.
    `install(delivery)` serves the model, logs that, and removes the file in any case; it raises UnsupportedModel for
    a model that cannot be served, and another RasaCoreError where that is not the model's fault. `fingerprint()` is
    that of the model in service, `is_ready()` tells whether there is one. `spread` draws the jitter, from 0 to 1.
    """

    _clock: IReactorTime
    _fetch: Callable[[str, str | None], Awaitable[Delivery | Nothing]]
    _install: Callable[[Delivery], Awaitable[None]]
    _discard: Callable[[Delivery], None]
    _fingerprint: Callable[[], str]
    _is_ready: Callable[[], bool]
    _interval: float | None
    _name: str  # of the server, in logs
    _now: Callable[[], float]  # seconds since the epoch
    _spread: Callable[[], float] = random.random
    state: State = field(default=State.STARTING, init=False)
    _failures: int = field(default=0, init=False)
    _refused: _Refused | None = field(default=None, init=False)
    _last_check: float | None = field(default=None, init=False)
    _last_error: str | None = field(default=None, init=False)
    _reasons: set[str] = field(factory=set, init=False)  # why the server or its models could not be used in this state
    _loop: LoopingCall = field(init=False)
    _round: Deferred[None] | None = field(default=None, init=False)
    _running: Deferred[LoopingCall] | None = field(default=None, init=False)
    _stopped: bool = field(default=False, init=False)

    def start(self) -> None:
        """Pull now, then again and again."""
        if self._running is None:
            # the pause between two pulls varies, so that it is part of a round
            self._loop = loop = LoopingCall(self._begin_round)
            loop.clock = self._clock
            self._running = loop.start(0, now=True)

    async def stop(self) -> None:
        """End after giving up what is under way; what was fetched in part is removed."""
        self._stopped = True
        running, self._running = self._running, None
        if running is None:
            return
        if self._loop.running:
            self._loop.stop()
        if self._round is not None:
            self._round.cancel()
        await running

    def _begin_round(self) -> Deferred[None]:
        self._round = Deferred.fromCoroutine(self._pull_and_pause())
        return self._round

    async def _pull_and_pause(self) -> None:
        try:
            answered = await self.pull()
            if self._stopped:
                return
            if answered and self._interval is None:
                self._loop.stop()
                return
            await deferLater(self._clock, self._pause())
        except CancelledError:
            return

    async def pull(self) -> bool:
        """Ask once; tells whether the server answered. Raises nothing but `CancelledError`."""
        error: str
        try:
            answer = await self._fetch(self._fingerprint(), self._unwanted())
            self._last_check = self._now()
            await self._receive(answer)
        except CancelledError:
            raise
        except RasaCoreError as failed:  # of the server, or this machine has no place for a model
            error = str(failed)
        except Exception as failed:  # one that got out would end the polling for good
            error = f"{type(failed).__name__} while pulling"
            if error not in self._reasons:
                log.failure("pulling a model from {url} failed", url=self._name)
        else:
            return True
        if self._stopped:  # what was given up fails in its own way
            return False
        self._last_check = self._now()
        self._failures += 1
        self._enter(State.UNREACHABLE, error)
        return False

    async def _receive(self, answer: Delivery | Nothing) -> None:
        if answer is Nothing.PASSED_BY:
            self._pass_by()
        elif isinstance(answer, Nothing):
            # "nothing new" to one that has nothing means that there is none
            self._enter(State.CURRENT if answer is Nothing.UNCHANGED and self._is_ready() else State.ABSENT)
        elif answer.tag == self._fingerprint():  # told by its hash only, for want of an ETag
            self._discard(answer)
            self._enter(State.CURRENT)
        elif answer.tag == self._unwanted():
            self._discard(answer)
            self._pass_by()
        else:
            await self._try(answer)

    async def _try(self, delivery: Delivery) -> None:
        try:
            await self._install(delivery)
        except UnsupportedModel as error:
            if delivery.whole:
                self._refuse(delivery.tag)
            else:  # perhaps the rest of it got lost on the way
                self._failures += 1
            self._enter(State.UNUSABLE, str(error))
        except RasaCoreError as error:  # no fault of the model's: try again soon
            self._failures += 1
            self._enter(State.UNUSABLE, str(error))
        else:
            self._refused = None
            self._enter(State.CURRENT, told=True)

    def _unwanted(self) -> str | None:
        """The tag of a model that would only be refused again."""
        refused = self._refused
        return refused.tag if refused is not None and refused.pass_by > 0 else None

    def _pass_by(self) -> None:
        assert self._refused is not None
        self._failures = 0
        self._refused.pass_by -= 1

    def _refuse(self, tag: str) -> None:
        self._failures = 0
        refused = self._refused
        if refused is None or refused.tag != tag:
            self._refused = _Refused(tag, _REFUSED_PULLS)
            return
        refused.times += 1
        refused.pass_by = min(_REFUSED_PULLS * 2 ** (refused.times - 1), _REFUSED_PULLS_MOST)

    def _enter(self, state: State, error: str | None = None, told: bool = False) -> None:
        if state is not self.state:
            self._reasons.clear()
        elif error is not None and error != self._last_error:
            log.debug("{url}: {error}", url=self._name, error=error)
        news = not told and (state is not self.state or self._is_news(state, error))
        self.state = state
        self._last_error = error
        if error is not None and len(self._reasons) < _MOST_REASONS:
            self._reasons.add(error)
        if state in (State.CURRENT, State.ABSENT):
            self._failures = 0
        if not news:
            return
        if state is State.CURRENT:
            log.info("the model server {url} has the model in service", url=self._name)
        elif state is State.ABSENT:
            log.info("the model server {url} has no model yet", url=self._name)
        elif state is State.UNUSABLE:
            log.error(
                "the model of {url} cannot be served, the one in service stays: {error}", url=self._name, error=error
            )
        else:
            log.warn("cannot get a model from {url}, will try again: {error}", url=self._name, error=error)

    def _is_news(self, state: State, error: str | None) -> bool:
        """Whether an error is worth a line in an unchanged state: it is of the next model that cannot be served."""
        return state is State.UNUSABLE and error not in self._reasons and len(self._reasons) < _MOST_REASONS

    def _pause(self) -> float:
        """Seconds until the next pull, up to a tenth less so that many servers do not ask together."""
        interval = _ONCE_INTERVAL if self._interval is None else self._interval
        if not self._failures:
            pause = interval
        elif self._is_ready():
            pause = interval * min(2 ** (min(self._failures, 30) - 1), _LONGEST_PAUSE)
        else:
            pause = min(interval, _EAGER * 2 ** (min(self._failures, 30) - 1))
        return pause * (1.0 - 0.1 * self._spread())

    def status(self) -> dict[str, JSON]:
        """Part of the `model` block of `/status`."""
        return {
            "server": self._name,
            "state": self.state.value,
            "last_check": self._last_check,
            "last_error": self._last_error,
            "failures": self._failures,
        }
