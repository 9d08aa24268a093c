"""A thousand conversations inside an action that takes a second: when do they get their answers, and does
anybody else wait?

    python benchmarks/waiting.py [CONVERSATIONS]
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import sys
import time

from common import MODELS, action_server, bot_server, table


async def request(port: int, method: str, path: str, body: object = None) -> float:
    """Seconds until the whole answer is there."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    content = b"" if body is None else json.dumps(body).encode()
    writer.write(
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        + content
    )
    head = await reader.readline()
    await reader.read()
    writer.close()
    assert b" 200 " in head, head
    return time.monotonic() - began


async def measure(port: int, count: int) -> tuple[float, list[tuple[float, float]]]:
    """Seconds until the last answer, and (when, how long) of each request of /version meanwhile."""
    began = time.monotonic()
    probes: list[tuple[float, float]] = []
    done = asyncio.Event()

    async def probe() -> None:
        while not done.is_set():
            at = time.monotonic() - began
            probes.append((at, await request(port, "GET", "/version")))
            await asyncio.sleep(0.005)

    watching = asyncio.create_task(probe())
    await asyncio.gather(
        *(
            request(port, "POST", f"/conversations/s{number}/respond", {"query": "/ask_price"})
            for number in range(count)
        )
    )
    last = time.monotonic() - began
    done.set()
    await watching
    return last, probes


def p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[-1] if len(values) > 1 else values[0]


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with action_server(1.0) as url:
        endpoints = f"action_endpoint:\n  url: {url}\n"
        with bot_server(MODELS / "rasa-core-0.11.12" / "cafe-memo", endpoints=endpoints) as server:
            asyncio.run(measure(server.port, 20))
            asyncio.run(request(server.port, "GET", "/version"))
            last, probes = asyncio.run(measure(server.port, count))
    waits = [wait for _, wait in probes]
    rows = [
        ("last answer after", f"{last:.2f} s", "at most 4 s"),
        ("/version: median", f"{statistics.median(waits) * 1e3:.1f} ms", ""),
        ("/version: p99, bursts included", f"{p99(waits) * 1e3:.1f} ms", "at most 200 ms in bursts"),
        ("/version: worst", f"{max(waits) * 1e3:.1f} ms", ""),
    ]
    quiet = [wait for at, wait in probes if 0.75 < at < 0.95]
    if quiet:
        rows.append(("/version: p99 while all wait", f"{p99(quiet) * 1e3:.1f} ms", "at most 50 ms"))
    table(f"{count} conversations in an action of 1 s", rows)


if __name__ == "__main__":
    main()
