"""Puts an anonymous log in the place of a conversation's log, in its store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from attrs import evolve

from rasa_core_api.anonymising import anonymised
from rasa_core_api.domain import Domain
from rasa_core_api.events import Event
from rasa_core_api.open_turns import open_base, open_note
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.turns import TurnNote
from rasa_core_api.tracker_store.waiting import reminders_of

#: Events that are looked at before the reactor gets its turn.
_AT_ONCE = 128


async def mask(
    store: TrackerStore,
    sender_id: str,
    domain: Domain,
    owner: str,
    breathe: Callable[[], Awaitable[None]],
    again: bool = True,
) -> bool:
    """Anonymise one conversation; whether there was one. Raises `ConversationHeld`.

    The answers that are kept for requests that may come again become empty, reminders stay. Without `again` a log
    that is anonymous already is left as it is, with its answers: those who follow it get it only once.
    """
    tail = await store.read(sender_id)
    if tail is None:
        return False
    events: list[Event] = []
    for begin in range(0, len(tail.events), _AT_ONCE):
        some = tail.events[begin : begin + _AT_ONCE]
        events += anonymised(some, domain)
        again = again or _texts(events[begin:]) != _texts(some)  # events may be equal and say different things
        await breathe()
    if not again:
        return True
    shift = tail.end - tail.start  # the new log begins where the old one ends
    reminders = [evolve(each, seq=each.seq + shift) for each in await reminders_of(store, sender_id)]
    note = TurnNote(owner=owner, reminders=reminders, forgets=True)
    base = await open_base(store, sender_id, tail.start, tail.end, owner)
    if base is not None:  # a turn that was cut off is not to be gone on with by the next message
        again_open = open_note(owner, base - tail.start, True, None, 0)
        note = evolve(again_open, done=True, reminders=reminders, forgets=True)
    await store.replace(sender_id, events, note)
    return True


def _texts(events: Sequence[Event]) -> list[str]:
    return [event.as_json() for event in events]
