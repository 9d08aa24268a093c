"""Logistic regression over the last states, as scikit-learn 0.19 and 0.20 trained it.

One against the rest: p[k] = sigmoid(x @ coef[k] + intercept[k]), divided by the sum; with two classes one row decides.
Multinomial: softmax of the same sums. `x` are the rows of the window one behind the other, oldest first.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasa_core_api.featurizers import TrackerFeaturizer
from rasa_core_api.legacy import FAILURES, Damage, read_bounded
from rasa_core_api.legacy.arrays import array_of, list_of, plain_of
from rasa_core_api.legacy.pickles import MAX_SIZE, attribute, class_name, load_inert, mapping_of
from rasa_core_api.policies.files import read_encoding_featurizer, read_json, read_priority, unsupported
from rasa_core_api.policies.policy import LoadContext
from rasa_core_api.policies.rows import Row, RowPolicy

Matrix = NDArray[np.float64]

#: The exponential of this is still a number.
_LARGEST = 700.0


class LogisticRegression:
    """A fitted classifier.

    `coefficients` has one row a class (one in all for two classes) and one column a feature. Raises ValueError
    where the shapes do not fit.
    """

    def __init__(self, coefficients: Matrix, intercepts: Matrix, classes: int, multinomial: bool, paired: bool) -> None:
        rows = 1 if classes == 2 else classes
        if coefficients.ndim != 2 or coefficients.shape[0] != rows or classes < 2:
            raise ValueError(f"{classes} classes do not go with coefficients of the shape {coefficients.shape}")
        if intercepts.shape not in ((rows,), (1,)):
            raise ValueError(f"{classes} classes do not go with intercepts of the shape {intercepts.shape}")
        if not (np.isfinite(coefficients).all() and np.isfinite(intercepts).all()):
            raise ValueError("a coefficient is not a finite number")
        self.coefficients = coefficients
        self.intercepts = np.broadcast_to(intercepts, (rows,))
        self.classes = classes
        self._softmax = multinomial and (classes > 2 or paired)

    def probabilities(self, sums: Matrix) -> Matrix:
        """The probability of each class, given x @ coefficients.T + intercepts."""
        if self._softmax:
            both = np.concatenate([-sums, sums]) if self.classes == 2 else sums
            powers = np.exp(both - both.max())
            return np.asarray(powers / powers.sum())
        chances = 1.0 / (1.0 + np.exp(np.minimum(-sums, _LARGEST)))
        if self.classes == 2:
            return np.array([1.0 - chances[0], chances[0]])
        return np.asarray(chances / chances.sum())


def read_regression(path: Path) -> tuple[LogisticRegression, list[int]]:
    """The classifier in a policy's pickle, and the action index of each of its classes.

    Nothing in the pickle is called. Raises `UnsupportedModel` naming the file and what else it holds.
    """
    content = load_inert(read_bounded(path, MAX_SIZE), str(path))
    try:
        parts = mapping_of(content)
        model = parts["model"]
        if class_name(model) != "LogisticRegression":
            kind = class_name(model) or type(model).__name__
            raise unsupported(path, f"holds a {kind}, only a LogisticRegression can be served")
        indices = [index for index in list_of(attribute(parts["label_encoder"], "classes_")) if isinstance(index, int)]
        regression = LogisticRegression(
            array_of(attribute(model, "coef_")).astype(np.float64),
            array_of(attribute(model, "intercept_")).astype(np.float64),
            len(indices),
            _is_multinomial(model, len(indices)),
            _pairs_two_classes(model),
        )
    except FAILURES as error:
        reason = str(error) if isinstance(error, (Damage, ValueError)) else "its parts are not those of a policy"
        raise unsupported(path, reason) from error
    return regression, indices


def read_arrays(path: Path) -> tuple[LogisticRegression, list[int]]:
    """The classifier that our own training writes: arrays `coef`, `intercept` and `classes`, one against the rest.

    Raises `UnsupportedModel` naming the file.
    """
    raw = read_bounded(path, MAX_SIZE)
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
            indices = [int(index) for index in arrays["classes"]]
            coefficients, intercepts = (arrays[name].astype(np.float64) for name in ("coef", "intercept"))
        return LogisticRegression(coefficients, intercepts, len(indices), False, False), indices
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise unsupported(path, f"not the arrays of a classifier ({error})") from error


def _is_multinomial(model: Any, classes: int) -> bool:
    way = plain_of(attribute(model, "multi_class"))
    if way in ("ovr", "warn"):
        return False
    if way == "multinomial":
        return True
    if way == "auto":
        return classes > 2 and plain_of(attribute(model, "solver")) != "liblinear"
    raise Damage(f"the way {way!r} of telling classes apart is unknown")


def _pairs_two_classes(model: Any) -> bool:
    """Whether two multinomial classes are scored -s and s (scikit-learn 0.20 and later) and not 0 and s."""
    try:
        version = str(plain_of(attribute(model, "_sklearn_version"))).split(".")
    except KeyError:
        return False
    return [int(part) for part in version[:2] if part.isdigit()] >= [0, 20]


class SklearnPolicy(RowPolicy[Matrix]):
    """Scores of a logistic regression. A row's projection is its share of the sums, at each place in the window."""

    name = "SklearnPolicy"
    ceiling = 1.0

    def __init__(
        self,
        regression: LogisticRegression,
        indices: Sequence[int],
        actions: int,
        featurizer: TrackerFeaturizer,
        priority: int | None = None,
    ) -> None:
        super().__init__(featurizer, priority)
        assert featurizer.encoder is not None and featurizer.max_history is not None
        self.regression = regression
        self._indices = indices
        self._actions = actions
        history, width = featurizer.max_history, featurizer.encoder.width
        rows = regression.coefficients.shape[0]
        self._shape = (history, rows)
        # one column for each place and class
        places = regression.coefficients.reshape(rows, history, width).transpose(2, 1, 0)
        self._kernel = np.ascontiguousarray(places.reshape(width, history * rows))
        self._padding = -self._kernel.sum(axis=0).reshape(self._shape)

    @classmethod
    def load(cls, directory: Path, context: LoadContext) -> SklearnPolicy:
        path = directory / "sklearn_model.npz"
        if path.exists():
            regression, indices = read_arrays(path)
        else:
            path = directory / "sklearn_model.pkl"
            regression, indices = read_regression(path)
        featurizer, encoder = read_encoding_featurizer(directory, context)
        if featurizer.max_history is None:
            raise unsupported(directory / "featurizer.json", "a classifier needs a featurizer with a max_history")
        features = featurizer.max_history * encoder.width
        if regression.coefficients.shape[1] != features:
            taken = regression.coefficients.shape[1]
            raise unsupported(path, f"takes {taken} features, the featurizer gives {features}")
        actions = len(context.domain.action_names)
        if not all(0 <= index < actions for index in indices) or len(set(indices)) < len(indices):
            raise unsupported(path, f"its classes are not numbers of the domain's {actions} actions")
        config = read_json(directory / "sklearn_policy.json") or {}
        return cls(regression, indices, actions, featurizer, read_priority(config))

    def project(self, features: Mapping[int, float]) -> Matrix:
        values = np.array(list(features.values()), np.float64)
        share: Matrix = values.dot(self._kernel.take(list(features), axis=0))
        return share.reshape(self._shape)

    def score(self, rows: tuple[Row[Matrix] | None, ...]) -> list[float]:
        sums = self.regression.intercepts.copy()
        for place, row in enumerate(rows):
            sums += (self._padding if row is None else row.projection)[place]
        scores = [0.0] * self._actions
        for index, probability in zip(self._indices, self.regression.probabilities(sums).tolist(), strict=True):
            scores[index] = probability
        return scores
