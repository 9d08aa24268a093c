"""A connection to RabbitMQ that tells why it ended; importing this needs pika."""

from __future__ import annotations

import logging
from typing import Any

from pika.adapters.twisted_connection import TwistedProtocolConnection
from pika.exceptions import (
    AMQPError,
    ChannelClosedByBroker,
    ConnectionBlockedTimeout,
    NackError,
    UnroutableError,
)

#: What any step may raise.
ERRORS = (AMQPError,)
#: AMQP's code for what a channel may not do: also for a message that is larger than the server takes.
_PRECONDITION_FAILED = 406

logging.getLogger("pika").setLevel(logging.CRITICAL)  # who waits for the broker tells of it, once


class Connection(TwistedProtocolConnection):  # type: ignore[misc]
    """Keeps what the library drops when a connection ends: why the server, or the client, ended it."""

    cause: BaseException | None = None

    def connectionLost(self, reason: Any) -> None:
        pending = getattr(self._impl, "_error", None)
        self.cause = pending if isinstance(pending, AMQPError) else None
        super().connectionLost(reason)


def reason(error: BaseException, connection: Connection | None = None) -> str:
    """What went wrong in words; what a server says has no secrets."""
    if connection is not None and connection.cause is not None:
        error = connection.cause
    if isinstance(error, ConnectionBlockedTimeout):
        return "it takes no messages now: it is short of memory or of disk"
    if isinstance(error, NackError):
        return "it rejected a message: the queue may be full"
    if isinstance(error, UnroutableError):
        return "the queue is gone"
    said = [argument for argument in error.args if isinstance(argument, str) and argument]
    return said[0] if said and isinstance(error, AMQPError) else type(error).__name__


def is_rejection(error: BaseException) -> bool:
    """Whether the queue did not take a message, while the channel goes on."""
    return isinstance(error, NackError)


def is_too_large(error: BaseException) -> bool:
    """Whether this is how a server refuses the size of a message, where it was only one."""
    return isinstance(error, ChannelClosedByBroker) and error.reply_code == _PRECONDITION_FAILED
