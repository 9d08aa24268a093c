"""The network of EmbeddingPolicy, one state of a dialogue at a time.

A recurrent cell (LSTM with layer normalisation, Ba et al. 2016, and gate biases drawn at training, Tallec and Ollivier
2018) reads each state. It looks at all earlier states in up to two ways: at what users said, and at what the bot did,
where attention can shift along time as in a neural Turing machine (Graves et al. 2014). Where the second points at one
earlier state clearly enough, the cell goes on from what it was there: an excursion is forgotten.

All arrays are float32 as in the original, whose results these are to 1e-6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from rasa_core_api.policies.embedding_weights import BOT, Array, Facts, Layer, Weights

_CLEAR = 0.1  # attention that a copied action has at least
_SMALLEST_SQUARE = 1e-12
_NORM_EPSILON = np.float32(1e-12)
_FIRST_CAPACITY = 16


@frozen(eq=False)
class Projected:
    """A state before the recurrent part, which it does not depend on.

    `inputs` are what the cell reads, the user's part first. `memory`, `keys` and `ignored` have an entry for each
    kind of attention: what is looked back at, and whether later states look past this one.
    """

    inputs: Array
    memory: Array
    keys: Array
    ignored: Sequence[bool]


class _History:
    """What later states look back at; grows at its end and is shared by the states of one conversation."""

    def __init__(self, kinds: int, size: int, units: int, output: int, capacity: int = _FIRST_CAPACITY) -> None:
        self.length = 0
        self.memory = np.empty((kinds, capacity, size), np.float32)
        self.keys = np.empty((kinds, capacity, size), np.float32)
        self.ignored = np.empty((kinds, capacity), np.bool_)
        self.cells = np.empty((capacity, units), np.float32)
        self.outputs = np.empty((capacity, output), np.float32)
        self.masks: list[Array] = []

    def prepared(self, length: int) -> _History:
        """A history with these first entries and room for another: this one if nothing follows them here."""
        kinds, capacity, size = self.keys.shape
        if length == self.length and length < capacity:
            return self
        room = 2 * length if length >= capacity else capacity
        copy = _History(kinds, size, self.cells.shape[1], self.outputs.shape[1], room)
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
    scores: Array  # (kinds, length): attention of the last step before it became shares
    mask: Array  # (length): 1 where an earlier state may be looked at
    embedding: Array


class EmbeddingNetwork:
    """The forward pass.

    `user_width` and `slot_width` are the columns of a row that belong to the user and to slots; the others are words
    of the previous action. `actions` are the words of all actions (rows of 0 and 1), `listen` is the number of
    `action_listen`. Raises ValueError where these do not fit the weights.
    """

    def __init__(
        self,
        weights: Weights,
        facts: Facts,
        *,
        user_width: int,
        slot_width: int,
        actions: NDArray[np.float32],
        listen: int,
    ) -> None:
        given = (user_width, slot_width, actions.shape[1])
        taken = tuple(layer[0].shape[0] for layer in (weights.user[0], weights.slots, weights.bot[0]))
        if taken != given:
            raise ValueError(f"it takes {taken} features of user, slots and bot, the featurizer gives {given}")
        self._weights, self._facts = weights, facts
        self.ceiling = 1.0 + 1e-6 if facts.cosine else math.inf  # no score exceeds it: a cosine, rounded
        self._splits = (user_width, user_width + slot_width)
        self.width = sum(given)
        self._listening = np.asarray(actions[listen], np.float32)
        self._actions = self._comparable(_embed(np.asarray(actions, np.float32), weights.bot))
        self._listen = self._actions[listen]
        kinds = self._kinds = weights.mechanisms
        self._bot_kind = next((number for number, kind in enumerate(kinds) if kind.memory == BOT), None)
        if kinds:  # what all kinds ask is computed at once
            self._query = np.hstack([kind.query for kind in kinds])
            self._query_bias = np.stack([kind.query_bias for kind in kinds])[:, None, :]
            self._directions = np.stack([kind.direction for kind in kinds])[:, :, None]
            controls: list[Layer] = [*(kind.interpolate for kind in kinds), *(kind.sharpen for kind in kinds)]
            controls += [kind.shift for kind in kinds if kind.shift is not None]
            self._controls = np.hstack([kernel for kernel, _ in controls])
            self._controls_bias = np.concatenate([bias for _, bias in controls])

    def project(self, features: Mapping[int, float]) -> Projected:
        """A row of features (column to value) before the recurrent part."""
        row = np.zeros(self.width, np.float32)
        for column, value in features.items():
            row[column] = value
        words, slots, action = np.split(row, self._splits)
        weights = self._weights
        user = _embed(words, weights.user)
        bot = _embed(action, weights.bot)
        kernel, bias = weights.slots
        inputs = [user, slots @ kernel + bias]
        if not self._kinds:
            inputs.append(bot)
        silent = not (words > 0).any()
        unmoved = not (action > 0).any() or bool((np.maximum(action, np.float32(0)) == self._listening).all())
        memories = [bot if kind.memory == BOT else user for kind in self._kinds]
        keys = [memory @ kind.memory_kernel for memory, kind in zip(memories, self._kinds, strict=True)]
        return Projected(
            inputs=np.concatenate(inputs),
            memory=np.array(memories, np.float32),
            keys=np.array(keys, np.float32),
            ignored=[unmoved if kind.memory == BOT else silent for kind in self._kinds],
        )

    def step(self, state: State | None, seen: Projected) -> State:
        """Go on by one state of the dialogue; `None` is its beginning."""
        weights, size = self._weights, self._weights.size
        if state is None:
            length, history = 0, _History(len(self._kinds), size, weights.units, weights.output)
            cell, output = np.zeros(weights.units, np.float32), np.zeros(weights.output, np.float32)
            scores, mask = np.empty((len(self._kinds), 0), np.float32), np.empty(0, np.float32)
        else:
            length, history = state.length, state.history.prepared(state.length)
            cell, output, scores, mask = state.cell, state.output, state.scores, state.mask
        if not self._kinds:
            cell, output = self._cell(np.concatenate((seen.inputs, output)), cell)
            return State(history, length, cell, output, scores, mask, self._embedding(output))
        history.memory[:, length] = seen.memory
        history.keys[:, length] = seen.keys
        history.ignored[:, length] = seen.ignored
        history.cells[length] = cell
        history.outputs[length] = output
        history.masks.append(mask)
        history.length = length + 1

        query = np.concatenate((seen.inputs[:size], output))
        controls = query @ self._controls + self._controls_bias
        scores = self._scores(history, scores, query, controls)
        attention = self._attention(history, scores, mask, controls)
        context = (attention[:, None, :length] @ history.memory[:, :length])[:, 0]
        inputs = np.concatenate((seen.inputs, output))
        if self._bot_kind != 0:  # the first kind looks at users
            inputs[:size] += context[0]
        cell, output = self._cell(inputs, cell)
        if self._bot_kind is None:
            embedding = self._embedding(output)
            return State(history, length + 1, cell, output, scores, np.append(mask, np.float32(1)), embedding)
        embedding = output + context[self._bot_kind]
        chosen = self._chosen(history, attention[self._bot_kind, :length], embedding)
        return self._gone_on(history, length, chosen, scores, mask, cell, embedding)

    def _scores(self, history: _History, last: Array, query: Array, controls: Array) -> Array:
        """What each kind of attention thinks of each state so far, this one included, before a choice is made."""
        length = last.shape[1]
        asked = (query @ self._query).reshape(len(self._kinds), 1, -1) + self._query_bias
        scores: Array = (np.tanh(history.keys[:, : length + 1] + asked) @ self._directions)[:, :, 0]
        if length:
            gate = _logistic(controls[: len(self._kinds)])[:, None]
            scores[:, :length] = gate * scores[:, :length] + (1 - gate) * last
        return scores

    def _attention(self, history: _History, scores: Array, mask: Array, controls: Array) -> Array:
        """How much each kind of attention looks at each state, itself included."""
        kinds, length = scores.shape
        kept = np.empty((kinds, length), np.bool_)
        kept[:, : length - 1] = (mask == 1) & ~history.ignored[:, : length - 1]
        kept[:, length - 1] = True
        shown = np.where(kept, scores, np.float32(-np.inf))
        if self._facts.sparse:
            attention = np.stack([_sparsemax(row) for row in shown])
        else:
            powers = np.exp(shown - shown.max(axis=1, keepdims=True))
            attention = powers / powers.sum(axis=1, keepdims=True)
        if self._bot_kind is not None:
            places = np.flatnonzero(kept[self._bot_kind])
            shifted = _shifted(attention[self._bot_kind, places], length, controls[2 * kinds :])
            attention[self._bot_kind] = 0
            attention[self._bot_kind, places] = shifted
        sharp = np.logaddexp(np.float32(0), controls[kinds : 2 * kinds])[:, None] + np.float32(1)
        attention **= sharp
        return np.asarray(attention / (attention.sum(axis=1, keepdims=True) + np.float32(1e-32)))

    def _cell(self, inputs: Array, content: Array) -> tuple[Array, Array]:
        """The cell's new content, and what it puts out."""
        cell = self._weights.cell
        gates = inputs @ cell.kernel
        if cell.bias is not None:
            gates += cell.bias
        gates = gates.reshape(4, -1)
        if cell.norm is not None:
            gates -= gates.mean(axis=1, keepdims=True)
            gates /= np.sqrt((gates * gates).mean(axis=1, keepdims=True) + _NORM_EPSILON)
            gates *= cell.norm[0]
            gates += cell.norm[1]
        gates += cell.gate_bias
        entering, candidate, kept, shown = gates
        content = content * _logistic(kept) + np.tanh(candidate) * _logistic(entering)
        output = np.tanh(content) * _logistic(shown)
        return content, output if cell.out is None else output @ cell.out[0] + cell.out[1]

    def _embedding(self, output: Array) -> Array:
        last = self._weights.last
        return output if last is None else output @ last[0] + last[1]

    def _chosen(self, history: _History, attention: Array, embedding: Array) -> NDArray[np.intp]:
        """The earlier states (mostly one, or none) that the dialogue goes on from."""
        nothing = np.empty(0, np.intp)
        if not len(attention):
            return nothing
        highest = attention.max()
        # where nothing stands out nothing is chosen; but where no earlier state is looked at at all, all of them are
        chosen = np.flatnonzero(attention == (highest if highest > _CLEAR else -highest))
        if not len(chosen):
            return nothing
        point = self._comparable(embedding)
        if float(point @ self._listen) > self._facts.alike:
            return nothing
        previous = history.memory[self._bot_kind, chosen].sum(axis=0) + np.float32(1 - len(chosen)) * embedding
        return chosen if float(point @ self._comparable(previous)) > self._facts.alike else nothing

    def _gone_on(
        self,
        history: _History,
        length: int,
        chosen: NDArray[np.intp],
        scores: Array,
        mask: Array,
        cell: Array,
        embedding: Array,
    ) -> State:
        """The state after a step that goes on from the chosen earlier ones."""
        mask = np.append(mask, np.float32(1))
        output = embedding
        if len(chosen):
            rest = np.float32(1 - len(chosen))
            cell = history.cells[chosen].sum(axis=0) + rest * cell
            output = history.outputs[chosen].sum(axis=0) + rest * output
            mask = rest * mask
            for place in chosen:
                mask[:place] += history.masks[place]
        return State(history, length + 1, cell, output, scores, mask, embedding)

    def _comparable(self, values: Array) -> Array:
        """What similarities are inner products of: vectors of length 1 for the cosine."""
        if not self._facts.cosine:
            return values
        squares = (values * values).sum(axis=-1, keepdims=True)
        return np.asarray(values / np.sqrt(np.maximum(squares, _SMALLEST_SQUARE)), np.float32)

    def output(self, state: State) -> list[float]:
        """How alike the dialogue is to each action; inner products are not made shares of one.

        (The original forgets the kind of similarity when it saves a model, so what it loaded did the same.)
        """
        similarities = self._actions @ self._comparable(state.embedding)
        scores: list[float] = np.maximum(similarities, np.float32(0)).tolist()
        return scores


def _embed(rows: Array, layers: Sequence[Layer]) -> Array:
    for kernel, bias in layers:  # also the input goes through the rectifier
        rows = np.maximum(rows, np.float32(0)) @ kernel + bias
    return rows


def _logistic(values: Array) -> Array:
    half = np.float32(0.5)
    return np.asarray(half * np.tanh(half * values) + half, np.float32)


def _sparsemax(scores: Array) -> Array:
    """The nearest probabilities to scores; dropped ones are minus infinity."""
    falling = -np.sort(-scores[np.isfinite(scores)])
    sums = np.cumsum(falling)
    count = np.flatnonzero(1 + np.arange(1, len(falling) + 1) * falling > sums)[-1] + 1
    return np.asarray(np.maximum(scores - (sums[count - 1] - np.float32(1)) / np.float32(count), np.float32(0)))


def _shifted(attention: Array, length: int, shift: Array) -> Array:
    """Attention moved along the states that may be looked at; what is moved in from beyond them is nothing."""
    weights = np.exp(shift - shift.max())
    weights /= weights.sum()
    reach = len(weights) // 2
    count = len(attention)
    padded = np.zeros(length + 2 * reach, np.float32)
    padded[reach : reach + count] = attention[::-1]
    return np.asarray(np.correlate(padded, weights, "valid")[:count][::-1])
