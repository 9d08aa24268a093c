"""The one who writes to a SQLite file: all that waits goes in with one transaction, and so with one sync."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from rasa_core_api.exceptions import RasaCoreError, StoreUnavailable
from rasa_core_api.tracker_store.checks import conflict
from rasa_core_api.tracker_store.sqlite_appends import Appends
from rasa_core_api.tracker_store.sqlite_file import Users, Whereabouts, connect, truncate, unavailable
from rasa_core_api.tracker_store.sqlite_jobs import Append, LogJob, Truncate, WriteJob
from rasa_core_api.tracker_store.sqlite_turns import TurnTables
from rasa_core_api.tracker_store.texts import Block

if TYPE_CHECKING:
    from sqlite3 import Connection

#: Conversations whose last number is remembered between transactions.
_KNOWN = 50_000
#: Most rows that go in with one statement: each statement lets go of the interpreter and has to get it back.
_ROWS = 64
# row, end and start of a conversation
_PLACE = (
    "id, coalesce((SELECT seq + count FROM blocks WHERE conversation = id ORDER BY seq DESC LIMIT 1), start), start"
    " FROM conversations"
)


class SqliteWriter:
    """Works off groups of jobs. Lives in one thread.

    The ends of logs are remembered as long as nobody else writes (`PRAGMA data_version` tells), so that an append
    to a known conversation is one row of one table. `on_foreign` is called (in this thread) when somebody else wrote.
    """

    def __init__(
        self,
        path: Path,
        where: str,
        on_foreign: Callable[[], None],
        now: Callable[[], float] = time,
        steady: Callable[[], float] = monotonic,
    ) -> None:
        self._path = path
        self._where = where
        self._now = now
        self._steady = steady
        self._on_foreign = on_foreign
        self._places: dict[str, list[int]] = {}  # sender id: row, end and start
        self._absent: set[str] = set()  # conversations that the file did not have when the transaction began
        self._next_row = 0
        self._version = -1
        self._new: list[tuple[int, str, int]] = []
        self._rows: list[tuple[int, int, int, float, str]] = []
        self._durable = True
        self._users: Users | None = None
        self._whereabouts: Whereabouts
        self.connection: Connection
        self.turns: TurnTables
        self._appends: Appends
        self._alone = True  # nobody else wrote between the last two groups

    def open(self) -> None:
        import sqlite3

        self.connection = connect(self._path, self._where)
        self._whereabouts = Whereabouts(self._path)
        self.turns = TurnTables(self.connection, self._now, self._steady)
        try:
            self._users = Users(self._path, self.turns.void)
            self._version = self.connection.execute("PRAGMA data_version").fetchone()[0]
            self._forget()
            self._appends = Appends(self.connection, self.turns)
        except sqlite3.Error as error:  # what other processes left cannot be cleared where the disk is full
            self.connection.close()
            raise unavailable(error) from error

    def close(self) -> None:
        self.connection.close()
        if self._users is not None:
            self._users.close()

    def others(self) -> bool:
        """Whether another process has the file, or had it since it was opened; asked in any thread."""
        return self._users is not None and self._users.others()

    def run(self, jobs: Sequence[WriteJob]) -> None:
        """Commit these jobs together; where one of them cannot be written, each alone."""
        import sqlite3

        try:
            self._whereabouts.check()
            writes = [job for job in jobs if not isinstance(job, Truncate)]
            if writes and not self._append(writes):
                self._commit(writes)
            for job in jobs:
                if isinstance(job, Truncate):
                    job.result = truncate(self.connection)
        except StoreUnavailable as error:
            for job in jobs:
                job.error = error
        except sqlite3.OperationalError as error:  # locked, full, failing disk: the others would not do better
            self._roll_back()
            failure = unavailable(error)
            for job in jobs:
                job.result, job.error = None, failure
        except Exception as error:
            self._roll_back()
            if len(jobs) > 1:
                for job in jobs:
                    self.run([job])
            else:
                jobs[0].result, jobs[0].error = None, unavailable(error)

    def _append(self, jobs: Sequence[WriteJob]) -> bool:
        """Commit appends with a single statement, where that is possible."""
        appends = [job for job in jobs if isinstance(job, Append)]
        if not self._alone or len(appends) < len(jobs):
            return False
        self._sync(True)
        places = self._appends.write(appends, self._places, self._next_row, self._version)
        if places is None:
            return False
        for job in appends:
            place = places[job.sender_id]
            job.error = None
            job.birth, job.result, _ = place
            if place[0] >= self._next_row:
                self._next_row = place[0] + 1
            self._remember(job.sender_id, place)
        return True

    def _commit(self, jobs: Sequence[WriteJob]) -> None:
        execute = self.connection.execute
        self._sync(any(job.durable for job in jobs))
        execute("BEGIN IMMEDIATE")
        version = execute("PRAGMA data_version").fetchone()[0]
        self._alone = version == self._version
        if not self._alone:
            self._version = version
            self._forget()
            self._on_foreign()
        self._look_up(jobs)
        for job in jobs:
            try:
                job.error = None
                job.result = job.apply(self)
            except RasaCoreError as error:
                job.error = error
        self.flush()
        execute("COMMIT")
        self._absent.clear()

    def _sync(self, durable: bool) -> None:
        """Whether commits are on the disk when they return."""
        if durable is not self._durable:  # NORMAL leaves the log to a later sync; the file is whole all the same
            self.connection.execute("PRAGMA synchronous=" + ("FULL" if durable else "NORMAL"))
            self._durable = durable

    def _look_up(self, jobs: Sequence[WriteJob]) -> None:
        """Find all places that the jobs need and that are not known."""
        absent = {job.sender_id for job in jobs if isinstance(job, LogJob)}.difference(self._places)
        names = list(absent)
        for begin in range(0, len(names), _ROWS):
            some = names[begin : begin + _ROWS]
            marks = ",".join("?" * len(some))
            found = self.connection.execute(f"SELECT sender_id, {_PLACE} WHERE sender_id IN ({marks})", some)
            for sender_id, *place in found.fetchall():
                absent.discard(sender_id)
                self._remember(sender_id, place)
        self._absent = absent

    def _roll_back(self) -> None:
        self._absent.clear()
        self._new.clear()
        self._rows.clear()
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        self._forget()

    def _forget(self) -> None:
        self._places.clear()
        self.turns.forget()
        row = self.connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'conversations'").fetchone()
        self._next_row = (row[0] if row else 0) + 1

    # --- for jobs ----------------------------------------------------------------------------------------

    def place(self, sender_id: str) -> list[int] | None:
        """The row, the end and the start of a conversation."""
        place = self._places.get(sender_id)
        if place is None:
            if sender_id in self._absent:
                return None
            row = self.connection.execute(f"SELECT {_PLACE} WHERE sender_id = ?", (sender_id,)).fetchone()
            if row is None:
                return None
            place = self._remember(sender_id, list(row))
        return place

    def _remember(self, sender_id: str, place: list[int]) -> list[int]:
        if len(self._places) >= _KNOWN:
            self._places.clear()
            self.flush()  # what is asked for again has to be found in the tables
        self._places[sender_id] = place
        return place

    def place_to_append(self, sender_id: str, end: int) -> list[int]:
        """The place of a log that ends at `end`, created for 0. Raises `StoreConflict`."""
        place = self.place(sender_id)
        if place is None:
            if end:
                conflict(sender_id, end, None)
            return self.create(sender_id)
        if place[1] != end:
            conflict(sender_id, end, place[1])
        return place

    def create(self, sender_id: str) -> list[int]:
        row = self._next_row
        self._next_row += 1
        place = self._remember(sender_id, [row, 0, 0])
        self._absent.discard(sender_id)
        self._new.append((row, sender_id, 0))
        return place

    def add_blocks(self, place: list[int], blocks: Sequence[Block]) -> None:
        row = place[0]
        for seq, count, at, text in blocks:
            self._rows.append((row, seq, count, at, text))
            place[1] = seq + count

    def clear(self, place: list[int]) -> None:
        """Remove the log; the next one begins where it ended."""
        self.flush()
        self.connection.execute("DELETE FROM blocks WHERE conversation = ?", (place[0],))
        self.connection.execute("UPDATE conversations SET start = ? WHERE id = ?", (place[1], place[0]))
        place[2] = place[1]

    def delete(self, sender_id: str) -> bool:
        place = self.place(sender_id)
        if place is None:
            return False
        self.flush()
        self.turns.clear(sender_id)
        del self._places[sender_id]
        self.connection.execute("DELETE FROM blocks WHERE conversation = ?", (place[0],))
        self.connection.execute("DELETE FROM conversations WHERE id = ?", (place[0],))
        return True

    def flush(self) -> None:
        """Write the rows that were collected."""
        self._insert("INSERT INTO conversations (id, sender_id, start) VALUES ", 3, self._new)
        self._insert("INSERT INTO blocks (conversation, seq, count, at, events) VALUES ", 5, self._rows)
        answers = self.turns.answers
        if answers:
            self.turns.sweep(len(answers))
            self._insert(
                "INSERT OR REPLACE INTO answers (sender_id, key, base, end, done, answer, until) VALUES ", 7, answers
            )

    def _insert(self, statement: str, width: int, rows: list[Any]) -> None:
        begin = 0
        one = "(" + ",".join("?" * width) + ")"
        while begin < len(rows):
            count = min(_ROWS, len(rows) - begin)
            values = [value for row in rows[begin : begin + count] for value in row]
            self.connection.execute(statement + ",".join([one] * count), values)
            begin += count
        rows.clear()
