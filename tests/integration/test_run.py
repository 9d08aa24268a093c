"""Tests of the program as its users start it."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.integration.program import PATIENCE, ActionServer, Program, environment, run_to_end
from tests.models.samples import write_model

pytestmark = pytest.mark.integration

RUN = "rasa_core_api.run"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that greets; when it is told bye, it searches behind that."""
    directory = write_model(
        tmp_path_factory.mktemp("model"),
        lookup={
            "[null, {}, {intent_greet: 1.0, prev_action_listen: 1.0}]": 3,
            "[{}, {intent_greet: 1.0, prev_action_listen: 1.0}, {intent_greet: 1.0, prev_utter_greet: 1.0}]": 0,
            "[null, {}, {intent_bye: 1.0, prev_action_listen: 1.0}]": 3,
            "[{}, {intent_bye: 1.0, prev_action_listen: 1.0}, {intent_bye: 1.0, prev_utter_greet: 1.0}]": 4,
            "[{intent_bye: 1.0, prev_action_listen: 1.0}, {intent_bye: 1.0, prev_utter_greet: 1.0}, "
            "{intent_bye: 1.0, prev_action_search: 1.0}]": 0,
        },
    )
    domain = directory / "domain.yml"
    domain.write_text(domain.read_text().replace("[utter_greet, utter_bye]", "[utter_greet, action_search]"))
    return directory


def test_the_historical_command_line(model: Path, tmp_path: Path) -> None:
    """API and webhook are served; the log has time and level on the terminal and messages alone in the file."""
    with Program([RUN, "--enable_api", "-d", str(model), "-o", "out.log", "-p", "0"], tmp_path) as program:
        program.up()
        status, body = program.ask("POST", "/conversations/u/respond", {"query": "/greet"})
        assert (status, [message["text"] for message in json.loads(body)]) == (200, ["hello"])
        status, body = program.ask("POST", "/webhooks/rest/webhook", {"sender": "v", "message": "/greet"})
        assert (status, [message["recipient_id"] for message in json.loads(body)]) == (200, ["v"])
        assert json.loads(program.ask("GET", "/conversations")[1]) == ["u", "v"]
        assert program.stop() == 0
    terminal = [line for line in program.lines if "Rasa" in line]
    assert [line.split("  - ")[1].split(" on ")[0] for line in terminal] == [
        "Rasa process starting",
        "Rasa Core server is up and running",
    ]
    assert terminal[0][20:28] == "INFO    "
    written = (tmp_path / "out.log").read_text("utf-8").splitlines()
    assert written[0] == "Rasa process starting"


def test_without_the_api(model: Path, tmp_path: Path) -> None:
    """Without --enable_api only the channels are there; --quiet says nothing and no log file is written."""
    arguments = [RUN, "-d", str(model), "-p", "0", "-o", "", "-c", "rest"]
    with Program(arguments, tmp_path) as program:
        program.up()
        assert program.ask("GET", "/version")[0] == 404
        assert program.ask("GET", "/webhooks/rest/") == (200, b'{"status":"ok"}\n')
        assert program.stop() == 0
    assert list(tmp_path.iterdir()) == []


def test_before_the_first_model(tmp_path: Path) -> None:
    """A server that waits for its model server is up, says so, and answers 503 and nothing to channels."""
    (tmp_path / "endpoints.yml").write_text("model: {url: 'http://127.0.0.1:9/none', keep: false}\n")
    arguments = [RUN, "-d", "none", "--endpoints", "endpoints.yml", "-p", "0", "-o", "", "-c", "rest", "--enable_api"]
    with Program(arguments, tmp_path) as program:
        program.up()
        program.line("there is no model yet")
        assert program.ask("GET", "/readyz")[0] == 503
        assert program.ask("POST", "/conversations/u/respond", {"query": "/greet"})[0] == 503
        assert program.ask("POST", "/webhooks/rest/webhook", {"message": "/greet"}) == (200, b"[]\n")
        assert program.stop() == 0


def test_stopping_lets_turns_end(model: Path, tmp_path: Path) -> None:
    """A turn in flight is answered and stored before the server ends."""
    with ActionServer() as actions:
        endpoints = tmp_path / "endpoints.yml"
        endpoints.write_text(
            f"action_endpoint: {{url: '{actions.url}'}}\ntracker_store: {{type: sqlite, path: talks.db}}\n"
        )
        arguments = [RUN, "--enable_api", "-d", str(model), "--endpoints", str(endpoints), "-p", "0", "-o", ""]
        with Program(arguments, tmp_path) as program:
            program.up()
            answers: list[Any] = []
            client = threading.Thread(
                target=lambda: answers.append(program.ask("POST", "/conversations/u/respond", {"query": "/bye"}))
            )
            client.start()
            assert actions.called.wait(PATIENCE)
            kept = http.client.HTTPConnection("127.0.0.1", program.port, timeout=PATIENCE)
            kept.request("GET", "/version")
            assert (answer := kept.getresponse()).read() and answer.getheader("Connection") is None
            program.process.terminate()
            with pytest.raises(subprocess.TimeoutExpired):
                program.process.wait(0.2)
            kept.request("POST", "/conversations/v/respond", b'{"query": "/greet"}')  # it cannot know yet
            answer = kept.getresponse()
            assert (answer.status, answer.read() != b"", answer.getheader("Connection")) == (200, True, "close")
            kept.close()
            program.process.send_signal(signal.SIGINT)  # as impatient people do
            program.line("INFO .* the server is stopping already")
            actions.go.set()
            client.join(PATIENCE)
            assert program.wait() == 0
        assert answers[0][0] == 200
        assert [message["text"] for message in json.loads(answers[0][1])] == ["hello", "found it"]
        with Program(arguments, tmp_path) as program:
            program.up()
            _, body = program.ask("GET", "/conversations/u/tracker")
            program.stop()
    assert [event["name"] for event in json.loads(body)["events"] if event["event"] == "action"] == [
        "action_listen",
        "utter_greet",
        "action_search",
        "action_listen",
    ]


def test_a_stream_over_the_network(model: Path, tmp_path: Path) -> None:
    """What is said before a slow action arrives while the action still runs."""
    with ActionServer() as actions:
        (tmp_path / "endpoints.yml").write_text(f"action_endpoint: {{url: '{actions.url}'}}\n")
        arguments = [RUN, "-d", str(model), "--endpoints", "endpoints.yml", "-p", "0", "-o", ""]
        with Program(arguments, tmp_path) as program:
            program.up()
            with socket.create_connection(("127.0.0.1", program.port), PATIENCE) as client:
                body = b'{"message": "/bye"}'
                client.sendall(
                    b"POST /webhooks/rest/webhook?stream=true HTTP/1.1\r\nHost: x\r\nContent-Length: 19\r\n\r\n" + body
                )
                received = b""
                while b'"text": "hello"}\n' not in received:
                    received += client.recv(4096)
                assert actions.called.wait(PATIENCE) and b"found it" not in received
                actions.go.set()
                while not received.endswith(b"0\r\n\r\n"):
                    received += client.recv(4096)
                assert b'{"recipient_id": "default", "text": "found it"}\n' in received
            assert program.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-d", "nowhere"], "nowhere: there is no such directory"),
        (["-d", "endpoints.yml"], "endpoints.yml: it is a file, but no zip or tar.gz of a model"),
        (["-d", "model.zip"], "model.zip: refused archive: a path that leads upwards: member '../domain.yml'"),
        (["-d", "MODEL", "--failure_template", "utter_nope"], "failure_template: the model has no template"),
        (["-d", "MODEL", "--endpoints", "endpoints.yml"], r"endpoints.yml: nlg.url: "),
        (["-d", "MODEL", "--endpoints", "store.yml"], "store.yml: tracker_store.path: cannot open nowhere/c.db"),
        (["-d", "MODEL", "-c", "facebook"], "the channel 'facebook' is not built yet"),
        (["-d", "MODEL", "-p", "PORT"], "Address already in use"),
    ],
)
def test_what_cannot_start(model: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    """The program ends with 1 and one line that says what, where and why."""
    (tmp_path / "endpoints.yml").write_text("nlg: {url: 7}\n")
    (tmp_path / "store.yml").write_text("tracker_store: {type: sqlite, path: nowhere/c.db}\n")
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("../domain.yml", "{}")
    with socket.create_server(("0.0.0.0", 0)) as taken:
        places = {"MODEL": str(model), "PORT": str(taken.getsockname()[1])}
        arguments = [places.get(argument, argument) for argument in arguments]
        ended = run_to_end([RUN, "--quiet", "-o", "", *arguments], tmp_path)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert words in line


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals_before_it_is_up(model: Path, tmp_path: Path, number: signal.Signals, status: int) -> None:
    """Whoever changes their mind while the server starts is told nothing but that it ended."""
    os.mkfifo(tmp_path / "endpoints.yml")  # it waits for whoever writes there
    with Program([RUN, "-d", str(model), "-p", "0", "-o", "", "--endpoints", "endpoints.yml"], tmp_path) as program:
        program.line("Rasa process starting")
        assert program.stop(number) == status
        assert program.process.stderr is not None
        assert program.process.stderr.read() == (b"interrupted\n" if number == signal.SIGINT else b"")


def test_a_terminal_that_closes(model: Path, tmp_path: Path) -> None:
    """SIGHUP ends the server as SIGTERM does, once its turns are over."""
    with ActionServer() as actions:
        (tmp_path / "endpoints.yml").write_text(f"action_endpoint: {{url: '{actions.url}'}}\n")
        arguments = ["-d", str(model), "-p", "0", "-o", "", "--enable_api", "--endpoints", "endpoints.yml"]
        with Program([RUN, *arguments, "-c", "rest"], tmp_path) as program:
            program.up()
            answers: list[tuple[int, bytes]] = []
            client = threading.Thread(
                target=lambda: answers.append(program.ask("POST", "/conversations/a/respond", {"query": "/bye"}))
            )
            client.start()
            assert actions.called.wait(PATIENCE)
            program.process.send_signal(signal.SIGHUP)
            program.process.send_signal(signal.SIGHUP)
            actions.go.set()
            client.join(PATIENCE)
            assert program.wait() == 0
            assert answers and answers[0][0] == 200


def test_the_deprecated_command(model: Path, tmp_path: Path) -> None:
    """`server` takes the flags of `run`, serves the API in any case and says what to use instead."""
    with Program(["rasa_core_api.server", "-d", str(model), "-p", "0", "-o", ""], tmp_path) as program:
        program.up()
        assert program.ask("GET", "/version")[0] == 200
        assert program.stop() == 0
    assert any("use `python -m rasa_core_api.run --enable_api`" in line for line in program.lines)


def test_the_list_of_commands(tmp_path: Path) -> None:
    """The package lists its commands; an unknown one is a usage error."""
    ended = run_to_end(["rasa_core_api"], tmp_path)
    assert ended.returncode == 0
    assert "run" in ended.stdout and "serve a bot" in ended.stdout
    assert run_to_end(["rasa_core_api", "dance"], tmp_path).returncode == 2
    assert run_to_end(["rasa_core_api", "--version"], tmp_path).stdout.strip().count(".") == 2


class Screen:
    """A terminal that the program runs on."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        self._seen = ""

    def until(self, text: str) -> str:
        """What is shown up to and with a text."""
        until = time.monotonic() + PATIENCE
        while text not in self._seen:
            ready, _, _ = select.select([self.master], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"{text!r} is not on the screen: {self._seen!r}"
            self._seen += os.read(self.master, 4096).decode()
        before, _, self._seen = self._seen.partition(text)
        return before + text

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


def take_terminal() -> None:
    """Make standard input the terminal that controls the program."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_the_console(model: Path, tmp_path: Path) -> None:
    """Without a channel one can talk on the terminal, while the webhook is served; /stop ends the server."""
    screen = Screen()
    try:
        with Program(
            [RUN, "-d", str(model), "-p", "0", "-o", ""],
            tmp_path,
            stdin=screen.slave,
            stdout=screen.slave,
            preexec_fn=take_terminal,
        ) as program:
            program.up()
            screen.until("Bot loaded. Type a message and press enter (use '/stop' to exit): ")
            screen.type("/greet\n")
            assert "\033[94mhello\033[0m" in screen.until("hello\033[0m")
            assert program.ask("POST", "/webhooks/rest/webhook", {"message": "/greet"})[0] == 200
            screen.type("/stop\n")
            assert program.wait() == 0
    finally:
        screen.close()


def test_input_that_is_no_terminal(model: Path, tmp_path: Path) -> None:
    """A pipe is not read, and its end does not end the server."""
    with Program([RUN, "-d", str(model), "-p", "0", "-o", ""], tmp_path, stdin=subprocess.PIPE) as program:
        program.up()
        assert program.process.stdin is not None
        program.process.stdin.close()
        program.line("no console is started")
        assert program.ask("GET", "/webhooks/rest/")[0] == 200
        assert program.stop() == 0


LEAN = """
import sys
from twisted.internet import reactor
from rasa_core_api.run import prepare_process
from rasa_core_api.settings import run_parser, settings_of
from rasa_core_api.service import build_service
prepare_process()
build_service(settings_of(run_parser().parse_args(["--enable_api", "-d", sys.argv[1], "-c", "rest"])), reactor, {})
print(sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_what_is_not_needed_is_not_imported(model: Path) -> None:
    """A server without networks, tokens, files of its own and other servers imports nothing for them."""
    ended = subprocess.run(
        [sys.executable, "-c", LEAN, str(model)],
        env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    imported = set(json.loads(ended.stdout.splitlines()[-1].replace("'", '"')))
    assert "klein" in imported
    assert not imported & {"numpy", "h5py", "jwt", "sqlite3", "treq", "pycrfsuite"}
