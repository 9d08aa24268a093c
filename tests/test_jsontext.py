"""Tests of reading and writing JSON text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasa_core_api import jsontext
from rasa_core_api.jsontext import decode, encode, writer
from tests.cpu import cpu_limit

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_round_trip(value: object) -> None:
    """What is written reads back as it was."""
    assert decode(encode(value).encode("ascii")) == value


def test_writing_is_compact_sorted_ascii() -> None:
    """Keys are sorted, blanks left out, non-ASCII escaped."""
    assert encode({"b": 1, "a": "é"}) == '{"a":"\\u00e9","b":1}'


@given(VALUES, st.sampled_from([(",", ":"), (", ", ": ")]))
def test_writers_write_like_the_standard_library(value: object, separators: tuple[str, str]) -> None:
    """A tool that is made once writes the same text as one that is made for each value."""
    assert writer(*separators, True)(value) == json.dumps(value, sort_keys=True, separators=separators)


def test_writing_without_the_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that lacks the fast tool writes the same."""
    monkeypatch.setattr(json.encoder, "c_make_encoder", None)
    assert writer(",", ":", False)({"b": 1.5, "a": "é"}) == '{"a":"\\u00e9","b":1.5}'


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": {"b": -float("inf")}}])
def test_numbers_that_json_has_not_are_never_written(value: object) -> None:
    """NaN and infinities raise, again and again."""
    for _ in range(2):
        with pytest.raises(ValueError, match="not JSON compliant"):
            encode(value)  # type: ignore[arg-type]


class Carefully:
    """The standard library reads everything."""

    def __enter__(self) -> None:
        self.found = jsontext._has_long_number
        jsontext._has_long_number = lambda text: True

    def __exit__(self, *_: object) -> None:
        jsontext._has_long_number = self.found


def outcome(raw: bytes) -> tuple[str, str]:
    try:
        return "value", repr(decode(raw))
    except ValueError as error:
        return "refused", str(error)


@given(VALUES.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20))
def test_msgspec_changes_nothing(raw: bytes) -> None:
    """Documents are read, or refused for a reason, as the standard library would."""
    found = outcome(raw)
    with Carefully():
        assert outcome(raw) == found


@pytest.mark.parametrize(
    "text",
    [
        *("1" * 309, "1" * 310, "1" * 5000, f"[{'1' * 309}]", "01", "1."),
        *("-0", "-0.0", "1e-400", "1E5", "1e16", "18446744073709551616", "9" * 308, "0.1234567890123456789", "1e999"),
        *('"\\ud83d\\ude00"', '{"a":1,"a":2}', "NaN", '"\\u0000"', '"\x01"', "\t[1]\n", "[1,]"),
    ],
)
def test_msgspec_at_the_edges(text: str) -> None:
    """Large numbers, zeros, pairs of surrogates and blanks are the same."""
    found = outcome(text.encode())
    with Carefully():
        assert outcome(text.encode()) == found


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"[NaN]", "NaN is not JSON"),
        (b"[-Infinity]", "Infinity is not JSON"),
        (b"[1e999]", "beyond a float"),
        (b"[" * 101 + b"]" * 101, "deeper than 100"),
        (b'"\xff"', "not UTF-8"),
        (b'"\\ud800"', "lone surrogate"),
        (b"1" * 500, "beyond a float"),
        (b"-" + b"9" * 309, "beyond a float"),
        (b"[1] 2", "Extra data"),
    ],
)
def test_refusals(raw: bytes, reason: str) -> None:
    """What is no strict JSON is refused with a reason."""
    with pytest.raises(ValueError, match=reason):
        decode(raw)


def test_depth_ignores_brackets_in_texts() -> None:
    """Brackets inside texts are no nesting, a hundred real levels are allowed."""
    assert decode(json.dumps("[" * 500 + '"').encode()) == "[" * 500 + '"'
    assert decode(b"[" * 100 + b"]" * 100) is not None


@pytest.mark.parametrize("part", [b'\\"[', b'\\"[]', b'"[', b'["', b'\\"\n[', b'\\\\"{', b"[\\", b'"\\'])
@pytest.mark.parametrize("opening", [b"", b'"', b'["', b'{"a":"'])
def test_hostile_texts_take_no_time(part: bytes, opening: bytes) -> None:
    """Quotes that close nothing are refused at once, however many there are: anybody may send such a body."""
    with cpu_limit(), pytest.raises(ValueError):
        decode(opening + part * (60_000 // len(part)))


def test_paired_surrogates_are_a_character() -> None:
    """An escaped pair of surrogates is one character."""
    assert decode(b'"\\ud83d\\ude00"') == "\U0001f600"
