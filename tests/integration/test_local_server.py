"""The server that a teaching session starts for itself."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rasa_core_api.train import main
from tests.integration.program import PATIENCE, environment

pytestmark = pytest.mark.integration

SESSION = """
import sys, time
from pathlib import Path
from rasa_core_api.training.local_server import local_server
with local_server(Path(sys.argv[1]), []) as api:
    print(api.url, flush=True)
    time.sleep(60)
"""


def listens(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


def test_it_does_not_outlive_a_killed_session(tmp_path: Path) -> None:
    """Where the session is killed, or its terminal is gone, nothing goes on listening."""
    (tmp_path / "d.yml").write_text("intents: [greet]\nactions: [utter_hi]\ntemplates: {utter_hi: [hi]}\n")
    (tmp_path / "s.md").write_text("## s\n* greet\n  - utter_hi\n")
    (tmp_path / "p.yml").write_text("policies: [{name: MemoizationPolicy}]")
    files = [word for flag, name in (("-d", "d.yml"), ("-s", "s.md"), ("-c", "p.yml"), ("-o", "model"))
             for word in (flag, str(tmp_path / name))]  # fmt: skip
    assert main([*files, "--quiet", "--augmentation", "0"]) == 0
    command = [sys.executable, "-c", SESSION, str(tmp_path / "model")]
    session = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment({}))
    assert session.stdout is not None
    port = int(session.stdout.readline().rpartition(":")[2])
    assert listens(port)
    session.kill()
    session.wait()
    session.stdout.close()
    end = time.monotonic() + PATIENCE
    while listens(port):
        assert time.monotonic() < end
        time.sleep(0.02)
