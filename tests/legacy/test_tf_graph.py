"""Constants are found in a TensorFlow graph file by the end of their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rasa_core_api.exceptions import UnreadableFile
from rasa_core_api.legacy.tf_graph import read_constants
from tests.legacy import writers

BIAS = np.array([0.25, -1.0, 3.5], dtype=np.float32)
GRAPH = writers.graph(
    writers.constant("a/other/y", BIAS),
    writers.constant("a/cell/add/y", BIAS),
    writers.constant("b/cell/add/y", BIAS.astype(np.float64).reshape(1, 3)),
    writers.constant("c/cell/add/y", BIAS, operation="Add"),
    writers.constant("d/cell/add/y", BIAS, listed=True),
)


def test_by_ending(tmp_path: Path) -> None:
    """Constants with the ending are read, in both spellings of their values; other nodes are not."""
    path = tmp_path / "m.meta"
    path.write_bytes(GRAPH)
    found = read_constants(path, ("cell/add/y",))
    assert sorted(found) == ["a/cell/add/y", "b/cell/add/y", "d/cell/add/y"]
    assert found["b/cell/add/y"].shape == (1, 3)
    assert all(values.ravel().tolist() == BIAS.tolist() for values in found.values())


def test_one_value_for_all(tmp_path: Path) -> None:
    """A single number fills the shape."""
    path = tmp_path / "m.meta"
    tensor = writers.field(1, 1) + writers.field(2, writers.field(2, writers.field(1, 3)))
    tensor += writers.varint(5 << 3 | 5) + BIAS[:1].tobytes()
    value = writers.field(5, writers.field(1, b"value") + writers.field(2, writers.field(8, tensor)))
    node = writers.field(1, writers.field(1, b"y") + writers.field(2, b"Const") + value)
    path.write_bytes(writers.graph(node))
    assert read_constants(path, ("y",))["y"].tolist() == [0.25] * 3


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(GRAPH) - 1), st.binary(min_size=1, max_size=3), st.booleans())
def test_damage(tmp_path: Path, place: int, noise: bytes, cut: bool) -> None:
    """A graph that is cut short or written over gives constants or UnreadableFile, nothing else."""
    path = tmp_path / "m.meta"
    path.write_bytes(GRAPH[:place] if cut else GRAPH[:place] + noise + GRAPH[place + len(noise) :])
    try:
        found = read_constants(path, ("cell/add/y",))
    except UnreadableFile as error:
        assert "m.meta" in str(error)
    else:
        assert sum(values.size for values in found.values()) <= 9


def test_claims(tmp_path: Path) -> None:
    """A shape that is larger than its values is refused before memory is taken."""
    path = tmp_path / "m.meta"
    for shape in ((1 << 39,), (1 << 20, 1 << 20), (4,)):
        lengths = b"".join(writers.field(2, writers.field(1, length)) for length in shape)
        tensor = writers.field(1, 1) + writers.field(2, lengths) + writers.field(4, BIAS.tobytes())
        value = writers.field(5, writers.field(1, b"value") + writers.field(2, writers.field(8, tensor)))
        node = writers.field(1, writers.field(1, b"y") + writers.field(2, b"Const") + value)
        path.write_bytes(writers.graph(node))
        with pytest.raises(UnreadableFile):
            read_constants(path, ("y",))
