"""Connections to model servers: fresh ones, and bounded in what they may say before a body begins.

Twisted collects headers as long as a server sends them. A model server that never ends its headers would fill the
memory at the speed of the network until the time limit, so the bytes before the body are counted here. Nor does
treq inflate anything here, which it would do on the reactor and without bounds: archives are packed already, and one
that is called gzip is taken as it came.
"""

from __future__ import annotations

from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

from rasa_core_api.exceptions import ModelServerError

_CONNECT_SECONDS = 10.0
#: Bytes of status line and headers, interim answers (1xx) included.
MAX_HEAD = 64 * 1024
#: Interim answers; Twisted writes a line of the log for each.
_MAX_INTERIM = 4


class _Bounded(ProtocolWrapper):
    """Ends the connection where the head of an answer does not end."""

    def __init__(self, factory: WrappingFactory, wrapped: IProtocol) -> None:
        super().__init__(factory, wrapped)  # type: ignore[arg-type]
        self._head = b""
        self._line = 0  # where the line begins that was not looked at yet
        self._left = MAX_HEAD
        self._interim = 0
        self._in_body = False
        self._refused: ModelServerError | None = None

    def dataReceived(self, data: bytes) -> None:
        if self._refused is not None:
            return
        if not self._in_body:
            self._head += data
            self._look()
            if self._refused is not None:
                self.transport.abortConnection()
                return
        super().dataReceived(data)  # type: ignore[no-untyped-call]

    def _look(self) -> None:
        """Read lines as Twisted's parser does, until a head ends that is not an interim one."""
        while (end := self._head.find(b"\n", self._line)) >= 0:
            if self._line and not self._head[self._line : end].rstrip(b"\r"):
                self._left -= end + 1
                final = not _is_interim(self._head)
                self._head, self._line = self._head[end + 1 :], 0
                self._interim += not final
                if final:
                    self._in_body, self._head = True, b""
                    break
            else:
                self._line = end + 1
        if self._left < len(self._head) or self._interim > _MAX_INTERIM:
            self._refused = ModelServerError(f"sent headers of more than {MAX_HEAD} bytes", limit=MAX_HEAD)
            self._head = b""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        lost = reason if self._refused is None else Failure(self._refused)
        super().connectionLost(lost)  # type: ignore[no-untyped-call]


def _is_interim(head: bytes) -> bool:
    try:
        return 100 <= int(head.split(b" ", 2)[1].split(b"\n")[0]) < 200
    except (IndexError, ValueError):
        return False


class _BoundedFactory(WrappingFactory):
    protocol = _Bounded
    noisy = False


@implementer(IStreamClientEndpoint)
class _BoundedEndpoint:
    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        bounded = _BoundedFactory(factory)  # type: ignore[no-untyped-call]
        connected: Deferred[Any] = self._endpoint.connect(bounded)
        return connected.addCallback(lambda wrapper: wrapper.wrappedProtocol)


@implementer(IAgentEndpointFactory)
class Bounding:
    """Makes every endpoint of another factory bounded."""

    def __init__(self, endpoints: IAgentEndpointFactory) -> None:
        self._endpoints = endpoints

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return _BoundedEndpoint(self._endpoints.endpointForURI(uri))


@implementer(IAgentEndpointFactory)
class _Connecting:
    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._policy = BrowserLikePolicyForHTTPS()

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        endpoint = HostnameEndpoint(self._reactor, uri.host, uri.port, timeout=_CONNECT_SECONDS)
        if uri.scheme != b"https":
            return endpoint
        return wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), endpoint)


@implementer(IAgent)
class _AsItComes:
    """Asks for bodies that are not packed once more, and hides from treq that one is."""

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        headers = Headers() if headers is None else headers.copy()
        headers.setRawHeaders(b"Accept-Encoding", [b"identity"])
        asking: Deferred[IResponse] = self._agent.request(method, uri, headers, bodyProducer)
        return asking.addCallback(_without_encoding)


def _without_encoding(response: IResponse) -> IResponse:
    response.headers.removeHeader(b"Content-Encoding")
    return response


def new_client(reactor: Any, endpoints: IAgentEndpointFactory | None = None) -> HTTPClient:
    """What asks model servers, without cookies; `endpoints` stands for the network in tests."""
    # one request in a minute or two: a connection kept open would only be a descriptor held
    pool = HTTPConnectionPool(reactor, persistent=False)
    agent = Agent.usingEndpointFactory(reactor, Bounding(endpoints or _Connecting(reactor)), pool)
    jar: Any = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return HTTPClient(_AsItComes(agent), cookiejar=jar)
