"""CPU per turn in a short and in a very long conversation, for each policy and store.

    python benchmarks/growth.py [EVENTS] [STORE ...]

Both conversations are on the same server and take turns in small blocks, so that both see the same machine. The long
one is built with PUT; a hundred turns warm both up. Stores are memory, sqlite, postgres and redis, as far as their
programs are installed.
"""

from __future__ import annotations

import http.client
import json
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from common import MODELS, Server, bot_server, cpu_seconds_exact, table
from databases import endpoints, start_databases

MESSAGES = ["/greet", '/order{"drink": "coffee"}', '/inform{"size": "large"}', "/deny", "/thank"]
FALLBACKS = ["/inform"]  # nothing is known about it: each turn is rewound
CASES = [
    ("memoization, augmented", "cafe-memo", MESSAGES),
    ("memoization, Keras, fallback", "cafe-full", MESSAGES),
    ("Keras", "cafe-keras", MESSAGES),
    ("sklearn", "cafe-sklearn", MESSAGES),
    ("a fallback on every turn", "cafe-full", FALLBACKS),
]
BLOCK = 20
BLOCKS = 30


def history(count: int) -> list[dict[str, object]]:
    events: list[dict[str, object]] = []
    for number in range(count // 5):
        intent = ["greet", "thank"][number % 2]
        parse_data = {"intent": {"name": intent, "confidence": 1.0}, "entities": [], "text": f"/{intent}"}
        utter = {"greet": "utter_greet", "thank": "utter_welcome"}[intent]
        events += [
            {"event": "user", "text": f"/{intent}", "parse_data": parse_data, "timestamp": 1.0},
            {"event": "action", "name": utter, "timestamp": 1.0},
            {"event": "bot", "text": "Welcome", "timestamp": 1.0},
            {"event": "slot", "name": "last_price", "value": number, "timestamp": 1.0},
            {"event": "action", "name": "action_listen", "timestamp": 1.0},
        ]
    return [{"event": "action", "name": "action_listen", "timestamp": 1.0}, *events]


class Talker:
    """One conversation on a connection of its own."""

    def __init__(self, server: Server, sender_id: str, count: int, messages: list[str]) -> None:
        self.server = server
        self.path = f"/conversations/{sender_id}"
        self.messages = messages
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        self.said = 0
        assert self._send("PUT", f"{self.path}/tracker", history(count)) == 200

    def _send(self, method: str, path: str, body: object) -> int:
        self.connection.request(method, path, json.dumps(body))
        response = self.connection.getresponse()
        response.read()
        return response.status

    def talk(self, turns: int) -> float:
        """CPU milliseconds a turn."""
        before = cpu_seconds_exact(self.server.pid)
        for _ in range(turns):
            text = self.messages[self.said % len(self.messages)]
            self.said += 1
            assert self._send("POST", f"{self.path}/respond", {"query": text}) == 200
        return (cpu_seconds_exact(self.server.pid) - before) / turns * 1e3


def measure(model: str, messages: list[str], count: int, endpoints: str | None) -> tuple[float, float]:
    """Milliseconds of CPU a turn in the short and the long conversation."""
    with bot_server(MODELS / "rasa-core-0.11.12" / model, endpoints=endpoints) as server:
        short = Talker(server, "short", 8, messages)
        long = Talker(server, "long", count, messages)
        short.talk(100)
        long.talk(100)
        blocks = [(short.talk(BLOCK), long.talk(BLOCK)) for _ in range(BLOCKS)]
        status, body = server.request("GET", "/conversations/long/tracker?include_events=ALL")
        assert status == 200 and len(json.loads(body)["events"]) > count, "history was cut"
    return statistics.median(block[0] for block in blocks), statistics.median(block[1] for block in blocks)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 40_000
    rows = []
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as running:
        directory = Path(scratch)
        databases = start_databases(running, directory)
        for kind in sys.argv[2:] or ["memory", "sqlite", *databases]:
            for number, (name, model, messages) in enumerate(CASES):
                settings = endpoints(kind, directory, databases).replace("conversations.db", f"{number}.db")
                short, long = measure(model, messages, count, settings)
                rows.append((f"{name}, {kind}", f"{short:.3f} / {long:.3f} ms = {long / short:.2f}", "at most 1.1"))
    table(f"CPU per turn at 8 and at {count} events", rows)


if __name__ == "__main__":
    main()
