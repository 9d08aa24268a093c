"""Bad input to the real program over real sockets: documented answers, one line in the log, nothing half stored."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from rasa_core_api.http.refusals import LINES
from tests.integration.program import PATIENCE, Program
from tests.models.samples import write_model

pytestmark = pytest.mark.integration

LIMIT = 4 << 20
ENVELOPE = {"version", "status", "message", "reason", "details", "help", "code", "error"}
LISTEN, SEARCHED = "action action_listen", "action action_search"


class UnrulyServer:
    """An action server on a real socket; how it misbehaves is the conversation's id."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/webhook"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rb") as lines:
            length = 0
            while (line := lines.readline()) not in (b"\r\n", b""):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            manner = str(json.loads(lines.read(length))["sender_id"]).removeprefix("action ")
            answer = ANSWERS[manner]
            if manner == "is slow to hear":
                time.sleep(0.1)  # the client is gone by then
            if answer is None:
                while True:  # more and more
                    connection.sendall(b" " * 65536)
            connection.sendall(answer)
            if manner == "stalls":
                lines.read()

    def close(self) -> None:
        self._socket.close()


def ok(body: bytes, status: bytes = b"200 OK", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, size, body)


#: None sends blanks without end.
ANSWERS: dict[str, bytes | None] = {
    "works": ok(b'{"events": [], "responses": [{"text": "found"}]}'),
    "is slow to hear": ok(b'{"events": [], "responses": [{"text": "found"}]}'),
    "hangs up": b"",
    "stalls": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
    "400": ok(b'{"error": "no"}', b"400 Bad Request"),
    "500": ok(b"oops", b"500 Oops"),
    "html": ok(b"<html>hello</html>"),
    "half": ok(b'{"events": [', length=100),
    "garbage": b"hello\r\n\r\n",
    "endless": None,
    "too large": b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n{",
    "unknown event": ok(b'{"events": [{"event": "slot", "name": "city", "value": 1}, {"event": "nonsense"}]}'),
    "NaN": ok(b'{"events": [{"event": "slot", "name": "city", "value": NaN}]}'),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A program that searches with an unruly action server when it is told bye, and greets without."""
    directory = tmp_path_factory.mktemp("bot")
    model = write_model(
        directory,
        lookup={
            "[null, {}, {intent_greet: 1.0, prev_action_listen: 1.0}]": 3,
            "[{}, {intent_greet: 1.0, prev_action_listen: 1.0}, {intent_greet: 1.0, prev_utter_greet: 1.0}]": 0,
            "[null, {}, {intent_bye: 1.0, prev_action_listen: 1.0}]": 4,
            "[{}, {intent_bye: 1.0, prev_action_listen: 1.0}, {intent_bye: 1.0, prev_action_search: 1.0}]": 0,
        },
    )
    domain = model / "domain.yml"
    domain.write_text(domain.read_text().replace("[utter_greet, utter_bye]", "[utter_greet, action_search]"))
    actions = UnrulyServer()
    (directory / "endpoints.yml").write_text(f"action_endpoint: {{url: '{actions.url}', timeout: 0.4}}\n")
    arguments = [
        "rasa_core_api.run", "--enable_api", "-d", str(model), "--endpoints", "endpoints.yml", "-c", "rest",
        "-p", "0", "-o", "", "--max_body_mb", "4",
    ]  # fmt: skip
    with Program(arguments, directory) as program:
        yield program.up()
        assert program.stop() == 0
    actions.close()
    assert not [line for line in program.lines if "Traceback" in line]


Logged = Callable[[], list[str]]


@pytest.fixture
def logged(server: Program) -> Logged:
    """What the program wrote to its log since the test began."""
    count = 0

    def lines() -> list[str]:
        mark = f"mark {count}"
        server.ask("POST", "/parse", {"q": "/x{" + json.dumps(mark)})
        server.line("are no JSON")
        said, server.lines[:] = list(server.lines), []
        # what was refused in an earlier test is counted up to 10 s later
        return [line for line in said if "are no JSON" not in line and " more like this in " not in line]

    lines()
    return lines


def kinds(server: Program, sender_id: str) -> list[str]:
    """The stored events of a conversation in short."""
    status, body = server.ask("GET", f"/conversations/{sender_id}/tracker?include_events=ALL".replace(" ", "%20"))
    assert status == 200
    return [" ".join([e["event"], *([e["name"]] if e.get("name") else [])]) for e in json.loads(body)["events"]]


def exchange(server: Program, data: bytes, more: bytes = b"") -> bytes:
    """Send bytes on a connection of their own, and read until an answer is complete; then send more."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
        client.sendall(data)
        received = b""
        while b"\r\n\r\n" not in received or len(received.partition(b"\r\n\r\n")[2]) < length_of(received):
            got = client.recv(65536)
            if not got:
                break
            received += got
        if more:
            with suppress(OSError):
                client.sendall(more)
        return received


def length_of(response: bytes) -> int:
    for line in response.partition(b"\r\n\r\n")[0].split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0


def refused(response: bytes) -> tuple[int, str]:
    """Status and reason of a refusal, which is an envelope."""
    head, _, body = response.partition(b"\r\n\r\n")
    status = int(head.split(b" ")[1])
    envelope: dict[str, Any] = json.loads(body)
    assert envelope.keys() >= ENVELOPE and envelope["code"] == status, envelope
    return status, envelope["reason"]


def post(path: str, body: bytes, method: str = "POST") -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (
        method.encode(), path.encode(), len(body), body,
    )  # fmt: skip


ROUTES = [
    ("POST", "/conversations/bad/respond"), ("POST", "/conversations/bad/execute"),
    ("POST", "/conversations/bad/messages"), ("POST", "/conversations/bad/parse"),
    ("POST", "/conversations/bad/continue"), ("POST", "/conversations/bad/tracker/events"),
    ("PUT", "/conversations/bad/tracker/events"), ("PUT", "/conversations/bad/tracker"), ("POST", "/predict"),
    ("POST", "/parse"), ("POST", "/webhooks/rest/webhook"), ("POST", "/finetune"),
]  # fmt: skip
MALFORMED = [
    b"", b"{", b"[", b"NaN", b'{"a": NaN}', b"[Infinity]", b"1e999", b"9" * 400, b'"\\ud800"', b"[" * 101 + b"]" * 101,
    b'{"a": 1,}', b"{'a': 1}", b'{"a": 1} x', b"\xff{}", b"\x00",
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_malformed_bodies(server: Program, logged: Logged, method: str, path: str) -> None:
    """What is no JSON is 400 on every route, is told in the log but does not fill it, and creates no conversation."""
    for body in MALFORMED:
        assert refused(exchange(server, post(path, body, method))) == (400, "InvalidJson"), body
    for body in (b"null", b"7", b'"x"', b"true"):
        assert refused(exchange(server, post(path, body, method))) == (400, "InvalidParameter"), body
    assert "bad" not in json.loads(server.ask("GET", "/conversations")[1])
    lines = logged()
    assert len(lines) <= 2 * (LINES + 1)
    for line in lines:
        assert " 400 Invalid" in line or " more like this in " in line


@pytest.mark.parametrize(
    ("segment", "status"),
    [
        ("a%20b", 200), ("%F0%9F%98%80", 200), ("x" * 1024, 200), ("..", 200), ("a%252F", 200), ("%zz", 200),
        ("a%2Fb", 404), ("", 404), ("%FF", 400), ("%00", 400), ("%0A", 400), ("x" * 1025, 400), ("x" * 10_000, 400),
    ],
)  # fmt: skip
def test_sender_ids(server: Program, segment: str, status: int) -> None:
    """Ids are one percent-decoded segment without control characters."""
    response = exchange(server, f"GET /conversations/{segment}/tracker HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert int(response.split(b" ")[1]) == status
    if status != 200:
        assert refused(response)[0] == status


@pytest.mark.parametrize("until", ["abc", "nan", "1e999", "", "9" * 5000])
def test_absurd_until(server: Program, until: str) -> None:
    """A time is a finite number."""
    response = exchange(server, f"GET /conversations/u/tracker?until={until} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert refused(response) == (400, "InvalidParameter")


@pytest.mark.parametrize(
    "text",
    [
        "/greet@" + "9" * 400, "/greet@1.2.3", '/greet{"city": 1e999}', '/greet{"city": ' + "9" * 400 + "}",
        '/greet{"city": "\\ud800"}', "/greet{" + "[" * 5000, '/greet{"city": {"a": [1]}}', "/greet" + "[a=b" * 1000,
        "/" + "a" * 100_000, "", "\x00", "{city}",
    ],
)  # fmt: skip
def test_texts_that_would_poison_a_conversation(server: Program, text: str) -> None:
    """Whatever a user writes, the conversation can be read, predicted and continued."""
    path = "/conversations/poisoned"
    assert server.ask("PUT", f"{path}/tracker", [])[0] == 200
    assert server.ask("POST", f"{path}/respond", {"query": text})[0] == 200
    assert server.ask("GET", f"{path}/tracker?include_events=ALL")[0] == 200
    assert server.ask("POST", f"{path}/predict")[0] == 200
    assert server.ask("GET", f"{path}/story")[0] == 200
    assert server.ask("POST", f"{path}/respond", {"query": "/greet"})[0] == 200


@pytest.mark.parametrize(
    "event",
    [
        {"event": "followup", "name": "nowhere"}, {"event": "form", "name": "nowhere"},
        {"event": "action", "name": "nowhere"}, {"event": "slot", "name": "nowhere\n", "value": {"a": []}},
        {"event": "user", "text": None, "parse_data": {"intent": None}}, {"event": "undo"}, {"event": "rewind"},
        {"event": "user", "text": "x", "parse_data": {"intent": {"name": "new"}, "entities": [{"entity": "new"}]}},
    ],
)  # fmt: skip
def test_odd_events_do_not_end_a_conversation(server: Program, event: dict[str, Any]) -> None:
    """After events that mean nothing to the model, the next message is handled."""
    path = "/conversations/odd"
    assert server.ask("PUT", f"{path}/tracker", [event])[0] == 200
    for _ in range(2):
        assert server.ask("POST", f"{path}/respond", {"query": "/greet"})[0] == 200
    assert server.ask("POST", f"{path}/predict")[0] == 200


def test_one_bad_event_refuses_the_list(server: Program) -> None:
    """A list is stored as a whole or not at all, however long it is."""
    events: list[Any] = [{"event": "slot", "name": "city", "value": "x" * 40}] * 20_000
    status, body = server.ask("POST", "/conversations/whole/tracker/events", [*events, {"event": "nonsense"}])
    assert (status, json.loads(body)["reason"]) == (400, "InvalidParameter")
    assert "whole" not in json.loads(server.ask("GET", "/conversations")[1])


@pytest.mark.parametrize(
    "head",
    [
        b"POST /conversations/u/respond HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (LIMIT + 1),
        b"POST /conversations/u/respond HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n{",
        b"PUT /conversations/u/tracker HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5000000\r\n\r\n",
        b"POST /webhooks/rest/webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n",
    ],
)
def test_bodies_beyond_the_limit(server: Program, head: bytes) -> None:
    """A body that is announced as too large is refused before it is sent."""
    assert refused(exchange(server, head)) == (413, "PayloadTooLarge")


def test_chunks_beyond_the_limit(server: Program) -> None:
    """A body of unknown length is refused at the limit; the client may go on sending for a while."""
    chunk = b"40000\r\n" + b" " * 0x40000 + b"\r\n"
    head = b"POST /conversations/u/respond HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert refused(exchange(server, head + chunk * 17, chunk)) == (413, "PayloadTooLarge")


def test_a_large_body_keeps_nobody_waiting(server: Program) -> None:
    """While a large list of events is applied, others are answered."""
    events = json.dumps([{"event": "slot", "name": "city", "value": f"{n}"} for n in range(60_000)]).encode()
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
        client.sendall(post("/conversations/large/tracker?include_events=NONE", events, "PUT"))
        client.setblocking(False)
        answered = 0
        while True:
            assert server.ask("GET", "/version")[0] == 200
            answered += 1
            with suppress(BlockingIOError):
                assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
                break
    assert answered > 5


def test_a_client_that_hangs_up(server: Program) -> None:
    """The turn of a client that is gone ends all the same, stored as a whole."""
    for number, how in enumerate((struct.pack("ii", 0, 0), struct.pack("ii", 1, 0))):
        path = "/conversations/action%20is%20slow%20to%20hear/respond"
        client = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
        client.sendall(post(path, b'{"query": "/bye"}'))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, how)
        client.close()
        # the next turn of this conversation waits for that one
        assert server.ask("POST", path, {"query": "/greet"})[0] == 200
        assert kinds(server, "action is slow to hear").count("user") == 2 * (number + 1)


def test_a_client_that_closes_its_sending_side(server: Program) -> None:
    """Its turns run, it gets their answers, and the connection ends."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
        for number in range(3):
            client.sendall(post(f"/conversations/closing{number}/respond", b'{"query": "/greet"}'))
        client.shutdown(socket.SHUT_WR)
        received = b""
        while got := client.recv(65536):
            received += got
    assert received.count(b"HTTP/1.1 200 OK") == received.count(b'"text":"hello"') == 3


def test_pipelined_turns_keep_their_order(server: Program) -> None:
    """Requests that are sent without waiting are answered one after another."""
    turns = b"".join(
        post("/conversations/pipe/messages", json.dumps({"text": f"/{n}", "sender": "user"}).encode())
        for n in range(30)
    )
    last = b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
        client.sendall(turns + last)
        received = b""
        while got := client.recv(65536):
            received += got
    assert received.count(b"HTTP/1.1 200 OK") == 31
    _, body = server.ask("GET", "/conversations/pipe/tracker?include_events=ALL")
    assert [event["text"] for event in json.loads(body)["events"][1:]] == [f"/{n}" for n in range(30)]


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"\x16\x03\x01\x00\x00\r\n\r\n", (400, "BadRequest")),
        (b"GET /version\r\n\r\n", (400, "BadRequest")),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", (400, "BadRequest")),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", (501, "NotImplemented")),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", (400, "BadRequest")),
        (b"GET /version HTTP/1.1\r\nX: " + b"x" * 120_000, (431, "HeadersTooLarge")),
        (b"GET /version?token=s3cret&x=" + b"x" * 120_000, (414, "URITooLong")),
        (b"GET /version?token=s3cret HTTP/2.0\r\n\r\n", (505, "HTTPVersionNotSupported")),
    ],
)
def test_what_is_no_http(server: Program, logged: Logged, data: bytes, answer: tuple[int, str]) -> None:
    """A connection that does not speak HTTP gets an answer that it can read, is closed, and is told in one line."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
        client.sendall(data)
        began = time.monotonic()
        received = b""
        while got := client.recv(65536):
            received += got
        assert time.monotonic() - began < 1.0
    assert refused(received) == answer
    (line,) = logged()
    assert f" {answer[0]} {answer[1]}: " in line
    assert "s3cret" not in line


def test_a_refused_body_is_read_for_a_moment(server: Program) -> None:
    """A client that sends all before it reads finds its answer, and the end of the connection."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
        client.sendall(post("/conversations/u/respond", b" " * (5 * LIMIT)))
        received = b""
        while got := client.recv(65536):
            received += got
    assert refused(received) == (413, "PayloadTooLarge")


def test_connections_that_say_nothing(server: Program) -> None:
    """Half a request, and a connection that is given up in the middle of a body, disturb nobody."""
    idle = [socket.create_connection(("127.0.0.1", server.port), PATIENCE) for _ in range(50)]
    for number, client in enumerate(idle):
        client.sendall(post("/conversations/half/respond", b'{"query": "/greet"}')[:number])
    assert server.ask("GET", "/version")[0] == 200
    for client in idle:
        client.close()
    assert "half" not in json.loads(server.ask("GET", "/conversations")[1])


@pytest.mark.parametrize("manner", [name for name in ANSWERS if name not in ("works", "is slow to hear")])
def test_action_servers(server: Program, logged: Logged, manner: str) -> None:
    """A failed action is one line in the log and no event of its own; the turn ends and the next one works."""
    sender_id = f"action {manner}"
    path = f"/conversations/{sender_id}/respond".replace(" ", "%20")
    for turn in range(2):
        server.ask("PUT", path.replace("respond", "tracker"), [{"event": "action", "name": "action_listen"}])
        status, body = server.ask("POST", path, {"query": "/bye"})
        assert (status, json.loads(body)) == (200, [])
        assert kinds(server, sender_id) == [LISTEN, "user", SEARCHED, LISTEN], turn
        (line,) = logged()
        assert " ERROR " in line and "action_search" in line
    assert server.ask("POST", path, {"query": "/greet"})[0] == 200


def test_an_action_server_that_works(server: Program, logged: Logged) -> None:
    """The same bot with a server that behaves."""
    status, body = server.ask("POST", "/conversations/action%20works/respond", {"query": "/bye"})
    assert (status, [message["text"] for message in json.loads(body)]) == (200, ["found"])
    assert logged() == []


@pytest.mark.parametrize("name", ["x", "x" * 100_000, "x\nERROR forged"])
def test_unknown_actions(server: Program, logged: Logged, name: str) -> None:
    """An action that is not there is one short line in the log, whatever it is called."""
    status, body = server.ask("POST", "/conversations/u/execute", {"name": name})
    assert (status, json.loads(body)["reason"]) == (500, "ValueError")
    assert len(body) < 2_000
    (line,) = logged()
    assert len(line) < 500
