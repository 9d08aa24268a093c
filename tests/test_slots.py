"""Tests of slot types and their features."""

from __future__ import annotations

from typing import Any

import pytest

from rasa_core_api.exceptions import InvalidDomain
from rasa_core_api.releases import BY_NAME
from rasa_core_api.slots import Slot, slot_from_json

R11, R12 = BY_NAME["0.11"], BY_NAME["0.12"]


@pytest.mark.parametrize(
    ("options", "value", "features"),
    [
        ({"type": "text"}, None, (0.0,)),
        ({"type": "text"}, "", (1.0,)),
        ({"type": "bool"}, True, (1.0, 1.0)),
        ({"type": "bool"}, 0, (1.0, 0.0)),
        ({"type": "bool"}, "false", (0.0, 0.0)),
        ({"type": "bool"}, None, (0.0, 0.0)),
        ({"type": "categorical", "values": ["A", "b", True]}, "a", (1.0, 0.0, 0.0)),
        ({"type": "categorical", "values": ["A", "b", True]}, "c", (0.0, 0.0, 0.0)),
        ({"type": "categorical", "values": ["A", "b", True]}, True, (0.0, 0.0, 1.0)),
        ({"type": "float", "min_value": 0, "max_value": 10}, 5, (0.5,)),
        ({"type": "float"}, 7, (1.0,)),
        ({"type": "float"}, "x", (0.0,)),
        ({"type": "float"}, [], (0.0,)),
        ({"type": "list"}, [], (0.0,)),
        ({"type": "list"}, [1], (1.0,)),
        ({"type": "list"}, "text", (1.0,)),
        ({"type": "list"}, 3, (0.0,)),
        ({"type": "unfeaturized"}, 3, ()),
        ({"type": "rasa_core.slots.TextSlot"}, "x", (1.0,)),
    ],
)
def test_features(options: dict[str, Any], value: object, features: tuple[float, ...]) -> None:
    """Each type turns its value into its features."""
    slot = slot_from_json("s", options, R12)
    assert slot.features(value) == features
    assert slot.width == len(features)


def test_old_bool_has_one_feature() -> None:
    """Up to 0.11 a slot that is false looks like one that is not set."""
    slot = slot_from_json("s", {"type": "bool"}, R11)
    assert [slot.features(value) for value in (True, False, None)] == [(1.0,), (0.0,), (0.0,)]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"type": "data"}, "no slot type"),
        ({"type": "text", "colour": "red"}, "colour"),
        ({"type": "float", "min_value": 2, "max_value": 1}, "min_value"),
        ({"type": "categorical", "values": "abc"}, "values"),
        ({"type": "os.system"}, "--trusted_modules os"),
        ([], "expected a map"),
    ],
)
def test_refusals_name_the_slot(options: Any, reason: str) -> None:
    """A slot that cannot be is refused with its key path and the reason."""
    with pytest.raises(InvalidDomain, match=f"slots.s.*{reason}"):
        slot_from_json("s", options, R12)


class LengthSlot(Slot):
    """A slot of another project, in the historical manner."""

    def feature_dimensionality(self) -> int:
        return 2

    def as_feature(self) -> list[float]:
        return [float(len(self.value or "")), 1.0]


def test_trusted_class() -> None:
    """A class of a module that the operator trusts is used with the historical interface, under its own path."""
    slot = slot_from_json("s", {"type": "mine.LengthSlot", "initial_value": "ab"}, R12, lambda path: LengthSlot)
    assert slot.features("abc") == (3.0, 1.0)
    assert slot.as_feature() == [2.0, 1.0]
    assert slot.path == "mine.LengthSlot"
