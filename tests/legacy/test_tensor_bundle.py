"""TensorFlow checkpoints are read without TensorFlow, and damaged ones are refused with one kind of error."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rasa_core_api.exceptions import UnreadableFile
from rasa_core_api.legacy.tensor_bundle import read_bundle
from tests.legacy import writers

ANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

TENSORS = {
    "hidden_layer_a_0/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "hidden_layer_a_0/bias": np.array([0.5, -1.5, 2.0]),
    "hidden_layer_a_0/bias/Adam": np.zeros(3),
    "step": np.array(7, dtype=np.int64),
}


def everything(_: str) -> bool:
    return True


@ANY
@given(
    st.dictionaries(
        st.text("abc/_", min_size=1, max_size=12),
        arrays.arrays(
            st.sampled_from([np.float32, np.float64, np.int32, np.int64]),
            arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6),
        ),
        max_size=6,
    ),
    st.integers(1, 3),
)
def test_round_trip(tmp_path: Path, tensors: dict[str, np.ndarray], shards: int) -> None:
    """Every variable comes back with its type, shape and values, from any number of data files."""
    prefix = tmp_path / "model.ckpt"
    writers.tensor_bundle(prefix, tensors, shards)
    found = read_bundle(prefix, everything)
    assert found.keys() == tensors.keys()
    for name, values in tensors.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)


def test_wanted_only(tmp_path: Path) -> None:
    """Variables that nobody asked for are not read, and may even be damaged."""
    prefix = tmp_path / "model.ckpt"
    writers.tensor_bundle(prefix, TENSORS)
    part = tmp_path / "model.ckpt.data-00000-of-00001"
    content = bytearray(part.read_bytes())
    place = content.index(np.zeros(3).tobytes())
    content[place] ^= 1
    part.write_bytes(content)
    found = read_bundle(prefix, lambda name: not name.endswith("Adam"))
    assert sorted(found) == sorted(name for name in TENSORS if not name.endswith("Adam"))
    with pytest.raises(UnreadableFile, match="bias/Adam"):
        read_bundle(prefix, everything)


@ANY
@given(st.data())
def test_damage(tmp_path: Path, data: st.DataObject) -> None:
    """A file that is cut short or has a flipped bit is refused, whichever file and wherever."""
    prefix = tmp_path / "model.ckpt"
    writers.tensor_bundle(prefix, TENSORS)
    path = tmp_path / data.draw(st.sampled_from(["model.ckpt.index", "model.ckpt.data-00000-of-00001"]))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[place:]
    else:
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        found = read_bundle(prefix, everything)
    except UnreadableFile as error:
        assert "model.ckpt" in str(error)
    else:  # only the zeros between the places of blocks and the magic number say nothing
        assert path.suffix == ".index"
        assert len(content) - 44 <= place < len(content) - 8
        assert all(np.array_equal(found[name], values) for name, values in TENSORS.items())


def entry(dtype: int = 1, shape: tuple[int, ...] = (1,), size: int = 4, extra: bytes = b"") -> bytes:
    lengths = b"".join(writers.field(2, writers.field(1, length)) for length in shape)
    return writers.field(1, dtype) + writers.field(2, lengths) + writers.field(5, size) + extra


HEADER = (b"", writers.field(1, 1))


@pytest.mark.parametrize(
    "item",
    [
        entry(shape=(1 << 39, 1 << 39)),
        entry(shape=(1 << 63,)),
        entry(shape=(1,) * 9),
        entry(shape=(2,)),
        entry(size=1 << 62),
        entry(shape=(1 << 38,), size=1 << 40),
        entry(dtype=7),
        entry(extra=writers.field(3, 5)),
        entry(extra=writers.field(4, 1 << 40)),
        entry(extra=writers.field(7, b"")),
        entry(extra=writers.field(2, 3)),
        entry(extra=b"\x0b"),
        entry(extra=b"\xff" * 11),
        b"\x12\x7f",
    ],
)
def test_claims(tmp_path: Path, item: bytes) -> None:
    """Sizes, shapes, places and kinds that do not fit are refused before any memory is taken."""
    (tmp_path / "m.index").write_bytes(writers.table([HEADER, (b"w", item)]))
    (tmp_path / "m.data-00000-of-00001").write_bytes(b"\0" * 64)
    np.zeros(1)
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableFile):
            read_bundle(tmp_path / "m", everything)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_other_formats(tmp_path: Path) -> None:
    """A missing file, a missing data file, a compressed table, big-endian values: each is said."""
    prefix = tmp_path / "m"
    with pytest.raises(UnreadableFile, match=r"m\.index: No such file"):
        read_bundle(prefix, everything)
    writers.tensor_bundle(prefix, TENSORS)
    (tmp_path / "m.data-00000-of-00001").unlink()
    with pytest.raises(UnreadableFile, match=r"m\.data-00000-of-00001: No such file"):
        read_bundle(prefix, everything)
    (tmp_path / "m.index").write_bytes(writers.table([(b"", writers.field(1, 1) + writers.field(2, 1))]))
    with pytest.raises(UnreadableFile, match="big-endian"):
        read_bundle(prefix, everything)
    (tmp_path / "m.index").write_bytes(writers.table([(b"w", entry())]))
    with pytest.raises(UnreadableFile, match="how many data files"):
        read_bundle(prefix, everything)
    content = bytearray(writers.table([HEADER]))
    size = len(writers.block([HEADER]))
    content[size] = 1
    content[size + 1 : size + 5] = writers.masked(bytes(content[: size + 1]))
    (tmp_path / "m.index").write_bytes(content)
    with pytest.raises(UnreadableFile, match="compressed"):
        read_bundle(prefix, everything)


def test_blocks_on_top_of_each_other(tmp_path: Path) -> None:
    """An index that names one block many times does not multiply its entries without end."""
    inner = writers.block([HEADER, *((b"%06d" % number, b"") for number in range(300))])
    places = [(b"%04d" % number, writers.varint(0) + writers.varint(len(inner))) for number in range(20_000)]
    index = writers.block(places)
    out = inner + b"\0" + writers.masked(inner + b"\0")
    handle = writers.varint(0) + writers.varint(len(inner)) + writers.varint(len(out)) + writers.varint(len(index))
    out += index + b"\0" + writers.masked(index + b"\0")
    (tmp_path / "m.index").write_bytes(out + handle.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57))
    with pytest.raises(UnreadableFile):
        read_bundle(tmp_path / "m", everything)
