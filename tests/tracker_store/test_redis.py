from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs
from twisted.protocols.portforward import ProxyFactory

from rasa_core_api.exceptions import InvalidConfiguration, StoreUnavailable
from rasa_core_api.tracker_store import redis
from rasa_core_api.tracker_store.redis import RedisStore
from rasa_core_api.tracker_store.turns import TurnNote

from .conftest import Servers
from .servers import free_port, has_redis, redis_server
from .stores import slots, stored_events, texts, wait


def opened(port: int, **options: int) -> RedisStore:
    store = RedisStore(reactor, stored_events(), "127.0.0.1", port, **options)
    wait(store.open())
    return store


def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing listens the store says so within its time limit."""
    pytest.importorskip("txredisapi")
    monkeypatch.setattr(redis, "TIME_LIMIT", 0.2)
    with pytest.raises(StoreUnavailable):
        opened(free_port())


def test_server_goes_away(tmp_path: Path) -> None:
    """While the server is gone appends are refused at once; all that was acknowledged is there when it is back."""
    if not has_redis():
        pytest.skip("redis-server is not installed")
    with redis_server(tmp_path) as port:
        store = opened(port)
        assert wait(store.append("a", 0, slots(1, 2))) == 2
        assert store.status()["warnings"] == []
    with pytest.raises(StoreUnavailable):
        wait(store.append("a", 2, slots(3)))
    wait(store.close())
    with redis_server(tmp_path) as port:
        store = opened(port)
        tail = wait(store.read("a"))
        assert tail is not None and texts(tail.events) == texts(slots(1, 2))
        wait(store.close())


def test_server_becomes_a_replica() -> None:
    """Where another server takes over, under the same name, connections to the old one are not kept."""
    if not has_redis():
        pytest.skip("redis-server is not installed")
    with redis_server() as old, redis_server() as new:
        name = ProxyFactory("127.0.0.1", old)
        port = reactor.listenTCP(0, name, interface="127.0.0.1")
        store = opened(port.getHost().port)
        wait(store.append("a", 0, slots(1)))
        name.port = new

        async def fail_over() -> None:
            await store._connection.execute_command("REPLICAOF", "127.0.0.1", new)
            with pytest.raises(StoreUnavailable, match="READONLY"):
                await store.append("a", 1, slots(2))
            while True:
                with contextlib.suppress(StoreUnavailable):
                    assert await store.append("b", 0, slots(3)) == 1
                    break
                await deferLater(reactor, 0.05)
            await store.close()
            await port.stopListening()

        wait(fail_over())


def test_server_without_a_command() -> None:
    """Where scripts could end half way, since a command of theirs is not allowed, the store does not open."""
    if not has_redis():
        pytest.skip("redis-server is not installed")
    with redis_server() as port:
        store = opened(port)

        async def forbid(rule: str) -> None:
            await store._connection.execute_command("ACL", "SETUSER", "default", rule)

        wait(forbid("-xadd"))
        with pytest.raises(InvalidConfiguration, match=r"tracker_store: .*Redis 6\.2"):
            opened(port)
        wait(forbid("+xadd"))
        wait(opened(port).close())
        wait(store.close())


def test_full_server_is_told() -> None:
    """That a server is full is said; what it may throw away, and when it does not sync, at start."""
    if not has_redis():
        pytest.skip("redis-server is not installed")
    with redis_server() as port:
        store = opened(port)

        async def configure(name: str, value: str) -> None:
            await store._connection.execute_command("CONFIG", "SET", name, value)

        wait(configure("maxmemory-policy", "allkeys-lru"))
        wait(configure("no-appendfsync-on-rewrite", "yes"))
        again = opened(port)
        assert again.status()["warnings"] == ["no-appendfsync-on-rewrite is 'yes'"]
        wait(again.close())
        wait(configure("maxmemory", "2gb"))
        again = opened(port)
        assert "maxmemory-policy is 'allkeys-lru'" in again.status()["warnings"]  # type: ignore[operator]
        wait(again.close())
        wait(configure("maxmemory-policy", "noeviction"))
        wait(configure("maxmemory", "1"))
        with pytest.raises(StoreUnavailable, match="OOM"):
            wait(store.append("a", 0, slots(1)))
        wait(opened(port).close())  # a state that it may leave
        wait(store.close())


def test_keys_of_the_historical_store(tmp_path: Path) -> None:
    """A database with other keys and none of ours is told: its conversations wait to be migrated. Ours are no news."""
    if not has_redis():
        pytest.skip("redis-server is not installed")
    with redis_server(tmp_path) as port:
        store = opened(port)
        wait(store._do("set", "user-17", "a pickle"))
        wait(store.close())
        with capturedLogs() as first:
            store = opened(port)
        wait(store.append("a", 0, slots(1)))
        wait(store.close())
        with capturedLogs() as second:
            wait(opened(port).close())
    told = [[line["keys"] for line in lines if "migrate" in str(line.get("log_format"))] for lines in (first, second)]
    assert told == [[1], []]


def test_lifetime(servers: Servers) -> None:
    """With `record_exp` a conversation that is not written to disappears, with its answers and from the list too."""
    store = opened(servers.redis_port(), lifetime=1)
    servers.erase(store)
    other = opened(servers.redis_port())
    wait(store.append("a", 0, slots(1), TurnNote(key="k", keep=60)))
    wait(other.append("b", 0, slots(1)))

    async def gone() -> None:
        while await store.read("a") is not None:
            pause: Deferred[None] = deferLater(reactor, 0.05)
            await pause

    wait(gone())
    assert wait(store.sender_ids()) == ["b"]
    assert wait(store.look("a", key="k")).earlier is None
    assert wait(store.append("a", 0, slots(2))) == 1
    wait(store.close())
    wait(other.close())


def test_many_answers_of_one_conversation(servers: Servers) -> None:
    """Answers that ran out go as often as the number of answers doubles, so that many slow nothing down."""
    store = opened(servers.redis_port())
    servers.erase(store)

    def looks() -> int:
        told = str(wait(store._do("info", "commandstats")))
        return int(re.findall(r"cmdstat_hgetall\W+calls=(\d+)", told + " cmdstat_hgetall:calls=0")[0])

    before = looks()
    for number in range(200):
        wait(store.append("a", 0, [], TurnNote(key=f"k{number}", keep=60)))
    assert looks() - before == 2
    wait(store.close())


def test_two_processes(servers: Servers) -> None:
    """What one process appends the other one reads; only one of two writers at the same end is let in."""
    first, second = opened(servers.redis_port()), opened(servers.redis_port())
    servers.erase(first)
    assert first.shared
    assert wait(first.append("a", 0, slots(*range(2500)))) == 2500
    tail = wait(second.read("a", 10))
    assert tail is not None and texts(tail.events) == texts(slots(*range(10, 2500)))
    wait(first.close())
    wait(second.close())


def test_a_feed_that_was_cut(servers: Servers) -> None:
    """A position behind which the feed was cut is known as such; one that is still there is not."""
    store = opened(servers.redis_port())
    servers.erase(store)
    places = [wait(store.feed_end())]
    for end in range(3):
        wait(store.append("a", end, slots(end)))
        places.append(wait(store.feed_end()))
    assert [wait(store.feed_lost(place)) for place in places] == [False] * 4
    wait(store._do("execute_command", "XTRIM", f"{redis.PREFIX}feed", "MAXLEN", 1))
    assert [wait(store.feed_lost(place)) for place in places[1:]] == [True, True, False]
    wait(store.close())
