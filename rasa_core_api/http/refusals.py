"""What the log says of requests that were refused: a line each, and of many alike only some."""

from __future__ import annotations

from attrs import define
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from rasa_core_api.exceptions import AgentNotReady, EvaluationFailed, RasaCoreError, StoreUnavailable
from rasa_core_api.http.errors import HTTPError

log = Logger()

#: Lines of one kind in so many seconds; those beyond are counted.
LINES, SECONDS = 10, 10.0
#: Characters of a path and of a reason.
_PATH, _REASON = 200, 300


@define
class _Kind:
    """Lines of one kind since `since`."""

    since: float
    said: int = 0
    left_out: int = 0


class Seldom:
    """Lets some lines of each kind through and tells later how many it left out; without a clock all pass.

    Kinds are few: they are this project's words, never a client's.
    """

    def __init__(self, clock: IReactorTime | None = None) -> None:
        self._clock = clock
        self._kinds: dict[str, _Kind] = {}

    def passes(self, level: LogLevel, kind: str) -> bool:
        """Whether a line of this kind is to be written now."""
        if self._clock is None:
            return True
        now = self._clock.seconds()
        known = self._kinds.get(kind)
        if known is None or (now - known.since >= SECONDS and not known.left_out):
            known = self._kinds[kind] = _Kind(now)
        if known.said < LINES:
            known.said += 1
            return True
        if not known.left_out:
            self._clock.callLater(max(0.0, known.since + SECONDS - now), self._tell, level, kind)
        known.left_out += 1
        return False

    def _tell(self, level: LogLevel, kind: str) -> None:
        count = self._kinds.pop(kind).left_out
        log.emit(level, "{count} more like this in {seconds:g} s: {kind}", count=count, seconds=SECONDS, kind=kind)


class Refusals:
    """Logs refused requests; the log never gets a query string, a body or a control character of a client's."""

    def __init__(self, clock: IReactorTime | None = None) -> None:
        self._seldom = Seldom(clock)

    def refused(self, method: bytes, path: bytes, status: int, reason: str, error: RasaCoreError) -> None:
        """Tell of a request that was answered with a failure on purpose."""
        level = _level(status, error)
        if self._seldom.passes(level, f"{status} {reason}"):
            log.emit(
                level,
                "{method} {path} {status} {reason}: {text}",
                status=status,
                reason=reason,
                text=_text(error),
                **_line(method, path),
            )

    def failed(self, method: bytes, path: bytes, failure: Failure, what: str) -> None:
        """Tell of a defect, with its traceback; `what` happened to the request."""
        kind = f"500 ServerError, {type(failure.value).__name__}"
        if self._seldom.passes(LogLevel.error, kind):
            text = f"{{method}} {{path}} {what}"
            log.failure(text, failure, LogLevel.error, **_line(method, path))


def _level(status: int, error: RasaCoreError) -> LogLevel:
    level: LogLevel = LogLevel.warn
    if isinstance(error, HTTPError) or status < 429 or isinstance(error, AgentNotReady):
        level = LogLevel.info
    elif isinstance(error, StoreUnavailable) or status in (500, 501):
        level = LogLevel.error
    return level


def _text(error: RasaCoreError) -> str:
    if isinstance(error, EvaluationFailed):  # it repeats what the stories say
        line = error.details.get("line")
        return "the stories in the body are no good" + ("" if line is None else f", line {line}")
    return shown(str(error).partition("\n")[0], _REASON)


def _line(method: bytes, path: bytes) -> dict[str, str]:
    """What the log says of a request; a target with a host could carry a password."""
    if path[:1] != b"/":
        path = b"-"
    return {"method": shown(method.decode("latin-1"), 20), "path": shown(path.decode("latin-1"), _PATH)}


def shown(text: str, most: int) -> str:
    """At most so many characters of a text, on one line, without any that steer a terminal."""
    start = text[:most]
    if not start.isprintable():
        start = "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in start)
    return start if len(text) <= most and len(start) <= most else start[:most] + "..."
