"""The outbox: follows the log of all conversations and hands what is new to an event broker.

There is no queue beside the log: a cursor, kept in the conversation store, tells how far the broker has everything. It
moves after the broker confirmed, so that a crash in between repeats events and never loses any.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Sequence
from itertools import chain
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from rasa_core_api.brokers import BATCH, BrokerFailed, EventBroker, Message, MessageRefused, messages_of
from rasa_core_api.concurrency import Slices
from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import InvalidConfiguration, NotBuilt, RasaCoreError
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.turns import FeedEntry, may_go_on

log = Logger()
T = TypeVar("T")

#: Name of the cursor and of the role.
NAME = "event_broker"
#: Appends that are read at once.
ENTRIES = 200
#: Seconds: between looks for what other processes stored; from the first news to the reading, so that a burst is read
#: at once; that the role lasts unless it is renewed; that opening, and one batch, may take; that closing may take.
POLL = 1.0
GATHER = 0.05
LEASE = 30.0
TIME_LIMIT = 10.0
CLOSING = 3.0
#: Pauses after failures, in seconds: the first, and the longest.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
#: Seconds between two tries to take the role.
STANDBY = 5.0


@define
class Outbox:
    """Publishes what is stored, at least once and in the order of each conversation.

    Of all processes that share a store one publishes at a time; the others stand by. `owner` is this process.
    """

    _store: TrackerStore
    _broker: EventBroker
    _clock: IReactorTime
    _slices: Slices
    _owner: str
    _random: Callable[[], float] = random.random
    _running: Deferred[None] | None = field(default=None, init=False)
    _stopping: bool = field(default=False, init=False)
    _news: bool = field(default=False, init=False)
    _idle: Deferred[None] | None = field(default=None, init=False)  # news end this pause
    _pause: Deferred[None] | None = field(default=None, init=False)  # only the end does
    _timer: IDelayedCall | None = field(default=None, init=False)
    _position: str | None = field(default=None, init=False)  # None: the role is not ours
    _until: float = field(default=0.0, init=False)  # when the role ends
    _open: bool = field(default=False, init=False)
    _size: int = field(default=BATCH, init=False)  # messages of the next batch
    _full: bool = field(default=False, init=False)  # there may be more than was read at once
    _begun: tuple[str, int] = field(default=("", 0), init=False)  # an append, and how much of it was sent
    _failures: int = field(default=0, init=False)
    _stalled: int = field(default=0, init=False)  # failures since the broker took something
    _down_since: float = field(default=0.0, init=False)
    _reason: str | None = field(default=None, init=False)
    _published: int = field(default=0, init=False)
    _refused: int = field(default=0, init=False)
    _gaps: int = field(default=0, init=False)
    _gap_after: str | None = field(default=None, init=False)  # the position after which the last gap was told

    async def start(self) -> None:
        """Begin, behind what is stored already where nobody has begun yet; returns before anything is published.

        Raises `InvalidConfiguration` for a store that does not tell the order of its appends.
        """
        try:
            await self._take()
        except NotBuilt as error:
            raise InvalidConfiguration(f"event_broker: {error}") from error
        except RasaCoreError as error:  # tried again
            self._failed(error)
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(self._ended)

    def wake(self, sender_id: str) -> None:
        """Something was stored by this process. Costs next to nothing."""
        self._news = True
        idle = self._idle
        if idle is not None:
            self._idle = None
            idle.callback(None)

    def _ended(self, failure: Failure) -> None:
        if not (self._stopping and failure.check(CancelledError)):
            log.failure("the outbox broke down", failure)

    async def stop(self, seconds: float) -> None:
        """Publish what is stored, for at most so many seconds, and let go of the role."""
        self._stopping = True
        running = self._running
        if running is None:
            return
        for waiting in (self._idle, self._pause):
            if waiting is not None:
                waiting.callback(None)
        self._idle = self._pause = None
        running.addTimeout(seconds, self._clock)
        await running
        await self._close()
        if self._position is not None:
            self._position = None
            try:
                await self._limited(self._store.hold(NAME, self._owner, 0.001), CLOSING)
            except RasaCoreError:
                log.debug("the role of the publisher was not given back; it ends by itself")

    def status(self) -> dict[str, JSON]:
        """The member `event_broker` of `/status`."""
        state = "failing" if self._failures else "standby" if self._position is None else "publishing"
        found: dict[str, JSON] = {"type": self._broker.name, "state": state, "published": self._published}
        if self._refused:
            found["refused"] = self._refused
        if self._gaps:
            found["gaps"] = self._gaps
        if self._failures:
            found["down_seconds"] = round(self._clock.seconds() - self._down_since, 1)
            found["reason"] = self._reason
        return found

    # --- the loop --------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                if not await self._take():
                    if self._stopping:
                        return
                    await self._wait(STANDBY * (0.75 + self._random() / 2))
                    continue
                self._news = False
                found = await self._next()
                self._well()
                if found and (self._full or self._stopping):
                    continue
                if self._stopping:
                    return
            except CancelledError:
                raise
            except Exception as error:
                self._failed(error)
                await self._close()
                if self._stopping:
                    return
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._stalled - 1, 10))
                await self._wait(pause * (0.5 + self._random() / 2))
                continue
            await self._rest()

    async def _take(self) -> bool:
        """Whether the role is ours for as long as one batch may take; finds the position where it is new."""
        now = self._clock.seconds()
        if self._position is not None and self._until - now > 2 * TIME_LIMIT:
            return True
        # what somebody else published after our time ran out is not to be published again
        if self._position is not None and now >= self._until:
            self._position = None
        if not await self._store.hold(NAME, self._owner, LEASE):
            self._position = None
            if self._open:
                await self._close()
            return False
        self._until = now + LEASE
        if self._position is None:
            position = await self._store.cursor(NAME)
            if position is None:
                position = await self._store.feed_end()
                await self._store.set_cursor(NAME, position)
            self._position = position
        return True

    async def _next(self) -> int:
        """Publish what comes next; how many appends it was."""
        after = self._position
        if self._failures and not self._open:  # nothing is read for a broker that may still be away
            if after is not None:
                await self._tell_gap(after)
            await self._connect()
        entries = await self._store.feed(after, ENTRIES)
        if not entries:
            return 0
        messages: list[Message] = list(chain.from_iterable([messages_of(entry) for entry in entries]))
        self._full = may_go_on(len(entries), ENTRIES, [len(message.body) for message in messages])
        if self._full and after is not None:
            await self._tell_gap(after)
        await self._slices.breathe()
        position, begun = self._begun
        sent = begun if position == entries[0].position else 0
        try:
            while sent < len(messages):
                if not await self._take() or self._position != after:
                    return 0  # somebody else went on meanwhile
                await self._connect()
                sent = await self._send(messages, sent)
        except CancelledError:
            raise
        except Exception as error:
            await self._move(entries, sent + (error.taken if isinstance(error, BrokerFailed) else 0))
            raise
        await self._move(entries, sent)
        return len(entries)

    async def _send(self, messages: Sequence[Message], sent: int) -> int:
        """Publish one batch behind those that are sent; how many there are then.

        After a failure batches begin with one message and grow, so that a broker which takes little gets on, and one
        message that it never takes is found.
        """
        batch = messages[sent : sent + min(self._size, self._broker.at_once)]
        try:
            await self._limited(self._broker.publish(batch), TIME_LIMIT)
        except MessageRefused as error:
            refused = batch[error.taken]
            self._published += error.taken
            self._refused += 1
            log.error(
                "{broker} never takes event {seq} of {sender_id!r}, which is left out ({reason})",
                broker=self._broker.name, seq=refused.seq, sender_id=refused.sender_id, reason=str(error),
            )  # fmt: skip
            await self._close()
            return sent + error.taken + 1
        except Exception as error:
            self._size = 1
            if isinstance(error, BrokerFailed) and error.taken:
                self._published += error.taken
                self._stalled = 0
            raise
        self._published += len(batch)
        self._size = min(BATCH, 2 * self._size)
        self._stalled = 0
        return sent + len(batch)

    async def _move(self, entries: Sequence[FeedEntry], sent: int) -> None:
        """Note that the first `sent` messages of these appends are with the broker."""
        whole = 0
        for entry in entries:
            if len(entry.events) > sent:
                self._begun = (entry.position, sent)
                break
            sent -= len(entry.events)
            whole += 1
        if whole:
            self._position = entries[whole - 1].position
            await self._store.set_cursor(NAME, self._position)

    async def _tell_gap(self, after: str) -> None:
        """Say once where the store forgot the order of what was to come next."""
        if self._gap_after != after and await self._store.feed_lost(after):
            self._gap_after = after
            self._gaps += 1
            log.error(
                "events were not published to {broker} in time: the store remembers no order as long as that. "
                "They are in their conversations and stay unpublished; what follows is published",
                broker=self._broker.name,
            )

    async def _connect(self) -> None:
        if not self._open:
            await self._limited(self._broker.open(), TIME_LIMIT)
            self._open = True

    async def _close(self) -> None:
        self._open = False
        try:
            await self._limited(self._broker.close(), CLOSING)
        except CancelledError:
            raise
        except Exception as error:
            log.debug("the broker was not closed in order: {reason}", reason=_reason(error))

    async def _limited(self, work: Coroutine[Deferred[Any], Any, T], seconds: float) -> T:
        try:
            return await Deferred.fromCoroutine(work).addTimeout(seconds, self._clock)
        except TimeoutError:
            raise BrokerFailed(f"it did not answer within {seconds:.0f} s") from None

    # --- outages ---------------------------------------------------------------------------------------

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self._stalled += 1
        self._reason = _reason(error)
        if self._failures == 1:
            self._down_since = self._clock.seconds()
            log.warn(
                "events cannot be published to {broker} ({reason}); they are kept and will be",
                broker=self._broker.name,
                reason=self._reason,
            )

    def _well(self) -> None:
        if self._failures:
            seconds = self._clock.seconds() - self._down_since
            self._failures, self._stalled, self._reason = 0, 0, None
            log.info(
                "events are published to {broker} again, after {seconds:.0f} s",
                broker=self._broker.name,
                seconds=seconds,
            )

    # --- pauses ----------------------------------------------------------------------------------------

    async def _rest(self) -> None:
        """Until there is news; other processes' news are looked for now and then."""
        if not self._news:
            idle: Deferred[None] = Deferred()
            self._idle = idle
            timer = self._clock.callLater(POLL if self._store.shared else LEASE / 4, self.wake, "")
            await idle
            if timer.active():
                timer.cancel()
        if not self._stopping:
            await self._wait(GATHER)

    async def _wait(self, seconds: float) -> None:
        pause: Deferred[None] = Deferred()
        self._pause = pause
        timer = self._clock.callLater(seconds, self._resume, pause)
        await pause
        if timer.active():
            timer.cancel()

    def _resume(self, pause: Deferred[None]) -> None:
        self._pause = None
        pause.callback(None)


def _reason(error: BaseException) -> str:
    """What the log says: errors of libraries may hold addresses with passwords, so that only their names are told."""
    if isinstance(error, (RasaCoreError, ConnectError, OSError)):
        return str(error)
    return type(error).__name__
