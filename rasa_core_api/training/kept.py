"""What a trained model keeps of its training data, so that it can go on learning: `training_data.npz`.

The settings of its policies as JSON and, for those that learn from examples, the examples as numbers. No pickles.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from attrs import frozen

from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import TrainingFailed
from rasa_core_api.training.learners.network import Matrix

_FORMAT = 1


@frozen
class KeptPolicy:
    """A policy by its historical class name, its options, and its examples where it learns from such."""

    name: str
    options: Mapping[str, JSON]
    examples: Matrix | None = None


def write_kept(policies: Sequence[KeptPolicy]) -> bytes:
    """The file for the policies of a model, in their order. The same policies give the same bytes."""
    settings = {
        "format": _FORMAT,
        "policies": [{"name": policy.name, "options": dict(policy.options)} for policy in policies],
    }
    arrays: dict[str, Any] = {"settings": np.frombuffer(json.dumps(settings).encode("ascii"), np.uint8)}
    for number, policy in enumerate(policies):
        if policy.examples is not None:
            arrays[f"table_{number}"] = policy.examples.table
            arrays[f"inputs_{number}"] = policy.examples.inputs
            arrays[f"labels_{number}"] = policy.examples.labels.astype(np.int32)
    memory = io.BytesIO()
    np.savez_compressed(memory, **arrays)
    return memory.getvalue()


def read_kept(path: Path) -> list[KeptPolicy]:
    """The policies in a file. Raises `TrainingFailed` where it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            settings = json.loads(arrays["settings"].tobytes())
            if settings["format"] != _FORMAT:
                raise ValueError(f"format {settings['format']!r}")
            return [
                KeptPolicy(entry["name"], dict(entry["options"]), _examples(arrays, number))
                for number, entry in enumerate(settings["policies"])
            ]
    except FileNotFoundError:
        raise TrainingFailed("the model keeps no training data") from None
    except (OSError, ValueError, KeyError, TypeError, BadZipFile, EOFError) as error:
        raise TrainingFailed(f"{path}: the training data cannot be read: {error}") from error


def _examples(arrays: Any, number: int) -> Matrix | None:
    if f"table_{number}" not in arrays:
        return None
    table, inputs, labels = (arrays[f"{part}_{number}"] for part in ("table", "inputs", "labels"))
    shapes = table.ndim == inputs.ndim == 2 and labels.shape in (inputs.shape, inputs.shape[:1])
    if not shapes or table.dtype != np.float32 or inputs.dtype != np.int32 or labels.dtype != np.int32:
        raise ValueError("arrays of the wrong shape or type")
    if inputs.size and not -1 <= inputs.min() <= inputs.max() < len(table) - 1:
        raise ValueError("row numbers without a row")
    return Matrix(table, inputs, labels.astype(np.intp))
