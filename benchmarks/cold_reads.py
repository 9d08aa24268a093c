"""How fast long conversations are read from cold, once a process; with a second checkout, both side by side.

    python benchmarks/cold_reads.py [ROUNDS] [DIRECTORY] [OTHER]

DIRECTORY is where the database files go. OTHER is another checkout of this project: its server and this one's read the
same stores by turns, so that what the machine does meanwhile meets both. One conversation is made of short events, the
other of those that a real release recorded, with parse data, rankings, forms and what takes turns back.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import CONFORMANCE, MODELS, bot_server, table
from databases import Databases, endpoints, start_databases

MODEL = MODELS / "rasa-core-0.11.12" / "cafe-memo"
#: Events of each conversation that is read.
LONG = 40_000
LIMIT = 100_000


def short_events() -> list[Any]:
    return [
        {"event": "slot", "name": "drink", "value": f"tea {number}", "timestamp": 1.5e9 + number}
        if number % 4
        else {"event": "user", "text": "hi", "parse_data": {"intent": {"name": "greet"}, "entities": []}}
        for number in range(LONG)
    ]


def recorded_events() -> list[Any]:
    """All logs of the transcripts one after another, again and again."""
    found: list[Any] = []
    for path in sorted((CONFORMANCE / "transcripts").glob("*.jsonl")):
        for line in path.open(encoding="utf-8"):
            answers = [step.get("answer") for step in json.loads(line)["steps"]]
            found += max((each["events"] for each in answers if has_events(each)), key=len, default=[])
    return [found[number % len(found)] for number in range(LONG)]


def has_events(answer: Any) -> bool:
    return isinstance(answer, dict) and bool(answer.get("events")) and all("event" in each for each in answer["events"])


CONVERSATIONS = {"short": short_events, "recorded": recorded_events}


def fill(settings: str, sender_id: str, events: list[Any]) -> None:
    """Store a conversation."""
    with bot_server(MODEL, endpoints=settings) as server:
        for begin in range(0, len(events), 2000):
            path = f"/conversations/{sender_id}/tracker/events?include_events=NONE"
            status, answer = server.request("POST", path, events[begin : begin + 2000])
            assert status == 200, answer


def cold_read(settings: str, sender_id: str, root: Path | None = None) -> float:
    """Events a second at the first request for a long conversation, after a restart."""
    with bot_server(MODEL, endpoints=settings, root=root) as server:
        began = time.perf_counter()
        status, body = server.request("GET", f"/conversations/{sender_id}/tracker?include_events=NONE")
        taken = time.perf_counter() - began
        assert status == 200 and json.loads(body)["sender_id"] == sender_id
    return LONG / taken


def measure(
    directory: Path, databases: Databases, rounds: int, other: Path | None = None
) -> list[tuple[str, str, str]]:
    """Rows of a table: each store's median."""
    kinds = ["sqlite", *databases]
    for sender_id, events in CONVERSATIONS.items():
        for kind in kinds:
            fill(endpoints(kind, directory, databases), sender_id, events())
    roots = [None] if other is None else [None, other]
    reads: dict[tuple[str, str, Path | None], list[float]] = {
        (kind, sender_id, root): [] for kind in kinds for sender_id in CONVERSATIONS for root in roots
    }
    for round_ in range(rounds):
        for (kind, sender_id, root), taken in list(reads.items())[:: -1 if round_ % 2 else 1]:
            taken.append(cold_read(endpoints(kind, directory, databases), sender_id, root))
    rows = []
    for (kind, sender_id, root), taken in reads.items():
        name = f"{kind}: {sender_id} events read from cold, a second" + ("" if root is None else " (the other)")
        spread = f"at least {LIMIT}; rounds {min(taken):.0f}-{max(taken):.0f}"
        rows.append((name, f"{statistics.median(taken):.0f}", spread))
    return rows


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    base = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    other = Path(sys.argv[3]).resolve() if len(sys.argv) > 3 else None
    with tempfile.TemporaryDirectory(dir=base) as scratch, ExitStack() as running:
        directory = Path(scratch)
        rows = measure(directory, start_databases(running, directory), rounds, other)
    table("cold reads", rows)


if __name__ == "__main__":
    main()
