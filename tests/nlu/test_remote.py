"""A rasa_nlu server is asked as the historical client asked it; while it is down messages mean nothing."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from twisted.internet.defer import Deferred

from rasa_core_api.endpoints import EndpointConfig, OutgoingFailed, TimedOut
from rasa_core_api.nlu.remote import MAX_QUESTION, NluUnavailable, RemoteInterpreter, project_and_model
from tests.nlu.servers import FakeServer, logged_lines

PARSE = {
    "intent": {"name": "greet", "confidence": 0.9},
    "entities": [{"entity": "name", "value": "Ada", "start": 0, "end": 3}],
    "intent_ranking": [{"name": "greet", "confidence": 0.9}],
    "text": "Ada",
    "project": "default",
    "model": "current",
}
FALLBACK = {"intent": {"name": "", "confidence": 0.0}, "entities": [], "text": ""}


def remote(server: FakeServer, project: str | None = None, model: str | None = None, **entry: Any) -> RemoteInterpreter:
    endpoint = EndpointConfig.from_json({"url": "http://nlu:5000", **entry}, "endpoints.yml: nlu")
    return RemoteInterpreter(endpoint, http=server.http, clock=server.clock, project=project, model=model)


def query(server: FakeServer) -> dict[str, list[str]]:
    return parse_qs(urlsplit(server.asked[-1].uri.decode()).query, keep_blank_values=True)


def test_question() -> None:
    """Token, model, project, text and message id are the query; what is missing is not sent."""
    server = FakeServer(PARSE)
    assert server.wait(remote(server).parse("hé & co")) == PARSE
    assert server.asked[0].method == b"GET"
    assert urlsplit(server.asked[0].uri).path == b"/parse"
    assert query(server) == {"q": ["hé & co"]}
    server.wait(remote(server, "models/nlu", "current", token="s3c").parse("", "id-1"))
    assert query(server) == {
        "q": [""], "token": ["s3c"], "project": ["models/nlu"], "model": ["current"], "message_id": ["id-1"],
    }  # fmt: skip
    server.wait(remote(server, "", "current").parse("x"))
    assert query(server) == {"q": ["x"], "project": [""], "model": ["current"]}


def test_message_ids() -> None:
    """A message that brings no id of its own gets one, where ids can be made."""
    server = FakeServer(PARSE)
    endpoint = EndpointConfig.from_json({"url": "http://nlu:5000"}, "endpoints.yml: nlu")
    asking = RemoteInterpreter(endpoint, http=server.http, clock=server.clock, new_id=lambda: "made")
    server.wait(asking.parse("x"))
    assert query(server)["message_id"] == ["made"]
    server.wait(asking.parse("x", "own"))
    assert query(server)["message_id"] == ["own"]


def test_settings_of_the_entry() -> None:
    """Headers, parameters, credentials and the token's name of the entry take part."""
    server = FakeServer(PARSE)
    entry = {
        "url": "http://nlu:5000/base", "headers": {"X-Own": "7"}, "params": {"tenant": "a"}, "token": "t",
        "token_name": "key", "basic_auth": {"username": "u", "password": "p"},
    }  # fmt: skip
    server.wait(remote(server, **entry).parse("x"))
    assert urlsplit(server.asked[0].uri).path == b"/base/parse"
    assert query(server) == {"q": ["x"], "tenant": ["a"], "key": ["t"]}
    headers = server.asked[0].requestHeaders
    assert headers.getRawHeaders("x-own") == ["7"]
    assert headers.getRawHeaders("authorization") == ["Basic dTpw"]


@pytest.mark.parametrize("path", ["default/current", "models/nlu/current", "current", "/current"])
def test_project_and_model(path: str) -> None:
    """The last part of `-u` is the model, the rest is the project."""
    expected = {
        "default/current": ("default", "current"),
        "models/nlu/current": ("models/nlu", "current"),
        "current": ("", "current"),
        "/current": ("", "current"),
    }
    assert project_and_model(path) == expected[path]


@pytest.mark.parametrize("parse", [{"intent": None, "intent_ranking": [], "entities": [], "text": "x"}, {"intent": {}}])
def test_results_of_empty_models(parse: Any) -> None:
    """A result without an intent is a result, and told apart from an outage."""
    server = FakeServer(parse)
    interpreter = remote(server)
    assert server.wait(interpreter.parse("x")) == parse
    assert not interpreter.is_down


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        [],
        {"error": "no model"},
        {**PARSE, "intent": "greet"},
        {**PARSE, "intent": {"name": 5}},
        {**PARSE, "intent": {"name": "greet", "confidence": "high"}},
        {**PARSE, "entities": {}},
        {**PARSE, "entities": [{"entity": "x"}]},
        {**PARSE, "entities": [5]},
        {**PARSE, "intent_ranking": {"greet": 1}},
        {**PARSE, "intent_ranking": ["greet"]},
        b'{"intent": {"name": "x", "confidence": NaN}}',
    ],
)
def test_other_answers(answer: Any) -> None:
    """An answer that is no parse result counts as an outage, and the message gets the fallback value."""
    server = FakeServer(answer)
    interpreter = remote(server)
    with logged_lines() as lines:
        assert server.wait(interpreter.parse("x")) == FALLBACK
    assert interpreter.is_down
    assert len(lines) == 1
    with pytest.raises(NluUnavailable):
        server.wait(interpreter.ask("x"))


def test_outage() -> None:
    """An outage is logged once, however many messages it takes, and its end too; every message is tried."""
    server = FakeServer(PARSE, status=500)
    interpreter = remote(server, token="s3c")
    with logged_lines() as lines:
        for _ in range(5):
            assert server.wait(interpreter.parse("secret text")) == FALLBACK
        server.reachable = False
        assert server.wait(interpreter.parse("secret text")) == FALLBACK
        assert interpreter.is_down
        assert len(server.asked) == 5
        assert len(lines) == 1 and lines[0].startswith("error: the NLU server at http://nlu:5000 cannot be used")
        server.clock.advance(65)
        server.reachable, server.status = True, 200
        assert server.wait(interpreter.parse("secret text")) == PARSE
        assert not interpreter.is_down
        assert len(lines) == 2 and "again after 65 s" in lines[1]
    assert not [line for line in lines if "secret" in line or "s3c" in line]
    server.status = 404
    with pytest.raises(NluUnavailable, match="status 404"):
        server.wait(interpreter.ask("x"))


def test_time_limit() -> None:
    """A server that does not answer is given up after the entry's time limit."""
    server = FakeServer(None)
    interpreter = remote(server, timeout=2)
    results: list[Any] = []
    Deferred.fromCoroutine(interpreter.ask("x")).addBoth(results.append)
    server.clock.advance(2.1)
    assert results[0].check(TimedOut, OutgoingFailed)


def test_long_and_odd_texts() -> None:
    """A text of a megabyte is asked about in part; lone surrogates and control characters do no harm."""
    server = FakeServer(PARSE)
    for text in ("a" * 1_000_000, "x\udc80\ud800y", "\0\r\n"):
        assert server.wait(remote(server).parse(text)) == PARSE
    assert len(server.asked[0].uri) == MAX_QUESTION + len("/parse?q=")
    assert query(server) == {"q": ["\0\r\n"]}
