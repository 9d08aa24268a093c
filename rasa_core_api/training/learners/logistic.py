"""The sklearn policy's logistic regression, one class against the rest, in numpy.

Minimises the sum over the examples of log(1 + exp(-y f)) + |w|^2 / (2 C), intercepts included, as liblinear
did for scikit-learn 0.19 and 0.20, for all classes at once with limited-memory BFGS.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from rasa_core_api.exceptions import TrainingFailed
from rasa_core_api.training.learners.network import Matrix, Progress

Vector = NDArray[Any]

_MEMORY = 8
_ITERATIONS = 200


@frozen(kw_only=True)
class LogisticSettings:
    """`strengths`: values of C to choose from; more than one needs `folds` for the cross-validation."""

    strengths: Sequence[float] = (1.0,)
    folds: int | None = None
    random_seed: int = 42


@frozen
class FittedRegression:
    """Coefficients (classes, features), intercepts (classes,), and the action of each class.

    With two classes there is one row, as scikit-learn has it.
    """

    coefficients: NDArray[np.float64]
    intercepts: NDArray[np.float64]
    classes: NDArray[np.intp]
    strength: float
    examples: int
    accuracy: float

    def as_npz(self) -> bytes:
        """The arrays `coef`, `intercept` and `classes` as an uncompressed .npz without pickles."""
        memory = io.BytesIO()
        np.savez(memory, coef=self.coefficients, intercept=self.intercepts, classes=self.classes.astype(np.int64))
        return memory.getvalue()


def fit_logistic(matrix: Matrix, settings: LogisticSettings, progress: Progress) -> FittedRegression:
    """Train on windows. Raises `TrainingFailed` where fewer than two actions occur."""
    classes = np.unique(matrix.labels)
    if len(classes) < 2:
        raise TrainingFailed("the sklearn policy needs stories with at least two different actions")
    inputs = matrix.table[matrix.inputs].reshape(len(matrix.inputs), -1).astype(np.float32)
    targets = np.searchsorted(classes, matrix.labels)
    rows = 1 if len(classes) == 2 else len(classes)
    wanted = np.full((len(targets), rows), -1, np.float32)
    if rows == 1:
        wanted[:, 0] = np.where(targets == 1, 1, -1)
    else:
        wanted[np.arange(len(targets)), targets] = 1
    strength = _best_strength(inputs, wanted, targets, settings, progress)
    weights = _minimise(inputs, wanted, strength, lambda done: progress(done, "logistic regression"))
    progress(1.0, "logistic regression: measuring")
    right = float((_chosen(inputs, weights) == targets).mean())
    return FittedRegression(
        weights[:-1].T.astype(np.float64), weights[-1].astype(np.float64), classes, strength, len(targets), right
    )


def _chosen(inputs: Vector, weights: Vector) -> Vector:
    sums = inputs @ weights[:-1] + weights[-1]
    found: Vector = (sums[:, 0] > 0).astype(int) if sums.shape[1] == 1 else sums.argmax(axis=1)
    return found


def _best_strength(
    inputs: Vector, wanted: Vector, targets: Vector, settings: LogisticSettings, progress: Progress
) -> float:
    if len(settings.strengths) == 1:
        return float(settings.strengths[0])
    folds = settings.folds or 3
    order = np.random.default_rng(settings.random_seed).permutation(len(targets))
    best, best_accuracy = float(settings.strengths[0]), -1.0
    for number, strength in enumerate(settings.strengths):
        progress(number / (len(settings.strengths) + 1), f"logistic regression: trying C = {strength}")
        right = 0
        for held_out in np.array_split(order, folds):
            kept = np.setdiff1d(order, held_out)
            weights = _minimise(inputs[kept], wanted[kept], strength, lambda done: None)
            right += int((_chosen(inputs[held_out], weights) == targets[held_out]).sum())
        if right / len(targets) > best_accuracy:
            best, best_accuracy = float(strength), right / len(targets)
    return best


def _objective(inputs: Vector, wanted: Vector, strength: float, weights: Vector) -> tuple[float, Vector]:
    """The value, and the gradient in the shape of `weights` (features + 1, classes)."""
    margins = wanted * (inputs @ weights[:-1] + weights[-1])
    value = float(np.logaddexp(0, -margins).sum(dtype=np.float64)) + float((weights * weights).sum()) / (2 * strength)
    errors = -wanted * (0.5 - 0.5 * np.tanh(0.5 * margins))
    gradient = weights / strength
    gradient[:-1] += inputs.T @ errors
    gradient[-1] += errors.sum(axis=0)
    return value, gradient


def _minimise(inputs: Vector, wanted: Vector, strength: float, progress: Callable[[float], None]) -> Vector:
    weights = np.zeros((inputs.shape[1] + 1, wanted.shape[1]))
    value, gradient = _objective(inputs, wanted, strength, weights)
    first = float(np.abs(gradient).max())
    history: list[tuple[Vector, Vector, float]] = []
    for iteration in range(_ITERATIONS):
        progress(iteration / _ITERATIONS)
        if float(np.abs(gradient).max()) <= 1e-4 * max(1.0, first):
            break
        direction = _direction(gradient, history)
        slope = float((direction * gradient).sum())
        step = 1.0 if history else 1.0 / max(1.0, float(np.sqrt((gradient * gradient).sum())))
        for _ in range(30):
            tried = weights + step * direction
            new_value, new_gradient = _objective(inputs, wanted, strength, tried)
            if new_value <= value + 1e-4 * step * slope:
                break
            step *= 0.5
        else:
            break
        moved, changed = tried - weights, new_gradient - gradient
        curvature = float((moved * changed).sum())
        if curvature > 1e-10:
            history = [*history[-_MEMORY + 1 :], (moved, changed, curvature)]
        weights, value, gradient = tried, new_value, new_gradient
    return weights


def _direction(gradient: Vector, history: list[tuple[Vector, Vector, float]]) -> Vector:
    """The two-loop recursion of limited-memory BFGS."""
    found = -gradient
    shares = []
    for moved, changed, curvature in reversed(history):
        share = float((moved * found).sum()) / curvature
        found = found - share * changed
        shares.append(share)
    if history:
        _, changed, curvature = history[-1]
        found = found * (curvature / float((changed * changed).sum()))
    for (moved, changed, curvature), share in zip(history, reversed(shares), strict=True):
        found = found + (share - float((changed * found).sum()) / curvature) * moved
    return found
