"""`python -m rasa_core_api.evaluate`: how well models predict stories, with the options of 0.10 to 0.14."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import InvalidConfiguration, RasaCoreError
from rasa_core_api.interpreter import RegexInterpreter
from rasa_core_api.models.generation import Generation
from rasa_core_api.models.loader import load_generation
from rasa_core_api.training.console import (
    add_logging_options,
    add_trusted_option,
    begin_logging,
    progress_line,
    until_interrupted,
    use_one_thread,
)
from rasa_core_api.training.evaluation import Evaluation, ParseMessage, evaluate_stories
from rasa_core_api.training.evaluation_page import comparison_page, evaluation_page
from rasa_core_api.training.fetching import add_stories_options, stories_path
from rasa_core_api.training.story_reader import read_stories
from rasa_core_api.training.structures import StoryFiles
from rasa_core_api.trusted import class_finder

MODES = ("default", "compare")
_MODEL = re.compile(r"(.+?)(\d+)")


def make_parser(name: str = "evaluate") -> argparse.ArgumentParser:
    """The parser of both modes; the program has two names."""
    program = f"python -m rasa_core_api.{name}"
    parser = argparse.ArgumentParser(
        prog=program,
        description="Evaluate a dialogue model on stories.",
        epilog=f"example: {program} -s test_stories.md -d models/dialogue -o results",
    )
    parser.add_argument(
        "mode",
        nargs="?",
        choices=MODES,
        default="default",
        help="default judges one model, compare all that `train compare` wrote",
    )
    add_stories_options(parser)
    parser.add_argument("-d", "--core", required=True, help="model directory; for compare what `train compare` wrote")
    parser.add_argument("-m", "--max_stories", type=int, help="let a story count with this many of its last events")
    parser.add_argument("-u", "--nlu", help="NLU model directory, for --e2e")
    parser.add_argument("--endpoints", help="endpoints file with the NLU server, for --e2e")
    parser.add_argument("-o", "--output", default="results", help="directory for the results, or the page's file name")
    parser.add_argument("--failed", help="file for the failed stories (default: failed_stories.md among the results)")
    parser.add_argument("--e2e", "--end-to-end", dest="e2e", action="store_true", help="stories hold messages")
    parser.add_argument("--fail_on_prediction_errors", action="store_true", help="stop at the first wrong prediction")
    add_trusted_option(parser)
    add_logging_options(parser)
    return parser


def main(
    arguments: Sequence[str] | None = None, log_to: TextIO | None = None, name: str = "evaluate"
) -> int:
    """Run the command line; 0 when it did what was asked, 1 after an error. Log lines go to `log_to`."""
    use_one_thread(os.environ)
    parser = make_parser(name)
    options = parser.parse_args(arguments)
    if log_to is not None:
        begin_logging(options.loglevel, log_to)
    if options.e2e and not (options.nlu or options.endpoints):
        parser.error("--e2e needs what understands messages: -u/--nlu or --endpoints")
    if (options.nlu or options.endpoints) and not options.e2e:
        print("-u/--nlu and --endpoints change nothing without --e2e: stories name the intents", file=sys.stderr)
    if options.max_stories is not None and options.max_stories < 1:
        parser.error("--max_stories must be 1 or more")
    try:
        return _compare(options) if options.mode == "compare" else _evaluate(options)
    except RasaCoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _read(options: argparse.Namespace, model: Generation) -> StoryFiles:
    parse = RegexInterpreter(model.release).parse_sync
    with stories_path(options) as path:
        return read_stories([path], model.release, parse, e2e=options.e2e)


def _evaluate(options: argparse.Namespace) -> int:
    model = load_generation(Path(options.core), find_class=class_finder(options.trusted_modules))
    files = _read(options, model)
    page, failed = _places(options)

    async def work(parse: ParseMessage | None) -> Evaluation:
        progress = progress_line(options, sys.stderr)
        try:
            return await evaluate_stories(
                files.steps,
                model.domain,
                model.ensemble,
                parse=parse,
                max_events=options.max_stories,
                fail_on_errors=options.fail_on_prediction_errors,
                progress=progress,
            )
        finally:
            progress.close()

    evaluation = _with_nlu(options, work) if options.e2e else _finished(work(None))
    for path, text in (
        (page, evaluation_page(evaluation)),
        (page.with_suffix(".json"), json.dumps(evaluation.as_dict(), indent=2)),
        (failed, evaluation.failed_stories()),
    ):
        _write(path, text)
    print(evaluation.report())
    print(f"stories without a mistake: {evaluation.correct_stories} of {evaluation.stories}")
    print(f"predictions: {evaluation.accuracy:.1%} of {len(evaluation.pairs)} right")
    print(f"wrote {page}, {page.with_suffix('.json')} and {failed}")
    return 0


def _places(options: argparse.Namespace) -> tuple[Path, Path]:
    """The page and the file of failed stories. A file name (0.11: `story_confmat.pdf`) gets the page's suffix."""
    output = Path(options.output)
    if output.suffix in (".pdf", ".png", ".svg", ".html"):
        page, folder = output.with_suffix(".html"), output.parent
    else:
        page, folder = output / "story_confmat.html", output
    return page, Path(options.failed) if options.failed else folder / "failed_stories.md"


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise InvalidConfiguration(f"{path}: cannot be written: {error.strerror}") from None


def _finished(work: Awaitable[Evaluation]) -> Evaluation:
    """The result of a coroutine that waits for nothing."""
    results: list[Evaluation | Failure] = []
    Deferred.fromCoroutine(work).addBoth(results.append)  # type: ignore[arg-type]
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    assert isinstance(result, Evaluation)
    return result


def _with_nlu(options: argparse.Namespace, work: Callable[[ParseMessage | None], Awaitable[Evaluation]]) -> Evaluation:
    """Run `work` in the reactor with what the options name to understand messages."""
    from twisted.internet import reactor, task

    from rasa_core_api.endpoints import OutgoingHTTP, read_endpoints
    from rasa_core_api.nlu.loader import make_interpreter

    results: list[Evaluation] = []

    async def start(running: Any) -> None:
        http = OutgoingHTTP(running)
        endpoint = read_endpoints(options.endpoints, os.environ).nlu if options.endpoints else None
        interpreter = make_interpreter(options.nlu, endpoint, http=http, clock=running, environ=os.environ)
        if interpreter is None:
            raise InvalidConfiguration(f"{options.endpoints} names no NLU server: add nlu: {{url: ...}} or give -u")
        try:
            results.append(await work(interpreter.parse))
        finally:
            await interpreter.stop()

    failures: list[Failure] = []

    def begin(running: Any) -> Deferred[None]:
        deferred = Deferred.fromCoroutine(start(running))
        deferred.addErrback(failures.append)
        return deferred

    with suppress(SystemExit):
        task.react(begin, _reactor=reactor)
    if failures:
        failures[0].raiseException()
    return results[0]


def _compare(options: argparse.Namespace) -> int:
    root = Path(options.core)
    try:
        counts = json.loads((root / "num_stories.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidConfiguration(f"{root}: not what `train compare` wrote (num_stories.json: {error})") from None
    runs = sorted(root.glob("run_*"), key=lambda path: (len(path.name), path.name))
    results: dict[str, list[list[int]]] = {}
    for run in runs:
        models: dict[str, dict[int, Path]] = {}
        for directory in run.iterdir():
            match = _MODEL.fullmatch(directory.name)
            if match is not None and directory.is_dir():
                models.setdefault(match[1].rstrip("_"), {})[int(match[2])] = directory
        for name, by_number in sorted(models.items()):
            results.setdefault(name, []).append([_correct(options, by_number[key]) for key in sorted(by_number)])
    if not results or any(len(row) != len(counts) for rows in results.values() for row in rows):
        raise InvalidConfiguration(f"{root}: not every run has a model for each of the {len(counts)} percentages")
    output = Path(options.output)
    _write(output / "results.json", json.dumps(results, indent=2))
    _write(output / "model_comparison_graph.html", comparison_page(results, counts))
    for name, rows in results.items():
        means: list[JSON] = [round(sum(column) / len(column), 1) for column in zip(*rows, strict=True)]
        print(f"{name}: {means} correct stories with {counts} story steps in training")
    print(f"wrote {output / 'results.json'} and {output / 'model_comparison_graph.html'}")
    return 0


def _correct(options: argparse.Namespace, directory: Path) -> int:
    model = load_generation(directory, find_class=class_finder(options.trusted_modules))
    files = _read(options, model)
    work = evaluate_stories(files.steps, model.domain, model.ensemble, max_events=options.max_stories)
    return _finished(work).correct_stories


if __name__ == "__main__":
    sys.exit(until_interrupted(lambda: main(log_to=sys.stderr)))
