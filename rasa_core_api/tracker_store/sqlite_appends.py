"""Turns that wait, committed with a single statement: most of what is written, and the cheapest way to write it.

A statement outside a transaction is one by itself. SQLite lets go of the interpreter up to three times a call, and a
busy reactor gives it back late: one call in the place of the six of a transaction is a fifth of a busy server's turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rasa_core_api.tracker_store.sqlite_jobs import Append
from rasa_core_api.tracker_store.turns import NO_NOTE

if TYPE_CHECKING:
    from sqlite3 import Connection

    from rasa_core_api.tracker_store.sqlite_turns import TurnTables

#: Most rows of one statement: SQLite may have been built for 999 values.
_ROWS = 64

# A row is a block, and what its turn leaves beside it. `version` is the data version that the places of the logs were
# known at, in the first row alone; `new` creates the conversation; `claimed` ends its claim; with a `key` an answer is
# kept.
_COLUMNS = "version, id, sender_id, new, claimed, seq, count, at, events, key, base, end, answer, until"
_WIDTH = _COLUMNS.count(",") + 1
_VIEW = f"CREATE TEMP VIEW appends ({_COLUMNS}) AS SELECT {', '.join(['NULL'] * _WIDTH)}"
_GUARD = """
CREATE TEMP TRIGGER overtaken INSTEAD OF INSERT ON appends WHEN NEW.version IS NOT NULL BEGIN
    SELECT RAISE(ABORT, 'overtaken') WHERE NEW.version <> (SELECT data_version FROM pragma_data_version);
END
"""
_WRITE = """
CREATE TEMP TRIGGER append INSTEAD OF INSERT ON appends BEGIN
    INSERT INTO conversations (id, sender_id, start) SELECT NEW.id, NEW.sender_id, 0 WHERE NEW.new;
    INSERT INTO blocks (conversation, seq, count, at, events)
        VALUES (NEW.id, NEW.seq, NEW.count, NEW.at, NEW.events);
    DELETE FROM claims WHERE NEW.claimed AND sender_id = NEW.sender_id;
    INSERT OR REPLACE INTO answers (sender_id, key, base, end, done, answer, until)
        SELECT NEW.sender_id, NEW.key, NEW.base, NEW.end, 1, NEW.answer, NEW.until WHERE NEW.key IS NOT NULL;
END
"""


class Appends:
    """Writes appends to logs whose places are known, and to new ones; anything else is left to a transaction."""

    def __init__(self, connection: Connection, turns: TurnTables) -> None:
        self._connection = connection
        self._turns = turns
        for statement in (_VIEW, _GUARD, _WRITE):
            connection.execute(statement)

    def write(
        self, jobs: Sequence[Append], places: Mapping[str, list[int]], next_row: int, version: int
    ) -> dict[str, list[int]] | None:
        """Commit a group of appends; the places of their logs then, or None where nothing was done.

        `places` has rows, ends and starts by sender id, as of the data version; `next_row` is that of the next new
        conversation. Jobs are not told. Raises `sqlite3.OperationalError` as a transaction would.
        """
        import sqlite3

        found: dict[str, list[int]] = {}
        values: list[Any] = []
        answers = 0
        for job in jobs:
            if not job.blocks or job.sender_id in found:
                return None
            place = self._place(job, places, next_row)
            if place is None:
                return None
            new = place[0] == next_row
            next_row += new
            found[job.sender_id] = place
            note = job.note
            claimed = note.done and self._turns.claimed(job.sender_id)
            kept: tuple[Any, ...] = (None,) * 5
            if note.key is not None:
                answers += 1
                kept = note.key, note.base, place[1], note.answer, self._turns.until(note.keep)
            for block in job.blocks:
                values += (None, place[0], job.sender_id, new, claimed)
                values += block
                values += kept
                new = claimed = False
                kept = (None,) * 5
        rows = len(values) // _WIDTH
        if not rows or rows > _ROWS or self._turns.sweeps(answers):
            return None
        values[0] = version
        row = "(" + ",".join("?" * _WIDTH) + ")"
        try:
            self._connection.execute(f"INSERT INTO appends ({_COLUMNS}) VALUES " + ",".join([row] * rows), values)
        except sqlite3.IntegrityError:  # somebody else wrote, or the conversation is not new
            return None
        self._turns.wrote(answers, found)
        return found

    def _place(self, job: Append, places: Mapping[str, list[int]], next_row: int) -> list[int] | None:
        """The place of a job's log once it is done; None where it cannot be told, or the job is not to be done."""
        note, place = job.note, places.get(job.sender_id)
        if note is not NO_NOTE and (not note.done or note.reminders or note.fired is not None):
            return None
        if self._turns.held(job.sender_id, note.owner):
            return None
        if place is None:
            return None if job.end or note.start or note.birth else [next_row, job.count, 0]
        row, end, start = place
        return [row, end + job.count, start] if end == job.end and job.is_of(place) else None
