"""Tests of the fallback, under the rules of each release."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rasa_core_api.domain import Domain
from rasa_core_api.events import Event
from rasa_core_api.exceptions import UnsupportedModel
from rasa_core_api.policies.fallback import FallbackPolicy
from rasa_core_api.policies.policy import LoadContext, Policy
from rasa_core_api.trackers import Tracker
from tests.samples import action, domain, user

DEFAULT = "action_default_fallback"
LISTEN = action("action_listen")


def unsure(confidence: float | None, intent: str = "greet") -> Event:
    message = user(intent)
    message.parse_data["intent"]["confidence"] = confidence
    return message


def scores(policy: Policy, bot: Domain, *events: Event) -> dict[str, float]:
    """The actions that the policy scores after these events."""
    tracker = Tracker("u", bot)
    tracker.extend(events)
    numbers = policy.predict(tracker, bot).to_list()
    return {name: number for name, number in zip(bot.action_names, numbers, strict=True) if number}


@pytest.mark.parametrize(
    ("release", "score"), [("0.9", 1.1), ("0.11", 1.1), ("0.12", 1.1), ("0.13", 1.2), ("0.14", 1.0)]
)
def test_unclear_message(release: str, score: float) -> None:
    """A message below the threshold calls for the action with the score of its release; one at it does not."""
    bot = domain(release)
    fallback = "utter_bye"
    policy = FallbackPolicy(0.5, 0.25, fallback)
    assert scores(policy, bot, LISTEN, unsure(0.49)) == {fallback: score}
    assert scores(policy, bot, LISTEN, unsure(0.5)) == {fallback: 0.25}
    assert policy.fallback_scores(bot).best() == (bot.index_of(fallback), score)


def test_after_the_fallback() -> None:
    """Once the action has run the bot listens, however unclear the message was."""
    assert scores(FallbackPolicy(0.5, 0.2, DEFAULT), domain(), LISTEN, unsure(0.1), action(DEFAULT)) == {
        "action_listen": 1.1
    }


def test_in_the_middle_of_a_turn() -> None:
    """Up to 0.12 an unclear message counts until the fallback has run, later right after the message alone."""
    events = (LISTEN, unsure(0.1), action("utter_hi"))
    assert scores(FallbackPolicy(0.5, 0.2, DEFAULT), domain("0.12"), *events) == {DEFAULT: 1.1}
    assert scores(FallbackPolicy(0.5, 0.2, DEFAULT), domain("0.13"), *events) == {DEFAULT: 0.2}


def test_message_without_confidence() -> None:
    """A confidence that is not known counts as certain; so does the beginning of a conversation."""
    policy = FallbackPolicy(0.5, 0.2, DEFAULT)
    assert scores(policy, domain(), LISTEN, unsure(None)) == {DEFAULT: 0.2}
    assert scores(policy, domain()) == {DEFAULT: 0.2}


def load(directory: Path, release: str = "0.11", **settings: object) -> FallbackPolicy:
    directory.mkdir(exist_ok=True)
    (directory / "fallback_policy.json").write_text(json.dumps(settings))
    return FallbackPolicy.load(directory, LoadContext(domain=domain(release)))


def test_loading(tmp_path: Path) -> None:
    """Settings and priority come from the file."""
    policy = load(
        tmp_path, nlu_threshold=0.7, core_threshold=1, fallback_action_name="utter_hi", priority=9
    )
    assert (policy.nlu_threshold, policy.core_threshold, policy.fallback_action_name) == (0.7, 1.0, "utter_hi")
    assert policy.priority == 9
    assert load(tmp_path).priority == 3


@pytest.mark.parametrize(("release", "default"), [("0.9", "action_listen"), ("0.10", DEFAULT), ("0.14", DEFAULT)])
def test_defaults(tmp_path: Path, release: str, default: str) -> None:
    """Without a file the defaults of the release hold."""
    policy = FallbackPolicy.load(tmp_path / "nowhere", LoadContext(domain=domain(release)))
    assert (policy.nlu_threshold, policy.core_threshold, policy.fallback_action_name) == (0.3, 0.3, default)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"fallback_action_name": "utter_nothing"}, "'utter_nothing' is not an action of the domain"),
        ({"fallback_action_name": ["x"]}, "expected a name"),
        ({"nlu_threshold": "0.3"}, "'nlu_threshold' is '0.3'"),
        ({"core_threshold": True}, "'core_threshold' is True"),
    ],
)
def test_refused(tmp_path: Path, settings: dict[str, object], reason: str) -> None:
    """Settings that could never work are refused with file and reason."""
    with pytest.raises(UnsupportedModel, match=reason) as caught:
        load(tmp_path, **settings)
    assert "fallback_policy.json" in str(caught.value)


def test_damaged_file(tmp_path: Path) -> None:
    """A file that is not a JSON object is refused by name."""
    for content in (b"{", b"[]", b"\xff"):
        (tmp_path / "fallback_policy.json").write_bytes(content)
        with pytest.raises(UnsupportedModel, match=r"fallback_policy\.json"):
            FallbackPolicy.load(tmp_path, LoadContext(domain=domain()))
