from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasa_core_api.exceptions import InvalidTrainingData
from rasa_core_api.nlu.patterns import (
    MAX_SEARCHED,
    LookupPattern,
    RegexPattern,
    compile_pattern,
    lookup_expression,
)
from tests.cpu import cpu_limit


def test_plain_expression() -> None:
    """An ordinary expression reports its first match."""
    pattern = compile_pattern("zipcode", "[0-9]{5}")
    assert pattern.search("I live in 10115 Berlin, not 80331") == (10, 15)
    assert pattern.search("no digits") is None
    assert pattern.pattern == "[0-9]{5}"


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(\w+\s?)*!", r"(x+x+)+y", r"(.*)*=", r"(a|a|a)*c", r"(\d+)*\1x"])
def test_catastrophic_expressions(pattern: str) -> None:
    """No expression stalls, whatever the text: it is searched in linear time or refused by name."""
    try:
        compiled = compile_pattern("bad", pattern)
    except InvalidTrainingData as error:
        assert "'bad'" in str(error)
        return
    with cpu_limit():
        for text in ("a" * 5000 + "!", "x" * 5000, "1" * 5000, "a b " * 1000):
            compiled.search(text)


def test_reference_to_a_group() -> None:
    """An expression for the backtracking engine alone is used while that is cheap, else refused with the reason."""
    assert compile_pattern("twice", r"(\w)\1").search("book") == (1, 3)
    with pytest.raises(InvalidTrainingData, match="'twice' cannot be used: it can take very long"):
        compile_pattern("twice", r"(\w+\s*)+\1")


@pytest.mark.parametrize(
    ("pattern", "reason"), [("[a-", "unterminated"), ("(" * 5000 + ")" * 5000, ""), ("a" * 30000, "30000")]
)
def test_unusable_expressions(pattern: str, reason: str) -> None:
    """What cannot be parsed is refused with the pattern's name and the parser's reason."""
    with pytest.raises(InvalidTrainingData, match=f"'broken'.*{reason}"):
        compile_pattern("broken", pattern)


def test_flags_in_the_middle() -> None:
    """Flags that are not at the start hold for the whole expression, as they did in Python 3.6."""
    assert compile_pattern("city", "new (?i)york").search("NEW YORK") == (0, 8)


def test_long_text_is_cut() -> None:
    """Nothing behind the limit is searched, by neither engine."""
    for pattern in ("[0-9]{5}", r"(\d+)+"):
        assert compile_pattern("zip", pattern).search(" " * MAX_SEARCHED + "12345") is None


@given(st.text(alphabet="ab1 -", max_size=500))
def test_both_engines_agree(text: str) -> None:
    """The place of a match does not depend on the text's length, that is, on the engine."""
    pattern = r"\w+-(?:\d+ ?)+b"
    expected = re.search(pattern, text[:60])
    assert RegexPattern("p", pattern).search(text[:60]) == (expected.span() if expected else None)


@given(st.text(alphabet="ab1 'é", max_size=600))
def test_findall(text: str) -> None:
    """All matches are those of the standard library, within the bounds."""
    for pattern in (r"(?u)\b\w\w+\b", r"\w+(?:'\w+)*", r"a*", r"\b(\w)\w*\b", r"(?<!1)(a+) |b"):
        assert RegexPattern("p", pattern).findall(text) == re.findall(pattern, text)


@given(st.text(alphabet="ab1 'é", max_size=600))
def test_all_matches(text: str) -> None:
    """All matches stand where the standard library finds them, whichever engine looks."""
    for pattern in (r"\w+(?:'\w+)*", r"(?:a+b?)+", r"1|ab"):
        expected = [match.span() for match in re.finditer(pattern, text)]
        assert RegexPattern("p", pattern).spans(text) == expected
    expected = [match.span() for match in re.finditer(lookup_expression(["ab", "1", "a b"]), text)]
    assert LookupPattern(["ab", "1", "a b"]).spans(text) == expected


def test_all_matches_are_bounded() -> None:
    """An expression that looks at the whole text for each match stops after enough of them."""
    pattern = RegexPattern("p", r"a(?:.*)*b|a")
    with cpu_limit():
        assert len(pattern.spans("a" * 2000)) < 2000
        assert RegexPattern("p", r"a+?").spans("a" * 2000) == [(place, place + 1) for place in range(2000)]


WORDS = st.text(alphabet="aAbßıſİ$ _-", min_size=1, max_size=4)


@given(st.lists(WORDS, min_size=1, max_size=6), st.text(alphabet="aAbBßıiISſsİ$ _-", max_size=20))
def test_lookup_equals_its_expression(elements: list[str], text: str) -> None:
    """A table finds what the expression of the original finds in the same text."""
    expected = re.search(lookup_expression(elements), text)
    assert LookupPattern(elements).search(text) == (expected.span() if expected else None)


def test_lookup_from_an_old_model() -> None:
    """The generated expression of a model is recognised, also with the escapes of Python 3.6."""
    pattern = compile_pattern("cities", r"(?i)(\bNew\ York\b|\bK\öln\b|\bSt\.\ Ives\b)")
    assert isinstance(pattern, LookupPattern)
    assert pattern.search("from köln to new york") == (5, 9)
    assert isinstance(compile_pattern("x", r"(?i)(\ba+\b|\bb\b)"), RegexPattern)


def test_large_lookup() -> None:
    """Ten thousand elements cost no more than one."""
    pattern = LookupPattern(f"street {number}" for number in range(10_000))
    with cpu_limit():
        for _ in range(10_000):
            assert pattern.search("he lives in Street 7777 or so") == (12, 23)
