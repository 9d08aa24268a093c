"""Tests of the site: body limits that act early, and the access log."""

from __future__ import annotations

import errno
import io
import tempfile

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, globalLogPublisher
from twisted.web.server import Request

from rasa_core_api.concurrency import Slices
from rasa_core_api.exceptions import NotAuthenticated
from rasa_core_api.http.channel import LINGER, SILENCE
from rasa_core_api.http.reading import Bodies
from rasa_core_api.http.routing import App, Route, Routes
from rasa_core_api.http.sending import send_json
from rasa_core_api.http.spools import IN_MEMORY, PART, TIMES
from tests.http.conftest import MakeWire
from tests.wire import Connection, Wire

LIMIT = 1_000


class Bench:
    app = App()

    def __init__(self, clock: Clock, limit: int = LIMIT) -> None:
        self.clock = clock
        self.bodies = Bodies(limit, Slices(clock))

    @app.route("/echo", methods=["POST"])
    async def echo(self, request: Request) -> bytes:
        return send_json(request, len(await self.bodies.value(request)))

    @app.route("/text", methods=["POST"])
    async def text(self, request: Request) -> bytes:
        return send_json(request, await self.bodies.text(request))

    @app.route("/slow", methods=["POST"])
    async def slow(self, request: Request) -> bytes:
        from twisted.internet.task import deferLater

        await deferLater(self.clock, 5.0, lambda: None)
        return send_json(request, "slow")

    @app.route("/form", methods=["POST"])
    async def form(self, request: Request) -> bytes:
        return send_json(request, sorted(name.decode() for name in request.args or {}))


@pytest.fixture
def wire(clock: Clock, serve: MakeWire) -> Wire:
    return serve(Bench(clock).app.resource(), LIMIT)


def head(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


def test_within_the_limit(wire: Wire) -> None:
    """A body of the very limit is read."""
    assert wire.post("/echo", b'"' + b"x" * (LIMIT - 2) + b'"').json() == LIMIT - 2


def test_announced_too_large(wire: Wire, clock: Clock) -> None:
    """A length beyond the limit is answered before the body is there; what still comes is thrown away for a moment."""
    connection = wire.connect()
    connection.send(head("/echo", f"Content-Length: {LIMIT + 1}"))
    connection.rounds()
    response = connection.response("POST")
    assert (response.status, response.json()["reason"]) == (413, "PayloadTooLarge")
    assert response.headers["connection"] == "close"
    assert connection.transport.half_closed
    clock.advance(SILENCE / 2)
    connection.send(b"x" * LIMIT)
    clock.advance(SILENCE / 2)
    assert not connection.transport.disconnecting
    clock.advance(SILENCE / 2)
    assert connection.transport.disconnecting
    assert connection.transport.value() == b""


def test_sent_in_one_go(wire: Wire) -> None:
    """A client that sends everything at once gets the same answer, once."""
    connection = wire.begin("POST", "/echo", b"x" * (LIMIT + 500))
    assert connection.response("POST").status == 413
    assert connection.transport.value() == b""
    assert connection.transport.half_closed


def test_expecting_continue(wire: Wire) -> None:
    """A client that asks first is told no, and is not told to go on."""
    connection = wire.connect()
    connection.send(head("/echo", f"Content-Length: {LIMIT * 50}", "Expect: 100-continue"))
    connection.rounds()
    assert connection.transport.value().startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in connection.transport.value()


def test_chunked(wire: Wire) -> None:
    """A body without a length is counted as it comes."""
    connection = wire.connect()
    connection.send(head("/echo", "Transfer-Encoding: chunked"))
    for _ in range(3):
        connection.send(b"190\r\n" + b"x" * 400 + b"\r\n")
        connection.rounds()
    assert connection.response("POST").status == 413
    connection.send(b"190\r\n" + b"x" * 400 + b"\r\n")
    connection.send(b"0\r\n\r\n")
    assert connection.transport.half_closed
    assert connection.transport.value() == b""


def test_chunked_within_the_limit(wire: Wire) -> None:
    """A chunked body within the limit is read."""
    connection = wire.connect()
    connection.send(head("/echo", "Transfer-Encoding: chunked") + b'5\r\n"abc"\r\n0\r\n\r\n')
    connection.rounds()
    assert connection.response("POST").json() == 3


def test_rights_come_first(clock: Clock, serve: MakeWire) -> None:
    """Who may not ask is not told about limits."""

    def guard(request: Request, route: Route, sender_id: str | None) -> None:
        raise NotAuthenticated("who?")

    wire = serve(Routes(Bench(clock).app, guard), LIMIT)
    assert wire.begin("POST", "/echo", b"x" * 5_000).response("POST").status == 401
    assert wire.begin("POST", "/nowhere", b"x" * 5_000).response("POST").status == 404


def test_never_ending(wire: Wire, clock: Clock) -> None:
    """A client that goes on sending is cut off after a while."""
    connection = wire.connect()
    connection.send(head("/echo", "Content-Length: 99999999999"))
    connection.rounds()
    for _ in range(int(LINGER / SILENCE) * 2 - 1):
        clock.advance(SILENCE / 2)
        connection.send(b"x" * 10_000)
    assert not connection.transport.disconnecting
    clock.advance(SILENCE)
    assert connection.transport.disconnecting


def test_hanging_up_after_the_refusal(wire: Wire, clock: Clock) -> None:
    """A client that leaves after its refusal leaves nothing behind."""
    connection = wire.connect()
    connection.send(head("/echo", f"Content-Length: {LIMIT * 2}"))
    connection.rounds()
    connection.hang_up()
    assert clock.getDelayedCalls() == []


def test_slow_handler_of_a_large_body(wire: Wire, clock: Clock) -> None:
    """A handler that does not look at the body answers late, after the body is there."""
    connection = wire.begin("POST", "/slow", b"x" * (LIMIT * 2))
    assert connection.transport.value() == b""
    clock.advance(5.0)
    assert connection.response("POST").json() == "slow"
    assert connection.transport.disconnecting


def test_forms_are_not_parsed(wire: Wire) -> None:
    """A form body does not become parameters."""
    response = wire.ask("POST", "/form?a=1", b"b=2", {"Content-Type": "application/x-www-form-urlencoded"})
    assert response.json() == ["a"]


@pytest.mark.parametrize("wanted", [True, False])
def test_access_log(clock: Clock, serve: MakeWire, wanted: bool) -> None:
    """Requests are logged only on demand, as debug lines without the query string."""
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    try:
        serve(Bench(clock).app.resource(), access_log=wanted).post("/echo?token=hidden", b'""')
    finally:
        globalLogPublisher.removeObserver(events.append)
    lines = [event for event in events if event.get("path") == "/echo"]
    assert len(lines) == (1 if wanted else 0)
    assert "hidden" not in str(events)
    assert all(event["log_level"] is LogLevel.debug for event in lines)


def test_nothing_ticks(clock: Clock, serve: MakeWire) -> None:
    """An idle site does not wake the reactor."""
    wire = serve(Bench(clock).app.resource())
    wire.site.doStart()
    assert clock.getDelayedCalls() == []
    wire.site.doStop()


LARGE = 4 * IN_MEMORY
CHUNK = b"%x\r\n%s\r\n" % (IN_MEMORY, b" " * IN_MEMORY)


class FilesMade:
    """Counts the temporary files of the site; `error` is raised instead of making one."""

    def __init__(self) -> None:
        self.count = 0
        self.error: OSError | None = None

    def make(self) -> io.BytesIO:
        if self.error is not None:
            raise self.error
        self.count += 1
        return io.BytesIO()


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> FilesMade:
    files = FilesMade()
    monkeypatch.setattr(tempfile, "TemporaryFile", files.make)
    return files


def chunked(wire: Wire, *chunks: bytes) -> Connection:
    connection = wire.connect()
    connection.send(head("/text", "Transfer-Encoding: chunked") + b"".join(chunks))
    connection.rounds()
    return connection


def test_small_bodies_stay_in_memory(clock: Clock, serve: MakeWire, files: FilesMade) -> None:
    """A body in chunks, whose length nobody knows, takes no descriptor while it is small; a large one does."""
    wire = serve(Bench(clock, LARGE).app.resource(), LARGE)
    assert chunked(wire, b"2\r\n{}\r\n", b"0\r\n\r\n").response("POST").json() == "{}"
    assert files.count == 0
    response = chunked(wire, CHUNK, CHUNK, b"2\r\n{}\r\n", b"0\r\n\r\n").response("POST")
    assert len(response.json()) == 2 * IN_MEMORY + 2
    assert files.count == 1


def test_large_bodies_at_once(clock: Clock, serve: MakeWire, files: FilesMade) -> None:
    """Of large bodies that arrive as many are taken as leave descriptors for calls; small ones always."""
    wire = serve(Bench(clock, LARGE).app.resource(), LARGE, max_connections=2 * PART)
    slow = [chunked(wire, CHUNK, CHUNK) for _ in range(2)]
    refused = chunked(wire, CHUNK, CHUNK).response("POST")
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["reason"] == "Unavailable"
    assert chunked(wire, b"2\r\n{}\r\n", b"0\r\n\r\n").response("POST").status == 200
    slow[0].hang_up()
    slow[1].send(b"0\r\n\r\n")
    slow[1].rounds()
    assert slow[1].response("POST").status == 200
    assert (wire.site.spools.files, wire.site.spools.size) == (0, 0)  # type: ignore[attr-defined]
    assert chunked(wire, CHUNK, CHUNK, b"0\r\n\r\n").response("POST").status == 200


def test_large_bodies_together(clock: Clock, serve: MakeWire, files: FilesMade) -> None:
    """All large bodies together have a limit, too: a disk is not filled by whoever sends slowly."""
    wire = serve(Bench(clock, LARGE).app.resource(), LARGE)
    slow = [chunked(wire, CHUNK, CHUNK, CHUNK) for _ in range(4 * TIMES // 3)]
    assert wire.site.spools.size <= TIMES * LARGE  # type: ignore[attr-defined]
    assert chunked(wire, CHUNK, CHUNK, CHUNK).response("POST").status == 503
    for connection in slow:
        connection.hang_up()
    assert (wire.site.spools.files, wire.site.spools.size) == (0, 0)  # type: ignore[attr-defined]


def test_a_body_that_cannot_be_kept(clock: Clock, serve: MakeWire, files: FilesMade) -> None:
    """A full disk is told to the client; it is no defect."""
    files.error = OSError(errno.ENOSPC, "No space left on device")
    wire = serve(Bench(clock, LARGE).app.resource(), LARGE)
    connection = chunked(wire, CHUNK, CHUNK, CHUNK, b"0\r\n\r\n")
    response = connection.response("POST")
    assert (response.status, "No space left" in response.json()["message"]) == (503, True)
    assert connection.transport.half_closed
