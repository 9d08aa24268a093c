from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Protocol

import pytest
from twisted.internet import protocol, reactor
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater

from rasa_core_api.exceptions import StoreUnavailable
from rasa_core_api.tracker_store import historical, redis
from rasa_core_api.tracker_store.historical import HistoricalRedis
from rasa_core_api.tracker_store.redis import RedisStore

from .servers import free_port
from .stores import slots, stored_events, wait

pytest.importorskip("txredisapi")


class Moody(Factory):
    """A Redis that treats its first connections badly: `bad` of them get `answer`, and are closed."""

    def __init__(self, bad: int, answer: bytes = b"") -> None:
        self.bad = bad
        self.answer = answer
        self.asked: list[bytes] = []
        self.made = 0
        self.conversations: list[protocol.Protocol] = []

    def buildProtocol(self, addr: object) -> protocol.Protocol:
        self.made += 1
        self.conversations.append(_Conversation(self, self.made <= self.bad))
        return self.conversations[-1]


class _Conversation(protocol.Protocol):
    def __init__(self, server: Moody, bad: bool) -> None:
        self.server = server
        self.bad = bad

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        command = data.split(b"\r\n")[2].upper()
        self.server.asked.append(command)
        if self.bad:
            self.transport.write(self.server.answer)
            self.transport.loseConnection()
            return
        appended = b"*3" + b"\r\n:1" * 3 + b"\r\n"
        answers = {b"PING": b"+PONG\r\n", b"SELECT": b"+OK\r\n", b"AUTH": b"+OK\r\n", b"EVAL": b":1\r\n"}
        answers[b"EVALSHA"] = appended
        self.transport.write(answers.get(command, b"-ERR unknown\r\n"))


class Opener(Protocol):
    def __call__(self, server: Moody, password: str | None = None) -> RedisStore: ...


@pytest.fixture
def opened() -> Iterator[Opener]:
    """Opens stores; at the end failed Deferreds that nobody looked at appear in the log, not in a later test."""
    ports, stores = [], []

    def open_store(server: Moody, password: str | None = None) -> RedisStore:
        ports.append(reactor.listenTCP(0, server, interface="127.0.0.1"))
        number = ports[-1].getHost().port
        stores.append(RedisStore(reactor, stored_events(), "127.0.0.1", number, password=password))
        wait(stores[-1].open())
        return stores[-1]

    async def stop() -> None:
        for store in stores:
            await store.close()
        for port in ports:
            await port.stopListening()

    yield open_store
    wait(stop())
    gc.collect()


@pytest.mark.parametrize("answer", [b"", b"-LOADING Redis is loading the dataset in memory\r\n"])
@pytest.mark.parametrize("password", [None, "secret"])
def test_lost_while_connecting(opened: Opener, answer: bytes, password: str | None) -> None:
    """A connection that ends while it is prepared is tried again, and no failure is left unobserved."""
    server = Moody(4, answer)
    opened(server, password)
    first = b"SELECT" if password is None else b"AUTH"
    assert server.asked[:4] == [first] * 4
    assert b"PING" in server.asked


def test_nobody_let_in(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store whose server lets nobody in says that it cannot be used, and closes without a failure."""
    monkeypatch.setattr(redis, "TIME_LIMIT", 0.2)
    server = Moody(1_000)
    with pytest.raises(StoreUnavailable):
        opened(server)
    assert server.made >= 4


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store whose server is not reached says why."""
    monkeypatch.setattr(redis, "TIME_LIMIT", 0.5)
    store = RedisStore(reactor, stored_events(), "127.0.0.1", free_port())
    with pytest.raises(StoreUnavailable, match="Connection refused"):
        wait(store.open())


def test_the_servers_own_reason(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong password is told as the server told it, by the store and by the reader of historical conversations."""
    monkeypatch.setattr(redis, "TIME_LIMIT", 0.2)
    monkeypatch.setattr(historical, "_CONNECT", 0.2)
    server = Moody(1_000, b"-WRONGPASS invalid username-password pair\r\n")
    with pytest.raises(StoreUnavailable, match="WRONGPASS invalid"):
        opened(server, "wrong")
    port = reactor.listenTCP(0, server, interface="127.0.0.1")
    old = HistoricalRedis(reactor, "127.0.0.1", port.getHost().port, 0, "wrong")
    with pytest.raises(StoreUnavailable, match="cannot be read: WRONGPASS invalid"):
        wait(old.open())

    async def stop() -> None:
        await port.stopListening()

    wait(stop())


def test_lost_while_in_use(opened: Opener) -> None:
    """Lost connections are made again, even if the server closes them while they are prepared."""
    server = Moody(0)
    store = opened(server)
    assert wait(store.append("a", 0, slots(1))) == 1

    async def lose() -> None:
        while server.made < 4:
            await deferLater(reactor, 0.01)
        server.bad = 8
        for conversation in server.conversations:
            assert conversation.transport is not None
            conversation.transport.loseConnection()
        while server.made < 12:
            await deferLater(reactor, 0.01)

    wait(lose())
    assert wait(store.append("a", 0, slots(1))) == 1
