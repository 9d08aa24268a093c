"""Tests of open connections: slow senders, half-sent requests, and a full house."""

from __future__ import annotations

import socket

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from rasa_core_api.http.channel import PACE
from rasa_core_api.http.connections import KEEPALIVE, UNNOTICED, connections_within_reach, keep_alive
from rasa_core_api.http.site import ApiSite
from tests.http.bench import Bench
from tests.http.conftest import MakeWire
from tests.wire import Wire

BODY = 40 * PACE


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def wire(bench: Bench, serve: MakeWire) -> Wire:
    return serve(bench.app.resource(), BODY, max_connections=3)


def test_a_full_house(wire: Wire, clock: Clock) -> None:
    """A new connection takes the place of the most silent one, which the log tells now and then."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if "connections" in str(event.get("log_format")):
            lines.append(str(event["log_format"]).format(**event))

    globalLogPublisher.addObserver(observe)
    try:
        first = [wire.connect() for _ in range(3)]
        clock.advance(1.0)
        first[0].send(b"GET / HT")
        assert wire.get("/").json() == "quick"
        assert [connection.transport.aborted for connection in first] == [False, True, False]
        wire.connect()
    finally:
        globalLogPublisher.removeObserver(observe)
    assert lines == ["all 3 connections are taken: new ones replace those that are silent"]


def test_all_are_served(wire: Wire, bench: Bench) -> None:
    """Connections whose answers are due stay; a new one is turned away until one of them is free."""
    waiting = [wire.begin("GET", "/slow") for _ in range(3)]
    assert wire.site.buildProtocol(None) is None
    bench.gates.pop().callback(None)
    waiting[2].rounds()
    assert waiting[2].response().json() == "slow"
    assert wire.get("/").json() == "quick"
    assert [connection.transport.aborted for connection in waiting] == [False, False, True]
    waiting[0].hang_up()
    assert wire.site.buildProtocol(None) is not None


def test_one_silent_among_many(bench: Bench, serve: MakeWire) -> None:
    """However many older ones wait for answers, it is the silent one that makes room."""
    wire = serve(bench.app.resource(), BODY, max_connections=301)
    waiting = [wire.begin("GET", "/slow") for _ in range(300)]
    silent = wire.connect()
    assert wire.get("/").json() == "quick"
    assert silent.transport.aborted
    assert not any(connection.transport.aborted for connection in waiting)


def test_an_answer_ends_a_silence(wire: Wire, bench: Bench) -> None:
    """A connection that was just answered is not the one that was silent the longest."""
    answered, first, second = wire.begin("GET", "/slow"), wire.connect(), wire.connect()
    bench.gates.pop().callback(None)
    answered.rounds()
    for expected in ([False, True, False], [False, True, True], [True, True, True]):
        wire.connect()
        assert [connection.transport.aborted for connection in (answered, first, second)] == expected


def test_half_of_the_descriptors() -> None:
    """However many connections are wanted, calls keep their share of descriptors."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert connections_within_reach(10) == 10
    assert 0 < connections_within_reach(1 << 40) <= soft // 2


def test_gone_without_a_word() -> None:
    """Accepted connections inherit that the system asks clients which say nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        keep_alive(server)
        with socket.create_connection(server.getsockname()) as _:
            accepted, _ = server.accept()
            with accepted:
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == KEEPALIVE[0]
                # signs of life that nobody acknowledges keep the system from asking
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == UNNOTICED * 1000


def test_a_server_that_is_about_to_end(wire: Wire, bench: Bench) -> None:
    """Answers that began before its end was known are followed by others; the next one closes the connection."""
    site = wire.site
    assert isinstance(site, ApiSite)
    before, waits = wire.connect(), wire.begin("GET", "/slow")
    before.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    before.rounds()
    assert "connection" not in before.response().headers
    assert site.crowd.answering
    site.ending = True
    bench.gates[0].callback(None)
    waits.rounds()
    assert not site.crowd.answering
    before.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    before.rounds()
    for connection in (waits, before):
        response = connection.response()
        assert (response.status, response.headers["connection"]) == (200, "close")
        assert connection.transport.disconnecting
