"""Tests of what `conversations import`, `export` and `migrate` say on their way."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.task import Clock

from rasa_core_api.copying import EVENTS, Report, Target, import_lines, named
from rasa_core_api.events import Event, ReminderScheduled, SlotSet
from rasa_core_api.events.reading import EventReader
from rasa_core_api.exceptions import ConversationHeld, InvalidConfiguration, NotBuilt, StoreConflict
from rasa_core_api.reminders import unfired
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.exporting import exported
from rasa_core_api.tracker_store.memory import MemoryStore
from rasa_core_api.tracker_store.turns import NO_NOTE, Reminder, TurnNote

from .tracker_store.stores import slots, texts, wait

READER = EventReader(lambda: 0.0, lambda: "id")


class Slow:
    """Lines that take their time."""

    def __init__(self, lines: list[str], clock: Clock) -> None:
        self.lines = iter(lines)
        self.clock = clock

    def readline(self, _: int) -> str:
        self.clock.advance(6.0)
        return next(self.lines, "")


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
    wait(import_lines(io.StringIO(lines), "file", len(lines), reader, made, 0.0))
    assert said.getvalue() == "1 conversations, 1 stored, about 18 s left\n"


def test_progress_of_long_conversations() -> None:
    """A log of a million events is no silence: how much of it is done is told, too."""
    made, said, clock = target()
    begun = list(slots(*range(4)))
    lines = [json.dumps({"sender_id": "u", "seq": seq, "events": [json.loads(event.as_json())]})
             for seq, event in enumerate(begun, 5)]  # fmt: skip
    reader = EventReader(lambda: 0.0, lambda: "id")
    clock.advance(6.0)
    source = Slow([f"{line}\n" for line in lines], clock)
    wait(import_lines(source, "file", sum(map(len, lines)) + 4, reader, made, 0.0))  # type: ignore[arg-type]
    assert said.getvalue().splitlines() == [
        "1 conversations, 1 stored, about 36 s left",
        "1 conversations stored, 2 events of 'u', about 18 s left",
        "1 conversations stored, 3 events of 'u', about 8 s left",
        "1 conversations stored, 4 events of 'u', about 0 s left",
    ]


@pytest.mark.parametrize("whole", [True, False])
def test_progress_of_a_copy(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is it where a conversation comes from another store."""
    made, said, clock = target()
    events = slots(*range(3 * EVENTS))
    source = MemoryStore(reactor)
    wait(source.append("u", 0, events))
    append = made.store.append

    async def slow(*arguments: Any) -> int:
        clock.advance(6.0)
        return await append(*arguments)

    monkeypatch.setattr(made.store, "append", slow)
    wait(made.put("u", events) if whole else made.copy(source, "u"))
    assert said.getvalue().splitlines() == [
        "0 conversations stored, 2000 of 3000 events of 'u'",
        "0 conversations stored, 3000 of 3000 events of 'u'",
    ]


def test_an_interruption() -> None:
    """The last line says how far it was and what to do."""
    said = io.StringIO()
    report = Report(said, "stored", Clock().seconds)
    report.done, report.skipped = 7, 2
    report.interrupted("; go on")
    assert said.getvalue() == "interrupted: 7 conversations stored, 2 skipped so far; go on\n"


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


# --- reminders ---------------------------------------------------------------------------------------------


def asks(name: str, due: float = 2e9) -> ReminderScheduled:
    when = datetime.fromtimestamp(due, timezone.utc)
    return ReminderScheduled(action_name="utter_tell", trigger_date_time=when, name=name, timestamp=1.5)


def add(store: TrackerStore, end: int, events: Sequence[Event], sender_id: str = "u") -> int:
    """Store a part of a conversation with the reminders that its turns asked for."""
    asked = [
        Reminder(sender_id, event.name, event.trigger_date_time.timestamp(), end + index, "callback")
        for index, event in enumerate(events)
        if isinstance(event, ReminderScheduled)
    ]
    return wait(store.append(sender_id, end, events, TurnNote(reminders=asked)))


def wait_in(store: TrackerStore, sender_id: str = "u") -> list[tuple[str, float, int, str | None]]:
    """Name, due time, index of the asking event in the log, and channel of each reminder that waits."""
    tail = wait(store.read(sender_id))
    assert tail is not None
    found = []
    for each in wait(store.reminders(sender_id)):
        event = tail.events[each.seq - tail.start]
        assert isinstance(event, ReminderScheduled) and event.name == each.name
        found.append((each.name, each.due, each.seq - tail.start, each.channel))
    return found


def source_with_reminders() -> MemoryStore:
    """A long conversation whose numbers do not begin at 0; one reminder on each of two pages, another has fired."""
    source = MemoryStore(reactor)
    wait(source.append("u", 0, slots(1)))
    _, end = wait(source.replace("u", slots(*range(5))))
    end = add(source, end, [asks("one", 2e9 + 7), asks("fired"), *slots(*range(EVENTS))])
    add(source, end, [*slots(1), asks("two", 2e9 + 8), *slots(2)])
    fired = next(each for each in wait(source.reminders("u")) if each.name == "fired")
    assert wait(source.forget(fired))
    return source


WAITING = [("one", 2e9 + 7, 5, "callback"), ("two", 2e9 + 8, EVENTS + 8, "callback")]


def lines_of(store: TrackerStore, sender_id: str = "u") -> str:
    async def all_lines() -> str:
        return "".join([line async for line in exported(store, sender_id)])

    return wait(all_lines())


@pytest.mark.parametrize("way", ["copy", "export and import"])
@pytest.mark.parametrize("existing", ["fail", "replace"])
def test_reminders_go_along(way: str, existing: str) -> None:
    """What waits in a conversation waits in its copy, for the same time and channel; what is over does not."""
    source = source_with_reminders()
    made, _, _ = target(existing)
    if existing == "replace":
        add(made.store, 0, [asks("old"), asks("one")])
    if way == "copy":
        wait(made.copy(source, "u"))
    else:
        wait(import_lines(io.StringIO(lines_of(source)), "file", None, READER, made, 0.0))
    assert (made.report.done, made.report.failed) == (1, 0)
    assert wait_in(made.store) == WAITING


@pytest.mark.parametrize("way", ["copy", "export and import"])
def test_reminders_of_a_copy_that_is_completed(way: str) -> None:
    """What an earlier run left out comes with its events; what fired or was removed since is over in the copy, too."""

    def again() -> None:
        if way == "copy":
            wait(made.copy(source, "u"))
        else:
            lines = lines_of(source) + '{"sender_id":"v","seq":0,"events":[]}\n'
            wait(import_lines(io.StringIO(lines), "file", None, READER, made, 0.0))

    source = source_with_reminders()
    made, _, _ = target("skip")
    tail = wait(source.read("u"))
    assert tail is not None
    assert add(made.store, 0, tail.events[:9]) == 9  # the reminder "fired" waited then
    assert [each[0] for each in wait_in(made.store)] == ["fired", "one"]
    again()
    assert made.report.done >= 1
    assert wait_in(made.store) == WAITING
    two = next(each for each in wait(source.reminders("u")) if each.name == "two")
    wait(source.forget(two))
    again()
    assert wait_in(made.store) == WAITING[:1]


def test_reminders_of_a_conversation_that_went_on() -> None:
    """A copy in which somebody talked since is left alone, with its reminders."""
    source = source_with_reminders()
    made, _, _ = target("skip")
    wait(made.copy(source, "u"))
    tail = wait(made.store.read("u"))
    assert tail is not None
    add(made.store, tail.end, [asks("three")])
    for each in wait(source.reminders("u")):
        wait(source.forget(each))
    wait(made.copy(source, "u"))
    assert [each[0] for each in wait_in(made.store)] == ["three", "one", "two"]


def test_reminders_of_one_name() -> None:
    """Where a line lists two of a name, as MongoDB kept them, the last one waits: no store is asked to keep both."""

    class Strict(MemoryStore):
        async def append(self, sender_id: str, end: int, events: Sequence[Event], note: TurnNote = NO_NOTE) -> int:
            assert len({each.name for each in note.reminders}) == len(note.reminders)
            return await super().append(sender_id, end, events, note)

    due = [datetime(2033, 1, 1, 0, 0, second, tzinfo=timezone.utc) for second in (1, 2)]
    asked = [ReminderScheduled(action_name="a", trigger_date_time=at, name="n", timestamp=1.0) for at in due]
    data = {
        "sender_id": "u",
        "seq": 0,
        "events": [json.loads(event.as_json()) for event in asked],
        "reminders": [{"name": "n", "due": at.timestamp(), "channel": None} for at in due],
    }
    copy, _, _ = target()
    copy.store = Strict(reactor)
    wait(import_lines(io.StringIO(json.dumps(data) + "\n"), "lines", None, READER, copy, 1.0))
    assert wait(copy.store.reminders("u")) == [Reminder("u", "n", due[1].timestamp(), 1, None)]


def test_stores_without_reminders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversations are copied from a store of somebody's own that has no reminders."""
    source = source_with_reminders()

    async def lacks(sender_id: str) -> list[Reminder]:
        raise NotBuilt("no reminders")

    monkeypatch.setattr(source, "reminders", lacks)
    made, _, _ = target()
    wait(made.copy(source, "u"))
    assert wait_in(made.store) == []
    assert '"reminders"' not in lines_of(source)


@pytest.mark.parametrize("way", ["migration", "import"])
def test_reminders_that_the_old_server_had_meanwhile(way: str) -> None:
    """A log of Rasa Core that goes on behind the time of a reminder has dealt with it: it does not wait in the copy."""
    made, _, _ = target("skip")
    log: list[Event] = [asks("gone", 100.0), asks("soon", 300.0), asks("later")]
    for now, more in ((50.0, 60.0), (400.0, 200.0)):
        log.append(SlotSet(key="k", timestamp=more))
        if way == "migration":
            wait(made.put("u", log, unfired("u", log, now)))
        else:
            line = f'{{"sender_id":"u","events":[{",".join(event.as_json() for event in log)}]}}\n'
            wait(import_lines(io.StringIO(line), "file", None, READER, made, now))
        if now == 50.0:
            assert [each[0] for each in wait_in(made.store)] == ["gone", "soon", "later"]
    assert [each[0] for each in wait_in(made.store)] == ["soon", "later"]


def test_a_reminder_that_was_only_logged() -> None:
    """A reminder keeps the event that asked for it, though another one of its name was logged and not scheduled."""
    source, (made, _, _) = MemoryStore(reactor), target()
    end = add(source, 0, [asks("one", 2e9 + 7)])
    wait(source.append("u", end, [asks("one", 2e9 + 9)]))
    wait(import_lines(io.StringIO(lines_of(source)), "file", None, READER, made, 0.0))
    assert wait_in(made.store) == [("one", 2e9 + 7, 0, "callback")]


def test_reminders_of_lines_that_are_not_ours() -> None:
    """Where a log says nothing of what waits, as those of Rasa Core, its events tell; lines of ours say all."""
    events = ",".join(event.as_json() for event in [asks("past", 5e8), asks("later")])
    for members, expected in (("", ["later"]), (',"seq":0', [])):
        made, _, _ = target()
        line = f'{{"sender_id":"u","events":[{events}]{members}}}\n'
        wait(import_lines(io.StringIO(line), "file", None, READER, made, 1e9))
        assert [each[0] for each in wait_in(made.store)] == expected


@pytest.mark.parametrize(
    "reminders", ["{}", "[1]", '[{"name": 1, "due": 2}]', '[{"name": "n"}]', '[{"name": "n", "due": 1, "channel": 2}]']
)
def test_bad_reminders(reminders: str) -> None:
    """A line whose reminders cannot be read is named."""
    made, _, _ = target()
    line = f'{{"sender_id":"u","seq":0,"events":[],"reminders":{reminders}}}\n'
    with pytest.raises(InvalidConfiguration, match="line 1: 'reminders'"):
        wait(import_lines(io.StringIO(line), "file", None, READER, made, 0.0))


def test_an_import_beside_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversation that a server is talking in is left out of an import, and the lines behind it are stored."""
    made, said, _ = target("replace")
    replace = made.store.replace

    async def refuse(sender_id: str, events: Sequence[Event], *rest: object) -> tuple[int, int]:
        if sender_id == "busy":
            raise ConversationHeld("somebody talks in it")
        return await replace(sender_id, events, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(made.store, "replace", refuse)
    add(made.store, 0, slots(1), "busy")
    lines = '{"sender_id":"busy","seq":0,"events":[]}\n{"sender_id":"idle","seq":0,"events":[]}\n'
    wait(import_lines(io.StringIO(lines), "file", None, READER, made, 0.0))
    assert said.getvalue().startswith("left out: the conversation 'busy': ")
    assert wait(made.store.sender_ids()) == ["busy", "idle"]
