"""numpy arrays and scalars out of inert pickle records.

The forms are those of numpy 1.x and 2.x: `_reconstruct` with a state of version, shape, type, order and bytes;
`_frombuffer` of protocol 5; `scalar` of a type and bytes. Only booleans, integers, floats and text are read.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rasa_core_api.legacy import Damage
from rasa_core_api.legacy.pickles import Record, bytes_of, name_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MAX_DIMENSIONS = 8
_SIZES = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8)}


def array_of(value: object) -> npt.NDArray[Any]:
    """A number or text array in native byte order, writable, row-major; Damage for anything else."""
    kind, shape, columns_first, content = _parts(value)
    if isinstance(content, list):
        raise Damage("an array of objects where numbers are expected")
    return _build(kind, shape, columns_first, content)


def list_of(value: object) -> list[Any]:
    """The items of a list, a tuple or a one-dimensional array of numbers, text or plain objects; else Damage."""
    if isinstance(value, (list, tuple)):
        return [plain_of(item) for item in value]
    kind, shape, columns_first, content = _parts(value)
    if len(shape) != 1:
        raise Damage("an array of one dimension was expected")
    if isinstance(content, list):
        if len(content) != shape[0]:
            raise Damage("an array with too few or too many items")
        return [plain_of(item) for item in content]
    items = _build(kind, shape, columns_first, content).tolist()
    assert isinstance(items, list)
    return items


def plain_of(value: object) -> bool | int | float | str | None:
    """A plain value, also from a numpy scalar; Damage for anything else."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if _called(value) == "scalar":
        assert isinstance(value, Record)
        if len(value.arguments) == 2:
            kind, content = _kind(value.arguments[0]), bytes_of(value.arguments[1])
            if kind[1] in "iu" and len(content) == int(kind[2:]):  # vocabularies have thousands of them
                return int.from_bytes(content, "big" if kind[0] == ">" else "little", signed=kind[1] == "i")
            (item,) = _build(kind, (1,), False, content).tolist()
            assert isinstance(item, (bool, int, float, str))
            return item
    raise Damage("a plain value was expected")


def integer_of(value: object) -> int:
    """An integer, also from a numpy scalar; else Damage."""
    plain = plain_of(value)
    if isinstance(plain, bool) or not isinstance(plain, int):
        raise Damage("an integer was expected")
    return plain


def _called(value: object) -> str:
    return name_of(value.called) if isinstance(value, Record) else ""


def _kind(value: object) -> str:
    """A type record as numpy spells it, with byte order: `<f8`, `<U12`, `|O`."""
    if not isinstance(value, Record) or _called(value) != "dtype" or not value.arguments:
        raise Damage("an array type was expected")
    name = value.arguments[0]
    order = value.state[1] if isinstance(value.state, tuple) and len(value.state) > 1 else "="
    if not isinstance(name, str) or len(name) < 2 or order not in ("<", ">", "=", "|"):
        raise Damage("an unknown array type")
    letter, digits = name[0], name[1:]
    if not digits.isascii() or not digits.isdigit() or len(digits) > 6:
        raise Damage("an unknown array type")
    size = int(digits)
    if letter == "O":
        return "|O"
    if not (size in _SIZES.get(letter, ()) or (letter == "U" and size)):
        raise Damage("an array type that is neither numbers nor text")
    return f"{order}{name}"


def _parts(value: object) -> tuple[str, tuple[int, ...], bool, bytes | list[Any]]:
    """Type, shape, whether columns come first, and content of an array record."""
    called = _called(value)
    if not isinstance(value, Record):
        raise Damage("an array was expected")
    if called == "_reconstruct":
        if not isinstance(value.state, tuple) or len(value.state) != 5:
            raise Damage("an array without content")
        _, shape, kind, columns_first, content = value.state
    elif called == "_frombuffer" and len(value.arguments) == 4:
        content, kind, shape, order = value.arguments
        columns_first = order == "F"
    else:
        raise Damage("an array was expected")
    if not isinstance(shape, tuple) or len(shape) > MAX_DIMENSIONS:
        raise Damage("an array of an unknown shape")
    if any(type(length) is not int or length < 0 for length in shape):
        raise Damage("an array of an unknown shape")
    spelled = _kind(kind)
    if spelled == "|O":
        if not isinstance(content, list):
            raise Damage("an array without content")
        return spelled, shape, bool(columns_first), content
    return spelled, shape, bool(columns_first), bytes_of(content)


def _build(kind: str, shape: tuple[int, ...], columns_first: bool, content: bytes) -> npt.NDArray[Any]:
    import numpy as np

    if kind == "|O":
        raise Damage("objects where numbers are expected")
    dtype: np.dtype[Any] = np.dtype(kind)
    if math.prod(shape) * dtype.itemsize != len(content):
        raise Damage("an array whose shape and size differ")
    flat: npt.NDArray[Any] = np.frombuffer(content, dtype)
    return np.array(flat.reshape(shape, order="F" if columns_first else "C"), dtype.newbyteorder("="), order="C")
