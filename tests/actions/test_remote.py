"""Tests of answers of action servers that are large, or odd."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.logger import LogLevel, capturedLogs, formatEvent

from rasa_core_api.concurrency import Slices
from rasa_core_api.endpoints import EndpointConfig, Endpoints
from tests.fakes import Bot, FakeHTTP
from tests.samples import domain

URL = "http://actions/webhook"


def bot_with(answer: Any, release: str = "0.11") -> Bot:
    """A bot whose one action gets this answer, with status 200."""
    http = FakeHTTP({URL: lambda call: (200, answer)})
    return Bot(
        domain(release), {"inform": ["action_search"]}, http=http,
        endpoints=Endpoints(action_endpoint=EndpointConfig(url=URL)),
    )  # fmt: skip


def test_large_answers_are_handled_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """While an action's many responses, events and reminders are worked off, others get their turn."""
    answer = {
        "events": [{"event": "slot", "name": "note", "value": f"n{number}"} for number in range(3_000)]
        + [
            {"event": "reminder", "action": "utter_hi", "date_time": "2100-01-01", "name": f"r{number}"}
            for number in range(1_000)
        ],
        "responses": [{"text": f"t{number}"} for number in range(2_000)],
    }
    bot = bot_with(answer)
    rounds = 0

    def begin_slice(slices: Slices) -> None:
        nonlocal rounds
        rounds += 1
        next_slice(slices)

    next_slice = Slices._next
    monkeypatch.setattr(Slices, "_next", begin_slice)
    bot.agent.slices._budget = 0.0
    said = bot.say("/inform")
    assert [message["text"] for message in said] == [f"t{number}" for number in range(2_000)]
    kinds = bot.kinds()
    assert (kinds.count("slot note"), kinds.count("bot")) == (3_000, 2_000)
    assert rounds > 100


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"<html>", b"null", b"7", b"[]", b"{", b'{"events": [NaN]}', b'{"events": 7}', b'{"events": [7]}',
        b'{"responses": ["x"]}', {"events": [{"event": "nonsense"}]}, {"events": [{"event": 7}]},
        {"events": [{"event": "slot"}]}, {"events": [{"event": "slot", "name": "note", "timestamp": "now"}]},
        {"events": [{"event": "reminder", "action": "a", "date_time": "0000-01-01"}]},
        {"events": [{"event": "reminder", "action": "a", "date_time": 7}]},
        {"events": [{"event": "slot", "name": "note", "value": 10**400}]},
        {"responses": [{"text": "b", "buttons": "x"}]}, {"responses": [{"text": "b", "buttons": [7]}]},
        {"responses": [{"elements": {}}]}, {"responses": [{"elements": [7]}]},
    ],
)  # fmt: skip
def test_answers_that_cannot_be_used(answer: Any) -> None:
    """The action counts as executed, none of its events is stored, and the talk goes on."""
    bot = bot_with(answer)
    assert bot.say("/inform") == []
    assert bot.kinds() == ["action action_listen", "user", "action action_search", "action action_listen"]
    assert bot.say("/inform") == []


@pytest.mark.parametrize(
    ("response", "shown"),
    [
        ({}, []),
        ({"text": None}, []),
        ({"text": 7}, [{"text": "7"}]),
        ({"text": {"a": 1}}, [{"text": "{'a': 1}"}]),
        ({"text": "b", "buttons": [{}]}, [{"text": "b", "buttons": [{}]}]),
        ({"buttons": [{"payload": 1}]}, [{"buttons": [{"payload": 1}]}]),
        ({"text": "", "buttons": [{"payload": 1}]}, [{"text": "", "buttons": [{"payload": 1}]}]),
        ({"elements": [{}]}, [{"text": " : ", "buttons": []}]),
        ({"image": {"a": 1}}, [{"image": {"a": 1}}]),
        ({"attachment": 7}, [{"attachment": 7}]),
        ({"template": "nowhere"}, []),
        ({"template": {"a": 1}}, []),
        ({"template": "utter_hi", "city": "rome", "self": 1, "tracker": 2}, [{"text": "hello rome"}]),
    ],
)
def test_odd_responses(response: dict[str, Any], shown: list[dict[str, Any]]) -> None:
    """A response of odd members is said as far as it goes."""
    bot = bot_with({"events": None, "responses": [response]})
    assert bot.say("/inform") == [{"recipient_id": "u", **message} for message in shown]


@pytest.mark.parametrize(
    ("answer", "left_out"),
    [
        ({"responses": [{"text": "x"}], "events": [{"event": "slot", "name": "note", "value": None}]}, None),
        ({"responses": [{"template": "utter_hi"}, {"image": "x"}, {"text": "", "buttons": [{}]}]}, None),
        ({"responses": [{"template": "utter_nope"}]}, "the template 'utter_nope', for which nothing is said"),
        ({"responses": [{"template": 5}] * 3}, "the template '5', for which nothing is said"),
        (
            {"responses": [{"template": "x\n" + "y" * 500}]},
            "the template 'x\\n" + "y" * 98 + "', for which nothing is said",
        ),
        ({"responses": [{}, {"txt": "x"}, {"text": ""}]}, "responses without a text or anything to show"),
        ({"events": [{}, {"name": "slot"}, {"event": None}]}, "3 events without a name"),
        (
            {"responses": [{"template": "a"}, {"text": "said"}, {}], "events": [{}]},
            "the template 'a', for which nothing is said, responses without a text or anything to show, "
            "1 events without a name",
        ),
        (
            {"responses": [{"template": name} for name in "abcdefg"]},
            ", ".join(f"the template '{name}', for which nothing is said" for name in "abcde") + ", 2 more",
        ),
    ],
)
def test_parts_that_are_left_out(answer: Any, left_out: str | None) -> None:
    """What an answer holds and nobody gets to see is told in one warning; the rest counts."""
    bot = bot_with(answer)
    with capturedLogs() as lines:
        bot.say("/inform")
    told = [formatEvent(line) for line in lines if line["log_level"] is LogLevel.warn]
    start = "the answer of the action action_search has parts that are left out: "
    assert told == ([] if left_out is None else [start + left_out])
    assert "action action_search" in bot.kinds()
