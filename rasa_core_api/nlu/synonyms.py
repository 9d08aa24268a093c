"""One value for everything that means the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rasa_core_api.nlu.message import Message


class Synonyms:
    """`ner_synonyms`: replaces the values of entities found so far.

    Keys of `synonyms` are lower-case. `processor` is the name that changed entities carry: `ner_synonyms` or, for
    models of rasa_nlu 0.15, `EntitySynonymMapper`.
    """

    name = "ner_synonyms"

    def __init__(self, synonyms: Mapping[str, str], processor: str = "ner_synonyms") -> None:
        self.synonyms = dict(synonyms)
        self.processor = processor

    def process(self, message: Message) -> None:
        """Look up every entity's value as lower-case text, whichever part found it and whatever type it has."""
        if not self.synonyms:
            return
        for entity in message.entities:
            value = self.synonyms.get(str(entity["value"]).lower())
            if value is not None:
                entity["value"] = value
                entity.setdefault("processors", []).append(self.processor)


def learn_synonyms(pairs: Iterable[tuple[str, object]]) -> tuple[dict[str, str], list[str]]:
    """The mapping for (spelling, value) pairs, and warnings about spellings with several values (the last one counts).

    A spelling that is its own value, and one without a value, teaches nothing.
    """
    synonyms: dict[str, str] = {}
    warnings = []
    for spelling, value in pairs:
        if value is None or spelling == str(value):
            continue
        key = spelling.lower()
        if synonyms.get(key, str(value)) != str(value):
            warnings.append(f"the synonym {key!r} has several values; the last one counts")
        synonyms[key] = str(value)
    return synonyms, warnings
