"""How well and how fast new NLU models are: cross-validation, training, saving, loading and parsing.

    python benchmarks/nlu_quality.py [DATA] [--folds 5] [--config C.yml] [--embedding]

DATA defaults to the recordings' real bot (`RASA_CORE_CONFORMANCE`, default ../shared/conformance). Prints accuracy,
macro and weighted F1, entity scores, how many right and wrong answers pass `nlu_threshold: 0.8`, and times on one
thread. `--embedding` does the same for the template `tensorflow_embedding` (slower). Exits with 1 where the default
pipeline misses accuracy 0.82, macro F1 0.77, 1.5 s of training a fold or 100 us a parse on the recorded bot.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time

from rasa_core_api.nlu.config import PipelineConfig, config_from_json, default_config, read_config
from rasa_core_api.nlu.data import TrainingData
from rasa_core_api.nlu.data_loading import load_data
from rasa_core_api.nlu.evaluation import Evaluation, answers_of, averages, stratified, total
from rasa_core_api.nlu.storage import load_model, save_model
from rasa_core_api.nlu.training import train_model
from rasa_core_api.training.console import use_one_thread

ROOT = Path(__file__).resolve().parents[1]
PASSES = 9  # over the texts, for the times of parsing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--embedding", action="store_true")
    options = parser.parse_args()
    use_one_thread(os.environ)
    recordings = Path(os.environ.get("RASA_CORE_CONFORMANCE") or ROOT.parent / "shared" / "conformance")
    path = options.data or recordings / "realbots" / "rasa-demo-2018" / "data" / "nlu" / "nlu.md"
    data = load_data(path).with_lookups_read([Path()])
    print(f"{path}: {len(data.examples)} examples, {len(data.intents())} intents")
    if options.config:
        pipelines = {str(options.config): read_config(options.config)}
    else:
        pipelines = {"default pipeline": default_config()}
        if options.embedding:
            embedding = config_from_json({"pipeline": "tensorflow_embedding"}, "template")
            pipelines["tensorflow_embedding"] = embedding
    missed = False
    for name, config in pipelines.items():
        figures = measure(name, config, data, options.folds)
        if options.data is None and name == "default pipeline":
            accuracy, macro_f1, training, parsing = figures
            missed = accuracy < 0.82 or macro_f1 < 0.77 or training > 1.5 or parsing > 100
    return int(missed)


def measure(name: str, config: PipelineConfig, data: TrainingData, folds: int) -> tuple[float, float, float, float]:
    """Print the figures of one pipeline; returns accuracy, macro F1, seconds a fold and microseconds of CPU a parse."""
    evaluation, seconds = cross_validation(config, data, folds)
    intents, entities = evaluation.intents(), total(evaluation.entities())
    macro_f1 = averages(intents)["macro_f1"]
    right, wrong = next((right, wrong) for threshold, right, wrong in evaluation.coverage() if threshold == 0.8)
    print(f"\n{name}, {folds} folds")
    print(f"  accuracy {evaluation.accuracy():.4f}   macro F1 {macro_f1:.4f}   ", end="")
    print(f"weighted F1 {averages(intents)['weighted_f1']:.4f}")
    print(f"  entities: precision {entities.precision:.3f}, recall {entities.recall:.3f}, F1 {entities.f1:.3f}")
    print(f"  confidence of 0.8 or more: {right:.1%} of the right answers, {wrong:.1%} of the wrong ones")
    print(f"  training: {statistics.median(seconds):.2f} s of CPU a fold (worst {max(seconds):.2f})")
    return evaluation.accuracy(), macro_f1, max(seconds), speed(config, data)


def cross_validation(config: PipelineConfig, data: TrainingData, folds: int) -> tuple[Evaluation, list[float]]:
    where = stratified(data.examples, folds)
    evaluation, seconds = Evaluation(), []
    for fold in range(folds):
        rest = [example for example, other in zip(data.examples, where, strict=True) if other != fold]
        begin = process_time()
        model, _ = train_model(config, data.with_examples(rest))
        seconds.append(process_time() - begin)
        inside = [example for example, other in zip(data.examples, where, strict=True) if other == fold]
        evaluation.answers += answers_of(model.parse, inside)
    return evaluation, seconds


def speed(config: PipelineConfig, data: TrainingData) -> float:
    """Microseconds of CPU a parse, by a model that has seen the texts before."""
    model, _ = train_model(config, data)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model"
        save_model(model, path)
        size = sum(file.stat().st_size for file in path.iterdir())
        load_model(path)
        begin = perf_counter()
        model = load_model(path)
        loading = perf_counter() - begin
    texts = [example.text for example in data.examples][:: max(1, len(data.examples) // 400)][:400]
    cold = one_pass(model.parse, texts)
    warm = min(one_pass(model.parse, texts) for _ in range(PASSES))
    print(f"  model: {size / 1e6:.1f} MB, loaded in {loading * 1e3:.1f} ms")
    print(f"  parse: {warm:.0f} us (first time over {len(texts)} texts: {cold:.0f} us)")
    return warm


def one_pass(parse, texts) -> float:
    begin = process_time()
    for text in texts:
        parse(text)
    return (process_time() - begin) / len(texts) * 1e6


if __name__ == "__main__":
    sys.exit(main())
