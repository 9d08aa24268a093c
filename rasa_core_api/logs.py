"""Where log lines go: the terminal, with time and level, and a file, as the historical server wrote them."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    formatEvent,
    globalLogBeginner,
    globalLogPublisher,
)
from zope.interface import implementer

from rasa_core_api.exceptions import InvalidConfiguration

log = Logger()

LEVELS = {"debug": LogLevel.debug, "info": LogLevel.info, "warn": LogLevel.warn}
_ORDER = {level: number for number, level in enumerate(LogLevel.iterconstants())}
_NAMES = {"warn": "WARNING"}
_COLOURS = {"warn": "\033[33m", "error": "\033[31m", "critical": "\033[31m", "debug": "\033[90m"}

#: Loggers of other packages that say more than operators want to know.
_QUIET = {"werkzeug": logging.WARNING, "pika": logging.ERROR}

#: Sources whose lines below a warning are noise.
_NOISY = ("twisted.", "log_legacy", "-")


#: Lines from one place of the program in so many seconds; those beyond are counted.
MOST, WINDOW = 100, 10.0
#: Characters of a line, tracebacks apart.
LONGEST = 4_000
#: What talks to a terminal or begins a line where it is shown: control characters, separators, directions of writing.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def message_of(event: LogEvent) -> str:
    """The text of an event, with the traceback of a failure.

    Further lines are indented, and control characters escaped: what comes from outside cannot look like another event.
    """
    text = formatEvent(event)
    failure = event.get("log_failure")
    if failure is not None:
        text = f"{text}\n{failure.getTraceback()}".strip()
    elif len(text) > LONGEST and event.get("log_level") is not LogLevel.debug:
        text = text[:LONGEST] + "..."
    return _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text).replace("\n", "\n\t")


class Flood:
    """Lets `MOST` lines of one place through in a window, by the events' own times, and says what it kept back.

    A place is a logger and what it says, without the values: whoever can make the program say something again
    and again cannot fill a disk with it.
    """

    def __init__(self) -> None:
        self._since = 0.0
        self._counts: dict[tuple[str, str, Any], int] = {}

    def kept_back(self, now: float) -> list[LogEvent]:
        """At the end of a window, an event for each place of which lines were kept back."""
        if 0 <= now - self._since < WINDOW:
            return []
        self._since = now
        counts, self._counts = self._counts, {}
        return [
            {
                "log_namespace": namespace,
                "log_level": level,
                "log_time": now,
                "log_format": "{count} more lines like this in {seconds:g} s: {line}",
                "count": count - MOST,
                "seconds": WINDOW,
                "line": line,
            }
            for (namespace, line, level), count in counts.items()
            if count > MOST
        ]

    def passes(self, event: LogEvent) -> bool:
        """Whether there were not too many like it."""
        place = str(event.get("log_namespace")), str(event.get("log_format")), event.get("log_level")
        count = self._counts[place] = self._counts.get(place, 0) + 1
        return count <= MOST


@implementer(ILogObserver)
class LineObserver:
    """Writes events from a level on as lines; `decorate` makes a line of an event and its text."""

    def __init__(self, stream: TextIO | Whole, level: str, decorate: Callable[[LogEvent, str], str]) -> None:
        self._stream = stream
        self._least = _ORDER[LEVELS[level]]
        self._decorate = decorate
        self._flood = Flood()

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        if _ORDER[level] < self._least:
            return
        if _ORDER[level] < _ORDER[LogLevel.warn] and str(event.get("log_namespace", "")).startswith(_NOISY):
            return
        due = self._flood.kept_back(event.get("log_time", 0.0))
        if level is LogLevel.debug or self._flood.passes(event):
            due.append(event)
        try:
            for one in due:
                self._stream.write(self._decorate(one, message_of(one)) + "\n")
                self._stream.flush()
        except (OSError, ValueError):  # a terminal that is gone, a full disk: the server goes on
            return


def console_line(event: LogEvent, text: str) -> str:
    """`2018-09-03 11:41:10 INFO     rasa_core_api.run  - text`"""
    level = event.get("log_level", LogLevel.info).name
    when = datetime.fromtimestamp(event.get("log_time", 0)).strftime("%Y-%m-%d %H:%M:%S")
    return f"{when} {_NAMES.get(level, level.upper()):8} {event.get('log_namespace', '-')}  - {text}"


def coloured_line(event: LogEvent, text: str) -> str:
    """The same for a terminal."""
    colour = _COLOURS.get(event.get("log_level", LogLevel.info).name)
    line = console_line(event, text)
    return f"{colour}{line}\033[0m" if colour else line


def file_line(event: LogEvent, text: str) -> str:
    """The message alone."""
    return text


class _Bridge(logging.Handler):
    """Passes records of the standard library's logging on."""

    def emit(self, record: logging.LogRecord) -> None:
        level = LogLevel.warn if record.levelno < logging.ERROR else LogLevel.error
        if record.levelno < logging.WARNING:
            level = LogLevel.info if record.levelno >= logging.INFO else LogLevel.debug
        Logger(record.name).emit(level, "{text}", text=record.getMessage())


def _open(path: str) -> TextIO:
    try:
        return Path(path).open("a", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InvalidConfiguration(f"log_file: cannot write to {path}: {error.strerror}") from None


class Whole:
    """Writes each text in one call, so that what several processes append to one file stays apart."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream  # kept, because its end closes the descriptor

    def write(self, text: str) -> None:
        data = text.encode("utf-8", "backslashreplace")
        while data:
            data = data[os.write(self._stream.fileno(), data) :]

    def flush(self) -> None:
        """Nothing is held back."""


def _of(source: str, decorate: Callable[[LogEvent, str], str]) -> Callable[[LogEvent, str], str]:
    """Lines that tell which process they are from, those of a traceback too."""
    return lambda event, text: decorate(event, f"[{source}] " + text.replace("\n", f"\n[{source}] "))


def begin_logging(
    level: str, log_file: str | None, stream: TextIO | None = None, source: str | None = None
) -> None:
    """Log to `stream` (standard error) and to a file. Raises `InvalidConfiguration`.

    With a `source` other processes write there too, and each line names it.
    """
    stream = sys.stderr if stream is None else stream
    decorate = coloured_line if stream.isatty() else console_line
    targets = [(stream, decorate)]
    if log_file is not None:
        targets.append((_open(log_file), file_line))
    observers: list[ILogObserver]
    if source is None:
        observers = [LineObserver(target, level, form) for target, form in targets]
    else:
        observers = [LineObserver(Whole(target), level, _of(source, form)) for target, form in targets]
    globalLogBeginner.beginLoggingTo(observers, redirectStandardIO=False, discardBuffer=True)
    _capture(level)


def also_log_to_file(level: str, log_file: str) -> None:
    """Log to a file beside wherever the process logs already. Raises `InvalidConfiguration`."""
    globalLogPublisher.addObserver(LineObserver(_open(log_file), level, file_line))
    _capture(level)


def _capture(level: str) -> None:
    """Let records and warnings of other packages take the same way."""
    root = logging.getLogger()
    root.handlers[:] = [_Bridge()]
    root.setLevel({"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING}[level])
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(least)

    warnings.showwarning = _show_warning


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    log.warn("{category}: {text}", category=category.__name__, text=str(message))
