"""Tests of what the commands say about themselves."""

from __future__ import annotations

import importlib
import sys

import pytest

from rasa_core_api import run
from rasa_core_api.__main__ import COMMANDS
from rasa_core_api.__main__ import main as list_commands


def help_of(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What `--help` prints, as one line."""
    name, *words = command.split()
    main = run.server_main if name == "server" else importlib.import_module(f"rasa_core_api.{name}").main
    monkeypatch.setattr(sys, "argv", [name, *words, "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "command",
    [
        *COMMANDS,
        "train compare",
        "train interactive",
        *(f"conversations {name}" for name in ("list", "export", "import", "delete", "anonymise", "migrate")),
    ],
)
def test_every_command_calls_itself_by_its_name_and_ends_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = help_of(command, capsys, monkeypatch)
    assert shown.startswith(f"usage: python -m rasa_core_api.{command} ")
    served_by = "run --enable_api" if command == "server" else command
    assert f"python -m rasa_core_api.{served_by}" in shown.split(" example: ")[1]


def test_the_list_names_deprecated_commands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["rasa_core_api"])
    assert list_commands() == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert dict(lines)["server"] == "deprecated: use run --enable_api"
    assert dict(lines)["evaluate"] == "deprecated: use test"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", ["train compare", "train interactive", "--percentages", "--runs"]),
        ("run", ["action_endpoint", "nlg", "nlu_model", "models", "tracker_store", "event_broker"]),
        ("check", ["the release whose rules the stories are read by"]),
        ("train compare", ["percent of the stories that are left out", "how often"]),
    ],
)
def test_help_names_what_there_is(
    command: str, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = help_of(command, capsys, monkeypatch)
    assert [word for word in words if word not in shown] == []
