from __future__ import annotations

import hashlib
import io
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rasa_core_api.exceptions import UnreadableFile, UnsupportedModel
from rasa_core_api.nlu.arrays_file import read_arrays, write_arrays
from rasa_core_api.nlu.components import defaults
from rasa_core_api.nlu.message import Message
from rasa_core_api.nlu.model import NluModel, NotConnected
from rasa_core_api.nlu.storage import load_model, save_model
from rasa_core_api.nlu.svc import SupportVectors, SvcIntents

from .test_training import DATA, QUICK, train

EVERYTHING = [
    "WhitespaceTokenizer",
    "RegexFeaturizer",
    {"name": "CRFEntityExtractor", "max_iterations": 20},
    {"name": "ner_crf", "BILOU_flag": False, "features": [["low"], ["bias", "suffix1"], ["upper"]]},
    "EntitySynonymMapper",
    "CountVectorsFeaturizer",
    {"name": "CountVectorsFeaturizer", "analyzer": "char_wb", "min_ngram": 2, "max_ngram": 3},
    {"name": "ner_duckling_http", "url": "http://d"},
    QUICK,
    {**QUICK, "similarity_type": "inner", "hidden_layers_sizes_b": [5]},
    "intent_classifier_linear",
    "intent_classifier_keyword",
]
TEXTS = ["we travel to NYC", "hello 12345", "good night rome", "?", "", "xyzzy", "take me to oslo please"]


def files(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[NluModel, Path]:
    model, _ = train(EVERYTHING, trained_at="20200101-000000")
    path = tmp_path_factory.mktemp("models") / "everything"
    save_model(model, path)
    return model, path


def test_round_trip(saved: tuple[NluModel, Path], tmp_path: Path) -> None:
    """A model that was saved parses as before, part by part, and saves to the same bytes."""
    model, path = saved
    loaded = load_model(path, with_data=True)
    for end in range(1, len(EVERYTHING) + 1):  # the last classifier decides: stop behind each
        one, two = (NluModel("en", m.components[:end]) for m in (model, loaded))
        for text in TEXTS:
            assert one.parse(text) == two.parse(text)
    assert loaded.data == DATA.with_lookups_read([]) and loaded.trained_at == "20200101-000000"
    assert loaded.config == model.config
    save_model(loaded, tmp_path / "again")
    assert files(tmp_path / "again") == files(path)


def test_same_data_same_bytes(saved: tuple[NluModel, Path], tmp_path: Path) -> None:
    """Training again gives the same files, but for the time of training."""
    _, path = saved
    model, _ = train(EVERYTHING, trained_at="20210202-111111")
    save_model(model, tmp_path / "again")
    one, two = files(path), files(tmp_path / "again")
    assert one.keys() == two.keys()
    assert {name for name in one if one[name] != two[name]} == {"metadata.json"}
    assert one["metadata.json"].replace(b"20200101-000000", b"20210202-111111") == two["metadata.json"]


def test_training_data_is_rasas(saved: tuple[NluModel, Path]) -> None:
    """The directory has its training data as rasa JSON, and metadata that tools of the time understand."""
    metadata = json.loads((saved[1] / "metadata.json").read_text())
    assert metadata["format"] == "rasa_core_api.nlu" and metadata["rasa_nlu_version"] == "0.13.8"
    assert metadata["language"] == "en" and metadata["trained_at"] == "20200101-000000"
    assert "rasa_nlu_data" in json.loads((saved[1] / metadata["training_data"]).read_text())
    for name, digest in metadata["sha256"].items():
        assert hashlib.sha256((saved[1] / name).read_bytes()).hexdigest() == digest


def test_replaces(tmp_path: Path) -> None:
    """Saving over a model replaces it as a whole and leaves nothing else behind."""
    model, _ = train(["intent_classifier_linear"])
    save_model(model, tmp_path / "m")
    save_model(NluModel("de", train(["intent_classifier_keyword"])[0].components), tmp_path / "m")
    assert load_model(tmp_path / "m").language == "de"
    assert sorted(files(tmp_path / "m")) == ["metadata.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_failed_save(tmp_path: Path) -> None:
    """A model that cannot be saved leaves the old one, and nothing half-written."""

    class Odd:
        name = "odd"

        def process(self, message: Message) -> None: ...

    save_model(NluModel("de", []), tmp_path / "m")
    with pytest.raises(UnsupportedModel, match="odd"):
        save_model(NluModel("en", [Odd()]), tmp_path / "m")
    assert load_model(tmp_path / "m").language == "de" and [path.name for path in tmp_path.iterdir()] == ["m"]


def test_untrained_parts(tmp_path: Path) -> None:
    """Parts that had nothing to learn are remembered as such."""
    from rasa_core_api.nlu.data import Example, TrainingData

    model, _ = train(
        ["tokenizer_whitespace", "ner_crf", "intent_classifier_sklearn"], TrainingData([Example("a", "x")])
    )
    save_model(model, tmp_path / "m")
    assert load_model(tmp_path / "m").parse("a")["intent"] is None


def test_support_vectors(tmp_path: Path) -> None:
    """A classifier that scikit-learn trained keeps its numbers."""
    machine = SupportVectors(
        "rbf", 0.1, 0.0, 3, np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, -1.0]]), [1, 1],
        np.array([0.1]), np.array([-1.0]), np.array([0.2]),
    )  # fmt: skip
    vectors = train(["tokenizer_whitespace", {"name": "CountVectorsFeaturizer", "max_features": 2}])[0].components
    model = NluModel("en", [*vectors, SvcIntents(machine, ["a", "b"])])
    save_model(model, tmp_path / "m")
    for text in TEXTS:
        assert load_model(tmp_path / "m").parse(text) == model.parse(text)


def test_network_part(saved: tuple[NluModel, Path]) -> None:
    """Network parts are made by the caller's factory from what was saved."""
    seen: list[Any] = []

    def connect(*asked: Any) -> Any:
        seen.append(asked)
        return NotConnected("ner_duckling_http", asked[0], asked[1])

    load_model(saved[1], connect)
    expected = {**defaults("ner_duckling_http"), "url": "http://d"}
    assert seen == [(expected, "DucklingHTTPExtractor", "en")]


def test_damage(saved: tuple[NluModel, Path], tmp_path: Path) -> None:
    """A missing, shortened or changed file is named; nothing else is raised."""
    content = files(saved[1])
    chance = random.Random(1)
    for name in content:
        if name in ("metadata.json", "training_data.json"):
            continue
        for broken in (None, content[name][:-1], _flipped(content[name], chance)):
            for other, whole in content.items():
                (tmp_path / other).write_bytes(whole)
            if broken is None:
                (tmp_path / name).unlink()
            else:
                (tmp_path / name).write_bytes(broken)
            with pytest.raises(UnsupportedModel, match=name):
                load_model(tmp_path)


def _flipped(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def test_damage_with_fitting_hashes(saved: tuple[NluModel, Path], tmp_path: Path) -> None:
    """Whoever also changes the hashes gets the same one kind of error, or a model that works."""
    content = files(saved[1])
    chance = random.Random(2)
    names = sorted(set(content) - {"training_data.json"})
    for _ in range(150):
        name = chance.choice(names)
        changed = {**content, name: _flipped(content[name], chance)}
        if name != "metadata.json":
            metadata = json.loads(content["metadata.json"])
            metadata["sha256"][name] = hashlib.sha256(changed[name]).hexdigest()
            changed["metadata.json"] = json.dumps(metadata).encode()
        for other, whole in changed.items():
            (tmp_path / other).write_bytes(whole)
        try:
            model = load_model(tmp_path)
        except UnsupportedModel:
            continue
        for text in TEXTS:
            model.parse(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "no model of the format"),
        ({"format_version": 2}, "version 2 is not known"),
        ({"sha256": None}, "no list of hashes"),
        ({"pipeline": 3}, "no pipeline"),
        ({"pipeline": [{"name": "os.system"}]}, "no component 'os.system'"),
        ({"pipeline": [{"name": "ner_synonyms", "synonyms_file": "../../etc/passwd"}]}, "no file name"),
        ({"pipeline": [{"name": "ner_synonyms"}]}, "KeyError"),
        ({"pipeline": ["x"]}, "TypeError"),
    ],
)
def test_metadata(saved: tuple[NluModel, Path], tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """Metadata that is not what was written is refused with the reason."""
    metadata = json.loads((saved[1] / "metadata.json").read_text())
    (tmp_path / "metadata.json").write_text(json.dumps({**metadata, **change}))
    with pytest.raises(UnsupportedModel, match=message):
        load_model(tmp_path)


def test_columns_that_do_not_fit(tmp_path: Path) -> None:
    """A classifier that knows another number of columns than there are is refused, not left to fail in a parse."""
    model, _ = train(["tokenizer_whitespace", "intent_featurizer_count_vectors", QUICK])
    save_model(NluModel("en", [model.components[0], model.components[2]]), tmp_path / "m")
    with pytest.raises(UnreadableFile, match="0 feature columns"):
        load_model(tmp_path / "m")


def test_arrays() -> None:
    """Arrays of numbers are written without a time stamp and read as they were; objects are refused."""
    arrays = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([1, 2]), "c": np.zeros((0, 4))}
    content = write_arrays(arrays)
    assert content == write_arrays(dict(reversed(arrays.items())))
    again = read_arrays(content, "f")
    assert all(
        np.array_equal(again[name], array) and again[name].dtype == array.dtype for name, array in arrays.items()
    )
    for bad in (np.array([object()], dtype=object), np.array(["x"])):
        stream = io.BytesIO()
        np.savez(stream, bad)
        with pytest.raises(UnreadableFile):
            read_arrays(stream.getvalue(), "f")
    with pytest.raises(UnreadableFile, match="compressed"):
        stream = io.BytesIO()
        np.savez_compressed(stream, a=np.zeros(1000))
        read_arrays(stream.getvalue(), "f")


def test_arrays_that_lie() -> None:
    """A header that claims more than there is allocates nothing."""
    member, stream = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": "<f8", "fortran_order": False, "shape": (1 << 50,)})
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.npy", member.getvalue() + bytes(80))
    with pytest.raises(UnreadableFile, match="size is not what its header says"):
        read_arrays(stream.getvalue(), "f")
