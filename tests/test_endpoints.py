"""Tests of endpoint files and of calls of other servers."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from klein import Klein
from treq.client import HTTPClient
from treq.testing import RequestTraversalAgent
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.web.iweb import IRequest
from twisted.web.server import Site
from zope.interface import implementer

from rasa_core_api.endpoints import (
    AnswerTooLarge,
    ConnectionFailed,
    EndpointConfig,
    OutgoingHTTP,
    TimedOut,
    endpoints_from_json,
    read_endpoints,
)
from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.http_client import PromptEndpoint, body_producer, new_client, new_pool

reactor: Any = global_reactor


def entry(**keys: Any) -> EndpointConfig:
    return EndpointConfig.from_json({"url": "http://actions:5055/webhook", **keys}, "endpoints.yml: action_endpoint")


class _Socket:
    """Counts what is set on it."""

    def __init__(self) -> None:
        self.options: list[tuple[object, ...]] = []

    def setsockopt(self, *option: object) -> None:
        self.options.append(option)


class _Transport(StringTransport):
    def __init__(self) -> None:
        super().__init__()
        self.socket = _Socket()

    def getHandle(self) -> _Socket:
        return self.socket


class _Parts(Protocol):
    """Knows after its second part that the answer is complete, as an HTTP client does."""

    state = "WAITING"
    seen = b""

    def dataReceived(self, data: bytes) -> None:
        self.seen += data
        if self.seen.endswith(b"."):
            self.state = "QUIESCENT"


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="there is no such socket option here")
def test_beginnings_are_acknowledged_at_once() -> None:
    """A server that waits for an acknowledgement before it goes on gets it at once; complete answers need none."""
    transport = _Transport()

    @implementer(IStreamClientEndpoint)
    class Endpoint:
        def connect(self, factory: Any) -> Deferred[Any]:
            protocol = factory.buildProtocol(None)
            protocol.makeConnection(transport)
            return succeed(protocol)

    connected: list[_Parts] = []
    PromptEndpoint(Endpoint()).connect(Factory.forProtocol(_Parts)).addCallback(connected.append)
    (client,) = connected
    connection: Any = client.transport
    connection.dataReceived(b"head ")
    assert transport.socket.options == [(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)]
    connection.dataReceived(b"body.")
    assert client.seen == b"head body." and len(transport.socket.options) == 1


# --- files -----------------------------------------------------------------------------------------------


def test_a_whole_file(tmp_path: Path) -> None:
    """Every entry of a file is read; variables come from the environment."""
    path = tmp_path / "endpoints.yml"
    path.write_text(
        """
        action_endpoint: {url: "http://${HOST}/webhook", timeout: 5}
        nlg: {url: "https://nlg/", token: 123, headers: {X-Key: 7}, basic_auth: {username: u, password: p}}
        nlu:
        models: {url: "http://m", wait_time_between_pulls: 10}
        tracker_store: {type: sqlite, path: x.db}
        """
    )
    endpoints = read_endpoints(path, {"HOST": "actions:5055"})
    assert endpoints.action_endpoint is not None and endpoints.action_endpoint.url == "http://actions:5055/webhook"
    assert endpoints.action_endpoint.timeout == 5.0
    assert endpoints.nlg is not None and endpoints.nlg.token == "123"
    assert endpoints.nlg.headers == {"X-Key": "7"} and endpoints.nlg.basic_auth == ("u", "p")
    assert endpoints.nlu is None
    assert endpoints.model is not None and endpoints.model.options == {"wait_time_between_pulls": 10}
    assert endpoints.model.where == f"{path}: models"
    assert endpoints.tracker_store == {"type": "sqlite", "path": "x.db"}
    assert endpoints.calls()


@pytest.mark.parametrize(
    ("name", "key", "hint"),
    [
        ("action_endpoint", "tokn", "did you mean 'token'?"),
        ("nlg", "wait_time_between_pulls", "known are url, params, headers, basic_auth, token, token_name, timeout"),
        ("models", "wait_time_betwen_pulls", "did you mean 'wait_time_between_pulls'?"),
    ],
)
def test_a_key_of_an_entry_that_means_nothing(name: str, key: str, hint: str) -> None:
    """It keeps no server down, as old files may hold some, but is told with file, key path and what may be meant."""
    with capturedLogs() as lines:
        endpoints = endpoints_from_json({name: {"url": "http://x", key: "secret"}}, "e.yml")
    assert [formatEvent(line) for line in lines] == [f"e.yml: {name}.{key}: nothing uses this key; {hint}"]
    assert endpoints.calls()


def test_nothing_configured() -> None:
    """An empty file configures nothing."""
    assert not endpoints_from_json(None, "e.yml").calls()


def test_aliases() -> None:
    """`action` is another name of `action_endpoint`; of `model` and `models` the first counts."""
    found = endpoints_from_json({"action": {"url": "http://a"}}, "e.yml")
    assert found.action_endpoint is not None and found.action_endpoint.url == "http://a"
    both = endpoints_from_json({"models": {"url": "http://b"}, "model": {"url": "http://a"}}, "e.yml")
    assert both.model is not None and both.model.url == "http://a"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "e.yml: a mapping of endpoints"),
        ({"action_endpoints": {"url": "http://a"}}, "e.yml: action_endpoints: .* did you mean 'action_endpoint'"),
        ({"foo": 1}, "e.yml: foo: there is no such endpoint; known are nlg, nlu"),
        ({"nlg": "http://a"}, "e.yml: nlg: a mapping with 'url'"),
        ({"nlg": {}}, r"e.yml: nlg.url: the server's URL"),
        ({"nlg": {"url": "actions:5055"}}, r"nlg.url: .* http:// or https://"),
        ({"nlg": {"url": "ftp://a"}}, r"nlg.url: .* http:// or https://"),
        ({"nlg": {"url": "http://a:99999"}}, r"nlg.url: this is no URL"),
        ({"nlg": {"url": "http://a/ b"}}, r"nlg.url: .*blanks"),
        ({"nlg": {"url": "http://a", "timeout": 0}}, r"nlg.timeout: more than 0"),
        ({"nlg": {"url": "http://a", "timeout": True}}, r"nlg.timeout: a number"),
        ({"nlg": {"url": "http://a", "timeout": "soon"}}, r"nlg.timeout: a number"),
        ({"nlg": {"url": "http://a", "headers": {"X": "a\nb"}}}, r"nlg.headers.X: .*line breaks"),
        ({"nlg": {"url": "http://a", "headers": {"X Y": "a"}}}, r"nlg.headers.X Y: .*name"),
        ({"nlg": {"url": "http://a", "headers": []}}, r"nlg.headers: a mapping"),
        ({"nlg": {"url": "http://a", "params": {"x": {"y": 1}}}}, r"nlg.params.x: a text"),
        ({"nlg": {"url": "http://a", "token": True}}, r"nlg.token: a text .*quotes"),
        ({"nlg": {"url": "http://a", "basic_auth": "u:p"}}, r"nlg.basic_auth: a mapping"),
        ({"nlg": {"url": "http://a", "basic_auth": {"user": "u"}}}, r"nlg.basic_auth.user: only"),
        ({"nlg": {"url": "http://a", "basic_auth": {"password": "u"}}}, r"nlg.basic_auth.username: this key"),
        ({"tracker_store": "redis"}, "e.yml: tracker_store: a mapping"),
    ],
)
def test_bad_files(data: Any, words: str) -> None:
    """What is wrong is named by file, key path and reason."""
    with pytest.raises(InvalidConfiguration, match=words):
        endpoints_from_json(data, "e.yml")


def test_secrets_are_not_shown() -> None:
    """Neither the representation nor the URL of an entry shows what is secret in it."""
    endpoint = entry(
        url="http://bob:hunter2@a:80/x?key=hunter2",
        token="hunter2",
        headers={"A": "hunter2"},
        params={"p": "hunter2"},
    )
    assert "hunter2" not in repr(endpoint) + endpoint.url_for("y")
    assert endpoint.url == "http://a:80/x"
    assert endpoint.basic_auth == ("bob", "hunter2")
    assert endpoint.target() == "http://a:80/x?key=hunter2&p=hunter2&token=hunter2"


@pytest.mark.parametrize(
    ("url", "subpath", "target"),
    [
        ("http://a", None, "http://a"),
        ("http://a/", "parse", "http://a/parse"),
        ("http://a/b", "/parse", "http://a/b/parse"),
        ("http://a/b?x=1", "parse?y=2", "http://a/b/parse?y=2&x=1"),
        ("http://[::1]:80/b", None, "http://[::1]:80/b"),
        ("http://bücher.de/ü?ä=ö", None, "http://xn--bcher-kva.de/%C3%BC?%C3%A4=%C3%B6"),
        ("HTTP://A/%41", None, "http://a/%41"),
    ],
)
def test_targets(url: str, subpath: str | None, target: str) -> None:
    """One slash joins the sub-path; queries are merged."""
    assert entry(url=url).target(subpath) == target


def test_urls_are_asked_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may have an IPv6 address, and no URL is encoded a second time."""
    asked: list[bytes] = []

    class Recording:
        def request(self, method: bytes, uri: bytes, *_: object, **__: object) -> Deferred[Any]:
            asked.append(uri)
            return Deferred()

    client = new_client(Clock(), new_pool(Clock()))
    monkeypatch.setattr(client, "_agent", Recording())
    client.get("http://[::1]:5055/webhook?a=%7e")
    client.request("POST", "http://bot/%2F?q=caf%C3%A9+x", data=b"{}")
    assert asked == [b"http://[::1]:5055/webhook?a=%7e", b"http://bot/%2F?q=caf%C3%A9+x"]


def test_precedence_of_parameters() -> None:
    """A call's own parameters replace configured ones, and the token replaces both."""
    endpoint = entry(params={"a": "1", "b": 2, "c": None, "d": ["x", True]}, token="secret", token_name="b")
    assert endpoint.target(params={"a": "own"}) == "http://actions:5055/webhook?d=x&d=true&a=own&b=secret"


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=4), st.text(max_size=8))
def test_any_parameter_is_encoded(params: dict[str, str], path: str) -> None:
    """Whatever parameters hold, the target is one line of ASCII."""
    try:
        endpoint = entry(url=f"http://a/{path}", params=params)
    except InvalidConfiguration:
        return
    target = endpoint.target()
    assert target.isascii() and not any(c <= " " for c in target)


# --- calls -----------------------------------------------------------------------------------------------


class FakeServer:
    """An HTTP server without a socket."""

    app = Klein()

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bytes, dict[bytes, bytes], bytes]] = []
        self.waiting: Deferred[bytes] | None = None

    @app.route("/<path:path>", methods=["GET", "POST"])
    def answer(self, request: IRequest, path: str) -> Any:
        raw: Any = request
        headers = {name.lower(): values[0] for name, values in raw.requestHeaders.getAllRawHeaders()}
        self.requests.append((raw.method, raw.uri, headers, raw.content.read()))
        if path == "wait":
            self.waiting = Deferred()
            return self.waiting
        if path == "moved":
            raw.redirect(b"/webhook")
            return b""
        request.setResponseCode(418 if path == "teapot" else 200)
        raw.responseHeaders.addRawHeader(b"Set-Cookie", b"session=1")
        return b'{"events": []}'


class Calls:
    """Calls of a fake server on a clock."""

    def __init__(self) -> None:
        self.server = FakeServer()
        self.clock = Clock()
        self.agent = RequestTraversalAgent(self.server.app.resource())
        self.http = OutgoingHTTP(self.clock, lambda: HTTPClient(self.agent, data_to_body_producer=body_producer))

    def start(self, endpoint: EndpointConfig, method: str = "POST", **keys: Any) -> list[Any]:
        results: list[Any] = []
        Deferred.fromCoroutine(self.http.request_json(endpoint, method, **keys)).addBoth(results.append)
        self.agent.flush()
        return results


def test_a_call() -> None:
    """Body, headers and credentials arrive; the answer has status and body."""
    calls = Calls()
    headers_of_entry = {"X-Own": "ü", "Content-Type": "text/plain"}
    endpoint = entry(headers=headers_of_entry, basic_auth={"username": "u", "password": "p"})
    (answer,) = calls.start(endpoint, body=b'{"a": 1}', headers={"X-Turn-Id": "7"})
    assert (answer.status, answer.body) == (200, b'{"events": []}')
    ((method, uri, headers, body),) = calls.server.requests
    assert (method, uri, body) == (b"POST", b"/webhook", b'{"a": 1}')
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"x-own"] == "ü".encode()
    assert headers[b"x-turn-id"] == b"7"
    assert headers[b"authorization"] == b"Basic dTpw"


def test_any_status_is_an_answer() -> None:
    """A status other than 200 is no failure of the call; redirects are followed for GET only."""
    calls = Calls()
    assert calls.start(entry(url="http://a/teapot"))[0].status == 418
    assert calls.start(entry(url="http://a/moved"))[0].status == 302
    assert calls.start(entry(url="http://a/moved"), "GET")[0].status == 200


def test_time_limit() -> None:
    """A server that does not answer is given up after the entry's time limit, not before."""
    calls = Calls()
    results = calls.start(entry(url="http://a/wait?secret=1", timeout=3))
    calls.clock.advance(2.9)
    assert results == []
    calls.clock.advance(0.2)
    assert results[0].check(TimedOut)
    assert str(results[0].value) == "http://a/wait did not answer within 3 s"


def test_large_answers() -> None:
    """An answer beyond the limit is refused, one at the limit is not."""
    calls = Calls()
    assert calls.start(entry(), max_bytes=14)[0].status == 200
    assert calls.start(entry(), max_bytes=13)[0].check(AnswerTooLarge)


class _Script(Protocol):
    """Answers with bytes of a script, then closes or not."""

    factory: Any

    def connectionMade(self) -> None:
        self.factory.connections += 1
        self._seen = b""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self._seen += data
        while b"\r\n\r\n" in self._seen:
            head, _, rest = self._seen.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or b"0")
            if len(rest) < length:
                return
            self._seen = rest[length:]
            self.factory.requests.append((head, rest[:length]))
            self.transport.write(self.factory.answer)
            if self.factory.closes:
                self.transport.loseConnection()


class Loopback(Factory):
    """A raw server on the loopback interface."""

    protocol = _Script
    answer = b""
    closes = True

    def __init__(self) -> None:
        self.connections = 0
        self.requests: list[tuple[bytes, bytes]] = []
        self.port = reactor.listenTCP(0, self, interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self.port.getHost().port}/x"
        self.http = OutgoingHTTP(reactor)

    async def call(self, **keys: Any) -> Any:
        endpoint = EndpointConfig(url=self.url, timeout=keys.pop("timeout", 10.0))
        return await self.http.request_json(endpoint, "POST", body=keys.pop("body", b"{}"), **keys)

    async def stop(self) -> None:
        await self.http.close()
        await self.port.stopListening()


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    server = Loopback()
    yield server
    pytest_twisted.blockon(Deferred.fromCoroutine(server.stop()))


@pytest_twisted.ensureDeferred
async def test_connections_are_kept(loopback: Loopback) -> None:
    """Calls one after another share a connection, and no cookie passes from one to the next."""
    loopback.closes = False
    loopback.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: session=1\r\n\r\n{}"
    for _ in range(3):
        assert (await loopback.call()).body == b"{}"
    assert loopback.connections == 1
    assert not any(b"cookie" in head.lower() for head, _ in loopback.requests)


@pytest_twisted.ensureDeferred
async def test_connections_of_old_servers(loopback: Loopback) -> None:
    """A server of HTTP/1.0 is about to close after each answer: a second call does not wait to find out."""
    loopback.closes = False
    loopback.answer = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    for _ in range(3):
        assert (await loopback.call()).body == b"{}"
    assert loopback.connections == 3


@pytest_twisted.ensureDeferred
async def test_long_bodies(loopback: Loopback) -> None:
    """A body of megabytes arrives whole."""
    loopback.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    body = json.dumps(["x" * 3_000_000]).encode()
    assert (await loopback.call(body=body)).status == 200
    assert loopback.requests[0][1] == body


@pytest_twisted.ensureDeferred
async def test_long_bodies_over_a_kept_connection(loopback: Loopback) -> None:
    """Long bodies follow one another on a connection, whatever the one before left to be written at its end."""
    loopback.closes = False
    loopback.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    sizes = [300_000, 3_000_000, 5_000_000, 400_000, 70_000, 2_000_000] * 3
    for size in sizes:
        assert (await loopback.call(body=json.dumps("x" * size).encode())).status == 200
    assert [len(body) - 2 for _, body in loopback.requests] == sizes
    assert loopback.connections == 1


@pytest_twisted.ensureDeferred
async def test_an_answer_without_length(loopback: Loopback) -> None:
    """A server of HTTP/1.0 ends its answer by closing."""
    loopback.answer = b"HTTP/1.0 200 OK\r\n\r\n{}"
    assert (await loopback.call()).body == b"{}"


@pytest_twisted.ensureDeferred
async def test_half_an_answer(loopback: Loopback) -> None:
    """A connection that breaks in the middle of an answer is a failure, not a short answer."""
    for answer in (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}", b"HTTP/1.1 200 OK\r\nConte", b""):
        loopback.answer = answer
        with pytest.raises(ConnectionFailed, match=r"/x closed the connection before its answer was complete$"):
            await loopback.call()


@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_no_http(loopback: Loopback) -> None:
    """The failure says so, and not what was sent: that is none of a log's business."""
    for answer in (b"this is not HTTP\r\n\r\n", b"HTTP/1.1 much OK\r\n\r\n"):
        loopback.answer = answer
        with pytest.raises(ConnectionFailed, match=r"/x does not speak HTTP$"):
            await loopback.call()


@pytest_twisted.ensureDeferred
async def test_stalling_in_the_middle(loopback: Loopback) -> None:
    """The time limit covers the body too."""
    loopback.closes = False
    loopback.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}"
    with pytest.raises(TimedOut, match=r"did not answer within 0\.05 s"):
        await loopback.call(timeout=0.05)


@pytest_twisted.ensureDeferred
async def test_endless_answers_are_cut_off(loopback: Loopback) -> None:
    """The connection is closed at the limit, whether a length was announced or not."""
    loopback.closes = False
    loopback.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 1000
    with pytest.raises(AnswerTooLarge, match="more than 100 bytes"):
        await loopback.call(max_bytes=100)
    loopback.answer = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000
    with pytest.raises(AnswerTooLarge):
        await loopback.call(max_bytes=100)


@pytest_twisted.ensureDeferred
async def test_refused_connections() -> None:
    """Nobody listens: the failure names the URL and the reason."""
    port = reactor.listenTCP(0, Site(Klein().resource()), interface="127.0.0.1")
    number = port.getHost().port
    await port.stopListening()
    with pytest.raises(ConnectionFailed, match=rf"http://127.0.0.1:{number}/x cannot be reached: .*refused"):
        await OutgoingHTTP(reactor).request_json(EndpointConfig(url=f"http://127.0.0.1:{number}/x"), "GET")
