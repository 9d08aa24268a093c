from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasa_core_api.exceptions import StoreConflict, StoreUnavailable
from rasa_core_api.tracker_store.sqlite_jobs import Append, Claim, Delete, Replace, WriteJob
from rasa_core_api.tracker_store.sqlite_writer import SqliteWriter
from rasa_core_api.tracker_store.turns import NO_NOTE, Reminder, TurnNote

OWNER = "we"


def append(sender_id: str, end: int, count: int = 1, note: TurnNote = NO_NOTE) -> Append:
    return Append(sender_id, end, count, [(end, count, 1.0, "\n".join(["{}"] * count))] if count else [], note)


@contextmanager
def opened(path: Path) -> Iterator[SqliteWriter]:
    writer = SqliteWriter(path, "path", lambda: None, lambda: 1000.0, lambda: 50.0)
    writer.open()
    with closing(writer):
        yield writer


@contextmanager
def statements(writer: SqliteWriter) -> Iterator[list[str]]:
    """First words of what is executed."""
    found: list[str] = []
    writer.connection.set_trace_callback(
        lambda text: None if text.startswith("--") else found.append(" ".join(text.split()[:3]))
    )
    yield found
    writer.connection.set_trace_callback(None)


def tables(writer: SqliteWriter) -> list[list[object]]:
    return [
        writer.connection.execute(f"SELECT * FROM {name}").fetchall()
        for name in ("conversations", "blocks", "claims", "answers", "reminders", "sqlite_sequence")
    ]


def test_a_group_is_one_statement(tmp_path: Path) -> None:
    """New and known conversations go in together, with the answers of their turns."""
    with opened(tmp_path / "a.db") as writer:
        with statements(writer) as executed:
            writer.run([append("a", 0, 3), append("b", 0)])
            jobs = [append("a", 3), append("c", 0, 2, TurnNote(owner=OWNER, key="k", base=0, answer='"!"', keep=60))]
            writer.run(jobs)
        assert {text for text in executed if not text.startswith(("SELECT", "PRAGMA"))} == {"INSERT INTO appends"}
        assert [(job.error, job.result, job.birth) for job in jobs] == [(None, 4, 1), (None, 2, 3)]
        conversations, blocks, _, answers, *_ = tables(writer)
        assert conversations == [(1, "a", 0), (2, "b", 0), (3, "c", 0)]
        assert [row[1:4] for row in blocks] == [(1, 0, 3), (2, 0, 1), (1, 3, 1), (3, 0, 2)]
        assert answers == [("c", "k", 0, 2, 1, '"!"', 1060.0)]


def test_the_end_of_a_claim(tmp_path: Path) -> None:
    """A turn that is over gives its conversation free, and is synced though the claim was not."""
    with opened(tmp_path / "a.db") as writer:
        writer.run([Claim("a", 0, OWNER, None, 60)])
        assert writer.connection.execute("PRAGMA synchronous").fetchone() == (1,)
        with statements(writer) as executed:
            writer.run([append("a", 0, 1, TurnNote(owner=OWNER))])
        assert "INSERT INTO appends" in executed and "COMMIT" not in executed
        assert writer.connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert tables(writer)[2] == []
        writer.run([job := Claim("a", 1, "others", None, 60)])
        assert job.error is None


def test_somebody_else_wrote(tmp_path: Path) -> None:
    """A statement that was overtaken changes nothing; a transaction looks again, and single statements come back."""
    with opened(tmp_path / "a.db") as first, opened(tmp_path / "a.db") as second:
        first.run([append("a", 0)])
        second.run([append("a", 1), append("b", 0)])
        late, new, other = append("a", 1), append("c", 0), append("b", 0)
        with statements(first) as executed:
            first.run([late, new, other])
            assert "COMMIT" in executed
        assert isinstance(late.error, StoreConflict) and isinstance(other.error, StoreConflict)
        assert (new.error, new.result) == (None, 1)
        first.run([append("a", 2)])
        with statements(first) as executed:
            first.run([append("a", 3)])
        assert "INSERT INTO appends" in executed and "COMMIT" not in executed


def test_a_conversation_that_is_not_new(tmp_path: Path) -> None:
    """After a restart no places are known: whoever believes that a conversation is new is refused."""
    with opened(tmp_path / "a.db") as writer:
        writer.run([append("a", 0)])
    with opened(tmp_path / "a.db") as writer:
        writer.run([job := append("a", 0)])
        assert isinstance(job.error, StoreConflict)
        writer.run([job := append("a", 1)])
        assert (job.error, job.result) == (None, 2)


def test_a_full_disk(tmp_path: Path) -> None:
    """What does not fit is refused as a whole and not tried again."""
    with opened(tmp_path / "a.db") as writer:
        writer.connection.execute("PRAGMA max_page_count=20")
        large = Append("b", 0, 1, [(0, 1, 1.0, "x" * 1_000_000)])
        with statements(writer) as executed:
            writer.run([large])
        assert isinstance(large.error, StoreUnavailable)
        assert "BEGIN IMMEDIATE" not in executed
        writer.run([job := append("b", 0)])
        assert job.error is None


names = st.sampled_from("abc")
notes = st.one_of(
    st.just(NO_NOTE),
    st.builds(
        TurnNote,
        owner=st.sampled_from([OWNER, "others"]),
        key=st.none() | st.sampled_from("kl"),
        keep=st.just(60.0),
        answer=st.just('"said"'),
        done=st.booleans(),
        reminders=st.just(()) | st.just((Reminder("a", "r", 1.0, 0),)),
        start=st.none() | st.just(0),
        birth=st.sampled_from([0, 0, 0, 1, 2]),
    ),
)


@st.composite
def groups(draw: st.DrawFn) -> list[list[tuple[str, str, int, int, TurnNote]]]:
    """Groups of jobs as kind, conversation, end beyond the known one, count and note."""
    job = st.tuples(
        st.sampled_from(["append"] * 8 + ["claim", "replace", "delete"]),
        names,
        st.sampled_from([0] * 9 + [1]),
        st.integers(0, 3),
        notes,
    )
    return draw(st.lists(st.lists(job, min_size=1, max_size=4), min_size=1, max_size=8))


def outcomes(path: Path, plan: list[list[tuple[str, str, int, int, TurnNote]]], alone: bool) -> list[object]:
    """What the jobs came to, and what is in the file then."""
    found: list[object] = []
    ends: dict[str, int] = {}
    with opened(path) as writer:
        for group in plan:
            jobs: list[WriteJob] = []
            for kind, name, beyond, count, note in group:
                end = ends.get(name, 0)
                if kind == "append":
                    jobs.append(append(name, end + beyond, count, note))
                elif kind == "claim":
                    jobs.append(Claim(name, end, note.owner, note.key, 60))
                elif kind == "replace":
                    jobs.append(Replace(name, count, [(0, count, 1.0, "{}")] if count else [], note))
                else:
                    jobs.append(Delete(name))
            writer._alone = alone
            writer.run(jobs)
            for job in jobs:
                result = type(job.error) if job.error is not None else job.result
                found.append((result, getattr(job, "birth", None) if job.error is None else None))
                if isinstance(job, Append) and job.error is None:
                    ends[job.sender_id] = job.result
                elif isinstance(job, Replace) and job.error is None:
                    ends[job.sender_id] = job.result[1]
                elif isinstance(job, Delete) and job.result:
                    ends.pop(job.sender_id, None)
        found.append(tables(writer))
    return found


@given(groups())
def test_both_ways_come_to_the_same(plan: list[list[tuple[str, str, int, int, TurnNote]]]) -> None:
    """Whether a group is one statement or a transaction cannot be told from jobs or file."""
    with tempfile.TemporaryDirectory() as directory:
        assert outcomes(Path(directory) / "a.db", plan, True) == outcomes(Path(directory) / "b.db", plan, False)


@pytest.mark.parametrize("count", [1, 64, 65, 200])
def test_groups_of_every_size(tmp_path: Path, count: int) -> None:
    """Groups beyond what a statement takes are a transaction."""
    with opened(tmp_path / "a.db") as writer:
        jobs = [append(f"s{number}", 0) for number in range(count)]
        with statements(writer) as executed:
            writer.run(jobs)
        assert ("COMMIT" in executed) is (count > 64)
        assert [job.birth for job in jobs] == list(range(1, count + 1))
        again = [append(f"s{number}", 1) for number in range(count)]
        writer.run(again)
        assert [job.result for job in again] == [2] * count
