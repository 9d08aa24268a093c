"""Tests of events in a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, execute

from rasa_core_api.brokers import Message, messages_of
from rasa_core_api.brokers.file import FileBroker
from rasa_core_api.events import SlotSet
from rasa_core_api.tracker_store.turns import FeedEntry


def inline(work: Callable[[], Any]) -> Deferred[Any]:
    return execute(work)


def do(work: Any) -> Any:
    results: list[Any] = []
    Deferred.fromCoroutine(work).addBoth(results.append)
    if hasattr(results[0], "raiseException"):
        results[0].raiseException()
    return results[0]


def messages(*seqs: int) -> list[Message]:
    events = [SlotSet(key="n", value="ä\n", timestamp=1.0) for _ in seqs]
    return messages_of(FeedEntry("1", "ü", seqs[0], list(events)))


def test_a_line_an_event(tmp_path: Path) -> None:
    """What is published is appended, each event as one line of JSON in the historical shape."""
    path = tmp_path / "events.log"
    path.write_text('{"event": "older"}\n')
    broker = FileBroker(path, inline)
    do(broker.open())
    do(broker.publish(messages(4, 5)))
    older, *lines = path.read_text("ascii").splitlines()
    assert older == '{"event": "older"}'
    event = {"sender_id": "ü", "event": "slot", "name": "n", "value": "ä\n", "timestamp": 1.0}
    assert [json.loads(line) for line in lines] == [{**event, "seq": 4}, {**event, "seq": 5}]


def test_a_torn_line_stays_alone(tmp_path: Path) -> None:
    """A line that a crash cut off does not spoil the next one."""
    path = tmp_path / "events.log"
    path.write_text('{"event": "sl')
    broker = FileBroker(path, inline)
    do(broker.publish(messages(0)))
    torn, line = path.read_text("ascii").splitlines()
    assert torn == '{"event": "sl' and json.loads(line)["seq"] == 0


def test_a_file_that_was_rotated_away(tmp_path: Path) -> None:
    """The next batch begins a new file."""
    path = tmp_path / "events.log"
    broker = FileBroker(path, inline)
    do(broker.publish(messages(0)))
    path.rename(tmp_path / "events.log.1")
    do(broker.publish(messages(1)))
    assert json.loads(path.read_text())["seq"] == 1


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    """That is an outage like any other."""
    with pytest.raises(OSError):
        do(FileBroker(tmp_path / "no" / "where", inline).open())
