"""Policy files mean what they meant; mistakes are named by their key path with the nearest known name."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.releases import BY_NAME
from rasa_core_api.training.featurizing import FULL_DIALOGUE, LABEL_TOKENS, MAX_HISTORY
from rasa_core_api.training.pipeline import longest_history
from rasa_core_api.training.policy_file import default_policies, read_policies

RELEASE = BY_NAME["0.14"]


def read(*entries: Any, release: str = "0.14") -> Any:
    return read_policies({"policies": list(entries)}, BY_NAME[release], "p.yml")


def test_defaults() -> None:
    """What a file does not say is as it was in the releases."""
    keras, fallback, two_stage = read(
        {"name": "KerasPolicy"}, {"name": "FallbackPolicy"}, {"name": "TwoStageFallbackPolicy", "nlu_threshold": 0.5}
    )
    assert keras.options["epochs"] is None and keras.featurizer.max_history == 5 and keras.max_history == 5
    assert fallback.options["core_threshold"] == 0.3 and fallback.max_history is None
    assert two_stage.options["nlu_threshold"] == 0.5
    assert two_stage.options["deny_suggestion_intent_name"] == "out_of_scope"
    assert keras.path == "rasa_core.policies.keras_policy.KerasPolicy"


def test_featurizers() -> None:
    """Featurizers are lists of one entry, one inside the other."""
    (policy,) = read(
        {
            "name": "rasa_core.policies.keras_policy.KerasPolicy",
            "featurizer": [
                {
                    "name": "FullDialogueTrackerFeaturizer",
                    "state_featurizer": [{"name": "LabelTokenizerSingleStateFeaturizer", "use_shared_vocab": True}],
                }
            ],
        }
    )
    assert policy.featurizer.kind == FULL_DIALOGUE and policy.featurizer.encoder == LABEL_TOKENS
    assert policy.featurizer.use_shared_vocab and policy.max_history is None
    assert longest_history([policy]) is None


def test_accepted_as_they_were() -> None:
    """What the original accepted is accepted: the featurizer's history counts, and what means nothing here is told."""
    told: list[str] = []

    def listen(event: LogEvent) -> None:
        told.append(formatEvent(event))

    globalLogPublisher.addObserver(listen)
    featurizer = {"name": MAX_HISTORY, "max_history": 2, "remove_duplicates": False}
    keras = {"name": "KerasPolicy", "max_history": 7, "verbose": 0, "featurizer": [featurizer]}
    network, regression = read(keras, {"name": "SklearnPolicy", "C": 0.5})
    globalLogPublisher.removeObserver(listen)
    assert network.max_history == 2 and network.featurizer.remove_duplicates is False
    assert "verbose" not in network.options and regression.options["C"] == 0.5
    assert "verbose means nothing here" in told[0] and "max_history of the featurizer" in told[1]


def test_longest_history() -> None:
    """Duplicates are told apart by as many states as any policy looks at."""
    policies = read({"name": "MemoizationPolicy", "max_history": 3}, {"name": "KerasPolicy", "max_history": 7})
    assert longest_history(policies) == 7


def test_packaged_default() -> None:
    """Without a file each release gets the policies it has."""
    assert [policy.name for policy in default_policies(BY_NAME["0.11"])] == [
        "KerasPolicy", "FallbackPolicy", "MemoizationPolicy",
    ]
    assert default_policies(RELEASE)[-1].name == "MappingPolicy"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "KerasPolcy"}, "policies[0].name: 'KerasPolcy' is no policy that can be trained; did you mean"),
        ({"name": "KerasPolicy", "epoch": 3}, "policies[0].epoch: KerasPolicy has no such option; did you mean"),
        ({"name": "KerasPolicy", "epochs": 0}, "policies[0].epochs: expected a whole number above 0, found 0"),
        ({"name": "KerasPolicy", "max_history": "five"}, "max_history: expected a whole number above 0"),
        ({"name": "FallbackPolicy", "nlu_threshold": 2}, "nlu_threshold: expected a number from 0 to 1, found 2"),
        ({"name": "FallbackPolicy", "max_history": 2}, "FallbackPolicy has no such option"),
        ({"name": "EmbeddingPolicy"}, "can be served but not trained; use KerasPolicy"),
        ({"name": "my.module.Policy"}, "is no policy that can be trained"),
        ({"name": "KerasPolicy", "featurizer": []}, "featurizer: expected a list with exactly one entry"),
        ({"name": "KerasPolicy", "featurizer": [{"name": "MaxHistory"}]}, "'MaxHistory' cannot be used here"),
        ({"name": "SklearnPolicy", "featurizer": [{"name": FULL_DIALOGUE}]}, "cannot be used here"),
        ("KerasPolicy", "expected a map with the 'name'"),
    ],
)
def test_mistakes(entry: Any, message: str) -> None:
    """Each mistake is named with its place."""
    with pytest.raises(InvalidConfiguration) as caught:
        read(entry)
    assert message in str(caught.value) and str(caught.value).startswith("p.yml: ")


def test_release() -> None:
    """A policy that the target release does not have is refused."""
    with pytest.raises(InvalidConfiguration, match=r"FormPolicy exists from 0\.12 on"):
        read({"name": "FormPolicy"}, release="0.11")


@pytest.mark.parametrize("data", [None, [], {"policies": []}, {"policy": {}}])
def test_no_policies(data: Any) -> None:
    """A file without a list of policies is refused."""
    with pytest.raises(InvalidConfiguration):
        read_policies(data, RELEASE, "p.yml")


def test_numbers_of_the_environment() -> None:
    """What a variable of the environment stands for is a text in the file, and a number where one is wanted."""
    (fallback, keras) = read(
        {"name": "FallbackPolicy", "nlu_threshold": "0.4", "fallback_action_name": "5"},
        {"name": "KerasPolicy", "epochs": "12", "max_history": "4"},
    )
    assert fallback.options["nlu_threshold"] == 0.4 and fallback.options["fallback_action_name"] == "5"
    assert keras.options["epochs"] == 12 and keras.max_history == 4
    with pytest.raises(InvalidConfiguration, match="whole number above 0, found 'many'"):
        read({"name": "KerasPolicy", "epochs": "many"})
