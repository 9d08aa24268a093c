"""How several workers share the connections that come to their one socket."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

#: Seconds that a worker which has more connections than another one leaves the next one to that other one.
PAUSE = 0.002
#: A worker is ahead beyond one connection more than another one, and beyond such a part more.
PART = 16
_WIDTH = 4  # bytes of a count


class Counts:
    """How many connections each worker has, in memory that all of them share: a file in their parent's directory."""

    def __init__(self, directory: Path, number: int, of: int) -> None:
        descriptor = os.open(directory / "connections", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, of * _WIDTH)
            self._memory = mmap.mmap(descriptor, of * _WIDTH)
        finally:
            os.close(descriptor)
        self._counts = memoryview(self._memory).cast("I")
        self._mine = number - 1
        self._others = [index for index in range(of) if index != self._mine]
        self.tell(0)

    def tell(self, mine: int) -> None:
        """Say how many this worker has."""
        self._counts[self._mine] = mine

    @property
    def fewest(self) -> int:
        """What the other worker with the fewest has, as it said when it accepted last; it may be gone."""
        return min((self._counts[index] for index in self._others), default=0)


@define
class FairPort:
    """Has a listening port take its part: one connection a round, and none for a moment where it is ahead.

    Twisted takes more in each round in which it got all that it tried to get, so that a burst goes to whoever wakes up
    first. Whoever is ahead accepts after the pause all the same: the others may be busy, or gone.
    """

    _port: Any
    _clock: IReactorTime
    _counts: Counts
    _has: Callable[[], int]  # connections
    _accept: Callable[[], Any] = field(init=False)
    _waited: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._accept = self._port.doRead
        self._port.doRead = self._ready

    def _ready(self) -> Any:
        mine = self._has()
        self._counts.tell(mine)
        fewest = self._counts.fewest
        if mine > fewest + 1 + fewest // PART and not self._waited:
            self._port.stopReading()
            self._clock.callLater(PAUSE, self._go_on)
            return None
        self._waited = False
        self._port.numberAccepts = 1
        result = self._accept()
        self._counts.tell(self._has())
        return result

    def _go_on(self) -> None:
        if self._port.connected and not self._port.disconnecting:
            self._waited = True
            self._port.startReading()
