"""Turns that are stored in parts: a conversation remembers where one began, in case that it never comes to its end.

Their logs alone do not tell: whoever drives a conversation over the API leaves one that ends with an action, too.
"""

from __future__ import annotations

from rasa_core_api.constants import ACTION_LISTEN, JSON
from rasa_core_api.events import ActionExecuted
from rasa_core_api.jsontext import decode, encode
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.turns import TurnNote
from rasa_core_api.trackers import Tracker

#: What it is kept under, where no request's key can be: they have no line break, or begin with the name of a channel.
OPEN = "\nopen"
#: Seconds for which it is kept.
KEEP = 30 * 86_400.0


def open_note(owner: str, base: int, is_open: bool, start: int | None, birth: int) -> TurnNote:
    """Says whether more is to come of a turn that began with the number `base`; left with its first part, or before."""
    answer = encode({"open": is_open})
    return TurnNote(owner=owner, key=OPEN, base=base, answer=answer, keep=KEEP, done=False, start=start, birth=birth)


def has_listened(tracker: Tracker, base: int) -> bool:
    """Whether the turn that began with this number came to its end; its first event may belong to the one before."""
    for index in range(len(tracker.events) - 1, max(0, base - tracker.start), -1):
        event = tracker.events[index]
        if isinstance(event, ActionExecuted) and event.action_name == ACTION_LISTEN:
            return True
    return False


async def open_base(store: TrackerStore, sender_id: str, start: int, end: int, owner: str) -> int | None:
    """Where the turn began of which more was to come, in a log from `start` to below `end`; None without one."""
    kept = (await store.look(sender_id, end, 0, OPEN, owner)).earlier
    if kept is None or not start <= kept.base < end:
        return None
    answer: JSON = decode(kept.answer.encode())
    return kept.base if isinstance(answer, dict) and answer.get("open") is True else None


async def is_torn(store: TrackerStore, tracker: Tracker, owner: str) -> bool:
    """Whether a stored log ends within a turn whose process died, or that failed between its parts."""
    if tracker.latest_action_name in (None, ACTION_LISTEN):
        return False
    base = await open_base(store, tracker.sender_id, tracker.start, tracker.end, owner)
    return base is not None and not has_listened(tracker, base)
