"""Every store there is, one after another; servers are started once, where their programs exist."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor

from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.memory import MemoryStore
from rasa_core_api.tracker_store.mongo import MongoStore, client_factory
from rasa_core_api.tracker_store.postgres import PostgresStore
from rasa_core_api.tracker_store.redis import RedisStore
from rasa_core_api.tracker_store.sqlite import SqliteStore

from .servers import has_postgres, has_redis, mongo_server, postgres_server, redis_server
from .stores import stored_events, wait

KINDS = ["memory", "sqlite", "postgres", "redis", "mongod"]


class Servers:
    """Databases that are started when they are first needed."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._running: dict[str, Any] = {}

    def _get(self, kind: str, present: bool, start: Callable[[], Any]) -> Any:
        if not present:
            pytest.skip(f"the program of {kind}, or its client, is not installed")
        if kind not in self._running:
            self._running[kind] = self._stack.enter_context(start())
        return self._running[kind]

    def redis_port(self) -> int:
        port: int = self._get("redis", has_redis(), redis_server)
        return port

    def postgres_url(self) -> str:
        url: str = self._get("postgres", has_postgres(), postgres_server)
        return url

    def mongo_client(self) -> Callable[[], Any]:
        """Connects to the server at RASA_CORE_MONGO or to one of the tests' own, else to one in memory."""
        if find_spec("pymongo") is None:
            pytest.skip("the client of mongod is not installed")
        url = os.environ.get("RASA_CORE_MONGO")
        if url is None and shutil.which("mongod"):
            url = self._get("mongod", True, mongo_server)
        if url is not None:
            return client_factory(url, None, None, "admin")
        if find_spec("mongomock") is None:
            pytest.skip("there is no mongod: set RASA_CORE_MONGO, or install mongomock")
        import mongomock

        made = self._running.setdefault("mongomock", mongomock.MongoClient(tz_aware=True))
        return lambda: made

    def make(self, kind: str, directory: Path) -> TrackerStore:
        """A store that is not open yet. `erase` empties it."""
        if kind == "memory":
            return MemoryStore(reactor)
        if kind == "sqlite":
            return SqliteStore(directory / "conversations.db", reactor, stored_events())
        if kind == "mongod":
            return MongoStore(reactor, stored_events(), self.mongo_client(), "rasa_core_api_tests")
        if kind == "postgres":
            return PostgresStore(self.postgres_url(), reactor, stored_events())
        return RedisStore(reactor, stored_events(), "127.0.0.1", self.redis_port())

    def erase(self, store: TrackerStore) -> None:
        """Empty an open store of a server that is shared by the tests."""
        if isinstance(store, RedisStore):

            async def flush() -> None:
                await store._connection.flushdb()

            wait(flush())
        if isinstance(store, MongoStore):
            tables = store._tables
            assert tables is not None
            for collection in (tables.conversations, tables.blocks, tables.answers, tables.places):
                collection.delete_many({})
        if isinstance(store, PostgresStore):
            import psycopg

            with psycopg.connect(self.postgres_url()) as connection:
                connection.execute(
                    "TRUNCATE rasa_core_api_conversations, rasa_core_api_blocks, rasa_core_api_answers,"
                    " rasa_core_api_reminders, rasa_core_api_cursors, rasa_core_api_roles"
                )

    def stop(self) -> None:
        self._stack.close()


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    running = Servers()
    yield running
    running.stop()


@pytest.fixture
def make_store(servers: Servers, tmp_path: Path) -> Iterator[Callable[[str], TrackerStore]]:
    """Makes an open and empty store of a kind."""
    opened: list[TrackerStore] = []

    def make(kind: str) -> TrackerStore:
        made = servers.make(kind, tmp_path)
        wait(made.open())
        opened.append(made)
        servers.erase(made)
        return made

    yield make
    for made in opened:
        wait(made.close())


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, make_store: Callable[[str], TrackerStore]) -> TrackerStore:
    """An open and empty store, of each kind."""
    return make_store(request.param)
