"""Tests of the ensemble: who decides, under the rules of each release."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasa_core_api.domain import Domain
from rasa_core_api.events import ActionExecutionRejected, FormValidation
from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.policies.ensemble import Ensemble, normalise
from rasa_core_api.policies.policy import Dense, LoadContext, OneHot, Policy, Scores
from rasa_core_api.trackers import Tracker
from tests.samples import action, domain, user


class Says(Policy):
    """A policy that always says the same."""

    name = "Says"

    def __init__(self, scores: dict[str, float], **traits: Any) -> None:
        super().__init__(traits.pop("priority", None))
        self.scores = scores
        self.asked = 0
        for trait, value in traits.items():
            setattr(self, trait, value)

    def predict(self, tracker: Tracker, domain: Domain) -> Scores:
        self.asked += 1
        return Dense([self.scores.get(name, 0.0) for name in domain.action_names])

    def fallback_scores(self, domain: Domain) -> Scores:
        return OneHot(len(domain.action_names), domain.index_of("action_default_fallback"), 1.1)

    @classmethod
    def load(cls, directory: Path, context: LoadContext) -> Policy:
        raise NotImplementedError


def choose(release: str, policies: Sequence[Policy], tracker: Tracker | None = None) -> tuple[str, str | None, float]:
    rules = domain(release, forms=[])
    tracker = tracker or Tracker("u", rules)
    choice = Ensemble(policies, rules).choose(tracker)
    return rules.action_names[choice.index], choice.policy, choice.confidence


def test_the_most_confident_wins() -> None:
    """The policy with the highest maximum decides, under its name in the ensemble."""
    chosen = choose("0.11", [Says({"utter_hi": 0.4}), Says({"utter_bye": 0.6, "utter_hi": 0.2})])
    assert chosen == ("utter_bye", "policy_1_Says", pytest.approx(0.75))


def test_the_earlier_wins_a_tie() -> None:
    """Among equals the first of the list decides; in 0.14 the one with the higher priority."""
    pair = [Says({"utter_hi": 1.0}, priority=1), Says({"utter_bye": 1.0}, priority=2)]
    assert choose("0.11", pair)[0] == "utter_hi"
    assert choose("0.14", pair)[0] == "utter_bye"


def test_a_costly_policy_that_cannot_win_is_not_asked() -> None:
    """A network behind a certain memory is spared; one in front of it could win the tie and is asked."""
    behind = Says({"utter_bye": 1.0}, costly=True, ceiling=1.0)
    assert choose("0.11", [Says({"utter_hi": 1.0}), behind])[0] == "utter_hi"
    assert behind.asked == 0
    before = Says({"utter_bye": 1.0}, costly=True, ceiling=1.0)
    assert choose("0.11", [before, Says({"utter_hi": 1.0})])[0] == "utter_bye"
    assert before.asked == 1


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from(["utter_hi", "utter_bye", "action_listen"]), st.floats(0, 1), max_size=3),
            st.booleans(), st.integers(1, 3),
        ),
        min_size=1, max_size=5,
    ),
    st.sampled_from(["0.9", "0.11", "0.13", "0.14"]),
)  # fmt: skip
def test_sparing_changes_no_answer(opinions: list[tuple[dict[str, float], bool, int]], release: str) -> None:
    """Not asking costly policies that cannot win gives what asking everybody gives."""
    spared = [Says(scores, costly=costly, ceiling=1.0, priority=priority) for scores, costly, priority in opinions]
    asked = [Says(scores, priority=priority) for scores, _, priority in opinions]
    assert choose(release, spared) == choose(release, asked)


def test_silence_means_listen() -> None:
    """Where nobody has an opinion the bot listens."""
    assert choose("0.11", [Says({}), Says({})])[0] == "action_listen"


def test_listening_right_after_the_user_is_left_to_the_fallback() -> None:
    """From 0.11 on a network that would answer a message with silence is overruled, a memory is not."""
    rules = domain("0.11")
    tracker = Tracker("u", rules)
    tracker.extend([action("action_listen"), user("greet")])
    fallback = Says({"action_default_fallback": 0.3}, is_fallback=True)
    assert choose("0.11", [Says({"action_listen": 0.9}), fallback], tracker)[:2] == (
        "action_default_fallback", "policy_1_Says",
    )  # fmt: skip
    assert choose("0.11", [Says({"action_listen": 0.9}, is_memoization=True), fallback], tracker)[0] == "action_listen"
    assert choose("0.11", [Says({"action_listen": 0.9})], tracker)[0] == "action_listen"
    assert choose("0.10", [Says({"action_listen": 0.9}), fallback], tracker)[0] == "action_listen"


def test_a_rejected_action_does_not_win() -> None:
    """From 0.12 on an action that was just rejected counts for nothing, once."""
    rules = domain("0.12", forms=[])
    tracker = Tracker("u", rules)
    tracker.extend([action("action_listen"), ActionExecutionRejected(action_name="utter_hi", timestamp=1.0)])
    policies = [Says({"utter_hi": 0.9, "utter_bye": 0.2})]
    assert choose("0.12", policies, tracker)[0] == "utter_bye"
    tracker.update(user("greet"))
    assert choose("0.12", policies, tracker)[0] == "utter_hi"


class Validates(Says):
    """A form policy that logs an event while it predicts."""

    name = "FormPolicy"

    def predict(self, tracker: Tracker, domain: Domain) -> Scores:
        tracker.update(FormValidation(validate=False, timestamp=1.0))
        return super().predict(tracker, domain)


def test_policies_behind_the_form_policy_see_its_event() -> None:
    """Once the form policy has logged its event the rejection no longer binds those behind it, costly or not."""
    rules = domain("0.12", forms=[])

    def winner(policies: list[Policy]) -> str:
        tracker = Tracker("u", rules)
        tracker.update(ActionExecutionRejected(action_name="utter_hi", timestamp=1.0))
        return choose("0.12", policies, tracker)[0]

    network = {"utter_hi": 0.9, "utter_bye": 0.2}
    assert winner([Validates({}), Says(network, costly=True, ceiling=1.0)]) == "utter_hi"
    assert winner([Says(network, costly=True, ceiling=1.0), Validates({})]) == "utter_bye"


def test_forms_need_a_form_policy() -> None:
    """A domain with forms and no form policy cannot be served."""
    with pytest.raises(InvalidConfiguration, match="FormPolicy"):
        Ensemble([Says({})], domain("0.12"))


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("none", [3.0, 1.0]),
        ("sum", [0.75, 0.25]),
        ("l2", [pytest.approx(0.9487, abs=1e-4), pytest.approx(0.3162, abs=1e-4)]),
    ],
)
def test_normalisation(how: str, expected: list[float]) -> None:
    """Scores are scaled as the release did; zeros stay."""
    assert normalise([3.0, 1.0], how) == expected
    assert normalise([0.0, 0.0], how) == [0.0, 0.0]
