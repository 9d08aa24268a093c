"""`python -m rasa_core_api.train`: dialogue models from stories, with the options of 0.9 to 0.14."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from random import Random
from typing import TextIO

from twisted.logger import Logger

from rasa_core_api.config import read_yaml_file
from rasa_core_api.constants import ACTION_DEFAULT_FALLBACK, JSON
from rasa_core_api.domain import Domain
from rasa_core_api.exceptions import InvalidConfiguration, InvalidTrainingData, RasaCoreError, TrainingFailed
from rasa_core_api.interpreter import RegexInterpreter
from rasa_core_api.models.persisting import TARGETS, WrittenModel, WrittenPolicy, persist, target_release
from rasa_core_api.releases import Release
from rasa_core_api.slots import ClassFinder, refuse_classes
from rasa_core_api.training.console import (
    add_logging_options,
    add_trusted_option,
    begin_logging,
    duration,
    progress_line,
    until_interrupted,
    use_one_thread,
)
from rasa_core_api.training.examples import action_fingerprints
from rasa_core_api.training.fetching import add_stories_options, stories_path
from rasa_core_api.training.pipeline import Trained, longest_history, train
from rasa_core_api.training.policy_file import PolicySettings, default_policies, read_policies
from rasa_core_api.training.story_reader import read_stories
from rasa_core_api.training.story_writer import story_of
from rasa_core_api.training.structures import StoryFiles
from rasa_core_api.trusted import class_finder
from rasa_core_api.version import __version__

log = Logger()

SUB_COMMANDS = ("default", "compare", "interactive")
_AUGMENTATION = 50

#: Options of 0.9 to 0.11 that went into the policy file with 0.12, and their defaults then.
_OLD_OPTIONS = {
    "history": 3,
    "epochs": None,
    "validation_split": 0.0,
    "batch_size": None,
    "nlu_threshold": 0.0,
    "core_threshold": 0.0,
    "fallback_action_name": ACTION_DEFAULT_FALLBACK,
}

_DESCRIPTIONS = {
    "default": """Train a dialogue model from stories. Other modes, each with a --help of its own:

  train compare      one model for each policy file and for ever fewer stories,
                     to see what each needs (--percentages, --runs)
  train interactive  teach a bot in a conversation (--server, --export_stories)""",
    "compare": "Train models with several policy files on ever fewer stories, for `test compare`.",
    "interactive": "Teach a bot in a conversation, and keep what it learned as stories.",
}

_EXAMPLES = {
    "default": "example: python -m rasa_core_api.train -d domain.yml -s stories.md -o models/dialogue",
    "compare": """example: python -m rasa_core_api.train compare -c keras.yml memoization.yml
  -d domain.yml -s stories.md -o comparison --percentages 0 50 90 --runs 3""",
    "interactive": """example: python -m rasa_core_api.train interactive -d domain.yml -s stories.md
  -u models/nlu/current --endpoints endpoints.yml""",
}


def make_parser(mode: str) -> argparse.ArgumentParser:
    """The parser of one sub-command."""
    parser = argparse.ArgumentParser(
        prog=f"python -m rasa_core_api.train{'' if mode == 'default' else ' ' + mode}",
        description=_DESCRIPTIONS[mode],
        epilog=_EXAMPLES[mode],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = add_stories_options(parser, required=mode != "interactive")
    parser.add_argument("-d", "--domain", required=mode == "compare", help="domain specification (YAML)")
    parser.add_argument("-o", "--out", required=mode == "compare", help="directory the model is written to")
    parser.add_argument(
        "-c", "--config", nargs="+" if mode == "compare" else None, help="policy file; without it the packaged default"
    )
    parser.add_argument("--augmentation", type=int, default=_AUGMENTATION, help="how many stories are joined (0: none)")
    parser.add_argument("--dump_stories", action="store_true", help="keep the flattened stories in the model")
    parser.add_argument("--debug_plots", action="store_true", help="draw how story blocks are connected")
    parser.add_argument(
        "--for-release",
        "--for_release",
        dest="for_release",
        default=TARGETS[-1],
        choices=TARGETS,
        help="the release whose rules and layout the model follows",
    )
    parser.add_argument("--no_check", action="store_true", help="do not look for mistakes in domain and stories first")
    if mode == "compare":
        parser.add_argument("--percentages", nargs="*", type=int, default=[0, 5, 25, 50, 70, 90, 95],
                            help="percent of the stories that are left out (0 5 25 50 70 90 95)")  # fmt: skip
        parser.add_argument("--runs", type=int, default=3, help="how often, each time with other stories left out (3)")
    else:
        group.add_argument("--core", help="a trained model to start interactive training with")
        parser.add_argument("-u", "--nlu", help="NLU model, for interactive training")
        parser.add_argument("--endpoints", help="endpoints file, for interactive training")
        parser.add_argument("--finetune", action="store_true", help="train on after every correction")
        parser.add_argument("--skip_visualization", action="store_true", help="accepted: no page is drawn meanwhile")
        parser.add_argument("--online", action="store_true", help="deprecated: use `train interactive`")
        _add_old_options(parser)
    if mode == "interactive":
        parser.add_argument("--server", help="address of a running server with the API; without it one is started here")
        parser.add_argument("--auth_token", help="token of that server")
        parser.add_argument("--sender_id", help="conversation to teach in (a new one)")
        parser.add_argument("--export_stories", default="data/stories.md", help="file that stories are added to")
        parser.add_argument("--export_nlu", default="data/nlu.md", help="file that NLU examples are added to")
    add_trusted_option(parser)
    add_logging_options(parser)
    return parser


def _add_old_options(parser: argparse.ArgumentParser) -> None:
    old = parser.add_argument_group("options of 0.9 to 0.11 (later releases have them in the policy file)")
    old.add_argument("--history", type=int, help="states that policies look at (3)")
    old.add_argument("--epochs", type=int, help="epochs of the network (chosen by the number of examples, 25 to 100)")
    old.add_argument("--validation_split", type=float, help="share of the examples that is only measured (0)")
    old.add_argument("--batch_size", type=int, help="examples a step of the network (chosen by their number)")
    old.add_argument("--nlu_threshold", type=float, help="least confidence of a message (0)")
    old.add_argument("--core_threshold", type=float, help="confidence of the fallback action (0)")
    old.add_argument("--fallback_action_name", help="action to fall back to")


def main(arguments: Sequence[str] | None = None, log_to: TextIO | None = None) -> int:
    """Run the command line; 0 when it did what was asked. Log lines go to `log_to`."""
    use_one_thread(os.environ)
    words = list(sys.argv[1:] if arguments is None else arguments)
    mode = next((word for word in words if word in SUB_COMMANDS), "default")
    if mode in words:
        words.remove(mode)
    parser = make_parser(mode)
    options = parser.parse_args(words)
    if log_to is not None:
        begin_logging(options.loglevel, log_to)
    online = mode == "interactive" or getattr(options, "online", False)
    if not online and getattr(options, "core", None):
        parser.error("--core can only be used with interactive training (`train interactive`)")
    if not online and getattr(options, "finetune", False):
        parser.error("--finetune can only be used with interactive training (`train interactive`)")
    if options.augmentation < 0:
        parser.error("--augmentation must be 0 or more")
    if getattr(options, "online", False):
        print("--online is deprecated: use `train interactive`", file=sys.stderr)
    if not online and not (options.domain and options.out):
        parser.error("the following arguments are required: -d/--domain, -o/--out")
    try:
        if online:
            return _teach(options)
        if mode == "compare":
            return _compare(options)
        return _train(options)
    except RasaCoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def policies_of(options: argparse.Namespace, release: Release) -> list[PolicySettings]:
    """The policies that the options name: a policy file, old options, or the packaged default."""
    given = {key: value for key in _OLD_OPTIONS if (value := getattr(options, key, None)) is not None}
    if options.config:
        if given:
            raise InvalidConfiguration(
                f"--{sorted(given)[0]} cannot be combined with a policy file; set it in {options.config}"
            )
        return policies_in(options.config, release)
    if not given:
        return default_policies(release)
    print(
        f"--{', --'.join(sorted(given))}: options of 0.11; later releases have them in a policy file (-c)",
        file=sys.stderr,
    )
    values = {**_OLD_OPTIONS, **given}
    network = {key: values[key] for key in ("epochs", "validation_split", "batch_size")}
    fallback = {key: values[key] for key in ("nlu_threshold", "core_threshold", "fallback_action_name")}
    entries: list[JSON] = [
        {"name": "FallbackPolicy", **fallback},
        {"name": "MemoizationPolicy", "max_history": values["history"]},
        {"name": "KerasPolicy", "max_history": values["history"], **network},
    ]
    if not release.hard_coded_restart:
        entries.append({"name": "MappingPolicy"})  # from 0.14 on nothing else answers /restart
    return read_policies({"policies": entries}, release, "command line")


def policies_in(path: str, release: Release) -> list[PolicySettings]:
    """The policies of a policy file; `${NAME}` in it is replaced from the environment."""
    return read_policies(read_yaml_file(path, os.environ), release, path)


def read_domain_file(path: str, release: Release) -> JSON:
    """The text of a domain; from 0.12 on `${NAME}` outside quotes is replaced from the environment."""
    return read_yaml_file(path, os.environ if release.has_forms else None, quoted=False)


def read_domain(path: str, release: Release, find_class: ClassFinder = refuse_classes) -> Domain:
    """The domain in a file that the operator named. Raises `InvalidDomain` with the file."""
    try:
        return Domain.from_json(read_domain_file(path, release), release, find_class)
    except InvalidConfiguration as error:
        text = str(error)
        raise InvalidConfiguration(text if text.startswith(path) else f"{path}: {text}") from error


def _read(options: argparse.Namespace, release: Release, exclusion: float = 0.0, seed: int = 0) -> StoryFiles:
    parse = RegexInterpreter(release).parse_sync
    with stories_path(options) as path:
        return read_stories([path], release, parse, exclusion_percentage=exclusion, random=Random(seed))


def _train(options: argparse.Namespace) -> int:
    release = target_release(options.for_release)
    domain = read_domain(options.domain, release, class_finder(options.trusted_modules))
    policies = policies_of(options, release)
    files = _read(options, release)
    if not options.no_check:
        _check(options, domain, files, longest_history(policies))
    _warn(files)
    trained = _with_progress(options, files, domain, policies)
    out = Path(options.out)
    persist(written(trained, options.for_release, files, keep_stories=options.dump_stories), out)
    if options.debug_plots:
        from rasa_core_api.training.drawing import draw
        from rasa_core_api.training.story_picture import block_picture

        page = Path("story_blocks_connections.html")
        page.write_text(draw(block_picture(files.steps), "story blocks and their checkpoints"), "utf-8")
        print(f"drew the connections of the story blocks to {page}")
    print(summary(trained, files))
    print(f"wrote the model to {out}")
    return 0


#: Mistakes that the historical releases trained with, and so do we.
_TRAINED_ANYWAY = frozenset(
    {"contradiction", "missing-template", "unknown-entity", "unknown-form", "unknown-intent", "unknown-slot"}
)


def _check(options: argparse.Namespace, domain: Domain, files: StoryFiles, history: int | None) -> None:
    """Print what `check` finds in domain and stories. Raises `InvalidTrainingData` where it spoils the model."""
    from rasa_core_api.training.checking import HISTORY, check_contradictions, check_stories, check_unused
    from rasa_core_api.training.findings import DomainText, check_domain

    text = DomainText(options.domain, Path(options.domain).read_text("utf-8-sig"))
    found = check_domain(domain, read_domain_file(options.domain, domain.release), text)
    found += check_stories(domain, files, options.domain)
    stopping = [item for item in found if item.severity == "error" and item.code not in _TRAINED_ANYWAY]
    if not stopping:
        found += check_contradictions(domain, files, history or HISTORY)
    found += check_unused(domain, files, text)
    for finding in found:
        print(finding, file=sys.stderr)
    if stopping:
        count = f"{len(stopping)} mistakes" if len(stopping) > 1 else "the mistake"
        raise InvalidTrainingData(f"{count} above would spoil the model; correct them, or train with --no_check")


def _warn(files: StoryFiles) -> None:
    for notice in files.notices:
        print(f"{notice.place}: {notice.text}", file=sys.stderr)


def _with_progress(
    options: argparse.Namespace, files: StoryFiles, domain: Domain, policies: Sequence[PolicySettings]
) -> Trained:
    progress = progress_line(options, sys.stderr)
    try:
        return train(files.steps, domain, policies, augmentation_factor=options.augmentation, progress=progress)
    finally:
        progress.close()


def written(trained: Trained, version: str, files: StoryFiles, *, keep_stories: bool) -> WrittenModel:
    """The trained model as it is to be persisted for a release."""
    from rasa_core_api.training.kept import KeptPolicy, write_kept
    from rasa_core_api.training.learning_apart import KEPT_FILE

    stories = None
    if keep_stories:
        dialogues = trained.data.dialogues
        stories = "\n".join(story_of(dialogue.name, dialogue.events()) for dialogue in dialogues)
    kept = [
        KeptPolicy(policy.settings.name, policy.settings.options, policy.examples) for policy in trained.policies
    ]
    return WrittenModel(
        domain=trained.domain,
        version=version,
        policies=[
            WrittenPolicy(policy.settings.path, policy.settings.max_history, policy.files)
            for policy in trained.policies
        ],
        fingerprints=action_fingerprints(trained.data),
        report=report_of(trained, files),
        trained_at=datetime.now(),
        stories=stories,
        extra={"trained_by": f"rasa_core_api {__version__}"},
        others={KEPT_FILE: write_kept(kept)},
    )


def report_of(trained: Trained, files: StoryFiles) -> dict[str, JSON]:
    """What the training report says."""
    return {
        "stories": files.blocks,
        "steps": len(files.steps),
        "dialogues": len(trained.data.dialogues),
        "states": len(trained.data.contexts.states),
        "augmentation": trained.augmentation_factor,
        "seconds": round(trained.seconds, 3),
        "unreached_checkpoints": trained.data.unreached,
        "policies": [{"name": policy.settings.name, **policy.report} for policy in trained.policies],
    }


def summary(trained: Trained, files: StoryFiles) -> str:
    """The report in a few lines for people."""
    lines = [f"trained {files.blocks} stories ({len(trained.data.dialogues)} dialogues) in {duration(trained.seconds)}"]
    for policy in trained.policies:
        facts = ", ".join(f"{key} {value}" for key, value in policy.report.items() if value is not None)
        lines.append(f"  {policy.settings.name}{': ' + facts if facts else ''}")
    lines += [f"  no story leads to the checkpoint {name!r}" for name in trained.data.unreached]
    return "\n".join(lines)


def _teach(options: argparse.Namespace) -> int:
    from rasa_core_api.training.interactive import Api, Export, Session
    from rasa_core_api.training.learning_apart import keeps_data
    from rasa_core_api.training.local_server import local_server

    def value(name: str, otherwise: str) -> str:
        return str(getattr(options, name, None) or otherwise)

    export = Export(Path(value("export_stories", "stories.md")), Path(value("export_nlu", "nlu.md")))
    sender_id = value("sender_id", secrets.token_hex(16))
    server = getattr(options, "server", None)
    if options.finetune and options.core and not keeps_data(Path(options.core)):
        raise TrainingFailed(
            f"--finetune: {options.core} holds no training data to go on with; name domain and stories (-d, -s) instead"
        )

    def teach(api: Api) -> int:
        Session(api, sender_id, input, print, export, options.finetune).run()
        return 0

    if server is not None:
        return teach(Api(server, options.auth_token))
    with tempfile.TemporaryDirectory(prefix="rasa_core_api-") as scratch:
        if options.core is None:
            if not options.domain or not (options.stories or options.url):
                raise InvalidConfiguration("name a --server, a model (--core), or domain and stories to train (-d, -s)")
            options.out = options.out or str(Path(scratch) / "model")
            _train(options)
        more = [word for flag, given in (("-u", options.nlu), ("--endpoints", options.endpoints)) if given
                for word in (flag, given)]  # fmt: skip
        with local_server(Path(options.core or options.out), more) as api:
            return teach(api)


def model_names(files: Sequence[str], policies: Sequence[str]) -> list[str]:
    """What the models of policy files are called; policies of one name have the name of their file in theirs."""
    return [
        name if policies.count(name) == 1 else f"{name}-{Path(file).stem}_"
        for file, name in zip(files, policies, strict=True)
    ]


def _compare(options: argparse.Namespace) -> int:
    release = target_release(options.for_release)
    domain = read_domain(options.domain, release, class_finder(options.trusted_modules))
    configurations = options.config or []
    if not configurations:
        raise InvalidConfiguration("compare needs policy files: -c FIRST SECOND ...")
    for percentage in options.percentages:
        if not 0 <= percentage < 100:
            raise InvalidConfiguration(f"--percentages: {percentage} is not between 0 and 99")
    policies = []
    for path in configurations:
        found = policies_in(path, release)
        if len(found) != 1:
            raise InvalidConfiguration(f"{path}: a file to compare must name exactly one policy, found {len(found)}")
        policies.append(found)
    if len(set(configurations)) < len(configurations):
        raise InvalidConfiguration("-c names a file twice")
    out = Path(options.out)
    names = model_names(configurations, [found[0].name for found in policies])
    if not options.no_check:
        _check(options, domain, _read(options, release), longest_history([found[0] for found in policies]))
    counts: list[int] = []
    for run in range(1, options.runs + 1):
        for number, percentage in enumerate(options.percentages, 1):
            for name, settings in zip(names, policies, strict=True):
                files = _read(options, release, percentage, run * 1000 + number)
                if len(counts) < len(options.percentages) and settings is policies[0]:
                    counts.append(len(files.steps))
                log.info("run {run}: {name} without {share} % of the stories", run=run, name=name, share=percentage)
                trained = _with_progress(options, files, domain, settings)
                model = written(trained, options.for_release, files, keep_stories=options.dump_stories)
                persist(model, out / f"run_{run}" / f"{name}{number}")
    (out / "num_stories.json").write_text(json.dumps(counts), "utf-8")
    print(f"wrote {options.runs} runs to {out}; compare them with `python -m rasa_core_api.evaluate compare`")
    return 0


if __name__ == "__main__":
    sys.exit(until_interrupted(lambda: main(log_to=sys.stderr)))
