"""`python -m rasa_core_api.nlu.evaluate`: how well a model, or a pipeline in cross-validation, understands a data set.

Writes `report.json` for programs and `report.html`, one page without links, for people.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import InvalidParameter, RasaCoreError
from rasa_core_api.nlu.config import default_config, read_config
from rasa_core_api.nlu.data import TrainingData
from rasa_core_api.nlu.data_loading import load_data
from rasa_core_api.nlu.evaluation import Evaluation, answers_of, averages, cross_validate, is_error, total
from rasa_core_api.nlu.evaluation_page import page
from rasa_core_api.training.console import (
    add_logging_options,
    begin_logging,
    progress_line,
    until_interrupted,
    use_one_thread,
)

MODES = ("evaluation", "crossvalidation")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m rasa_core_api.nlu.evaluate",
        description="Ask a model about texts whose meaning is known, or train and ask in turn (cross-validation).",
        epilog="example: python -m rasa_core_api.nlu.evaluate -d nlu_test.md -m models/nlu/default/current",
    )
    parser.add_argument("-d", "--data", required=True, help="file or folder with the texts and what they mean")
    parser.add_argument("--mode", choices=MODES, help="evaluation with -m (default), crossvalidation without")
    parser.add_argument("-m", "--model", help="directory of the model to ask")
    parser.add_argument("-c", "--config", help="pipeline for cross-validation; without it the default pipeline")
    parser.add_argument("-f", "--folds", type=int, default=10, help="folds of the cross-validation (10)")
    parser.add_argument("--seed", type=int, default=0, help="another number deals the examples to folds otherwise (0)")
    parser.add_argument("-o", "--out", default="nlu_evaluation", help="directory for the reports (nlu_evaluation)")
    parser.add_argument("--errors", help="JSON file for the examples that were not understood")
    parser.add_argument("-s", "--successes", help="JSON file for the examples that were")
    for old in ("--histogram", "--confmat"):
        parser.add_argument(old, help="not needed: the page has this drawing")
    add_logging_options(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when the reports were written."""
    use_one_thread(os.environ)
    options = make_parser().parse_args(arguments)
    begin_logging(options.loglevel, sys.stderr)
    try:
        evaluation = evaluate(options)
        out = Path(options.out)
        out.mkdir(parents=True, exist_ok=True)
        _write(out / "report.json", evaluation.as_json())
        (out / "report.html").write_text(page(evaluation), encoding="utf-8")
        for path, wanted in ((options.errors, True), (options.successes, False)):
            if path:
                _write(Path(path), [answer.as_json() for answer in evaluation.answers if is_error(answer) is wanted])
    except (RasaCoreError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(_summary(evaluation))
    print(f"wrote {out / 'report.json'} and {out / 'report.html'}")
    return 0


def evaluate(options: argparse.Namespace) -> Evaluation:
    """Evaluate as the options say. Raises RasaCoreError and OSError."""
    mode = options.mode or ("evaluation" if options.model else "crossvalidation")
    if options.histogram or options.confmat:
        print(
            "note: the page has the histogram and the confusions; --histogram and --confmat write nothing",
            file=sys.stderr,
        )
    if mode == "evaluation":
        if not options.model:
            raise InvalidParameter("--mode evaluation needs a model: -m DIRECTORY", parameter="model")
        if options.config:
            raise InvalidParameter("-c is for cross-validation; a model has its own pipeline", parameter="config")
        from rasa_core_api.nlu.loader import load_nlu

        model = load_nlu(Path(options.model), cache=None, connect=None)
        data = load_data(Path(options.data), model.language)
        title = f"{options.model} on {options.data}"
        return Evaluation(answers_of(model.parse, data.examples), title)
    if options.model:
        raise InvalidParameter("cross-validation trains its own models, it takes no -m", parameter="model")
    config = read_config(Path(options.config), os.environ) if options.config else default_config()
    data = load_data(Path(options.data), config.language).with_lookups_read([Path()])
    _check_folds(options.folds, data)
    progress = progress_line(options, sys.stderr)
    try:
        evaluation = cross_validate(
            config,
            data,
            options.folds,
            seed=options.seed,
            fold_done=lambda done, folds: progress(done / folds, f"fold {done} of {folds}"),
        )
    finally:
        progress.close()
    evaluation.title = f"{options.folds}-fold cross-validation on {options.data}"
    return evaluation


def _check_folds(folds: int, data: TrainingData) -> None:
    if not 2 <= folds <= len(data.examples):
        raise InvalidParameter(
            f"--folds {folds}: a number from 2 to the {len(data.examples)} examples is wanted", parameter="folds"
        )


def _write(path: Path, value: JSON) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="ascii")


def _summary(evaluation: Evaluation) -> str:
    lines = [f"{evaluation.title}: {len(evaluation.answers)} examples"]
    intents, entities = evaluation.intents(), evaluation.entities()
    if intents:
        figures = averages(intents)
        lines.append(
            f"  intents: accuracy {evaluation.accuracy():.3f}, macro F1 {figures['macro_f1']:.3f}, "
            f"weighted F1 {figures['weighted_f1']:.3f}"
        )
    if entities:
        score = total(entities)
        lines.append(f"  entities: precision {score.precision:.3f}, recall {score.recall:.3f}, F1 {score.f1:.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(until_interrupted(lambda: main()))
