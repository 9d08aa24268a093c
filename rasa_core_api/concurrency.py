"""Order and patience: work that outlives its caller, turns in line, bursts in slices."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from time import perf_counter
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from rasa_core_api.exceptions import RasaCoreError, ServerBusy, TooManyRequests

log = Logger()
T = TypeVar("T")


def uninterrupted(work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    """Run `work` to its end, even if whoever waits for it gives up."""
    waiter: Deferred[T] = Deferred()

    def done(result: T) -> None:
        if not waiter.called:
            waiter.callback(result)

    def failed(failure: Failure) -> None:
        if not waiter.called:
            waiter.errback(failure)
        elif isinstance(failure.value, RasaCoreError):  # a failure on purpose: where it comes from tells nothing
            log.warn("failed after the client left: {reason}", reason=str(failure.value))
        else:
            log.failure("failed after the client left", failure)

    Deferred.fromCoroutine(work).addCallbacks(done, failed)
    return waiter


class _Place:
    """One entry in a line; an asynchronous context manager."""

    __slots__ = ("_key", "_lines")

    def __init__(self, lines: Lines, key: str) -> None:
        self._lines = lines
        self._key = key

    async def __aenter__(self) -> None:
        lines = self._lines
        line = lines._waiting.get(self._key)
        if lines.most is not None and lines.held >= lines.most:
            raise ServerBusy(f"{lines.most} turns are under way or wait already", limit=lines.most)
        if line is None:
            lines._waiting[self._key] = deque()
            lines.held += 1
            if lines._opened is not None:
                lines._opened(self._key)
            return
        limit = lines.limit
        if limit is not None and len(line) >= limit:
            raise TooManyRequests(f"{limit} messages of this conversation are waiting already", limit=limit)
        mine: Deferred[None] = Deferred()
        line.append(mine)
        lines.held += 1
        try:
            await mine
        except BaseException:
            if mine in line:
                line.remove(mine)
                lines.held -= 1
            else:  # it was this one's turn just now: hand it on
                self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        self._lines.held -= 1
        line = self._lines._waiting[self._key]
        if line:
            # not right now: whoever leaves goes on first, and a long line does not become a deep stack
            self._lines._clock.callLater(0, line.popleft().callback, None)
        else:
            del self._lines._waiting[self._key]
            if self._lines._closed is not None:
                self._lines._closed(self._key)


class Lines:
    """One line a key: who comes first goes first, different keys never wait for each other.

    `limit` bounds how many wait in one line; the next one gets `TooManyRequests`. `most` bounds how many
    work and wait under all keys together (`held`); the next one gets `ServerBusy`. `opened` and `closed` are told
    of keys that somebody begins to work under, and that nobody works under any more.
    """

    def __init__(
        self,
        clock: IReactorTime,
        limit: int | None = None,
        opened: Callable[[str], None] | None = None,
        closed: Callable[[str], None] | None = None,
        most: int | None = None,
    ) -> None:
        self._clock = clock
        self.limit = limit
        self.most = most
        self.held = 0
        self._opened = opened
        self._closed = closed
        self._waiting: dict[str, deque[Deferred[None]]] = {}

    def of(self, key: str) -> _Place:
        """`async with lines.of(key): ...` waits for its place and gives it up at the end."""
        return _Place(self, key)

    def busy(self, key: str) -> bool:
        """Whether somebody is at work under this key."""
        return key in self._waiting

    def __len__(self) -> int:
        """How many keys have somebody at work."""
        return len(self._waiting)


class Slices:
    """Shares the reactor: work beyond a few milliseconds waits for the next round of I/O.

    `budget` is in seconds; `timer` counts seconds of this process's work.
    """

    def __init__(self, clock: IReactorTime, budget: float = 0.005, timer: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._budget = budget
        self._timer = timer
        self._began: float | None = None  # of the slice that is under way
        self._queue: deque[Deferred[None]] = deque()

    @property
    def idle(self) -> bool:
        """Whether no work is shared out."""
        return self._began is None

    async def breathe(self) -> None:
        """Come back at once while the slice lasts, else in a later round, in the order of asking."""
        now = self._timer()
        if self._began is None:
            self._began = now
            self._clock.callLater(0, self._next)
            return
        if not self._queue and now - self._began < self._budget:
            return
        turn: Deferred[None] = Deferred()
        self._queue.append(turn)
        try:
            await turn
        except BaseException:
            if turn in self._queue:
                self._queue.remove(turn)
            raise

    def _next(self) -> None:
        if not self._queue:
            self._began = None
            return
        self._began = began = self._timer()
        self._clock.callLater(0, self._next)
        queue = self._queue
        while queue:
            queue.popleft().callback(None)
            if self._timer() - began >= self._budget:
                break
