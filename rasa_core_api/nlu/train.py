"""`python -m rasa_core_api.nlu.train`: an NLU model from training data, with the options of rasa_nlu 0.12 to 0.15."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from time import monotonic

from attrs import define, field

from rasa_core_api.exceptions import InvalidParameter, InvalidTrainingData, NotBuilt, RasaCoreError, TrainingFailed
from rasa_core_api.nlu.components import TEMPLATES
from rasa_core_api.nlu.config import default_config, read_config
from rasa_core_api.nlu.data import TrainingData
from rasa_core_api.nlu.data_loading import load_data
from rasa_core_api.training.console import (
    ProgressLine,
    add_logging_options,
    begin_logging,
    duration,
    progress_line,
    until_interrupted,
    use_one_thread,
)
from rasa_core_api.training.fetching import fetch


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m rasa_core_api.nlu.train",
        description="Train an NLU model, written to PATH/PROJECT/NAME; give that directory to the server with -u.",
        epilog="example: python -m rasa_core_api.nlu.train -d nlu.md -c nlu.yml --fixed_model_name current",
    )
    parser.add_argument("-o", "--path", default="models/nlu/", help="where models are written (models/nlu/)")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("-d", "--data", help="file or folder of training data: markdown or JSON")
    source.add_argument("-u", "--url", help="address of a file of training data")
    source.add_argument("--endpoints", help="not available: fetch from an address with -u")
    parser.add_argument(
        "-c",
        "--config",
        help=f"pipeline configuration; without it the default pipeline. Templates: {', '.join(TEMPLATES)}",
    )
    parser.add_argument("--project", default="default", help="name of the project, a folder (default)")
    parser.add_argument("--fixed_model_name", help="name of the model, instead of one made from the time")
    parser.add_argument("-t", "--num_threads", type=int, default=1, help="more than 1 is not available: one is as fast")
    parser.add_argument("--storage", help="not available: copy the directory to your storage")
    add_logging_options(parser)
    return parser


def main(
    arguments: Sequence[str] | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
) -> int:
    """Run the command line; 0 when a model was written."""
    use_one_thread(os.environ)
    options = make_parser().parse_args(arguments)
    begin_logging(options.loglevel, sys.stderr)
    try:
        print(f"wrote the model to {train(options, now())}")
    except (RasaCoreError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def train(options: argparse.Namespace, now: datetime) -> Path:
    """Train as the options say; returns the model's directory. Raises RasaCoreError and OSError."""
    _refuse(options)
    config = read_config(Path(options.config), os.environ) if options.config else default_config()
    stamp = now.strftime("%Y%m%d-%H%M%S")
    directory = Path(options.path, options.project, options.fixed_model_name or f"model_{stamp}")
    with _data_path(options) as path:
        data = load_data(path, config.language)
        print(_summary(data))
        # numpy comes with these
        from rasa_core_api.nlu.storage import save_model
        from rasa_core_api.nlu.training import train_model

        progress, begin = _Progress(options), monotonic()
        try:
            model, remarks = train_model(config, data, trained_at=stamp, roots=[Path()], progress=progress)
        finally:
            progress.close()
    for remark in remarks:
        print(f"note: {remark.replace(str(path), options.data or options.url)}", file=sys.stderr)
    try:
        save_model(model, directory)
    except OSError as error:
        raise TrainingFailed(f"the model cannot be written to {directory}: {error.strerror}") from error
    print(f"trained {', '.join(part.name for part in model.components)} in {duration(monotonic() - begin)}")
    return directory


def _refuse(options: argparse.Namespace) -> None:
    if options.endpoints:
        raise NotBuilt("--endpoints: training data is not fetched from an endpoints file; give its address with -u")
    if options.storage:
        raise NotBuilt(f"--storage {options.storage}: models are written to disk only; copy the directory afterwards")
    if options.num_threads != 1:
        print("note: -t has no effect, training takes one thread", file=sys.stderr)
    for name, value in (("--project", options.project), ("--fixed_model_name", options.fixed_model_name)):
        if value is not None and (not value or value in (".", "..") or "/" in value or os.sep in value):
            raise InvalidParameter(f"{name}: {value!r} is no name for a directory", parameter=name)


@contextmanager
def _data_path(options: argparse.Namespace) -> Iterator[Path]:
    """The training data that the options name; what was fetched is gone afterwards."""
    if options.data:
        yield Path(options.data)
        return
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "training_data")
        path.write_bytes(fetch(options.url))
        try:
            yield path
        except InvalidTrainingData as error:
            raise InvalidTrainingData(str(error).replace(str(path), options.url), **error.details) from error


def _summary(data: TrainingData) -> str:
    entities = sum(len(example.entities) for example in data.examples)
    return (
        f"training data: {len(data.examples)} examples, {len(data.intents())} intents, {entities} entities of "
        f"{len(data.entities())} kinds, {len(data.regexes)} regexes, {len(data.lookups)} lookup tables, "
        f"{len(data.synonyms)} synonyms"
    )


@define
class _Progress:
    """One line of progress with the time left for each part that takes long."""

    _options: argparse.Namespace
    _line: ProgressLine | None = field(default=None, init=False)
    _part: str = field(default="", init=False)

    def __call__(self, part: str, done: int, most: int, note: str) -> None:
        if self._line is None or part != self._part:
            self.close()
            self._part, self._line = part, progress_line(self._options, sys.stderr)
        if done or note:
            self._line(done / most, f"{part}{': ' + note if note else ''}")

    def close(self) -> None:
        if self._line is not None:
            self._line.close()


if __name__ == "__main__":
    sys.exit(until_interrupted(lambda: main()))
