"""JSON text in and out: strict reading of what comes from outside, one way of writing it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

from msgspec.json import Decoder

from rasa_core_api.constants import JSON

#: Nesting beyond this is refused.
MAX_DEPTH = 100

#: A text that is never closed ends with the document: to look for its end at each of its quotes would take the square.
_OPENING = re.compile(r'[\[{]|[\]}]|"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def writer(item_separator: str, key_separator: str, allow_nan: bool) -> Callable[[Any], str]:
    """What writes values as JSON with sorted keys and escaped non-ASCII, the tool for it made once.

    `json.dumps` and `JSONEncoder.encode` make it anew for each value, which takes longer than writing a small one.
    """
    plain = json.JSONEncoder(sort_keys=True, separators=(item_separator, key_separator), allow_nan=allow_nan)
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # an interpreter without the accelerator
        return plain.encode
    spell = json.encoder.encode_basestring_ascii
    pieces = make(None, plain.default, spell, None, key_separator, item_separator, True, False, allow_nan)

    def write(value: Any) -> str:
        return "".join(pieces(value, 0))

    return write


_write = writer(",", ":", False)


def encode(value: JSON) -> str:
    """Compact JSON with sorted keys and escaped non-ASCII. Raises ValueError for NaN and infinities."""
    return _write(value)


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:40]} is beyond a float")
    return value


def _int(text: str) -> int:
    if len(text) > 308:  # what a float cannot hold breaks whoever calculates with it
        _float(text)
    return int(text)


#: Reads what this project accepts; depth and surrogates are checked apart.
decoder = json.JSONDecoder(parse_constant=_constant, parse_float=_float, parse_int=_int)


_fast = Decoder()
#: Digits in a row that may be an integer beyond a float, where every digit was made a zero.
_LONG = b"0" * 309
_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)


def _has_long_number(text: str) -> bool:
    """Whether there are so many digits in a row. A regular expression takes longer than the parser for this."""
    return len(text) > 308 and _LONG in text.encode("utf-8", "surrogatepass").translate(_ZEROS)


def read_text(text: str, otherwise: json.JSONDecoder = decoder) -> Any:
    """The value of a JSON text, by msgspec, which is several times as fast as `json`.

    What it refuses, and integers beyond a float, are left to `otherwise`, so that reasons and limits are those. Raises
    ValueError like `otherwise`.
    """
    if not _has_long_number(text):
        try:
            return _fast.decode(text)
        except (ValueError, RecursionError):
            pass  # for the reason that the other one gives
    return otherwise.decode(text)


def check_text(raw: bytes) -> str:
    """The UTF-8 text of a JSON document that is not nested deeper than `MAX_DEPTH`. Raises ValueError."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"the bytes at {error.start} are not UTF-8") from None
    if text.startswith("\ufeff"):
        text = text[1:]
    if text.count("[") + text.count("{") > MAX_DEPTH:
        check_depth(text)
    return text


def check_depth(text: str, depth: int = 0) -> None:
    """Raises ValueError for a document nested deeper than `MAX_DEPTH`; `depth` levels are around it."""
    for match in _OPENING.finditer(text):
        first = match[0][0]
        if first in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        elif first in "]}":
            depth -= 1


def check_surrogates(text: str, value: JSON) -> None:
    """Raises ValueError where the value of this text holds half a surrogate pair."""
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
    value: JSON = read_text(text)
    check_surrogates(text, value)
    return value
