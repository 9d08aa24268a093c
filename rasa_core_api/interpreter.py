"""Understanding texts: the interface of interpreters, and messages that spell their intent."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from typing import ClassVar

from twisted.logger import Logger

from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import MessageFailed
from rasa_core_api.jsontext import decode
from rasa_core_api.releases import Release

log = Logger()

#: Separators in a message beyond which its entities are left out: each costs some microseconds.
MAX_SEPARATORS = 20_000

#: A run of a bracket's characters and what ends it; the value behind a name. Each is tried once a place, so that
#: a long text takes no longer than its length.
_NAME = re.compile(r"([^=,\[\]]*)([=,\[\]]?)")
_VALUE = re.compile(r"[^,\]]*")


class Interpreter(ABC):
    """Turns a text into parse data: `intent`, `entities`, `intent_ranking` and `text`."""

    #: Whether it is a trained model in this process.
    embedded: ClassVar[bool] = False

    @abstractmethod
    async def parse(self, text: str, message_id: str | None = None) -> dict[str, JSON]:
        """The parse data of a text; `message_id` is passed on to NLU servers that want it."""

    async def stop(self) -> None:
        """Give up what the interpreter holds."""
        return None


class RegexInterpreter(Interpreter):
    """Reads `/intent@0.9{"entity": "value"}`, by the rules of a release."""

    def __init__(self, release: Release) -> None:
        self._release = release
        stop = "{@" if release.at_sign_unmatched and release.confidence_syntax else "{"
        confidence = r"(@[0-9.]+)?" if release.confidence_syntax else "()"
        self._pattern = re.compile(f"[{release.prefixes}]?([^{stop}]+){confidence}" + r"(\{.+)?")

    async def parse(self, text: str, message_id: str | None = None) -> dict[str, JSON]:
        return self.parse_sync(text)

    def parse_sync(self, text: str) -> dict[str, JSON]:
        """The parse data of a text. Raises `MessageFailed` where the release did."""
        release = self._release
        if release.bracket_syntax and "[" in text and "{" not in text[: text.index("[")]:
            name, confidence, entities = self._brackets(text)
        else:
            match = self._pattern.match(text)
            if match is None:
                name, confidence, entities = None, release.unmatched_confidence, []
            else:
                name = match[1].strip()
                confidence = _confidence(match[2]) if match[2] else 1.0
                entities = _entities(match) if match[3] else []
        shown = text
        if release.adds_slash and text[:1] not in tuple(release.prefixes):
            shown = f"/{text}"
        intent = {"name": name, "confidence": confidence}
        return {"text": shown, "intent": intent, "intent_ranking": [dict(intent)], "entities": entities}

    def _brackets(self, text: str) -> tuple[str | None, float, list[dict[str, JSON]]]:
        """The syntax `intent[name=value,...]` of the first releases."""
        opening = text.index("[")
        head = text[1 if text[0] in self._release.prefixes else 0 : opening]
        if not head:
            if self._release.bracket_without_intent_fails:
                raise MessageFailed("a message in brackets needs an intent in front of them")
            return None, self._release.unmatched_confidence, []
        closing = text.find("]", opening)
        entities = _pairs(text, opening + 1, closing if closing >= 0 else len(text))
        return head.lower(), 1.0, entities


def _too_many(text: str, start: int, end: int) -> bool:
    """Whether there is so much to read that others would wait for it."""
    if end - start <= MAX_SEPARATORS or sum(text.count(mark, start, end) for mark in ",=[{") <= MAX_SEPARATORS:
        return False
    log.warn("the entities of an intent message are too many and left out")
    return True


def _pairs(text: str, position: int, end: int) -> list[dict[str, JSON]]:
    """The entities between two positions; each has the span of its value."""
    entities: list[dict[str, JSON]] = []
    if _too_many(text, position, end):
        return entities
    while position < end:
        name = _NAME.match(text, position, end)
        assert name is not None
        position = name.end()
        if name[1] and name[2] == "=":
            value = _VALUE.match(text, position, end)
            assert value is not None
            position = value.end()
            entities.append({"entity": name[1].strip(), "start": value.start(), "end": position, "value": value[0]})
    return entities


def _confidence(text: str) -> float:
    """The number behind the sign; 0.0 for what is none or beyond a float."""
    try:
        confidence = float(text[1:])
    except ValueError:
        return 0.0
    return confidence if math.isfinite(confidence) else 0.0


def _entities(match: re.Match[str]) -> list[dict[str, JSON]]:
    """The entities of the JSON part; each has the span of the whole part."""
    if _too_many(match.string, *match.span(3)):
        return []
    try:
        values = decode(match[3].encode("utf-8"))
    except ValueError as error:
        log.warn("the entities of an intent message are no JSON and left out: {reason}", reason=type(error).__name__)
        return []
    if not isinstance(values, dict):
        log.warn("the entities of an intent message are no JSON object and left out")
        return []
    start, end = match.span(3)
    return [
        {"entity": name, "start": start, "end": end, "value": value}
        for name, items in values.items()
        for value in (items if isinstance(items, list) else [items])
    ]
