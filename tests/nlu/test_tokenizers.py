from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasa_core_api.nlu.message import Message
from rasa_core_api.nlu.model import MAX_TEXT
from rasa_core_api.nlu.tokenizers import MAX_TOKENS, WhitespaceTokenizer, tokenize


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello", [("hello", 0, 5)]),
        ("Hi, there!", [("Hi", 0, 2), ("there", 4, 9)]),
        ("hi,there", [("hi,there", 0, 8)]),
        ("pay 10.000 to a@b.c.", [("pay", 0, 3), ("10.000", 4, 10), ("to", 11, 13), ("a@b.c", 14, 19)]),
        ("(hello) don't", [("(hello)", 0, 7), ("don't", 8, 13)]),
        ("what?!... ok", [("what", 0, 4), ("ok", 10, 12)]),
        ("!!!", []),
        ("   ", []),
        ("", []),
        ("x.!y", [("x.!y", 0, 4)]),
    ],
)
def test_words_and_places(text: str, expected: list[tuple[str, int, int]]) -> None:
    """Marks at the end of a word vanish, marks inside it stay, and every word knows its place."""
    assert [(token.text, token.offset, token.end) for token in tokenize(text)] == expected


@given(st.text(alphabet="ab .,!?\n\t(é'", max_size=40))
def test_same_as_the_plain_rule(text: str) -> None:
    """The linear-time expression cuts exactly as the simple rule does."""
    words = re.sub(r"[.,!?]+(\s|$)", " ", text).split()
    tokens = tokenize(text)
    assert [token.text for token in tokens] == words
    assert all(text[token.offset : token.end] == token.text for token in tokens)


def test_long_runs_of_marks() -> None:
    """A million marks that end in a letter are one word and cost no more than any other text."""
    text = "!" * 1_000_000 + "x"
    assert [len(token.text) for token in tokenize(text)] == [1_000_001]


def test_many_words() -> None:
    """A text of the greatest length that models look at is cut whole, a longer one only in part."""
    assert len(tokenize("a " * (MAX_TEXT // 2))) == MAX_TEXT // 2 == MAX_TOKENS
    assert len(tokenize("a " * MAX_TEXT)) == MAX_TOKENS


def test_component() -> None:
    """The component stores the words in the message."""
    message = Message("good morning")
    WhitespaceTokenizer().process(message)
    assert [token.text for token in message.tokens] == ["good", "morning"]
