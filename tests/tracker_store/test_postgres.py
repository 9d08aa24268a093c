from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from time import monotonic, sleep
from typing import Any, cast

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from rasa_core_api.exceptions import ConversationHeld, InvalidConfiguration, StoreConflict, StoreUnavailable
from rasa_core_api.tracker_store import TrackerStore, postgres_session
from rasa_core_api.tracker_store.postgres import PostgresStore
from rasa_core_api.tracker_store.postgres_jobs import ClaimJob, WriteJob
from rasa_core_api.tracker_store.postgres_notes import hold
from rasa_core_api.tracker_store.postgres_reader import LookJob, look
from rasa_core_api.tracker_store.postgres_session import Session, key_of
from rasa_core_api.tracker_store.postgres_statements import SHARE_LIST, append_statement
from rasa_core_api.tracker_store.postgres_writer import Writer
from rasa_core_api.tracker_store.threads import CallJob
from rasa_core_api.tracker_store.turns import TurnNote

from .conftest import Servers
from .servers import free_port
from .stores import slots, stored_events, texts, wait

psycopg = pytest.importorskip("psycopg")

_SHOWN = "search_path", "lock_timeout", "application_name"


def opened(servers: Servers) -> PostgresStore:
    store = PostgresStore(servers.postgres_url(), reactor, stored_events())
    wait(store.open())
    return store


def emptied(servers: Servers) -> PostgresStore:
    store = opened(servers)
    servers.erase(store)
    return store


def test_no_server() -> None:
    """Where nothing listens the store does not open."""
    store: TrackerStore = PostgresStore(f"postgresql://127.0.0.1:{free_port()}/x", reactor, stored_events())
    with pytest.raises(StoreUnavailable, match="Connection refused"):
        wait(store.open())


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("geheim", "such as postgresql://bot@localhost/bot$"),
        ("host=h prt=5 password=geheim", 'invalid connection option "prt"$'),
        ("postgresql://u:geheim@h/x?sslmod=require", 'invalid URI query parameter: "sslmod"$'),
        ("postgresql://u:geheim%zz@h/x", "such as postgresql://bot@localhost/bot$"),
    ],
)
def test_no_address(url: str, words: str) -> None:
    """What is no connection string is refused by its key, and not repeated, since a password may be in it."""
    with pytest.raises(InvalidConfiguration, match=f"^tracker_store.url: .*{words}") as refused:
        wait(PostgresStore(url, reactor, stored_events()).open())
    assert "geheim" not in str(refused.value)


def test_the_servers_own_reason(servers: Servers) -> None:
    """Why a server lets nobody in is told in its own words."""
    nowhere = servers.postgres_url().rpartition("/")[0] + "/nowhere"
    with pytest.raises(StoreUnavailable, match='database "nowhere" does not exist'):
        wait(PostgresStore(nowhere, reactor, stored_events()).open())


def test_options_in_the_address(servers: Servers) -> None:
    """What the address says of the session counts: the schema that the tables are made in, the program's name."""
    url = servers.postgres_url()
    session = Session(f"{url}?options=-csearch_path%3Dnone&application_name=bot")
    shown = [session.connection().execute(f"SHOW {name}").fetchone() for name in ("search_path", "application_name")]
    assert shown == [("none",), ("bot",)]
    assert session.connection().execute("SHOW statement_timeout").fetchone() == ("10s",)
    session.drop()
    with pytest.raises(StoreUnavailable, match="no schema has been selected to create in"):
        wait(PostgresStore(f"{url}?options=-csearch_path%3Dnone", reactor, stored_events()).open())


def test_group_is_one_transaction(servers: Servers) -> None:
    """What waits is committed together; conflicts, and a deletion in between, concern their own job only."""
    wait(emptied(servers).close())
    writer = Writer(servers.postgres_url())
    writer.open()
    block = [(0, 1, 1.0, "{}")]
    jobs = [WriteJob("append", f"s{number}", 0, 1, block) for number in range(50)]
    jobs += [
        WriteJob("append", "s1", 1, 1, block),
        WriteJob("append", "s1", 1, 1, block),
        WriteJob("replace", "s1", 0, 1, block),
        WriteJob("append", "s1", 3, 1, block),
        WriteJob("delete", "s2"),
        WriteJob("append", "s2", 0, 1, block),
        WriteJob("delete", "nobody"),
        WriteJob("append", "nobody", 7, 1, block),
    ]
    with psycopg.connect(servers.postgres_url(), autocommit=True) as other:
        before = other.execute("SELECT txid_current()").fetchone()
        writer.run(jobs)
        after = other.execute("SELECT txid_current()").fetchone()
        assert before is not None and after is not None and after[0] - before[0] == 2  # one of them is our own
    writer.close()
    assert [job.result for job in jobs[:51]] == [1] * 50 + [2]
    assert isinstance(jobs[51].error, StoreConflict)
    assert [job.result for job in jobs[52:57]] == [(2, 3), 4, True, 1, False]
    assert isinstance(jobs[57].error, StoreConflict)


def test_an_append_that_is_too_late_begins_nothing(servers: Servers) -> None:
    """A turn whose conversation was deleted, and is claimed for a new one, does not make that one be there."""
    store = emptied(servers)
    writer = Writer(servers.postgres_url())
    writer.open()
    block, mine = [(0, 1, 1.0, "{}")], TurnNote(owner="me")
    writer.run([ClaimJob(name, 0, "me", 60.0) for name in ("a", "b")])
    writer.run(
        jobs := [
            WriteJob("append", "a", 5, 1, block, mine),
            WriteJob("append", "b", 0, 1, block, TurnNote(owner="me", birth=1 << 40)),
            WriteJob("replace", "c", 0, 1, block, mine),
        ]
    )
    assert [type(job.error) for job in jobs] == [StoreConflict, StoreConflict, type(None)]
    assert wait(store.sender_ids()) == ["c"]
    writer.run([WriteJob("append", "a", 0, 1, block, mine), WriteJob("delete", "c")])
    assert wait(store.sender_ids()) == ["a"]
    writer.close()
    wait(store.close())


def test_appends_are_one_statement(servers: Servers) -> None:
    """Appends to different conversations are one transaction, whether they are known, new, empty or in conflict."""
    wait(emptied(servers).close())
    writer = Writer(servers.postgres_url())
    writer.open()
    block = [(0, 1, 1.0, "{}")]
    writer.run([WriteJob("append", "known", 0, 1, block), WriteJob("append", "empty", 0, 0)])
    jobs = [
        WriteJob("append", "known", 1, 2, [(0, 1, 1.0, "{}"), (1, 1, 1.0, "{}")]),
        WriteJob("append", "empty", 0, 1, block),
        WriteJob("append", "new", 0, 1, block),
        WriteJob("append", "gone", 4, 1, block),
        WriteJob("append", "new but empty", 0),
    ]
    with psycopg.connect(servers.postgres_url(), autocommit=True) as other:
        before = other.execute("SELECT txid_current()").fetchone()
        writer.run(jobs)
        after = other.execute("SELECT txid_current()").fetchone()
        assert before is not None and after is not None and after[0] - before[0] == 2
        assert other.execute("SELECT count(*) FROM rasa_core_api_blocks").fetchone() == (5,)
    writer.run(again := [WriteJob("append", "known", 1, 1, block), WriteJob("append", "new", 0, 1, block)])
    writer.close()
    assert [job.result for job in jobs] == [3, 1, 1, None, 0]
    assert [type(job.error) for job in [jobs[3], *again]] == [StoreConflict] * 3
    assert [job.error.details["found"] for job in [jobs[3], *again] if job.error is not None] == [None, 3, 1]  # type: ignore[attr-defined]


def test_lost_connections(servers: Servers) -> None:
    """Connections that the server closed are made anew, unseen by those who talk."""
    store = emptied(servers)
    wait(store.append("a", 0, slots(1)))
    with psycopg.connect(servers.postgres_url(), autocommit=True) as other:
        # waits until the server has closed each of them
        other.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'rasa_core_api'"
        )
    assert wait(store.append("a", 1, slots(2))) == 2
    tail = wait(store.read("a"))
    assert tail is not None and texts(tail.events) == texts(slots(1, 2))
    wait(store.close())


def test_two_processes_hammer_the_same_conversations(servers: Servers) -> None:
    """Two stores that write to the same conversations never overwrite, and never wait for each other for ever."""
    first, second = emptied(servers), opened(servers)
    won: dict[tuple[str, int], int] = {}

    async def write(store: PostgresStore, name: str) -> None:
        end = 0
        while end < 20:
            try:
                new = await store.append(name, end, slots(f"{end}"))
            except StoreConflict:
                tail = await store.read(name, 1_000)
                assert tail is not None
                end = tail.end
            else:
                won[name, end] = won.get((name, end), 0) + 1
                end = new

    async def both() -> None:
        work = [write(store, f"s{number}") for store in (first, second) for number in range(10)]
        await gatherResults([Deferred.fromCoroutine(one) for one in work])

    wait(both())
    assert set(won.values()) == {1} and len(won) == 200
    for number in range(10):
        tail = wait(first.read(f"s{number}"))
        assert tail is not None and texts(tail.events) == texts(slots(*(f"{end}" for end in range(20))))
    wait(first.close())
    wait(second.close())


def test_newer_tables(servers: Servers) -> None:
    """Tables that a newer version made are refused by the key of the address."""
    wait(opened(servers).close())
    with psycopg.connect(servers.postgres_url(), autocommit=True) as other:
        other.execute("UPDATE rasa_core_api_format SET version = 99")
        try:
            with pytest.raises(InvalidConfiguration, match=r"tracker_store\.url.*newer"):
                opened(servers)
        finally:
            other.execute("UPDATE rasa_core_api_format SET version = 1")


def test_feed_waits_for_transactions_under_way(servers: Servers) -> None:
    """An append whose transaction began earlier and ends later is not passed over."""
    store = emptied(servers)
    begin = wait(store.feed_end())
    wait(store.append("early", 0, slots(0)))
    with psycopg.connect(servers.postgres_url()) as slow:
        slow.execute(
            "INSERT INTO rasa_core_api_blocks (conversation, seq, count, at, events)"
            " SELECT id, 1, 1, 1.5, '{\"event\": \"restart\", \"timestamp\": 1.5}' FROM rasa_core_api_conversations"
        )
        wait(store.append("late", 0, slots(1)))
        seen = wait(store.feed(begin, 10))
        assert "late" not in [entry.sender_id for entry in seen]
        slow.execute("UPDATE rasa_core_api_conversations SET end_seq = 2 WHERE sender_id = 'early'")
        slow.commit()
        after = seen[-1].position if seen else begin
        seen += wait(store.feed(after, 10))
    assert [(entry.sender_id, entry.seq) for entry in seen] == [("early", 0), ("early", 1), ("late", 0)]
    wait(store.close())


def test_list_waits_for_conversations_that_begin(servers: Servers) -> None:
    """Who lists on behind a conversation does not miss one whose transaction began earlier and ends later."""
    store = emptied(servers)
    with psycopg.connect(servers.postgres_url()) as slow:
        parameters = {
            "keys": [key_of("slow")], "names": ["slow"], "ends": [0], "new": [1], "owners": [key_of("slow")],
            "seqs": [0], "counts": [1], "times": [1.0], "texts": "{}", "claimants": [""], "over": [True],
            "firsts": [None], "births": [0],
        }  # fmt: skip
        slow.execute(append_statement(True, False), parameters)
        wait(store.append("quick", 0, slots(1)))
        listing = store.sender_ids()
        ended = deferLater(reactor, 0.2, slow.commit)
        assert wait(listing) == ["slow", "quick"]
        assert ended.called
    wait(store.close())


def test_list_does_not_wait_for_one_that_is_stuck(servers: Servers) -> None:
    """A process that sleeps in the middle of its transaction keeps nobody from listing for long."""
    store = emptied(servers)
    wait(store.append("known", 0, slots(1)))
    with psycopg.connect(servers.postgres_url()) as stuck:
        stuck.execute(SHARE_LIST)
        assert wait(store.sender_ids()) == ["known"]
    wait(store.close())


def test_tables_of_the_first_format(servers: Servers) -> None:
    """Tables without claims, answers and an order of appends get them; the logs stay."""
    wait(emptied(servers).close())
    with psycopg.connect(servers.postgres_url()) as connection:
        connection.execute("DROP TABLE rasa_core_api_answers, rasa_core_api_reminders, rasa_core_api_cursors")
        connection.execute("ALTER TABLE rasa_core_api_blocks DROP COLUMN xid, DROP COLUMN position")
        connection.execute(
            "ALTER TABLE rasa_core_api_conversations DROP COLUMN present, DROP COLUMN claim_owner,"
            " DROP COLUMN claim_until"
        )
        connection.execute("UPDATE rasa_core_api_format SET version = 1")
        connection.execute(
            "INSERT INTO rasa_core_api_conversations (key, sender_id, first_seq, end_seq)"
            " VALUES (sha256('old'), 'old', 0, 1)"
        )
        connection.execute(
            "INSERT INTO rasa_core_api_blocks (conversation, seq, count, at, events)"
            " SELECT id, 0, 1, 1.5, %s FROM rasa_core_api_conversations",
            (texts(slots("kept"))[0],),
        )
    store = opened(servers)
    wait(store.append("old", 1, slots("new")))
    assert texts(wait(store.read("old")).events) == texts(slots("kept", "new"))  # type: ignore[union-attr]
    assert [entry.seq for entry in wait(store.feed(None, 10))] == [0, 1]
    with psycopg.connect(servers.postgres_url()) as connection:
        assert connection.execute("SELECT version FROM rasa_core_api_format").fetchall() == [(2,)]
    wait(store.close())


def test_start_beside_a_long_reader(servers: Servers) -> None:
    """A process that starts while the database is dumped neither waits nor makes those that serve wait."""
    served = emptied(servers)
    wait(served.append("a", 0, slots(1)))
    with psycopg.connect(servers.postgres_url()) as dump:
        dump.execute("LOCK TABLE rasa_core_api_conversations, rasa_core_api_blocks IN ACCESS SHARE MODE")
        began = monotonic()
        wait(opened(servers).close())
        assert monotonic() - began < 5
    wait(served.close())


def test_user_who_may_not_create_tables(servers: Servers) -> None:
    """Where somebody else made the tables, rights to read and write their rows are enough."""
    wait(emptied(servers).close())
    with psycopg.connect(servers.postgres_url(), autocommit=True) as owner:
        owner.execute("CREATE ROLE bot LOGIN")
        try:
            owner.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO bot")
            store = PostgresStore(servers.postgres_url().replace("tests@", "bot@"), reactor, stored_events())
            wait(store.open())
            assert wait(store.append("a", 0, slots(1, 2))) == 2
            assert wait(store.delete("a"))
            wait(store.close())
        finally:
            owner.execute("DROP OWNED BY bot")
            owner.execute("DROP ROLE bot")


def test_options_of_the_address(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the address, or libpq's environment, asks of the server holds; what the store needs goes before it."""
    with psycopg.connect(servers.postgres_url(), autocommit=True) as other:
        other.execute("CREATE SCHEMA IF NOT EXISTS bot")
        try:
            session = Session(servers.postgres_url() + "?options=-csearch_path%3Dbot%20-clock_timeout%3D0")
            shown = {name: session.connection().execute(f"SHOW {name}".encode()).fetchone() for name in _SHOWN}
            assert shown == {"search_path": ("bot",), "lock_timeout": ("10s",), "application_name": ("rasa_core_api",)}
            session.drop()
            monkeypatch.setenv("PGOPTIONS", "-c search_path=bot")
            session = Session(servers.postgres_url() + "?application_name=mine")
            assert session.connection().execute("SHOW search_path").fetchone() == ("bot",)
            assert session.connection().execute("SHOW application_name").fetchone() == ("mine",)
            session.drop()
        finally:
            other.execute("DROP SCHEMA bot CASCADE")


def test_pooler_that_drops_the_options(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind it any statement may reach another connection of the server: none may rely on one prepared before."""
    session = Session(servers.postgres_url())
    assert session.connection().prepare_threshold is not None
    session.drop()
    monkeypatch.setattr(postgres_session, "_OPTIONS", "")
    assert session.connection().prepare_threshold is None
    session.drop()


def test_settings_that_others_changed(servers: Servers) -> None:
    """Defaults of a user or a server neither make turns fail that wait for each other, nor let answered ones go."""
    store = emptied(servers)
    wait(store.append("a", 0, slots(1)))
    wait(store.close())
    with psycopg.connect(servers.postgres_url(), autocommit=True) as other:
        other.execute("ALTER ROLE tests SET default_transaction_isolation = 'serializable'")
        try:
            store = opened(servers)
            with psycopg.connect(servers.postgres_url()) as slow:
                slow.execute("UPDATE rasa_core_api_conversations SET end_seq = 1")
                deferLater(reactor, 0.3, slow.commit)
                assert wait(store.append("a", 1, slots(2))) == 2
            session = Session(servers.postgres_url())
            session.connection()
            other.execute("ALTER SYSTEM SET synchronous_commit = off")
            other.execute("SELECT pg_reload_conf()")
            sleep(0.3)
            assert session.connection().execute("SHOW synchronous_commit").fetchone() == ("on",)
            session.drop()
            wait(store.close())
        finally:
            other.execute("ALTER ROLE tests RESET ALL")
            other.execute("ALTER SYSTEM RESET ALL")
            other.execute("SELECT pg_reload_conf()")


@pytest.fixture
def latin(servers: Servers) -> Iterator[str]:
    """The address of a database that is not kept in UTF-8."""
    with psycopg.connect(servers.postgres_url(), autocommit=True) as other:
        other.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        yield servers.postgres_url().replace("/postgres", "/latin")
        other.execute("DROP DATABASE latin WITH (FORCE)")


def test_database_that_cannot_hold_all_characters(latin: str) -> None:
    """It is refused at start, not at the first name, or the first answer, that it cannot hold."""
    with pytest.raises(InvalidConfiguration, match=r"tracker_store\.url.*LATIN1.*UTF8"):
        wait(PostgresStore(latin, reactor, stored_events()).open())


def test_job_that_cannot_be_stored(latin: str) -> None:
    """A claim, an append or a question with values that the database does not take fails alone."""
    session = Session(latin)
    postgres_session._create(session.connection())
    session.drop()
    writer = Writer(latin)
    block = [(0, 1, 1.0, "{}")]
    jobs = [CallJob(hold, name, "me", 5.0) for name in ("ok", "\u0142")]
    jobs += [ClaimJob(name, 0, "me", 5.0) for name in ("a", "\u0142", "b")]
    jobs += [WriteJob("append", name, 0, 1, block) for name in ("c", "\u0142")]
    writer.run(jobs)
    assert [type(job.error) for job in jobs] == [
        type(None), StoreUnavailable, type(None), StoreUnavailable, type(None), type(None), StoreUnavailable,
    ]  # fmt: skip
    with psycopg.connect(latin) as other:
        found = other.execute("SELECT sender_id FROM rasa_core_api_conversations ORDER BY sender_id").fetchall()
    assert found == [("a",), ("b",), ("c",)]
    writer.close()


def test_dump_that_was_restored_into_a_new_server(servers: Servers) -> None:
    """The numbers of transactions begin anew there: what is appended comes all the same, behind what was before."""
    store = emptied(servers)
    for number in range(4):
        wait(store.append(f"s{number}", 0, slots(number)))
    before = wait(store.feed(None, 10))
    wait(store.set_cursor("quick", before[2].position))
    wait(store.set_cursor("slow", before[0].position))
    wait(store.close())
    with psycopg.connect(servers.postgres_url()) as restored:
        restored.execute("UPDATE rasa_core_api_blocks SET xid = (xid::text::bigint + 1000000)::text::xid8")
        restored.execute(
            "UPDATE rasa_core_api_cursors SET position = (split_part(position, '-', 1)::bigint + 1000000)"
            " || '-' || split_part(position, '-', 2)"
        )
    for start in range(2):  # the second one finds nothing to do
        store = opened(servers)
        wait(store.append("s0", start + 1, slots("new")))
        for name, seen in (("quick", 3), ("slow", 1)):
            found = wait(store.feed(wait(store.cursor(name)), 10))
            wanted = [f"s{number}" for number in range(seen, 4)] + ["s0"] * (start + 1)
            assert [entry.sender_id for entry in found] == wanted
        wait(store.close())


def test_claims_of_one_group(servers: Servers) -> None:
    """Claims that wait are made with one statement; each of them is told its own outcome."""
    wait(emptied(servers).close())
    writer = Writer(servers.postgres_url())
    writer.open()
    writer.run([WriteJob("append", "known", 0, 1, [(0, 1, 1.0, "{}")]), ClaimJob("other", 0, "them", 60.0)])
    jobs = [
        ClaimJob("known", 1, "me", 60.0),
        ClaimJob("new", 0, "me", 60.0),
        ClaimJob("other", 0, "me", 60.0),
        ClaimJob("nobody", 3, "me", 60.0),
    ]
    writer.run(jobs)
    assert [type(job.error) for job in jobs] == [type(None), type(None), ConversationHeld, StoreConflict]
    writer.close()


class Overtaken:
    """A connection with whose first answer another process's turn is stored."""

    def __init__(self, connection: Any, overtake: Callable[[], None]) -> None:
        self._connection = connection
        self._overtake: Callable[[], None] | None = overtake

    def execute(self, *arguments: Any) -> Any:
        answer = self._connection.execute(*arguments)
        overtake, self._overtake = self._overtake, None
        if overtake is not None:
            overtake()
        return answer

    def transaction(self) -> Any:
        return self._connection.transaction()


def test_a_server_that_is_gone_without_a_word_is_noticed(servers: Servers) -> None:
    """A connection into nothing is given up soon, unless the operator wants it otherwise."""
    session = Session(servers.postgres_url())
    made = session.connection().info.get_parameters()
    assert (made["tcp_user_timeout"], made["keepalives_idle"]) == ("10000", "5")
    session.drop()
    session = Session(f"{servers.postgres_url()}?keepalives_idle=7")
    made = session.connection().info.get_parameters()
    assert (made["tcp_user_timeout"], made["keepalives_idle"]) == ("10000", "7")
    session.drop()


def test_the_events_of_a_request_come_with_its_answer(servers: Servers) -> None:
    """A look that another process overtakes sees all of that one's turn or nothing; never its events alone."""
    store = emptied(servers)
    wait(store.append("u", 0, slots(1), TurnNote(owner="other")))
    session = Session(servers.postgres_url())

    def overtake() -> None:
        note = TurnNote(owner="other", key="k", base=1, answer="{}", keep=60, done=True)
        wait(store.append("u", 1, slots(2), note))

    job = LookJob("u", 0, None, "k", "mine")
    look(cast("Any", Overtaken(session.connection(), overtake)), [job])
    session.drop()
    (start, end, first, blocks, _), earlier, held = job.result
    assert (start, end, first, len(blocks)) == (0, 2, 0, 2)
    assert earlier is not None and (earlier.end, earlier.done) == (2, True)
    assert held == 0
    wait(store.close())


def test_interrupting_a_statement(servers: Servers) -> None:
    """A statement whose server says nothing fails when another thread gives its connection up; the next one is new."""
    session = Session(servers.postgres_url())
    session.interrupt()  # there is none yet
    connection = session.connection()
    timer = threading.Timer(0.2, session.interrupt)
    timer.start()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT pg_sleep(9)")
    timer.join()
    session.interrupt()  # it is lost already
    session.drop()  # as after all errors
    assert session.connection().execute("SELECT 1").fetchone() == (1,)
    session.drop()
