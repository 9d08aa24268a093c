"""Tests of intents that lead straight to an action. What is expected was observed on 0.14.5."""

from __future__ import annotations

from pathlib import Path

import pytest

from rasa_core_api.events import ActionExecuted, Event
from rasa_core_api.exceptions import UnknownAction
from rasa_core_api.policies.mapping import MappingPolicy
from rasa_core_api.policies.policy import LoadContext
from tests.policies.test_fallback import LISTEN, scores
from tests.samples import action, domain, user

BOT = domain("0.14", intents=["greet", {"ask": {"triggers": "utter_hi"}}, {"bad": {"triggers": "nowhere"}}])


def by(policy: str, name: str = "utter_hi") -> ActionExecuted:
    return ActionExecuted(action_name=name, policy=policy, timestamp=1.0)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ((), {}),
        ((LISTEN, user("greet")), {}),
        ((LISTEN, user("ask")), {"utter_hi": 1.0}),
        ((user("ask"),), {}),
        ((LISTEN, user("restart")), {"action_restart": 1.0}),
        ((LISTEN, user("back")), {"action_back": 1.0}),
        ((LISTEN, user(None)), {}),
        ((LISTEN, user("ask"), action("utter_bye")), {}),
        ((LISTEN, user("ask"), by("MappingPolicy")), {"action_listen": 1.0}),
        ((LISTEN, user("ask"), by("policy_1_MappingPolicy")), {}),
        ((LISTEN, user("restart"), by("MappingPolicy", "action_restart")), {}),
    ],
)
def test_prediction(events: tuple[Event, ...], expected: dict[str, float]) -> None:
    """A trigger counts right after the message; after its action only under the bare name of the policy."""
    assert scores(MappingPolicy(), BOT, *events) == expected


def test_triggers_before_the_built_in() -> None:
    """A domain can give the restart intent another action."""
    bot = domain("0.14", intents=[{"restart": {"triggers": "utter_bye"}}])
    assert scores(MappingPolicy(), bot, LISTEN, user("restart")) == {"utter_bye": 1.0}


def test_unknown_trigger() -> None:
    """A trigger that is no action cannot be predicted."""
    with pytest.raises(UnknownAction, match="nowhere"):
        scores(MappingPolicy(), BOT, LISTEN, user("bad"))


def test_loading(tmp_path: Path) -> None:
    """Nothing is persisted, not even a directory; the priority is the default one."""
    assert MappingPolicy.load(tmp_path / "nowhere", LoadContext(domain=BOT)).priority == 5
