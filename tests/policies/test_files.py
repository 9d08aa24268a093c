"""Tests of reading a policy's small files."""

from __future__ import annotations

from pathlib import Path

import pytest

from rasa_core_api.exceptions import UnsupportedModel
from rasa_core_api.policies import files
from rasa_core_api.policies.files import member, read_json, read_priority, require_json


def test_objects(tmp_path: Path) -> None:
    """A JSON object is read; a file that is not there is None, or an error where it is needed."""
    path = tmp_path / "x.json"
    assert read_json(path) is None
    with pytest.raises(UnsupportedModel, match=r"x\.json: the file is missing"):
        require_json(path)
    path.write_text('{"a": 1}')
    assert read_json(path) == require_json(path) == {"a": 1}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_other_content(tmp_path: Path, content: bytes) -> None:
    """Anything else is refused by name."""
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(UnsupportedModel, match=r"x\.json") as caught:
        read_json(path)
    assert caught.value.details["file"] == "x.json"


def test_unreadable(tmp_path: Path) -> None:
    """A directory in place of a file is refused by name."""
    (tmp_path / "x.json").mkdir()
    with pytest.raises(UnsupportedModel, match=r"x\.json"):
        read_json(tmp_path / "x.json")


def test_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file beyond the limit is not read."""
    monkeypatch.setattr(files, "MAX_JSON", 10)
    path = tmp_path / "x.json"
    path.write_text('{"a": 1234567}')
    with pytest.raises(UnsupportedModel, match="larger than 10 bytes"):
        read_json(path)


def test_members(tmp_path: Path) -> None:
    """A file that another one names lies beside it, whatever the name says."""
    assert member(tmp_path, tmp_path / "c.json", {"model": "keras model.h5"}, "model") == tmp_path / "keras model.h5"
    for name in ("a/b", "..", ".", "", "\0", 3, None):
        with pytest.raises(UnsupportedModel, match=r"c\.json: 'model' is"):
            member(tmp_path, tmp_path / "c.json", {"model": name}, "model")


def test_priority() -> None:
    """Only a whole number is a priority."""
    assert [read_priority({"priority": value}) for value in (3, 0, None, "3", True, 1.5)] == [3, 0] + [None] * 4
    assert read_priority({}) is None
