"""The claims of this process: taken before a turn's first side effect, renewed for as long as it lasts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from rasa_core_api.exceptions import ConversationHeld, RasaCoreError, StoreConflict
from rasa_core_api.tracker_store import TrackerStore

log = Logger()

#: Seconds that a claim lasts unless it is renewed: so long a conversation waits after a process was killed.
LEASE = 5.0
#: How often a claim is renewed within its time.
_RENEWALS = 3
#: Claims that are given up late, between two renewals.
_AT_ONCE = 100
#: Seconds to wait for another process's turn of the same conversation.
PATIENCE = 60.0
#: Seconds between two looks at a conversation that another process is at work in: the first, and the longest.
_LOOK, _LOOK_MOST = 0.01, 0.25


class Claims:
    """Claims conversations for `owner`; all claims are renewed with one statement."""

    def __init__(self, store: TrackerStore, clock: IReactorTime, owner: str, lease: float = LEASE) -> None:
        self._store = store
        self._clock = clock
        self.owner = owner
        self._lease = lease
        self._held: set[str] = set()
        self._left: set[str] = set()  # may be in the store, though no turn here has them
        self._loop: LoopingCall | None = None
        self._failing = False

    def __len__(self) -> int:
        return len(self._held)

    async def take(self, sender_id: str, end: int, key: str | None, birth: int = 0) -> None:
        """Claim a conversation, of this `birth` if that is known, whose log ends at `end`.

        Raises `ConversationHeld` and `StoreConflict`.
        """
        told = (birth,) if birth else ()  # a store that tells none need not take one
        self._left.discard(sender_id)  # or it might be given up behind this
        try:
            await self._store.claim(sender_id, end, self.owner, key, self._lease, *told)
        except (ConversationHeld, StoreConflict):
            raise
        except RasaCoreError:  # it may be there all the same
            self._leave(sender_id)
            raise
        self._held.add(sender_id)
        self._work()

    def _work(self) -> None:
        if self._loop is None:
            self._loop = LoopingCall(lambda: Deferred.fromCoroutine(self._renew()))
            self._loop.clock = self._clock
            self._loop.start(self._lease / _RENEWALS, now=False)

    def _leave(self, sender_id: str) -> None:
        """Give it up later: while others are renewed it would never run out."""
        self._left.add(sender_id)
        self._work()

    @asynccontextmanager
    async def over(self, sender_id: str, end: int, key: str | None = None, birth: int = 0) -> AsyncIterator[None]:
        """Keep other processes from going on between reading a log that ends at `end` and replacing or deleting it.

        Raises like `take`; where there are no other processes nothing is claimed.
        """
        if not self._store.claims:
            yield
            return
        await self.take(sender_id, end, key, birth)
        try:
            yield
        finally:
            await self.give_up(sender_id)

    def ended(self, sender_id: str) -> None:
        """The claim ended with its turn."""
        self._held.discard(sender_id)
        self._rest()

    def _rest(self) -> None:
        if not self._held and not self._left and self._loop is not None:
            loop, self._loop = self._loop, None
            if loop.running:
                loop.stop()

    async def give_up(self, sender_id: str) -> None:
        """End a claim whose turn came to nothing; where the store is away, when it is back."""
        self.ended(sender_id)
        try:
            await self._store.release(self.owner, sender_id)
        except RasaCoreError as error:
            log.warn("a claim was not given up yet: {reason}", reason=str(error))
            self._leave(sender_id)

    async def _renew(self) -> None:
        try:
            if self._held:
                await self._store.renew(self.owner, self._lease)
            for sender_id in sorted(self._left)[:_AT_ONCE]:
                self._left.discard(sender_id)
                if sender_id not in self._held:
                    await self._release(sender_id)
            self._rest()
            self._failing = False
        except RasaCoreError as error:
            if not self._failing:
                log.error("claims cannot be renewed: {reason}", reason=str(error))
            self._failing = True

    async def _release(self, sender_id: str) -> None:
        try:
            await self._store.release(self.owner, sender_id)
        except RasaCoreError:
            if sender_id not in self._held:
                self._left.add(sender_id)
            raise


@define
class Patience:
    """Waits for somebody else's turn, with growing pauses and not for ever."""

    _clock: IReactorTime
    _sender_id: str
    _pause: float = _LOOK
    _since: float | None = None

    def check(self, held: float = 0.0) -> None:
        """Raises `ConversationHeld` when all of this takes too long; `held` are the seconds of somebody's claim."""
        now = self._clock.seconds()
        if self._since is None:
            self._since = now
        if now - self._since > PATIENCE:
            raise ConversationHeld(self._sender_id, held)

    async def wait(self, held: float) -> None:
        """Wait a little. Raises `ConversationHeld`."""
        self.check(held)
        await deferLater(self._clock, self._pause)
        self._pause = min(2 * self._pause, _LOOK_MOST)
