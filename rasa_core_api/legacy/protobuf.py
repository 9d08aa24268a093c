"""The wire format of protocol buffers, as far as TensorFlow's files need it.

https://protobuf.dev/programming-guides/encoding/ : a message is a row of fields, each a varint `number << 3 | kind`
and a value: kind 0 a varint, 1 eight bytes, 2 a varint length and that many bytes, 5 four bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rasa_core_api.legacy import Damage

if TYPE_CHECKING:
    from collections.abc import Iterator

Span = tuple[int, int]  # start and end in the same bytes


def varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """An unsigned number of at most 64 bits before `end`, and the position behind it; Damage without one."""
    result = shift = 0
    while True:
        if position >= end or shift > 63:
            raise Damage("a number without an end")
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7


def fields(data: bytes, span: Span) -> Iterator[tuple[int, int | Span]]:
    """The fields of a message: their numbers, with an integer or (kind 2) the span of their bytes.

    Raises Damage where a value reaches behind the message, and for kinds that are no longer in use.
    """
    position, end = span
    while position < end:
        key, position = varint(data, position, end)
        kind = key & 7
        value: int | Span
        if kind == 2:
            length, position = varint(data, position, end)
            if length > end - position:
                raise Damage("a field that is longer than its message")
            value = (position, position + length)
            position += length
        elif kind == 0:
            value, position = varint(data, position, end)
        elif kind in (1, 5):
            stop = position + (8 if kind == 1 else 4)
            if stop > end:
                raise Damage("a field that is longer than its message")
            value = int.from_bytes(data[position:stop], "little")
            position = stop
        else:
            raise Damage("a field of an unknown kind")
        yield key >> 3, value


def number(value: int | Span) -> int:
    """The value of a field that should be a number; else Damage."""
    if isinstance(value, int):
        return value
    raise Damage("bytes where a number is expected")


def inside(value: int | Span) -> Span:
    """The span of a field that should hold bytes; else Damage."""
    if isinstance(value, int):
        raise Damage("a number where bytes are expected")
    return value
