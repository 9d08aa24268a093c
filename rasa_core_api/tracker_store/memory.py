"""Conversations in this process's memory, bounded by count and bytes; gone when it ends."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice
from time import time

from attrs import define, evolve, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from rasa_core_api.concurrency import Slices
from rasa_core_api.constants import JSON
from rasa_core_api.events import Event
from rasa_core_api.exceptions import ConversationHeld, StoreUnavailable
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.checks import conflict, position_of, unknown_cursor
from rasa_core_api.tracker_store.memory_order import AppendOrder
from rasa_core_api.tracker_store.turns import FORGOTTEN, NO_NOTE, Earlier, FeedEntry, Opening, Reminder, Tail, TurnNote
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
#: Bytes of an answer that is kept, beside its text.
_ANSWER = 300


@define(eq=False)
class _Log:
    start: int
    events: list[Event]
    size: int  # bytes, estimated
    used: float  # the clock's seconds at its last use
    birth: int
    end: int = field(init=False)
    answers: dict[str, tuple[float, Earlier]] = field(factory=dict)  # by key, with the time they are kept until

    def __attrs_post_init__(self) -> None:
        self.end = self.start + len(self.events)


class MemoryStore(TrackerStore):
    """Keeps conversations until a bound is reached, then drops the least recently used one.

    Conversations with a turn in flight, and those used within the last hour, are never dropped; while there is
    nothing to drop, new ones get `StoreUnavailable`, and so do known ones beyond another quarter of `max_mb`.
    """

    name = "memory"
    claims = False
    births = True

    def __init__(
        self,
        clock: IReactorTime,
        max_conversations: int = 100_000,
        max_mb: float = 512,
        now: Callable[[], float] = time,
    ) -> None:
        self._clock = clock
        self._now = now
        self._claims: dict[str, tuple[str, float]] = {}  # owner, and the clock's seconds at the end
        self._reminders: dict[tuple[str, str], Reminder] = {}
        begun = int(clock.seconds() * 1_000_000)  # what an earlier process counted was below
        self._order = AppendOrder(begun + 1)
        self._roles: dict[str, tuple[str, float]] = {}
        self._slices = Slices(clock)
        self._max_conversations = max_conversations
        self._max_bytes = int(max_mb * (1 << 20))
        self._logs: dict[str, _Log] = {}  # in the order of creation
        self._by_use: OrderedDict[str, _Log] = OrderedDict()  # least recently used first
        self._pins: Counter[str] = Counter()
        self._bytes = 0
        self._born = begun
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

    # --- logs ----------------------------------------------------------------------------------------

    async def read(self, sender_id: str, after: int = 0, limit: int | None = None) -> Tail | None:
        found = self._logs.get(sender_id)
        if found is None:
            return None
        self._use(sender_id, found)
        begin = max(after - found.start, 0)
        stop = None if limit is None else begin + limit
        return Tail(found.start, found.end, found.events[begin:stop], found.birth)

    async def append(self, sender_id: str, end: int, events: Sequence[Event], note: TurnNote = NO_NOTE) -> int:
        size = await self._weigh(events)
        if self._claims:
            self._check_claim(sender_id, note.owner)
        found = self._logs.get(sender_id)
        if found is None:
            if end:
                conflict(sender_id, end, None)
            self._make_room(size + _OVERHEAD, sender_id)
            found = self._create(sender_id, 0, events, size)
        else:
            if (
                found.end != end
                or note.start not in (None, found.start)
                or (note.birth and note.birth != found.birth)
            ):
                conflict(sender_id, end, found.end)
            if self._bytes + size > self._max_bytes:
                self._make_room(size, sender_id)
            found.events.extend(events)
            found.end = end + len(events)
            found.size += size
            self._bytes += size
            self._use(sender_id, found)
        self._order.add(sender_id, end, len(events), found.birth)
        if note is not NO_NOTE:
            self._leave(sender_id, found, note, note.base)
        return found.end

    async def begin(self, sender_id: str, events: Sequence[Event], note: TurnNote = NO_NOTE) -> tuple[int, int]:
        end = await self.append(sender_id, 0, events, note)
        return end, self._logs[sender_id].birth

    async def replace(self, sender_id: str, events: Sequence[Event], note: TurnNote = NO_NOTE) -> tuple[int, int]:
        size = await self._weigh(events)
        self._check_claim(sender_id, note.owner)
        found = self._logs.get(sender_id)
        if found is None:
            self._make_room(size + _OVERHEAD, sender_id)
            found = self._create(sender_id, 0, events, size)
        else:
            growth = size - (found.size - _OVERHEAD - sum(_weigh_answer(kept) for _, kept in found.answers.values()))
            if growth > 0 and self._bytes + growth > self._max_bytes:
                self._make_room(growth, sender_id)
            found.start = found.end
            found.events = list(events)
            found.end = found.start + len(events)
            found.size += growth
            self._bytes += growth
            self._use(sender_id, found)
            self._forget_all(sender_id)
        if note.forgets:
            for key, (until, kept) in list(found.answers.items()):
                self._drop_answer(found, key)
                self._keep_answer(found, key, until, evolve(kept, answer=FORGOTTEN))
        self._order.add(sender_id, found.start, len(events), found.birth)
        self._leave(sender_id, found, note, found.start + note.base)
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
        self._claims.pop(sender_id, None)
        return True

    async def idle(self, before: float, limit: int) -> list[str]:
        return list(
            islice(
                (name for name, log in self._logs.items() if not log.events or log.events[-1].timestamp < before), limit
            )
        )

    # --- turns ---------------------------------------------------------------------------------------

    async def look(
        self, sender_id: str, after: int = 0, limit: int | None = None, key: str | None = None, owner: str = ""
    ) -> Opening:
        tail = await self.read(sender_id, after, limit)
        earlier = None
        if key is not None and tail is not None:
            until, kept = self._logs[sender_id].answers.get(key, (0.0, None))
            if until > self._clock.seconds():
                earlier = kept
        return Opening(tail, earlier, self._held(sender_id, owner))

    async def claim(
        self, sender_id: str, end: int, owner: str, key: str | None, seconds: float, birth: int = 0
    ) -> None:
        self._check_claim(sender_id, owner)
        found = self._logs.get(sender_id)
        if (0 if found is None else found.end) != end or (birth and found is not None and found.birth != birth):
            conflict(sender_id, end, None if found is None else found.end)
        self._claims[sender_id] = owner, self._clock.seconds() + seconds

    async def renew(self, owner: str, seconds: float) -> None:
        until = self._clock.seconds() + seconds
        for sender_id, (holder, _) in self._claims.items():
            if holder == owner:
                self._claims[sender_id] = owner, until

    async def release(self, owner: str, sender_id: str | None = None) -> None:
        for name in list(self._claims) if sender_id is None else [sender_id]:
            if self._claims.get(name, ("", 0.0))[0] == owner:
                del self._claims[name]

    def _held(self, sender_id: str, owner: str) -> float:
        holder, until = self._claims.get(sender_id, (owner, 0.0))
        return 0.0 if holder == owner else max(0.0, until - self._clock.seconds())

    def _check_claim(self, sender_id: str, owner: str) -> None:
        held = self._held(sender_id, owner)
        if held:
            raise ConversationHeld(sender_id, held)

    def _leave(self, sender_id: str, found: _Log, note: TurnNote, base: int) -> None:
        """Do what a note says."""
        if note.done:
            self._claims.pop(sender_id, None)
        if note.key is not None:
            now, most = self._clock.seconds(), len(found.answers)
            if not most & (most - 1):  # what ran out is looked for as often as their number doubles
                for key in [key for key, (until, _) in found.answers.items() if until <= now]:
                    self._drop_answer(found, key)
            self._drop_answer(found, note.key)
            kept = Earlier(base, found.end, note.answer, note.done)
            self._keep_answer(found, note.key, now + note.keep, kept)
        for reminder in note.reminders:
            self._reminders[sender_id, reminder.name] = reminder
        if note.fired is not None:
            self._forget(note.fired)

    def _keep_answer(self, found: _Log, key: str, until: float, kept: Earlier) -> None:
        found.answers[key] = until, kept
        found.size += _weigh_answer(kept)
        self._bytes += _weigh_answer(kept)

    def _drop_answer(self, found: _Log, key: str) -> None:
        _, kept = found.answers.pop(key, (0.0, None))
        if kept is not None:
            found.size -= _weigh_answer(kept)
            self._bytes -= _weigh_answer(kept)

    # --- reminders -----------------------------------------------------------------------------------

    async def due(self, before: float, limit: int) -> list[Reminder]:
        found = [reminder for reminder in self._reminders.values() if reminder.due < before]
        return sorted(found, key=_by_time)[:limit]

    async def reminders(self, sender_id: str) -> list[Reminder]:
        found = [reminder for reminder in self._reminders.values() if reminder.sender_id == sender_id]
        return sorted(found, key=_by_time)

    async def waits(self, reminder: Reminder) -> bool:
        return self._reminders.get((reminder.sender_id, reminder.name)) == reminder

    async def forget(self, reminder: Reminder) -> bool:
        return self._forget(reminder)

    def _forget(self, reminder: Reminder) -> bool:
        key = reminder.sender_id, reminder.name
        if key not in self._reminders or self._reminders[key].seq != reminder.seq:
            return False
        del self._reminders[key]
        return True

    def _forget_all(self, sender_id: str) -> None:
        for key in [key for key in self._reminders if key[0] == sender_id]:
            del self._reminders[key]

    # --- the order of all appends ----------------------------------------------------------------------

    async def feed(self, after: str | None, limit: int) -> list[FeedEntry]:
        entries = []
        for position, sender_id, seq, count, birth in self._order.after(position_of(after), limit):
            found = self._logs.get(sender_id)
            begin = -1 if found is None or found.birth != birth else seq - found.start
            events = found.events[begin : begin + count] if found is not None and begin >= 0 else []
            entries.append(FeedEntry(str(position), sender_id, seq, events))
        return entries

    async def feed_lost(self, after: str) -> bool:
        return self._order.lost(position_of(after))

    async def feed_end(self) -> str:
        return str(self._order.end)

    async def cursor(self, name: str) -> str | None:
        return self._order.cursors.get(name)

    async def set_cursor(self, name: str, position: str) -> None:
        position_of(position)
        self._order.cursors[name] = position

    async def hold(self, role: str, owner: str, seconds: float) -> bool:
        now = self._clock.seconds()
        holder, until = self._roles.get(role, (owner, 0.0))
        if holder != owner and until > now:
            return False
        self._roles[role] = owner, now + seconds
        return True

    # --- bounds --------------------------------------------------------------------------------------

    def gone(self, sender_id: str) -> bool:
        return sender_id not in self._logs

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

    def _create(self, sender_id: str, start: int, events: Sequence[Event], size: int) -> _Log:
        size += _OVERHEAD
        self._born += 1
        created = _Log(start, list(events), size, self._clock.seconds(), self._born)
        self._logs[sender_id] = self._by_use[sender_id] = created
        self._bytes += size
        return created

    def _remove(self, sender_id: str) -> None:
        self._bytes -= self._logs.pop(sender_id).size
        del self._by_use[sender_id]
        if self._reminders:
            self._forget_all(sender_id)

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


def _weigh_answer(kept: Earlier) -> int:
    return _ANSWER + len(kept.answer)


def _by_time(reminder: Reminder) -> tuple[float, int]:
    return reminder.due, reminder.seq
