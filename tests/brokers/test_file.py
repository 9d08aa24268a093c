"""Tests of events in a file."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, execute

from rasa_core_api.brokers import BrokerFailed, Message, messages_of
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


@pytest.mark.parametrize("cut", [1, 8, 40])
def test_a_torn_line(tmp_path: Path, cut: int) -> None:
    """What a crash left of a line goes when its event is written again: every line of the file can be read."""
    path = tmp_path / "events.log"
    broker = FileBroker(path, inline)
    do(broker.publish(messages(0, 1)))
    whole = path.read_bytes()
    end = whole.index(b"\n") + 1
    path.write_bytes(whole[: end + cut])
    do(broker.open())
    do(broker.publish(messages(1)))
    assert path.read_bytes() == whole


@pytest.mark.parametrize("line", [b"by hand", b'{"sender_id":"a","seq":0}', b'{"event": "of another program'])
def test_a_last_line_of_others(tmp_path: Path, line: bytes) -> None:
    """What is no torn line of ours stays, and is ended."""
    path = tmp_path / "events.log"
    path.write_bytes(b"first\n" + line)
    do(FileBroker(path, inline).publish(messages(0)))
    first, second, third = path.read_bytes().splitlines()
    assert (first, second) == (b"first", line) and json.loads(third)["seq"] == 0


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is an outage; what was written of the batch does not stay, and does not come twice."""
    path = tmp_path / "events.log"
    broker = FileBroker(path, inline)
    do(broker.publish(messages(0)))
    before, write = path.read_bytes(), os.write
    calls = []

    def full(descriptor: int, data: bytes) -> int:
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:150])

    with monkeypatch.context() as disk:
        disk.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            do(broker.publish(messages(1, 2, 3)))
    assert path.read_bytes() == before
    do(broker.publish(messages(1, 2, 3)))
    assert [json.loads(line)["seq"] for line in path.read_text().splitlines()] == [0, 1, 2, 3]


def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    """A pipe that nobody reads does not hold up anything: it is refused by name."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BrokerFailed, match="pipe is no file"):
        do(FileBroker(tmp_path / "pipe", inline).open())


def test_a_file_that_was_rotated_away(tmp_path: Path) -> None:
    """The next batch begins a new file."""
    path = tmp_path / "events.log"
    broker = FileBroker(path, inline)
    do(broker.publish(messages(0)))
    path.rename(tmp_path / "events.log.1")
    do(broker.publish(messages(1)))
    assert json.loads(path.read_text())["seq"] == 1


def test_a_new_file_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file is made, its name is synced, too, before the cursor moves."""
    path = tmp_path / "events.log"
    broker = FileBroker(path, inline)
    synced: list[str] = []
    sync = os.fsync

    def told(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", told)
    do(broker.publish(messages(0)))
    do(broker.publish(messages(1)))
    assert synced == [str(tmp_path)]
    path.unlink()
    do(broker.publish(messages(2)))
    do(broker.publish(messages(3)))
    assert synced == [str(tmp_path)] * 2
    do(FileBroker(path, inline).publish(messages(4)))  # another process may have ended in between
    assert synced == [str(tmp_path)] * 3


@pytest.mark.parametrize("number", [errno.EACCES, errno.EINVAL])
def test_a_folder_that_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """One that may not be listed, or whose file system knows no such thing, keeps no event from being published."""
    open_file, sync = os.open, os.fsync

    def opened(path: Any, flags: int, *mode: int) -> int:
        if flags & os.O_DIRECTORY and number == errno.EACCES:
            raise OSError(number, os.strerror(number))
        return open_file(path, flags, *mode)

    def synced(descriptor: int) -> None:
        if number == errno.EINVAL:
            raise OSError(number, os.strerror(number))
        sync(descriptor)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "fsync", synced)
    path = tmp_path / "events.log"
    do(FileBroker(path, inline).publish(messages(0)))
    assert json.loads(path.read_text())["seq"] == 0


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    """That is an outage like any other."""
    with pytest.raises(OSError):
        do(FileBroker(tmp_path / "no" / "where", inline).open())
