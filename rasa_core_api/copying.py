"""Copying conversations into a store: what is there already, how far it is, and how long the rest will take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from attrs import define, field, frozen

from rasa_core_api.constants import JSON
from rasa_core_api.events import Event, ReminderScheduled
from rasa_core_api.events.reading import EventReader
from rasa_core_api.exceptions import (
    ConversationHeld,
    InvalidConfiguration,
    InvalidParameter,
    RasaCoreError,
    StoreConflict,
)
from rasa_core_api.jsontext import decode
from rasa_core_api.reminders import due_at, unfired
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.turns import Reminder
from rasa_core_api.tracker_store.waiting import NONE_WAIT, Waiting, note_of, part, reminders_of, within

#: Events that are asked for, and stored, at once.
EVENTS = 1_000
#: Seconds between two lines of progress.
_PROGRESS = 5.0
#: Most bytes of one line that is imported, and most characters of an id in a message.
_MAX_LINE = 256 << 20
_MAX_NAME = 80


def named(sender_id: str) -> str:
    """A sender id as messages show it: on one line, and not endless."""
    return repr(sender_id if len(sender_id) <= _MAX_NAME else sender_id[:_MAX_NAME] + "...")


@define
class Report:
    """Counts, and lines of progress on `stream`, by the seconds of `clock`."""

    stream: TextIO
    verb: str
    clock: Callable[[], float]
    done: int = 0
    skipped: int = 0
    failed: int = 0
    _seen: int = field(default=0, init=False)
    _began: float = field(init=False)
    _told: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._began = self._told = self.clock()

    def advance(self, total: int | None = None, share: float | None = None) -> None:
        """One conversation more was dealt with: of about so many, or such a share of the whole input by now."""
        self._seen += 1
        now = self.clock()
        if not self._is_time(now):
            return
        text = f"{self._seen}"
        if total:
            share = self._seen / total
            text += f" of about {max(total, self._seen)}"
        self._tell(f"{text} conversations, {self.done} {self.verb}", share, now)

    def within(self, sender_id: str, events: int, of: int | None = None, share: float | None = None) -> None:
        """So many events of a long conversation are done, which has `of` of them."""
        now = self.clock()
        if self._is_time(now):
            text = f"{events}" if of is None else f"{events} of {of}"
            self._tell(f"{self.done} conversations {self.verb}, {text} events of {named(sender_id)}", share, now)

    def _is_time(self, now: float) -> bool:
        if now - self._told < _PROGRESS:
            return False
        self._told = now
        return True

    def _tell(self, text: str, share: float | None, now: float) -> None:
        if share is not None and 0 < share <= 1:
            text += f", about {_duration((now - self._began) * (1 - share) / share)} left"
        print(text, file=self.stream, flush=True)

    def one_failed(self, reason: object) -> None:
        """A conversation was left out."""
        self.failed += 1
        print(f"left out: {reason}", file=self.stream, flush=True)

    def finish(self) -> int:
        """Say how it went; the exit code."""
        self._sum_up("")
        return 1 if self.failed else 0

    def interrupted(self, advice: str) -> None:
        """Say how far it went until somebody ended it, and what to do then."""
        self._sum_up("interrupted: ", f" so far{advice}")

    def _sum_up(self, before: str, after: str = "") -> None:
        text = f"{before}{self.done} conversations {self.verb}"
        if self.skipped:
            text += f", {self.skipped} skipped"
        if self.failed:
            text += f", {self.failed} left out"
        print(text + after, file=self.stream, flush=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


@define
class _Place:
    """Where the next events of a conversation go."""

    sender_id: str
    end: int
    there: bool = False  # it was there already
    unseen: int = 0  # events before `end` that were not compared yet
    grown: bool = False
    added: int = 0  # where the events begin that were stored now
    waiting: set[str] = field(factory=set)  # names of the reminders of what was copied
    told: float = 0.0  # when the last event of it took place


@define
class Target:
    """Where conversations are copied to; `existing` is "fail", "skip" or "replace"."""

    store: TrackerStore
    existing: str
    report: Report

    async def begin(self, sender_id: str, events: Sequence[Event], waiting: Waiting = NONE_WAIT) -> _Place | None:
        """Store the first events of a conversation, and the reminders that some of them asked for.

        None where it is left alone.
        """
        try:
            return _Place(sender_id, await self.store.append(sender_id, 0, events, note_of(waiting, sender_id, 0)))
        except StoreConflict:
            if self.existing == "replace":
                return await self._replace(sender_id, events, waiting)
            if self.existing == "skip":
                self.report.skipped += 1
                tail = await self.store.read(sender_id, 0, 1)
                if tail is not None:  # an earlier run may have been stopped in the middle of it
                    unseen = tail.end - tail.start
                    place = _Place(sender_id, tail.end, there=True, unseen=unseen, added=tail.end)
                    return place if await self.add(place, events, waiting) else None
            else:
                self.report.one_failed(f"the conversation {named(sender_id)} is there already (see --existing)")
            return None

    async def _replace(self, sender_id: str, events: Sequence[Event], waiting: Waiting) -> _Place:
        tail = await self.store.read(sender_id, 0, 1)
        seq = 0 if tail is None else tail.end  # where the new log begins
        start, end = await self.store.replace(sender_id, events, note_of(waiting, sender_id, seq))
        if waiting and start != seq:
            raise StoreConflict("it went on meanwhile, its reminders are not those of the copy: copy it again")
        return _Place(sender_id, end)

    async def add(self, place: _Place, events: Sequence[Event], waiting: Waiting = NONE_WAIT) -> bool:
        """Store what follows; False where the conversation that is there goes on in another way."""
        place.waiting.update(reminder.name for reminder in waiting.values())
        place.told = events[-1].timestamp if events else place.told
        if place.unseen:
            count = min(place.unseen, len(events))
            tail = await self.store.read(place.sender_id, place.end - place.unseen, count)
            known = [] if tail is None else [event.as_json() for event in tail.events]
            if known != [event.as_json() for event in events[:count]]:
                return False
            place.unseen -= count
            events, waiting = events[count:], part(waiting, count)
        if events:
            note = note_of(waiting, place.sender_id, place.end)
            place.end = await self.store.append(place.sender_id, place.end, events, note)
            if place.there and not place.grown:
                place.grown = True
                self.report.skipped -= 1
                self.report.done += 1
        return True

    async def settle(self, place: _Place, listed: bool) -> None:
        """All of a conversation was copied: of what an earlier run copied, some fired since where it came from.

        Where no list says what waits there, as in logs of Rasa Core, what was due before the last event is over.
        """
        if not place.there or place.unseen:
            return
        for reminder in await reminders_of(self.store, place.sender_id):
            if reminder.seq >= place.added or reminder.name in place.waiting:
                continue
            if listed or reminder.due <= place.told:
                await self.store.forget(reminder)

    async def put(self, sender_id: str, events: Sequence[Event], waiting: Waiting = NONE_WAIT) -> None:
        """Store a whole conversation, a long one in pieces."""
        with self.alone(sender_id):
            await self._put(sender_id, events, waiting)

    async def copy(self, source: TrackerStore, sender_id: str) -> None:
        """Copy one conversation of another store, page by page."""
        with self.alone(sender_id):
            await self._copy(source, sender_id)

    @contextmanager
    def alone(self, sender_id: str) -> Iterator[None]:
        """One conversation that a server is talking in, or whose id no store takes, is left out: the run goes on."""
        try:
            yield
        except (ConversationHeld, InvalidParameter, StoreConflict) as error:
            self.report.one_failed(f"the conversation {named(sender_id)}: {error}")

    async def _put(self, sender_id: str, events: Sequence[Event], waiting: Waiting) -> None:
        def piece(start: int) -> tuple[Sequence[Event], Waiting]:
            return events[start : start + EVENTS], part(waiting, start, start + EVENTS)

        place = await self.begin(sender_id, *piece(0))
        for start in range(EVENTS, len(events), EVENTS):
            if place is None or not await self.add(place, *piece(start)):
                return
            self.report.within(sender_id, min(start + EVENTS, len(events)), len(events))
        if place is not None:
            await self.settle(place, False)
            self.report.done += not place.there

    async def _copy(self, source: TrackerStore, sender_id: str) -> None:
        tail = await source.read(sender_id, 0, EVENTS)
        if tail is None:
            return
        reminders = await reminders_of(source, sender_id)  # not before the log: what fired since is gone, not doubled
        place = await self.begin(sender_id, tail.events, within(reminders, tail.start, len(tail.events)))
        if place is None:
            return
        seq = tail.start + len(tail.events)
        while seq < tail.end:
            page = await source.read(sender_id, seq, EVENTS)
            if page is None or (page.start, page.birth) != (tail.start, tail.birth) or not page.events:
                self.report.one_failed(f"the conversation {named(sender_id)} changed meanwhile: copy it again")
                return
            if not await self.add(place, page.events, within(reminders, seq, len(page.events))):
                return
            seq += len(page.events)
            self.report.within(sender_id, seq - tail.start, tail.end - tail.start)
        await self.settle(place, True)
        self.report.done += not place.there


@frozen
class _Record:
    """A line: what it holds, and whether another program than ours wrote it."""

    sender_id: str
    seq: int  # number of the first event
    events: list[JSON]
    reminders: list[JSON]
    foreign: bool


def _records(lines: TextIO, source: str, count: Callable[[int], None]) -> Iterator[_Record]:
    """What the lines hold. Raises `InvalidConfiguration` by line. `count` is told how many bytes a line had."""
    number = 0
    while True:
        line = lines.readline(_MAX_LINE)
        if not line:
            return
        number += 1
        if not line.strip():
            continue
        data = line.encode("utf-8", "surrogatepass")
        count(len(data))
        try:
            value = decode(data)
        except ValueError as error:
            raise InvalidConfiguration(f"{source}, line {number}: {error}") from None
        if not isinstance(value, dict) or not isinstance(value.get("sender_id"), str):
            raise InvalidConfiguration(f"{source}, line {number}: an object with a 'sender_id' is expected")
        events, seq = value.get("events"), value.get("seq", 0)
        if not isinstance(events, list) or not isinstance(seq, int) or isinstance(seq, bool):
            raise InvalidConfiguration(f"{source}, line {number}: 'events' must be a list, 'seq' a number")
        reminders = value.get("reminders", [])
        if not isinstance(reminders, list) or not all(map(_is_reminder, reminders)):
            raise InvalidConfiguration(
                f"{source}, line {number}: 'reminders' must be a list of objects with 'name', 'due' and 'channel'"
            )
        yield _Record(value["sender_id"], seq, events, reminders, "seq" not in value)


def _is_reminder(value: JSON) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return False
    due, channel = value.get("due"), value.get("channel")
    known = isinstance(due, (int, float)) and not isinstance(due, bool)
    return known and (channel is None or isinstance(channel, str))


def _waiting(record: _Record, events: Sequence[Event], now: float) -> Waiting:
    """The reminders of a line: those that it lists, or, where it is not ours, what its log says."""
    if record.foreign:
        return unfired(record.sender_id, events, now)
    asked: dict[object, int] = {}
    for index, event in enumerate(events):
        if isinstance(event, ReminderScheduled):  # not each of them was scheduled: the time tells which
            asked[event.name] = asked[event.name, due_at(event)] = index
    found = {}
    for each in record.reminders:
        name, due = each["name"], float(each["due"])
        index = asked.get((name, due), asked.get(name, -1))
        if index >= 0:
            found[index] = Reminder(record.sender_id, name, due, 0, each.get("channel"))
    return found


async def import_lines(
    lines: TextIO, source: str, size: int | None, reader: EventReader, target: Target, now: float
) -> None:
    """Store what the lines hold; `size` is how many bytes they have, where that is known.

    A line goes on with the conversation of the line before where its number fits. `now` is the time of day, in seconds
    since the epoch.
    """
    read = 0

    def count(length: int) -> None:
        nonlocal read
        read += length

    last: tuple[str, int] | None = None  # sender id, next number in the file
    place: _Place | None = None  # where it goes
    listed = True
    began = 0  # its first number in the file

    async def settle() -> None:
        if place is not None:
            with target.alone(place.sender_id):
                await target.settle(place, listed)

    for record in _records(lines, source, count):
        sender_id = record.sender_id
        try:
            events = reader.read_list(record.events)
        except RasaCoreError as error:
            raise InvalidConfiguration(f"{source}, conversation {named(sender_id)}: {error}") from error
        waiting = _waiting(record, events, now)
        if record.seq > 0 and last == (sender_id, record.seq):
            before, place = place, None
            with target.alone(sender_id):
                if before is not None and await target.add(before, events, waiting):
                    place = before
            target.report.within(sender_id, record.seq + len(events) - began, share=read / size if size else None)
        else:
            await settle()
            place, listed, began = None, not record.foreign, record.seq
            with target.alone(sender_id):
                place = await target.begin(sender_id, events, waiting)
                if place is not None and not place.there:
                    target.report.done += 1
            target.report.advance(share=read / size if size else None)
        last = sender_id, record.seq + len(record.events)
    await settle()
