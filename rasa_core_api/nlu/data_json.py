"""Training data in JSON: rasa's own layout, and what wit, LUIS and Dialogflow export.

Places of errors are lines of the file: `Document` remembers the text, and finds the line of a member when it is wanted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NoReturn

from rasa_core_api import jsontext
from rasa_core_api.constants import JSON
from rasa_core_api.nlu.data import MAX_ELEMENTS, Example, Lookup, TrainingData, broken, clean

_decoder = json.JSONDecoder()
_BLANKS = " \t\n\r"


class Document:
    """A JSON file that has been read: `value`, and the lines of its members. `file` is for messages."""

    def __init__(self, text: str, file: str) -> None:
        """Raises InvalidTrainingData, with the line, for text that is not JSON."""
        self.file = file
        self._text = text
        try:
            self.value: JSON = _decoder.decode(jsontext.check_text(text.encode("utf-8", "surrogatepass")))
        except json.JSONDecodeError as error:
            raise broken(file, error.lineno, f"this is not JSON: {error.msg}") from None
        except (ValueError, RecursionError) as error:
            raise broken(file, None, f"this is not JSON: {error}") from None

    def line_of(self, *path: str | int) -> int:
        """The line on which a member begins, or the closest one that exists around it."""
        text, place = self._text, self._skip(0)
        for key in path:
            found = self._enter(place, key)
            if found is None:
                break
            place = found
        return text.count("\n", 0, place) + 1

    def wrong(self, reason: str, *path: str | int) -> NoReturn:
        """Raise InvalidTrainingData for a member."""
        where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")
        raise broken(self.file, self.line_of(*path), f"{where}: {reason}" if where else reason)

    def _skip(self, place: int) -> int:
        while self._text[place : place + 1] and self._text[place] in _BLANKS + "\ufeff":
            place += 1
        return place

    def _enter(self, place: int, key: str | int) -> int | None:
        opening = self._text[place]
        if opening not in "[{" or (opening == "[") != isinstance(key, int):
            return None
        place, number = self._skip(place + 1), 0
        while self._text[place] not in "]}":
            name: str | int = number
            if opening == "{":
                name, place = _decoder.raw_decode(self._text, place)
                place = self._skip(self._skip(place) + 1)
            if name == key:
                return place
            _, place = _decoder.raw_decode(self._text, place)
            place = self._skip(place)
            if self._text[place] == ",":
                place = self._skip(place + 1)
            number += 1
        return None

    # checked access: the value at a path, of a type

    def text(self, value: JSON, *path: str | int) -> str:
        """A member that has to be a text."""
        if not isinstance(value, str):
            self.wrong(f"a text is wanted, not {_kind(value)}", *path)
        return clean(value)

    def items(self, value: JSON, *path: str | int) -> list[JSON]:
        """A member that has to be a list; a missing one is empty."""
        if value is None:
            return []
        if not isinstance(value, list):
            self.wrong(f"a list is wanted, not {_kind(value)}", *path)
        return value

    def members(self, value: JSON, *path: str | int) -> dict[str, JSON]:
        """A member that has to be an object."""
        if not isinstance(value, dict):
            self.wrong(f"an object is wanted, not {_kind(value)}", *path)
        return value

    def place(self, value: JSON, *path: str | int) -> int:
        """A member that has to be a place in a text."""
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            self.wrong("a whole number from 0 on is wanted", *path)
        return value


def _kind(value: JSON) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "nothing"}
    return names.get(type(value), "a number")


def read_rasa(document: Document) -> TrainingData:
    """Rasa's layout: `rasa_nlu_data` with examples, regexes, lookup tables and synonyms.

    Raises InvalidTrainingData for what its schema forbids, and for entities that lie outside their text.
    """
    data = TrainingData()
    root = document.members(document.value)
    for key in root:
        if key != "rasa_nlu_data":
            document.wrong(f"only 'rasa_nlu_data' is allowed beside it, not {key!r}", key)
    top = "rasa_nlu_data"
    content = document.members(root[top], top)
    for key in ("common_examples", "intent_examples", "entity_examples"):
        if key != "common_examples" and content.get(key):
            data.warnings.append(f"{document.file}: {key!r} is an old spelling; move its examples to 'common_examples'")
        for number, item in enumerate(document.items(content.get(key), top, key)):
            data.examples.append(_example(document, item, top, key, number))
    for number, item in enumerate(document.items(content.get("regex_features"), top, "regex_features")):
        at = (top, "regex_features", number)
        item = document.members(item, *at)
        name, pattern = (document.text(item.get(key), *at, key) for key in ("name", "pattern"))
        data.add_regex(name, pattern, document.file, document.line_of(*at))
    for number, item in enumerate(document.items(content.get("lookup_tables"), top, "lookup_tables")):
        data.lookups.append(_lookup(document, item, top, "lookup_tables", number))
    for number, item in enumerate(document.items(content.get("entity_synonyms"), top, "entity_synonyms")):
        _synonyms(document, data, item, top, "entity_synonyms", number)
    return data


def _example(document: Document, item: JSON, *at: str | int) -> Example:
    item = document.members(item, *at)
    text = document.text(item.get("text"), *at, "text")
    if not text:
        document.wrong("the text has no character", *at, "text")
    intent = item.get("intent")
    if intent is not None:
        intent = document.text(intent, *at, "intent").strip()
    entities = []
    for number, entity in enumerate(document.items(item.get("entities"), *at, "entities")):
        here = (*at, "entities", number)
        entity = document.members(entity, *here)
        start = document.place(entity.get("start"), *here, "start")
        end = document.place(entity.get("end"), *here, "end")
        name = document.text(entity.get("entity"), *here, "entity")
        if not start < end <= len(text):
            document.wrong(f"{start} to {end} is no part of the text, which has {len(text)} characters", *here)
        known = {"start": start, "end": end, "value": _cleaned(entity.get("value", text[start:end])), "entity": name}
        entities.append({**known, **{key: value for key, value in entity.items() if key not in known}})
    return Example(text, intent, tuple(entities))


def _cleaned(value: JSON) -> JSON:
    return clean(value) if isinstance(value, str) else value


def _lookup(document: Document, item: JSON, *at: str | int) -> Lookup:
    item = document.members(item, *at)
    name, elements = document.text(item.get("name"), *at, "name"), item.get("elements")
    if isinstance(elements, str):
        return Lookup(name, elements, document.file, document.line_of(*at))
    if elements is None or len(document.items(elements, *at, "elements")) > MAX_ELEMENTS:
        document.wrong(f"a list of at most {MAX_ELEMENTS} texts, or the name of a file, is wanted", *at, "elements")
    return Lookup(name, tuple(document.text(text, *at, "elements", place) for place, text in enumerate(elements)))


def _synonyms(document: Document, data: TrainingData, item: JSON, *at: str | int) -> None:
    item = document.members(item, *at)
    value = document.text(item.get("value"), *at, "value")
    for place, text in enumerate(document.items(item.get("synonyms"), *at, "synonyms")):
        data.add_synonym(document.text(text, *at, "synonyms", place), value)


def write_json(data: TrainingData) -> str:
    """The data set as rasa JSON."""
    return json.dumps(data.as_json(), indent=2) + "\n"


def read_wit(document: Document) -> TrainingData:
    """wit.ai: `data` with texts; the entity called `intent` gives the intent, values may stand in double quotes."""
    data = TrainingData()
    for number, item in enumerate(document.items(document.value["data"], "data")):
        item = document.members(item, "data", number)
        intent, entities = None, []
        for place, entity in enumerate(document.items(item.get("entities"), "data", number, "entities")):
            here = ("data", number, "entities", place)
            entity = document.members(entity, *here)
            value = entity.get("value")
            value = value.strip('"') if isinstance(value, str) else value
            if entity.get("entity") == "intent":
                intent = value
            elif entity.get("start") is not None and entity.get("end") is not None:
                entities.append({**entity, "value": value})
        data.examples.append(_example(document, _raw(item.get("text"), intent, entities), "data", number))
    return data


def read_luis(document: Document) -> TrainingData:
    """LUIS, schema version 2: `utterances`, whose `endPos` is the last character, and active `regex_features`."""
    data = TrainingData()
    root: Mapping[str, JSON] = document.value
    if not str(root["luis_schema_version"]).startswith("2"):
        document.wrong("only version 2 can be read; export the app again", "luis_schema_version")
    for number, item in enumerate(document.items(root.get("utterances"), "utterances")):
        at = ("utterances", number)
        item, entities = document.members(item, *at), []
        for place, entity in enumerate(document.items(item.get("entities"), *at, "entities")):
            here = (*at, "entities", place)
            entity = document.members(entity, *here)
            start = document.place(entity.get("startPos"), *here, "startPos")
            end = document.place(entity.get("endPos"), *here, "endPos") + 1
            entities.append({"start": start, "end": end, "entity": entity.get("entity")})
        data.examples.append(_example(document, _raw(item.get("text"), item.get("intent"), entities), *at))
    for number, item in enumerate(document.items(root.get("regex_features"), "regex_features")):
        at = ("regex_features", number)
        item = document.members(item, *at)
        if item.get("activated"):
            name, pattern = (document.text(item.get(key), *at, key) for key in ("name", "pattern"))
            data.add_regex(name, pattern, document.file, document.line_of(*at))
    return data


def _raw(text: JSON, intent: JSON, entities: list[dict[str, JSON]]) -> dict[str, JSON]:
    return {"text": text, "intent": intent, "entities": entities}


def read_dialogflow_intent(document: Document, companion: Document | None) -> TrainingData:
    """A Dialogflow intent with its `_usersays_` file: texts in chunks, where a chunk with an alias is an entity."""
    data = TrainingData()
    if companion is None:
        return data
    name = document.text(document.value.get("name"), "name")
    for number, item in enumerate(companion.items(companion.value)):
        chunks = companion.items(companion.members(item, number).get("data"), number, "data")
        text, entities = "", []
        for place, chunk in enumerate(chunks):
            chunk = companion.members(chunk, number, "data", place)
            piece = companion.text(chunk.get("text"), number, "data", place, "text")
            kind = chunk.get("alias", chunk.get("meta"))
            if kind is not None and piece and kind != "@sys.ignore":
                entities.append({"start": len(text), "end": len(text) + len(piece), "value": piece, "entity": kind})
            text += piece
        if text:
            data.examples.append(_example(companion, _raw(text, name, entities), number))
    return data


def read_dialogflow_entity(document: Document, companion: Document | None) -> TrainingData:
    """A Dialogflow entity with its `_entries_` file: values and their synonyms."""
    data = TrainingData()
    for number, item in enumerate([] if companion is None else companion.items(companion.value)):
        _synonyms(companion or document, data, item, number)
    return data
