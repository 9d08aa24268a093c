"""Tests of what `conversations import`, `export` and `migrate` say on their way."""

from __future__ import annotations

import io

import pytest
from twisted.internet import reactor
from twisted.internet.task import Clock

from rasa_core_api.copying import EVENTS, Report, Target, import_lines, named
from rasa_core_api.events.reading import EventReader
from rasa_core_api.exceptions import ConversationHeld, StoreConflict
from rasa_core_api.tracker_store.memory import MemoryStore

from .tracker_store.stores import slots, texts, wait


def target(existing: str = "fail") -> tuple[Target, io.StringIO, Clock]:
    said, clock = io.StringIO(), Clock()
    return Target(MemoryStore(reactor), existing, Report(said, "stored", clock.seconds)), said, clock


def test_progress_with_time_left() -> None:
    """Every few seconds a line says how many are done and about how long the rest takes."""
    said, clock = io.StringIO(), Clock()
    report = Report(said, "stored", clock.seconds)
    for _ in range(200):
        clock.advance(0.5)
        report.done += 1
        report.advance(800)
    lines = said.getvalue().splitlines()
    assert lines[0] == "10 of about 800 conversations, 10 stored, about 6 min 35 s left"
    assert len(lines) == 20 and lines[-1].endswith("about 5 min 0 s left")
    clock.advance(36_000)
    report.advance(800)
    assert said.getvalue().splitlines()[-1].endswith(" h 53 min left")


def test_progress_of_a_file() -> None:
    """Of a file it is known how much was read, not how many conversations there are."""
    made, said, clock = target()
    line = '{"sender_id": "%s", "events": []}\n'
    lines = "".join(line % name for name in ("aa", "bb", "cc", "dd"))
    reader = EventReader(lambda: clock.advance(6.0) or 0.0, lambda: "id")
    clock.advance(6.0)
    wait(import_lines(io.StringIO(lines), "file", len(lines), reader, made))
    assert said.getvalue() == "1 conversations, 1 stored, about 18 s left\n"


def test_more_than_were_counted() -> None:
    """What comes in meanwhile is counted, too."""
    said, clock = io.StringIO(), Clock()
    report = Report(said, "stored", clock.seconds)
    for _ in range(3):
        clock.advance(6.0)
        report.advance(1)
    assert said.getvalue().splitlines()[-1] == "3 of about 3 conversations, 0 stored"


def test_a_long_conversation_goes_in_pieces() -> None:
    """No store has to take a hundred thousand events at once; the log is the same."""
    made, _, _ = target()
    events = slots(*range(2 * EVENTS + 7))
    wait(made.put("u", events))
    tail = wait(made.store.read("u"))
    assert tail is not None and texts(tail.events) == texts(events) and made.report.done == 1
    again = Target(made.store, "skip", made.report)
    wait(again.put("u", [*events, *slots(1, 2)]))
    assert wait(made.store.read("u")).end == 2 * EVENTS + 9  # type: ignore[union-attr]


@pytest.mark.parametrize("error", [ConversationHeld("somebody talks in it"), StoreConflict("it grew", end=3)])
def test_a_conversation_in_use(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversation that a server is talking in is left out and named; the others are stored."""
    made, said, _ = target("replace")
    append = made.store.append

    async def refuse(sender_id: str, end: int, events: object, *rest: object) -> int:
        if sender_id == "busy" and end:
            raise error
        return await append(sender_id, end, events, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(made.store, "append", refuse)
    wait(made.put("busy", slots(*range(EVENTS + 1))))
    wait(made.put("idle", slots(1)))
    assert "left out: the conversation 'busy'" in said.getvalue() and made.report.failed == 1
    assert wait(made.store.sender_ids()) == ["busy", "idle"] and made.report.done == 1


def test_long_names() -> None:
    """An id is shown on one line, and its beginning only."""
    assert named("a\nb") == "'a\\nb'"
    assert len(named("x" * 3000)) < 100
