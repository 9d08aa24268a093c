"""Requests that may come again: the header `Idempotency-Key` and the ids of channels' messages."""

from __future__ import annotations

import hashlib

from twisted.web.server import Request

from rasa_core_api.concurrency import Slices
from rasa_core_api.exceptions import InvalidParameter
from rasa_core_api.http.reading import query_of
from rasa_core_api.messages import RequestKey

HEADER = "Idempotency-Key"
#: Characters of a key.
MAX_KEY = 255
#: Bytes of a body that are digested between two pauses: about a millisecond.
_CHUNK = 1 << 20
#: Says who may, not what is asked.
_NOT_ASKED = "token"


async def request_key(request: Request, keep: float, slices: Slices) -> RequestKey | None:
    """The key of a request, None where it has none; its answer is kept for so many seconds.

    The digest covers method, path, query (without the token) and body. Raises `InvalidParameter`.
    """
    given = request.requestHeaders.getRawHeaders(HEADER.encode())
    if given is None:
        return None
    key = given[0].decode("latin-1").strip()
    if len(given) > 1 or not 0 < len(key) <= MAX_KEY or not (key.isascii() and key.isprintable()):
        raise InvalidParameter(
            f"The header {HEADER} must be one key of 1 to {MAX_KEY} printable ASCII characters.",
            parameter=HEADER,
            **{"in": "header"},
        )
    digest = hashlib.blake2b(digest_size=16)
    query = sorted((name, value) for name, value in query_of(request).items() if name != _NOT_ASKED)
    digest.update(repr((request.method, request.path, query)).encode())
    content = request.content
    if content is not None:
        content.seek(0)
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
            if len(chunk) == _CHUNK:
                await slices.breathe()
        content.seek(0)
    return RequestKey(f"api {key}", digest.hexdigest(), keep)
