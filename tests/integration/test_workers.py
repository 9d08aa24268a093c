"""Tests of `run --workers` as its users start it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.program import PATIENCE, ActionServer, Program, run_to_end
from tests.integration.test_run import RUN, model

__all__ = ["model"]

pytestmark = pytest.mark.integration


def workers_of(program: Program, count: int = 2) -> dict[int, dict[str, Any]]:
    """The status of each worker, by its number; asked until all have answered."""
    found: dict[int, dict[str, Any]] = {}
    until = time.monotonic() + PATIENCE
    while len(found) < count:
        assert time.monotonic() < until, found
        status = json.loads(program.ask("GET", "/status")[1])
        found[status["worker"]["number"]] = status
    return found


def is_there(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def gone(*pids: int) -> bool:
    until = time.monotonic() + PATIENCE
    while any(map(is_there, pids)):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


class Load:
    """Clients that talk on connections of their own and ask again, with the same key, when one breaks."""

    def __init__(self, port: int, count: int) -> None:
        self.port = port
        self.answered = [0] * count
        self.broken = [0] * count
        self.wrong: list[Any] = []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._talk, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def _talk(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        while not self._end.is_set():
            headers = {"Idempotency-Key": f"{number}-{self.answered[number]}"}
            try:
                connection.request("POST", f"/conversations/u{number}/respond", b'{"query": "/greet"}', headers)
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException):
                self.broken[number] += 1
                connection.close()
                continue
            if answer.status != 200:
                self.wrong.append((answer.status, body))
            self.answered[number] += 1
        connection.close()

    def stop(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def endpoints(tmp_path: Path) -> Iterator[ActionServer]:
    with ActionServer() as actions:
        (tmp_path / "endpoints.yml").write_text(
            f"action_endpoint: {{url: '{actions.url}'}}\ntracker_store: {{type: sqlite, path: talks.db}}\n"
        )
        yield actions


def arguments(model: Path, *more: str) -> list[str]:
    return [RUN, "--enable_api", "-d", str(model), "--endpoints", "endpoints.yml", "-p", "0", "-o", "out.log",
            "--workers", "2", *more]  # fmt: skip


def test_a_worker_is_killed_under_load(model: Path, tmp_path: Path, endpoints: ActionServer) -> None:
    """Only clients of the killed worker notice, once; it is replaced, and no turn is lost or done twice."""
    with Program(arguments(model), tmp_path) as program:
        program.up()
        before = workers_of(program)
        load = Load(program.port, 8)
        try:
            time.sleep(0.5)
            victim = before[1]["worker"]["pid"]
            os.kill(victim, signal.SIGKILL)
            program.line(rf"worker 1 \(process {victim}\) ended with signal 9 and is replaced")
            program.line(rf"\[worker 1\] serving as process (?!{victim}\b)")
            count = sum(load.answered)
            time.sleep(0.3)
        finally:
            load.stop()
        after = workers_of(program)
        assert after[1]["worker"]["pid"] != victim
        assert after[2]["worker"]["pid"] == before[2]["worker"]["pid"]
        assert load.wrong == []
        assert sum(load.answered) > count
        assert max(load.broken) <= 1
        for number, answered in enumerate(load.answered):
            tracker = json.loads(program.ask("GET", f"/conversations/u{number}/tracker")[1])
            assert sum(event["event"] == "user" for event in tracker["events"]) == answered
        assert program.stop() == 0
    lines = (tmp_path / "out.log").read_text("utf-8").splitlines()
    assert {line.split("]")[0] for line in lines} == {"[parent", "[worker 1", "[worker 2"}


def test_a_clean_stop_lets_turns_end(model: Path, tmp_path: Path, endpoints: ActionServer) -> None:
    """A turn inside a slow action is answered before its worker ends, and the status is 0."""
    with Program(arguments(model), tmp_path) as program:
        program.up()
        pids = [status["worker"]["pid"] for status in workers_of(program).values()]
        answers: list[Any] = []
        client = threading.Thread(
            target=lambda: answers.append(program.ask("POST", "/conversations/u/respond", {"query": "/bye"}))
        )
        client.start()
        assert endpoints.called.wait(PATIENCE)
        program.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert program.process.poll() is None
        with pytest.raises(ConnectionRefusedError):  # it would wait in the socket, and be reset in the end
            program.ask("GET", "/version")
        endpoints.go.set()
        client.join(PATIENCE)
        assert program.wait() == 0
    status, body = answers[0]
    assert (status, [message["text"] for message in json.loads(body)]) == (200, ["hello", "found it"])
    assert gone(*pids)


def test_the_parent_is_killed(model: Path, tmp_path: Path, endpoints: ActionServer) -> None:
    """The workers end with their parent."""
    with Program(arguments(model), tmp_path) as program:
        program.up()
        pids = [status["worker"]["pid"] for status in workers_of(program).values()]
        os.kill(program.process.pid, signal.SIGKILL)
        assert program.wait() == -signal.SIGKILL
        assert gone(*pids)


def test_an_upload_reaches_every_worker(model: Path, tmp_path: Path, endpoints: ActionServer) -> None:
    """When an upload is answered all workers serve the model, and one that is started later too."""
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for path in model.iterdir():
            target.write(path, path.name)
    part = b'--b\r\nContent-Disposition: form-data; name="model"; filename="m.zip"\r\n\r\n%s\r\n--b--\r\n'
    with Program(arguments(model), tmp_path) as program:
        program.up()
        before = {status["model_fingerprint"] for status in workers_of(program).values()}
        connection = http.client.HTTPConnection("127.0.0.1", program.port, timeout=PATIENCE)
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        connection.request("POST", "/model", part % archive.read_bytes(), headers)
        assert connection.getresponse().read() == b'{"success":1}\n'
        connection.close()
        workers = workers_of(program)
        (fingerprint,) = {status["model_fingerprint"] for status in workers.values()}
        assert fingerprint not in before
        os.kill(workers[2]["worker"]["pid"], signal.SIGKILL)
        program.line(rf"\[worker 2\] serving as process (?!{workers[2]['worker']['pid']}\b)")
        assert {status["model_fingerprint"] for status in workers_of(program).values()} == {fingerprint}
        assert program.ask("POST", "/finetune", [])[0] in (400, 500)
        assert program.stop(signal.SIGINT) == 0


def test_what_cannot_start(model: Path, tmp_path: Path) -> None:
    """Without a shared store, with a broken model, or on a port that is taken it ends with status 1 and the reason."""
    ended = run_to_end([RUN, "-d", str(model), "-p", "0", "-o", "", "--workers", "2"], tmp_path)
    assert (ended.returncode, "without a store that all workers share" in ended.stderr) == (1, True)
    (tmp_path / "endpoints.yml").write_text("tracker_store: {type: sqlite, path: talks.db}\n")
    ended = run_to_end(arguments(tmp_path / "nothing"), tmp_path)
    assert ended.returncode == 1
    assert "nothing" in ended.stderr
    assert "the server gives up: worker" in ended.stderr
    with socket.create_server(("", 0)) as taken:
        ended = run_to_end([*arguments(model), "-p", str(taken.getsockname()[1])], tmp_path)
    assert (ended.returncode, "Address already in use" in ended.stderr) == (1, True)
