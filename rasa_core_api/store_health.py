"""Whether the conversation store answers, looked at now and then and never waited for."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rasa_core_api.concurrency import uninterrupted
from rasa_core_api.exceptions import RasaCoreError
from rasa_core_api.tracker_store import TrackerStore

log = Logger()

#: Seconds between two looks, however often somebody asks.
EVERY = 3.0
#: Seconds that whoever asks waits for a look; then what was found the last time holds.
WAIT = 1.0
#: Seconds after which a store that does not answer is down; one that is merely busy takes less.
LIMIT = 10.0
#: A conversation that is asked for, and need not be there.
_NOBODY = "readyz"


@define(eq=False)
class StoreHealth:
    """Looks when it is asked; a store counts as well until a look fails."""

    _store: TrackerStore
    _clock: IReactorTime
    _well: bool = field(default=True, init=False)
    _next: float | None = field(default=None, init=False)
    _looking: bool = field(default=False, init=False)
    _waiting: list[Deferred[None]] = field(factory=list, init=False)

    async def well(self) -> bool:
        """Whether the store answered, within `WAIT` seconds."""
        now = self._clock.seconds()
        if not self._looking and (self._next is None or now >= self._next):
            self._next = now + EVERY
            self._looking = True
            Deferred.fromCoroutine(self._look())
        if self._looking:
            waiter: Deferred[None] = Deferred()
            self._waiting.append(waiter)
            waiter.addTimeout(WAIT, self._clock, lambda result, seconds: None)
            await waiter
        return self._well

    async def _look(self) -> None:
        well = True
        try:
            await uninterrupted(self._store.read(_NOBODY, 0, 0)).addTimeout(LIMIT, self._clock)
        except (RasaCoreError, TimeoutError):
            well = False
        except CancelledError:
            raise
        except Exception:
            log.failure("the store could not be looked at")
            well = False
        if well is not self._well:
            log.warn("the conversation store {state}", state="answers again" if well else "does not answer")
        self._well, self._looking = well, False
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.called:
                waiter.callback(None)
