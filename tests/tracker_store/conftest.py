"""Every store there is, one after another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet import reactor

from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.memory import MemoryStore
from rasa_core_api.tracker_store.sqlite import SqliteStore

from .stores import stored_events, wait

KINDS = ["memory", "sqlite"]


def make(kind: str, directory: Path) -> TrackerStore:
    if kind == "memory":
        return MemoryStore(reactor)
    return SqliteStore(directory / "conversations.db", reactor, stored_events())


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TrackerStore]:
    """An open and empty store."""
    made = make(request.param, tmp_path)
    wait(made.open())
    yield made
    wait(made.close())
