"""The parts a pipeline can name: both families of names, their settings with defaults, and the templates.

Names and defaults are those of rasa_nlu 0.13 and 0.15; `intent_classifier_linear` is this package's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from attrs import frozen

from rasa_core_api.constants import JSON

#: Name of rasa_nlu 0.13 -> class name of 0.15.
CLASS_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "nlp_spacy": "SpacyNLP",
        "nlp_mitie": "MitieNLP",
        "tokenizer_whitespace": "WhitespaceTokenizer",
        "tokenizer_spacy": "SpacyTokenizer",
        "tokenizer_mitie": "MitieTokenizer",
        "tokenizer_jieba": "JiebaTokenizer",
        "intent_featurizer_spacy": "SpacyFeaturizer",
        "intent_featurizer_mitie": "MitieFeaturizer",
        "intent_featurizer_ngrams": "NGramFeaturizer",
        "intent_entity_featurizer_regex": "RegexFeaturizer",
        "intent_featurizer_count_vectors": "CountVectorsFeaturizer",
        "ner_crf": "CRFEntityExtractor",
        "ner_spacy": "SpacyEntityExtractor",
        "ner_mitie": "MitieEntityExtractor",
        "ner_duckling_http": "DucklingHTTPExtractor",
        "ner_duckling": "DucklingExtractor",
        "ner_synonyms": "EntitySynonymMapper",
        "intent_classifier_sklearn": "SklearnIntentClassifier",
        "intent_classifier_tensorflow_embedding": "EmbeddingIntentClassifier",
        "intent_classifier_keyword": "KeywordIntentClassifier",
        "intent_classifier_mitie": "MitieIntentClassifier",
        "intent_classifier_linear": "LinearIntentClassifier",
    }
)
_CANONICAL = {class_name: name for name, class_name in CLASS_NAMES.items()}

_SPACY = (
    "nlp_spacy",
    "tokenizer_spacy",
    "intent_featurizer_spacy",
    "intent_entity_featurizer_regex",
    "ner_crf",
    "ner_synonyms",
    "intent_classifier_sklearn",
)
#: Template -> its components; names of 0.15 where the template is of 0.15.
TEMPLATES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "spacy_sklearn": _SPACY,
        "pretrained_embeddings_spacy": tuple(CLASS_NAMES[name] for name in _SPACY),
        "tensorflow_embedding": (
            "tokenizer_whitespace",
            "ner_crf",
            "ner_synonyms",
            "intent_featurizer_count_vectors",
            "intent_classifier_tensorflow_embedding",
        ),
        "supervised_embeddings": (
            "WhitespaceTokenizer",
            "RegexFeaturizer",
            "CRFEntityExtractor",
            "EntitySynonymMapper",
            "CountVectorsFeaturizer",
            "EmbeddingIntentClassifier",
        ),
        "keyword": ("intent_classifier_keyword",),
    }
)
#: What is trained when nothing is asked for.
DEFAULT_PIPELINE = (
    "tokenizer_whitespace",
    "intent_entity_featurizer_regex",
    "ner_crf",
    "ner_synonyms",
    "intent_classifier_linear",
)


@frozen
class Setting:
    """A setting: its default, what it has to be (for the operator), and the test for that."""

    default: JSON
    wanted: str
    allows: Callable[[JSON], bool]


def _number(value: JSON) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _whole(value: JSON) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def whole(default: JSON, least: int = 1, most: int = 1_000_000, optional: bool = False) -> Setting:
    """A whole number within limits."""
    wanted = f"a whole number from {least} to {most}" + " or null" * optional
    return Setting(
        default, wanted, lambda value: (optional and value is None) or (_whole(value) and least <= value <= most)
    )


def number(default: float, least: float, most: float) -> Setting:
    """A number within limits."""
    return Setting(default, f"a number from {least} to {most}", lambda value: _number(value) and least <= value <= most)


def flag(default: bool) -> Setting:
    """True or false."""
    return Setting(default, "true or false", lambda value: isinstance(value, bool))


def text(default: str | None) -> Setting:
    """A text; null is one too where it is the default."""
    return Setting(
        default,
        "a text" + " or null" * (default is None),
        lambda value: isinstance(value, str) or (default is None and value is None),
    )


def choice(default: JSON, *values: JSON) -> Setting:
    """One of some values."""
    allowed = (default, *values)
    return Setting(default, "one of " + ", ".join(repr(value) for value in allowed), lambda value: value in allowed)


def texts(default: JSON, optional: bool = False) -> Setting:
    """A list of texts; null where that is the default, or allowed."""
    optional = optional or default is None
    return Setting(
        default,
        "a list of texts" + " or null" * optional,
        lambda value: (optional and value is None) or _all(value, lambda item: isinstance(item, str)),
    )


def numbers(default: JSON) -> Setting:
    """A list of numbers."""
    return Setting(default, "a list of numbers", lambda value: _all(value, _number))


def sizes(default: list[int]) -> Setting:
    """A list of layer sizes, empty for no layer, or one size."""
    return Setting(
        default,
        "a whole number from 1 to 10000, or a list of such,",
        lambda value: _size(value) or (_all(value, _size) and len(value) <= 20),
    )


def _size(value: JSON) -> bool:
    return _whole(value) and 1 <= value <= 10_000


def _all(value: JSON, test: Callable[[JSON], bool]) -> bool:
    return isinstance(value, list) and all(test(item) for item in value)


def _share(default: JSON) -> Setting:
    return Setting(
        default,
        "a number of texts, or a share of them from 0.0 to 1.0",
        lambda value: (_whole(value) and value >= 0) or (isinstance(value, float) and 0 <= value <= 1),
    )


def _batch_size(value: JSON) -> bool:
    if isinstance(value, list):
        return len(value) == 2 and all(_whole(item) and 1 <= item <= 100_000 for item in value)
    return _whole(value) and 1 <= value <= 100_000


def _windows(value: JSON) -> bool:
    return (
        isinstance(value, list)
        and len(value) % 2 == 1
        and len(value) <= 21
        and all(_all(row, lambda item: isinstance(item, str)) for row in value)
    )


_CONFIDENCE_SCALE = choice("legacy", "calibrated")
_CRF_FEATURES = [
    ["low", "title", "upper"],
    ["bias", "low", "prefix5", "prefix2", "suffix5", "suffix3", "suffix2", "upper", "title", "digit", "pattern"],
    ["low", "title", "upper"],
]

SETTINGS: Mapping[str, Mapping[str, Setting]] = {
    "intent_featurizer_count_vectors": {
        "analyzer": choice("word", "char", "char_wb"),
        "token_pattern": text(r"(?u)\b\w\w+\b"),
        "strip_accents": choice(None, "ascii", "unicode"),
        "stop_words": Setting(
            None,
            "null, 'english' or a list of words",
            lambda value: value in (None, "english") or _all(value, lambda item: isinstance(item, str)),
        ),
        "min_df": _share(1),
        "max_df": _share(1.0),
        "min_ngram": whole(1, most=20),
        "max_ngram": whole(1, most=20),
        "max_features": whole(None, optional=True),
        "lowercase": flag(True),
        "OOV_token": text(None),
        "OOV_words": texts([], optional=True),
    },
    "intent_classifier_tensorflow_embedding": {
        "num_hidden_layers_a": whole(2, least=0, most=20),
        "hidden_layer_size_a": sizes([256, 128]),
        "num_hidden_layers_b": whole(0, least=0, most=20),
        "hidden_layer_size_b": sizes([]),
        "hidden_layers_sizes_a": sizes([256, 128]),
        "hidden_layers_sizes_b": sizes([]),
        "batch_size": Setting([64, 256], "a size, or a list of the first and the last size", _batch_size),
        "epochs": whole(300, most=100_000),
        "embed_dim": whole(20, most=10_000),
        "mu_pos": number(0.8, -1e6, 1e6),
        "mu_neg": number(-0.4, -1e6, 1e6),
        "similarity_type": choice("cosine", "inner"),
        "num_neg": whole(20, most=10_000),
        "use_max_sim_neg": flag(True),
        "random_seed": whole(None, least=0, most=2**32 - 1, optional=True),
        "C2": number(0.002, 0.0, 1e6),
        "C_emb": number(0.8, 0.0, 1e6),
        "droprate": number(0.2, 0.0, 0.99),
        "intent_tokenization_flag": flag(False),
        "intent_split_symbol": text("_"),
        "evaluate_every_num_epochs": whole(10, least=0),
        "evaluate_on_num_examples": whole(1000, least=0),
    },
    "intent_classifier_sklearn": {
        "C": numbers([1, 2, 5, 10, 20, 100]),
        "gamma": numbers([0.1]),
        "kernels": texts(["linear"]),
        "max_cross_validation_folds": whole(5),
        "scoring_function": text("f1_weighted"),
        "confidence_scale": _CONFIDENCE_SCALE,
    },
    "intent_classifier_mitie": {"confidence_scale": _CONFIDENCE_SCALE},
    "intent_classifier_linear": {"confidence_scale": _CONFIDENCE_SCALE},
    "ner_crf": {
        "BILOU_flag": flag(True),
        "features": Setting(_CRF_FEATURES, "an odd number of lists of feature names", _windows),
        "max_iterations": whole(50),
        "L1_c": number(0.1, 0.0, 1e6),
        "L2_c": number(0.1, 0.0, 1e6),
    },
    "ner_duckling_http": {
        "dimensions": texts(None),
        "url": text(None),
        "locale": text(None),
        "timezone": text(None),
    },
    "nlp_spacy": {"model": text(None), "case_sensitive": flag(False)},
    "nlp_mitie": {"model": text(None)},
    "ner_spacy": {"dimensions": texts(None)},
    "ner_duckling": {"dimensions": texts(None)},
    "intent_featurizer_ngrams": {
        "max_number_of_ngrams": whole(10),
        "ngram_min_length": whole(3),
        "ngram_max_length": whole(17),
        "ngram_min_occurrences": whole(5),
        "min_intent_examples_for_ngram_classification": whole(4),
    },
}


def canonical_name(name: str) -> str | None:
    """The name of rasa_nlu 0.13 for a component's name of either family, or for its class path; None if unknown."""
    if name in CLASS_NAMES:
        return name
    return _CANONICAL.get(name.rpartition(".")[2])


def defaults(name: str) -> dict[str, JSON]:
    """The settings of a component (0.13 name) with their defaults."""
    return {key: setting.default for key, setting in SETTINGS.get(name, {}).items()}
