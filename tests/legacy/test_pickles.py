"""Pickles of every protocol are read as records, and nothing in them is imported or called."""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import pickle
import re
import string
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasa_core_api.exceptions import UnreadableFile
from rasa_core_api.legacy import read_bounded
from rasa_core_api.legacy.pickles import (
    Global,
    Opaque,
    Record,
    attribute,
    bytes_of,
    class_name,
    load_inert,
    mapping_of,
)

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 200), 1 << 200)
    | st.floats(allow_nan=False)
    | st.text(st.characters(), max_size=300)
    | st.binary(max_size=300),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(st.text(max_size=9) | st.binary(max_size=9) | st.integers(-99, 99), inner, max_size=5)
    ),
    max_leaves=20,
)


def bare(value: Any) -> Any:
    """The value with the records that older protocols use for bytes replaced."""
    if isinstance(value, Record):
        return bytes_of(value)
    if isinstance(value, (list, tuple)):
        return type(value)(bare(item) for item in value)
    if isinstance(value, dict):
        return {bare(key): bare(item) for key, item in value.items()}
    return value


@settings(max_examples=150, deadline=None)
@given(PLAIN, st.sampled_from(PROTOCOLS))
def test_plain_values(value: Any, protocol: int) -> None:
    """Plain values come out as they went in, whatever the protocol."""
    assert bare(load_inert(pickle.dumps(value, protocol), "x.pkl")) == value


class Dog:
    """Something with attributes."""

    def __init__(self) -> None:
        self.legs = 4
        self.names = ["rex"]


class Slotted:
    """Something with attributes in slots."""

    __slots__ = ("legs",)

    def __init__(self) -> None:
        self.legs = 4


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_objects(protocol: int) -> None:
    """An object becomes a record whose class and attributes can be asked for."""
    record = load_inert(pickle.dumps(Dog(), protocol), "x.pkl")
    assert isinstance(record, Record)
    assert class_name(record) == "Dog"
    assert (attribute(record, "legs"), attribute(record, "names")) == (4, ["rex"])
    with pytest.raises(KeyError):
        attribute(record, "wings")


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_slots(protocol: int) -> None:
    """Attributes in slots are found as well."""
    assert attribute(load_inert(pickle.dumps(Slotted(), protocol), "x.pkl"), "legs") == 4


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_dictionary_classes(protocol: int) -> None:
    """What was set by key on a dictionary-like object can be read like a dictionary."""
    for value in (collections.OrderedDict(a=1, b=2), collections.defaultdict(None, {"a": 1, "b": 2})):
        found = load_inert(pickle.dumps(value, protocol), "x.pkl")
        assert mapping_of(found) == {"a": 1, "b": 2}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_sets_and_byte_arrays(protocol: int) -> None:
    """Sets can be read as lists of their members, byte arrays as bytes."""
    found = load_inert(pickle.dumps([{5}, frozenset([6]), bytearray(b"\xff\x00")], protocol), "x.pkl")
    members = [item if isinstance(item, list) else list(item.arguments[0]) for item in found[:2]]
    assert members == [[5], [6]]
    assert bytes_of(found[2]) == b"\xff\x00"


def test_byte_strings_of_python_2() -> None:
    """Strings of Python 2 lose nothing, in all three spellings."""
    raw = bytes(range(256))
    escaped = repr(raw)[1:].encode()
    assert bytes_of(load_inert(b"S" + escaped + b"\n.", "x.pkl")) == raw
    assert bytes_of(load_inert(b"T" + len(raw).to_bytes(4, "little") + raw + b".", "x.pkl")) == raw
    assert bytes_of(load_inert(b"U\x03\xe9ab.", "x.pkl")) == b"\xe9ab"


class Hostile:
    """Calls what it was given when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_hostile_calls(protocol: int, tmp_path: Path) -> None:
    """A pickle that would write a file, change the environment or import a module leaves no trace."""
    trace = tmp_path / "trace"
    payload = [
        Hostile(os.system, f"touch {trace}"),
        Hostile(os.mkdir, str(trace)),
        Hostile(eval, f"open({str(trace)!r}, 'w')"),
        Hostile(os.putenv, "LEFT_BY_A_PICKLE", "1"),
        Hostile(functools.partial, os.mkdir, str(trace)),
        {Hostile(os.mkdir, str(trace)): Hostile(os.mkdir, str(trace))},
    ]
    before = set(sys.modules)
    found = load_inert(pickle.dumps(payload, protocol), "x.pkl")
    assert [class_name(item) for item in found[:4]] == ["system", "mkdir", "eval", "putenv"]
    assert set(sys.modules) == before
    assert not trace.exists()


def test_hostile_names(tmp_path: Path) -> None:
    """Names are noted down and not imported, even through calls of calls and the old class instructions."""
    (tmp_path / "trap_module.py").write_text("raise SystemExit('imported')")
    sys.path.insert(0, str(tmp_path))
    try:
        for data in (
            b"ctrap_module\nrun\n.",
            b"(itrap_module\nrun\n.",
            b"(ctrap_module\nrun\no.",
            b"\x80\x04\x8c\x0btrap_module\x8c\x03run\x93.",
            b"ctrap_module\nrun\n)R)R}b.",
            b"\x80\x02ctrap_module\nrun\n)\x81}b.",
            b"\x80\x04ctrap_module\nrun\n)}\x92.",
        ):
            assert isinstance(load_inert(data, "x.pkl"), (Global, Record))
    finally:
        sys.path.remove(str(tmp_path))
    assert "trap_module" not in sys.modules


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"N",
        b"Pname\n.",
        b"NQ.",
        b"\x82\x01.",
        b"\x84\x01\x00\x00\x00.",
        b"\x80\x05\x97.",
        b"\x80\x05N\x98.",
        b"\x80\x06N.",
        b"\x8e" + b"\xff" * 8 + b".",
        b"B\xff\xff\xff\xff.",
        b"T\xff\xff\xff\xff.",
        b"\x8b\xff\xff\xff\x7f.",
        b"I" + b"9" * 5000 + b"\n.",
        b"NNb.",
        b"NNR.",
        b"N)R.",
        b"(NNs.",
        b"]NNs.",
        b"}Na.",
        b"h\x07.",
        b"p-1\n.",
        b"Np-1\n.",
        b"t.",
        b"(00t.",
        b"(o.",
        b"}(Nu.",
        b"Sno quotes\n.",
        b"X\x01\x00\x00\x00\xff.",
        b"\xff.",
    ],
)
def test_refused(data: bytes) -> None:
    """Broken instructions and those that reach outside of the file are refused with one kind of error."""
    with pytest.raises(UnreadableFile, match=re.escape("x.pkl")):
        load_inert(data, "x.pkl")


def test_claims_are_not_believed() -> None:
    """A huge memory index, frame or length costs nothing."""
    tracemalloc.start()
    try:
        assert load_inert(b"Nr\xff\xff\xff\xff\x95" + b"\xff" * 8 + b".", "x.pkl") is None
        with pytest.raises(UnreadableFile):
            load_inert(b"\x8d" + (1 << 40).to_bytes(8, "little") + b"abc.", "x.pkl")
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_keys_are_not_hashed_for_ever() -> None:
    """Nested shared tuples as a key, and lists as keys, are kept apart instead of being hashed."""
    found = load_inert(b"}N" + b"2\x86" * 100 + b"Ns.", "x.pkl")
    assert [type(key) for key in found] == [Opaque]
    assert len(load_inert(b"}" + b"]Ns" * 3 + b".", "x.pkl")) == 3


def test_many_instructions() -> None:
    """The number of instructions is limited."""
    assert load_inert(b"N0" * 49 + b"N.", "x.pkl", 100) is None
    with pytest.raises(UnreadableFile, match="more than 100 instructions"):
        load_inert(b"N0" * 50 + b"N.", "x.pkl", 100)


def test_endless_trees() -> None:
    """Something that contains itself can be read, shown and dropped."""
    ring: list[Any] = []
    ring.append(ring)
    found = load_inert(pickle.dumps(ring), "x.pkl")
    assert found[0] is found
    deep = load_inert(b"]" * 50_000 + b"a" * 49_999 + b".", "x.pkl")
    assert isinstance(deep, list)
    record = load_inert(b"cm\nn\n)R" + b"p0\ng0\nb.", "x.pkl")  # its own state
    assert record.state is record
    load_inert(b"cm\nn\n" + b")R" * 50_000 + b".", "x.pkl")
    assert repr(record) == "<record of n>"


SAMPLE = pickle.dumps({"vocabulary_": dict.fromkeys(string.ascii_letters, 7), "dog": [Dog(), (1.5, b"x")]}, 4)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(SAMPLE) - 1), st.binary(min_size=1, max_size=4), st.booleans())
def test_damage(position: int, noise: bytes, cut: bool) -> None:
    """A pickle that is cut short or overwritten gives records or UnreadableFile, nothing else."""
    data = SAMPLE[:position] if cut else SAMPLE[:position] + noise + SAMPLE[position + len(noise) :]
    try:
        load_inert(data, "x.pkl")
    except UnreadableFile:
        return
    assert not cut


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_noise(data: bytes) -> None:
    """Arbitrary bytes give records or UnreadableFile, nothing else."""
    with contextlib.suppress(UnreadableFile):
        load_inert(data, "x.pkl")


def test_read_bounded(tmp_path: Path) -> None:
    """A file that is missing, a directory or too large is refused by name."""
    path = tmp_path / "some.pkl"
    with pytest.raises(UnreadableFile, match=r"some\.pkl: No such file"):
        read_bounded(path, 10)
    path.write_bytes(b"12345678901")
    with pytest.raises(UnreadableFile, match=r"some\.pkl: is larger than 10 bytes"):
        read_bounded(path, 10)
    assert read_bounded(path, 11) == b"12345678901"
    with pytest.raises(UnreadableFile):
        read_bounded(tmp_path, 10)
