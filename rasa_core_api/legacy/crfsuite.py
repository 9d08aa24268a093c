"""CRFsuite model files read into numpy arrays.

All numbers are little-endian. A header of 48 bytes: `lCRF`, file size, `FOMC`, version 100, counts of features (0 in
files that the trainer wrote), labels and attributes, and the places of five parts. `FEAT`: size, count and records of
20 bytes: kind (0 attribute and label, 1 label and label), source, target, weight. Labels and attributes are two
`CQDB` tables: size, flag, byte order mark, count and place of a list of record places; a record is its number, the
length of its name and the name with a zero byte. Two more parts (`LFRF`, `AFRF`) list feature numbers by label and by
attribute, which the features themselves say already.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from attrs import frozen

from rasa_core_api.legacy import Damage, reading

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MAX_SIZE = 256 << 20  # bytes
MAX_LABELS = 2_000
MAX_WEIGHT = 1e4  # no sum of such weights leaves the range of a float
_HEADER = struct.Struct("<4sI4sI8I")
_CHUNK = struct.Struct("<4sII")
_TABLE = struct.Struct("<4s5I")
_RECORD = struct.Struct("<II")
_BYTE_ORDER = 0x62445371


@frozen(eq=False)
class CrfModel:
    """A linear-chain model: weights of attributes for labels, and of one label after another.

    The attribute number `n` has the labels `targets[starts[n]:starts[n + 1]]` with the weights at the same places.
    `transitions[a, b]` is the weight of label b after label a.
    """

    labels: tuple[str, ...]
    attributes: dict[str, int]
    starts: list[int]
    targets: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    transitions: npt.NDArray[np.float64]


def read_crfsuite(data: bytes, source: str) -> CrfModel:
    """The model in the bytes of a CRFsuite file.

    Every number is compared with what is there; raises UnreadableFile (`source` names the file) where one does not
    fit, names are not text or occur twice, or weights are not finite.
    """
    with reading(source):
        return _read(data)


def _read(data: bytes) -> CrfModel:
    import numpy as np

    if len(data) > MAX_SIZE:
        raise Damage(f"it is larger than {MAX_SIZE} bytes")
    magic, size, kind, version, _, labels_count, attributes_count, *places = _HEADER.unpack_from(data)
    if magic != b"lCRF" or kind != b"FOMC":
        raise Damage("it is no CRFsuite model")
    if version != 100:
        raise Damage(f"it is of version {version}, where 100 is expected")
    if size != len(data):
        raise Damage("it is shorter or longer than it says")
    if not 0 < labels_count <= MAX_LABELS:
        raise Damage("it has no labels, or too many")
    features = _features(data, places[0])
    labels = _names(data, places[1], labels_count)
    attributes = _names(data, places[2], attributes_count)
    for place, name in ((places[3], b"LFRF"), (places[4], b"AFRF")):
        _chunk(data, place, name)

    weight = features["weight"]
    source, target = features["source"], features["target"]
    chained = features["kind"] == 1
    if not np.all(chained | (features["kind"] == 0)):
        raise Damage("a feature of an unknown kind")
    if not np.all(np.abs(weight) <= MAX_WEIGHT):  # also false for what is no number
        raise Damage("a weight that is out of range")
    if np.any(target >= len(labels)) or np.any(source >= np.where(chained, len(labels), len(attributes))):
        raise Damage("a feature of a label or an attribute that does not exist")

    transitions = np.zeros((len(labels), len(labels)))
    np.add.at(transitions, (source[chained], target[chained]), weight[chained])
    order = np.argsort(source[~chained], kind="stable")
    starts = np.searchsorted(source[~chained][order], np.arange(len(attributes) + 1))
    return CrfModel(
        labels=tuple(labels),
        attributes=attributes,
        starts=starts.tolist(),
        targets=target[~chained][order].astype(np.int64),
        weights=weight[~chained][order].astype(np.float64),
        transitions=transitions,
    )


def _chunk(data: bytes, place: int, expected: bytes) -> tuple[int, int]:
    """End and number of items of a part."""
    name, size, count = _CHUNK.unpack_from(data, place)
    if name != expected or place + size > len(data) or size < _CHUNK.size:
        raise Damage(f"its part {expected.decode()} is damaged")
    return place + size, count


def _features(data: bytes, place: int) -> npt.NDArray[Any]:
    import numpy as np

    end, count = _chunk(data, place, b"FEAT")
    first = place + _CHUNK.size
    record = np.dtype([("kind", "<u4"), ("source", "<u4"), ("target", "<u4"), ("weight", "<f8")])
    if count * record.itemsize != end - first:
        raise Damage("its part FEAT is damaged")
    return np.frombuffer(data, record, count, first)


def _names(data: bytes, place: int, expected: int) -> dict[str, int]:
    """The names of a table in the order of their numbers."""
    magic, size, _, order, count, offset = _TABLE.unpack_from(data, place)
    if magic != b"CQDB" or order != _BYTE_ORDER or size > len(data) - place or count != expected:
        raise Damage("a table of names is damaged")
    if offset + 4 * count > size:
        raise Damage("a table of names is cut short")
    names: dict[str, int] = {}
    end = place + size
    left = size  # names that lie on top of each other would be larger than the file
    for number, (record,) in enumerate(struct.iter_unpack("<I", data[place + offset : place + offset + 4 * count])):
        start = place + record + _RECORD.size
        if start > end:
            raise Damage("a name outside of its table")
        stored, length = _RECORD.unpack_from(data, start - _RECORD.size)
        left -= length
        if stored != number or left < 0 or not 0 < length <= end - start or data[start + length - 1] != 0:
            raise Damage("a name that is cut short, or out of order")
        names[data[start : start + length - 1].decode("utf-8")] = number
    if len(names) != count:
        raise Damage("a name that occurs twice")
    return names
