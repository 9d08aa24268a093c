"""A duckling server is asked beside the local parts, and one that fails costs nothing but its entities."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import pytest

from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.nlu.duckling import MAX_TEXT, PAUSE, TIME_LIMIT, DucklingEntities, duckling_factory
from rasa_core_api.nlu.message import Message
from tests.nlu.servers import FakeServer, logged_lines

NUMBER = {
    "body": "two", "start": 2, "end": 5, "dim": "number", "latent": False, "value": {"value": 2, "type": "value"},
}  # fmt: skip
TIME = {
    "body": "9 to 10", "start": 6, "end": 13, "dim": "time",
    "value": {"type": "interval", "from": {"value": "9:00", "grain": "hour"}, "to": {"value": "10:00"}, "values": []},
}  # fmt: skip
OPEN = {"body": "x", "start": 0, "end": 1, "dim": "time", "value": {"type": "interval", "from": {"value": "9:00"}}}


def part(server: FakeServer, **settings: Any) -> DucklingEntities:
    return DucklingEntities(
        {"url": "http://duckling:8000", **settings}, "ner_duckling_http", "en", http=server.http, clock=server.clock,
        now=server.clock.seconds,
    )  # fmt: skip


def test_entities() -> None:
    """Places, values and whatever else the server said become an entity; intervals have two ends."""
    server = FakeServer([NUMBER, TIME, OPEN])
    first, second, third = server.wait(part(server).start(Message("x")))
    assert list(first.items()) == [
        ("start", 2), ("end", 5), ("text", "two"), ("value", 2), ("confidence", 1.0),
        ("additional_info", NUMBER["value"]), ("entity", "number"), ("extractor", "ner_duckling_http"),
    ]  # fmt: skip
    assert second["value"] == {"to": "10:00", "from": "9:00"}
    assert third["value"] == {"to": None, "from": "9:00"}


def test_dimensions() -> None:
    """Only the dimensions that are asked for count; without any, all do."""
    server = FakeServer([NUMBER, TIME])
    found = server.wait(part(server, dimensions=["time"]).start(Message("x")))
    assert [entity["entity"] for entity in found] == ["time"]
    assert len(server.wait(part(server, dimensions=[]).start(Message("x")))) == 2


def test_question() -> None:
    """Text, locale, time zone and time are sent as a form; what is unset is left out."""
    server = FakeServer([])
    server.clock.advance(12.75)
    server.wait(part(server).start(Message("zwölf + \udc80")))
    server.wait(part(server, locale="de_DE", timezone="Europe/Rome").start(Message("a" * 20_000, time=99)))
    assert [request.uri for request in server.asked] == [b"/parse", b"/parse"]
    headers = server.asked[0].requestHeaders
    assert headers.getRawHeaders("content-type") == ["application/x-www-form-urlencoded; charset=UTF-8"]
    assert parse_qs(server.bodies[0].decode()) == {"text": ["zwölf + ?"], "locale": ["en_EN"], "reftime": ["12000"]}
    assert parse_qs(server.bodies[1].decode()) == {
        "text": ["a" * MAX_TEXT], "locale": ["de_DE"], "tz": ["Europe/Rome"], "reftime": ["99"],
    }  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [b"<html>", {"error": 1}, [1], [{}], [{**NUMBER, "start": "2"}], [{**NUMBER, "value": None}], b"[NaN]", [None]],
)
def test_other_answers(answer: Any) -> None:
    """An answer that is no list of entities is a failure, and no more than that."""
    server = FakeServer(answer)
    with logged_lines() as lines:
        assert server.wait(part(server).start(Message("x"))) == []
    assert len(lines) == 1
    assert "duckling at http://duckling:8000" in lines[0]


def test_slow_server() -> None:
    """A server that does not answer is given up after the time limit."""
    server = FakeServer(None)
    results: list[Any] = []
    part(server).start(Message("x")).addBoth(results.append)
    server.clock.advance(TIME_LIMIT - 0.1)
    assert results == []
    server.clock.advance(0.2)
    assert results == [[]]


def test_outage() -> None:
    """An outage is logged once; after some failures the server is left alone for a while, then tried once."""
    server = FakeServer([NUMBER], status=500)
    duckling = part(server)
    with logged_lines() as lines:
        for _ in range(10):
            assert server.wait(duckling.start(Message("x"))) == []
        assert len(server.asked) == 3
        server.clock.advance(PAUSE)
        for _ in range(5):
            server.wait(duckling.start(Message("x")))
        assert len(server.asked) == 4
        assert len(lines) == 1 and "status 500" in lines[0]
        server.status = 200
        server.clock.advance(PAUSE)
        assert len(server.wait(duckling.start(Message("x")))) == 1
        assert len(lines) == 2 and "can be used again" in lines[1]
        server.reachable = False
        assert server.wait(duckling.start(Message("x"))) == []
        assert len(lines) == 3 and "refused" in lines[2]


def test_environment() -> None:
    """The environment replaces the URL of every model; without any URL nothing is asked, with a warning."""
    server = FakeServer([NUMBER])
    connect = duckling_factory(server.http, server.clock, {"RASA_DUCKLING_HTTP_URL": "http://other/base/"})
    duckling = connect({"url": None}, "DucklingHTTPExtractor", "de")
    assert server.wait(duckling.start(Message("x")))[0]["extractor"] == "DucklingHTTPExtractor"
    assert server.asked[0].uri == b"/base/parse"
    assert parse_qs(server.bodies[0].decode())["locale"] == ["de_DE"]
    with logged_lines() as lines:
        silent = duckling_factory(server.http, server.clock, {})({"url": None}, "ner_duckling_http", "de")
        assert server.wait(silent.start(Message("x"))) == []
    assert len(lines) == 1 and "RASA_DUCKLING_HTTP_URL" in lines[0]
    with pytest.raises(InvalidConfiguration, match=r"ner_duckling_http\.url"):
        duckling_factory(server.http, server.clock, {})({"url": "ftp://x"}, "ner_duckling_http", "de")
