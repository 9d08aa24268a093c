"""Reminders: actions that run later, in the conversation that asked for them, also after a restart."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from rasa_core_api.concurrency import Slices
from rasa_core_api.events import ReminderScheduled, UserUttered
from rasa_core_api.exceptions import (
    AgentNotReady,
    ConversationHeld,
    NotBuilt,
    RasaCoreError,
    ServerBusy,
    StoreConflict,
    StoreUnavailable,
    TooManyRequests,
)
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.turns import Reminder
from rasa_core_api.trackers import Tracker

log = Logger()

#: A reminder that was due longer than this (seconds) when it was asked for is dropped.
GRACE = 1.0
#: Seconds between two looks at what is due in a store: where other processes add to it, and where none does.
LOOK_SHARED, LOOK = 1.0, 30.0
#: Reminders that one look takes.
_MOST = 500
#: Seconds before a reminder is tried again for which the store, the model or its conversation was not ready.
RETRY = 5.0

#: Fires a reminder; the output channel is None where this process has none for it.
Fire = Callable[[Reminder, object], Awaitable[None]]
#: What makes a reminder wait for better times.
_LATER = (AgentNotReady, ConversationHeld, ServerBusy, StoreConflict, StoreUnavailable, TooManyRequests)


def due_at(reminder: ReminderScheduled) -> float:
    """When it is due, in seconds since the epoch; a time without an offset is UTC."""
    when: datetime = reminder.trigger_date_time
    if when.tzinfo is None:
        when = when.replace(tzinfo=timezone.utc)
    return when.timestamp()


def reminder_event(tracker: Tracker, reminder: Reminder) -> ReminderScheduled | None:
    """The event that asked for a reminder; None where the log does not have it any more."""
    index = reminder.seq - tracker.start
    event = tracker.events[index] if 0 <= index < len(tracker.events) else None
    return event if isinstance(event, ReminderScheduled) and event.name == reminder.name else None


def is_cancelled(tracker: Tracker, reminder: ReminderScheduled) -> bool:
    """Whether the reminder is void: past when it was asked for, or by the way the conversation went on."""
    if due_at(reminder) < reminder.timestamp - GRACE:  # another process may find it before it is dropped
        return True
    if reminder not in tracker.applied_events():
        return True
    if not reminder.kill_on_user_message:
        return False
    for event in reversed(tracker.events):
        if event == reminder:
            return False
        if isinstance(event, UserUttered) and event.text:
            return True
    return True


class Reminders:
    """Fires the reminders of a store when they are due: those of this process on time, those of others soon after.

    Many that are due at the same moment begin one after another, in slices. What fails is logged and forgotten, unless
    the store or the model was not ready: then it is tried again.
    """

    def __init__(
        self,
        clock: IReactorTime,
        now: Callable[[], float],
        store: TrackerStore,
        fire: Fire,
        slices: Slices | None = None,
    ) -> None:
        self._clock = clock
        self._now = now
        self._store = store
        self._fire = fire
        self._slices = Slices(clock) if slices is None else slices
        self._known: dict[tuple[str, str], tuple[Reminder, object, IDelayedCall | None]] = {}
        self._ready: deque[tuple[Reminder, object]] = deque()
        self._firing: set[Deferred[None]] = set()
        self._begins = False
        self._loop: LoopingCall | None = None
        self._failing = False

    def __len__(self) -> int:
        """How many wait for their time here."""
        return len(self._known)

    def start(self) -> None:
        """Look for what is due in the store, now and then: what another process left, or has no time for."""
        self._loop = LoopingCall(lambda: Deferred.fromCoroutine(self._look()))
        self._loop.clock = self._clock
        self._loop.start(LOOK_SHARED if self._store.shared else LOOK)

    async def _look(self) -> None:
        horizon = LOOK_SHARED if self._store.shared else LOOK
        try:
            found = await self._store.due(self._now() + horizon, _MOST)
        except NotBuilt:  # a store of somebody's own: reminders live as long as this process
            if self._loop is not None and self._loop.running:
                self._loop.stop()
            return
        except RasaCoreError as error:
            if not self._failing:
                log.error("the store was not asked for reminders: {reason}", reason=str(error))
            self._failing = True
            return
        self._failing = False
        for reminder in found:
            if self._known.get((reminder.sender_id, reminder.name), (None,))[0] != reminder:
                self._expect(reminder, None)

    def scheduled(self, reminder: Reminder, channel: object) -> None:
        """A turn asked for it and is stored; one that was past by then is dropped and logged."""
        if reminder.due - self._now() < -GRACE:
            log.warn("a reminder is {late:.0f} s late and dropped", late=self._now() - reminder.due)
            self._keep(Deferred.fromCoroutine(self._forget(reminder)))
            return
        self._expect(reminder, channel)

    def _expect(self, reminder: Reminder, channel: object, pause: float = 0.0) -> None:
        key = (reminder.sender_id, reminder.name)
        earlier = self._known.get(key)
        if earlier is not None and earlier[2] is not None:
            earlier[2].cancel()
        delay = max(pause, reminder.due - self._now())
        self._known[key] = reminder, channel, self._clock.callLater(delay, self._due, key)

    def _due(self, key: tuple[str, str]) -> None:
        reminder, channel, _ = self._known[key]
        self._known[key] = reminder, channel, None
        self._ready.append((reminder, channel))
        if not self._begins:
            self._keep(Deferred.fromCoroutine(self._begin()))

    def _keep(self, work: Deferred[None]) -> None:
        self._firing.add(work)
        work.addCallback(lambda _: self._firing.discard(work))

    async def _begin(self) -> None:
        self._begins = True
        try:
            while self._ready:
                self._keep(Deferred.fromCoroutine(self._run(*self._ready.popleft())))
                await self._slices.breathe()
        finally:
            self._begins = False

    async def _run(self, reminder: Reminder, channel: object) -> None:
        try:
            if await self._stands(reminder):
                await self._fire(reminder, channel)
        except _LATER as error:
            log.warn("a reminder has to wait: {reason}", reason=str(error).partition("\n")[0])
            if self._forget_known(reminder):
                self._expect(reminder, channel, RETRY)
            return
        except RasaCoreError as error:
            log.error("a reminder failed: {reason}", reason=str(error).partition("\n")[0])
        except Exception:
            log.failure("a reminder failed")
        self._forget_known(reminder)
        await self._forget(reminder)

    async def _stands(self, reminder: Reminder) -> bool:
        """Whether it was neither removed nor fired by another process."""
        try:
            return reminder in await self._store.reminders(reminder.sender_id)
        except NotBuilt:
            return True

    async def _forget(self, reminder: Reminder) -> None:
        try:
            await self._store.forget(reminder)
        except NotBuilt:
            return
        except RasaCoreError as error:
            log.warn("a reminder that is over was not removed: {reason}", reason=str(error))

    def _forget_known(self, reminder: Reminder) -> bool:
        """Whether it was the one that is known by its name."""
        key = (reminder.sender_id, reminder.name)
        if self._known.get(key, (None,))[0] != reminder:
            return False
        del self._known[key]
        return True

    def stop(self) -> None:
        """Begin no more; what the store has is left for the next start."""
        if self._loop is not None and self._loop.running:
            self._loop.stop()
        self._ready.clear()
        for _, _, call in self._known.values():
            if call is not None:
                call.cancel()
        self._known.clear()
