"""Tests of the forward pass, against the formulas written out in double precision on the whole matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rasa_core_api.exceptions import UnsupportedModel
from rasa_core_api.legacy.keras_hdf5 import KerasLayer
from rasa_core_api.policies.network import Network, State

Array = NDArray[np.float64]

ACTIVATIONS: dict[str, Any] = {
    "linear": lambda x: x,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "hard_sigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "softmax": lambda x: np.exp(x) / np.exp(x).sum(),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * (np.exp(x) - 1)),
    "exponential": np.exp,
}
FEATURES = 6


def lstm(x: Array, layer: KerasLayer, mask: Sequence[bool]) -> Array:
    kernel, recurrent = layer.weights["kernel"], layer.weights["recurrent_kernel"]
    n = recurrent.shape[0]
    bias = layer.weights.get("bias", np.zeros(4 * n))
    gate = ACTIVATIONS[layer.config["recurrent_activation"]]
    act = ACTIVATIONS[layer.config["activation"]]
    h, c, out = np.zeros(n), np.zeros(n), []
    for row, masked in zip(x, mask, strict=True):
        if not masked:
            i, f, g, o = np.split(row @ kernel + h @ recurrent + bias, 4)
            c = gate(f) * c + gate(i) * act(g)
            h = gate(o) * act(c)
        out.append(h)
    return np.array(out)


def gru(x: Array, layer: KerasLayer, mask: Sequence[bool]) -> Array:
    kernel, recurrent = layer.weights["kernel"], layer.weights["recurrent_kernel"]
    n = recurrent.shape[0]
    after = layer.config["reset_after"]
    bias = layer.weights["bias"] if after else (layer.weights["bias"], np.zeros(3 * n))
    gate = ACTIVATIONS[layer.config["recurrent_activation"]]
    act = ACTIVATIONS[layer.config["activation"]]
    h, out = np.zeros(n), []
    for row, masked in zip(x, mask, strict=True):
        if not masked:
            xz, xr, xh = np.split(row @ kernel + bias[0], 3)
            hz, hr, hh = np.split(h @ recurrent + bias[1], 3)
            z, r = gate(xz + hz), gate(xr + hr)
            candidate = act(xh + (r * hh if after else (r * h) @ np.split(recurrent, 3, 1)[2]))
            h = z * h + (1 - z) * candidate
        out.append(h)
    return np.array(out)


def forward(x: Array, layers: Sequence[KerasLayer]) -> Array:
    """The whole matrix through all layers; the last time step's numbers."""
    mask = [False] * len(x)
    for layer in layers:
        kind, config = layer.kind, layer.config
        if kind == "TimeDistributed":
            kind, config = config["layer"]["class_name"], config["layer"]["config"]
        if kind == "Masking":
            mask = [bool((row == -1).all()) for row in x]
        elif kind in ("LSTM", "GRU"):
            out = {"LSTM": lstm, "GRU": gru}[kind](x, layer, mask)
            x = out if config["return_sequences"] else out[-1:]
            mask = mask if config["return_sequences"] else [False]
        elif kind == "Dense":
            x = x @ layer.weights["kernel"] + layer.weights.get("bias", 0)
            x = np.array([ACTIVATIONS[config["activation"]](row) for row in x])
        elif kind == "Activation":
            x = np.array([ACTIVATIONS[config["activation"]](row) for row in x])
        elif kind.startswith("BatchNormalization"):
            w = layer.weights
            x = (x - w["moving_mean"]) / np.sqrt(w["moving_variance"] + config["epsilon"])
            x = x * w.get("gamma", 1.0) + w.get("beta", 0.0)
    return x[-1]


class Maker:
    """Layers with random weights that fit one behind the other."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.width = FEATURES
        self.layers: list[KerasLayer] = []

    def numbers(self, *shape: int) -> NDArray[np.float32]:
        return self.rng.normal(0, 0.5, shape).astype(np.float32)

    def add(self, kind: str, weights: dict[str, NDArray[np.float32]] | None = None, **config: Any) -> Maker:
        name = f"{kind.lower()}_{len(self.layers)}"
        self.layers.append(KerasLayer(kind, name, {"name": name, **config}, weights or {}))
        return self

    def mask(self) -> Maker:
        return self.add("Masking", mask_value=-1)

    def recurrent(self, kind: str, units: int, **config: Any) -> Maker:
        gates = {"LSTM": 4, "GRU": 3}[kind]
        settings = {
            "activation": "tanh",
            "recurrent_activation": "hard_sigmoid",
            "return_sequences": False,
            "reset_after": False,
            "use_bias": True,
            **config,
        }
        weights = {
            "kernel": self.numbers(self.width, gates * units),
            "recurrent_kernel": self.numbers(units, gates * units),
        }
        if settings["use_bias"]:
            shape = (2, gates * units) if settings["reset_after"] else (gates * units,)
            weights["bias"] = self.numbers(*shape)
        self.width = units
        return self.add(kind, weights, **settings)

    def dense(self, units: int, activation: str = "linear", spread: bool = False, use_bias: bool = True) -> Maker:
        weights = {"kernel": self.numbers(self.width, units)}
        if use_bias:
            weights["bias"] = self.numbers(units)
        self.width = units
        config = {"activation": activation, "use_bias": use_bias}
        if spread:
            return self.add("TimeDistributed", weights, layer={"class_name": "Dense", "config": config})
        return self.add("Dense", weights, **config)

    def normalisation(self, kind: str = "BatchNormalization", scale: bool = True, center: bool = True) -> Maker:
        weights = {"moving_mean": self.numbers(self.width), "moving_variance": np.abs(self.numbers(self.width))}
        if scale:
            weights["gamma"] = self.numbers(self.width)
        if center:
            weights["beta"] = self.numbers(self.width)
        return self.add(kind, weights, epsilon=0.001, scale=scale, center=center, axis=-1)


ARCHITECTURES: dict[str, Any] = {
    "default": lambda m: m.mask().recurrent("LSTM", 4).add("Dropout").dense(3).add("Activation", activation="softmax"),
    "other gates": lambda m: m.mask().recurrent("LSTM", 4, recurrent_activation="sigmoid", activation="relu").dense(3),
    "stacked": lambda m: m.mask()
    .recurrent("LSTM", 4, return_sequences=True)
    .recurrent("LSTM", 5, use_bias=False)
    .dense(4, "relu")
    .dense(3, "softmax", use_bias=False),
    "whole dialogue": lambda m: m.mask()
    .recurrent("LSTM", 4, return_sequences=True)
    .dense(3, spread=True)
    .add("Activation", activation="softmax"),
    "gru": lambda m: m.mask().recurrent("GRU", 4).dense(3, "softmax"),
    "gru that resets later": lambda m: m.mask().recurrent("GRU", 4, reset_after=True).dense(3, "softmax"),
    "between": lambda m: m.mask()
    .dense(5, "tanh", spread=True)
    .recurrent("GRU", 4, return_sequences=True)
    .normalisation("BatchNormalizationV1", scale=False)
    .recurrent("LSTM", 3)
    .normalisation(center=False)
    .dense(3, "sigmoid"),
    "without mask": lambda m: m.recurrent("LSTM", 4).dense(3, "softmax"),
    "normalised input": lambda m: m.add("InputLayer").normalisation().recurrent("LSTM", 4).dense(3, "softmax"),
    "without memory": lambda m: m.dense(4, "tanh", spread=True).dense(3, "softmax", spread=True),
}

ROWS = st.lists(
    st.dictionaries(st.integers(0, FEATURES - 1), st.sampled_from([1.0, 1.0, 1.0, 0.25]), max_size=4),
    min_size=1,
    max_size=5,
)


@settings(max_examples=120, deadline=None)
@given(
    architecture=st.sampled_from(list(ARCHITECTURES)), rows=ROWS, padding=st.integers(0, 3), seed=st.integers(0, 1000)
)
def test_formulas(architecture: str, rows: list[dict[int, float]], padding: int, seed: int) -> None:
    """Step by step the same numbers come out as from the formulas on the whole matrix."""
    layers = ARCHITECTURES[architecture](Maker(seed)).layers
    network = Network(layers, "n.h5")
    matrix = np.full((padding + len(rows), FEATURES), -1.0)
    state: State | None = None
    for _ in range(padding):
        if network.padding is not None:
            state = network.step(network.padding, state)
    for index, row in enumerate(rows):
        matrix[padding + index] = [row.get(column, 0.0) for column in range(FEATURES)]
        state = network.step(network.project(row), state)
    numbers = network.output(state)
    assert (network.inputs, network.outputs) == (FEATURES, len(numbers)) == (FEATURES, 3)
    assert numbers == pytest.approx(forward(matrix, layers).tolist(), abs=2e-6)
    assert max(numbers) <= network.ceiling


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation: str) -> None:
    """Every activation gives what its formula says; only those that cannot exceed 1 set a ceiling."""
    layers = Maker(3).recurrent("LSTM", 4).dense(3).add("Activation", activation=activation).layers
    network = Network(layers, "n.h5")
    numbers = network.output(network.step(network.project({1: 1.0}), None))
    row = np.eye(FEATURES)[1:2]
    assert numbers == pytest.approx(forward(row, layers).tolist(), abs=2e-6)
    bounded = {"tanh", "sigmoid", "hard_sigmoid", "softmax", "softsign"}
    assert network.ceiling == (1.0 if activation in bounded else float("inf"))


def test_extreme_numbers() -> None:
    """Large sums overflow nowhere."""
    maker = Maker(1).recurrent("LSTM", 4, recurrent_activation="sigmoid")
    maker.dense(3)
    maker.layers[-1].weights["kernel"][:] = 1e4 * np.arange(3)  # type: ignore[index]
    network = Network(maker.add("Activation", activation="softmax").layers, "n.h5")
    numbers = network.output(network.step(network.project({0: 1000.0}), None))
    assert sum(numbers) == pytest.approx(1.0)


def test_before_the_first_step() -> None:
    """Without any step a recurrent layer says nothing yet: what follows sees zeros."""
    maker = Maker(5).mask().recurrent("LSTM", 4).dense(3)
    assert Network(maker.layers, "n.h5").output(None) == pytest.approx(maker.layers[-1].weights["bias"].tolist())


def test_steps_leave_earlier_states_alone() -> None:
    """Going on from a state does not change it, so that a conversation can be taken back."""
    network = Network(Maker(5).recurrent("LSTM", 4).recurrent("GRU", 4).layers[:1], "n.h5")
    first = network.step(network.project({0: 1.0}), None)
    before = network.output(first)
    network.step(network.project({1: 1.0}), first)
    assert network.output(first) == before


def wrong_shape(maker: Maker) -> Maker:
    maker.recurrent("LSTM", 4).dense(3)
    maker.layers[-1].weights["kernel"] = maker.numbers(5, 3)  # type: ignore[index]
    return maker


def no_bias(maker: Maker) -> Maker:
    maker.recurrent("LSTM", 4)
    del maker.layers[0].weights["bias"]  # type: ignore[attr-defined]
    return maker


def negative_variance(maker: Maker) -> Maker:
    maker.recurrent("LSTM", 4).normalisation()
    maker.layers[-1].weights["moving_variance"][0] = -1  # type: ignore[index]
    return maker


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda m: m.add("Bidirectional"), r"'bidirectional_0' \(Bidirectional\).*not supported"),
        (lambda m: m.add("CuDNNLSTM"), "CuDNNLSTM"),
        (lambda m: m.recurrent("LSTM", 4, stateful=True), "'stateful'"),
        (lambda m: m.recurrent("LSTM", 4, go_backwards=True), "'go_backwards'"),
        (lambda m: m.recurrent("LSTM", 4, activation="swish"), "'swish' is not one of"),
        (lambda m: m.recurrent("LSTM", 4, activation={"class_name": "X"}), "is not one of"),
        (lambda m: m.recurrent("LSTM", 4).recurrent("LSTM", 4), "no time left"),
        (lambda m: m.recurrent("LSTM", 4).dense(3, spread=True), "no time left"),
        (lambda m: m.recurrent("LSTM", 4).mask(), "masking is supported before"),
        (lambda m: m.add("Masking", mask_value=0.0), "mask value 0.0"),
        (lambda m: m.add("TimeDistributed", layer={"class_name": "LSTM", "config": {}}), "holds a 'LSTM'"),
        (lambda m: m.add("TimeDistributed", layer=None), "holds no layer"),
        (lambda m: m.add("Activation", activation="tanh"), "no layer with weights before"),
        (lambda m: m.normalisation().normalisation(), "normalised already"),
        (lambda m: m.mask().add("Dropout"), "no layer with weights"),
        (wrong_shape, "4 numbers come in, it takes 5"),
        (no_bias, "'bias' is missing"),
        (negative_variance, "below zero"),
    ],
)
def test_refused(build: Any, reason: str) -> None:
    """What cannot be computed is refused by the file's name, the layer's and the reason."""
    with pytest.raises(UnsupportedModel, match=reason) as caught:
        Network(build(Maker(0)).layers, "model.h5")
    assert "model.h5" in str(caught.value)
