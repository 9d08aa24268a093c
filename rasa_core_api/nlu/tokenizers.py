"""Cutting a text into words."""

from __future__ import annotations

import re

from rasa_core_api.nlu.message import Message, Token

MAX_TOKENS = 6000  # words of one text that are looked at: as many as the longest text that models look at can have

# The look-behind keeps long runs of marks linear: only the first mark of a run is tried.
_PUNCTUATION = re.compile(r"(?<![.,!?])[.,!?]+(?:\s|$)")


def tokenize(text: str) -> list[Token]:
    """Words between blanks, without `.`, `,`, `!`, `?` at their ends, in the text's own case.

    A run of these four marks vanishes only before a blank or the end of the text, so `10.000` and `a@b.c` stay
    whole and `hi,there` is one word. Words after the first `MAX_TOKENS` are left out.
    """
    tokens = []
    end = 0
    for word in _PUNCTUATION.sub(" ", text).split(None, MAX_TOKENS)[:MAX_TOKENS]:
        offset = text.index(word, end)
        end = offset + len(word)
        tokens.append(Token(word, offset, end))
    return tokens


class WhitespaceTokenizer:
    """`tokenizer_whitespace`: fills `message.tokens`."""

    name = "tokenizer_whitespace"

    def process(self, message: Message) -> None:
        """Cut the message's text."""
        message.tokens = tokenize(message.text)
