"""Tests of the HDF5 reader, against the library of the format's authors."""

from __future__ import annotations

import io
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasa_core_api.legacy import Damage
from rasa_core_api.legacy.hdf5 import Hdf5

NAMES = st.from_regex(r"[!-.0-~]+", fullmatch=True).filter(lambda name: name != ".")
TEXTS = st.text(st.characters(min_codepoint=1, blacklist_categories=["Cs"]))
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


def written(fill: object) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        fill(file)  # type: ignore[operator]
    return buffer.getvalue()


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(NAMES, st.tuples(SHAPES, st.sampled_from(["<f2", ">f4", "<f4", "<f8"])), max_size=12))
def test_arrays(arrays: dict[str, tuple[tuple[int, ...], str]]) -> None:
    """Arrays of any shape and width come back as they were written."""
    numbers = {
        name: np.arange(np.prod(shape), dtype=np.float64).reshape(shape).astype(kind)
        for name, (shape, kind) in arrays.items()
    }

    def fill(file: h5py.File) -> None:
        for name, array in numbers.items():
            file[name] = array

    root = Hdf5(written(fill)).root
    for name, array in numbers.items():
        read = root.child(name).floats(1000)
        assert read.shape == array.shape
        assert np.array_equal(read, array.astype(np.float32))


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(NAMES, st.lists(TEXTS, max_size=5)))
def test_attributes(attributes: dict[str, list[str]]) -> None:
    """Text attributes come back, whether their texts are kept in place or in a heap."""

    def fill(file: h5py.File) -> None:
        for index, (name, texts) in enumerate(attributes.items()):
            if index % 2 and all(texts):
                file.attrs[name] = np.array([text.encode() for text in texts], "S") if texts else np.zeros(0)
            else:
                file.attrs.create(name, np.array(texts, object), dtype=h5py.string_dtype())

    root = Hdf5(written(fill)).root
    for name, texts in attributes.items():
        assert root.texts(name) == texts
    assert root.texts("another") is None or "another" in attributes


def test_many_members() -> None:
    """Groups with more members than one block holds, and groups in groups."""

    def fill(file: h5py.File) -> None:
        for index in range(700):
            file[f"a/b{index % 3}/n{index}"] = np.float32(index)

    root = Hdf5(written(fill)).root
    for index in range(700):
        assert root.child(f"a/b{index % 3}/n{index}").floats(1) == index
    assert "a" in root
    assert "b" not in root


def test_long_attribute() -> None:
    """A long text, as architectures are, comes back whole; a lone text is a list of one."""
    text = "x" * 60_000
    root = Hdf5(written(lambda file: file.attrs.__setitem__("t", text))).root
    assert root.texts("t") == [text]


@pytest.mark.parametrize("library", ["latest", "v110"])
def test_newer_layouts(library: str, tmp_path: Path) -> None:
    """Layouts that Keras never wrote are refused, not misread."""
    with h5py.File(tmp_path / "x.h5", "w", libver=library) as file:
        file["x"] = np.zeros(3, "f4")
    with pytest.raises(Damage, match="another version"):
        Hdf5((tmp_path / "x.h5").read_bytes())


def test_other_content() -> None:
    """Integers are no floats, groups no arrays, numbers no text, and limits hold."""

    def fill(file: h5py.File) -> None:
        file["i"] = np.zeros(3, "i4")
        file["f"] = np.zeros(3, "f4")
        file["chunked"] = np.zeros(0)
        file.create_group("g")
        file.attrs["n"] = 3
        file.attrs["v"] = np.array([[1, 2]])

    root = Hdf5(written(fill)).root
    for name, reason in (("i", "something else"), ("g", "an array was expected"), ("f", "too large")):
        with pytest.raises(Damage, match=reason):
            root.child(name).floats(2)
    for name in ("n", "v"):
        with pytest.raises(Damage, match="is not text"):
            root.texts(name)
    with pytest.raises(Damage, match="a group was expected"):
        root.child("f/x")
