from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from twisted.internet.task import Clock

from rasa_core_api.events.reading import EventReader
from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.factory import create_store
from rasa_core_api.tracker_store.memory import MemoryStore
from rasa_core_api.tracker_store.sqlite import SqliteStore


def create(settings: Mapping[str, Any] | None, trusted: tuple[str, ...] = ()) -> TrackerStore:
    reader = EventReader(lambda: 0.0, lambda: "id")
    return create_store(settings, reactor=Clock(), event_reader=reader, trusted_modules=trusted)


def test_memory_is_the_default() -> None:
    """Without a type, and with the older spelling of the key, memory is meant, with its documented bounds."""
    for settings in (None, {}, {"type": None}, {"type": "memory"}, {"store_type": "memory"}):
        store = create(settings)
        assert isinstance(store, MemoryStore)
        assert store.status()["max_conversations"] == 100_000
        assert store.status()["max_bytes"] == 512 << 20
    assert create({"max_conversations": 5, "max_mb": 0.5}).status()["max_bytes"] == 1 << 19
    assert create({"max_conversations": "7"}).status()["max_conversations"] == 7


def test_sqlite(tmp_path: Path) -> None:
    """A SQLite store is built without touching its file."""
    assert isinstance(create({"type": "sqlite", "path": str(tmp_path / "a.db")}), SqliteStore)
    assert list(tmp_path.iterdir()) == []


def test_databases() -> None:
    """The keys of the historical redis store are understood, and those of PostgreSQL; nothing is connected."""
    redis = {"type": "redis", "url": "cache", "port": "6380", "db": 2, "password": "x", "record_exp": 60}
    assert create(redis).name == "redis"
    assert create({"store_type": "redis", "url": "::1", "retention_days": 1}).shared
    assert create({"type": "postgres", "url": "postgresql://host/db"}).name == "postgres"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"type": "tape"}, "tracker_store.type: .*'tape'"),
        ({"store_type": "tape"}, "tracker_store.store_type: .*'tape'"),
        ({"type": 5}, "tracker_store.type: must be a text"),
        ({"type": "sqlite"}, "tracker_store.path"),
        ({"type": "sqlite", "path": ""}, "tracker_store.path"),
        ({"type": "sqlite", "path": "a", "pathh": "b"}, "tracker_store.pathh"),
        ({"max_conversations": 0}, "tracker_store.max_conversations"),
        ({"max_conversations": True}, "tracker_store.max_conversations"),
        ({"max_conversations": 1.5}, "tracker_store.max_conversations"),
        ({"max_mb": 0}, "tracker_store.max_mb"),
        ({"max_mb": "many"}, "tracker_store.max_mb"),
        ({"type": "mongod", "usrname": "x"}, "tracker_store.usrname: 'mongod' has no such option"),
        ({"type": "postgres"}, "tracker_store.url"),
        ({"type": "redis", "port": "x"}, "tracker_store.port"),
        ({"type": "redis", "port": 70000}, "tracker_store.port: must be a port"),
        ({"type": "redis", "url": "redis://cache/1"}, "tracker_store.url: the name of a host"),
        ({"type": "redis", "url": "cache:6380"}, "tracker_store.url: the name of a host"),
        ({"type": ""}, "tracker_store.type: is empty"),
        ({"store_type": "redis", "type": "memory"}, "tracker_store.store_type: contradicts 'type'"),
        ({"type": "redis", "retention_day": 1}, "it has .*retention_days"),
        ({"type": "redis", "record_exp": -1}, "tracker_store.record_exp"),
        ({"url": "localhost"}, "tracker_store.url"),
        ({"type": "os.system"}, "tracker_store.type: the module 'os' is not trusted"),
    ],
)
def test_wrong_settings_name_their_key(settings: Mapping[str, Any], words: str) -> None:
    """What cannot be built is refused by key path and reason."""
    with pytest.raises(InvalidConfiguration, match=words):
        create(settings)


def test_store_of_the_operators_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class from a trusted module is built from all settings; other things in it are refused."""

    class Mine(MemoryStore):
        @classmethod
        def from_settings(cls, settings: dict[str, Any], reactor: Any, stored: Any) -> Mine:
            return cls(reactor, max_conversations=settings["places"])

    module = ModuleType("mine.stores")
    module.Mine = Mine  # type: ignore[attr-defined]
    module.other = dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mine", ModuleType("mine"))
    monkeypatch.setitem(sys.modules, "mine.stores", module)
    store = create({"type": "mine.stores.Mine", "places": 3}, ("mine",))
    assert store.status()["max_conversations"] == 3
    for kind, words in (("other", "no subclass"), ("missing", "cannot import")):
        with pytest.raises(InvalidConfiguration, match=words):
            create({"type": f"mine.stores.{kind}"}, ("mine.stores",))
    with pytest.raises(InvalidConfiguration, match="not trusted"):
        create({"type": "mine.stores.Mine", "places": 3}, ("mine.store",))
