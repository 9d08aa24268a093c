"""Connections to Redis that come back, whatever happened to them; importing this needs txredisapi."""

from __future__ import annotations

from typing import Any

import txredisapi
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure

log = Logger()

#: What a script raises that the server does not know.
UNKNOWN_SCRIPT = txredisapi.ScriptDoesNotExist
#: What the server says no with.
REFUSAL = txredisapi.ResponseError
#: What a command may raise.
ERRORS = (txredisapi.RedisError, OSError, TimeoutError)

#: Seconds until a lost connection is tried again; each further wait is longer, up to 10.
_FIRST_RETRY = 0.1


class Connection(txredisapi.RedisProtocol):  # type: ignore[misc]
    """Logs in and chooses its database itself.

    Where that fails - the server goes away, or is still reading its file - the library's own connection ends the
    attempts of the whole pool for good, and leaves a failed Deferred that nobody looks at. Here the connection is
    closed, and tried again like any lost one.
    """

    password: str | None
    dbid: int | None

    def connectionMade(self) -> None:
        Deferred.fromCoroutine(self._prepare())

    async def _prepare(self) -> None:
        first = [] if self.password is None else [("AUTH", self.password)]
        try:
            for command in [*first, ("SELECT", self.dbid)]:
                answer = await self.execute_command(*command)
                if isinstance(answer, txredisapi.ResponseError):
                    raise answer
        except ERRORS as error:
            self.factory.refusal = str(error) if isinstance(error, txredisapi.ResponseError) else None
            log.warn("redis at {address} does not let us in: {error}", address=self.factory.uuid, error=str(error))
            self.transport.loseConnection()
            return
        self.factory.refusal = None
        self.password = self.dbid = None
        super().connectionMade()


#: What Redis calls states that pass, or that somebody has to end.
_STATES = {"BUSY", "LOADING", "MASTERDOWN", "MISCONF", "NOAUTH", "NOPERM", "NOREPLICAS", "OOM", "READONLY", "WRONGTYPE"}


def state(error: Exception) -> str | None:
    """What the server said is the matter with it; the rest of its words may hold data."""
    return next((word for word in str(error).replace("-", " ").split() if word in _STATES), None)


def renew(pool: Any) -> None:
    """Have all connections made anew: the name of the server may be another one's by now."""
    for connection in list(pool._factory.pool):
        connection.transport.loseConnection()


def connect(host: str, port: int, db: int, password: str | None, size: int, **options: Any) -> Any:
    """Start `size` connections; a command of the answer waits for the first. End them with `disconnect()`."""
    pool = txredisapi.lazyConnectionPool(host, port, db, poolsize=size, password=password, **options)
    factory = pool._factory  # the reactor did not run yet, so there is no connection made of the defaults
    factory.protocol = Connection
    factory.initialDelay = _FIRST_RETRY

    def note(failure: Failure) -> None:
        if not failure.check(CancelledError):  # the pool was closed before
            factory.unreached = str(failure.value) or type(failure.value).__name__

    factory.slots[0].service.whenConnected(failAfterFailures=1).addErrback(note)
    return pool


def reason(pool: Any, error: Exception) -> str:
    """Why there is no answer: what the server said to the connection tried last, or why it was not reached."""
    factory = pool._factory
    told: str | None = getattr(factory, "refusal", None) or getattr(factory, "unreached", None)
    return told or type(error).__name__
