"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure

from rasa_core_api.training.console import use_one_thread

#: A busy machine makes no test of properties fail.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

use_one_thread(os.environ)  # as the programs do, before numpy is imported: several threads slow each other down

CONFORMANCE = Path(
    os.environ.get("RASA_CORE_CONFORMANCE") or Path(__file__).resolve().parents[2] / "shared" / "conformance"
)


class LoggedFailures:
    """Failures that were logged and that no test has taken yet."""

    def __init__(self) -> None:
        self._failures: list[Failure] = []

    def __call__(self, event: LogEvent) -> None:
        failure = event.get("log_failure")
        if failure is not None:
            self._failures.append(failure)

    def take(self) -> list[type[BaseException]]:
        """The types of the failures logged so far; they count as expected."""
        taken, self._failures = self._failures, []
        return [failure.type for failure in taken]


@pytest.fixture(autouse=True)
def logged() -> Iterator[LoggedFailures]:
    """Fails a test that leaves a logged failure behind."""
    failures = LoggedFailures()
    globalLogPublisher.addObserver(failures)
    try:
        yield failures
    finally:
        globalLogPublisher.removeObserver(failures)
    left = failures.take()
    assert not left, f"failures were logged and not expected: {left}"


@pytest.fixture(scope="session")
def conformance() -> Path:
    """The recordings of the real releases; tests that need them are skipped where they are absent."""
    if not CONFORMANCE.is_dir():
        pytest.skip(f"no recordings at {CONFORMANCE}: set RASA_CORE_CONFORMANCE")
    return CONFORMANCE


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many recorded conversations were replayed."""
    for report in terminalreporter.getreports("passed"):
        for name, total in report.user_properties:
            if name.startswith("manifest"):
                terminalreporter.write_line(f"recorded conversations, {name}: {total}")
    if not CONFORMANCE.is_dir():
        terminalreporter.write_line(f"no recorded conversations were replayed: nothing lies at {CONFORMANCE}")
