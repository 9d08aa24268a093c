from __future__ import annotations

import json

import pytest

from rasa_core_api.policies.memory_text import SMALL, decode_memory

LOOKUP = {f'[{{"intent_{number}": 1.0}}, "\\ \u00e9"]' + "x" * 200: number % 7 for number in range(6_000)}


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("indent", [None, 4])
@pytest.mark.parametrize("before", [True, False])
def test_same_value(ascii_only: bool, indent: int | None, before: bool) -> None:
    """A large memory means what the JSON reader makes of it as a whole."""
    members = {"priority": 2, "max_history": 5} if before else {}
    data = {**members, "lookup": {**LOOKUP, "form": "a form", "none": None}, "after": {"lookup": {"x": 1}}}
    raw = json.dumps(data, indent=indent, ensure_ascii=ascii_only).encode()
    assert len(raw) > SMALL
    assert decode_memory(raw) == data


@pytest.mark.parametrize(
    "data",
    [
        {"lookup": {**LOOKUP, "list": [1]}},
        {"lookup": LOOKUP, "text": '{"lookup": {"a": 1}}'},
        {"text": '"lookup": {"a": 1}', "lookup": LOOKUP},
        {"inner": {"lookup": LOOKUP}},
        [{"lookup": LOOKUP}],
        {"other": LOOKUP},
    ],
)
def test_unusual(data: object) -> None:
    """Documents of another shape are read as well, as a whole."""
    assert decode_memory(json.dumps(data).encode()) == data


@pytest.mark.parametrize("end", ["", "}", "}}x", ", }}", "},"])
def test_damaged(end: str) -> None:
    """What is no JSON is refused."""
    with pytest.raises(ValueError):
        decode_memory((json.dumps({"lookup": LOOKUP})[:-2] + end).encode())


def test_small() -> None:
    """A small memory is read in one go."""
    assert decode_memory(b'{"lookup": {"a": 1}}') == {"lookup": {"a": 1}}
