"""Conversations in this process's memory, bounded by count and bytes; gone when it ends."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from itertools import islice

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from rasa_core_api.concurrency import Slices
from rasa_core_api.constants import JSON
from rasa_core_api.events import Event
from rasa_core_api.exceptions import StoreUnavailable
from rasa_core_api.tracker_store import Tail, TrackerStore
from rasa_core_api.tracker_store.checks import conflict, unknown_cursor
from rasa_core_api.tracker_store.weights import weigh

log = Logger()

#: Seconds after its last use in which a conversation is never dropped.
PROTECTED = 3600.0
#: Seconds between two lines in the log about dropped conversations.
REPORT_EVERY = 60.0
#: Bytes of an empty conversation with its keys.
_OVERHEAD = 600
#: Known conversations may outgrow the bound by this part of it before they are refused too.
_SPARE = 0.25
#: Events that are weighed before the reactor gets its turn.
_AT_ONCE = 512


@define(eq=False)
class _Log:
    start: int
    events: list[Event]
    size: int  # bytes, estimated
    used: float  # the clock's seconds at its last use
    end: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.end = self.start + len(self.events)


class MemoryStore(TrackerStore):
    """Keeps conversations until a bound is reached, then drops the least recently used one.

    Conversations with a turn in flight, and those used within the last hour, are never dropped; while there is
    nothing to drop, new ones get `StoreUnavailable`, and so do known ones beyond another quarter of `max_mb`.
    """

    name = "memory"

    def __init__(self, clock: IReactorTime, max_conversations: int = 100_000, max_mb: float = 512) -> None:
        self._clock = clock
        self._slices = Slices(clock)
        self._max_conversations = max_conversations
        self._max_bytes = int(max_mb * (1 << 20))
        self._logs: dict[str, _Log] = {}  # in the order of creation
        self._by_use: OrderedDict[str, _Log] = OrderedDict()  # least recently used first
        self._pins: Counter[str] = Counter()
        self._bytes = 0
        self._dropped = 0
        self._reported = 0
        self._next_report: IDelayedCall | None = None

    async def close(self) -> None:
        if self._next_report is not None:
            self._next_report.cancel()
            self._report()
        if self._next_report is not None:
            self._next_report.cancel()
            self._next_report = None

    async def read(self, sender_id: str, after: int = 0, limit: int | None = None) -> Tail | None:
        found = self._logs.get(sender_id)
        if found is None:
            return None
        self._use(sender_id, found)
        begin = max(after - found.start, 0)
        stop = None if limit is None else begin + limit
        return Tail(found.start, found.end, found.events[begin:stop])

    async def append(self, sender_id: str, end: int, events: Sequence[Event]) -> int:
        size = await self._weigh(events)
        found = self._logs.get(sender_id)
        if found is None:
            if end:
                conflict(sender_id, end, None)
            self._make_room(size + _OVERHEAD, sender_id)
            self._create(sender_id, 0, events, size)
            return len(events)
        if found.end != end:
            conflict(sender_id, end, found.end)
        if self._bytes + size > self._max_bytes:
            self._make_room(size, sender_id)
        found.events.extend(events)
        found.end = end = end + len(events)
        found.size += size
        self._bytes += size
        self._use(sender_id, found)
        return end

    async def replace(self, sender_id: str, events: Sequence[Event]) -> tuple[int, int]:
        size = await self._weigh(events)
        found = self._logs.get(sender_id)
        if found is None:
            self._make_room(size + _OVERHEAD, sender_id)
            self._create(sender_id, 0, events, size)
            return 0, len(events)
        growth = size - (found.size - _OVERHEAD)
        if growth > 0 and self._bytes + growth > self._max_bytes:
            self._make_room(growth, sender_id)
        found.start = found.end
        found.events = list(events)
        found.end = found.start + len(events)
        found.size += growth
        self._bytes += growth
        self._use(sender_id, found)
        return found.start, found.end

    async def sender_ids(self, after: str | None = None, limit: int | None = None, prefix: str = "") -> list[str]:
        names = iter(self._logs)
        if after is not None:
            if after not in self._logs:
                raise unknown_cursor(after)
            for name in names:
                if name == after:
                    break
        if prefix:
            names = (name for name in names if name.startswith(prefix))
        return list(islice(names, limit))

    async def delete(self, sender_id: str) -> bool:
        if sender_id not in self._logs:
            return False
        self._remove(sender_id)
        return True

    def pin(self, sender_id: str) -> None:
        self._pins[sender_id] += 1

    def unpin(self, sender_id: str) -> None:
        self._pins[sender_id] -= 1
        if self._pins[sender_id] <= 0:
            del self._pins[sender_id]

    def status(self) -> dict[str, JSON]:
        return {
            "type": self.name,
            "conversations": len(self._logs),
            "bytes": self._bytes,
            "max_conversations": self._max_conversations,
            "max_bytes": self._max_bytes,
            "dropped": self._dropped,
        }

    async def _weigh(self, events: Sequence[Event]) -> int:
        size = weigh(events[:_AT_ONCE])
        for begin in range(_AT_ONCE, len(events), _AT_ONCE):
            await self._slices.breathe()
            size += weigh(events[begin : begin + _AT_ONCE])
        return size

    def _use(self, sender_id: str, found: _Log) -> None:
        found.used = self._clock.seconds()
        self._by_use.move_to_end(sender_id)

    def _create(self, sender_id: str, start: int, events: Sequence[Event], size: int) -> None:
        size += _OVERHEAD
        created = _Log(start, list(events), size, self._clock.seconds())
        self._logs[sender_id] = self._by_use[sender_id] = created
        self._bytes += size

    def _remove(self, sender_id: str) -> None:
        self._bytes -= self._logs.pop(sender_id).size
        del self._by_use[sender_id]

    def _make_room(self, size: int, sender_id: str) -> None:
        """Drop what may go until `size` more bytes fit in; raises `StoreUnavailable` where they do not."""
        known = sender_id in self._logs
        places = self._max_conversations - (not known)
        while len(self._logs) > places or self._bytes + size > self._max_bytes:
            oldest = self._droppable(sender_id)
            if oldest is None:
                if known and self._bytes + size <= self._max_bytes * (1 + _SPARE):
                    return
                raise StoreUnavailable(
                    "The memory store is full and every conversation in it is in use. Raise"
                    " 'tracker_store.max_conversations' or 'tracker_store.max_mb', or choose a store on disk."
                )
            self._remove(oldest)
            self._dropped += 1
            if self._next_report is None:
                self._next_report = self._clock.callLater(0, self._report)

    def _droppable(self, spared: str) -> str | None:
        latest = self._clock.seconds() - PROTECTED
        for sender_id, found in self._by_use.items():
            if found.used > latest:
                return None
            if sender_id != spared and sender_id not in self._pins:
                return sender_id
        return None

    def _report(self) -> None:
        self._next_report = None
        count = self._dropped - self._reported
        if count:
            self._reported = self._dropped
            log.warn(
                "the memory store is full: dropped {count} conversations, the least recently used ones", count=count
            )
            self._next_report = self._clock.callLater(REPORT_EVERY, self._report)
