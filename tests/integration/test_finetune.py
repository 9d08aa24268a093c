"""A served model learns a correction while it answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rasa_core_api.train import main
from tests.integration.program import Program

pytestmark = pytest.mark.integration

DOMAIN = "intents: [greet]\nactions: [utter_hi, utter_yo]\ntemplates: {utter_hi: [hi], utter_yo: [yo]}\n"
STORIES = "## s\n* greet\n  - utter_hi\n"
POLICIES = "policies: [{name: MemoizationPolicy}, {name: KerasPolicy, epochs: 20}, {name: MappingPolicy}]"


def test_finetune(tmp_path: Path) -> None:
    """The answer is 204, the fingerprint another, and from then on the bot does what it was told."""
    for name, text in (("d.yml", DOMAIN), ("s.md", STORIES), ("p.yml", POLICIES)):
        (tmp_path / name).write_text(text)
    files = [word for flag, name in (("-d", "d.yml"), ("-s", "s.md"), ("-c", "p.yml"), ("-o", "model"))
             for word in (flag, str(tmp_path / name))]  # fmt: skip
    assert main([*files, "--quiet", "--augmentation", "0"]) == 0
    command = ["rasa_core_api.run", "--enable_api", "-d", str(tmp_path / "model"), "-c", "rest", "-o", "", "-p", "0"]
    with Program(command, tmp_path) as program:
        program.up()

        def said(sender: str) -> str:
            status, body = program.ask("POST", f"/conversations/{sender}/respond", {"query": "/greet"})
            assert status == 200
            return str(json.loads(body)[0]["text"])

        def fingerprint() -> str:
            return str(json.loads(program.ask("GET", "/status")[1])["model_fingerprint"])

        assert said("a") == "hi"
        before = fingerprint()
        heard = {"event": "user", "text": "/greet", "parse_data": {"intent": {"name": "greet", "confidence": 1.0}}}
        listen = {"event": "action", "name": "action_listen"}
        right = [listen, heard, {"event": "action", "name": "utter_yo"}, listen]
        assert program.ask("POST", "/finetune?epochs=10", right) == (204, b"")
        assert said("b") == "yo" and fingerprint() != before
        status, body = program.ask("POST", "/finetune", [listen])
        assert status == 400 and b"no action that follows" in body
        assert program.stop() == 0
