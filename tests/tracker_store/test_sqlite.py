from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import closing
from pathlib import Path
from time import time

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from rasa_core_api.exceptions import (
    ConversationHeld,
    InvalidConfiguration,
    InvalidParameter,
    StoreConflict,
    StoreUnavailable,
)
from rasa_core_api.tracker_store import sqlite, sqlite_file
from rasa_core_api.tracker_store.sqlite import SqliteStore
from rasa_core_api.tracker_store.sqlite_file import APPLICATION_ID, SCHEMA
from rasa_core_api.tracker_store.sqlite_turns import TurnTables
from rasa_core_api.tracker_store.sqlite_writer import Append, SqliteWriter
from rasa_core_api.tracker_store.turns import TurnNote

from .stores import slots, stored_events, texts, turn, wait


def opened(path: Path) -> SqliteStore:
    store = SqliteStore(path, reactor, stored_events())
    wait(store.open())
    return store


def test_waiting_appends_share_one_commit(tmp_path: Path) -> None:
    """What waits is committed with one transaction, and one that conflicts does not harm the others."""
    writer = SqliteWriter(tmp_path / "a.db", "path", lambda: None)
    writer.open()
    commits: list[str] = []
    writer.connection.set_trace_callback(lambda text: commits.append(text) if text == "COMMIT" else None)
    jobs = [Append(f"s{number}", 0, 1, [(0, 1, 1.0, "{}")]) for number in range(100)]
    jobs.append(Append("s1", 0, 1, [(0, 1, 1.0, "{}")]))
    jobs.append(Append("s1", 1, 2, [(1, 2, 1.0, "{}\n{}")]))
    writer.run(jobs)
    assert commits == ["COMMIT"]
    assert [job.result for job in jobs[:100]] == [1] * 100
    assert isinstance(jobs[100].error, StoreConflict)
    assert (jobs[101].error, jobs[101].result) == (None, 3)
    assert writer.connection.execute("SELECT count(*) FROM blocks").fetchone() == (101,)
    writer.close()


def test_settings_of_the_file(tmp_path: Path) -> None:
    """The file syncs every commit, keeps a write-ahead log, and is its owner's alone."""
    path = tmp_path / "a.db"
    store = opened(path)
    wait(store.append("a", 0, slots(1)))
    connection = sqlite_file.connect(path, "path")
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    wait(store.close())


def test_survives_reopening(tmp_path: Path) -> None:
    """What was stored is there after a restart, numbers included."""
    path = tmp_path / "a.db"
    store = opened(path)
    wait(store.append("a", 0, turn()))
    wait(store.replace("a", slots(1)))
    wait(store.close())
    store = opened(path)
    tail = wait(store.read("a"))
    assert tail is not None and (tail.start, tail.end, texts(tail.events)) == (4, 5, texts(slots(1)))
    assert wait(store.append("a", 5, slots(2))) == 6
    assert store.shared is False
    wait(store.close())


def files_with(directory: Path, text: bytes) -> set[str]:
    return {file.suffix for file in directory.iterdir() if text in file.read_bytes()}


@pytest.mark.parametrize("how", ["delete", "forget"])
def test_what_is_deleted_leaves_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Soon after a deletion, or a replacement that forgets, neither the file nor its write-ahead log has it."""
    monkeypatch.setattr(sqlite, "TIDY", 0.01)
    monkeypatch.setattr(sqlite, "TIDY_AGAIN", 0.01)
    store = opened(tmp_path / "a.db")
    wait(store.append("a", 0, slots("treasure"), TurnNote(key="k", answer='"treasure"', keep=60)))
    assert files_with(tmp_path, b"treasure") == {".db-wal"}
    reader = sqlite_file.connect(tmp_path / "a.db", "path")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM blocks").fetchall()
    wait(store.delete("a") if how == "delete" else store.replace("a", slots("..."), TurnNote(forgets=True)))
    wait(pause(0.1))
    assert files_with(tmp_path, b"treasure")  # somebody reads the old pages, and is not waited for
    assert wait(store.append("b", 0, slots(1))) == 1
    reader.close()
    wait(pause(0.1))
    assert not files_with(tmp_path, b"treasure")
    wait(store.append("c", 0, slots("treasure")))
    wait(store.delete("c"))
    wait(store.close())
    assert not files_with(tmp_path, b"treasure")


async def pause(seconds: float) -> None:
    await deferLater(reactor, seconds)


def test_two_processes_share_a_file(tmp_path: Path) -> None:
    """A second writer is noticed: what it appended is never overwritten."""
    first, second = opened(tmp_path / "a.db"), opened(tmp_path / "a.db")
    assert wait(first.append("a", 0, slots(1))) == 1
    assert wait(second.append("a", 1, slots(2))) == 2
    assert wait(second.append("b", 0, slots(1))) == 1
    with pytest.raises(StoreConflict):
        wait(first.append("a", 1, slots(9)))
    assert first.shared
    assert wait(first.append("a", 2, slots(3))) == 3
    assert wait(first.append("c", 0, slots(1))) == 1
    assert wait(second.sender_ids()) == ["a", "b", "c"]
    wait(first.close())
    wait(second.close())


def test_who_comes_later_is_seen(tmp_path: Path) -> None:
    """A process that only reads has to know of the other one too, even if that is gone again: it may have written."""
    first = opened(tmp_path / "a.db")
    assert not first.shared
    second = opened(tmp_path / "a.db")
    assert first.shared and second.shared
    wait(first.close())
    wait(second.close())
    alone = opened(tmp_path / "a.db")
    assert not alone.shared
    wait(opened(tmp_path / "a.db").close())
    assert alone.shared
    wait(alone.close())


def test_locked_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another program keeps locked is unavailable, and works again afterwards."""
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT", 0.05)
    store = opened(tmp_path / "a.db")
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        wait(store.append("a", 0, slots(1)))
    assert wait(store.read("a")) is None
    other.execute("ROLLBACK")
    assert wait(store.append("a", 0, slots(1))) == 1
    other.close()
    wait(store.close())


@pytest.mark.parametrize("other", [False, True])
def test_file_that_is_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: bool) -> None:
    """Nothing is taken for stored in a file that nobody finds any more; once it is back all goes on."""
    monkeypatch.setattr(sqlite_file, "LOOK", 0.0)
    path, aside = tmp_path / "c.db", tmp_path / "aside.db"
    store = opened(path)
    wait(store.append("a", 0, slots(1)))
    path.rename(aside)
    if other:  # as of a backup
        path.write_bytes(aside.read_bytes())
    for work in (store.append("a", 1, slots(2)), store.read("a")):
        with pytest.raises(StoreUnavailable, match=r"c\.db was removed or replaced"):
            wait(work)
    aside.rename(path)
    assert wait(store.append("a", 1, slots(2))) == 2
    wait(store.close())


def test_one_file_under_two_names(tmp_path: Path) -> None:
    """Processes that reach it by a link know of each other, and leave each other's claims alone."""
    path, link = tmp_path / "c.db", tmp_path / "link.db"
    link.symlink_to(path)
    first = opened(path)
    wait(first.append("a", 0, slots(1)))
    wait(first.claim("a", 1, "first", None, 60.0))
    second = opened(link)
    assert first.shared and second.shared
    with pytest.raises(ConversationHeld):
        wait(second.claim("a", 1, "second", None, 60.0))
    wait(first.close())
    wait(second.close())


def test_processes_that_create_the_file_together(tmp_path: Path) -> None:
    """Who finds a new file locked by somebody who creates it, too, waits: several workers start at the same moment."""
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(1) as threads:
            opening = threads.submit(lambda: sqlite_file.connect(tmp_path / "a.db", "path").close())
            with pytest.raises(NotYet):
                opening.result(0.05)
            other.execute("COMMIT")
            opening.result(5)


def test_full_disk(tmp_path: Path) -> None:
    """A full disk refuses a turn as a whole; what was there stays, and what fits goes on."""
    writer = SqliteWriter(tmp_path / "a.db", "path", lambda: None)
    writer.open()
    writer.connection.execute("PRAGMA max_page_count=20")
    small, large = Append("a", 0, 1, [(0, 1, 1.0, "{}")]), Append("b", 0, 1, [(0, 1, 1.0, "x" * 1_000_000)])
    writer.run([small])
    other = Append("a", 1, 1, [(1, 1, 1.0, "{}")])
    writer.run([large, other])
    assert isinstance(large.error, StoreUnavailable) and "full" in str(large.error)
    assert isinstance(other.error, StoreUnavailable)
    again = Append("a", 1, 1, [(1, 1, 1.0, "{}")])
    writer.run([again])
    assert (again.error, again.result) == (None, 2)
    assert writer.connection.execute("SELECT sender_id FROM conversations").fetchall() == [("a",)]
    writer.close()


def test_a_disk_that_is_full_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what an earlier process left cannot be cleared, the store is unavailable and lets go of its file."""
    wait(opened(tmp_path / "a.db").close())

    def void(_: TurnTables) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(TurnTables, "void", void)
    writer = SqliteWriter(tmp_path / "a.db", "path", lambda: None)
    with pytest.raises(StoreUnavailable, match="full"):
        writer.open()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        writer.connection.execute("SELECT 1")


def test_damaged_event(tmp_path: Path) -> None:
    """A block that is no JSON makes one conversation unavailable, the others are served."""
    store = opened(tmp_path / "a.db")
    wait(store.append("a", 0, slots(1)))
    wait(store.append("b", 0, slots(1)))
    other = sqlite3.connect(tmp_path / "a.db")
    other.execute("UPDATE blocks SET events = '{' WHERE conversation = 1")
    other.commit()
    other.close()
    with pytest.raises(StoreUnavailable):
        wait(store.read("a"))
    assert wait(store.read("b")) is not None
    wait(store.close())


def test_damaged_text(tmp_path: Path) -> None:
    """What a damaged page has is not told with the failure."""
    store = opened(tmp_path / "a.db")
    wait(store.append("a", 0, slots(1)))
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
        other.execute("UPDATE blocks SET events = CAST(CAST(events AS BLOB) || x'ff' AS TEXT)")
    for work in (store.read("a"), store.feed(None, 1)):
        with pytest.raises(StoreUnavailable, match="Could not decode") as failure:
            wait(work)
        assert "slot" not in str(failure.value)
    wait(store.close())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not a database, " * 100, "no SQLite file"),
        ("CREATE TABLE other (x)", "another program"),
        (f"PRAGMA application_id={sqlite_file.APPLICATION_ID}; PRAGMA user_version=99", "newer version"),
    ],
)
def test_foreign_files_are_refused(tmp_path: Path, content: bytes | str, words: str) -> None:
    """A file that is no store of this program is refused by its key, and left as it was."""
    path = tmp_path / "a.db"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        connection = sqlite3.connect(path)
        connection.executescript(content)
        connection.close()
    before = path.read_bytes()
    with pytest.raises(InvalidConfiguration, match=f"tracker_store.path.*{words}"):
        opened(path)
    assert path.read_bytes() == before


def test_missing_directory(tmp_path: Path) -> None:
    """A path that cannot be created names the key."""
    with pytest.raises(InvalidConfiguration, match=r"tracker_store\.path"):
        opened(tmp_path / "missing" / "a.db")


def test_closed_store(tmp_path: Path) -> None:
    """What is asked of a closed store is refused; what was asked before is done."""
    store = opened(tmp_path / "a.db")

    async def append_and_close() -> None:
        waiting = [Deferred.fromCoroutine(store.append(f"s{number}", 0, slots(1))) for number in range(50)]
        await store.close()
        assert await gatherResults(waiting) == [1] * 50

    wait(append_and_close())
    with pytest.raises(StoreUnavailable, match="closed"):
        wait(store.append("a", 0, slots(1)))
    wait(store.close())


def test_impossible_sender_ids(tmp_path: Path) -> None:
    """Ids that a database cannot hold are the client's mistake."""
    store = opened(tmp_path / "a.db")
    for name in ("\ud800", "a\x00b", "x" * 40_000):
        with pytest.raises(InvalidParameter):
            wait(store.append(name, 0, slots(1)))
    wait(store.close())


def test_file_of_the_first_format(tmp_path: Path) -> None:
    """A file without claims, answers and an order of appends gets them; its logs stay."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as connection:
        for statement in SCHEMA[0].split(";"):
            connection.execute(statement)
        connection.execute("INSERT INTO conversations (id, sender_id, start) VALUES (1, 'a', 3), (2, 'b', 0)")
        for row in ((2, 0, 1), (1, 3, 2), (1, 5, 1)):
            text = "\n".join(texts(slots(*range(row[1], row[1] + row[2]))))
            connection.execute("INSERT INTO blocks VALUES (?, ?, ?, 1.5, ?)", (*row, text))
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute("PRAGMA user_version=1")
        connection.commit()
    store = SqliteStore(path, reactor, stored_events())
    wait(store.open())
    assert wait(store.append("a", 6, slots(6), TurnNote(key="k", keep=60.0))) == 7
    tail = wait(store.read("a"))
    assert tail is not None and (tail.start, tail.end) == (3, 7)
    assert texts(tail.events) == texts(slots(3, 4, 5, 6))
    found = [(entry.sender_id, entry.seq) for entry in wait(store.feed(None, 10))]
    assert found == [("a", 3), ("a", 5), ("b", 0), ("a", 6)]
    wait(store.close())


def test_claims_of_a_killed_process_end_with_it(tmp_path: Path) -> None:
    """Who opens a file that nobody else has finds no claims; while somebody has it, they last."""
    path = tmp_path / "a.db"
    first, second = (SqliteStore(path, reactor, stored_events()) for _ in range(2))
    wait(first.open())
    wait(first.claim("a", 0, "one", None, 60.0))
    wait(second.open())
    assert wait(second.look("a", 0, None, None, "two")).held > 0
    wait(second.close())
    wait(first.close())  # as when it is killed: its claim stays in the file
    third = SqliteStore(path, reactor, stored_events())
    wait(third.open())
    assert wait(third.look("a", 0, None, None, "two")).held == 0
    wait(third.close())


def test_claims_do_not_end_with_the_time_of_day(tmp_path: Path) -> None:
    """A clock that is set an hour forward takes no living process's claim or role away; answers are kept by it."""
    path = tmp_path / "a.db"
    first = SqliteStore(path, reactor, stored_events())
    second = SqliteStore(path, reactor, stored_events(), now=lambda: time() + 3600)
    for store in (first, second):
        wait(store.open())
    wait(first.claim("a", 0, "one", None, 5.0))
    assert wait(first.hold("publisher", "one", 5.0))
    assert 4 < wait(second.look("a", 0, None, None, "two")).held <= 5
    assert not wait(second.hold("publisher", "two", 5.0))
    with pytest.raises(ConversationHeld):
        wait(second.claim("a", 0, "two", None, 5.0))
    wait(first.append("a", 0, slots(1), TurnNote(owner="one", key="k", base=0, answer="{}", keep=60.0)))
    assert wait(first.look("a", 0, None, "k", "two")).earlier is not None
    assert wait(second.look("a", 0, None, "k", "two")).earlier is None
    for store in (first, second):
        wait(store.close())


def test_claims_from_before_the_machine_was_started(tmp_path: Path) -> None:
    """Where files cannot be locked nobody voids them: those that end by a clock that ran for longer are over."""
    path = tmp_path / "a.db"
    long_ago = SqliteStore(path, reactor, stored_events(), steady=lambda: 900_000.0)
    now = SqliteStore(path, reactor, stored_events(), steady=lambda: 50.0)
    for store in (long_ago, now):
        wait(store.open())
    wait(long_ago.claim("a", 0, "one", None, 5.0))
    assert wait(long_ago.hold("publisher", "one", 5.0))
    assert wait(now.look("a", 0, None, None, "two")).held == 0
    wait(now.claim("a", 0, "two", None, 5.0))
    assert wait(now.hold("publisher", "two", 5.0))
    for store in (long_ago, now):
        wait(store.close())


def test_another_process_that_goes_leaves_the_log(tmp_path: Path) -> None:
    """Whoever closes the file while others have it open does not remove the write-ahead log that they write to."""
    path = tmp_path / "a.db"
    program = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "print(connection.execute('SELECT count(*) FROM blocks').fetchone()[0])\n"
        "connection.close()\n"
    )

    def blocks() -> int:
        done = subprocess.run([sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True)
        return int(done.stdout)

    store = opened(path)
    wait(store.append("a", 0, slots(1)))
    log = path.with_name("a.db-wal")
    before = log.stat().st_ino
    assert blocks() == 1
    assert log.stat().st_ino == before
    wait(store.append("a", 1, slots(1)))
    assert blocks() == 2
    wait(store.close())
    assert not log.exists()
    assert blocks() == 2
