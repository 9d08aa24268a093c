"""Which part of a server's work is done for a broker that is away: by a sample of stacks, whatever the machine's speed.

    python benchmarks/broker_profile.py [SECONDS] [DIRECTORY]

Each server runs under `profiled_server.py` and is put under the load of 64 connections for SECONDS. Told are the part
of the reactor's samples that have a frame of the outbox, of a broker or of its client, and, with the memory store,
which has no thread of its own, the part of the process's CPU that other threads took.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from broker import AWAY, CONNECTIONS, MODEL, brokers, endpoints, hanging_port
from common import HERE, Server, bot_server, free_port, load, table

_TICKS = os.sysconf("SC_CLK_TCK")


def thread_seconds(pid: int) -> tuple[float, float]:
    """CPU seconds of the main thread, and of all others."""
    main, others = 0.0, 0.0
    for task in Path(f"/proc/{pid}/task").iterdir():
        fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
        used = (int(fields[11]) + int(fields[12])) / _TICKS
        if task.name == str(pid):
            main += used
        else:
            others += used
    return main, others


def under_load(server: Server, seconds: float) -> float:
    """The other threads' part of the CPU while there is load."""
    os.kill(server.pid, signal.SIGUSR1)
    before = thread_seconds(server.pid)
    load(server, seconds, CONNECTIONS, prefix="p")
    main, others = (after - begin for after, begin in zip(thread_seconds(server.pid), before, strict=True))
    return others / (main + others)


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    base = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory(dir=base) as scratch, ExitStack() as running:
        place, counts = Path(scratch), Path(scratch) / "counts.json"
        kinds = brokers(place, free_port(), hanging_port(running))
        for store in ("memory", "sqlite"):
            rows = []
            for name, broker in kinds.items():
                settings = endpoints(store, broker, place / f"{name.replace(' ', '-')}.db")
                program = [str(HERE / "profiled_server.py"), str(counts)]
                counts.unlink(missing_ok=True)
                with bot_server(MODEL, endpoints=settings, program=program) as server:
                    others = under_load(server, seconds)
                    os.kill(server.pid, signal.SIGTERM)
                    deadline = time.monotonic() + 20
                    while not counts.exists() and time.monotonic() < deadline:
                        time.sleep(0.05)
                    time.sleep(0.05)
                found = json.loads(counts.read_text())
                part = found["broker"] / found["samples"]
                limit = "at most 5 %" if name in AWAY else ""
                rows.append((f"{name}: part of the reactor's work", f"{part:.2%}", limit))
                rows.append((f"{name}: samples", str(found["samples"]), ""))
                if store == "memory":
                    rows.append((f"{name}: part of other threads", f"{others:.2%}", limit))
            table(f"a broker's part, {store} store", rows)


if __name__ == "__main__":
    main()
