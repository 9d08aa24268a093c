"""A cheap estimate of the memory that events take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rasa_core_api.constants import JSON
from rasa_core_api.events import ActionExecuted, BotUttered, Event, SlotSet, UserUttered

# bytes on CPython 3.11, 64 bit: an object with its numbers, its place in a list, and the JSON text that is kept
_BARE = 250
_USER = 700
_SPOKEN = 380
_TEXT = 50
_CONTAINER = 64
_MEMBER = 110  # a place in a dictionary and its key


def weigh(events: Iterable[Event]) -> int:
    """About how many bytes these events take, their JSON texts included; about a microsecond an event."""
    total = 0
    for event in events:
        kind = type(event)
        if kind is ActionExecuted:
            total += _BARE
        elif kind is UserUttered:
            text = event.text  # type: ignore[attr-defined]
            total += _USER + weigh_value(event.parse_data)  # type: ignore[attr-defined]
            if text:
                total += 2 * len(text)
        elif kind is SlotSet:
            total += _BARE + weigh_value(event.value)  # type: ignore[attr-defined]
        elif isinstance(event, BotUttered):
            total += _SPOKEN + (2 * len(event.text) if event.text else 0)
            if event.data:
                total += weigh_value(event.data)
        else:
            total += _BARE
    return total


def weigh_value(value: JSON) -> int:
    """About how many bytes a JSON value takes, and its text besides."""
    total = 0
    waiting = [value]
    while waiting:
        item = waiting.pop()
        kind = type(item)
        if kind is str:
            total += _TEXT + 2 * len(item)
        elif kind is dict:
            total += _CONTAINER + _MEMBER * len(item)
            waiting += item.values()
        elif kind is list or kind is tuple:
            total += _CONTAINER + 16 * len(item)
            waiting += item
        elif isinstance(item, Mapping):
            total += _CONTAINER + _MEMBER * len(item)
            waiting += item.values()
        elif item is not None and kind is not bool:
            total += 40
    return total
