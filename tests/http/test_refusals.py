"""Tests of what the log says of refused requests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from rasa_core_api import exceptions as domain
from rasa_core_api.exceptions import RasaCoreError
from rasa_core_api.http import errors
from rasa_core_api.http.refusals import LINES, SECONDS, Refusals, shown
from tests.conftest import LoggedFailures


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Level and text of what was logged."""
    said: list[str] = []

    def observe(event: LogEvent) -> None:
        if event["log_namespace"].startswith("rasa_core_api."):
            said.append(f"{event['log_level'].name} {formatEvent(event)}")

    globalLogPublisher.addObserver(observe)
    yield said
    globalLogPublisher.removeObserver(observe)


def refuse(refusals: Refusals, error: RasaCoreError, path: bytes = b"/x") -> None:
    answer = errors.answer_to(error, "0.11.12")
    refusals.refused(b"GET", path, answer.status, str(answer.body["reason"]), error)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (errors.InvalidJson("no JSON"), "info GET /x 400 InvalidJson: no JSON"),
        (errors.NotFound("nothing"), "info GET /x 404 NotFound: nothing"),
        (errors.InvalidToken("expired", 401), "info GET /x 401 NotAuthenticated: expired"),
        (errors.UnknownTransferCoding("what?"), "info GET /x 501 NotImplemented: what?"),
        (domain.InvalidParameter("odd"), "info GET /x 400 InvalidParameter: odd"),
        (
            domain.EvaluationFailed("a text", line=4),
            "info GET /x 400 FailedEvaluation: the stories in the body are no good, line 4",
        ),
        (domain.NoDomain("wait"), "info GET /x 503 NoDomain: wait"),
        (domain.TooManyRequests("slowly"), "warn GET /x 429 TooManyRequests: slowly"),
        (domain.ServerBusy("busy"), "warn GET /x 503 Unavailable: busy"),
        (domain.StoreUnavailable("down"), "error GET /x 503 Unavailable: down"),
        (domain.UnknownAction("no action"), "error GET /x 500 ValueError: no action"),
    ],
)
def test_levels(lines: list[str], error: RasaCoreError, line: str) -> None:
    """A client's mistake is information, too much work a warning, and what fails here an error."""
    refuse(Refusals(), error)
    assert lines == [line]


def test_lines_are_bounded_and_harmless(lines: list[str]) -> None:
    """Whatever a client puts into a path or a reason, it is one short line of printable text."""
    text = "x\x1b[31m\u202e\ud800" + "y" * 9_999 + "\nERROR forged"
    refuse(Refusals(), domain.InvalidParameter(text), b"/\x9b\x85" * 500)
    (line,) = lines
    assert len(line) < 600
    assert line.isprintable()
    assert "forged" not in line
    assert "x\\x1b[31m\\u202e\\ud800yy" in line


def test_a_password_in_a_target(lines: list[str]) -> None:
    """A target that is no path is not repeated."""
    refuse(Refusals(), errors.NotFound("nothing"), b"http://user:secret@bot/")
    assert lines == ["info GET - 404 NotFound: nothing"]


def test_a_flood(lines: list[str]) -> None:
    """Of many refusals alike some are told, the others are counted; other reasons are told as before."""
    clock = Clock()
    refusals = Refusals(clock)
    for _ in range(LINES + 500):
        refuse(refusals, errors.NotFound("nothing"))
    assert len(lines) == LINES
    refuse(refusals, errors.InvalidJson("no JSON"))
    assert lines.pop() == "info GET /x 400 InvalidJson: no JSON"
    clock.advance(SECONDS)
    assert lines[LINES:] == [f"info 500 more like this in {SECONDS:g} s: 404 NotFound"]
    assert clock.getDelayedCalls() == []
    refuse(refusals, errors.NotFound("nothing"))
    assert lines[-1] == "info GET /x 404 NotFound: nothing"


def test_a_trickle(lines: list[str]) -> None:
    """Refusals that come one now and then are all told, and nothing ticks for them."""
    clock = Clock()
    refusals = Refusals(clock)
    for _ in range(5 * LINES):
        refuse(refusals, errors.NotFound("nothing"))
        clock.advance(SECONDS / LINES + 0.1)
        assert clock.getDelayedCalls() == []
    assert len(lines) == 5 * LINES


def test_defects(lines: list[str], logged: LoggedFailures) -> None:
    """A defect that can be asked for again and again does not fill the log with its traceback."""
    clock = Clock()
    refusals = Refusals(clock)
    for _ in range(LINES + 3):
        refusals.failed(b"GET", b"/x", Failure(KeyError("x")), "failed")
    assert logged.take() == [KeyError] * LINES
    assert lines == ["error GET /x failed"] * LINES
    clock.advance(SECONDS)
    assert lines[-1] == f"error 3 more like this in {SECONDS:g} s: 500 ServerError, KeyError"


@pytest.mark.parametrize(
    ("text", "seen"),
    [("abc", "abc"), ("abcd", "abc..."), ("a\n", "a\\n"), ("\n\n", "\\n\\..."), ("é😀", "é😀")],
)
def test_shown(text: str, seen: str) -> None:
    """What is printable stays as it is."""
    assert shown(text, 3) == seen
