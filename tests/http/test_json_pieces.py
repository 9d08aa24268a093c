"""Tests of reading JSON piece by piece."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rasa_core_api.http import json_pieces
from rasa_core_api.http.json_pieces import PAUSE, Pieces, text_pieces
from rasa_core_api.jsontext import decode

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=40,
)


def whole(text: str) -> Any:
    """The document's value and how often it paused."""
    pieces = Pieces(text).value()
    pauses = 0
    while True:
        try:
            next(pieces)
            pauses += 1
        except StopIteration as end:
            return end.value, pauses


def items_of(text: str) -> list[Any]:
    return [item for item in Pieces(text).items() if item is not PAUSE]


@pytest.fixture(params=[3, 7, 40])
def small_window(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Windows so small that every value has to be taken apart."""
    monkeypatch.setattr(json_pieces, "WINDOW", request.param)
    return int(request.param)


@given(JSON_VALUES, st.sampled_from([None, 1]), st.booleans(), st.integers(1, 50))
@example([[], {}, [[]], {"a": {}}, ""], 1, True, 2)
@example("😀", None, True, 2)
def test_same_as_whole(value: Any, indent: int | None, ascii_only: bool, window: int) -> None:
    """In pieces of any size a document has the value that it has as a whole."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_pieces, "WINDOW", window)
        assert whole(text)[0] == decode(text.encode()) == value
        if isinstance(value, list):
            assert items_of(text) == value


@given(JSON_VALUES, st.data(), st.integers(1, 50))
def test_same_errors_as_whole(value: Any, data: st.DataObject, window: int) -> None:
    """What is refused as a whole is refused in pieces, and the other way round."""
    text = json.dumps(value)
    place = data.draw(st.integers(0, len(text)))
    text = (
        text[:place]
        + data.draw(st.sampled_from(["", "]", "}", ",", '"', "1", "-", "x", "NaN", "\\", "[", "{", ":"]))
        + text[place + 1 :]
    )
    try:
        expected: Any = decode(text.encode())
    except ValueError:
        expected = ValueError
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_pieces, "WINDOW", window)
        try:
            found: Any = whole(text)[0]
        except ValueError:
            found = ValueError
    assert found == expected


@pytest.mark.parametrize(
    "text",
    ["", "  ", "[", "[1", "[1,", "[1,]", "[1 2]", "[1]]", '{"a"}', '{"a":}', '{"a":1,}', "{1:2}", '"a', "nul", "[1] x",
     "[NaN]", "[1e999]", "[-Infinity]", '["\\ud800"]', '{"\\udc00":1}', "[\x01]", '["\t"]', "1" * 500],
)  # fmt: skip
def test_malformed(text: str, small_window: int) -> None:
    """Every kind of malformed document is refused in pieces too."""
    with pytest.raises(ValueError):
        whole(text)


def test_only_lists_have_items() -> None:
    """Items are asked of lists only, and an error comes when it is its turn."""
    with pytest.raises(ValueError, match="not a list"):
        next(Pieces('{"a": 1}').items())
    items = Pieces("[1, 2, nonsense]").items()
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ValueError):
        next(items)


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
@pytest.mark.parametrize("filler", ["", " " * 50])
def test_depth(opening: str, filler: str, small_window: int) -> None:
    """Nesting beyond the limit is refused before it can exhaust anything."""
    with pytest.raises(ValueError, match="nested deeper"):
        whole((opening + filler) * 5_000)
    assert whole("[" * 100 + "]" * 100)[0] is not None
    with pytest.raises(ValueError, match="nested deeper"):
        whole("[" * 101 + "]" * 101)


def test_pauses_inside_a_large_value() -> None:
    """One value that fills megabytes gives way every few hundred members."""
    value, pauses = whole(json.dumps({"a": {str(number): [number, [number]] for number in range(60_000)}}))
    assert len(value["a"]) == 60_000 and pauses > 250


def test_pauses_between_items() -> None:
    """A list of small items gives way about once a window."""
    text = json.dumps([{"event": "slot", "name": "a", "value": number} for number in range(20_000)])
    found = list(Pieces(text).items())
    assert len([item for item in found if item is not PAUSE]) == 20_000
    assert found.count(PAUSE) >= len(text) // json_pieces.WINDOW - 1


def test_positions_are_those_of_the_document() -> None:
    """An error far behind the first window is told by its place in the document."""
    text = "[" + "1, " * 30_000 + "x]"
    with pytest.raises(ValueError, match=str(text.index("x"))):
        whole(text)


@given(st.text(), st.integers(1, 5))
def test_text_in_pieces(text: str, size: int) -> None:
    """Characters that are cut by a piece's end come out whole."""
    raw = text.encode("utf-8", "ignore")
    pieces = text_pieces(io.BytesIO(raw), size)
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            assert end.value == raw.decode().removeprefix("\ufeff")
            break


def test_text_that_is_not_utf8() -> None:
    """Bytes that are not UTF-8 are refused, cut characters at the end too."""
    for raw in (b"ab\xff", "é".encode()[:1]):
        with pytest.raises(ValueError, match="not UTF-8"):
            list(text_pieces(io.BytesIO(raw), 1))
