"""What only the store in MongoDB does, and what is read of the historical one. The contract is tested elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor

from rasa_core_api.exceptions import ConversationHeld, InvalidConfiguration, StoreConflict, StoreUnavailable
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.historical_mongo import HistoricalMongo
from rasa_core_api.tracker_store.mongo import MongoStore, client_factory, connect_with
from rasa_core_api.tracker_store.mongo_tables import MongoTables, key_of
from rasa_core_api.tracker_store.settings import Settings
from rasa_core_api.tracker_store.turns import NO_NOTE, TurnNote

from .conftest import Servers
from .stores import slots, stored_events, texts, wait

mongomock = pytest.importorskip("mongomock")
pytest.importorskip("pymongo")


@pytest.fixture
def tables() -> MongoTables:
    made = MongoTables(mongomock.MongoClient()["db"])
    made.prepare()
    return made


def test_writer_between_look_and_write(tables: MongoTables, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two writers who saw the same end the index lets one in, whatever happens between its look and its write."""
    tables.append("a", 0, "{}", 1, 1.0, NO_NOTE)
    bounds = tables._bounds(key_of("a"))
    tables.append("a", 1, "{}", 1, 1.0, NO_NOTE)
    monkeypatch.setattr(tables, "_bounds", lambda key: bounds)
    with pytest.raises(StoreConflict):
        tables.append("a", 1, "{}", 1, 1.0, NO_NOTE)


def test_claim_between_look_and_write(tables: MongoTables, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that comes between a writer's look and its write refuses it."""
    tables.claim("a", 0, "one", None, 60.0)
    monkeypatch.setattr(tables, "_check_claims", lambda *_: None)
    with pytest.raises(ConversationHeld):
        tables.append("a", 0, "{}", 1, 1.0, TurnNote(owner="two"))
    assert tables.append("a", 0, "{}", 1, 1.0, TurnNote(owner="one")) == 1


def test_lost_beginning_is_found_again(tables: MongoTables) -> None:
    """A process that dies between a conversation's first block and its entry in the list loses nothing."""
    tables.append("a", 0, "{}", 1, 1.0, NO_NOTE)
    tables.conversations.delete_many({})
    found = tables.read("a", 0, None)
    assert found is not None and found[:4] == (0, 1, 0, ["{}"])
    assert tables.append("a", 1, "{}", 1, 1.0, NO_NOTE) == 2
    assert tables.names(None, None, "") == ["a"]
    tables.append("b", 0, "{}", 1, 1.0, NO_NOTE)
    tables.conversations.delete_one({"_id": key_of("b")})
    assert tables.names(None, None, "") == ["a"]
    tables.sweep()
    assert tables.names(None, None, "") == ["a", "b"]


def test_two_that_begin_at_once(tables: MongoTables, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each conversation gets a place behind all that are seen, so that whoever lists on from there misses none."""
    tables.append("a", 0, "{}", 1, 1.0, NO_NOTE)
    look = tables._last_row
    raced: list[int] = []

    def late() -> int:
        found = look()
        if not raced:
            raced.append(found)
            tables.append("b", 0, "{}", 1, 1.0, NO_NOTE)  # faster
        return found

    monkeypatch.setattr(tables, "_last_row", late)
    tables.append("c", 0, "{}", 1, 1.0, NO_NOTE)
    assert raced == [1]
    assert tables.names("a", None, "") == ["b", "c"]
    assert tables.delete("c")
    tables.append("d", 0, "{}", 1, 1.0, NO_NOTE)
    assert tables.names("b", None, "") == ["d"]


def test_deletion_while_somebody_looks(tables: MongoTables, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who saw a conversation just before it was deleted does not list it again."""
    tables.append("a", 0, "{}", 1, 1.0, NO_NOTE)
    seen = [tables._last(key_of("a"))]
    tables.delete("a")
    monkeypatch.setattr(tables, "_last", lambda key: seen.pop() if seen else None)
    tables._bounds(key_of("a"))
    assert tables.names(None, None, "") == []


def test_rest_of_a_replaced_log(tables: MongoTables) -> None:
    """A process that dies before it has removed the old log leaves blocks that nobody sees."""
    tables.append("a", 0, "{}", 1, 1.0, NO_NOTE)
    old = tables.blocks.find_one({"key": key_of("a")})
    assert tables.replace("a", "[]", 1, 1.0, NO_NOTE) == (1, 2)
    tables.blocks.insert_one(old)
    found = tables.read("a", 0, None)
    assert found is not None and found[:4] == (1, 2, 1, ["[]"])


def test_too_much_at_once(tables: MongoTables, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no document holds is refused as a whole, and says so."""
    monkeypatch.setattr("rasa_core_api.tracker_store.mongo_tables.MAX_APPEND", 100)
    with pytest.raises(StoreUnavailable, match="MongoDB takes no more"):
        tables.append("a", 0, "x" * 101, 1, 1.0, NO_NOTE)
    assert tables.read("a", 0, None) is None


def test_feed_waits_before_a_gap() -> None:
    """An append that has its place and is not there yet is waited for; one that never comes is passed over."""
    now = [1000.0]
    tables = MongoTables(mongomock.MongoClient()["db"], lambda: now[0])
    tables.append("a", 0, "{}", 1, 1.0, NO_NOTE)
    assert tables._count("position") == 2  # of somebody who is about to write
    tables.append("b", 0, "{}", 1, 1.0, NO_NOTE)
    assert [entry[1] for entry in tables.feed(None, 10)] == ["a"]
    now[0] += 11
    assert [entry[1] for entry in tables.feed(None, 10)] == ["a", "b"]


def test_sweep(tables: MongoTables) -> None:
    """Answers that ran out go; the events that they came with stay."""
    tables.append("a", 0, "{}", 1, 1.0, TurnNote(key="k", keep=-1.0))
    tables.append("a", 1, "", 0, 0.0, TurnNote(key="l", keep=-1.0))
    tables.sweep()
    assert tables.answers.count_documents({}) == tables.blocks.count_documents({"note": {"$exists": True}}) == 0
    found = tables.read("a", 0, None)
    assert found is not None and found[:4] == (0, 1, 0, ["{}"])


def test_nobody_there() -> None:
    """Where no server answers the store cannot be opened, and says what it cannot do."""
    connect = client_factory("mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=50", "user", "secret", "admin")
    store = MongoStore(reactor, stored_events(), connect)
    with pytest.raises(StoreUnavailable) as refused:
        wait(store.open())
    assert "secret" not in str(refused.value)
    assert "127.0.0.1:1: [Errno 111] Connection refused." in str(refused.value)
    with pytest.raises(StoreUnavailable):
        wait(store.read("a"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "http://localhost"}, "tracker_store.url: Invalid URI scheme"),
        ({"url": "mongodb://localhost:99999"}, "tracker_store.url: Port must be"),
        ({"url": "mongodb://u:geheim@@h"}, "tracker_store.url: Username and password must be escaped"),
        ({"username": "u"}, "tracker_store.password: "),
        ({"password": "geheim"}, "tracker_store.username: "),
        ({"db": "a b"}, "tracker_store.db: "),
    ],
)
def test_settings_that_the_client_refuses(settings: dict[str, str], words: str) -> None:
    """What MongoDB's client does not take is refused by key and reason, never with a password in it."""
    with pytest.raises(InvalidConfiguration, match=words) as refused:
        connect = connect_with(Settings(settings, "tracker_store"))
        wait(MongoStore(reactor, stored_events(), connect, settings.get("db", "rasa")).open())
    assert "geheim" not in str(refused.value)


def test_where_credentials_are_looked_up() -> None:
    """`auth_source` counts for credentials in the URL as well."""
    url = "mongodb://u:secret@127.0.0.1:1/?serverSelectionTimeoutMS=50"
    client = connect_with(Settings({"url": url, "auth_source": "users"}, "tracker_store"))()
    assert client.options._options["authsource"] == "users"
    client.close()


def test_historical_documents(tmp_path: Path) -> None:
    """Documents of the historical store come with their ids as texts; what has no events is there to be told."""
    client = mongomock.MongoClient()
    event = {"event": "slot", "name": "x", "value": 1, "timestamp": 1.5}
    documents: list[dict[str, Any]] = [{"sender_id": 17, "events": [event]}, {"sender_id": "b"}]
    documents += [{"sender_id": f"c{number}", "events": []} for number in range(150)]
    client["rasa"]["conversations"].insert_many(documents)
    source = HistoricalMongo(reactor, lambda: client, "rasa", "conversations")

    async def read() -> list[tuple[str, bytes]]:
        await source.open()
        try:
            return [item async for item in source.conversations(b"")]
        finally:
            await source.close()

    found = wait(read())
    assert len(found) == 152
    assert found[0][0] == "17" and json.loads(found[0][1]) == [event]
    assert found[1] == ("b", b"null")


def test_two_stores_on_one_database(servers: Servers, make_store: Any) -> None:
    """What one process writes another one sees."""
    one: TrackerStore = make_store("mongod")
    two = servers.make("mongod", Path())
    wait(two.open())
    wait(one.append("a", 0, slots(1)))
    tail = wait(two.read("a"))
    assert tail is not None and texts(tail.events) == texts(slots(1))
    wait(two.close())
