"""What is told when a server starts, and unsafe parts of endpoints and credentials."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rasa_core_api.domain import Domain
from rasa_core_api.endpoints import Endpoints, endpoints_from_json
from rasa_core_api.releases import release_of
from rasa_core_api.training.checking import check_unused
from rasa_core_api.training.findings import DomainText
from rasa_core_api.training.project_checks import check_at_start, check_credentials
from tests.training.helpers import read

DOMAIN = {
    "intents": ["greet"],
    "templates": {"utter_greet": [{"text": "hi"}], "utter_orphan": [{"text": "hm"}]},
    "actions": ["utter_greet", "utter_silent", "action_order"],
}


def codes(endpoints: Endpoints) -> list[str]:
    domain = Domain.from_json(DOMAIN, release_of("0.14.5"))
    return [finding.code for finding in check_at_start(domain, "model", endpoints)]


def test_domain_and_endpoints() -> None:
    """A server tells of templates and actions that do not fit, and of what its endpoints lack."""
    assert codes(Endpoints()) == ["missing-template", "unused-template", "no-action-server"]
    served = {"action_endpoint": {"url": "https://actions.example/"}, "nlg": {"url": "http://texts.example/"}}
    assert codes(endpoints_from_json(served, "none.yml")) == ["plain-http", "unused-template"]


def test_before_the_model_came() -> None:
    """Without a model there are the endpoints to tell about, and nothing else."""
    plain = endpoints_from_json({"action_endpoint": {"url": "http://actions.example/"}}, "none.yml")
    assert [finding.code for finding in check_at_start(None, "model", plain)] == ["plain-http"]


def test_open_webhooks(tmp_path: Path) -> None:
    """A webhook without its secret is open to anybody; with it, it is not."""
    file = tmp_path / "credentials.yml"
    file.write_text("facebook:\n  verify: x\n")
    (finding,) = check_credentials({"facebook": {"verify": "x"}}, str(file))
    assert (finding.code, finding.place.line) == ("open-webhook", 1)
    assert check_credentials({"facebook": {"secret": "s"}}, str(file)) == []


def test_cheap_to_import() -> None:
    """A server that starts does not import the learning half for it."""
    code = (
        "import sys, rasa_core_api.training.project_checks as _; "
        "print([name for name in ('numpy', 'h5py', 'rasa_core_api.training.generator') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_used_slots() -> None:
    """A slot with features is used where a story sets it, an entity fills it or a checkpoint asks for it."""
    slots = {name: {"type": "text"} for name in ("filled", "set", "asked", "idle")}
    domain = Domain.from_json(
        {"intents": ["a"], "entities": ["filled", "lost"], "slots": {**slots, "quiet": {"type": "unfeaturized"}}},
        release_of("0.14.5"),
    )
    files = read('## s\n> x{"asked": 1}\n* a{"filled": "v"}\n- slot{"set": 1}\n')
    found = {finding.message.split("'")[1]: finding.code for finding in check_unused(domain, files, DomainText("d"))}
    assert found == {"lost": "unused-entity", "idle": "unused-slot"}
