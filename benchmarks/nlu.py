"""What understanding a text costs: parsing, loading, memory, and the same for the original where it is installed.

    python benchmarks/nlu.py [MODEL] [TEXTS] [--peer PYTHON]

MODEL is an NLU model directory, TEXTS a file of `{"text": ...}` lines; without them the recorded ones are taken. PYTHON
is an interpreter in which rasa_nlu is installed (else the one under RASA_CORE_PEERS, if that is set).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # as the server does: products this small only lose by sharing them

from common import CONFORMANCE, bot_server, cpu_seconds_exact, resident_mb, table  # noqa: E402

from rasa_core_api.nlu.loader import load_nlu  # noqa: E402

BOT = CONFORMANCE / "realbots" / "rasa-demo-2018"
PASSES = 9

# runs under the original: parse times in microseconds, one pass to warm up
PEER = """
import json, sys, time, logging
logging.disable(logging.CRITICAL)
from rasa_nlu.model import Interpreter
begin = time.perf_counter()
interpreter = Interpreter.load(sys.argv[1])
loading = time.perf_counter() - begin
texts = json.load(open(sys.argv[2]))
spent = []
for number in range(4):
    for text in texts:
        begin = time.perf_counter()
        interpreter.parse(text)
        if number:
            spent.append(time.perf_counter() - begin)
print(json.dumps([loading, spent]))
"""


def parse_times(parse: Callable[[str], Any], texts: list[str]) -> list[float]:
    """Seconds of each parse over some passes, after one to fill the caches."""
    spent = []
    for number in range(PASSES + 1):
        for text in texts:
            begin = time.perf_counter()
            parse(text)
            if number:
                spent.append(time.perf_counter() - begin)
    return spent


def first_pass(model: Path, texts: list[str]) -> float:
    """Median seconds of a parse while nothing is remembered of words yet."""
    loaded = load_nlu(model)
    spent = []
    for text in texts:
        begin = time.perf_counter()
        loaded.parse(text)
        spent.append(time.perf_counter() - begin)
    return statistics.median(spent)


def load_time(model: Path) -> float:
    """Median seconds of CPU for loading."""
    spent = []
    for _ in range(PASSES):
        begin = time.process_time()
        load_nlu(model)
        spent.append(time.process_time() - begin)
    return statistics.median(spent)


def serving(model: Path) -> list[tuple[str, str, str]]:
    """Both models of the bot in the real server: CPU to the first answer, and memory then."""
    starts = []
    for _ in range(3):
        with bot_server(BOT / "models" / "dialogue", "-u", str(model)) as server:
            status, answer = server.request("POST", "/conversations/first/respond", {"query": "hello there"})
            assert status == 200 and json.loads(answer), answer
            starts.append((cpu_seconds_exact(server.pid), resident_mb(server.pid)))
    cpu = statistics.median(start[0] for start in starts)
    memory = statistics.median(start[1] for start in starts)
    return [
        ("both models: CPU to the first answer", f"{cpu:.2f} s", "at most 1.00 s"),
        ("both models: resident memory", f"{memory:.1f} MB", "at most 115 MB"),
    ]


def peer_python(given: str | None) -> str | None:
    """The interpreter of the original, if there is one."""
    if given is not None:
        return given
    python = Path(os.environ.get("RASA_CORE_PEERS", "/nowhere")) / "rasa-core-0.11.12" / "bin" / "python"
    return str(python) if python.exists() else None


def peer(python: str, model: Path, texts: list[str]) -> tuple[float, float]:
    """Seconds the original takes to load the model and, median, to parse; without network parts."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = shutil.copytree(model, Path(scratch) / "model")
        (copy / "metadata.json").chmod(0o644)
        metadata = json.loads((copy / "metadata.json").read_text())
        metadata["pipeline"] = [part for part in metadata["pipeline"] if "duckling" not in str(part).lower()]
        (copy / "metadata.json").write_text(json.dumps(metadata))
        (Path(scratch) / "texts.json").write_text(json.dumps(texts))
        out = subprocess.run(
            [python, "-W", "ignore", "-c", PEER, str(copy), str(Path(scratch) / "texts.json")],
            capture_output=True, text=True, check=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        ).stdout  # fmt: skip
    loading, spent = json.loads(out.splitlines()[-1])
    return loading, statistics.median(spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", type=Path, default=BOT / "models" / "nlu" / "current")
    parser.add_argument("texts", nargs="?", type=Path, default=CONFORMANCE / "nlu" / "rasa-demo-2018.jsonl")
    parser.add_argument("--peer", metavar="PYTHON")
    arguments = parser.parse_args()
    model: Path = arguments.model
    texts = [json.loads(line)["text"] for line in arguments.texts.read_text().splitlines()]

    load_nlu(model)  # imports
    loading = load_time(model)
    fresh = first_pass(model, texts)
    spent = parse_times(load_nlu(model).parse, texts)
    median = statistics.median(spent)
    rows = [
        (f"full parse, {len(texts)} texts, median", f"{median * 1e6:.0f} us", "at most 100 us"),
        ("full parse, 99 of 100 within", f"{sorted(spent)[len(spent) * 99 // 100] * 1e6:.0f} us", ""),
        ("full parse, nothing remembered, median", f"{fresh * 1e6:.0f} us", ""),
        ("loading, median CPU", f"{loading * 1e3:.1f} ms", "at most 50 ms"),
    ]
    if model == BOT / "models" / "nlu" / "current":
        rows += serving(model)
    python = peer_python(arguments.peer)
    if python is not None:
        peer_loading, peer_median = peer(python, model, texts)
        rows += [
            ("the original: full parse, median", f"{peer_median * 1e6:.0f} us", f"{peer_median / median:.1f} times"),
            ("the original: loading", f"{peer_loading * 1e3:.0f} ms", f"{peer_loading / loading:.0f} times"),
        ]
    table(f"understanding with {model.name} ({sys.version.split()[0]})", rows)


if __name__ == "__main__":
    main()
