"""The policy configuration file: which policies to train, and how.

Source of names and defaults: the policy files and constructors of 0.12 to 0.14.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from difflib import get_close_matches

from attrs import evolve, field, frozen
from twisted.logger import Logger

from rasa_core_api.constants import ACTION_DEFAULT_FALLBACK, JSON
from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.releases import Release
from rasa_core_api.training.featurizing import BINARY, FULL_DIALOGUE, LABEL_TOKENS, MAX_HISTORY, FeaturizerSettings

log = Logger()


@frozen
class PolicySettings:
    """One entry of a policy file. `options` hold every option of the policy, defaults filled in."""

    name: str  # the historical class name
    options: Mapping[str, JSON]
    featurizer: FeaturizerSettings | None = None
    given: frozenset[str] = field(factory=frozenset)

    @property
    def path(self) -> str:
        """The historical class path."""
        return f"rasa_core.policies.{KINDS[self.name].module}.{self.name}"

    @property
    def max_history(self) -> int | None:
        """The entry of the metadata's `max_histories`."""
        return KINDS[self.name].fixed_history if self.featurizer is None else self.featurizer.history


def _number(value: JSON) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _share(value: JSON) -> bool:
    return _number(value) and 0 <= value <= 1


def _count(value: JSON) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _integer(value: JSON) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _name(value: JSON) -> bool:
    return isinstance(value, str) and bool(value)


def _flag(value: JSON) -> bool:
    return isinstance(value, bool)


def _grid(value: JSON) -> bool:
    return (
        isinstance(value, Mapping)
        and set(value) <= {"C"}
        and all(
            isinstance(items, list) and items and all(_number(item) and item > 0 for item in items)
            for items in value.values()
        )
    )


_Check = tuple[Callable[[JSON], bool], str]
_COUNT: _Check = (_count, "a whole number above 0")
_INTEGER: _Check = (_integer, "a whole number")
_SHARE: _Check = (_share, "a number from 0 to 1")
_NAME: _Check = (_name, "a name")
_FLAG: _Check = (_flag, "true or false")


@frozen
class _Kind:
    module: str
    priority: int
    options: Mapping[str, tuple[JSON, _Check]] = field(factory=dict)  # default (None: not given), and what it may be
    encoder: str | None = None
    takes_featurizer: bool = False
    takes_history: bool = False
    fixed_history: int | None = None
    full_dialogue: bool = False
    since: tuple[int, int] = (0, 9)
    idle: frozenset[str] = frozenset()  # options of the original that mean nothing here, which is told


#: What TensorFlow and its `fit` were told, and what only they know.
_TENSORFLOW = frozenset(
    {"verbose", "tf_config", "intra_op_parallelism_threads", "inter_op_parallelism_threads", "device_count",
     "gpu_options", "allow_soft_placement", "log_device_placement", "use_per_session_threads"}
)  # fmt: skip

_THRESHOLDS: Mapping[str, tuple[JSON, _Check]] = {"nlu_threshold": (0.3, _SHARE), "core_threshold": (0.3, _SHARE)}

KINDS: Mapping[str, _Kind] = {
    "MemoizationPolicy": _Kind("memoization", 2, takes_featurizer=True, takes_history=True),
    "AugmentedMemoizationPolicy": _Kind("memoization", 2, takes_featurizer=True, takes_history=True),
    "KerasPolicy": _Kind(
        "keras_policy",
        1,
        {
            "epochs": (None, _COUNT),
            "batch_size": (None, _COUNT),
            "rnn_size": (32, _COUNT),
            "validation_split": (0.0, (lambda value: _number(value) and 0 <= value < 1, "a number from 0 to below 1")),
            "random_seed": (None, _INTEGER),
        },
        BINARY,
        takes_featurizer=True,
        takes_history=True,
        full_dialogue=True,
        idle=_TENSORFLOW,
    ),
    "SklearnPolicy": _Kind(
        "sklearn_policy",
        1,
        {
            "cv": (None, (lambda value: _count(value) and value > 1, "a number of folds from 2")),
            "param_grid": (None, (_grid, "a map {C: [numbers]}")),
            "C": (1.0, (lambda value: _number(value) and value > 0, "a number above 0")),
            "scoring": ("accuracy", (lambda value: value == "accuracy", "accuracy")),
            "shuffle": (True, _FLAG),
            "random_seed": (None, _INTEGER),
        },
        BINARY,
        takes_featurizer=True,
        takes_history=True,
    ),
    "FallbackPolicy": _Kind("fallback", 3, {**_THRESHOLDS, "fallback_action_name": (ACTION_DEFAULT_FALLBACK, _NAME)}),
    "TwoStageFallbackPolicy": _Kind(
        "two_stage_fallback",
        3,
        {
            **_THRESHOLDS,
            "fallback_core_action_name": (ACTION_DEFAULT_FALLBACK, _NAME),
            "fallback_nlu_action_name": (ACTION_DEFAULT_FALLBACK, _NAME),
            "deny_suggestion_intent_name": ("out_of_scope", _NAME),
        },
        since=(0, 13),
    ),
    "FormPolicy": _Kind("form_policy", 4, fixed_history=2, since=(0, 12)),
    "MappingPolicy": _Kind("mapping_policy", 5, fixed_history=5, since=(0, 14)),
}

#: What is trained without a policy file, from 0.12 on.
DEFAULT_FILE: JSON = {
    "policies": [
        {"name": "KerasPolicy", "max_history": 5},
        {"name": "FallbackPolicy", "fallback_action_name": ACTION_DEFAULT_FALLBACK},
        {"name": "MemoizationPolicy", "max_history": 5},
        {"name": "FormPolicy"},
        {"name": "MappingPolicy"},
    ]
}


def default_policies(release: Release) -> list[PolicySettings]:
    """The packaged configuration, without the policies that the release does not have."""
    entries = [entry for entry in DEFAULT_FILE["policies"] if KINDS[entry["name"]].since <= release.order]
    return read_policies({"policies": entries}, release, "the default configuration")


def read_policies(data: JSON, release: Release, source: str) -> list[PolicySettings]:
    """The entries of a policy file (read), in their order.

    Raises `InvalidConfiguration` naming file, key path, and for an unknown name the nearest known one.
    """
    if not isinstance(data, Mapping):
        raise InvalidConfiguration(f"{source}: expected a map with a list of 'policies'")
    key = "policies" if "policies" in data or "policy" not in data else "policy"
    entries = data.get(key)
    if not isinstance(entries, list) or not entries:
        raise InvalidConfiguration(f"{source}: {key}: expected a list with at least one policy")
    return [_read_entry(entry, release, f"{source}: {key}[{index}]") for index, entry in enumerate(entries)]


def _nearest(name: str, known: Iterable[str]) -> str:
    options = sorted(known)
    close = get_close_matches(name, options, 1, 0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(options) or 'none'}"


def _read_entry(entry: JSON, release: Release, where: str) -> PolicySettings:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise InvalidConfiguration(f"{where}: expected a map with the 'name' of a policy")
    options = {key: value for key, value in entry.items() if key != "name"}
    path = entry["name"]
    module, _, name = path.rpartition(".")
    if name == "EmbeddingPolicy":
        raise InvalidConfiguration(
            f"{where}.name: an EmbeddingPolicy can be served but not trained; use KerasPolicy, for whole dialogues "
            "with a FullDialogueTrackerFeaturizer and a LabelTokenizerSingleStateFeaturizer"
        )
    if name not in KINDS or (module and not module.startswith("rasa_core.policies")):
        hint = _nearest(name, KINDS) if name not in KINDS else "only the built-in policies can be trained"
        raise InvalidConfiguration(f"{where}.name: {path!r} is no policy that can be trained; {hint}")
    kind = KINDS[name]
    if kind.since > release.order:
        since = ".".join(map(str, kind.since))
        raise InvalidConfiguration(f"{where}.name: {name} exists from {since} on; the model is for {release}")
    known = {*kind.options, "priority"}
    known |= {"featurizer"} if kind.takes_featurizer else set()
    known |= {"max_history"} if kind.takes_history else set()
    values: dict[str, JSON] = {key: default for key, (default, _) in kind.options.items()}
    values["priority"] = kind.priority
    for key, value in options.items():
        if key in kind.idle:
            log.warn("{where}.{key} means nothing here: there is no TensorFlow", where=where, key=key)
            continue
        if key not in known:
            raise InvalidConfiguration(f"{where}.{key}: {name} has no such option; {_nearest(str(key), known)}")
        if key in kind.options or key == "priority":
            _, (check, wanted) = kind.options.get(key, (kind.priority, _INTEGER))
            value = _unquoted(value) if check is not _name else value
            if value is not None and not check(value):
                raise InvalidConfiguration(f"{where}.{key}: expected {wanted}, found {value!r}")
            if value is not None:
                values[key] = value
    featurizer = _featurizer(kind, options, where) if kind.takes_featurizer else None
    return PolicySettings(name, values, featurizer, frozenset(options))


def _unquoted(value: JSON) -> JSON:
    """A number or truth that came as a text, as from a variable of the environment."""
    if not isinstance(value, str):
        return value
    for read in (int, float, {"true": True, "false": False}.__getitem__):
        with suppress(ValueError, KeyError):
            return read(value.strip().lower())
    return value


def _featurizer(kind: _Kind, options: Mapping[str, JSON], where: str) -> FeaturizerSettings:
    history = _unquoted(options.get("max_history"))
    if history is not None and not _count(history):
        raise InvalidConfiguration(f"{where}.max_history: expected a whole number above 0, found {history!r}")
    settings = FeaturizerSettings(max_history=history or 5, encoder=kind.encoder)
    if options.get("featurizer") is None:
        return settings
    if history is not None:
        log.warn("{where}: the max_history of the featurizer counts, not the one beside it", where=where)
        settings = evolve(settings, max_history=5)
    name, values, path = _single(options["featurizer"], f"{where}.featurizer")
    known = {MAX_HISTORY: {"max_history", "remove_duplicates"}, FULL_DIALOGUE: set[str]()}
    if name not in known or (name == FULL_DIALOGUE and not kind.full_dialogue):
        raise InvalidConfiguration(f"{path}.name: {name!r} cannot be used here; {_nearest(name, known)}")
    settings = evolve(settings, kind=name)
    for key, value in values.items():
        if key == "max_history" and key in known[name] and _count(value):
            settings = evolve(settings, max_history=value)
        elif key == "remove_duplicates" and key in known[name] and _flag(value):
            settings = evolve(settings, remove_duplicates=value)
        elif key == "use_intent_probabilities" and _flag(value):
            settings = evolve(settings, use_intent_probabilities=value)
        elif key == "state_featurizer":
            if kind.encoder is not None and value is not None:
                settings = _state_featurizer(settings, value, f"{path}.state_featurizer")
        elif key in {*known[name], "use_intent_probabilities"}:
            raise InvalidConfiguration(f"{path}.{key}: {value!r} is not a possible value")
        else:
            options_known = {*known[name], "use_intent_probabilities", "state_featurizer"}
            raise InvalidConfiguration(f"{path}.{key}: {name} has no such option; {_nearest(str(key), options_known)}")
    return settings


def _state_featurizer(settings: FeaturizerSettings, value: JSON, where: str) -> FeaturizerSettings:
    name, values, path = _single(value, where)
    if name not in (BINARY, LABEL_TOKENS):
        raise InvalidConfiguration(f"{path}.name: {name!r} is unknown; {_nearest(name, (BINARY, LABEL_TOKENS))}")
    settings = evolve(settings, encoder=name)
    for key, option in values.items():
        if name == LABEL_TOKENS and key == "use_shared_vocab" and _flag(option):
            settings = evolve(settings, use_shared_vocab=option)
        elif name == LABEL_TOKENS and key == "split_symbol" and _name(option):
            settings = evolve(settings, split_symbol=option)
        else:
            known = ("use_shared_vocab", "split_symbol") if name == LABEL_TOKENS else ()
            raise InvalidConfiguration(f"{path}.{key}: not possible here; {_nearest(str(key), known)}")
    return settings


def _single(value: JSON, where: str) -> tuple[str, dict[str, JSON], str]:
    """Name, options and key path of a list with one entry."""
    if not isinstance(value, list) or len(value) != 1:
        raise InvalidConfiguration(f"{where}: expected a list with exactly one entry")
    entry = value[0]
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise InvalidConfiguration(f"{where}[0]: expected a map with a 'name'")
    name = entry["name"].rpartition(".")[2]
    return name, {key: option for key, option in entry.items() if key != "name"}, f"{where}[0]"
