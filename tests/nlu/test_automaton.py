from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasa_core_api.nlu.automaton import Automaton, NotRegular, parser
from tests.cpu import cpu_limit

# not empty: Python's engine before 3.14 finds no \B in an empty text
TEXTS = st.text(alphabet="aAb1 _\nß-", min_size=1, max_size=14)


def build(pattern: str, flags: int = 0) -> Automaton:
    compiled = re.compile(pattern, flags)
    return Automaton(parser.parse(pattern, flags), compiled.flags)


def expressions() -> st.SearchStrategy[str]:
    simple = ["a", "b", "A", ".", r"\d", r"\w", r"\s", "[ab]", "[^a]", "[a-c1]", r"[\d_-]", r"[^\w]", "(?i:b)"]
    places = [r"\b", r"\B", "^", "$", r"\A", r"\Z", "(?=a)", "(?!b)", "(?<=a)", "(?<!b)"]
    atoms = st.sampled_from([*simple, *places])

    def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        repeated = st.sampled_from(["*", "+", "?", "*?", "+?", "??", "{2}", "{1,2}", "{0,2}?", "{1,}"])
        # a repeated group always matches something: what becomes of empty rounds is nobody's contract
        return st.one_of(
            st.tuples(inner, inner).map("".join),
            st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
            st.tuples(st.sampled_from(["a", "b", r"\w", "."]), inner, repeated).map(
                lambda parts: f"(?:{parts[0]}{parts[1]}){parts[2]}"
            ),
            st.tuples(st.sampled_from(["a", r"\d", r"\s", "[^a]", "."]), repeated).map("".join),
        )

    return st.recursive(atoms, larger, max_leaves=8)


@settings(max_examples=400, deadline=None)
@given(expressions(), st.sampled_from([0, re.IGNORECASE, re.MULTILINE, re.DOTALL, re.ASCII]), TEXTS)
def test_same_match_as_the_standard_engine(pattern: str, flags: int, text: str) -> None:
    """The first match stands where Python's engine finds it."""
    expected = re.search(pattern, text, flags)
    assert build(pattern, flags).search(text) == (expected.span() if expected else None)


@pytest.mark.parametrize(
    "pattern", [r"(\d+\s*)+", r"(a|ab)(c|bcd)?", r"(a*)*b", r"(|a)*b", r"\w+@\w+\.\w{2,3}", r"(?:a?){5}a{5}"]
)
@pytest.mark.parametrize("text", ["", "a", "abcd", "12 34 x", "me@home.org.", "aaaaaab", "aaaaa"])
def test_usual_expressions(pattern: str, text: str) -> None:
    """Expressions people write give the standard engine's match, also from a later place on."""
    automaton = build(pattern)
    for place in range(len(text) + 1):
        expected = re.compile(pattern).search(text, place)
        assert automaton.search(text, place) == (expected.span() if expected else None)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(a|ab|b)*c", "(?:a?){30}a{30}", "(.*)*x", "([a-z]+)*[0-9]"])
def test_expressions_that_explode(pattern: str) -> None:
    """Texts on which a backtracking engine never ends take milliseconds."""
    automaton = build(pattern)
    with cpu_limit():
        automaton.search("ab" * 700 + "!")
        automaton.search("a" * 1400 + "!")


def test_work_is_bounded() -> None:
    """A large program on a text that leads it to ever new states is given up, and works for the next text."""
    automaton = build(r"(?:a|b)*a(?:a|b){200}c")
    text = "".join(random.Random(1).choices("ab", k=12_000))
    with cpu_limit():
        assert automaton.search(text + "c") is None
    assert automaton.search("a" + "b" * 200 + "c") == (0, 202)


def test_large_expressions() -> None:
    """Counted repetitions make large programs; what people write about mail addresses is not too large."""
    mail = build(r"[\w.%+-]{1,64}@(?:[a-z0-9-]{1,63}\.){1,125}[a-z]{2,63}")
    assert mail.search("write to jo.doe@mail.example.com, please") == (9, 32)
    assert mail.search("a" * 3000) is None


def test_steps_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of steps is bounded, and forgetting changes no answer."""
    monkeypatch.setattr("rasa_core_api.nlu.automaton.MAX_MOVES", 10)
    automaton = build("[a-z]+[0-9]{2}")
    assert automaton.search("".join(map(chr, range(32, 3000))) + "abcxyz12") is not None
    assert sum(len(state.moves) for state in automaton._states.values()) <= 10


@pytest.mark.parametrize("pattern", [r"(a)\1", "(?=ab)a", "(?<!ab)c", "a{30000}", "(a)?(?(1)b|c)"])
def test_what_it_cannot_do(pattern: str) -> None:
    """Expressions beyond it are refused when they are compiled."""
    with pytest.raises(NotRegular):
        build(pattern)
