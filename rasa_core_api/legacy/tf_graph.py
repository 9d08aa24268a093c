"""Constants out of a TensorFlow graph file (`.meta`).

The file is a MetaGraphDef: field 2 is the graph, whose field 1 are the nodes; a node has its name in field 1, its
operation in field 2 and attributes in field 5 (key 1, value 2). The attribute `value` of a `Const` holds a tensor in
its field 8: type in field 1, shape in field 2, raw bytes in field 4 or numbers in fields 5 (float) and 7 (int).
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

from rasa_core_api.legacy import Damage, read_bounded, reading
from rasa_core_api.legacy.protobuf import Span, fields, inside, number
from rasa_core_api.legacy.tensor_bundle import read_shape

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

MAX_GRAPH = 128 << 20  # bytes
MAX_CONSTANT = 1 << 20  # values of one constant
_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8"}


def read_constants(path: Path, endings: tuple[str, ...]) -> dict[str, npt.NDArray[Any]]:
    """The constants of the graph whose names end in one of `endings`, by name, in native byte order.

    Raises UnreadableFile for a file that is missing or damaged, and for such constants that are no numbers.
    """
    data = read_bounded(path, MAX_GRAPH)
    tails = tuple(ending.encode() for ending in endings)
    found = {}
    with reading(str(path)):
        for field, graph in fields(data, (0, len(data))):
            if field != 2:
                continue
            for part, node in fields(data, inside(graph)):
                if part != 1:
                    continue
                constant = _constant(data, inside(node), tails)
                if constant is not None:
                    name, tensor = constant
                    found[name] = _tensor(data, tensor)
    return found


def _constant(data: bytes, node: Span, tails: tuple[bytes, ...]) -> tuple[str, Span] | None:
    """Name and tensor of a node if it is a constant that is asked for."""
    name, operation, tensor = b"", b"", None
    for field, value in fields(data, node):
        if field == 1:
            start, end = inside(value)
            name = data[start:end]
            if not name.endswith(tails):  # the name comes first; most nodes end here
                return None
        elif field == 2:
            start, end = inside(value)
            operation = data[start:end]
        elif field == 5:
            key, content = b"", None
            for part, item in fields(data, inside(value)):
                if part == 1:
                    start, end = inside(item)
                    key = data[start:end]
                elif part == 2:
                    content = inside(item)
            if key == b"value" and content is not None:
                for part, item in fields(data, content):
                    if part == 8:
                        tensor = inside(item)
    if operation != b"Const" or tensor is None or not name.endswith(tails):
        return None
    return name.decode("utf-8"), tensor


def _tensor(data: bytes, span: Span) -> npt.NDArray[Any]:
    import numpy as np

    kind, content = 0, b""
    shape: tuple[int, ...] = ()
    listed: list[float | int] = []
    for field, value in fields(data, span):
        if field == 1:
            kind = number(value)
        elif field == 2:
            shape = read_shape(data, inside(value))
        elif field == 4:
            start, end = inside(value)
            content = data[start:end]
        elif field == 5:
            listed.extend(_floats(data, value))
        elif field == 7 and isinstance(value, int):
            listed.append(value)
    if kind not in _TYPES:
        raise Damage("a constant that is no number")
    count = math.prod(shape)
    if count > MAX_CONSTANT:
        raise Damage("a constant that is too large")
    dtype: np.dtype[Any] = np.dtype(_TYPES[kind])
    if content:
        if len(content) != count * dtype.itemsize:
            raise Damage("a constant whose shape and size differ")
        values = np.frombuffer(content, dtype)
    elif len(listed) == 1:  # one number stands for all
        values = np.full(count, listed[0], dtype)
    elif len(listed) == count:
        values = np.array(listed, dtype)
    else:
        raise Damage("a constant whose shape and size differ")
    return values.reshape(shape).astype(dtype.newbyteorder("="))


def _floats(data: bytes, value: int | Span) -> list[float]:
    """A float that stands alone, or a packed row of them."""
    if isinstance(value, int):
        (alone,) = struct.unpack("<f", struct.pack("<I", value & 0xFFFFFFFF))
        return [alone]
    start, end = value
    if (end - start) % 4:
        raise Damage("a row of numbers that is cut short")
    return [item for (item,) in struct.iter_unpack("<f", data[start:end])]
