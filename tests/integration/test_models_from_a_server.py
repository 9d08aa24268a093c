"""The real programs on the loopback interface: a model server and a dialogue server that pulls from it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.models.samples import write_model

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(port: int, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and JSON; status 0 where nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"null")
    except OSError:
        return 0, None
    finally:
        connection.close()


def until(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not found():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)


@contextmanager
def program(directory: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (directory / "output").open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=directory, env=environment, stdout=output, stderr=output
        )
        try:
            yield child
        finally:
            child.send_signal(signal.SIGTERM)
            assert child.wait(30) == 0


def test_pull_swap_restart(tmp_path: Path) -> None:
    """A model is pulled, replaced by the next, and served after a restart while the model server is down."""
    source, mine = free_port(), free_port()
    model = write_model(tmp_path / "models" / "core", "first")
    (tmp_path / "endpoints.yml").write_text(
        f"model:\n  url: http://127.0.0.1:{source}/models/core\n  wait_time_between_pulls: 0.2\n  keep: kept\n"
        "  token: secret\n"
    )
    bot = ["rasa_core_api.run", "--enable_api", "-d", "none", "--endpoints", "endpoints.yml", "-c", "rest", "-o", ""]
    bot += ["-p", str(mine)]

    def greeting(sender_id: str) -> str | None:
        status, answers = ask(mine, f"/conversations/{sender_id}/respond", {"query": "/greet"})
        return answers[0]["text"] if status == 200 and answers else None

    numbers = iter(range(10_000))
    with ExitStack() as both:
        server = ["rasa_core_api.model_server", "models", "--interface", "127.0.0.1", "--token", "secret"]
        both.enter_context(program(tmp_path, *server, "-p", str(source)))
        both.enter_context(program(tmp_path, *bot))
        until(lambda: ask(mine, "/readyz")[0] == 200)
        assert greeting("a") == "first"
        write_model(model, "second")
        until(lambda: greeting(f"b{next(numbers)}") == "second")
        assert ask(mine, "/conversations/a/tracker")[1]["latest_message"]["text"] == "/greet"
    assert os.listdir(tmp_path / "kept") == ["last.model"]
    with program(tmp_path, *bot):
        until(lambda: ask(mine, "/readyz")[0] == 200)
        assert greeting("c") == "second"
        assert ask(mine, "/status")[1]["model"]["source"].endswith("(kept)")
    assert os.listdir(tmp_path / "kept") == ["last.model"]


def children(pid: int) -> list[int]:
    """Processes that this one started."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(place.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes as Linux shows them")
def test_killed_while_installing(tmp_path: Path) -> None:
    """A server that is killed in the middle of an installation serves the last good model after it."""
    source, mine = free_port(), free_port()
    model = write_model(tmp_path / "models" / "core", "first")
    (tmp_path / "endpoints.yml").write_text(
        f"model:\n  url: http://127.0.0.1:{source}/models/core\n  wait_time_between_pulls: 0.1\n  keep: kept\n"
    )
    bot = ["rasa_core_api.run", "--enable_api", "-d", "none", "--endpoints", "endpoints.yml", "-c", "rest", "-o", ""]
    bot += ["-p", str(mine)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with program(tmp_path, "rasa_core_api.model_server", "models", "--interface", "127.0.0.1", "-p", str(source)):
        killed = subprocess.Popen([sys.executable, "-m", *bot], cwd=tmp_path, env=environment)
        try:
            until(lambda: ask(mine, "/readyz")[0] == 200)
            memory = model / "policy_0_MemoizationPolicy" / "memorized_turns.json"
            data = json.loads(memory.read_text())
            data["lookup"] |= {f"[null, {{}}, {{intent_x: 1.0, slot_{number}: 1.0}}]": 3 for number in range(80_000)}
            memory.write_text(json.dumps(data))
            until(lambda: len(children(killed.pid)) == 1)
            (trying,) = children(killed.pid)
        finally:
            killed.kill()
            killed.wait()
    until(lambda: not Path(f"/proc/{trying}").exists())
    assert len(list((tmp_path / "kept").glob("work-*"))) == 1
    with program(tmp_path, *bot):
        until(lambda: ask(mine, "/readyz")[0] == 200)
        assert ask(mine, "/status")[1]["model"]["source"].endswith("(kept)")
        answers = ask(mine, "/conversations/a/respond", {"query": "/greet"})[1]
        assert [answer["text"] for answer in answers] == ["first"]
    assert os.listdir(tmp_path / "kept") == ["last.model"]
