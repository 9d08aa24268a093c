"""Model directories of this package's own format: JSON, plain arrays and CRFsuite files, nothing that can run.

`metadata.json` says what it is (`"format": "rasa_core_api.nlu"`), lists the components with settings and files, and
holds the SHA-256 of every file. A directory is written beside its place and renamed, so it is whole or not there.
The same model gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import RasaCoreError, UnreadableFile, UnsupportedModel
from rasa_core_api.nlu.components import SETTINGS, canonical_name
from rasa_core_api.nlu.features import CountVectors, RegexFeatures
from rasa_core_api.nlu.keyword import KeywordIntents
from rasa_core_api.nlu.message import Component, Connect, NetworkComponent
from rasa_core_api.nlu.model import NluModel, NotConnected
from rasa_core_api.nlu.synonyms import Synonyms
from rasa_core_api.nlu.tokenizers import WhitespaceTokenizer
from rasa_core_api.nlu.untrained import UntrainedEntities, UntrainedIntents

if TYPE_CHECKING:
    from rasa_core_api.nlu.embedding import Layer

FORMAT = "rasa_core_api.nlu"
FORMAT_VERSION = 1
LARGEST_FILE = 1 << 30  # bytes
_NLU_VERSION = "0.13.8"  # for tools that look at it: the release whose results these are like
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_TRAINING_DATA = "training_data.json"

_READ_COLUMNS = ("intent_classifier_tensorflow_embedding", "intent_classifier_sklearn")

Part = Component | NetworkComponent


def is_new_format(metadata: Mapping[str, JSON]) -> bool:
    """Whether a `metadata.json` is of this format."""
    return metadata.get("format") == FORMAT


# writing


def save_model(model: NluModel, directory: Path) -> None:
    """Write a model; a directory that is there is replaced. Raises OSError when the disk refuses."""
    files: dict[str, bytes] = {}
    pipeline = [_part(component, files) for component in model.components]
    metadata: dict[str, JSON] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "language": model.language,
        "pipeline": pipeline,
    }
    if model.config:
        metadata["config"] = model.config
    if model.data is not None:
        metadata["training_data"] = _TRAINING_DATA
        files[_TRAINING_DATA] = _json(model.data.as_json())
    if model.empty_intent is not None:
        metadata["empty_intent"] = model.empty_intent
    metadata["trained_at"] = model.trained_at
    metadata["rasa_nlu_version"] = _NLU_VERSION
    metadata["sha256"] = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    files["metadata.json"] = _json(metadata)
    directory = directory.absolute()
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        for name, content in files.items():
            with (temporary / name).open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        temporary.chmod(0o755)
        _replace(temporary, directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _replace(new: Path, place: Path) -> None:
    if not place.exists():
        new.rename(place)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{place.name}.old.", dir=place.parent))
    place.rename(old / "model")  # a directory cannot be renamed over one that has files
    try:
        new.rename(place)
    except BaseException:
        (old / "model").rename(place)
        old.rmdir()
        raise
    shutil.rmtree(old)


def _json(value: JSON) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode("ascii")


def _part(component: Part, files: dict[str, bytes]) -> dict[str, JSON]:
    """The entry of one component in the pipeline; its files are added to `files`."""
    entry: dict[str, JSON] = {"name": component.name}

    def add(name: str, ending: str, content: bytes) -> str:
        file, number = f"{name}.{ending}", 1
        while file in files:
            number += 1
            file = f"{name}_{number}.{ending}"
        files[file] = content
        return file

    if isinstance(component, (WhitespaceTokenizer, KeywordIntents)):
        pass
    elif isinstance(component, RegexFeatures):
        entry["every_match"] = component.every_match
        entry["regex_file"] = add("regex_featurizer", "json", _json(component.as_json()))
    elif isinstance(component, CountVectors):
        entry |= component.settings
        entry["of_0_12"] = component.of_0_12
        words = sorted(component.vocabulary, key=component.vocabulary.__getitem__)
        entry["featurizer_file"] = add("count_vectors", "json", _json(words))
    elif isinstance(component, Synonyms):
        entry["processor"] = component.processor
        entry["synonyms_file"] = add("entity_synonyms", "json", _json(component.synonyms))
    elif isinstance(component, UntrainedEntities):
        entry["classifier_file"] = None
    elif isinstance(component, UntrainedIntents):
        entry |= {"null_intent": component.null_intent, "classifier_file": None}
    elif isinstance(component, (NotConnected, NetworkComponent)):
        entry |= {"settings": dict(component.settings), "extractor": component.extractor}
    else:
        entry |= _numbers(component, add)
    return entry


def _numbers(component: Part, add: Callable[[str, str, bytes], str]) -> dict[str, JSON]:
    """The same for parts with weights; numpy is loaded then anyway."""
    from rasa_core_api.nlu.arrays_file import write_arrays
    from rasa_core_api.nlu.crf import CrfEntities
    from rasa_core_api.nlu.embedding import EmbeddingIntents
    from rasa_core_api.nlu.linear import LinearIntents
    from rasa_core_api.nlu.svc import SvcIntents

    if isinstance(component, CrfEntities):
        file = add("entities", "crfsuite", component.content)
        return {**component.settings, "extractor": component.extractor, "classifier_file": file}
    if isinstance(component, LinearIntents):
        scalars = {"temperature": component.temperature}
        arrays = {"W": component.weights, "b": component.bias, "idf": component.idf}
        names = {"intents": component.intents, "words": component.words, "characters": component.characters}
        return {
            **component.settings,
            **scalars,
            "classifier_file": add("intent_linear", "npz", write_arrays(arrays)),
            "names_file": add("intent_linear", "json", _json(names)),
        }
    if isinstance(component, EmbeddingIntents):
        weights = component.weights
        arrays = {"intents": weights.intents}
        sides = (("a", (*weights.text_hidden, weights.text_last)), ("b", (*weights.intent_hidden, weights.intent_last)))
        for side, layers in sides:
            for number, layer in enumerate(layers):
                arrays |= {f"{side}{number}_kernel": layer.kernel, f"{side}{number}_bias": layer.bias}
        return {
            "similarity_type": component.similarity,
            "of_0_12": component.of_0_12,
            "layers": {side: len(layers) for side, layers in sides},
            "classifier_file": add("intent_embedding", "npz", write_arrays(arrays)),
            "names_file": add("intent_embedding", "json", _json({"intents": component.intents})),
        }
    if isinstance(component, SvcIntents):
        machine = component.machine
        fields = ("vectors", "coefficients", "intercepts", "slopes", "offsets")
        return {
            "svc": {"kernel": machine.kernel, "gamma": machine.gamma, "constant": machine.constant}
            | {"degree": machine.degree, "per_class": list(machine.per_class)},
            "classifier_file": add(
                "intent_svc", "npz", write_arrays({field: getattr(machine, field) for field in fields})
            ),
            "names_file": add("intent_svc", "json", _json({"intents": component.intents})),
        }
    raise UnsupportedModel(f"the part {component.name} cannot be saved")


# reading


class _Directory:
    """The files of a model directory, each checked against its hash when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata = self._json("metadata.json", self._bytes("metadata.json"))
        if not isinstance(self.metadata, dict) or not is_new_format(self.metadata):
            raise UnsupportedModel(f"{path / 'metadata.json'}: this is no model of the format {FORMAT}")
        version = self.metadata.get("format_version")
        if version != FORMAT_VERSION:
            raise UnsupportedModel(f"{path / 'metadata.json'}: format version {version!r} is not known, train again")
        hashes = self.metadata.get("sha256")
        if not isinstance(hashes, dict):
            raise self.damaged("metadata.json", "it has no list of hashes")
        self._hashes: dict[str, JSON] = hashes

    def damaged(self, name: str, reason: str) -> UnreadableFile:
        """The error for a file of this directory."""
        return UnreadableFile(f"{self.path / name}: {reason}", file=str(self.path / name), reason=reason)

    def read(self, name: JSON) -> bytes:
        """The content of a file that the metadata names."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise self.damaged("metadata.json", f"{name!r} is no file name")
        content = self._bytes(name)
        if self._hashes.get(name) != hashlib.sha256(content).hexdigest():
            raise self.damaged(name, "the content is not what was written (its SHA-256 differs from metadata.json)")
        return content

    def json(self, name: JSON) -> JSON:
        """The value of a JSON file that the metadata names."""
        return self._json(str(name), self.read(name))

    def texts(self, value: JSON) -> list[str]:
        """A value that has to be a list of texts. Raises ValueError."""
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError("a list of texts is wanted")
        return value

    def _bytes(self, name: str) -> bytes:
        path = self.path / name
        try:
            with path.open("rb") as stream:
                if os.fstat(stream.fileno()).st_size > LARGEST_FILE:
                    raise self.damaged(name, f"it is larger than {LARGEST_FILE} bytes")
                return stream.read()
        except OSError as error:
            raise UnsupportedModel(f"{path}: {error.strerror or error}", file=str(path)) from None

    def _json(self, name: str, content: bytes) -> JSON:
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise self.damaged(name, f"this is not JSON: {error}") from None


def load_model(path: Path, connect: Connect | None = None, *, with_data: bool = False) -> NluModel:
    """Read a model directory. `connect` makes its network parts; without it they find nothing.

    The training data is only read `with_data`; parsing does not need it. Raises UnsupportedModel, or its
    UnreadableFile for damaged files, that names the file.
    """
    directory = _Directory(path)
    metadata = directory.metadata
    language = metadata.get("language", "en")
    pipeline = metadata.get("pipeline")
    if not isinstance(pipeline, list) or not isinstance(language, str):
        raise directory.damaged("metadata.json", "it has no pipeline or language")
    components = []
    for number, entry in enumerate(pipeline):
        try:
            components.append(_load_part(directory, entry, language, connect))
        except UnsupportedModel:
            raise
        except RasaCoreError as error:
            raise directory.damaged("metadata.json", f"pipeline[{number}]: {error}") from None
        except (AttributeError, KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            reason = f"pipeline[{number}] or its files do not fit together: {type(error).__name__}: {error}"
            raise directory.damaged("metadata.json", reason) from None
    _check_widths(directory, components)
    config = metadata.get("config")
    data = None
    if with_data and metadata.get("training_data") is not None:
        from rasa_core_api.nlu.data_json import Document, read_rasa

        content = directory.read(metadata["training_data"])
        data = read_rasa(Document(content.decode("utf-8", "replace"), str(path / _TRAINING_DATA)))
    return NluModel(
        language,
        components,
        data,
        config if isinstance(config, dict) else {},
        str(metadata.get("trained_at", "")),
        str(path),
        "" if metadata.get("empty_intent") == "" else None,
    )


def _check_widths(directory: _Directory, components: Sequence[Part]) -> None:
    """Classifiers that read feature columns have to know as many as the featurizers before them give."""
    width = 0
    for component in components:
        if isinstance(component, RegexFeatures):
            width += len(component.patterns)
        elif isinstance(component, CountVectors):
            width = len(component.vocabulary) + (0 if component.of_0_12 else width)
        elif component.name in _READ_COLUMNS and _columns_read(component) not in (None, width):
            raise directory.damaged("metadata.json", f"{component.name} does not fit the {width} feature columns")


def _columns_read(component: Part) -> int | None:
    from rasa_core_api.nlu.embedding import EmbeddingIntents
    from rasa_core_api.nlu.svc import SvcIntents

    if isinstance(component, EmbeddingIntents):
        return component.weights.width()
    return component.width() if isinstance(component, SvcIntents) else None


def _settings(name: str, entry: Mapping[str, Any]) -> dict[str, JSON]:
    """The settings of an entry. Raises ValueError for one that no configuration could have."""
    settings = {}
    for key, setting in SETTINGS[name].items():
        settings[key] = entry.get(key, setting.default)
        if not setting.allows(settings[key]):
            raise ValueError(f"{key}: {setting.wanted} is wanted")
    return settings


def _load_part(directory: _Directory, entry: Mapping[str, Any], language: str, connect: Connect | None) -> Part:
    name = entry["name"]
    if canonical_name(name) != name:
        raise directory.damaged("metadata.json", f"there is no component {name!r}")
    if name == "tokenizer_whitespace":
        return WhitespaceTokenizer()
    if name == "intent_classifier_keyword":
        return KeywordIntents()
    if name == "intent_entity_featurizer_regex":
        return RegexFeatures(directory.json(entry["regex_file"]), every_match=entry["every_match"] is True)
    if name == "intent_featurizer_count_vectors":
        words = directory.texts(directory.json(entry["featurizer_file"]))
        vocabulary = {word: column for column, word in enumerate(words)}
        return CountVectors(_settings(name, entry), vocabulary, of_0_12=entry.get("of_0_12") is True)
    if name == "ner_synonyms":
        synonyms = directory.json(entry["synonyms_file"])
        directory.texts([*synonyms.values()])
        return Synonyms(synonyms, str(entry["processor"]))
    if name == "ner_duckling_http":
        settings, extractor = dict(entry["settings"]), str(entry["extractor"])
        return NotConnected(name, settings, extractor) if connect is None else connect(settings, extractor, language)
    if entry["classifier_file"] is None:
        return UntrainedEntities() if name == "ner_crf" else UntrainedIntents(name, bool(entry["null_intent"]))
    return _load_numbers(directory, name, entry)


def _load_numbers(directory: _Directory, name: str, entry: Mapping[str, Any]) -> Part:
    import numpy as np

    from rasa_core_api.nlu.arrays_file import read_arrays

    file = entry["classifier_file"]
    if name == "ner_crf":
        from rasa_core_api.nlu.crf import CrfEntities

        return CrfEntities(
            directory.read(file), _settings(name, entry), str(directory.path / file), str(entry["extractor"])
        )
    arrays = read_arrays(directory.read(file), str(directory.path / file))
    names = directory.json(entry["names_file"])
    intents = directory.texts(names["intents"])
    if "svc" in entry:
        from rasa_core_api.nlu.svc import SupportVectors, SvcIntents

        return SvcIntents(SupportVectors(**{**entry["svc"], **arrays}), intents)
    if name == "intent_classifier_tensorflow_embedding":
        from rasa_core_api.nlu.embedding import EmbeddingIntents, EmbeddingWeights, Layer

        def layers(side: str) -> list[Layer]:
            return [
                Layer(arrays[f"{side}{number}_kernel"], arrays[f"{side}{number}_bias"])
                for number in range(entry["layers"][side])
            ]

        *text, text_last = layers("a")
        *intent, intent_last = layers("b")
        weights = EmbeddingWeights(tuple(text), text_last, tuple(intent), intent_last, arrays["intents"])
        return EmbeddingIntents(weights, intents, entry["similarity_type"], of_0_12=entry.get("of_0_12") is True)
    from rasa_core_api.nlu.linear import LinearIntents

    return LinearIntents(
        {"confidence_scale": entry.get("confidence_scale", "legacy")},
        intents,
        directory.texts(names["words"]),
        directory.texts(names["characters"]),
        np.asarray(arrays["W"], np.float32),
        arrays["idf"],
        arrays["b"],
        float(entry["temperature"]),
    )
