"""Tests of reading requests."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.web.server import Request

from rasa_core_api.concurrency import Slices
from rasa_core_api.exceptions import InvalidParameter
from rasa_core_api.http import reading
from rasa_core_api.http.reading import Bodies, count, flag, number, query_of, read_json
from rasa_core_api.http.routing import App, Routes
from rasa_core_api.http.sending import send_json
from tests.http.conftest import MakeWire
from tests.wire import Wire


class Echo:
    """Answers with what it read."""

    app = App()

    def __init__(self, clock: Clock, limit: int) -> None:
        self.bodies = Bodies(limit, Slices(clock, timer=self.tick))
        self.ticks = 0

    def tick(self) -> float:
        """Every look at the time takes a millisecond."""
        self.ticks += 1
        return self.ticks / 1_000

    @app.route("/query", methods=["GET"])
    def query(self, request: Request) -> bytes:
        return send_json(request, dict(query_of(request)))

    @app.route("/value", methods=["POST"])
    async def value(self, request: Request) -> bytes:
        value = await self.bodies.value(request)
        return send_json(request, len(value) if isinstance(value, (dict, list)) and len(value) > 100 else value)

    @app.route("/object", methods=["POST"])
    async def object(self, request: Request) -> bytes:
        return send_json(request, sorted(await self.bodies.object(request)))

    @app.route("/listed", methods=["POST"])
    async def listed(self, request: Request) -> bytes:
        items = await self.bodies.listed(request)
        if not hasattr(items, "__aiter__"):
            return send_json(request, {"value": items})
        return send_json(request, sum([1 async for item in items]))

    @app.route("/text", methods=["POST"])
    async def text(self, request: Request) -> bytes:
        return send_json(request, await self.bodies.text(request))

    @app.route("/plain", methods=["POST"])
    def plain(self, request: Request) -> bytes:
        return send_json(request, read_json(request, 20))


@pytest.fixture
def wire(clock: Clock, serve: MakeWire) -> Wire:
    return serve(Routes(Echo(clock, 5_000_000).app), max_body=10_000_000)


# --- query strings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {}),
        ("?", {}),
        ("?a=1&b=2", {"a": "1", "b": "2"}),
        ("?a=1&a=2", {"a": "1"}),
        ("?a", {"a": ""}),
        ("?a=b=c", {"a": "b=c"}),
        ("?a+b=c+d%2B", {"a b": "c d+"}),
        ("?q=%F0%9F%98%80", {"q": "😀"}),
        ("?&&a=1&", {"a": "1"}),
        ("?a=1;b=2", {"a": "1;b=2"}),
        ("?q=?x", {"q": "?x"}),
    ],
)
def test_query(wire: Wire, query: str, expected: dict[str, str]) -> None:
    """Parameters by name, the first value of each, percent-decoded."""
    assert wire.get("/query" + query).json() == expected


@pytest.mark.parametrize("query", ["?a=%FF", "?%FF=a", "?" + "a=1&" * 200])
def test_bad_query(wire: Wire, query: str) -> None:
    """Bytes that are not UTF-8, and masses of parameters, are refused."""
    response = wire.get("/query" + query)
    assert (response.status, response.json()["reason"]) == (400, "InvalidParameter")
    assert response.json()["details"] == {"in": "query"}


def test_flag() -> None:
    """A flag is true when it says true, in any case."""
    assert flag({"a": "TRUE"}, "a") and flag({}, "a", True)
    assert not any(flag({"a": text}, "a", True) for text in ("", "1", "yes", "false", "true "))


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1.0), ("-1.5e3", -1500.0), ("0", 0.0), ("1535967670.128", 1535967670.128), ("1E+3", 1000.0)],
)
def test_number(text: str, value: float) -> None:
    """A number is written as in JSON."""
    assert number({"until": text}, "until") == value
    assert number({}, "until") is None


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "nan", "inf", "-Infinity", "1e999", "0x10", "1_0", " 10 ", "10 ", "+5", "--5", "5.", ".5", "1,5", "1e",
        "\u0661\u0660", "\uff11", "1\n", "\x001", "9" * 101, "true",
    ],
)  # fmt: skip
def test_no_number(text: str) -> None:
    """What is no finite number, or what only Python takes for one, is refused by name."""
    with pytest.raises(InvalidParameter) as caught:
        number({"until": text}, "until")
    assert caught.value.details == {"parameter": "until", "in": "query"}


def test_count() -> None:
    """Counts are whole numbers from one on."""
    assert count({"n": "30"}, "n", 5) == 30
    assert count({}, "n", 5) == 5
    for text in ("0", "-1", "1.5", "", "x", "١", "1" * 10):
        with pytest.raises(InvalidParameter):
            count({"n": text}, "n", 5)


# --- bodies --------------------------------------------------------------------------------------------

BAD = [
    (b"", "Expecting value"),
    (b"{", "Expecting"),
    (b"{'a': 1}", "Expecting"),
    (b'{"a": NaN}', "NaN"),
    (b"[Infinity]", "Infinity"),
    (b"1e999", "beyond a float"),
    (b'"\xff"', "UTF-8"),
    (b'"\\ud800"', "surrogate"),
    (b"[" * 101 + b"]" * 101, "nested deeper"),
    (b"[" * 100_000, "nested deeper"),
    (b"1" * 500, "beyond a float"),
]


@pytest.mark.parametrize(("body", "reason"), BAD)
@pytest.mark.parametrize("path", ["/value", "/object", "/listed"])
def test_bad_json(wire: Wire, body: bytes, reason: str, path: str) -> None:
    """What is not JSON, or more than JSON, is told in the envelope."""
    response = wire.post(path, body)
    assert response.status == 400
    assert response.json()["reason"] == "InvalidJson"
    assert reason in response.json()["message"]


@pytest.mark.parametrize(("body", "reason"), BAD[:-3])
@pytest.mark.parametrize("path", ["/value", "/listed"])
def test_bad_json_in_large_bodies(wire: Wire, body: bytes, reason: str, path: str) -> None:
    """A large body is read as strictly as a small one."""
    response = wire.post(path, b"[" + b'{"a": [1, "x"]}, ' * 10_000 + body + b"]")
    assert (response.status, response.json()["reason"]) == (400, "InvalidJson")


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded", None])
def test_any_content_type(wire: Wire, kind: str | None) -> None:
    """A body is read as JSON whatever its type says."""
    headers = {"Content-Type": kind} if kind else {}
    assert wire.ask("POST", "/value", b'\xef\xbb\xbf{"a": 1}', headers).json() == {"a": 1}


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"null"])
def test_objects_only(wire: Wire, body: bytes) -> None:
    """Another type than an object is refused."""
    response = wire.post("/object", body)
    assert (response.status, response.json()["details"]) == (400, {"parameter": "", "in": "body"})


@pytest.mark.parametrize("count", [0, 3, 30_000])
@pytest.mark.parametrize("blanks", ["", " \r\n\t"])
def test_lists(wire: Wire, count: int, blanks: str) -> None:
    """The items of a list, however long it is."""
    body = blanks + json.dumps([{"n": number} for number in range(count)]) + blanks
    assert wire.post("/listed", body.encode()).json() == count


@pytest.mark.parametrize("value", [{"a": 1}, "x" * 100_000, {"a": ["y"] * 50_000}])
def test_no_lists(wire: Wire, value: Any) -> None:
    """Where a list may be and is not, the value comes as it is."""
    assert wire.post("/listed", value).json() == {"value": value}


@pytest.mark.parametrize("size", [60_000, 70_000, 4_000_000])
def test_large_values(wire: Wire, size: int) -> None:
    """Large bodies have the value of small ones."""
    assert wire.post("/value", {"a": "é" * (size // 6)}).json() == {"a": "é" * (size // 6)}
    assert wire.post("/value", list(range(size // 8))).json() == size // 8


@pytest.mark.parametrize("path", ["/listed", "/value"])
def test_large_bodies_give_way(wire: Wire, clock: Clock, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """A large body is read in many rounds of the reactor."""
    rounds = []
    later = clock.callLater

    def call_later(delay: float, *args: Any) -> Any:
        if delay == 0:
            rounds.append(None)
        return later(delay, *args)

    monkeypatch.setattr(clock, "callLater", call_later)
    body = [{"a": number} for number in range(100_000)]
    assert wire.post(path, body).json() == 100_000
    assert len(rounds) > len(json.dumps(body)) // reading.AT_ONCE // 2


def test_text(wire: Wire) -> None:
    """A body may be plain text, in UTF-8."""
    assert wire.post("/text", "## ä".encode()).json() == "## ä"
    assert wire.post("/text", b"\xff").status == 400


def test_limit(wire: Wire) -> None:
    """A body beyond the limit is refused before it is read."""
    assert wire.post("/plain", b'"' + b"x" * 18 + b'"').status == 200
    response = wire.post("/plain", b'"' + b"x" * 19 + b'"')
    assert (response.status, response.json()["reason"]) == (413, "PayloadTooLarge")
    assert response.json()["details"] == {"max_bytes": 20}


def test_values_are_what_they_were(wire: Wire) -> None:
    """Numbers keep their type and texts their characters."""
    value = {"i": 2**70, "f": 0.1, "e": 1e300, "s": "\u2028\U0001f600", "n": None, "b": [True, False]}
    assert wire.post("/value", value).json() == value
    assert math.isclose(value["f"], 0.1)
