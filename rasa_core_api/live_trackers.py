"""Trackers that are kept alive between turns, so that a turn does not read its whole conversation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from attrs import frozen
from twisted.internet.defer import Deferred

from rasa_core_api.concurrency import Slices
from rasa_core_api.constants import ACTION_LISTEN
from rasa_core_api.domain import Domain
from rasa_core_api.events import ActionExecuted, Event
from rasa_core_api.messages import RequestKey
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.turns import Earlier, Tail
from rasa_core_api.trackers import Tracker

#: Events asked of a store at once.
_PAGE = 8_000
#: Events applied before the reactor may get its turn.
AT_ONCE = 128


async def replay(tracker: Tracker, events: Sequence[Event], slices: Slices) -> None:
    """Apply many events in slices."""
    for begin in range(0, len(events), AT_ONCE):
        if begin:
            await slices.breathe()
        tracker.extend(events[begin : begin + AT_ONCE])


@frozen
class Opened:
    """What a turn begins with: the tracker as stored, its stored end, and what `TrackerStore.look` tells besides."""

    tracker: Tracker
    stored: int
    earlier: Earlier | None = None
    held: float = 0.0
    behind: bool = False  # the tracker that was kept was not what is stored


class LiveTrackers:
    """A bounded cache of trackers over a store; the least recently used one goes first.

    `max_trackers` and `max_events` bound the whole cache. Callers hold the conversation's place in line.
    """

    def __init__(
        self,
        store: TrackerStore,
        slices: Slices,
        now: Callable[[], float],
        max_trackers: int = 4_000,
        max_events: int = 600_000,
    ) -> None:
        self._store = store
        self._slices = slices
        self._now = now
        self._max_trackers = max_trackers
        self._max_events = max_events
        self._cache: OrderedDict[str, Tracker] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._events = 0
        self._begun: dict[str, int] = {}  # conversations that are not stored yet
        self._beginnings = 0
        self._domains: tuple[Domain, ...] = ()

    def __len__(self) -> int:
        return len(self._cache)

    async def current(self, sender_id: str, domain: Domain) -> tuple[Tracker, int]:
        """The tracker as stored, and its stored end.

        A conversation that the store does not know begins with an `action_listen` event that is not stored
        yet: then the end is below the tracker's.
        """
        opened = await self.open(sender_id, domain)
        return opened.tracker, opened.stored

    async def open(
        self,
        sender_id: str,
        domain: Domain,
        request: RequestKey | None = None,
        owner: str = "",
        trusting: bool = False,
    ) -> Opened:
        """The same for a turn, with what a request of the same key left, and the claim of another owner.

        With `trusting` a kept tracker is taken as it is, though another process may have gone on: whoever stores or
        claims behind it is refused then.
        """
        tracker = self._cache.get(sender_id)
        if tracker is not None and (tracker.domain is not domain or self._store.gone(sender_id)):
            tracker = None
        key = None if request is None else request.key
        store = self._store
        shared = store.shared
        if tracker is not None and shared and store.births and not tracker.birth:
            tracker = None  # begun here; that it is still the same one has to be found out once
        if tracker is not None and key is None and (trusting or not shared):
            self._cache.move_to_end(sender_id)
            return Opened(tracker, tracker.end)
        behind = False
        while True:
            if tracker is None:
                opening = await store.look(sender_id, 0, _PAGE, key, owner)
                loaded = await self._load(sender_id, domain, opening.tail)
                if loaded is None:
                    continue  # what was told of the key is of the log that was replaced
                return Opened(*loaded, opening.earlier, opening.held, behind)
            opening = await store.look(sender_id, tracker.end, None, key, owner)
            tail = opening.tail
            same = tail is not None and tail.start == tracker.start and (not shared or tail.birth == tracker.birth)
            if tail is not None and same and tail.end >= tracker.end:
                await replay(tracker, tail.events, self._slices)
                self.keep(tracker)
                return Opened(tracker, tail.end, opening.earlier, opening.held, bool(tail.events))
            tracker, behind = None, True

    async def _load(self, sender_id: str, domain: Domain, tail: Tail | None) -> tuple[Tracker, int] | None:
        """The tracker of a log that begins with `tail`, up to the tail's end; None where it was replaced meanwhile."""
        self.drop(sender_id)
        if tail is None:
            return self.fresh(sender_id, domain), 0
        tracker = Tracker(sender_id, domain, tail.start)
        tracker.birth = tail.birth
        events = tail.events
        while True:
            following = self._following(sender_id, tail, tracker.end + len(events))
            try:
                await replay(tracker, events, self._slices)
                page = None if following is None else await following
            except BaseException:
                if following is not None:
                    following.addErrback(lambda _: None)
                    following.cancel()
                raise
            if following is None:
                break
            if page is None or (page.start, page.birth) != (tail.start, tail.birth) or not page.events:
                return None
            events = page.events
        self.keep(tracker)
        return tracker, tracker.end

    def _following(self, sender_id: str, tail: Tail, end: int) -> Deferred[Tail | None] | None:
        """The next page of a log, which is on its way while the one before it is applied; None at the tail's end.

        What came later is left out: the answers of its requests are not known here.
        """
        if end >= tail.end:
            return None
        return Deferred.fromCoroutine(self._store.read(sender_id, end, min(_PAGE, tail.end - end)))

    def fresh(self, sender_id: str, domain: Domain) -> Tracker:
        """A tracker of a conversation that begins: one `action_listen`."""
        tracker = Tracker(sender_id, domain)
        while len(self._begun) > self._max_trackers:
            del self._begun[next(iter(self._begun))]
        self._beginnings += 1
        tracker.beginning = self._begun.setdefault(sender_id, self._beginnings)
        tracker.update(ActionExecuted(action_name=ACTION_LISTEN, timestamp=self._now()))
        return tracker

    async def serve(self, *domains: Domain) -> None:
        """Keep trackers of these domains only; any other would hold a model that is out of service."""
        self._domains = domains
        for count, sender_id in enumerate(list(self._cache), 1):
            if not count % AT_ONCE:
                await self._slices.breathe()
            tracker = self._cache.get(sender_id)
            if tracker is not None and not self._serves(tracker):
                self.drop(sender_id)

    def _serves(self, tracker: Tracker) -> bool:
        return not self._domains or any(tracker.domain is domain for domain in self._domains)

    def keep(self, tracker: Tracker) -> None:
        """Remember a tracker whose events are stored."""
        sender_id = tracker.sender_id
        self._begun.pop(sender_id, None)
        if not self._serves(tracker):
            self.drop(sender_id)
            return
        size = len(tracker.events)
        self._events += size - self._sizes.get(sender_id, 0)
        self._sizes[sender_id] = size
        self._cache[sender_id] = tracker
        self._cache.move_to_end(sender_id)
        while len(self._cache) > self._max_trackers or (self._events > self._max_events and len(self._cache) > 1):
            oldest = next(iter(self._cache))
            self.drop(oldest)

    def drop(self, sender_id: str) -> None:
        """Forget a tracker: it is read again from the store when it is needed."""
        if self._cache.pop(sender_id, None) is not None:
            self._events -= self._sizes.pop(sender_id)
