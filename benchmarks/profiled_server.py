"""The server, with a sample of its main thread's stack taken every 5 ms of CPU: how much of it is spent for a broker?

    python benchmarks/profiled_server.py FILE OPTIONS_OF_RUN...

At the end FILE gets JSON: `samples`, and `broker`, those with a frame of the outbox, of a broker, or of its client.
SIGUSR1 sets both to 0.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
#: Parts of the paths of what runs for a broker alone.
BROKER = (f"{ROOT}/rasa_core_api/outbox.py", f"{ROOT}/rasa_core_api/brokers/", "/site-packages/pika/",
          "/site-packages/confluent_kafka/", "/site-packages/sqlalchemy/", "/site-packages/psycopg")  # fmt: skip
INTERVAL = 0.005

counts = {"samples": 0, "broker": 0}
known: dict[str, bool] = {}


def is_broker(path: str) -> bool:
    found = known.get(path)
    if found is None:
        found = known[path] = any(part in path for part in BROKER)
    return found


def sample(number: int, frame: FrameType | None) -> None:
    counts["samples"] += 1
    while frame is not None:
        if is_broker(frame.f_code.co_filename):
            counts["broker"] += 1
            return
        frame = frame.f_back


def reset(number: int, frame: FrameType | None) -> None:
    counts["samples"] = counts["broker"] = 0


def main() -> int:
    from rasa_core_api.run import main as run

    signal.signal(signal.SIGPROF, sample)
    signal.signal(signal.SIGUSR1, reset)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
    try:
        return run(sys.argv[2:])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        Path(sys.argv[1]).write_text(json.dumps(counts))


if __name__ == "__main__":
    sys.exit(main())
