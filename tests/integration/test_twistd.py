"""Tests of `twistd web --class`, in the foreground and as a daemon."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.program import PATIENCE, environment
from tests.models.samples import write_model

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that greets."""
    return write_model(
        tmp_path_factory.mktemp("model"),
        lookup={
            "[null, {}, {intent_greet: 1.0, prev_action_listen: 1.0}]": 3,
            "[{}, {intent_greet: 1.0, prev_action_listen: 1.0}, {intent_greet: 1.0, prev_utter_greet: 1.0}]": 0,
        },
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def ask(port: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and JSON of an answer; waits for a server that is starting."""
    until = time.monotonic() + PATIENCE
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except ConnectionRefusedError:
            assert time.monotonic() < until, "nobody listens"
            time.sleep(0.05)
        finally:
            connection.close()


class Twistd:
    """Settings of one server, in a directory of its own that holds its SQLite file."""

    def __init__(self, model: Path, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.pid_file = directory / "twistd.pid"
        self.log_file = directory / "twistd.log"
        (directory / "endpoints.yml").write_text("tracker_store:\n  type: sqlite\n  path: conversations.db\n")
        self.environ = {
            "RASA_CORE_API_CORE": str(model),
            "RASA_CORE_API_ENABLE_API": "true",
            "RASA_CORE_API_ENDPOINTS": "endpoints.yml",
            "RASA_CORE_API_CONNECTOR": "rest",
            "RASA_CORE_API_AUTH_TOKEN": "t0ken",
            "RASA_CORE_API_COMPATIBILITY_VERSION": "0.12.4",
        }

    def command(self, *options: str) -> list[str]:
        return [
            *(sys.executable, "-c", _TWISTD, *options),
            *("web", "--class", "rasa_core_api.server.RasaCoreResource"),
            *("--port", f"tcp:{self.port}:interface=127.0.0.1"),
        ]

    @contextmanager
    def foreground(self) -> Iterator[subprocess.Popen[bytes]]:
        with self.log_file.open("ab") as log:
            process = subprocess.Popen(
                self.command("--nodaemon", "--pidfile="),
                cwd=self.directory,
                env=environment(self.environ),
                stdout=log,
                stderr=log,
            )
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()

    @contextmanager
    def daemon(self) -> Iterator[int]:
        started = subprocess.run(
            self.command("--pidfile", str(self.pid_file), "--logfile", str(self.log_file)),
            cwd=self.directory,
            env=environment(self.environ),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert started.returncode == 0, started.stderr
        pid = int(self.pid_file.read_text())
        try:
            yield pid
        finally:
            if self.pid_file.exists():
                os.kill(pid, signal.SIGKILL)

    def wait_for_the_end(self, pid: int) -> None:
        until = time.monotonic() + PATIENCE
        while self.pid_file.exists():
            assert time.monotonic() < until, "the daemon does not end"
            time.sleep(0.05)


_TWISTD = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"


@pytest.fixture
def twistd(model: Path, tmp_path: Path) -> Twistd:
    return Twistd(model, tmp_path)


def talk(twistd: Twistd, sender_id: str) -> None:
    """What a server does that is alive: routes, rights, a turn, the store and a channel."""
    assert ask(twistd.port, "GET", "/version")[1]["version"] == "0.12.4"
    assert ask(twistd.port, "GET", "/conversations")[0] == 401
    status, answers = ask(
        twistd.port, "POST", f"/conversations/{sender_id}/respond?token=t0ken", {"query": "/greet", "token": "x"}
    )
    assert status == 200, answers
    assert [answer["text"] for answer in answers] == ["hello"]
    status, answers = ask(
        twistd.port, "POST", "/webhooks/rest/webhook", {"sender": f"{sender_id}-rest", "message": "/greet"}
    )
    assert status == 200, answers
    assert [answer["text"] for answer in answers] == ["hello"]
    assert sender_id in ask(twistd.port, "GET", "/conversations?token=t0ken")[1]


def test_foreground_and_daemon(twistd: Twistd) -> None:
    """In the foreground and after the fork alike: turns run, threads of the store live, and what was said stays."""
    with twistd.foreground() as process:
        talk(twistd, "first")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) in (0, -signal.SIGTERM)
    with twistd.daemon() as pid:
        talk(twistd, "second")
        assert ask(twistd.port, "GET", "/conversations?token=t0ken")[1] == [
            "first",
            "first-rest",
            "second",
            "second-rest",
        ]
        tracker = ask(twistd.port, "GET", "/conversations/first/tracker?token=t0ken")[1]
        assert tracker["latest_message"]["text"] == "/greet"
        os.kill(pid, signal.SIGTERM)
        twistd.wait_for_the_end(pid)
    log = twistd.log_file.read_text()
    assert re.search(r'"GET /conversations HTTP/1.1" 200', log), "twistd writes an access log"
    assert "t0ken" not in log, "query strings are never logged"
    assert "Traceback (most" not in log


def test_limits(twistd: Twistd) -> None:
    """A body beyond the limit is refused on a site that is not ours, too."""
    twistd.environ["RASA_CORE_API_MAX_BODY_MB"] = "1"
    with twistd.foreground():
        status, body = ask(twistd.port, "PUT", "/conversations/u/tracker?token=t0ken", ["x" * 2_000_000])
        assert (status, body["reason"]) == (413, "PayloadTooLarge")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("RASA_CORE_API_CORE", "/nowhere/model", "/nowhere/model"),
        ("RASA_CORE_API_ENDPOINTS", "nowhere.yml", "nowhere.yml"),
        ("RASA_CORE_API_JWT_METHOD", "none", "RASA_CORE_API_JWT_METHOD: 'none' is none of"),
        ("RASA_CORE_API_LOG_FILE", "/nowhere/out.log", "RASA_CORE_API_LOG_FILE: cannot write to /nowhere/out.log"),
    ],
)
def test_bad_settings(twistd: Twistd, name: str, value: str, reason: str) -> None:
    """What is wrong with the settings is said, without a traceback, and nothing is started."""
    twistd.environ |= {"RASA_CORE_API_JWT_SECRET": "x" * 32, name: value}
    ended = subprocess.run(
        twistd.command("--nodaemon", "--pidfile="),
        cwd=twistd.directory,
        env=environment(twistd.environ),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ended.returncode != 0
    assert reason in (ended.stdout + ended.stderr).strip().splitlines()[-1]
    assert "Traceback (most" not in ended.stdout + ended.stderr


def test_a_store_that_cannot_be_opened(twistd: Twistd) -> None:
    """The process ends with 1 and one line in the log; it does not stay and let requests wait."""
    (twistd.directory / "conversations.db").write_text("no database " * 1000)
    with twistd.foreground() as process:
        assert process.wait(PATIENCE) == 1
    (line,) = re.findall(r".*could not start.*", twistd.log_file.read_text())
    assert "endpoints.yml: tracker_store.path: conversations.db is no SQLite file" in line
    assert "Traceback (most" not in twistd.log_file.read_text()
