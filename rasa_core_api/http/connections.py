"""Open connections: how many there may be, how long a client may take to ask, and noticing that it is gone."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

log = Logger()

#: Seconds that a request may take to arrive, and bytes a second at least after that.
ARRIVAL, PACE = 60.0, 16_384
#: Silent seconds, seconds between two questions and unanswered ones after which the system drops a connection.
KEEPALIVE = (60, 15, 4)
#: Seconds between two lines about a full house.
_SAID = 10.0
#: Descriptors for files, stores and the log.
_RESERVE = 64


def keep_alive(listening: Any) -> None:
    """Have the system ask clients that say nothing; accepted connections inherit it from the listening socket."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in zip(("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"), KEEPALIVE, strict=True):
        option = getattr(socket, name, None)
        if option is not None:
            listening.setsockopt(socket.IPPROTO_TCP, option, value)


def connections_within_reach(wanted: int) -> int:
    """As many as wanted, or as half of this process's descriptors allow: a turn may need one for a call of its own."""
    try:
        import resource
    except ImportError:  # not a Unix: it has no such limit
        return wanted
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    reach = wanted if soft == resource.RLIM_INFINITY else max(1, (soft - _RESERVE) // 2)
    if reach < wanted:
        log.debug(
            "{reach} connections at most, since this process may have {soft} open files", reach=reach, soft=soft
        )
    return min(wanted, reach)


class Crowd:
    """All open connections. At the limit a new one takes the place of the one that was silent the longest.

    Connections whose request is being answered stay; where there are only such, the new one is turned away.
    """

    def __init__(self, clock: IReactorTime, limit: int | None = None) -> None:
        self.clock = clock
        self.limit = limit
        self._open: set[ApiChannel] = set()
        self._silent: dict[ApiChannel, None] = {}  # those that can be closed, silent the longest first
        self._said = -_SAID

    def __len__(self) -> int:
        return len(self._open)

    def make_room(self) -> bool:
        """Whether there is room for one more, if need be by closing another."""
        if self.limit is None or len(self._open) < self.limit:
            return True
        oldest = next(iter(self._silent), None)
        if oldest is None:
            self._say("all {limit} connections wait for answers: new ones are turned away")
            return False
        self._say("all {limit} connections are taken: new ones replace those that are silent")
        self.leave(oldest)
        oldest.abort()
        return True

    def _say(self, text: str) -> None:
        now = self.clock.seconds()
        if now - self._said >= _SAID:
            self._said = now
            log.warn(text, limit=self.limit)

    def enter(self, channel: ApiChannel) -> None:
        """A connection was opened."""
        self._open.add(channel)
        self.heard(channel)

    def heard(self, channel: ApiChannel) -> None:
        """Something came from it, or an answer is done."""
        self._silent.pop(channel, None)
        if channel in self._open and not channel.answering:
            self._silent[channel] = None

    def leave(self, channel: ApiChannel) -> None:
        """It is closed."""
        self._open.discard(channel)
        self._silent.pop(channel, None)


class ApiChannel(HTTPChannel):
    """A client's connection. A request that does not arrive in `ARRIVAL` seconds, or at `PACE` after that, ends it."""

    def __init__(self, crowd: Crowd) -> None:
        HTTPChannel.__init__(self)
        self._crowd = crowd
        self._began: float | None = None  # when the first byte of a request came
        self._size = 0  # bytes of it
        self._check: IDelayedCall | None = None

    @property
    def answering(self) -> bool:
        """Whether a request is complete and not answered yet."""
        return self._began is None and bool(self.requests)

    def connectionMade(self) -> None:
        self._crowd.enter(self)
        HTTPChannel.connectionMade(self)

    def dataReceived(self, data: bytes) -> None:
        if self._began is None and not self.requests:
            self._began = self._crowd.clock.seconds()
            self._size = 0
        self._size += len(data)
        HTTPChannel.dataReceived(self, data)
        if self._began is not None and self._check is None:
            self._check = self._crowd.clock.callLater(ARRIVAL, self._look)
        self._crowd.heard(self)

    def requestDone(self, request: Any) -> None:
        HTTPChannel.requestDone(self, request)
        self._crowd.heard(self)

    def allContentReceived(self) -> None:
        self._arrived()
        HTTPChannel.allContentReceived(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._arrived()
        self._crowd.leave(self)
        HTTPChannel.connectionLost(self, reason)

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
            return
        log.info("a client did not finish its request in {seconds:g} s and was cut off", seconds=ARRIVAL)
        self.abort()

    def abort(self) -> None:
        """End the connection at once."""
        transport: Any = self.transport
        transport.abortConnection()
