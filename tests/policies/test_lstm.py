"""Tests of the recurrent network as a policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasa_core_api.events import Event, Form
from rasa_core_api.exceptions import UnreadableFile, UnsupportedModel
from rasa_core_api.featurizers import BinaryEncoder, TrackerFeaturizer
from rasa_core_api.legacy.keras_hdf5 import KerasLayer
from rasa_core_api.policies.lstm import KerasPolicy
from rasa_core_api.policies.network import Network, State
from rasa_core_api.policies.policy import LoadContext
from rasa_core_api.states import StateNode
from rasa_core_api.trackers import Tracker
from tests.legacy.keras_files import write_model, write_weights
from tests.policies.test_network import Maker, forward
from tests.samples import FORMLESS_LOGS, LOGS, action, domain, user

BOT = domain("0.14")
WIDTH, ACTIONS = len(BOT.states), len(BOT.action_names)
COLUMNS = {name: column for column, name in enumerate(BOT.states)}


def layers(sequences: bool = False, mask: bool = True) -> list[KerasLayer]:
    maker = Maker(4)
    maker.width = WIDTH
    if mask:
        maker.mask()
    maker.recurrent("LSTM", 4, return_sequences=sequences)
    return maker.dense(ACTIONS, "softmax", spread=sequences).layers


def policy_of(max_history: int | None, mask: bool = True) -> KerasPolicy:
    network = Network(layers(max_history is None, mask), "m.h5")
    return KerasPolicy(network, TrackerFeaturizer(BinaryEncoder(COLUMNS, WIDTH), max_history))


def matrix_of(tracker: Tracker, max_history: int | None) -> Any:
    states: list[StateNode | None] = []
    node = tracker.newest_state()
    while node is not None and len(states) != max_history:
        states.insert(0, node)
        node = node.previous
    while max_history is not None and len(states) < max_history:
        states.insert(0, None)
    rows = np.full((len(states), WIDTH), -1.0)
    for row, state in zip(rows, states, strict=True):
        if state is not None:
            row[:] = [state.entries.get(name, 0.0) for name in BOT.states]
    return rows


@settings(max_examples=60, deadline=None)
@given(LOGS, st.sampled_from([1, 3, 5]), st.booleans())
def test_window(log: list[Event], max_history: int, mask: bool) -> None:
    """The scores are those of the network on the matrix of the last states, padded in front."""
    policy = policy_of(max_history, mask)
    tracker = Tracker("u", BOT)
    for event in log:
        tracker.update(event)
        scores = policy.predict(tracker, BOT).to_list()
        if tracker.newest_state() is not None or not mask:
            expected = forward(matrix_of(tracker, max_history), layers(mask=mask))
            assert scores == pytest.approx(expected.tolist(), abs=2e-6)


@settings(max_examples=40, deadline=None)
@given(LOGS, st.lists(st.booleans(), min_size=40, max_size=40))
def test_whole_dialogue(log: list[Event], asks: list[bool]) -> None:
    """Whatever was predicted before, taken back or left out, all states count as if they were seen at once."""
    policy = policy_of(None)
    tracker = Tracker("u", BOT)
    for event, asked in zip(log, asks, strict=False):
        tracker.update(event)
        if asked:
            policy.predict(tracker, BOT)
    rows = matrix_of(tracker, None)
    if len(rows):
        expected = forward(rows, layers(True))
        assert policy.predict(tracker, BOT).to_list() == pytest.approx(expected.tolist(), abs=2e-6)


def turn(tracker: Tracker, number: int) -> None:
    names = ["greet", "bye", "inform"]
    tracker.extend([action("action_listen"), user(names[number % 3]), action(f"utter_{['hi', 'bye'][number % 2]}")])


class Counting:
    """Counts the steps of a network."""

    def __init__(self, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps = 0
        self._step = network.step
        monkeypatch.setattr(network, "step", self)

    def __call__(self, projection: Any, state: State | None) -> State:
        self.steps += 1
        return self._step(projection, state)

    def take(self) -> int:
        taken, self.steps = self.steps, 0
        return taken


def test_long_dialogue(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn computes its new states alone; after a long silence of the policy it goes on from a state near by."""
    policy = policy_of(None)
    counting = Counting(policy.network, monkeypatch)
    tracker = Tracker("u", BOT)
    for number in range(500):
        turn(tracker, number)
    policy.predict(tracker, BOT)
    assert counting.take() == 1001
    for number in range(100):
        turn(tracker, number)
        policy.predict(tracker, BOT)
    assert counting.take() == 200
    for number in range(100):
        turn(tracker, number)
    policy.predict(tracker, BOT)
    assert counting.take() == 200 + 1201 % 64  # back to the last state that is a multiple of 64
    policy.predict(tracker, BOT)
    assert counting.take() == 0


def test_old_states_stay_small() -> None:
    """States that were only passed keep nothing but, now and then, what the network carried."""
    policy = policy_of(None)
    tracker = Tracker("u", BOT)
    for number in range(300):
        turn(tracker, number)
    policy.predict(tracker, BOT)
    node = tracker.newest_state()
    warm = kept = 0
    while node is not None:
        warm += node._cache is not None or node._entries is not None
        kept += node.kept is not None
        node = node.previous
    assert warm == 24
    assert kept == 601 // 64


@settings(max_examples=20, deadline=None)
@given(st.lists(FORMLESS_LOGS, min_size=2, max_size=6))
def test_memory_of_windows(logs: list[list[Event]]) -> None:
    """A policy that has seen many conversations says the same as a new one."""
    seasoned = policy_of(3)
    for log in logs:
        tracker = Tracker("u", BOT)
        for event in log:
            tracker.update(event)
            assert seasoned.predict(tracker, BOT).to_list() == policy_of(3).predict(tracker, BOT).to_list()


def test_no_state_at_all() -> None:
    """A conversation without any state is scored from what the network knows at its beginning."""
    tracker = Tracker("u", BOT)
    tracker.update(Form(name="f", timestamp=1.0))
    assert tracker.newest_state() is None
    for policy in (policy_of(None), policy_of(3)):
        assert sum(policy.predict(tracker, BOT).to_list()) == pytest.approx(1.0)


# --- loading -----------------------------------------------------------------------------------------


def keras_json(some: list[KerasLayer]) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    config = [{"class_name": layer.kind, "config": layer.config} for layer in some]
    weights = {
        layer.name: {f"{layer.name}/{name}:0": numbers for name, numbers in layer.weights.items()} for layer in some
    }
    return config, weights


def write(directory: Path, parts: bool = False, max_history: int = 3, **changes: Any) -> Path:
    directory.mkdir(exist_ok=True)
    config, weights = keras_json(layers())
    if parts:
        (directory / "keras_arch.json").write_text(json.dumps({"class_name": "Sequential", "config": config}))
        write_weights(directory / "keras_weights.h5", weights)
        settings: dict[str, Any] = {"arch": "keras_arch.json", "weights": "keras_weights.h5", "epochs": 100}
    else:
        write_model(directory / "keras_model.h5", config, weights)
        settings = {"model": "keras_model.h5", "epochs": 100}
    (directory / "keras_policy.json").write_text(json.dumps({**settings, **changes}))
    binary = {
        "py/object": "rasa_core.featurizers.BinarySingleStateFeaturizer",
        "num_features": WIDTH,
        "input_state_map": COLUMNS,
    }
    featurizer = {
        "py/object": "rasa_core.featurizers.MaxHistoryTrackerFeaturizer",
        "max_history": max_history,
        "state_featurizer": binary,
        "use_intent_probabilities": False,
    }
    (directory / "featurizer.json").write_text(json.dumps(featurizer))
    return directory


CONTEXT = LoadContext(domain=BOT)


@pytest.mark.parametrize("parts", [False, True])
def test_loading(tmp_path: Path, parts: bool) -> None:
    """Both ways of keeping the network give the same policy."""
    policy = KerasPolicy.load(write(tmp_path, parts, priority=5), CONTEXT)
    tracker = Tracker("u", BOT)
    turn(tracker, 1)
    assert policy.predict(tracker, BOT).to_list() == policy_of(3).predict(tracker, BOT).to_list()
    assert (policy.priority, policy.ceiling, policy.costly) == (5, 1.0, True)
    assert KerasPolicy.load(write(tmp_path, parts), CONTEXT).priority == 1


@pytest.mark.parametrize("name", ["../other/keras_model.h5", "/etc/passwd", "..", "", "a\\b", None, 3])
def test_file_elsewhere(tmp_path: Path, name: Any) -> None:
    """A file outside of the policy's directory is not opened."""
    with pytest.raises(UnsupportedModel, match=r"keras_policy\.json: 'model' is .*expected the name of a file"):
        KerasPolicy.load(write(tmp_path, model=name), CONTEXT)


@pytest.mark.parametrize("missing", ["keras_policy.json", "keras_model.h5", "featurizer.json"])
def test_missing_file(tmp_path: Path, missing: str) -> None:
    """A network needs all of its files; the one that is missing is named."""
    (write(tmp_path) / missing).unlink()
    with pytest.raises(UnsupportedModel, match=missing.replace(".", r"\.")):
        KerasPolicy.load(tmp_path, CONTEXT)


def test_other_domain(tmp_path: Path) -> None:
    """A network that does not fit domain or featurizer is refused with both numbers."""
    write(tmp_path)
    with pytest.raises(UnsupportedModel, match=f"scores {ACTIONS} actions, the domain has {ACTIONS - 4}"):
        KerasPolicy.load(tmp_path, LoadContext(domain=domain("0.12")))
    featurizer = json.loads((tmp_path / "featurizer.json").read_text())
    featurizer["state_featurizer"]["num_features"] = WIDTH + 1
    (tmp_path / "featurizer.json").write_text(json.dumps(featurizer))
    with pytest.raises(UnsupportedModel, match=f"takes {WIDTH} features, the featurizer gives {WIDTH + 1}"):
        KerasPolicy.load(tmp_path, CONTEXT)
    featurizer["state_featurizer"] = None
    (tmp_path / "featurizer.json").write_text(json.dumps(featurizer))
    with pytest.raises(UnsupportedModel, match=r"featurizer\.json: it does not encode states"):
        KerasPolicy.load(tmp_path, CONTEXT)


def test_damaged_network(tmp_path: Path) -> None:
    """A damaged network is named."""
    (write(tmp_path) / "keras_model.h5").write_bytes(b"nothing")
    with pytest.raises(UnreadableFile, match=r"keras_model\.h5"):
        KerasPolicy.load(tmp_path, CONTEXT)
