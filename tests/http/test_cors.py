"""Tests of cross-origin resource sharing, with the table that was observed on the historical server."""

from __future__ import annotations

import pytest
from twisted.web.server import Request

from rasa_core_api.http.cors import Origins, names_no_origin
from rasa_core_api.http.routing import App, Routes
from tests.http.conftest import MakeWire
from tests.wire import Wire

ALLOW = "access-control-allow-origin"
A, B, C = "http://a.example", "http://b.example", "http://c.example"

app = App()


@app.route("/x", methods=["GET"])
def hello(request: Request) -> bytes:
    return b"hello"


def wire_with(serve: MakeWire, *origins: str) -> Wire:
    return serve(Routes(app, origins=Origins(origins)))


@pytest.mark.parametrize(
    ("origins", "sent", "allowed", "varies"),
    [
        ([], None, None, False),
        ([], A, None, False),
        (["*"], None, "*", False),
        (["*"], A, A, True),
        (["*", A], C, C, True),
        ([A], None, A, True),
        ([A], A, A, True),
        ([A], B, None, True),
        ([B, A], None, A, True),
        ([B, A], B, B, True),
        ([B, A], C, None, True),
        ([A.upper()], A, A, True),
        (["http://.*"], A, None, True),
        ([A], "null", None, True),
        ([A], A + ".evil", None, True),
    ],
)
@pytest.mark.parametrize("path", ["/x", "/nowhere"])
def test_origins(
    serve: MakeWire, origins: list[str], sent: str | None, allowed: str | None, varies: bool, path: str
) -> None:
    """Exact origins without regard to case, on answers and on failures alike."""
    response = wire_with(serve, *origins).ask("GET", path, headers={"Origin": sent} if sent else None)
    assert response.headers.get(ALLOW) == allowed
    assert response.headers.get("vary") == ("Origin" if varies else None)
    assert "access-control-allow-credentials" not in response.headers


def test_preflight(serve: MakeWire) -> None:
    """A preflight of an allowed origin hears what it asks for."""
    response = wire_with(serve, A).ask(
        "OPTIONS",
        "/x",
        headers={
            "Origin": A,
            "Access-Control-Request-Method": "PUT",
            "Access-Control-Request-Headers": "x-b, authorization,content-type",
        },
    )
    assert (response.status, response.body) == (200, b"")
    assert response.headers[ALLOW] == A
    assert response.headers["access-control-allow-methods"] == "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
    assert response.headers["access-control-allow-headers"] == "authorization, content-type, x-b"
    assert "access-control-max-age" not in response.headers


def test_preflight_of_others(serve: MakeWire) -> None:
    """A preflight of another origin hears the methods of the route and nothing more."""
    response = wire_with(serve, A).ask("OPTIONS", "/x", headers={"Origin": B, "Access-Control-Request-Method": "PUT"})
    assert (response.status, response.headers["allow"]) == (200, "GET, HEAD, OPTIONS")
    assert not any(name.startswith("access-control") for name in response.headers)


def test_options_that_is_no_preflight(serve: MakeWire) -> None:
    """Methods and headers are told only when they were asked for."""
    response = wire_with(serve, A).ask("OPTIONS", "/x", headers={"Origin": A})
    assert response.headers[ALLOW] == A
    assert "access-control-allow-methods" not in response.headers
    assert "access-control-allow-headers" not in response.headers


def test_what_no_page_has() -> None:
    """A host alone, an address with a path, or two in one are no origins: nothing would ever match them."""
    for origin in ("*", "null", "http://shop.example", "https://a.b:8443", "capacitor://x", "http://[::1]:80", ""):
        assert not names_no_origin(origin)
    for text in ("shop.example", "http://shop.example/", "http://a,http://b", "localhost:3000", "https://*.b/x"):
        assert names_no_origin(text)
