"""The logistic regression reaches its minimum and tells actions apart."""

from __future__ import annotations

import io

import numpy as np
import pytest

from rasa_core_api.exceptions import TrainingFailed
from rasa_core_api.training.learners.logistic import LogisticSettings, _minimise, _objective, fit_logistic
from rasa_core_api.training.learners.network import Matrix


def problem(classes: int, seed: int = 2) -> Matrix:
    random = np.random.default_rng(seed)
    table = np.vstack([np.eye(6), np.full((1, 6), -1)]).astype(np.float32)
    inputs = random.integers(0, 6, (80, 2)).astype(np.int32)
    return Matrix(table, inputs, (inputs[:, 0] % classes + 3).astype(np.intp))


def quiet(share: float, what: str) -> None:
    pass


@pytest.mark.parametrize("classes", [2, 3])
def test_learns(classes: int) -> None:
    """A rule over the window is learnt; with two classes one row decides; classes are action numbers."""
    fitted = fit_logistic(problem(classes), LogisticSettings(), quiet)
    assert fitted.accuracy == 1.0
    assert fitted.classes.tolist() == list(range(3, 3 + classes))
    assert fitted.coefficients.shape == (1 if classes == 2 else classes, 12)
    arrays = np.load(io.BytesIO(fitted.as_npz()), allow_pickle=False)
    assert sorted(arrays) == ["classes", "coef", "intercept"]


def test_gradient_and_minimum() -> None:
    """The gradient agrees with differences, and it vanishes where the search ends."""
    random = np.random.default_rng(0)
    inputs = random.normal(0, 1, (40, 5))
    wanted = np.where(random.random((40, 3)) < 0.3, 1.0, -1.0)
    weights = random.normal(0, 1, (6, 3))
    gradient = _objective(inputs, wanted, 2.0, weights)[1]
    for index in [(0, 0), (3, 1), (5, 2)]:
        step = np.zeros_like(weights)
        step[index] = 1e-6
        both = [_objective(inputs, wanted, 2.0, weights + sign * step)[0] for sign in (1, -1)]
        assert abs((both[0] - both[1]) / 2e-6 - gradient[index]) < 1e-5
    found = _minimise(inputs, wanted, 2.0, lambda share: None)
    assert np.abs(_objective(inputs, wanted, 2.0, found)[1]).max() < 1e-2


def test_grid() -> None:
    """Of several strengths the one that does best on held-out examples is chosen."""
    fitted = fit_logistic(problem(3), LogisticSettings(strengths=(1e-6, 10.0), folds=4), quiet)
    assert fitted.strength == 10.0


def test_one_action() -> None:
    """One action alone cannot be told apart from anything."""
    with pytest.raises(TrainingFailed, match="two different actions"):
        fit_logistic(problem(1), LogisticSettings(), quiet)
