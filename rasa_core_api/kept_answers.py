"""What requests that may come again were answered, as it is kept in a store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rasa_core_api.concurrency import Slices
from rasa_core_api.exceptions import KeyReused
from rasa_core_api.jsontext import decode
from rasa_core_api.live_trackers import replay
from rasa_core_api.messages import BotMessage, RequestKey
from rasa_core_api.tracker_store.turns import Earlier
from rasa_core_api.tracker_views import EventVerbosity, TrackerView
from rasa_core_api.trackers import Tracker


def kept_of(earlier: Earlier, request: RequestKey) -> Mapping[str, Any]:
    """What is kept under the request's key. Raises `KeyReused` where that was another request.

    An answer that was made anonymous is empty, and nobody knows any more what the request was.
    """
    kept = decode(earlier.answer.encode())
    assert isinstance(kept, dict)
    if kept and kept.get("digest") != request.digest:
        raise KeyReused("This key was used for another request already.")
    return kept


def messages_of(kept: Mapping[str, Any]) -> list[BotMessage]:
    """The messages of a kept answer."""
    return [BotMessage(**message) for message in kept.get("messages") or ()]


async def view_at(tracker: Tracker, end: int, verbosity: EventVerbosity, slices: Slices) -> TrackerView:
    """The conversation as it was when its log ended there; one that was replaced since, as it is."""
    if end == tracker.end or end <= tracker.start:
        return tracker.view(verbosity)
    past = Tracker(tracker.sender_id, tracker.domain, tracker.start)
    await replay(past, list(tracker.events[: end - tracker.start]), slices)
    return past.view(verbosity)
