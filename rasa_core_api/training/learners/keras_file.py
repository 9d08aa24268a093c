"""Writing a trained network as the HDF5 file that tf.keras 1.x wrote, so that the old releases load it too."""

from __future__ import annotations

import io
import json

import h5py
import numpy as np

from rasa_core_api.constants import JSON
from rasa_core_api.training.learners.network import DROPOUT
from rasa_core_api.training.learners.recurrent import RecurrentNetwork


def keras_model(network: RecurrentNetwork, time: int | None, *, plain_layers: bool) -> bytes:
    """The file of a network over windows of `time` states, or (None) over whole dialogues.

    `plain_layers`: the configuration is a list of layers, as up to TF 1.10 (0.11), and no object with a name.
    """
    every_step = time is None
    output = "time_distributed" if every_step else "dense"
    layers = _layers(network, time)
    config: JSON = layers if plain_layers else {"name": "sequential", "layers": layers}
    version = "2.1.6-tf" if plain_layers else "2.2.4-tf"
    p = network.parameters
    weights = {
        "masking": {},
        "lstm": {"kernel": p["kernel"], "recurrent_kernel": p["recurrent"], "bias": p["bias"]},
        output: {"kernel": p["dense"], "bias": p["dense_bias"]},
        "activation": {},
    }
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        for attributes in (file.attrs, (group := file.create_group("model_weights")).attrs):
            attributes["backend"] = _bytes("tensorflow")
            attributes["keras_version"] = _bytes(version)
        file.attrs["model_config"] = _bytes(json.dumps({"class_name": "Sequential", "config": config}))
        file.attrs["training_config"] = _bytes(json.dumps(_training()))
        group.attrs["layer_names"] = _names(list(weights))
        for layer, arrays in weights.items():
            part = group.create_group(layer)
            part.attrs["weight_names"] = _names([f"{layer}/{name}:0" for name in arrays])
            for name, array in arrays.items():
                part.create_dataset(f"{layer}/{name}:0", data=array.astype(np.float32))
    return memory.getvalue()


def _bytes(text: str) -> JSON:
    return np.bytes_(text.encode("ascii"))  # the old releases decode what they read


def _names(names: list[str]) -> JSON:
    return np.array([name.encode("ascii") for name in names]) if names else np.array([], np.float64)


def _layers(network: RecurrentNetwork, time: int | None) -> list[JSON]:
    common: dict[str, JSON] = {"trainable": True, "dtype": "float32"}
    uniform = {
        "class_name": "VarianceScaling",
        "config": {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform", "seed": None, "dtype": "float32"},
    }
    zeros = {"class_name": "Zeros", "config": {"dtype": "float32"}}
    orthogonal = {"class_name": "Orthogonal", "config": {"gain": 1.0, "seed": None, "dtype": "float32"}}
    unconstrained = {
        f"{part}_{kind}": None for kind in ("regularizer", "constraint") for part in ("kernel", "bias")
    } | {"activity_regularizer": None}
    dense = {
        **common,
        "name": "dense",
        "units": network.actions,
        "activation": "linear",
        "use_bias": True,
        "kernel_initializer": uniform,
        "bias_initializer": zeros,
        **unconstrained,
    }
    lstm = {
        **common,
        "name": "lstm",
        "return_sequences": time is None,
        "return_state": False,
        "go_backwards": False,
        "stateful": False,
        "unroll": False,
        "units": network.units,
        "activation": "tanh",
        "recurrent_activation": "hard_sigmoid",
        "use_bias": True,
        "kernel_initializer": uniform,
        "recurrent_initializer": orthogonal,
        "bias_initializer": zeros,
        "unit_forget_bias": True,
        **unconstrained,
        "recurrent_regularizer": None,
        "recurrent_constraint": None,
        "dropout": DROPOUT,
        "recurrent_dropout": 0.0,
        "implementation": 1,
    }
    masking = {**common, "name": "masking", "batch_input_shape": [None, time, network.features], "mask_value": -1}
    output: JSON = {"class_name": "Dense", "config": dense}
    if time is None:
        output = {"class_name": "TimeDistributed", "config": {**common, "name": "time_distributed", "layer": output}}
    return [
        {"class_name": "Masking", "config": masking},
        {"class_name": "LSTM", "config": lstm},
        output,
        {"class_name": "Activation", "config": {**common, "name": "activation", "activation": "softmax"}},
    ]


def _training() -> JSON:
    # what the old releases go on training with
    return {
        "optimizer_config": {
            "class_name": "RMSprop",
            "config": {"lr": 0.001, "rho": 0.9, "decay": 0.0, "epsilon": 1e-07},
        },
        "loss": "categorical_crossentropy",
        "metrics": ["accuracy"],
        "weighted_metrics": None,
        "sample_weight_mode": None,
        "loss_weights": None,
    }
