"""The HTTP client behind `endpoints.OutgoingHTTP`; imported at the first call, since treq is costly to import."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, cast

from hyperlink import EncodedURL
from treq.client import HTTPClient
from twisted.internet.abstract import isIPAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IConsumer, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    ResponseDone,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import UNKNOWN_LENGTH, IAgentEndpointFactory, IBodyProducer
from zope.interface import implementer

from rasa_core_api.endpoints import CONNECT_SECONDS, KEPT_CONNECTIONS, KEPT_SECONDS, AnswerTooLarge

#: The socket option that has received data acknowledged now; only Linux has it.
_ACKNOWLEDGE: int | None = getattr(socket, "TCP_QUICKACK", None)


@implementer(IBodyProducer)
class _Bytes:
    """A body that lies in memory, handed to the connection as a whole.

    Twisted's own producer of pieces must not be asked to go on unless it was asked to pause. A kept connection does
    just that, where the body before left more than one buffer's worth to be written, and the call then fails.
    """

    def __init__(self, body: bytes) -> None:
        self.length = len(body)
        self._body = body

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        pass

    def stopProducing(self) -> None:
        pass


def body_producer(body: bytes) -> IBodyProducer:
    """What sends these bytes."""
    return _Bytes(body)


class _Prompt(ProtocolWrapper):
    """A connection that acknowledges the beginning of an answer at once.

    A server that writes head and body one after the other (as many in Python do) otherwise sends the body only after
    the system's delayed acknowledgement of the head, 40 ms later, on every call but the first of a connection.
    """

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)  # type: ignore[no-untyped-call]
        if getattr(self.wrappedProtocol, "state", None) != "QUIESCENT":  # more is to come
            with suppress(OSError, AttributeError):  # closed meanwhile
                handle = self.transport.getHandle()  # type: ignore[union-attr]
                handle.setsockopt(socket.IPPROTO_TCP, _ACKNOWLEDGE, 1)


@implementer(IStreamClientEndpoint)
class PromptEndpoint:
    """Connects with `endpoint`, and acknowledges at once what arrives in parts."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        wrapping = WrappingFactory(cast(Any, factory))
        wrapping.protocol = _Prompt
        wrapping.noisy = False
        connected: Deferred[Any] = self._endpoint.connect(wrapping)
        return connected.addCallback(lambda connection: connection.wrappedProtocol)


@implementer(IAgentEndpointFactory)
class _Connecting:
    """Connects to addresses directly: only names need the resolver and its threads."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._policy: BrowserLikePolicyForHTTPS | None = None

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        host = uri.host.decode("ascii")
        endpoint: IStreamClientEndpoint
        if isIPAddress(host):
            endpoint = TCP4ClientEndpoint(self._reactor, host, uri.port, timeout=CONNECT_SECONDS)
        else:
            endpoint = HostnameEndpoint(self._reactor, host, uri.port, timeout=CONNECT_SECONDS)
        if _ACKNOWLEDGE is not None:
            endpoint = PromptEndpoint(endpoint)
        if uri.scheme != b"https":
            return endpoint
        if self._policy is None:
            self._policy = BrowserLikePolicyForHTTPS()
        return wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), endpoint)


def new_pool(reactor: Any, persistent: bool = True) -> HTTPConnectionPool:
    """Persistent connections, as many as there are calls at a time; or connections that are closed after each call."""
    pool = HTTPConnectionPool(reactor, persistent=persistent)
    pool.maxPersistentPerHost = KEPT_CONNECTIONS
    pool.cachedConnectionTimeout = KEPT_SECONDS  # type: ignore[assignment]  # declared int, used as seconds
    return pool


class _Written(EncodedURL):
    """A URL that is asked for as it stands; hyperlink cannot encode one with an IPv6 address once more."""

    def to_uri(self) -> EncodedURL:
        return self


def as_written(url: str) -> EncodedURL:
    """A URL of ASCII characters for treq, which leaves it alone. Raises `ValueError`."""
    return _Written.from_text(url)


class _Client(HTTPClient):
    def request(self, method: str, url: Any, **options: Any) -> Deferred[Any]:
        return super().request(method, as_written(url) if isinstance(url, str) else url, **options)


def new_client(reactor: Any, pool: HTTPConnectionPool) -> HTTPClient:
    """A client that keeps no cookies: a server's session must not leak from one conversation to another."""
    agent = Agent.usingEndpointFactory(reactor, _Connecting(reactor), pool)
    jar: Any = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return _Client(agent, cookiejar=jar, data_to_body_producer=body_producer)


def closes(response: Any) -> bool:
    """Whether the server is of HTTP/1.0 and ends the connection without saying so, which Twisted does not see."""
    return bool(response.version[1:] < (1, 1))


class _Collector(Protocol):
    """Collects a body up to a limit; `done` gets it, or why there is none."""

    def __init__(self, limit: int, too_large: Callable[[], Exception]) -> None:
        self._limit = limit
        self._too_large = too_large
        self._parts: list[bytes] = []
        self._size = 0
        self.done: Deferred[bytes] = Deferred(lambda _: self._cut_off())

    def _cut_off(self) -> None:
        self._parts.clear()
        if self.transport is not None:
            # a response's transport can abort only where it is the connection's own
            getattr(self.transport, "abortConnection", self.transport.loseConnection)()

    def dataReceived(self, data: bytes) -> None:
        if self.done.called:
            return
        self._size += len(data)
        if self._size > self._limit:
            self.done.errback(self._too_large())
            self._cut_off()
        else:
            self._parts.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        # without a length the end of the connection is the end of the body
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._parts))
        else:
            self.done.errback(reason)


async def whole_body(response: Any, limit: int, url: str) -> bytes:
    """The body of an unbuffered response. Raises `AnswerTooLarge`; the connection is then closed."""

    def too_large() -> AnswerTooLarge:
        return AnswerTooLarge(f"{url} answered more than {limit} bytes", url=url, limit=limit)

    collector = _Collector(limit, too_large)
    announced = response.length
    if announced is not UNKNOWN_LENGTH and announced > limit:
        collector.done.errback(too_large())
    response.deliverBody(cast(IProtocol, collector))
    if collector.done.called:
        collector._cut_off()
    return await collector.done
