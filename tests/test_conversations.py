from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor

from rasa_core_api.conversations import _parser
from rasa_core_api.events import UserUttered
from rasa_core_api.exceptions import InvalidConfiguration, StoreUnavailable
from rasa_core_api.stored_conversations import _all_ids, run
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.memory import MemoryStore
from rasa_core_api.tracker_store.redis import RedisStore
from rasa_core_api.tracker_store.sqlite import SqliteStore
from rasa_core_api.tracker_store.turns import Tail

from .tracker_store.servers import free_port, has_redis, redis_server
from .tracker_store.stores import slots, stored_events, texts, turn, wait

BIG = slots(*range(2500))


def endpoints(tmp_path: Path, name: str) -> Path:
    file = tmp_path / f"{name}.yml"
    file.write_text(f"tracker_store:\n  type: sqlite\n  path: {tmp_path / name}.db\n")
    return file


@contextmanager
def stored(tmp_path: Path, name: str) -> Iterator[TrackerStore]:
    store = SqliteStore(tmp_path / f"{name}.db", reactor, stored_events())
    wait(store.open())
    try:
        yield store
    finally:
        wait(store.close())


def command(*arguments: object, given: str = "") -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    options = _parser().parse_args([str(argument) for argument in arguments])
    out, err = io.StringIO(), io.StringIO()
    code = wait(run(options, reactor, {}, io.StringIO(given), out, err))
    return code, out.getvalue(), err.getvalue()


def fill(tmp_path: Path, name: str) -> Path:
    with stored(tmp_path, name) as store:
        wait(store.append("a", 0, turn("Grüezi")))
        wait(store.append("big", 0, BIG))
        wait(store.append("new\nline", 0, []))
    return endpoints(tmp_path, name)


def check_filled(tmp_path: Path, name: str) -> None:
    with stored(tmp_path, name) as store:
        assert wait(store.sender_ids()) == ["a", "big", "new\nline"]
        for sender_id, events in (("a", turn("Grüezi")), ("big", BIG), ("new\nline", [])):
            tail = wait(store.read(sender_id))
            assert tail is not None and texts(tail.events) == texts(events)


def test_list_and_delete(tmp_path: Path) -> None:
    """Conversations are listed one a line, and deleted by name."""
    file = fill(tmp_path, "one")
    assert command("list", "--endpoints", file) == (0, 'a\nbig\n"new\\nline"\n', "")
    assert command("list", "--endpoints", file, "--prefix", "b")[1] == "big\n"
    code, _, said = command("delete", "--endpoints", file, "a", "nobody")
    assert code == 1 and "'nobody'" in said and "1 conversations deleted" in said
    assert command("list", "--endpoints", file)[1] == 'big\n"new\\nline"\n'


def test_export_and_import(tmp_path: Path) -> None:
    """What was exported is imported elsewhere as it was, long conversations over several lines."""
    file, copy = fill(tmp_path, "one"), endpoints(tmp_path, "two")
    code, text, said = command("export", "--endpoints", file)
    assert code == 0 and "3 conversations exported" in said
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["sender_id"], line["seq"]) for line in lines] == [
        ("a", 0), ("big", 0), ("big", 1000), ("big", 2000), ("new\nline", 0),
    ]  # fmt: skip
    code, _, said = command("import", "--endpoints", copy, given=text)
    assert code == 0 and "3 conversations stored" in said
    check_filled(tmp_path, "two")
    target = tmp_path / "out.ndjson"
    assert command("export", "--endpoints", copy, "-o", target)[0] == 0
    assert target.read_text() == text
    assert target.stat().st_mode & 0o777 == 0o600
    assert len(command("export", "--endpoints", file, "a")[1].splitlines()) == 1


def test_existing_conversations(tmp_path: Path) -> None:
    """What is there already is left alone and reported, skipped, or replaced: as asked for."""
    file = fill(tmp_path, "one")
    text = '{"sender_id": "a", "events": [{"event": "restart", "timestamp": 1}]}\n'
    code, _, said = command("import", "--endpoints", file, given=text)
    assert code == 1 and "left out" in said
    code, _, said = command("import", "--endpoints", file, "--existing", "skip", given=text)
    assert code == 0 and "1 skipped" in said
    check_filled(tmp_path, "one")
    assert command("import", "--endpoints", file, "--existing", "replace", given=text)[0] == 0
    assert command("export", "--endpoints", file, "a")[1] == (
        '{"sender_id":"a","seq":4,"events":[{"event":"restart","timestamp":1.0}]}\n'
    )


def test_migrate(tmp_path: Path) -> None:
    """All conversations of one store are copied into another."""
    file, copy = fill(tmp_path, "one"), endpoints(tmp_path, "two")
    code, _, said = command("migrate", "--from", file, "--endpoints", copy)
    assert code == 0 and "3 conversations stored" in said
    check_filled(tmp_path, "two")


def test_migrate_into_itself(tmp_path: Path) -> None:
    """Two files that name the same store are refused: what is replaced while it is read would lose its end."""
    file = fill(tmp_path, "one")
    other = tmp_path / "other.yml"
    other.write_text("# the same\n" + file.read_text())
    with pytest.raises(InvalidConfiguration, match="the same store"):
        command("migrate", "--from", file, "--endpoints", other, "--existing", "replace")
    check_filled(tmp_path, "one")


def test_migrate_into_itself_by_another_name(tmp_path: Path) -> None:
    """The same store under another address is found out before anything of it is replaced."""
    file = fill(tmp_path, "one")
    (tmp_path / "link").symlink_to(tmp_path)
    other = tmp_path / "other.yml"
    other.write_text(f"tracker_store:\n  type: sqlite\n  path: {tmp_path / 'link' / 'one'}.db\n")
    for _ in range(2):
        with pytest.raises(InvalidConfiguration, match="the same store"):
            command("migrate", "--from", file, "--endpoints", other, "--existing", "replace")
    check_filled(tmp_path, "one")


def test_going_on_after_a_stop(tmp_path: Path) -> None:
    """A run that was stopped in the middle of a conversation is completed; what went on by itself stays."""
    file, copy, last = fill(tmp_path, "one"), endpoints(tmp_path, "two"), endpoints(tmp_path, "three")
    lines = command("export", "--endpoints", file)[1].splitlines(keepends=True)
    other = '{"sender_id": "a", "events": [{"event": "restart", "timestamp": 1}]}\n'
    for target in (copy, last):
        assert command("import", "--endpoints", target, given=other + "".join(lines[1:3]))[0] == 0
    code, _, said = command("import", "--endpoints", copy, "--existing", "skip", given="".join(lines))
    assert code == 0 and "2 conversations stored, 1 skipped" in said
    code, _, said = command("migrate", "--from", file, "--endpoints", last, "--existing", "skip")
    assert code == 0 and "2 conversations stored, 1 skipped" in said
    code, _, said = command("migrate", "--from", file, "--endpoints", last, "--existing", "skip")
    assert code == 0 and "2 skipped" in said  # the one without events is as good as new
    for target in (copy, last):
        text = command("export", "--endpoints", target)[1]
        assert sorted(text.splitlines()[1:]) == sorted(line.rstrip("\n") for line in lines[1:])
        assert '"event":"restart"' in text.splitlines()[0]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("type: redis\n  prot: 1", "tracker_store.prot: 'redis' has no such option"),
        ("type: mongod\n  collecton: x", "tracker_store.collecton: 'mongod' has no such option"),
        ("type: redis\n  url: redis://cache/1", "tracker_store.url: the name of a host is expected"),
        ("type: sqlite\n  path: x", "tracker_store.type: historical stores are"),
        ("type: redis\n  url: 127.0.0.1\n  port: {port}", "tracker_store: .*Connection refused|redis.*cannot be read"),
    ],
)
def test_historical_settings(tmp_path: Path, entry: str, words: str) -> None:
    """Nothing in the entry of the old server is ignored, and what is wrong is named with its file."""
    old = tmp_path / "old.yml"
    old.write_text(f"tracker_store:\n  {entry.format(port=free_port())}\n")
    with pytest.raises((InvalidConfiguration, StoreUnavailable), match=f"{re.escape(str(old))}: {words}"):
        command("migrate", "--historical", "--from", old, "--endpoints", endpoints(tmp_path, "two"))


def test_store_that_cannot_be_opened(tmp_path: Path) -> None:
    """Of two stores the one that cannot be opened is named by its file; a `type` without a value is memory."""
    lost = tmp_path / "lost.yml"
    lost.write_text("tracker_store:\n  type: sqlite\n  path: /nowhere/x.db\n")
    with pytest.raises(InvalidConfiguration, match=f"{re.escape(str(lost))}: tracker_store.path"):
        command("migrate", "--from", lost, "--endpoints", endpoints(tmp_path, "two"))
    lost.write_text("tracker_store:\n  type:\n")
    with pytest.raises(InvalidConfiguration, match="memory cannot be reached"):
        command("list", "--endpoints", lost)


@pytest.mark.parametrize(
    "arguments", [["list"], ["export"], ["delete", "a"], ["anonymise", "a", "-d", "x"], ["migrate"]]
)
def test_mistyped_path(tmp_path: Path, arguments: list[str]) -> None:
    """Where conversations are looked for, a file that is not there is an error, and is not made."""
    file = endpoints(tmp_path, "mistyped")
    source = ["--from", file] if arguments == ["migrate"] else []
    target = endpoints(tmp_path, "two") if source else file
    with pytest.raises(InvalidConfiguration, match=r"mistyped.yml: tracker_store.path: there is no file .*mistyped.db"):
        command(arguments[0], *source, "--endpoints", target, *arguments[1:])
    assert not list(tmp_path.glob("mistyped.db*"))


def test_one_file_for_both(tmp_path: Path) -> None:
    """What lies in the same Redis is migrated with the endpoint file that the server has had all along."""
    if not has_redis():
        pytest.skip("redis-server is not installed")
    with redis_server() as port:
        file = tmp_path / "endpoints.yml"
        file.write_text(f"tracker_store:\n  type: redis\n  url: 127.0.0.1\n  port: {port}\n")
        arguments = ["migrate", "--historical", "--from", str(file), "--endpoints", str(file)]
        program = [sys.executable, "-m", "rasa_core_api.conversations", *arguments]
        done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "0 conversations stored\n")


def test_migrate_historical_redis(tmp_path: Path) -> None:
    """What a historical store left in Redis is copied; keys of ours and other values are not, and are told."""
    if not has_redis():
        pytest.skip("redis-server is not installed")
    with redis_server() as port:
        old = tmp_path / "old.yml"
        old.write_text(f"tracker_store:\n  store_type: redis\n  url: 127.0.0.1\n  port: {port}\n")
        ours = RedisStore(reactor, stored_events(), "127.0.0.1", port)
        wait(ours.open())
        wait(ours.append("ours", 0, slots(1)))

        async def fill_redis() -> None:
            await ours._connection.set("json", '[{"event": "restart", "timestamp": 1}]')
            await ours._connection.set("other", "no conversation")
            await ours._connection.rpush("list", "x")

        wait(fill_redis())
        wait(ours.close())
        copy = endpoints(tmp_path, "two")
        code, _, said = command("migrate", "--historical", "--from", old, "--endpoints", copy)
    assert code == 1 and "'other'" in said and "1 conversations stored, 1 left out" in said
    assert command("list", "--endpoints", copy)[1] == "json\n"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2"),
        ("[]", "line 2.*sender_id"),
        ('{"sender_id": "x"}', "line 2.*events"),
        ('{"sender_id": "x", "events": [{"event": "nonsense"}]}', "'x'.*nonsense"),
    ],
)
def test_bad_lines(tmp_path: Path, line: str, words: str) -> None:
    """A line that cannot be imported is named; what came before it is stored."""
    file = endpoints(tmp_path, "one")
    with pytest.raises(InvalidConfiguration, match=words):
        command("import", "--endpoints", file, given='{"sender_id": "good", "events": []}\n' + line + "\n")
    assert command("list", "--endpoints", file)[1] == "good\n"


def test_an_id_that_no_store_takes(tmp_path: Path) -> None:
    """It is left out and named, and does not end a run of many."""
    file = endpoints(tmp_path, "one")
    line = '{"sender_id": "%s", "events": [{"event": "restart"}]}\n'
    ids = ("one", "n\\u0000l", "x" * 40_000, "two")
    code, _, said = command("import", "--endpoints", file, given="".join(line % each for each in ids))
    assert code == 1 and "'n\\x00l'" in said and "2 conversations stored, 2 left out" in said
    assert len(said) < 1_000 and command("list", "--endpoints", file)[1] == "one\ntwo\n"


def test_memory_cannot_be_reached(tmp_path: Path) -> None:
    """A store in another process's memory is refused by key."""
    file = tmp_path / "memory.yml"
    file.write_text("tracker_store: {type: memory}\n")
    with pytest.raises(InvalidConfiguration, match=r"memory\.yml: tracker_store\.type"):
        command("list", "--endpoints", file)


@pytest.mark.parametrize("gone", [1, 499])
def test_deletions_meanwhile(gone: int) -> None:
    """All others are found once where the last conversations of a page are deleted before the next one is asked for."""
    store = MemoryStore(reactor)
    names = [f"u{number}" for number in range(1_200)]

    async def walk() -> list[str]:
        for name in names:
            await store.append(name, 0, [])
        found = []
        async for sender_id in _all_ids(store, "u"):
            found.append(sender_id)
            if sender_id == "u499":
                for name in names[500 - gone : 500]:
                    assert await store.delete(name)
        return found

    assert wait(walk()) == names


def test_choosing_by_age_and_prefix(tmp_path: Path) -> None:
    """Conversations are chosen by the age of their last event and by prefix; a dry run changes nothing."""
    file = endpoints(tmp_path, "a")
    with stored(tmp_path, "a") as store:
        for name, when in (("old-1", 10.0), ("old-2", 20.0), ("new", time.time())):
            wait(store.append(name, 0, slots(1, time=when)))
    code, said, _ = command("delete", "--endpoints", file, "--older-than", "1", "--dry-run")
    assert (code, said) == (0, "old-1\nold-2\n")
    assert command("delete", "--endpoints", file, "--older-than", "1", "--prefix", "old-2")[0] == 0
    with stored(tmp_path, "a") as store:
        assert wait(store.sender_ids()) == ["old-1", "new"]
    with pytest.raises(InvalidConfiguration, match="name conversations"):
        command("delete", "--endpoints", file)
    with pytest.raises(InvalidConfiguration, match="--older-than"):
        command("delete", "--endpoints", file, "--older-than", "0")


def test_names_and_a_choice(tmp_path: Path) -> None:
    """A conversation that is named beside an age or a prefix is not deleted whatever its age."""
    file = fill(tmp_path, "one")
    for choice in (["--older-than", "90"], ["--prefix", "zz"]):
        with pytest.raises(InvalidConfiguration, match="not both"):
            command("delete", "--endpoints", file, "a", *choice)
    check_filled(tmp_path, "one")


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("import -i {0}/nothing", 2, "{0}/nothing: No such file or directory\n"),
        ("import -i {0}", 2, "{0}: Is a directory\n"),
        ("export -o {0}/nothing/file", 2, "{0}/nothing/file: No such file or directory\n"),
        ("export -o /dev/full", 2, "/dev/full: No space left on device\n"),
        ("export > /dev/full", 2, "standard output: No space left on device\n"),
        ("list > /dev/full", 2, "standard output: No space left on device\n"),
        ("list | exec true", 1, ""),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, line: str, code: int, said: str) -> None:
    """One line names the file; a reader that leaves is no news."""
    with stored(tmp_path, "one") as store:
        wait(store.append("a" * 30_000, 0, slots(1)))
        wait(store.append("b" * 30_000, 0, slots(1)))
        wait(store.append("c" * 30_000, 0, slots(1)))
    file = endpoints(tmp_path, "one")
    name, *rest = line.format(tmp_path).split(" ", 1)
    program = f"{sys.executable} -m rasa_core_api.conversations {name} --endpoints {file} {' '.join(rest)}"
    program += "; exit ${PIPESTATUS[0]}"
    ran = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (code, said.format(tmp_path))


def test_anonymise(tmp_path: Path, conformance: Path) -> None:
    """Nothing of what a person said is left in the file."""
    file = endpoints(tmp_path, "a")
    with stored(tmp_path, "a") as store:
        wait(store.append("u", 0, turn("my Reykjavik secret")))
    model = conformance / "models" / "rasa-core-0.11.12" / "cafe-memo"
    assert command("anonymise", "--endpoints", file, "-d", model, "u")[0] == 0
    assert command("anonymise", "--endpoints", file, "-d", model, "nobody")[0] == 1
    with stored(tmp_path, "a") as store:
        assert len(wait(store.read("u")).events) == len(turn())  # type: ignore[union-attr]
    assert b"Reykjavik" not in (tmp_path / "a.db").read_bytes()


def test_anonymise_by_age_every_night(tmp_path: Path, conformance: Path) -> None:
    """What is anonymous already is left as it is, and so not published once more; what was named is done anew."""
    file = endpoints(tmp_path, "a")
    with stored(tmp_path, "a") as store:
        wait(store.append("u", 0, turn("my Reykjavik secret")))
    model = conformance / "models" / "rasa-core-0.11.12" / "cafe-memo"

    def start(*chosen: str) -> int:
        assert command("anonymise", "--endpoints", file, "-d", model, *chosen)[0] == 0
        with stored(tmp_path, "a") as store:
            tail = wait(store.read("u"))
        assert tail is not None and "Reykjavik" not in str(tail.events)
        return tail.start

    assert [start("--older-than", "30") for _ in range(3)] == [4, 4, 4]
    assert start("u") == 8


def test_what_equal_events_hide(tmp_path: Path, conformance: Path) -> None:
    """A log that only equals an anonymous one still holds what was said, beside what tells two events apart."""
    file = endpoints(tmp_path, "a")
    said = {"intent": {"name": "greet", "confidence": 0.9}, "entities": [], "text": "my Reykjavik secret"}
    with stored(tmp_path, "a") as store:
        wait(store.append("u", 0, [UserUttered(text="...", parse_data=said, timestamp=1.0)]))
    model = conformance / "models" / "rasa-core-0.11.12" / "cafe-memo"
    assert command("anonymise", "--endpoints", file, "-d", model, "--older-than", "30")[0] == 0
    assert b"Reykjavik" not in (tmp_path / "a.db").read_bytes()


def test_anonymise_beside_a_server(tmp_path: Path, conformance: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's turn waits meanwhile, and one that it stored just before is not lost: the conversation is left out."""
    file = endpoints(tmp_path, "a")
    with stored(tmp_path, "a") as store:
        wait(store.append("u", 0, turn("one")))
        wait(store.append("v", 0, turn("one")))
    held: list[float] = []
    read, replace = SqliteStore.read, SqliteStore.replace

    async def read_before(self: SqliteStore, sender_id: str, *rest: int) -> Tail | None:
        tail = await read(self, sender_id, *rest)
        if sender_id == "v" and tail is not None and tail.end == len(turn()):
            await self.append(sender_id, tail.end, turn("two"))
        return tail

    async def replace_beside(self: SqliteStore, sender_id: str, *rest: Any) -> tuple[int, int]:
        held.append((await self.look(sender_id, owner="server")).held)
        return await replace(self, sender_id, *rest)

    monkeypatch.setattr(SqliteStore, "read", read_before)
    monkeypatch.setattr(SqliteStore, "replace", replace_beside)
    model = conformance / "models" / "rasa-core-0.11.12" / "cafe-memo"
    code, _, told = command("anonymise", "--endpoints", file, "-d", model, "u", "v")
    assert code == 1 and "left out: 'v'" in told and len(held) == 1 and held[0] > 0
    with stored(tmp_path, "a") as store:
        assert wait(store.look("u", owner="server")).held == wait(store.look("v", owner="server")).held == 0
        tail = wait(store.read("v"))
        assert tail is not None and texts(tail.events) == texts([*turn("one"), *turn("two")])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    """A signal ends it with the status of that signal and a word on how far it was."""
    file = endpoints(tmp_path, "one")
    arguments = [sys.executable, "-m", "rasa_core_api.conversations", "import", "--endpoints", str(file)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write('{"sender_id": "a", "events": []}\n')
        process.stdin.flush()
        until = time.monotonic() + 20
        while not (tmp_path / "one.db").exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        time.sleep(0.5)  # until it waits for a line
        process.send_signal(number)
        process.stdin.write('{"sender_id": "b", "events": []}\n')
        process.stdin.flush()
        said = process.stderr.read()
        assert process.wait() == 128 + number
    assert said.startswith("interrupted: ")
    assert said.endswith(" so far; with --existing skip it goes on where it stopped\n")
