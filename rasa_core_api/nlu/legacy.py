"""Model directories that rasa_nlu 0.11-0.15 wrote.

Part by part: *exact* where the part's file can be read and everything it depends on is exact too; else *retrained*
from the directory's `training_data.json`, into a cache beside everything else and never into the model directory;
else *skipped*. One log line has the three lists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, field
from twisted.logger import Logger

from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import InvalidConfiguration, InvalidTrainingData, RasaCoreError, UnsupportedModel
from rasa_core_api.nlu.components import canonical_name
from rasa_core_api.nlu.config import ComponentConfig, config_from_json
from rasa_core_api.nlu.features import CountVectors, RegexFeatures
from rasa_core_api.nlu.legacy_parts import EXACT, Part, is_of_0_12, read_json, read_part, version_of
from rasa_core_api.nlu.legacy_settings import usable
from rasa_core_api.nlu.message import Component, Connect, NetworkComponent
from rasa_core_api.nlu.model import NluModel, NotConnected

if TYPE_CHECKING:
    from rasa_core_api.nlu.data import TrainingData

log = Logger()

METADATA = "metadata.json"
TRAINING_DATA = "training_data.json"
CACHE_VERSION = 1  # of what retraining makes; another number trains anew
MAX_HASHED = 1 << 30  # bytes of all files of a directory

_NO_COUNTERPART = frozenset({"nlp_spacy", "nlp_mitie", "intent_featurizer_spacy", "intent_featurizer_mitie",
                             "intent_featurizer_ngrams", "ner_spacy", "ner_duckling"})  # fmt: skip
_OTHER_TOKENIZERS = frozenset({"tokenizer_spacy", "tokenizer_mitie", "tokenizer_jieba"})
_USES_TOKENS = frozenset({"ner_crf", "intent_featurizer_count_vectors"})
_USES_FEATURES = frozenset({"intent_classifier_sklearn", "intent_classifier_tensorflow_embedding"})

#: Top-level key of a model of 0.11 and before -> the part it belongs to, and its keys there -> ours.
_OLD_SETTINGS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "entity_extractor_crf": (
        "ner_crf",
        {"model_file": "classifier_file", "crf_features": "features", "BILOU_flag": "BILOU_flag"},
    ),
    "entity_synonyms": ("ner_synonyms", {"": "synonyms_file"}),
    "regex_featurizer": ("intent_entity_featurizer_regex", {"": "regex_file"}),
    "intent_classifier_sklearn": ("intent_classifier_sklearn", {"": "classifier_file"}),
}


@define
class Report:
    """Names of the parts of a model by what became of them; a reason stands in brackets."""

    exact: list[str] = field(factory=list)
    retrained: list[str] = field(factory=list)
    skipped: list[str] = field(factory=list)

    def log(self, directory: Path) -> None:
        """The one line about a model."""
        write = log.warn if self.retrained or self.skipped else log.debug
        write(
            "NLU model {path}: exact: {exact}; retrained: {retrained}; skipped: {skipped}",
            path=str(directory),
            exact=", ".join(self.exact) or "none",
            retrained=", ".join(self.retrained) or "none",
            skipped=", ".join(self.skipped) or "none",
        )


def load_legacy(
    directory: Path,
    *,
    cache: Path | None = None,
    connect: Connect | None = None,
    with_data: bool = False,
) -> tuple[NluModel, Report]:
    """The model in a directory.

    Retrained models are kept under `cache` by the content they come from; without a cache they are trained at each
    load. `connect` makes network parts; without it they find nothing. `with_data` reads the training data even where
    nothing is retrained. Raises UnsupportedModel naming file, part and reason where a part can neither be read nor
    retrained.
    """
    metadata = read_metadata(directory)
    return _Loading(directory, metadata, connect).load(cache, with_data)


def read_metadata(directory: Path) -> dict[str, JSON]:
    """The metadata of any NLU model. Raises UnsupportedModel."""
    path = directory / METADATA
    if not path.exists():
        raise UnsupportedModel(f"{directory} is not an NLU model: it has no {METADATA}", file=METADATA)
    metadata = read_json(path)
    if not isinstance(metadata, dict) or not isinstance(metadata.get("pipeline"), list):
        raise UnsupportedModel(f"{path}: it does not list the parts of a pipeline", file=METADATA)
    return metadata


class _Loading:
    """A model directory on its way to a model."""

    def __init__(self, directory: Path, metadata: Mapping[str, JSON], connect: Connect | None) -> None:
        self._directory = directory
        self._metadata = metadata
        self._connect = connect
        self._version = version_of(metadata)
        self._report = Report()
        self._same_tokens = self._same_features = True  # as when the model was trained
        self._lemmas = False  # whether words were counted as spaCy's lemmas
        items = self._known(_items(metadata))
        language = metadata.get("language")
        try:
            self._config = config_from_json(
                {"language": language if isinstance(language, str) and language else "en", "pipeline": items},
                str(directory / METADATA),
            )
        except InvalidConfiguration as error:
            raise UnsupportedModel(str(error), file=METADATA) from error
        self._items = items
        self._given: dict[int, Component | NetworkComponent] = {}
        self._reasons: list[tuple[ComponentConfig, str]] = []

    def _known(self, items: list[dict[str, JSON]]) -> list[JSON]:
        """The items whose parts exist here, by names that the configuration knows."""
        known: list[JSON] = []
        foreign = False
        for item in items:
            name = next((item[key] for key in ("name", "class") if _is_known(item.get(key))), None)
            if name is None:
                written = str(item.get("name") or item.get("class"))[:100]
                self._report.skipped.append(f"{written} (not a part of rasa_nlu)")
                foreign = True
            elif canonical_name(name) in _NO_COUNTERPART:
                self._report.skipped.append(name)
                if canonical_name(name) == "nlp_spacy":
                    self._lemmas = True
                elif "_featurizer_" in str(canonical_name(name)):
                    self._same_features = False
            else:
                canonical = canonical_name(name) or ""
                known.append({**usable(canonical, item), "name": canonical if "." in name else name})
        if not known:
            raise UnsupportedModel(f"{self._directory}: no part of the pipeline can be served", file=METADATA)
        names = [canonical_name(item["name"]) or "" for item in known]
        if (foreign or "ner_crf" in names) and not any(name.startswith("tokenizer_") for name in names):
            known.insert(0, {"name": "tokenizer_whitespace"})
            self._same_tokens = False
        return known

    def load(self, cache: Path | None, with_data: bool) -> tuple[NluModel, Report]:
        self._read_parts()
        if self._reasons:
            model = self._retrained(cache)
        else:
            components = [self._given[position] for position in range(len(self._config.components))]
            model = self._model(components)
            if with_data and self._data_path().exists():
                model.data = self._data()
        model.source = str(self._directory)
        self._report.log(self._directory)
        return model, self._report

    def _read_parts(self) -> None:
        """Read what can be taken over; note down why the rest cannot."""
        width = 0
        for position, config in enumerate(self._config.components):
            name = config.name
            if name == "ner_duckling_http":
                self._given[position] = self._network_part(config)
                self._report.exact.append(config.written)
                continue
            if name in _OTHER_TOKENIZERS:
                self._same_tokens = False
                self._reasons.append((config, "words are cut at blanks instead"))
                continue
            if name in _USES_TOKENS and not self._same_tokens:
                reason = "its words were cut by a part that is not here"
            elif name == "intent_featurizer_count_vectors" and self._lemmas:
                reason = "it counted spaCy's lemmas"
            elif name in _USES_FEATURES and not self._same_features:
                reason = "its features were made by a part that is not here"
            elif name not in EXACT:
                reason = "it needs a library that is not here"
            else:
                try:
                    part = self._part(Part(config, self._items[position], self._directory, width, self._version))
                except UnsupportedModel as error:
                    reason = str(error)
                else:
                    self._given[position] = part
                    self._report.exact.append(config.written)
                    width = _width(part, width)
                    continue
            if name in ("intent_featurizer_count_vectors", "intent_entity_featurizer_regex"):
                self._same_features = False
            self._reasons.append((config, reason))

    def _part(self, part: Part) -> Component:
        # the original names a file of ner_crf in every model and writes it only where there are entities to learn
        if part.config.name == "ner_crf" and part.is_missing() and self._data_path().exists():
            from rasa_core_api.nlu.untrained import UntrainedEntities

            if not self._data().entities():
                return UntrainedEntities()
        return read_part(part)

    def _network_part(self, config: ComponentConfig) -> Component | NetworkComponent:
        if self._connect is None:
            return NotConnected(config.name, config.settings, config.shown)
        return self._connect(config.settings, config.shown, self._config.language)

    def _model(self, components: list[Component | NetworkComponent]) -> NluModel:
        trained_at = self._metadata.get("trained_at")
        asked = {
            "language": self._config.language,
            "pipeline": [{"name": part.written or part.name, **part.settings} for part in self._config.components],
        }
        return NluModel(
            self._config.language,
            components,
            config=asked,
            trained_at=trained_at if isinstance(trained_at, str) else "",
            empty_intent="" if is_of_0_12(self._version) else None,
        )

    def _retrained(self, cache: Path | None) -> NluModel:
        from rasa_core_api.nlu.storage import load_model, save_model

        self._report.retrained += [f"{config.written} ({reason})" for config, reason in self._reasons]
        if not self._data_path().exists():
            config, reason = self._reasons[0]
            raise UnsupportedModel(
                f"{self._directory}: {config.written} cannot be served: {reason}; it cannot be trained again either, "
                f"because there is no {self._data_path().name}",
                file=METADATA,
                component=config.written,
            )
        place = None if cache is None else cache / self._fingerprint()
        if place is not None and place.exists():
            try:
                return load_model(place, self._connect)
            except (RasaCoreError, OSError) as error:
                log.warn("{path} is trained again: {reason}", path=str(place), reason=str(error))
        model = self._train()
        if place is not None:
            try:
                save_model(model, place)
            except OSError as error:
                log.warn("the retrained model cannot be kept at {path}: {reason}", path=str(place), reason=str(error))
        return model

    def _train(self) -> NluModel:
        from rasa_core_api.nlu.training import train_components

        data = self._data()
        try:
            trained = train_components(self._config, data, given=self._given, connect=self._connect)
        except (InvalidConfiguration, InvalidTrainingData) as error:
            raise UnsupportedModel(f"{self._directory} cannot be trained again: {error}", file=METADATA) from error
        for remark in trained.remarks:
            log.info("{path}: {remark}", path=str(self._directory), remark=remark)
        model = self._model(trained.components)
        model.data = data
        return model

    def _data_path(self) -> Path:
        name = self._metadata.get("training_data")
        if not isinstance(name, str) or not name or set(name) & set("/\\\0"):
            name = TRAINING_DATA
        return self._directory / name

    def _data(self) -> TrainingData:
        from rasa_core_api.nlu.data_loading import load_data

        try:
            return load_data(self._data_path()).with_lookups_read([])
        except InvalidTrainingData as error:
            raise UnsupportedModel(str(error), file=self._data_path().name) from error

    def _fingerprint(self) -> str:
        """A name for what is retrained: the content of all files of the directory."""
        digest = hashlib.sha256(f"{CACHE_VERSION}".encode())
        left = MAX_HASHED
        for path in sorted(self._directory.iterdir()):
            if not path.is_file() or path.name == "checkpoint":  # holds a path of the training machine
                continue
            size = path.stat().st_size
            left -= size
            if left < 0:
                raise UnsupportedModel(f"{self._directory} is larger than {MAX_HASHED} bytes", file=path.name)
            digest.update(f"\n{path.name}\n{size}\n".encode("utf-8", "surrogateescape"))
            with path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()


def _is_known(name: JSON) -> bool:
    return isinstance(name, str) and canonical_name(name) is not None


def _width(part: Component, before: int) -> int:
    """The number of feature columns behind a part."""
    if isinstance(part, CountVectors):
        return len(part.vocabulary) + (0 if part.of_0_12 else before)
    return before + (len(part.patterns) if isinstance(part, RegexFeatures) else 0)


def _items(metadata: Mapping[str, JSON]) -> list[dict[str, JSON]]:
    """The pipeline's entries as they have been since 0.12, whatever the release."""
    items: list[dict[str, JSON]] = []
    for entry in metadata["pipeline"]:
        if isinstance(entry, dict):
            items.append(entry)
        elif isinstance(entry, str):
            items.append(_old_item(entry, metadata))
        else:
            raise UnsupportedModel(f"{METADATA}: an entry of the pipeline is neither a name nor a mapping")
    return items


def _old_item(path: str, metadata: Mapping[str, JSON]) -> dict[str, JSON]:
    item: dict[str, JSON] = {"class": path}
    for key, (name, renamed) in _OLD_SETTINGS.items():
        stored = metadata.get(key)
        if canonical_name(path) != name or stored is None:
            continue
        if isinstance(stored, dict):
            item.update({renamed[old]: value for old, value in stored.items() if old in renamed})
        elif "" in renamed:
            item[renamed[""]] = stored
    return item
