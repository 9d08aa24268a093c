"""Tests of the line of what waits to begin."""

from __future__ import annotations

from rasa_core_api.fair_line import FairLine


def test_keys_take_turns() -> None:
    """A key with many waits for its own, not the others for it."""
    line: FairLine[int] = FairLine(2, 4)
    for number in range(3):
        line.add("a", number)
    line.add("b", 10)
    line.add("c", 20)
    assert len(line) == 5
    assert [line.begin(), line.begin()] == [("a", 0), ("b", 10)]
    assert line.is_full and not line.may_begin
    line.end("a")
    assert line.begin() == ("c", 20)
    line.end("b")
    assert line.begin() == ("a", 1)
    line.end("c")
    assert not line.may_begin and not line.is_full
    line.end("a")
    assert line.begin() == ("a", 2)
    line.end("a")
    assert len(line) == 0 and line.ended == 5


def test_room_grows_and_shrinks() -> None:
    """More room goes again with those that end."""
    line: FairLine[int] = FairLine(2, 5)
    for number in range(20):
        line.add(str(number), number)

    def begin_all() -> int:
        begun = 0
        while line.may_begin:
            line.begin()
            begun += 1
        return begun

    assert begin_all() == 2
    line.widen()
    assert begin_all() == 2
    line.widen()
    assert begin_all() == 1
    for number in range(3):
        line.end(str(number))
    assert begin_all() == 0
    line.end("3")
    assert begin_all() == 1
    line.clear()
    line.end("4")
    assert begin_all() == 0
