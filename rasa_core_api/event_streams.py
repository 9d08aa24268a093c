"""Streams of events: one conversation's or all of them, followed from a number on for as long as somebody listens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rasa_core_api.exceptions import InvalidParameter, TooManyRequests
from rasa_core_api.jsontext import encode
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.turns import FeedEntry, may_go_on

log = Logger()

#: Streams that are followed at once in one process.
MAX_STREAMS = 200
#: Events, and appends, that are read at once.
PAGE = 100
#: Seconds between two looks for what other processes stored.
POLL = 1.0


@frozen
class Item:
    """One event of a stream: JSON in ASCII, and the id after which a reader may come back, if it is one."""

    id: str | None
    data: str
    kind: str | None = None  # None: an event of a conversation


class Source(Protocol):
    """Where a stream's events come from."""

    async def read(self) -> list[Item]:
        """What comes next; empty where there is nothing yet."""


@define(eq=False)
class Stream:
    """What one reader follows. Closed at the end, whatever happens."""

    _streams: EventStreams
    _source: Source
    sender_id: str | None  # None: all conversations
    _news: bool = field(default=True, init=False)
    _waiter: Deferred[None] | None = field(default=None, init=False)
    closed: bool = field(default=False, init=False)

    def wake(self) -> None:
        """There may be something to read."""
        self._news = True
        self._stir()

    def _stir(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)

    async def next(self, seconds: float) -> list[Item]:
        """What comes next; empty where nothing came for so many seconds, or at the end."""
        clock = self._streams.clock
        until = clock.seconds() + seconds
        while not self.closed:
            self._news = False
            items = await self._source.read()
            if items or until <= clock.seconds():
                return items
            await self._rest(until)
        return []

    async def _rest(self, until: float) -> None:
        """Until there is news, or there may be some of another process; that may come at any time, too."""
        clock = self._streams.clock
        while not self._news and (left := until - clock.seconds()) > 0:
            self._waiter = waiter = _waiter()
            timer = clock.callLater(min(left, POLL), self._stir)
            try:
                await waiter
            finally:
                self._waiter = None
                if timer.active():
                    timer.cancel()
            if self._streams.store.shared:
                return

    def close(self) -> None:
        """Nobody listens any more."""
        self._streams.forget(self)
        self.closed = True
        self.wake()


def _waiter() -> Deferred[None]:
    return Deferred()


@define
class EventStreams:
    """All streams of this process. `stored` is to be told of each append of this process."""

    store: TrackerStore
    clock: IReactorTime
    limit: int = MAX_STREAMS
    _streams: dict[str | None, list[Stream]] = field(factory=dict, init=False)
    _count: int = field(default=0, init=False)

    def stored(self, sender_id: str) -> None:
        """Something was stored by this process. Costs next to nothing where nobody listens."""
        if self._count:
            for key in (sender_id, None):
                for stream in self._streams.get(key, ()):
                    if not stream._news:
                        self.clock.callLater(0, stream.wake)  # not within the turn
                        stream._news = True

    def conversation(self, sender_id: str, after: int = -1, birth: int = 0) -> Stream:
        """Follow a conversation behind an event's number, of the conversation of this birth (0: whichever).

        Raises `TooManyRequests`.
        """
        return self._add(Stream(self, _Conversation(self.store, sender_id, after + 1, birth), sender_id))

    async def all(self, after: str | None = None) -> Stream:
        """Follow all conversations behind a position, else from now on.

        Raises `TooManyRequests`, and `InvalidParameter` for what is no position.
        """
        self._check()
        source = _All(self.store, await self.store.feed_end())
        if after is not None:
            try:
                await self.store.feed(after, 1)
            except InvalidParameter:
                if not _place(after):
                    raise
                source.miss()  # so another kind of store counts, which was here before
            else:
                source.resume(after)
        return self._add(Stream(self, source, None))

    def close(self) -> None:
        """End all streams: the server stops."""
        self.limit = 0
        for streams in list(self._streams.values()):
            for stream in list(streams):
                stream.close()

    def forget(self, stream: Stream) -> None:
        """A stream is over."""
        streams = self._streams.get(stream.sender_id, [])
        if stream in streams:
            streams.remove(stream)
            self._count -= 1
            if not streams:
                del self._streams[stream.sender_id]

    def _check(self) -> None:
        if self._count >= self.limit:
            raise TooManyRequests(f"{self.limit} streams of events are open already.", limit=self.limit)

    def _add(self, stream: Stream) -> Stream:
        self._check()
        self._streams.setdefault(stream.sender_id, []).append(stream)
        self._count += 1
        return stream


@define
class _Conversation:
    """The events of one conversation; ids are their numbers, with the conversation's birth where the store tells it."""

    _store: TrackerStore
    _sender_id: str
    _next: int
    _birth: int  # of the conversation that was read; 0 for none yet

    async def read(self) -> list[Item]:
        tail = await self._store.read(self._sender_id, self._next, PAGE)
        if tail is None:
            self._next = 0  # one that begins now is another one
            return []
        earlier, self._birth = self._birth, tail.birth
        if tail.end < self._next or (earlier and earlier != tail.birth):  # deleted, and begun anew
            self._next = tail.start
            return await self.read()
        begin = max(self._next, tail.start)
        self._next = begin + len(tail.events)
        numbered = enumerate(tail.events, begin)
        behind = f"-{tail.birth}" if tail.birth else ""
        return [Item(f"{seq}{behind}", _data(self._sender_id, seq, event.as_json())) for seq, event in numbered]


@define
class _All:
    """The events of all conversations; an id is the place of an append, so that only its last event has one."""

    _store: TrackerStore
    _position: str
    _begins: bool = field(default=True, init=False)
    _elsewhere: bool = field(default=False, init=False)

    def resume(self, after: str) -> None:
        """Go on behind a position. One beyond the end is of a store that was here before: that is a gap, too."""
        if _place(after) > _place(self._position):
            self.miss()
        else:
            self._position = after

    def miss(self) -> None:
        """Tell of a gap, and go on from now on."""
        self._elsewhere = True

    async def read(self) -> list[Item]:
        items: list[Item] = []
        if self._elsewhere:
            self._elsewhere = False
            items.append(Item(None, "{}", "gap"))
            return items
        while not items:  # what was replaced since is empty
            entries = await self._store.feed(self._position, PAGE)
            if not entries:
                break
            read = self._items(entries)
            # what the store forgets is more than a page behind; one of large events is cut
            full = may_go_on(len(entries), PAGE, [len(item.data) for item in read])
            if (self._begins or full) and await self._store.feed_lost(self._position):
                log.warn("a reader of all events fell behind what the store remembers of their order, and was told so")
                items.append(Item(None, "{}", "gap"))
            self._begins = False
            self._position = entries[-1].position
            items += read
        return items

    @staticmethod
    def _items(entries: Sequence[FeedEntry]) -> list[Item]:
        items = []
        for entry in entries:
            last = entry.seq + len(entry.events) - 1
            for seq, event in enumerate(entry.events, entry.seq):
                data = _data(entry.sender_id, seq, event.as_json())
                items.append(Item(entry.position if seq == last else None, data))
        return items


def _place(position: str) -> list[int]:
    """What positions are ordered by; nothing where a store of somebody's own has another form for them."""
    numbers = position.split("-")
    known = all(number.isascii() and number.isdecimal() and len(number) <= 20 for number in numbers)
    return [int(number) for number in numbers] if known else []


def _data(sender_id: str, seq: int, text: str) -> str:
    return f'{{"sender_id":{encode(sender_id)},"seq":{seq},{text[1:]}'
