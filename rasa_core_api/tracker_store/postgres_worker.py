"""The threads that talk to PostgreSQL: one commits all that waits together, one reads for all who wait."""

from __future__ import annotations

import hashlib
import select
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attrs import define

from rasa_core_api.exceptions import InvalidConfiguration, RasaCoreError, StoreUnavailable
from rasa_core_api.tracker_store.checks import conflict, unknown_cursor
from rasa_core_api.tracker_store.texts import Block
from rasa_core_api.tracker_store.threads import Job

if TYPE_CHECKING:
    from psycopg import Connection

#: The version of the tables; a newer one is refused.
FORMAT = 1
#: Seconds to connect, and for one statement or one lock.
TIME_LIMIT = 10
#: Names our lock while tables are created: "RCav".
_LOCK = 0x52436176

# `key` is the SHA-256 of the sender id: an index has no room for ids of 10 kB
_TABLES = """
CREATE TABLE IF NOT EXISTS rasa_core_api_format (version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS rasa_core_api_conversations (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key BYTEA NOT NULL UNIQUE,
    sender_id TEXT COLLATE "C" NOT NULL,
    first_seq BIGINT NOT NULL,
    end_seq BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS rasa_core_api_blocks (
    conversation BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    count INTEGER NOT NULL,
    at DOUBLE PRECISION NOT NULL,
    events TEXT NOT NULL,
    PRIMARY KEY (conversation, seq)
);
"""


def key_of(sender_id: str) -> bytes:
    return hashlib.sha256(sender_id.encode()).digest()


def unavailable(error: Exception) -> StoreUnavailable:
    """What a failure of the database means to a client; its text may hold data, its class does not."""
    return StoreUnavailable(f"The conversation store cannot be used: {type(error).__name__}.")


def _has_news(descriptor: int) -> bool:
    """Whether there is something to read from a socket."""
    watch = select.poll()
    watch.register(descriptor, select.POLLIN)
    return bool(watch.poll(0))


class Session:
    """A connection that is made anew after it broke. Lives in one thread."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Connection[Any] | None = None

    def connection(self) -> Connection[Any]:
        """The connection, made anew where it is closed. Raises `psycopg.Error`."""
        import psycopg

        found = self._connection
        if found is not None and _has_news(found.fileno()):
            self.drop()  # an idle server says nothing, unless it closes
            found = None
        if found is None or found.closed:
            found = self._connection = psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=TIME_LIMIT,
                options=f"-c statement_timeout={TIME_LIMIT}s -c lock_timeout={TIME_LIMIT}s"
                f" -c idle_in_transaction_session_timeout={TIME_LIMIT}s -c client_encoding=UTF8",
                application_name="rasa_core_api",
            )
            if found.execute("SHOW synchronous_commit").fetchall() == [("off",)]:
                found.execute("SET synchronous_commit = on")  # an answered turn is on the disk
        return found

    def drop(self) -> None:
        """Close the connection after an error that may have broken it."""
        found, self._connection = self._connection, None
        if found is not None:
            found.close()

    def prepare(self) -> None:
        """Create the tables. Raises `InvalidConfiguration` where those of a newer version are there."""
        import psycopg

        try:
            connection = self.connection()
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                for statement in _TABLES.split(";"):
                    if statement.strip():
                        connection.execute(statement.encode())
                found = connection.execute("SELECT version FROM rasa_core_api_format").fetchall()
                if not found:
                    connection.execute("INSERT INTO rasa_core_api_format VALUES (%s)", (FORMAT,))
                elif found[0][0] > FORMAT:
                    raise InvalidConfiguration(
                        f"tracker_store.url: the tables were made by a newer version of this program"
                        f" (format {found[0][0]}, known: {FORMAT})"
                    )
        except psycopg.Error as error:
            self.drop()
            raise unavailable(error) from error


# One statement, and so one transaction and one answer, for any number of appends to different conversations. The
# update is the comparison: where another process was faster its condition is checked again, against what that one left.
_APPEND = """
WITH input AS (
    SELECT * FROM unnest(%(keys)s::bytea[], %(names)s::text[], %(ends)s::bigint[], %(new)s::bigint[])
        AS u(key, sender_id, old_end, new_end)
), updated AS (
    UPDATE rasa_core_api_conversations c SET end_seq = input.new_end
    FROM input WHERE c.key = input.key AND c.end_seq = input.old_end RETURNING c.id, c.key
), created AS (
    INSERT INTO rasa_core_api_conversations (key, sender_id, first_seq, end_seq)
    SELECT key, sender_id, 0, new_end FROM input WHERE old_end = 0 ORDER BY key
    ON CONFLICT DO NOTHING RETURNING id, key
), done AS (
    SELECT id, key FROM updated UNION ALL SELECT id, key FROM created
), added AS (
    INSERT INTO rasa_core_api_blocks (conversation, seq, count, at, events)
    SELECT done.id, b.seq, b.count, b.at, b.events
    FROM unnest(%(owners)s::bytea[], %(seqs)s::bigint[], %(counts)s::int[], %(times)s::float8[], %(texts)s::text[])
        AS b(key, seq, count, at, events) JOIN done ON done.key = b.key
)
SELECT key FROM done
"""


class WriteJob(Job[Any]):
    """A change of one conversation: an append after `end`, or, without it, a replacement or a deletion."""

    __slots__ = ("blocks", "count", "end", "kind", "sender_id")

    def __init__(self, kind: str, sender_id: str, end: int = 0, count: int = 0, blocks: Sequence[Block] = ()) -> None:
        super().__init__()
        self.kind = kind  # append, replace or delete
        self.sender_id = sender_id
        self.end = end
        self.count = count
        self.blocks = blocks


@define
class _Place:
    """Where a conversation stands in the transaction under way."""

    row: int
    start: int
    end: int


class Writer:
    """Works off groups of jobs, each group with a handful of statements however many jobs it holds.

    The rows of all conversations of a group are locked first, in one order for all processes, so that groups of two
    processes cannot wait for each other.
    """

    def __init__(self, url: str) -> None:
        self._session = Session(url)

    def open(self) -> None:
        self._session.prepare()

    def close(self) -> None:
        self._session.drop()

    def run(self, jobs: Sequence[WriteJob]) -> None:
        import psycopg

        try:
            connection = self._session.connection()
            if all(job.kind == "append" for job in jobs) and len({job.sender_id for job in jobs}) == len(jobs):
                try:
                    self._append_all(connection, jobs)
                    return
                except psycopg.errors.DeadlockDetected:
                    pass  # undone as a whole; its locks have no order, those below do
            with connection.transaction():
                self._apply(connection, jobs)
        except psycopg.DataError as error:  # one of them cannot be stored: the others can
            if len(jobs) > 1:
                for job in jobs:
                    self.run([job])
            else:
                jobs[0].result, jobs[0].error = None, unavailable(error)
        except psycopg.Error as error:
            self._session.drop()
            failure = unavailable(error)
            for job in jobs:
                job.result, job.error = None, failure

    @staticmethod
    def _append_all(connection: Connection[Any], jobs: Sequence[WriteJob]) -> None:
        """Append to different conversations."""
        keys = [key_of(job.sender_id) for job in jobs]
        blocks = [(key, job.end + seq, *rest) for key, job in zip(keys, jobs, strict=True) for seq, *rest in job.blocks]
        owners, seqs, counts, times, texts = zip(*blocks, strict=True) if blocks else ((), (), (), (), ())
        parameters = {
            "keys": keys,
            "names": [job.sender_id for job in jobs],
            "ends": [job.end for job in jobs],
            "new": [job.end + job.count for job in jobs],
            "owners": list(owners),
            "seqs": list(seqs),
            "counts": list(counts),
            "times": list(times),
            "texts": list(texts),
        }
        done = {key for (key,) in connection.execute(_APPEND, parameters)}
        lost = [key for key in keys if key not in done]
        found: dict[bytes, int] = {}
        if lost:
            found = dict(
                connection.execute(
                    "SELECT key, end_seq FROM rasa_core_api_conversations WHERE key = ANY(%s)", (lost,)
                ).fetchall()
            )
        for key, job in zip(keys, jobs, strict=True):
            if key in done:
                job.result = job.end + job.count
                continue
            try:
                conflict(job.sender_id, job.end, found.get(key))
            except RasaCoreError as error:
                job.error = error

    def _apply(self, connection: Connection[Any], jobs: Sequence[WriteJob]) -> None:
        keys = {job.sender_id: key_of(job.sender_id) for job in jobs}
        ordered = sorted(keys, key=keys.__getitem__)
        places: dict[str, _Place] = {}
        for sender_id, row, start, end in connection.execute(
            "SELECT sender_id, id, first_seq, end_seq FROM rasa_core_api_conversations WHERE key = ANY(%s)"
            " ORDER BY key FOR UPDATE",
            ([keys[sender_id] for sender_id in ordered],),
        ):
            places[sender_id] = _Place(row, start, end)
        self._create(connection, jobs, keys, places)
        rows: list[tuple[int, Block]] = []
        changed: dict[int, _Place] = {}
        for job in jobs:
            job.result, job.error = None, None
            place = places.get(job.sender_id)
            try:
                if job.kind == "delete":
                    job.result = place is not None
                    if place is not None:
                        self._flush(connection, rows, changed)
                        del places[job.sender_id]
                        self._remove(connection, place, "DELETE FROM rasa_core_api_conversations WHERE id = %s")
                    continue
                if place is None and (job.kind == "replace" or job.end == 0):  # deleted by this very group
                    self._create(connection, [job], keys, places)
                    place = places.get(job.sender_id)
                if place is None:
                    if job.kind == "replace":  # another process created it at this moment
                        raise StoreUnavailable("The conversation is being changed by another process; try again.")
                    conflict(job.sender_id, job.end, None)
                begin = place.end
                if job.kind == "append":
                    if job.end != begin:
                        conflict(job.sender_id, job.end, begin)
                    job.result = begin + job.count
                else:
                    self._flush(connection, rows, changed)
                    self._remove(connection, place, None)
                    place.start = begin
                    job.result = (begin, begin + job.count)
                place.end = begin + job.count
                changed[place.row] = place
                rows += [(place.row, (begin + seq, count, at, text)) for seq, count, at, text in job.blocks]
            except RasaCoreError as error:
                job.error = error
        self._flush(connection, rows, changed)

    @staticmethod
    def _create(
        connection: Connection[Any], jobs: Sequence[WriteJob], keys: dict[str, bytes], places: dict[str, _Place]
    ) -> None:
        """Create the conversations that begin, in one order for all processes."""
        new = {
            keys[job.sender_id]: job.sender_id
            for job in jobs
            if job.sender_id not in places and (job.kind == "replace" or (job.kind == "append" and job.end == 0))
        }
        if new:
            ordered = sorted(new)
            for sender_id, row in connection.execute(
                "INSERT INTO rasa_core_api_conversations (key, sender_id, first_seq, end_seq)"
                " SELECT u.key, u.sender_id, 0, 0 FROM unnest(%s::bytea[], %s::text[]) AS u(key, sender_id)"
                " ORDER BY u.key ON CONFLICT DO NOTHING RETURNING sender_id, id",
                (ordered, [new[key] for key in ordered]),
            ):
                places[sender_id] = _Place(row, 0, 0)

    @staticmethod
    def _remove(connection: Connection[Any], place: _Place, also: str | None) -> None:
        connection.execute("DELETE FROM rasa_core_api_blocks WHERE conversation = %s", (place.row,))
        if also is not None:
            connection.execute(also.encode(), (place.row,))

    @staticmethod
    def _flush(connection: Connection[Any], rows: list[tuple[int, Block]], changed: dict[int, _Place]) -> None:
        if rows:
            connection.execute(
                "INSERT INTO rasa_core_api_blocks (conversation, seq, count, at, events)"
                " SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::int[], %s::float8[], %s::text[])",
                (
                    [row for row, _ in rows],
                    [block[0] for _, block in rows],
                    [block[1] for _, block in rows],
                    [block[2] for _, block in rows],
                    [block[3] for _, block in rows],
                ),
            )
            rows.clear()
        if changed:
            connection.execute(
                "UPDATE rasa_core_api_conversations SET first_seq = u.first_seq, end_seq = u.end_seq"
                " FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS u(id, first_seq, end_seq)"
                " WHERE rasa_core_api_conversations.id = u.id",
                (list(changed), [place.start for place in changed.values()], [p.end for p in changed.values()]),
            )
            changed.clear()


class ReadJob(Job[Any]):
    """Reads a log's tail (`sender_id`), or else lists sender ids (`after`, `limit`, `prefix`)."""

    __slots__ = ("after", "limit", "prefix", "sender_id")

    def __init__(
        self, sender_id: str | None, after: int | str | None = 0, limit: int | None = None, prefix: str = ""
    ) -> None:
        super().__init__()
        self.sender_id = sender_id
        self.after = after
        self.limit = limit
        self.prefix = prefix


class Reader:
    """Reads; where many wait, the ends of all their logs come with one statement."""

    def __init__(self, url: str) -> None:
        self._session = Session(url)

    def open(self) -> None:
        import psycopg

        try:
            self._session.connection()
        except psycopg.Error as error:
            raise unavailable(error) from error

    def close(self) -> None:
        self._session.drop()

    def run(self, jobs: Sequence[ReadJob]) -> None:
        import psycopg

        try:
            connection = self._session.connection()
            places = _places(connection, [job.sender_id for job in jobs if job.sender_id is not None])
            for job in jobs:
                if job.sender_id is None:
                    try:
                        job.result = _names(connection, job)
                    except RasaCoreError as error:
                        job.error = error
                else:
                    job.result = _tail(connection, job, places.get(job.sender_id))
        except psycopg.Error as error:
            self._session.drop()
            failure = unavailable(error)
            for job in jobs:
                job.result, job.error = None, failure


def _places(connection: Connection[Any], sender_ids: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """Row, start and end of those conversations that exist."""
    if not sender_ids:
        return {}
    rows = connection.execute(
        "SELECT sender_id, id, first_seq, end_seq FROM rasa_core_api_conversations WHERE key = ANY(%s)",
        ([key_of(sender_id) for sender_id in sender_ids],),
    )
    return {sender_id: (row, start, end) for sender_id, row, start, end in rows}


def _tail(
    connection: Connection[Any], job: ReadJob, place: tuple[int, int, int] | None
) -> tuple[int, int, int, list[str]] | None:
    """Start, end, the number of the first event in the texts, and the texts."""
    assert isinstance(job.after, int) and job.sender_id is not None
    if place is None:
        return None
    _, start, end = place
    if max(job.after, start) >= end or job.limit == 0:
        return start, end, max(job.after, start), []
    with connection.transaction():
        # the log and its blocks as they were at one moment
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        now = _places(connection, [job.sender_id]).get(job.sender_id)
        if now is None:
            return None
        row, start, end = now
        after = max(job.after, start)
        if after >= end:
            return start, end, after, []
        stop = end if job.limit is None else min(end, after + job.limit)
        found = connection.execute(
            "SELECT seq, events FROM rasa_core_api_blocks WHERE conversation = %(row)s AND seq < %(stop)s AND seq >="
            " (SELECT max(seq) FROM rasa_core_api_blocks WHERE conversation = %(row)s AND seq <= %(after)s)"
            " ORDER BY seq",
            {"row": row, "stop": stop, "after": after},
        ).fetchall()
    return start, end, found[0][0], [text for _, text in found]


def _names(connection: Connection[Any], job: ReadJob) -> list[str]:
    row = 0
    if job.after is not None:
        assert isinstance(job.after, str)
        found = connection.execute(
            "SELECT id FROM rasa_core_api_conversations WHERE key = %s", (key_of(job.after),)
        ).fetchone()
        if found is None:
            raise unknown_cursor(job.after)
        row = found[0]
    return [
        name
        for (name,) in connection.execute(
            "SELECT sender_id FROM rasa_core_api_conversations WHERE id > %s AND starts_with(sender_id, %s)"
            " ORDER BY id LIMIT %s",
            (row, job.prefix, job.limit),
        )
    ]
