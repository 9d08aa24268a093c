"""Processes that are killed while they write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rasa_core_api.exceptions import StoreConflict
from rasa_core_api.tracker_store import TrackerStore

from .conftest import Servers
from .stores import slots, texts, wait

# appends for ever, in several conversations at once, and prints each end after it was acknowledged
_CHILD = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from tests.tracker_store.stores import slots, stored_events
from rasa_core_api.tracker_store.postgres import PostgresStore
from rasa_core_api.tracker_store.redis import RedisStore
from rasa_core_api.tracker_store.sqlite import SqliteStore

async def converse(store, name):
    end = 0
    while True:
        end = await store.append(name, end, slots(f"{{name}}-{{end}}-1", f"{{name}}-{{end}}-2"))
        print(name, end, flush=True)

async def work(kind, address):
    if kind == "sqlite":
        store = SqliteStore(Path(address), reactor, stored_events())
    elif kind == "postgres":
        store = PostgresStore(address, reactor, stored_events())
    else:
        store = RedisStore(reactor, stored_events(), "127.0.0.1", int(address))
    await store.open()
    for number in range(8):
        Deferred.fromCoroutine(converse(store, f"s{{number}}"))

reactor.callWhenRunning(lambda: Deferred.fromCoroutine(work(*sys.argv[1:])))
reactor.run()
"""


def run_and_kill(kind: str, address: object, acknowledged_events: int) -> dict[str, int]:
    """The ends that a process was told before it was killed."""
    acknowledged: dict[str, int] = {}
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD.format(path=sys.path), kind, str(address)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    try:
        for line in child.stdout:
            name, end = line.split()
            acknowledged[name] = int(end)
            if sum(acknowledged.values()) > acknowledged_events:
                os.kill(child.pid, signal.SIGKILL)
                break
        for line in child.stdout:  # told before it died
            if line.endswith("\n"):
                name, end = line.split()
                acknowledged[name] = int(end)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    return acknowledged


def check(store: TrackerStore, acknowledged: dict[str, int]) -> None:
    """Each conversation holds at least what was acknowledged, in whole turns, and goes on."""
    for name, end in acknowledged.items():
        tail = wait(store.read(name))
        assert tail is not None and tail.start == 0 and tail.end >= end and tail.end % 2 == 0
        wanted = slots(*(f"{name}-{number}-{part}" for number in range(0, tail.end, 2) for part in (1, 2)))
        assert texts(tail.events) == texts(wanted)
        try:
            assert wait(store.append(name, tail.end, slots("next"))) == tail.end + 1
        except StoreConflict:  # the database was still at work for the process that is gone
            check(store, {name: tail.end})


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "redis"])
def test_killed_process_loses_nothing(kind: str, servers: Servers, tmp_path: Path) -> None:
    """After `kill -9` every acknowledged append is there, and none is there in half."""
    store = servers.make(kind, tmp_path)
    wait(store.open())
    servers.erase(store)
    address = {
        "sqlite": lambda: tmp_path / "conversations.db",
        "postgres": servers.postgres_url,
        "redis": servers.redis_port,
    }[kind]()
    for acknowledged_events in (100, 700):
        acknowledged = run_and_kill(kind, address, acknowledged_events)
        assert len(acknowledged) == 8
        check(store, acknowledged)
        servers.erase(store)
        if kind == "sqlite":
            for name in wait(store.sender_ids()):
                wait(store.delete(name))
    wait(store.close())
