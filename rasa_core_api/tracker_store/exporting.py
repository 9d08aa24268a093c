"""A conversation as lines of JSON, the format of `conversations export`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from rasa_core_api.exceptions import StoreConflict
from rasa_core_api.jsontext import encode
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.waiting import Waiting, reminders_of, within

#: Events of one line.
EVENTS = 1_000


async def exported(store: TrackerStore, sender_id: str) -> AsyncIterator[str]:
    """Lines with `sender_id`, `seq` (the number of the first event) and `events`; none for an unknown conversation.

    `reminders` are those that wait, on the line whose events asked for them: `name`, `due` (seconds since the epoch)
    and `channel`. Raises `StoreConflict` where the log was replaced or deleted meanwhile: what was yielded is only its
    beginning.
    """
    tail = await store.read(sender_id, 0, EVENTS)
    if tail is None:
        return
    start, seq, stop, birth = tail.start, tail.start, tail.end, tail.birth
    reminders = await reminders_of(store, sender_id)  # not before the log: what fired since is gone, not doubled
    name = json.dumps(sender_id)
    while True:
        events = ",".join([event.as_json() for event in tail.events])
        waiting = _listed(within(reminders, seq, len(tail.events)))
        yield f'{{"sender_id":{name},"seq":{seq},"events":[{events}]{waiting}}}\n'
        seq += len(tail.events)
        if seq >= stop:
            return
        page = await store.read(sender_id, seq, EVENTS)
        if page is None or (page.start, page.birth) != (start, birth) or not page.events:
            raise StoreConflict(f"The conversation {sender_id!r} changed meanwhile: its export is cut.")
        tail = page


def _listed(waiting: Waiting) -> str:
    if not waiting:
        return ""
    listed = [{"name": each.name, "due": each.due, "channel": each.channel} for _, each in sorted(waiting.items())]
    return f',"reminders":{encode(listed)}'
