from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from attrs import evolve

from rasa_core_api.exceptions import RasaCoreError
from rasa_core_api.models import workshop
from rasa_core_api.models.workshop import Kept, Workshop

CONTENT = b"PK\n\0"
KEPT = Kept('W/"\u00e9"', hashlib.sha256(CONTENT).hexdigest(), None, "http://models/core", "0123", 12.5)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories are made."""
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def archive(directory: Path, content: bytes = CONTENT) -> Path:
    path = directory / "archive"
    path.write_bytes(content)
    return path


def test_keep(tmp_path: Path) -> None:
    """What one process keeps the next one finds, byte for byte, and no file more."""
    shop = Workshop.open(tmp_path / "models")
    shop.keep(archive(tmp_path), KEPT)
    shop.close()
    assert os.listdir(tmp_path / "models") == ["last.model"]
    shop = Workshop.open(tmp_path / "models")
    found = shop.recall()
    assert found is not None and found[1] == KEPT and found[0].read_bytes() == CONTENT
    shop.close()
    assert os.listdir(tmp_path / "models") == ["last.model"]


def test_keep_replaces(tmp_path: Path) -> None:
    """The newest model replaces the one before."""
    shop = Workshop.open(tmp_path / "models")
    for content in (b"one", b"two"):
        shop.keep(archive(tmp_path, content), evolve(KEPT, sha256=hashlib.sha256(content).hexdigest()))
    found = shop.recall()
    assert found is not None and found[0].read_bytes() == b"two"
    shop.close()


@pytest.mark.parametrize("damage", [b"", b"{}", b"{}\n", b"[1]\nPK", b"\xff\n", b'{"tag": 1}\nPK', b"x" * 50_000])
def test_damaged(tmp_path: Path, damage: bytes) -> None:
    """A damaged kept model is as good as none."""
    root = tmp_path / "models"
    root.mkdir(0o700)
    (root / "last.model").write_bytes(damage)
    shop = Workshop.open(root)
    assert shop.recall() is None
    shop.close()
    assert os.listdir(root) == ["last.model"]


def test_content_changed(tmp_path: Path) -> None:
    """A kept archive that is not the one whose hash was noted is not served."""
    shop = Workshop.open(tmp_path / "models")
    shop.keep(archive(tmp_path), KEPT)
    kept = shop.root / "last.model"
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    assert shop.recall() is None
    shop.close()


def test_private(tmp_path: Path) -> None:
    """Nobody else can look into the workshop."""
    shop = Workshop.open(tmp_path / "a" / "models")
    for path in (shop.root, shop.place("x").parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    shop.close()


def test_crashed_process(tmp_path: Path) -> None:
    """What a process left that is gone is removed; what a living one has is not."""
    root = tmp_path / "models"
    (root / "work-gone").mkdir(0o700, parents=True)
    (root / "work-gone" / "1-download").write_bytes(b"x")
    root.chmod(0o700)
    living = Workshop.open(root)
    living.place("download").write_bytes(b"x")
    second = Workshop.open(root)
    assert len(list(root.glob("work-*"))) == 2 and len(list(root.glob("work-*/1-download"))) == 1
    second.close()
    living.close()
    assert os.listdir(root) == []


def test_killed_without_a_place(temporary: Path) -> None:
    """What a killed process left in the temporary directory the next one removes."""
    first = Workshop.open(None)
    first.place("download").write_bytes(b"x")
    first._unlock()
    second = Workshop.open(None)
    assert len(list(temporary.glob("*/work-*"))) == 1
    second.close()
    assert os.listdir(temporary) == []


def test_swept_at_birth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A room that another process took for a dead one's, before it was locked, is given up for another."""
    real, taken = workshop._try_lock, []

    def sweep_first(path: Path) -> int | None:
        if not taken:
            taken.append(path)
            shutil.rmtree(path.parent)
        return real(path)

    monkeypatch.setattr(workshop, "_try_lock", sweep_first)
    shop = Workshop.open(tmp_path / "models")
    shop.place("download").write_bytes(b"x")
    assert taken and shop.keeps
    shop.close()


def test_removed_at_work(tmp_path: Path) -> None:
    """Where the room is cleared away while the process lives it gets another one."""
    shop = Workshop.open(None)
    shutil.rmtree(shop.root)
    shop.place("download").write_bytes(b"x")
    other = Workshop.open(None)
    assert len(list(shop.root.glob("work-*/*-download"))) == 1
    other.close()
    shop.close()
    assert not shop.root.exists()


def test_no_place(tmp_path: Path) -> None:
    """Where nothing can be kept a temporary directory serves, and goes with the process."""
    (tmp_path / "file").write_text("")
    for root in (None, tmp_path / "file" / "models"):
        shop = Workshop.open(root)
        assert not shop.keeps and shop.root.is_dir()
        shop.keep(archive(tmp_path), KEPT)
        assert shop.recall() is None
        shop.close()
        assert not shop.root.exists()


def test_no_place_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no temporary directory either the reason is told."""
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    monkeypatch.setattr(Path, "mkdir", _full)
    with pytest.raises(RasaCoreError, match="no place on this machine"):
        Workshop.open(None)


def _full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_somebody_was_first(temporary: Path) -> None:
    """A temporary directory of our name that others can write is not used."""
    trap = temporary / f"rasa-core-api-{os.geteuid()}"
    trap.mkdir()
    trap.chmod(0o777)
    shop = Workshop.open(None)
    assert shop.root != trap and os.listdir(trap) == []
    shop.close()


def test_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was kept is served though the disk became read-only."""
    shop = Workshop.open(tmp_path / "models")
    shop.keep(archive(tmp_path), KEPT)
    shop.close()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / "models" and real(path, mode))
    shop = Workshop.open(tmp_path / "models")
    found = shop.recall()
    assert not shop.keeps and found is not None and found[1] == KEPT
    shop.close()
    assert os.listdir(tmp_path / "models") == ["last.model"]


def test_open_to_others(tmp_path: Path) -> None:
    """A directory that others can write is not used: they could put a model there."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models").chmod(0o777)
    (tmp_path / "models" / "last.model").write_bytes(b"{}")
    shop = Workshop.open(tmp_path / "models")
    assert not shop.keeps and shop._kept_in is None
    shop.close()


def test_keep_fails(tmp_path: Path) -> None:
    """An archive that is gone is told, and the kept one stays."""
    shop = Workshop.open(tmp_path / "models")
    shop.keep(archive(tmp_path), KEPT)
    with pytest.raises(RasaCoreError, match="cannot be kept"):
        shop.keep(tmp_path / "gone", KEPT)
    assert shop.recall() is not None
    shop.close()
