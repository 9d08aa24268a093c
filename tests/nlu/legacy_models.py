"""Model directories as rasa_nlu wrote them, made here from random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.legacy import writers
from tests.legacy.writers import Made

INTENTS = ["bye", "greet", "order"]
WORDS = ["bye", "coffee", "hello", "oov", "pizza", "rome"]
LABELS = ["O", "U-city", "B-food", "L-food"]
CRF_FEATURES = [["low"], ["bias", "low", "upper"], ["low"]]
DATA = {
    "rasa_nlu_data": {
        "common_examples": [
            {"text": "hello", "intent": "greet"},
            {"text": "hello hello", "intent": "greet"},
            {"text": "bye", "intent": "bye"},
            {"text": "bye now", "intent": "bye"},
            {
                "text": "pizza to rome",
                "intent": "order",
                "entities": [{"start": 9, "end": 13, "value": "rome", "entity": "city"}],
            },
            {
                "text": "coffee to oslo",
                "intent": "order",
                "entities": [{"start": 10, "end": 14, "value": "oslo", "entity": "city"}],
            },
        ],
        "regex_features": [{"name": "zip", "pattern": "[0-9]{5}"}],
        "entity_synonyms": [],
    }
}


def crf_pickle() -> bytes:
    """Tags `rome` as a city and `ice cream` as food."""
    state = {
        ("0:low:rome", "U-city"): 5.0, ("0:low:ice", "B-food"): 5.0, ("0:low:cream", "L-food"): 4.0,
        ("0:bias:bias", "O"): 3.0,
    }  # fmt: skip
    content = writers.crfsuite(LABELS, state, {("B-food", "L-food"): 2.0})
    resource = Made("sklearn_crfsuite._fileresource.FileResource", {"__FILE_RESOURCE_DATA__": content})
    return writers.pickled(Made("sklearn_crfsuite.estimator.CRF", {"c1": 0.1, "modelfile": resource}))


def vocabulary_pickle(words: list[str] = WORDS, **settings: object) -> bytes:
    vocabulary = {word: np.int64(column) for column, word in enumerate(words)}
    vectorizer = Made("sklearn.feature_extraction.text.CountVectorizer", {**settings, "vocabulary_": vocabulary})
    return writers.pickled(
        Made("rasa_nlu.featurizers.count_vectors_featurizer.CountVectorsFeaturizer", {"vect": vectorizer})
    )


def svc_pickle(features: int = len(WORDS)) -> bytes:
    random = np.random.default_rng(8)
    machine = {
        "kernel": "linear", "_gamma": 0.1, "coef0": 0.0, "degree": 3,
        "support_vectors_": random.integers(0, 2, (6, features)).astype(float),
        "_dual_coef_": random.normal(size=(2, 6)),
        "n_support_": np.array([2, 2, 2], dtype=np.int32), "_intercept_": random.normal(size=3),
        "probA_": -np.ones(3), "probB_": np.zeros(3),
    }  # fmt: skip
    search = Made(
        "sklearn.model_selection._search.GridSearchCV", {"best_estimator_": Made("sklearn.svm.classes.SVC", machine)}
    )
    encoder = Made("sklearn.preprocessing.label.LabelEncoder", {"classes_": np.array(INTENTS)})
    return writers.pickled(
        Made("rasa_nlu.classifiers.sklearn_intent_classifier.SklearnIntentClassifier", {"clf": search, "le": encoder})
    )


def write_embedding(directory: Path, stem: str, features: int = len(WORDS)) -> None:
    random = np.random.default_rng(7)

    def weights(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    tensors = {
        "hidden_layer_a_0/kernel": weights(features, 9), "hidden_layer_a_0/bias": weights(9),
        "hidden_layer_a_1/kernel": weights(9, 5), "hidden_layer_a_1/bias": weights(5),
        "embed_layer_a/kernel": weights(5, 4), "embed_layer_a/bias": weights(4),
        "embed_layer_b/kernel": weights(3, 4), "embed_layer_b/bias": weights(4),
        "embed_layer_b/kernel/Adam": weights(3, 4), "beta1_power": weights(),
    }  # fmt: skip
    writers.tensor_bundle(directory / f"{stem}.ckpt", tensors)
    (directory / f"{stem}_inv_intent_dict.pkl").write_bytes(writers.pickled(dict(enumerate(INTENTS))))
    (directory / f"{stem}_encoded_all_intents.pkl").write_bytes(writers.pickled(np.eye(3)))
    (directory / "checkpoint").write_text('model_checkpoint_path: "/somewhere/else.ckpt"\n')


def write_0_13(directory: Path, classifier: str = "intent_classifier_tensorflow_embedding") -> dict[str, Any]:
    """A complete directory in the layout of 0.12-0.14; returns the metadata."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "crf_model.pkl").write_bytes(crf_pickle())
    (directory / "entity_synonyms.json").write_text(json.dumps({"rome": "Roma"}))
    (directory / "intent_featurizer_count_vectors.pkl").write_bytes(vocabulary_pickle())
    if classifier == "intent_classifier_sklearn":
        file = "intent_classifier_sklearn.pkl"
        (directory / file).write_bytes(svc_pickle())
    else:
        file = "intent_classifier_tensorflow_embedding.ckpt"
        write_embedding(directory, "intent_classifier_tensorflow_embedding")
    metadata = {
        "language": "en",
        "pipeline": [
            {"name": "tokenizer_whitespace", "class": "rasa_nlu.tokenizers.whitespace_tokenizer.WhitespaceTokenizer"},
            {"name": "ner_crf", "BILOU_flag": True, "features": CRF_FEATURES, "classifier_file": "crf_model.pkl"},
            {"name": "ner_synonyms", "synonyms_file": "entity_synonyms.json"},
            {
                "name": "intent_featurizer_count_vectors",
                "token_pattern": r"(?u)\b\w+\b",
                "OOV_token": "oov",
                "featurizer_file": "intent_featurizer_count_vectors.pkl",
            },
            {"name": classifier, "classifier_file": file, "epochs": 2},
        ],
        "training_data": "training_data.json",
        "trained_at": "20180911-113546",
        "rasa_nlu_version": "0.13.2",
    }
    return write(directory, metadata)


def write_0_15(directory: Path) -> dict[str, Any]:
    """The same parts and a regex featurizer in the layout of 0.15."""
    directory.mkdir(parents=True, exist_ok=True)
    patterns = [{"name": "zip", "pattern": "[0-9]{5}"}]
    (directory / "component_1_RegexFeaturizer.pkl").write_text(json.dumps(patterns))
    (directory / "component_2_CRFEntityExtractor.pkl").write_bytes(crf_pickle())
    (directory / "component_3_EntitySynonymMapper.json").write_text(json.dumps({"rome": "Roma"}))
    (directory / "component_4_CountVectorsFeaturizer.pkl").write_bytes(vocabulary_pickle())
    (directory / "component_5_CountVectorsFeaturizer.pkl").write_bytes(vocabulary_pickle([" h", "he", "o "]))
    write_embedding(directory, "component_6_EmbeddingIntentClassifier", 1 + len(WORDS) + 3)
    metadata = {
        "language": "en",
        "pipeline": [
            {"name": "WhitespaceTokenizer"},
            {"name": "RegexFeaturizer", "file": "component_1_RegexFeaturizer.pkl"},
            {"name": "CRFEntityExtractor", "features": CRF_FEATURES, "file": "component_2_CRFEntityExtractor.pkl"},
            {"name": "EntitySynonymMapper", "file": "component_3_EntitySynonymMapper.json"},
            {"name": "CountVectorsFeaturizer", "file": "component_4_CountVectorsFeaturizer.pkl"},
            {
                "name": "CountVectorsFeaturizer",
                "analyzer": "char_wb",
                "min_ngram": 2,
                "max_ngram": 2,
                "file": "component_5_CountVectorsFeaturizer.pkl",
            },
            {
                "name": "EmbeddingIntentClassifier",
                "hidden_layers_sizes_a": [9, 5],
                "similarity_type": "inner",
                "file": "component_6_EmbeddingIntentClassifier",
            },
        ],
        "training_data": "training_data.json",
        "trained_at": "20190611-113546",
        "rasa_nlu_version": "0.15.1",
    }
    return write(directory, metadata)


def write(directory: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """Write metadata and training data."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "metadata.json").write_text(json.dumps(metadata))
    (directory / "training_data.json").write_text(json.dumps(DATA))
    return metadata
