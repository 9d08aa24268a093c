"""The forward pass of a sequential Keras network, one time step after the other.

A network is cut at its recurrent layers. What lies before the first one depends on a single row of features and can be
kept with the row ("projection"); each step then costs one small product a layer; what lies behind the last recurrent
layer is computed for the last step alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from rasa_core_api.exceptions import UnsupportedModel
from rasa_core_api.legacy.keras_hdf5 import KerasLayer
from rasa_core_api.policies.layers import (
    ACTIVATIONS,
    BOUNDED,
    IDLE,
    NORMALISATIONS,
    RECURRENT,
    Affine,
    Function,
    Memory,
    Recurrent,
    Refused,
    Vector,
    activation_of,
    bias_of,
    normalisation_of,
    recurrent_of,
    weight_of,
)

#: The memories of all recurrent layers; for a network without any, the projection of the last step.
State = tuple[Memory, ...]

#: What every column holds before the conversation began.
PADDING = -1.0


class Network:
    """A network as a function of the rows of a conversation.

    `inputs` columns go in, `outputs` numbers come out, none above `ceiling`. Raises `UnsupportedModel` that names
    `source` and the layer that cannot be computed. Not for two threads at a time.
    """

    def __init__(self, layers: Sequence[KerasLayer], source: str) -> None:
        self.inputs = 0
        self.outputs = 0
        self.ceiling = math.inf
        self._masks = False
        self._normalised: tuple[Vector, Vector] | None = None  # factor and offset of the very input
        self._first: Affine | None = None
        self._front: list[Function] = []  # of one row, behind `_first`
        self._cells: list[Recurrent] = []
        self._behind: list[list[Function]] = []  # behind each cell, up to the next one
        self._in_time = True
        for layer in layers:
            try:
                self._add(layer)
            except Refused as refusal:
                raise UnsupportedModel(
                    f"{source}: the layer {layer.name!r} ({layer.kind}) cannot be computed: {refusal}",
                    file=source,
                    layer=layer.name[:200],
                ) from None
        if self._first is None:
            raise UnsupportedModel(f"{source}: the network has no layer with weights", file=source)
        self._kernel: Vector = self._first.kernel
        self._bias: Vector = self._first.bias
        #: The projection of padding; None where such steps are left out.
        self.padding: Vector | None = None
        if not self._masks:
            total: Vector = self._kernel.sum(axis=0, dtype=np.float32)
            self.padding = _through(self._front, self._bias + np.float32(PADDING) * total)

    # --- putting it together -------------------------------------------------------------------------

    def _add(self, layer: KerasLayer) -> None:
        kind = layer.kind
        if kind in IDLE:
            return
        if kind == "Masking":
            self._put_mask(layer)
        elif kind == "TimeDistributed":
            self._add(self._unwrapped(layer))
        elif kind in RECURRENT:
            self._put_recurrent(layer)
        elif kind == "Dense":
            kernel = weight_of(layer, "kernel", None, None)
            units = int(kernel.shape[1])
            self._put_affine(Affine(kernel, bias_of(layer, units)), units)
            self._put_activation(activation_of(layer.config, "activation", "linear"))
        elif kind == "Activation":
            self._put_activation(activation_of(layer.config, "activation", "linear"))
        elif kind in NORMALISATIONS:
            self._put_normalisation(*normalisation_of(layer))
        else:
            raise Refused("this kind of layer is not supported")

    def _put_mask(self, layer: KerasLayer) -> None:
        if self._first is not None or self._normalised is not None:
            raise Refused("masking is supported before all other layers alone")
        if layer.config.get("mask_value", 0) != PADDING:
            raise Refused(f"its mask value {layer.config.get('mask_value')!r} is not {PADDING:g}")
        self._masks = True

    def _unwrapped(self, layer: KerasLayer) -> KerasLayer:
        inner = layer.config.get("layer")
        if not self._in_time:
            raise Refused("there is no time left behind the last recurrent layer")
        if not isinstance(inner, dict) or not isinstance(inner.get("config"), dict):
            raise Refused("it holds no layer")
        kind = inner.get("class_name")
        if kind not in ("Dense", "Activation", *NORMALISATIONS, *IDLE):
            raise Refused(f"it holds a {kind!r}")
        return KerasLayer(kind, layer.name, inner["config"], layer.weights)

    def _put_recurrent(self, layer: KerasLayer) -> None:
        if not self._in_time:
            raise Refused("there is no time left behind the last recurrent layer")
        cell = recurrent_of(layer)
        self._put_affine(cell.projection, cell.units)
        self._cells.append(cell)
        self._behind.append([])
        self._in_time = layer.config.get("return_sequences") is True

    def _put_affine(self, affine: Affine, outputs: int) -> None:
        self._expect(affine.width)
        if self._first is None:
            self._first = affine if self._normalised is None else affine.after(*self._normalised)
            self.inputs = affine.width
        else:
            self._last_part().append(affine)
        self.outputs = outputs
        self.ceiling = math.inf

    def _put_activation(self, name: str) -> None:
        if self._first is None:
            raise Refused("there is no layer with weights before it")
        if name != "linear":
            self._last_part().append(ACTIVATIONS[name])
        self.ceiling = 1.0 if name in BOUNDED else math.inf

    def _put_normalisation(self, factor: Vector, offset: Vector) -> None:
        self._expect(len(factor))
        if self._first is None:
            if self._normalised is not None:
                raise Refused("the input is normalised already")
            self._normalised = (factor, offset)
            self.outputs = len(factor)
        else:
            self._last_part().append(lambda x: x * factor + offset)
        self.ceiling = math.inf

    def _expect(self, width: int) -> None:
        if self.outputs and width != self.outputs:
            raise Refused(f"{self.outputs} numbers come in, it takes {width}")

    def _last_part(self) -> list[Function]:
        return self._behind[-1] if self._behind else self._front

    # --- computing -----------------------------------------------------------------------------------

    def project(self, features: Mapping[int, float]) -> Vector:
        """The part of a step that depends on its row of features (column to value) alone."""
        columns = list(features)
        values = list(features.values())
        x: Vector = self._kernel.take(columns, axis=0)
        if values.count(1.0) == len(values):
            x = np.add.reduce(x, axis=0)
        else:
            x = np.array(values, np.float32).dot(x)
        x += self._bias
        return _through(self._front, x)

    def step(self, projection: Vector, state: State | None) -> State:
        """Go on by one step; `state` None is the beginning."""
        x = projection
        memories: list[Memory] = []
        for index, cell in enumerate(self._cells):
            if index:
                x = _through(self._behind[index - 1], x)
            memory = cell.step(x, None if state is None else state[index])
            memories.append(memory)
            x = memory[0]
        return tuple(memories) or ((x,),)

    def output(self, state: State | None) -> list[float]:
        """The numbers after the last step; `state` None: there was no step."""
        if state is not None:
            x = state[-1][0]
        elif self._cells:
            x = np.zeros(self._cells[-1].units, np.float32)
        else:
            x = self.project({})
        numbers: list[float] = _through(self._last_part(), x).tolist() if self._cells else x.tolist()
        return numbers


def _through(functions: Sequence[Function], x: Vector) -> Vector:
    for function in functions:
        x = function(x)
    return x
