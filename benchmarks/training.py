"""Time, memory and accuracy of training.

    python benchmarks/training.py [--conformance DIR] [--seeds 5]

Trains the demo bot of 2018 (177 stories) as Rasa Core 0.11 did, with augmentation 20: memoization alone, then with
the network for 100 epochs, each in a process of its own. Then the network alone, per schedule: time, and accuracy on
the turns of two other augmentation runs that are not among the training turns, mean and range over the seeds. Last,
5 000 generated stories with 20 checkpoints. Rasa Core 0.11.12 took 54 s and 257 s for the first two rows.
Times are of the CPU, of one process with one thread, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

MEMOIZATION = "policies:\n- name: MemoizationPolicy\n  max_history: 6\n"
DEFAULT = MEMOIZATION + "- name: KerasPolicy\n  max_history: 6\n"
NETWORK = DEFAULT + "  epochs: 100\n"

_CHILD = """
import resource, sys, time
from rasa_core_api.train import main
code = main(sys.argv[1:])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(f"MEASURED {code} {time.process_time():.2f} {peak}")
"""


def measured(stories: Path, domain: Path, policies: str, *more: str) -> str:
    """Train in a process of its own; what it took in words."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "policies.yml"
        file.write_text(policies)
        files = ["-s", str(stories), "-d", str(domain), "-c", str(file), "-o", str(Path(directory) / "model")]
        command = [sys.executable, "-c", _CHILD, *files, "--quiet", "--no_check", *more]
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = [line.split() for line in answer.stdout.splitlines() if line.startswith("MEASURED")]
    if not found or found[0][1] != "0":
        return f"failed: {answer.stderr.strip().splitlines()[-1:]}"
    return f"{found[0][2]} s of CPU, {found[0][3]} MB at most"


def schedules(demo: Path, seeds: int) -> None:
    """The network by schedule, on turns it has not seen."""
    import numpy as np

    from rasa_core_api.config import read_yaml_file
    from rasa_core_api.domain import Domain
    from rasa_core_api.featurizers import featurizer_from_json
    from rasa_core_api.interpreter import RegexInterpreter
    from rasa_core_api.releases import BY_NAME
    from rasa_core_api.training import generator
    from rasa_core_api.training.examples import windows
    from rasa_core_api.training.featurizing import FeaturizerSettings
    from rasa_core_api.training.learners.network import Matrix, NetworkSettings, accuracy, encoded, fit, window_matrix
    from rasa_core_api.training.story_reader import read_stories

    release = BY_NAME["0.11"]
    domain = Domain.from_json(read_yaml_file(demo / "domain.yml"), release)
    files = read_stories([demo / "data" / "core"], release, RegexInterpreter(release).parse_sync)
    settings = generator.Settings(augmentation_factor=20, unique_last_num_states=6)
    runs = []
    for seed in (42, 1, 2):
        generator.SEED = seed
        runs.append(generator.generate(files.steps, domain, settings))
    generator.SEED = 42
    encoder = featurizer_from_json(FeaturizerSettings(max_history=6).as_json(domain, 0), domain).encoder
    assert encoder is not None
    matrix = window_matrix(runs[0], encoder, 6)

    def turns(run: generator.TrainingData) -> dict[object, tuple[tuple[int, ...], str]]:
        texts = {-1: "null"} | {number: run.contexts.text(number) for number in range(len(run.contexts.states))}
        return {(tuple(texts[s] for s in window), action): (window, action) for window, action in windows(run, 6)}

    seen, hard = set(turns(runs[0])), []
    for run in runs[1:]:
        fresh = {key: turn for key, turn in turns(run).items() if key not in seen}
        seen |= set(fresh)
        inputs = np.array([window for window, _ in fresh.values()], np.int32)
        labels = np.array([domain.action_index[action] for _, action in fresh.values()])
        hard.append(Matrix(encoded(run.contexts.states, encoder), inputs, labels))
    count = sum(len(part.inputs) for part in hard)
    print(f"network: {len(matrix.inputs)} examples, {count} turns of other runs, {seeds} seeds")
    for epochs, batch in ((None, None), (100, None), (12, 64)):
        times, scores = [], []
        for seed in range(1, seeds + 1):
            begin = time.process_time()
            chosen = NetworkSettings(epochs=epochs, batch_size=batch, random_seed=seed)
            network = fit(matrix, len(domain.action_names), chosen, lambda share, what: None).network
            times.append(time.process_time() - begin)
            scores.append(sum(accuracy(network, part) * len(part.inputs) for part in hard) / count)
        print(
            f"  {epochs or 'default':>7} epochs, batch {batch or 'default'}: {sum(times) / seeds:.1f} s of CPU, "
            f"accuracy {sum(scores) / seeds:.3f} ({min(scores):.3f} to {max(scores):.3f})"
        )


def many_stories(count: int = 5000, checkpoints: int = 20) -> tuple[str, str]:
    """Domain and stories; half of the stories lead to a checkpoint, a few lead on from one."""
    chosen = random.Random(1)
    blocks = []
    for number in range(count):
        lines = [f"## story {number}"]
        follows = chosen.random() < 0.04
        if follows:
            lines.append(f"> point_{chosen.randrange(checkpoints)}")
        for _ in range(chosen.randint(1, 4)):
            entity = '{"thing": "x"}' if chosen.random() < 0.2 else ""
            lines.append(f"* intent_{chosen.randrange(40)}{entity}")
            lines += [f"  - utter_{chosen.randrange(60)}" for _ in range(chosen.randint(1, 2))]
        if not follows and chosen.random() < 0.5:
            lines.append(f"> point_{chosen.randrange(checkpoints)}")
        blocks.append("\n".join(lines))
    intents, actions = (", ".join(f"{kind}_{n}" for n in range(size)) for kind, size in (("intent", 40), ("utter", 60)))
    domain = f"intents: [{intents}]\nentities: [thing]\nslots: {{thing: {{type: text}}}}\nactions: [{actions}]\n"
    return domain, "\n\n".join(blocks) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("RASA_CORE_CONFORMANCE") or ROOT.parent / "shared" / "conformance"
    parser.add_argument("--conformance", type=Path, default=Path(default))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    demo = options.conformance / "realbots" / "rasa-demo-2018"
    stories, domain = demo / "data" / "core", demo / "domain.yml"
    old = ("--for-release", "0.11.12", "--augmentation", "20")
    print(f"demo bot, memoization, augmentation 20: {measured(stories, domain, MEMOIZATION, *old)}")
    print(f"demo bot, and the network for 100 epochs: {measured(stories, domain, NETWORK, *old)}")
    print(f"demo bot, and the network as by default: {measured(stories, domain, DEFAULT, *old)}")
    with tempfile.TemporaryDirectory() as directory:
        for name, text in zip(("domain.yml", "stories.md"), many_stories(), strict=True):
            (Path(directory) / name).write_text(text)
        for factor in ("0", "20", "50"):
            places = Path(directory) / "stories.md", Path(directory) / "domain.yml"
            took = measured(*places, MEMOIZATION, "--augmentation", factor)
            print(f"5 000 stories with 20 checkpoints, augmentation {factor}: {took}")
    schedules(demo, options.seeds)


if __name__ == "__main__":
    main()
