"""Reminders: actions that run later, in the conversation that asked for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from rasa_core_api.concurrency import Slices
from rasa_core_api.domain import MAX_SHOWN
from rasa_core_api.events import ReminderScheduled, UserUttered
from rasa_core_api.exceptions import RasaCoreError
from rasa_core_api.trackers import Tracker

log = Logger()

#: A reminder that is due longer than this (seconds) is dropped.
GRACE = 1.0

#: Fires a reminder: sender id, event, output channel.
Fire = Callable[[str, ReminderScheduled, object], Awaitable[None]]


def due_at(reminder: ReminderScheduled) -> float:
    """When it is due, in seconds since the epoch; a time without an offset is UTC."""
    when: datetime = reminder.trigger_date_time
    if when.tzinfo is None:
        when = when.replace(tzinfo=timezone.utc)
    return when.timestamp()


def is_cancelled(tracker: Tracker, reminder: ReminderScheduled) -> bool:
    """Whether the conversation went on in a way that makes the reminder void."""
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
    """Keeps the reminders of this process; a new one replaces one of the same name and conversation.

    Many that are due at the same moment begin one after another, in slices.
    """

    def __init__(self, clock: IReactorTime, now: Callable[[], float], fire: Fire, slices: Slices | None = None) -> None:
        self._clock = clock
        self._now = now
        self._fire = fire
        self._slices = Slices(clock) if slices is None else slices
        self._calls: dict[tuple[str, str], IDelayedCall] = {}
        self._ready: deque[tuple[str, ReminderScheduled, object]] = deque()
        self._firing: set[Deferred[None]] = set()
        self._begins = False

    def __len__(self) -> int:
        return len(self._calls)

    def schedule(self, sender_id: str, reminder: ReminderScheduled, channel: object) -> None:
        """Run the reminder's action when it is due; one that is past is dropped and logged."""
        key = (sender_id, reminder.name)
        earlier = self._calls.pop(key, None)
        if earlier is not None:
            earlier.cancel()
        delay = due_at(reminder) - self._now()
        if delay < -GRACE:
            log.warn(
                "a reminder for {action} is {late:.0f} s late and dropped",
                action=reminder.action_name[:MAX_SHOWN],
                late=-delay,
            )
            return
        self._calls[key] = self._clock.callLater(max(0.0, delay), self._due, key, reminder, channel)

    def _due(self, key: tuple[str, str], reminder: ReminderScheduled, channel: object) -> None:
        del self._calls[key]
        self._ready.append((key[0], reminder, channel))
        if not self._begins:
            self._keep(Deferred.fromCoroutine(self._begin()))

    def _keep(self, work: Deferred[None]) -> None:
        self._firing.add(work)
        work.addCallback(lambda _: self._firing.discard(work))

    async def _begin(self) -> None:
        self._begins = True
        try:
            while self._ready:
                self._start(*self._ready.popleft())
                await self._slices.breathe()
        finally:
            self._begins = False

    def _start(self, sender_id: str, reminder: ReminderScheduled, channel: object) -> None:
        async def run() -> None:
            try:
                await self._fire(sender_id, reminder, channel)
            except RasaCoreError as error:
                log.error(
                    "the reminder for {action} failed: {reason}",
                    action=reminder.action_name[:MAX_SHOWN],
                    reason=str(error).partition("\n")[0],
                )
            except Exception:
                log.failure("the reminder for {action} failed", action=reminder.action_name[:MAX_SHOWN])

        self._keep(Deferred.fromCoroutine(run()))

    def stop(self) -> None:
        """Forget all that have not begun."""
        self._ready.clear()
        for call in self._calls.values():
            call.cancel()
        self._calls.clear()
