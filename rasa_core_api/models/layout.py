"""Where the parts of a model directory lie, and what its metadata says.

Since 0.9 each policy has a directory `policy_<number>_<class>`; the numbers count the policies that write nothing as
well. In 0.8 the files of all policies lie beside the domain.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import UnsupportedModel
from rasa_core_api.policies.files import read_json, require_json, unsupported

#: Of 0.14, and of the releases before it. Both can lie side by side where one model was written over another.
METADATA_FILES = ("metadata.json", "policy_metadata.json")
DOMAIN_FILE = "domain.yml"
STATES_FILE = "domain.json"

MAX_POLICIES = 100


@frozen
class PolicyEntry:
    """A policy as the metadata names it: the path of its class, its directory, its `max_history` if it has one."""

    path: str
    directory: Path
    max_history: int | None


@frozen
class Layout:
    """A model directory.

    `version` is that of the program that wrote it, `states` its stored feature layout (None: not stored).
    """

    root: Path
    metadata: Mapping[str, JSON]
    version: str
    ensemble: str
    policies: tuple[PolicyEntry, ...]
    states: tuple[str, ...] | None

    @property
    def domain_file(self) -> Path:
        return self.root / DOMAIN_FILE


def read_layout(path: Path) -> Layout:
    """What lies in a model directory, or in the directory `core` or the only directory inside it.

    Raises `UnsupportedModel` naming the file that is missing or wrong.
    """
    root, metadata_file, metadata = _find_metadata(path)
    version = metadata.get("rasa_core", "0.0.0")
    if not isinstance(version, str):
        raise unsupported(metadata_file, f"'rasa_core' is {version!r}, expected a version")
    names = metadata.get("policy_names")
    if not isinstance(names, list) or len(names) > MAX_POLICIES or not all(isinstance(name, str) for name in names):
        raise unsupported(metadata_file, "'policy_names' is not a list of class paths")
    ensemble = metadata.get("ensemble_name")
    if not isinstance(ensemble, str):
        raise unsupported(metadata_file, f"'ensemble_name' is {ensemble!r}, expected a class path")
    histories = metadata.get("max_histories", metadata.get("max_history"))
    together = "max_histories" not in metadata and "max_history" in metadata
    if not isinstance(histories, list):
        histories = [histories] * len(names)
    entries = []
    for index, name in enumerate(names):
        history = histories[index] if index < len(histories) else None
        directory = root if together else root / f"policy_{index}_{_class_name(metadata_file, name)}"
        entries.append(PolicyEntry(name, directory, history if type(history) is int else None))
    return Layout(root, metadata, version, ensemble, tuple(entries), _read_states(root / STATES_FILE))


def _class_name(metadata_file: Path, path: str) -> str:
    name = path.rpartition(".")[2]
    if not name.isidentifier():
        raise unsupported(metadata_file, f"{path!r} is not the path of a class")
    return name


def _find_metadata(path: Path) -> tuple[Path, Path, dict[str, JSON]]:
    if not path.is_dir():
        wrong = "it is a file, but no zip or tar.gz of a model" if path.exists() else "there is no such directory"
        raise UnsupportedModel(f"{path}: {wrong}", file=path.name)
    inside = [place for place in sorted(path.iterdir()) if place.is_dir() and not place.name.startswith((".", "__"))]
    wrapped = inside if len(inside) == 1 else []
    other: Path | None = None
    for root in (path, path / "core", *wrapped):
        for name in METADATA_FILES:
            file = root / name
            data = read_json(file)
            if data is None:
                continue
            if "policy_names" in data or name != METADATA_FILES[0]:
                return root, file, data
            other = file
    if other is not None:
        require = "a dialogue model's names its policies"
        if "pipeline" in require_json(other):
            require = "this is a model for understanding messages, not a dialogue model"
        raise unsupported(other, require)
    raise UnsupportedModel(
        f"{path}: not a dialogue model: it has neither {METADATA_FILES[0]} nor {METADATA_FILES[1]}", file=path.name
    )


def _read_states(path: Path) -> tuple[str, ...] | None:
    data = read_json(path)
    if data is None:
        return None
    states = data.get("states", data.get("features"))
    if not isinstance(states, list) or not all(isinstance(state, str) for state in states):
        raise unsupported(path, "expected the list 'states'")
    return tuple(states)
