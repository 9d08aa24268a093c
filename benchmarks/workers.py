"""Turns a second, and CPU per turn, with one and with two workers on each store that workers can share.

    python benchmarks/workers.py [SECONDS] [DIRECTORY]

DIRECTORY is where the database files go. Counts of workers take turns; 64 connections. The load and the database need
cores too: where there are fewer than four, two workers cannot show what they are worth, and the CPU that a turn costs
all workers together is what tells.
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

from common import Server, bot_server, cpu_seconds_exact, load, table
from databases import endpoints, start_databases
from stores import MODEL

COUNTS = (1, 2)
ROUNDS = 3


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    return [int(found) for found in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def measure(server: Server, count: int, seconds: float, prefix: str) -> tuple[float, float, float]:
    """Turns a second, milliseconds of CPU a turn in all workers together, and the busiest worker's part of them."""
    workers = [server.pid] if count == 1 else children(server.pid)
    assert len(workers) == count, workers
    load(server, 1, prefix=f"w{prefix}")
    before = [cpu_seconds_exact(pid) for pid in workers]
    began = time.monotonic()
    turns = load(server, seconds, prefix=prefix)[1]
    taken = time.monotonic() - began
    used = [cpu_seconds_exact(pid) - start for pid, start in zip(workers, before, strict=True)]
    return turns / taken, sum(used) / turns * 1e3, max(used) / sum(used)


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    base = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    rows = [("cores", f"{os.cpu_count()}", "")]
    with tempfile.TemporaryDirectory(dir=base) as scratch, ExitStack() as running:
        directory = Path(scratch)
        databases = start_databases(running, directory)
        for kind in ["sqlite", *databases]:
            settings = endpoints(kind, directory, databases)
            found: dict[int, list[tuple[float, float, float]]] = {count: [] for count in COUNTS}
            for round_ in range(ROUNDS):
                for count in COUNTS:
                    with bot_server(MODEL, "--workers", str(count), endpoints=settings) as server:
                        found[count].append(measure(server, count, seconds, f"{kind[0]}{count}{round_}-"))
            rate, cost, share = (
                {count: statistics.median(each[index] for each in found[count]) for count in COUNTS}
                for index in range(3)
            )
            for count in COUNTS:
                rows.append((f"{kind}, {count} worker{'s'[:count > 1]}: turns a second", f"{rate[count]:.0f}", ""))
                rows.append((f"{kind}, {count} worker{'s'[:count > 1]}: CPU a turn", f"{cost[count]:.3f} ms", ""))
            rows.append((f"{kind}: 2 workers against 1, turns a second", f"{rate[2] / rate[1]:.2f}", ""))
            rows.append((f"{kind}: 2 workers against 1, CPU a turn", f"{cost[2] / cost[1]:.2f}", ""))
            rows.append((f"{kind}: the busier worker's part", f"{share[2]:.2f}", "0.5 is even"))
    table("workers", rows)


if __name__ == "__main__":
    main()
