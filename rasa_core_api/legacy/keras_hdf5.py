"""Keras networks from HDF5 files, as lists of layers with their numbers.

Two layouts (Keras 2.0-2.2 and tf.keras of TensorFlow 1.8-1.13): a weights file beside a JSON file with the
architecture, and a full model, which holds the architecture in its attribute `model_config` and the weights in the
group `model_weights`. A weights group has the attribute `layer_names`, each layer's group `weight_names`; lists too
long for one attribute are continued in attributes with a number behind the name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from rasa_core_api.constants import JSON
from rasa_core_api.legacy import Damage, read_bounded, reading
from rasa_core_api.legacy.hdf5 import Hdf5, Node

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_FILE = 256 << 20  # bytes
MAX_ARCHITECTURE = 16 << 20  # bytes of JSON
MAX_LAYERS = 200
MAX_WEIGHTS = 64 << 20  # numbers in one network

_WEIGHT = re.compile(r"(?:.*/)?([a-z_]+?)(?:_\d+)?(?::\d+)?")


@frozen
class KerasLayer:
    """One layer: class name, name, configuration and weights (`kernel`, `bias`, ...; float32)."""

    kind: str
    name: str
    config: Mapping[str, JSON]
    weights: Mapping[str, NDArray[np.float32]]


def read_model(path: Path) -> list[KerasLayer]:
    """The layers of a full model file, input first. Raises UnreadableFile."""
    data = read_bounded(path, MAX_FILE)
    with reading(str(path)):
        root = Hdf5(data).root
        texts = root.texts("model_config")
        if texts is None or len(texts) != 1:
            raise Damage("has no attribute 'model_config'")
        return _join(_layers(_json(texts[0], "its model_config")), root.child("model_weights"))


def read_architecture_and_weights(architecture: Path, weights: Path) -> list[KerasLayer]:
    """The layers of an architecture (JSON) and their weights (HDF5), input first. Raises UnreadableFile."""
    text = read_bounded(architecture, MAX_ARCHITECTURE)
    with reading(str(architecture)):
        layers = _layers(_json(text, "it"))
    data = read_bounded(weights, MAX_FILE)
    with reading(str(weights)):
        return _join(layers, Hdf5(data).root)


def _json(text: str | bytes, what: str) -> JSON:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damage(f"{what} is not JSON") from error


def _layers(architecture: JSON) -> list[tuple[str, Mapping[str, JSON]]]:
    """Class names and configurations. The list is bare up to TensorFlow 1.10 and wrapped later."""
    kind = architecture.get("class_name") if isinstance(architecture, dict) else None
    if kind != "Sequential":
        raise Damage(f"the network is a {str(kind)[:200]!r}, only a 'Sequential' can be read")
    layers = architecture.get("config")
    if isinstance(layers, dict):
        layers = layers.get("layers")
    if not isinstance(layers, list) or not 0 < len(layers) <= MAX_LAYERS:
        raise Damage("the network has no list of layers, or too many")
    return [_layer(layer) for layer in layers]


def _layer(layer: JSON) -> tuple[str, Mapping[str, JSON]]:
    if isinstance(layer, dict):
        kind, config = layer.get("class_name"), layer.get("config")
        if isinstance(kind, str) and isinstance(config, dict) and isinstance(config.get("name"), str):
            return kind, config
    raise Damage("a layer without class name, configuration or name")


def _join(layers: list[tuple[str, Mapping[str, JSON]]], group: Node) -> list[KerasLayer]:
    known = set(_names(group, "layer_names"))
    left = MAX_WEIGHTS
    joined = []
    for kind, config in layers:
        name = config["name"]
        if name not in known and kind != "InputLayer":
            raise Damage(f"no weights for the layer {name[:200]!r}")
        weights: dict[str, NDArray[np.float32]] = {}
        if name in known:
            place = group.child(name)
            for full_name in _names(place, "weight_names"):
                match = _WEIGHT.fullmatch(full_name)
                if match is None or match[1] in weights:
                    raise Damage(f"the layer {name[:200]!r} has unusual weights")
                numbers = place.child(full_name).floats(left)
                left -= numbers.size
                weights[match[1]] = _finite(numbers, full_name)
        joined.append(KerasLayer(kind, name, config, weights))
    return joined


def _finite(numbers: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    import numpy as np

    if not np.isfinite(numbers).all():
        raise Damage(f"{name[:200]!r} holds numbers that are none")
    return numbers


def _names(node: Node, name: str) -> list[str]:
    """An attribute that is a list of names, in one piece or continued."""
    names = node.texts(name)
    if names is None:
        parts: list[list[str]] = []
        while (part := node.texts(f"{name}{len(parts)}")) is not None and len(parts) <= MAX_LAYERS:
            parts.append(part)
        if not parts:
            raise Damage(f"has no attribute {name!r}")
        names = [name for part in parts for name in part]
    return names
