"""A constant load for a long time: does a server get slower or larger, or does it leak descriptors?

    python benchmarks/endurance.py [SECONDS] [TURNS_A_SECOND] [--limits]

64 connections keep up the rate, with a new conversation every six turns; the store is SQLite. The first tenth of the
time (after a tenth to get warm) is compared with the last one, memory also with that at half time: by then the cache of
live conversations should be full (4 000 of them). With --limits the exit status is 1 where memory or descriptors have
grown since; speed is only printed, since it depends on what else the machine does.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from common import MODELS, Server, bot_server, cpu_seconds_exact, resident_mb, table

MESSAGES = ["/greet", '/order{"drink": "coffee"}', '/inform{"size": "large"}', "/deny", "/thank", "/goodbye"]
CONNECTIONS = 64
#: Megabytes that memory may grow by from half time on, and descriptors.
MB, DESCRIPTORS = 8.0, 4


class Load:
    """Connections that together send `rate` turns a second."""

    def __init__(self, port: int, rate: float) -> None:
        self.port = port
        self.pause = CONNECTIONS / rate
        self.done = 0
        self.failed = 0
        self.stopping = False

    async def talk(self, name: str, delay: float) -> None:
        await asyncio.sleep(delay)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        due = time.monotonic()
        turn = 0
        while not self.stopping:
            sender_id = f"{name}-{turn // len(MESSAGES)}"
            body = json.dumps({"query": MESSAGES[turn % len(MESSAGES)]}).encode()
            line = f"POST /conversations/{sender_id}/respond HTTP/1.1"
            writer.write(f"{line}\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            self.done += 1
            self.failed += b" 200 " not in head.split(b"\r\n")[0]
            turn += 1
            due += self.pause
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        writer.close()


class Span:
    """What happens within a time: turns, CPU, and the memory and descriptors at its end."""

    def __init__(self, server: Server, load: Load) -> None:
        self._server, self._load = server, load
        self._began = time.monotonic(), load.done, cpu_seconds_exact(server.pid)

    def end(self) -> None:
        at, done, cpu = self._began
        turns = self._load.done - done
        self.rate = turns / (time.monotonic() - at)
        self.cost = (cpu_seconds_exact(self._server.pid) - cpu) / turns * 1e3
        self.memory = resident_mb(self._server.pid)
        self.descriptors = len(os.listdir(f"/proc/{self._server.pid}/fd"))


async def measure(server: Server, seconds: float, rate: float) -> tuple[Span, float, Span, Load]:
    load = Load(server.port, rate)
    talking = [
        asyncio.create_task(load.talk(f"c{number}", number * load.pause / CONNECTIONS)) for number in range(CONNECTIONS)
    ]
    tenth = seconds / 10
    await asyncio.sleep(tenth)
    first = Span(server, load)
    await asyncio.sleep(tenth)
    first.end()
    half = 0.0
    for part in range(3, 10):
        await asyncio.sleep(tenth)
        if part == 5:
            half = resident_mb(server.pid)
        now = f"{part * tenth:.0f} s: {load.done} turns, {resident_mb(server.pid):.0f} MB"
        print(now, file=sys.stderr, flush=True)
    last = Span(server, load)
    await asyncio.sleep(tenth)
    last.end()
    load.stopping = True
    await asyncio.gather(*talking)
    return first, half, last, load


def main() -> int:
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    seconds = float(arguments[0]) if arguments else 3600.0
    rate = float(arguments[1]) if len(arguments) > 1 else 300.0
    with tempfile.TemporaryDirectory() as scratch:
        settings = f"tracker_store:\n  type: sqlite\n  path: {Path(scratch) / 'conversations.db'}\n"
        with bot_server(MODELS / "rasa-core-0.11.12" / "cafe-memo", endpoints=settings) as server:
            first, half, last, load = asyncio.run(measure(server, seconds, rate))
    table(
        f"{rate:.0f} turns a second for {seconds:.0f} s, SQLite: {load.done} turns",
        [
            ("turns a second, first tenth / last", f"{first.rate:.1f} / {last.rate:.1f}", "within 5 %"),
            ("CPU per turn", f"{first.cost:.3f} / {last.cost:.3f} ms", ""),
            ("memory, first tenth / half / end", f"{first.memory:.0f} / {half:.0f} / {last.memory:.0f} MB", "flat"),
            ("descriptors", f"{first.descriptors} / {last.descriptors}", "the same"),
            ("failed turns", str(load.failed), "0"),
        ],
    )
    leaks = last.memory - half > MB or last.descriptors - first.descriptors > DESCRIPTORS
    return int("--limits" in sys.argv and bool(leaks or load.failed))


if __name__ == "__main__":
    sys.exit(main())
