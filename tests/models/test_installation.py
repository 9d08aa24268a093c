from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from rasa_core_api.exceptions import ModelBusy, UnsafeArchive, UnsupportedModel
from rasa_core_api.interpreter import Interpreter
from rasa_core_api.models.archives import pack_directory
from rasa_core_api.models.generation import Generation
from rasa_core_api.models.installation import Checks, Installer
from rasa_core_api.models.rehearsal import Rehearsal, rehearse
from rasa_core_api.models.workshop import Workshop
from rasa_core_api.nlu.loader import EmbeddedInterpreter, load_nlu
from tests.models.archive_corpus import CORPUS
from tests.models.samples import packed


class Trials:
    """Runs rehearsals in place, or holds them back until `go`."""

    def __init__(self) -> None:
        self.tried: list[Rehearsal] = []
        self.gate: Deferred[None] | None = None

    async def __call__(self, task: Rehearsal) -> None:
        self.tried.append(task)
        if self.gate is not None:
            await self.gate
        rehearse(task)


async def inline(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    return function(*args, **options)


def load_interpreter(directory: Path) -> Interpreter:
    return EmbeddedInterpreter(load_nlu(directory))


@pytest.fixture
def trials() -> Trials:
    return Trials()


@pytest.fixture
def installer(tmp_path: Path, trials: Trials) -> Iterator[Installer]:
    shop = Workshop.open(tmp_path / "models")
    numbers = count(1)
    interval = sys.getswitchinterval()
    yield Installer(
        lambda: shop,
        trials,
        inline,
        load_interpreter=load_interpreter,
        new_fingerprint=lambda: f"fingerprint-{next(numbers)}",
    )
    assert sys.getswitchinterval() == interval
    assert [path.name for path in shop.place("x").parent.iterdir()] == ["lock"]
    shop.close()
    assert os.listdir(tmp_path / "models") == []


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "archive"
    path.write_bytes(packed(tmp_path / "model"))
    return path


def result(work: Any) -> Any:
    found: list[Any] = []
    Deferred.fromCoroutine(work).addBoth(found.append)
    (value,) = found
    if isinstance(value, Failure):
        value.raiseException()
    return value


def test_upload(installer: Installer, archive: Path) -> None:
    """An uploaded model is loaded under a new fingerprint each time."""
    first: Generation = result(installer.install_archive(archive))
    second: Generation = result(installer.install_archive(archive))
    assert first.domain.templates["utter_greet"] == [{"text": "hello"}]
    assert [first.fingerprint, second.fingerprint] == ["fingerprint-1", "fingerprint-2"]
    assert first.source == "upload"


def test_refused(installer: Installer, archive: Path) -> None:
    """A refused archive leaves nothing behind, and the next one is taken."""
    archive.write_bytes(CORPUS["tar_symlink"][0]())
    with pytest.raises(UnsafeArchive, match="symbolic link"):
        result(installer.install_archive(archive))
    archive.write_bytes(CORPUS["html_page"][0]())
    with pytest.raises(UnsupportedModel):
        result(installer.install_archive(archive))
    assert not installer.busy


def test_reason_names_no_place(installer: Installer, archive: Path, tmp_path: Path) -> None:
    """A reason tells the file inside the model, not where on this machine it was unpacked; it is the same each time."""
    directory = tmp_path / "model"
    (directory / "domain.yml").write_text("intents: 5")
    reasons = set()
    for _ in range(2):
        archive.write_bytes(pack_directory(directory))
        with pytest.raises(UnsupportedModel) as caught:
            result(installer.install_archive(archive))
        reasons.add(str(caught.value))
    (reason,) = reasons
    assert reason.startswith("domain.yml: ") and "work-" not in reason


def test_loser_is_told(installer: Installer, trials: Trials, archive: Path) -> None:
    """Of two uploads at a time the second is refused at once; a pulled model waits for its turn."""
    trials.gate = Deferred()
    first = Deferred.fromCoroutine(installer.install_archive(archive))
    with pytest.raises(ModelBusy):
        result(installer.install_archive(archive))
    pulled = Deferred.fromCoroutine(installer.load(archive, "v2", "http://models/core"))
    assert len(trials.tried) == 1
    gate, trials.gate = trials.gate, None
    gate.callback(None)
    found: list[Generation] = []
    first.addCallback(found.append)
    pulled.addCallback(found.append)
    assert [generation.fingerprint for generation in found] == ["fingerprint-1", "v2"]


def test_pinned(installer: Installer, archive: Path, trials: Trials) -> None:
    """With a pinned hash only that archive is opened."""
    checks = Checks(sha256="aa")
    with pytest.raises(UnsafeArchive, match="asks for aa"):
        result(installer.load(archive, "v1", "x", checks=checks, sha256="bb"))
    assert trials.tried == []
    assert result(installer.load(archive, "v1", "x", checks=checks, sha256="aa")).fingerprint == "v1"


def test_signature_is_passed_on(installer: Installer, archive: Path, trials: Trials) -> None:
    """Key and signature go to where the archive is opened."""
    with pytest.raises(UnsafeArchive, match="wrong"):
        result(installer.load(archive, "v1", "x", checks=Checks(public_key="A" * 43 + "="), signature="AAAA"))
    assert trials.tried[0].signature == "AAAA"


def test_stopped_while_opening(tmp_path: Path, trials: Trials, archive: Path) -> None:
    """A workshop that a thread opens while the server stops is closed again: nothing is left of it."""
    gate: Deferred[None] = Deferred()

    async def slow(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        shop = function(*args, **options)
        await gate
        return shop

    installer = Installer(
        lambda: Workshop.open(tmp_path / "models"),
        trials,
        slow,
        load_interpreter=load_interpreter,
        new_fingerprint=lambda: "f",
    )
    opening = Deferred.fromCoroutine(installer.opened())
    opening.addErrback(lambda failure: failure.trap(CancelledError))
    opening.cancel()
    installer.close()
    assert os.listdir(tmp_path / "models") != []
    gate.callback(None)
    assert os.listdir(tmp_path / "models") == []
