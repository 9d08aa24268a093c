"""The reminders of a conversation that is copied: they wait in the copy for what they waited for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from attrs import evolve

from rasa_core_api.exceptions import NotBuilt
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.turns import NO_NOTE, Reminder, TurnNote

#: Reminders by the place of the event that asked for each, in a list of events. Of one name the last one counts.
Waiting = Mapping[int, Reminder]
NONE_WAIT: Waiting = MappingProxyType({})


async def reminders_of(store: TrackerStore, sender_id: str) -> list[Reminder]:
    """The reminders of a conversation; none where the store keeps none."""
    try:
        return await store.reminders(sender_id)
    except NotBuilt:
        return []


def within(reminders: Sequence[Reminder], seq: int, count: int) -> dict[int, Reminder]:
    """Those that one of `count` events, numbered from `seq`, asked for."""
    return {reminder.seq - seq: reminder for reminder in reminders if 0 <= reminder.seq - seq < count}


def part(waiting: Waiting, begin: int, end: int | None = None) -> dict[int, Reminder]:
    """Those of a part of the list of events."""
    return {at - begin: each for at, each in waiting.items() if begin <= at and (end is None or at < end)}


def note_of(waiting: Waiting, sender_id: str, seq: int) -> TurnNote:
    """What is left with events that are numbered from `seq` in the copy."""
    if not waiting:
        return NO_NOTE
    named = {each.name: evolve(each, sender_id=sender_id, seq=seq + place) for place, each in sorted(waiting.items())}
    return TurnNote(reminders=list(named.values()))
