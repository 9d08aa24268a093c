"""TensorFlow checkpoints (format V2, "tensor bundle") read into numpy arrays.

`PREFIX.index` is a sorted-string table as LevelDB writes it, without compression: a footer of 48 bytes ends in a
magic number and begins with the places of two blocks; the second of them, the index block, holds the places of the
data blocks. A block is a row of entries (how much of the last key to keep, rest of the key, value), then the restart
offsets and their count; one byte of compression kind and four bytes of checksum follow it. The entry of the empty key
describes the bundle, every other entry one variable (tensorflow/core/protobuf/tensor_bundle.proto).
`PREFIX.data-SSSSS-of-NNNNN` holds the values, little-endian and row by row.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from rasa_core_api.legacy import Damage, damaged, read_bounded, reading
from rasa_core_api.legacy.crc32c import crc32c, unmask
from rasa_core_api.legacy.protobuf import fields, inside, number, varint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

MAX_INDEX = 4 << 20  # bytes; some 30 000 variables
MAX_DATA = 1 << 30  # bytes of the variables that are wanted
MAX_KEY = 1_000
MAX_SHARDS = 1_000
_FOOTER = 48
_MAGIC = 0xDB4775248B80FB57
_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8"}


@frozen
class Entry:
    """Where a variable's values are, as the index claims."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    sliced: bool


def read_bundle(prefix: Path, wanted: Callable[[str], bool]) -> dict[str, npt.NDArray[Any]]:
    """The variables whose names are wanted, from `PREFIX.index` and its data files, in native byte order.

    Checksums of the index and of each variable are compared. Raises UnreadableFile for files that are missing,
    damaged or compressed, and for wanted variables of other types than float32, float64, int32 and int64.
    """
    path = prefix.with_name(prefix.name + ".index")
    data = read_bounded(path, MAX_INDEX)
    with reading(str(path)):
        shards, entries = read_index(data)
        chosen = {name: entry for name, entry in entries.items() if wanted(name)}
        for name, entry in chosen.items():
            _check(name, entry, shards)
    arrays = {}
    for shard in sorted({entry.shard for entry in chosen.values()}):
        part = prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")
        arrays.update(_read_shard(part, {name: entry for name, entry in chosen.items() if entry.shard == shard}))
    return arrays


def read_index(data: bytes) -> tuple[int, dict[str, Entry]]:
    """The number of data files, and the entry of every variable; Damage for anything that does not fit together."""
    if len(data) < _FOOTER:
        raise Damage("it is too short")
    footer = len(data) - _FOOTER
    if int.from_bytes(data[-8:], "little") != _MAGIC:
        raise Damage("it is no table of variables")
    offset, size, position = _handle(data, footer, len(data) - 8)
    for _ in _block(data, offset, size):  # holds nothing of use, but a damaged file should not pass for a sound one
        pass
    offset, size, _ = _handle(data, position, len(data) - 8)
    entries: dict[str, Entry] = {}
    shards = 0
    left = len(data)
    for _, value in _block(data, offset, size):
        block_offset, block_size, _ = _handle(value, 0, len(value))
        left -= block_size
        if left < 0:
            raise Damage("blocks that lie on top of each other")
        for key, item in _block(data, block_offset, block_size):
            if key == b"":
                shards = _header(item)
            else:
                entries[key.decode("utf-8")] = _entry(item)
    if not 0 < shards <= MAX_SHARDS:
        raise Damage("it does not say how many data files there are")
    return shards, entries


def _handle(data: bytes, position: int, end: int) -> tuple[int, int, int]:
    offset, position = varint(data, position, end)
    size, position = varint(data, position, end)
    return offset, size, position


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The entries of one block, after a look at its checksum."""
    stop = offset + size
    if size < 4 or stop + 5 > len(data) - _FOOTER:
        raise Damage("a block outside of the file")
    if data[stop] != 0:
        raise Damage("it is compressed, which is not supported")
    if unmask(int.from_bytes(data[stop + 1 : stop + 5], "little")) != crc32c(data[offset : stop + 1]):
        raise Damage("a block whose checksum is wrong")
    restarts = int.from_bytes(data[stop - 4 : stop], "little")
    end = stop - 4 - 4 * restarts
    if end < offset:
        raise Damage("a block without room for its entries")
    key = b""
    position = offset
    while position < end:
        shared, position = varint(data, position, end)
        rest, position = varint(data, position, end)
        length, position = varint(data, position, end)
        if shared > len(key) or shared + rest > MAX_KEY or rest + length > end - position:
            raise Damage("an entry that is longer than its block")
        key = key[:shared] + data[position : position + rest]
        position += rest
        yield key, data[position : position + length]
        position += length


def _header(data: bytes) -> int:
    shards = 0
    for field, value in fields(data, (0, len(data))):
        if field == 1:
            shards = number(value)
        elif field == 2 and value != 0:
            raise Damage("its values are big-endian, which is not supported")
    return shards


def _entry(data: bytes) -> Entry:
    found = {"dtype": 0, "shard": 0, "offset": 0, "size": 0, "checksum": 0}
    names = {1: "dtype", 3: "shard", 4: "offset", 5: "size", 6: "checksum"}
    shape: tuple[int, ...] = ()
    sliced = False
    for field, value in fields(data, (0, len(data))):
        if field == 2:
            shape = read_shape(data, inside(value))
        elif field == 7:
            sliced = True
        elif field in names:
            found[names[field]] = number(value)
    return Entry(shape=shape, sliced=sliced, **found)


def read_shape(data: bytes, span: tuple[int, int]) -> tuple[int, ...]:
    """The lengths in a TensorShapeProto; an unknown length (-1 there) is Damage."""
    shape: list[int] = []
    for field, value in fields(data, span):
        if field == 2:
            length = 0
            for part, size in fields(data, inside(value)):
                if part == 1:
                    length = number(size)
            if length >= 1 << 40 or len(shape) >= 8:
                raise Damage("an impossible shape")
            shape.append(length)
    return tuple(shape)


def _check(name: str, entry: Entry, shards: int) -> None:
    kind = _TYPES.get(entry.dtype)
    if kind is None or entry.sliced:
        raise Damage(f"the variable {name!r} is of a kind that is not supported")
    if entry.shard >= shards or math.prod(entry.shape) * int(kind[2:]) != entry.size:
        raise Damage(f"the variable {name!r} has a size that does not fit its shape")


def _read_shard(path: Path, entries: dict[str, Entry]) -> dict[str, npt.NDArray[Any]]:
    import numpy as np

    arrays = {}
    try:
        with path.open("rb") as file, reading(str(path)):
            length = file.seek(0, 2)
            if sum(entry.size for entry in entries.values()) > min(length, MAX_DATA):
                raise Damage("it is shorter than its index says")
            for name, entry in entries.items():
                if entry.offset + entry.size > length:
                    raise Damage("it is shorter than its index says")
                file.seek(entry.offset)
                content = file.read(entry.size)
                if len(content) != entry.size or unmask(entry.checksum) != crc32c(content):
                    raise Damage(f"the checksum of the variable {name!r} is wrong")
                values = np.frombuffer(content, np.dtype(_TYPES[entry.dtype])).reshape(entry.shape)
                arrays[name] = values.astype(values.dtype.newbyteorder("="))
    except OSError as error:
        raise damaged(str(path), error.strerror or "cannot be opened") from error
    return arrays
