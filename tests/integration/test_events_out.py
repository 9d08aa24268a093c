"""Events leave the real program: to a broker, and to those who listen."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tests.integration.program import PATIENCE, Program
from tests.models.samples import write_model

pytestmark = pytest.mark.integration


def listen(port: int, path: str) -> socket.socket:
    """A client that listens to a stream, past its head."""
    client = socket.create_connection(("127.0.0.1", port), PATIENCE)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: bot\r\n\r\n".encode())
    assert b"here is what happens" in read_until(client, b"happens\n\n")
    return client


def read_until(client: socket.socket, end: bytes) -> bytes:
    found = b""
    while end not in found:
        data = client.recv(65_536)
        assert data, found
        found += data
    return found


def test_events_leave_two_processes_once(tmp_path: Path) -> None:
    """Of two processes on one store one publishes what both store, in order and once; each streams what both store.

    A stop in order leaves nothing unpublished, ends the streams, and the next start goes on behind it.
    """
    model = write_model(
        tmp_path / "model",
        lookup={
            "[null, {}, {intent_greet: 1.0, prev_action_listen: 1.0}]": 3,
            "[{}, {intent_greet: 1.0, prev_action_listen: 1.0}, {intent_greet: 1.0, prev_utter_greet: 1.0}]": 0,
        },
    )
    (tmp_path / "endpoints.yml").write_text(
        "tracker_store: {type: sqlite, path: talk.db}\nevent_broker: {type: file, path: events.log}\n"
    )
    command = ["rasa_core_api.run", "--enable_api", "-d", str(model), "-p", "0", "--endpoints", "endpoints.yml"]

    def say(program: Program, sender_id: str) -> None:
        status, _ = program.ask("POST", f"/conversations/{sender_id}/respond", {"query": "/greet"})
        assert status == 200

    with Program(command, tmp_path) as one, Program(command, tmp_path) as two:
        one.up()
        two.up()
        streams = [listen(program.port, "/events") for program in (one, two)]
        for program in (one, two, one):
            say(program, "u")
        for client in streams:
            assert b'"sender_id":"u","seq":8,' in read_until(client, b'"seq":8,')
        status = json.loads(one.ask("GET", "/status")[1])["event_broker"]
        assert status["type"] == "file" and status["state"] in ("publishing", "standby")
        assert two.stop() == 0 and one.stop() == 0
        assert all(read_until(client, b"0\r\n\r\n") for client in streams)
    with Program(command, tmp_path) as again:
        again.up()
        say(again, "v")
        assert again.stop() == 0
    events = [json.loads(line) for line in (tmp_path / "events.log").read_text().splitlines()]
    u, v = ([event["seq"] for event in events if event["sender_id"] == sender] for sender in "uv")
    assert u == list(range(len(u))) and len(u) > 8 and v == list(range(len(v))) and len(v) > 3
