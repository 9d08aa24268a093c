"""What the benchmarks share: real server processes, their CPU time and memory, and a load to put on them."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

HERE = Path(__file__).resolve().parent
CONFORMANCE = Path(os.environ.get("RASA_CORE_CONFORMANCE") or HERE.parents[1] / "shared" / "conformance")
LOAD_SCRIPT = Path(os.environ.get("RASA_CORE_BENCH") or HERE.parents[1] / "shared" / "bench") / "turns.lua"
MODELS = CONFORMANCE / "models"
_TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def cpu_seconds_exact(pid: int) -> float:
    """The same in nanoseconds, of all its threads, also of those that ended: the process's own CPU clock."""
    return time.clock_gettime((~pid << 3) | 2)


def resident_mb(pid: int) -> float:
    """Resident memory of a process, in MB."""
    match = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) / 1024


@frozen
class Server:
    """A server process under measurement."""

    pid: int
    port: int
    ready_cpu: float  # seconds of CPU until it answered
    ready_mb: float

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@contextmanager
def process(command: list[str], port: int, path: str = "/version", root: Path | None = None) -> Iterator[Server]:
    """Run a server until the block ends; it is ready when it answers `path` with 200. `root` is another checkout."""
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen(command, stdout=output, stderr=output, cwd=root or HERE.parent)
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                    connection.request("GET", path)
                    if connection.getresponse().status == 200:
                        break
                except OSError:
                    pass
                finally:
                    connection.close()
                if child.poll() is not None or time.monotonic() > deadline:
                    output.seek(0)
                    raise SystemExit(f"the server did not start: {' '.join(command)}\n{output.read()[-3000:]}")
                time.sleep(0.01)
            yield Server(child.pid, port, cpu_seconds_exact(child.pid), resident_mb(child.pid))
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()


@contextmanager
def bot_server(
    core: Path,
    *options: str,
    endpoints: str | None = None,
    program: Sequence[str] = ("-m", "rasa_core_api.run"),
    root: Path | None = None,
) -> Iterator[Server]:
    """The real program serving a dialogue model over its API and the rest channel; `root` is another checkout."""
    port = free_port()
    with tempfile.TemporaryDirectory() as scratch:
        extra = list(options)
        if endpoints is not None:
            file = Path(scratch) / "endpoints.yml"
            file.write_text(endpoints)
            extra += ["--endpoints", str(file)]
        command = [
            sys.executable, *program, "--enable_api", "-d", str(core), "-c", "rest",
            "-p", str(port), "-o", "", "--quiet", *extra,
        ]  # fmt: skip
        with process(command, port, root=root) as server:
            yield server


@contextmanager
def bare_server() -> Iterator[Server]:
    """A bare Klein route that parses and returns JSON of the same sizes."""
    port = free_port()
    with process([sys.executable, str(HERE / "bare_klein.py"), str(port)], port) as server:
        yield server


@contextmanager
def action_server(delay: float = 0.0) -> Iterator[str]:
    """An action server that answers every action after `delay` seconds; its URL."""
    port = free_port()
    with process([sys.executable, str(HERE / "slow_actions.py"), str(port), str(delay)], port):
        yield f"http://127.0.0.1:{port}/webhook"


def load(
    server: Server, seconds: float, connections: int = 64, prefix: str = "b", style: str = "respond"
) -> tuple[float, int]:
    """CPU milliseconds a request, and how many requests there were, under a load of many connections (wrk)."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("this benchmark needs wrk (a Debian package)")
    before = cpu_seconds_exact(server.pid)
    out = subprocess.run(
        [wrk, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(LOAD_SCRIPT), f"http://127.0.0.1:{server.port}",
         "--", style, prefix, "6"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    used = cpu_seconds_exact(server.pid) - before
    found = re.search(r"(\d+) requests in", out)
    if found is None or "Non-2xx" in out:
        raise SystemExit(f"the load failed:\n{out}")
    return used / int(found[1]) * 1e3, int(found[1])


def table(title: str, rows: list[tuple[str, str, str]]) -> None:
    """Print what was measured, and the limit."""
    print(f"\n{title}")
    width = max(len(row[0]) for row in rows)
    for name, value, limit in rows:
        print(f"  {name:{width}}  {value:>16}   {limit}")
