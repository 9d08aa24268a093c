"""Trackers as JSON text: each event is encoded once, long logs are joined in slices."""

from __future__ import annotations

from collections.abc import Sequence

from rasa_core_api.concurrency import Slices
from rasa_core_api.events import Event
from rasa_core_api.jsontext import encode
from rasa_core_api.tracker_views import TrackerView

#: Events encoded before the reactor gets its turn.
_AT_ONCE = 256


async def tracker_json(view: TrackerView, slices: Slices) -> bytes:
    """The tracker's JSON with sorted keys, `events` included (null where the view shows none)."""
    state = {key: value for key, value in view.state.items() if key > "events"}
    before = {key: value for key, value in view.state.items() if key < "events"}
    events = "null" if view.events is None else await _events_json(view.events, slices)
    head, tail = encode(before)[1:-1], encode(state)[1:-1]
    parts = [part for part in (head, f'"events":{events}', tail) if part]
    return f"{{{','.join(parts)}}}".encode("ascii")


async def _events_json(events: Sequence[Event], slices: Slices) -> str:
    texts: list[str] = []
    for begin in range(0, len(events), _AT_ONCE):
        if begin:
            await slices.breathe()
        texts += [event.as_json() for event in events[begin : begin + _AT_ONCE]]
    return f"[{','.join(texts)}]"
