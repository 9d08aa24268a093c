"""Events reach a real RabbitMQ, before and after it was away."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.task import deferLater

from rasa_core_api.brokers import BrokerFailed
from rasa_core_api.brokers.pika import Address, PikaBroker
from rasa_core_api.concurrency import Slices
from rasa_core_api.events import SlotSet
from rasa_core_api.outbox import Outbox
from rasa_core_api.tracker_store.memory import MemoryStore
from tests.brokers.servers import free_port, has_rabbitmq, rabbitmq_server
from tests.brokers.test_file import messages

pika = pytest.importorskip("pika")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not has_rabbitmq(), reason="the Debian package rabbitmq-server is not installed"),
]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with rabbitmq_server(tmp_path_factory.mktemp("rabbit") / "data") as port:
        yield port


def address(port: int, **changes: Any) -> Address:
    return Address(**{"host": "127.0.0.1", "port": port, "username": "guest", "password": "guest", **changes})


def received(port: int, queue: str, count: int) -> list[tuple[dict[str, Any], Any]]:
    """What lies in a queue: the bodies and their properties."""
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
    try:
        channel = connection.channel()
        channel.queue_declare(queue, durable=True, passive=True)
        found = []
        for _ in range(count + 1):
            method, properties, body = channel.basic_get(queue, auto_ack=True)
            if method is not None:
                found.append((json.loads(body), properties))
        return found
    finally:
        connection.close()


async def until(condition: Any, seconds: float = 15.0) -> None:
    for _ in range(round(seconds / 0.02)):
        if condition():
            return
        await deferLater(reactor, 0.02, lambda: None)
    raise AssertionError("it took too long")


@pytest_twisted.ensureDeferred
async def test_events_lie_in_the_queue(port: int) -> None:
    """They are persistent messages of a durable queue, in order, with number and conversation in their headers."""
    broker = PikaBroker(reactor, address(port), "events")
    await broker.open()
    await broker.publish(messages(*range(300)))
    await broker.close()
    found = received(port, "events", 300)
    assert [body["seq"] for body, _ in found] == list(range(300))
    body, properties = found[7]
    assert body == {"sender_id": "ü", "seq": 7, "event": "slot", "name": "n", "value": "ä\n", "timestamp": 1.0}
    assert properties.headers == {"sender_id": "ü", "seq": 7} and properties.delivery_mode == 2


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("changes", "queue", "reason"),
    [
        ({"password": "wrong"}, "events", "ACCESS_REFUSED"),
        ({"virtual_host": "nowhere"}, "events", "NOT_ALLOWED - vhost nowhere not found"),
        ({}, "fleeting", "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'fleeting'"),
        ({}, "amq.mine", "ACCESS_REFUSED - queue name 'amq.mine'"),
    ],
)
async def test_what_the_server_says(port: int, changes: dict[str, Any], queue: str, reason: str) -> None:
    """That fails as any outage does, tells where and why in the server's words, and leaves nothing open."""
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
    connection.channel().queue_declare("fleeting", durable=False)
    connection.close()
    broker = PikaBroker(reactor, address(port, **changes), queue)
    with pytest.raises(BrokerFailed, match=re.escape(f"RabbitMQ at 127.0.0.1:{port}: {reason}")):
        await broker.open()
    await broker.close()


@pytest_twisted.ensureDeferred
async def test_a_queue_that_is_deleted(port: int) -> None:
    """It is told, and made anew by the next try."""
    broker = PikaBroker(reactor, address(port), "deleted")
    await broker.open()
    await broker.publish(messages(0))
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
    connection.channel().queue_delete("deleted")
    connection.close()
    with pytest.raises(BrokerFailed, match="the queue is gone"):
        await broker.publish(messages(1))
    await broker.close()
    await broker.open()
    await broker.publish(messages(1))
    await broker.close()
    assert [body["seq"] for body, _ in received(port, "deleted", 2)] == [1]


@pytest_twisted.ensureDeferred
async def test_a_server_that_says_nothing() -> None:
    """Giving up leaves no connection behind."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        broker = PikaBroker(reactor, address(listener.getsockname()[1]), "events")
        opening = Deferred.fromCoroutine(broker.open())
        peer, _ = await deferLater(reactor, 0.05, listener.accept)
        assert not opening.called
        opening.addTimeout(0.1, reactor)  # type: ignore[arg-type]
        with pytest.raises(TimeoutError):
            await opening
        await broker.close()
        await deferLater(reactor, 0.05, lambda: None)
        peer.settimeout(1)
        with peer, suppress(ConnectionResetError):
            assert b"AMQP" in peer.recv(8) and peer.recv(1) == b""


@pytest_twisted.ensureDeferred
async def test_nothing_is_lost_while_it_is_away(tmp_path: Path) -> None:
    """Events of the time before the server is up, and of the time when it was killed, all arrive."""
    port = free_port()
    store = MemoryStore(reactor)
    outbox = Outbox(
        store, PikaBroker(reactor, address(port), "events"), reactor, Slices(reactor), "one", lambda: 0.0  # type: ignore[arg-type]
    )
    await outbox.start()

    async def append(begin: int, end: int) -> None:
        for number in range(begin, end):
            await store.append("u", number, [SlotSet(key="n", value=number, timestamp=1.0)])
            outbox.wake("u")

    await append(0, 100)
    await until(lambda: outbox.status()["state"] == "failing")
    with rabbitmq_server(tmp_path / "data", port):
        await until(lambda: outbox.status()["published"] == 100, 40)
        await append(100, 200)
        await until(lambda: outbox.status()["published"] == 200)
    await append(200, 300)
    await until(lambda: outbox.status()["state"] == "failing")
    with rabbitmq_server(tmp_path / "data", port):
        await until(lambda: outbox.status()["state"] == "publishing", 40)
        await outbox.stop(5.0)
        seqs = [body["seq"] for body, _ in received(port, "events", 400)]
    assert list(dict.fromkeys(seqs)) == list(range(300))
