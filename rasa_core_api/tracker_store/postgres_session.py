"""A connection to PostgreSQL that is made anew after it broke, and the tables that it finds there."""

from __future__ import annotations

import hashlib
import os
import select
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rasa_core_api.exceptions import InvalidConfiguration, StoreUnavailable

if TYPE_CHECKING:
    from psycopg import Connection

#: The version of the tables; a newer one is refused.
FORMAT = 2
#: Seconds to connect, and for one statement or one lock.
TIME_LIMIT = 10
#: What holds unless the address says otherwise. A connection whose other end is gone without a word is given up after
#: about `TIME_LIMIT`, whether something that was sent is not acknowledged or an answer does not come; the system itself
#: tries for a quarter of an hour.
_DEFAULTS: dict[str, Any] = {
    "connect_timeout": TIME_LIMIT,
    "fallback_application_name": "rasa_core_api",
    "tcp_user_timeout": 1_000 * TIME_LIMIT,
    "keepalives_idle": TIME_LIMIT // 2,
    "keepalives_interval": TIME_LIMIT // 5,
    "keepalives_count": 3,
}
# What stands behind the options of the address. Other levels of isolation refuse whoever waited for a row, where this
# one looks at it again.
_OPTIONS = (
    f"-c statement_timeout={TIME_LIMIT}s -c lock_timeout={TIME_LIMIT}s"
    f" -c idle_in_transaction_session_timeout={TIME_LIMIT}s -c client_encoding=UTF8"
    r" -c default_transaction_isolation=read\ committed"
)
# An answered turn is on the disk, whatever the server's settings become while the connection lasts. Where the options
# did not arrive there is a pooler, which may send each transaction over another connection: a statement that was
# prepared there would be unknown, or somebody else's.
_DURABLE = """
SELECT current_setting('statement_timeout') FROM (
    SELECT set_config('synchronous_commit', CASE setting WHEN 'off' THEN 'on' ELSE setting END, FALSE) AS chosen
    FROM current_setting('synchronous_commit') AS setting
) s WHERE chosen IS NOT NULL
"""
#: Names our lock while tables are created: "RCav".
_LOCK = 0x52436176

# `key` is the SHA-256 of the sender id: an index has no room for ids of 10 kB. A conversation that is not `present` is
# only claimed. The order of all appends is that of the transactions' numbers, then of `position`: a number that is
# below those of all transactions under way is one of the past, so that nothing ever comes before what was read.
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
ALTER TABLE rasa_core_api_conversations
    ADD COLUMN IF NOT EXISTS present BOOLEAN NOT NULL DEFAULT TRUE,
    ADD COLUMN IF NOT EXISTS claim_owner TEXT,
    ADD COLUMN IF NOT EXISTS claim_until TIMESTAMPTZ;
CREATE INDEX IF NOT EXISTS rasa_core_api_claims
    ON rasa_core_api_conversations (claim_owner) WHERE claim_owner IS NOT NULL;
ALTER TABLE rasa_core_api_blocks
    ADD COLUMN IF NOT EXISTS xid XID8 NOT NULL DEFAULT pg_current_xact_id(),
    ADD COLUMN IF NOT EXISTS position BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY;
CREATE INDEX IF NOT EXISTS rasa_core_api_feed ON rasa_core_api_blocks (xid, position);
CREATE TABLE IF NOT EXISTS rasa_core_api_answers (
    key BYTEA NOT NULL,
    request TEXT COLLATE "C" NOT NULL,
    base BIGINT NOT NULL,
    end_seq BIGINT NOT NULL,
    done BOOLEAN NOT NULL,
    answer TEXT NOT NULL,
    until TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (key, request)
);
CREATE INDEX IF NOT EXISTS rasa_core_api_answers_by_end ON rasa_core_api_answers (until);
CREATE TABLE IF NOT EXISTS rasa_core_api_reminders (
    key BYTEA NOT NULL,
    name_key BYTEA NOT NULL,
    sender_id TEXT NOT NULL,
    name TEXT NOT NULL,
    due DOUBLE PRECISION NOT NULL,
    seq BIGINT NOT NULL,
    channel TEXT,
    PRIMARY KEY (key, name_key)
);
CREATE INDEX IF NOT EXISTS rasa_core_api_reminders_by_time ON rasa_core_api_reminders (due);
CREATE TABLE IF NOT EXISTS rasa_core_api_cursors (name TEXT PRIMARY KEY, position TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rasa_core_api_roles (
    name TEXT PRIMARY KEY, owner TEXT NOT NULL, until TIMESTAMPTZ NOT NULL
);
"""

# Whether there is what only a transaction that is still to come could have written: the numbers are those of the server
# that the tables were dumped from.
_RESTORED = """
SELECT EXISTS (SELECT FROM rasa_core_api_blocks WHERE xid >= pg_snapshot_xmax(pg_current_snapshot()))
"""
# What is there gets numbers below those of all transactions: how many cursors it is beyond. Each cursor stays where it
# was; between two of them the order is that of positions, in which those of one conversation are in order.
_RENUMBER = """
WITH cursor AS (
    SELECT split_part(position, '-', 1)::xid8 AS xid, split_part(position, '-', 2)::bigint AS position
    FROM rasa_core_api_cursors
)
UPDATE rasa_core_api_blocks b SET xid =
    (SELECT count(*) FROM cursor WHERE (cursor.xid, cursor.position) < (b.xid, b.position))::text::xid8;
UPDATE rasa_core_api_cursors c SET position = (
    SELECT count(*) FROM rasa_core_api_cursors o
    WHERE (split_part(o.position, '-', 1)::xid8, split_part(o.position, '-', 2)::bigint)
        < (split_part(c.position, '-', 1)::xid8, split_part(c.position, '-', 2)::bigint)
) || '-9223372036854775807'
"""


def key_of(sender_id: str) -> bytes:
    return hashlib.sha256(sender_id.encode()).digest()


def unavailable(error: Exception) -> StoreUnavailable:
    """What a failure of the database means to a client; its text may hold data, its class does not."""
    return StoreUnavailable(f"The conversation store cannot be used: {type(error).__name__}.")


def _not_opened(error: Exception) -> StoreUnavailable:
    """Why the tables cannot be used, in the database's own words: nothing of a conversation was asked yet."""
    words = " ".join(str(error).split())[:500].rstrip(".")
    return StoreUnavailable(f"The conversation store cannot be used: {words or type(error).__name__}.")


def _check_address(url: str) -> None:
    """Raises `InvalidConfiguration` for what libpq cannot read; of its words none that may be a password's."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        words = str(error).strip()
        reason = f": {words}" if words.startswith(("invalid connection option", "invalid URI query parameter")) else ""
        raise InvalidConfiguration(
            f"tracker_store.url: this is no connection string of libpq, such as postgresql://bot@localhost/bot{reason}"
        ) from None


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
        from psycopg.conninfo import conninfo_to_dict

        found = self._connection
        if found is not None and _has_news(found.fileno()):
            self.drop()  # an idle server says nothing, unless it closes
            found = None
        if found is None or found.closed:
            chosen = conninfo_to_dict(self._url)
            options = chosen.pop("options", None) or os.environ.get("PGOPTIONS", "")
            found = self._connection = psycopg.connect(
                self._url,
                autocommit=True,
                options=f"{options} {_OPTIONS}",
                **{name: value for name, value in _DEFAULTS.items() if name not in chosen},
            )
            if found.execute(_DURABLE).fetchall() != [(f"{TIME_LIMIT}s",)]:
                found.prepare_threshold = None
        return found

    def drop(self) -> None:
        """Close the connection after an error that may have broken it."""
        found, self._connection = self._connection, None
        if found is not None:
            found.close()

    def interrupt(self) -> None:
        """Called by another thread: have a statement fail whose server says nothing any more.

        The server's own time limit is of no use where it hangs, or where its host is gone without a word.
        """
        import psycopg

        found = self._connection
        if found is not None and not found.closed:
            with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(found.fileno())) as shared:
                shared.shutdown(socket.SHUT_RDWR)

    def prepare(self) -> None:
        """Create the tables, unless they are there.

        Raises `InvalidConfiguration` for a wrong address, and for tables of a newer version. Where they are there
        nothing is locked that a dump or a long query may hold: other processes, which serve, would wait behind this
        one. Nor does it take the right to create tables.
        """
        import psycopg

        _check_address(self._url)
        try:
            connection = self.connection()
            _check_encoding(connection)
            if _format(connection) != FORMAT:
                _create(connection)
            elif connection.execute(_RESTORED).fetchall() == [(True,)]:
                _renumber(connection)
        except psycopg.Error as error:
            self.drop()
            raise _not_opened(error) from error


def _check_encoding(connection: Connection[Any]) -> None:
    found = connection.info.parameter_status("server_encoding")
    if found not in ("UTF8", "SQL_ASCII", None):  # the last where a pooler does not tell
        raise InvalidConfiguration(
            f"tracker_store.url: the database is kept in {found}, which does not have all characters; it takes one with"
            " the encoding UTF8"
        )


def _format(connection: Connection[Any]) -> int | None:
    """The version of the tables; None where there are none. Raises `InvalidConfiguration`."""
    if connection.execute("SELECT to_regclass('rasa_core_api_format')").fetchall() == [(None,)]:
        return None
    found = connection.execute("SELECT version FROM rasa_core_api_format").fetchone()
    if found is not None and found[0] > FORMAT:
        raise InvalidConfiguration(
            f"tracker_store.url: the tables were made by a newer version of this program"
            f" (format {found[0]}, known: {FORMAT})"
        )
    return None if found is None else int(found[0])


def _create(connection: Connection[Any]) -> None:
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        found = _format(connection)
        if found == FORMAT:  # another process was faster
            return
        connection.execute("SET LOCAL statement_timeout = 0")  # older tables are rewritten
        for statement in _TABLES.split(";"):
            if statement.strip():
                connection.execute(statement.encode())
        if found is None:
            connection.execute("INSERT INTO rasa_core_api_format VALUES (%s)", (FORMAT,))
        else:
            connection.execute("UPDATE rasa_core_api_format SET version = %s", (FORMAT,))


def _renumber(connection: Connection[Any]) -> None:
    """Let what a dump brought come before all that is appended here, where transactions are counted from the start."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        if connection.execute(_RESTORED).fetchall() == [(True,)]:
            connection.execute("SET LOCAL statement_timeout = 0")
            for statement in _RENUMBER.split(";"):
                connection.execute(statement.encode())
