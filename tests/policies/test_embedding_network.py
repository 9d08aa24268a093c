"""The network of EmbeddingPolicy, state by state, equals its description."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rasa_core_api.policies.embedding_network import EmbeddingNetwork, State
from rasa_core_api.policies.embedding_weights import Facts, read_weights
from tests.policies.embedding_samples import random_values, reference

USER, SLOTS, BOT = 4, 3, 4
ACTIONS = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0], [1, 0, 0, 1], [0, 0, 0, 1]], np.float32)
LISTEN = 1


def network(seed: int, facts: dict[str, Any] | None = None, **keys: Any) -> EmbeddingNetwork:
    values, bias = random_values(seed, USER, SLOTS, BOT, **keys)
    told = Facts(bias, **(facts or {}))
    return EmbeddingNetwork(
        read_weights(values, told), told, user_width=USER, slot_width=SLOTS, actions=ACTIONS, listen=LISTEN
    )


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


@pytest.mark.parametrize(
    "keys",
    [
        {}, {"hidden": (7, 5)}, {"shared": True}, {"reach": 0}, {"reach": 5}, {"units": 9}, {"norm": False},
        {"before": False}, {"after": False}, {"before": False, "after": False}, {"after": False, "norm": False},
    ],
    ids=str,
)  # fmt: skip
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
    assert copied > 10 or copying == 1.0 or not keys.get("after", True)


@pytest.mark.parametrize(
    ("facts", "how"),
    [
        ({"alike": 0.8}, {"alike": 0.8}),
        ({"alike": -0.5}, {"alike": -0.5}),
        ({"cosine": False}, {"inner": True}),
        ({"sparse": True}, {"sparse": True}),
    ],
    ids=str,
)
def test_variants_that_the_graph_tells(facts: dict[str, Any], how: dict[str, Any]) -> None:
    """Another margin, inner products and sparse attention change the scores as the reference has them."""
    for seed in range(6):
        values, bias = random_values(seed, USER, SLOTS, BOT)
        for length in (2, 3, 9, 15):
            rows = dialogue(100 * seed + length, length)
            expected, _ = reference(values, bias, rows, USER, SLOTS, ACTIONS, LISTEN, **how)
            assert scores(network(seed, facts), rows) == pytest.approx(expected, abs=1e-4)


def test_nothing_to_look_back_at() -> None:
    """Where no earlier state may be looked at, the dialogue can go on from all of them at once."""
    chosen = 0
    for seed in range(30):
        values, bias = random_values(seed, USER, SLOTS, BOT, copying=1.0)
        rows = dialogue(seed, 5)
        rows[:, USER + SLOTS :] = 0
        expected, count = reference(values, bias, rows, USER, SLOTS, ACTIONS, LISTEN, alike=-0.1)
        assert scores(network(seed, {"alike": -0.1}, copying=1.0), rows) == pytest.approx(expected, abs=1e-4)
        chosen += count
    assert chosen > 5


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


def test_other_features() -> None:
    """A featurizer whose widths are not those of the network is refused."""
    values, bias = random_values(1, USER, SLOTS, BOT)
    facts = Facts(bias)
    with pytest.raises(ValueError, match="features of user, slots and bot"):
        EmbeddingNetwork(
            read_weights(values, facts), facts, user_width=USER + 1, slot_width=SLOTS, actions=ACTIONS, listen=LISTEN
        )
