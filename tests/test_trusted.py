"""Tests of importing classes of other projects."""

from __future__ import annotations

from pathlib import Path

import pytest

from rasa_core_api.exceptions import InvalidDomain
from rasa_core_api.trusted import class_finder, imported, is_trusted


def test_trust() -> None:
    """A module is trusted by its own name or by that of a package around it."""
    assert is_trusted("a.b", ["a"]) and is_trusted("a", ["a"])
    assert not is_trusted("ab", ["a"]) and not is_trusted("a", ["a.b"])
    with pytest.raises(InvalidDomain, match="not one of ours"):
        class_finder(["pathlib"])("os.PathLike")
    assert class_finder(["pathlib"])("pathlib.Path") is Path


@pytest.mark.parametrize("path", [".", "..x", ".Channel", "a..B", "Channel", "a.b c", "a.1", ""])
def test_what_is_no_path(path: str) -> None:
    """What cannot name a class is told as such and reaches no import."""
    with pytest.raises(InvalidDomain, match="is not the path of a class"):
        imported(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 / 0\n", r"'broken_module.Thing': ZeroDivisionError: division by zero \(.*broken_module.py, line 1\)"),
        ("\n\ndef\n", r"cannot import 'broken_module.Thing': SyntaxError: .*broken_module.py, line 3\)"),
        ("import nowhere_at_all\n", "cannot import 'broken_module.Thing': No module named 'nowhere_at_all'"),
        ("", "cannot import 'broken_module.Thing': module 'broken_module' has no attribute 'Thing'"),
    ],
)  # fmt: skip
def test_modules_that_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    """A module with a mistake of its own is told in one line, with the place."""
    (tmp_path / "broken_module.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "broken_module", raising=False)
    with pytest.raises(InvalidDomain, match=words):
        imported("broken_module.Thing")
