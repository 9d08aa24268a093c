"""What PostgreSQL keeps beside the logs: answers, reminders, claims, positions and roles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rasa_core_api.tracker_store.postgres_jobs import WriteJob
from rasa_core_api.tracker_store.postgres_session import key_of
from rasa_core_api.tracker_store.turns import Reminder

if TYPE_CHECKING:
    from psycopg import Connection


def written(name: str) -> str:
    """A reminder's name as a text of PostgreSQL, which knows no NUL."""
    return name.replace("\x1b", "\x1b1").replace("\0", "\x1b0")


def reminder_of(sender_id: str, name: str, due: float, seq: int, channel: str | None) -> Reminder:
    """A reminder from its row."""
    return Reminder(sender_id, name.replace("\x1b0", "\0").replace("\x1b1", "\x1b"), due, seq, channel)


def columns_of(jobs: Sequence[WriteJob]) -> dict[str, list[Any]]:
    """What the notes of appends say, as the columns that the statement takes."""
    answers = [
        (key_of(job.sender_id), note.key, note.base, job.end + job.count, note.done, note.answer, note.keep)
        for job in jobs
        if (note := job.note).key is not None
    ]
    reminders = [
        (key_of(job.sender_id), key_of(each.name), job.sender_id, written(each.name), each.due, each.seq, each.channel)
        for job in jobs
        for each in job.note.reminders
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


def leave(connection: Connection[Any], key: bytes, job: WriteJob, begin: int) -> None:
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
            (key, key_of(found.name), job.sender_id, written(found.name), found.due, found.seq, found.channel),
        )
    if note.fired is not None:
        forget(connection, note.fired)


def clear(connection: Connection[Any], key: bytes) -> None:
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
