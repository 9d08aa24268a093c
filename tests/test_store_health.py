"""Tests of looking whether the store answers."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from rasa_core_api.exceptions import StoreUnavailable
from rasa_core_api.server import Server
from rasa_core_api.store_health import EVERY, LIMIT, WAIT, StoreHealth
from tests.fakes import Bot
from tests.samples import domain
from tests.wire import Wire


class Bench:
    """A store that can be away or silent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bot = Bot(domain("0.11"), {})
        self.clock = self.bot.clock
        self.looks = 0
        self.answer: Any = None
        self.health = StoreHealth(self.bot.agent.store, self.clock)
        monkeypatch.setattr(self.bot.agent.store, "read", self._read)

    async def _read(self, *_: Any) -> None:
        self.looks += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            await self.answer

    def ask(self) -> list[bool]:
        results: list[bool] = []
        Deferred.fromCoroutine(self.health.well()).addCallback(results.append)
        return results


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_one_look_for_many(bench: Bench) -> None:
    """However many ask, the store is looked at now and then."""
    assert [bench.ask() for _ in range(100)] == [[True]] * 100
    assert bench.looks == 1
    bench.answer = StoreUnavailable("away")
    assert bench.ask() == [True]
    bench.clock.advance(EVERY)
    assert [bench.ask(), bench.ask()] == [[False], [False]]
    bench.answer = None
    bench.clock.advance(EVERY)
    assert bench.ask() == [True] and bench.looks == 3
    assert not bench.clock.getDelayedCalls()


def test_a_busy_store_is_no_dead_one(bench: Bench) -> None:
    """Who asks is answered soon, with what was found the last time."""
    bench.answer = Deferred()
    first = bench.ask()
    assert first == []
    bench.clock.advance(WAIT)
    assert first == [True]
    second = bench.ask()
    bench.answer.callback(None)
    assert second == [True] and bench.looks == 1
    assert not bench.clock.getDelayedCalls()


def test_a_silent_store_is_down(bench: Bench) -> None:
    """What takes longer than any of its time limits counts as a failure, and the next look tells that it is back."""
    bench.answer = Deferred()
    bench.ask()
    bench.clock.pump([WAIT, LIMIT])
    waiting = bench.ask()
    bench.clock.advance(WAIT)
    assert waiting == [False]
    bench.answer = None
    bench.clock.pump([LIMIT, EVERY])
    assert bench.ask() == [True]


def test_an_error_of_any_kind(bench: Bench, logged: Any) -> None:
    """A store of somebody's own may raise what it likes."""
    bench.answer = ValueError("oops")
    assert bench.ask() == [False]
    assert logged.take() == [ValueError]


def test_the_route(bench: Bench) -> None:
    """503 while the store is away, without a word about it; who does not want that says so."""
    wire = Wire(Server(bench.bot.agent).site(), bench.clock)
    assert wire.get("/readyz").status == 200
    bench.answer = StoreUnavailable("away")
    bench.clock.advance(EVERY)
    response = wire.get("/readyz")
    assert (response.status, response.json()) == (503, {"ready": False})
    assert wire.get("/readyz?store=false").status == 200
    assert wire.get("/healthz").status == 200
