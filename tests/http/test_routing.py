"""Tests of routing, and of what becomes of results and failures."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.web.server import Request

from rasa_core_api.exceptions import NotAuthorized, StoreUnavailable, TooManyRequests
from rasa_core_api.http.routing import App, Refusal, Route, Routes, rights
from rasa_core_api.http.sending import send_json
from tests.conftest import LoggedFailures
from tests.http.conftest import MakeWire
from tests.wire import Wire


class Bench:
    """Some routes, one of each kind."""

    app = App()

    def __init__(self) -> None:
        self.waiting: list[Deferred[Any]] = []
        self.cancelled = 0
        self.cancel_with: Exception | None = None

    @app.route("/", methods=["GET"])
    def root(self, request: Request) -> bytes:
        return send_json(request, "root")

    @app.route("/things/<sender_id>", methods=["GET"])
    @rights("read")
    def thing(self, request: Request, sender_id: str) -> bytes:
        return send_json(request, sender_id)

    @app.route("/things/<sender_id>", methods=["PUT"])
    async def put(self, request: Request, sender_id: str) -> bytes:
        return send_json(request, None, 201)

    @app.route("/things/<sender_id>/deep/er", methods=["POST"])
    async def deeper(self, request: Request, sender_id: str) -> bytes:
        return send_json(request, sender_id)

    @app.route("/wait", methods=["GET", "POST"])
    async def wait(self, request: Request) -> bytes:
        def cancelled(result: Deferred[Any]) -> None:
            self.cancelled += 1
            if self.cancel_with is not None:
                result.errback(self.cancel_with)

        result: Deferred[Any] = Deferred(cancelled)
        self.waiting.append(result)
        return send_json(request, await result)

    @app.route("/slash/", methods=["GET"])
    def slash(self, request: Request) -> bytes:
        return b"/"

    @app.route("/broken", methods=["GET"])
    async def broken(self, request: Request) -> bytes:
        raise ZeroDivisionError("a secret")

    @app.route("/broken-at-once", methods=["GET"])
    def broken_at_once(self, request: Request) -> bytes:
        raise ZeroDivisionError("a secret")

    @app.route("/half", methods=["GET"])
    async def half(self, request: Request) -> bytes:
        request.setHeader(b"Content-Length", b"10")
        request.write(b"half")
        raise StoreUnavailable("gone")

    @app.route("/away", methods=["GET"])
    async def away(self, request: Request) -> bytes:
        raise StoreUnavailable("the disk is full")

    @app.route("/not-json", methods=["GET"])
    async def not_json(self, request: Request) -> bytes:
        return send_json(request, float("nan"))

    @app.route("/busy", methods=["GET"])
    async def busy(self, request: Request) -> bytes:
        raise TooManyRequests("too many", limit=3)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def wire(bench: Bench, serve: MakeWire) -> Wire:
    return serve(bench.app.resource())


@pytest.mark.parametrize(
    ("path", "sender_id"),
    [
        ("/things/default", "default"),
        ("/things/a%20b", "a b"),
        ("/things/a+b", "a+b"),
        ("/things/%F0%9F%98%80", "😀"),
        ("/things/%25", "%"),
        ("/things/%zz", "%zz"),
        ("/things/..", ".."),
        ("/things/%3F?x=%2F", "?"),
        ("/things/" + "x" * 1024, "x" * 1024),
        ("/%74hings/x", "x"),
    ],
)
def test_sender_ids(wire: Wire, path: str, sender_id: str) -> None:
    """A sender id is one segment, percent-decoded, UTF-8, up to 1 024 bytes."""
    assert wire.get(path).json() == sender_id


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/things/%FF", 400),
        ("/things/%00", 400),
        ("/things/a%0Ab", 400),
        ("/things/%7F", 400),
        ("/things/%C2%85", 400),
        ("/things/" + "x" * 1025, 400),
        ("/things/" + "%C3%A9" * 513, 400),
        ("/things/%ED%A0%80", 400),
        ("/things/a%2Fb", 404),
        ("/things/%2F", 404),
        ("/things/", 404),
        ("/things", 404),
        ("/things//deep/er", 404),
        ("/things/x/", 404),
        ("/things/x/deep", 404),
        ("/things/%FF/nowhere", 404),
        ("host:443", 404),
        ("?", 404),
        ("/wait/", 404),
        ("/WAIT", 404),
        ("/things%2Fx", 404),
        ("/nowhere", 404),
    ],
)
def test_bad_paths(wire: Wire, path: str, status: int) -> None:
    """What is no route is 404, what is no sender id is 400, both in the envelope."""
    response = wire.get(path)
    assert response.status == status
    body = response.json()
    assert body["code"] == status
    assert body["reason"] == {404: "NotFound", 400: "InvalidParameter"}[status]
    if status == 400:
        assert body["details"] == {"parameter": "sender_id", "in": "path"}


def test_methods(wire: Wire) -> None:
    """A method that the path lacks is answered with those that it has."""
    response = wire.ask("POST", "/things/x")
    assert (response.status, response.headers["allow"]) == (405, "GET, HEAD, OPTIONS, PUT")
    assert response.json()["reason"] == "MethodNotAllowed"
    assert wire.ask("BREW", "/wait").status == 405
    assert wire.put("/things/x").status == 201


def test_options(wire: Wire) -> None:
    """OPTIONS works on every path and tells its methods; unknown paths are not there for it either."""
    response = wire.ask("OPTIONS", "/things/x/deep/er")
    assert (response.status, response.body, response.headers["allow"]) == (200, b"", "OPTIONS, POST")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert wire.ask("OPTIONS", "/nowhere").status == 404


def test_head(wire: Wire) -> None:
    """HEAD has the headers of GET and no body."""
    get, head = wire.get("/things/x"), wire.ask("HEAD", "/things/x")
    assert (head.status, head.body) == (200, b"")
    assert {**head.headers, "date": ""} == {**get.headers, "date": ""}
    missing = wire.ask("HEAD", "/nowhere")
    assert (missing.status, missing.body) == (404, b"")


def test_slash_redirect(wire: Wire) -> None:
    """A path whose route ends in a slash is redirected there, with its query string."""
    response = wire.get("/slash?a=b")
    assert (response.status, response.headers["location"]) == (308, "/slash/?a=b")
    assert wire.get("/slash").headers["location"] == "/slash/"
    assert wire.get("/slash/").status == 200


def test_keep_alive(wire: Wire) -> None:
    """Requests in a row on one connection are answered in order, each with its length."""
    connection = wire.connect()
    connection.send(b"GET /things/a HTTP/1.1\r\n\r\nGET /nowhere HTTP/1.1\r\n\r\nGET /things/b HTTP/1.1\r\n\r\n")
    assert [connection.response().status for _ in range(3)] == [200, 404, 200]
    assert not connection.transport.disconnecting


@pytest.mark.parametrize("path", ["/broken", "/broken-at-once", "/not-json"])
def test_unexpected_failures(wire: Wire, logged: LoggedFailures, path: str) -> None:
    """What nobody expected is logged once, and the client learns nothing of it."""
    response = wire.get(f"{path}?token=hidden")
    assert response.status == 500
    body = response.json()
    assert (body["reason"], body["message"]) == ("ServerError", "internal error")
    assert b"secret" not in response.body
    assert len(logged.take()) == 1


def test_failures_after_a_part_was_sent(wire: Wire) -> None:
    """An answer that fails half-way is cut off, so that it cannot pass for complete."""
    connection = wire.begin("GET", "/half")
    assert connection.transport.value().endswith(b"half")
    assert connection.transport.disconnecting


def test_retry_after(wire: Wire) -> None:
    """Limits tell when to come back."""
    response = wire.get("/busy")
    assert (response.status, response.headers["retry-after"]) == (429, "1")
    assert response.json()["details"] == {"limit": 3}


def test_late_answers(wire: Wire, bench: Bench) -> None:
    """A handler may wait; its answer comes when it is there."""
    connection = wire.begin("GET", "/wait")
    assert connection.transport.value() == b""
    bench.waiting[0].callback("late")
    assert connection.response().json() == "late"


def test_hang_up(wire: Wire, bench: Bench, logged: LoggedFailures) -> None:
    """A handler whose client hangs up is cancelled, without a word in the log."""
    connection = wire.begin("GET", "/wait")
    connection.hang_up()
    assert bench.cancelled == 1
    assert logged.take() == []


def test_hang_up_after_the_answer(wire: Wire, bench: Bench) -> None:
    """A client that leaves after its answer cancels nothing."""
    connection = wire.begin("GET", "/wait")
    bench.waiting[0].callback(1)
    connection.hang_up()
    assert bench.cancelled == 0


def test_failure_after_hang_up(wire: Wire, bench: Bench, logged: LoggedFailures) -> None:
    """What fails after the client left is logged and not sent."""
    bench.cancel_with = ZeroDivisionError()
    connection = wire.begin("GET", "/wait")
    connection.hang_up()
    assert logged.take() == [ZeroDivisionError]
    assert connection.transport.value() == b""


def test_guard(bench: Bench, serve: MakeWire) -> None:
    """A guard sees the route's mark and the sender before the handler runs."""
    seen: list[Any] = []

    def guard(request: Request, route: Route, sender_id: str | None) -> None:
        seen.append((route.path, route.rights, sender_id))
        if sender_id == "bob":
            raise NotAuthorized("no")

    wire = serve(Routes(bench.app, guard))
    assert wire.get("/things/alice").status == 200
    assert wire.get("/things/bob").status == 403
    assert wire.get("/").status == 200
    assert wire.ask("OPTIONS", "/things/bob").status == 200
    assert seen == [("/things/<sender_id>", "read", "alice"), ("/things/<sender_id>", "read", "bob"), ("/", None, None)]


def test_refusal(serve: MakeWire) -> None:
    """A resource that refuses answers everything with its envelope, naming the release it was told."""
    response = serve(Refusal(NotAuthorized("never"), "0.14.5")).get("/any/where")
    assert response.status == 403
    assert response.json()["version"] == "0.14.5"


def test_rules_that_are_not_known(serve: MakeWire) -> None:
    """An application that asks for more than these rules is refused when it is built."""
    app = App()

    @app.route("/<int:number>", methods=["GET"])
    def number(request: Request, number: int) -> bytes:
        return b""

    with pytest.raises(AssertionError, match="not <sender_id>"):
        app.resource()


def test_a_store_that_is_away_is_told_in_the_log(wire: Wire) -> None:
    """The client is told to come again, the operator what is the matter."""
    with capturedLogs() as lines:
        answer = wire.ask("GET", "/away?token=secret")
    assert (answer.status, answer.json()["reason"]) == (503, "Unavailable")
    assert [formatEvent(line) for line in lines] == ["GET /away 503 Unavailable: the disk is full"]
