"""Finding out which format a file of training data has, and reading files and folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import InvalidTrainingData
from rasa_core_api.nlu.data import TrainingData, broken, read_text
from rasa_core_api.nlu.data_json import (
    Document,
    read_dialogflow_entity,
    read_dialogflow_intent,
    read_luis,
    read_rasa,
    read_wit,
)
from rasa_core_api.nlu.data_markdown import looks_like_markdown, read_markdown

MAX_FILES = 20_000  # of one folder


def load_data(path: Path, language: str = "en") -> TrainingData:
    """Read a file, or all files of a folder and its sub-folders whose names do not start with a dot.

    `language` picks the companion files of a Dialogflow export. Raises InvalidTrainingData, naming file, line and
    reason, for the first file that is broken or of no known format; nothing is returned then.
    """
    if path.is_dir():
        files = sorted(_files(path))
        if not files:
            raise broken(str(path), None, "the folder has no training data")
    else:
        files = [path]
    data = TrainingData.merged(_read(file, language) for file in files)
    if not (data.examples or data.regexes or data.lookups or data.synonyms):
        raise broken(str(path), None, "there is no training data in it")
    return data


def _files(folder: Path) -> Iterator[Path]:
    count = 0
    for base, _, names in os.walk(folder):
        for name in names:
            if not name.startswith("."):
                count += 1
                if count > MAX_FILES:
                    raise broken(str(folder), None, f"the folder has more than {MAX_FILES} files")
                yield Path(base, name)


def guess_format(value: JSON, name: str) -> str | None:
    """The format of a JSON file from its content and name; None when it is unknown.

    One of `wit`, `luis`, `rasa`, `dialogflow_agent`, `dialogflow_package`, `dialogflow_intent`, `dialogflow_entity`
    and `dialogflow_companion`. The rules, and their order, are those of rasa_nlu.
    """
    if isinstance(value, dict):
        if isinstance(value.get("data"), list):
            return "wit"
        for key, kind in (
            ("luis_schema_version", "luis"),
            ("rasa_nlu_data", "rasa"),
            ("supportedLanguages", "dialogflow_agent"),
        ):
            if key in value:
                return kind
        if list(value) == ["version"]:
            return "dialogflow_package"
        if "responses" in value:
            return "dialogflow_intent"
        if "isEnum" in value:
            return "dialogflow_entity"
    if re.search("_usersays_|_entries_", name):
        return "dialogflow_companion"
    return None


def _read(path: Path, language: str) -> TrainingData:
    text, file = read_text(path), str(path)
    try:
        document = Document(text, file)
    except InvalidTrainingData:
        if looks_like_markdown(text):
            return read_markdown(text, file)
        if path.suffix == ".json" or text.lstrip()[:1] in ("{", "["):
            raise
        raise _unknown(file) from None
    kind = guess_format(document.value, path.name)
    if kind is None:
        raise _unknown(file)
    if kind == "rasa":
        return read_rasa(document)
    if kind == "wit":
        return read_wit(document)
    if kind == "luis":
        return read_luis(document)
    if kind == "dialogflow_intent":
        return read_dialogflow_intent(document, _companion(path, "usersays", language))
    if kind == "dialogflow_entity":
        return read_dialogflow_entity(document, _companion(path, "entries", language))
    return TrainingData()


def _companion(path: Path, kind: str, language: str) -> Document | None:
    companion = path.with_name(f"{path.stem}_{kind}_{language}.json")
    return Document(read_text(companion), str(companion)) if companion.is_file() else None


def _unknown(file: str) -> InvalidTrainingData:
    return broken(
        file,
        None,
        f"Unknown data format for file {file}: it is neither JSON of a known layout nor markdown with a section such "
        "as '## intent:greet'; move it out of the folder of training data",
    )
