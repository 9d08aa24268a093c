"""The Keras policy's network, trained in numpy: masking, one LSTM layer, a dense layer, softmax.

Blocks of the gates lie in the order input, forget, candidate, output; the gates are hard sigmoids
(`clip(0.2 x + 0.5, 0, 1)`), as in every release. All parameters are views of one vector, so that a step of
the optimiser is a few operations on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

#: float32 for training, float64 to check gradients.
Array = NDArray[Any]

_PARAMETERS = ("kernel", "recurrent", "bias", "dense", "dense_bias")


class RecurrentNetwork:
    """Parameters, forward pass and gradients. Shapes: `features` inputs, `units`, `actions` outputs."""

    def __init__(self, features: int, units: int, actions: int, dtype: type = np.float32) -> None:
        self.features, self.units, self.actions = features, units, actions
        self.shapes: Mapping[str, tuple[int, ...]] = {
            "kernel": (features, 4 * units),
            "recurrent": (units, 4 * units),
            "bias": (4 * units,),
            "dense": (units, actions),
            "dense_bias": (actions,),
        }
        self.vector: Array = np.zeros(sum(int(np.prod(shape)) for shape in self.shapes.values()), dtype)
        self.parameters = self.views(self.vector)
        self._memory: dict[str, Array] = {}

    def views(self, vector: Array) -> dict[str, Array]:
        """The parts of a vector that is laid out like the parameters."""
        found, begin = {}, 0
        for name in _PARAMETERS:
            end = begin + int(np.prod(self.shapes[name]))
            found[name] = vector[begin:end].reshape(self.shapes[name])
            begin = end
        return found

    def initialise(self, random: np.random.Generator) -> None:
        """Glorot-uniform kernels, an orthogonal recurrent kernel, zero biases but 1 for the forget gates."""
        for name in ("kernel", "dense"):
            part = self.parameters[name]
            limit = np.sqrt(6.0 / sum(part.shape))
            part[:] = random.uniform(-limit, limit, part.shape)
        square, upper = np.linalg.qr(random.standard_normal((4 * self.units, self.units)))
        self.parameters["recurrent"][:] = (square * np.sign(np.diag(upper))).T
        self.parameters["bias"][:] = 0
        self.parameters["bias"][self.units : 2 * self.units] = 1
        self.parameters["dense_bias"][:] = 0

    # --- one batch -----------------------------------------------------------------------------------

    def loss(
        self,
        inputs: Array,
        padded: NDArray[np.bool_],
        labels: NDArray[np.intp],
        drops: Sequence[Array] | None = None,
        gradient: Array | None = None,
    ) -> tuple[float, int]:
        """Mean cross-entropy, and how many labels were the most likely action.

        `inputs` (time, batch, features). `padded` (time, batch): steps at the beginning or the end of an example that
        do not count; the state there is zero. `labels` (batch,) for the last step, or (time, batch) for every step, -1
        where none counts. `drops` are four input masks (batch, features), one a gate. `gradient`, a vector like the
        parameters, is overwritten.
        """
        run = self._forward(inputs, padded, drops)
        every_step = labels.ndim == 2
        outputs = run.h[1:] if every_step else run.h[-1]
        logits = outputs @ self.parameters["dense"] + self.parameters["dense_bias"]
        logits -= logits.max(axis=-1, keepdims=True)
        scores = np.exp(logits)
        scores /= scores.sum(axis=-1, keepdims=True)
        counted = labels >= 0
        total = max(1, int(counted.sum()))
        chosen = np.take_along_axis(scores, np.maximum(labels, 0)[..., None], -1)[..., 0]
        loss = -float(np.log(np.maximum(chosen[counted], 1e-12)).sum()) / total
        right = int((scores.argmax(axis=-1) == labels)[counted].sum())
        if gradient is not None:
            error = scores
            np.put_along_axis(error, np.maximum(labels, 0)[..., None], (chosen - 1)[..., None], -1)
            error *= (counted / total)[..., None]
            self._backward(run, error.astype(self.vector.dtype, copy=False), outputs, gradient)
        return loss, right

    def scores(self, inputs: Array, padded: NDArray[np.bool_]) -> Array:
        """Probabilities of the actions after the last step, (batch, actions)."""
        logits = self._forward(inputs, padded, None).h[-1] @ self.parameters["dense"] + self.parameters["dense_bias"]
        scores: Array = np.exp(logits - logits.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        return scores

    def _array(self, name: str, *shape: int) -> Array:
        """Memory without content, the same in every batch: fetching pages anew would take longer than to compute."""
        size = math.prod(shape)
        memory = self._memory.get(name)
        if memory is None or memory.size < size:
            memory = self._memory[name] = np.empty(size, self.vector.dtype)
        return memory[:size].reshape(shape)

    def _scaled(self, name: str) -> Array:
        """A parameter of the gates so that the hard sigmoids become `clip(x, 0, 1)`."""
        part: Array = self.parameters[name] * self._scale
        return part

    @property
    def _scale(self) -> Array:
        scale = np.full(4 * self.units, 0.2, self.vector.dtype)
        scale[2 * self.units : 3 * self.units] = 1
        return scale

    def _forward(self, inputs: Array, padded: NDArray[np.bool_], drops: Sequence[Array] | None) -> _Run:
        units, (steps, batch, features) = self.units, inputs.shape
        kernel, recurrent, bias = self._scaled("kernel"), self._recurrent(), self._scaled("bias")
        bias += 0.5 * (self._scale < 1)
        gates = self._array("gates", 4, steps, batch, units)
        seen = []
        for place, gate in enumerate(_ORDER):
            rows, block = inputs.reshape(-1, features), self._block(gate)
            if drops is not None:
                dropped = self._array(f"seen {gate}", *inputs.shape)
                rows = np.multiply(inputs, drops[gate], out=dropped).reshape(-1, features)
            seen.append(rows)
            np.matmul(rows, kernel[:, block], out=gates[place].reshape(-1, units))
            gates[place] += bias[block]
        h, c = (self._array(name, steps + 1, batch, units) for name in "hc")
        h[0] = c[0] = 0
        squashed = self._array("squashed", steps, batch, units)
        more, product = self._array("more", 4, batch, units), self._array("product", batch, units)
        for step in range(steps):
            now = gates[:, step]
            if step:
                now += np.matmul(h[step], recurrent, out=more)
            np.clip(now[:3], 0, 1, out=now[:3])
            np.tanh(now[3], out=now[3])
            if padded[step].any():
                now *= ~padded[step][:, None]
            o, i, f, g = now
            np.multiply(f, c[step], out=c[step + 1])
            c[step + 1] += np.multiply(i, g, out=product)
            np.tanh(c[step + 1], out=squashed[step])
            np.multiply(o, squashed[step], out=h[step + 1])
        return _Run(seen, h, c, gates, squashed)

    def _block(self, gate: int) -> slice:
        return slice(gate * self.units, (gate + 1) * self.units)

    def _recurrent(self) -> Array:
        """The recurrent kernel, scaled: one matrix for each gate of a run."""
        scaled = self._scaled("recurrent")
        return np.stack([scaled[:, self._block(gate)] for gate in _ORDER])

    def _backward(self, run: _Run, error: Array, outputs: Array, gradient: Array) -> None:
        """`error`: derivative of the loss by the logits, of the last step or of every step."""
        units, parts = self.units, self.views(gradient)
        steps, batch, _ = run.squashed.shape
        flat = error.reshape(-1, self.actions)
        np.matmul(outputs.reshape(-1, units).T, flat, out=parts["dense"])
        parts["dense_bias"][:] = flat.sum(axis=0)
        by_output = error @ self.parameters["dense"].T
        o, i, f, g = run.gates
        slope = (run.gates[:3] > 0) & (run.gates[:3] < 1)
        by_state = np.multiply(run.squashed, run.squashed, out=self._array("by state", steps, batch, units))
        np.subtract(1, by_state, out=by_state)
        by_state *= o
        opening = np.multiply(run.squashed, slope[0], out=run.squashed)
        others = self._array("others", 3, steps, batch, units)
        np.multiply(g, slope[1], out=others[0])
        np.multiply(run.c[:-1], slope[2], out=others[1])
        np.multiply(g, g, out=others[2])
        np.subtract(1, others[2], out=others[2])
        others[2] *= i
        dz = self._array("dz", 4, steps, batch, units)
        back = np.ascontiguousarray(self._recurrent().transpose(0, 2, 1))
        more, product = self._array("more", 4, batch, units), self._array("product", batch, units)
        dh, dc = np.zeros((batch, units), self.vector.dtype), np.zeros((batch, units), self.vector.dtype)
        for step in range(steps - 1, -1, -1):
            if error.ndim == 3:
                dh += by_output[step]
            elif step == steps - 1:
                dh[:] = by_output
            np.multiply(dh, opening[step], out=dz[0, step])
            dc += np.multiply(dh, by_state[step], out=product)
            np.multiply(dc, others[:, step], out=dz[1:, step])
            if step:
                dc *= f[step]
                np.matmul(dz[:, step], back, out=more)
                np.add.reduce(more, axis=0, out=dh)
        before = run.h[1:-1].reshape(-1, units).T
        for place, gate in enumerate(_ORDER):
            rows, block = dz[place].reshape(-1, units), self._block(gate)
            parts["bias"][block] = rows.sum(axis=0)
            parts["recurrent"][:, block] = before @ rows[batch:]
            parts["kernel"][:, block] = run.seen[place].T @ rows
        for name in ("bias", "recurrent", "kernel"):
            parts[name] *= self._scale


#: The gates in a run: output, input, forget, candidate.
_ORDER = (3, 0, 1, 2)


@frozen
class _Run:
    """What a forward pass leaves for the gradients, until the next; gates in `_ORDER`, steps, examples, units."""

    seen: list[Array]  # the inputs of each gate, (steps and examples, features)
    h: Array  # one step more: the state before each, and the last
    c: Array
    gates: Array
    squashed: Array


class Adam:
    """Adam on one vector (beta 0.9 and 0.999, epsilon 1e-7)."""

    def __init__(self, vector: Array) -> None:
        self._vector = vector
        self._mean = np.zeros_like(vector)
        self._square = np.zeros_like(vector)
        self._steps = 0

    def step(self, gradient: Array, rate: float) -> None:
        self._steps += 1
        self._mean += 0.1 * (gradient - self._mean)
        self._square += 0.001 * (gradient * gradient - self._square)
        scale = rate * math.sqrt(1 - 0.999**self._steps) / (1 - 0.9**self._steps)
        change = np.sqrt(self._square)
        change += 1e-7
        np.divide(self._mean, change, out=change)
        change *= scale
        self._vector -= change


def batches(order: NDArray[np.intp], size: int) -> Iterator[NDArray[np.intp]]:
    """Consecutive parts of `order` of at most `size` items."""
    for begin in range(0, len(order), size):
        yield order[begin : begin + size]
