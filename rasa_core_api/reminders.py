"""Reminders: actions that run later, in the conversation that asked for them, also after a restart."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import datetime, timezone
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any
from zlib import crc32

from attrs import define, evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from rasa_core_api.concurrency import Slices
from rasa_core_api.domain import Domain
from rasa_core_api.events import Event, ReminderScheduled, SlotSet, UserUttered
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
from rasa_core_api.fair_line import FairLine
from rasa_core_api.releases import LATEST
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.turns import Reminder
from rasa_core_api.trackers import Tracker

log = Logger()

#: A reminder that was due longer than this (seconds) when it was asked for is dropped.
GRACE = 1.0
#: Seconds between two looks at what is due in a store: where other processes may add to it, and where none can.
LOOK_SHARED, LOOK = 1.0, 30.0
#: Seconds that a reminder of a shared store is left to the process that asked for it.
LEFT = 1.0
#: Reminders that one look takes, and that wait here for a later time; more of them are left to the looks.
MOST_TAKEN, MOST_KNOWN = 500, 10_000
#: Reminders that are under way at once; so many more where nothing is at work and none ended for `SLOW` seconds, since
#: they wait for slow actions; and how many at the most.
AT_ONCE, SLOW, MOST_AT_ONCE = 32, 0.05, 1_000
#: Seconds before a reminder is tried again for which the store, the model or its conversation was not ready, and
#: between two words about that in the log.
RETRY, WORD = 5.0, 30.0
#: Entries of the heap that are known no more, before they are cleared away.
_SPARE = 100

#: Fires a reminder, in a turn that also forgets it; the output channel is None where this process has none for it.
#: False where no turn began, since the same one had ended before.
Fire = Callable[[Reminder, object], Awaitable[bool]]
#: What makes a reminder wait for better times.
_LATER = (AgentNotReady, ConversationHeld, ServerBusy, StoreConflict, StoreUnavailable, TooManyRequests)


def due_at(reminder: ReminderScheduled) -> float:
    """When it is due, in seconds since the epoch; a time without an offset is UTC."""
    when: datetime = reminder.trigger_date_time
    if when.tzinfo is None:
        when = when.replace(tzinfo=timezone.utc)
    return when.timestamp()


def is_late(reminder: ReminderScheduled) -> bool:
    """Whether it was past already when it was asked for."""
    return due_at(reminder) < reminder.timestamp - GRACE


def reminder_event(tracker: Tracker, reminder: Reminder) -> ReminderScheduled | None:
    """The event that asked for a reminder; None where the log does not have it any more."""
    index = reminder.seq - tracker.start
    event = tracker.events[index] if 0 <= index < len(tracker.events) else None
    return event if isinstance(event, ReminderScheduled) and event.name == reminder.name else None


def standing(tracker: Tracker, reminders: Sequence[Reminder]) -> list[Reminder]:
    """Those that are not void: asked for in time, and not undone by the way the conversation went on."""
    applied = set(map(id, tracker.applied_events()))
    events, start = tracker.events, tracker.start
    said = len(events) - 1  # where the user said something last
    while said >= 0:
        event = events[said]
        if isinstance(event, UserUttered) and event.text:
            break
        said -= 1
    found = []
    for reminder in reminders:
        asked = reminder_event(tracker, reminder)
        if asked is None or id(asked) not in applied or is_late(asked):
            continue
        if reminder.seq - start > said or not asked.kill_on_user_message:
            found.append(reminder)
    return found


def unfired(sender_id: str, events: Sequence[Event], now: float) -> dict[int, Reminder]:
    """Reminders of a log whose store kept none, by the place of their events: what is not void, and due after `now`.

    The process that had the log kept them in its memory. `seq` is the place of the event, too.
    """
    named = {event.name: (index, event) for index, event in enumerate(events) if isinstance(event, ReminderScheduled)}
    later = {index: event for index, event in named.values() if due_at(event) > now}
    if not later:
        return {}
    tracker = Tracker(sender_id, Domain(LATEST, intents={}))
    found = []
    for index, event in enumerate(events):
        if index in later:
            found.append(Reminder(sender_id, later[index].name, due_at(later[index]), len(tracker.events)))
        if not isinstance(event, SlotSet):  # slots void nothing, and the domain is not known here
            tracker.update(event)
    places = {each.name: named[each.name][0] for each in standing(tracker, found)}
    return {places[each.name]: evolve(each, seq=places[each.name]) for each in found if each.name in places}


@define(eq=False)
class _Known:
    """One that waits for its time, for its turn to begin, or for its end."""

    reminder: Reminder
    channel: object


class Reminders:
    """Fires the reminders of a store when they are due: those of this process on time, those of others soon after.

    Many that are due at the same moment begin in slices, a few at once and one of a conversation at a time, so that
    they do not keep users waiting. What fails is logged and forgotten, unless the store or the model was not ready:
    then it is tried again. `owner` tells processes apart, so that each begins elsewhere with what another one left.
    """

    def __init__(
        self,
        clock: IReactorTime,
        now: Callable[[], float],
        store: TrackerStore,
        fire: Fire,
        slices: Slices | None = None,
        owner: str = "",
    ) -> None:
        self._clock = clock
        self._now = now
        self._store = store
        self._fire = fire
        self._slices = Slices(clock) if slices is None else slices
        self._owner = owner
        self._known: dict[tuple[str, str], _Known] = {}
        self._times: list[tuple[float, int, _Known]] = []  # a heap; those that are known no more stay until their time
        self._count = count()
        self._timer: IDelayedCall | None = None
        self._next_look: IDelayedCall | None = None
        self._slow: IDelayedCall | None = None
        self._line: FairLine[_Known] = FairLine(AT_ONCE, MOST_AT_ONCE)
        self._work: set[Deferred[None]] = set()
        self._begins = False
        self._runs = False
        self._stopped = False
        self._keeps = True  # the store keeps reminders
        self._full = False  # the last look left some out
        self._failing = False
        self._told_waiting = -WORD

    def __len__(self) -> int:
        """How many are known here and not over."""
        return len(self._known)

    # --- finding -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Look for what is due in the store, now and then: what another process left, or has no time for."""
        self._runs = True
        self._keep(self._look())

    async def _look(self) -> None:
        """Take what is due, and look again in a while. Of a shared store only what nobody else began with."""
        self._full = False
        interval = LOOK_SHARED if self._store.claims else LOOK
        try:
            await self._take(self._now() + (-LEFT if self._store.shared else interval))
            self._failing = False
        except NotBuilt:  # a store of somebody's own: reminders live as long as this process
            self._keeps = self._runs = False
        except RasaCoreError as error:
            if not self._failing:
                log.error("the store was not asked for reminders: {reason}", reason=str(error))
            self._failing = True
        except Exception:
            log.failure("the store was not asked for reminders")
        if self._next_look is not None and self._next_look.active():
            self._next_look.cancel()
        if self._runs:
            self._next_look = self._clock.callLater(interval, self.start)

    async def _take(self, before: float) -> None:
        most = MOST_TAKEN + sum(known.reminder.due < before for known in self._known.values())
        found = await self._store.due(before, most)
        if self._stopped:
            return
        self._full = len(found) == most
        if self._store.shared:
            found.sort(key=self._place)
        for reminder in found:
            known = self._known.get((reminder.sender_id, reminder.name))
            if known is None or known.reminder.seq < reminder.seq or known.reminder.due > reminder.due:
                self._expect(reminder, None)  # the one known may be of a conversation that was begun anew elsewhere

    def _place(self, reminder: Reminder) -> int:
        return crc32(f"{self._owner} {reminder.sender_id} {reminder.name}".encode("utf-8", "surrogatepass"))

    def scheduled(self, reminder: Reminder, channel: object) -> None:
        """A turn asked for it and is stored."""
        if self._keeps and len(self._known) >= MOST_KNOWN and reminder.due > self._now() + LOOK:
            return  # a look will find it
        self._expect(reminder, channel)

    # --- waiting -------------------------------------------------------------------------------------

    def _expect(self, reminder: Reminder, channel: object) -> None:
        known = self._known[reminder.sender_id, reminder.name] = _Known(reminder, channel)
        self._wait(known, reminder.due)

    def _wait(self, known: _Known, until: float) -> None:
        if self._stopped:
            return
        heappush(self._times, (until, next(self._count), known))
        if len(self._times) > 2 * len(self._known) + _SPARE:
            self._times = [entry for entry in self._times if self._is_known(entry[2])]
            heapify(self._times)
        self._set_timer()

    def _is_known(self, known: _Known) -> bool:
        return self._known.get((known.reminder.sender_id, known.reminder.name)) is known

    def _set_timer(self) -> None:
        """Wake up for the earliest; in a while at the latest, since the time of day may jump."""
        if not self._times:
            return
        delay = min(max(self._times[0][0] - self._now(), 0.0), LOOK)
        if self._timer is not None and self._timer.active():
            if self._timer.getTime() <= self._clock.seconds() + delay:
                return
            self._timer.cancel()
        self._timer = self._clock.callLater(delay, self._wake)

    def _wake(self) -> None:
        now = self._now()
        while self._times and self._times[0][0] <= now:
            known = heappop(self._times)[2]
            if self._is_known(known):
                self._line.add(known.reminder.sender_id, known)
        self._set_timer()
        self._go()

    # --- firing --------------------------------------------------------------------------------------

    def _keep(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        kept = Deferred.fromCoroutine(work)
        self._work.add(kept)
        kept.addCallback(lambda _: self._work.discard(kept))

    def _go(self) -> None:
        if not self._begins and self._line.may_begin:
            self._keep(self._begin())
        if self._line.is_full and not _active(self._slow):
            self._slow = self._clock.callLater(SLOW, self._widen, self._line.ended)

    def _widen(self, ended: int) -> None:
        """Where none ended since and none is at work, all wait for something slow; others need not wait for them."""
        if self._line.ended == ended and self._line.is_full and self._slices.idle:
            self._line.widen()
        self._go()

    async def _begin(self) -> None:
        self._begins = True
        while self._line.may_begin:
            self._keep(self._run(*self._line.begin()))
            await self._slices.breathe()
        self._begins = False
        self._go()

    async def _run(self, key: str, known: _Known) -> None:
        try:
            if self._is_known(known):
                await self._try(known)
        finally:
            self._line.end(key)
        self._go()
        if self._full and self._runs and len(self._line) < AT_ONCE:
            await self._look()

    async def _try(self, known: _Known) -> None:
        reminder = known.reminder
        kept = True
        try:
            waits = await self._waits(reminder)
            if not waits and not self._store.shared:
                self._full = True  # where its log was made anonymous it waits under another number
            kept = waits and not await self._fire(reminder, known.channel)
        except _LATER as error:
            self._tell_waiting(error)
            if self._is_known(known):
                self._wait(known, self._now() + RETRY)
            return
        except RasaCoreError as error:
            log.error("a reminder failed: {reason}", reason=str(error).partition("\n")[0])
        except Exception:
            log.failure("a reminder failed")
        if self._is_known(known):
            del self._known[reminder.sender_id, reminder.name]
        if kept:
            await self._forget(reminder)

    def _tell_waiting(self, error: Exception) -> None:
        now = self._clock.seconds()
        if now >= self._told_waiting + WORD:
            self._told_waiting = now
            log.warn("reminders have to wait: {reason}", reason=str(error).partition("\n")[0])

    async def _waits(self, reminder: Reminder) -> bool:
        """Whether it was neither removed nor fired by another process."""
        try:
            return await self._store.waits(reminder)
        except NotBuilt:
            return True

    async def _forget(self, reminder: Reminder) -> None:
        try:
            await self._store.forget(reminder)
        except NotBuilt:
            return
        except RasaCoreError as error:
            log.warn("a reminder that is over was not removed: {reason}", reason=str(error))

    def stop(self) -> None:
        """Begin no more; what the store has is left for the next start."""
        self._stopped, self._runs = True, False
        for call in (self._timer, self._next_look, self._slow):
            if call is not None and call.active():
                call.cancel()
        self._line.clear()
        self._times.clear()
        self._known.clear()


def _active(call: IDelayedCall | None) -> bool:
    return call is not None and call.active()
