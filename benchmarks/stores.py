"""Turns a second with each store against the memory store, and how fast a long conversation is read from cold.

    python benchmarks/stores.py [SECONDS] [DIRECTORY]

DIRECTORY is where the database files go: it has to lie on a real disk for the figures to mean anything. Stores are
measured alternately at 64 connections, for SECONDS each time: a machine's speed changes by the minute. Beforehand it is
said how long a write and its sync take there.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import MODELS, Server, bot_server, load, table

from tests.tracker_store.servers import (
    has_postgres,
    has_redis,
    postgres_server,
    redis_server,
)

MODEL = MODELS / "rasa-core-0.11.12" / "cafe-memo"
LIMITS = {"sqlite": 0.6, "postgres": 0.4, "redis": 0.4}
ROUNDS = 9
#: Events of the conversation that is read from cold.
LONG = 40_000


def sync_time(directory: Path) -> float:
    """Milliseconds that a write of 4 kB and its fdatasync take."""
    path = directory / "sync-probe"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    times = []
    for _ in range(100):
        os.write(descriptor, b"x" * 4096)
        began = time.perf_counter()
        os.fdatasync(descriptor)
        times.append(time.perf_counter() - began)
    os.close(descriptor)
    path.unlink()
    return statistics.median(times) * 1e3


def endpoints(kind: str, directory: Path, databases: dict[str, str | int]) -> str:
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


def turns(server: Server, seconds: float, prefix: str) -> float:
    """Turns a second that were answered."""
    began = time.monotonic()
    count = load(server, seconds, prefix=prefix)[1]
    return count / (time.monotonic() - began)


def fill(settings: str, sender_id: str) -> None:
    """Store a conversation of `LONG` events."""
    with bot_server(MODEL, endpoints=settings) as server:
        for begin in range(0, LONG, 2000):
            events = [
                {"event": "slot", "name": "drink", "value": f"tea {begin + number}", "timestamp": 1.5e9 + number}
                if number % 4
                else {"event": "user", "text": "hi", "parse_data": {"intent": {"name": "greet"}, "entities": []}}
                for number in range(2000)
            ]
            status, _ = server.request("POST", f"/conversations/{sender_id}/tracker/events?include_events=NONE", events)
            assert status == 200, status


def cold_read(settings: str, sender_id: str) -> float:
    """Events a second at the first request for a long conversation, after a restart."""
    with bot_server(MODEL, endpoints=settings) as server:
        began = time.perf_counter()
        status, body = server.request("GET", f"/conversations/{sender_id}/tracker?include_events=NONE")
        taken = time.perf_counter() - began
        assert status == 200 and json.loads(body)["sender_id"] == sender_id
    return LONG / taken


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    base = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory(dir=base) as scratch:
        directory = Path(scratch)
        rows = [("write and sync, median", f"{sync_time(directory):.2f} ms", "")]
        with ExitStack() as running:
            databases = start_databases(running, directory)
            kinds = ["memory", "sqlite", *databases]
            rates: dict[str, list[float]] = {kind: [] for kind in kinds}
            for round_ in range(ROUNDS):
                for kind, found in rates.items():
                    with bot_server(MODEL, endpoints=endpoints(kind, directory, databases)) as server:
                        turns(server, 1, f"w{round_}")
                        found.append(turns(server, seconds, f"r{round_}"))
            for kind, found in rates.items():
                rows.append((f"{kind}: turns a second", f"{statistics.median(found):.0f}", ""))
            for kind in kinds[1:]:
                limit = LIMITS[kind]
                parts = sorted(a / b for a, b in zip(rates[kind], rates["memory"], strict=True))
                spread = f"at least {limit:g}; rounds {parts[0]:.2f}-{parts[-1]:.2f}"
                rows.append((f"{kind}: part of memory", f"{statistics.median(parts):.2f}", spread))
            for kind in kinds[1:]:
                fill(endpoints(kind, directory, databases), "long")
            reads: dict[str, list[float]] = {kind: [] for kind in kinds[1:]}
            for _ in range(ROUNDS):
                for kind, taken in reads.items():
                    taken.append(cold_read(endpoints(kind, directory, databases), "long"))
            for kind, taken in reads.items():
                spread = f"at least 100000; rounds {min(taken):.0f}-{max(taken):.0f}"
                rows.append((f"{kind}: cold read, events a second", f"{statistics.median(taken):.0f}", spread))
    table("stores", rows)


if __name__ == "__main__":
    main()
