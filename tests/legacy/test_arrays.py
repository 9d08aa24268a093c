"""numpy arrays and scalars are read from the records of a pickle, without numpy's own unpickling."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasa_core_api.exceptions import UnreadableFile
from rasa_core_api.legacy import Damage, reading
from rasa_core_api.legacy.arrays import array_of, integer_of, list_of, plain_of
from rasa_core_api.legacy.pickles import Global, Record, load_inert

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", ["<f8", ">f4", "<i8", ">i2", "|u1", "|b1", "<U3", "f2"])
def test_arrays(kind: str, protocol: int) -> None:
    """Arrays come out with the same values, whatever their byte order, layout or protocol."""
    array = np.arange(6).astype(kind).reshape(2, 3)
    for sample in (array, np.asfortranarray(array), array[:0], array[0, :0]):
        found = array_of(load_inert(pickle.dumps(sample, protocol), "x.pkl"))
        assert found.dtype.isnative
        assert found.shape == sample.shape
        assert found.tolist() == sample.tolist()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scalars(protocol: int) -> None:
    """Scalars become plain Python values."""
    samples = [np.int64(-7), np.uint8(200), np.float32(0.5), np.float64(0.1), np.bool_(True), 3, "x", None]
    found = load_inert(pickle.dumps(samples, protocol), "x.pkl")
    assert [plain_of(item) for item in found] == [-7, 200, 0.5, 0.1, True, 3, "x", None]
    assert integer_of(found[0]) == -7
    with pytest.raises(Damage):
        integer_of(found[2])


def test_scalars_of_dill() -> None:
    """dill spells numpy's compiled functions as an attribute of a module that it imports itself."""
    pickle_of_0_12 = (
        b"\x80\x02cdill._dill\n_get_attr\ncdill._dill\n_import_module\nX\x1c\x00\x00\x00numpy.core._multiarray_umath"
        b"\x85RX\x06\x00\x00\x00scalar\x86Rcnumpy\ndtype\nX\x02\x00\x00\x00i8K\x00K\x01\x87R(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff"
        b"\xff\xffJ\xff\xff\xff\xffK\x00tbU\x08}\x00\x00\x00\x00\x00\x00\x00\x86R."
    )
    assert integer_of(load_inert(pickle_of_0_12, "x.pkl")) == 125


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_lists(protocol: int) -> None:
    """Class names are found in lists, text arrays and arrays of objects."""
    for sample in (["a", "bc"], np.array(["a", "bc"]), np.array(["a", "bc"], dtype=object)):
        assert list_of(load_inert(pickle.dumps(sample, protocol), "x.pkl")) == ["a", "bc"]


def test_python_2() -> None:
    """An array whose bytes are a string of Python 2 is read."""
    record = Record(Global("numpy.core.multiarray", "_reconstruct"), (Global("numpy", "ndarray"), (0,), "b"))
    kind = Record(Global("numpy", "dtype"), ("f8", 0, 1))
    kind.state = (3, "<", None, None, None, -1, -1, 0)
    record.state = (1, (2,), kind, False, np.array([1.5, -2.0]).tobytes().decode("latin-1"))
    assert array_of(record).tolist() == [1.5, -2.0]


def _array(shape: Any = (2,), name: Any = "f8", order: Any = "<", content: Any = b"\0" * 16) -> Record:
    record = Record(Global("numpy.core.multiarray", "_reconstruct"), ())
    kind = Record(Global("numpy", "dtype"), (name, 0, 1))
    kind.state = (3, order)
    record.state = (1, shape, kind, False, content)
    return record


@pytest.mark.parametrize(
    "record",
    [
        _array(shape=(1 << 60, 1 << 60)),
        _array(shape=(-2,)),
        _array(shape=(-1, -2)),
        _array(shape=(2.0,)),
        _array(shape=[2]),
        _array(shape=(1,) * 40, content=b"\0" * 8),
        _array(name="V8"),
        _array(name="O8"),
        _array(name="f8,O8"),
        _array(name="f3"),
        _array(name="U0"),
        _array(name="U9999999999"),
        _array(name=b"f8"),
        _array(order="x"),
        _array(order=None),
        _array(content=b"\0" * 15),
        _array(content=None),
        _array(name="O8", content=[[]] * 2),
        None,
        [[]],
        "text",
        Record(Global("numpy.core.multiarray", "scalar"), ()),
    ],
)
def test_refused(record: Any) -> None:
    """Shapes that do not fit, kinds that are no numbers, and objects are refused."""
    with pytest.raises(Damage):
        array_of(record)
    with pytest.raises(Damage):
        list_of(record)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 199), st.binary(min_size=1, max_size=3))
def test_damage(position: int, noise: bytes) -> None:
    """An array that was written over is read or refused, never an unexpected error."""
    sample = pickle.dumps(np.array(["greet", "bye"]), 2)
    data = sample[:position] + noise + sample[position + len(noise) :]
    try:
        with reading("x.pkl"):
            list_of(load_inert(data, "x.pkl"))
    except UnreadableFile:
        pass
