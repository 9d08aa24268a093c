"""Events as stored text: one JSON object a line, many events a block."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence

from rasa_core_api.concurrency import Slices
from rasa_core_api.events import Event
from rasa_core_api.events.reading import EventReader
from rasa_core_api.events.written import read_written
from rasa_core_api.exceptions import RasaCoreError, StoreUnavailable
from rasa_core_api.jsontext import read_text

#: Most events of one block, so that a log can be read in pages of even size.
BLOCK_EVENTS = 128
#: A block is closed beyond so many characters, unless a single event is longer.
BLOCK_CHARACTERS = 131_072
#: Events decoded before the reactor gets its turn: well under a millisecond.
_AT_ONCE = 64
_CHARACTERS_AT_ONCE = 65_536

_decoder = json.JSONDecoder()  # what is stored was checked when it came


def _never() -> float:
    return 0.0


def blocks(events: Sequence[Event]) -> Iterator[tuple[int, str]]:
    """The count and the text of each block of these events, in order. JSON text has no line break of its own."""
    if len(events) <= BLOCK_EVENTS:
        text = "\n".join([event.as_json() for event in events])
        if len(text) <= BLOCK_CHARACTERS:
            if events:
                yield len(events), text
            return
    lines: list[str] = []
    size = 0
    for event in events:
        line = event.as_json()
        if lines and (len(lines) >= BLOCK_EVENTS or size + len(line) > BLOCK_CHARACTERS):
            yield len(lines), "\n".join(lines)
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    if lines:
        yield len(lines), "\n".join(lines)


#: The number of the first event, how many, the time of the last one (seconds since the epoch), the events' text.
Block = tuple[int, int, float, str]


def numbered_blocks(seq: int, events: Sequence[Event]) -> list[Block]:
    """These events as blocks, counted from `seq`."""
    rows = []
    begin = 0
    for count, text in blocks(events):
        rows.append((seq + begin, count, events[begin + count - 1].timestamp, text))
        begin += count
    return rows


class StoredEvents:
    """Turns stored text back into events, a slice of the reactor's time after the other.

    An event that is read keeps its text, so that it is not encoded again.
    """

    def __init__(self, new_id: Callable[[], str], slices: Slices) -> None:
        self._reader = EventReader(_never, new_id)  # what is stored has its time, though it be 0
        self._slices = slices

    def decode_lines(self, lines: list[str]) -> list[Event]:
        """The events of some lines, at once. Raises `StoreUnavailable` where one is damaged."""
        written = read_written(lines)
        if written is not None:
            return written
        try:
            values = read_text("[" + ",".join(lines) + "]", _decoder)
            events = []
            read = self._reader.read
            for line, value in zip(lines, values, strict=True):
                event = read(value)
                if event is None:
                    raise ValueError("an event of a type that is never stored")
                event.written_as(line)
                events.append(event)
        except (ValueError, RecursionError, RasaCoreError) as error:
            raise StoreUnavailable(
                f"The store holds an event that cannot be read: {type(error).__name__}. The conversation has to be"
                " restored or deleted."
            ) from error
        return events

    async def decode_each(self, texts: Iterable[str]) -> list[list[Event]]:
        """The events of each block by itself; an empty text has none. Many short ones are one slice."""
        found: list[list[Event]] = []
        events = characters = 0  # of this slice
        for text in texts:
            if not text:
                found.append([])
                continue
            count = text.count("\n") + 1
            if events + count > _AT_ONCE or characters + len(text) > _CHARACTERS_AT_ONCE:
                found.append(await self.decode([text]))
                events, characters = count, len(text)
                continue
            if not events:
                await self._slices.breathe()
            events += count
            characters += len(text)
            found.append(self.decode_lines(text.split("\n")))
        return found

    async def decode(self, texts: Iterable[str], skip: int = 0, limit: int | None = None) -> list[Event]:
        """The events of these blocks, without the first `skip`, at most `limit`."""
        events: list[Event] = []
        for text in texts:
            lines = text.split("\n")
            if skip >= len(lines):
                skip -= len(lines)
                continue
            stop = len(lines) if limit is None else min(len(lines), skip + limit - len(events))
            step = max(1, min(_AT_ONCE, _CHARACTERS_AT_ONCE * len(lines) // (len(text) + 1)))
            for begin in range(skip, stop, step):
                await self._slices.breathe()
                events += self.decode_lines(lines[begin : min(begin + step, stop)])
            if limit is not None and len(events) >= limit:
                break
            skip = 0
        return events
