"""Events in a queue of RabbitMQ, over pika's Twisted adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.python.failure import Failure

from rasa_core_api.brokers import BATCH, BrokerFailed, EventBroker, Message, MessageRefused
from rasa_core_api.exceptions import InvalidConfiguration

DEFAULT_QUEUE = "rasa_core_events"
PORTS = {"amqp": 5672, "amqps": 5671}
#: Seconds between two signs of life on the connection.
HEARTBEAT = 30
#: Seconds that a server may take nothing, for want of memory or disk.
BLOCKED = 8
#: Seconds after a rejection in which messages go one by one.
CAREFUL = 600.0
#: Seconds for a polite end.
_GOODBYE = 2.0


@frozen(kw_only=True)
class Address:
    """Where a RabbitMQ listens, and who asks."""

    host: str
    port: int
    username: str
    password: str
    virtual_host: str = "/"
    tls: bool = False

    @classmethod
    def from_url(cls, url: str, username: str | None, password: str | None, port: int | None, key: str) -> Address:
        """A host's name, or an `amqp://` or `amqps://` URL; what is given beside it wins. Raises naming `key`."""
        try:
            parts = urlsplit(url if "://" in url else f"amqp://{url}")
            found = port or parts.port
        except ValueError as error:
            raise InvalidConfiguration(f"{key}: this is no address: {error}") from None
        if parts.scheme not in PORTS or not parts.hostname or parts.query:
            raise InvalidConfiguration(f"{key}: the name of a host is expected, or an amqp:// or amqps:// URL")
        return cls(
            host=parts.hostname,
            port=found or PORTS[parts.scheme],
            username=username or unquote(parts.username or "guest"),
            password=password or unquote(parts.password or "guest"),
            virtual_host=unquote(parts.path[1:]) or "/",
            tls=parts.scheme == "amqps",
        )


class PikaBroker(EventBroker):
    """Publishes to a durable queue through the default exchange; each message is confirmed by the server."""

    name = "pika"

    def __init__(self, reactor: Any, address: Address, queue: str = DEFAULT_QUEUE) -> None:
        self._reactor = reactor
        self._address = address
        self._queue = queue
        self._protocol: Any = None
        self._channel: Any = None
        self._careful_until = 0.0

    @property
    def at_once(self) -> int:
        """A queue that is full rejects a message, and may take those behind it: they would arrive before it."""
        return BATCH if self._reactor.seconds() >= self._careful_until else 1

    async def open(self) -> None:
        from rasa_core_api.brokers import pika_connection

        self._protocol = None
        try:
            await self._open()
        except pika_connection.ERRORS as error:
            raise self._failed(pika_connection.reason(error, self._protocol)) from error
        except (ConnectError, DNSLookupError, OSError) as error:
            raise self._failed(str(error).rstrip(".")) from error

    async def _open(self) -> None:
        import pika

        from rasa_core_api.brokers.pika_connection import Connection

        address = self._address
        parameters = pika.ConnectionParameters(
            credentials=pika.PlainCredentials(address.username, address.password),
            virtual_host=address.virtual_host,
            heartbeat=HEARTBEAT,
            blocked_connection_timeout=BLOCKED,
            client_properties={"product": "rasa_core_api"},
        )
        protocol = Connection(parameters, custom_reactor=self._reactor)
        endpoint: Any = HostnameEndpoint(self._reactor, address.host, address.port)
        if address.tls:
            from twisted.internet.ssl import optionsForClientTLS

            endpoint = wrapClientTLS(optionsForClientTLS(address.host), endpoint)
        ready = protocol.ready
        await connectProtocol(endpoint, protocol)
        self._protocol = protocol
        await ready
        channel = self._channel = await protocol.channel()
        await channel.queue_declare(queue=self._queue, durable=True)
        await channel.confirm_delivery()

    def _failed(self, reason: str, taken: int = 0) -> BrokerFailed:
        return BrokerFailed(f"RabbitMQ at {self._address.host}:{self._address.port}: {reason}", taken)

    async def publish(self, messages: Sequence[Message]) -> None:
        import pika

        from rasa_core_api.brokers import pika_connection

        channel = self._channel
        if channel is None or channel.is_closed:
            raise self._failed("the connection is closed")
        confirmed: list[Deferred[Any]] = []
        for message in messages:
            properties = pika.BasicProperties(
                content_type="application/json",
                delivery_mode=2,
                headers={"sender_id": message.sender_id, "seq": message.seq},
            )
            confirmed.append(
                channel.basic_publish("", self._queue, message.body.encode("ascii"), properties, mandatory=True)
            )
        results = await _all(confirmed)
        taken = next((number for number, error in enumerate(results) if error is not None), None)
        if taken is None:
            return
        error = results[taken]
        assert error is not None
        if pika_connection.is_rejection(error):
            self._careful_until = self._reactor.seconds() + CAREFUL
        if len(messages) == 1 and pika_connection.is_too_large(error):
            raise MessageRefused(pika_connection.reason(error))
        raise self._failed(pika_connection.reason(error, self._protocol), taken)

    async def close(self) -> None:
        protocol, self._protocol, self._channel = self._protocol, None, None
        if protocol is None or protocol.transport is None:
            return
        if protocol.is_open:
            closed = protocol.closed
            protocol.close()
            if closed is not None:
                closed.addTimeout(_GOODBYE, self._reactor)
                await closed.addBoth(lambda _: None)
        if protocol.transport.connected:
            protocol.transport.abortConnection()


async def _all(waiting: Sequence[Deferred[Any]]) -> list[BaseException | None]:
    """The failure of each, None for those that went well. All are waited for: none is left to fail unseen."""
    results: list[BaseException | None] = [None] * len(waiting)

    def failed(failure: Failure, number: int) -> None:
        results[number] = failure.value

    for number, one in enumerate(waiting):
        one.addErrback(failed, number)
    await gatherResults(waiting)
    for error in results:
        if isinstance(error, CancelledError):  # whoever waited gave up
            raise error
    return results
