"""What an event broker costs a turn - away, hanging, or there - and whether every event arrives after it was away.

    python benchmarks/broker.py [SECONDS] [DIRECTORY]

All servers run at once and are measured by turns, 64 connections each: CPU of the server process a turn, against the
one without a broker; of each the quietest third of the rounds counts, since what else runs only adds to it. Then a
RabbitMQ (Debian package) starts at the address where none was, and everything that is stored has to lie in its queue,
in the order of each conversation.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import MODELS, Server, bot_server, free_port, load, table

from tests.brokers.servers import has_rabbitmq, rabbitmq_server

MODEL = MODELS / "rasa-core-0.11.12" / "cafe-memo"
ROUNDS = 15
LIMIT = 1.05


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


def measure(store: str, seconds: float, directory: Path, refused: int) -> list[tuple[str, str, str]]:
    """CPU a turn with each kind of broker."""
    with ExitStack() as running:
        hanging = hanging_port(running)
        brokers = {
            "none": None,
            "again": None,  # what the others' figures are worth
            "refuses": f"  url: 127.0.0.1\n  port: {refused}\n",
            "hangs": f"  url: 127.0.0.1\n  port: {hanging}\n",
            "file": f"  type: file\n  path: {directory / f'{store}.log'}\n",
        }
        servers = {
            name: running.enter_context(
                bot_server(MODEL, endpoints=endpoints(store, broker, directory / f"{store}-{name}.db"))
            )
            for name, broker in brokers.items()
        }
        cpu: dict[str, list[float]] = defaultdict(list)
        for server in servers.values():
            load(server, 1, prefix="warm")
        names = list(servers)
        for round_ in range(ROUNDS):
            for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
                cpu[name].append(load(servers[name], seconds, prefix=f"r{round_}-")[0])
        for name in ("refuses", "hangs"):
            status = json.loads(servers[name].request("GET", "/status")[1])["event_broker"]
            assert status["published"] == 0, status
    quiet = {name: statistics.mean(sorted(found)[: ROUNDS // 3]) for name, found in cpu.items()}
    rows = [(f"{store}, no broker: CPU a turn", f"{quiet['none']:.3f} ms", "")]
    for name, limit in (("again", ""), ("refuses", f"at most {LIMIT}"), ("hangs", f"at most {LIMIT}"), ("file", "")):
        ratio = quiet[name] / quiet["none"]
        label = "no broker, once more" if name == "again" else f"broker {name}"
        rows.append((f"{store}, {label}: part of that", f"{ratio:.3f}", limit))
    return rows


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


def arrived(port: int) -> dict[str, list[int]]:
    """Numbers of the events in the queue by conversation, in the order of their arrival."""
    import pika

    found: dict[str, list[int]] = defaultdict(list)
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
    try:
        for method, _, body in connection.channel().consume("rasa_core_events", auto_ack=True, inactivity_timeout=2):
            if method is None:
                break
            message = json.loads(body)
            found[message["sender_id"]].append(message["seq"])
    finally:
        connection.close()
    return found


def after_an_outage(directory: Path, port: int) -> list[tuple[str, str, str]]:
    """The server of the measurement begins again, still without a broker, and then there is one."""
    path = directory / "sqlite-refuses.db"
    with bot_server(MODEL, endpoints=endpoints("sqlite", f"  url: 127.0.0.1\n  port: {port}\n", path)) as server:
        load(server, 1, prefix="again")
        with rabbitmq_server(directory / "rabbit", port):
            began = time.monotonic()
            count = published(server)
            taken = time.monotonic() - began
            load(server, 1, prefix="up")
            published(server)
            found = arrived(port)
            expected = stored(path)
    missing = sum(len(set(range(end)) - set(found.get(sender, ()))) for sender, end in expected.items())
    repeats = sum(len(seqs) - len(set(seqs)) for seqs in found.values())
    disorder = sum(list(dict.fromkeys(seqs)) != sorted(set(seqs)) for seqs in found.values())
    return [
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
        for store in ("memory", "sqlite"):
            table(f"a broker's cost, {store} store", measure(store, seconds, directory, port))
        if has_rabbitmq():
            table("after the outage", after_an_outage(directory, port))
        else:
            print("\nRabbitMQ is not installed: nothing was published to it")


if __name__ == "__main__":
    main()
