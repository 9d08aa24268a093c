"""Writers of small foreign files, so that readers can be tested on files made here."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rasa_core_api.legacy.crc32c import crc32c

TYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9}


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def masked(data: bytes) -> bytes:
    value = crc32c(data)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def block(entries: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A block whose keys share their beginnings."""
    out, last = b"", b""
    for key, value in entries:
        shared = 0
        while shared < min(len(key), len(last)) and key[shared] == last[shared]:
            shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return out + struct.pack("<II", 0, 1)


def tensor_bundle(prefix: Path, tensors: Mapping[str, np.ndarray], shards: int = 1) -> None:
    """A checkpoint with these variables, dealt to `shards` data files in turn, in two data blocks."""
    parts = [b""] * shards
    entries = [(b"", field(1, shards) + field(3, field(1, 1)))]
    for number, (name, values) in enumerate(sorted(tensors.items())):
        shard = number % shards
        content = np.ascontiguousarray(values).tobytes()
        shape = b"".join(field(2, field(1, length)) for length in values.shape)
        entry = field(1, TYPES[values.dtype.name]) + field(2, shape) + field(3, shard)
        entry += field(4, len(parts[shard])) + field(5, len(content)) + varint(6 << 3 | 5) + masked(content)
        parts[shard] += content
        entries.append((name.encode(), entry))
    for shard, part in enumerate(parts):
        prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}").write_bytes(part)
    prefix.with_name(prefix.name + ".index").write_bytes(table(entries[:2], entries[2:]))


def table(*groups: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A sorted-string table with one data block for each group of entries."""
    out = b""
    handles = []
    for number, entries in enumerate(groups):
        data = block(entries)
        handles.append((b"%d" % number, varint(len(out)) + varint(len(data))))
        out += data + b"\0" + masked(data + b"\0")
    places = b""
    for data in (block([]), block(handles)):
        places += varint(len(out)) + varint(len(data))
        out += data + b"\0" + masked(data + b"\0")
    return out + places.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def constant(name: str, values: np.ndarray, *, operation: str = "Const", listed: bool = False) -> bytes:
    """A node of a graph that holds a constant."""
    shape = b"".join(field(2, field(1, length)) for length in values.shape)
    content = field(5, values.tobytes()) if listed else field(4, values.tobytes())
    tensor = field(1, TYPES[values.dtype.name]) + field(2, shape) + content
    kind = field(5, field(1, b"dtype") + field(2, field(6, 1)))
    value = field(5, field(1, b"value") + field(2, field(8, tensor)))
    return field(1, field(1, name.encode()) + field(2, operation.encode()) + kind + value)


def graph(*nodes: bytes) -> bytes:
    """A MetaGraphDef with these nodes."""
    return field(1, field(4, b"1.12.0")) + field(2, b"".join(nodes)) + field(3, b"saver")


def names(items: Sequence[str]) -> bytes:
    """A table of names of a CRFsuite file."""
    records, places = b"", []
    start = 24 + 8 * 256
    for number, item in enumerate(items):
        key = item.encode() + b"\0"
        places.append(start + len(records))
        records += struct.pack("<II", number, len(key)) + key
    head = struct.pack(
        "<4s5I", b"CQDB", start + len(records) + 4 * len(items), 0, 0x62445371, len(items), start + len(records)
    )
    return head + b"\0" * (8 * 256) + records + struct.pack(f"<{len(items)}I", *places)


def crfsuite(
    labels: Sequence[str],
    state: Mapping[tuple[str, str], float],
    transitions: Mapping[tuple[str, str], float],
) -> bytes:
    """A CRFsuite file with weights for (attribute, label) and (label, next label)."""
    attributes = sorted({attribute for attribute, _ in state})
    rows = [(0, attributes.index(a), labels.index(b), w) for (a, b), w in state.items()]
    rows += [(1, labels.index(a), labels.index(b), w) for (a, b), w in transitions.items()]
    features = struct.pack("<4sII", b"FEAT", 12 + 20 * len(rows), len(rows))
    features += b"".join(struct.pack("<IIId", *row) for row in rows)
    references = [struct.pack("<4sII", name, 12, 0) for name in (b"LFRF", b"AFRF")]
    parts = [features, names(labels), names(attributes), *references]
    places = [48 + sum(len(part) for part in parts[:number]) for number in range(5)]
    size = 48 + sum(len(part) for part in parts)
    head = struct.pack("<4sI4sI8I", b"lCRF", size, b"FOMC", 100, 0, len(labels), len(attributes), *places)
    return head + b"".join(parts)


class Made:
    """An object of a class that does not exist here: its pickle names the class and holds the attributes."""

    def __init__(self, path: str, attributes: Mapping[str, object]) -> None:
        self.path = path
        self.attributes = attributes


def pickled(value: object) -> bytes:
    """A pickle of protocol 2; mappings and `Made` objects may hold `Made` objects."""
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value: object) -> bytes:
    if isinstance(value, Made):
        module, _, name = value.path.rpartition(".")
        return f"c{module}\n{name}\n)".encode() + b"\x81" + _opcodes(value.attributes) + b"b"
    if isinstance(value, Mapping):
        return b"}" + b"".join(_opcodes(key) + _opcodes(item) + b"s" for key, item in value.items())
    return pickle.dumps(value, 2)[2:-1]
