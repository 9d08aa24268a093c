"""The network's gradients are right, and it computes what the served network computes."""

from __future__ import annotations

import numpy as np
import pytest

from rasa_core_api.training.learners.recurrent import Adam, RecurrentNetwork


@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("dropping", [False, True])
def test_gradients(every_step: bool, dropping: bool) -> None:
    """Gradients agree with central differences, with padding and with dropped inputs."""
    random = np.random.default_rng(3)
    steps, batch, features, units, actions = 5, 4, 6, 3, 7
    network = RecurrentNetwork(features, units, actions, np.float64)
    network.initialise(random)
    network.vector += random.normal(0, 0.1, network.vector.shape)
    inputs = random.normal(0, 1, (steps, batch, features))
    lengths = np.array([5, 3, 1, 4])
    if every_step:
        padded = np.arange(steps)[:, None] >= lengths
        labels = np.where(padded, -1, random.integers(0, actions, (steps, batch)))
    else:
        padded = np.arange(steps)[:, None] < steps - lengths
        labels = random.integers(0, actions, batch)
    drops = [random.integers(0, 2, (batch, features)) * 1.25 for _ in range(4)] if dropping else None
    gradient = np.full_like(network.vector, np.nan)
    network.loss(inputs, padded, labels, drops, gradient)
    assert np.isfinite(gradient).all()
    worst = 0.0
    for index in random.choice(len(network.vector), 120, replace=False):
        kept = network.vector[index]
        around = []
        for change in (1e-5, -1e-5):
            network.vector[index] = kept + change
            around.append(network.loss(inputs, padded, labels, drops)[0])
        network.vector[index] = kept
        worst = max(worst, abs((around[0] - around[1]) / 2e-5 - gradient[index]))
    assert worst < 1e-6


def test_learns() -> None:
    """A few hundred steps of the optimiser learn a rule of order: the label is the first input."""
    random = np.random.default_rng(1)
    labels = random.integers(0, 4, 64)
    inputs = np.zeros((3, 64, 4), np.float32)
    inputs[0, np.arange(64), labels] = 1
    inputs[1:] = random.integers(0, 2, (2, 64, 4))
    padded = np.zeros((3, 64), bool)
    network = RecurrentNetwork(4, 8, 4)
    network.initialise(random)
    optimiser, gradient = Adam(network.vector), np.empty_like(network.vector)
    for _ in range(300):
        network.loss(inputs, padded, labels, None, gradient)
        optimiser.step(gradient, 0.02)
    assert network.loss(inputs, padded, labels)[1] == 64
    assert (network.scores(inputs, padded).argmax(axis=1) == labels).all()
