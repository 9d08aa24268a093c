"""The network learns stories, and predicts in our server what it predicted while it was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rasa_core_api.exceptions import TrainingFailed
from rasa_core_api.featurizers import featurizer_from_json
from rasa_core_api.legacy.keras_hdf5 import read_model
from rasa_core_api.policies.network import Network
from rasa_core_api.training.examples import PADDING
from rasa_core_api.training.featurizing import FULL_DIALOGUE, LABEL_TOKENS, FeaturizerSettings
from rasa_core_api.training.generator import TrainingData
from rasa_core_api.training.learners.keras_file import keras_model
from rasa_core_api.training.learners.network import (
    Matrix,
    NetworkSettings,
    accuracy,
    dialogue_matrix,
    fit,
    schedule,
    window_matrix,
)
from tests.training.helpers import domain_of, generated

STORIES = """
## one
* a
- u1
* b
- u2
## two
* b
- u3
* a
- u4
## three
* c{"e": "v"}
- u1
- u2
"""


def quiet(share: float, what: str) -> None:
    pass


def matrix_of(data: TrainingData, settings: FeaturizerSettings) -> Matrix:
    encoder = featurizer_from_json(settings.as_json(data.domain, 9), data.domain).encoder
    assert encoder is not None
    history = settings.history
    return dialogue_matrix(data, encoder) if history is None else window_matrix(data, encoder, history)


@pytest.mark.parametrize("plain_layers", [False, True])
@pytest.mark.parametrize(
    "settings",
    [FeaturizerSettings(max_history=3), FeaturizerSettings(kind=FULL_DIALOGUE, encoder=LABEL_TOKENS)],
    ids=["windows", "dialogues"],
)
def test_learns_and_serves(settings: FeaturizerSettings, plain_layers: bool, tmp_path: Path) -> None:
    """Stories are learnt, and the written file predicts the same in the served network."""
    data = generated(STORIES, factor=0, history=None)
    matrix = matrix_of(data, settings)
    progressed: list[float] = []
    fitted = fit(
        matrix, len(data.domain.action_names), NetworkSettings(epochs=150), lambda share, what: progressed.append(share)
    )
    assert fitted.accuracy == 1.0 and progressed[-1] == 1.0 and progressed == sorted(progressed)
    path = tmp_path / "keras_model.h5"
    path.write_bytes(keras_model(fitted.network, settings.history, plain_layers=plain_layers))
    served = Network(read_model(path), str(path))
    for rows in matrix.inputs:
        rows = rows[rows != PADDING]
        state: Any = None
        for row in matrix.table[rows]:
            state = served.step(served.project(dict(enumerate(row.tolist()))), state)
        padded = np.zeros((len(rows), 1), bool)
        expected = fitted.network.scores(matrix.table[rows][:, None], padded)[0]
        assert np.abs(np.array(served.output(state)) - expected).max() < 1e-5


def test_repeatable() -> None:
    """The same seed gives the same network, another seed another one."""
    data = generated(STORIES)
    matrix = matrix_of(data, FeaturizerSettings(max_history=3))
    actions = len(data.domain.action_names)
    vectors = [
        fit(matrix, actions, NetworkSettings(epochs=2, random_seed=seed), quiet).network.vector for seed in (1, 1, 2)
    ]
    assert (vectors[0] == vectors[1]).all() and (vectors[0] != vectors[2]).any()


def test_validation() -> None:
    """A share can be held out; it is measured and not learnt."""
    data = generated(STORIES)
    matrix = matrix_of(data, FeaturizerSettings(max_history=3))
    fitted = fit(matrix, len(data.domain.action_names), NetworkSettings(epochs=5, validation_split=0.3), quiet)
    assert fitted.validation_accuracy is not None
    assert 0 <= accuracy(fitted.network, matrix) <= 1


def test_no_examples() -> None:
    """Stories without actions cannot be learnt."""
    data = generated("")
    matrix = matrix_of(data, FeaturizerSettings(max_history=2))
    with pytest.raises(TrainingFailed, match="no training examples"):
        fit(matrix, 3, NetworkSettings(), quiet)


def test_examples_as_often_as_they_occur() -> None:
    """Without `remove_duplicates` an example counts once for each dialogue that has it."""
    data = generated("## s\n* a\n- u1\n## t\n* a\n- u1\n* b\n- u2\n", history=2)
    encoder = featurizer_from_json(FeaturizerSettings(max_history=2).as_json(data.domain, 0), data.domain).encoder
    assert encoder is not None
    once, each = (window_matrix(data, encoder, 2, distinct) for distinct in (True, False))
    assert (len(once.inputs), len(each.inputs)) == (5, 8)


def test_schedule() -> None:
    """Options are obeyed; otherwise many examples get large batches and many steps a low rate."""
    assert schedule(NetworkSettings(batch_size=20, learning_rate=0.5), 10_000)[1:] == (20, 0.5)
    assert schedule(NetworkSettings(), 20)[:2] == (100, 4)
    _, batch, rate = schedule(NetworkSettings(epochs=100), 20_000)
    assert batch == 128 and 0.003 <= rate < 0.004
    assert schedule(NetworkSettings(epochs=10), 20_000)[2] == 0.01
    assert [schedule(NetworkSettings(), examples)[0] for examples in (2_000, 10_000, 20_000)] == [100, 51, 26]


def test_unknown_action() -> None:
    """Stories that run an action which the domain lacks cannot be learnt, and it is named."""
    with pytest.raises(TrainingFailed, match="u9"):
        matrix_of(generated("## s\n* a\n- u9\n"), FeaturizerSettings())
    assert "u9" not in domain_of().action_index
