"""Mistakes in a project are found before it is trained: one line each, with file, line and remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rasa_core_api.check import main
from tests.training.helpers import CONFORMANCE, needs_recordings

DOMAIN = """intents:
- greet
- bye
- unused_intent
- ask: {triggers: action_missing}
entities: [name]
slots:
  mood: {type: text}
  odd: {type: my.slots.OddSlot, initial_value: 3}
templates:
  utter_greet:
  - text: hello
  utter_orphan:
  - text: nobody says me
actions:
- utter_greet
- utter_silent
- action_unused
- action_used
"""
STORIES = """## one
* greet
  - utter_gret
  - utter_greet
* bye{"nam": "x"}
  - slot{"mod": "good"}
  - action_used

## two
* greet
  - utter_gret
  - action_used
> nowhere{"mood": "x"}

## three
* hello
  - utter_greet
"""


@pytest.fixture
def bot(tmp_path: Path) -> Path:
    (tmp_path / "domain.yml").write_text(DOMAIN)
    (tmp_path / "stories.md").write_text(STORIES)
    return tmp_path


Findings = dict[tuple[str, str], dict[str, Any]]


def found(bot: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, Findings]:
    files = ["-d", str(bot / "domain.yml"), "-s", str(bot / "stories.md")]
    code = main([*files, "--json", *more])
    findings = json.loads(capsys.readouterr().out)
    return code, {(item["code"], (*item["message"].split("'"), "")[1]): item for item in findings}


def test_names(bot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown and unused names are found where they are, with the nearest known name."""
    code, findings = found(bot, capsys)
    assert code == 1
    places = {key: (Path(item["file"]).name, item["line"]) for key, item in findings.items()}
    assert places[("unknown-action", "utter_gret")] == ("stories.md", 3)
    assert places[("unknown-entity", "nam")] == ("stories.md", 5)
    assert places[("unknown-slot", "mod")] == ("stories.md", 6)
    assert places[("unknown-intent", "hello")] == ("stories.md", 16)
    assert "did you mean 'utter_greet'?" in findings[("unknown-action", "utter_gret")]["remedy"]
    assert places[("unknown-trigger", "ask")] == ("domain.yml", 5)
    assert places[("missing-template", "utter_silent")] == ("domain.yml", 17)
    assert places[("unused-template", "utter_orphan")] == ("domain.yml", 13)
    assert places[("unused-intent", "unused_intent")] == ("domain.yml", 4)
    assert places[("unused-action", "action_unused")] == ("domain.yml", 18)
    assert places[("custom-class", "odd")] == ("domain.yml", 9)
    assert places[("unused-entity", "name")] == ("domain.yml", 6)
    assert places[("unused-slot", "odd")] == ("domain.yml", 9)
    assert places[("unused-slot", "mood")] == ("domain.yml", 8)
    assert ("unused-action", "action_used") not in findings
    assert findings[("unused-action", "action_unused")]["severity"] == "warning"


def test_contradictions(bot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stories that go on differently from the same situation are shown side by side."""
    _, findings = found(bot, capsys)
    (message,) = [item["message"] for (code, _), item in findings.items() if code == "contradiction"]
    assert "'utter_greet' in 'one'" in message and "'action_used' in 'two'" in message
    assert "stories.md:1" in message and "stories.md:9" in message


def test_clean_project(bot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A project without mistakes has no findings and ends with status 0; warnings count with --strict."""
    domain = "intents: [greet, spare]\nactions: [utter_greet]\ntemplates: {utter_greet: [{text: hi}]}\n"
    (bot / "domain.yml").write_text(domain)
    (bot / "stories.md").write_text("## s\n* greet\n- utter_greet\n")
    code, findings = found(bot, capsys)
    assert code == 0 and set(findings) == {("unused-intent", "spare")}
    assert found(bot, capsys, "--strict")[0] == 1


def test_endpoints_and_credentials(bot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Missing action servers, calls in the clear and open webhooks are named with their lines."""
    (bot / "endpoints.yml").write_text("# here\nnlg:\n  url: http://texts.example/nlg\n")
    (bot / "credentials.yml").write_text("rest:\nslack:\n  slack_token: x\nresst:\nbot.In:\n")
    options = ["--endpoints", str(bot / "endpoints.yml"), "--credentials", str(bot / "credentials.yml")]
    _, findings = found(bot, capsys, *options)
    by_code = {code: item for (code, _), item in findings.items()}
    assert by_code["plain-http"]["line"] == 2
    assert by_code["open-webhook"]["line"] == 2 and by_code["open-webhook"]["severity"] == "error"
    assert by_code["unsupported-channel"]["line"] == 2
    assert by_code["unknown-channel"]["line"] == 4 and "did you mean 'rest'" in by_code["unknown-channel"]["remedy"]
    assert findings[("custom-class", "bot.In")]["line"] == 5
    assert "no-action-server" in by_code
    assert "missing-template" not in by_code, "the texts come from a server"


def test_stores_and_brokers(bot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a server would refuse in its store or broker is an error; a class of the project is left alone."""
    file = bot / "endpoints.yml"

    def told() -> list[tuple[int, str, str]]:
        _, findings = found(bot, capsys, "--endpoints", str(file))
        wrong = [item for (code, _), item in findings.items() if code == "unusable-setting"]
        return [(item["line"], item["severity"], item["message"].partition(" has")[0]) for item in wrong]

    file.write_text("# here\ntracker_store: {type: redis, prot: 1}\nevent_broker: {type: file, pfad: x}\n")
    assert told() == [
        (2, "error", "tracker_store.prot: 'redis'"),
        (3, "error", "event_broker.pfad: 'file'"),
    ]
    file.write_text("tracker_store: {type: my.Store, x: 1}\nevent_broker: {type: file}\n")
    assert told() == []


def test_keys_of_endpoints_that_mean_nothing(bot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A key that nothing uses is a warning at the line of its entry."""
    (bot / "endpoints.yml").write_text("action_endpoint: {url: 'https://x'}\nmodels:\n  url: https://x\n  tokn: s\n")
    _, findings = found(bot, capsys, "--endpoints", str(bot / "endpoints.yml"))
    by_code = {code: item for (code, _), item in findings.items()}
    assert (by_code["unused-key"]["line"], by_code["unused-key"]["severity"]) == (2, "warning")
    assert by_code["unused-key"]["message"] == "models.tokn: nothing uses this key"
    assert by_code["unused-key"]["remedy"] == "did you mean 'token'?"


def test_nlu_data(bot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Intents of the NLU data and of the domain are compared both ways."""
    (bot / "nlu.md").write_text("## intent:greet\n- hi\n- hello\n\n## intent:stranger\n- who\n- [what](thing)\n")
    _, findings = found(bot, capsys, "--nlu", str(bot / "nlu.md"))
    assert ("no-examples", "bye") in findings
    places = {key: (Path(item["file"]).name, item["line"]) for key, item in findings.items()}
    assert places[("unknown-intent", "stranger")] == ("nlu.md", 5)
    assert places[("unknown-entity", "thing")] == ("nlu.md", 7)


def test_unreadable(bot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that cannot be read is a finding with its line."""
    (bot / "stories.md").write_text("## s\n* greet\n- slot\n")
    code, findings = found(bot, capsys)
    ((_, item),) = [(key, item) for key, item in findings.items() if key[0] == "unreadable"]
    assert code == 1 and item["line"] == 3 and "slot without parameters" in item["message"]


def test_lines(bot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --json a finding is one line."""
    assert main(["-d", str(bot / "domain.yml")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(str(bot / "domain.yml")) and line.endswith("]") for line in lines)
    assert any(":17: error: the action 'utter_silent' has no template" in line for line in lines)


@needs_recordings
@pytest.mark.conformance
def test_old_model(capsys: pytest.CaptureFixture[str]) -> None:
    """Pickles in an old model are pointed out; the model itself can be served."""
    model = CONFORMANCE / "models" / "rasa-core-0.11.12" / "cafe-sklearn"
    assert main(["--core", str(model), "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert [Path(item["file"]).name for item in findings] == ["sklearn_model.pkl"]
