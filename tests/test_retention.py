"""Tests of the removal of conversations that nobody talks in any more."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs

from rasa_core_api.endpoints import EndpointConfig, Endpoints
from rasa_core_api.exceptions import InvalidConfiguration, StoreUnavailable
from rasa_core_api.retention import EVERY, Retention
from rasa_core_api.tracker_store.settings import split_retention
from tests.fakes import Bot, FakeHTTP
from tests.samples import domain

DAY = 86_400.0
ACTIONS = "http://actions"
SCRIPT: dict[str | None, list[str]] = {"greet": ["utter_hi"], "inform": ["action_search"]}


@pytest.fixture
def bot() -> Bot:
    endpoints = Endpoints(action_endpoint=EndpointConfig(url=ACTIONS))
    return Bot(domain("0.11"), SCRIPT, http=FakeHTTP({ACTIONS: lambda call: Deferred()}), endpoints=endpoints)


def retention(bot: Bot, owner: str = "") -> Retention:
    return Retention(bot.agent.care, bot.clock, bot.clock.seconds, 2.0)


def ids(bot: Bot) -> list[str]:
    found: list[str] = bot.wait(bot.agent.sender_ids())
    return found


def test_idle_conversations_go(bot: Bot) -> None:
    """A conversation goes when its last event is too old, and one line tells how many went."""
    bot.say("/greet", "old")
    bot.clock.advance(1.5 * DAY)
    bot.say("/greet", "young")
    keeper = retention(bot)
    with capturedLogs() as told:
        keeper.start()
        bot.clock.pump([0] * 50)
        assert ids(bot) == ["old", "young"]
        bot.clock.advance(DAY)
        bot.clock.pump([0] * 50)
        assert ids(bot) == ["young"]
        bot.clock.pump([EVERY] + [0] * 50)
    assert len([event for event in told if event["log_level"] is LogLevel.info]) == 1
    assert keeper.status() == {"days": 2.0, "removed": 1, "last_run": bot.clock.seconds()}
    keeper.stop()
    assert not bot.clock.getDelayedCalls()


def test_busy_conversations_stay(bot: Bot) -> None:
    """A conversation with a turn under way is not removed, however old its last event is."""
    bot.say("/greet", "busy")
    bot.clock.advance(3 * DAY)
    Deferred.fromCoroutine(bot.agent.handle_text("/inform", "busy"))
    bot.clock.pump([0] * 20)
    keeper = retention(bot)
    keeper.start()
    bot.clock.pump([0] * 50)
    assert ids(bot) == ["busy"]
    keeper.stop()


def test_one_process_removes(bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several processes one has the role; the others leave it alone."""
    bot.say("/greet", "old")
    bot.clock.advance(3 * DAY)
    assert bot.wait(bot.agent.store.hold("retention", "somebody else", 1e6))
    keeper = retention(bot)
    keeper.start()
    bot.clock.pump([0] * 50)
    assert ids(bot) == ["old"]
    keeper.stop()


def test_store_that_is_away(bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round that fails is told, and the next one is made."""
    bot.say("/greet", "old")
    bot.clock.advance(3 * DAY)
    keeper = retention(bot)

    async def away(*_: Any) -> list[str]:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch, capturedLogs() as told:
        patch.setattr(bot.agent.store, "idle", away)
        keeper.start()
        bot.clock.pump([0] * 50)
    assert [event["reason"] for event in told if event["log_level"] is LogLevel.error] == ["away"]
    bot.clock.advance(EVERY)
    bot.clock.pump([0] * 50)
    assert ids(bot) == []
    keeper.stop()


def test_setting() -> None:
    """`retention_days` is a member of every store's entry; it is a number above 0."""
    assert split_retention({"type": "sqlite", "retention_days": 30}, "tracker_store") == ({"type": "sqlite"}, 30)
    assert split_retention(None, "tracker_store") == (None, None)
    for wrong in (0, -1, "soon", True):
        with pytest.raises(InvalidConfiguration, match=r"tracker_store.retention_days"):
            split_retention({"retention_days": wrong}, "tracker_store")
