"""Tests of streams of events: what a reader gets, and what it costs the others."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from rasa_core_api.event_streams import PAGE, EventStreams, Stream
from rasa_core_api.events import SlotSet
from rasa_core_api.exceptions import InvalidParameter, TooManyRequests
from rasa_core_api.http.streams import place_after
from rasa_core_api.tracker_store import memory_order
from rasa_core_api.tracker_store.memory import MemoryStore


class Bench:
    """A store on a fake clock, and the streams of one process."""

    def __init__(self, limit: int = 5, since: float = 0.0) -> None:
        self.clock = Clock()
        self.clock.advance(since)
        self.store = MemoryStore(self.clock)
        self.streams = EventStreams(self.store, self.clock, limit)

    def do(self, work: Any) -> Any:
        results: list[Any] = []
        Deferred.fromCoroutine(work).addBoth(results.append)
        self.clock.advance(0)
        if hasattr(results[0], "raiseException"):
            results[0].raiseException()
        return results[0]

    def append(self, sender_id: str, count: int = 1, tell: bool = True) -> None:
        tail = self.do(self.store.read(sender_id))
        end = 0 if tail is None else tail.end
        self.do(self.store.append(sender_id, end, [SlotSet(key="k", value=n, timestamp=1.0) for n in range(count)]))
        if tell:
            self.streams.stored(sender_id)

    def ids(self, stream: Stream) -> list[str | None]:
        return [item.id for item in self.do(stream.next(0.0))]

    def numbers(self, stream: Stream) -> list[int]:
        return [json.loads(item.data)["seq"] for item in self.do(stream.next(0.0))]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def waiting(stream: Stream, seconds: float = 15.0) -> list[Any]:
    results: list[Any] = []
    Deferred.fromCoroutine(stream.next(seconds)).addBoth(results.append)
    return results


def test_a_conversation_from_its_beginning(bench: Bench) -> None:
    """What was said comes first, page by page, then what is said."""
    bench.append("u", PAGE + 2)
    stream = bench.streams.conversation("u")
    assert bench.numbers(stream) == list(range(PAGE))
    assert bench.numbers(stream) == [PAGE, PAGE + 1]
    found = waiting(stream)
    bench.append("other")
    assert found == []
    bench.append("u")
    bench.clock.advance(0)
    (item,) = found[0]
    assert (item.id, item.data) == (
        f"{PAGE + 2}-1",
        f'{{"sender_id":"u","seq":{PAGE + 2},"event":"slot","name":"k","timestamp":1.0,"value":0}}',
    )


def test_resuming_a_conversation(bench: Bench) -> None:
    """Whoever comes back gets what followed the event it saw last; where that is gone, what is there."""
    bench.append("u", 4)
    assert bench.numbers(bench.streams.conversation("u", 1)) == [2, 3]
    assert bench.numbers(bench.streams.conversation("u", 3)) == []
    bench.do(bench.store.replace("u", [SlotSet(key="k", value=1, timestamp=1.0)]))
    assert bench.numbers(bench.streams.conversation("u", 1)) == [4]
    bench.do(bench.store.delete("u"))
    stream = bench.streams.conversation("u", 4)
    assert bench.numbers(stream) == []
    bench.append("u", 2)
    assert bench.numbers(stream) == [0, 1], "the conversation began anew"


def test_a_conversation_that_is_deleted_while_it_is_followed(bench: Bench) -> None:
    """The one that begins anew comes from its beginning, however long it is when it is looked at."""
    bench.append("u", 3)
    stream = bench.streams.conversation("u")
    assert bench.numbers(stream) == [0, 1, 2]
    bench.do(bench.store.delete("u"))
    bench.append("u", 5)
    assert bench.numbers(stream) == [0, 1, 2, 3, 4]
    bench.do(bench.store.delete("u"))
    assert bench.numbers(stream) == []
    bench.append("u", 6)
    assert bench.numbers(stream) == [0, 1, 2, 3, 4, 5]


def test_coming_back_after_a_deletion(bench: Bench) -> None:
    """An id tells of which conversation it was: one that began anew comes from its beginning, however long it is."""
    bench.append("u", 3)
    last = bench.ids(bench.streams.conversation("u"))[-1]
    assert last == "2-1"
    assert bench.numbers(bench.streams.conversation("u", 2, 1)) == []
    bench.do(bench.store.delete("u"))
    bench.append("u", 5)
    assert bench.numbers(bench.streams.conversation("u", 2, 1)) == [0, 1, 2, 3, 4]
    assert bench.numbers(bench.streams.conversation("u", 2)) == [3, 4], "a bare number is of whichever there is"


def test_all_conversations(bench: Bench) -> None:
    """Everything from now on; an id stands behind the last event of an append, so that coming back misses none."""
    bench.append("old", 2)
    stream = bench.do(bench.streams.all())
    bench.append("a", 2)
    bench.append("b")
    items = bench.do(stream.next(0.0))
    assert [(item.id is None, item.data[:24]) for item in items] == [
        (True, '{"sender_id":"a","seq":0'),
        (False, '{"sender_id":"a","seq":1'),
        (False, '{"sender_id":"b","seq":0'),
    ]
    again = bench.do(bench.streams.all(items[1].id))
    assert [item.data for item in bench.do(again.next(0.0))] == [items[2].data]
    with pytest.raises(InvalidParameter):
        bench.do(bench.streams.all("yesterday"))


def test_other_processes_events(bench: Bench) -> None:
    """What others stored appears within a second; where there are no others, nobody looks."""
    bench.store.shared = True
    found = waiting(bench.streams.conversation("u"))
    bench.append("u", tell=False)
    bench.clock.advance(1.0)
    assert [item.id for item in found[0]] == ["0-1"]


def test_another_process_that_comes_later(bench: Bench) -> None:
    """So do those of one that joined after the stream had begun to wait."""
    found = waiting(bench.streams.conversation("u"))
    bench.clock.advance(0.5)
    bench.store.shared = True
    bench.append("u", tell=False)
    bench.clock.advance(1.0)
    assert [item.id for item in found[0]] == ["0-1"]


def test_signs_of_life(bench: Bench) -> None:
    """Where nothing comes for a while, that is told."""
    found = waiting(bench.streams.conversation("u"))
    bench.clock.advance(14.9)
    assert found == []
    bench.clock.advance(0.1)
    assert found == [[]]


def test_a_bound_on_readers(bench: Bench) -> None:
    """The next reader is refused until one leaves."""
    streams = [bench.streams.conversation(str(n)) for n in range(4)]
    bench.do(bench.streams.all())
    with pytest.raises(TooManyRequests):
        bench.do(bench.streams.all())
    with pytest.raises(TooManyRequests):
        bench.streams.conversation("x")
    streams[0].close()
    streams[0].close()
    bench.streams.conversation("x")
    with pytest.raises(TooManyRequests):
        bench.streams.conversation("y")


def test_the_end(bench: Bench) -> None:
    """When the server stops all readers are let go, and no new one is taken."""
    streams = [bench.streams.conversation("u"), bench.streams.conversation("u"), bench.do(bench.streams.all())]
    found = [waiting(stream) for stream in streams]
    bench.streams.close()
    assert found == [[[]]] * 3 and all(stream.closed for stream in streams)
    with pytest.raises(TooManyRequests):
        bench.streams.conversation("u")
    bench.append("u")
    assert not bench.clock.getDelayedCalls()


def test_coming_back_too_late(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes back for what the store does not remember is told of the gap, once, and gets the rest."""
    monkeypatch.setattr(memory_order, "KEPT", 150)
    bench.do(bench.streams.all()).close()
    for _ in range(302):
        bench.append("u")
    stream = bench.do(bench.streams.all("7"))
    first = bench.do(stream.next(0.0))
    assert [(item.id, item.data, item.kind) for item in first[:1]] == [(None, "{}", "gap")]
    rest = first[1:] + bench.do(stream.next(0.0))
    assert [item.id for item in rest] == [str(position) for position in range(152, 303)]
    assert not any(item.kind for item in rest)
    assert not any(item.kind for item in bench.do(bench.do(bench.streams.all("200")).next(0.0)))


def test_falling_behind_with_large_events(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that is too slow is told of the gap where the store cuts the next page for its size, too."""
    monkeypatch.setattr(memory_order, "KEPT", 150)
    monkeypatch.setattr("rasa_core_api.tracker_store.turns.FEED_SIZE", 4_000)
    feed = bench.store.feed
    monkeypatch.setattr(bench.store, "feed", lambda after, limit: feed(after, min(limit, 50)))
    stream = bench.do(bench.streams.all())
    bench.append("u")
    assert bench.ids(stream) == ["1"]
    for _ in range(301):
        bench.append("u")
    assert bench.ids(stream)[:2] == [None, "152"]
    assert bench.ids(stream)[:2] == ["202", "203"]


def test_coming_back_to_another_store(bench: Bench) -> None:
    """Whoever comes back with a place that the store does not have, as after it was begun anew, misses nothing new."""
    bench.append("old", 3)
    stream = bench.do(bench.streams.all("5000"))
    assert [(item.id, item.kind) for item in bench.do(stream.next(0.0))] == [(None, "gap")]
    bench.append("u", 2)
    assert bench.ids(stream) == [None, "1"]
    last = bench.do(bench.streams.all("1"))
    assert bench.ids(last) == []


@pytest.mark.parametrize("place", ["793-19", "1795769045388-0", "99999999999999999999"])
def test_coming_back_to_another_kind_of_store(bench: Bench, place: str) -> None:
    """A place as another kind of store writes them is a gap, and no mistake of whoever comes back."""
    bench.append("old", 3)
    stream = bench.do(bench.streams.all(place))
    assert [(item.id, item.kind) for item in bench.do(stream.next(0.0))] == [(None, "gap")]
    bench.append("u", 2)
    assert bench.ids(stream) == [None, "1"]
    for nonsense in ("", "x", "1-", "9" * 5_000, "\xb2"):
        with pytest.raises(InvalidParameter):
            bench.do(bench.streams.all(nonsense))


def test_coming_back_after_a_restart(bench: Bench) -> None:
    """A memory store that was begun anew, and has as much by now, is not taken for the one that was there before."""
    before, of_all = bench.streams.conversation("u"), bench.do(bench.streams.all())
    bench.append("u", 3)
    last, place = bench.ids(before)[-1], bench.ids(of_all)[-1]
    again = Bench(since=1.0)
    again.do(again.streams.all()).close()
    for _ in range(5):
        again.append("u")
    number, birth = place_after((str(last), "header"))
    assert again.numbers(again.streams.conversation("u", number, birth)) == [0, 1, 2, 3, 4]
    items = again.do(again.do(again.streams.all(place)).next(0.0))
    assert [item.kind for item in items] == ["gap", *[None] * 5]
