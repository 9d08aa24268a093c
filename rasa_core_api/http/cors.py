"""Which pages of other origins may read the answers (cross-origin resource sharing)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from twisted.web.server import Request

_ALLOW_ORIGIN = b"Access-Control-Allow-Origin"
_METHODS = [b"DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"]
_VARY = [b"Origin"]
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#,\s]+", re.IGNORECASE)


def names_no_origin(text: str) -> bool:
    """Whether this is what no browser says of a page, such as a host alone or an address with a path."""
    return text.strip() not in ("", "*", "null") and not _ORIGIN.fullmatch(text.strip())


class Origins:
    """The origins that are let in; `*` lets in all. They compare exactly, without regard to case.

    Without `Origin` in the request, an answer names `*` where all are let in, else the first origin in
    alphabetical order, as the historical server did.
    """

    def __init__(self, origins: Iterable[str]) -> None:
        named = [origin.strip().encode("utf-8") for origin in origins if origin.strip()]
        self._allowed = frozenset(origin.lower() for origin in named)
        self._all = b"*" in self._allowed
        first = b"*" if self._all else min(named, default=None)
        self._default = None if first is None else [first]

    def apply(self, request: Request) -> None:
        """Set the headers that every answer to this request carries, failures included."""
        headers = request.responseHeaders
        if self._default is None:
            return
        origin = request.requestHeaders.getRawHeaders(b"Origin")
        if not origin:
            headers.setRawHeaders(_ALLOW_ORIGIN, self._default)
            if not self._all:
                headers.setRawHeaders(b"Vary", _VARY)
        else:
            headers.setRawHeaders(b"Vary", _VARY)
            if self._all or origin[0].lower() in self._allowed:
                headers.setRawHeaders(_ALLOW_ORIGIN, [origin[0]])

    @staticmethod
    def preflight(request: Request) -> None:
        """Add what a preflight wants to know; `apply` comes first."""
        asked, headers = request.requestHeaders, request.responseHeaders
        if not headers.hasHeader(_ALLOW_ORIGIN):
            return
        if asked.hasHeader(b"Access-Control-Request-Method"):
            headers.setRawHeaders(b"Access-Control-Allow-Methods", _METHODS)
        wanted = asked.getRawHeaders(b"Access-Control-Request-Headers")
        if wanted:
            names = sorted(name.strip() for name in wanted[0].split(b",") if name.strip())
            headers.setRawHeaders(b"Access-Control-Allow-Headers", [b", ".join(names)])
