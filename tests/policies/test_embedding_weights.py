"""Weights of EmbeddingPolicy are checked as they are read, and the graph tells what they do not."""

from __future__ import annotations

import numpy as np
import pytest

from rasa_core_api.policies.embedding_weights import BOT, USER, Facts, facts_of, read_weights
from tests.policies.embedding_samples import CELL, WRAPPER, random_values

LOOP = "rnn_decoder/while/rnn_decoder/time_attention_wrapper/"
BIAS = np.array([0.5, -0.5], np.float32)
DRAWN = {f"{LOOP}time_attention_wrapper/chrono_bias_layer_norm_basic_lstm_cell/add/y": BIAS}


def test_facts() -> None:
    """Gate biases, margin, kind of similarity and of attention are seen in the constants of the graph."""
    plain = facts_of({**DRAWN, "l2_normalize/Maximum/y": np.array(1e-12)})
    assert (plain.alike, plain.cosine, plain.sparse) == (0.5, True, False)
    assert plain.bias.tolist() == [0.5, -0.5]
    odd = {
        **DRAWN,
        f"{LOOP}Greater_4/y": np.array(0.6),
        f"{LOOP}Greater_5/y": np.array(0.75),
        f"{LOOP}sparsemax/add/y": np.array(1.0),
        f"{LOOP}l2_normalize/Maximum/y": np.array(1e-12),
        f"gradients/{next(iter(DRAWN))}": BIAS,
    }
    told = facts_of(odd)
    assert (told.alike, told.cosine, told.sparse) == (0.75, False, True)
    with pytest.raises(ValueError, match="0 constants with gate biases"):
        facts_of({})
    with pytest.raises(ValueError, match="2 constants with gate biases"):
        facts_of({**DRAWN, "a/chrono_bias_layer_norm_basic_lstm_cell/add/y": BIAS})


def test_kinds_of_attention() -> None:
    """Which kinds of attention there are follows from the variables."""
    for before, after in ((True, True), (True, False), (False, True), (False, False)):
        values, bias = random_values(0, 4, 3, 5, before=before, after=after)
        weights = read_weights(values, Facts(bias))
        assert [kind.memory for kind in weights.mechanisms] == [USER] * before + [BOT] * after
        assert (weights.last is None) == after
        assert weights.output == (6 if after else 5)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("embed_layer_slt/kernel", np.zeros((3, 7)), "embed_layer_slt"),
        ("embed_layer_b/kernel", np.zeros((4, 5)), "embed_layer_b/bias"),
        ("hidden_layer_a_0/kernel", np.zeros((4, 3)), "hidden_layer_a_0/bias"),
        ("memory_layer/kernel", np.zeros((6, 5)), "memory_layer/kernel"),
        (f"{WRAPPER}timed_ntm_1/shift_weight/kernel", np.zeros((12, 4)), "even"),
        (f"{WRAPPER}timed_ntm_1/shift_weight/kernel", None, "kinds of attention"),
        (f"{WRAPPER}timed_ntm_1/shift_weight/bias", np.zeros(4), "shift_weight/bias"),
        (f"{WRAPPER}bahdanau_attention/attention_g", None, "attention_g"),
        (f"{CELL}kernel", np.zeros((18, 21)), "kernel"),
        (f"{CELL}kernel", None, "kernel is missing"),
        (f"{CELL}forget/gamma", np.full(5, np.nan), "no numbers"),
        (f"{CELL}out_layer/kernel", None, "out_layer/kernel is missing"),
        ("memory_layer_1/kernel", None, "kinds of attention"),
        ("embed_layer_a/kernel", None, "embed_layer_a/kernel is missing"),
    ],
)
def test_misfits(name: str, value: np.ndarray | None, reason: str) -> None:
    """A variable that is missing, of another shape or no number is named."""
    values, bias = random_values(1, 4, 3, 5)
    if value is None:
        del values[name]
    else:
        values[name] = value
    if name == f"{WRAPPER}timed_ntm_1/shift_weight/kernel" and value is not None:
        values[f"{WRAPPER}timed_ntm_1/shift_weight/bias"] = np.zeros(4)
    with pytest.raises(ValueError, match=reason):
        read_weights(values, Facts(bias))


def test_gate_biases() -> None:
    """Gate biases of another size are refused."""
    values, bias = random_values(1, 4, 3, 5)
    with pytest.raises(ValueError, match="gate biases"):
        read_weights(values, Facts(bias[:-1]))
