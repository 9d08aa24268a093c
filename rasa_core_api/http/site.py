"""The site: requests that know a limit for their bodies, and no access log unless it is asked for."""

from __future__ import annotations

import io
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.http import Request as AnyRequest
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from rasa_core_api.http.connections import ApiChannel, Crowd

log = Logger()

#: Seconds that a client gets to finish sending a body that was refused already.
LINGER = 30.0
#: Bytes of a request's line and headers: an id of 10 kB, percent-encoded, still gets its answer.
MAX_HEAD = 65_536
#: Seconds without a byte after which a connection is closed.
IDLE = 60.0


class _Sink(io.RawIOBase):
    """Takes the rest of a body that nobody will read; only its length is kept."""

    def __init__(self, size: int) -> None:
        self._size = size

    def write(self, data: Any) -> int:
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._size

    def read(self, size: int = -1) -> bytes:
        return b""


class ApiRequest(Request):
    """A request whose body is refused as soon as it is known to be too large.

    The answer leaves at once; what the client still sends is thrown away for a while, because a connection
    that is closed in its face would lose the answer.
    """

    channel: Any
    content: Any
    _early = False  # answering before the body is complete
    _complete = False
    _answered = False
    _linger: Any = None

    def gotLength(self, length: int | None) -> None:
        limit = self.channel.site.max_body
        if length is not None and length > limit:
            self._refuse(length)
        else:
            Request.gotLength(self, length)

    def handleContentChunk(self, data: bytes) -> None:
        Request.handleContentChunk(self, data)
        size = self.content.tell()
        if not self._early and size > self.channel.site.max_body:
            self.content.close()
            self._refuse(size)

    def _refuse(self, size: int) -> None:
        """Answer now: the route's rights come first, then reading the body fails with 413."""
        self.content = _Sink(size)
        self._early = True
        channel = self.channel
        channel.persistent = False
        self.requestHeaders.removeHeader(b"Expect")  # no "100 Continue" after the answer
        self.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        # where the channel keeps the request line until the body is complete; without it, the answer waits
        line = [getattr(channel, name, None) for name in ("_command", "_path", "_version")]
        if None not in line:
            self._linger = channel.site.clock.callLater(LINGER, self._give_up)
            Request.requestReceived(self, *line)
        else:
            self._early = False

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if not self._early:
            Request.requestReceived(self, command, path, version)
            return
        self._complete = True
        if self._answered:
            self.finish()

    def finish(self) -> None:
        if self._early and not self._complete:
            self._answered = True
            if not self.startedWriting:
                Request.write(self, b"")
            return
        self._stop_waiting()
        Request.finish(self)

    def connectionLost(self, reason: Any) -> None:
        self._stop_waiting()
        Request.connectionLost(self, reason)

    def _stop_waiting(self) -> None:
        if self._linger is not None and self._linger.active():
            self._linger.cancel()

    def _give_up(self) -> None:
        self.channel.transport.abortConnection()


class ApiSite(Site):
    """Serves the API; `max_body` is in bytes.

    Form bodies are not parsed here: channels that want them do it themselves. `access_log` writes a
    debug line a request, without the query string, which carries tokens and texts.
    """

    requestFactory = ApiRequest
    displayTracebacks = False
    noisy = False  # no lines on starting and stopping in the log

    def __init__(
        self,
        resource: IResource,
        clock: IReactorTime,
        max_body: int,
        access_log: bool = False,
        max_connections: int | None = None,
    ) -> None:
        Site.__init__(self, resource, timeout=IDLE, reactor=clock, parsePOSTFormSubmission=False)
        self.clock = clock
        self.max_body = max_body
        self.access_log = access_log
        self.crowd = Crowd(clock, max_connections)

    def buildProtocol(self, addr: Any) -> Any:
        """A connection that reads request lines and headers up to `MAX_HEAD` bytes; None where there is no room."""
        if not self.crowd.make_room():
            return None
        connection: Any = ApiChannel(self.crowd)
        connection.callLater = self.clock.callLater
        connection.factory = connection.site = self
        connection.timeOut = self.timeOut
        connection.requestFactory = self.requestFactory
        connection.MAX_LENGTH = connection.totalHeadersSize = MAX_HEAD
        return connection

    def startFactory(self) -> None:
        """Nothing to prepare: there is no log file whose lines need the time."""

    def log(self, request: AnyRequest) -> None:
        if self.access_log:
            log.debug(
                "{method} {path} {code} {size}",
                method=request.method.decode("latin-1"),
                path=request.path.decode("latin-1"),
                code=request.code,
                size=request.sentLength,
            )
