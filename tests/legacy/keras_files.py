"""Keras files as the releases wrote them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

LAYERS: list[dict[str, Any]] = [
    {"class_name": "Masking", "config": {"name": "masking", "mask_value": -1}},
    {"class_name": "Dense", "config": {"name": "dense", "units": 3, "activation": "softmax"}},
]
WEIGHTS: dict[str, dict[str, NDArray[np.float32]]] = {
    "masking": {},
    "dense": {
        "dense/kernel:0": np.arange(6, dtype=np.float32).reshape(2, 3),
        "dense/bias:0": np.ones(3, np.float32),
    },
}

Weights = Mapping[str, Mapping[str, NDArray[np.float32]]]


def fill(group: Any, weights: Weights) -> None:
    """Write a weights group: `weights` maps layer name to weight name to numbers."""
    group.attrs["layer_names"] = np.array([name.encode() for name in weights])
    for layer, arrays in weights.items():
        place = group.create_group(layer)
        place.attrs["weight_names"] = np.array([name.encode() for name in arrays])
        for name, numbers in arrays.items():
            place.create_dataset(name, data=numbers)


def write_weights(path: Path, weights: Weights) -> Path:
    with h5py.File(path, "w") as file:
        fill(file, weights)
    return path


def write_model(path: Path, layers: Sequence[Mapping[str, Any]], weights: Weights, wrapped: bool = True) -> Path:
    config = {"name": "sequential", "layers": layers} if wrapped else layers
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": config})
        file.attrs["keras_version"] = "2.1.6-tf"
        fill(file.create_group("model_weights"), weights)
    return path
