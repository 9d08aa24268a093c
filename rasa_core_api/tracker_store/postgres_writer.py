"""The thread that writes to PostgreSQL: all that waits goes in with a handful of statements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define

from rasa_core_api.exceptions import ConversationHeld, RasaCoreError, StoreUnavailable
from rasa_core_api.tracker_store.checks import conflict
from rasa_core_api.tracker_store.postgres_jobs import AnyJob, ClaimJob, WriteJob
from rasa_core_api.tracker_store.postgres_notes import clear, columns_of, leave
from rasa_core_api.tracker_store.postgres_session import Session, key_of, unavailable
from rasa_core_api.tracker_store.postgres_statements import CLAIM, EXPLAIN, SHARE_LIST, append_statement
from rasa_core_api.tracker_store.texts import Block
from rasa_core_api.tracker_store.threads import CallJob
from rasa_core_api.tracker_store.turns import FORGOTTEN, NO_NOTE

if TYPE_CHECKING:
    from psycopg import Connection


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
        self.interrupt = self._session.interrupt

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
            rest = [job for job in jobs if not isinstance(job, CallJob)]
            if len(rest) > 1:
                for job in rest:  # claims are taken as often as their owner likes
                    self.run([job])
            else:
                rest[0].result, rest[0].error = None, unavailable(error)
        except psycopg.Error as error:
            self._session.drop()
            failure = unavailable(error)
            for job in jobs:
                job.result, job.error = None, failure

    @staticmethod
    def _call(connection: Connection[Any], job: CallJob) -> None:
        import psycopg

        try:
            job.result = job.function(connection, *job.arguments)
        except RasaCoreError as error:
            job.error = error
        except psycopg.DataError as error:
            job.error = unavailable(error)

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
            "births": [job.birth for job in jobs],
        }
        try:
            done = {key for (key,) in connection.execute(CLAIM, parameters)}
        except psycopg.errors.DeadlockDetected:  # undone as a whole: one by one they cannot meet
            for job in jobs:
                self._claim(connection, [job])
            return
        self._explain(connection, jobs, done)

    @staticmethod
    def _explain(
        connection: Connection[Any], jobs: Sequence[WriteJob] | Sequence[ClaimJob], done: Iterable[bytes]
    ) -> None:
        """Tell those whose change was refused why."""
        refused = {key_of(job.sender_id): job for job in jobs}
        for key in done:
            refused.pop(key, None)
        if not refused:
            return
        found = {key: rest for key, *rest in connection.execute(EXPLAIN, (list(refused),))}
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
            "births": [job.note.birth for job in jobs],
        }
        notes = any(job.note.key is not None or job.note.reminders or job.note.fired is not None for job in jobs)
        if notes:
            parameters.update(columns_of(jobs))
        statement = append_statement(any(job.end == 0 for job in jobs), notes)
        births = dict(connection.execute(statement, parameters).fetchall())
        for key, job in zip(keys, jobs, strict=True):
            if key in births:
                job.result, job.birth = job.end + job.count, births[key]
        if len(births) < len(jobs):
            self._explain(connection, jobs, births)

    def _apply(self, connection: Connection[Any], jobs: Sequence[WriteJob]) -> None:
        keys = {job.sender_id: key_of(job.sender_id) for job in jobs}
        ordered = sorted(keys, key=keys.__getitem__)
        places: dict[str, _Place] = {}
        hidden: dict[str, _Place] = {}  # only claimed
        if any(job.kind == "replace" or (job.kind == "append" and job.end == 0) for job in jobs):
            connection.execute(SHARE_LIST)  # before the rows
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
                if claimed.owner != job.note.owner and claimed.left > 0:
                    job.error = ConversationHeld(job.sender_id, claimed.left)
                elif job.kind == "replace" or (job.end == 0 and not job.note.birth):  # else it is too late
                    found = connection.execute(
                        "UPDATE rasa_core_api_conversations SET id = DEFAULT, present = TRUE WHERE id = %s"
                        " RETURNING id",
                        (claimed.row,),
                    ).fetchone()
                    assert found is not None
                    claimed.row = found[0]
                    places[job.sender_id] = claimed
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
                    clear(connection, keys[job.sender_id])
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
                    note = job.note
                    if job.end != begin or note.start not in (None, place.start) or note.birth not in (0, place.row):
                        conflict(job.sender_id, job.end, begin)
                    job.result, job.birth = begin + job.count, place.row
                else:
                    self._flush(connection, rows, changed)
                    self._remove(connection, place, None)
                    connection.execute("DELETE FROM rasa_core_api_reminders WHERE key = %s", (keys[job.sender_id],))
                    if job.note.forgets:
                        connection.execute(
                            "UPDATE rasa_core_api_answers SET answer = %s WHERE key = %s",
                            (FORGOTTEN, keys[job.sender_id]),
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
                    leave(connection, keys[job.sender_id], job, begin)
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
