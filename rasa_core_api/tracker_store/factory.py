"""From the `tracker_store` entry of an endpoint file to a store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from rasa_core_api.concurrency import Slices
from rasa_core_api.constants import JSON
from rasa_core_api.events.reading import EventReader
from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.memory import MemoryStore
from rasa_core_api.tracker_store.settings import RETENTION, Settings, split_retention
from rasa_core_api.tracker_store.texts import StoredEvents
from rasa_core_api.trusted import implementation

WHERE = "tracker_store"


def create_store(
    settings: Mapping[str, JSON] | None,
    *,
    reactor: Any,
    event_reader: EventReader,
    trusted_modules: Collection[str] = (),
    slices: Slices | None = None,
) -> TrackerStore:
    """The store that an endpoint file asks for; None and no `type` mean memory.

    Nothing is opened: that is for `TrackerStore.open`. Raises `InvalidConfiguration`, naming the key, for a type
    that is unknown or not built, and for options that the type does not have.
    """
    settings, _ = split_retention(settings, WHERE)
    options = Settings(settings or {}, WHERE)
    kind, key = options.kind("type", "store_type", "memory")
    key = f"{WHERE}.{key}"
    stored = StoredEvents(event_reader.new_id, slices or Slices(reactor))
    build = _TYPES.get(kind)
    if build is not None:
        store = build(options, reactor, stored)
        options.finish(kind, RETENTION)
        return store
    if "." not in kind:
        raise InvalidConfiguration(f"{key}: there is no store '{kind}'; there are {_built()}, or a class path")
    made: TrackerStore = implementation(kind, TrackerStore, trusted_modules, key).from_settings(
        dict(settings or {}), reactor=reactor, stored=stored
    )
    return made


def _memory(options: Settings, reactor: Any, stored: StoredEvents) -> TrackerStore:
    return MemoryStore(
        reactor,
        max_conversations=options.whole("max_conversations", 100_000, 1),
        max_mb=options.number("max_mb", 512, 0),
    )


def _sqlite(options: Settings, reactor: Any, stored: StoredEvents) -> TrackerStore:
    from rasa_core_api.tracker_store.sqlite import SqliteStore

    path = options.text("path", None)
    if not path:
        raise InvalidConfiguration(f"{WHERE}.path: the store 'sqlite' needs the path of its file")
    return SqliteStore(Path(path), reactor, stored, f"{WHERE}.path")


def _postgres(options: Settings, reactor: Any, stored: StoredEvents) -> TrackerStore:
    from rasa_core_api.tracker_store.postgres import PostgresStore

    url = options.text("url", None)
    if not url:
        raise InvalidConfiguration(f"{WHERE}.url: the store 'postgres' needs the address of its database")
    return PostgresStore(url, reactor, stored)


def _redis(options: Settings, reactor: Any, stored: StoredEvents) -> TrackerStore:
    from rasa_core_api.tracker_store.redis import RedisStore

    return RedisStore(
        reactor,
        stored,
        host=options.host("url", "localhost"),
        port=options.port("port", 6379),
        db=options.whole("db", 0, 0),
        password=options.text("password", None),
        lifetime=options.whole("record_exp", 0, 0),
    )


def _mongod(options: Settings, reactor: Any, stored: StoredEvents) -> TrackerStore:
    from rasa_core_api.tracker_store.mongo import MongoStore, connect_with

    connect = connect_with(options)
    options.text("collection", None)  # of the historical documents, which `conversations migrate` reads
    return MongoStore(reactor, stored, connect, options.text("db", None) or "rasa")


_TYPES: Mapping[str, Callable[[Settings, Any, StoredEvents], TrackerStore]] = {
    "memory": _memory,
    "sqlite": _sqlite,
    "postgres": _postgres,
    "redis": _redis,
    "mongod": _mongod,
}


def _built() -> str:
    return ", ".join(f"'{name}'" for name in _TYPES)
