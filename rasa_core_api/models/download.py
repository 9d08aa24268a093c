"""Fetching a model archive from a model server: streamed to disk, bounded in size and time.

The protocol is the one of the published page: GET with `If-None-Match`, answered by 200 with an archive and an
`ETag`, by an empty 204 (or 304) where nothing is new, or by 404 where there is no model yet.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import quote, urljoin, urlsplit

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from rasa_core_api.exceptions import ModelServerError

if TYPE_CHECKING:  # who pulls no model need not pay for a client
    from treq.client import HTTPClient

#: Answers that send the client elsewhere; followed this often.
_REDIRECTS = (301, 302, 303, 307, 308)
MAX_REDIRECTS = 5
#: An ETag longer than this (bytes) is none.
_LONGEST_TAG = 1024

DEFAULT_SIZE = 512 * 1024 * 1024


@frozen
class Target:
    """Where a model is fetched: the URL with its query, headers sent with every request, and bounds.

    `timeout` is the longest silence, `total` the longest download (seconds), `size` the largest archive (bytes).
    """

    url: str
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    timeout: float = 30.0
    total: float = 300.0
    size: int = DEFAULT_SIZE

    @property
    def shown(self) -> str:
        """The URL for logs and `/status`: without a password, a query or a fragment."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class Nothing(Enum):
    """Answers that bring no model."""

    UNCHANGED = "unchanged"
    ABSENT = "absent"
    PASSED_BY = "passed by"


@frozen
class Delivery:
    """An archive on disk. `tag` is the ETag byte for byte (Latin-1), or the hash where there is none that fits.

    `whole` tells whether all of it came for certain: without a length the end of the connection is that of the body.
    """

    path: Path
    tag: str
    sha256: str
    signature: str | None = None
    whole: bool = True


class _Abandon(Protocol):
    """Closes the connection of an answer whose body nobody needs."""

    def connectionMade(self) -> None:
        _abort(self)

    def dataReceived(self, data: bytes) -> None:
        _abort(self)


def _abort(protocol: Protocol) -> None:
    """Close at once; a polite close of TLS waits for a peer that may never answer."""
    transport = protocol.transport
    for place in (transport, getattr(transport, "_producer", None)):
        abort = getattr(place, "abortConnection", None)
        if abort is not None:
            abort()
            return
    if transport is not None and hasattr(transport, "loseConnection"):
        transport.loseConnection()


@define(eq=False)
class _ToFile(Protocol):
    """Writes a body to a file; fires `done` with its SHA-256, in hexadecimal."""

    _file: BinaryIO
    _target: Target
    _clock: IReactorTime
    _received: int = field(default=0, init=False)
    _digest: hashlib._Hash = field(factory=hashlib.sha256, init=False)
    _silence: IDelayedCall | None = field(default=None, init=False)
    whole: bool = field(default=False, init=False)
    done: Deferred[str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.done = Deferred(lambda _: self._give_up(CancelledError()))
        self._silence = self._clock.callLater(self._target.timeout, self._silent)

    def _silent(self) -> None:
        self._give_up(ModelServerError(f"sent nothing for {self._target.timeout:g} s"))

    def _give_up(self, error: Exception) -> None:
        self._finish(error)
        _abort(self)

    def _finish(self, result: str | Exception) -> None:
        if self._silence is not None and self._silence.active():
            self._silence.cancel()
        if self.done.called:
            return
        if isinstance(result, str):
            self.done.callback(result)
        else:
            self.done.errback(result)

    def dataReceived(self, data: bytes) -> None:
        if self.done.called:
            return
        assert self._silence is not None
        self._silence.reset(self._target.timeout)
        self._received += len(data)
        if self._received > self._target.size:
            self._give_up(ModelServerError(f"sent more than {self._target.size} bytes", limit=self._target.size))
            return
        self._digest.update(data)
        try:
            self._file.write(data)
        except OSError as error:
            self._give_up(ModelServerError(f"the archive cannot be stored: {error.strerror}"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        from twisted.web.client import ResponseDone  # who pulls no model need not pay for a client

        self.whole = reason.check(ResponseDone) is not None
        if self.whole or reason.check(PotentialDataLoss):
            self._finish(self._digest.hexdigest())
        else:
            self._finish(ModelServerError("the connection was lost in the middle of the archive"))


async def fetch(
    client: HTTPClient,
    target: Target,
    fingerprint: str | None,
    into: Path,
    clock: IReactorTime,
    unwanted: str | None = None,
) -> Delivery | Nothing:
    """Ask for a model other than `fingerprint`; an archive is written to the new file `into`.

    A model whose ETag is `unwanted` is passed by: its body is not read.

    Raises ModelServerError for every other answer and for none at all; nothing is left at `into` then.
    """
    waiting: Deferred[Delivery | Nothing] = Deferred.fromCoroutine(
        _fetch(client, target, fingerprint, into, clock, unwanted)
    )
    try:
        return await waiting.addTimeout(target.total, clock)
    except TimeoutError:
        raise ModelServerError(f"no whole answer within {target.total:g} s") from None


async def _fetch(
    client: HTTPClient, target: Target, fingerprint: str | None, into: Path, clock: IReactorTime, unwanted: str | None
) -> Delivery | Nothing:
    response = await _ask(client, target, fingerprint, clock)
    if response.code != 200:
        response.deliverBody(_Abandon())
        if response.code in (204, 304):  # with an ETag or without
            return Nothing.UNCHANGED
        if response.code == 404:
            return Nothing.ABSENT
        raise ModelServerError(f"answered with status {response.code}", status=response.code)
    tag = _tag(response)
    if tag is not None and tag in (fingerprint, unwanted):
        response.deliverBody(_Abandon())
        return Nothing.UNCHANGED if tag == fingerprint else Nothing.PASSED_BY
    length = response.length
    if isinstance(length, int) and length > target.size:
        response.deliverBody(_Abandon())
        raise ModelServerError(f"offers {length} bytes, more than {target.size}", limit=target.size)
    sha256, whole = await _store(response, target, into, clock)
    signature = response.headers.getRawHeaders("X-Model-Signature", [None])[0]
    return Delivery(into, tag or sha256, sha256, signature, whole)


async def _ask(client: HTTPClient, target: Target, fingerprint: str | None, clock: IReactorTime) -> IResponse:
    from rasa_core_api.http_client import as_written  # who pulls no model need not pay for a client

    url = target.url
    own = urlsplit(url)
    for _ in range(MAX_REDIRECTS + 1):
        parts = urlsplit(url)
        headers = Headers({"Content-Type": ["application/json"], "Accept": ["*/*"]})
        if (parts.scheme, parts.netloc) == (own.scheme, own.netloc):  # secrets go to the configured server only
            for name, value in target.headers.items():
                headers.setRawHeaders(name, [value])
        if fingerprint is not None:
            headers.setRawHeaders(b"If-None-Match", [fingerprint.encode("latin-1", "replace")])
        began = clock.seconds()
        try:
            asking = client.get(as_written(url), headers=headers, allow_redirects=False, unbuffered=True)
            response = cast(IResponse, await asking.addTimeout(target.timeout, clock))
        except CancelledError:
            raise
        except Exception as error:
            # what a request is cancelled with depends on how far it got
            if isinstance(error, TimeoutError) or clock.seconds() - began >= target.timeout:
                raise ModelServerError(f"no answer within {target.timeout:g} s") from None
            raise ModelServerError(f"cannot be asked: {_why(error)}") from error
        if response.code not in _REDIRECTS:
            return response
        response.deliverBody(_Abandon())
        url = _redirected(url, response)
    raise ModelServerError(f"more than {MAX_REDIRECTS} redirects")


def _why(error: object) -> str:
    """In words of ours: what was sent is neither repeated in logs nor a reason for another line there."""
    reasons = getattr(error, "reasons", None)  # what a failed response holds
    if isinstance(reasons, list) and reasons and isinstance(reasons[0], Failure):
        return _why(reasons[0].value)
    if isinstance(error, ModelServerError):
        return str(error)
    if isinstance(error, ConnectionDone):
        return "the connection was closed without an answer"
    kind = type(error)
    if isinstance(error, (ValueError, LookupError)) or kind.__module__.startswith("twisted.web"):
        return f"what it sent is no HTTP ({kind.__name__})"
    return f"{kind.__name__}: {error}"[:200]


def _redirected(url: str, response: IResponse) -> str:
    """The place to ask next, with what must not stand in a URL escaped; user and fragment are left out."""
    location: bytes = response.headers.getRawHeaders(b"Location", [b""])[0]
    try:
        parts = urlsplit(urljoin(url, quote(location, safe="%/:?#[]@!$&'()*+,;=~|")))
        usable = bool(location and parts.hostname) and (parts.port or 1) > 0 and "%" not in parts.netloc
    except ValueError:
        usable = False
    if not usable or parts.scheme not in ("http", "https"):
        raise ModelServerError("redirects to a place that is no http or https URL", status=response.code)
    if urlsplit(url).scheme == "https" and parts.scheme == "http":
        raise ModelServerError("redirects from https to http", status=response.code)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()


def _tag(response: IResponse) -> str | None:
    found = response.headers.getRawHeaders(b"ETag", [])
    raw: bytes = found[0] if len(set(found)) == 1 else b""  # of two that differ neither is to be trusted
    if raw == b"*":  # in If-None-Match it would stand for every model there ever is
        return None
    if not raw or len(raw) > _LONGEST_TAG or any(byte < 0x20 or byte == 0x7F for byte in raw):
        return None
    return raw.decode("latin-1")


async def _store(response: IResponse, target: Target, into: Path, clock: IReactorTime) -> tuple[str, bool]:
    try:
        descriptor = os.open(into, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        response.deliverBody(_Abandon())
        raise ModelServerError(f"the archive cannot be stored: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            body = _ToFile(file, target, clock)
            response.deliverBody(body)
            return await body.done, body.whole
    except BaseException as error:
        with suppress(FileNotFoundError):
            os.unlink(into)
        if isinstance(error, OSError):
            raise ModelServerError(f"the archive cannot be stored: {error.strerror}") from error
        raise
