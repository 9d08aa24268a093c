"""CPU time until the server answers, and its resident memory then (median of five starts).

    python benchmarks/startup.py
"""

from __future__ import annotations

import statistics

from common import MODELS, bot_server, table

LIMITS = {"cafe-memo": (0.55, 65), "cafe-full": (0.70, 95)}


def main() -> None:
    rows = []
    for model, (cpu_limit, memory_limit) in LIMITS.items():
        starts = []
        for _ in range(5):
            with bot_server(MODELS / "rasa-core-0.11.12" / model) as server:
                starts.append((server.ready_cpu, server.ready_mb))
        cpu = statistics.median(start[0] for start in starts)
        memory = statistics.median(start[1] for start in starts)
        rows += [
            (f"{model}: CPU until ready", f"{cpu:.2f} s", f"at most {cpu_limit:.2f} s"),
            (f"{model}: resident memory", f"{memory:.1f} MB", f"at most {memory_limit} MB"),
        ]
    table("starting", rows)


if __name__ == "__main__":
    main()
