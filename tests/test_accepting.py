"""Tests of how workers share the connections that come to one socket."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock

from rasa_core_api.accepting import PAUSE, Counts, FairPort


class Listening:
    """A port with connections that wait; `open` were accepted."""

    connected, disconnecting, numberAccepts = True, False, 100

    def __init__(self) -> None:
        self.open = 0
        self.reading = True

    def doRead(self) -> None:
        self.open += self.numberAccepts
        self.numberAccepts += 20  # as Twisted does

    def stopReading(self) -> None:
        self.reading = False

    def startReading(self) -> None:
        self.reading = True


def fair(clock: Clock, directory: Path, number: int, of: int) -> Listening:
    port = Listening()
    FairPort(port, clock, Counts(directory, number, of), lambda: port.open)
    return port


def test_a_burst_is_shared(tmp_path: Path) -> None:
    """However much more often one worker comes to accept, both take their part."""
    clock = Clock()
    quick, slow = (fair(clock, tmp_path, number, 2) for number in (1, 2))
    while quick.open + slow.open < 64:
        for _ in range(10):
            if quick.reading:
                quick.doRead()
        if slow.reading:
            slow.doRead()
        clock.advance(PAUSE)
    assert abs(quick.open - slow.open) <= 4


def test_nobody_waits_for_one_that_is_gone(tmp_path: Path) -> None:
    """A worker that is ahead of a dead one accepts all the same, after a moment for each connection."""
    clock = Clock()
    Counts(tmp_path, 2, 2)
    port = fair(clock, tmp_path, 1, 2)
    for _ in range(20):
        if port.reading:
            port.doRead()
    assert port.open == 2
    for _ in range(10):
        clock.advance(PAUSE)
        port.doRead()
        port.doRead()
    assert port.open == 12


def test_a_port_that_closes_stays_closed(tmp_path: Path) -> None:
    """A pause that ends after the port was closed changes nothing."""
    clock = Clock()
    port = fair(clock, tmp_path, 1, 2)
    for _ in range(3):
        port.doRead()
    port.disconnecting = True
    clock.advance(PAUSE)
    assert not port.reading


def test_one_alone(tmp_path: Path) -> None:
    """A worker without others never waits for the next connection longer than the moment."""
    clock = Clock()
    port = fair(clock, tmp_path, 1, 1)
    port.doRead()
    port.doRead()
    assert port.open == 2


def test_counts_are_shared(tmp_path: Path) -> None:
    """Each sees what the others said; one that starts anew begins at none."""
    first, second, third = (Counts(tmp_path, number, 3) for number in (1, 2, 3))
    first.tell(5)
    second.tell(7)
    third.tell(9)
    assert (first.fewest, second.fewest, third.fewest) == (7, 5, 5)
    again = Counts(tmp_path, 2, 3)
    assert (first.fewest, again.fewest) == (0, 5)
