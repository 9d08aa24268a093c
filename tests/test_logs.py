"""Tests of log lines."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure

from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.http.site import ApiSite
from rasa_core_api.logs import (
    LONGEST,
    MOST,
    WINDOW,
    LineObserver,
    Whole,
    _of,
    also_log_to_file,
    console_line,
    file_line,
)


def lines(level: str, decorate: object) -> tuple[Logger, io.StringIO]:
    stream = io.StringIO()
    publisher = LogPublisher(LineObserver(stream, level, decorate))  # type: ignore[arg-type]
    return Logger("some.module", observer=publisher), stream


def test_console_lines() -> None:
    """The terminal shows time, level, source and text."""
    log, stream = lines("info", console_line)
    log.warn("{count} left", count=3)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d WARNING  some\.module  - 3 left\n", stream.getvalue())


def test_levels() -> None:
    """What is below the chosen level is not written."""
    log, stream = lines("warn", file_line)
    for level in LogLevel.iterconstants():
        log.emit(level, level.name)
    assert stream.getvalue() == "warn\nerror\ncritical\n"


def test_requests_at_debug() -> None:
    """The lines of the access log are written, but what twisted says below a warning is not."""
    stream = io.StringIO()
    publisher = LogPublisher(LineObserver(stream, "debug", file_line))
    Logger(ApiSite.__module__, observer=publisher).debug("GET /status 200")
    Logger("twisted.web.http", observer=publisher).info("starting")
    assert stream.getvalue() == "GET /status 200\n"
    assert not ApiSite.noisy


def test_failures_come_with_their_traceback() -> None:
    """A failure is written with the text and where it came from."""
    log, stream = lines("info", file_line)
    try:
        raise KeyError("gone")
    except KeyError:
        log.emit(LogLevel.error, "it broke", log_failure=Failure())
    assert stream.getvalue().startswith("it broke\n")
    assert "KeyError: 'gone'" in stream.getvalue()


def test_what_comes_from_outside_stays_one_event() -> None:
    """Neither a line break nor a terminal's commands in what an action server says make lines of their own."""
    log, stream = lines("info", file_line)
    log.error("{reason}", reason="no\nsuch\r\x1b[31m event\x00 \u2028\u202e\x85\ttab \U0001f600")
    assert stream.getvalue() == "no\n\tsuch\\r\\x1b[31m event\\x00 \\u2028\\u202e\\x85\ttab \U0001f600\n"


def test_a_full_disk_stops_nobody() -> None:
    """A stream that cannot be written to is passed over."""

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    LineObserver(Full(), "info", file_line)({"log_level": LogLevel.info, "log_format": "x"})


def test_unwritable_file_is_named(tmp_path: Path) -> None:
    """A log file that cannot be opened is an error with its name."""
    with pytest.raises(InvalidConfiguration, match="log_file.*nowhere"):
        also_log_to_file("info", str(tmp_path / "nowhere" / "out.log"))


def test_lines_of_several_processes(tmp_path: Path) -> None:
    """Each line, one of a traceback too, names its process and is written in one call."""
    calls: list[str] = []

    class Spy(Whole):
        def write(self, text: str) -> None:
            calls.append(text)
            super().write(text)

    with (tmp_path / "log").open("a", encoding="utf-8") as stream:
        LineObserver(Spy(stream), "debug", _of("worker 2", file_line))(
            {"log_format": "one\ntwo {x}", "x": "\udc80" + "y" * 100_000, "log_level": LogLevel.debug}
        )
    text = (tmp_path / "log").read_text("utf-8")
    assert text == f"[worker 2] one\n[worker 2] \ttwo \\udc80{'y' * 100_000}\n"
    assert len(calls) == 1


def test_a_flood_is_counted() -> None:
    """Of many lines from one place some are written, and later how many there were; others go on."""
    stream = io.StringIO()
    observer = LineObserver(stream, "debug", file_line)

    def emit(time: float, text: str, level: LogLevel = LogLevel.warn, **values: object) -> None:
        observer({"log_level": level, "log_namespace": "m", "log_format": text, "log_time": time, **values})

    for number in range(MOST + 7):
        emit(1000.0, "no slot {name}", name=number)
        emit(1000.0, "access", LogLevel.debug)
    emit(1000.0 + WINDOW / 2, "other")
    written = stream.getvalue().splitlines()
    assert written.count("access") == MOST + 7, "who wants all gets all"
    assert [line for line in written if line != "access"] == [f"no slot {number}" for number in range(MOST)] + ["other"]
    emit(1000.0 + WINDOW, "other")
    emit(1000.0 + WINDOW, "no slot {name}", name="x")
    assert stream.getvalue().splitlines()[len(written) :] == [
        f"7 more lines like this in {WINDOW:g} s: no slot {{name}}",
        "other",
        "no slot x",
    ]
    emit(0.0, "other")  # a clock that was set back
    emit(WINDOW, "other")
    assert stream.getvalue().endswith("no slot x\nother\nother\n")


def test_lines_have_an_end() -> None:
    """However long a value is, its line is not; a traceback stays whole."""
    log, stream = lines("info", file_line)
    log.warn("{value} is odd", value="x" * 10 * LONGEST)
    assert stream.getvalue() == "x" * LONGEST + "...\n"
