"""Model directories as the releases wrote them, small enough to write in a test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rasa_core_api.config import dump_yaml
from rasa_core_api.domain import Domain
from rasa_core_api.policies.memoization import write_key
from rasa_core_api.releases import BY_NAME
from tests.samples import SPECIFICATION

VERSIONS = {
    "0.8": "0.8.6",
    "0.9": "0.9.8",
    "0.10": "0.10.4",
    "0.11": "0.11.12",
    "0.12": "0.12.4",
    "0.13": "0.13.8",
    "0.14": "0.14.5",
}
PATHS = {
    "MemoizationPolicy": "rasa_core.policies.memoization.MemoizationPolicy",
    "FallbackPolicy": "rasa_core.policies.fallback.FallbackPolicy",
    "FormPolicy": "rasa_core.policies.form_policy.FormPolicy",
    "MappingPolicy": "rasa_core.policies.mapping_policy.MappingPolicy",
    "KerasPolicy": "rasa_core.policies.keras_policy.KerasPolicy",
}


def specification(release: str, **changes: Any) -> dict[str, Any]:
    data = {**SPECIFICATION, **changes}
    if not BY_NAME[release].has_forms:
        data.pop("forms")
    return data


def write(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def model_directory(
    root: Path,
    release: str = "0.11",
    policies: tuple[str, ...] = ("MemoizationPolicy", "FallbackPolicy"),
    lookup: Mapping[str, int] = MappingProxyType({}),
    version: str | None = None,
    **changes: Any,
) -> Path:
    """A model of the release; `lookup` maps plain keys to action numbers, `changes` go to the domain."""
    spec = specification(release, **changes)
    domain = Domain.from_json(spec, BY_NAME[release])
    root.mkdir(parents=True, exist_ok=True)
    (root / "domain.yml").write_text(dump_yaml(spec))
    write(root / "domain.json", {BY_NAME[release].states_key: domain.states})
    metadata: dict[str, Any] = {
        "action_fingerprints": {"utter_hi": {"slots": []}},
        "rasa_core": version or VERSIONS[release],
        "ensemble_name": "rasa_core.policies.ensemble.SimplePolicyEnsemble",
        "policy_names": [PATHS.get(name, name) for name in policies],
    }
    memory = {"lookup": {write_key(key): index for key, index in lookup.items()}, "max_history": 2}
    if release == "0.8":
        metadata["max_history"] = 2
        write(root / "featurizer.json", {"py/object": "rasa_core.featurizers.BinaryFeaturizer"})
        write(root / "memorized_turns.json", {"lookup": memory["lookup"]})
    else:
        metadata["max_histories"] = [2 if name == "MemoizationPolicy" else None for name in policies]
        for index, name in enumerate(policies):
            place = root / f"policy_{index}_{name.rpartition('.')[2]}"
            if name == "MemoizationPolicy":
                write(place / "memorized_turns.json", memory)
            elif name == "FallbackPolicy":
                write(
                    place / "fallback_policy.json",
                    {"nlu_threshold": 0.4, "core_threshold": 0.2, "fallback_action_name": "utter_bye"},
                )
            elif name == "FormPolicy":
                write(place / "memorized_turns.json", {"lookup": {}, "max_history": 2})
    write(root / BY_NAME[release].metadata_file, metadata)
    return root


def edit(path: Path, **changes: Any) -> None:
    """Change members of a JSON file; None removes one."""
    data = json.loads(path.read_text())
    for key, value in changes.items():
        data[key] = value
        if value is None:
            del data[key]
    path.write_text(json.dumps(data))
