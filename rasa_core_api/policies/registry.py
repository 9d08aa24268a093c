"""Which class of ours stands for a class that a model names.

Only names select: nothing that a model names is imported, unless the operator trusts its module.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from rasa_core_api.exceptions import InvalidDomain, UnsupportedModel
from rasa_core_api.policies.ensemble import Ensemble
from rasa_core_api.policies.policy import Policy
from rasa_core_api.slots import ClassFinder, refuse_classes

_HISTORICAL = "rasa_core.policies."
_OURS = "rasa_core_api.policies."

#: Historical class name to our module; imported when a model names the class, because some of them need numpy.
MODULES: Mapping[str, str] = {
    "MemoizationPolicy": "memoization",
    "AugmentedMemoizationPolicy": "memoization",
    "KerasPolicy": "lstm",
    "SklearnPolicy": "sklearn",
    "EmbeddingPolicy": "embedding",
    "FallbackPolicy": "fallback",
    "TwoStageFallbackPolicy": "two_stage_fallback",
    "FormPolicy": "form",
    "MappingPolicy": "mapping",
}

_ENSEMBLE = "SimplePolicyEnsemble"


def policy_class(path: str, find_class: ClassFinder = refuse_classes) -> type[Policy]:
    """The class for a path such as `rasa_core.policies.memoization.MemoizationPolicy`.

    A path of another project is looked up in the modules that the operator trusts; what is found there must be a
    subclass of our `Policy`. Raises `UnsupportedModel` naming the path.
    """
    module, _, name = path.rpartition(".")
    if module.startswith(_HISTORICAL):
        if name not in MODULES:
            raise _refused(path, f"known policies are {', '.join(MODULES)}")
        try:
            found: object = getattr(import_module(_OURS + MODULES[name]), name)
        except ModuleNotFoundError as error:
            if error.name != _OURS + MODULES[name]:
                raise
            raise _refused(path, "this build does not have it") from None
    else:
        found = _trusted(path, find_class)
    if not isinstance(found, type) or not issubclass(found, Policy):
        raise _refused(path, f"it is not a subclass of {Policy.__module__}.{Policy.__name__}")
    return found


def ensemble_class(path: str, find_class: ClassFinder = refuse_classes) -> type[Ensemble]:
    """The class for an ensemble's path. Raises `UnsupportedModel` naming it."""
    module, _, name = path.rpartition(".")
    if module.startswith(_HISTORICAL):
        if name != _ENSEMBLE:
            raise _refused(path, f"only {_ENSEMBLE} can be served")
        return Ensemble
    found = _trusted(path, find_class)
    if not isinstance(found, type) or not issubclass(found, Ensemble):
        raise _refused(path, f"it is not a subclass of {Ensemble.__module__}.{Ensemble.__name__}")
    return found


def _trusted(path: str, find_class: ClassFinder) -> object:
    try:
        return find_class(path)
    except InvalidDomain as error:
        raise UnsupportedModel(str(error), policy=path[:200]) from None


def _refused(path: str, reason: str) -> UnsupportedModel:
    return UnsupportedModel(f"the class {path!r} cannot be served: {reason}", policy=path[:200])
