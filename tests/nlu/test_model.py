from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from rasa_core_api.nlu.keyword import KeywordIntents
from rasa_core_api.nlu.message import Message, NetworkComponent
from rasa_core_api.nlu.model import MAX_TEXT, NluModel, NotConnected
from rasa_core_api.nlu.synonyms import Synonyms

EMPTY = {"name": None, "confidence": 0.0}


class Found:
    """A local part that finds one entity."""

    name = "ner_crf"

    def __init__(self, value: str) -> None:
        self._value = value

    def process(self, message: Message) -> None:
        message.entities.append({"value": self._value})


class Slow:
    """A network part that is answered by the test."""

    name = "ner_duckling_http"
    settings: dict[str, Any] = {}
    extractor = "ner_duckling_http"

    def __init__(self) -> None:
        self.asked: list[Message] = []
        self.answer: Deferred[list[dict[str, Any]]] = Deferred()

    def start(self, message: Message) -> Deferred[list[dict[str, Any]]]:
        self.asked.append(message)
        return self.answer


def run(model: NluModel, text: str, **more: Any) -> Deferred[dict[str, Any]]:
    return Deferred.fromCoroutine(model.parse_message(text, **more))


def test_result() -> None:
    """The result has intent, entities and text in this order, and a ranking only if a part ranks."""
    result = NluModel("en", [KeywordIntents(), Found("a"), Found("b")]).parse("hi")
    assert list(result.items()) == [
        ("intent", {"name": "greet", "confidence": 1.0}),
        ("entities", [{"value": "a"}, {"value": "b"}]),
        ("text", "hi"),
    ]


def test_empty_text() -> None:
    """For an empty text no part is asked."""
    slow = Slow()
    model = NluModel("en", [Found("a"), slow])
    assert model.parse("") == {"intent": EMPTY, "entities": [], "text": ""}
    done: list[Any] = []
    run(model, "").addCallback(done.append)
    assert done == [{"intent": EMPTY, "entities": [], "text": ""}] and slow.asked == []


def test_long_text() -> None:
    """Only the beginning of a long text is looked at; the result holds all of it."""
    text = "x" * MAX_TEXT + " hello"
    result = NluModel("en", [KeywordIntents()]).parse(text)
    assert result["intent"]["name"] is None and result["text"] == text


def test_network_part() -> None:
    """A network part is asked first and joined at its place, so that later parts see what it found."""
    slow = Slow()
    assert isinstance(slow, NetworkComponent)
    model = NluModel("en", [Found("first"), slow, Found("last"), Synonyms({"five": "5"})])
    done: list[Any] = []
    run(model, "hi", time=1000).addCallback(done.append)
    assert [message.time for message in slow.asked] == [1000] and done == []
    slow.answer.callback([{"value": "five"}])
    entities = [{"value": "first"}, {"value": "5", "processors": ["ner_synonyms"]}, {"value": "last"}]
    assert done == [{"intent": EMPTY, "entities": entities, "text": "hi"}]


def test_two_network_parts() -> None:
    """All network parts are asked at once, whatever order their answers come in."""
    one, two = Slow(), Slow()
    done: list[Any] = []
    run(NluModel("en", [one, two]), "hi").addCallback(done.append)
    assert one.asked and two.asked
    two.answer.callback([{"value": 2}])
    one.answer.callback([{"value": 1}])
    assert done[0]["entities"] == [{"value": 1}, {"value": 2}]


def test_without_network() -> None:
    """Where no network part is connected, or the caller cannot wait, it finds nothing."""
    model = NluModel("en", [NotConnected("ner_duckling_http", {}, "ner_duckling_http"), Slow(), Found("a")])
    assert model.parse("hi")["entities"] == [{"value": "a"}]


def test_odd_texts() -> None:
    """Lone surrogates and control characters are texts like others."""
    text = "\ud800\x00\x1f\udfff hello"
    assert NluModel("en", [KeywordIntents()]).parse(text)["text"] == text
