"""CRFsuite files are read without CRFsuite, and damaged ones are refused with one kind of error."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasa_core_api.exceptions import UnreadableFile
from rasa_core_api.legacy.crfsuite import CrfModel, read_crfsuite
from tests.legacy import writers

LABELS = ["O", "U-city", "-"]
STATE = {
    ("0:low:berlin", "U-city"): 2.5,
    ("0:low:berlin", "O"): -1.0,
    ("BOS", "-"): 0.25,
    ("0:low:zürich", "U-city"): 3.0,
}
NEXT = {("O", "O"): 0.5, ("O", "U-city"): -0.5}
FILE = writers.crfsuite(LABELS, STATE, NEXT)


def weights(model: CrfModel) -> dict[tuple[str, str], float]:
    """The weights of attributes for labels by name."""
    return {
        (attribute, model.labels[model.targets[place]]): float(model.weights[place])
        for attribute, number in model.attributes.items()
        for place in range(model.starts[number], model.starts[number + 1])
    }


def test_small_file() -> None:
    """Labels, attributes and weights are found."""
    model = read_crfsuite(FILE, "x")
    assert model.labels == tuple(LABELS)
    assert weights(model) == STATE
    assert model.transitions.tolist() == [[0.5, -0.5, 0.0], [0.0] * 3, [0.0] * 3]


def test_real_files(tmp_path: Path) -> None:
    """A file that CRFsuite wrote has the labels, attributes and weights that its library tells."""
    pycrfsuite = pytest.importorskip("pycrfsuite")
    trainer = pycrfsuite.Trainer(verbose=False)
    for words, tags in (("fly to berlin", "O O B"), ("fly home", "O O"), ("zürich please", "B O")):
        trainer.append([{f"low:{word}": 1.0, "bias": 1.0} for word in words.split()], tags.split())
    trainer.set_params({"feature.possible_transitions": True, "max_iterations": 20})
    path = tmp_path / "m.crfsuite"
    trainer.train(str(path))
    tagger = pycrfsuite.Tagger()
    tagger.open(str(path))
    info = tagger.info()
    model = read_crfsuite(path.read_bytes(), "x")
    assert list(model.labels) == tagger.labels()
    assert model.attributes.keys() == info.attributes.keys()
    assert weights(model) == pytest.approx(info.state_features, abs=1e-5)
    for (before, after), weight in info.transitions.items():
        found = model.transitions[model.labels.index(before), model.labels.index(after)]
        assert found == pytest.approx(weight, abs=1e-5)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, len(FILE) - 1), st.binary(min_size=1, max_size=4), st.booleans())
def test_damage(place: int, noise: bytes, cut: bool) -> None:
    """A file that is cut short is refused; one that is written over gives a sound model or is refused."""
    data = FILE[:place] if cut else FILE[:place] + noise + FILE[place + len(noise) :]
    try:
        model = read_crfsuite(data, "x")
    except UnreadableFile:
        return
    assert not cut
    assert all(target < len(model.labels) for target in model.targets)
    assert model.starts[-1] == len(model.targets) == len(model.weights)
    assert np.isfinite(model.weights).all()
    assert np.isfinite(model.transitions).all()


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (12, 200, "version"),
        (20, 3_000_000_000, "labels"),
        (20, 0, "labels"),
        (24, 4_000_000_000, "table"),
        (28, 4_000_000_000, "damaged"),
        (28 + 4 * 1, 48, "table"),
        (48 + 8, 4_000_000_000, "FEAT"),
        (48 + 12, 2, "unknown kind"),
        (48 + 16, 99, "does not exist"),
        (48 + 20, 99, "does not exist"),
        (48 + 28, 0x7FF00000, "out of range"),
        (48 + 28, 0x7FF80000, "out of range"),
    ],
)
def test_claims(place: int, value: int, reason: str) -> None:
    """Counts, places and weights that do not fit are refused with a reason."""
    data = bytearray(FILE)
    struct.pack_into("<I", data, place, value)
    with pytest.raises(UnreadableFile, match=reason):
        read_crfsuite(bytes(data), "x")


def test_names() -> None:
    """Names that occur twice are refused."""
    with pytest.raises(UnreadableFile, match="twice"):
        read_crfsuite(writers.crfsuite(["O", "O"], {}, {}), "x")
