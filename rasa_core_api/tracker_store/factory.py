"""From the `tracker_store` entry of an endpoint file to a store."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from rasa_core_api.concurrency import Slices
from rasa_core_api.constants import JSON
from rasa_core_api.events.reading import EventReader
from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.memory import MemoryStore
from rasa_core_api.tracker_store.settings import Settings, split_retention
from rasa_core_api.tracker_store.texts import StoredEvents

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
    kind = options.text("type", None)
    older = options.text("store_type", None)
    key = f"{WHERE}.type" if kind is not None or older is None else f"{WHERE}.store_type"
    kind = kind or older or "memory"
    stored = StoredEvents(event_reader.new_id, slices or Slices(reactor))
    build = _TYPES.get(kind)
    if build is not None:
        store = build(options, reactor, stored)
        options.finish(kind)
        return store
    if "." not in kind:
        raise InvalidConfiguration(f"{key}: there is no store '{kind}'; there are {_built()}, or a class path")
    return _custom(kind, key, settings or {}, reactor, stored, trusted_modules)


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
        host=options.text("url", None) or "localhost",
        port=options.whole("port", 6379, 1),
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


def _custom(
    path: str,
    key: str,
    settings: Mapping[str, JSON],
    reactor: Any,
    stored: StoredEvents,
    trusted_modules: Collection[str],
) -> TrackerStore:
    """A store of the operator's own: a subclass of `TrackerStore` with a class method `from_settings`."""
    module_name, _, class_name = path.rpartition(".")
    if not any(module_name == trusted or module_name.startswith(trusted + ".") for trusted in trusted_modules):
        raise InvalidConfiguration(
            f"{key}: the module '{module_name}' is not trusted; name it with --trusted_modules to use its classes"
        )
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise InvalidConfiguration(f"{key}: cannot import '{path}': {error}") from error
    build = getattr(found, "from_settings", None)
    if not (isinstance(found, type) and issubclass(found, TrackerStore) and build is not None):
        raise InvalidConfiguration(
            f"{key}: '{path}' is no subclass of rasa_core_api.tracker_store.TrackerStore with a 'from_settings'"
        )
    store: TrackerStore = build(dict(settings), reactor=reactor, stored=stored)
    return store
