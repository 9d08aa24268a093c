"""Tests of which class stands for a class that a model names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rasa_core_api.domain import Domain
from rasa_core_api.exceptions import InvalidDomain, UnsupportedModel
from rasa_core_api.policies.ensemble import Ensemble
from rasa_core_api.policies.memoization import AugmentedMemoizationPolicy
from rasa_core_api.policies.policy import LoadContext, Policy, Scores, nothing
from rasa_core_api.policies.registry import MODULES, ensemble_class, policy_class
from rasa_core_api.trackers import Tracker


class Mine(Policy):
    """A policy of another project."""

    name = "Mine"

    @classmethod
    def load(cls, directory: Path, context: LoadContext) -> Mine:
        return cls()

    def predict(self, tracker: Tracker, domain: Domain) -> Scores:
        return nothing(domain)


class MyEnsemble(Ensemble):
    """An ensemble of another project."""


def trusting(path: str) -> type[Any]:
    module, _, name = path.rpartition(".")
    if module != "mine":
        raise InvalidDomain(f"the class {path!r} is not trusted")
    return {"Mine": Mine, "MyEnsemble": MyEnsemble, "Other": int}[name]


def test_known_classes() -> None:
    """Every historical policy has its class, wherever a release kept it."""
    for name in MODULES:
        try:
            assert policy_class(f"rasa_core.policies.some_module.{name}").name == name
        except UnsupportedModel as error:
            assert "this build does not have it" in str(error)
    path = "rasa_core.policies.augmented_memoization.AugmentedMemoizationPolicy"
    assert policy_class(path) is AugmentedMemoizationPolicy
    assert ensemble_class("rasa_core.policies.ensemble.SimplePolicyEnsemble") is Ensemble


@pytest.mark.parametrize(
    "path",
    [
        "rasa_core.policies.scoring_policy.ScoringPolicy",
        "rasa_core.policies.memoization.Policy",
        "rasa_core_api.policies.mapping.MappingPolicy",
        "os.system",
        "mine.Mine",
        "KerasPolicy",
        "",
    ],
)
def test_unknown_classes(path: str) -> None:
    """Any other class is refused by name; nothing is imported for it."""
    before = set(sys.modules)
    with pytest.raises(UnsupportedModel) as caught:
        policy_class(path)
    assert repr(path) in str(caught.value)
    assert set(sys.modules) <= before
    with pytest.raises(UnsupportedModel):
        ensemble_class(path)


def test_trusted_module() -> None:
    """A class of a module that the operator trusts serves if it is a policy of ours."""
    assert policy_class("mine.Mine", trusting) is Mine
    assert ensemble_class("mine.MyEnsemble", trusting) is MyEnsemble
    for find in (policy_class, ensemble_class):
        with pytest.raises(UnsupportedModel, match=r"'mine.Other' cannot be served: it is not a subclass"):
            find("mine.Other", trusting)
        with pytest.raises(UnsupportedModel, match="not trusted"):
            find("theirs.Mine", trusting)


def test_light_policies_need_no_numpy() -> None:
    """Only policies that compute import numpy, and none the HDF5 library."""
    light = [name for name in MODULES if name not in ("KerasPolicy", "SklearnPolicy", "EmbeddingPolicy")]
    code = (
        "import sys\n"
        "from rasa_core_api.policies.registry import policy_class\n"
        "import rasa_core_api.models.loader\n"
        f"[policy_class('rasa_core.policies.x.' + name) for name in {light}]\n"
        "assert not {'numpy', 'h5py'} & set(sys.modules)\n"
        "policy_class('rasa_core.policies.x.KerasPolicy')\n"
        "assert 'numpy' in sys.modules and 'h5py' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=Path(__file__).parents[2])
