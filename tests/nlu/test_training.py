from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rasa_core_api.exceptions import InvalidConfiguration, InvalidTrainingData
from rasa_core_api.nlu.components import TEMPLATES
from rasa_core_api.nlu.config import config_from_json
from rasa_core_api.nlu.data import Example, Lookup, TrainingData
from rasa_core_api.nlu.data_loading import load_data
from rasa_core_api.nlu.data_markdown import read_markdown
from rasa_core_api.nlu.message import Message
from rasa_core_api.nlu.model import NluModel
from rasa_core_api.nlu.tokenizers import WhitespaceTokenizer
from rasa_core_api.nlu.training import train_components, train_model

DATA = read_markdown(
    """
## intent:greet
- hello
- hi there
- good morning
- hello good friend

## intent:go
- i go to [Rome](city)
- we travel to [New York](city)
- take me to [rome](city:Rome) please
- travel to [Oslo](city)

## intent:bye
- bye
- see you later
- good night

## synonym:New York
- NYC
- new york

## regex:zip
- [0-9]{5}

## lookup:towns
- Rome
- NYC
""",
    "nlu.md",
)
QUICK = {"name": "intent_classifier_tensorflow_embedding", "epochs": 30, "hidden_layers_sizes_a": [32]}


def train(pipeline: Any, data: TrainingData = DATA, **more: Any) -> tuple[NluModel, list[str]]:
    return train_model(config_from_json({"pipeline": pipeline}, "c.yml"), data, **more)


def names(model: NluModel) -> list[str]:
    return [component.name for component in model.components]


@pytest.mark.parametrize("pipeline", [*TEMPLATES, "default"])
def test_templates(pipeline: str) -> None:
    """Every template trains, and knows what it was taught."""
    parts: Any = pipeline
    if "embedding" in pipeline and "pretrained" not in pipeline:  # the same, in less time
        parts = [*TEMPLATES[pipeline][:-1], QUICK]
    config = config_from_json({} if pipeline == "default" else {"pipeline": parts}, "c.yml")
    model, _ = train_model(config, DATA)
    result = model.parse("we travel to New York")
    assert result["text"] == "we travel to New York"
    if pipeline != "keyword":
        assert result["intent"]["name"] == "go"
        assert [entity["value"] for entity in result["entities"]] == ["New York"]
        modern = pipeline in ("supervised_embeddings", "pretrained_embeddings_spacy")
        assert result["entities"][0]["extractor"] == ("CRFEntityExtractor" if modern else "ner_crf")
        assert result["entities"][0]["processors"] == ["EntitySynonymMapper" if modern else "ner_synonyms"]


def test_what_needs_spacy() -> None:
    """Parts that need spaCy are replaced or not needed, and the operator is told of each."""
    model, remarks = train([*TEMPLATES["spacy_sklearn"], "ner_spacy"])
    assert names(model) == [
        "tokenizer_whitespace",
        "intent_entity_featurizer_regex",
        "ner_crf",
        "ner_synonyms",
        "intent_classifier_linear",
    ]
    assert "nlp_spacy is not needed" in remarks
    assert "intent_classifier_linear stands for intent_classifier_sklearn" in remarks
    assert any(remark.startswith("ner_spacy is left out") for remark in remarks)


def test_chinese() -> None:
    """The Chinese tokenizer cannot be replaced: the pipeline is refused with advice."""
    with pytest.raises(InvalidConfiguration, match="analyzer: char"):
        train(["tokenizer_jieba"])


def test_patterns_reach_the_classifier() -> None:
    """Regexes and lookup tables, in their order, are feature columns before the word counts."""
    model, _ = train(["WhitespaceTokenizer", "RegexFeaturizer", "CountVectorsFeaturizer", QUICK])
    message = Message("12345 nyc")
    for component in model.components[:3]:
        component.process(message)  # type: ignore[union-attr]
    assert message.counts[0] == 1.0 and message.counts[1] == 1.0
    assert message.pattern_flags == [{"zip": True, "towns": False}, {"zip": False, "towns": True}]


def test_one_intent() -> None:
    """A single intent is always the answer of our classifier; where the original's is named, it answers as that did."""
    data = TrainingData([Example("hello", "greet"), Example("hi", "greet")])
    assert train(["intent_classifier_linear"], data)[0].parse("x hi")["intent"] == {"name": "greet", "confidence": 1.0}
    model, remarks = train(["intent_classifier_sklearn"], data)
    assert model.parse("hi") == {"intent": None, "entities": [], "intent_ranking": [], "text": "hi"}
    assert any("fewer than two intents" in remark for remark in remarks)
    model, _ = train(["intent_featurizer_count_vectors", QUICK], data)
    assert model.parse("hi")["intent"] == {"name": None, "confidence": 0.0}


def test_no_entities_or_intents() -> None:
    """Data without entities, or without intents, trains what it can."""
    model, remarks = train(["tokenizer_whitespace", "ner_crf"], TrainingData([Example("hello", "greet")]))
    assert model.parse("hello")["entities"] == [] and any("finds nothing" in remark for remark in remarks)
    model, _ = train(["intent_classifier_linear"], TrainingData([Example("hello")]))
    assert model.parse("hello")["intent"] == {"name": None, "confidence": 0.0}


def test_given_parts() -> None:
    """Parts that are there already are kept and prepare the examples; the others are trained."""
    given = WhitespaceTokenizer()
    config = config_from_json({"pipeline": ["tokenizer_spacy", "ner_crf", "intent_classifier_keyword"]}, "c.yml")
    trained = train_components(config, DATA, given={0: given})
    assert trained.components[0] is given
    result = NluModel("en", trained.components).parse("travel to Oslo")
    assert [entity["value"] for entity in result["entities"]] == ["Oslo"]


def test_network_part() -> None:
    """A network part is made by the caller's factory, or keeps its place and settings."""
    pipeline = [{"name": "ner_duckling_http", "url": "http://d:8000"}]
    model, _ = train(pipeline)
    assert model.components[0].settings["url"] == "http://d:8000"  # type: ignore[union-attr]
    seen: list[Any] = []

    def connect(*asked: Any) -> Any:
        seen.append(asked)
        return WhitespaceTokenizer()

    train(pipeline, connect=connect)
    assert seen[0][0]["url"] == "http://d:8000" and seen[0][1:] == ("ner_duckling_http", "en")


def test_bad_patterns() -> None:
    """A pattern that cannot be used is named, and nothing is trained."""
    data = TrainingData(DATA.examples, [{"name": "bad", "pattern": "[0-"}])
    with pytest.raises(InvalidTrainingData, match="'bad'"):
        train(["intent_entity_featurizer_regex"], data)


def test_place_of_a_bad_pattern(tmp_path: Path) -> None:
    """A pattern that cannot be used is told with file and line, whatever the format; other pipelines do not mind it."""
    texts = "## intent:a\n- one\n## intent:b\n- two\n"
    (tmp_path / "nlu.md").write_text(f"{texts}## regex:zip\n- [0-9]+\n- [0-\n")
    content = {"regex_features": [{"name": "zip", "pattern": "(a*)*\\1"}], "common_examples": [{"text": "x"}]}
    (tmp_path / "nlu.json").write_text(json.dumps({"rasa_nlu_data": content}, indent=1))
    for name, line in (("nlu.md", 7), ("nlu.json", 4)):
        data = load_data(tmp_path / name)
        with pytest.raises(InvalidTrainingData, match=f"{name}, line {line}: the regular expression 'zip'") as caught:
            train(["intent_entity_featurizer_regex"], data)
        assert caught.value.details["line"] == line
        train(["intent_classifier_keyword"], data)


def test_lookup_files(tmp_path: Path) -> None:
    """Tables in files are read from where the operator allows, and the model's data holds their elements."""
    (tmp_path / "towns.txt").write_text("Rome\nOslo\n")
    data = TrainingData(DATA.examples, lookups=[Lookup("towns", "towns.txt")])
    model, _ = train(["intent_entity_featurizer_regex"], data, roots=[tmp_path])
    assert model.data is not None and model.data.lookups == [Lookup("towns", ("Rome", "Oslo"))]
    model, remarks = train(["intent_entity_featurizer_regex"], data)
    assert model.data is not None and model.data.lookups == [] and any("left out" in remark for remark in remarks)


def test_progress() -> None:
    """The caller is told which part is trained and how far it is."""
    seen: list[tuple[str, int, int, str]] = []
    train(["WhitespaceTokenizer", "CountVectorsFeaturizer", QUICK], progress=lambda *told: seen.append(told))
    assert seen[0] == ("WhitespaceTokenizer", 0, 1, "")
    assert seen[-1][:3] == ("intent_classifier_tensorflow_embedding", 30, 30) and "right" in seen[-1][3]
