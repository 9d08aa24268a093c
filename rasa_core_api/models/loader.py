"""From a model directory to a generation that can be served."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from twisted.logger import Logger

from rasa_core_api.config import read_yaml_file
from rasa_core_api.domain import Domain
from rasa_core_api.exceptions import InvalidConfiguration, InvalidDomain, RasaCoreError, UnsupportedModel
from rasa_core_api.models.generation import Generation
from rasa_core_api.models.layout import STATES_FILE, Layout, PolicyEntry, read_layout
from rasa_core_api.policies.files import unsupported
from rasa_core_api.policies.policy import LoadContext, Policy
from rasa_core_api.policies.registry import ensemble_class, policy_class
from rasa_core_api.releases import candidates
from rasa_core_api.slots import ClassFinder, refuse_classes

log = Logger()

_CHUNK = 1 << 20  # bytes
_SHOWN = 20  # states in an error


def load_generation(
    path: Path, *, find_class: ClassFinder = refuse_classes, fingerprint: str | None = None, source: str | None = None
) -> Generation:
    """The model in a directory.

    `find_class` finds classes in modules that the operator trusts. Without a `fingerprint` the model gets one that
    is computed of its files (32 hexadecimal digits). Reads files and nothing else, so it can run anywhere. Raises
    `UnsupportedModel` naming the file and the reason.
    """
    layout = read_layout(path)
    domain = load_domain(layout, find_class)
    kind = ensemble_class(layout.ensemble, find_class)
    policies = [_load_policy(entry, domain, find_class) for entry in layout.policies]
    try:
        ensemble = kind(policies, domain)
    except InvalidConfiguration as error:
        raise UnsupportedModel(f"{layout.root}: {error}", file=layout.root.name) from error
    return Generation(
        domain=domain,
        ensemble=ensemble,
        fingerprint=fingerprint or fingerprint_of(layout.root),
        metadata=layout.metadata,
        source=source or str(path),
    )


def load_domain(layout: Layout, find_class: ClassFinder = refuse_classes) -> Domain:
    """The domain under the rules of the release that reproduces the stored feature layout.

    The version in the metadata is tried first, then the releases before it, newest first, then those behind it: some
    alphas carry the version of one release and the layout of another. Without a stored layout the version decides.
    Raises `UnsupportedModel`; where no release fits it says which states are gone and which are new.
    """
    file = layout.domain_file
    if not file.is_file():
        raise unsupported(file, "the file is missing")
    try:
        data = read_yaml_file(file)
    except InvalidConfiguration as error:
        raise UnsupportedModel(str(error), file=file.name) from error
    try:
        releases = candidates(layout.version)
    except ValueError as error:
        raise unsupported(layout.root, f"its metadata names no release: {error}") from None
    if layout.states is None:
        log.warn("{file} is missing: the model is served as one of {release}", file=STATES_FILE, release=releases[0])
        releases = releases[:1]
    proposed: Domain | None = None
    refused: InvalidDomain | None = None
    for release in releases:
        try:
            domain = Domain.from_json(data, release, find_class)
        except InvalidDomain as error:
            if release is releases[0]:
                refused = error
            continue
        if layout.states is None or layout.states == tuple(domain.states):
            if release is not releases[0]:
                log.info(
                    "the model says {version} and has the feature layout of {release}, whose rules it is served by",
                    version=layout.version,
                    release=release,
                )
            return domain
        if proposed is None:
            proposed = domain
    if refused is not None or proposed is None:
        raise unsupported(file, str(refused)) from refused
    raise unsupported(file, _changed(layout.states or (), proposed))


def _changed(stored: Sequence[str], domain: Domain) -> str:
    removed = [state for state in stored if state not in set(domain.states)]
    added = [state for state in domain.states if state not in set(stored)]
    what = f"removed: {_listed(removed)}; added: {_listed(added)}"
    if not removed and not added:
        what = "the same states are in another order"
    return f"Domain specification has changed since the model was trained. You MUST retrain the policies. ({what})"


def _listed(states: Sequence[str]) -> str:
    shown = ", ".join(states[:_SHOWN]) or "none"
    return shown if len(states) <= _SHOWN else f"{shown} and {len(states) - _SHOWN} more"


def _load_policy(entry: PolicyEntry, domain: Domain, find_class: ClassFinder) -> Policy:
    kind = policy_class(entry.path, find_class)
    context = LoadContext(domain=domain, max_history=entry.max_history, find_class=find_class)
    try:
        return kind.load(entry.directory, context)
    except UnsupportedModel:
        raise
    except RasaCoreError as error:
        raise unsupported(entry.directory, f"{entry.path}: {error}") from error


def fingerprint_of(directory: Path) -> str:
    """32 hexadecimal digits that change with the name and content of any file in the directory."""
    digest = hashlib.sha256()
    for file in sorted(directory.rglob("*")):
        if file.is_file():
            digest.update(f"{file.relative_to(directory).as_posix()}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as content:
                while chunk := content.read(_CHUNK):
                    digest.update(chunk)
    return digest.hexdigest()[:32]
