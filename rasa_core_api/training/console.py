"""What the command lines of training share: logging options, and progress with the time left."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, MutableMapping
from time import monotonic
from typing import TextIO

from attrs import define, field
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from rasa_core_api.interruption import ended_by

_WIDTH = 100


def add_logging_options(parser: argparse.ArgumentParser) -> None:
    """`-v`, `-vv`/`--debug`, `--quiet`; the last one wins."""
    for flags, level, text in (
        (("-v", "--verbose"), LogLevel.info, "log what is done (the default)"),
        (("-vv", "--debug"), LogLevel.debug, "log everything"),
        (("--quiet",), LogLevel.warn, "log warnings only"),
    ):
        parser.add_argument(
            *flags, dest="loglevel", action="store_const", const=level, default=LogLevel.info, help=text
        )


def add_trusted_option(parser: argparse.ArgumentParser) -> None:
    """`--trusted_modules A,B`, a tuple of names."""
    parser.add_argument(
        "--trusted_modules", metavar="A,B", default=(), type=_names,
        help="modules whose slot and policy classes may be imported",
    )  # fmt: skip


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def use_one_thread(environ: MutableMapping[str, str]) -> None:
    """Tell numpy, before it is imported, to compute small products in one thread, where they are faster."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        environ.setdefault(name, "1")


def begin_logging(level: LogLevel, stream: TextIO) -> None:
    """Send log lines of `level` and above to `stream`; of the reactor's own only warnings, unless all is asked for."""
    predicate = LogLevelFilterPredicate(defaultLogLevel=level)
    if level is not LogLevel.debug:
        predicate.setLogLevelForNamespace("twisted", LogLevel.warn)
    observer = FilteringLogObserver(textFileLogObserver(stream), [predicate])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False, discardBuffer=True)


def progress_line(options: argparse.Namespace, stream: TextIO) -> ProgressLine:
    """Progress as the logging options ask for it: none with `--quiet`."""
    return ProgressLine(stream, silent=options.loglevel is LogLevel.warn)


def until_interrupted(main: Callable[[], int]) -> int:
    """The exit code of `main`, or 130 after control-C, which is no reason for a traceback."""
    try:
        with ended_by("SIGTERM"):  # what is half written is removed
            return main()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


@define
class ProgressLine:
    """One line that is rewritten on a terminal, and otherwise one line every few seconds; none if `silent`."""

    _stream: TextIO
    _clock: Callable[[], float] = monotonic
    _every: float = 5.0  # seconds between lines that stay
    _silent: bool = field(default=False, kw_only=True)
    _begin: float = field(init=False)
    _shown: float = field(init=False, default=float("-inf"))
    _open: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._begin = self._clock()

    def __call__(self, share: float, what: str) -> None:
        """`share` is what is done, 0 to 1."""
        if self._silent:
            return
        now = self._clock()
        terminal = self._stream.isatty()
        if now - self._shown < (0.1 if terminal else self._every) and share < 1:
            return
        self._shown = now
        text = f"{share:4.0%}  {what}{self._left(now - self._begin, share)}"
        self._stream.write(f"\r{text:<{_WIDTH}}" if terminal else f"{text}\n")
        self._stream.flush()
        self._open = terminal

    def _left(self, passed: float, share: float) -> str:
        if share <= 0.02 or share >= 1:
            return ""
        return f", {duration(passed / share * (1 - share))} left"

    def close(self) -> None:
        if self._open:
            self._stream.write("\n")
            self._open = False


def duration(seconds: float) -> str:
    """Seconds in words: `8 s`, `3 min 20 s`, `1 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
