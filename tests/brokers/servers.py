"""A RabbitMQ of our own on the loopback interface, where its Debian package is installed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
#: Seconds in which it has to be up.
PATIENCE = 60.0


def has_rabbitmq() -> bool:
    return PROGRAM.exists()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def rabbitmq_server(directory: Path, port: int | None = None) -> Iterator[int]:
    """A server whose files are in a directory; its port. Started anew in the same place it has what it had."""
    port = port or free_port()
    mapper = free_port()
    directory.mkdir(exist_ok=True)
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "LANG": "C.UTF-8",
        "RABBITMQ_NODENAME": "broker@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(directory),
        "RABBITMQ_LOG_BASE": str(directory),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(mapper),
    }
    with (directory / "output").open("ab") as output:
        server = subprocess.Popen([PROGRAM], env=environ, stdout=output, stderr=output, start_new_session=True)
        try:
            deadline = time.monotonic() + PATIENCE
            while not listens(port):
                assert server.poll() is None, (directory / "output").read_text()[-3000:]
                assert time.monotonic() < deadline, "RabbitMQ did not start in time"
                time.sleep(0.1)
            yield port
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()
            subprocess.run(["epmd", "-port", str(mapper), "-kill"], env=environ, capture_output=True)
