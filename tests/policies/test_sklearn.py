"""Tests of the logistic regression, with pickles as scikit-learn writes them."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from rasa_core_api.events import Event
from rasa_core_api.exceptions import UnsupportedModel
from rasa_core_api.policies.policy import LoadContext
from rasa_core_api.policies.sklearn import LogisticRegression, SklearnPolicy, read_regression
from rasa_core_api.trackers import Tracker
from tests.policies.test_lstm import BOT, COLUMNS, WIDTH, matrix_of
from tests.samples import LOGS

HISTORY = 2
INDICES = [0, 3, 8]
RNG = np.random.default_rng(2)
COEFFICIENTS = RNG.normal(size=(3, HISTORY * WIDTH))
INTERCEPTS = RNG.normal(size=3)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def stand_in(module: str, name: str, attributes: dict[str, Any]) -> Any:
    """An object whose pickle says that it is of a class that is not installed here."""
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:length]), ModuleType(parts[length - 1]))
    kind = type(name, (), {"__module__": module})
    setattr(sys.modules[module], name, kind)
    made = kind()
    made.__dict__.update(attributes)
    return made


@contextmanager
def borrowed_modules() -> Iterator[None]:
    before = set(sys.modules)
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            del sys.modules[name]


def write(directory: Path, classes: int = 3, kind: str = "LogisticRegression", **attributes: Any) -> Path:
    rows = 1 if classes == 2 else classes
    defaults = {
        "coef_": np.asfortranarray(COEFFICIENTS[:rows]),
        "intercept_": INTERCEPTS[:rows],
        "classes_": np.arange(classes),
        "multi_class": "ovr",
        "solver": "liblinear",
        "_sklearn_version": "0.19.2",
    }
    with borrowed_modules():
        content = {
            "model": stand_in("sklearn.linear_model.logistic", kind, {**defaults, **attributes}),
            "cv": None,
            "param_grid": None,
            "scoring": "accuracy",
            "label_encoder": stand_in(
                "sklearn.preprocessing.label", "LabelEncoder", {"classes_": np.array(INDICES[:classes])}
            ),
        }
        (directory / "sklearn_model.pkl").write_bytes(pickle.dumps(content, protocol=3))
    featurizer = {
        "py/object": "rasa_core.featurizers.MaxHistoryTrackerFeaturizer",
        "max_history": HISTORY,
        "state_featurizer": {
            "py/object": "rasa_core.featurizers.BinarySingleStateFeaturizer",
            "num_features": WIDTH,
            "input_state_map": COLUMNS,
        },
    }
    (directory / "featurizer.json").write_text(json.dumps(featurizer))
    return directory


CONTEXT = LoadContext(domain=BOT)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> SklearnPolicy:
    return SklearnPolicy.load(write(tmp_path_factory.mktemp("sklearn")), CONTEXT)


def test_windows(policy: SklearnPolicy) -> None:
    """The scores are those of one classifier against the rest on the flattened window; other actions have none."""

    @settings(max_examples=60, deadline=None)
    @given(LOGS)
    def check(log: list[Event]) -> None:
        tracker = Tracker("u", BOT)
        tracker.extend(log)
        chances = sigmoid(COEFFICIENTS @ matrix_of(tracker, HISTORY).ravel() + INTERCEPTS)
        expected = np.zeros(len(BOT.action_names))
        expected[INDICES] = chances / chances.sum()
        assert policy.predict(tracker, BOT).to_list() == pytest.approx(expected.tolist(), abs=1e-12)

    check()
    assert (policy.priority, policy.ceiling, policy.costly) == (1, 1.0, True)


SUMS = np.array([0.3, -1.2, 2.0])


@pytest.mark.parametrize(
    ("way", "version", "classes", "expected"),
    [
        ("ovr", "0.19.2", 3, sigmoid(SUMS) / sigmoid(SUMS).sum()),
        ("warn", "0.20.4", 3, sigmoid(SUMS) / sigmoid(SUMS).sum()),
        ("auto", "0.20.4", 3, sigmoid(SUMS) / sigmoid(SUMS).sum()),
        ("multinomial", "0.19.2", 3, np.exp(SUMS) / np.exp(SUMS).sum()),
        ("ovr", "0.19.2", 2, [sigmoid(-0.3), sigmoid(0.3)]),
        ("multinomial", "0.19.2", 2, [sigmoid(-0.3), sigmoid(0.3)]),
        ("multinomial", "0.20.4", 2, [sigmoid(-0.6), sigmoid(0.6)]),
        ("auto", "0.20.4", 2, [sigmoid(-0.3), sigmoid(0.3)]),
    ],
)
def test_ways(tmp_path: Path, way: str, version: str, classes: int, expected: Any) -> None:
    """Each way of telling classes apart has its formula; two classes share one row."""
    regression, indices = read_regression(
        write(tmp_path, classes, multi_class=way, _sklearn_version=version) / "sklearn_model.pkl"
    )
    sums = SUMS[: len(regression.coefficients)]
    assert regression.probabilities(sums) == pytest.approx(np.array(expected))
    assert indices == INDICES[:classes]


def test_automatic_choice(tmp_path: Path) -> None:
    """Left to itself, a solver that can tell all classes apart at once does."""
    regression, _ = read_regression(write(tmp_path, multi_class="auto", solver="lbfgs") / "sklearn_model.pkl")
    assert regression.probabilities(SUMS) == pytest.approx(np.exp(SUMS) / np.exp(SUMS).sum())


def test_extreme_sums() -> None:
    """Large sums overflow nowhere."""
    for multinomial in (True, False):
        regression = LogisticRegression(np.ones((3, 1)), np.zeros(3), 3, multinomial, True)
        assert regression.probabilities(np.array([1e4, 0.0, -1e4])).sum() == pytest.approx(1.0)


def test_no_class_is_likely() -> None:
    """Where every class is very unlikely, their proportions still count."""
    regression = LogisticRegression(np.ones((3, 1)), np.zeros(3), 3, False, False)
    sums = np.array([-40.0, -41.0, -42.0])
    assert regression.probabilities(sums) == pytest.approx(np.exp(sums) / np.exp(sums).sum())


def test_priority(tmp_path: Path) -> None:
    """The priority of 0.14 lies in a file of its own."""
    write(tmp_path)
    (tmp_path / "sklearn_policy.json").write_text('{"priority": 6}')
    assert SklearnPolicy.load(tmp_path, CONTEXT).priority == 6


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": "RandomForestClassifier"}, "holds a RandomForestClassifier"),
        ({"multi_class": "crammer"}, "'crammer'"),
        ({"coef_": np.zeros((2, HISTORY * WIDTH))}, "3 classes do not go with coefficients"),
        ({"coef_": np.zeros((3, 7))}, f"takes 7 features, the featurizer gives {HISTORY * WIDTH}"),
        ({"coef_": np.full((3, HISTORY * WIDTH), np.nan)}, "not a finite number"),
        ({"coef_": "x"}, "array was expected"),
        ({"intercept_": np.zeros(2)}, "intercepts"),
    ],
)
def test_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    """What is not such a classifier is refused by the name of the file and the reason."""
    write(tmp_path, **changes)
    with pytest.raises(UnsupportedModel, match=reason) as caught:
        SklearnPolicy.load(tmp_path, CONTEXT)
    assert "sklearn_model.pkl" in str(caught.value)

