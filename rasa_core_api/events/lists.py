"""Lists of events that clients send, read in slices."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping

from rasa_core_api.concurrency import Slices
from rasa_core_api.constants import JSON
from rasa_core_api.events import Event
from rasa_core_api.events.reading import EventReader

#: Events that are read between two looks at other work.
_AT_ONCE = 64


async def read_events(
    reader: EventReader, items: AsyncIterator[JSON] | Iterable[JSON], skip: bool, slices: Slices
) -> tuple[list[Event], int]:
    """Events, and how many entries were accepted without being one; with `skip` objects need not name an event.

    Raises `InvalidEvent`.
    """
    events: list[Event] = []
    ignored = 0
    count = 0
    read = reader.read
    async for item in _each(items):
        count += 1
        if not count % _AT_ONCE:
            await slices.breathe()
        if skip and isinstance(item, Mapping) and item.get("event") is None:
            continue
        event = read(item)
        if event is None:
            ignored += 1
        else:
            events.append(event)
    return events, ignored


async def _each(items: AsyncIterator[JSON] | Iterable[JSON]) -> AsyncIterator[JSON]:
    if isinstance(items, AsyncIterator):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
