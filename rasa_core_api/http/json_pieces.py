"""Reading a large JSON document piece by piece, so that the reactor can breathe in between.

The C scanner of the standard library reads what fits into a window; only values larger than a window are
taken apart. A piece costs well under a millisecond whatever the document looks like.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Generator, Iterator
from typing import BinaryIO, Final, TypeVar

from rasa_core_api.concurrency import Slices
from rasa_core_api.constants import JSON
from rasa_core_api.jsontext import MAX_DEPTH, check_depth, check_surrogates, decode, decoder

T = TypeVar("T")

#: Bytes that `decode_in_slices` reads in one go.
SMALL = 65_536
#: Characters that are read in one go.
WINDOW = 16_384
#: Values of a container that are read between two pauses.
_AT_ONCE = 200

#: Characters that must follow a value in the window: a "1e+" there may be cut off in the middle of "1e+5".
_MARGIN = 3

_BLANKS = re.compile(r"[ \t\n\r]*")
_SEPARATOR = re.compile(r"[ \t\n\r]*([,\]}])[ \t\n\r]*")


def text_pieces(file: BinaryIO, size: int = 1 << 20) -> Generator[None, None, str]:
    """The UTF-8 text of the rest of a file, read and decoded `size` bytes at a time. Raises ValueError."""
    incremental = codecs.getincrementaldecoder("utf-8")()
    parts = []
    try:
        while raw := file.read(size):
            parts.append(incremental.decode(raw))
            yield
        parts.append(incremental.decode(b"", True))
    except UnicodeDecodeError:
        raise ValueError("the bytes are not UTF-8") from None
    text = "".join(parts)
    return text[1:] if text.startswith("\ufeff") else text


def _placed(error: ValueError, base: int) -> ValueError:
    """The same error, told where in the document it is rather than where in a piece of it."""
    if isinstance(error, json.JSONDecodeError):
        return ValueError(f"{error.msg} at {base + error.pos}")
    return error


class _Pause:
    """Stands between the items: a good moment to let others work."""


PAUSE: Final = _Pause()


class Pieces:
    """One document that is read in pieces."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._window = ""
        self._base = 0  # where the window begins in the text

    def value(self) -> Generator[None, None, JSON]:
        """The document's value; yields at pauses. Raises ValueError like `jsontext.decode`."""
        position = self._skip(0)
        whole = self._whole(position, 0)
        value, position = whole if whole is not None else (yield from self._parts(position, 0))
        self._check_end(position)
        return value

    @property
    def is_list(self) -> bool:
        """Whether the document begins as a list."""
        position = self._skip(0)
        return self._text[position : position + 1] == "["

    def items(self) -> Iterator[JSON | _Pause]:
        """The items of a document that is a list, with `PAUSE` now and then. Raises ValueError."""
        if not self.is_list:
            raise ValueError("not a list")
        position = self._skip(self._skip(0) + 1)
        if self._text[position : position + 1] == "]":
            self._check_end(position + 1)
            return
        pause_at = position + WINDOW
        while True:
            whole = self._whole(position, 1)
            if whole is not None:
                value, position = whole
            else:
                parts = self._parts(position, 1)
                try:
                    while True:
                        next(parts)
                        yield PAUSE
                except StopIteration as end:
                    value, position = end.value
            yield value
            position, more = self._separator(position, "]")
            if not more:
                break
            if position > pause_at:
                pause_at = position + WINDOW
                yield PAUSE
        self._check_end(position)

    def _whole(self, position: int, depth: int) -> tuple[JSON, int] | None:
        """A value that lies in the window, and where it ends; None where it is larger than a window."""
        text = self._text
        while True:
            offset = position - self._base
            window = self._window
            if 0 <= offset < len(window):
                last = self._base + len(window) == len(text)
                try:
                    value, end = decoder.raw_decode(window, offset)
                except RecursionError:
                    raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None
                except ValueError as error:
                    if last and offset == 0:
                        raise _placed(error, position) from None
                else:
                    if end + _MARGIN <= len(window) or last:
                        size = end - offset
                        if size + depth > MAX_DEPTH and (
                            window.count("[", offset, end) + window.count("{", offset, end) + depth > MAX_DEPTH
                        ):
                            check_depth(window[offset:end], depth)
                        if size > 7 and window.find("\\u", offset, end) >= 0:  # less holds no surrogate
                            check_surrogates(window[offset:end], value)
                        return value, self._base + end
                if offset == 0 and len(window) == WINDOW:
                    return None
            elif position >= len(text):
                raise ValueError(f"the document ends at {position} where a value is expected")
            self._base = position
            self._window = text[position : position + WINDOW]

    def _parts(self, position: int, depth: int) -> Generator[None, None, tuple[JSON, int]]:
        """A value larger than a window, and where it ends."""
        first = self._text[position]
        if first in "[{":
            if depth >= MAX_DEPTH:
                raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
            return (yield from (self._list if first == "[" else self._object)(position, depth + 1))
        yield
        try:
            value, end = decoder.raw_decode(self._text, position)  # one long text is as fast as a copy of it
        except ValueError as error:
            raise _placed(error, 0) from None
        if isinstance(value, str):
            try:
                value.encode("utf-8")
            except UnicodeEncodeError:
                raise ValueError("a text holds a lone surrogate") from None
        return value, end

    def _list(self, position: int, depth: int) -> Generator[None, None, tuple[JSON, int]]:
        values: list[JSON] = []
        position = self._skip(position + 1)  # a window full: it cannot be empty, unless with blanks
        if self._text[position : position + 1] == "]":
            return values, position + 1
        more = True
        while more:
            whole = self._whole(position, depth)
            value, position = whole if whole is not None else (yield from self._parts(position, depth))
            values.append(value)
            position, more = self._separator(position, "]")
            if not len(values) % _AT_ONCE:
                yield
        return values, position

    def _object(self, position: int, depth: int) -> Generator[None, None, tuple[JSON, int]]:
        values: dict[str, JSON] = {}
        count = 0
        position = self._skip(position + 1)
        if self._text[position : position + 1] == "}":
            return values, position + 1
        more = True
        while more:
            if self._text[position : position + 1] != '"':
                raise ValueError(f"expecting a member's name in double quotes at {position}")
            whole = self._whole(position, depth)
            name, position = whole if whole is not None else (yield from self._parts(position, depth))
            position = self._skip(position)
            if self._text[position : position + 1] != ":":
                raise ValueError(f"expecting ':' at {position}")
            position = self._skip(position + 1)
            whole = self._whole(position, depth)
            value, position = whole if whole is not None else (yield from self._parts(position, depth))
            values[name] = value
            position, more = self._separator(position, "}")
            count += 1
            if not count % _AT_ONCE:
                yield
        return values, position

    def _separator(self, position: int, end: str) -> tuple[int, bool]:
        """Where the next item begins after a comma, or what follows the `end`; and whether there is one."""
        match = _SEPARATOR.match(self._text, position)
        mark = "" if match is None else match[1]
        if match is None or mark not in (",", end):
            raise ValueError(f"expecting ',' or '{end}' at {self._skip(position)}")
        return match.end(), mark == ","

    def _skip(self, position: int) -> int:
        match = _BLANKS.match(self._text, position)
        assert match is not None
        return match.end()

    def _check_end(self, position: int) -> None:
        position = self._skip(position)
        if position != len(self._text):
            raise ValueError(f"extra data at {position}")


async def decode_in_slices(raw: bytes, slices: Slices) -> JSON:
    """Like `jsontext.decode`, pausing in between where there is much to read."""
    if len(raw) <= SMALL:
        return decode(raw)
    text = await _run(text_pieces(io.BytesIO(raw)), slices)
    return await _run(Pieces(text).value(), slices)


async def _run(pieces: Generator[None, None, T], slices: Slices) -> T:
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            result: T = end.value
            return result
        await slices.breathe()
