"""A conversation as lines of JSON, the format of `conversations export`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from rasa_core_api.exceptions import StoreConflict
from rasa_core_api.tracker_store import TrackerStore

#: Events of one line.
EVENTS = 1_000


async def exported(store: TrackerStore, sender_id: str) -> AsyncIterator[str]:
    """Lines with `sender_id`, `seq` (the number of the first event) and `events`; none for an unknown conversation.

    Raises `StoreConflict` where the log was replaced or deleted meanwhile: what was yielded is only its beginning.
    """
    tail = await store.read(sender_id, 0, EVENTS)
    if tail is None:
        return
    start, seq, stop, birth = tail.start, tail.start, tail.end, tail.birth
    name = json.dumps(sender_id)
    while True:
        events = ",".join([event.as_json() for event in tail.events])
        yield f'{{"sender_id":{name},"seq":{seq},"events":[{events}]}}\n'
        seq += len(tail.events)
        if seq >= stop:
            return
        page = await store.read(sender_id, seq, EVENTS)
        if page is None or (page.start, page.birth) != (start, birth) or not page.events:
            raise StoreConflict(f"The conversation {sender_id!r} changed meanwhile: its export is cut.")
        tail = page
