"""Reading from a SQLite file, in a thread of its own, so that readers do not wait for the disk's sync.

Every statement lets go of the interpreter, and a busy reactor gives it back late: what one statement can find is not
asked for with two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rasa_core_api.exceptions import RasaCoreError
from rasa_core_api.tracker_store.checks import unknown_cursor
from rasa_core_api.tracker_store.sqlite_file import Whereabouts, connect, unavailable
from rasa_core_api.tracker_store.sqlite_turns import left_of
from rasa_core_api.tracker_store.threads import CallJob
from rasa_core_api.tracker_store.turns import FEED_SIZE, Earlier, Reminder

if TYPE_CHECKING:
    from sqlite3 import Connection

#: Blocks fetched with one statement.
_BLOCKS = 64
#: Sender ids fetched with one statement.
_NAMES = 2_000

#: Start, end, the number of the first event in the texts, the texts, and the conversation's row.
RawTail = tuple[int, int, int, list[str], int]

#: A log's tail (None: unknown), what a key left, and how many seconds another owner's claim lasts.
RawOpening = tuple[RawTail | None, Earlier | None, float]


class SqliteReader:
    """Answers groups of questions. Lives in one thread."""

    def __init__(self, path: Path, where: str) -> None:
        self._path = path
        self._where = where
        self._whereabouts: Whereabouts
        self.connection: Connection

    def open(self) -> None:
        self.connection = connect(self._path, self._where)
        self._whereabouts = Whereabouts(self._path)
        self.connection.execute("PRAGMA query_only=ON")

    def close(self) -> None:
        self.connection.close()

    def run(self, jobs: Sequence[CallJob]) -> None:
        for job in jobs:
            try:
                self._whereabouts.check()
                job.result = job.function(self.connection, *job.arguments)
            except RasaCoreError as error:
                job.error = error
            except Exception as error:
                job.error = unavailable(error)


@contextmanager
def _one_moment(connection: Connection) -> Iterator[None]:
    """One state of the file for several statements."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


# --- conversations -----------------------------------------------------------------------------------------

_GLANCE = (
    "SELECT id, start, (SELECT seq + count FROM blocks WHERE conversation = id ORDER BY seq DESC LIMIT 1),"
    " (SELECT until FROM claims WHERE sender_id = ?1 AND owner <> ?2), base, end, answer, done"
    " FROM (SELECT 1) LEFT JOIN conversations ON conversations.sender_id = ?1"
    " LEFT JOIN answers ON answers.sender_id = ?1 AND key = ?3 AND answers.until > ?4"
)


def read_opening(
    connection: Connection,
    sender_id: str,
    after: int,
    limit: int | None,
    key: str | None,
    owner: str,
    now: float,
    steady: float,
) -> RawOpening:
    """What a turn of `owner` finds; the texts are blocks of the log, joined by line breaks.

    `now` is in seconds since the epoch, `steady` what the clock shows that claims end by.
    """
    values = sender_id, owner, key, now
    found = connection.execute(_GLANCE, values).fetchone()
    if not _has_more(found, after, limit):
        return _opening(found, after, [], steady)
    with _one_moment(connection):
        found = connection.execute(_GLANCE, values).fetchone()
        if not _has_more(found, after, limit):
            return _opening(found, after, [], steady)
        conversation, start, end = found[:3]
        after = max(after, start)
        first = connection.execute(
            "SELECT max(seq) FROM blocks WHERE conversation = ? AND seq <= ?", (conversation, after)
        ).fetchone()[0]
        stop = end if limit is None else min(end, after + limit)
        texts = []
        seq = first
        while seq < stop:  # many rows come as one text
            text, count = connection.execute(
                "SELECT group_concat(events, char(10)), sum(count) FROM (SELECT events, count FROM blocks"
                " WHERE conversation = ? AND seq >= ? AND seq < ? ORDER BY seq LIMIT ?)",
                (conversation, seq, stop, _BLOCKS),
            ).fetchone()
            texts.append(text)
            seq += count
        return _opening(found, first, texts, steady)


def _has_more(found: tuple[Any, ...], after: int, limit: int | None) -> bool:
    conversation, start, end = found[:3]
    return conversation is not None and end is not None and max(after, start) < end and limit != 0


def _opening(found: tuple[Any, ...], first: int, texts: list[str], steady: float) -> RawOpening:
    conversation, start, end, until, *answer = found
    earlier = None if answer[0] is None else Earlier(answer[0], answer[1], answer[2], bool(answer[3]))
    held = 0.0 if until is None else left_of(until, steady)
    if conversation is None:
        return None, earlier, held
    return (start, start if end is None else end, first, texts, conversation), earlier, held


def read_names(connection: Connection, after: str | None, limit: int | None, prefix: str) -> list[str]:
    """JSON lists of sender ids."""
    with _one_moment(connection):
        row = 0
        if after is not None:
            found = connection.execute("SELECT id FROM conversations WHERE sender_id = ?", (after,)).fetchone()
            if found is None:
                raise unknown_cursor(after)
            row = found[0]
        pages = []
        while limit is None or limit > 0:
            size = _NAMES if limit is None else min(_NAMES, limit)
            text, count, last = connection.execute(
                "SELECT json_group_array(sender_id), count(*), max(id) FROM (SELECT id, sender_id FROM conversations"
                " WHERE id > ? AND substr(sender_id, 1, ?) = ? ORDER BY id LIMIT ?)",
                (row, len(prefix), prefix, size),
            ).fetchone()
            if count:
                pages.append(text)
                row = last
            if count < size:
                break
            if limit is not None:
                limit -= count
        return pages


def read_idle(connection: Connection, before: float, limit: int) -> list[str]:
    """Conversations without a block from `before` or later."""
    rows = connection.execute(
        "SELECT sender_id FROM conversations WHERE coalesce((SELECT at FROM blocks WHERE conversation = id"
        " ORDER BY seq DESC LIMIT 1), 0) < ? LIMIT ?",
        (before, limit),
    )
    return [sender_id for (sender_id,) in rows]


# --- the rest ----------------------------------------------------------------------------------------------


def read_reminders(connection: Connection, condition: str, values: tuple[Any, ...]) -> list[Reminder]:
    """Reminders that meet a condition, the earliest first."""
    rows = connection.execute(
        f"SELECT sender_id, name, due, seq, channel FROM reminders WHERE {condition}", values
    ).fetchall()
    return [Reminder(*row) for row in rows]


def read_feed(connection: Connection, after: int, limit: int) -> list[tuple[int, str, int, str]]:
    """Position, sender id, number of the first event and the events' text of each block."""
    found: list[tuple[int, str, int, str]] = []
    size = 0
    rows = connection.execute(
        "SELECT position, sender_id, seq, events FROM blocks JOIN conversations ON id = conversation"
        " WHERE position > ? ORDER BY position LIMIT ?",
        (after, limit),
    )
    for row in rows:
        found.append(row)
        size += len(row[3])
        if size >= FEED_SIZE:
            break
    rows.close()
    return found


def read_value(connection: Connection, statement: str, values: tuple[Any, ...] = ()) -> Any:
    """The one value that a statement finds, or None."""
    row = connection.execute(statement, values).fetchone()
    return None if row is None else row[0]
