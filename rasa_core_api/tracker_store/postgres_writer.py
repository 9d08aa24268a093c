"""The thread that writes to PostgreSQL: all that waits goes in with a handful of statements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define

from rasa_core_api.exceptions import ConversationHeld, RasaCoreError, StoreUnavailable
from rasa_core_api.tracker_store.checks import conflict
from rasa_core_api.tracker_store.postgres_session import Session, key_of, unavailable
from rasa_core_api.tracker_store.texts import Block
from rasa_core_api.tracker_store.threads import Job
from rasa_core_api.tracker_store.turns import NO_NOTE, Reminder, TurnNote

if TYPE_CHECKING:
    from psycopg import Connection

# One statement, and so one transaction and one answer, for any number of appends to different conversations. The
# update is the comparison: where another process was faster its condition is checked again, against what that one left.
# Claims are columns of the same row: whoever claims and whoever appends wait for each other there.
_APPEND = """
WITH input AS (
    SELECT * FROM unnest(%(keys)s::bytea[], %(names)s::text[], %(ends)s::bigint[], %(new)s::bigint[],
        %(claimants)s::text[], %(over)s::bool[], %(firsts)s::bigint[])
        AS u(key, sender_id, old_end, new_end, owner, done, first_seq)
), updated AS (
    UPDATE rasa_core_api_conversations c SET end_seq = input.new_end, present = TRUE,
        claim_owner = CASE WHEN input.done THEN NULL ELSE c.claim_owner END,
        claim_until = CASE WHEN input.done THEN NULL ELSE c.claim_until END
    FROM input WHERE c.key = input.key AND c.end_seq = input.old_end AND (c.present OR input.old_end = 0)
        AND (input.first_seq IS NULL OR input.first_seq = c.first_seq)
        AND (c.claim_owner IS NULL OR c.claim_owner = input.owner OR c.claim_until <= clock_timestamp())
    RETURNING c.id, c.key
), created AS (
    INSERT INTO rasa_core_api_conversations (key, sender_id, first_seq, end_seq)
    SELECT key, sender_id, 0, new_end FROM input WHERE old_end = 0 ORDER BY key
    ON CONFLICT DO NOTHING RETURNING id, key
), done AS (
    SELECT id, key FROM updated UNION ALL SELECT id, key FROM created
), added AS (
    INSERT INTO rasa_core_api_blocks (conversation, seq, count, at, events)
    SELECT done.id, b.seq, b.count, b.at, b.events
    FROM unnest(%(owners)s::bytea[], %(seqs)s::bigint[], %(counts)s::int[], %(times)s::float8[],
        string_to_array(%(texts)s, chr(30))) AS b(key, seq, count, at, events) JOIN done ON done.key = b.key
)/* notes */
SELECT key FROM done
"""

# what few turns leave: answers, reminders, and the end of one that fired
_NOTES = """, answered AS (
    INSERT INTO rasa_core_api_answers (key, request, base, end_seq, done, answer, until)
    SELECT a.key, a.request, a.base, a.end_seq, a.done, a.answer, clock_timestamp() + a.keep * interval '1 second'
    FROM unnest(%(a_keys)s::bytea[], %(requests)s::text[], %(bases)s::bigint[], %(a_ends)s::bigint[],
        %(a_over)s::bool[], %(answers)s::text[], %(keeps)s::float8[])
        AS a(key, request, base, end_seq, done, answer, keep) JOIN done ON done.key = a.key
    ON CONFLICT (key, request) DO UPDATE SET base = EXCLUDED.base, end_seq = EXCLUDED.end_seq,
        done = EXCLUDED.done, answer = EXCLUDED.answer, until = EXCLUDED.until
), reminded AS (
    INSERT INTO rasa_core_api_reminders (key, name_key, sender_id, name, due, seq, channel)
    SELECT r.* FROM unnest(%(r_keys)s::bytea[], %(name_keys)s::bytea[], %(r_senders)s::text[], %(r_names)s::text[],
        %(dues)s::float8[], %(r_seqs)s::bigint[], %(channels)s::text[])
        AS r(key, name_key, sender_id, name, due, seq, channel) JOIN done ON done.key = r.key
    ON CONFLICT (key, name_key) DO UPDATE SET due = EXCLUDED.due, seq = EXCLUDED.seq, channel = EXCLUDED.channel
), fired AS (
    DELETE FROM rasa_core_api_reminders r
    USING unnest(%(f_keys)s::bytea[], %(f_names)s::bytea[], %(f_seqs)s::bigint[]) AS f(key, name_key, seq), done
    WHERE done.key = f.key AND r.key = f.key AND r.name_key = f.name_key AND r.seq = f.seq
)
"""

_APPEND_WITH_NOTES = _APPEND.replace("/* notes */", _NOTES)

# Claims need not outlive the machine of the database: this transaction does not wait for its disk.
_CLAIM = """
WITH quick AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', TRUE) AS setting
), input AS (
    SELECT u.* FROM unnest(%(keys)s::bytea[], %(names)s::text[], %(ends)s::bigint[], %(owners)s::text[],
        %(seconds)s::float8[]) AS u(key, sender_id, old_end, owner, seconds), quick WHERE setting IS NOT NULL
), updated AS (
    UPDATE rasa_core_api_conversations c
    SET claim_owner = input.owner, claim_until = clock_timestamp() + input.seconds * interval '1 second'
    FROM input WHERE c.key = input.key AND c.end_seq = input.old_end
        AND (c.claim_owner IS NULL OR c.claim_owner = input.owner OR c.claim_until <= clock_timestamp())
    RETURNING c.key
), created AS (
    INSERT INTO rasa_core_api_conversations (key, sender_id, first_seq, end_seq, present, claim_owner, claim_until)
    SELECT key, sender_id, 0, 0, FALSE, owner, clock_timestamp() + seconds * interval '1 second'
    FROM input WHERE old_end = 0 ORDER BY key
    ON CONFLICT DO NOTHING RETURNING key
)
SELECT key FROM updated UNION ALL SELECT key FROM created
"""

_EXPLAIN = """
SELECT key, CASE WHEN present THEN end_seq END, claim_owner,
    coalesce(extract(epoch FROM claim_until - clock_timestamp()), 0)
FROM rasa_core_api_conversations WHERE key = ANY(%s)
"""


class WriteJob(Job[Any]):
    """A change of one conversation: an append after `end`, or, without it, a replacement or a deletion."""

    __slots__ = ("blocks", "count", "end", "kind", "note", "sender_id")

    def __init__(
        self,
        kind: str,
        sender_id: str,
        end: int = 0,
        count: int = 0,
        blocks: Sequence[Block] = (),
        note: TurnNote = NO_NOTE,
    ) -> None:
        super().__init__()
        self.note = note
        self.kind = kind  # append, replace or delete
        self.sender_id = sender_id
        self.end = end
        self.count = count
        self.blocks = blocks


class ClaimJob(Job[None]):
    """Claims the log that ends at `end`."""

    __slots__ = ("end", "owner", "seconds", "sender_id")

    def __init__(self, sender_id: str, end: int, owner: str, seconds: float) -> None:
        super().__init__()
        self.sender_id = sender_id
        self.end = end
        self.owner = owner
        self.seconds = seconds


class CallJob(Job[Any]):
    """Changes something beside the logs with a function of the connection and its arguments."""

    __slots__ = ("arguments", "function")

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        super().__init__()
        self.function = function
        self.arguments = arguments


AnyJob = WriteJob | ClaimJob | CallJob


@define
class _Place:
    """Where a conversation stands in the transaction under way; `left` are the seconds of its claim."""

    row: int
    start: int
    end: int
    owner: str | None = None
    left: float = 0.0

    def check(self, sender_id: str, owner: str) -> None:
        """Raise `ConversationHeld` where another owner's claim lasts."""
        if self.owner is not None and self.owner != owner and self.left > 0:
            raise ConversationHeld(sender_id, self.left)


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

    def run(self, jobs: Sequence[AnyJob]) -> None:
        import psycopg

        writes = [job for job in jobs if isinstance(job, WriteJob)]
        try:
            connection = self._session.connection()
            for job in jobs:
                if isinstance(job, CallJob):
                    self._call(connection, job)
            claims = [job for job in jobs if isinstance(job, ClaimJob)]
            if claims:
                self._claim(connection, claims)
            if writes:
                self._write(connection, writes)
        except psycopg.DataError as error:  # one of them cannot be stored: the others can
            if len(writes) > 1:
                for job in writes:
                    self.run([job])
            else:
                writes[0].result, writes[0].error = None, unavailable(error)
        except psycopg.Error as error:
            self._session.drop()
            failure = unavailable(error)
            for job in jobs:
                job.result, job.error = None, failure

    @staticmethod
    def _call(connection: Connection[Any], job: CallJob) -> None:
        try:
            job.result = job.function(connection, *job.arguments)
        except RasaCoreError as error:
            job.error = error

    def _write(self, connection: Connection[Any], jobs: Sequence[WriteJob]) -> None:
        import psycopg

        if all(job.kind == "append" for job in jobs) and len({job.sender_id for job in jobs}) == len(jobs):
            try:
                self._append_all(connection, jobs)
                return
            except psycopg.errors.DeadlockDetected:
                pass  # undone as a whole; its locks have no order, those below do
        with connection.transaction():
            self._apply(connection, jobs)

    def _claim(self, connection: Connection[Any], jobs: Sequence[ClaimJob]) -> None:
        import psycopg

        parameters = {
            "keys": [key_of(job.sender_id) for job in jobs],
            "names": [job.sender_id for job in jobs],
            "ends": [job.end for job in jobs],
            "owners": [job.owner for job in jobs],
            "seconds": [job.seconds for job in jobs],
        }
        try:
            done = {key for (key,) in connection.execute(_CLAIM, parameters)}
        except psycopg.errors.DeadlockDetected:  # undone as a whole: one by one they cannot meet
            for job in jobs:
                self._claim(connection, [job])
            return
        self._explain(connection, jobs, done)

    @staticmethod
    def _explain(connection: Connection[Any], jobs: Sequence[WriteJob] | Sequence[ClaimJob], done: set[bytes]) -> None:
        """Tell those whose change was refused why."""
        refused = {key_of(job.sender_id): job for job in jobs}
        for key in done:
            refused.pop(key, None)
        if not refused:
            return
        found = {key: rest for key, *rest in connection.execute(_EXPLAIN, (list(refused),))}
        for key, job in refused.items():
            end, owner, left = found.get(key, (None, None, 0))
            mine = job.owner if isinstance(job, ClaimJob) else job.note.owner
            try:
                if owner is not None and owner != mine and left > 0:
                    raise ConversationHeld(job.sender_id, float(left))
                conflict(job.sender_id, job.end, end)
            except RasaCoreError as error:
                job.error = error

    def _append_all(self, connection: Connection[Any], jobs: Sequence[WriteJob]) -> None:
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
            "texts": "\x1e".join(texts),  # JSON never has it, and a list of texts takes the client long to quote
            "claimants": [job.note.owner for job in jobs],
            "over": [job.note.done for job in jobs],
            "firsts": [job.note.start for job in jobs],
        }
        statement = _APPEND
        if any(job.note.key is not None or job.note.reminders or job.note.fired is not None for job in jobs):
            statement = _APPEND_WITH_NOTES
            parameters.update(_notes(jobs))
        done = {key for (key,) in connection.execute(statement, parameters)}
        for key, job in zip(keys, jobs, strict=True):
            if key in done:
                job.result = job.end + job.count
        if len(done) < len(jobs):
            self._explain(connection, jobs, done)

    def _apply(self, connection: Connection[Any], jobs: Sequence[WriteJob]) -> None:
        keys = {job.sender_id: key_of(job.sender_id) for job in jobs}
        ordered = sorted(keys, key=keys.__getitem__)
        places: dict[str, _Place] = {}
        hidden: dict[str, _Place] = {}  # only claimed
        for sender_id, row, start, end, owner, left, present in connection.execute(
            "SELECT sender_id, id, first_seq, end_seq, claim_owner,"
            " coalesce(extract(epoch FROM claim_until - clock_timestamp()), 0), present"
            " FROM rasa_core_api_conversations WHERE key = ANY(%s) ORDER BY key FOR UPDATE",
            ([keys[sender_id] for sender_id in ordered],),
        ):
            (places if present else hidden)[sender_id] = _Place(row, start, end, owner, float(left))
        for job in jobs:
            claimed = hidden.get(job.sender_id)
            if claimed is not None and job.sender_id not in places and job.kind != "delete":
                if claimed.owner == job.note.owner or claimed.left <= 0:
                    connection.execute(
                        "UPDATE rasa_core_api_conversations SET present = TRUE WHERE id = %s", (claimed.row,)
                    )
                    places[job.sender_id] = claimed
                else:
                    job.error = ConversationHeld(job.sender_id, claimed.left)
        self._create(connection, jobs, keys, places)
        rows: list[tuple[int, Block]] = []
        changed: dict[int, _Place] = {}
        for job in jobs:
            if isinstance(job.error, ConversationHeld):
                continue
            job.result, job.error = None, None
            place = places.get(job.sender_id)
            try:
                if job.kind == "delete":
                    _clear(connection, keys[job.sender_id])
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
                place.check(job.sender_id, job.note.owner)
                if job.kind == "append":
                    if job.end != begin or job.note.start not in (None, place.start):
                        conflict(job.sender_id, job.end, begin)
                    job.result = begin + job.count
                else:
                    self._flush(connection, rows, changed)
                    self._remove(connection, place, None)
                    connection.execute(
                        "DELETE FROM rasa_core_api_reminders WHERE key = %s", (keys[job.sender_id],)
                    )
                    if job.note.forgets:
                        connection.execute(
                            "DELETE FROM rasa_core_api_answers WHERE key = %s", (keys[job.sender_id],)
                        )
                    place.start = begin
                    job.result = (begin, begin + job.count)
                place.end = begin + job.count
                changed[place.row] = place
                rows += [(place.row, (begin + seq, count, at, text)) for seq, count, at, text in job.blocks]
                if job.note.done:
                    place.owner = None
                if job.note is not NO_NOTE:
                    self._flush(connection, rows, changed)
                    _leave(connection, keys[job.sender_id], job, begin)
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
                "UPDATE rasa_core_api_conversations SET first_seq = u.first_seq, end_seq = u.end_seq,"
                " claim_owner = CASE WHEN u.held THEN claim_owner END"
                " FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bool[]) AS u(id, first_seq, end_seq, held)"
                " WHERE rasa_core_api_conversations.id = u.id",
                (
                    list(changed),
                    [place.start for place in changed.values()],
                    [place.end for place in changed.values()],
                    [place.owner is not None for place in changed.values()],
                ),
            )
            changed.clear()


# --- notes -------------------------------------------------------------------------------------------------


def _notes(jobs: Sequence[WriteJob]) -> dict[str, list[Any]]:
    """What the notes of appends say, as the columns that `_APPEND` takes."""
    answers = [
        (key_of(job.sender_id), note.key, note.base, job.end + job.count, note.done, note.answer, note.keep)
        for job in jobs
        if (note := job.note).key is not None
    ]
    reminders = [
        (key_of(job.sender_id), key_of(found.name), job.sender_id, found.name, found.due, found.seq, found.channel)
        for job in jobs
        for found in job.note.reminders
    ]
    fired = [
        (key_of(job.sender_id), key_of(job.note.fired.name), job.note.fired.seq)
        for job in jobs
        if job.note.fired is not None
    ]
    columns: dict[str, list[Any]] = {}
    for names, rows in (
        (("a_keys", "requests", "bases", "a_ends", "a_over", "answers", "keeps"), answers),
        (("r_keys", "name_keys", "r_senders", "r_names", "dues", "r_seqs", "channels"), reminders),
        (("f_keys", "f_names", "f_seqs"), fired),
    ):
        for index, name in enumerate(names):
            columns[name] = [row[index] for row in rows]
    return columns


def _leave(connection: Connection[Any], key: bytes, job: WriteJob, begin: int) -> None:
    """Do what a note says, within a transaction; `begin` is where the events of a replacement begin."""
    note = job.note
    if note.key is not None:
        base = note.base if job.kind == "append" else begin + note.base
        connection.execute(
            "INSERT INTO rasa_core_api_answers (key, request, base, end_seq, done, answer, until)"
            " VALUES (%s, %s, %s, %s, %s, %s, clock_timestamp() + %s * interval '1 second')"
            " ON CONFLICT (key, request) DO UPDATE SET base = EXCLUDED.base, end_seq = EXCLUDED.end_seq,"
            " done = EXCLUDED.done, answer = EXCLUDED.answer, until = EXCLUDED.until",
            (key, note.key, base, begin + job.count, note.done, note.answer, note.keep),
        )
    for found in note.reminders:
        connection.execute(
            "INSERT INTO rasa_core_api_reminders (key, name_key, sender_id, name, due, seq, channel)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (key, name_key)"
            " DO UPDATE SET due = EXCLUDED.due, seq = EXCLUDED.seq, channel = EXCLUDED.channel",
            (key, key_of(found.name), job.sender_id, found.name, found.due, found.seq, found.channel),
        )
    if note.fired is not None:
        forget(connection, note.fired)


def _clear(connection: Connection[Any], key: bytes) -> None:
    """Remove what is kept of a conversation beside its log."""
    connection.execute("DELETE FROM rasa_core_api_answers WHERE key = %s", (key,))
    connection.execute("DELETE FROM rasa_core_api_reminders WHERE key = %s", (key,))


# --- what `CallJob` calls ----------------------------------------------------------------------------------


def forget(connection: Connection[Any], reminder: Reminder) -> bool:
    found = connection.execute(
        "DELETE FROM rasa_core_api_reminders WHERE key = %s AND name_key = %s AND seq = %s",
        (key_of(reminder.sender_id), key_of(reminder.name), reminder.seq),
    )
    return found.rowcount > 0


def renew(connection: Connection[Any], owner: str, seconds: float) -> None:
    connection.execute(
        "UPDATE rasa_core_api_conversations SET claim_until = clock_timestamp() + %s * interval '1 second'"
        " WHERE claim_owner = %s",
        (seconds, owner),
    )


def release(connection: Connection[Any], owner: str, sender_id: str | None) -> None:
    connection.execute(
        "UPDATE rasa_core_api_conversations SET claim_owner = NULL, claim_until = NULL"
        " WHERE claim_owner = %s AND (%s::bytea IS NULL OR key = %s)",
        (owner, *([None] * 2 if sender_id is None else [key_of(sender_id)] * 2)),
    )


def set_cursor(connection: Connection[Any], name: str, position: str) -> None:
    connection.execute(
        "INSERT INTO rasa_core_api_cursors (name, position) VALUES (%s, %s)"
        " ON CONFLICT (name) DO UPDATE SET position = EXCLUDED.position",
        (name, position),
    )


def hold(connection: Connection[Any], role: str, owner: str, seconds: float) -> bool:
    found = connection.execute(
        "INSERT INTO rasa_core_api_roles AS r (name, owner, until)"
        " VALUES (%s, %s, clock_timestamp() + %s * interval '1 second')"
        " ON CONFLICT (name) DO UPDATE SET owner = EXCLUDED.owner, until = EXCLUDED.until"
        " WHERE r.owner = EXCLUDED.owner OR r.until <= clock_timestamp()",
        (role, owner, seconds),
    )
    return found.rowcount > 0


def sweep(connection: Connection[Any]) -> None:
    """Remove answers that ran out, and conversations that were only claimed."""
    connection.execute("DELETE FROM rasa_core_api_answers WHERE until < clock_timestamp()")
    connection.execute(
        "DELETE FROM rasa_core_api_conversations WHERE NOT present"
        " AND coalesce(claim_until, '-infinity') < clock_timestamp() - interval '1 minute'"
    )
