"""The databases that benchmarks run stores on, and the endpoints that name them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.tracker_store.servers import (
    has_postgres,
    has_redis,
    postgres_server,
    redis_server,
)

#: Where each server is: a URL, or a port of this machine.
Databases = Mapping[str, "str | int"]


def endpoints(kind: str, directory: Path, databases: Databases) -> str:
    text = f"tracker_store:\n  type: {kind}\n"
    if kind == "sqlite":
        text += f"  path: {directory / 'conversations.db'}\n"
    elif kind == "postgres":
        text += f"  url: {databases[kind]}\n"
    elif kind == "redis":
        text += f"  url: 127.0.0.1\n  port: {databases[kind]}\n"
    return text


def start_databases(running: ExitStack, directory: Path) -> dict[str, str | int]:
    """Servers whose programs are installed here; both sync every commit."""
    found: dict[str, str | int] = {}
    if has_postgres():
        found["postgres"] = running.enter_context(postgres_server(directory))
    if has_redis():
        (directory / "redis").mkdir()
        found["redis"] = running.enter_context(redis_server(directory / "redis"))
    return found
