"""Care of data: a conversation is begun anew, removed or made anonymous between its turns, whoever runs them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from attrs import define
from twisted.internet.interfaces import IReactorTime

from rasa_core_api.claims import Claims, Patience
from rasa_core_api.concurrency import Lines, Slices
from rasa_core_api.domain import Domain
from rasa_core_api.events import Event
from rasa_core_api.exceptions import ConversationHeld, StoreConflict
from rasa_core_api.jsontext import encode
from rasa_core_api.kept_answers import kept_of, view_at
from rasa_core_api.live_trackers import LiveTrackers, replay
from rasa_core_api.masking import mask
from rasa_core_api.messages import RequestKey
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.turns import TurnNote
from rasa_core_api.tracker_views import EventVerbosity, TrackerView
from rasa_core_api.trackers import Tracker


@define
class Care:
    """Changes whole conversations; `told` hears of every one whose log is another now.

    All of it takes the conversation's place in line, and waits for the turns of other processes. Raises
    `ConversationHeld` where these do not come to an end.
    """

    store: TrackerStore
    trackers: LiveTrackers
    lines: Lines
    slices: Slices
    clock: IReactorTime
    claims: Claims
    told: Callable[[str], None] = lambda sender_id: None

    async def replace(
        self,
        sender_id: str,
        domain: Domain,
        events: Sequence[Event],
        verbosity: EventVerbosity,
        request: RequestKey | None = None,
    ) -> TrackerView:
        """Begin the conversation anew with these events, unless the same request did that already."""
        async with self.lines.of(sender_id):
            await self.slices.breathe()
            waited = Patience(self.clock, sender_id)
            while True:
                try:
                    if request is None:
                        self.trackers.drop(sender_id)  # before: where the connection breaks nobody knows if it was done
                        start, _ = await self.store.replace(sender_id, events, TurnNote(owner=self.claims.owner))
                        break
                    opened = await self.trackers.open(sender_id, domain, request, self.claims.owner)
                    if opened.earlier is not None:
                        kept_of(opened.earlier, request)
                        return await view_at(opened.tracker, opened.earlier.end, verbosity, self.slices)
                    kept = encode({"digest": request.digest})
                    note = TurnNote(owner=self.claims.owner, key=request.key, answer=kept, keep=request.keep)
                    self.trackers.drop(sender_id)
                    async with self.claims.over(sender_id, opened.stored, request.key, opened.tracker.birth):
                        start, _ = await self.store.replace(sender_id, events, note)
                    break
                except StoreConflict:
                    pass  # somebody else's turn ended
                except ConversationHeld as error:
                    await waited.wait(error.seconds)
            tracker = Tracker(sender_id, domain, start)
            await replay(tracker, events, self.slices)
            self.trackers.keep(tracker)
            self.told(sender_id)
            return tracker.view(verbosity)

    async def delete(self, sender_id: str, before: float | None = None) -> bool:
        """Remove a conversation and all that is kept of it once its turns are over; whether there was one.

        With `before` (seconds since the epoch) only where its last event is from before that time and nobody is at
        work in it.
        """
        if before is not None and self.lines.busy(sender_id):
            return False
        async with self.lines.of(sender_id):
            await self.slices.breathe()
            if before is not None:
                return await self._delete_idle(sender_id, before)

            return await self._between_turns(sender_id, partial(self.store.delete, sender_id))

    async def _delete_idle(self, sender_id: str, before: float) -> bool:
        opening = await self.store.look(sender_id, 0, 0, None, self.claims.owner)
        if opening.tail is None or opening.held:
            return False
        try:
            async with self.claims.over(sender_id, opening.tail.end, birth=opening.tail.birth):
                last = await self.store.read(sender_id, opening.tail.end - 1)
                if last is None or (last.events and last.events[-1].timestamp >= before):
                    return False
                self.trackers.drop(sender_id)
                return await self.store.delete(sender_id)
        except (StoreConflict, ConversationHeld):
            return False  # somebody talks in it

    async def anonymise(self, sender_id: str, domain: Domain) -> bool:
        """Take texts and values out of a conversation; whether there was one."""
        async with self.lines.of(sender_id):
            await self.slices.breathe()

            work = partial(mask, self.store, sender_id, domain, self.claims.owner, self.slices.breathe)
            if not await self._between_turns(sender_id, work):
                return False
            self.told(sender_id)
            return True

    async def _between_turns(self, sender_id: str, work: Callable[[], Awaitable[object]]) -> bool:
        """Do something with a conversation that is there while no process has a turn in it; whether it is there."""
        waited = Patience(self.clock, sender_id)
        while True:
            self.trackers.drop(sender_id)
            opening = await self.store.look(sender_id, 0, 0, None, self.claims.owner)
            tail = opening.tail
            if opening.held:
                await waited.wait(opening.held)
                continue
            if tail is None:
                return False
            try:
                async with self.claims.over(sender_id, tail.end, birth=tail.birth):
                    await work()
                return True
            except StoreConflict:  # somebody else's turn ended
                waited.check()
            except ConversationHeld as error:
                await waited.wait(error.seconds)
