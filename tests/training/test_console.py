"""Tests of what commands on a terminal share."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from twisted.logger import Logger, LogLevel
from rasa_core_api.training.console import begin_logging
begin_logging(LogLevel.levelWithName(sys.argv[1]), sys.stdout)
for namespace in ("twisted.internet.base", "rasa_core_api.train"):
    Logger(namespace).info(f"{namespace} informs")
    Logger(namespace).warn(f"{namespace} warns")
"""


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("info", ["twisted.internet.base warns", "rasa_core_api.train informs", "rasa_core_api.train warns"]),
        ("warn", ["twisted.internet.base warns", "rasa_core_api.train warns"]),
        (
            "debug",
            [
                "twisted.internet.base informs",
                "twisted.internet.base warns",
                "rasa_core_api.train informs",
                "rasa_core_api.train warns",
            ],
        ),
    ],
)
def test_the_reactor_says_little(level: str, expected: list[str]) -> None:
    """What the reactor tells of itself is of interest to those who ask for everything."""
    ran = subprocess.run([sys.executable, "-c", PROGRAM, level], capture_output=True, text=True, check=True, timeout=60)
    assert [line.partition("] ")[2] for line in ran.stdout.splitlines()] == expected
