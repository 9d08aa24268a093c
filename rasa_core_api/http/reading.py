"""Reading requests: query strings, path segments and JSON bodies, everything bounded and strict."""

from __future__ import annotations

import io
import math
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

from attrs import frozen
from twisted.web.server import Request

from rasa_core_api.concurrency import Slices
from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import InvalidParameter
from rasa_core_api.http.errors import InvalidJson, PayloadTooLarge
from rasa_core_api.http.json_pieces import PAUSE, Pieces, text_pieces
from rasa_core_api.jsontext import decode

MEGABYTE = 1 << 20
#: Bytes of a body, where no operator said otherwise.
DEFAULT_LIMIT = 32 * MEGABYTE
#: Bodies up to this many bytes are read in one go (about a millisecond).
AT_ONCE = 65_536
#: Bytes of a sender id.
MAX_SENDER_ID = 1_024
#: Parameters of a query string; more are refused.
_MAX_PARAMETERS = 100

_HIDDEN_QUERY = "rasa_core_api_query"
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
#: Characters of a number in a query string.
_MAX_NUMBER = 100


# --- query strings -------------------------------------------------------------------------------------


def query_string(request: Request) -> bytes:
    """The raw query string, without its question mark."""
    hidden: bytes | None = getattr(request, _HIDDEN_QUERY, None)
    return request.uri.partition(b"?")[2] if hidden is None else hidden


def hide_query(request: Request) -> None:
    """Keep the query string out of `uri`, which the access log of a foreign site would write."""
    path, _, text = request.uri.partition(b"?")
    setattr(request, _HIDDEN_QUERY, text)
    request.uri = path


def query_of(request: Request) -> Mapping[str, str]:
    """The parameters of the query string, repeated ones by their first value.

    Never looks at the body, whatever the site made of it. Raises `InvalidParameter` for bytes that are not UTF-8.
    """
    text = query_string(request)
    parameters: dict[str, str] = {}
    if not text:
        return parameters
    pairs = text.split(b"&", _MAX_PARAMETERS)
    if len(pairs) > _MAX_PARAMETERS:
        raise InvalidParameter(f"The query string has more than {_MAX_PARAMETERS} parameters.", **{"in": "query"})
    for pair in pairs:
        name, _, value = pair.partition(b"=")
        if pair:
            parameters.setdefault(_query_text(name), _query_text(value))
    return parameters


def _query_text(raw: bytes) -> str:
    try:
        return unquote_to_bytes(raw.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidParameter("The query string is not UTF-8.", **{"in": "query"}) from None


def flag(parameters: Mapping[str, str], name: str, default: bool = False) -> bool:
    """A boolean parameter: `true` in any case, everything else is false."""
    value = parameters.get(name)
    return default if value is None else value.lower() == "true"


def number(parameters: Mapping[str, str], name: str) -> float | None:
    """A finite number as JSON writes it, also with zeros before it. Raises `InvalidParameter`."""
    text = parameters.get(name)
    if text is None:
        return None
    value = float(text) if len(text) <= _MAX_NUMBER and _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise InvalidParameter(
            f"The value of the parameter '{name}' must be a finite number.", parameter=name, **{"in": "query"}
        )
    return value


def count(parameters: Mapping[str, str], name: str, default: int) -> int:
    """An integer of at least 1. Raises `InvalidParameter`."""
    text = parameters.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) >= 1):
        raise InvalidParameter(
            f"The value of the parameter '{name}' must be a whole number from 1 on.", parameter=name, **{"in": "query"}
        )
    return int(text)


# --- path segments -------------------------------------------------------------------------------------


def sender_id_of(segment: bytes) -> str:
    """The sender id in a decoded path segment.

    Raises `InvalidParameter` for bytes that are not UTF-8, control characters and more than
    `MAX_SENDER_ID` bytes.
    """
    if len(segment) > MAX_SENDER_ID:
        raise _bad_sender(f"A sender id has at most {MAX_SENDER_ID} bytes.")
    try:
        text = segment.decode("utf-8")
    except UnicodeDecodeError:
        raise _bad_sender("The sender id is not UTF-8.") from None
    if _CONTROL.search(text):
        raise _bad_sender("A sender id has no control characters.")
    return text


def _bad_sender(message: str) -> InvalidParameter:
    return InvalidParameter(message, parameter="sender_id", **{"in": "path"})


# --- bodies --------------------------------------------------------------------------------------------


def open_body(request: Request, limit: int) -> tuple[BinaryIO, int]:
    """The body as a file, and its size. Raises `PayloadTooLarge` beyond `limit` bytes, before anything is read."""
    size = body_size(request)
    if size > limit:
        raise too_large(limit)
    content: BinaryIO | None = request.content
    if content is None:
        content = io.BytesIO()
    content.seek(0)
    return content, size


def body_size(request: Request) -> int:
    """Bytes of the body, at least what the client announced, without reading it."""
    content = request.content
    size = 0
    if content is not None:
        size = content.seek(0, 2)
        content.seek(0)  # whoever reads the body next begins at its beginning
    announced = request.requestHeaders.getRawHeaders(b"Content-Length")
    if announced and announced[0].isdigit():
        size = max(size, int(announced[0][:20]))
    return size


def too_large(limit: int) -> PayloadTooLarge:
    """What to raise for a body beyond `limit` bytes."""
    return PayloadTooLarge(f"The body is larger than {limit} bytes, the most that this server takes.", max_bytes=limit)


def read_json(request: Request, limit: int) -> JSON:
    """The body as JSON, whatever its content type says, in one go: for bodies that are known to be small.

    Raises `InvalidJson` and `PayloadTooLarge`.
    """
    content, _ = open_body(request, limit)
    try:
        return decode(content.read())
    except ValueError as error:
        raise invalid_json(error) from None


def invalid_json(error: ValueError) -> InvalidJson:
    return InvalidJson(f"The body is not valid JSON: {error}")


def wrong_body(wanted: str) -> InvalidParameter:
    """What to raise for a body that is JSON of another type."""
    return InvalidParameter(f"The body must be {wanted}.", parameter="", **{"in": "body"})


@frozen
class Bodies:
    """Reads bodies of at most `limit` bytes; large ones in slices."""

    limit: int
    slices: Slices

    async def value(self, request: Request) -> JSON:
        """The body's JSON value. Raises `InvalidJson` and `PayloadTooLarge`."""
        content, size = open_body(request, self.limit)
        try:
            if size <= AT_ONCE:
                return decode(content.read())
            pieces = Pieces(await self._text(content)).value()
            while True:
                try:
                    next(pieces)
                except StopIteration as end:
                    return end.value
                await self.slices.breathe()
        except ValueError as error:
            raise invalid_json(error) from None

    async def object(self, request: Request) -> Mapping[str, JSON]:
        """The body's JSON object. Raises like `value`, and `InvalidParameter` for another type."""
        value = await self.value(request)
        if not isinstance(value, dict):
            raise wrong_body("a JSON object")
        return value

    async def listed(self, request: Request) -> AsyncIterator[JSON] | JSON:
        """An iterator over the items where the body is a list, else its value.

        A list is read while it is used: what is wrong with a later item is raised when it is its turn.
        """
        content, size = open_body(request, self.limit)
        if size > AT_ONCE:
            try:
                pieces = Pieces(await self._text(content))
            except ValueError as error:
                raise invalid_json(error) from None
            if pieces.is_list:
                return self._items(pieces.items())
        value = await self.value(request)
        return _given(value) if isinstance(value, list) else value

    async def text(self, request: Request) -> str:
        """The body as UTF-8 text. Raises `InvalidParameter` and `PayloadTooLarge`."""
        content, _ = open_body(request, self.limit)
        try:
            return await self._text(content)
        except ValueError as error:
            raise wrong_body(f"UTF-8 text: {error}") from None

    async def _text(self, content: BinaryIO) -> str:
        pieces = text_pieces(content)
        while True:
            try:
                next(pieces)
            except StopIteration as end:
                text: str = end.value
                return text
            await self.slices.breathe()

    async def _items(self, items: Iterator[JSON]) -> AsyncIterator[JSON]:
        try:
            for item in items:
                if item is PAUSE:
                    await self.slices.breathe()
                else:
                    yield item
        except ValueError as error:
            raise invalid_json(error) from None


async def _given(items: list[JSON]) -> AsyncIterator[JSON]:
    for item in items:
        yield item
