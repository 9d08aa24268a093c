"""Tests of a response generation server's answers; which of them count is what 0.11.12 and 0.14.5 took."""

from __future__ import annotations

from typing import Any

import pytest

from rasa_core_api.endpoints import EndpointConfig, Endpoints
from tests.fakes import Bot, FakeHTTP
from tests.samples import domain

URL = "http://texts/nlg"


def bot_with(answer: Any, status: int = 200) -> tuple[Bot, FakeHTTP]:
    http = FakeHTTP({URL: lambda call: (status, answer)})
    endpoints = Endpoints(nlg=EndpointConfig(url=URL))
    return Bot(domain("0.11"), {"greet": ["utter_hi"]}, http=http, endpoints=endpoints), http


def test_what_is_asked() -> None:
    """The template's name and arguments, the channel and the whole conversation."""
    bot, http = bot_with({"text": "hi"})
    assert bot.say("/greet") == [{"recipient_id": "u", "text": "hi"}]
    ((_, call),) = http.calls
    assert sorted(call) == ["arguments", "channel", "template", "tracker"]
    assert (call["template"], call["arguments"], call["channel"]) == ("utter_hi", {}, {"name": "collector"})
    assert [event["event"] for event in call["tracker"]["events"]] == ["action", "user"]


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ({"text": "a", "buttons": None, "elements": None, "attachment": None, "image": None}, [{"text": "a"}]),
        ({"text": "a", "buttons": [{"title": "b"}]}, [{"text": "a", "buttons": [{"title": "b"}]}]),
        ({"image": "http://i"}, [{"image": "http://i"}]),
        ({"buttons": [{"title": "b"}]}, [{"buttons": [{"title": "b"}]}]),
        ({"elements": [{"title": "t", "subtitle": "s"}]}, [{"text": "t : s", "buttons": []}]),
        ({"text": "", "attachment": {"a": 1}}, [{"attachment": {"a": 1}}]),
        ({"custom": 1}, []),
        ({"text": ""}, []),
    ],
)
def test_answers_that_are_said(answer: Any, shown: list[dict[str, Any]]) -> None:
    """Any of the members suffices, and one `bot` event records it."""
    bot, _ = bot_with(answer)
    assert bot.say("/greet") == [{"recipient_id": "u", **message} for message in shown]
    assert bot.kinds()[2:] == ["action utter_hi", "bot", "action action_listen"]


@pytest.mark.parametrize(
    "answer",
    [
        None, "", {}, [], 0, False, 7, "x", {"text": None}, {"text": 7}, {"text": "x", "buttons": [7]},
        {"text": "x", "buttons": "y"}, {"text": "x", "elements": {}}, {"text": "x", "elements": ["y"]},
        {"text": "x", "image": 7}, {"text": "x", "attachment": [1]}, {"text": "x", "attachment": "y"},
        b"", b"<html>", b'{"text": "x"', b"[" * 1000, b'{"text": "\xe9"}',
    ],
)  # fmt: skip
def test_answers_that_say_nothing(answer: Any) -> None:
    """Nothing is said or recorded, the action counts as executed, and the talk goes on."""
    bot, _ = bot_with(answer)
    for _turn in range(2):
        assert bot.say("/greet") == []
    assert bot.kinds() == ["action action_listen"] + ["user", "action utter_hi", "action action_listen"] * 2


@pytest.mark.parametrize("status", [204, 302, 400, 404, 500])
def test_statuses_that_say_nothing(status: int) -> None:
    """Only a 2xx with content is an answer."""
    bot, _ = bot_with(b"" if status == 204 else {"text": "no"}, status)
    assert bot.say("/greet") == []
    assert bot.kinds()[-2:] == ["action utter_hi", "action action_listen"]


@pytest.mark.parametrize(("answer", "rewound"), [(None, True), ({}, True), ("", True), ({"text": None}, False)])
def test_nothing_to_say_is_no_failure(answer: Any, rewound: bool) -> None:
    """An action that says something where the bot has it goes on without; after a failure its events are lost."""
    bot, _ = bot_with(answer)
    bot.wait(bot.agent.execute("u", "action_default_fallback"))
    assert ("rewind" in bot.kinds()) == rewound
