"""What every store keeps beside the events, the same for each: claims, answers, reminders and the order of appends."""

from __future__ import annotations

import pytest
from twisted.internet import reactor
from twisted.internet.task import deferLater

from rasa_core_api.exceptions import ConversationHeld, InvalidParameter, StoreConflict
from rasa_core_api.open_turns import OPEN, open_note
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.turns import FEED_SIZE, Earlier, Reminder, Tail, TurnNote

from .stores import slots, texts, wait

MINE, THEIRS = "owner-1", "owner-2"


async def pause(seconds: float) -> None:
    await deferLater(reactor, seconds)


# --- claims ------------------------------------------------------------------------------------------------


def test_claim_keeps_others_out(store: TrackerStore) -> None:
    """While a claim lasts nobody else appends, replaces or claims; its owner does, and that ends it."""
    wait(store.append("a", 0, slots(1)))
    wait(store.claim("a", 1, MINE, None, 10))
    with pytest.raises(ConversationHeld) as held:
        wait(store.append("a", 1, slots(2), TurnNote(owner=THEIRS)))
    assert 0 < held.value.seconds <= 10
    with pytest.raises(ConversationHeld):
        wait(store.append("a", 1, slots(2)))
    with pytest.raises(ConversationHeld):
        wait(store.replace("a", slots(2), TurnNote(owner=THEIRS)))
    with pytest.raises(ConversationHeld):
        wait(store.claim("a", 1, THEIRS, None, 10))
    assert wait(store.look("a", 1, None, None, THEIRS)).held > 0
    assert wait(store.look("a", 1, None, None, MINE)).held == 0
    wait(store.claim("a", 1, MINE, None, 10))
    assert wait(store.append("a", 1, slots(2), TurnNote(owner=MINE))) == 2
    assert wait(store.look("a", 2, None, None, THEIRS)).held == 0
    assert wait(store.append("a", 2, slots(3), TurnNote(owner=THEIRS))) == 3


def test_claim_needs_the_end(store: TrackerStore) -> None:
    """Only who knows the log's end may claim it; an unknown conversation ends at 0, and a claim does not create it."""
    wait(store.append("a", 0, slots(1)))
    with pytest.raises(StoreConflict):
        wait(store.claim("a", 0, MINE, None, 10))
    with pytest.raises(StoreConflict):
        wait(store.claim("new", 1, MINE, None, 10))
    wait(store.claim("new", 0, MINE, None, 10))
    assert wait(store.read("new")) is None
    assert wait(store.sender_ids()) == ["a"]
    with pytest.raises(ConversationHeld):
        wait(store.append("new", 0, slots(1)))
    assert wait(store.look("new", 0, None, None, THEIRS)).held > 0
    assert wait(store.append("new", 0, slots(1), TurnNote(owner=MINE))) == 1


def test_place_in_the_list_is_where_a_conversation_begins(store: TrackerStore) -> None:
    """Who lists behind a conversation misses none that was only claimed when that one began."""
    wait(store.claim("slow", 0, MINE, None, 10))
    wait(store.claim("replaced", 0, MINE, None, 10))
    wait(store.append("quick", 0, slots(1)))
    assert wait(store.append("slow", 0, slots(1), TurnNote(owner=MINE))) == 1
    assert wait(store.replace("replaced", slots(1), TurnNote(owner=MINE))) == (0, 1)
    assert wait(store.sender_ids("quick")) == ["slow", "replaced"]
    assert wait(store.append("slow", 1, slots(2), TurnNote(owner=MINE))) == 2
    assert wait(store.append("replaced", 1, slots(2), TurnNote(owner=MINE))) == 2
    assert wait(store.sender_ids()) == ["quick", "slow", "replaced"]


def test_claim_of_a_part_stays(store: TrackerStore) -> None:
    """A part of a turn that is stored before its end does not end the claim."""
    wait(store.claim("a", 0, MINE, "k", 10))
    wait(store.append("a", 0, slots(1), TurnNote(owner=MINE, key="k", answer="[1]", keep=60, done=False)))
    with pytest.raises(ConversationHeld):
        wait(store.append("a", 1, slots(2), TurnNote(owner=THEIRS)))
    assert wait(store.append("a", 1, slots(2), TurnNote(owner=MINE, key="k", answer="[1,2]", keep=60))) == 2
    assert wait(store.look("a", 2, 0, "k", THEIRS)).earlier == Earlier(0, 2, "[1,2]", True)
    assert wait(store.append("a", 2, slots(3), TurnNote(owner=THEIRS))) == 3


def test_note_without_events(store: TrackerStore) -> None:
    """Something may be kept beside a turn's parts, under a key of its own, while the claim stays."""
    wait(store.append("a", 0, slots(1)))
    wait(store.claim("a", 1, MINE, "k", 10))
    wait(store.append("a", 1, slots(2), TurnNote(owner=MINE, key="k", base=1, answer="[1]", keep=60, done=False)))
    assert wait(store.append("a", 2, [], open_note(MINE, 1, True, None, 0))) == 2
    with pytest.raises(ConversationHeld):
        wait(store.append("a", 2, slots(3), TurnNote(owner=THEIRS)))
    assert wait(store.look("a", 2, 0, OPEN, THEIRS)).earlier == Earlier(1, 2, '{"open":true}', False)
    assert wait(store.look("a", 2, 0, "k", THEIRS)).earlier == Earlier(1, 2, "[1]", False)
    assert wait(store.append("a", 2, slots(3), TurnNote(owner=MINE, key="k", base=1, answer="[1,2]", keep=60))) == 3
    assert wait(store.append("a", 3, slots(4), TurnNote(owner=THEIRS))) == 4


def test_claim_runs_out(store: TrackerStore) -> None:
    """A claim that is not renewed runs out; then others go on, and its owner finds another end."""
    wait(store.append("a", 0, slots(1)))
    wait(store.claim("a", 1, MINE, None, 0.15))
    wait(store.claim("other", 0, MINE, None, 0.15))
    wait(store.renew(MINE, 0.3))
    wait(pause(0.2))
    with pytest.raises(ConversationHeld):
        wait(store.append("a", 1, slots(2), TurnNote(owner=THEIRS)))
    wait(pause(0.2))
    assert wait(store.look("a", 1, None, None, THEIRS)).held == 0
    wait(store.claim("a", 1, THEIRS, None, 10))
    with pytest.raises(ConversationHeld):
        wait(store.append("a", 1, slots(9), TurnNote(owner=MINE)))
    wait(store.append("a", 1, slots(2), TurnNote(owner=THEIRS)))
    with pytest.raises(StoreConflict):
        wait(store.append("a", 1, slots(9), TurnNote(owner=MINE)))
    assert wait(store.append("other", 0, slots(1))) == 1


def test_release(store: TrackerStore) -> None:
    """An owner gives up one claim or all; those of others stay."""
    for name in ("a", "b", "c"):
        wait(store.claim(name, 0, MINE, None, 10))
    wait(store.claim("d", 0, THEIRS, None, 10))
    wait(store.release(MINE, "d"))
    wait(store.release(MINE, "a"))
    wait(store.append("a", 0, slots(1)))
    with pytest.raises(ConversationHeld):
        wait(store.append("b", 0, slots(1)))
    wait(store.release(MINE))
    wait(store.append("b", 0, slots(1)))
    wait(store.append("c", 0, slots(1)))
    with pytest.raises(ConversationHeld):
        wait(store.append("d", 0, slots(1)))


def test_delete_ends_claims_and_answers(store: TrackerStore) -> None:
    """Nothing of a deleted conversation is left: neither a claim, nor an answer, nor a reminder."""
    note = TurnNote(key="k", keep=60, reminders=[Reminder("a", "n", 5.0, 0)])
    wait(store.append("a", 0, slots(1), note))
    wait(store.claim("a", 1, MINE, None, 10))
    assert wait(store.delete("a")) is True
    opening = wait(store.look("a", 0, None, "k", THEIRS))
    assert (opening.tail, opening.earlier, opening.held) == (None, None, 0)
    assert wait(store.reminders("a")) == []
    assert wait(store.append("a", 0, slots(1))) == 1


def test_replacement_under_a_claim(store: TrackerStore) -> None:
    """Who claimed a log replaces it and lets go of it; others go on behind the new one."""
    wait(store.append("a", 0, slots(1, 2)))
    wait(store.claim("a", 2, MINE, None, 10))
    assert wait(store.replace("a", slots(3), TurnNote(owner=MINE))) == (2, 3)
    wait(store.release(MINE, "a"))
    assert wait(store.look("a", 0, None, None, THEIRS)).held == 0
    assert wait(store.append("a", 3, slots(4), TurnNote(owner=THEIRS))) == 4
    tail = wait(store.read("a"))
    assert (tail.start, tail.end, len(tail.events)) == (2, 4, 2)


def test_append_to_a_log_that_was_replaced(store: TrackerStore) -> None:
    """Who knows where the log began is refused when it begins elsewhere, though it ends where he believes."""
    wait(store.append("a", 0, slots(1, 2)))
    assert wait(store.append("a", 2, slots(3), TurnNote(start=0))) == 3
    wait(store.replace("a", []))
    with pytest.raises(StoreConflict):
        wait(store.append("a", 3, slots(4), TurnNote(start=0)))
    assert wait(store.append("a", 3, slots(4), TurnNote(start=3))) == 4
    assert wait(store.append("new", 0, slots(1), TurnNote(start=0))) == 1


# --- answers -----------------------------------------------------------------------------------------------


def test_answer_is_found_again(store: TrackerStore) -> None:
    """The answer of a key is there with the events, for this conversation alone."""
    answer = '{"text": "grüezi \U0001f600\\u2028"}'
    wait(store.append("a", 0, slots(1, 2, 3), TurnNote(owner=MINE, key="k 1", base=0, answer=answer, keep=60)))
    wait(store.append("b", 0, slots(1)))
    opening = wait(store.look("a", 1, 1, "k 1"))
    assert opening.earlier == Earlier(0, 3, answer, True)
    assert opening.tail is not None and texts(opening.tail.events) == texts(slots(2))
    assert wait(store.look("a", 0, None, "k")).earlier is None
    assert wait(store.look("b", 0, None, "k 1")).earlier is None
    assert wait(store.look("nobody", 0, None, "k 1")).tail is None


def test_refused_append_leaves_no_answer(store: TrackerStore) -> None:
    """An append that is refused leaves neither answer nor reminder."""
    wait(store.append("a", 0, slots(1)))
    note = TurnNote(key="k", keep=60, reminders=[Reminder("a", "n", 5.0, 0)])
    with pytest.raises(StoreConflict):
        wait(store.append("a", 0, slots(2), note))
    assert wait(store.look("a", 0, None, "k")).earlier is None
    assert wait(store.reminders("a")) == []


def test_answer_runs_out(store: TrackerStore) -> None:
    """An answer is kept for as long as it was said; its key is then free."""
    wait(store.append("a", 0, slots(1), TurnNote(key="k", answer="1", keep=0.15)))
    wait(pause(0.25))
    assert wait(store.look("a", 0, None, "k")).earlier is None
    wait(store.append("a", 1, slots(1), TurnNote(key="k", base=1, answer="2", keep=60)))
    assert wait(store.look("a", 0, None, "k")).earlier == Earlier(1, 2, "2", True)


def test_answer_of_a_replacement(store: TrackerStore) -> None:
    """A replaced log keeps the answers, the one of the replacement with its own place."""
    wait(store.append("a", 0, slots(1, 2), TurnNote(key="k", answer="1", keep=60)))
    assert wait(store.replace("a", slots(7, 8, 9), TurnNote(key="r", answer="2", keep=60))) == (2, 5)
    assert wait(store.look("a", 5, None, "k")).earlier == Earlier(0, 2, "1", True)
    assert wait(store.look("a", 5, None, "r")).earlier == Earlier(2, 5, "2", True)


def test_latest_answer_of_a_key(store: TrackerStore) -> None:
    """What was kept last under a key is found, whether or not it came with events; a replacement leaves it so."""
    wait(store.append("a", 0, slots(1)))
    for answer, events in (("1", []), ("2", slots(2)), ("3", []), ("4", slots(3)), ("5", [])):
        tail = wait(store.read("a", limit=0))
        assert tail is not None
        end = wait(store.append("a", tail.end, events, TurnNote(key="k", base=1, answer=answer, keep=60)))
        assert wait(store.look("a", end, 0, "k")).earlier == Earlier(1, end, answer, True)
    wait(store.replace("a", slots(4)))
    assert wait(store.look("a", 0, 0, "k")).earlier == Earlier(1, 3, "5", True)


def test_answers_are_forgotten(store: TrackerStore) -> None:
    """A replacement that is to forget empties the answers that were kept before; that there were some stays known."""
    wait(store.append("a", 0, slots(1, 2), TurnNote(key="k", answer="1", keep=60)))
    wait(store.append("a", 2, [], TurnNote(key="l", base=2, answer="2", keep=60)))
    note = TurnNote(key="l", base=1, answer="3", keep=60, reminders=[Reminder("a", "n", 5.0, 2)], forgets=True)
    assert wait(store.replace("a", slots(3, 4), note)) == (2, 4)
    earlier = [wait(store.look("a", 0, None, key)).earlier for key in ("k", "l")]
    assert earlier == [Earlier(0, 2, "{}", True), Earlier(3, 4, "3", True)]  # its own is one that is kept now
    assert wait(store.reminders("a")) == [Reminder("a", "n", 5.0, 2)]


# --- reminders ---------------------------------------------------------------------------------------------


def test_reminders(store: TrackerStore) -> None:
    """Reminders come with their turn, the earliest first; one of the same name takes the place of another."""
    first, second = Reminder("a", "one", 20.5, 0, "callback"), Reminder("a", "zwei\n\0\x1b0\x1b\U0001f600", 10.25, 0)
    other = Reminder("b", "one", 15.0, 0)
    wait(store.append("a", 0, slots(1), TurnNote(reminders=[first, second])))
    wait(store.append("b", 0, slots(1), TurnNote(reminders=[other])))
    assert wait(store.reminders("a")) == [second, first]
    assert wait(store.due(16.0, 10)) == [second, other]
    assert wait(store.due(1e10, 2)) == [second, other]
    assert wait(store.due(10.25, 10)) == []
    assert [wait(store.waits(each)) for each in (first, second, other)] == [True] * 3
    later = Reminder("a", "one", 30.0, 1, None)
    wait(store.append("a", 1, slots(2), TurnNote(reminders=[later])))
    assert wait(store.reminders("a")) == [second, later]
    nobody = Reminder("nobody", "one", 1.0, 0)
    assert [wait(store.waits(each)) for each in (first, later, nobody)] == [False, True, False]
    assert wait(store.forget(first)) is False
    assert wait(store.forget(later)) is True
    assert wait(store.forget(later)) is False
    wait(store.append("a", 2, slots(3), TurnNote(fired=second)))
    assert wait(store.reminders("a")) == []
    assert wait(store.due(1e10, 10)) == [other]
    wait(store.replace("b", slots(1)))
    assert wait(store.due(1e10, 10)) == []


def test_reminder_that_asks_for_itself_again(store: TrackerStore) -> None:
    """A turn that comes from a reminder may ask for one of the same name: that one waits."""
    for number in range(5):
        old, new = Reminder("a", "n", 5.25, 2 * number), Reminder("a", "n", 60.125, 2 * number + 1)
        wait(store.append("a", 2 * number, slots(1), TurnNote(reminders=[old])))
        wait(store.append("a", 2 * number + 1, slots(2), TurnNote(reminders=[new], fired=old)))
        assert wait(store.reminders("a")) == [new]


def test_reminder_of_a_conversation_begun_anew(store: TrackerStore) -> None:
    """A reminder that has the name and the number of one that was deleted with its conversation is another one."""
    old, new = Reminder("a", "n", 5.25, 0), Reminder("a", "n", 60.125, 0)
    wait(store.append("a", 0, slots(1), TurnNote(reminders=[old])))
    assert wait(store.waits(old)) is True
    wait(store.delete("a"))
    wait(store.append("a", 0, slots(1), TurnNote(reminders=[new])))
    assert [wait(store.waits(each)) for each in (old, new)] == [False, True]


# --- the order of all appends ------------------------------------------------------------------------------


def test_feed(store: TrackerStore) -> None:
    """Appends of all conversations come in one order, in pages, and one goes on from any of them."""
    begin = wait(store.feed_end())
    wait(store.append("a", 0, slots(1)))
    wait(store.append("b", 0, slots(2, 3)))
    wait(store.append("a", 1, slots(*range(300))))
    wait(store.append("b", 2, []))
    wait(store.append("b", 2, slots(4)))

    def flat(after: str | None, limit: int) -> list[tuple[str, int, list[str]]]:
        return [(entry.sender_id, entry.seq, texts(entry.events)) for entry in wait(store.feed(after, limit))]

    whole = wait(store.feed(begin, 100))
    numbers = [(entry.sender_id, entry.seq + index) for entry in whole for index in range(len(entry.events))]
    assert [number for number in numbers if number[0] == "a"] == [("a", seq) for seq in range(301)]
    assert [number for number in numbers if number[0] == "b"] == [("b", seq) for seq in range(3)]
    assert flat(begin, 100)[0] == ("a", 0, texts(slots(1)))
    assert flat(whole[0].position, 1) == [("b", 0, texts(slots(2, 3)))]
    assert flat(whole[-2].position, 10) == [("b", 2, texts(slots(4)))]
    assert flat(whole[-1].position, 10) == []
    assert wait(store.feed_end()) == whole[-1].position
    wait(store.append("c", 0, slots(9)))
    assert flat(whole[-1].position, 10) == [("c", 0, texts(slots(9)))]
    with pytest.raises(InvalidParameter):
        wait(store.feed("nonsense\n", 10))


def test_feed_of_large_appends(store: TrackerStore) -> None:
    """What is read at once has a bound, whatever was said; each entry comes, in order."""
    begin = after = wait(store.feed_end())
    large = "x" * (FEED_SIZE // 3)
    for number in range(7):
        wait(store.append(f"s{number}", 0, slots(large if number else 4 * large)))
    found = []
    while entries := wait(store.feed(after, 5)):
        after = entries[-1].position
        found.append([entry.sender_id for entry in entries])
    assert [name for names in found for name in names] == [f"s{number}" for number in range(7)]
    if store.name != "memory":  # which has all of it in memory anyway
        assert found == [["s0"], ["s1", "s2", "s3"], ["s4", "s5", "s6"]]
    assert [entry.sender_id for entry in wait(store.feed(begin, 1))] == ["s0"]


def test_feed_without_what_is_gone(store: TrackerStore) -> None:
    """What was deleted or replaced has no events in the feed any more; what took its place has."""
    begin = wait(store.feed_end())
    wait(store.append("a", 0, slots(1)))
    wait(store.append("b", 0, slots(2)))
    wait(store.delete("a"))
    wait(store.replace("b", slots(3, 4)))
    found = [(entry.sender_id, entry.seq, texts(entry.events)) for entry in wait(store.feed(begin, 10)) if entry.events]
    assert found == [("b", 1, texts(slots(3, 4)))]


def test_feed_of_a_conversation_that_was_begun_anew(store: TrackerStore) -> None:
    """Its events are those of the appends that are there now, each once."""
    begin = wait(store.feed_end())
    wait(store.append("a", 0, slots(1, 2)))
    wait(store.delete("a"))
    wait(store.append("a", 0, slots(3)))
    wait(store.append("a", 1, slots(4)))
    found = [(entry.seq, texts(entry.events)) for entry in wait(store.feed(begin, 10)) if entry.events]
    assert found == [(0, texts(slots(3))), (1, texts(slots(4)))]


def test_cursors(store: TrackerStore) -> None:
    """A position is kept by name."""
    assert wait(store.cursor("broker")) is None
    wait(store.append("a", 0, slots(1)))
    position = wait(store.feed_end())
    wait(store.set_cursor("broker", position))
    assert wait(store.cursor("broker")) == position
    assert wait(store.cursor("other")) is None
    wait(store.append("a", 1, slots(1)))
    wait(store.set_cursor("broker", wait(store.feed_end())))
    assert wait(store.cursor("broker")) == wait(store.feed_end()) != position


def test_roles(store: TrackerStore) -> None:
    """A role has one owner at a time, until it is not kept any more."""
    assert wait(store.hold("broker", MINE, 0.2)) is True
    assert wait(store.hold("broker", MINE, 0.2)) is True
    assert wait(store.hold("broker", THEIRS, 0.2)) is False
    assert wait(store.hold("reminders", THEIRS, 0.2)) is True
    wait(pause(0.3))
    assert wait(store.hold("broker", THEIRS, 10)) is True
    assert wait(store.hold("broker", MINE, 10)) is False


# --- the rest ----------------------------------------------------------------------------------------------


def test_idle(store: TrackerStore) -> None:
    """Conversations are found by the time of their last event."""
    wait(store.append("old", 0, slots(1, time=10.0)))
    wait(store.append("new", 0, slots(1, time=10.0)))
    wait(store.append("new", 1, slots(1, time=20.0)))
    wait(store.append("older", 0, slots(1, time=5.0)))
    assert sorted(wait(store.idle(15.0, 10))) == ["old", "older"]
    assert len(wait(store.idle(15.0, 1))) == 1
    assert wait(store.idle(5.0, 10)) == []
    wait(store.replace("new", []))  # an empty one has no event that is younger
    assert sorted(wait(store.idle(15.0, 10))) == ["new", "old", "older"]


def test_conversation_that_was_deleted_and_begun_anew(store: TrackerStore) -> None:
    """A later conversation of the same id has another birth: those who know the earlier one are refused."""
    wait(store.append("a", 0, slots(1, 2)))
    first = found(store).birth
    assert first and wait(store.look("a")).tail == found(store)
    wait(store.append("a", 2, slots(3), TurnNote(owner=MINE, start=0, birth=first)))
    wait(store.replace("a", slots(4)))
    assert found(store).birth == first
    wait(store.claim("a", 4, MINE, None, 10, first))
    wait(store.append("a", 4, slots(5), TurnNote(owner=MINE, start=3, birth=first)))
    wait(store.append("b", 0, slots(1)))
    wait(store.delete("a"))
    with pytest.raises(StoreConflict):
        wait(store.append("a", 5, slots(6), TurnNote(owner=MINE, start=3, birth=first)))
    wait(store.append("a", 0, slots(*range(5))))
    second = found(store).birth
    assert second not in (0, first, found(store, "b").birth)
    with pytest.raises(StoreConflict):
        wait(store.append("a", 5, slots(6), TurnNote(owner=MINE, start=0, birth=first)))
    with pytest.raises(StoreConflict):
        wait(store.append("a", 5, slots(6), TurnNote(owner=MINE, key="k", keep=9, start=0, birth=first)))
    with pytest.raises(StoreConflict):
        wait(store.claim("a", 5, MINE, None, 10, first))
    wait(store.claim("a", 5, MINE, None, 10, second))
    wait(store.append("a", 5, slots(6), TurnNote(owner=MINE, start=0, birth=second)))
    assert found(store).end == 6


def test_conversation_that_begins(store: TrackerStore) -> None:
    """Whoever begins a conversation is told its birth, and is refused where another one was faster."""
    end, birth = wait(store.begin("a", slots(1, 2), TurnNote(owner=MINE)))
    assert end == 2 and birth == (0 if store.name == "mongod" else found(store).birth)
    with pytest.raises(StoreConflict):
        wait(store.begin("a", slots(3), TurnNote(owner=MINE)))
    wait(store.claim("b", 0, MINE, None, 10))
    end, birth = wait(store.begin("b", slots(1), TurnNote(owner=MINE)))
    assert end == 1 and birth == (0 if store.name == "mongod" else found(store, "b").birth)


def found(store: TrackerStore, name: str = "a") -> Tail:
    tail = wait(store.read(name))
    assert tail is not None
    return tail
