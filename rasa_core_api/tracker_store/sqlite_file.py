"""The SQLite file of a store: how it is opened, what lies in it, and what its errors mean."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rasa_core_api.exceptions import InvalidConfiguration, RasaCoreError, StoreUnavailable

if TYPE_CHECKING:
    from sqlite3 import Connection

#: Marks our files (`PRAGMA application_id`): "RCav".
APPLICATION_ID = 0x52436176
#: Seconds to wait for another process that writes.
BUSY_TIMEOUT = 5.0
#: Prepared statements that a connection keeps: one for each number of rows that go in together.
STATEMENTS = 256
#: Seconds between two tries where it has to be asked again.
RETRY = 0.01
#: Seconds between two looks whether the file is still there.
LOOK = 1.0

# a block is what one append added, its events one JSON object a line; `at` is the time of its last event
SCHEMA = (
    """
    CREATE TABLE conversations (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        sender_id TEXT NOT NULL UNIQUE,
        start INTEGER NOT NULL
    );
    CREATE TABLE blocks (
        conversation INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        count INTEGER NOT NULL,
        at REAL NOT NULL,
        events TEXT NOT NULL,
        PRIMARY KEY (conversation, seq)
    ) WITHOUT ROWID;
    """,
    # the position of a block is its place in the order of all appends; `until` is in seconds since the epoch for
    # answers, and by a clock that nobody sets for claims and roles
    """
    CREATE TABLE log (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        conversation INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        count INTEGER NOT NULL,
        at REAL NOT NULL,
        events TEXT NOT NULL
    );
    INSERT INTO log (conversation, seq, count, at, events)
        SELECT conversation, seq, count, at, events FROM blocks ORDER BY conversation, seq;
    DROP TABLE blocks;
    ALTER TABLE log RENAME TO blocks;
    CREATE UNIQUE INDEX blocks_of_conversation ON blocks (conversation, seq);
    CREATE TABLE claims (
        sender_id TEXT PRIMARY KEY,
        owner TEXT NOT NULL,
        key TEXT,
        base INTEGER NOT NULL,
        until REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE answers (
        sender_id TEXT NOT NULL,
        key TEXT NOT NULL,
        base INTEGER NOT NULL,
        end INTEGER NOT NULL,
        done INTEGER NOT NULL,
        answer TEXT NOT NULL,
        until REAL NOT NULL,
        PRIMARY KEY (sender_id, key)
    );
    CREATE INDEX answers_by_end ON answers (until);
    CREATE TABLE reminders (
        sender_id TEXT NOT NULL,
        name TEXT NOT NULL,
        due REAL NOT NULL,
        seq INTEGER NOT NULL,
        channel TEXT,
        PRIMARY KEY (sender_id, name)
    ) WITHOUT ROWID;
    CREATE INDEX reminders_by_time ON reminders (due);
    CREATE TABLE cursors (name TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE roles (name TEXT PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
    """,
)


def connect(path: Path, where: str) -> Connection:
    """Open the file, or create it for its owner alone.

    Raises `InvalidConfiguration` (`where` is the key that names the path) for a file that is no store of ours, and
    `StoreUnavailable` for one that is locked or damaged.
    """
    import sqlite3

    try:
        _create(path)
    except OSError as error:
        raise InvalidConfiguration(f"{where}: cannot open {path}: {error.strerror}") from error
    try:
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, cached_statements=STATEMENTS)
        try:
            _prepare_in_turn(connection, path, where)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        if isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error):
            raise InvalidConfiguration(f"{where}: {path} is no SQLite file") from error
        raise unavailable(error) from error
    return connection


def _create(path: Path) -> None:
    """Create the file for its owner alone, unless it is there. Raises `OSError` where it cannot be used.

    A file that is there is never opened here: to close it would give up the locks that connections of this process hold
    on it (POSIX), and another process that closes its own would take itself for the last one and remove the
    write-ahead log.
    """
    found = path.resolve()
    try:
        os.close(os.open(found, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        if found.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
        if not os.access(found, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None


def _prepare_in_turn(connection: Connection, path: Path, where: str) -> None:
    """Prepare, also while another process does: SQLite waits for no lock where the journal's mode changes."""
    from sqlite3 import OperationalError

    until = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            _prepare(connection, path, where)
        except OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(RETRY)
        else:
            return


def _prepare(connection: Connection, path: Path, where: str) -> None:
    connection.execute("BEGIN")  # all three as they are at one moment
    try:
        mark = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    finally:
        connection.execute("ROLLBACK")
    if mark != APPLICATION_ID and (mark or version or tables):
        raise InvalidConfiguration(f"{where}: {path} is the database of another program")
    if version > len(SCHEMA):
        raise InvalidConfiguration(
            f"{where}: {path} was written by a newer version of this program (format {version}, known: {len(SCHEMA)})"
        )
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise InvalidConfiguration(f"{where}: {path} lies where SQLite cannot keep a write-ahead log ({mode})")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA secure_delete=ON")  # what is deleted is not left in the file
    connection.execute("PRAGMA wal_autocheckpoint=2000")
    connection.execute("PRAGMA journal_size_limit=67108864")
    if version < len(SCHEMA):
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            for step in SCHEMA[version:]:
                for statement in step.split(";"):
                    if statement.strip():
                        connection.execute(statement)
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={len(SCHEMA)}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def truncate(connection: Connection) -> bool:
    """Work off the write-ahead log and empty it, unless somebody reads from it just now; whether it is empty."""
    connection.execute("PRAGMA busy_timeout=0")  # whoever reads is not waited for
    try:
        busy: int = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    finally:
        connection.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT * 1000)}")
    return not busy


class Whereabouts:
    """Whether a file is still where it was opened: what goes into one that nobody finds any more is gone in the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = 0.0
        self._found = self._look()

    def check(self) -> None:
        """Raise `StoreUnavailable` where another file is there, or none; while all is well it looks every `LOOK` s."""
        now = time.monotonic()
        if now < self._next:
            return
        if self._look() != self._found:
            raise StoreUnavailable(
                f"The conversation store cannot be used: {self._path.name} was removed or replaced; put it back, or"
                " start the server again."
            )
        self._next = now + LOOK

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino


class Users:
    """Who uses the file, told by a lock on another file beside it, which the system lets go of when a process ends.

    `first` is called where no other process has the file: what living processes would claim in it is void. Whoever
    comes later leaves a byte in that other file, by which the first one can tell at any time, and for next to nothing.
    """

    def __init__(self, path: Path, first: Callable[[], object]) -> None:
        self._descriptor = -1
        try:
            import fcntl
        except ImportError:  # not a Unix: claims run out
            return
        try:
            self._descriptor = os.open(f"{path.resolve()}-users", os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                fcntl.flock(self._descriptor, fcntl.LOCK_SH)
                os.write(self._descriptor, b".")
            else:
                first()
                os.ftruncate(self._descriptor, 0)
                fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        except OSError:  # a file system without locks, or a full one
            return

    def others(self) -> bool:
        """Whether another process has the file, or had it since this one came."""
        try:
            return self._descriptor >= 0 and os.fstat(self._descriptor).st_size > 0
        except OSError:  # closed at this moment
            return False

    def close(self) -> None:
        """Let go of the lock."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def unavailable(error: Exception) -> RasaCoreError:
    """What a failure of SQLite means to a client; the reason names no data."""
    reason = str(error).partition(" with text ")[0]  # which follows, where a page is damaged
    return StoreUnavailable(f"The conversation store cannot be used: {reason}.")
