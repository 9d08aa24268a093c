"""Tests of the built-in actions."""

from __future__ import annotations

from typing import Any

import pytest

from rasa_core_api.events import Event
from tests.fakes import Bot
from tests.samples import action, domain, user

TWO_STAGE = {"intents": ["greet", "bye", "inform", "out_of_scope"]}


def replaced(release: str, events: list[Event], script: dict[str, list[str]], **changes: Any) -> Bot:
    bot = Bot(domain(release, **changes), script)
    bot.wait(bot.agent.replace("u", [event.as_dict() for event in events]))
    return bot


def test_default_fallback_forgets_the_message() -> None:
    """The fallback says its template if there is one, and rewinds the message."""
    templates = {"utter_default": ["what?"], "utter_hi": ["hi"], "utter_bye": ["bye"]}
    bot = Bot(domain("0.11", templates=templates), {"greet": ["action_default_fallback"]})
    assert bot.say("/greet")[0]["text"] == "what?"
    assert bot.kinds()[1:5] == ["user", "action action_default_fallback", "rewind", "bot"]


def test_back_rewinds_twice() -> None:
    """Going back takes the request and the message before it back."""
    bot = Bot(domain("0.14"), {"greet": ["utter_hi"], "bye": ["action_back"]})
    bot.say("/greet")
    bot.say("/bye")
    assert bot.kinds().count("rewind") == 2
    assert bot.wait(bot.agent.tracker("u")).state["latest_message"]["intent"] == {}


def test_deactivating_a_form() -> None:
    """A form is ended and asks for nothing any more."""
    bot = Bot(domain("0.12"), {"bye": ["action_deactivate_form"]})
    bot.wait(bot.agent.append("u", [{"event": "form", "name": "f"}], single=True))
    bot.say("/bye")
    state = bot.wait(bot.agent.tracker("u")).state
    assert state["active_form"] == {}
    assert bot.kinds()[3:6] == ["action action_deactivate_form", "form", "slot requested_slot"]


def test_affirmation_asks_with_buttons() -> None:
    """The most likely intent is offered with two buttons."""
    bot = Bot(domain("0.13"), {"greet": ["action_default_ask_affirmation"]})
    assert bot.say("/greet") == [
        {"recipient_id": "u", "text": "Did you mean 'greet'?",
         "buttons": [{"title": "Yes", "payload": "/greet"}, {"title": "No", "payload": "/out_of_scope"}]}
    ]  # fmt: skip


@pytest.mark.parametrize(("release", "confidence"), [("0.13", 1.2), ("0.14", 1.0)])
def test_affirmed_messages_are_kept(release: str, confidence: float) -> None:
    """After an affirmation the questions are gone and the message counts with the confidence of certainty."""
    listen = action("action_listen")
    bot = replaced(
        release,
        [listen, user("greet"), action("action_default_ask_affirmation"), listen],
        {"bye": ["action_revert_fallback_events", "utter_hi"]},
        **TWO_STAGE,
    )
    bot.say("/bye")
    state = bot.wait(bot.agent.tracker("u")).state
    assert state["latest_message"]["intent"] == {"name": "bye", "confidence": confidence}
    applied = [event.type_name for event in bot.wait(bot.agent.tracker("u")).events]
    assert applied.count("rewind") == 2


def test_rephrased_messages_are_kept() -> None:
    """After a rephrasing the three questions before it are gone."""
    listen = action("action_listen")
    bot = replaced(
        "0.13",
        [listen, user("greet"), action("action_default_ask_affirmation"), listen, user("bye"),
         action("action_default_ask_rephrase"), listen],
        {"inform": ["action_revert_fallback_events"]},
        **TWO_STAGE,
    )  # fmt: skip
    bot.say("/inform")
    kinds = bot.kinds()
    assert kinds[kinds.index("rewind") :][:5] == [*["rewind"] * 3, "action action_listen", "user"]


def test_missing_templates_are_said_in_old_releases() -> None:
    """Up to 0.10 a missing template is said to be undefined; the restart says so in 0.10 only."""
    assert Bot(domain("0.10", templates={}), {"greet": ["utter_hi"]}).say("/greet")[0]["text"] == (
        "Undefined utter template <utter_hi>."
    )
    assert Bot(domain("0.10", templates={}), {}).say("/restart")[0]["text"] == (
        "Undefined utter template <utter_restart>."
    )
    assert Bot(domain("0.9", templates={}), {}).say("/restart") == []
    assert Bot(domain("0.11", templates={}), {"greet": ["utter_hi"]}).say("/greet") == []
