"""Database servers of the tests' own: started on a free port where program and client exist, stopped at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until(answers: Callable[[], bool], child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while not answers():
        assert child.poll() is None and time.monotonic() < deadline, "the database server did not start"
        time.sleep(0.01)


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _stop(child: subprocess.Popen[bytes], how: signal.Signals) -> None:
    child.send_signal(how)
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def has_redis() -> bool:
    return shutil.which("redis-server") is not None and find_spec("txredisapi") is not None


@contextmanager
def redis_server(directory: Path | None = None) -> Iterator[int]:
    """The port of a Redis that syncs every command."""
    port = free_port()
    with tempfile.TemporaryDirectory() as scratch:
        child = subprocess.Popen(
            ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory or scratch),
             "--appendonly", "yes", "--appendfsync", "always", "--save", ""],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            _wait_until(lambda: _accepts(port), child)
            yield port
        finally:
            _stop(child, signal.SIGTERM)


@contextmanager
def mongo_server() -> Iterator[str]:
    """The URL of a MongoDB of its own."""
    port = free_port()
    with tempfile.TemporaryDirectory() as scratch:
        child = subprocess.Popen(
            ["mongod", "--port", str(port), "--bind_ip", "127.0.0.1", "--dbpath", scratch], stdout=subprocess.DEVNULL
        )
        try:
            _wait_until(lambda: _accepts(port), child)
            yield f"mongodb://127.0.0.1:{port}"
        finally:
            _stop(child, signal.SIGTERM)


def _postgres_programs() -> Path | None:
    found = shutil.which("initdb")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if found:
        folders.insert(0, Path(found).resolve().parent)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


def _other_user() -> list[str]:
    """PostgreSQL refuses to run as root: then as whom, if there is anybody."""
    if os.geteuid() != 0:
        return []
    runuser = shutil.which("runuser")
    known = Path("/etc/passwd").read_text().split("\n")
    if runuser and any(line.startswith("postgres:") for line in known):
        return [runuser, "-u", "postgres", "--"]
    return ["no user"]


def has_postgres() -> bool:
    return find_spec("psycopg") is not None and _postgres_programs() is not None and _other_user() != ["no user"]


@contextmanager
def postgres_server(directory: Path | None = None) -> Iterator[str]:
    """The URL of a PostgreSQL with its own settings, in a directory of its own (in `directory`)."""
    programs, become = _postgres_programs(), _other_user()
    assert programs is not None
    port = free_port()
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        if become:
            shutil.chown(scratch, "postgres")
            if directory is not None:
                directory.chmod(0o711)  # the way to it
        data = Path(scratch) / "data"
        subprocess.run(
            [*become, str(programs / "initdb"), "-D", str(data), "-U", "tests", "-A", "trust", "-E", "UTF8",
             "--locale=C", "--no-sync"],
            check=True, stdout=subprocess.DEVNULL, cwd=scratch,
        )  # fmt: skip
        child = subprocess.Popen(
            [*become, str(programs / "postgres"), "-D", str(data), "-p", str(port), "-k", scratch, "-h", "127.0.0.1"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=scratch,
        )  # fmt: skip
        ready = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        try:
            _wait_until(lambda: subprocess.run(ready, check=False).returncode == 0, child)
            yield f"postgresql://tests@127.0.0.1:{port}/postgres"
        finally:
            if become:  # the child is runuser: it passes SIGTERM on, and waits
                _stop(child, signal.SIGTERM)
            else:
                _stop(child, signal.SIGINT)
