from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from rasa_core_api.exceptions import RasaCoreError, UnsafeArchive, UnsupportedModel
from rasa_core_api.models.loader import load_generation
from rasa_core_api.models.rehearsal import PROGRAM, Rehearsal, rehearse, rehearse_apart, smoke
from tests.models.archive_corpus import CORPUS
from tests.models.samples import packed, write_model


def task(tmp_path: Path, data: bytes, **more: Any) -> Rehearsal:
    (tmp_path / "archive").write_bytes(data)
    return Rehearsal(str(tmp_path / "archive"), str(tmp_path / "into"), **more)


def test_good(tmp_path: Path) -> None:
    """A good model passes and lies there unpacked."""
    rehearse(task(tmp_path, packed(tmp_path / "model")))
    assert (tmp_path / "into" / "domain.yml").is_file()


def test_bad_archive(tmp_path: Path) -> None:
    """A hostile archive is refused before a model is looked for."""
    with pytest.raises(UnsafeArchive, match="leads upwards"):
        rehearse(task(tmp_path, CORPUS["zip_upwards"][0]()))


def test_no_model(tmp_path: Path) -> None:
    """An archive without a model is refused."""
    with pytest.raises(UnsupportedModel, match="not a dialogue model"):
        rehearse(task(tmp_path, CORPUS["zip_upwards"][0]().replace(b"../evil", b"xx/evil")))


def test_smoke(tmp_path: Path) -> None:
    """A model that fails in its first turn is refused."""
    generation = load_generation(write_model(tmp_path / "model"))
    smoke(generation)

    class Broken(type(generation.ensemble)):  # type: ignore[misc]
        def choose(self, tracker: object) -> object:
            raise ZeroDivisionError("no such row")

    generation.ensemble.__class__ = Broken
    with pytest.raises(UnsupportedModel, match="no such row"):
        smoke(generation)


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def public(key: Ed25519PrivateKey) -> str:
    return base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def test_signature(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    """The signature of the archive's bytes by the configured key is asked for."""
    data = packed(tmp_path / "model")
    good = base64.b64encode(key.sign(data)).decode()
    rehearse(task(tmp_path, data, public_key=public(key), signature=good))
    other = base64.b64encode(key.sign(data + b"x")).decode()
    for signature, reason in ((None, "no signature"), (other, "wrong"), ("?", "not Base64"), ("AAAA", "wrong")):
        with pytest.raises(UnsafeArchive, match=reason):
            rehearse(task(tmp_path, data, public_key=public(key), signature=signature))


def test_program(tmp_path: Path) -> None:
    """The program answers in JSON: a good model, and a refusal with its reason."""
    for number, (data, expected) in enumerate(
        [
            (packed(tmp_path / "model"), {"ok": True}),
            (b"<html>", {"error": "refused archive: neither zip nor tar.gz", "kind": "UnsafeArchive"}),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        tried = task(tmp_path / str(number), data)
        ask = {"archive": tried.archive, "into": tried.into, "trusted_modules": [], "limits": {}}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            input=json.dumps(ask).encode(),
            capture_output=True,
            check=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)},
        )
        assert json.loads(done.stdout) == expected


class FakeReactor(Clock):
    """Starts one process that does what `play` says."""

    def __init__(self, play: Callable[[Any], None]) -> None:
        super().__init__()
        self.play = play
        self.asked = b""
        self.killed = False

    def spawnProcess(self, protocol: Any, *args: object, **options: object) -> FakeReactor:
        protocol.transport = self
        self.protocol = protocol
        protocol.connectionMade()
        self.play(protocol)
        return self

    def write(self, data: bytes) -> None:
        self.asked += data

    def closeStdin(self) -> None:
        pass

    def signalProcess(self, name: str) -> None:
        self.killed = True
        self.protocol.processEnded(Failure(ProcessTerminated(None, 9)))


def answer(text: bytes) -> Callable[[Any], None]:
    def play(protocol: Any) -> None:
        protocol.outReceived(text)
        protocol.processEnded(Failure(ProcessDone(0)))

    return play


def outcome(reactor: FakeReactor) -> list[object]:
    found: list[object] = []
    waiting = Deferred.fromCoroutine(rehearse_apart(Rehearsal("/a", "/b", ("bots",)), reactor, 10.0))
    waiting.addBoth(found.append)
    reactor.advance(20.0)
    assert reactor.getDelayedCalls() == []
    return [item.value if isinstance(item, Failure) else item for item in found]


def test_apart() -> None:
    """The process is told what to try, as JSON."""
    reactor = FakeReactor(answer(b'{"ok": true}'))
    assert outcome(reactor) == [None]
    asked = json.loads(reactor.asked)
    assert asked["archive"] == "/a" and asked["trusted_modules"] == ["bots"] and asked["limits"]["ratio"] == 200


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        (b'{"error": "a link", "kind": "UnsafeArchive"}', UnsafeArchive, "a link"),
        (b'{"error": "no domain"}', UnsupportedModel, "no domain"),
        (b"", UnsupportedModel, "no answer"),
        (b"{", UnsupportedModel, "no answer"),
    ],
)
def test_apart_refused(text: bytes, kind: type[RasaCoreError], reason: str) -> None:
    """A refusal crosses the border with its kind and reason."""
    (error,) = outcome(FakeReactor(answer(text)))
    assert type(error) is kind and reason in str(error)


def test_apart_crash() -> None:
    """A model that crashes the process is refused."""
    (error,) = outcome(FakeReactor(lambda protocol: protocol.processEnded(Failure(ProcessTerminated(None, 11)))))
    assert isinstance(error, UnsupportedModel) and "signal 11" in str(error)


def test_apart_endless() -> None:
    """A model that keeps the process busy is refused at the time limit, and the process ended."""
    reactor = FakeReactor(lambda protocol: None)
    (error,) = outcome(reactor)
    assert isinstance(error, UnsupportedModel) and "10 s" in str(error) and reactor.killed


def test_apart_no_process() -> None:
    """Where no process can be started it is not the model's fault."""

    def play(protocol: Any) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    (error,) = outcome(FakeReactor(play))
    assert isinstance(error, RasaCoreError) and not isinstance(error, UnsupportedModel)
