"""Slot types and the features that policies see of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import InvalidDomain
from rasa_core_api.releases import Release

#: The module that written domains name; clients expect it unchanged.
HISTORICAL_MODULE = "rasa_core.slots"


class Slot:
    """A named memory of the conversation.

    Subclasses of other projects keep the historical interface: they set `type_name`, and override
    `feature_dimensionality()` and `as_feature()`, which reads `self.value`.
    """

    type_name: ClassVar[str | None] = None

    def __init__(
        self,
        name: str,
        initial_value: JSON = None,
        value_reset_delay: int | None = None,
        auto_fill: bool = True,
        **options: JSON,
    ) -> None:
        if options:
            raise TypeError(f"unknown option {sorted(options)[0]!r}")
        self.name = name
        self.initial_value = initial_value
        self.value = initial_value
        self.value_reset_delay = value_reset_delay
        self.auto_fill = auto_fill
        self.path = f"{HISTORICAL_MODULE}.{type(self).__name__}"

    def feature_dimensionality(self) -> int:
        """How many features the slot has."""
        return 1

    def as_feature(self) -> list[float]:
        """The features of `self.value`."""
        return list(self.features(self.value))

    @property
    def width(self) -> int:
        return self.feature_dimensionality()

    def features(self, value: JSON) -> tuple[float, ...]:
        """The features that the slot has when it holds `value`."""
        self.value = value
        try:
            return tuple(float(feature) for feature in self.as_feature())
        finally:
            self.value = self.initial_value

    def persistence(self) -> dict[str, JSON]:
        """Members of the domain's JSON besides `type` and `auto_fill`."""
        return {"initial_value": self.initial_value}


class DataSlot(Slot):
    """A slot without a type: one feature that only subclasses know."""

    def features(self, value: JSON) -> tuple[float, ...]:
        if type(self).as_feature is Slot.as_feature:
            raise InvalidDomain(f"slots.{self.name}: no type that has features; give it one", slot=self.name)
        return super().features(value)


class TextSlot(Slot):
    """1 when there is a value."""

    type_name = "text"

    def features(self, value: JSON) -> tuple[float, ...]:
        return (1.0,) if value is not None else (0.0,)


class BooleanSlot(Slot):
    """Whether the value is true; from 0.12 on preceded by whether there is one."""

    type_name = "bool"

    def __init__(self, name: str, *, bool_width: int = 2, **options: JSON) -> None:
        super().__init__(name, **options)
        self.bool_width = bool_width

    def feature_dimensionality(self) -> int:
        return self.bool_width

    def features(self, value: JSON) -> tuple[float, ...]:
        try:
            truth = 1.0 if float(value) != 0 else 0.0
        except (TypeError, ValueError, OverflowError):
            return (0.0,) * self.bool_width
        return (truth,) if self.bool_width == 1 else (1.0, truth)


class CategoricalSlot(Slot):
    """One feature a value; a value outside the list has none."""

    type_name = "categorical"

    def __init__(self, name: str, *, values: JSON = None, **options: JSON) -> None:
        super().__init__(name, **options)
        if values is not None and not isinstance(values, list):
            raise TypeError("'values' must be a list")
        self.values = [str(value).lower() for value in values or []]

    def feature_dimensionality(self) -> int:
        return len(self.values)

    def features(self, value: JSON) -> tuple[float, ...]:
        wanted = str(value).lower()
        found = self.values.index(wanted) if wanted in self.values else -1
        return tuple(1.0 if index == found else 0.0 for index in range(len(self.values)))

    def persistence(self) -> dict[str, JSON]:
        return {**super().persistence(), "values": self.values}


class FloatSlot(Slot):
    """Where the value lies between `min_value` and `max_value`, 0 to 1."""

    type_name = "float"

    def __init__(self, name: str, *, min_value: JSON = 0.0, max_value: JSON = 1.0, **options: JSON) -> None:
        super().__init__(name, **options)
        if not all(isinstance(bound, (int, float)) for bound in (min_value, max_value)) or min_value >= max_value:
            raise ValueError(f"min_value ({min_value}) must be a number below max_value ({max_value})")
        self.min_value = min_value
        self.max_value = max_value

    def features(self, value: JSON) -> tuple[float, ...]:
        try:
            capped = max(self.min_value, min(self.max_value, float(value)))
        except (TypeError, ValueError, OverflowError):
            return (0.0,)
        return ((capped - self.min_value) / abs(self.max_value - self.min_value),)

    def persistence(self) -> dict[str, JSON]:
        return {**super().persistence(), "max_value": self.max_value, "min_value": self.min_value}


class ListSlot(Slot):
    """1 when there is a value that is not empty."""

    type_name = "list"

    def features(self, value: JSON) -> tuple[float, ...]:
        try:
            return (1.0,) if value is not None and len(value) > 0 else (0.0,)
        except TypeError:
            return (0.0,)


class UnfeaturizedSlot(Slot):
    """A memory that has no influence on predictions."""

    type_name = "unfeaturized"

    def feature_dimensionality(self) -> int:
        return 0

    def features(self, value: JSON) -> tuple[float, ...]:
        return ()


SLOT_TYPES: Mapping[str | None, type[Slot]] = {
    kind.type_name: kind
    for kind in (DataSlot, TextSlot, BooleanSlot, CategoricalSlot, FloatSlot, ListSlot, UnfeaturizedSlot)
}
_BY_CLASS_NAME = {kind.__name__: kind for kind in SLOT_TYPES.values()}

#: Finds the class of a dotted path in a module that the operator trusts. Raises `InvalidDomain` otherwise.
ClassFinder = Callable[[str], type[Any]]


def refuse_classes(path: str) -> type[Any]:
    """A `ClassFinder` that trusts nobody."""
    module = path.rpartition(".")[0]
    raise InvalidDomain(
        f"the class {path!r} is not one of ours; if you trust its module, start with --trusted_modules {module}"
    )


def slot_from_json(name: str, options: JSON, release: Release, find_class: ClassFinder = refuse_classes) -> Slot:
    """The slot that a domain's `slots` entry describes. Raises `InvalidDomain` naming the slot."""
    if options is None:
        options = {}
    if not isinstance(options, Mapping):
        raise InvalidDomain(f"slots.{name}: expected a map with 'type'")
    arguments = dict(options)
    type_name = arguments.pop("type", None)
    path = None
    if type_name is None or type_name in SLOT_TYPES:
        kind: type[Any] = SLOT_TYPES[type_name]
    elif isinstance(type_name, str) and "." in type_name:
        module, _, class_name = type_name.rpartition(".")
        if module in (HISTORICAL_MODULE, __name__) and class_name in _BY_CLASS_NAME:
            kind = _BY_CLASS_NAME[class_name]
        else:
            try:
                kind = find_class(type_name)
            except InvalidDomain as error:
                raise InvalidDomain(f"slots.{name}.type: {error}") from None
            path = type_name
    else:
        known = ", ".join(sorted(key for key in SLOT_TYPES if key))
        raise InvalidDomain(f"slots.{name}.type: {type_name!r} is no slot type; known are {known}")
    if kind is BooleanSlot:
        arguments["bool_width"] = release.bool_slot_width
    if not release.auto_fill_option and path is None:
        arguments.pop("auto_fill", None)
    try:
        slot: Slot = kind(name, **arguments)
    except (TypeError, ValueError) as error:
        raise InvalidDomain(f"slots.{name}: {error}") from None
    if path is not None:
        slot.path = path
    return slot
