"""The network of EmbeddingPolicy, one state of a dialogue at a time.

A recurrent cell (LSTM with layer normalisation, Ba et al. 2016, and gate biases drawn at training, Tallec and Ollivier
2018) reads each state. It looks at all earlier states twice: at what users said (mechanism 0) and at what the bot did
(mechanism 1, whose attention can shift along time as in a neural Turing machine, Graves et al. 2014). Where the second
points at one earlier state clearly enough, the cell goes on from what it was there: an excursion is forgotten.

All arrays are float32 as in the original, whose results these are to 1e-6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

Array = NDArray[np.float32]

MU_POS, MU_NEG = 0.8, -0.2  # margins of training; not stored in a model, so the defaults are taken
_ALIKE = (MU_POS - MU_NEG) / 2  # cosine above which an earlier action is copied
_CLEAR = 0.1  # attention that the copied action has at least
_SMALLEST_SQUARE = 1e-12
_NORM_EPSILON = 1e-12
_FIRST_CAPACITY = 16

_WRAPPER = "rnn_decoder/time_attention_wrapper/"
_CELL = _WRAPPER + "chrono_bias_layer_norm_basic_lstm_cell/"
#: Ends of the names of the graph constant that holds the gate biases.
BIAS_CONSTANT = ("chrono_bias_layer_norm_basic_lstm_cell/add/y",)


class NotServed(ValueError):
    """The variables are those of a variant that cannot be served; the text says which."""


@frozen(eq=False)
class Projected:
    """A state before the recurrent part, which it does not depend on.

    `memory` and `keys` have a row for each mechanism; `ignored` says for each whether later states look past this one.
    """

    user: Array
    slots: Array
    memory: Array
    keys: Array
    ignored: tuple[bool, bool]


class _History:
    """What later states look back at; grows at its end and is shared by the states of one conversation."""

    def __init__(self, size: int, units: int, capacity: int = _FIRST_CAPACITY) -> None:
        self.length = 0
        self.memory = np.empty((2, capacity, size), np.float32)
        self.keys = np.empty((2, capacity, size), np.float32)
        self.ignored = np.empty((2, capacity), np.bool_)
        self.cells = np.empty((capacity, units), np.float32)
        self.outputs = np.empty((capacity, size), np.float32)
        self.masks: list[Array] = []

    def prepared(self, length: int) -> _History:
        """A history with these first entries and room for another: this one if nothing follows them here."""
        capacity = self.keys.shape[1]
        if length == self.length and length < capacity:
            return self
        size, units = self.keys.shape[2], self.cells.shape[1]
        copy = _History(size, units, 2 * length if length >= capacity else capacity)
        copy.length = length
        for name in ("memory", "keys", "ignored"):
            getattr(copy, name)[:, :length] = getattr(self, name)[:, :length]
        copy.cells[:length] = self.cells[:length]
        copy.outputs[:length] = self.outputs[:length]
        copy.masks = self.masks[:length]
        return copy


@frozen(eq=False)
class State:
    """The network after some states of a dialogue. It may be gone on from more than once."""

    history: _History
    length: int
    cell: Array
    output: Array
    scores: Array  # (2, length): attention of the last step before the softmax
    mask: Array  # (length): 1 where an earlier state may be looked at
    embedding: Array


class EmbeddingNetwork:
    """Weights under the names of their TensorFlow variables, made ready for use.

    `bias` are the gate biases, `user_width` and `slot_width` the columns of a row that belong to the user and to
    slots; the others are words of the previous action. `listen` and `actions` are the words of `action_listen` and of
    all actions (rows of 0 and 1). Raises NotServed or ValueError where variables are missing or do not fit.
    """

    def __init__(
        self,
        values: Mapping[str, NDArray[Any]],
        bias: NDArray[Any],
        *,
        user_width: int,
        slot_width: int,
        actions: NDArray[Any],
        listen: int,
    ) -> None:
        self._values = values
        shared = "embed_layer_a_and_b/kernel" in values
        self._user_layers = self._layers("a_and_b" if shared else "a")
        self._bot_layers = self._layers("a_and_b" if shared else "b")
        self._slot_layer = self._layer("embed_layer_slt")
        self._refuse_variants()
        self.size = size = self._bot_layers[-1][0].shape[1]
        self.user_width, self.slot_width = user_width, slot_width
        self.width = user_width + slot_width + actions.shape[1]
        self.inputs = tuple(
            kernel.shape[0] for kernel in (self._user_layers[0][0], self._slot_layer[0], self._bot_layers[0][0])
        )
        if self.inputs != (user_width, slot_width, actions.shape[1]):
            raise ValueError(f"it takes {self.inputs} features of user, slots and bot, "
                             f"the featurizer gives {(user_width, slot_width, actions.shape[1])}")  # fmt: skip
        mechanisms = (f"{_WRAPPER}bahdanau_attention", f"{_WRAPPER}bahdanau_attention_1")
        gates = (f"{_WRAPPER}timed_ntm_0", f"{_WRAPPER}timed_ntm_1")
        self._memory_layers = [self._get(name, size, size) for name in ("memory_layer/kernel", "memory_layer_1/kernel")]
        query = [self._get(f"{name}/query_layer/kernel", 2 * size, size) for name in mechanisms]
        self._query = np.hstack(query)
        self._query_bias = np.stack([self._get(f"{name}/attention_b", size) for name in mechanisms])[:, None, :]
        self._directions = np.stack([self._direction(name, size) for name in mechanisms])[:, :, None]
        shift = self._get(f"{gates[1]}/shift_weight/kernel", 2 * size, None)
        if shift.shape[1] % 2 == 0:
            raise ValueError("its attention shifts by an even number of places")
        parts = [f"{gate}/{kind}" for kind in ("inter_gate", "gamma_sharp") for gate in gates]
        self._controls = np.hstack([*(self._get(f"{part}/kernel", 2 * size, 1) for part in parts), shift])
        self._controls_bias = np.concatenate(
            [
                *(self._get(f"{part}/bias", 1) for part in parts),
                self._get(f"{gates[1]}/shift_weight/bias", shift.shape[1]),
            ]
        )
        self._kernel = self._get(f"{_CELL}kernel", 3 * size, None)
        self.units = units = self._kernel.shape[1] // 4
        names = ("input", "transform", "forget", "output")
        self._scale = np.stack([self._get(f"{_CELL}{name}/gamma", units) for name in names])
        self._shift = np.stack([self._get(f"{_CELL}{name}/beta", units) for name in names])
        self._out = self._get(f"{_CELL}out_layer/kernel", units, size)
        self._out_bias = self._get(f"{_CELL}out_layer/bias", size)
        bias = np.asarray(bias, np.float32).ravel()
        if bias.shape != (units,) or self._kernel.shape[1] != 4 * units or not np.isfinite(bias).all():
            raise ValueError("its gate biases do not fit the cell")
        zero = np.zeros(units, np.float32)
        self._gate_bias = np.stack([-bias, zero, bias, zero])
        bot = self._embed(actions.astype(np.float32), self._bot_layers)
        self._actions = _unit(bot)
        self._listening = actions[listen].astype(np.float32)
        self._listen = self._actions[listen]

    # variables

    def _get(self, name: str, *shape: int | None) -> Array:
        values = self._values.get(name)
        if values is None:
            raise NotServed(f"the variable {name} is missing: only networks with both kinds of attention are served")
        if values.ndim != len(shape) or any(
            want not in (None, got) for want, got in zip(shape, values.shape, strict=True)
        ):
            raise ValueError(f"the variable {name} has the shape {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError(f"the variable {name} holds values that are no numbers")
        return np.ascontiguousarray(values, np.float32)

    def _layer(self, name: str) -> tuple[Array, Array]:
        kernel = self._get(f"{name}/kernel", None, None)
        return kernel, self._get(f"{name}/bias", kernel.shape[1])

    def _layers(self, side: str) -> list[tuple[Array, Array]]:
        layers: list[tuple[Array, Array]] = []
        while f"hidden_layer_{side}_{len(layers)}/kernel" in self._values:
            layers.append(self._layer(f"hidden_layer_{side}_{len(layers)}"))
        layers.append(self._layer(f"embed_layer_{side}"))
        for before, after in pairwise(layers):
            if before[0].shape[1] != after[0].shape[0]:
                raise ValueError("layers that do not fit together")
        return layers

    def _refuse_variants(self) -> None:
        sizes = {layers[0].shape[1] for layers in (self._user_layers[-1], self._bot_layers[-1], self._slot_layer)}
        if len(sizes) != 1:
            raise ValueError("users, slots and actions are mapped into different spaces")
        if f"{_CELL}kernel" not in self._values:
            raise NotServed("it has no cell with layer normalisation; only that kind is served")

    def _direction(self, name: str, size: int) -> Array:
        v, g = self._get(f"{name}/attention_v", size), self._get(f"{name}/attention_g")
        return np.asarray(g * v / np.sqrt((v * v).sum()), np.float32)

    def _embed(self, rows: Array, layers: Sequence[tuple[Array, Array]]) -> Array:
        values = rows
        for kernel, bias in layers:  # also the input goes through the rectifier
            values = np.maximum(values, np.float32(0)) @ kernel + bias
        return values

    # states

    def project(self, features: Mapping[int, float]) -> Projected:
        """A row of features (column to value) before the recurrent part."""
        row = np.zeros(self.width, np.float32)
        for column, value in features.items():
            row[column] = value
        words, slots, action = np.split(row, (self.user_width, self.user_width + self.slot_width))
        user = self._embed(words, self._user_layers)
        bot = self._embed(action, self._bot_layers)
        kernel, bias = self._slot_layer
        positive = np.maximum(action, np.float32(0))
        return Projected(
            user=user,
            slots=slots @ kernel + bias,
            memory=np.stack([user, bot]),
            keys=np.stack([user @ self._memory_layers[0], bot @ self._memory_layers[1]]),
            ignored=(not (words > 0).any(), not positive.any() or bool((positive == self._listening).all())),
        )

    def step(self, state: State | None, seen: Projected) -> State:
        """Go on by one state of the dialogue; `None` is its beginning."""
        if state is None:
            length, history = 0, _History(self.size, self.units)
            cell, output = np.zeros(self.units, np.float32), np.zeros(self.size, np.float32)
            mask = np.empty(0, np.float32)
        else:
            length, history = state.length, state.history.prepared(state.length)
            cell, output, mask = state.cell, state.output, state.mask
        history.memory[:, length] = seen.memory
        history.keys[:, length] = seen.keys
        history.ignored[:, length] = seen.ignored
        history.cells[length] = cell
        history.outputs[length] = output
        history.masks.append(mask)
        history.length = length + 1

        query = np.concatenate((seen.user, output))
        controls = query @ self._controls + self._controls_bias
        scores = self._scores(history, length + 1, query)
        if state is not None:
            gate = _logistic(controls[:2])[:, None]
            scores[:, :length] = gate * scores[:, :length] + (1 - gate) * state.scores
        attention = self._attention(history, scores, mask, controls)
        context = (attention[:, None, :length] @ history.memory[:, :length])[:, 0]
        content, shown = self._cell(np.concatenate((seen.user + context[0], seen.slots, output)), cell)
        embedding = shown @ self._out + self._out_bias + context[1]
        return self._copied(history, length, attention[1, :length], scores, mask, content, embedding)

    def _scores(self, history: _History, length: int, query: Array) -> Array:
        asked = (query @ self._query).reshape(2, 1, -1) + self._query_bias
        return np.asarray((np.tanh(history.keys[:, :length] + asked) @ self._directions)[:, :, 0])

    def _attention(self, history: _History, scores: Array, mask: Array, controls: Array) -> Array:
        """How much each mechanism looks at each state, itself included."""
        length = scores.shape[1]
        kept = np.empty((2, length), np.bool_)
        kept[:, : length - 1] = (mask == 1) & ~history.ignored[:, : length - 1]
        kept[:, length - 1] = True
        shown = np.where(kept, scores, np.float32(-np.inf))
        powers = np.exp(shown - shown.max(axis=1, keepdims=True))
        attention = powers / powers.sum(axis=1, keepdims=True)
        places = np.flatnonzero(kept[1])
        width = len(controls) - 4
        shift = np.exp(controls[4:] - controls[4:].max())
        shift /= shift.sum()
        # states that are not looked at do not count as places; what is shifted in from behind is nothing
        reach = width // 2
        padded = np.zeros(length + 2 * reach, np.float32)
        padded[reach : reach + len(places)] = attention[1, places][::-1]
        shifted = np.correlate(padded, shift, "valid")[: len(places)][::-1]
        attention[1] = 0
        attention[1, places] = shifted
        sharp = np.logaddexp(np.float32(0), controls[2:4])[:, None] + np.float32(1)
        attention **= sharp
        return np.asarray(attention / (attention.sum(axis=1, keepdims=True) + np.float32(1e-32)))

    def _cell(self, values: Array, cell: Array) -> tuple[Array, Array]:
        """The cell's new content, and what it puts out."""
        gates = (values @ self._kernel).reshape(4, self.units)
        gates -= gates.mean(axis=1, keepdims=True)
        gates /= np.sqrt((gates * gates).mean(axis=1, keepdims=True) + np.float32(_NORM_EPSILON))
        gates *= self._scale
        gates += self._shift
        gates += self._gate_bias
        entering, candidate, kept, shown = gates
        content = cell * _logistic(kept) + np.tanh(candidate) * _logistic(entering)
        return content, np.tanh(content) * _logistic(shown)

    def _copied(
        self,
        history: _History,
        length: int,
        attention: Array,
        scores: Array,
        mask: Array,
        cell: Array,
        embedding: Array,
    ) -> State:
        """The state after the step, which may go on from an earlier one."""
        mask = np.append(mask, np.float32(1))
        output = embedding
        chosen = self._chosen(history, length, attention, embedding)
        if len(chosen):
            rest = np.float32(1 - len(chosen))
            cell = history.cells[chosen].sum(axis=0) + rest * cell
            output = history.outputs[chosen].sum(axis=0) + rest * output
            mask = rest * mask
            for place in chosen:
                mask[:place] += history.masks[place]
        return State(history, length + 1, cell, output, scores, mask, embedding)

    def _chosen(self, history: _History, length: int, attention: Array, embedding: Array) -> NDArray[np.intp]:
        """The earlier states (nearly always one, or none) that the dialogue goes on from."""
        nothing = np.empty(0, np.intp)
        highest = attention.max() if length else np.float32(0)
        if not highest > _CLEAR:
            return nothing
        unit = _unit(embedding)
        if float(unit @ self._listen) > _ALIKE:
            return nothing
        chosen = np.flatnonzero(attention == highest)
        previous = history.memory[1, chosen].sum(axis=0) + np.float32(1 - len(chosen)) * embedding
        return chosen if float(unit @ _unit(previous)) > _ALIKE else nothing

    def output(self, state: State) -> list[float]:
        """How alike the dialogue is to each action."""
        similarities = self._actions @ _unit(state.embedding)
        scores: list[float] = np.maximum(similarities, 0).tolist()
        return scores


def _logistic(values: Array) -> Array:
    half = np.float32(0.5)
    return np.asarray(half * np.tanh(half * values) + half, np.float32)


def _unit(values: Array) -> Array:
    """Vectors of length 1 along the last axis."""
    return np.asarray(values / np.sqrt(np.maximum((values * values).sum(axis=-1, keepdims=True), _SMALLEST_SQUARE)))
