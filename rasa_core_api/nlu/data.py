"""Training data as values, whatever file they came from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from attrs import define, field, frozen

from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import InvalidTrainingData

MIN_EXAMPLES = 2  # of an intent or entity; fewer are a warning
MAX_FILE = 64 * 1024 * 1024  # bytes of one file
MAX_ELEMENTS = 500_000  # of one lookup table

_SURROGATES = re.compile("[\ud800-\udfff]")


def broken(file: str, line: int | None, reason: str) -> InvalidTrainingData:
    """The error for a place in a file of training data."""
    place = file if line is None else f"{file}, line {line}"
    return InvalidTrainingData(f"{place}: {reason}", file=file, line=line, reason=reason)


def clean(text: str) -> str:
    """The text with each lone surrogate, which no file can hold, replaced by U+FFFD; no place shifts."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


@frozen
class Example:
    """One text with its intent (None: it teaches entities only) and its entities.

    An entity is a mapping with `start`, `end` (places in the text), `value`, `entity` and whatever else its file said.
    """

    text: str
    intent: str | None = None
    entities: tuple[Mapping[str, JSON], ...] = ()

    def as_json(self) -> dict[str, JSON]:
        """The example as rasa JSON has it."""
        result: dict[str, JSON] = {"text": self.text}
        if self.intent is not None:
            result["intent"] = self.intent
        if self.entities:
            result["entities"] = [dict(entity) for entity in self.entities]
        return result


@frozen
class Lookup:
    """A lookup table: its elements, or the file with one element per line, and where the data names that file."""

    name: str
    elements: tuple[str, ...] | str
    file: str = field(default="", eq=False)
    line: int | None = field(default=None, eq=False)


@define
class TrainingData:
    """A data set. `regexes` are mappings with `name` and `pattern`, `synonyms` map a surface text to its value."""

    examples: list[Example] = field(factory=list)
    regexes: list[Mapping[str, str]] = field(factory=list)
    lookups: list[Lookup] = field(factory=list)
    synonyms: dict[str, str] = field(factory=dict)
    warnings: list[str] = field(factory=list, eq=False)  # what the readers noticed, for the operator
    places: dict[tuple[str, str], tuple[str, int]] = field(factory=dict, eq=False)  # name, pattern: file, line

    @classmethod
    def merged(cls, parts: Iterable[TrainingData]) -> TrainingData:
        """All data sets in one; of two values for a synonym the later wins, with a warning."""
        whole = cls()
        for part in parts:
            whole.examples += part.examples
            whole.regexes += part.regexes
            whole.lookups += part.lookups
            whole.warnings += part.warnings
            whole.places.update(part.places)
            for text, value in part.synonyms.items():
                whole.add_synonym(text, value)
        return whole

    def add_regex(self, name: str, pattern: str, file: str, line: int) -> None:
        """Add a regular expression. Whether it can be used is seen when a part wants it; then its place is told."""
        self.regexes.append({"name": name, "pattern": pattern})
        self.places[name, pattern] = file, line

    def with_examples(self, examples: list[Example]) -> TrainingData:
        """The same data with other examples."""
        return TrainingData(examples, self.regexes, self.lookups, self.synonyms, places=self.places)

    def add_synonym(self, text: str, value: str) -> None:
        """Let `text` stand for `value`; an earlier other value is replaced with a warning."""
        known = self.synonyms.get(text, value)
        if known != value:
            self.warnings.append(f"the synonym {text!r} stands for {known!r} and for {value!r}; the last one is used")
        self.synonyms[text] = value

    def intent_examples(self) -> list[Example]:
        """Examples that have an intent."""
        return [example for example in self.examples if example.intent]

    def entity_examples(self) -> list[Example]:
        """Examples that have entities."""
        return [example for example in self.examples if example.entities]

    def intents(self) -> list[str]:
        """Names of the intents, sorted."""
        return sorted({example.intent for example in self.examples if example.intent})

    def entities(self) -> list[str]:
        """Names of the entities, sorted."""
        return sorted({entity["entity"] for example in self.examples for entity in example.entities})

    def sorted_regexes(self) -> list[Mapping[str, str]]:
        """Regexes in the order in which models hold them."""
        return sorted(self.regexes, key=lambda item: f"{item['name']}+{item['pattern']}")

    def remarks(self) -> list[str]:
        """What is doubtful about the data: the readers' warnings, rare intents and entities, empty names."""
        found = list(self.warnings)
        intents = Counter(example.intent for example in self.examples if example.intent is not None)
        if "" in intents:
            found.append(f"{intents.pop('')} examples have an empty intent name")
        found += _rare("intent", intents)
        found += _rare(
            "entity", Counter(str(entity["entity"]) for example in self.examples for entity in example.entities)
        )
        return found

    def with_lookups_read(self, roots: Sequence[Path]) -> TrainingData:
        """The same data with the elements of lookup tables that name a file, one element per line.

        A relative name is looked for under each of `roots` and beside the file that mentions it. Without roots no
        file is opened (for data that came with a model) and such tables are left out with a warning. Raises
        InvalidTrainingData when the file cannot be read.
        """
        result = TrainingData(list(self.examples), list(self.regexes), [], dict(self.synonyms), list(self.warnings))
        result.places = self.places
        for lookup in self.lookups:
            if not isinstance(lookup.elements, str):
                result.lookups.append(lookup)
            elif not roots:
                result.warnings.append(f"the lookup table {lookup.name!r} names the file {lookup.elements!r}: left out")
            else:
                folders = [*roots, Path(lookup.file).parent] if lookup.file else list(roots)
                result.lookups.append(Lookup(lookup.name, _elements(lookup, folders)))
        return result

    def as_json(self) -> dict[str, JSON]:
        """The data set as rasa JSON: synonyms grouped by value, those that stand for themselves left out."""
        groups: dict[str, list[str]] = {}
        for text, value in self.synonyms.items():
            if text != value:
                groups.setdefault(value, []).append(text)
        return {
            "rasa_nlu_data": {
                "common_examples": [example.as_json() for example in self.examples],
                "regex_features": [dict(item) for item in self.sorted_regexes()],
                "lookup_tables": [
                    {
                        "name": item.name,
                        "elements": item.elements if isinstance(item.elements, str) else [*item.elements],
                    }
                    for item in self.lookups
                ],
                "entity_synonyms": [{"value": value, "synonyms": texts} for value, texts in groups.items()],
            }
        }


def _rare(kind: str, counts: Counter[str]) -> list[str]:
    return [
        f"the {kind} {name!r} has only {count} example{'s' * (count != 1)}"
        for name, count in sorted(counts.items())
        if count < MIN_EXAMPLES
    ]


def _elements(lookup: Lookup, folders: Sequence[Path]) -> tuple[str, ...]:
    path = next(
        (folder / str(lookup.elements) for folder in folders if (folder / str(lookup.elements)).is_file()), None
    )
    if path is None:
        reason = f"the lookup table {lookup.name!r} names the file {lookup.elements!r}, which is not there"
        raise broken(lookup.file or "lookup tables", lookup.line, reason)
    text = read_text(path)
    elements = tuple(line.strip() for line in text.splitlines() if line.strip())
    if len(elements) > MAX_ELEMENTS:
        raise broken(str(path), None, f"a lookup table may have {MAX_ELEMENTS} elements, this one has {len(elements)}")
    return elements


def read_text(path: Path) -> str:
    """The text of a file. Raises InvalidTrainingData when it cannot be read, is too large or is not UTF-8."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_FILE + 1)
    except OSError as error:
        raise broken(str(path), None, f"it cannot be read: {error.strerror or error}") from None
    if len(raw) > MAX_FILE:
        raise broken(str(path), None, f"it is larger than {MAX_FILE // 1024 // 1024} MB")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise broken(str(path), raw.count(b"\n", 0, error.start) + 1, "the bytes here are not UTF-8") from None
