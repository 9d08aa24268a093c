"""Directories of rasa_nlu: what can be read is served as it was, what cannot is trained again or left out."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed

from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import UnsupportedModel
from rasa_core_api.nlu import training
from rasa_core_api.nlu.embedding import EmbeddingIntents
from rasa_core_api.nlu.legacy import load_legacy
from rasa_core_api.nlu.message import Message, NetworkComponent
from rasa_core_api.nlu.model import NluModel
from rasa_core_api.nlu.storage import load_model, save_model
from rasa_core_api.nlu.svc import SvcIntents
from tests.cpu import cpu_limit
from tests.nlu import legacy_models
from tests.nlu.servers import logged_lines


def parse(directory: Path, text: str) -> dict[str, JSON]:
    model, _ = load_legacy(directory)
    return model.parse(text)


def untrainable(directory: Path) -> Path:
    (directory / "training_data.json").unlink()
    return directory


def test_layout_of_0_13(tmp_path: Path) -> None:
    """Every part is read from its file and takes part in the result, under its old name."""
    legacy_models.write_0_13(tmp_path)
    with logged_lines() as lines:
        model, report = load_legacy(untrainable(tmp_path))
    assert report.exact == [
        "tokenizer_whitespace", "ner_crf", "ner_synonyms", "intent_featurizer_count_vectors",
        "intent_classifier_tensorflow_embedding",
    ]  # fmt: skip
    assert report.retrained == report.skipped == []
    assert len(lines) == 1
    assert "exact: tokenizer_whitespace, ner_crf" in lines[0] and "retrained: none; skipped: none" in lines[0]
    result = model.parse("Pizza to Rome, or ice cream!")
    assert [(entity["value"], entity["entity"]) for entity in result["entities"]] == [
        ("Roma", "city"), ("ice cream", "food"),
    ]  # fmt: skip
    assert result["entities"][0]["processors"] == ["ner_synonyms"]
    assert result["entities"][0]["extractor"] == "ner_crf"
    classifier = model.components[-1]
    assert isinstance(classifier, EmbeddingIntents)
    # pizza, rome, and four words that are unknown
    counts = {4: 1.0, 5: 1.0, 3: 4.0}
    assert result["intent"]["confidence"] == pytest.approx(classifier.similarities(counts).max(), abs=1e-6)
    assert [item["name"] for item in result["intent_ranking"]] == [
        legacy_models.INTENTS[number] for number in np.argsort(-classifier.similarities(counts))
    ]
    assert model.trained_at == "20180911-113546"


def test_analyzer_before_0_14(tmp_path: Path) -> None:
    """Releases that knew no `analyzer` counted words whatever their configuration said; the vectorizer tells."""
    metadata = legacy_models.write_0_13(tmp_path)
    metadata["pipeline"][3]["analyzer"] = "char_wb"
    legacy_models.write(tmp_path, metadata)
    (tmp_path / "intent_featurizer_count_vectors.pkl").write_bytes(legacy_models.vocabulary_pickle(analyzer="word"))
    model, _ = load_legacy(untrainable(tmp_path))
    assert counts_of(model, "hello rome") == {2: 1.0, 5: 1.0}


def counts_of(model: NluModel, text: str) -> dict[int, float]:
    """The features that the classifier, which is the last part, is given."""
    message = Message(text)
    for component in model.components[:-1]:
        assert not isinstance(component, NetworkComponent)
        component.process(message)
    return message.counts


def test_layout_of_0_15(tmp_path: Path) -> None:
    """Parts may occur twice, each with its own file and settings; results carry the new names."""
    legacy_models.write_0_15(tmp_path)
    model, report = load_legacy(untrainable(tmp_path))
    assert len(report.exact) == 7
    result = model.parse("hello rome 12345")
    assert result["entities"][0]["extractor"] == "CRFEntityExtractor"
    assert result["entities"][0]["processors"] == ["EntitySynonymMapper"]
    classifier = model.components[-1]
    assert isinstance(classifier, EmbeddingIntents)
    counts = {0: 1.0, 1 + 2: 1.0, 1 + 5: 1.0, 1 + 6 + 0: 1.0, 1 + 6 + 1: 1.0, 1 + 6 + 2: 1.0}
    assert result["intent"]["confidence"] == pytest.approx(classifier.similarities(counts).max(), abs=1e-6)


def test_sklearn_on_counts(tmp_path: Path) -> None:
    """A support vector classifier on word counts is read, not trained again."""
    legacy_models.write_0_13(tmp_path, "intent_classifier_sklearn")
    model, report = load_legacy(untrainable(tmp_path))
    assert report.exact[-1] == "intent_classifier_sklearn"
    classifier = model.components[-1]
    assert isinstance(classifier, SvcIntents)
    assert model.parse("hello")["intent"]["confidence"] == pytest.approx(classifier.probabilities({2: 1.0}).max())


def test_layout_of_0_11(tmp_path: Path) -> None:
    """The oldest layout lists class paths; settings and files stand beside the pipeline."""
    legacy_models.write_0_13(tmp_path)
    (tmp_path / "regex_featurizer.json").write_text("[]")
    metadata = {
        "language": "de",
        "pipeline": [
            "rasa_nlu.tokenizers.whitespace_tokenizer.WhitespaceTokenizer",
            "rasa_nlu.featurizers.regex_featurizer.RegexFeaturizer",
            "rasa_nlu.extractors.crf_entity_extractor.CRFEntityExtractor",
            "rasa_nlu.extractors.entity_synonyms.EntitySynonymMapper",
        ],
        "entity_extractor_crf": {
            "model_file": "crf_model.pkl", "crf_features": legacy_models.CRF_FEATURES, "BILOU_flag": True, "version": 1,
        },
        "entity_synonyms": "entity_synonyms.json",
        "regex_featurizer": "regex_featurizer.json",
        "training_data": "training_data.json",
    }  # fmt: skip
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    model, report = load_legacy(untrainable(tmp_path))
    assert len(report.exact) == 4
    assert model.language == "de"
    (entity,) = model.parse("to rome")["entities"]
    assert (entity["value"], entity["processors"]) == ("Roma", ["ner_synonyms"])


@pytest.mark.parametrize(("version", "lowered"), [("0.12.0", False), ("0.12.2", False), ("0.12.3", True)])
def test_counts_and_ranking_of_0_12(tmp_path: Path, version: str, lowered: bool) -> None:
    """0.12 counted numbers under another name, dropped other features, and ranked whatever it was asked."""
    metadata = legacy_models.write_0_13(tmp_path / "old")
    metadata["rasa_nlu_version"] = version
    regexes = {"name": "intent_entity_featurizer_regex", "regex_file": "regex_featurizer.json"}
    (tmp_path / "old" / "regex_featurizer.json").write_text('[{"name": "any", "pattern": "."}]')
    metadata["pipeline"].insert(1, regexes)
    words = ["NUMBER", "__NUMBER__", "bye", "hello", "oov", "rome"]
    (tmp_path / "old" / "intent_featurizer_count_vectors.pkl").write_bytes(legacy_models.vocabulary_pickle(words))
    legacy_models.write(tmp_path / "old", metadata)
    model, report = load_legacy(untrainable(tmp_path / "old"))
    assert len(report.exact) == 6
    save_model(model, tmp_path / "new")
    for loaded in (model, load_model(tmp_path / "new")):
        classifier = loaded.components[-1]
        assert isinstance(classifier, EmbeddingIntents)
        for text, counts in (
            ("hello 10.5 xyz", {0: 2.0, 3: 1.0}),
            ("HELLO oov", {3: 1.0, 4: 1.0} if lowered else {4: 1.0}),
            ("!!!", {}),
        ):
            ranking = loaded.parse(text)["intent_ranking"]
            expected = sorted(classifier.similarities(counts).tolist(), reverse=True)
            assert [item["confidence"] for item in ranking] == pytest.approx(expected, abs=1e-6)
            assert ranking[-1]["confidence"] < 0
        assert loaded.parse("") == {"intent": {"name": "", "confidence": 0.0}, "entities": [], "text": ""}


def test_matches_that_count(tmp_path: Path) -> None:
    """0.15 marks the words of every match of a regular expression, the releases before those of the first."""
    for write, every in ((legacy_models.write_0_13, False), (legacy_models.write_0_15, True)):
        metadata = write(tmp_path / write.__name__)
        if not every:
            metadata["pipeline"].insert(1, {"name": "intent_entity_featurizer_regex", "regex_file": "r.json"})
            (tmp_path / write.__name__ / "r.json").write_text('[{"name": "zip", "pattern": "[0-9]{5}"}]')
            legacy_models.write(tmp_path / write.__name__, metadata)
        model, _ = load_legacy(tmp_path / write.__name__)
        message = Message("12345 or 54321")
        for part in model.components[:2]:
            part.process(message)  # type: ignore[union-attr]
        assert [flags["zip"] for flags in message.pattern_flags] == [True, False, every]


def spacy_model(directory: Path) -> None:
    legacy_models.write_0_13(directory, "intent_classifier_sklearn")
    legacy_models.write(
        directory,
        {
            "language": "en",
            "pipeline": [
                {"name": "nlp_spacy", "model": "en", "case_sensitive": False},
                {"name": "tokenizer_spacy"},
                {"name": "intent_featurizer_spacy"},
                {"name": "intent_entity_featurizer_regex", "regex_file": None},
                {"name": "ner_crf", "features": [["low", "pos"]], "classifier_file": "crf_model.pkl"},
                {"name": "ner_synonyms", "synonyms_file": "entity_synonyms.json"},
                {"name": "company.sentiment.Sentiment"},
                {"name": "intent_classifier_sklearn", "classifier_file": "intent_classifier_sklearn.pkl"},
            ],
            "training_data": "training_data.json",
        },
    )


def test_models_on_spacy(tmp_path: Path) -> None:
    """What spaCy's words and vectors went into is trained again, what has no counterpart is left out."""
    spacy_model(tmp_path)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in tmp_path.iterdir())
    with logged_lines() as lines:
        model, report = load_legacy(tmp_path)
    assert report.exact == ["intent_entity_featurizer_regex", "ner_synonyms"]
    assert [name.partition(" ")[0] for name in report.retrained] == [
        "tokenizer_spacy", "ner_crf", "intent_classifier_sklearn",
    ]  # fmt: skip
    assert report.skipped == [
        "nlp_spacy",
        "intent_featurizer_spacy",
        "company.sentiment.Sentiment (not a part of rasa_nlu)",
    ]
    assert len([line for line in lines if "exact:" in line]) == 1
    result = model.parse("pizza to rome")
    assert result["intent"]["name"] == "order"
    assert [entity["value"] for entity in result["entities"]] == ["Roma"]
    assert sorted((path.name, path.stat().st_mtime_ns) for path in tmp_path.iterdir()) == before


def test_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was trained again is kept by content: a second load trains nothing, a changed model does."""
    source, cache = tmp_path / "model", tmp_path / "cache"
    spacy_model(source)
    first = load_legacy(source, cache=cache)[0].parse("pizza to rome")
    trained: list[Any] = []
    original = training.train_components

    def counting(*args: Any, **keys: Any) -> Any:
        trained.append(1)
        return original(*args, **keys)

    monkeypatch.setattr(training, "train_components", counting)
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    assert load_legacy(copy, cache=cache)[0].parse("pizza to rome") == first
    assert not trained
    (kept,) = cache.iterdir()
    (kept / "metadata.json").write_text("{")
    assert load_legacy(copy, cache=cache)[0].parse("pizza to rome") == first
    assert len(trained) == 1
    data = json.loads((copy / "training_data.json").read_text())
    data["rasa_nlu_data"]["common_examples"].append({"text": "hi", "intent": "greet"})
    (copy / "training_data.json").write_text(json.dumps(data))
    load_legacy(copy, cache=cache)
    assert len(trained) == 2
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("crf_model.pkl", "ner_crf"),
        ("intent_featurizer_count_vectors.pkl", "intent_featurizer_count_vectors"),
        ("intent_classifier_tensorflow_embedding.ckpt.index", "intent_classifier_tensorflow_embedding"),
        ("intent_classifier_tensorflow_embedding.ckpt.data-00000-of-00001", "intent_classifier_tensorflow_embedding"),
        ("intent_classifier_tensorflow_embedding_inv_intent_dict.pkl", "intent_classifier_tensorflow_embedding"),
        ("intent_classifier_tensorflow_embedding_encoded_all_intents.pkl", "intent_classifier_tensorflow_embedding"),
    ],
)
def test_missing_files(tmp_path: Path, file: str, part: str) -> None:
    """A missing file is named; its part is trained again, or the model refused where that is not possible."""
    legacy_models.write_0_13(tmp_path)
    (tmp_path / file).unlink()
    _, report = load_legacy(tmp_path)
    assert report.retrained[0].startswith(f"{part} (")
    assert file in report.retrained[0]
    with pytest.raises(UnsupportedModel) as caught:
        load_legacy(untrainable(tmp_path))
    assert file in str(caught.value) and part in str(caught.value) and "training_data.json" in str(caught.value)


def test_other_directories(tmp_path: Path) -> None:
    """A directory without metadata, or with metadata of something else, is refused with a reason."""
    with pytest.raises(UnsupportedModel, match=r"it has no metadata\.json"):
        load_legacy(tmp_path)
    for content, reason in (
        ("{", "not JSON"),
        ("[]", "pipeline"),
        ('{"pipeline": {}}', "pipeline"),
        ('{"pipeline": [5]}', "neither a name nor a mapping"),
        ('{"pipeline": []}', "no part"),
        ('{"pipeline": [{"name": "nlp_spacy"}]}', "no part"),
        ('{"pipeline": [{"name": "ner_crf", "features": 5}]}', "features"),
    ):
        (tmp_path / "metadata.json").write_text(content)
        with pytest.raises(UnsupportedModel, match=reason):
            load_legacy(tmp_path)


@pytest.mark.parametrize("name", ["../crf_model.pkl", "/etc/passwd", "..", "", "a\0b", 5])
def test_odd_file_names(tmp_path: Path, name: Any) -> None:
    """Files are looked for in the model's own directory only."""
    metadata = legacy_models.write_0_13(tmp_path / "model")
    shutil.copy(tmp_path / "model" / "crf_model.pkl", tmp_path)
    metadata["pipeline"][1]["classifier_file"] = name
    metadata["training_data"] = None
    legacy_models.write(tmp_path / "model", metadata)
    with pytest.raises(UnsupportedModel, match="odd name"):
        load_legacy(untrainable(tmp_path / "model"))


def test_parts_that_were_never_trained(tmp_path: Path) -> None:
    """Parts without a file had nothing to learn: they find nothing, and say so as the original did."""
    metadata = legacy_models.write_0_13(tmp_path)
    for item in metadata["pipeline"]:
        item.update({key: None for key in item if key.endswith("_file")})
    legacy_models.write(tmp_path, metadata)
    assert parse(untrainable(tmp_path), "rome") == {
        "intent": {"name": None, "confidence": 0.0}, "entities": [], "intent_ranking": [], "text": "rome",
    }  # fmt: skip
    metadata["pipeline"][-1]["name"] = "intent_classifier_sklearn"
    legacy_models.write(tmp_path, metadata)
    assert parse(tmp_path, "rome")["intent"] is None


@pytest.mark.parametrize("settings", [
    {"epochs": 0}, {"batch_size": "many"}, {"mu_pos": 3}, {"mu_neg": "low"}, {"hidden_layer_size_a": []},
    {"intent_tokenization_flag": "yes"}, {"use_max_sim_neg": None}, {"random_seed": -1},
])  # fmt: skip
def test_settings_of_training(tmp_path: Path, settings: dict[str, Any]) -> None:
    """What only steered the training keeps no model from being served, whatever stands there."""
    metadata = legacy_models.write_0_13(tmp_path)
    answer = parse(tmp_path, "hello")
    metadata["pipeline"][-1].update(settings)
    legacy_models.write(tmp_path, metadata)
    assert parse(untrainable(tmp_path), "hello") == answer


def test_settings_of_understanding(tmp_path: Path) -> None:
    """Flags hold as they did in the original, by truth; what cannot be meant is refused by its key."""
    metadata = legacy_models.write_0_13(tmp_path)
    counts = metadata["pipeline"][3]
    for value, found in ((1, True), ("no", True), (0, False), (None, False)):
        counts["lowercase"] = value
        legacy_models.write(tmp_path, metadata)
        assert (parse(tmp_path, "HELLO") == {**parse(tmp_path, "hello"), "text": "HELLO"}) is found
    counts["min_ngram"] = "one"
    legacy_models.write(tmp_path, metadata)
    with pytest.raises(UnsupportedModel, match=r"pipeline\[3\].min_ngram: a whole number"):
        load_legacy(tmp_path)


def test_no_entity_was_learned(tmp_path: Path) -> None:
    """The original names a file for entities that it did not write where no example had one: nothing is amiss then."""
    metadata = legacy_models.write_0_13(tmp_path)
    data = {"rasa_nlu_data": {"common_examples": [{"text": "rome", "intent": "greet"}]}}
    (tmp_path / "training_data.json").write_text(json.dumps(data))
    (tmp_path / "crf_model.pkl").unlink()
    model, report = load_legacy(tmp_path)
    assert len(report.exact) == len(metadata["pipeline"]) and not report.retrained
    assert model.parse("rome")["entities"] == []


def test_misfits(tmp_path: Path) -> None:
    """A classifier that wants other features than there are is not served as it is."""
    legacy_models.write_0_13(tmp_path)
    (tmp_path / "intent_featurizer_count_vectors.pkl").write_bytes(legacy_models.vocabulary_pickle(["a", "b"]))
    with pytest.raises(UnsupportedModel, match="6 features where there are 2"):
        load_legacy(untrainable(tmp_path))


class Trap:
    """Leaves a trace when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("protocol", range(6))
def test_hostile_pickles(tmp_path: Path, protocol: int) -> None:
    """Pickles that would run something leave no trace, wherever they lie."""
    legacy_models.write_0_13(model := tmp_path / "model")
    trace = tmp_path / "trace"
    for path in sorted(model.glob("*.pkl")):
        good = path.read_bytes()
        path.write_bytes(pickle.dumps(Trap(trace), protocol))
        with pytest.raises(UnsupportedModel, match=path.name):
            load_legacy(untrainable(shutil.copytree(model, tmp_path / f"{path.name}.d")))
        path.write_bytes(good)
    assert not trace.exists()


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage(tmp_path: Path, data: st.DataObject) -> None:
    """A directory with a damaged file gives a model that can parse, or UnsupportedModel."""
    directory = tmp_path / "model"
    if not directory.exists():
        legacy_models.write_0_15(directory)
        untrainable(directory)
    path = data.draw(st.sampled_from(sorted(directory.iterdir())))
    good = path.read_bytes()
    place = data.draw(st.integers(0, len(good) - 1))
    noise = data.draw(st.binary(max_size=3))
    path.write_bytes(good[:place] + noise + good[place + len(noise) :] if noise else good[:place])
    try:
        model, _ = load_legacy(directory)
        assert model.parse("hello rome")["text"] == "hello rome"
    except UnsupportedModel as error:
        assert str(error)
    finally:
        path.write_bytes(good)


class Echo:
    """A network part that finds the whole text."""

    name = "ner_duckling_http"

    def __init__(self, settings: Any, extractor: str, language: str) -> None:
        self.settings, self.extractor, self.language = settings, extractor, language

    def start(self, message: Message) -> Deferred[list[dict[str, JSON]]]:
        return succeed([{"value": message.text, "entity": self.settings["dimensions"][0], "extractor": self.extractor}])


def test_network_parts(tmp_path: Path) -> None:
    """Network parts are made by the caller, at their place; without one they find nothing."""
    metadata = legacy_models.write_0_13(tmp_path)
    metadata["pipeline"].insert(2, {"name": "ner_duckling_http", "dimensions": ["x"], "url": "http://duckling:8000"})
    legacy_models.write(tmp_path, metadata)
    model, report = load_legacy(untrainable(tmp_path), connect=Echo)
    assert report.exact[2] == "ner_duckling_http"
    results: list[Any] = []
    Deferred.fromCoroutine(model.parse_message("rome")).addBoth(results.append)
    # behind the CRF and before the synonyms
    assert [(entity["value"], entity["extractor"]) for entity in results[0]["entities"]] == [
        ("Roma", "ner_crf"), ("Roma", "ner_duckling_http"),
    ]  # fmt: skip
    assert model.components[2].language == "en"  # type: ignore[union-attr]
    silent, _ = load_legacy(tmp_path)
    assert [entity["extractor"] for entity in silent.parse("rome")["entities"]] == ["ner_crf"]


def close(found: Any, expected: Any) -> bool:
    """Equal, but for numbers within 1e-5."""
    if isinstance(expected, float):
        return bool(abs(found - expected) < 1e-5)
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(close(found[key], item) for key, item in expected.items())
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(close, found, expected))
    return bool(found == expected)


@pytest.mark.conformance
def test_recordings(conformance: Path) -> None:
    """All recorded parses of a production bot's model: intents, ranking, entities and confidences agree."""
    lines = (conformance / "nlu" / "rasa-demo-2018.jsonl").read_text().splitlines()
    model, report = load_legacy(conformance / "realbots" / "rasa-demo-2018" / "models" / "nlu" / "current")
    assert len(report.exact) == 5 and not report.retrained and not report.skipped
    assert len(lines) >= 210
    for line in map(json.loads, lines):
        expected = line["parse"]
        expected["entities"] = [entity for entity in expected["entities"] if "duckling" not in entity["extractor"]]
        assert close(model.parse(line["text"]), expected), line["text"]


@pytest.mark.parametrize(
    "text",
    ["a" * 1_000_000, "hello " * 170_000, "!" * 1_000_000, "1" * 1_000_000, "ab. " * 250_000, "\0\x1b\r\n\u2028" * 9,
     "\ud800 rome \udc80", "İ" * 300_000, " " * 1_000_000],
    ids=lambda text: repr(text[:4]),
)  # fmt: skip
def test_hard_texts(tmp_path: Path, text: str) -> None:
    """A text of a megabyte, control characters and half characters are parsed, and quickly."""
    legacy_models.write_0_15(tmp_path)
    model, _ = load_legacy(tmp_path)
    with cpu_limit():
        assert model.parse(text)["text"] == text
