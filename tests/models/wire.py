"""A model server that is a script of bytes: HTTP/1.1 as it looks on the wire, without a socket."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from rasa_core_api.models.connecting import new_client

#: What a script yields besides bytes.
CLOSE, RESET, REFUSE = "close", "reset", "refuse"
#: From the request's bytes to what is sent, in order; after the last the connection stays open and silent.
Script = Callable[[bytes], Iterable[object]]


class Transport(StringTransport):
    """One open connection, counted by its server."""

    def __init__(self, server: WireServer, host: str) -> None:
        super().__init__()
        self.server = server
        self.host = host
        self.protocol: Protocol | None = None
        server.open.append(self)

    def end(self, reason: Exception) -> None:
        if self in self.server.open:
            self.server.open.remove(self)
            assert self.protocol is not None
            self.protocol.connectionLost(Failure(reason))

    def loseConnection(self) -> None:
        self.end(ConnectionDone())

    def abortConnection(self) -> None:
        self.end(ConnectionLost())


@implementer(IStreamClientEndpoint)
class _Endpoint:
    def __init__(self, server: WireServer, host: str) -> None:
        self.server, self.host = server, host

    def connect(self, factory: IProtocolFactory) -> Deferred[Protocol]:
        if self.server.refuses:
            return fail(ConnectionRefusedError())
        transport = Transport(self.server, self.host)
        protocol = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 80))
        assert protocol is not None
        transport.protocol = protocol
        protocol.makeConnection(transport)
        self.server.clock.callLater(0, self.server.answer, transport)
        return succeed(protocol)


@implementer(IAgentEndpointFactory)
class WireServer:
    """Answers every request by its script; all work is done in steps of the clock."""

    def __init__(self, clock: Clock, script: Script) -> None:
        self.clock = clock
        self.script = script
        self.refuses = False
        self.open: list[Transport] = []
        self.requests: list[bytes] = []
        self.hosts: list[str] = []
        self.client = new_client(clock, self)

    def endpointForURI(self, uri: object) -> _Endpoint:
        return _Endpoint(self, uri.host.decode())  # type: ignore[attr-defined]

    def answer(self, transport: Transport) -> None:
        if transport not in self.open:
            return
        request = transport.value()
        self.requests.append(request)
        self.hosts.append(transport.host)
        self._send(transport, iter(self.script(request)))

    def _send(self, transport: Transport, steps: Iterable[object]) -> None:
        if transport not in self.open:
            return
        for step in steps:
            if step == CLOSE:
                transport.end(ConnectionDone())
            elif step == RESET:
                transport.end(ConnectionLost())
            elif isinstance(step, float):
                self.clock.callLater(step, self._send, transport, steps)
            else:
                assert isinstance(step, bytes) and transport.protocol is not None
                transport.protocol.dataReceived(step)
                self.clock.callLater(0, self._send, transport, steps)
            return

    def header(self, name: str, request: int = -1) -> str | None:
        """A header of a request, None where it is absent."""
        for line in self.requests[request].split(b"\r\n")[1:]:
            key, _, value = line.partition(b": ")
            if key.lower() == name.lower().encode():
                return value.decode("latin-1")
        return None


def reply(status: int, body: bytes = b"", length: int | None = None, **headers: str) -> bytes:
    """The bytes of an answer; `length` lies about the body."""
    lines = [f"HTTP/1.1 {status} Something"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if status not in (204, 304):
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
