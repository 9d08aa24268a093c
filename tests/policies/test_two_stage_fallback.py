"""Tests of the fallback in two stages. What is expected was observed on 0.14.5."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rasa_core_api.events import Event
from rasa_core_api.exceptions import UnsupportedModel
from rasa_core_api.policies.policy import LoadContext
from rasa_core_api.policies.two_stage_fallback import TwoStageFallbackPolicy
from tests.policies.test_fallback import LISTEN, scores, unsure
from tests.samples import action, domain

BOT = domain("0.14", intents=["greet", "out_of_scope"])
AFFIRM, REPHRASE = "action_default_ask_affirmation", "action_default_ask_rephrase"
REVERT, DEFAULT = "action_revert_fallback_events", "action_default_fallback"

asked = (LISTEN, unsure(0.1), action(AFFIRM), LISTEN)
denied = (*asked, unsure(0.9, "out_of_scope"), action(REPHRASE))
twice = (*denied, LISTEN, unsure(0.1), action(AFFIRM), LISTEN)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ((), {DEFAULT: 0.2}),
        ((unsure(0.1),), {DEFAULT: 0.2}),
        ((LISTEN, unsure(0.9)), {DEFAULT: 0.2}),
        ((LISTEN, unsure(0.9, "out_of_scope")), {DEFAULT: 0.2}),
        ((LISTEN, unsure(0.1)), {AFFIRM: 1.0}),
        ((LISTEN, unsure(0.1), action("utter_hi")), {DEFAULT: 0.2}),
        (asked[:3], {"action_listen": 1.0}),
        (asked, {DEFAULT: 1.0}),
        ((*asked, unsure(0.9)), {REVERT: 1.0}),
        ((*asked, unsure(0.1)), {DEFAULT: 1.0}),
        ((*asked, unsure(0.9, "out_of_scope")), {REPHRASE: 1.0}),
        ((*asked, unsure(0.1, "out_of_scope")), {REPHRASE: 1.0}),
        ((*asked, unsure(0.9), action(REVERT)), {DEFAULT: 0.2}),
        (denied, {"action_listen": 1.0}),
        ((*denied, LISTEN), {REVERT: 1.0}),
        ((*denied, LISTEN, unsure(0.9)), {REVERT: 1.0}),
        ((*denied, LISTEN, unsure(0.1)), {AFFIRM: 1.0}),
        ((*twice, unsure(0.9, "out_of_scope")), {DEFAULT: 1.0}),
        ((*twice, unsure(0.9, "out_of_scope"), action(DEFAULT)), {"action_listen": 1.0}),
        ((LISTEN, unsure(0.1), action(DEFAULT), LISTEN, unsure(0.9)), {DEFAULT: 0.2}),
        ((action(DEFAULT),), {"action_listen": 1.0}),
    ],
)
def test_stages(events: tuple[Event, ...], expected: dict[str, float]) -> None:
    """The first rule that applies decides."""
    assert scores(TwoStageFallbackPolicy(0.3, 0.2), BOT, *events) == expected


def test_two_actions() -> None:
    """The last resort for a user who is not understood can differ from the one for unsure policies."""
    policy = TwoStageFallbackPolicy(0.3, 0.2, "utter_bye", "utter_hi", "greet")
    assert scores(policy, BOT, *asked, unsure(0.1, "out_of_scope")) == {"utter_hi": 1.0}
    assert scores(policy, BOT, LISTEN, unsure(0.9)) == {"utter_bye": 0.2}
    assert scores(policy, BOT, *denied[:-1], action("utter_bye")) == {"action_listen": 1.0}
    assert policy.fallback_scores(BOT).best() == (BOT.index_of("utter_bye"), 1.0)


def test_score_of_the_release() -> None:
    """0.13 scores above one."""
    bot = domain("0.13", intents=["greet", "out_of_scope"])
    assert scores(TwoStageFallbackPolicy(0.3, 0.2), bot, LISTEN, unsure(0.1)) == {AFFIRM: 1.2}


def load(directory: Path, **settings: object) -> TwoStageFallbackPolicy:
    (directory / "two_stage_fallback_policy.json").write_text(json.dumps(settings))
    return TwoStageFallbackPolicy.load(directory, LoadContext(domain=BOT))


def test_loading(tmp_path: Path) -> None:
    """Settings come from the file, defaults where there is none."""
    policy = load(
        tmp_path,
        priority=8,
        nlu_threshold=0.4,
        core_threshold=0.1,
        fallback_core_action_name="utter_hi",
        fallback_nlu_action_name="utter_bye",
        deny_suggestion_intent_name="greet",
    )
    assert (policy.nlu_threshold, policy.core_threshold, policy.priority) == (0.4, 0.1, 8)
    assert (policy.fallback_action_name, policy.fallback_nlu_action_name) == ("utter_hi", "utter_bye")
    assert policy.deny_suggestion_intent_name == "greet"
    plain = TwoStageFallbackPolicy.load(tmp_path / "nowhere", LoadContext(domain=BOT))
    assert (plain.nlu_threshold, plain.fallback_nlu_action_name, plain.priority) == (0.3, DEFAULT, 3)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"fallback_core_action_name": "nope"}, "fallback_core_action_name: 'nope' is not an action"),
        ({"fallback_nlu_action_name": "nope"}, "fallback_nlu_action_name: 'nope' is not an action"),
        ({"deny_suggestion_intent_name": "nope"}, "deny_suggestion_intent_name: 'nope' is not an intent"),
        ({"deny_suggestion_intent_name": 3}, "expected a name"),
    ],
)
def test_refused(tmp_path: Path, settings: dict[str, object], reason: str) -> None:
    """A setting that the domain does not know is refused with file and key."""
    with pytest.raises(UnsupportedModel, match=reason) as caught:
        load(tmp_path, **settings)
    assert "two_stage_fallback_policy.json" in str(caught.value)


def test_release_without_the_actions(tmp_path: Path) -> None:
    """Before 0.13 there was nothing to ask with."""
    with pytest.raises(UnsupportedModel, match=r"0\.12 model has no actions to ask"):
        TwoStageFallbackPolicy.load(tmp_path, LoadContext(domain=domain("0.12", intents=["out_of_scope"])))
