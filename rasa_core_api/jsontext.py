"""JSON text in and out: strict reading of what comes from outside, one way of writing it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import NoReturn

from rasa_core_api.constants import JSON

#: Nesting beyond this is refused.
MAX_DEPTH = 100

_encoder = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
_OPENING = re.compile(r'[\[{]|[\]}]|"(?:[^"\\]|\\.)*"')
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_BLANKS = re.compile(r"[ \t\n\r]*")


def encode(value: JSON) -> str:
    """Compact JSON with sorted keys and escaped non-ASCII. Raises ValueError for NaN and infinities."""
    return _encoder.encode(value)


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:40]} is beyond a float")
    return value


def _int(text: str) -> int:
    if len(text) > 400:
        raise ValueError("a number has more than 400 digits")
    return int(text)


_decoder = json.JSONDecoder(parse_constant=_constant, parse_float=_float, parse_int=_int)


def check_text(raw: bytes) -> str:
    """The UTF-8 text of a JSON document that is not nested deeper than `MAX_DEPTH`. Raises ValueError."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"the bytes at {error.start} are not UTF-8") from None
    if text.startswith("\ufeff"):
        text = text[1:]
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(text)
    return text


def _check_depth(text: str) -> None:
    depth = 0
    for match in _OPENING.finditer(text):
        first = match[0][0]
        if first in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        elif first in "]}":
            depth -= 1


def _check_surrogates(text: str, value: JSON) -> None:
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("a text holds a lone surrogate") from None


def decode(raw: bytes) -> JSON:
    """Read one JSON document from outside.

    Raises ValueError, with a text for the client, for malformed JSON, bytes that are not UTF-8, NaN and
    infinities, numbers beyond a float, nesting deeper than `MAX_DEPTH` and lone surrogates.
    """
    text = check_text(raw)
    value = _decoder.decode(text)
    _check_surrogates(text, value)
    return value


def decode_items(raw: bytes) -> Iterator[JSON]:
    """The items of a document that is a list, one at a time, so that a caller can pause in between.

    Yields nothing for an empty list. Raises ValueError like `decode`, and where the document is no list.
    """
    text = check_text(raw)
    suspicious = _SURROGATE.search(text) is not None
    position = _skip(text, 0)
    if text[position : position + 1] != "[":
        raise ValueError("not a list")
    position = _skip(text, position + 1)
    if text[position : position + 1] == "]":
        position += 1
    else:
        while True:
            value, end = _decoder.raw_decode(text, position)
            if suspicious:
                _check_surrogates(text[position:end], value)
            yield value
            position = _skip(text, end)
            mark = text[position : position + 1]
            position = _skip(text, position + 1)
            if mark == "]":
                break
            if mark != ",":
                raise ValueError(f"expecting ',' or ']' at {position}")
    if _skip(text, position) != len(text):
        raise ValueError(f"extra data at {position}")


def _skip(text: str, position: int) -> int:
    match = _BLANKS.match(text, position)
    assert match is not None
    return match.end()
