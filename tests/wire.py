"""HTTP without sockets: a site is fed bytes, and what it writes is read as responses."""

from __future__ import annotations

import http.client
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.server import Site


@frozen
class Response:
    """A response as it arrived."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")

    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json", self
        assert self.body.endswith(b"\n")
        return json.loads(self.body)


class Transport(StringTransport):
    """A connection that can be aborted, and that holds up its producer beyond `capacity` unread bytes."""

    aborted = False
    capacity: int | None = None

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.capacity is not None and self.producer is not None and len(self.value()) > self.capacity:
            self.producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    half_closed = False

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def abortConnection(self) -> None:
        self.aborted = True
        self.disconnected = True


class _Received(io.BytesIO):
    """Bytes that `http.client` reads as a socket; what is left over can be read afterwards."""

    def makefile(self, *_: Any, **__: Any) -> _Received:
        return self

    def close(self) -> None:
        """Stay open."""


class Connection:
    """One client's connection to a site on a clock."""

    def __init__(self, site: Site, clock: Clock) -> None:
        self.clock = clock
        self.transport = Transport()
        protocol = site.buildProtocol(None)
        assert protocol is not None
        self.protocol = protocol
        self.protocol.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        self.protocol.dataReceived(data)

    def rounds(self, count: int = 2_000) -> None:
        """Let the server work until it has nothing to do at once."""
        for _ in range(count):
            if not any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
                break
            self.clock.advance(0)

    def close_our_side(self) -> None:
        """Tell the server that nothing more will come."""
        self.protocol.readConnectionLost()  # type: ignore[attr-defined]

    def hang_up(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def response(self, method: str = "GET") -> Response:
        """The next response; what follows it stays."""
        received = _Received(self.transport.value())
        self.transport.clear()
        raw = http.client.HTTPResponse(received, method=method)  # type: ignore[arg-type]
        raw.begin()
        headers: dict[str, str] = {}
        for name, value in raw.getheaders():
            assert name.lower() not in headers, f"{name} is there twice"
            headers[name.lower()] = value
        body = raw.read()
        self.transport.write(received.read())
        return Response(raw.status, headers, body)


    def streamed(self) -> tuple[list[str], str]:
        """The lines of the head of a response that goes on, and what its chunks hold so far."""
        head, _, rest = self.transport.value().partition(b"\r\n\r\n")
        body = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        return head.decode("ascii").split("\r\n"), body.decode("utf-8")


class Wire:
    """Asks a site over a connection of its own for each request."""

    def __init__(self, site: Site, clock: Clock) -> None:
        self.site = site
        self.clock = clock

    def connect(self) -> Connection:
        return Connection(self.site, self.clock)

    def begin(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Connection:
        """Send a request; a body that is not bytes is sent as JSON."""
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = {"Host": "bot", **(headers or {})}
        if body is not None:
            lines.setdefault("Content-Length", str(len(raw)))
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        connection = self.connect()
        connection.send(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + raw)
        connection.rounds()
        return connection

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Response:
        """The response to one request, which must not wait for time to pass."""
        return self.begin(method, path, body, headers).response(method)

    def get(self, path: str, **headers: str) -> Response:
        return self.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def post(self, path: str, body: Any = None, **headers: str) -> Response:
        return self.ask("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})

    def put(self, path: str, body: Any = None) -> Response:
        return self.ask("PUT", path, body)
