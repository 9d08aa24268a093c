"""Replays conversations that the real releases recorded against the real program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CONFORMANCE

START = (
    f"{sys.executable} -m rasa_core_api.run --enable_api -d {{core}} {{nlu}} --endpoints {{endpoints}}"
    " -p {port} -c rest -o {log}"
)
MANIFESTS = ("manifest.json", "manifest-embedding.json")


@pytest.mark.conformance
@pytest.mark.skipif(not CONFORMANCE.is_dir(), reason=f"no recordings at {CONFORMANCE}: set RASA_CORE_CONFORMANCE")
@pytest.mark.parametrize("manifest", MANIFESTS)
def test_recorded_conversations_replay(manifest: str, record_property: pytest.RecordProperty) -> None:
    """Every recorded conversation of every release is answered as it was then."""
    ran = subprocess.run(
        [sys.executable, str(CONFORMANCE / "conformance.py"), "suite", "--start", START,
         "--manifest", str(CONFORMANCE / manifest)],
        capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=600,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    total = re.search(r"^(\d+) passed, (\d+) failed$", ran.stdout, re.M)
    assert total is not None and int(total[1]) > 0 and ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-1000:]
    record_property(manifest, total[0])
