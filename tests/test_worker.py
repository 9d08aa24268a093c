"""Tests of one of several workers: what it is told, and models that all of them take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from rasa_core_api.concurrency import Slices
from rasa_core_api.events.reading import EventReader
from rasa_core_api.exceptions import InvalidConfiguration, ModelBusy, TrainingFailed, UnsupportedModel
from rasa_core_api.models.generation import Generation
from rasa_core_api.tracker_store.factory import create_store
from rasa_core_api.tracker_store.memory import MemoryStore
from rasa_core_api.worker import BUSY, WORKER, LearnsNowhere, Line, Uploads, Worker
from tests.conftest import LoggedFailures
from tests.models.samples import write_model


def test_what_the_parent_told() -> None:
    """The environment names worker, sockets and directory; nothing means that this process serves alone."""
    assert Worker.from_environment({}) is None
    told = {"number": 2, "of": 3, "listens": 5, "line": 6, "shared": "/s"}
    assert Worker.from_environment({WORKER: json.dumps(told)}) == Worker(2, 3, 5, 6, Path("/s"))
    with pytest.raises(InvalidConfiguration, match="only `run --workers` sets it"):
        Worker.from_environment({WORKER: "2"})


def test_stores(tmp_path: Path) -> None:
    """SQLite looks for other writers from the first turn on; a store of one process is refused."""
    worker = Worker(1, 2, 0, 0, tmp_path)
    clock = Clock()
    store = create_store(
        {"type": "sqlite", "path": str(tmp_path / "x.db")},
        reactor=clock,
        event_reader=EventReader(lambda: 0.0, lambda: "id"),
        slices=Slices(clock),
    )
    worker.join(store)
    assert store.shared
    with pytest.raises(InvalidConfiguration, match="'memory' is of one process alone"):
        worker.join(MemoryStore(clock))


def test_messages_one_after_another(logged: LoggedFailures) -> None:
    """The next message waits until the one before is dealt with; one that fails, or a line that breaks, is the end."""
    seen: list[Any] = []
    gates: list[Deferred[None]] = []

    async def told(message: dict[str, Any]) -> None:
        seen.append(message["n"])
        gates.append(Deferred())
        await gates[-1]

    line = Line(told, lambda: seen.append("gone"))
    line.makeConnection(transport := StringTransport())
    line.dataReceived(b'{"n": 1}\n{"n": 2}\n{"n"')
    assert seen == [1]
    gates[0].callback(None)
    assert seen == [1, 2]
    line.dataReceived(b": 3}\n")
    gates[1].errback(UnsupportedModel("no"))
    assert seen == [1, 2, "gone"]
    assert logged.take() == [UnsupportedModel]
    line.say(ready=True)
    assert transport.value() == b'{"ready": true}\n'
    line.connectionLost()
    assert seen == [1, 2, "gone", "gone"]


def _text(path: Path) -> str:
    return path.read_text()


class FakeInstaller:
    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.asked: list[tuple[str, str | None]] = []
        self.busy = 0

    async def install_archive(self, archive: Path, signature: str | None = None) -> Generation:
        if self.busy:
            self.busy -= 1
            raise ModelBusy("wait")
        self.asked.append((_text(archive), signature))
        return self.generation

    def status(self) -> dict[str, Any]:
        return {"installing": False}


class FakeAgent:
    def __init__(self) -> None:
        self.served: list[str] = []

    def new_id(self) -> str:
        return "id"

    def install(self, generation: Generation) -> None:
        self.served.append(generation.fingerprint)


class Bench:
    def __init__(self, tmp_path: Path) -> None:
        from rasa_core_api.models.loader import load_generation

        self.clock = Clock()
        self.agent = FakeAgent()
        self.installer = FakeInstaller(load_generation(write_model(tmp_path / "model"), fingerprint="mine"))
        self.said: list[dict[str, Any]] = []
        shared = tmp_path / "shared"
        shared.mkdir()
        self.uploads = Uploads(
            self.agent,  # type: ignore[arg-type]
            self.installer,
            shared,
            lambda function, *arguments: succeed(function(*arguments)),
            lambda **message: self.said.append(message),
            self.clock,
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_an_upload_here(bench: Bench, tmp_path: Path) -> None:
    """The upload ends when all others took the model; this worker does not read it twice."""
    (tmp_path / "a").write_text("archive")
    upload = Deferred.fromCoroutine(bench.uploads.install_archive(tmp_path / "a", "sig"))
    path = str(tmp_path / "shared" / "id.model")
    assert bench.said == [{"upload": path, "facts": {"signature": "sig", "fingerprint": "mine"}}]
    assert Path(path).read_text() == "archive"
    Deferred.fromCoroutine(bench.uploads.told({"install": path, "facts": bench.said[0]["facts"]}))
    assert bench.said[1:] == [{"installed": path}]
    assert not upload.called
    Deferred.fromCoroutine(bench.uploads.told({"uploaded": path}))
    assert upload.called
    assert bench.installer.asked == [("archive", "sig")]


def test_an_upload_elsewhere(bench: Bench, tmp_path: Path) -> None:
    """Another worker's model is served under the fingerprint that it has there, once there is time for it."""
    (tmp_path / "b").write_text("other")
    bench.installer.busy = 1
    facts = {"signature": "sig", "fingerprint": "theirs"}
    Deferred.fromCoroutine(bench.uploads.told({"install": str(tmp_path / "b"), "facts": facts}))
    assert bench.said == []
    bench.clock.advance(BUSY)
    assert bench.agent.served == ["theirs"]
    assert bench.said == [{"installed": str(tmp_path / "b")}]


def test_learning_is_refused() -> None:
    """What one worker learned the others would not know."""
    failed: list[Any] = []
    Deferred.fromCoroutine(LearnsNowhere().learn(None, [], 1, 1)).addErrback(failed.append)  # type: ignore[arg-type]
    assert failed[0].check(TrainingFailed)
