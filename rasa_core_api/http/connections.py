"""Open connections: how many there may be, and noticing that a client is gone."""

from __future__ import annotations

import socket
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rasa_core_api.http.spools import PART

log = Logger()

#: Silent seconds, seconds between two questions and unanswered ones after which the system drops a connection.
KEEPALIVE = (60, 15, 4)
#: Seconds after which the system drops a connection whose client takes note of nothing that was sent.
UNNOTICED = 120
#: Seconds between two lines about a full house.
_SAID = 10.0
#: Descriptors for files, stores and the log.
_RESERVE = 64


def keep_alive(listening: Any) -> None:
    """Have the system find out that a client is gone; accepted connections inherit it from the listening socket.

    Those that say nothing are asked. Where something is under way to them, as in a stream with its signs of life, the
    system does not ask: there it counts for how long nothing was acknowledged.
    """
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in zip(("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"), KEEPALIVE, strict=True):
        option = getattr(socket, name, None)
        if option is not None:
            listening.setsockopt(socket.IPPROTO_TCP, option, value)
    unnoticed = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux
    if unnoticed is not None:
        listening.setsockopt(socket.IPPROTO_TCP, unnoticed, UNNOTICED * 1000)


def connections_within_reach(wanted: int) -> int:
    """As many as wanted, or as this process's descriptors allow.

    A turn may need one for a call of its own, and one connection of `PART` one for its body.
    """
    try:
        import resource
    except ImportError:  # not a Unix: it has no such limit
        return wanted
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    reach = wanted if soft == resource.RLIM_INFINITY else max(1, (soft - _RESERVE) * PART // (2 * PART + 1))
    if reach < wanted:
        log.debug(
            "{reach} connections at most, since this process may have {soft} open files", reach=reach, soft=soft
        )
    return min(wanted, reach)


class Occupant(Protocol):
    """A connection."""

    @property
    def answering(self) -> bool:
        """Whether it waits for an answer of ours."""

    def abort(self) -> None:
        """End it at once."""


class Crowd:
    """All open connections. At the limit a new one takes the place of the one that was silent the longest.

    Connections whose request is being answered stay; where there are only such, the new one is turned away.
    """

    def __init__(self, clock: IReactorTime, limit: int | None = None) -> None:
        self.clock = clock
        self.limit = limit
        self._open: set[Occupant] = set()
        self._silent: dict[Occupant, None] = {}  # those that can be closed, silent the longest first
        self._said = -_SAID

    def __len__(self) -> int:
        return len(self._open)

    @property
    def answering(self) -> bool:
        """Whether one of them waits for an answer."""
        return any(occupant.answering for occupant in self._open)

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

    def enter(self, channel: Occupant) -> None:
        """A connection was opened."""
        self._open.add(channel)
        self.heard(channel)

    def heard(self, channel: Occupant) -> None:
        """Something came from it, or an answer is done."""
        self._silent.pop(channel, None)
        if channel in self._open and not channel.answering:
            self._silent[channel] = None

    def leave(self, channel: Occupant) -> None:
        """It is closed."""
        self._open.discard(channel)
        self._silent.pop(channel, None)
