"""The Keras policy's network, trained in numpy: masking, one LSTM layer, a dense layer, softmax.

Blocks of the gates lie in the order input, forget, candidate, output; the gates are hard sigmoids
(`clip(0.2 x + 0.5, 0, 1)`), as in every release. All parameters are views of one vector, so that a step of
the optimiser is a few operations on it.
"""

from __future__ import annotations

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

        `inputs` (time, batch, features). `padded` (time, batch): steps that leave the state as it is. `labels`
        (batch,) for the last step, or (time, batch) for every step, -1 where none counts. `drops` are four input
        masks (batch, features), one a gate. `gradient`, a vector like the parameters, is overwritten.
        """
        run = self._forward(inputs, padded, drops)
        every_step = labels.ndim == 2
        outputs = np.stack(run.h[1:]) if every_step else run.h[-1]
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

    def _forward(self, inputs: Array, padded: NDArray[np.bool_], drops: Sequence[Array] | None) -> _Run:
        units, (steps, batch, _) = self.units, inputs.shape
        p = self.parameters
        if drops is None:
            projected = inputs @ p["kernel"]
        else:
            projected = np.empty((steps, batch, 4 * units), self.vector.dtype)
            for gate in range(4):
                block = slice(gate * units, (gate + 1) * units)
                projected[..., block] = (inputs * drops[gate]) @ p["kernel"][:, block]
        projected += p["bias"]
        zeros = np.zeros((batch, units), self.vector.dtype)
        run = _Run(inputs, drops, [zeros], [zeros], [], [], [])
        for step in range(steps):
            z = projected[step]
            if step:
                z = z + run.h[-1] @ p["recurrent"]
            z = z.copy()
            candidate = slice(2 * units, 3 * units)
            tanh = np.tanh(z[:, candidate])
            gates = np.clip(0.2 * z + 0.5, 0, 1)
            gates[:, candidate] = tanh
            i, f, g, o = (gates[:, k * units : (k + 1) * units] for k in range(4))
            c = f * run.c[-1] + i * g
            squashed = np.tanh(c)
            h = o * squashed
            kept = None
            if padded[step].any():
                kept = padded[step][:, None]
                c = np.where(kept, run.c[-1], c)
                h = np.where(kept, run.h[-1], h)
            run.h.append(h)
            run.c.append(c)
            run.gates.append(gates)
            run.squashed.append(squashed)
            run.kept.append(kept)
        return run

    def _backward(self, run: _Run, error: Array, outputs: Array, gradient: Array) -> None:
        """`error`: derivative of the loss by the logits, of the last step or of every step."""
        units, parts, p = self.units, self.views(gradient), self.parameters
        flat = error.reshape(-1, self.actions)
        parts["dense"][:] = outputs.reshape(-1, units).T @ flat
        parts["dense_bias"][:] = flat.sum(axis=0)
        by_output = error @ p["dense"].T
        steps, batch, _ = run.inputs.shape
        dz = np.empty((steps, batch, 4 * units), self.vector.dtype)
        dh = np.zeros((batch, units), self.vector.dtype)
        dc = np.zeros_like(dh)
        for step in range(steps - 1, -1, -1):
            if error.ndim == 3:
                dh = dh + by_output[step]
            elif step == steps - 1:
                dh = by_output
            gates, squashed, kept = run.gates[step], run.squashed[step], run.kept[step]
            i, f, g, o = (gates[:, k * units : (k + 1) * units] for k in range(4))
            through = dc + dh * o * (1 - squashed * squashed)
            slope = 0.2 * ((gates > 0) & (gates < 1))
            now = dz[step]
            now[:, :units] = through * g * slope[:, :units]
            now[:, units : 2 * units] = through * run.c[step] * slope[:, units : 2 * units]
            now[:, 2 * units : 3 * units] = through * i * (1 - g * g)
            now[:, 3 * units :] = dh * squashed * slope[:, 3 * units :]
            before_c = through * f
            if kept is not None:
                now[np.broadcast_to(kept, now.shape)] = 0
                before_c = np.where(kept, dc, before_c)
            before_h = now @ p["recurrent"].T if step else dh
            dh = before_h if kept is None else np.where(kept, dh, before_h)
            dc = before_c
        rows = dz.reshape(-1, 4 * units)
        parts["bias"][:] = rows.sum(axis=0)
        if steps > 1:
            parts["recurrent"][:] = np.concatenate(run.h[1:-1]).T @ dz[1:].reshape(-1, 4 * units)
        else:
            parts["recurrent"][:] = 0
        if run.drops is None:
            parts["kernel"][:] = run.inputs.reshape(-1, self.features).T @ rows
        else:
            for gate in range(4):
                block = slice(gate * units, (gate + 1) * units)
                seen = (run.inputs * run.drops[gate]).reshape(-1, self.features)
                parts["kernel"][:, block] = seen.T @ rows[:, block]


@frozen
class _Run:
    inputs: Array
    drops: Sequence[Array] | None
    h: list[Array]  # one more than there are steps: the state before each, and the last
    c: list[Array]
    gates: list[Array]
    squashed: list[Array]
    kept: list[Array | None]


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
        scale = rate * np.sqrt(1 - 0.999**self._steps) / (1 - 0.9**self._steps)
        self._vector -= (scale * self._mean / (np.sqrt(self._square) + 1e-7)).astype(self._vector.dtype, copy=False)


def batches(order: NDArray[np.intp], size: int) -> Iterator[NDArray[np.intp]]:
    """Consecutive parts of `order` of at most `size` items."""
    for begin in range(0, len(order), size):
        yield order[begin : begin + size]
