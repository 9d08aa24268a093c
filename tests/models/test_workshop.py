from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from rasa_core_api.exceptions import RasaCoreError
from rasa_core_api.models.workshop import Kept, Workshop

KEPT = Kept('W/"\u00e9"', "ab" * 32, None, "http://models/core", 12.5)


def archive(directory: Path, content: bytes = b"PK\n\0") -> Path:
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
    assert found is not None and found[1] == KEPT and found[0].read_bytes() == b"PK\n\0"
    shop.forget()
    assert shop.recall() is None
    shop.close()
    assert os.listdir(tmp_path / "models") == []


def test_keep_replaces(tmp_path: Path) -> None:
    """The newest model replaces the one before."""
    shop = Workshop.open(tmp_path / "models")
    for content in (b"one", b"two"):
        shop.keep(archive(tmp_path, content), KEPT)
    found = shop.recall()
    assert found is not None and found[0].read_bytes() == b"two"
    shop.close()


@pytest.mark.parametrize("damage", [b"", b"{}", b"{}\n", b"[1]\nPK", b"\xff\n", b'{"tag": 1}\nPK', b"x" * 50_000])
def test_damaged(tmp_path: Path, damage: bytes) -> None:
    """A damaged kept model is as good as none."""
    (tmp_path / "last.model").write_bytes(damage)
    tmp_path.chmod(0o700)
    shop = Workshop.open(tmp_path)
    assert shop.recall() is None
    shop.close()
    assert os.listdir(tmp_path) == ["last.model"]


def test_private(tmp_path: Path) -> None:
    """Nobody else can look into the workshop."""
    shop = Workshop.open(tmp_path / "a" / "models")
    for path in (shop.root, shop.place("x").parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    shop.close()


def test_crashed_process(tmp_path: Path) -> None:
    """What a process left that is gone is removed; what a living one has is not."""
    (tmp_path / "work-gone").mkdir()
    (tmp_path / "work-gone" / "1-download").write_bytes(b"x")
    tmp_path.chmod(0o700)
    living = Workshop.open(tmp_path)
    living.place("download").write_bytes(b"x")
    second = Workshop.open(tmp_path)
    assert len(list(tmp_path.glob("work-*"))) == 2 and len(list(tmp_path.glob("work-*/1-download"))) == 1
    second.close()
    living.close()
    assert os.listdir(tmp_path) == []


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


def test_open_to_others(tmp_path: Path) -> None:
    """A directory that others can write is not used: they could put a model there."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models").chmod(0o777)
    shop = Workshop.open(tmp_path / "models")
    assert not shop.keeps
    shop.close()


def test_keep_fails(tmp_path: Path) -> None:
    """An archive that is gone is told, and the kept one stays."""
    shop = Workshop.open(tmp_path / "models")
    shop.keep(archive(tmp_path), KEPT)
    with pytest.raises(RasaCoreError, match="cannot be kept"):
        shop.keep(tmp_path / "gone", KEPT)
    assert shop.recall() is not None
    shop.close()
