"""The weights of EmbeddingPolicy's network, from the variables of its checkpoint and the constants of its graph.

Neither says how the policy was configured, but together they show it: which variables are there, their shapes, and
which operations the graph has constants for.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

Array = NDArray[np.float32]
Layer = tuple[Array, Array]  # kernel and bias

USER, BOT = 0, 1  # what a mechanism of attention looks back at: what users said, or what the bot did
DEFAULT_ALIKE = 0.5

_DECODER = "rnn_decoder/"
_WRAPPER = _DECODER + "time_attention_wrapper/"
_CELL = "chrono_bias_layer_norm_basic_lstm_cell/"
_GATES = ("input", "transform", "forget", "output")
_BIAS = _CELL + "add/y"
_COPYING = tuple(f"{_WRAPPER}Greater_{number}/y" for number in (5, 4))
_NORMALIZE = "l2_normalize/Maximum/y"
_SPARSE = "sparsemax/add/y"
#: Ends of the names of the constants that are looked at.
CONSTANTS = (_BIAS, *_COPYING, _NORMALIZE, _SPARSE)


@frozen(eq=False)
class Facts:
    """What only the graph tells.

    `bias` was drawn at training, one number a unit of the cell, and is added to its forget gate and taken from its
    input gate. `alike` is the similarity above which an earlier action is copied, half of `mu_pos - mu_neg`. With
    `cosine` false similarities are inner products. `sparse`: attention is a sparsemax (Martins and Astudillo 2016).
    """

    bias: Array
    alike: float = DEFAULT_ALIKE
    cosine: bool = True
    sparse: bool = False


def facts_of(constants: Mapping[str, NDArray[Any]]) -> Facts:
    """What the graph's constants (names that end in one of CONSTANTS) tell. Raises ValueError."""
    forward = {name: value for name, value in constants.items() if not name.startswith("gradients/")}
    biases = [value for name, value in forward.items() if name.endswith(_BIAS)]
    if len(biases) != 1:
        raise ValueError(f"it has {len(biases)} constants with gate biases, not one")
    alike = DEFAULT_ALIKE
    for ending in _COPYING:  # the last of the comparisons; there is one less without the first kind of attention
        found = [value for name, value in forward.items() if name.endswith(ending)]
        if found:
            alike = float(found[0].ravel()[0])
            break
    return Facts(
        bias=np.asarray(biases[0], np.float32).ravel(),
        alike=alike,
        cosine=_NORMALIZE in forward,
        sparse=any(name.endswith(_SPARSE) for name in forward),
    )


@frozen(eq=False)
class Mechanism:
    """One kind of attention. `shift` moves it along time (None: it stays where it is)."""

    memory: int
    memory_kernel: Array
    query: Array
    query_bias: Array
    direction: Array
    interpolate: Layer
    sharpen: Layer
    shift: Layer | None


@frozen(eq=False)
class Cell:
    """The recurrent cell. `norm` are scale and shift of its four gates, or None, and then there is a `bias`."""

    kernel: Array
    bias: Array | None
    norm: Layer | None
    gate_bias: Array
    out: Layer | None


@frozen(eq=False)
class Weights:
    """All of a network; `last` embeds what the cell puts out where the cell itself does not."""

    user: list[Layer]
    bot: list[Layer]
    slots: Layer
    mechanisms: list[Mechanism]
    cell: Cell
    last: Layer | None

    @property
    def size(self) -> int:
        """Dimensions of the space of users, actions and dialogues."""
        return int(self.bot[-1][0].shape[1])

    @property
    def units(self) -> int:
        """Width of the cell."""
        return int(self.cell.gate_bias.shape[1])

    @property
    def output(self) -> int:
        """Width of what the cell puts out."""
        return self.units if self.cell.out is None else int(self.cell.out[0].shape[1])


def read_weights(values: Mapping[str, NDArray[Any]], facts: Facts) -> Weights:
    """The network in variables by name. Raises ValueError naming the variable that is missing or does not fit."""
    return _Reading(values).weights(facts)


class _Reading:
    """Variables by name, checked as they are taken."""

    def __init__(self, values: Mapping[str, NDArray[Any]]) -> None:
        self._values = values

    def weights(self, facts: Facts) -> Weights:
        shared = "embed_layer_a_and_b/kernel" in self._values
        user = self._layers("a_and_b" if shared else "a")
        bot = self._layers("a_and_b" if shared else "b")
        slots = self._layer("embed_layer_slt")
        size = bot[-1][0].shape[1]
        if not user[-1][0].shape[1] == slots[0].shape[1] == size:
            raise ValueError("users, slots and actions are mapped into different spaces")
        looks = [number for number in ("", "_1") if f"memory_layer{number}/kernel" in self._values]
        where = _WRAPPER if looks else _DECODER
        units = self._get(f"{where}{_CELL}kernel", None, None).shape[1] // 4
        last: Layer | None = None
        out: Layer | None = None
        if "embed_layer_out/kernel" in self._values:
            last = self._layer("embed_layer_out", units, size)
        else:
            out = self._layer(f"{where}{_CELL}out_layer", units, size)
        width = size + (units if out is None else size)  # of what asks for attention: the user and the last output
        mechanisms = [self._mechanism(suffix, size, width) for suffix in looks]
        shifted = [mechanism.shift is not None for mechanism in mechanisms]
        if shifted not in ([], [False], [True], [False, True]) or (True in shifted) == (last is not None):
            raise ValueError("its kinds of attention are none that EmbeddingPolicy has")
        inputs = width + size + (0 if looks else size)  # without attention the last action is an input
        return Weights(user, bot, slots, mechanisms, self._cell(where + _CELL, inputs, units, facts.bias, out), last)

    def _get(self, name: str, *shape: int | None) -> Array:
        values = self._values.get(name)
        if values is None:
            raise ValueError(f"the variable {name} is missing")
        wrong = values.ndim != len(shape) or any(
            want not in (None, got) for want, got in zip(shape, values.shape, strict=True)
        )
        if wrong:
            raise ValueError(f"the variable {name} has the shape {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError(f"the variable {name} holds values that are no numbers")
        return np.ascontiguousarray(values, np.float32)

    def _layer(self, name: str, inputs: int | None = None, outputs: int | None = None) -> Layer:
        kernel = self._get(f"{name}/kernel", inputs, outputs)
        return kernel, self._get(f"{name}/bias", kernel.shape[1])

    def _layers(self, side: str) -> list[Layer]:
        layers: list[Layer] = []
        while f"hidden_layer_{side}_{len(layers)}/kernel" in self._values:
            layers.append(self._layer(f"hidden_layer_{side}_{len(layers)}"))
        layers.append(self._layer(f"embed_layer_{side}"))
        for before, after in pairwise(layers):
            if before[0].shape[1] != after[0].shape[0]:
                raise ValueError(f"the layers of the side {side} do not fit together")
        return layers

    def _mechanism(self, suffix: str, size: int, width: int) -> Mechanism:
        name = f"{_WRAPPER}bahdanau_attention{suffix}/"
        gate = f"{_WRAPPER}timed_ntm_{suffix.strip('_') or 0}/"
        v = self._get(f"{name}attention_v", size)
        g = np.asarray(self._values.get(f"{name}attention_g", np.empty(0))).ravel()
        if g.shape != (1,):
            raise ValueError(f"the variable {name}attention_g is missing")
        shift: Layer | None = None
        if f"{gate}shift_weight/kernel" in self._values:
            shift = self._layer(f"{gate}shift_weight", width)
            if shift[0].shape[1] % 2 == 0:
                raise ValueError("its attention shifts by an even number of places")
        return Mechanism(
            memory=USER if shift is None else BOT,
            memory_kernel=self._get(f"memory_layer{suffix}/kernel", size, size),
            query=self._get(f"{name}query_layer/kernel", width, size),
            query_bias=self._get(f"{name}attention_b", size),
            direction=np.asarray(np.float32(g[0]) * v / np.sqrt((v * v).sum()), np.float32),
            interpolate=self._layer(f"{gate}inter_gate", width, 1),
            sharpen=self._layer(f"{gate}gamma_sharp", width, 1),
            shift=shift,
        )

    def _cell(self, name: str, inputs: int, units: int, drawn: Array, out: Layer | None) -> Cell:
        kernel = self._get(f"{name}kernel", inputs, 4 * units)
        if drawn.shape != (units,) or not np.isfinite(drawn).all():
            raise ValueError("its gate biases do not fit the cell")
        bias: Array | None = None
        norm: Layer | None = None
        if f"{name}bias" in self._values:
            bias = self._get(f"{name}bias", 4 * units)
        else:
            norm = (
                np.stack([self._get(f"{name}{gate}/gamma", units) for gate in _GATES]),
                np.stack([self._get(f"{name}{gate}/beta", units) for gate in _GATES]),
            )
        zero = np.zeros(units, np.float32)
        return Cell(kernel, bias, norm, np.stack([-drawn, zero, drawn, zero]), out)
