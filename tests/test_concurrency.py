"""Tests of lines, slices and work that outlives its caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from rasa_core_api.concurrency import Lines, Slices, uninterrupted
from rasa_core_api.exceptions import ServerBusy, StoreUnavailable, TooManyRequests
from tests.conftest import LoggedFailures


def test_lines_keep_order_and_keys_apart() -> None:
    """Work under one key goes in order of arrival, other keys do not wait for it."""
    clock = Clock()
    lines, order, gates = Lines(clock), [], [Deferred() for _ in range(4)]

    async def work(name: str, key: str, gate: Deferred[None]) -> None:
        async with lines.of(key):
            order.append(f"{name} begins")
            await gate
            order.append(f"{name} ends")

    for name, key, gate in zip("abcd", "kkxk", gates, strict=True):
        Deferred.fromCoroutine(work(name, key, gate))
    assert order == ["a begins", "c begins"]
    for gate in gates:
        gate.callback(None)
        clock.advance(0)
    assert order[2:] == ["a ends", "b begins", "b ends", "d begins", "c ends", "d ends"]
    assert len(lines) == 0


def test_a_failure_lets_the_next_one_in() -> None:
    """Whoever fails gives up its place."""
    lines = Lines(Clock())

    async def fail() -> None:
        async with lines.of("k"):
            raise ValueError

    failing = Deferred.fromCoroutine(fail())
    failing.addErrback(lambda failure: failure.trap(ValueError))
    assert not lines.busy("k")


def test_whoever_gives_up_waiting_leaves_the_line() -> None:
    """A waiter that is cancelled does not hold the others up."""
    clock = Clock()
    lines, gate, reached = Lines(clock), Deferred(), []

    async def work(name: str, wait: bool) -> None:
        async with lines.of("k"):
            reached.append(name)
            if wait:
                await gate

    Deferred.fromCoroutine(work("first", True))
    second = Deferred.fromCoroutine(work("second", False))
    Deferred.fromCoroutine(work("third", False))
    second.addErrback(lambda failure: failure.trap(CancelledError))
    second.cancel()
    gate.callback(None)
    clock.advance(0)
    assert reached == ["first", "third"]


def test_whoever_gives_up_when_called_hands_its_turn_on() -> None:
    """A waiter that is cancelled just when its turn has come does not block the line."""
    clock = Clock()
    lines, gate, reached = Lines(clock), Deferred(), []

    async def work(name: str, wait: bool) -> None:
        async with lines.of("k"):
            reached.append(name)
            if wait:
                await gate

    Deferred.fromCoroutine(work("first", True))
    second = Deferred.fromCoroutine(work("second", False))
    Deferred.fromCoroutine(work("third", False))
    second.addErrback(lambda failure: failure.trap(CancelledError))
    gate.callback(None)
    second.cancel()
    clock.advance(0)
    clock.advance(0)
    assert reached == ["first", "third"]
    assert not lines.busy("k")


def test_a_line_has_a_limit() -> None:
    """More than the allowed number of waiters is refused."""
    lines, gate = Lines(Clock(), limit=1), Deferred()

    async def work() -> None:
        async with lines.of("k"):
            await gate

    Deferred.fromCoroutine(work())
    Deferred.fromCoroutine(work())
    refused = Deferred.fromCoroutine(work())
    refused.addErrback(lambda failure: failure.trap(TooManyRequests))
    gate.callback(None)
    assert refused.called


class Rounds(Clock):
    """A clock like a reactor: what is called later while a round lasts waits for the next round."""

    def callLater(self, delay: float, f: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        call = super().callLater(delay, f, *args, **kw)
        self.calls.remove(call)
        self.later.append(call)
        return call

    later: list[Any]

    def round(self) -> None:
        self.calls, self.later = self.later, []
        self.advance(0)


def test_slices_pause_after_the_budget() -> None:
    """Work goes on at once while its slice lasts, and in a later round after that, in order."""
    clock, spent, done = Rounds(), [0.0], []
    clock.later = []
    slices = Slices(clock, budget=0.005, timer=lambda: spent[0])

    async def work(name: int) -> None:
        await slices.breathe()
        spent[0] += 0.002
        done.append(name)

    for name in range(8):
        Deferred.fromCoroutine(work(name))
    assert done == [0, 1, 2]
    clock.round()
    assert done == [0, 1, 2, 3, 4, 5]
    clock.round()
    assert done == list(range(8))
    clock.round()
    clock.round()
    assert clock.later == clock.calls == []


def test_uninterrupted_work_ends() -> None:
    """Work goes on to its end when the one who waits for it leaves."""
    gate, ended = Deferred(), []

    async def work() -> None:
        await gate
        ended.append(True)

    waiting = uninterrupted(work())
    waiting.addErrback(lambda failure: failure.trap(CancelledError))
    waiting.cancel()
    gate.callback(None)
    assert ended == [True]


@pytest.mark.parametrize(("error", "traces"), [(KeyError(), 1), (StoreUnavailable("away"), 0)])
def test_uninterrupted_failure_is_logged_when_nobody_waits(
    logged: LoggedFailures, error: Exception, traces: int
) -> None:
    """A failure reaches the log when the one who waited has left; with its traceback where that tells something."""
    gate: Deferred[None] = Deferred()

    async def work() -> None:
        await gate
        raise error

    waiting = uninterrupted(work())
    waiting.addErrback(lambda failure: failure.trap(CancelledError))
    waiting.cancel()
    gate.callback(None)
    assert logged.take() == [type(error)] * traces


def test_uninterrupted_result_and_failure_reach_the_caller() -> None:
    """Whoever waits gets the result, or the failure."""

    async def answer() -> int:
        return 3

    async def fail() -> int:
        raise KeyError

    results: list[object] = []
    uninterrupted(answer()).addCallback(results.append)
    uninterrupted(fail()).addErrback(lambda failure: results.append(failure.type))
    assert results == [3, KeyError]


def test_releases_of_versions() -> None:
    """Versions choose their row, alphas and unknown ones the nearest."""
    from rasa_core_api.releases import candidates, release_of

    assert [str(release_of(version)) for version in ("0.7.1", "0.11.12", "0.12.0a2", "1.2")] == [
        "0.8", "0.11", "0.12", "0.14",
    ]  # fmt: skip
    assert [str(release) for release in candidates("0.12.0a2")][:3] == ["0.12", "0.11", "0.10"]
    with pytest.raises(ValueError, match="not a version"):
        release_of("new")


def test_a_bound_over_all_lines() -> None:
    """Those at work and those who wait count together, and each who leaves, fails or gives up makes room."""
    clock = Clock()
    lines = Lines(clock, most=3)
    gates: list[Deferred[None]] = []

    async def work(key: str) -> None:
        async with lines.of(key):
            gates.append(Deferred())
            await gates[-1]

    ends = [Deferred.fromCoroutine(work(key)) for key in ("a", "a", "b")]
    refused: list[Failure] = []
    Deferred.fromCoroutine(work("c")).addErrback(refused.append)
    assert refused[0].check(ServerBusy)
    ends[1].addErrback(lambda _: None)
    ends[1].cancel()
    assert lines.held == 2
    gates[0].callback(None)
    ends[2].addErrback(lambda _: None)
    gates[1].errback(ZeroDivisionError())
    clock.advance(0)
    assert (lines.held, len(lines)) == (0, 0)
