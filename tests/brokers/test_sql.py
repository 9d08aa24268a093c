"""Tests of events in an SQL table."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from rasa_core_api.brokers.factory import create_broker
from rasa_core_api.brokers.sql import SqlBroker
from tests.brokers.test_file import do, inline, messages

sqlalchemy = pytest.importorskip("sqlalchemy")


@pytest.fixture
def broker(tmp_path: Path) -> SqlBroker:
    return SqlBroker(sqlalchemy.make_url(f"sqlite:///{tmp_path / 'events.db'}"), inline)


@pytest.fixture
def rows(tmp_path: Path) -> Callable[[], list[tuple[str, int, str]]]:
    def read() -> list[tuple[str, int, str]]:
        connection = sqlite3.connect(tmp_path / "events.db")
        try:
            return connection.execute("SELECT sender_id, seq, data FROM events ORDER BY id").fetchall()
        finally:
            connection.close()

    return read


def test_a_row_an_event(broker: SqlBroker, rows: Callable[[], list[tuple[str, int, str]]]) -> None:
    """Each event is a row; what comes again leaves one, also after a new connection."""
    do(broker.open())
    do(broker.publish(messages(0, 1)))
    do(broker.close())
    do(broker.open())
    do(broker.publish(messages(1, 2)))
    do(broker.close())
    assert [(sender, seq) for sender, seq, _ in rows()] == [("ü", 0), ("ü", 1), ("ü", 2)]
    assert json.loads(rows()[0][2])["value"] == "ä\n"


def test_a_conversation_that_began_anew(
    broker: SqlBroker, rows: Callable[[], list[tuple[str, int, str]]]
) -> None:
    """Numbers that come again with other events are no repeats."""
    do(broker.open())
    do(broker.publish(messages(0)))
    (again,) = messages(0)
    do(broker.publish([type(again)("ü", 0, again.body.replace("1.0", "2.0"))]))
    do(broker.close())
    assert [seq for _, seq, _ in rows()] == [0, 0]


def test_settings() -> None:
    """The keys of the endpoint file become one address; what is unknown is named."""
    from twisted.internet.task import Clock

    from rasa_core_api.exceptions import InvalidConfiguration

    made = create_broker({"type": "sql", "dialect": "sqlite", "db": "x.db"}, reactor=Clock())
    assert isinstance(made, SqlBroker) and str(made._url) == "sqlite:///x.db"
    with pytest.raises(InvalidConfiguration, match=r"event_broker.dialect: there is no such dialect"):
        create_broker({"type": "sql", "dialect": "nonsense"}, reactor=Clock())
