"""Pipeline configuration: a YAML file becomes a list of components with checked settings."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NoReturn

from attrs import evolve, field, frozen

from rasa_core_api.config import read_yaml_file
from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.nlu.components import (
    CLASS_NAMES,
    DEFAULT_PIPELINE,
    SETTINGS,
    TEMPLATES,
    canonical_name,
    defaults,
)

_MAX_COMPONENTS = 100
_TOP_LEVEL = ("language", "pipeline", "data", "confidence_scale")


@frozen
class ComponentConfig:
    """One component: its name of 0.13, its settings (defaults filled in), and the name under which it was asked for.

    `modern` says that the pipeline is one of 0.15, whose names results then carry: only 0.15 knew these names, and it
    gave them to components that were asked for under an old one too.
    """

    name: str
    settings: Mapping[str, JSON]
    written: str = field(default="", eq=False)
    modern: bool = field(default=False, eq=False)

    @property
    def shown(self) -> str:
        """The name that results carry."""
        return CLASS_NAMES[self.name] if self.modern else self.name


@frozen
class PipelineConfig:
    """A pipeline. `remarks` are for the operator: settings nobody knows, and the like."""

    language: str
    components: tuple[ComponentConfig, ...]
    remarks: tuple[str, ...] = field(default=(), eq=False)


def default_config(language: str = "en", confidence_scale: str = "legacy") -> PipelineConfig:
    """The pipeline that is used when none is asked for."""
    return config_from_json(
        {"language": language, "confidence_scale": confidence_scale, "pipeline": [*DEFAULT_PIPELINE]}, "default"
    )


def read_config(path: Path, environ: Mapping[str, str] | None = None) -> PipelineConfig:
    """Read a configuration file. Raises InvalidConfiguration that names file, key path and reason."""
    value = read_yaml_file(path, environ)
    return config_from_json({} if value is None else value, str(path))


def config_from_json(value: JSON, file: str) -> PipelineConfig:
    """The same for the content of the file."""
    if not isinstance(value, dict):
        _refuse(file, "", "a mapping with 'language' and 'pipeline' is wanted")
    language = value.get("language", "en")
    if not isinstance(language, str) or not language:
        _refuse(file, "language", "the code of a language, such as en, is wanted")
    scale = value.get("confidence_scale")
    if scale not in (None, "legacy", "calibrated"):
        _refuse(file, "confidence_scale", "one of 'legacy', 'calibrated' is wanted")
    remarks = [f"{file}: nothing is known of {key!r}; it is ignored" for key in value if key not in _TOP_LEVEL]
    pipeline = value.get("pipeline", [*DEFAULT_PIPELINE])
    if isinstance(pipeline, str):
        if pipeline not in TEMPLATES:
            _refuse(file, "pipeline", f"there is no template {pipeline!r}{_nearest(pipeline, TEMPLATES)}")
        pipeline = [*TEMPLATES[pipeline]]
    if not isinstance(pipeline, list):
        _refuse(file, "pipeline", "a list of components, or the name of a template, is wanted")
    if not pipeline:
        _refuse(file, "pipeline", "an empty pipeline cannot be trained")
    if len(pipeline) > _MAX_COMPONENTS:
        _refuse(file, "pipeline", f"more than {_MAX_COMPONENTS} components")
    components = tuple(
        _component(item, file, f"pipeline[{number}]", scale, remarks) for number, item in enumerate(pipeline)
    )
    _check_order(components, file)
    if any(part.written not in CLASS_NAMES and part.name != "intent_classifier_linear" for part in components):
        components = tuple(evolve(part, modern=True) for part in components)
    return PipelineConfig(language, components, tuple(remarks))


def _component(item: JSON, file: str, path: str, scale: str | None, remarks: list[str]) -> ComponentConfig:
    if isinstance(item, str):
        item = {"name": item}
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        _refuse(file, path, "a mapping with the component's 'name' is wanted")
    written = item["name"]
    name = canonical_name(written)
    if name is None:
        _refuse(
            file,
            f"{path}.name",
            f"there is no component {written!r}{_nearest(written, [*CLASS_NAMES, *CLASS_NAMES.values()])}",
        )
    known = SETTINGS.get(name, {})
    settings = defaults(name)
    for key, value in item.items():
        if key in ("name", "class"):
            continue
        if key not in known:
            remarks.append(f"{file}: {path}: {written} has no setting {key!r}{_nearest(key, known)}; it is ignored")
        elif not known[key].allows(value):
            _refuse(file, f"{path}.{key}", f"{known[key].wanted} is wanted, not {value!r}")
        else:
            settings[key] = value
    if scale is not None and "confidence_scale" in known and "confidence_scale" not in item:
        settings["confidence_scale"] = scale
    _check_component(name, item, settings, file, path)
    return ComponentConfig(name, settings, written)


def _check_component(name: str, item: Mapping[str, JSON], settings: dict[str, JSON], file: str, path: str) -> None:
    if name == "intent_featurizer_count_vectors" and settings["min_ngram"] > settings["max_ngram"]:
        _refuse(file, f"{path}.max_ngram", f"it has to be min_ngram ({settings['min_ngram']}) or more")
    if name == "intent_classifier_tensorflow_embedding":
        for side in "ab":
            # 0.13 gives the number and the sizes of layers, 0.15 only the sizes
            old, new = f"hidden_layer_size_{side}", f"hidden_layers_sizes_{side}"
            count = f"num_hidden_layers_{side}"
            for key in (old, new):
                if not isinstance(settings[key], list):
                    settings[key] = [settings[key]]
            if new not in item and (old in item or count in item):
                layers, wanted = list(settings[old]), settings[count]
                if wanted and not layers:
                    _refuse(file, f"{path}.{old}", f"{wanted} layers need a size each")
                settings[new] = (layers + layers[-1:] * wanted)[:wanted]  # the last size is that of all further layers
            settings[old], settings[count] = settings[new], len(settings[new])


def _check_order(components: Iterable[ComponentConfig], file: str) -> None:
    tokens = features = False
    for number, component in enumerate(components):
        name, path = component.name, f"pipeline[{number}]"
        if name.startswith("tokenizer_"):
            tokens = True
        elif name in ("intent_featurizer_count_vectors", "intent_entity_featurizer_regex"):
            features = True
        elif name == "ner_crf" and not tokens:
            _refuse(file, path, f"{component.written} needs a tokenizer before it")
        elif name == "intent_classifier_tensorflow_embedding" and not features:
            _refuse(file, path, f"{component.written} needs a featurizer before it, such as CountVectorsFeaturizer")


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name[:100], list(known), 1, 0.5)
    return f" (is {close[0]!r} meant?)" if close else ""


def _refuse(file: str, path: str, reason: str) -> NoReturn:
    where = f"{file}: {path}" if path else file
    raise InvalidConfiguration(f"{where}: {reason}", file=file, key=path, reason=reason)
