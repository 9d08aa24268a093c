"""Tests of finding the parts of a model directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rasa_core_api.exceptions import UnsupportedModel
from rasa_core_api.models.layout import PolicyEntry, read_layout
from tests.models.directories import PATHS, edit, model_directory, write


def test_directories(tmp_path: Path) -> None:
    """Since 0.9 each policy has a directory with its number and class."""
    layout = read_layout(model_directory(tmp_path))
    assert layout.version == "0.11.12"
    assert layout.policies == (
        PolicyEntry(PATHS["MemoizationPolicy"], tmp_path / "policy_0_MemoizationPolicy", 2),
        PolicyEntry(PATHS["FallbackPolicy"], tmp_path / "policy_1_FallbackPolicy", None),
    )
    assert layout.states is not None
    assert layout.states[0] == "intent_bye"


def test_all_in_one_place(tmp_path: Path) -> None:
    """In 0.8 all files lie together and one history counts for all policies."""
    layout = read_layout(model_directory(tmp_path, "0.8"))
    assert [(entry.directory, entry.max_history) for entry in layout.policies] == [(tmp_path, 2), (tmp_path, 2)]


def test_two_metadata_files(tmp_path: Path) -> None:
    """A model of 0.14 that was written over an older one is the newer one."""
    root = model_directory(tmp_path, "0.13", ("FormPolicy",))
    assert read_layout(model_directory(root, "0.14", ("FormPolicy",))).version == "0.14.5"


@pytest.mark.parametrize("inside", ["core", "dialogue"])
def test_wrapped(tmp_path: Path, inside: str) -> None:
    """A model may lie one directory further in: in `core`, or in the only directory there is."""
    model_directory(tmp_path / inside)
    if inside == "core":
        (tmp_path / "nlu").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    assert read_layout(tmp_path).root == tmp_path / inside


def test_model_of_the_other_kind(tmp_path: Path) -> None:
    """A model for understanding messages is told from a dialogue model."""
    write(tmp_path / "metadata.json", {"pipeline": [], "language": "en"})
    with pytest.raises(UnsupportedModel, match=r"metadata\.json: .*not a dialogue model"):
        read_layout(tmp_path)


def test_no_model(tmp_path: Path) -> None:
    """An empty directory, a file and nothing at all are no models."""
    with pytest.raises(UnsupportedModel, match=r"neither metadata\.json nor policy_metadata\.json"):
        read_layout(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UnsupportedModel, match="file: it is a file, but no zip or tar.gz of a model"):
        read_layout(tmp_path / "file")
    with pytest.raises(UnsupportedModel, match="nowhere: there is no such directory"):
        read_layout(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("file", "changes", "reason"),
    [
        ("policy_metadata.json", {"policy_names": None}, "'policy_names' is not a list"),
        ("policy_metadata.json", {"policy_names": [3]}, "'policy_names' is not a list"),
        ("policy_metadata.json", {"policy_names": ["a.B"] * 101}, "'policy_names' is not a list"),
        ("policy_metadata.json", {"policy_names": ["a.../../etc"]}, "is not the path of a class"),
        ("policy_metadata.json", {"ensemble_name": None}, "'ensemble_name' is None"),
        ("policy_metadata.json", {"rasa_core": 11}, "'rasa_core' is 11"),
        ("domain.json", {"states": None}, "expected the list 'states'"),
        ("domain.json", {"states": [1]}, "expected the list 'states'"),
    ],
)
def test_refused(tmp_path: Path, file: str, changes: dict[str, Any], reason: str) -> None:
    """Metadata that cannot be followed is refused with file and member."""
    root = model_directory(tmp_path)
    edit(root / file, **changes)
    with pytest.raises(UnsupportedModel, match=reason) as caught:
        read_layout(root)
    assert file in str(caught.value)


def test_histories_of_another_shape(tmp_path: Path) -> None:
    """A history that is missing or no number is left to the policy's own files."""
    root = model_directory(tmp_path)
    edit(root / "policy_metadata.json", max_histories=["x"])
    assert [entry.max_history for entry in read_layout(root).policies] == [None, None]
