"""`python -m rasa_core_api.check`: mistakes in a project, before it is trained or served."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from rasa_core_api.channels.registry import CHANNELS, channel_kind
from rasa_core_api.config import read_yaml_file
from rasa_core_api.constants import JSON
from rasa_core_api.domain import Domain
from rasa_core_api.endpoints import Endpoints, read_endpoints
from rasa_core_api.exceptions import RasaCoreError
from rasa_core_api.interpreter import RegexInterpreter
from rasa_core_api.models.layout import read_layout
from rasa_core_api.models.loader import load_generation
from rasa_core_api.models.persisting import TARGETS, target_release
from rasa_core_api.slots import ClassFinder
from rasa_core_api.training.checking import check_contradictions, check_examples, check_stories, check_unused
from rasa_core_api.training.console import until_interrupted, use_one_thread
from rasa_core_api.training.findings import DomainText, Finding, check_domain, nearest
from rasa_core_api.training.project_checks import (
    check_action_server,
    check_credentials,
    check_endpoints,
    check_keys,
    line_of,
)
from rasa_core_api.training.story_reader import read_stories
from rasa_core_api.training.structures import Place, StoryFiles


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line a finding; 0 without errors, 1 with errors (with --strict: or warnings)."""
    use_one_thread(os.environ)
    parser = argparse.ArgumentParser(
        prog="python -m rasa_core_api.check",
        description="Look for mistakes in a bot.",
        epilog="example: python -m rasa_core_api.check -d domain.yml -s stories.md --endpoints endpoints.yml",
    )
    parser.add_argument("-d", "--domain", help="domain specification")
    parser.add_argument("-s", "--stories", help="story file or folder")
    parser.add_argument("--nlu", help="NLU training data, file or folder")
    parser.add_argument("--endpoints", help="endpoints file")
    parser.add_argument("--credentials", help="channel credentials file")
    parser.add_argument("--core", help="dialogue model directory")
    parser.add_argument("--history", type=int, default=5, help="states in which contradictions are looked for (5)")
    parser.add_argument(
        "--for-release",
        "--for_release",
        dest="for_release",
        choices=TARGETS,
        default=TARGETS[-1],
        help="the release whose rules the stories are read by (%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    parser.add_argument("--strict", action="store_true", help="warnings count as errors")
    options = parser.parse_args(arguments)
    if not any((options.domain, options.endpoints, options.credentials, options.core)):
        parser.error("nothing to check: name a domain (-d), a model (--core), endpoints or credentials")
    if (options.stories or options.nlu) and not options.domain:
        parser.error("stories and NLU data are checked against a domain: -d/--domain")
    findings = check_project(options)
    if options.json:
        print(json.dumps([finding.as_dict() for finding in findings], indent=2))
    else:
        for finding in findings:
            print(finding)
    bad = [finding for finding in findings if options.strict or finding.severity == "error"]
    return 1 if bad else 0


def check_project(options: argparse.Namespace) -> list[Finding]:
    """Everything that the options name; what cannot be read is a finding too."""
    found: list[Finding] = []
    endpoints = None
    if options.endpoints:
        try:
            endpoints = read_endpoints(options.endpoints, os.environ)
            found += check_endpoints(endpoints, options.endpoints)
            found += check_keys(endpoints, options.endpoints)
            found += _check_stores(endpoints, options.endpoints)
        except RasaCoreError as error:
            found.append(_unreadable(error, options.endpoints))
    if options.credentials:
        try:
            credentials = read_yaml_file(options.credentials, os.environ)
            found += check_credentials(credentials, options.credentials)
            found += _check_channels(credentials, options.credentials)
        except RasaCoreError as error:
            found.append(_unreadable(error, options.credentials))
    if options.core:
        found += check_model(Path(options.core))
    if options.domain:
        found += _check_sources(options, endpoints)
    return found


def _check_stores(endpoints: Endpoints, file: str) -> list[Finding]:
    """Settings of the conversation store and the event broker that a server refuses; nothing is connected."""
    from twisted.internet.task import Clock

    from rasa_core_api.brokers.factory import create_broker
    from rasa_core_api.events.reading import EventReader
    from rasa_core_api.tracker_store.factory import create_store

    clock, found = Clock(), []
    for name, entry, create in (
        ("tracker_store", endpoints.tracker_store, partial(create_store, event_reader=EventReader(clock.seconds, str))),
        ("event_broker", endpoints.event_broker, create_broker),
    ):
        if entry is None or "." in str(entry.get("type") or entry.get("store_type")):
            continue  # a class of the project is only run where it is trusted
        try:
            create(entry, reactor=clock)
        except RasaCoreError as error:
            found.append(Finding("error", "unusable-setting", line_of(file, name), str(error), "correct it"))
    return found


def _check_channels(data: JSON, file: str) -> list[Finding]:
    """Channels that cannot be opened, and those that are classes of the project."""
    found = []
    for name in data if isinstance(data, Mapping) else ():
        kind, place = channel_kind(str(name)), line_of(file, str(name))
        if kind == "missing":
            message, remedy = f"the channel {name!r} is not built yet", "remove it, or name a class of your own for it"
            found.append(Finding("error", "unsupported-channel", place, message, remedy))
        elif kind == "class":
            message = f"the channel {name!r} is a class of the project, which is only run where it is trusted"
            remedy = f"start with --trusted_modules {name.rpartition('.')[0]}"
            found.append(Finding("warning", "custom-class", place, message, remedy))
        elif kind == "unknown":
            remedy = nearest(str(name), CHANNELS, "remove it, or name a class by module path")
            found.append(Finding("error", "unknown-channel", place, f"there is no channel {name!r}", remedy))
    return found


def _unreadable(error: RasaCoreError, file: str) -> Finding:
    line = error.details.get("line")
    place = Place(str(error.details.get("file") or file), line if isinstance(line, int) else 0)
    message = str(error).removeprefix(f"{place}: ")
    return Finding("error", "unreadable", place, message, "correct it")


def _check_sources(options: argparse.Namespace, endpoints: Endpoints | None) -> list[Finding]:
    release = target_release(options.for_release)
    path = options.domain
    # a class of the project is only named here, never imported
    custom: list[str] = []
    try:
        data = read_yaml_file(path, os.environ if release.has_forms else None, quoted=False)
        domain = Domain.from_json(data, release, _remembering(custom))
        text = DomainText(path, Path(path).read_text("utf-8-sig"))
    except (RasaCoreError, OSError) as error:
        return [
            _unreadable(error, path)
            if isinstance(error, RasaCoreError)
            else Finding("error", "unreadable", Place(path), str(error), "name the domain file")
        ]
    found = check_domain(domain, data, text, nlg_server=endpoints is not None and endpoints.nlg is not None)
    files = StoryFiles()
    if options.stories:
        try:
            files = read_stories([Path(options.stories)], release, RegexInterpreter(release).parse_sync)
        except RasaCoreError as error:
            return [*found, _unreadable(error, options.stories)]
        found += [
            Finding("warning", "story-line", notice.place, notice.text, "correct the line or remove it")
            for notice in files.notices
        ]
        found += check_stories(domain, files, path)
        try:
            found += check_contradictions(domain, files, options.history)
        except RasaCoreError as error:
            found.append(_unreadable(error, options.stories))
        found += check_unused(domain, files, text)
    if options.nlu:
        from rasa_core_api.nlu.data_loading import load_data

        try:
            examples = load_data(Path(options.nlu))
            found += check_examples(domain, examples.intents(), examples.entities(), text, options.nlu)
        except RasaCoreError as error:
            found.append(_unreadable(error, options.nlu))
    if endpoints is not None:
        found += check_action_server(domain, endpoints, options.endpoints, text)
    return found


def _remembering(found: list[str]) -> ClassFinder:
    from rasa_core_api.slots import Slot

    def find(path: str) -> type:
        found.append(path)
        return type(path.rpartition(".")[2], (_ForeignSlot, Slot), {})

    return find


class _ForeignSlot:
    """Stands for a slot class of the project: takes any option, has one feature."""

    def __init__(self, name: str, **options: JSON) -> None:
        self.name = name
        self.initial_value = self.value = options.get("initial_value")
        self.auto_fill = True
        self.path = ""

    def as_feature(self) -> list[float]:
        return [0.0]


def check_model(path: Path) -> list[Finding]:
    """Parts of a model directory that are unsafe or cannot be served."""
    found = []
    for file in _pickles(path):
        message = "a pickle: old releases executed what is in it"
        remedy = "here it is read as data and never executed; train again to be rid of it"
        found.append(Finding("warning", "pickle", Place(str(file)), message, remedy))
    try:
        layout = read_layout(path)
    except RasaCoreError as error:
        return [*found, Finding("error", "model", Place(str(path)), str(error), "name a model directory")]
    for policy in layout.policies:
        if not policy.path.startswith("rasa_core."):
            module = policy.path.rpartition(".")[0]
            message = f"the policy {policy.path!r} is a class of the project, which is only run where it is trusted"
            remedy = f"start with --trusted_modules {module}"
            found.append(Finding("warning", "custom-class", Place(str(policy.directory)), message, remedy))
    try:
        load_generation(path)
    except RasaCoreError as error:
        found.append(Finding("error", "model", Place(str(path)), str(error), "train it again"))
    return found


def _pickles(path: Path) -> Iterable[Path]:
    for file in sorted(path.rglob("*.pkl")):
        # four bytes are a pickled None, which 0.14 wrote beside its networks
        if file.is_file() and file.stat().st_size > 4:
            yield file


if __name__ == "__main__":
    sys.exit(until_interrupted(lambda: main()))
