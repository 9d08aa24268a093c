"""CPU per turn, as a ratio to a bare Klein route measured in the same run.

    python benchmarks/turns.py [SECONDS]

Baseline and servers are measured alternately, so that both see the same machine.
"""

from __future__ import annotations

import statistics
import sys

from common import MODELS, bare_server, bot_server, load, table

LIMITS = {"cafe-memo": 3.0, "cafe-full": 6.0}


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    rows = []
    for model, limit in LIMITS.items():
        with bare_server() as bare, bot_server(MODELS / "rasa-core-0.11.12" / model) as bot:
            load(bot, 1, prefix="warm")
            load(bare, 1)
            pairs = [
                (load(bare, seconds)[0], load(bot, seconds, prefix=f"r{round_}-")[0]) for round_ in range(3)
            ]
        baseline = statistics.median(pair[0] for pair in pairs)
        turn = statistics.median(pair[1] for pair in pairs)
        ratio = statistics.median(pair[1] / pair[0] for pair in pairs)
        rows += [
            (f"{model}: bare Klein route", f"{baseline:.3f} ms", ""),
            (f"{model}: one turn", f"{turn:.3f} ms", ""),
            (f"{model}: ratio", f"{ratio:.2f}", f"at most {limit:g}"),
        ]
    table("server CPU per /respond turn, 64 connections", rows)


if __name__ == "__main__":
    main()
