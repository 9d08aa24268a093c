"""The layers of a Keras network at rest, in numpy and float32.

Formulas: Keras 2.0-2.2 and tf.keras of TensorFlow 1.8-1.13.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasa_core_api.constants import JSON
from rasa_core_api.legacy.keras_hdf5 import KerasLayer

Vector = NDArray[np.float32]
Function = Callable[[Vector], Vector]
#: What a recurrent layer carries to the next step: its output, and its cell where it has one.
Memory = tuple[Vector, ...]

_ZERO = np.float32(0)
_ONE = np.float32(1)


def _relu(x: Vector) -> Vector:
    y: Vector = np.maximum(x, _ZERO)
    return y


def _sigmoid(x: Vector) -> Vector:
    # the identity with tanh cannot overflow
    y: Vector = np.float32(0.5) * np.tanh(np.float32(0.5) * x) + np.float32(0.5)
    return y


def _hard_sigmoid(x: Vector) -> Vector:
    y: Vector = np.minimum(np.maximum(np.float32(0.2) * x + np.float32(0.5), _ZERO), _ONE)
    return y


def _softmax(x: Vector) -> Vector:
    powers: Vector = np.exp(x - np.maximum.reduce(x))
    powers /= np.add.reduce(powers)
    return powers


def _softplus(x: Vector) -> Vector:
    y: Vector = np.logaddexp(x, _ZERO)
    return y


def _softsign(x: Vector) -> Vector:
    y: Vector = x / (_ONE + np.abs(x))
    return y


def _elu(x: Vector) -> Vector:
    return np.where(x > 0, x, np.expm1(np.minimum(x, _ZERO)))


def _selu(x: Vector) -> Vector:
    negative = np.float32(1.6732632423543772) * np.expm1(np.minimum(x, _ZERO))
    y: Vector = np.float32(1.0507009873554805) * np.where(x > 0, x, negative)
    return y


def _linear(x: Vector) -> Vector:
    return x


ACTIVATIONS: Mapping[str, Function] = {
    "linear": _linear,
    "relu": _relu,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "hard_sigmoid": _hard_sigmoid,
    "softmax": _softmax,
    "softplus": _softplus,
    "softsign": _softsign,
    "elu": _elu,
    "selu": _selu,
    "exponential": np.exp,
}
#: Results of these are at most 1.
BOUNDED = ("softmax", "sigmoid", "hard_sigmoid", "tanh", "softsign")
#: One layer under two names; the second is that of TensorFlow 1.13.
NORMALISATIONS = ("BatchNormalization", "BatchNormalizationV1")
#: Layers that do nothing once training is over.
IDLE = (
    "Dropout",
    "SpatialDropout1D",
    "GaussianDropout",
    "GaussianNoise",
    "AlphaDropout",
    "ActivityRegularization",
    "InputLayer",
)


class Refused(Exception):
    """Why a layer cannot be computed."""


def activation_of(config: Mapping[str, JSON], key: str, default: str) -> str:
    name = config.get(key, default)
    if name is None:
        return "linear"
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise Refused(f"its {key} {name!r} is not one of {', '.join(ACTIVATIONS)}")
    return name


def weight_of(layer: KerasLayer, name: str, *shape: int | None) -> Vector:
    array = layer.weights.get(name)
    if array is None:
        raise Refused(f"the weight {name!r} is missing")
    if array.ndim != len(shape) or any(want not in (None, have) for want, have in zip(shape, array.shape, strict=True)):
        raise Refused(f"the weight {name!r} has the shape {array.shape}")
    return array


def bias_of(layer: KerasLayer, size: int) -> Vector:
    """The bias of a layer, zeros where it has none."""
    return weight_of(layer, "bias", size) if layer.config.get("use_bias", True) else np.zeros(size, np.float32)


class Affine:
    """x @ kernel + bias."""

    def __init__(self, kernel: Vector, bias: Vector) -> None:
        self.kernel = np.ascontiguousarray(kernel)
        self.bias = np.ascontiguousarray(bias)
        self.width = int(self.kernel.shape[0])

    def __call__(self, x: Vector) -> Vector:
        z: Vector = x.dot(self.kernel)
        z += self.bias
        return z

    def after(self, factor: Vector, offset: Vector) -> Affine:
        """The same behind x * factor + offset."""
        return Affine(factor[:, None] * self.kernel, self.bias + offset.dot(self.kernel))


class Lstm:
    """Columns of the projection: input, forget, output (ready for clipping where the gates are hard), candidate."""

    def __init__(self, layer: KerasLayer) -> None:
        kernel = weight_of(layer, "kernel", None, None)
        n = self.units = int(kernel.shape[1]) // 4
        recurrent = weight_of(layer, "recurrent_kernel", n, 4 * n)
        bias = bias_of(layer, 4 * n)
        gates = activation_of(layer.config, "recurrent_activation", "hard_sigmoid")
        candidate = activation_of(layer.config, "activation", "tanh")
        self._hard = gates == "hard_sigmoid"
        self._gate = ACTIVATIONS[gates]
        self._plain = candidate == "tanh"
        self._act = ACTIVATIONS[candidate]
        order = np.r_[: 2 * n, 3 * n : 4 * n, 2 * n : 3 * n]  # Keras: input, forget, candidate, output
        scale = np.ones(4 * n, np.float32)
        offset = np.zeros(4 * n, np.float32)
        if self._hard:
            scale[: 3 * n] = 0.2
            offset[: 3 * n] = 0.5
        self.projection = Affine(kernel[:, order] * scale, bias[order] * scale + offset)
        self._recurrent = np.ascontiguousarray(recurrent[:, order] * scale)
        self._z = np.empty(4 * n, np.float32)
        self._gates = self._z[: 3 * n]
        self._zeros = np.zeros(3 * n, np.float32)  # whole vectors are clipped faster than with a number
        self._ones = np.ones(3 * n, np.float32)
        self._i, self._f, self._o, self._g = (self._z[k * n : (k + 1) * n] for k in range(4))

    def start(self) -> Memory:
        return np.zeros(self.units, np.float32), np.zeros(self.units, np.float32)

    def step(self, x: Vector, memory: Memory | None) -> Memory:
        z, i, g = self._z, self._i, self._g
        if memory is None:
            z[:] = x
        else:
            memory[0].dot(self._recurrent, z)
            np.add(z, x, out=z)
        gates = self._gates
        if self._hard:
            np.maximum(gates, self._zeros, out=gates)
            np.minimum(gates, self._ones, out=gates)
        else:
            gates[:] = self._gate(gates)
        if self._plain:
            np.tanh(g, out=g)
        else:
            g[:] = self._act(g)
        c: Vector = i * g
        if memory is not None:
            np.multiply(self._f, memory[1], out=i)
            np.add(c, i, out=c)
        h: Vector = np.tanh(c) if self._plain else self._act(c)
        return np.multiply(h, self._o), c


class Gru:
    """Columns of the projection: update, reset, candidate."""

    def __init__(self, layer: KerasLayer) -> None:
        kernel = weight_of(layer, "kernel", None, None)
        n = self.units = int(kernel.shape[1]) // 3
        recurrent = weight_of(layer, "recurrent_kernel", n, 3 * n)
        self._reset_after = layer.config.get("reset_after") is True
        self._recurrent_bias = np.zeros(3 * n, np.float32)
        if self._reset_after and layer.config.get("use_bias", True):
            bias, self._recurrent_bias = weight_of(layer, "bias", 2, 3 * n)
        else:
            bias = bias_of(layer, 3 * n)
        self._gate = ACTIVATIONS[activation_of(layer.config, "recurrent_activation", "hard_sigmoid")]
        self._act = ACTIVATIONS[activation_of(layer.config, "activation", "tanh")]
        self.projection = Affine(kernel, bias)
        self._recurrent = np.ascontiguousarray(recurrent)
        self._gate_kernel = np.ascontiguousarray(recurrent[:, : 2 * n])
        self._candidate_kernel = np.ascontiguousarray(recurrent[:, 2 * n :])

    def start(self) -> Memory:
        return (np.zeros(self.units, np.float32),)

    def step(self, x: Vector, memory: Memory | None) -> Memory:
        n = self.units
        h = self.start()[0] if memory is None else memory[0]
        if self._reset_after:
            inner = h.dot(self._recurrent) + self._recurrent_bias
            gates = self._gate(x[: 2 * n] + inner[: 2 * n])
            candidate = self._act(x[2 * n :] + gates[n:] * inner[2 * n :])
        else:
            gates = self._gate(x[: 2 * n] + h.dot(self._gate_kernel))
            candidate = self._act(x[2 * n :] + (gates[n:] * h).dot(self._candidate_kernel))
        z = gates[:n]
        return (z * h + (_ONE - z) * candidate,)


Recurrent = Lstm | Gru
RECURRENT: Mapping[str, type[Any]] = {"LSTM": Lstm, "GRU": Gru}


def recurrent_of(layer: KerasLayer) -> Recurrent:
    for option in ("go_backwards", "stateful", "return_state"):
        if layer.config.get(option):
            raise Refused(f"its option {option!r} is not supported")
    cell: Recurrent = RECURRENT[layer.kind](layer)
    return cell


def normalisation_of(layer: KerasLayer) -> tuple[Vector, Vector]:
    """Factor and offset of a batch normalisation at rest."""
    axis = layer.config.get("axis", -1)
    if isinstance(axis, list) and len(axis) == 1:
        axis = axis[0]
    if axis not in (-1, 1, 2):
        raise Refused(f"its axis {axis!r} is not the last one")
    mean = weight_of(layer, "moving_mean", None)
    n = mean.shape[0]
    spread = weight_of(layer, "moving_variance", n) + np.float32(layer.config.get("epsilon", 1e-3))
    if not (spread > 0).all():
        raise Refused("a variance is below zero")
    factor: Vector = _ONE / np.sqrt(spread)
    if layer.config.get("scale", True):
        factor = factor * weight_of(layer, "gamma", n)
    offset = -mean * factor
    if layer.config.get("center", True):
        offset = offset + weight_of(layer, "beta", n)
    return factor, offset
