"""The real program on the loopback interface, as its users start it."""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: Seconds that anything may take before a test fails; all of it takes far less.
PATIENCE = 30.0
UP = re.compile(r"up and running on http://localhost:(\d+)")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The tests' own environment without settings of the program."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RASA_CORE_API_")}
    return {**clean, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(extra or {})}


def run_to_end(
    arguments: Sequence[str], cwd: Path, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A program that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        env=environment(environ),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE,
    )


def _as_in_a_terminal() -> None:
    """A shell's background jobs ignore the interrupt, nohup's ignore the hangup, and so would all that they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Program:
    """A running server; what it writes to standard error is kept in `lines`."""

    def __init__(
        self, arguments: Sequence[str], cwd: Path, stdin: Any = subprocess.DEVNULL, **options: Any
    ) -> None:
        self.cwd = cwd
        self.lines: list[str] = []
        self._unread = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=cwd,
            env=environment(options.pop("environ", None)),
            stdin=stdin,
            stderr=subprocess.PIPE,
            **{"stdout": subprocess.DEVNULL, "preexec_fn": _as_in_a_terminal, **options},
        )
        self.port = 0

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def line(self, pattern: str | re.Pattern[str]) -> re.Match[str]:
        """Wait for a line on standard error."""
        seen = 0
        until = time.monotonic() + PATIENCE
        while True:
            for text in self.lines[seen:]:
                seen += 1
                found = re.search(pattern, text)
                if found is not None:
                    return found
            self._read(until)

    def _read(self, until: float) -> None:
        stream = self.process.stderr
        assert stream is not None
        ready, _, _ = select.select([stream], [], [], max(0.0, until - time.monotonic()))
        data = os.read(stream.fileno(), 65536) if ready else b""
        assert data, "the program said only:\n" + "\n".join(self.lines)
        *lines, self._unread = (self._unread + data).split(b"\n")
        self.lines += [line.decode("utf-8") for line in lines]

    def up(self) -> Program:
        """Wait until it listens."""
        self.port = int(self.line(UP)[1])
        return self

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Status and body of the answer to one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it; the exit status."""
        self.process.send_signal(how)
        return self.wait()

    def wait(self) -> int:
        return self.process.wait(PATIENCE)


class ActionServer:
    """An action server whose actions wait until they are let go."""

    def __init__(self) -> None:
        self.called = threading.Event()
        self.go = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                outer.called.set()
                outer.go.wait(PATIENCE)
                body = b'{"events": [], "responses": [{"text": "found it"}]}'
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/webhook"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> ActionServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
