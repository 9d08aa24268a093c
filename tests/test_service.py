"""Tests of putting the server together."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path

import pytest

from rasa_core_api.exceptions import UnsupportedModel
from rasa_core_api.service import load_core
from rasa_core_api.slots import refuse_classes
from tests.models.samples import packed


def without(data: bytes, name: str) -> bytes:
    """The archive but for one member."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for member in old.namelist():
            if member != name:
                new.writestr(member, old.read(member))
    return out.getvalue()


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("domain.yml", "{path}/domain.yml: the file is missing"),
        ("policy_metadata.json", "{path}: not a dialogue model: it has neither"),
    ],
)
def test_errors_name_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, words: str
) -> None:
    """The operator knows the archive, not the directory that it was unpacked to, of which nothing is left."""
    path, scratch = tmp_path / "model.zip", tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    path.write_bytes(without(packed(tmp_path / "model"), missing))
    with pytest.raises(UnsupportedModel) as refused:
        load_core(path, refuse_classes)
    assert words.format(path=path) in str(refused.value)
    assert str(scratch) not in str(refused.value) and not list(scratch.iterdir())
