"""Writing a trained model in the layout of a release, beside its place and then in one rename."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from attrs import field, frozen

from rasa_core_api.config import dump_yaml
from rasa_core_api.constants import JSON
from rasa_core_api.domain import Domain
from rasa_core_api.exceptions import InvalidParameter, TrainingFailed
from rasa_core_api.models.layout import DOMAIN_FILE, METADATA_FILES, STATES_FILE
from rasa_core_api.releases import Release, release_of

#: The releases that models can be written for.
TARGETS = ("0.11.12", "0.14.5")
REPORT_FILE = "training_report.json"
STORIES_FILE = "stories.md"


def target_release(version: str) -> Release:
    """The rules of a release that models can be written for. Raises `InvalidParameter`."""
    if version not in TARGETS:
        raise InvalidParameter(
            f"models cannot be written for {version!r}; possible are {' and '.join(TARGETS)}", parameter="for_release"
        )
    return release_of(version)


@frozen
class WrittenPolicy:
    """One policy of a model: its historical class path, its entry in `max_histories`, its files by name."""

    path: str
    max_history: int | None
    files: Mapping[str, bytes]


@frozen(kw_only=True)
class WrittenModel:
    """All that a model directory holds. `fingerprints`: slots that follow each action; `stories` None: not kept.

    `others`: files by name that no historical release knows.
    """

    domain: Domain
    version: str
    policies: Sequence[WrittenPolicy]
    fingerprints: JSON
    report: Mapping[str, JSON]
    trained_at: datetime
    stories: str | None = None
    extra: Mapping[str, JSON] = field(factory=dict)
    others: Mapping[str, bytes] = field(factory=dict)

    def metadata(self) -> dict[str, JSON]:
        """The metadata file, with the members of its release."""
        release = self.domain.release
        data: dict[str, JSON] = {
            "action_fingerprints": self.fingerprints,
            "rasa_core": self.version,
            "python": platform.python_version(),
            "max_histories": [policy.max_history for policy in self.policies],
            "ensemble_name": "rasa_core.policies.ensemble.SimplePolicyEnsemble",
            "policy_names": [policy.path for policy in self.policies],
        }
        if release.has_forms:
            data["trained_at"] = self.trained_at.strftime("%Y%m%d-%H%M%S")
        return {**data, **self.extra}

    def files(self) -> dict[str, bytes]:
        """Every file by its path in the directory, with forward slashes."""
        found = {
            DOMAIN_FILE: dump_yaml(self.domain.as_dict()).encode("utf-8"),
            STATES_FILE: _json({self.domain.release.states_key: self.domain.states}),
            self.domain.release.metadata_file: _json(self.metadata()),
            REPORT_FILE: _json(self.report),
            **self.others,
        }
        for number, policy in enumerate(self.policies):
            folder = f"policy_{number}_{policy.path.rpartition('.')[2]}"
            found |= {f"{folder}/{name}": content for name, content in policy.files.items()}
        if self.stories is not None:
            found[STORIES_FILE] = self.stories.encode("utf-8")
        return found


def _json(value: JSON) -> bytes:
    return json.dumps(value, indent=2).encode("ascii")


def persist(model: WrittenModel, target: Path) -> None:
    """Write `model` to the directory `target`, beside it first: nobody ever finds half a model there.

    A model that lies there is replaced as a whole; files beside no model are left where they are. Raises
    `TrainingFailed` where the disk refuses.
    """
    target = target.absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".new", dir=target.parent))
        try:
            os.chmod(beside, 0o777 & ~_umask())
            for name, content in model.files().items():
                _write(beside / name, content)
            _replace(beside, target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise TrainingFailed(f"the model cannot be written to {target}: {error.strerror}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _replace(new: Path, target: Path) -> None:
    if not target.exists():
        os.rename(new, target)
        return
    if not any((target / name).exists() for name in METADATA_FILES) and any(target.iterdir()):
        for entry in sorted(new.iterdir()):
            kept = target / entry.name
            if kept.is_dir():
                shutil.rmtree(kept)
            os.replace(entry, kept)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    try:
        os.rename(target, old / target.name)
        os.rename(new, target)
    except BaseException:  # control-C too
        if not target.exists():
            os.rename(old / target.name, target)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
