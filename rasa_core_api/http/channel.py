"""One client's connection: requests that arrive in time and whole, and a refusal in JSON for those that do not."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers
from zope.interface import implementer

from rasa_core_api.exceptions import RasaCoreError
from rasa_core_api.http.connections import Crowd
from rasa_core_api.http.errors import BadRequest, HeadersTooLarge, HTTPError, RequestTimeout, TargetTooLong, answer_to
from rasa_core_api.http.framing import header_fault, request_line
from rasa_core_api.jsontext import encode

#: Seconds that a request may take to arrive, and bytes a second at least after that.
ARRIVAL, PACE = 60.0, 16_384
#: Bytes of a request's line and headers: an id of 10 kB, percent-encoded, still gets its answer.
MAX_HEAD = 65_536
#: Lines of a request's headers.
MAX_HEADERS = 500
#: Seconds that a refused client may go on sending, and seconds of silence after which it has read its answer.
LINGER, SILENCE = 10.0, 1.0


@implementer(IHalfCloseableProtocol)
class ApiChannel(HTTPChannel):
    """A client's connection. A request that does not arrive in `ARRIVAL` seconds, or at `PACE` after that, ends it.

    Where a client may still be sending, our side is closed first and what comes is thrown away for a moment: a
    connection that is closed in its face would lose the answer. A client that closes its side after its request still
    gets its answer; whether it is really gone shows when that is sent.
    """

    MAX_LENGTH = totalHeadersSize = MAX_HEAD
    maxHeaders = MAX_HEADERS
    site: Any

    def __init__(self, crowd: Crowd) -> None:
        HTTPChannel.__init__(self)
        self._crowd = crowd
        self._began: float | None = None  # when the first byte of a request came
        self._size = 0  # bytes of it
        self._check: IDelayedCall | None = None
        self._head = 0  # bytes of its line and headers
        self._headers = 0  # lines of these
        self._last = False  # nothing more will come
        self._leaving = False
        self._end: IDelayedCall | None = None
        self._quiet: IDelayedCall | None = None

    @property
    def answering(self) -> bool:
        """Whether a request is complete and not answered yet."""
        return self._began is None and bool(self.requests)

    def connectionMade(self) -> None:
        self._crowd.enter(self)
        HTTPChannel.connectionMade(self)

    # --- what arrives --------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        if self._leaving:
            if self._quiet is not None:
                self._quiet.reset(SILENCE)
            return
        if self._began is None and not self.requests:
            self._began = self._crowd.clock.seconds()
            self._size = 0
        self._size += len(data)
        HTTPChannel.dataReceived(self, data)
        if self._began is not None and self._check is None and not self._leaving:
            self._check = self._crowd.clock.callLater(ARRIVAL, self._look)
        self._crowd.heard(self)

    def lineReceived(self, line: bytes) -> None:
        if self._leaving:
            return
        self._head += len(line) + 2
        if self._head > MAX_HEAD:
            self.lineLengthExceeded(line)
            return
        if self.requests:
            self._headers += 1
            if line and self._headers > MAX_HEADERS:
                self.refuse(HeadersTooLarge(f"A request has at most {MAX_HEADERS} headers."))
                return
        elif line:
            try:
                line = request_line(line)
            except HTTPError as error:
                self.refuse(error)
                return
        try:
            HTTPChannel.lineReceived(self, line)
        except ValueError:
            if self._began is None:  # it is no fault of the headers
                raise
            self._respondToBadRequestAndDisconnect()  # a Content-Length of more digits than Python reads

    def allHeadersReceived(self) -> None:
        """Two codings of a body, one of which may be none at all, are read in one way here, in another by proxies."""
        if len(self.requests[-1].requestHeaders.getRawHeaders(b"Transfer-Encoding", ())) > 1:
            self.refuse(header_fault(b"Transfer-Encoding: identity"))
        else:
            HTTPChannel.allHeadersReceived(self)

    def lineLengthExceeded(self, line: bytes) -> None:
        what = f"A request's line and headers have at most {MAX_HEAD} bytes."
        self.refuse(HeadersTooLarge(what) if self.requests else TargetTooLong(what))

    def allContentReceived(self) -> None:
        if self._leaving:
            return
        self._arrived()
        self._head = self._headers = 0
        HTTPChannel.allContentReceived(self)

    def _arrived(self) -> None:
        self._began = None
        if self._check is not None:
            self._check.cancel()
            self._check = None

    def _look(self) -> None:
        """The request is not complete yet: go on waiting for as long as its bytes pay for."""
        self._check = None
        assert self._began is not None
        left = self._began + ARRIVAL + self._size / PACE - self._crowd.clock.seconds()
        if left > 0.1:
            self._check = self._crowd.clock.callLater(left, self._look)
        else:
            self._too_late(ARRIVAL)

    def timeoutConnection(self) -> None:
        if self._began is None:
            HTTPChannel.timeoutConnection(self)
        else:
            self._too_late(self.timeOut or 0)

    def _too_late(self, seconds: float) -> None:
        self.refuse(RequestTimeout(f"The request was not complete after {seconds:g} s."))

    def readConnectionLost(self) -> None:
        """The client will not send anything more, or is gone."""
        self._last = True
        transport: Any = self.transport
        if self.answering and not self.requests[0].startedWriting:
            return
        if self.requests and not self._leaving:  # half a request, or a reader of a stream
            self.abort()
        else:
            transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Our side is closed, as it was meant to be."""

    # --- refusals and the end ------------------------------------------------------------------------

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Called by Twisted for whatever it cannot make a request of."""
        if not self.line_mode:
            self.refuse(BadRequest("The body is malformed: chunks, each with its length, are expected."))
        else:
            self.refuse(header_fault(getattr(self, "_HTTPChannel__header", b"")))  # the one that was looked at

    def refuse(self, error: RasaCoreError) -> None:
        """Answer what is no request, or one that is not waited for, and close."""
        if self._leaving:
            return
        site, transport = self.site, self.transport
        method, target = getattr(self, "_command", b"-"), getattr(self, "_path", b"-")
        answer = answer_to(error, site.version)
        reason = str(answer.body["reason"])
        site.refusals.refused(method, target.partition(b"?")[0], answer.status, reason, error)
        requests, self.requests = self.requests, []
        self._leave()
        for request in requests:
            request.connectionLost(Failure(ConnectionDone()))
        body = (encode(answer.body) + "\n").encode("ascii")
        more = "".join(f"{name.decode('ascii')}: {value.decode('ascii')}\r\n" for name, value in answer.headers.items())
        head = (
            f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\nContent-Type: application/json\r\n{more}"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        assert transport is not None
        transport.write(head.encode("ascii") + (b"" if method == b"HEAD" else body))
        self._half_close()

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """Begin an answer, the last one where the server is about to end: the client would send into nothing."""
        if self.site.ending:
            self.persistent = False
            headers.setRawHeaders(b"Connection", [b"close"])
        HTTPChannel.writeHeaders(self, version, code, reason, headers)

    def loseConnection(self) -> None:
        if self._leaving:
            return
        if self._began is None:
            HTTPChannel.loseConnection(self)
        else:  # answered before the body was there
            self._leave()
            self._half_close()

    def _leave(self) -> None:
        self._leaving = True
        self._arrived()
        self.setTimeout(None)  # type: ignore[no-untyped-call]
        self.clearLineBuffer()  # type: ignore[no-untyped-call]

    def _half_close(self) -> None:
        transport: Any = self.transport
        transport.unregisterProducer()
        transport.loseWriteConnection()
        transport.resumeProducing()
        clock = self._crowd.clock
        self._end = clock.callLater(LINGER, self._over)
        self._quiet = clock.callLater(SILENCE, self._over)
        self._crowd.heard(self)

    def _over(self) -> None:
        self._stop_waiting()
        transport: Any = self.transport
        transport.loseConnection()
        # an answer that is not taken is not waited for
        self._end = self._crowd.clock.callLater(LINGER, self.abort)

    def _stop_waiting(self) -> None:
        for call in (self._end, self._quiet):
            if call is not None and call.active():
                call.cancel()
        self._end = self._quiet = None

    def requestDone(self, request: Any) -> None:
        HTTPChannel.requestDone(self, request)
        self._crowd.heard(self)
        if self._last:  # what came before the end is answered first
            self._crowd.clock.callLater(0, self.readConnectionLost)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._arrived()
        self._stop_waiting()
        self._crowd.leave(self)
        HTTPChannel.connectionLost(self, reason)

    def abort(self) -> None:
        """End the connection at once."""
        transport: Any = self.transport
        transport.abortConnection()
