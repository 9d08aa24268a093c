"""What memoization learns equals what the real releases persisted."""

from __future__ import annotations

from pathlib import Path

import pytest

from rasa_core_api.policies.memoization import read_memory
from rasa_core_api.releases import BY_NAME
from rasa_core_api.training.generator import Settings, TrainingData, generate
from rasa_core_api.training.learners.memoization import memorize, memorize_forms
from rasa_core_api.training.story_reader import read_stories
from tests.training.helpers import CONFORMANCE, domain_of, generated, needs_recordings, parse


def trained(domain: str, stories: str, release: str, factor: int, history: int) -> TrainingData:
    files = read_stories([CONFORMANCE / stories], BY_NAME[release], parse)
    settings = Settings(augmentation_factor=factor, unique_last_num_states=history)
    return generate(files.steps, domain_of((CONFORMANCE / domain).read_text("utf-8"), release), settings)


def memory(model: str) -> dict[str, object]:
    return read_memory(Path(CONFORMANCE / "models" / model / "memorized_turns.json"))[0]


CAFE, HOTEL, DEMO = (
    ("bots/cafe/domain.yml", "bots/cafe/stories.md"),
    ("bots/hotel/domain.yml", "bots/hotel/stories.md"),
    ("realbots/rasa-demo-2018/domain.yml", "realbots/rasa-demo-2018/data/core"),
)


@needs_recordings
@pytest.mark.conformance
@pytest.mark.parametrize("factor", [0, 20, 50])
def test_equals_0_14(factor: int) -> None:
    """At any augmentation the turns are those that 0.14.5 persisted."""
    turns, _ = memorize(trained(*CAFE, "0.14", factor, 3), 3)
    assert len(turns) == 68 and turns == memory("rasa-core-0.14.5/cafe-full/policy_0_MemoizationPolicy")
    hotel = trained(*HOTEL, "0.14", factor, 4)
    turns, _ = memorize(hotel, 4)
    assert len(turns) == 28 and turns == memory("rasa-core-0.14.5/hotel-full/policy_0_AugmentedMemoizationPolicy")
    forms = memorize_forms(hotel)
    assert len(forms) == 4 and forms == memory("rasa-core-0.14.5/hotel-full/policy_2_FormPolicy")


@needs_recordings
@pytest.mark.conformance
def test_equals_0_13() -> None:
    """0.13.8 memorizes concatenated dialogues too: the same 1385 and 269 turns at factor 50."""
    turns, _ = memorize(trained(*CAFE, "0.13", 50, 3), 3)
    assert len(turns) == 1385 and turns == memory("rasa-core-0.13.8/cafe-full/policy_0_MemoizationPolicy")
    turns, _ = memorize(trained("bots/hotel/domain-0.13.yml", HOTEL[1], "0.13", 50, 4), 4)
    assert len(turns) == 269 and turns == memory("rasa-core-0.13.8/hotel-full/policy_0_MemoizationPolicy")


@needs_recordings
@pytest.mark.conformance
def test_contained_in_0_11() -> None:
    """0.11.12 differs from run to run with augmentation; the plain turns are in every run of it."""
    turns, _ = memorize(trained(*CAFE, "0.11", 0, 3), 3)
    recorded = memory("rasa-core-0.11.12/cafe-full/policy_0_MemoizationPolicy")
    assert len(turns) == 68 and turns.items() <= recorded.items()
    augmented, _ = memorize(trained(*CAFE, "0.11", 20, 3), 3)
    assert 652 <= len(augmented) <= 847
    assert all(augmented[key] == action for key, action in recorded.items() if key in augmented)


@needs_recordings
@pytest.mark.conformance
@pytest.mark.parametrize(("release", "expected"), [("0.11", 1336), ("0.14", 1338)])
def test_demo_bot(release: str, expected: int) -> None:
    """The production bot of 2018 has as many turns as under the real releases."""
    turns, contradictions = memorize(trained(*DEMO, release, 0, 6), 6)
    assert len(turns) == expected and not contradictions


def test_contradiction() -> None:
    """Two continuations of one situation are both forgotten, for good, and reported."""
    data = generated("## s\n* a\n- u1\n## t\n* a\n- u2\n## u\n* a\n- u1\n- u3\n", history=2)
    turns, contradictions = memorize(data, 2)
    assert [found.actions for found in contradictions] == [("u1", "u2"), ("action_listen", "u3")]
    assert turns == {"[null, {}]": 0, "[{intent_a: 1.0, prev_action_listen: 1.0}, {intent_a: 1.0, prev_u2: 1.0}]": 0,
                     "[{intent_a: 1.0, prev_u1: 1.0}, {intent_a: 1.0, prev_u3: 1.0}]": 0}
