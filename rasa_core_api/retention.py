"""Removes conversations that nobody talked in for a number of days."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from rasa_core_api.care import Care
from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import NotBuilt, RasaCoreError

log = Logger()

#: Seconds between two rounds.
EVERY = 3600.0
#: Conversations that are looked up at once.
_PAGE = 100
#: Seconds for which the one process that removes has that role.
_LEASE = 2 * EVERY
_DAY = 86_400.0


class Retention:
    """Removes idle conversations of the store, in small pages, at one of the processes that share it.

    `now` gives seconds since the epoch. A conversation with a turn under way, or that came alive meanwhile, stays.
    """

    def __init__(self, care: Care, clock: IReactorTime, now: Callable[[], float], days: float) -> None:
        self._care = care
        self._clock = clock
        self._now = now
        self._days = days
        self._removed = 0
        self._last: float | None = None
        self._stopping = False
        self._loop = LoopingCall(lambda: Deferred.fromCoroutine(self._round()))
        self._loop.clock = clock

    def start(self) -> None:
        """Begin with a round now."""
        self._loop.start(EVERY)

    def stop(self) -> None:
        """No further conversation is removed."""
        self._stopping = True
        if self._loop.running:
            self._loop.stop()

    def status(self) -> dict[str, JSON]:
        """The member `retention` of `/status`."""
        return {"days": self._days, "removed": self._removed, "last_run": self._last}

    async def _round(self) -> None:
        try:
            removed = await self._remove()
        except RasaCoreError as error:
            log.error("old conversations were not removed: {reason}", reason=str(error))
            return
        self._last = self._now()
        if removed:
            self._removed += removed
            log.info("removed {count} conversations older than {days:g} days", count=removed, days=self._days)

    async def _remove(self) -> int:
        store = self._care.store
        try:
            if not await store.hold("retention", self._care.claims.owner, _LEASE):
                return 0
        except NotBuilt:  # a store of somebody's own, which has to say what is idle all the same
            log.debug("the store has no roles: every process removes")
        before = self._now() - self._days * _DAY
        removed = 0
        while not self._stopping:
            page = await store.idle(before, _PAGE)
            gone = 0
            for sender_id in page:
                if self._stopping:
                    break
                gone += await self._care.delete(sender_id, before)
            removed += gone
            if not gone:
                break
        return removed
