from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.nlu.components import CLASS_NAMES, DEFAULT_PIPELINE, TEMPLATES, canonical_name
from rasa_core_api.nlu.config import config_from_json, default_config, read_config

YAML = r"""
language: de
pipeline:
- name: tokenizer_whitespace
- name: ner_crf
  features: [[low, title], [bias, low, suffix3], [low, title]]
- name: intent_featurizer_count_vectors
  OOV_token: oov
  token_pattern: (?u)\b\w+\b
- name: intent_classifier_tensorflow_embedding
  epochs: 100
"""


def components(*items: Any) -> Any:
    return config_from_json({"pipeline": list(items)}, "c.yml").components


def test_file(tmp_path: Path) -> None:
    """A file gives its language, and components with every setting."""
    (tmp_path / "c.yml").write_text(YAML)
    config = read_config(tmp_path / "c.yml")
    assert config.language == "de" and config.remarks == ()
    assert [component.name for component in config.components] == [
        "tokenizer_whitespace",
        "ner_crf",
        "intent_featurizer_count_vectors",
        "intent_classifier_tensorflow_embedding",
    ]
    assert config.components[1].settings["features"][1] == ["bias", "low", "suffix3"]
    assert config.components[1].settings["L1_c"] == 0.1
    assert config.components[2].settings["token_pattern"] == r"(?u)\b\w+\b"
    assert config.components[3].settings["epochs"] == 100 and config.components[3].settings["num_neg"] == 20


@pytest.mark.parametrize("template", list(TEMPLATES))
def test_templates(template: str) -> None:
    """A template's name stands for its components."""
    config = config_from_json({"pipeline": template}, "c.yml")
    assert tuple(component.written for component in config.components) == TEMPLATES[template]


def test_nothing_asked_for(tmp_path: Path) -> None:
    """Without a pipeline the default one is trained."""
    (tmp_path / "c.yml").write_text("")
    assert read_config(tmp_path / "c.yml") == default_config()
    assert tuple(component.name for component in default_config().components) == DEFAULT_PIPELINE


def test_both_families_of_names() -> None:
    """A component can be named as in 0.13, as in 0.15, or by its class path; results carry the family's name."""
    for name, class_name in CLASS_NAMES.items():
        assert canonical_name(name) == canonical_name(class_name) == canonical_name(f"rasa_nlu.x.{class_name}") == name
    old, new = components("tokenizer_whitespace", "ner_crf"), components("WhitespaceTokenizer", "CRFEntityExtractor")
    assert [old[1].shown, new[1].shown] == ["ner_crf", "CRFEntityExtractor"]
    assert canonical_name("bot.Sentiment") is None


def test_mixed_names() -> None:
    """One name of 0.15 makes a pipeline of 0.15, which knew both; our own component belongs to neither."""
    mixed = components("tokenizer_whitespace", "ner_crf", "EntitySynonymMapper", "intent_classifier_linear")
    assert [part.shown for part in mixed[1:3]] == ["CRFEntityExtractor", "EntitySynonymMapper"]
    assert components("tokenizer_whitespace", "ner_crf", "LinearIntentClassifier")[1].shown == "ner_crf"


def test_confidence_scale() -> None:
    """The scale at the top holds for the classifiers that have one, unless they say otherwise."""
    value = {"confidence_scale": "calibrated", "pipeline": "spacy_sklearn"}
    assert config_from_json(value, "c.yml").components[-1].settings["confidence_scale"] == "calibrated"
    linear = {"name": "intent_classifier_linear", "confidence_scale": "legacy"}
    assert (
        config_from_json({**value, "pipeline": [linear]}, "c.yml").components[-1].settings["confidence_scale"]
        == "legacy"
    )


@pytest.mark.parametrize(
    ("settings", "layers"),
    [
        ({}, [256, 128]),
        ({"hidden_layers_sizes_a": [32]}, [32]),
        ({"hidden_layer_size_a": [32]}, [32, 32]),
        ({"hidden_layer_size_a": 32}, [32, 32]),
        ({"num_hidden_layers_a": 1}, [256]),
        ({"num_hidden_layers_a": 0}, []),
        ({"hidden_layer_size_a": [9, 8, 7], "num_hidden_layers_a": 3}, [9, 8, 7]),
    ],
)
def test_layers(settings: dict[str, Any], layers: list[int]) -> None:
    """0.13 gives the number of layers beside their sizes, 0.15 only the sizes."""
    name = "intent_classifier_tensorflow_embedding"
    found = components("intent_featurizer_count_vectors", {"name": name, **settings})[1].settings
    assert found["hidden_layers_sizes_a"] == layers == found["hidden_layer_size_a"]
    assert found["num_hidden_layers_a"] == len(layers)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "c.yml: a mapping with 'language'"),
        ({"language": 3}, "c.yml: language: the code of a language"),
        ({"pipeline": []}, "c.yml: pipeline: an empty pipeline"),
        ({"pipeline": 3}, "c.yml: pipeline: a list"),
        ({"pipeline": "tensorflow_embeding"}, "no template 'tensorflow_embeding' (is 'tensorflow_embedding' meant?)"),
        ({"pipeline": [{}]}, "c.yml: pipeline[0]: a mapping"),
        ({"pipeline": ["ner_crff"]}, "pipeline[0].name: there is no component 'ner_crff' (is 'ner_crf' meant?)"),
        ({"pipeline": ["bot.sentiment.Analyzer"]}, "there is no component 'bot.sentiment.Analyzer'"),
        ({"pipeline": ["ner_crf"]}, "ner_crf needs a tokenizer before it"),
        ({"pipeline": ["EmbeddingIntentClassifier"]}, "needs a featurizer before it"),
        ({"pipeline": ["tokenizer_whitespace", {"name": "ner_crf", "L1_c": "x"}]}, "pipeline[1].L1_c: a number from"),
        ({"pipeline": ["tokenizer_whitespace", {"name": "ner_crf", "features": [["low"], []]}]}, "an odd number"),
        ({"pipeline": [{"name": "CountVectorsFeaturizer", "max_ngram": True}]}, "max_ngram: a whole number"),
        ({"pipeline": [{"name": "CountVectorsFeaturizer", "min_ngram": 3}]}, "max_ngram: it has to be min_ngram"),
        ({"pipeline": [{"name": "CountVectorsFeaturizer", "analyzer": "words"}]}, "one of 'word', 'char', 'char_wb'"),
        ({"confidence_scale": "high"}, "confidence_scale: one of"),
    ],
)  # fmt: skip
def test_errors_name_their_place(value: Any, message: str) -> None:
    """What is wrong is named by file, key path and reason, with the nearest name that exists."""
    with pytest.raises(InvalidConfiguration) as caught:
        config_from_json(value, "c.yml")
    assert message in str(caught.value) and caught.value.details["file"] == "c.yml"


def test_unknown_settings_are_told() -> None:
    """Settings nobody knows are kept out of the model, and the operator learns of them."""
    config = config_from_json(
        {"pipline": "x", "pipeline": [{"name": "CountVectorsFeaturizer", "max_ngrams": 2}]}, "c.yml"
    )
    assert len(config.remarks) == 2
    assert "'pipline'" in config.remarks[0] and "(is 'max_ngram' meant?)" in config.remarks[1]
