"""The parts of a model directory of rasa_nlu 0.11-0.15, each read from its own file.

Layouts: 0.12-0.14 name a part's file under a key of its own (`classifier_file`), 0.15 under `file`; before, files had
fixed names. Functions here raise UnsupportedModel, of which UnreadableFile is one kind, for a part that cannot be
taken over as it is; what then happens is up to `legacy`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen
from twisted.logger import Logger

from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import InvalidConfiguration, InvalidTrainingData, UnsupportedModel
from rasa_core_api.jsontext import decode
from rasa_core_api.legacy import Damage, damaged, read_bounded, reading
from rasa_core_api.legacy.pickles import MAX_SIZE, attribute, bytes_of, load_inert, mapping_of
from rasa_core_api.nlu.config import ComponentConfig
from rasa_core_api.nlu.features import CountVectors, RegexFeatures
from rasa_core_api.nlu.keyword import KeywordIntents
from rasa_core_api.nlu.message import Component
from rasa_core_api.nlu.synonyms import Synonyms
from rasa_core_api.nlu.tokenizers import WhitespaceTokenizer

if TYPE_CHECKING:
    import numpy.typing as npt

log = Logger()

MAX_JSON = 64 << 20  # bytes

#: Old key of a part's file and its default name.
FILES: Mapping[str, tuple[str, str]] = {
    "ner_crf": ("classifier_file", "crf_model.pkl"),
    "ner_synonyms": ("synonyms_file", "entity_synonyms.json"),
    "intent_entity_featurizer_regex": ("regex_file", "regex_featurizer.json"),
    "intent_featurizer_count_vectors": ("featurizer_file", "intent_featurizer_count_vectors.pkl"),
    "intent_classifier_sklearn": ("classifier_file", "intent_classifier_sklearn.pkl"),
    "intent_classifier_tensorflow_embedding": ("classifier_file", "intent_classifier_tensorflow_embedding.ckpt"),
}
_VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})")
_LAYER = re.compile(r"(?:hidden_layer_[ab]_[0-9]{1,3}|embed_layer_[ab])/(?:kernel|bias)")


@frozen
class Part:
    """One entry of a model's pipeline: checked settings, the entry as it stands, and where the model is.

    `width` is the number of feature columns that the parts before it make, `version` that of rasa_nlu.
    """

    config: ComponentConfig
    item: Mapping[str, JSON]
    directory: Path
    width: int = 0
    version: tuple[int, ...] = ()

    @property
    def of_0_12(self) -> bool:
        """Whether the part does as in 0.12."""
        return is_of_0_12(self.version)

    def file(self) -> Path | None:
        """The part's file; None says that the part was never trained. Raises UnsupportedModel for odd names."""
        key, default = FILES[self.config.name]
        name = self.item.get("file", self.item.get(key, default))
        if name is None:
            return None
        if not isinstance(name, str) or not name or name in (".", "..") or set(name) & set("/\\\0"):
            raise UnsupportedModel(f"{self.directory}: the file of {self.config.written} has the odd name {name!r}")
        return self.directory / name

    def is_missing(self) -> bool:
        """Whether the part names a file that is not there."""
        path = self.file()
        return path is not None and not path.exists()


def version_of(metadata: Mapping[str, JSON]) -> tuple[int, ...]:
    """The release of rasa_nlu that wrote a model as numbers; empty where it is not known."""
    match = _VERSION.match(str(metadata.get("rasa_nlu_version")))
    return tuple(map(int, match.groups())) if match else ()


def is_of_0_12(version: tuple[int, ...]) -> bool:
    """Whether models of this release count words and rank intents as 0.12 did."""
    return () < version < (0, 13)


def read_part(part: Part) -> Component:
    """The part as it was trained. Raises UnsupportedModel where it cannot be taken over."""
    try:
        return _READERS[part.config.name](part)
    except InvalidConfiguration as error:
        raise UnsupportedModel(str(error)) from error


def read_json(path: Path, limit: int = MAX_JSON) -> JSON:
    """The content of a JSON file. Raises UnreadableFile."""
    data = read_bounded(path, limit)
    try:
        return decode(data)
    except ValueError as error:
        raise damaged(str(path), f"it is not JSON: {error}") from None


def _tokenizer(part: Part) -> Component:
    return WhitespaceTokenizer()


def _keywords(part: Part) -> Component:
    return KeywordIntents()


def _regexes(part: Part) -> Component:
    path = part.file()
    found = [] if path is None else read_json(path)
    if not isinstance(found, list):
        raise damaged(str(path), "a list of patterns was expected")
    for item in found:
        if not isinstance(item, dict) or not all(isinstance(item.get(key), str) for key in ("name", "pattern")):
            raise damaged(str(path), "a pattern without a name or without an expression")

    def refused(error: InvalidTrainingData) -> None:
        log.warn("{file}: {reason}; it will never match", file=str(path), reason=str(error))

    return RegexFeatures(found, refused, every_match=part.config.modern)


def _synonyms(part: Part) -> Component:
    path = part.file()
    # the original names this file in every model and writes it only where there are synonyms
    found = read_json(path) if path is not None and path.exists() else {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise damaged(str(path), "a mapping of spellings to values was expected")
    return Synonyms({spelling.lower(): value for spelling, value in found.items()}, part.config.shown)


def _count_vectors(part: Part) -> Component:
    path = part.file()
    settings = part.config.settings
    vocabulary: dict[str, int] = {}
    if path is not None:
        with _pickle(path) as record:
            vocabulary = _vocabulary(record)
            settings = {**settings, "analyzer": _analyzer(record, settings["analyzer"])}
    if part.of_0_12:  # texts were put into lower case from 0.12.3 on; there was no setting yet
        settings = {**settings, "lowercase": part.version >= (0, 12, 3)}
    return CountVectors(settings, vocabulary, of_0_12=part.of_0_12)


def _analyzer(record: Any, configured: JSON) -> JSON:
    """What was counted: releases before 0.14 took no notice of what their configuration said."""
    try:
        analyzer = attribute(attribute(record, "vect"), "analyzer")
    except KeyError:
        return configured
    return analyzer if analyzer in ("word", "char", "char_wb") else configured


def _vocabulary(record: Any) -> dict[str, int]:
    from rasa_core_api.legacy.arrays import integer_of

    try:
        found = mapping_of(attribute(attribute(record, "vect"), "vocabulary_"))
    except KeyError:
        return {}  # no word of the training data was left
    vocabulary = {word: integer_of(column) for word, column in found.items()}
    if not all(isinstance(word, str) for word in vocabulary) or set(vocabulary.values()) != set(range(len(vocabulary))):
        raise Damage("its vocabulary is damaged")
    return vocabulary


def _crf(part: Part) -> Component:
    from rasa_core_api.nlu.crf import KNOWN_FEATURES, CrfEntities
    from rasa_core_api.nlu.untrained import UntrainedEntities

    features = {name for row in part.config.settings["features"] for name in row}
    if not features <= KNOWN_FEATURES:
        raise UnsupportedModel(f"the features {', '.join(sorted(features - KNOWN_FEATURES))} need spaCy")
    path = part.file()
    if path is None:
        return UntrainedEntities()
    with _pickle(path) as record:
        content = bytes_of(attribute(attribute(record, "modelfile"), "__FILE_RESOURCE_DATA__"))
    return CrfEntities(content, part.config.settings, str(path), part.config.shown)


def _svc(part: Part) -> Component:
    from rasa_core_api.nlu.svc import SvcIntents
    from rasa_core_api.nlu.untrained import UntrainedIntents

    path = part.file()
    if path is None:
        return UntrainedIntents(part.config.name, null_intent=True)
    with _pickle(path) as record:
        classifier = attribute(record, "clf")
        if classifier is None:
            return UntrainedIntents(part.config.name, null_intent=True)
        model = _best_estimator(classifier)
        intents = _names(attribute(attribute(record, "le"), "classes_"))
        part_read = SvcIntents(_support_vectors(model), intents)
    if part_read.width() != part.width:
        raise damaged(str(path), f"it wants {part_read.width()} features where there are {part.width}")
    return part_read


def _best_estimator(classifier: Any) -> Any:
    try:
        return attribute(classifier, "best_estimator_")  # of the grid search
    except KeyError:
        return classifier


def _names(value: Any) -> list[str]:
    from rasa_core_api.legacy.arrays import list_of

    names = list_of(value)
    if not all(isinstance(name, str) for name in names):
        raise Damage("an intent whose name is no text")
    return names


def _support_vectors(model: Any) -> Any:
    from rasa_core_api.legacy.arrays import array_of, integer_of, list_of, plain_of
    from rasa_core_api.nlu.svc import SupportVectors

    def numbers(*names: str) -> npt.NDArray[Any]:
        for name in names:
            try:
                return array_of(attribute(model, name)).astype("f8")
            except KeyError:
                continue
        raise KeyError(names[0])

    def number(name: str, default: float) -> float:
        value = plain_of(attribute(model, name))
        return float(value) if isinstance(value, (int, float)) else default

    return SupportVectors(
        kernel=str(plain_of(attribute(model, "kernel"))),
        gamma=number("_gamma", 1.0),
        constant=number("coef0", 0.0),
        degree=integer_of(attribute(model, "degree")),
        vectors=numbers("support_vectors_"),
        # with two classes the public attributes have the opposite sign
        coefficients=numbers("_dual_coef_"),
        per_class=tuple(integer_of(count) for count in list_of(attribute(model, "n_support_"))),
        intercepts=numbers("_intercept_"),
        slopes=numbers("probA_", "_probA"),
        offsets=numbers("probB_", "_probB"),
    )


def _embedding(part: Part) -> Component:
    from rasa_core_api.legacy.arrays import array_of, integer_of, plain_of
    from rasa_core_api.legacy.tensor_bundle import read_bundle
    from rasa_core_api.nlu.embedding import EmbeddingIntents, EmbeddingWeights, Layer
    from rasa_core_api.nlu.untrained import UntrainedIntents

    path = part.file()
    if path is None:
        return UntrainedIntents(part.config.name, null_intent=False)
    stem = path.name.removesuffix(".ckpt")
    with _pickle(path.with_name(f"{stem}_inv_intent_dict.pkl")) as record:
        names = {integer_of(number): plain_of(name) for number, name in mapping_of(record).items()}
        intents = [str(names[number]) for number in range(len(names))]
    with _pickle(path.with_name(f"{stem}_encoded_all_intents.pkl")) as record:
        encoded = array_of(record).astype("f4")
    checkpoint = path.with_name(f"{stem}.ckpt")
    values = read_bundle(checkpoint, lambda name: _LAYER.fullmatch(name) is not None)

    def layer(name: str) -> Layer:
        return Layer(values[f"{name}/kernel"].astype("f4"), values[f"{name}/bias"].astype("f4"))

    def hidden(side: str) -> tuple[Layer, ...]:
        count = sum(name.startswith(f"hidden_layer_{side}_") and name.endswith("/kernel") for name in values)
        return tuple(layer(f"hidden_layer_{side}_{number}") for number in range(count))

    source = f"{checkpoint}.index"
    with _fitting(source):
        weights = EmbeddingWeights(hidden("a"), layer("embed_layer_a"), hidden("b"), layer("embed_layer_b"), encoded)
        similarity = part.config.settings["similarity_type"]
        found = EmbeddingIntents(weights, intents, similarity, of_0_12=part.of_0_12)
    if weights.width() != part.width:
        raise damaged(source, f"it wants {weights.width()} features where there are {part.width}")
    return found


@contextmanager
def _pickle(path: Path) -> Iterator[Any]:
    """What a pickle describes; whatever goes wrong with it inside is damage of the file."""
    record = load_inert(read_bounded(path, MAX_SIZE), str(path))
    with _fitting(str(path)):
        yield record


@contextmanager
def _fitting(source: str) -> Iterator[None]:
    with reading(source):
        try:
            yield
        except ValueError as error:  # parts that do not fit together say so in words
            raise error if isinstance(error, Damage) else Damage(str(error)) from error


_READERS: Mapping[str, Callable[[Part], Component]] = {
    "tokenizer_whitespace": _tokenizer,
    "intent_entity_featurizer_regex": _regexes,
    "intent_featurizer_count_vectors": _count_vectors,
    "ner_crf": _crf,
    "ner_synonyms": _synonyms,
    "intent_classifier_keyword": _keywords,
    "intent_classifier_sklearn": _svc,
    "intent_classifier_tensorflow_embedding": _embedding,
}
EXACT = frozenset(_READERS)
