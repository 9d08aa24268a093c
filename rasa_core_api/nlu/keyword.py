"""Intents from a handful of words."""

from __future__ import annotations

from rasa_core_api.nlu.message import Message

_KEYWORDS = (("greet", ("hello", "hi", "hey")), ("goodbye", ("bye", "goodbye")))


class KeywordIntents:
    """`intent_classifier_keyword`: knows `greet` and `goodbye`, wherever a keyword stands (so "this" is a greeting)."""

    name = "intent_classifier_keyword"

    def process(self, message: Message) -> None:
        """Set the intent, null where no keyword occurs; the confidence is always 1."""
        text = message.text.lower()
        for intent, words in _KEYWORDS:
            if any(word in text for word in words):
                message.intent = {"name": intent, "confidence": 1.0}
                return
        message.intent = {"name": None, "confidence": 1.0}
