"""The site: requests that know a limit for their bodies, and no access log unless it is asked for."""

from __future__ import annotations

import io
import tempfile
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.http import Request as AnyRequest
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from rasa_core_api.exceptions import ServerBusy
from rasa_core_api.http.channel import ApiChannel
from rasa_core_api.http.connections import Crowd
from rasa_core_api.http.refusals import Refusals
from rasa_core_api.http.spools import IN_MEMORY, PART, TIMES, Spools
from rasa_core_api.version import DEFAULT_COMPATIBILITY_VERSION

log = Logger()

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
    """A request whose body is refused as soon as it is known to be too large, or to find no room.

    The answer leaves at once, and the connection ends. A body is in memory until it has more than `IN_MEMORY` bytes.
    """

    channel: Any
    content: Any
    _early = False  # the handler began before the body was complete
    _on_disk: int | None = None  # bytes of the body in a file

    def gotLength(self, length: int | None) -> None:
        limit = self.channel.site.max_body
        if length is not None and length > limit:
            self._refuse(length)
        else:
            self.content = io.BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        if self.finished or self.channel is None:
            return
        size = self.content.tell() + len(data)
        if not self._early and size > self.channel.site.max_body:
            self.content.close()
            self._refuse(size)
        elif self._early or size <= IN_MEMORY:
            self.content.write(data)
        else:
            self._spool(data)

    def _spool(self, data: bytes) -> None:
        """Go on with the body in a file. Without a name: it is gone with its last descriptor, however we end."""
        try:
            if self._in_file(data):
                return
            error = ServerBusy("The server holds as many large bodies as it can, try again in a moment.")
        except OSError as failed:
            error = ServerBusy(f"The body cannot be kept: {failed.strerror}.")
        self.channel.refuse(error)

    def _in_file(self, data: bytes) -> bool:
        spools = self.channel.site.spools
        if self._on_disk is None:
            if not spools.begin():
                return False
            self._on_disk = 0
            self.notifyFinish().addBoth(lambda _: spools.end(self._on_disk))
            data = self.content.getvalue() + data
            self.content = tempfile.TemporaryFile()  # noqa: SIM115
        if not spools.grow(len(data)):
            return False
        self._on_disk += len(data)
        self.content.write(data)
        self.content.flush()  # a full disk is found now, not where the body is read
        return True

    def _refuse(self, size: int) -> None:
        """Answer now: the route's rights come first, then reading the body fails with 413."""
        self.content = _Sink(size)
        channel = self.channel
        channel.persistent = False
        self.requestHeaders.removeHeader(b"Expect")  # no "100 Continue" after the answer
        self.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        # where the channel keeps the request line until the body is complete; without it, the answer waits
        line = [getattr(channel, name, None) for name in ("_command", "_path", "_version")]
        if None not in line:
            self._early = True
            Request.requestReceived(self, *line)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if not self._early:
            Request.requestReceived(self, command, path, version)


class ApiSite(Site):
    """Serves the API; `max_body` is in bytes, `version` the release that error envelopes name.

    Form bodies are not parsed here: channels that want them do it themselves. `access_log` writes a
    debug line a request, without the query string, which carries tokens and texts.
    """

    requestFactory = ApiRequest
    displayTracebacks = False
    noisy = False  # no lines on starting and stopping in the log
    ending = False  # the server is about to end: each connection is closed after its next answer

    def __init__(
        self,
        resource: IResource,
        clock: IReactorTime,
        max_body: int,
        access_log: bool = False,
        max_connections: int | None = None,
        version: str = DEFAULT_COMPATIBILITY_VERSION,
        refusals: Refusals | None = None,
    ) -> None:
        Site.__init__(self, resource, timeout=IDLE, reactor=clock, parsePOSTFormSubmission=False)
        self.clock = clock
        self.max_body = max_body
        self.access_log = access_log
        self.version = version
        self.refusals = refusals or Refusals(clock)
        self.crowd = Crowd(clock, max_connections)
        files = None if max_connections is None else max(1, max_connections // PART)
        self.spools = Spools(TIMES * max_body, files)

    def buildProtocol(self, addr: Any) -> Any:
        """A connection; None where there is no room."""
        if not self.crowd.make_room():
            return None
        connection: Any = ApiChannel(self.crowd)
        connection.callLater = self.clock.callLater
        connection.factory = connection.site = self
        connection.timeOut = self.timeOut
        connection.requestFactory = self.requestFactory
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
