"""Models that are swapped under load: does a request fail, does one wait, does memory grow?

    python benchmarks/model_swaps.py [SWAPS]

64 connections talk to the bot, each pausing for a fifth of a second between two turns, in peace and while one model
after another is uploaded, by turns: so what else the machine does meets both. Then a model of 50 MB is installed, and
replaced by a small one, while `/version` is asked all the time.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from attrs import define, field
from common import MODELS, Server, bot_server, resident_mb, table

from rasa_core_api.models.archives import pack_directory

CONNECTIONS = 64
PAUSE = 0.2
BLOCK = 50  # swaps, and then some seconds of peace
PEACE = 8.0
MESSAGES = ["/greet", '/order{"drink": "coffee"}', '/inform{"size": "large"}', "/deny", "/thank", "/goodbye"]
FULL = MODELS / "rasa-core-0.11.12" / "cafe-full"
LARGE = 50_000_000


class Connection:
    """One connection that is kept alive."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def request(
        self, method: str, path: str, body: bytes = b"", kind: str = "application/json"
    ) -> tuple[int, bytes]:
        """Status and body."""
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        status = int((await self._reader.readline()).split()[1])
        length = 0
        while (line := await self._reader.readline()).strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return status, await self._reader.readexactly(length)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


@define
class Load:
    """Conversations on many connections; `times` are seconds a turn."""

    port: int
    times: list[float] = field(factory=list)
    failed: int = 0
    done: bool = False

    async def talk(self, number: int) -> None:
        connection = Connection(self.port)
        await asyncio.sleep(PAUSE * number / CONNECTIONS)
        turn = 0
        while not self.done:
            sender = f"s{number}"
            if not turn % len(MESSAGES):  # begin anew: what is measured is the swaps' memory, not the conversations'
                await connection.request("PUT", f"/conversations/{sender}/tracker", b"[]")
            body = json.dumps({"query": MESSAGES[turn % len(MESSAGES)]}).encode()
            began = time.perf_counter()
            status, answer = await connection.request("POST", f"/conversations/{sender}/respond", body)
            self.times.append(time.perf_counter() - began)
            if status != 200 or not answer.startswith(b"["):
                self.failed += 1
            turn += 1
            await asyncio.sleep(PAUSE)
        connection.close()


async def during(port: int, work: Callable[[], Awaitable[None]]) -> Load:
    """The load while `work` goes on."""
    load = Load(port)
    talking = [asyncio.create_task(load.talk(number)) for number in range(CONNECTIONS)]
    try:
        await work()
    finally:
        load.done = True
    await asyncio.gather(*talking)
    return load


def form(archive: bytes) -> tuple[bytes, str]:
    """A multipart body with the file field `model`, and its type."""
    head = b'--b\r\nContent-Disposition: form-data; name="model"; filename="m.zip"\r\n\r\n'
    return head + archive + b"\r\n--b--\r\n", "multipart/form-data; boundary=b"


async def upload(port: int, archive: bytes) -> float:
    """Seconds until the model serves."""
    connection = Connection(port)
    began = time.perf_counter()
    status, answer = await connection.request("POST", "/model", *form(archive))
    connection.close()
    assert status == 200, answer
    return time.perf_counter() - began


def percentile(times: list[float], share: float) -> float:
    """In milliseconds."""
    return sorted(times)[min(len(times) - 1, int(len(times) * share))] * 1e3


def large_model(directory: Path) -> bytes:
    """The model with a memory of 50 MB."""
    shutil.copytree(FULL, directory)
    file = directory / "policy_0_MemoizationPolicy" / "memorized_turns.json"
    for path in (directory, file.parent, file):
        path.chmod(0o700)
    data = json.loads(file.read_text())
    draw = random.Random(1)
    size = 0
    while size < LARGE:
        plain = f"[null, {{intent_x: 1.0, slot_{draw.random()}: 1.0}}, {{intent_y: 1.0, slot_{draw.random()}: 1.0}}]"
        key = base64.b64encode(zlib.compress(plain.encode(), 1)).decode()
        data["lookup"][key] = draw.randrange(5)
        size += len(key) + 6
    file.write_text(json.dumps(data))
    return pack_directory(directory)


async def swaps(server: Server, archives: list[bytes], count: int) -> None:
    """Swap `count` models under load."""
    memory: list[float] = []
    took: list[float] = []
    peace, load = Load(server.port), Load(server.port)

    async def swap() -> None:
        for _ in range(min(BLOCK, count - len(took))):
            took.append(await upload(server.port, archives[len(took) % len(archives)]))
            memory.append(resident_mb(server.pid))

    while len(took) < count:
        for into, work in ((peace, lambda: asyncio.sleep(PEACE)), (load, swap)):
            done = await during(server.port, work)
            into.times += done.times
            into.failed += done.failed
    settled = memory[min(19, count - 1)]
    table(
        f"{count} swaps under {CONNECTIONS} connections",
        [
            ("turns in peace, with swaps", f"{len(peace.times)}, {len(load.times)}", ""),
            ("failed", f"{peace.failed + load.failed}", "limit 0"),
            ("turn, p50 / p99.9 in peace", f"{_pair(peace.times)} ms", ""),
            ("turn, p50 / p99.9 with swaps", f"{_pair(load.times)} ms", "limit 100 ms"),
            ("slowest turn in peace, with swaps", f"{max(peace.times) * 1e3:.0f}, {max(load.times) * 1e3:.0f} ms", ""),
            ("a swap", f"{sum(took) / len(took):.2f} s", ""),
            ("resident after 20 swaps", f"{settled:.0f} MB", ""),
            ("resident after half of them", f"{memory[count // 2]:.0f} MB", ""),
            ("resident at the end", f"{memory[-1]:.0f} MB", "flat"),
        ],
    )


def _pair(times: list[float]) -> str:
    return f"{percentile(times, 0.5):.1f} / {percentile(times, 0.999):.1f}"


async def probed(server: Server, archive: bytes) -> tuple[list[float], float]:
    """Seconds that `/version` took while this model was installed, and until it served."""
    times: list[float] = []
    done = asyncio.Event()

    async def probe() -> None:
        connection = Connection(server.port)
        while not done.is_set():
            began = time.perf_counter()
            status, _ = await connection.request("GET", "/version")
            assert status == 200
            times.append(time.perf_counter() - began)
            await asyncio.sleep(0.002)
        connection.close()

    probing = asyncio.create_task(probe())
    took = await upload(server.port, archive)
    await asyncio.sleep(0.2)  # the model before is freed
    done.set()
    await probing
    return times, took


async def install_large(server: Server, archive: bytes, small: bytes) -> None:
    """Ask `/version` while a large model is installed, and while a small one replaces it."""
    times, took = await probed(server, archive)
    resident = resident_mb(server.pid)
    after, _ = await probed(server, small)
    table(
        f"a model of {LARGE / 1e6:.0f} MB ({len(archive) / 1e6:.0f} MB zipped) is installed",
        [
            ("/version, p50", f"{percentile(times, 0.5):.1f} ms", ""),
            ("/version, p99", f"{percentile(times, 0.99):.1f} ms", "limit 50 ms"),
            ("/version, slowest", f"{max(times) * 1e3:.0f} ms", ""),
            ("until it serves", f"{took:.1f} s", ""),
            ("resident", f"{resident:.0f} MB", ""),
            ("/version, p99 while it is replaced", f"{percentile(after, 0.99):.1f} ms", "limit 50 ms"),
            ("slowest then", f"{max(after) * 1e3:.0f} ms", ""),
        ],
    )


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as scratch:
        archives = []
        for number in range(2):
            directory = Path(scratch) / str(number)
            shutil.copytree(FULL, directory)
            domain = directory / "domain.yml"
            domain.chmod(0o600)
            directory.chmod(0o700)
            domain.write_text(domain.read_text().replace("corner cafe", f"cafe {number}"))
            archives.append(pack_directory(directory))
        with bot_server(FULL, "--max_body_mb", "128") as server:
            asyncio.run(swaps(server, archives, count))
        large = large_model(Path(scratch) / "large")
        with bot_server(FULL, "--max_body_mb", "128") as server:
            asyncio.run(install_large(server, large, archives[0]))


if __name__ == "__main__":
    main()
