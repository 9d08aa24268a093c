"""Saying once that another server is down, and once that it is back."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

log = Logger()


class Outage:
    """Keeps track of failed calls of one server, which `what` names for the log.

    After `patience` failures in a row `paused` is true for `pause` seconds; then one call may try again. With
    `patience` None there are no pauses.
    """

    def __init__(self, clock: IReactorTime, what: str, patience: int | None = None, pause: float = 0.0) -> None:
        self._clock = clock
        self._what = what
        self._patience = patience
        self._pause = pause
        self._failures = 0
        self._since: float | None = None
        self._retry_at = 0.0

    @property
    def is_down(self) -> bool:
        """Whether the last call failed."""
        return self._since is not None

    @property
    def paused(self) -> bool:
        """Whether calls should not be tried now; true for all but the first to ask after a pause has passed."""
        if self._patience is None or self._failures < self._patience:
            return False
        now = self._clock.seconds()
        if now < self._retry_at:
            return True
        self._retry_at = now + self._pause
        return False

    def failed(self, reason: str) -> None:
        """A call failed."""
        now = self._clock.seconds()
        self._failures += 1
        if self._patience is not None and self._failures >= self._patience:
            self._retry_at = now + self._pause
        if self._since is None:
            self._since = now
            log.error("{what} cannot be used: {reason}; this is said once per outage", what=self._what, reason=reason)

    def worked(self) -> None:
        """A call succeeded."""
        if self._since is not None:
            seconds = round(self._clock.seconds() - self._since)
            log.info("{what} can be used again after {seconds} s", what=self._what, seconds=seconds)
        self._failures = 0
        self._since = None
