"""Events in a table of an SQL database, by SQLAlchemy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from rasa_core_api.brokers import BrokerFailed, EventBroker, Message, MessageRefused
from rasa_core_api.brokers.threads import Runner

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine, Table

TABLE = "events"
#: Characters of what a database says that are told.
_MAX_REASON = 300


def _digest(message: Message) -> str:
    """Tells a repeat from another event: also from one with the same number, of a conversation that began anew."""
    return sha256(f"{message.sender_id}\0{message.seq}\0{message.body}".encode()).hexdigest()


class SqlBroker(EventBroker):
    """Inserts events with their conversation and number; a repeat leaves one row."""

    name = "sql"

    def __init__(self, url: URL, run: Runner) -> None:
        self._url = url
        self._run = run
        self._engine: Engine | None = None
        self._table: Table | None = None

    async def open(self) -> None:
        await self._try(self._prepare)

    async def publish(self, messages: Sequence[Message]) -> None:
        from sqlalchemy.exc import DataError

        try:
            await self._try(lambda: self._insert(messages))
        except DataError as error:
            kind = type(error.orig).__name__  # its text may hold what was said
            if len(messages) == 1:
                raise MessageRefused(f"the table does not hold it: {kind}") from error
            raise BrokerFailed(f"{self._url.host or self._url.database}: {kind}") from error

    async def _try(self, work: Callable[[], None]) -> None:
        from sqlalchemy.exc import OperationalError, ProgrammingError

        try:
            await self._run(work)
        except (OperationalError, ProgrammingError) as error:  # about connections, rights and tables
            reason = str(error.orig).strip().partition("\n")[0][:_MAX_REASON]
            raise BrokerFailed(f"{self._url.host or self._url.database}: {reason}") from error

    async def close(self) -> None:
        await self._run(self._dispose)

    def _prepare(self) -> None:
        import sqlalchemy as sql

        self._dispose()
        self._engine = sql.create_engine(self._url, pool_size=1, poolclass=sql.QueuePool, hide_parameters=True)
        identifier = sql.BigInteger().with_variant(sql.Integer(), "sqlite")
        table = self._table = sql.Table(
            TABLE,
            sql.MetaData(),
            sql.Column("id", identifier, primary_key=True, autoincrement=True),
            sql.Column("sender_id", sql.Text, nullable=False),
            sql.Column("seq", sql.BigInteger, nullable=False),
            sql.Column("data", sql.Text, nullable=False),
            sql.Column("digest", sql.String(64), nullable=False, unique=True),
        )
        table.create(self._engine, checkfirst=True)

    def _insert(self, messages: Sequence[Message]) -> None:
        import sqlalchemy as sql

        engine, table = self._engine, self._table
        assert engine is not None and table is not None
        rows: dict[str, dict[str, Any]] = {}
        for message in messages:
            row = {"sender_id": message.sender_id, "seq": message.seq, "data": message.body}
            rows[_digest(message)] = row
        with engine.begin() as connection:
            known = set(connection.scalars(sql.select(table.c.digest).where(table.c.digest.in_(list(rows)))))
            new = [{**row, "digest": digest} for digest, row in rows.items() if digest not in known]
            if new:
                connection.execute(table.insert(), new)

    def _dispose(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None
