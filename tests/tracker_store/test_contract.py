"""What every store does, the same for each."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, gatherResults

from rasa_core_api import events as kinds
from rasa_core_api.events import Event
from rasa_core_api.exceptions import InvalidParameter, StoreConflict
from rasa_core_api.tracker_store import Tail, TrackerStore

from .stores import slots, texts, turn, wait

ALL_KINDS: list[Event] = [
    *turn("grüezi\n\u2028 \U0001f600"),
    kinds.BotUttered(text="hi", data={"buttons": [{"title": "a", "payload": "/b"}], "attachment": None}, timestamp=0),
    kinds.AgentUttered(text=None, data=None, timestamp=1),
    kinds.AllSlotsReset(timestamp=2.5),
    kinds.FollowupAction(action_name="x", timestamp=3),
    kinds.Restarted(timestamp=4),
    kinds.UserUtteranceReverted(timestamp=5),
    kinds.ActionReverted(timestamp=6),
    kinds.ConversationPaused(timestamp=7),
    kinds.ConversationResumed(timestamp=8),
    kinds.ReminderScheduled(
        action_name="r",
        trigger_date_time=datetime(2030, 1, 2, 3, 4, 5, 678, timezone.utc),
        name="n",
        kill_on_user_message=False,
        timestamp=9,
    ),
    kinds.StoryExported(timestamp=10),
    kinds.Form(name="f", timestamp=11),
    kinds.FormValidation(validate=False, timestamp=12),
    kinds.ActionExecutionRejected(action_name="a", policy="p", confidence=0.25, timestamp=13),
    kinds.SlotSet(key="s", value={"deep": [1, 2.5, None, True, {"a": "\u0000\u2029"}]}, timestamp=1e9),
]


def read(store: TrackerStore, sender_id: str, after: int = 0, limit: int | None = None) -> Tail:
    tail = wait(store.read(sender_id, after, limit))
    assert tail is not None
    return tail


def test_unknown_conversation(store: TrackerStore) -> None:
    """A conversation that nobody began is unknown, and can neither be continued nor deleted."""
    assert wait(store.read("nobody")) is None
    with pytest.raises(StoreConflict):
        wait(store.append("nobody", 3, slots(1)))
    assert wait(store.delete("nobody")) is False
    assert wait(store.sender_ids()) == []


def test_all_kinds_of_events(store: TrackerStore) -> None:
    """Every kind of event comes back as it was, time and text included."""
    assert wait(store.append("a", 0, ALL_KINDS)) == len(ALL_KINDS)
    tail = read(store, "a")
    assert (tail.start, tail.end) == (0, len(ALL_KINDS))
    assert tail.events == ALL_KINDS
    assert texts(tail.events) == texts(ALL_KINDS)
    assert [event.timestamp for event in tail.events] == [event.timestamp for event in ALL_KINDS]


def test_append_after_the_end_only(store: TrackerStore) -> None:
    """A writer that does not know the log's end is refused, and nothing of it is stored."""
    assert wait(store.append("a", 0, slots(1, 2))) == 2
    assert wait(store.append("a", 2, slots(3))) == 3
    for end in (0, 1, 2, 4):
        with pytest.raises(StoreConflict):
            wait(store.append("a", end, slots(9)))
    assert texts(read(store, "a").events) == texts(slots(1, 2, 3))


def test_append_nothing(store: TrackerStore) -> None:
    """Appending nothing creates an empty conversation, and checks the end of a known one."""
    assert wait(store.append("a", 0, [])) == 0
    assert evolve(read(store, "a"), birth=0) == Tail(0, 0, [])
    assert wait(store.append("a", 0, slots(1))) == 1
    assert wait(store.append("a", 1, [])) == 1
    with pytest.raises(StoreConflict):
        wait(store.append("a", 0, []))


def test_pages(store: TrackerStore) -> None:
    """A log is read from any number on, in pages of any size, wherever the appends were cut."""
    numbers = iter(range(1000))
    end = 0
    for size in (1, 3, 300, 7, 129):
        end = wait(store.append("a", end, slots(*(next(numbers) for _ in range(size)))))
    assert end == 440
    for after in (0, 1, 2, 4, 127, 130, 131, 300, 311, 439, 440, 441, 10_000):
        for limit in (None, 0, 1, 2, 130, 1000):
            tail = read(store, "a", after, limit)
            stop = 440 if limit is None else min(440, after + limit)
            assert (tail.start, tail.end) == (0, 440)
            assert [event.value for event in tail.events] == list(range(after, stop))  # type: ignore[attr-defined]


def test_replace(store: TrackerStore) -> None:
    """A replaced log begins where the old one ended, and only the new events are left."""
    assert wait(store.replace("new", slots(1))) == (0, 1)
    wait(store.append("a", 0, slots(*range(200))))
    assert wait(store.replace("a", slots(7, 8))) == (200, 202)
    assert [event.value for event in read(store, "a", 0, 1).events] == [7]  # type: ignore[attr-defined]
    assert [event.value for event in read(store, "a", 201).events] == [8]  # type: ignore[attr-defined]
    with pytest.raises(StoreConflict):
        wait(store.append("a", 200, slots(9)))
    assert wait(store.append("a", 202, slots(9))) == 203
    assert wait(store.replace("a", [])) == (203, 203)
    assert evolve(read(store, "a"), birth=0) == Tail(203, 203, [])
    assert wait(store.append("a", 203, slots(1))) == 204
    assert wait(store.sender_ids()) == ["new", "a"]


def test_delete(store: TrackerStore) -> None:
    """A deleted conversation leaves nothing, and may begin anew."""
    wait(store.append("a", 0, slots(1)))
    wait(store.append("b", 0, slots(2)))
    assert wait(store.delete("a")) is True
    assert wait(store.read("a")) is None
    assert wait(store.sender_ids()) == ["b"]
    with pytest.raises(StoreConflict):
        wait(store.append("a", 1, slots(1)))
    assert wait(store.append("a", 0, slots(3))) == 1
    assert wait(store.sender_ids()) == ["b", "a"]
    assert texts(read(store, "a").events) == texts(slots(3))


def test_strange_sender_ids(store: TrackerStore) -> None:
    """Ids are any text: blanks, quotes, line breaks, emoji, 10 kB; they are told apart exactly."""
    names = ["a", "A", " a", "a ", "", "%2F/..", "'; DROP TABLE x; --", "new\nline", "\U0001f600", "é", "e\u0301"]
    names += ["*", "a*", "a:b", "{a}", "\\", "%", "_", "x" * 10_000]
    for index, name in enumerate(names):
        assert wait(store.append(name, 0, slots(index))) == 1
    assert wait(store.sender_ids()) == names
    for index, name in enumerate(names):
        assert texts(read(store, name).events) == texts(slots(index))


def test_listing(store: TrackerStore) -> None:
    """Conversations are listed in the order of their creation, in pages, and by prefix."""
    names = [f"{'ab'[index % 2]}%{index}" for index in range(30)]
    for name in names:
        wait(store.append(name, 0, slots(1)))
    wait(store.append(names[0], 1, slots(2)))  # being used changes no place
    assert wait(store.sender_ids()) == names
    assert wait(store.sender_ids(limit=7)) == names[:7]
    assert wait(store.sender_ids(names[6], 7)) == names[7:14]
    assert wait(store.sender_ids(names[29])) == []
    assert wait(store.sender_ids(prefix="a%")) == names[::2]
    assert wait(store.sender_ids(names[4], 2, "a%")) == [names[6], names[8]]
    assert wait(store.sender_ids(limit=0)) == []
    assert wait(store.sender_ids(prefix="nobody")) == []
    with pytest.raises(InvalidParameter):
        wait(store.sender_ids("nobody"))


def test_one_of_many_wins(store: TrackerStore) -> None:
    """Of many writers that saw the same end one is let in, the others are told."""
    wait(store.append("a", 0, slots(0)))

    async def attempt(value: int) -> int | None:
        try:
            await store.append("a", 1, slots(value))
        except StoreConflict:
            return None
        return value

    attempts = [Deferred.fromCoroutine(attempt(value)) for value in range(20)]

    async def all_of_them() -> list[int | None]:
        return await gatherResults(attempts)

    winners = [value for value in wait(all_of_them()) if value is not None]
    assert len(winners) == 1
    assert texts(read(store, "a").events) == texts(slots(0, *winners))


def test_many_at_once(store: TrackerStore) -> None:
    """Conversations that are written to at the same time each get what was meant for them."""

    async def converse(name: str) -> None:
        end = 0
        for value in range(10):
            end = await store.append(name, end, slots(f"{name}-{value}-1", f"{name}-{value}-2"))

    names = [f"s{index}" for index in range(50)]
    work = [Deferred.fromCoroutine(converse(name)) for name in names]

    async def all_of_them() -> None:
        await gatherResults(work)

    wait(all_of_them())
    for name in names:
        wanted = slots(*(f"{name}-{value}-{part}" for value in range(10) for part in (1, 2)))
        assert texts(read(store, name).events) == texts(wanted)
    assert sorted(wait(store.sender_ids())) == sorted(names)


def test_pins_are_harmless(store: TrackerStore) -> None:
    """A turn that begins and ends changes nothing of what is stored."""
    store.pin("a")
    wait(store.append("a", 0, slots(1)))
    store.unpin("a")
    assert read(store, "a").end == 1
    assert store.status()["type"] == store.name


def test_no_id_has_a_nul_character(store: TrackerStore) -> None:
    """So that nothing begins with one, and nothing comes behind one."""
    wait(store.append("a", 0, slots(1)))
    assert wait(store.sender_ids(None, 5, "a\0")) == []
    with pytest.raises(InvalidParameter, match="to go on after"):
        wait(store.sender_ids("a\0", 5))
