"""The keyword classifier knows two intents and is always certain."""

from __future__ import annotations

import pytest

from rasa_core_api.nlu.keyword import KeywordIntents
from rasa_core_api.nlu.message import Message, as_parse


@pytest.mark.parametrize(
    ("text", "intent"),
    [("Hello there", "greet"), ("this is it", "greet"), ("Goodbye", "goodbye"), ("bye, HEY", "greet"), ("no", None)],
)
def test_keywords(text: str, intent: str | None) -> None:
    """A keyword counts anywhere in the text and in any case; there is no ranking."""
    message = Message(text)
    KeywordIntents().process(message)
    assert as_parse(message) == {"intent": {"name": intent, "confidence": 1.0}, "entities": [], "text": text}
