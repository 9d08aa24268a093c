"""Random networks of EmbeddingPolicy, and their forward pass straight from its description."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

WRAPPER = "rnn_decoder/time_attention_wrapper/"
CELL = WRAPPER + "chrono_bias_layer_norm_basic_lstm_cell/"


def random_values(
    seed: int,
    user: int,
    slots: int,
    bot: int,
    *,
    size: int = 6,
    units: int = 5,
    reach: int = 2,
    hidden: tuple[int, ...] = (),
    shared: bool = False,
    copying: float = 0.2,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Variables by name, and the gate biases. A small `copying` makes the network lean on earlier actions."""
    random = np.random.default_rng(seed)
    values: dict[str, np.ndarray] = {}

    def weights(name: str, *shape: int, scale: float = 0.7) -> None:
        values[name] = (random.normal(size=shape) * scale).astype(np.float32)

    def layers(side: str, inputs: int) -> None:
        widths = [inputs, *hidden, size]
        for number, (before, after) in enumerate(pairwise(widths)):
            name = f"embed_layer_{side}" if number == len(hidden) else f"hidden_layer_{side}_{number}"
            weights(f"{name}/kernel", before, after)
            weights(f"{name}/bias", after, scale=0.1)

    if shared:
        layers("a_and_b", user)
    else:
        layers("a", user)
        layers("b", bot)
    weights("embed_layer_slt/kernel", slots, size)
    weights("embed_layer_slt/bias", size)
    for mechanism, suffix in enumerate(("", "_1")):
        weights(f"memory_layer{suffix}/kernel", size, size)
        attention = f"{WRAPPER}bahdanau_attention{suffix}/"
        weights(f"{attention}attention_b", size)
        weights(f"{attention}attention_v", size)
        weights(f"{attention}attention_g", scale=2.0)
        weights(f"{attention}query_layer/kernel", 2 * size, size)
        gate = f"{WRAPPER}timed_ntm_{mechanism}/"
        for part in ("inter_gate", "gamma_sharp"):
            weights(f"{gate}{part}/kernel", 2 * size, 1)
            weights(f"{gate}{part}/bias", 1)
    weights(f"{WRAPPER}timed_ntm_1/shift_weight/kernel", 2 * size, 2 * reach + 1)
    weights(f"{WRAPPER}timed_ntm_1/shift_weight/bias", 2 * reach + 1)
    weights(f"{CELL}kernel", 3 * size, 4 * units)
    for name in ("input", "transform", "forget", "output"):
        weights(f"{CELL}{name}/gamma", units)
        weights(f"{CELL}{name}/beta", units)
    weights(f"{CELL}out_layer/kernel", units, size, scale=copying)
    weights(f"{CELL}out_layer/bias", size, scale=copying)
    return values, random.normal(size=units).astype(np.float32)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12))


def reference(
    variables: dict[str, np.ndarray],
    bias: np.ndarray,
    rows: np.ndarray,
    user_width: int,
    slot_width: int,
    actions: np.ndarray,
    listen: int,
) -> tuple[list[float], int]:
    """Scores after the last row, in double precision and with explicit loops; and how often an action was copied."""
    v = {name: value.astype(np.float64) for name, value in variables.items()}

    def embed(x: np.ndarray, side: str) -> np.ndarray:
        if "embed_layer_a_and_b/kernel" in v:
            side = "a_and_b"
        number = 0
        x = np.maximum(x, 0)
        while f"hidden_layer_{side}_{number}/kernel" in v:
            x = np.maximum(x @ v[f"hidden_layer_{side}_{number}/kernel"] + v[f"hidden_layer_{side}_{number}/bias"], 0)
            number += 1
        return x @ v[f"embed_layer_{side}/kernel"] + v[f"embed_layer_{side}/bias"]

    X, S, P = np.split(rows.astype(np.float64), (user_width, user_width + slot_width), axis=1)
    U, V, L = embed(X, "a"), embed(P, "b"), S @ v["embed_layer_slt/kernel"] + v["embed_layer_slt/bias"]
    points = embed(actions.astype(np.float64), "b")
    memories = (U, V)
    ignored = (
        [not x.any() for x in X],
        [not p.any() or (p == actions[listen]).all() for p in P],
    )
    units, size = v[f"{CELL}out_layer/kernel"].shape
    c, h, mask = np.zeros(units), np.zeros(size), np.zeros(0)
    old = [np.zeros(0), np.zeros(0)]
    cells: list[np.ndarray] = []
    outputs: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    copied = 0
    y = np.zeros(size)
    for t in range(len(rows)):
        cells.append(c)
        outputs.append(h)
        masks.append(mask)
        q = np.concatenate((U[t], h))
        attention = []
        for m, suffix in enumerate(("", "_1")):
            name = f"{WRAPPER}bahdanau_attention{suffix}/"
            gate = f"{WRAPPER}timed_ntm_{m}/"
            direction = v[f"{name}attention_g"] * v[f"{name}attention_v"] / np.linalg.norm(v[f"{name}attention_v"])
            asked = q @ v[f"{name}query_layer/kernel"] + v[f"{name}attention_b"]
            score = np.array(
                [direction @ np.tanh(memories[m][j] @ v[f"memory_layer{suffix}/kernel"] + asked) for j in range(t + 1)]
            )
            inter = sigmoid(q @ v[f"{gate}inter_gate/kernel"] + v[f"{gate}inter_gate/bias"])[0]
            for j in range(t):
                score[j] = inter * score[j] + (1 - inter) * old[m][j]
            old[m] = score
            kept = [j for j in range(t) if mask[j] == 1 and not ignored[m][j]] + [t]
            powers = np.exp(score[kept] - score[kept].max())
            p = np.zeros(t + 1)
            if m == 0:
                p[kept] = powers / powers.sum()
            else:
                line = np.concatenate((np.zeros(t + 1 - len(kept)), powers / powers.sum()))[::-1]
                weights = np.exp(q @ v[f"{gate}shift_weight/kernel"] + v[f"{gate}shift_weight/bias"])
                weights /= weights.sum()
                reach = len(weights) // 2
                moved = np.array([
                    sum(weights[k] * line[i + k - reach] for k in range(len(weights)) if 0 <= i + k - reach < len(line))
                    for i in range(len(line))
                ])[::-1]  # fmt: skip
                p[kept] = moved[-len(kept) :]
            sharp = np.log1p(np.exp(q @ v[f"{gate}gamma_sharp/kernel"] + v[f"{gate}gamma_sharp/bias"]))[0] + 1
            p = p**sharp
            attention.append(p / (p.sum() + 1e-32))
        context = [sum((attention[m][j] * memories[m][j] for j in range(t)), np.zeros(size)) for m in (0, 1)]
        z = np.concatenate((U[t] + context[0], L[t], h)) @ v[f"{CELL}kernel"]
        i, j_, f, o = (
            (gate - gate.mean()) / np.sqrt(gate.var() + 1e-12) * v[f"{CELL}{name}/gamma"] + v[f"{CELL}{name}/beta"]
            for gate, name in zip(np.split(z, 4), ("input", "transform", "forget", "output"), strict=True)
        )
        content = c * sigmoid(f + bias) + np.tanh(j_) * sigmoid(i - bias)
        y = (np.tanh(content) * sigmoid(o)) @ v[f"{CELL}out_layer/kernel"] + v[f"{CELL}out_layer/bias"] + context[1]
        choice = np.zeros(t)
        if t:
            highest = attention[1][:t].max()
            if highest > 0.1 and cosine(y, points[listen]) <= 0.5:
                choice = (attention[1][:t] == highest).astype(float)
                previous = choice @ V[:t] + (1 - choice.sum()) * y
                if cosine(y, previous) <= 0.5:
                    choice = np.zeros(t)
        copied += bool(choice.any())
        rest = 1 - choice.sum()
        mask = rest * np.append(mask, 1.0)
        for j in range(t):
            mask[:j] += choice[j] * masks[j]
        c = rest * content + sum((choice[j] * cells[j] for j in range(t)), np.zeros(units))
        h = rest * y + sum((choice[j] * outputs[j] for j in range(t)), np.zeros(size))
    return [max(0.0, cosine(y, point)) for point in points], copied
