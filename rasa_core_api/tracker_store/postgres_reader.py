"""The thread that reads from PostgreSQL, for all who wait at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen

from rasa_core_api.exceptions import RasaCoreError
from rasa_core_api.tracker_store.checks import no_position, unknown_cursor
from rasa_core_api.tracker_store.postgres_notes import reminder_of
from rasa_core_api.tracker_store.postgres_session import Session, key_of, unavailable
from rasa_core_api.tracker_store.postgres_statements import LIST_LOCK
from rasa_core_api.tracker_store.threads import CallJob, Job
from rasa_core_api.tracker_store.turns import FEED_SIZE, Earlier, Reminder

if TYPE_CHECKING:
    from psycopg import Connection

#: Start, end, the number of the first event in the texts, the texts, and the conversation's row.
RawTail = tuple[int, int, int, list[str], int]

#: Milliseconds that whoever lists waits for those who begin conversations at that moment.
_PATIENCE = 1_000

_LAST_ROW = "(SELECT coalesce(max(id), 0) FROM rasa_core_api_conversations)"
# One statement: the lock is not held while an answer is on its way, or where this process sleeps. That the row is the
# last one of when the statement began, before it waited, does no harm.
_LAST_ROW_WAITING = f"""
WITH patience AS MATERIALIZED (
    SELECT set_config('lock_timeout', %(patience)s, TRUE) AS setting
), held AS MATERIALIZED (
    SELECT pg_advisory_xact_lock(%(lock)s)::text AS lock FROM patience WHERE setting IS NOT NULL
)
SELECT {_LAST_ROW} FROM held WHERE lock IS NOT NULL
"""

_LOOK = """
SELECT u.number, c.id, c.first_seq, c.end_seq,
    CASE WHEN c.claim_owner <> u.owner THEN extract(epoch FROM c.claim_until - clock_timestamp()) END,
    a.base, a.end_seq, a.answer, a.done, c.present
FROM unnest(%(numbers)s::int[], %(keys)s::bytea[], %(requests)s::text[], %(owners)s::text[])
    AS u(number, key, request, owner)
LEFT JOIN rasa_core_api_conversations c ON c.key = u.key
LEFT JOIN rasa_core_api_answers a ON a.key = u.key AND a.request = u.request AND a.until > clock_timestamp()
"""


class LookJob(Job[Any]):
    """What a turn finds; the result is a raw tail or None, what the key left, and the seconds of another's claim."""

    __slots__ = ("after", "key", "limit", "owner", "sender_id")

    def __init__(
        self, sender_id: str, after: int = 0, limit: int | None = None, key: str | None = None, owner: str = ""
    ) -> None:
        super().__init__()
        self.sender_id = sender_id
        self.after = after
        self.limit = limit
        self.key = key
        self.owner = owner


class Reader:
    """Reads; what many who wait want to look at comes with one statement."""

    def __init__(self, url: str) -> None:
        self._session = Session(url)
        self.interrupt = self._session.interrupt

    def open(self) -> None:
        import psycopg

        try:
            self._session.connection()
        except psycopg.Error as error:
            raise unavailable(error) from error

    def close(self) -> None:
        self._session.drop()

    def run(self, jobs: Sequence[LookJob | CallJob]) -> None:
        import psycopg

        try:
            connection = self._session.connection()
            look(connection, [job for job in jobs if isinstance(job, LookJob)])
            for job in jobs:
                if isinstance(job, CallJob):
                    try:
                        job.result = job.function(connection, *job.arguments)
                    except RasaCoreError as error:
                        job.error = error
        except psycopg.Error as error:
            self._session.drop()
            failure = unavailable(error)
            for job in jobs:
                job.result, job.error = None, failure


def look(connection: Connection[Any], jobs: Sequence[LookJob]) -> None:
    """A log that goes on behind what is asked for is looked at once more, with its blocks, as all were at one moment.

    Otherwise a turn might get the events of a request that was answered meanwhile without its answer, and run it again.
    """
    if not jobs:
        return
    growing = []
    for job, found in zip(jobs, _heads(connection, jobs), strict=True):
        job.result = found.result([])
        if found.goes_on(job):
            growing.append(job)
    if growing:
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            for job, found in zip(growing, _heads(connection, growing), strict=True):
                blocks = _blocks(connection, found, job) if found.goes_on(job) else []
                job.result = found.result(blocks, job.after)


@frozen
class _Head:
    """What is known of a conversation without its blocks."""

    row: int | None
    start: int
    end: int
    earlier: Earlier | None
    held: float

    def goes_on(self, job: LookJob) -> bool:
        return self.row is not None and max(job.after, self.start) < self.end and job.limit != 0

    def result(self, blocks: Sequence[tuple[int, str]], after: int = 0) -> tuple[RawTail | None, Earlier | None, float]:
        if self.row is None:
            return None, self.earlier, self.held
        first = blocks[0][0] if blocks else max(after, self.start)
        return (self.start, self.end, first, [text for _, text in blocks], self.row), self.earlier, self.held


def _heads(connection: Connection[Any], jobs: Sequence[LookJob]) -> list[_Head]:
    parameters = {
        "numbers": list(range(len(jobs))),
        "keys": [key_of(job.sender_id) for job in jobs],
        "requests": [job.key for job in jobs],
        "owners": [job.owner for job in jobs],
    }
    heads: list[_Head | None] = [None] * len(jobs)
    for number, row, start, end, left, base, last, answer, done, present in connection.execute(_LOOK, parameters):
        earlier = None if base is None else Earlier(base, last, answer, done)
        held = max(0.0, float(left)) if left is not None else 0.0
        heads[number] = _Head(row if present else None, start or 0, end or 0, earlier, held)
    return [head for head in heads if head is not None]


def _blocks(connection: Connection[Any], head: _Head, job: LookJob) -> list[tuple[int, str]]:
    after = max(job.after, head.start)
    stop = head.end if job.limit is None else min(head.end, after + job.limit)
    return connection.execute(
        "SELECT seq, events FROM rasa_core_api_blocks WHERE conversation = %(row)s AND seq < %(stop)s AND seq >="
        " (SELECT max(seq) FROM rasa_core_api_blocks WHERE conversation = %(row)s AND seq <= %(after)s)"
        " ORDER BY seq",
        {"row": head.row, "stop": stop, "after": after},
    ).fetchall()


def read_names(connection: Connection[Any], after: str | None, limit: int | None, prefix: str) -> list[str]:
    row = 0
    if after is not None:
        found = connection.execute(
            "SELECT id FROM rasa_core_api_conversations WHERE key = %s AND present", (key_of(after),)
        ).fetchone()
        if found is None:
            raise unknown_cursor(after)
        row = found[0]
    return [
        name
        for (name,) in connection.execute(
            "SELECT sender_id FROM rasa_core_api_conversations WHERE id > %s AND id <= %s AND present"
            " AND starts_with(sender_id, %s) ORDER BY id LIMIT %s",
            (row, _last_row(connection), prefix, limit),
        )
    ]


def _last_row(connection: Connection[Any]) -> int:
    """A row up to which all conversations are there: whoever lists on behind one of them misses none.

    Where a transaction is stuck that begins a conversation, the last row of those that are seen.
    """
    import psycopg

    try:
        found = connection.execute(_LAST_ROW_WAITING, {"patience": str(_PATIENCE), "lock": LIST_LOCK}).fetchone()
    except psycopg.errors.LockNotAvailable:
        found = connection.execute(f"SELECT {_LAST_ROW}".encode()).fetchone()
    assert found is not None
    return int(found[0])


def read_idle(connection: Connection[Any], before: float, limit: int) -> list[str]:
    return [
        name
        for (name,) in connection.execute(
            "SELECT sender_id FROM rasa_core_api_conversations c WHERE present AND coalesce((SELECT at FROM"
            " rasa_core_api_blocks WHERE conversation = c.id ORDER BY seq DESC LIMIT 1), 0) < %s LIMIT %s",
            (before, limit),
        )
    ]


def read_reminders(connection: Connection[Any], sender_id: str) -> list[Reminder]:
    rows = connection.execute(
        "SELECT sender_id, name, due, seq, channel FROM rasa_core_api_reminders WHERE key = %s ORDER BY due, seq",
        (key_of(sender_id),),
    )
    return [reminder_of(*row) for row in rows]


def reminder_waits(connection: Connection[Any], reminder: Reminder) -> bool:
    found = connection.execute(
        "SELECT 1 FROM rasa_core_api_reminders WHERE key = %s AND name_key = %s AND seq = %s AND due = %s",
        (key_of(reminder.sender_id), key_of(reminder.name), reminder.seq, reminder.due),
    )
    return found.fetchone() is not None


def read_due(connection: Connection[Any], before: float, limit: int) -> list[Reminder]:
    rows = connection.execute(
        "SELECT sender_id, name, due, seq, channel FROM rasa_core_api_reminders WHERE due < %s"
        " ORDER BY due, seq LIMIT %s",
        (before, limit),
    )
    return [reminder_of(*row) for row in rows]


def read_feed(connection: Connection[Any], after: str | None, limit: int) -> list[tuple[str, str, int, str]]:
    """Position, sender id, number of the first event and the events' text of each block."""
    xid, position = position_of(after)
    return connection.execute(
        "SELECT xid::text || '-' || position, sender_id, seq, events FROM ("
        "SELECT b.xid, b.position, c.sender_id, b.seq, b.events, sum(octet_length(b.events))"
        " OVER (ORDER BY b.xid, b.position ROWS UNBOUNDED PRECEDING) - octet_length(b.events) AS before"
        " FROM rasa_core_api_blocks b JOIN rasa_core_api_conversations c ON c.id = b.conversation"
        " WHERE (b.xid, b.position) > (%s::text::xid8, %s) AND b.xid < pg_snapshot_xmin(pg_current_snapshot())"
        " ORDER BY b.xid, b.position LIMIT %s) f WHERE before < %s ORDER BY xid, position",
        (xid, position, limit, FEED_SIZE),
    ).fetchall()


def read_feed_end(connection: Connection[Any]) -> str:
    found = connection.execute(
        "SELECT xid::text || '-' || position FROM rasa_core_api_blocks"
        " WHERE xid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY xid DESC, position DESC LIMIT 1"
    ).fetchone()
    return "0-0" if found is None else str(found[0])


def read_cursor(connection: Connection[Any], name: str) -> str | None:
    found = connection.execute("SELECT position FROM rasa_core_api_cursors WHERE name = %s", (name,)).fetchone()
    return None if found is None else str(found[0])


def position_of(text: str | None) -> tuple[str, int]:
    """The number of a transaction and of a block. Raises `InvalidParameter`."""
    if text is None:
        return "0", 0
    xid, dash, position = text.partition("-")
    if not (dash and text.isascii() and xid.isdigit() and position.isdigit() and len(text) < 39):
        raise no_position()
    if int(xid) >= 1 << 63 or int(position) >= 1 << 63:
        raise no_position()
    return xid, int(position)
