"""Events in a queue of RabbitMQ, over pika's Twisted adapter."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from attrs import frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.python.failure import Failure

from rasa_core_api.brokers import BrokerFailed, EventBroker, Message
from rasa_core_api.exceptions import InvalidConfiguration

DEFAULT_QUEUE = "rasa_core_events"
PORTS = {"amqp": 5672, "amqps": 5671}
#: Seconds between two signs of life on the connection.
HEARTBEAT = 30
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

    async def open(self) -> None:
        import pika
        from pika.adapters.twisted_connection import TwistedProtocolConnection

        logging.getLogger("pika").setLevel(logging.CRITICAL)  # who waits for the broker tells of it, once
        address = self._address
        parameters = pika.ConnectionParameters(
            credentials=pika.PlainCredentials(address.username, address.password),
            virtual_host=address.virtual_host,
            heartbeat=HEARTBEAT,
            client_properties={"product": "rasa_core_api"},
        )
        protocol = TwistedProtocolConnection(parameters, custom_reactor=self._reactor)
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

    async def publish(self, messages: Sequence[Message]) -> None:
        import pika

        channel = self._channel
        if channel is None or channel.is_closed:
            raise BrokerFailed("the connection is closed")
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
        # all of them are waited for, also where one fails: none is left to fail unseen
        results = await _all(confirmed)
        if results is not None:
            raise BrokerFailed(f"a message was not taken: {type(results).__name__}")

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


async def _all(waiting: Sequence[Deferred[Any]]) -> BaseException | None:
    """Wait for all; the first failure."""
    failures: list[BaseException] = []

    def failed(failure: Failure) -> None:
        if failure.value is not None:
            failures.append(failure.value)

    for one in waiting:
        one.addErrback(failed)
    await gatherResults(waiting)
    return failures[0] if failures else None
