"""Tests of loading model directories of every release."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from rasa_core_api.domain import Domain
from rasa_core_api.events import Event, Form
from rasa_core_api.exceptions import UnreadableFile, UnsupportedModel
from rasa_core_api.models.generation import Generation
from rasa_core_api.models.loader import fingerprint_of, load_generation
from rasa_core_api.policies.fallback import FallbackPolicy
from rasa_core_api.policies.memoization import MemoizationPolicy
from rasa_core_api.policies.policy import LoadContext, Policy, Scores, nothing
from rasa_core_api.trackers import Tracker
from tests.models.directories import VERSIONS, edit, model_directory
from tests.samples import action, user

GREETED = (action("action_listen"), user("greet"))
STATES = "[{slot_place_0: 1.0}, {intent_greet: 1.0, prev_action_listen: 1.0, slot_place_0: 1.0}]"
OLD_STATES = "[[[slot_place_0, 1]], [[intent_greet, 1], [slot_place_0, 1], [prev_action_listen, 1]]]"


def choose(generation: Generation, *events: Event) -> tuple[str, str | None, float]:
    """The chosen action, the policy and the confidence after these events."""
    tracker = Tracker("u", generation.domain)
    tracker.extend(events)
    choice = generation.ensemble.choose(tracker)
    return generation.domain.action_names[choice.index], choice.policy, choice.confidence


@pytest.mark.parametrize("release", VERSIONS)
def test_releases(tmp_path: Path, release: str) -> None:
    """A model of each release is recognised and predicts by its rules."""
    policies = ("MemoizationPolicy", "FallbackPolicy")
    if release in ("0.12", "0.13", "0.14"):
        policies = (*policies, "FormPolicy")
    if release == "0.8":
        policies = policies[:1]
    key = OLD_STATES if release == "0.8" else STATES
    root = model_directory(tmp_path, release, policies, {key: 3})
    generation = load_generation(root, fingerprint="f" * 32)
    assert generation.release.name == release
    assert (generation.fingerprint, generation.source) == ("f" * 32, str(root))
    assert generation.metadata["action_fingerprints"] == {"utter_hi": {"slots": []}}
    expected = generation.domain.action_names[3]
    assert choose(generation, *GREETED) == (expected, "policy_0_MemoizationPolicy", 1.0)
    if release != "0.8":
        found, policy, _ = choose(generation, action("action_listen"), user("bye"))
        assert (found, policy) == ("utter_bye", "policy_1_FallbackPolicy")


def test_alpha_with_the_layout_before(tmp_path: Path) -> None:
    """Where the version proposes another feature layout than the stored one, the layout decides."""
    generation = load_generation(model_directory(tmp_path, "0.11", version="0.12.0a2"))
    assert generation.release.name == "0.11"


def test_layout_of_a_later_release(tmp_path: Path) -> None:
    """Without a version the oldest release is proposed, and the stored layout still finds the right one."""
    root = model_directory(tmp_path, "0.14", ("MemoizationPolicy", "FormPolicy"))
    edit(root / "metadata.json", rasa_core=None)
    assert load_generation(root).release.name == "0.14"


def test_changed_domain(tmp_path: Path) -> None:
    """A domain that no release reads as the stored layout is refused with what is gone and what is new."""
    root = model_directory(tmp_path)
    text = (root / "domain.yml").read_text()
    (root / "domain.yml").write_text(text.replace("utter_hi", "utter_hello"))
    message = r"domain\.yml: Domain specification has changed.*removed: prev_utter_hi; added: prev_utter_hello"
    with pytest.raises(UnsupportedModel, match=message):
        load_generation(root)


def test_reordered_domain(tmp_path: Path) -> None:
    """The order of the states counts too."""
    root = model_directory(tmp_path)
    states = load_generation(root).domain.states
    edit(root / "domain.json", states=[*states[1:], states[0]])
    with pytest.raises(UnsupportedModel, match="the same states are in another order"):
        load_generation(root)


def test_long_difference(tmp_path: Path) -> None:
    """A long list of differences is cut."""
    root = model_directory(tmp_path)
    edit(root / "domain.json", states=[f"intent_{number}" for number in range(1000)])
    with pytest.raises(UnsupportedModel, match="and 980 more") as caught:
        load_generation(root)
    assert len(str(caught.value)) < 2000


def test_without_stored_layout(tmp_path: Path) -> None:
    """Where the layout is not stored, the version decides."""
    root = model_directory(tmp_path, "0.10")
    (root / "domain.json").unlink()
    assert load_generation(root).release.name == "0.10"


def test_gap_in_the_numbers(tmp_path: Path) -> None:
    """Policies that persist nothing count in the numbers of the directories."""
    policies = ("MappingPolicy", "MemoizationPolicy", "FormPolicy")
    root = model_directory(tmp_path, "0.14", policies, {STATES: 2})
    assert not (root / "policy_0_MappingPolicy").exists()
    generation = load_generation(root)
    assert [policy.name for policy in generation.ensemble.policies] == list(policies)
    assert choose(generation, *GREETED)[1] == "policy_1_MemoizationPolicy"


def test_missing_pieces(tmp_path: Path) -> None:
    """Without their directories a memory is empty, and a fallback has its defaults; a network cannot be served."""
    root = model_directory(tmp_path, "0.11", lookup={STATES: 3})
    shutil.rmtree(root / "policy_0_MemoizationPolicy")
    shutil.rmtree(root / "policy_1_FallbackPolicy")
    memory, fallback = load_generation(root).ensemble.policies
    assert isinstance(memory, MemoizationPolicy)
    assert not memory.lookup
    assert isinstance(fallback, FallbackPolicy)
    assert (fallback.nlu_threshold, fallback.fallback_action_name) == (0.3, "action_default_fallback")
    for name in ("KerasPolicy", "SklearnPolicy"):
        edit(root / "policy_metadata.json", policy_names=[f"rasa_core.policies.x.{name}"])
        with pytest.raises(UnsupportedModel, match=f"policy_0_{name}"):
            load_generation(root)


def test_other_files(tmp_path: Path) -> None:
    """What else lies in a model directory does not matter."""
    root = model_directory(tmp_path)
    (root / "stories.md").write_text("## s\n* greet\n    - utter_hi\n")
    (root / "policy_7_OtherPolicy").mkdir()
    (root / ".DS_Store").write_bytes(b"\0")
    assert load_generation(root).release.name == "0.11"


def test_forms_without_their_policy(tmp_path: Path) -> None:
    """A model with forms needs the policy that runs them."""
    with pytest.raises(UnsupportedModel, match="FormPolicy"):
        load_generation(model_directory(tmp_path, "0.12"))


def test_forms_run(tmp_path: Path) -> None:
    """The loaded form policy keeps a form going."""
    generation = load_generation(model_directory(tmp_path, "0.12", ("FormPolicy",)))
    events = (*GREETED, action("f"), Form(name="f", timestamp=1.0), action("action_listen"), user("inform"))
    assert choose(generation, *events) == ("f", "policy_0_FormPolicy", 1.0)


class Mine(Policy):
    """A policy of the operator's."""

    name = "Mine"

    @classmethod
    def load(cls, directory: Path, context: LoadContext) -> Mine:
        assert (directory.name, context.max_history) == ("policy_0_Mine", None)
        return cls()

    def predict(self, tracker: Tracker, domain: Domain) -> Scores:
        return nothing(domain)


def test_trusted_policy(tmp_path: Path) -> None:
    """A class of a trusted module is loaded from its directory; otherwise it is refused by name."""
    root = model_directory(tmp_path, policies=("mine.Mine",))

    def find(path: str) -> type[Any]:
        assert path == "mine.Mine"
        return Mine

    assert isinstance(load_generation(root, find_class=find).ensemble.policies[0], Mine)
    with pytest.raises(UnsupportedModel, match=r"'mine\.Mine'.*--trusted_modules mine"):
        load_generation(root)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda root: (root / "domain.yml").unlink(), r"domain\.yml: the file is missing"),
        (lambda root: (root / "domain.yml").write_text("intents: ["), r"domain\.yml, line 2"),
        (lambda root: (root / "domain.yml").write_text("intents: 3"), r"domain\.yml: intents: expected a list"),
        (
            lambda root: (root / "domain.yml").write_text("slots: {a: {type: my.Slot}}"),
            r"domain\.yml: slots\.a\.type: .*--trusted_modules my",
        ),
        (
            lambda root: (root / "policy_0_MemoizationPolicy" / "memorized_turns.json").write_text("{}"),
            r"memorized_turns\.json",
        ),
        (
            lambda root: edit(root / "policy_metadata.json", policy_names=["rasa_core.policies.x.ScoringPolicy"]),
            "ScoringPolicy",
        ),
        (
            lambda root: edit(root / "policy_metadata.json", ensemble_name="rasa_core.policies.ensemble.Other"),
            "only SimplePolicyEnsemble",
        ),
        (lambda root: edit(root / "policy_metadata.json", rasa_core="new"), "'new' is not a version"),
    ],
)
def test_refused(tmp_path: Path, spoil: Any, reason: str) -> None:
    """Whatever cannot be served is refused with the file and the reason."""
    root = model_directory(tmp_path)
    spoil(root)
    with pytest.raises(UnsupportedModel, match=reason):
        load_generation(root)


def test_trusted_policy_that_fails(tmp_path: Path) -> None:
    """An expected failure of a policy is told with its directory."""

    class Failing(Mine):
        @classmethod
        def load(cls, directory: Path, context: LoadContext) -> Mine:
            raise UnreadableFile("cannot read x")

    root = model_directory(tmp_path, policies=("mine.Mine",))
    with pytest.raises(UnsupportedModel, match="cannot read x"):
        load_generation(root, find_class=lambda path: Failing)


def test_fingerprint(tmp_path: Path) -> None:
    """Equal models have equal fingerprints; another name or byte makes another."""
    first = load_generation(model_directory(tmp_path / "a")).fingerprint
    second = model_directory(tmp_path / "b")
    assert fingerprint_of(second) == first == fingerprint_of(tmp_path / "a")
    assert len(first) == 32
    (second / "domain.yml").rename(second / "domain.yaml")
    other = fingerprint_of(second)
    (second / "domain.yaml").write_text("x")
    assert len({first, other, fingerprint_of(second)}) == 3
