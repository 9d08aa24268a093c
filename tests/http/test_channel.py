"""Tests of connections: what is no request gets its answer, and slow senders an end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from rasa_core_api.http.channel import ARRIVAL, LINGER, MAX_HEAD, MAX_HEADERS, PACE, SILENCE
from rasa_core_api.http.site import IDLE
from tests.http.bench import Bench
from tests.http.conftest import MakeWire
from tests.wire import Connection, Wire

BODY = 40 * PACE
ENVELOPE = {"version", "status", "message", "reason", "details", "help", "code", "error"}


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def wire(bench: Bench, serve: MakeWire) -> Wire:
    return serve(bench.app.resource(), BODY, max_connections=3, version="0.14.5")


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What was logged about refusals."""
    said: list[str] = []

    def observe(event: LogEvent) -> None:
        if event["log_namespace"] == "rasa_core_api.http.refusals":
            said.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield said
    globalLogPublisher.removeObserver(observe)


def refused(connection: Connection, method: str = "GET") -> tuple[int, str]:
    """Status and reason of the one answer on a connection that ends with it."""
    response = connection.response(method)
    assert response.headers["connection"] == "close"
    body = response.json()
    assert set(body) == ENVELOPE
    assert (body["code"], body["version"]) == (response.status, "0.14.5")
    assert connection.transport.value() == b"", "one answer is enough"
    assert connection.transport.half_closed
    return response.status, body["reason"]


POST = b"POST / HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"\x16\x03\x01\x00\x00\r\n\r\n", (400, "BadRequest")),
        (b"\r\n\r\n\r\n", (400, "BadRequest")),
        (b"GET /\r\n\r\n", (400, "BadRequest")),
        (b"GET / b HTTP/1.1\r\n\r\n", (400, "BadRequest")),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (505, "HTTPVersionNotSupported")),
        (POST + b"Content-Length: -1\r\n\r\n", (400, "BadRequest")),
        (POST + b"Content-Length: abc\r\nOther: x\r\n\r\n", (400, "BadRequest")),
        (POST + b"Content-Length: 1_0\r\n\r\n", (400, "BadRequest")),
        (POST + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n", (400, "BadRequest")),
        (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", (400, "BadRequest")),
        (POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400, "BadRequest")),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", (501, "NotImplemented")),
        (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", (400, "BadRequest")),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n", (400, "BadRequest")),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n", (400, "BadRequest")),
        (POST + b"no colon\r\nGood: x\r\n\r\n", (400, "BadRequest")),
        (POST + b"name : x\r\n\r\n", (400, "BadRequest")),
        (POST + b"Name: a\0b\r\n\r\n", (400, "BadRequest")),
        (POST + b"X: " + b"x" * MAX_HEAD + b"\r\n\r\n", (431, "HeadersTooLarge")),
        (POST + b"X: " + b"x" * 2 * MAX_HEAD, (431, "HeadersTooLarge")),
        (POST + b"X: 1234567890\r\n" * (MAX_HEAD // 14) + b"\r\n", (431, "HeadersTooLarge")),
        (POST + b"X: 1\r\n" * MAX_HEADERS + b"\r\n", (431, "HeadersTooLarge")),
        (b"GET /" + b"x" * MAX_HEAD + b" HTTP/1.1\r\n\r\n", (414, "URITooLong")),
        (b"GET /" + b"x" * 2 * MAX_HEAD, (414, "URITooLong")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", [1 << 20, 7])
def test_what_is_no_request(wire: Wire, lines: list[str], data: bytes, answer: tuple[int, str], step: int) -> None:
    """What cannot be read as a request is answered with an envelope, told in one line, and ends the connection."""
    connection = wire.connect()
    for begin in range(0, len(data), step):
        connection.send(data[begin : begin + step])
    connection.rounds()
    assert refused(connection) == answer
    (line,) = lines
    assert f"{answer[0]} {answer[1]}" in line
    assert len(line) < 200
    connection.send(b"GET / HTTP/1.1\r\n\r\n")
    assert connection.transport.value() == b""


def test_a_refused_head_request(wire: Wire) -> None:
    """HEAD gets no body, also where its headers are no good."""
    connection = wire.connect()
    connection.send(b"HEAD / HTTP/1.1\r\nno colon\r\n\r\n")
    response = connection.response("HEAD")
    assert (response.status, response.body, connection.transport.value()) == (400, b"", b"")


def test_behind_good_requests(wire: Wire, bench: Bench) -> None:
    """What came before is answered first."""
    connection = wire.connect()
    connection.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n")
    assert connection.transport.value() == b""
    bench.gates.pop().callback(None)
    connection.rounds()
    assert connection.response().json() == "slow"
    assert connection.response().json() == "quick"
    assert refused(connection) == (400, "BadRequest")


def test_nonsense_behind_a_large_body(wire: Wire, bench: Bench) -> None:
    """A body that is both too large and malformed is answered once, also where the handler takes its time."""
    connection = wire.connect()
    head = b"POST /slow HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection.send(head + b"%x\r\n" % (2 * BODY) + b"x" * 2 * BODY + b"nonsense\r\n")
    bench.gates.pop()
    assert refused(connection, "POST") == (400, "BadRequest")


def test_raw_characters(wire: Wire) -> None:
    """A client that sends UTF-8 as it is, as curl does, is understood; other bytes are no id."""
    connection = wire.connect()
    connection.send("GET /of/é😀 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert connection.response().json() == "é😀"
    connection.send(b"GET /of/\xe9 HTTP/1.1\r\nHost: x\r\n\r\n")
    response = connection.response()
    assert (response.status, response.json()["details"]) == (400, {"in": "path", "parameter": "sender_id"})


def test_the_end_of_a_refusal(wire: Wire, clock: Clock) -> None:
    """A refused client has a moment to read its answer, longer while it sends, but not for ever."""
    silent, busy = wire.connect(), wire.connect()
    for connection in (silent, busy):
        connection.send(b"nonsense\r\n")
        assert connection.transport.half_closed
        assert not connection.transport.disconnecting
    for _ in range(int(LINGER / SILENCE * 2) - 1):
        clock.advance(SILENCE / 2)
        busy.send(b"x" * 1000)
    assert silent.transport.disconnecting
    assert not busy.transport.disconnecting
    clock.advance(SILENCE / 2)
    assert busy.transport.disconnecting
    silent.hang_up()
    clock.advance(LINGER)
    assert busy.transport.aborted
    assert not silent.transport.aborted
    busy.hang_up()
    assert clock.getDelayedCalls() == []


def test_refused_connections_make_room(wire: Wire) -> None:
    """A connection that only waits for its end is not one that must stay."""
    connections = [wire.connect() for _ in range(3)]
    connections[1].send(b"nonsense\r\n")
    connections[0].send(b"GET")
    connections[2].send(b"GET")
    wire.connect()
    assert [connection.transport.aborted for connection in connections] == [False, True, False]


def late(connection: Connection) -> bool:
    """Whether it was told that its request came too late."""
    return refused(connection) == (408, "RequestTimeout")


def test_a_head_byte_by_byte(wire: Wire, clock: Clock) -> None:
    """A client that never finishes its headers is cut off, however often it sends a byte."""
    connection = wire.connect()
    connection.send(b"GET / HTTP/1.1\r\nX-Long: ")
    for _ in range(int(ARRIVAL) - 1):
        clock.advance(1.0)
        connection.send(b"x")
    assert connection.transport.value() == b""
    clock.advance(1.5)
    assert late(connection)


def test_a_body_byte_by_byte(wire: Wire, clock: Clock) -> None:
    """The same for a body."""
    connection = wire.connect()
    connection.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(int(ARRIVAL) + 1):
        clock.advance(1.0)
        connection.send(b"x")
    assert late(connection)


def test_a_large_body_on_a_slow_line(wire: Wire, clock: Clock) -> None:
    """A body that comes at the least pace is waited for, longer than the time for small ones."""
    connection = wire.connect()
    pieces = 30
    connection.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (pieces * PACE))
    for _ in range(pieces):
        clock.advance(2.9)
        connection.send(b"x" * PACE)
    connection.rounds()
    assert connection.response("POST").json() == "quick"
    assert not connection.transport.aborted


def test_a_whole_request_leaves_no_timer(wire: Wire, clock: Clock) -> None:
    """After an answer only the time of a silent connection runs."""
    connection = wire.begin("GET", "/")
    connection.rounds()
    assert connection.response().json() == "quick"
    assert [round(call.getTime() - clock.seconds()) for call in clock.getDelayedCalls()] == [int(IDLE)]
    clock.advance(ARRIVAL - 1)
    connection.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
    clock.advance(1.0)
    connection.send(b"\r\n")
    connection.rounds()
    assert connection.response().json() == "quick"


def test_a_long_answer_is_not_hurried(wire: Wire, bench: Bench, clock: Clock) -> None:
    """Time spent on answering does not count, also when the next request waits behind it."""
    connection = wire.begin("GET", "/slow")
    connection.send(b"GET / HTTP/1.1\r\n")
    clock.advance(10 * ARRIVAL)
    assert not connection.transport.aborted
    bench.gates.pop().callback(None)
    connection.rounds()
    assert connection.response().json() == "slow"
    clock.advance(ARRIVAL - 1)
    connection.send(b"Host: x\r\n\r\n")
    connection.rounds()
    assert connection.response().json() == "quick"


def test_a_request_that_is_given_up(wire: Wire, clock: Clock) -> None:
    """A client that goes silent in mid-request is told so; one that asked for nothing just loses its connection."""
    half, idle = wire.connect(), wire.connect()
    half.send(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc")
    clock.advance(IDLE + 1)
    assert late(half)
    assert idle.transport.disconnecting
    assert idle.transport.value() == b""
    half.hang_up()
    idle.hang_up()
    assert clock.getDelayedCalls() == []


def test_a_client_that_closes_its_side(wire: Wire, bench: Bench) -> None:
    """Whoever closes its sending side after its requests gets all answers, then the end."""
    connection = wire.begin("GET", "/slow")
    connection.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    connection.close_our_side()
    for _ in range(2):
        assert not connection.transport.disconnecting
        bench.gates.pop(0).callback(None)
        connection.rounds()
    assert [connection.response().json() for _ in range(3)] == ["slow", "quick", "slow"]
    assert connection.transport.disconnecting
    assert not connection.transport.aborted


def test_closing_without_a_request(wire: Wire) -> None:
    """A client that has nothing to wait for is let go, in the middle of a request too."""
    idle, half, refused_one = wire.connect(), wire.connect(), wire.connect()
    half.send(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc")
    refused_one.send(b"nonsense\r\n")
    for connection in (idle, half, refused_one):
        connection.close_our_side()
    assert (idle.transport.disconnecting, half.transport.aborted) == (True, True)
    assert refused_one.transport.disconnecting
    assert refused(refused_one) == (400, "BadRequest")


def test_leaving_a_stream(wire: Wire, bench: Bench) -> None:
    """A client that stops listening to a stream ends it."""
    connection = wire.begin("GET", "/stream")
    assert b"begun" in connection.transport.value()
    connection.close_our_side()
    assert connection.transport.aborted
