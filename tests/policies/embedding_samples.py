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
    before: bool = True,
    after: bool = True,
    norm: bool = True,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Variables by name, and the gate biases. A small `copying` makes the network lean on earlier actions.

    `before` and `after` are attention to users and to the bot, `norm` is layer normalisation.
    """
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
    output = size if after else units
    cell = CELL if before or after else CELL.replace("time_attention_wrapper/", "")
    for mechanism, shifting in enumerate([False] * before + [True] * after):
        suffix = "_1" if mechanism else ""
        weights(f"memory_layer{suffix}/kernel", size, size)
        attention = f"{WRAPPER}bahdanau_attention{suffix}/"
        weights(f"{attention}attention_b", size)
        weights(f"{attention}attention_v", size)
        weights(f"{attention}attention_g", scale=2.0)
        weights(f"{attention}query_layer/kernel", size + output, size)
        gate = f"{WRAPPER}timed_ntm_{mechanism}/"
        for part in ("inter_gate", "gamma_sharp"):
            weights(f"{gate}{part}/kernel", size + output, 1)
            weights(f"{gate}{part}/bias", 1)
        if shifting:
            weights(f"{gate}shift_weight/kernel", size + output, 2 * reach + 1)
            weights(f"{gate}shift_weight/bias", 2 * reach + 1)
    weights(f"{cell}kernel", (2 if before or after else 3) * size + output, 4 * units)
    if norm:
        for name in ("input", "transform", "forget", "output"):
            weights(f"{cell}{name}/gamma", units)
            weights(f"{cell}{name}/beta", units)
    else:
        weights(f"{cell}bias", 4 * units)
    last = f"{cell}out_layer" if after else "embed_layer_out"
    weights(f"{last}/kernel", units, size, scale=copying)
    weights(f"{last}/bias", size, scale=copying)
    return values, random.normal(size=units).astype(np.float32)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12))


def sparsemax(scores: np.ndarray) -> np.ndarray:
    """The projection onto probabilities, by bisection of its threshold."""
    low, high = scores.max() - 1, scores.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(scores - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(scores - low, 0)


def reference(
    variables: dict[str, np.ndarray],
    bias: np.ndarray,
    rows: np.ndarray,
    user_width: int,
    slot_width: int,
    actions: np.ndarray,
    listen: int,
    *,
    alike: float = 0.5,
    inner: bool = False,
    sparse: bool = False,
) -> tuple[list[float], int]:
    """Scores after the last row, in double precision and with explicit loops; and how often an action was copied."""
    v = {name: value.astype(np.float64) for name, value in variables.items()}

    def similarity(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b) if inner else cosine(a, b)

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
    suffixes = [suffix for suffix in ("", "_1") if f"memory_layer{suffix}/kernel" in v]
    cell = CELL if suffixes else CELL.replace("time_attention_wrapper/", "")
    after = f"{cell}out_layer/kernel" in v
    # which memory each mechanism looks at: 0 what users said, 1 what the bot did
    looks = [1 if f"{WRAPPER}timed_ntm_{m}/shift_weight/kernel" in v else 0 for m in range(len(suffixes))]
    memories = (U, V)
    ignored = (
        [not x.any() for x in X],
        [not p.any() or (p == actions[listen]).all() for p in P],
    )
    size, units = U.shape[1], v[f"{cell}kernel"].shape[1] // 4
    c, h, mask = np.zeros(units), np.zeros(size if after else units), np.zeros(0)
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
        attention = {0: np.zeros(t + 1), 1: np.zeros(t + 1)}
        for m, (suffix, look) in enumerate(zip(suffixes, looks, strict=True)):
            name = f"{WRAPPER}bahdanau_attention{suffix}/"
            gate = f"{WRAPPER}timed_ntm_{m}/"
            direction = v[f"{name}attention_g"] * v[f"{name}attention_v"] / np.linalg.norm(v[f"{name}attention_v"])
            asked = q @ v[f"{name}query_layer/kernel"] + v[f"{name}attention_b"]
            memory = memories[look]
            score = np.array(
                [direction @ np.tanh(memory[j] @ v[f"memory_layer{suffix}/kernel"] + asked) for j in range(t + 1)]
            )
            inter = sigmoid(q @ v[f"{gate}inter_gate/kernel"] + v[f"{gate}inter_gate/bias"])[0]
            for j in range(t):
                score[j] = inter * score[j] + (1 - inter) * old[m][j]
            old[m] = score
            kept = [j for j in range(t) if mask[j] == 1 and not ignored[look][j]] + [t]
            if sparse:
                shares = sparsemax(score[kept])
            else:
                shares = np.exp(score[kept] - score[kept].max())
                shares /= shares.sum()
            p = np.zeros(t + 1)
            if look == 0:
                p[kept] = shares
            else:
                line = np.concatenate((np.zeros(t + 1 - len(kept)), shares))[::-1]
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
            attention[look] = p / (p.sum() + 1e-32)
        context = [sum((attention[look][j] * memories[look][j] for j in range(t)), np.zeros(size)) for look in (0, 1)]
        inputs = [U[t] + context[0], L[t], *([] if suffixes else [V[t]]), h]
        z = np.concatenate(inputs) @ v[f"{cell}kernel"] + v.get(f"{cell}bias", 0.0)
        gates = np.split(z, 4)
        if f"{cell}bias" not in v:
            for number, name in enumerate(("input", "transform", "forget", "output")):
                gate = (gates[number] - gates[number].mean()) / np.sqrt(gates[number].var() + 1e-12)
                gates[number] = gate * v[f"{cell}{name}/gamma"] + v[f"{cell}{name}/beta"]
        entering, candidate, kept_gate, shown = gates
        content = c * sigmoid(kept_gate + bias) + np.tanh(candidate) * sigmoid(entering - bias)
        output = np.tanh(content) * sigmoid(shown)
        if not after:
            y = output @ v["embed_layer_out/kernel"] + v["embed_layer_out/bias"]
            c, h, mask = content, output, np.append(mask, 1.0)
            continue
        y = output @ v[f"{cell}out_layer/kernel"] + v[f"{cell}out_layer/bias"] + context[1]
        choice = np.zeros(t)
        if t:
            highest = attention[1][:t].max()
            # below the limit nothing equals it; but if it is 0, every earlier state that nobody looks at does
            choice = (attention[1][:t] == (highest if highest > 0.1 else -highest)).astype(float)
            previous = choice @ V[:t] + (1 - choice.sum()) * y
            if similarity(y, points[listen]) > alike or similarity(y, previous) <= alike:
                choice = np.zeros(t)
        copied += bool(choice.any())
        rest = 1 - choice.sum()
        mask = rest * np.append(mask, 1.0)
        for j in range(t):
            mask[:j] += choice[j] * masks[j]
        c = rest * content + sum((choice[j] * cells[j] for j in range(t)), np.zeros(units))
        h = rest * y + sum((choice[j] * outputs[j] for j in range(t)), np.zeros(size))
    return [max(0.0, similarity(y, point)) for point in points], copied
