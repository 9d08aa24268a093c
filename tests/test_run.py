"""Tests of the command line's documentation and of what the program does to its process."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock

from rasa_core_api.channels.registry import open_channels
from rasa_core_api.config import read_yaml_text
from rasa_core_api.endpoints import OutgoingHTTP, endpoints_from_json
from rasa_core_api.run import keep_time, prepare_process, settle_memory
from rasa_core_api.settings import run_parser
from rasa_core_api.slots import refuse_classes

DOCS = Path(__file__).resolve().parents[1] / "docs"
_YAML = re.compile(r"```yaml\n(.*?)```", re.S)


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def test_every_flag_is_documented() -> None:
    """The table names each flag of `run`, long and short, and no other."""
    table = page("command-line.md").partition("## run")[2].partition("## The endpoints")[0]
    rows = "\n".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    documented = set(re.findall(r"`(-[^`]+)`", rows))
    flags = {option for action in run_parser()._actions for option in action.option_strings}
    assert documented == flags - {"-h", "--help"}


def test_the_documented_endpoints_file() -> None:
    """The example is a file that the program takes."""
    (text,) = _YAML.findall(page("command-line.md"))
    environ = {"NLG_PASSWORD": "p", "NLU_TOKEN": "t"}
    endpoints = endpoints_from_json(read_yaml_text(text, "docs", environ), "docs")
    assert endpoints.action_endpoint and endpoints.nlg and endpoints.nlu
    assert endpoints.nlg.basic_auth == ("bot", "p")
    assert endpoints.tracker_store == {"type": "sqlite", "path": "conversations.db"}


def test_the_documented_credentials(tmp_path: Path) -> None:
    """The example is a file that opens its channel."""
    (text,) = _YAML.findall(page("channels.md"))
    (tmp_path / "credentials.yml").write_text(text)
    (channel,) = open_channels(
        None,
        tmp_path / "credentials.yml",
        environ={"CHAT_KEY": "k"},
        find_class=refuse_classes,
        http=OutgoingHTTP(Clock()),
    )
    assert channel.name() == "callback"


def test_numeric_libraries_get_one_thread() -> None:
    """The products are small: threads would only fight for the cores. What an operator set stays."""
    environ = {"OMP_NUM_THREADS": "4"}
    prepare_process(environ)
    assert environ["OMP_NUM_THREADS"] == "4"
    assert environ["OPENBLAS_NUM_THREADS"] == environ["MKL_NUM_THREADS"] == "1"


@pytest.fixture
def collector() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


def test_loaded_models_are_left_alone(collector: None) -> None:
    """What lives when the server is up is not collected again and again."""
    settle_memory()
    assert gc.get_freeze_count() > 1000
    assert gc.get_threshold()[0] > 700


@pytest.mark.parametrize("shows_dates", [False, True])
def test_the_time_of_day_moves_no_timer(monkeypatch: pytest.MonkeyPatch, shows_dates: bool) -> None:
    """What waits for a time goes on as before when the clock is set back or forward."""
    reactor = SelectReactor()
    before = reactor.seconds()
    keep_time(reactor, shows_dates)
    called: list[float] = []
    try:
        reactor.callLater(0.0, called.append, 1.0)
        reactor.callLater(60.0, called.append, 2.0)
        for time in (0.0, 2 * before):
            monkeypatch.setattr("time.time", lambda time=time: time)
            reactor.runUntilCurrent()
            assert called == [1.0]
        assert (abs(reactor.seconds() - before) < 30.0) is shows_dates
    finally:
        reactor.removeAll()


def test_timers_that_wait_keep_their_clock() -> None:
    """A reactor with timers already is left as it is: they would never come."""
    clock = Clock()
    clock.callLater(5, print)
    keep_time(clock)
    assert clock.seconds() == 0.0
