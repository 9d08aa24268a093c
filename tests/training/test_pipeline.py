"""Policies and domain are checked against each other before anything is trained."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from rasa_core_api.exceptions import InvalidConfiguration, InvalidTrainingData
from rasa_core_api.releases import BY_NAME
from rasa_core_api.training.console import ProgressLine, add_logging_options, duration, progress_line, until_interrupted
from rasa_core_api.training.fetching import fetch
from rasa_core_api.training.pipeline import train
from rasa_core_api.training.policy_file import read_policies
from tests.training.helpers import domain_of, read

PLAIN = "{intents: [a], actions: [u1]}"


def policies(*entries: Any) -> Any:
    return read_policies({"policies": list(entries)}, BY_NAME["0.14"], "p.yml")


@pytest.mark.parametrize(
    ("domain", "entry", "message"),
    [
        ("{intents: [a], actions: [u1], forms: [f]}", {"name": "MemoizationPolicy"}, "need a FormPolicy"),
        (PLAIN, {"name": "TwoStageFallbackPolicy"}, "no intent 'out_of_scope'"),
        (PLAIN, {"name": "FallbackPolicy", "fallback_action_name": "u9"}, "no action 'u9'"),
    ],
)
def test_mismatch(domain: str, entry: dict[str, Any], message: str) -> None:
    """What could not be served is not trained either."""
    steps = read("## s\n* a\n- u1\n").steps
    with pytest.raises(InvalidConfiguration, match=message):
        train(steps, domain_of(domain), policies(entry), augmentation_factor=0)


def test_progress() -> None:
    """Progress runs from 0 to 1 over generating and all policies."""
    steps = read("## s\n* a\n- u1\n").steps
    shares: list[float] = []
    chosen = policies({"name": "MemoizationPolicy"}, {"name": "KerasPolicy", "epochs": 5}, {"name": "MappingPolicy"})
    trained = train(
        steps, domain_of(PLAIN), chosen, augmentation_factor=5, progress=lambda share, what: shares.append(share)
    )
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] > 0.9
    names = [policy.settings.name for policy in trained.policies]
    assert names == ["MemoizationPolicy", "KerasPolicy", "MappingPolicy"]


class Screen:
    def __init__(self, terminal: bool) -> None:
        self.terminal, self.text = terminal, ""

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


def test_time_left() -> None:
    """After a third of the work in 100 s there are 200 s left; a terminal keeps one line."""
    now = [0.0]
    for terminal in (True, False):
        screen = Screen(terminal)
        now[0] = 0.0
        line = ProgressLine(screen, lambda: now[0])  # type: ignore[arg-type]
        line(0.0, "begin")
        now[0] = 100.0
        line(1 / 3, "network")
        line.close()
        assert " 33%  network, 3 min 20 s left" in screen.text
        assert screen.text.count("\n") == (1 if terminal else 2)


def test_quiet() -> None:
    """With --quiet there is no progress, unless a later option asks for it."""
    parser = argparse.ArgumentParser()
    add_logging_options(parser)
    for words, told in (["--quiet"], 0), (["--quiet", "-v"], 1), (["--debug"], 1), ([], 1):
        screen = Screen(terminal=False)
        line = progress_line(parser.parse_args(words), screen)  # type: ignore[arg-type]
        line(0.5, "network")
        line.close()
        assert screen.text.count("network") == told


def test_durations() -> None:
    """Times are said in the unit that fits."""
    assert [duration(seconds) for seconds in (7.6, 200, 3900)] == ["8 s", "3 min 20 s", "1 h 05 min"]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/y", "stories.md", "http://127.0.0.1:1/none"])
def test_addresses(url: str) -> None:
    """Only http and https are fetched; what does not answer is named."""
    with pytest.raises(InvalidTrainingData, match=url.split("/")[0]):
        fetch(url)


def test_interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    """Control-C ends a command with status 130 and one line."""

    def interrupted() -> int:
        raise KeyboardInterrupt

    assert until_interrupted(interrupted) == 130 and until_interrupted(lambda: 3) == 3
    assert capsys.readouterr().err == "\ninterrupted\n"
