"""Small models, made here."""

from __future__ import annotations

import json
from pathlib import Path

from rasa_core_api.models.archives import pack_directory

DOMAIN = """
intents: [greet, bye]
actions: [utter_greet, utter_bye]
templates:
  utter_greet: [{text: "%s"}]
  utter_bye: [{text: bye}]
"""

#: Greeting is answered (by action 3), then the bot listens (action 0).
LOOKUP = {
    "[null, {}, {intent_greet: 1.0, prev_action_listen: 1.0}]": 3,
    "[{}, {intent_greet: 1.0, prev_action_listen: 1.0}, {intent_greet: 1.0, prev_utter_greet: 1.0}]": 0,
}


def write_model(directory: Path, greeting: str = "hello", lookup: dict[str, int] | None = None) -> Path:
    """A model of 0.11 with a memoization policy, which greets."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "domain.yml").write_text(DOMAIN % greeting)
    names = ["rasa_core.policies.memoization.MemoizationPolicy"]
    (directory / "policy_metadata.json").write_text(
        json.dumps(
            {
                "rasa_core": "0.11.12",
                "policy_names": names,
                "max_histories": [3],
                "ensemble_name": "rasa_core.policies.ensemble.SimplePolicyEnsemble",
            }
        )
    )
    memory = directory / "policy_0_MemoizationPolicy"
    memory.mkdir(exist_ok=True)
    (memory / "memorized_turns.json").write_text(
        json.dumps({"max_history": 3, "lookup": LOOKUP if lookup is None else lookup})
    )
    (memory / "featurizer.json").write_text(json.dumps({"max_history": 3}))
    return directory


def packed(directory: Path, greeting: str = "hello") -> bytes:
    """The model as a zip."""
    return pack_directory(write_model(directory, greeting))
