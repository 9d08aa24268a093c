"""Reading the small files of a policy's directory."""

from __future__ import annotations

import json
from pathlib import Path

from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import UnsupportedModel
from rasa_core_api.featurizers import StateEncoder, TrackerFeaturizer, featurizer_from_json
from rasa_core_api.policies.policy import LoadContext

#: A JSON file of a policy may not be larger than this (bytes). A featurizer lists every state of the domain.
MAX_JSON = 64 * 1024 * 1024


def unsupported(path: Path, reason: str) -> UnsupportedModel:
    """The error for a file that cannot be served."""
    return UnsupportedModel(f"{path}: {reason}", file=path.name, reason=reason)


def read_json(path: Path) -> dict[str, JSON] | None:
    """The JSON object in a file, None where there is no such file. Raises `UnsupportedModel`."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_JSON + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unsupported(path, error.strerror or "cannot be read") from error
    if len(raw) > MAX_JSON:
        raise unsupported(path, f"larger than {MAX_JSON} bytes")
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise unsupported(path, f"not JSON ({error})") from error
    if not isinstance(data, dict):
        raise unsupported(path, "expected a JSON object")
    return data


def require_json(path: Path) -> dict[str, JSON]:
    """Like `read_json`, where the policy cannot do without the file."""
    data = read_json(path)
    if data is None:
        raise unsupported(path, "the file is missing")
    return data


def read_featurizer(directory: Path, context: LoadContext) -> TrackerFeaturizer:
    """The featurizer beside a policy's files. Raises `UnsupportedModel`."""
    path = directory / "featurizer.json"
    try:
        return featurizer_from_json(require_json(path), context.domain, context.max_history)
    except ValueError as error:
        raise unsupported(path, str(error)) from None


def read_encoding_featurizer(directory: Path, context: LoadContext) -> tuple[TrackerFeaturizer, StateEncoder]:
    """The featurizer of a policy that computes, and its encoder. Raises `UnsupportedModel` where it has none."""
    featurizer = read_featurizer(directory, context)
    if featurizer.encoder is None:
        raise unsupported(directory / "featurizer.json", "it does not encode states, which this policy needs")
    return featurizer, featurizer.encoder


def member(directory: Path, config: Path, data: dict[str, JSON], key: str) -> Path:
    """The file in `directory` that an entry of `config` names. Raises `UnsupportedModel` for any other place."""
    name = data.get(key)
    if not isinstance(name, str) or not name or name in (".", "..") or set(name) & set("/\\\0"):
        raise unsupported(config, f"{key!r} is {name!r}, expected the name of a file beside it")
    return directory / name


def read_priority(data: dict[str, JSON]) -> int | None:
    """The priority that 0.14 stores; None: the class's own."""
    priority = data.get("priority")
    return priority if type(priority) is int else None


def read_number(path: Path, data: dict[str, JSON], key: str, default: float) -> float:
    """A number of a policy's configuration. Raises `UnsupportedModel`."""
    value = data.get(key, default)
    if type(value) not in (int, float):
        raise unsupported(path, f"{key!r} is {value!r}, expected a number")
    return float(value)


def read_name(path: Path, data: dict[str, JSON], key: str, default: str) -> str:
    """A name in a policy's configuration. Raises `UnsupportedModel`."""
    value = data.get(key, default)
    if not isinstance(value, str):
        raise unsupported(path, f"{key!r} is {value!r}, expected a name")
    return value
