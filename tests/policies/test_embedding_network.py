"""The network of EmbeddingPolicy, state by state, equals its description."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rasa_core_api.policies.embedding_network import EmbeddingNetwork, NotServed, State
from tests.policies.embedding_samples import CELL, WRAPPER, random_values, reference

USER, SLOTS, BOT = 4, 3, 4
ACTIONS = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0], [1, 0, 0, 1], [0, 0, 0, 1]], np.float32)
LISTEN = 1


def network(seed: int, **keys: Any) -> EmbeddingNetwork:
    values, bias = random_values(seed, USER, SLOTS, BOT, **keys)
    return EmbeddingNetwork(values, bias, user_width=USER, slot_width=SLOTS, actions=ACTIONS, listen=LISTEN)


def dialogue(seed: int, length: int) -> np.ndarray:
    """Random rows: some without a user, some after no action, many after listening."""
    random = np.random.default_rng(seed)
    rows = np.zeros((length, USER + SLOTS + BOT), np.float32)
    for row in rows:
        if random.random() < 0.7:
            row[:USER] = random.integers(0, 2, USER)
        row[USER : USER + SLOTS] = random.integers(0, 2, SLOTS)
        if random.random() < 0.9:
            row[USER + SLOTS :] = ACTIONS[random.integers(len(ACTIONS))]
    return rows


def sparse(row: np.ndarray) -> dict[int, float]:
    return {int(column): float(row[column]) for column in np.flatnonzero(row)}


def scores(net: EmbeddingNetwork, rows: np.ndarray) -> list[float]:
    state: State | None = None
    for row in rows:
        state = net.step(state, net.project(sparse(row)))
    assert state is not None
    return net.output(state)


@pytest.mark.parametrize("keys", [{}, {"hidden": (7, 5)}, {"shared": True}, {"reach": 0}, {"reach": 5}, {"units": 9}])
@pytest.mark.parametrize("copying", [0.05, 1.0])
def test_forward_pass(keys: dict[str, Any], copying: float) -> None:
    """Scores are those of the reference after every number of states, whether actions are copied or not."""
    copied = 0
    for seed in range(4):
        values, bias = random_values(seed, USER, SLOTS, BOT, copying=copying, **keys)
        net = network(seed, copying=copying, **keys)
        for length in (1, 2, 3, 7, 20):
            rows = dialogue(100 * seed + length, length)
            expected, count = reference(values, bias, rows, USER, SLOTS, ACTIONS, LISTEN)
            assert scores(net, rows) == pytest.approx(expected, abs=1e-4)
            copied += count
    assert copied > 10 or copying == 1.0


def test_branches() -> None:
    """A state may be gone on from more than once; each way gives what it would give alone."""
    net = network(2)
    rows = dialogue(5, 40)
    seen = [net.project(sparse(row)) for row in rows]
    states: list[State] = []
    state: State | None = None
    for item in seen:
        state = net.step(state, item)
        states.append(state)
    for branch in (3, 17, 16, 30):
        other = states[branch]
        for item in seen[5:9]:
            other = net.step(other, item)
        alone: State | None = None
        for item in [*seen[: branch + 1], *seen[5:9]]:
            alone = net.step(alone, item)
        assert alone is not None
        assert net.output(other) == pytest.approx(net.output(alone), abs=1e-6)
    again: State | None = states[20]
    for item in seen[21:]:
        again = net.step(again, item)
    assert again is not None
    assert net.output(again) == net.output(states[-1])


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("embed_layer_slt/kernel", np.zeros((9, 6)), ValueError),
        ("embed_layer_b/kernel", np.zeros((4, 5)), ValueError),
        ("embed_layer_a/kernel", np.zeros((9, 6)), ValueError),
        ("memory_layer/kernel", np.zeros((6, 5)), ValueError),
        (f"{WRAPPER}timed_ntm_1/shift_weight/kernel", np.zeros((12, 4)), ValueError),
        (f"{WRAPPER}timed_ntm_1/shift_weight/bias", np.zeros(4), ValueError),
        (f"{CELL}kernel", np.zeros((18, 21)), ValueError),
        (f"{CELL}forget/gamma", np.full(5, np.nan), ValueError),
        (f"{CELL}out_layer/kernel", None, NotServed),
        (f"{CELL}kernel", None, NotServed),
        ("memory_layer_1/kernel", None, NotServed),
    ],
)
def test_misfits(name: str, value: np.ndarray | None, error: type[ValueError]) -> None:
    """Variables that are missing, of another shape or no numbers are refused, by name where it helps."""
    values, bias = random_values(1, USER, SLOTS, BOT)
    if value is None:
        del values[name]
    else:
        values[name] = value
    with pytest.raises(error):
        EmbeddingNetwork(values, bias, user_width=USER, slot_width=SLOTS, actions=ACTIONS, listen=LISTEN)


def test_gate_biases() -> None:
    """Gate biases of another size are refused."""
    values, bias = random_values(1, USER, SLOTS, BOT)
    with pytest.raises(ValueError, match="gate biases"):
        EmbeddingNetwork(values, bias[:-1], user_width=USER, slot_width=SLOTS, actions=ACTIONS, listen=LISTEN)
