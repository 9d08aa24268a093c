"""Turns a second with each store against the memory store, and how fast a long conversation is read from cold.

    python benchmarks/stores.py [SECONDS] [DIRECTORY]

DIRECTORY is where the database files go: it has to lie on a real disk for the figures to mean anything. Stores are
measured alternately at 64 connections, for SECONDS each time: a machine's speed changes by the minute. Beforehand it is
said how long a write and its sync take there.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cold_reads import measure as cold_reads
from common import MODELS, Server, bot_server, load, table
from databases import endpoints, start_databases

MODEL = MODELS / "rasa-core-0.11.12" / "cafe-memo"
LIMITS = {"sqlite": 0.6, "postgres": 0.4, "redis": 0.4}
ROUNDS = 9


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


def turns(server: Server, seconds: float, prefix: str) -> float:
    """Turns a second that were answered."""
    began = time.monotonic()
    count = load(server, seconds, prefix=prefix)[1]
    return count / (time.monotonic() - began)


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
            rows += cold_reads(directory, databases, ROUNDS)
    table("stores", rows)


if __name__ == "__main__":
    main()
