"""Tests of the reader of Keras networks, with files written here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from rasa_core_api.exceptions import UnreadableFile
from rasa_core_api.legacy.keras_hdf5 import read_architecture_and_weights, read_model
from tests.legacy.keras_files import LAYERS, WEIGHTS, write_model, write_weights


def test_full_model(tmp_path: Path) -> None:
    """Layers come in order, with configuration and weights."""
    path = write_model(tmp_path / "m.h5", LAYERS, WEIGHTS)
    masking, dense = read_model(path)
    assert (masking.kind, masking.name, masking.weights) == ("Masking", "masking", {})
    assert (dense.kind, dense.config["units"]) == ("Dense", 3)
    assert np.array_equal(dense.weights["kernel"], WEIGHTS["dense"]["dense/kernel:0"])
    assert dense.weights["bias"].dtype == np.float32


def test_list_of_layers_without_a_wrapper(tmp_path: Path) -> None:
    """Files of TensorFlow up to 1.10 hold the bare list of layers."""
    path = write_model(tmp_path / "m.h5", LAYERS, WEIGHTS, wrapped=False)
    assert [layer.name for layer in read_model(path)] == ["masking", "dense"]


def test_architecture_and_weights(tmp_path: Path) -> None:
    """The older releases wrote the architecture and the weights to two files."""
    write_weights(tmp_path / "w.h5", WEIGHTS)
    (tmp_path / "a.json").write_text(json.dumps({"class_name": "Sequential", "config": {"layers": LAYERS}}))
    layers = read_architecture_and_weights(tmp_path / "a.json", tmp_path / "w.h5")
    assert [sorted(layer.weights) for layer in layers] == [[], ["bias", "kernel"]]


def test_names_that_are_bytes_or_text_or_in_pieces(tmp_path: Path) -> None:
    """Names are read however they are kept: as text, as bytes, or spread over numbered attributes."""
    path = write_model(tmp_path / "m.h5", LAYERS, WEIGHTS)
    with h5py.File(path, "r+") as file:
        names = file["model_weights"].attrs
        del names["layer_names"]
        names["layer_names0"] = [b"masking"]
        names["layer_names1"] = [b"dense"]
        dense = file["model_weights/dense"].attrs
        weights = [name.decode() for name in dense["weight_names"]]
        del dense["weight_names"]
        dense["weight_names"] = weights
        config = file.attrs["model_config"]
        del file.attrs["model_config"]
        file.attrs["model_config"] = np.bytes_(config.encode() if isinstance(config, str) else config)
    assert sorted(read_model(path)[1].weights) == ["bias", "kernel"]


def test_double_precision(tmp_path: Path) -> None:
    """Numbers come as float32, however wide they are kept."""
    path = write_model(tmp_path / "m.h5", LAYERS, WEIGHTS)
    kernel = WEIGHTS["dense"]["dense/kernel:0"]
    for kind in (">f8", "<f2"):
        with h5py.File(path, "r+") as file:
            place = file["model_weights/dense/dense"]
            del place["kernel:0"]
            place["kernel:0"] = kernel.astype(kind)
        read = read_model(path)[1].weights["kernel"]
        assert read.dtype == np.float32
        assert np.array_equal(read, kernel)


def spoil_link(file: Any) -> None:
    place = file["model_weights/dense/dense"]
    del place["kernel:0"]
    place["kernel:0"] = h5py.ExternalLink("/etc/passwd", "/x")


def spoil_soft(file: Any) -> None:
    place = file["model_weights/dense/dense"]
    del place["kernel:0"]
    place["kernel:0"] = h5py.SoftLink("/model_weights/dense/dense/bias:0")


def spoil_external(file: Any) -> None:
    place = file["model_weights/dense/dense"]
    del place["kernel:0"]
    place.create_dataset("kernel:0", (2, 3), "f4", external=[("/etc/passwd", 0, 24)])


def spoil_virtual(file: Any) -> None:
    place = file["model_weights/dense/dense"]
    del place["kernel:0"]
    layout = h5py.VirtualLayout((2, 3), "f4")
    layout[:] = h5py.VirtualSource("/tmp/elsewhere.h5", "x", (2, 3))
    place.create_virtual_dataset("kernel:0", layout)


def spoil_size(file: Any) -> None:
    place = file["model_weights/dense/dense"]
    del place["kernel:0"]
    place.create_dataset("kernel:0", (1 << 20, 1 << 20), "f4", chunks=(1024, 1024), compression="gzip")


def spoil_shape(file: Any) -> None:
    place = file["model_weights/dense/dense"]
    del place["kernel:0"]
    place.create_dataset("kernel:0", (1 << 20, 1 << 20), "f4")  # nothing is stored of it


def spoil_filter(file: Any) -> None:
    place = file["model_weights/dense/dense"]
    del place["kernel:0"]
    place.create_dataset("kernel:0", data=np.zeros((2, 3), "f4"), compression="lzf")


def spoil_type(file: Any) -> None:
    place = file["model_weights/dense/dense"]
    del place["kernel:0"]
    place["kernel:0"] = np.array([b"a", b"b"])


def spoil_number(file: Any) -> None:
    file["model_weights/dense/dense/kernel:0"][0, 0] = np.nan


def spoil_weight(file: Any) -> None:
    del file["model_weights/dense/dense/kernel:0"]


def spoil_group(file: Any) -> None:
    del file["model_weights"]


def spoil_names(file: Any) -> None:
    del file["model_weights"].attrs["layer_names"]


def spoil_many_names(file: Any) -> None:
    attributes = file["model_weights/dense"].attrs
    del attributes["weight_names"]
    attributes.create("weight_names", np.array(["x" * 2000] * 3000, object), dtype=h5py.string_dtype())


def spoil_config(file: Any) -> None:
    file.attrs["model_config"] = "{"


def spoil_functional(file: Any) -> None:
    file.attrs["model_config"] = json.dumps({"class_name": "Model", "config": {}})


def spoil_layers(file: Any) -> None:
    file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": [{"class_name": "Dense"}]})


def spoil_unknown(file: Any) -> None:
    layer = {"class_name": "Dense", "config": {"name": "other"}}
    file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": [layer]})


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_link, "has no|a group was expected"),
        (spoil_soft, "a link"),
        (spoil_external, "outside of the file"),
        (spoil_virtual, "in pieces"),
        (spoil_size, "compressed"),
        (spoil_shape, "too large"),
        (spoil_filter, "compressed"),
        (spoil_type, "something else than floats"),
        (spoil_number, "numbers that are none"),
        (spoil_weight, "has no 'dense/kernel:0'"),
        (spoil_group, "has no 'model_weights'"),
        (spoil_names, "no attribute 'layer_names'"),
        (spoil_many_names, "has no 'x"),
        (spoil_config, "not JSON"),
        (spoil_functional, "is a 'Model'"),
        (spoil_layers, "without class name"),
        (spoil_unknown, "no weights for the layer 'other'"),
    ],
)
def test_refused(tmp_path: Path, spoil: Any, reason: str) -> None:
    """A file that is damaged or reaches beyond itself is refused by name and reason."""
    path = write_model(tmp_path / "m.h5", LAYERS, WEIGHTS)
    with h5py.File(path, "r+") as file:
        spoil(file)
    with pytest.raises(UnreadableFile, match=reason) as caught:
        read_model(path)
    assert "m.h5" in str(caught.value)


def test_not_hdf5(tmp_path: Path) -> None:
    """Another file, an empty one and none at all are named."""
    path = tmp_path / "m.h5"
    for content in (b"", b"version https://git-lfs.github.com/spec/v1\n", b"\x89HDF\r\n\x1a\n" + b"\0" * 50):
        path.write_bytes(content)
        with pytest.raises(UnreadableFile, match="HDF5"):
            read_model(path)
    with pytest.raises(UnreadableFile, match=r"none\.h5"):
        read_model(tmp_path / "none.h5")


def test_damage_anywhere(tmp_path: Path) -> None:
    """Wherever bytes are wrong or missing, the file is read or refused."""
    path = write_model(tmp_path / "m.h5", LAYERS, WEIGHTS)
    whole = path.read_bytes()
    rng = np.random.default_rng(5)
    for position in rng.integers(8, len(whole), 150):
        for damaged in (whole[:position], whole[:position] + b"\xff\xff\xff\xff" + whole[position + 4 :]):
            path.write_bytes(damaged)
            try:
                read_model(path)
            except UnreadableFile as error:
                assert "m.h5" in str(error)
