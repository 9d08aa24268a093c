"""Values of entities are replaced by what they mean."""

from __future__ import annotations

from typing import Any

from rasa_core_api.nlu.message import Message
from rasa_core_api.nlu.synonyms import Synonyms, learn_synonyms


def found(*values: Any) -> Message:
    return Message("x", entities=[{"value": value, "start": 0, "end": 1, "extractor": "e"} for value in values])


def test_replacing() -> None:
    """Whatever the case or the type of a value, its synonym takes its place and the change is signed."""
    message = found("NYC", "Rome", 5, {"to": None, "from": 3})
    Synonyms({"nyc": "New York", "5": "five"}).process(message)
    assert [entity["value"] for entity in message.entities] == ["New York", "Rome", "five", {"to": None, "from": 3}]
    assert [entity.get("processors") for entity in message.entities] == [["ner_synonyms"], None, ["ner_synonyms"], None]
    assert message.entities[0]["extractor"] == "e"


def test_signatures() -> None:
    """Signatures are appended to those of other processors."""
    message = found("nyc")
    message.entities[0]["processors"] = ["other"]
    Synonyms({"nyc": "New York"}, "EntitySynonymMapper").process(message)
    assert message.entities[0]["processors"] == ["other", "EntitySynonymMapper"]


def test_learning() -> None:
    """Spellings are learnt in lower case; the last of several values counts, with a warning."""
    mapping, warnings = learn_synonyms(
        [("NYC", "New York"), ("Rome", "Rome"), ("five", 5), ("x", None), ("nyc", "Big Apple"), ("five", 5)]
    )
    assert mapping == {"nyc": "Big Apple", "five": "5"}
    assert len(warnings) == 1
    assert "'nyc'" in warnings[0]
