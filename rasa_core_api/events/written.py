"""Events that this project wrote, read without a step between: their JSON form is that of the structures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_

from msgspec.json import Decoder

from rasa_core_api.events import EVENT_TYPES, Event, ReminderScheduled, UserUttered
from rasa_core_api.events.reading import is_checked
from rasa_core_api.exceptions import InvalidEvent

#: Times of reminders have spellings of their own, which `EventReader` knows.
_KINDS = [kind for kind in EVENT_TYPES.values() if kind is not ReminderScheduled]

_decoder: Decoder[list[Event]] = Decoder(list[reduce(or_, _KINDS)])  # type: ignore[misc]


def read_written(lines: Sequence[str]) -> list[Event] | None:
    """The events of these texts of `Event.as_json`, which they keep; None where one is none that this can read.

    The rest is left to `EventReader`, which makes the same of what is read here, and knows what old releases wrote.
    """
    try:
        events = _decoder.decode(f"[{','.join(lines)}]")
        if len(events) != len(lines):
            return None
        for line, event in zip(lines, events, strict=True):
            if type(event) is UserUttered and not is_checked(event.parse_data):
                return None
            event.written_as(line)
    except (ValueError, RecursionError, InvalidEvent):
        return None
    return events
