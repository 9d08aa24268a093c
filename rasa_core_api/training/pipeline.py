"""From stories to the files of a model's policies."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from attrs import field, frozen

from rasa_core_api.constants import JSON
from rasa_core_api.domain import Domain
from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.policies.memoization import write_key
from rasa_core_api.training.featurizing import FULL_DIALOGUE, FeaturizerSettings
from rasa_core_api.training.generator import Progress, Settings, TrainingData, generate
from rasa_core_api.training.learners.memoization import FORM_HISTORY, Contradiction, memorize, memorize_forms
from rasa_core_api.training.policy_file import PolicySettings
from rasa_core_api.training.structures import StoryStep

if TYPE_CHECKING:
    from rasa_core_api.training.learners.logistic import LogisticSettings
    from rasa_core_api.training.learners.network import Matrix


NETWORK_FILE = "keras_model.h5"
REGRESSION_FILE = "sklearn_model.npz"
MEMORY_FILE = "memorized_turns.json"


@frozen
class TrainedPolicy:
    """A policy ready to be written: its files by name; without any it gets no directory.

    `examples`: what it learnt from, where it goes on learning from examples.
    """

    settings: PolicySettings
    files: Mapping[str, bytes]
    report: Mapping[str, JSON]
    contradictions: Sequence[Contradiction] = ()
    examples: Matrix | None = field(default=None, repr=False)


@frozen
class Trained:
    """A trained model and what it was trained from."""

    data: TrainingData
    policies: Sequence[TrainedPolicy]
    augmentation_factor: int
    seconds: float
    domain: Domain = field(repr=False)


def longest_history(policies: Sequence[PolicySettings]) -> int | None:
    """How many states any policy looks at; None where one looks at all of them, or none at any."""
    if any(policy.featurizer is not None and policy.featurizer.kind == FULL_DIALOGUE for policy in policies):
        return None
    return max((policy.max_history for policy in policies if policy.max_history is not None), default=None)


def check_policies(policies: Sequence[PolicySettings], domain: Domain) -> None:
    """Raises `InvalidConfiguration` where policies and domain do not go together.

    That is where a policy names an action or intent that the domain lacks, and where forms have no FormPolicy.
    """
    if domain.forms and domain.release.has_forms and all(policy.name != "FormPolicy" for policy in policies):
        raise InvalidConfiguration("the domain has forms, so the policies need a FormPolicy; add it to the policy file")
    for policy in policies:
        deny = policy.options.get("deny_suggestion_intent_name")
        if deny is not None and deny not in domain.intents:
            raise InvalidConfiguration(
                f"{policy.name}.deny_suggestion_intent_name: the domain has no intent {deny!r}; add it to the domain"
            )
        for option, value in policy.options.items():
            if option.endswith("_action_name") and value not in domain.action_index:
                raise InvalidConfiguration(f"{policy.name}.{option}: the domain has no action {value!r}")


def train(
    steps: Sequence[StoryStep],
    domain: Domain,
    policies: Sequence[PolicySettings],
    *,
    augmentation_factor: int,
    progress: Progress | None = None,
    clock: Callable[[], float] = monotonic,
) -> Trained:
    """Generate the training data and train every policy on them.

    `progress` is called with the share that is done (0 to 1) and what is being done. Raises
    `InvalidTrainingData`, `InvalidConfiguration` or `TrainingFailed`.
    """
    check_policies(policies, domain)
    begin = clock()
    report = progress or (lambda share, what: None)
    weights = [_WEIGHTS.get(policy.name, 0.01) * (policy.options.get("epochs", 1) or 100) for policy in policies]
    whole = 1.0 + sum(weights)
    settings = Settings(augmentation_factor=augmentation_factor, unique_last_num_states=longest_history(policies))
    data = generate(steps, domain, settings, lambda share, what: report(share / whole, what))
    done, trained = 1.0, []
    for policy, weight in zip(policies, weights, strict=True):
        trained.append(_train_policy(policy, data, _part(report, done / whole, weight / whole)))
        done += weight
    return Trained(data, trained, augmentation_factor, clock() - begin, domain)


#: How long a policy takes compared with generating the dialogues, for the estimate of the time left.
_WEIGHTS: Mapping[str, float] = {
    "MemoizationPolicy": 0.3,
    "AugmentedMemoizationPolicy": 0.3,
    "FormPolicy": 0.1,
    "KerasPolicy": 0.2,
    "SklearnPolicy": 5.0,
}


def _part(report: Progress, begin: float, width: float) -> Progress:
    return lambda share, what: report(begin + width * share, what)


def _train_policy(policy: PolicySettings, data: TrainingData, progress: Progress) -> TrainedPolicy:
    if policy.name in ("MemoizationPolicy", "AugmentedMemoizationPolicy"):
        assert policy.featurizer is not None
        progress(0.0, "memorizing")
        lookup, contradictions = memorize(data, policy.featurizer.max_history)
        return _memory(policy, policy.featurizer, data, lookup, contradictions)
    if policy.name == "FormPolicy":
        featurizer = FeaturizerSettings(max_history=FORM_HISTORY, encoder=None)
        return _memory(policy, featurizer, data, memorize_forms(data), [])
    if policy.name == "KerasPolicy":
        return _network(policy, data, progress)
    if policy.name == "SklearnPolicy":
        return _regression(policy, data, progress)
    if policy.name == "MappingPolicy":
        return TrainedPolicy(policy, {}, {})
    file = {"FallbackPolicy": "fallback_policy", "TwoStageFallbackPolicy": "two_stage_fallback_policy"}[policy.name]
    options = {key: value for key, value in policy.options.items() if key != "priority"}
    return TrainedPolicy(policy, {f"{file}.json": _json({**_priority(policy, data.domain), **options})}, {})


def _json(value: JSON) -> bytes:
    return json.dumps(value, indent=2).encode("ascii")


def _priority(policy: PolicySettings, domain: Domain) -> dict[str, JSON]:
    return {"priority": policy.options["priority"]} if domain.release.uses_priorities else {}


def _memory(
    policy: PolicySettings,
    featurizer: FeaturizerSettings,
    data: TrainingData,
    lookup: Mapping[str, JSON],
    contradictions: Sequence[Contradiction],
) -> TrainedPolicy:
    content = {
        **_priority(policy, data.domain),
        "max_history": featurizer.max_history,
        "lookup": {write_key(key): value for key, value in lookup.items()},
    }
    files = {
        MEMORY_FILE: _json(content),
        "featurizer.json": _json(featurizer.as_json(data.domain, 0)),
    }
    return TrainedPolicy(policy, files, {"turns": len(lookup), "contradictions": len(contradictions)}, contradictions)


def _network(policy: PolicySettings, data: TrainingData, progress: Progress) -> TrainedPolicy:
    from rasa_core_api.featurizers import featurizer_from_json
    from rasa_core_api.training.learners.keras_file import keras_model
    from rasa_core_api.training.learners.network import NetworkSettings, dialogue_matrix, fit, window_matrix

    assert policy.featurizer is not None
    options, domain = policy.options, data.domain
    longest = max((data.sequences.depth[dialogue.turns] for dialogue in data.dialogues), default=0)
    described = policy.featurizer.as_json(domain, longest)
    encoder = featurizer_from_json(described, domain).encoder
    assert encoder is not None
    history = policy.featurizer.history
    progress(0.0, "network: encoding")
    if history is None:
        matrix = dialogue_matrix(data, encoder)
    else:
        matrix = window_matrix(data, encoder, history, policy.featurizer.remove_duplicates)
    settings = NetworkSettings(
        epochs=options["epochs"],
        rnn_size=options["rnn_size"],
        batch_size=options["batch_size"],
        validation_split=options["validation_split"],
        random_seed=42 if options["random_seed"] is None else options["random_seed"],
    )
    fitted = fit(matrix, len(domain.action_names), settings, progress)
    files = {
        NETWORK_FILE: keras_model(fitted.network, history, plain_layers=not domain.release.has_forms),
        "keras_policy.json": _json(
            {**_priority(policy, domain), "model": NETWORK_FILE, "epochs": fitted.epochs}
        ),
        "featurizer.json": _json(described),
    }
    if domain.release.uses_priorities:
        # 0.14 opens this file: the pickled None that it wrote itself
        files["keras_policy.tf_config.pkl"] = b"\x80\x03N."
    report = {
        "examples": fitted.examples,
        "epochs": fitted.epochs,
        "loss": round(fitted.loss, 6),
        "accuracy": round(fitted.accuracy, 6),
        "validation_accuracy": fitted.validation_accuracy,
    }
    return TrainedPolicy(policy, files, report, examples=matrix)


def logistic_settings(options: Mapping[str, JSON]) -> LogisticSettings:
    """What the options of a SklearnPolicy mean."""
    from rasa_core_api.training.learners.logistic import LogisticSettings

    return LogisticSettings(
        strengths=(options["param_grid"] or {}).get("C", (options.get("C", 1.0),)),
        folds=options["cv"],
        random_seed=42 if options["random_seed"] is None else options["random_seed"],
    )


def _regression(policy: PolicySettings, data: TrainingData, progress: Progress) -> TrainedPolicy:
    from rasa_core_api.featurizers import featurizer_from_json
    from rasa_core_api.training.learners.logistic import fit_logistic
    from rasa_core_api.training.learners.network import window_matrix

    assert policy.featurizer is not None
    options, domain = policy.options, data.domain
    described = policy.featurizer.as_json(domain, 0)
    encoder = featurizer_from_json(described, domain).encoder
    assert encoder is not None
    settings = logistic_settings(options)
    matrix = window_matrix(data, encoder, policy.featurizer.max_history, policy.featurizer.remove_duplicates)
    fitted = fit_logistic(matrix, settings, progress)
    files = {
        REGRESSION_FILE: fitted.as_npz(),
        "sklearn_policy.json": _json(_priority(policy, domain)),
        "featurizer.json": _json(described),
    }
    report = {"examples": fitted.examples, "accuracy": round(fitted.accuracy, 6), "C": fitted.strength}
    return TrainedPolicy(policy, files, report, examples=matrix)
