"""The settings that stand in the metadata of a model of rasa_nlu.

The original checked few of them. What only steered the training must not keep a trained model from being served; what
decides how a text is understood is taken as the original took it.
"""

from __future__ import annotations

from collections.abc import Mapping

from rasa_core_api.constants import JSON
from rasa_core_api.nlu.components import SETTINGS

#: Component -> settings that take part when a text is understood.
_UNDERSTANDING: Mapping[str, frozenset[str]] = {
    "intent_featurizer_count_vectors": frozenset(
        {"analyzer", "token_pattern", "strip_accents", "stop_words", "min_ngram", "max_ngram", "lowercase", "OOV_token"}
    ),
    "intent_classifier_tensorflow_embedding": frozenset({"similarity_type"}),
    "ner_crf": frozenset({"BILOU_flag", "features"}),
    "ner_duckling_http": frozenset({"dimensions", "url", "locale", "timezone"}),
}


def usable(name: str, item: Mapping[str, JSON]) -> dict[str, JSON]:
    """An entry of a model's pipeline (`name` as in 0.13) whose settings pass the checks of `config`, where possible.

    Settings for training with values that cannot be are left out, so that their defaults would count if the part had
    to be trained again.
    """
    known, needed = SETTINGS.get(name, {}), _UNDERSTANDING.get(name, frozenset())
    kept: dict[str, JSON] = {}
    for key, value in item.items():
        setting = known.get(key)
        if setting is None or setting.allows(value):
            kept[key] = value
        elif isinstance(setting.default, bool):
            kept[key] = bool(value)
        elif key in needed and (value or setting.default is not None):
            kept[key] = value  # to be refused by name
    for side in "ab":
        if not kept.get(f"hidden_layer_size_{side}", True):
            del kept[f"hidden_layer_size_{side}"]
            kept.pop(f"num_hidden_layers_{side}", None)
    return kept
