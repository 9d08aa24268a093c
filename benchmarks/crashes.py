"""Kills servers (and the database) with SIGKILL at random moments, under load, and counts what is left of every turn.

    python benchmarks/crashes.py [--store sqlite|postgres|redis] [--kills 200] [--servers 1|2] [--workers 1]
                                 [--conversations 50] [--seconds 20] [--no-database]

Each turn calls an action server. Every other conversation sends its requests with a key, to all servers at once, and
asks again until it is answered; the others send without a key and go on after a failure. Half of each are streamed by
the rest channel, whose turns are stored in parts. Every fourth kill hits the database's own server, unless
--no-database. With --workers N each server has N workers, and a kill hits one of them, or their parent, or all
together. Without kills (--kills 0) the load lasts --seconds. At the end the logs are compared with what was answered:
each answered turn is there once and complete, no other one in half, and the numbers have no gap. The exit status is 1
where anything was lost, torn or doubled.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from attrs import define, field

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import HERE, free_port, table

from tests.tracker_store.servers import _other_user, _postgres_programs

DOMAIN = """
intents:
- work: {triggers: action_work}
- tell: {triggers: utter_told}
entities: [number]
slots: {number: {type: unfeaturized}}
templates: {utter_told: ["told {number}"]}
actions: [action_work, utter_told]
"""
POLICIES = "policies:\n- name: MappingPolicy\n- name: MemoizationPolicy\n"
STORIES = "## one\n* tell\n  - utter_told\n"

#: Seconds that an action takes at most, and that a client waits for an answer.
ACTION = 0.03
PATIENCE = 20.0


def train(directory: Path) -> Path:
    """A bot whose intents trigger their actions."""
    for name, text in (("domain.yml", DOMAIN), ("policies.yml", POLICIES), ("stories.md", STORIES)):
        (directory / name).write_text(text)
    command = [sys.executable, "-m", "rasa_core_api.train", "-c", "policies.yml", "-d", "domain.yml",
               "-s", "stories.md", "-o", "model", "--quiet"]  # fmt: skip
    environ = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    subprocess.run(command, cwd=directory, check=True, stdout=subprocess.DEVNULL, env=environ)
    return directory / "model"


# --- what is killed ----------------------------------------------------------------------------------------


@define
class Process:
    """A program that is started anew after it was killed."""

    command: list[str]
    port: int
    child: subprocess.Popen[bytes] | None = None
    watched: bool = True  # somebody else sees to it that it runs

    def start(self) -> None:
        self.child = subprocess.Popen(
            self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=HERE.parent, start_new_session=True
        )

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it with all that it started."""
        assert self.child is not None
        with suppress(ProcessLookupError):
            os.killpg(self.child.pid, how)
        self.child.wait()

    def kill_alone(self) -> None:
        """End it; what it started is left to itself."""
        assert self.child is not None
        self.child.kill()
        self.child.wait()

    def kill_worker(self) -> bool:
        """End one of the processes that it started; whether there was one."""
        assert self.child is not None
        workers = Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children")
        found = [int(pid) for pid in workers.read_text().split()] if workers.exists() else []
        with suppress(ProcessLookupError):
            if found:
                os.kill(random.choice(found), signal.SIGKILL)
        return bool(found)


class Databases:
    """The server of a store, where it has one; it syncs every commit."""

    def __init__(self, kind: str, directory: Path, running: ExitStack) -> None:
        self.kind = kind
        self.process: Process | None = None
        self._directory = directory
        if kind == "redis":
            port = free_port()
            command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory),
                       "--appendonly", "yes", "--appendfsync", "always", "--save", ""]  # fmt: skip
            self.process = Process(command, port)
            self.settings = f"  type: redis\n  url: 127.0.0.1\n  port: {port}\n"
        elif kind == "postgres":
            url = self._initialised(running)
            self.settings = f"  type: postgres\n  url: {url}\n"
        else:
            self.settings = f"  type: sqlite\n  path: {directory / 'conversations.db'}\n"
        if self.process is not None:
            self.process.start()
            running.callback(self.process.kill, signal.SIGTERM)

    def _initialised(self, running: ExitStack) -> str:
        """A cluster of its own, made by the tests' helper, then started here, where it can be killed."""
        programs, become = _postgres_programs(), _other_user()
        assert programs is not None, "PostgreSQL is not installed"
        port = free_port()
        data = self._directory / "pg"
        data.mkdir()
        if become:
            shutil.chown(data, "postgres")
            self._directory.chmod(0o711)
        subprocess.run(
            [*become, str(programs / "initdb"), "-D", str(data / "data"), "-U", "tests", "-A", "trust", "-E", "UTF8",
             "--locale=C", "--no-sync"], check=True, stdout=subprocess.DEVNULL, cwd=data,
        )  # fmt: skip
        command = [*become, str(programs / "postgres"), "-D", str(data / "data"), "-p", str(port), "-k", str(data),
                   "-h", "127.0.0.1"]  # fmt: skip
        self.process = Process(command, port)
        return f"postgresql://tests@127.0.0.1:{port}/postgres"

    async def kill(self) -> None:
        """Kill the first process with its group, and start it anew as soon as what it left behind is gone."""
        assert self.process is not None
        self.process.watched = False
        self.process.kill()
        while True:
            self.process.start()
            await asyncio.sleep(0.3)
            assert self.process.child is not None
            if self.process.child.poll() is None:
                self.process.watched = True  # it may yet find a part of the one before
                return


# --- the action server -------------------------------------------------------------------------------------


class Actions:
    """Remembers each call: conversation and number, the turn's id and step."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        self.ids: dict[tuple[str, str], set[str]] = defaultdict(set)

    async def serve(self, port: int) -> asyncio.Server:
        return await asyncio.start_server(self._connected, "127.0.0.1", port, backlog=1024)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                headers, body = await read_message(reader)
                call = json.loads(body)
                number = call["tracker"]["latest_message"]["entities"][0]["value"]
                turn = call["sender_id"], number
                self.calls[turn] += 1
                self.ids[turn].add(headers["x-turn-id"] + "/" + headers["x-turn-step"])
                await asyncio.sleep(random.random() * ACTION)
                answer = json.dumps(
                    {"events": [{"event": "slot", "name": "number", "value": number}],
                     "responses": [{"text": f"done {number}"}]}
                ).encode()  # fmt: skip
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


async def read_message(reader: asyncio.StreamReader) -> tuple[dict[str, str], bytes]:
    """Headers and body of a request or a response; the first line is under the name ``."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    headers[""] = first
    if headers.get("transfer-encoding") != "chunked":
        return headers, await reader.readexactly(int(headers.get("content-length", "0")))
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return headers, body


# --- the clients -------------------------------------------------------------------------------------------


@define
class Load:
    """Conversations that talk until they are told to stop; `answered` has what each was answered."""

    ports: list[int]
    answered: dict[str, dict[str, Any]] = field(factory=lambda: defaultdict(dict))
    stopping: bool = False
    wrong: list[str] = field(factory=list)
    refused: int = 0  # attempts that were answered with 503, or not at all

    async def ask(self, port: int, sender_id: str, text: str, key: str | None) -> Any:
        """The answer, or None."""
        streams = "stream" in sender_id
        path, header = f"/conversations/{sender_id}/respond", ""
        content: dict[str, str] = {"query": text}
        if streams:
            path = "/webhooks/rest/webhook?stream=true"
            content = {"sender": sender_id, "message": text} | ({} if key is None else {"message_id": key})
        elif key is not None:
            header = f"Idempotency-Key: {key}\r\n"
        body = json.dumps(content).encode()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return None
        try:
            writer.write(
                f"POST {path} HTTP/1.1\r\nHost: x\r\n{header}Connection: close\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode() + body
            )
            headers, answer = await asyncio.wait_for(read_message(reader), PATIENCE)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            return None
        finally:
            writer.close()
        status = headers[""].split()[1]
        if status == "503":
            return None
        if status != "200":
            self.wrong.append(f"{sender_id}: {status} {answer[:200]!r}")
            return None
        return [json.loads(line) for line in answer.splitlines()] if streams else json.loads(answer)

    async def converse(self, sender_id: str, keyed: bool) -> None:
        number = 0
        while not self.stopping:
            text = f'/work{{"number": "{number}"}}'
            if keyed:
                await self._insist(sender_id, text, number)
            else:
                answer = await self.ask(random.choice(self.ports), sender_id, text, None)
                if answer is None:
                    self.refused += 1
                    await asyncio.sleep(0.1)
                else:
                    self._note(sender_id, number, answer)
            number += 1

    async def _insist(self, sender_id: str, text: str, number: int) -> None:
        """Ask every server, again and again, until all have answered alike."""

        async def until_answered(port: int) -> None:
            while True:
                answer = await self.ask(port, sender_id, text, f"k{number}")
                if answer is not None:
                    self._note(sender_id, number, answer)
                    return
                self.refused += 1
                await asyncio.sleep(random.random() * 0.2)

        await asyncio.gather(*(until_answered(port) for port in self.ports))

    def _note(self, sender_id: str, number: int, answer: Any) -> None:
        wanted = [{"recipient_id": sender_id, "text": f"done {number}"}]
        if answer != wanted:
            self.wrong.append(f"{sender_id} {number}: {answer}")
        self.answered[sender_id][str(number)] = answer


def name_of(number: int) -> str:
    """Every other conversation has keys, and every other two are streamed by the rest channel."""
    return f"{'key' if number % 2 == 0 else 'bare'}{'-stream' if number % 4 > 1 else ''}{number}"


# --- the check ---------------------------------------------------------------------------------------------

TURN = ["user", "slot", "action", "slot", "bot", "action"]


def check(lines: Iterable[dict[str, Any]], load: Load, actions: Actions) -> tuple[dict[str, int], list[str]]:
    """Counts, and what is wrong with the logs."""
    logs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    wrong = list(load.wrong)
    for line in lines:
        log = logs[line["sender_id"]]
        if line["seq"] != len(log):
            wrong.append(f"{line['sender_id']}: a gap before {line['seq']}")
        log += line["events"]
    counts = Counter(stored=0, unanswered=0)
    for sender_id, log in logs.items():
        events = log[1:]
        numbers = []
        for begin in range(0, len(events), len(TURN)):
            turn = events[begin : begin + len(TURN)]
            if [event["event"] for event in turn] != TURN:
                wrong.append(f"{sender_id}: a turn is torn: {[event['event'] for event in turn]}")
                break
            number = turn[0]["parse_data"]["entities"][0]["value"]
            if (turn[1]["value"], turn[3]["value"], turn[4]["text"]) != (number, number, f"done {number}"):
                wrong.append(f"{sender_id}: turn {number} has parts of another one")
            numbers.append(number)
        counts["stored"] += len(numbers)
        if len(set(numbers)) != len(numbers):
            wrong.append(f"{sender_id}: turns are stored twice")
        if sorted(numbers, key=int) != numbers:
            wrong.append(f"{sender_id}: turns are out of order")
        counts["unanswered"] += len(set(numbers) - set(load.answered[sender_id]))
    for sender_id, answered in load.answered.items():
        stored = {event["parse_data"]["entities"][0]["value"] for event in logs[sender_id] if event["event"] == "user"}
        for number in set(answered) - stored:
            wrong.append(f"{sender_id}: the answered turn {number} is lost")
    for (sender_id, number), ids in actions.ids.items():
        if sender_id.startswith("key") and len(ids) != 1:
            wrong.append(f"{sender_id}: the calls of turn {number} had {len(ids)} ids")
    counts["answered"] = sum(map(len, load.answered.values()))
    counts["calls"] = sum(actions.calls.values())
    counts["repeated"] = sum(count - 1 for count in actions.calls.values())
    return dict(counts), wrong


async def until_ready(server: Process) -> None:
    """Wait until it answers."""
    port = server.port
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            headers, _ = await asyncio.wait_for(read_message(reader), 5)
            writer.close()
            if " 200 " in headers[""]:
                return
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass
        await asyncio.sleep(0.02)


async def watch(servers: list[Process], failed: list[int]) -> None:
    """Start programs again that could not start, as whoever runs them does: their database was away, or the workers of
    a parent that was killed had the port yet."""
    while True:
        for server in servers:
            if server.watched and server.child is not None and server.child.poll() is not None:
                failed.append(server.port)
                server.start()
        await asyncio.sleep(0.5)


def export_all(settings: Path, target: Path) -> None:
    command = [sys.executable, "-m", "rasa_core_api.conversations", "export", "--endpoints", str(settings),
               "-o", str(target)]  # fmt: skip
    subprocess.run(command, check=True, cwd=HERE.parent, stderr=subprocess.DEVNULL)


async def measure(arguments: argparse.Namespace, directory: Path, running: ExitStack) -> bool:
    actions = Actions()
    action_port = free_port()
    listening = await actions.serve(action_port)
    database = Databases(arguments.store, directory, running)
    settings = directory / "endpoints.yml"
    settings.write_text(
        f"action_endpoint:\n  url: http://127.0.0.1:{action_port}/webhook\ntracker_store:\n{database.settings}"
    )
    model = train(directory)
    servers = []
    for number in range(arguments.servers):
        port = free_port()
        log = directory / f"server-{number}.log"
        command = [sys.executable, "-m", "rasa_core_api.run", "--enable_api", "-d", str(model), "-c", "rest",
                   "-p", str(port), "-o", str(log), "--endpoints", str(settings), "--quiet"]  # fmt: skip
        if arguments.workers > 1:
            command += ["--workers", str(arguments.workers)]
        server = Process(command, port)
        server.start()
        running.callback(server.kill, signal.SIGTERM)
        servers.append(server)
        await until_ready(server)
    failed_starts: list[int] = []
    watching = asyncio.create_task(watch([*servers, *filter(None, [database.process])], failed_starts))
    load = Load([server.port for server in servers])
    began = time.monotonic()
    names = [name_of(number) for number in range(arguments.conversations)]
    talking = [asyncio.create_task(load.converse(name, name.startswith("key"))) for name in names]
    if not arguments.kills:
        await asyncio.sleep(arguments.seconds)
    for kill in range(1, arguments.kills + 1):
        await asyncio.sleep(random.random() * 0.8)
        if database.process is not None and not arguments.no_database and kill % 4 == 0:
            await database.kill()
        else:
            server = random.choice(servers)
            what = random.choice(["worker", "worker", "parent", "all"]) if arguments.workers > 1 else "all"
            if what != "worker" or not server.kill_worker():
                server.kill() if what == "all" else server.kill_alone()
                server.start()
            if random.random() < 0.7:  # else killed again while it starts
                await until_ready(server)
        if kill % 20 == 0:
            print(f"{kill} kills, {sum(map(len, load.answered.values()))} turns answered", file=sys.stderr, flush=True)
    for server in servers:
        await until_ready(server)
    load.stopping = True
    await asyncio.gather(*talking)
    lasted = time.monotonic() - began
    for name in names:  # the next turn works, also where the last one came to nothing
        await load._insist(name, '/work{"number": "1000000"}', 1_000_000)
    watching.cancel()
    export = directory / "export.ndjson"
    await asyncio.to_thread(export_all, settings, export)
    counts, wrong = check((json.loads(line) for line in export.open()), load, actions)
    listening.close()
    if not arguments.kills and counts["repeated"]:
        wrong.append(f"{counts['repeated']} actions ran again though nothing was killed")
    started = f"{arguments.servers} server(s) of {arguments.workers}"
    table(
        f"{arguments.store}, {started}, {arguments.kills} kills, {lasted:.0f} s",
        [
            ("turns answered", str(counts["answered"]), ""),
            ("turns stored", str(counts["stored"]), ""),
            ("... of them without an answer (no key, killed)", str(counts["unanswered"]), ""),
            ("attempts that failed and were made again", str(load.refused), ""),
            ("starts that failed and were made again", str(len(failed_starts)), ""),
            ("action calls", str(counts["calls"]), ""),
            ("... made again after a kill, with the same id", str(counts["repeated"]), "0 without kills"),
            ("lost, torn, doubled or out of order", str(len(wrong)), "0"),
        ],
    )
    for line in wrong[:20]:
        print("   ", line)
    if wrong:
        for number in range(arguments.servers):
            print((directory / f"server-{number}.log").read_text()[-2000:])
    return not wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="sqlite", choices=["sqlite", "postgres", "redis"])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--conversations", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--no-database", action="store_true")
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as running:
        return 0 if asyncio.run(measure(arguments, Path(scratch), running)) else 1


if __name__ == "__main__":
    sys.exit(main())
