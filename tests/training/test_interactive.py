"""A bot is taught in a conversation: what is wrong is corrected, and what was said becomes stories."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import field, frozen

from rasa_core_api.exceptions import TrainingFailed
from rasa_core_api.train import main
from rasa_core_api.training.interactive import Api, Export, Session, examples_of

DOMAIN = """
intents: [greet, bye]
entities: [name]
templates: {utter_greet: [{text: hello}], utter_bye: [{text: farewell}]}
actions: [utter_greet, utter_bye]
"""
STORIES = "## hello\n* greet\n  - utter_greet\n\n## bye\n* bye\n  - utter_bye\n"
LISTEN = {"event": "action", "name": "action_listen", "timestamp": 1.0}


@frozen
class Server(Api):
    """Keeps the events that it is sent; understands every message as `greet` and wants to say `utter_greet`."""

    events: list[dict[str, Any]] = field(factory=lambda: [dict(LISTEN)])
    calls: list[tuple[str, str, Any]] = field(factory=list)

    def call(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        self.calls.append((method, path.rpartition("/")[2], body))
        events = self.events
        if path == "/domain":
            return {"intents": [{"greet": {}}, {"bye": {}}], "actions": ["action_listen", "utter_greet", "utter_bye"]}
        if path.endswith("/messages"):
            parsed = body.get("parse_data") or {"intent": {"name": "greet", "confidence": 0.6}, "entities": []}
            events.append({"event": "user", "text": body["text"], "parse_data": parsed, "timestamp": 2.0})
        elif path.endswith("/predict"):
            best = "action_listen" if events[-1].get("name", "").startswith("utter") else "utter_greet"
            names = ("action_listen", "utter_greet", "utter_bye")
            scores = [{"action": name, "score": float(name == best)} for name in names]
            return {"scores": scores, "policy": "p", "tracker": {"events": list(events)}}
        elif path.endswith("/execute"):
            events.append({"event": "action", "name": body["action"], "timestamp": 3.0})
            return {"messages": [{"text": f"<{body['action']}>"}], "tracker": {"events": list(events)}}
        elif path.endswith("/tracker/events"):
            if method == "PUT":
                events[:] = body
            else:
                events.append({"timestamp": 4.0, **body})
        return {"events": list(events)}


Teach = Callable[..., tuple[Server, str]]


@pytest.fixture
def teach(tmp_path: Path) -> Teach:
    def run(*answers: str, finetune: bool = False) -> tuple[Server, str]:
        server, lines, said = Server("http://none"), iter(answers), list[str]()

        def ask(prompt: str) -> str:
            said.append(prompt)
            try:
                line = next(lines)
            except StopIteration:
                raise EOFError from None
            if line == "^C":
                raise KeyboardInterrupt
            return line

        export = Export(tmp_path / "out" / "stories.md", tmp_path / "nlu.md")
        Session(server, "me", ask, said.append, export, finetune).run()
        return server, "\n".join(said)

    return run


def test_all_right(teach: Teach, tmp_path: Path) -> None:
    """What is accepted is executed, and exported as a story and as an example."""
    server, said = teach("hi there", "", "", "y", "/menu", "e", "q")
    assert "<utter_greet>" in said
    story = (tmp_path / "out" / "stories.md").read_text()
    assert story.splitlines()[1:] == ["* greet", "    - utter_greet"]
    assert (tmp_path / "nlu.md").read_text() == "## intent:greet\n- hi there\n"
    assert [call[1] for call in server.calls].count("execute") == 2


def test_corrections(teach: Teach, tmp_path: Path) -> None:
    """A wrong intent, wrong entities and a wrong action are replaced on the server."""
    server, _ = teach("so long Ann", "n", "bye", "so long [Ann](name)", "n", "utter_bye", "", "/menu", "e", "q")
    user = next(event for event in server.events if event["event"] == "user")
    assert user["parse_data"]["intent"]["name"] == "bye"
    assert user["parse_data"]["entities"] == [{"start": 8, "end": 11, "value": "Ann", "entity": "name"}]
    assert [event["event"] for event in server.events].count("user") == 1
    story = (tmp_path / "out" / "stories.md").read_text().splitlines()
    assert story[1:] == ['* bye{"name": "Ann"}', "    - utter_bye"]
    assert "- so long [Ann](name)" in (tmp_path / "nlu.md").read_text()
    assert all(call[1] != "finetune" for call in server.calls)


def test_finetune(teach: Teach) -> None:
    """With --finetune a corrected action is sent on to learn from."""
    server, _ = teach("hi", "", "n", "3", finetune=True)
    (sent,) = [body for _, name, body in server.calls if name == "finetune"]
    assert sent[-1]["name"] == "action_listen" or sent[-1]["event"] == "action"


def test_menu(teach: Teach, tmp_path: Path) -> None:
    """The last step is undone; a fresh start and a fork begin another story."""
    server, _ = teach("hi", "", "", "/menu", "u", "/menu", "q")
    assert [event["event"] for event in server.events] == ["action", "user"]
    server, _ = teach("hi", "", "", "", "/menu", "f", "hi", "", "", "", "/menu", "e", "q")
    assert (tmp_path / "out" / "stories.md").read_text().count("## interactive story") == 2


def test_control_c(teach: Teach, tmp_path: Path) -> None:
    """Control-C opens the menu, where what was taught can be exported; there it ends the session."""
    teach("hi", "", "", "^C", "e", "q")
    assert "utter_greet" in (tmp_path / "out" / "stories.md").read_text()
    with pytest.raises(KeyboardInterrupt):
        teach("^C", "^C")


def test_unclear_answer(teach: Teach) -> None:
    """What is neither yes nor no is asked again."""
    server, said = teach("hi", "", "/bye", "y", "/menu", "q")
    assert "answer y or n, not '/bye'" in said and "which action" not in said
    assert [call[1] for call in server.calls].count("execute") == 1


def test_failing_server(teach: Teach, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure of the server opens the menu: what was taught so far can be exported, and the session go on."""
    call = Server.call

    def failing(self: Server, method: str, path: str, body: Any = None, **query: str) -> Any:
        if body and body.get("text") == "crash":
            raise TrainingFailed("the server answered 500")
        return call(self, method, path, body, **query)

    monkeypatch.setattr(Server, "call", failing)
    _, said = teach("hi", "", "", "", "crash", "e", "c", "hi", "", "/menu", "q")
    assert "answered 500" in said and "utter_greet" in (tmp_path / "out" / "stories.md").read_text()


def test_examples() -> None:
    """Examples are grouped by intent, each once."""
    heard = [("a", "x"), ("b", "y"), ("a", "z"), ("a", "x")]
    assert examples_of(heard) == "## intent:a\n- x\n- z\n\n## intent:b\n- y\n"


def test_no_server() -> None:
    """A server that is not there is named."""
    with pytest.raises(TrainingFailed, match="http://127.0.0.1:1 cannot be reached"):
        Api("http://127.0.0.1:1", timeout=2).call("GET", "/domain")


def test_real_program(tmp_path: Path) -> None:
    """The command trains a model, serves it, and teaches it over the real API."""
    (tmp_path / "domain.yml").write_text(DOMAIN)
    (tmp_path / "stories.md").write_text(STORIES)
    (tmp_path / "policies.yml").write_text("policies: [{name: MemoizationPolicy, max_history: 2}]")
    command = [sys.executable, "-m", "rasa_core_api.train", "interactive", "-d", "domain.yml", "-s", "stories.md",
               "-c", "policies.yml", "--augmentation", "0", "--quiet"]  # fmt: skip
    answers = ["/greet", "", "", "see you Ann", "n", "bye", "see you [Ann](name)", "n", "utter_greet", "n",
               "action_listen", "/menu", "e", "q"]  # fmt: skip
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        command, input="\n".join(answers) + "\n", cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={"PYTHONPATH": root, "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bot: hello" in done.stdout
    story = (tmp_path / "data" / "stories.md").read_text()
    assert story.splitlines()[1:] == ["* greet", "    - utter_greet", '* bye{"name": "Ann"}', "    - utter_greet"]


def test_needs_something(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a server, a model or a domain and stories there is nothing to teach."""
    assert main(["interactive", "--quiet"]) == 1
    assert "--server" in capsys.readouterr().err
