"""What an event broker costs a turn - away, hanging, or there - and whether every event arrives after it was away.

Brokers of each kind are away from the first turn to the last: a RabbitMQ that refuses, one that accepts and never
answers, a Kafka and a PostgreSQL that refuse, and a file whose directory is missing. One that is there, a file, is told
beside them.

    python benchmarks/broker.py [SECONDS] [DIRECTORY]

Each kind is measured beside a server of its own without a broker: two processes that began together get a second of
load each in the order plain, broker, broker, plain, 64 connections, so that a machine whose speed changes treats both
alike. Three such blocks a start, three starts (where the system puts a process makes a few per cent of its speed); the
median of the nine counts, for the CPU of the server process a turn, all threads, and for the time that a turn takes (64
connections by turns a second). Beside them two servers without a broker tell what the figures are worth. Then a
RabbitMQ (Debian package) starts at the address where none was, and everything that is stored has to lie in its queue,
in the order of each conversation, with the messages of all turns that were answered.
"""

from __future__ import annotations

import json
import socket
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from attrs import define, field

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import MODELS, Server, bot_server, free_port, load, table

from tests.brokers.servers import has_rabbitmq, rabbitmq_server

MODEL = MODELS / "rasa-core-0.11.12" / "cafe-memo"
STARTS, BLOCKS = 3, 3
CONNECTIONS = 64
LIMIT = 1.05
AWAY = ("rabbit refuses", "rabbit hangs", "kafka refuses", "sql refuses", "file is missing")


def hanging_port(running: ExitStack) -> int:
    """A listener that accepts everybody and never says a word."""
    listener = running.enter_context(socket.create_server(("127.0.0.1", 0)))
    kept: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                kept.append(listener.accept()[0])
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    return int(listener.getsockname()[1])


def endpoints(store: str, broker: str | None, path: Path) -> str:
    text = f"tracker_store:\n  type: {store}\n" + (f"  path: {path}\n" if store == "sqlite" else "")
    return text if broker is None else f"{text}event_broker:\n{broker}"


def brokers(directory: Path, refused: int, hanging: int) -> dict[str, str | None]:
    """Entries of the endpoints file; `refused` is a port where nobody listens, `hanging` one where nobody speaks."""
    return {
        "none": None,
        "rabbit refuses": f"  url: 127.0.0.1\n  port: {refused}\n",
        "rabbit hangs": f"  url: 127.0.0.1\n  port: {hanging}\n",
        "kafka refuses": f"  type: kafka\n  url: 127.0.0.1:{refused}\n",
        "sql refuses": f"  type: sql\n  dialect: postgresql+psycopg\n  url: 127.0.0.1\n  port: {refused}\n  db: bot\n",
        "file is missing": f"  type: file\n  path: {directory / 'nowhere' / 'events.log'}\n",
        "file is there": f"  type: file\n  path: {directory / 'events.log'}\n",
    }


@define
class Kind:
    """What was measured of one kind of broker: parts of the server without one that ran beside it."""

    cpu: list[float] = field(factory=list)
    took: list[float] = field(factory=list)
    plain: list[float] = field(factory=list)  # milliseconds of CPU a turn without one
    answered: int = 0

    def block(self, plain: Server, server: Server, seconds: float, prefix: str) -> None:
        """A load each, in an order in which a steady change of the machine's speed makes no difference."""
        used, turns = {plain.pid: 0.0, server.pid: 0.0}, {plain.pid: 0, server.pid: 0}
        for number, one in enumerate((plain, server, server, plain)):
            cost, count = load(one, seconds, CONNECTIONS, prefix=f"{prefix}-{number}-")
            used[one.pid] += cost * count
            turns[one.pid] += count
        self.plain.append(used[plain.pid] / turns[plain.pid])
        self.cpu.append(used[server.pid] / turns[server.pid] / self.plain[-1])
        self.took.append(turns[plain.pid] / turns[server.pid])
        self.answered += turns[server.pid]


def measure(store: str, seconds: float, directory: Path, refused: int) -> tuple[list[tuple[str, str, str]], int]:
    """What a turn costs with each kind of broker; and how many turns the server answered whose RabbitMQ refuses."""
    place = directory / store
    place.mkdir()
    kinds: dict[str, Kind] = defaultdict(Kind)
    for start in range(STARTS):
        with ExitStack() as running:
            for name, broker in brokers(place, refused, hanging_port(running)).items():
                file = name.replace(" ", "-")
                with (
                    bot_server(MODEL, endpoints=endpoints(store, None, place / f"plain-{file}.db")) as plain,
                    bot_server(MODEL, endpoints=endpoints(store, broker, place / f"{file}.db")) as server,
                ):
                    load(plain, 1, CONNECTIONS, prefix=f"warm{start}-")
                    kinds[name].answered += load(server, 1, CONNECTIONS, prefix=f"warm{start}-")[1]
                    for block in range(BLOCKS):
                        kinds[name].block(plain, server, seconds, f"r{start}-{block}")
                    if name in AWAY:
                        status = json.loads(server.request("GET", "/status")[1])["event_broker"]
                        waits = status["state"] in ("failing", "publishing")  # some clients try for long
                        assert waits and status["published"] == 0, (name, status)
    rows = [("no broker: CPU a turn", f"{statistics.median(kinds['none'].plain):.3f} ms", "")]
    for name, kind in kinds.items():
        for title, parts in (("CPU", kind.cpu), ("time", kind.took)):
            limit = f"at most {LIMIT}; " if name in AWAY else ""
            told = f"{limit}blocks {min(parts):.2f}-{max(parts):.2f}"
            rows.append((f"{name}: part of the {title} a turn takes without", f"{statistics.median(parts):.3f}", told))
    return rows, kinds["rabbit refuses"].answered


def published(server: Server) -> int:
    """Waits until nothing more comes; how many events were published."""
    count, since = -1, time.monotonic()
    while True:
        status = json.loads(server.request("GET", "/status")[1])["event_broker"]
        if status["published"] != count or status["state"] != "publishing":
            count, since = status["published"], time.monotonic()
        elif time.monotonic() - since > 3:
            return count
        time.sleep(0.2)


def stored(path: Path) -> dict[str, int]:
    """Where the logs of all conversations end."""
    connection = sqlite3.connect(path)
    try:
        return dict(
            connection.execute(
                "SELECT sender_id, max(seq + count) FROM blocks JOIN conversations c ON conversation = c.id"
                " GROUP BY c.id"
            )
        )
    finally:
        connection.close()


def arrived(port: int) -> tuple[dict[str, list[int]], int]:
    """Numbers of the events in the queue by conversation, in the order of their arrival; and how many turns."""
    import pika

    found: dict[str, list[int]] = defaultdict(list)
    turns: set[tuple[str, int]] = set()
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
    try:
        for method, _, body in connection.channel().consume("rasa_core_events", auto_ack=True, inactivity_timeout=2):
            if method is None:
                break
            message = json.loads(body)
            found[message["sender_id"]].append(message["seq"])
            if message["event"] == "user":
                turns.add((message["sender_id"], message["seq"]))
    finally:
        connection.close()
    return found, len(turns)


def after_an_outage(directory: Path, port: int, answered: int) -> list[tuple[str, str, str]]:
    """The server of the measurement begins again, still without a broker, and then there is one."""
    path = directory / "sqlite" / "rabbit-refuses.db"
    with bot_server(MODEL, endpoints=endpoints("sqlite", f"  url: 127.0.0.1\n  port: {port}\n", path)) as server:
        answered += load(server, 1, prefix="again")[1]
        with rabbitmq_server(directory / "rabbit", port):
            began = time.monotonic()
            count = published(server)
            taken = time.monotonic() - began
            answered += load(server, 1, prefix="up")[1]
            published(server)
            found, turns = arrived(port)
            expected = stored(path)
    missing = sum(len(set(range(end)) - set(found.get(sender, ()))) for sender, end in expected.items())
    repeats = sum(len(seqs) - len(set(seqs)) for seqs in found.values())
    disorder = sum(list(dict.fromkeys(seqs)) != sorted(set(seqs)) for seqs in found.values())
    return [
        ("turns answered", str(answered), ""),
        ("turns in the queue", str(turns), f"at least {answered}"),
        ("events stored", str(sum(expected.values())), ""),
        ("events that were waiting, published within", f"{count} in {taken:.0f} s", ""),
        ("conversations", str(len(expected)), ""),
        ("events missing in the queue", str(missing), "0"),
        ("conversations out of order", str(disorder), "0"),
        ("events that came twice", str(repeats), ""),
    ]


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    base = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory(dir=base) as scratch:
        directory, port = Path(scratch), free_port()
        answered = 0
        for store in ("memory", "sqlite"):
            rows, answered = measure(store, seconds, directory, port)
            table(f"a broker's cost, {store} store", rows)
        if has_rabbitmq():
            table("after the outage", after_an_outage(directory, port, answered))
        else:
            print("\nRabbitMQ is not installed: nothing was published to it")


if __name__ == "__main__":
    main()
