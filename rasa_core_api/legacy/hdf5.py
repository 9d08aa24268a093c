"""HDF5 files, as far as Keras needs them: groups, attributes that are text, arrays of floats.

The library of the format's authors is not used, because a damaged or hostile file can crash it together with the
server. Read is what version 0 of the superblock allows (the default of h5py): groups of symbol tables, object headers
of version 1, attributes of fixed or variable length, data that lies in one piece. Links, external files, shared
messages, chunks and filters are refused. Layouts: "HDF5 File Format Specification", version 3.0, sections II to VI.

Every address and length is compared with the bytes that are there; `Damage` is raised for all that does not fit.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rasa_core_api.legacy import Damage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_STEPS = 100_000  # blocks of the file that are looked at
MAX_MEMBERS = 10_000  # of one group
MAX_TEXT = 64 << 20  # bytes of text that one attribute may expand to
MAX_RANK = 32

_NOWHERE = 0xFFFFFFFFFFFFFFFF

# message types of object headers
_DATASPACE, _DATATYPE, _EXTERNAL, _LAYOUT, _FILTERS, _ATTRIBUTE = 0x01, 0x03, 0x07, 0x08, 0x0B, 0x0C
_CONTINUATION, _SYMBOL_TABLE = 0x10, 0x11
_SHARED = 0x02  # flag of a message that lies elsewhere

_FLOAT, _STRING, _VARIABLE = 1, 3, 9  # classes of types
#: Size of a float to its bit offset, precision, exponent and mantissa (place, size) and bias (IEEE 754).
_IEEE = {2: (0, 16, 10, 5, 0, 10, 15), 4: (0, 32, 23, 8, 0, 23, 127), 8: (0, 64, 52, 11, 0, 52, 1023)}
_SYMBOLIC_LINK = 2


def _padded(length: int) -> int:
    return (length + 7) & ~7


class Hdf5:
    """A file in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._steps = 0
        if not data.startswith(SIGNATURE):
            raise Damage("is not an HDF5 file")
        # version, two more versions, a zero, one more version; sizes of addresses and of lengths
        if self.take(8, 5) != bytes(5) or self.take(13, 2) != b"\x08\x08" or self.word(24, 8) != 0:
            raise Damage("an HDF5 file of another version than Keras wrote")

    @property
    def root(self) -> Node:
        """The outermost group; read each time, as a file that held it would be held by it, and the bytes with both."""
        return Node(self, self.word(64, 8))

    def take(self, address: int, length: int) -> bytes:
        """Bytes of the file; Damage where it has fewer."""
        if length < 0 or address < 0 or address + length > len(self._data):
            raise Damage("is cut short, or points outside of itself")
        return self._data[address : address + length]

    def word(self, address: int, length: int) -> int:
        """A little-endian number."""
        return int.from_bytes(self.take(address, length), "little")

    def step(self) -> None:
        """Counts the blocks, so that a file cannot send its reader round in circles."""
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise Damage("has too many parts")

    def members(self, tree: int, heap: int) -> dict[str, int]:
        """Names of a group and the addresses of what they name."""
        if self.take(heap, 4) != b"HEAP":
            raise Damage("a damaged heap of names")
        size, names = self.word(heap + 8, 8), self.word(heap + 24, 8)
        texts = self.take(names, size)
        found: dict[str, int] = {}
        for entry in self._entries(tree, 0):
            offset, address, kind = struct.unpack("<QQI", self.take(entry, 20))
            end = texts.find(b"\0", offset)
            if end < 0 or kind == _SYMBOLIC_LINK or len(found) >= MAX_MEMBERS:
                raise Damage("a link, a name without an end or too many names")
            found[texts[offset:end].decode("utf-8")] = address
        return found

    def _entries(self, tree: int, depth: int) -> Iterator[int]:
        self.step()
        signature, kind, level, used = struct.unpack("<4sBBH", self.take(tree, 8))
        if signature != b"TREE" or kind != 0 or depth > 20:
            raise Damage("a damaged list of members")
        for index in range(used):
            child = self.word(tree + 32 + 16 * index, 8)  # behind siblings and key
            if level:
                yield from self._entries(child, depth + 1)
                continue
            self.step()
            signature, version, _, count = struct.unpack("<4sBBH", self.take(child, 8))
            if signature != b"SNOD" or version != 1:
                raise Damage("a damaged list of members")
            for number in range(count):
                yield child + 8 + 40 * number

    def heap_object(self, collection: int, index: int) -> bytes:
        """An object of a global heap."""
        self.step()
        if self.take(collection, 5) != b"GCOL\x01":
            raise Damage("a damaged heap of texts")
        place, end = collection + 16, collection + self.word(collection + 8, 8)
        while place + 16 <= end:
            self.step()
            number, _, _, size = struct.unpack("<HHIQ", self.take(place, 16))
            if number == index:
                return self.take(place + 16, size)
            if number == 0 or size > len(self._data):
                break
            place += 16 + _padded(size)
        raise Damage("a text that is not there")


class Node:
    """A group or an array."""

    def __init__(self, file: Hdf5, address: int) -> None:
        self._file = file
        self._messages: list[tuple[int, int, bytes]] = list(self._read_messages(address))
        self._members: dict[str, int] | None = None

    def _read_messages(self, address: int) -> Iterator[tuple[int, int, bytes]]:
        file = self._file
        version, _, count, _, size = struct.unpack("<BBHII", file.take(address, 12))
        if version != 1:
            raise Damage("an object of another version than Keras wrote")
        blocks = [(address + 16, size)]
        for place, length in blocks:
            file.step()
            end = place + length
            while place + 8 <= end and count > 0:
                file.step()
                count -= 1
                kind, size, flags = struct.unpack("<HHB", file.take(place, 5))
                content = file.take(place + 8, size)
                if kind == _CONTINUATION:
                    blocks.append(struct.unpack_from("<QQ", content))
                else:
                    yield kind, flags, content
                place += 8 + size

    def _message(self, kind: int) -> bytes | None:
        for found, flags, content in self._messages:
            if found == kind:
                if flags & _SHARED:
                    raise Damage("a part that lies elsewhere")
                return content
        return None

    def __contains__(self, name: str) -> bool:
        return name in self._named()

    def _named(self) -> dict[str, int]:
        if self._members is None:
            table = self._message(_SYMBOL_TABLE)
            if table is None:
                raise Damage("a group was expected")
            self._members = self._file.members(*struct.unpack_from("<QQ", table))
        return self._members

    def child(self, path: str) -> Node:
        """The group or array at a path below this group."""
        node = self
        for name in path.split("/"):
            address = node._named().get(name)
            if address is None:
                raise Damage(f"has no {path[:200]!r}")
            node = Node(self._file, address)
        return node

    # --- attributes ----------------------------------------------------------------------------------

    def texts(self, name: str) -> list[str] | None:
        """The texts of an attribute, one or many; [] for an empty one, None where there is none of that name."""
        for kind, flags, content in self._messages:
            if kind == _ATTRIBUTE:
                if flags & _SHARED:
                    raise Damage("an attribute that lies elsewhere")
                found, kind_of_type, space, place = self._attribute(content)
                if found == name.encode():
                    return self._read_texts(name, kind_of_type, _shape(space), content[place:])
        return None

    @staticmethod
    def _attribute(content: bytes) -> tuple[bytes, bytes, bytes, int]:
        """Name, type, space, and where the value begins."""
        version, flags, name_size, type_size, space_size = struct.unpack_from("<BBHHH", content)
        if version not in (1, 2, 3) or (version > 1 and flags):
            raise Damage("an attribute of an unknown form")
        place = 9 if version == 3 else 8
        parts = []
        for size in (name_size, type_size, space_size):
            parts.append(content[place : place + size])
            place += _padded(size) if version == 1 else size
        return parts[0].rstrip(b"\0"), parts[1], parts[2], place

    def _read_texts(self, name: str, kind: bytes, shape: tuple[int, ...], value: bytes) -> list[str]:
        count = 1
        for length in shape:
            count *= length
        if not count:
            return []
        variant = kind[0] & 15
        size = int.from_bytes(kind[4:8], "little")
        if not size or count * size > len(value):
            raise Damage(f"the attribute {name[:200]!r} is cut short")
        items = [value[size * index : size * (index + 1)] for index in range(count)]
        if variant == _STRING:
            return [_decoded(item) for item in items]
        if variant == _VARIABLE and kind[1] & 15 == 1 and size == 16:
            texts = []
            left = MAX_TEXT
            for item in items:
                length, collection, index = struct.unpack("<IQI", item)
                left -= length
                if left < 0:
                    raise Damage(f"the attribute {name[:200]!r} is too large")
                texts.append(_decoded(self._file.heap_object(collection, index)[:length]) if length else "")
            return texts
        raise Damage(f"the attribute {name[:200]!r} is not text")

    # --- arrays --------------------------------------------------------------------------------------

    def floats(self, limit: int) -> NDArray[np.float32]:
        """The numbers of an array of floats, at most `limit`, as float32."""
        import numpy as np

        kind, space, layout = (self._message(number) for number in (_DATATYPE, _DATASPACE, _LAYOUT))
        if kind is None or space is None or layout is None:
            raise Damage("an array was expected")
        if self._message(_EXTERNAL) is not None or self._message(_FILTERS) is not None:
            raise Damage("an array that lies outside of the file, or compressed")
        shape = _shape(space)
        size = int.from_bytes(kind[4:8], "little")
        if kind[0] & 15 != _FLOAT or struct.unpack_from("<HHBBBBI", kind, 8) != _IEEE.get(size) or kind[1] & 0x41 > 1:
            raise Damage("an array of something else than floats")
        count = 1
        for length in shape:
            count *= length
        if count > limit:
            raise Damage("an array that is too large")
        order = ">" if kind[1] & 1 else "<"
        flat = np.frombuffer(self._content(layout, count * size), np.dtype(f"{order}f{size}"))
        return np.array(flat.reshape(shape), np.float32)

    def _content(self, layout: bytes, size: int) -> bytes:
        version, kind = layout[0], layout[1]
        if version == 3 and kind == 0:
            content = layout[4 : 4 + int.from_bytes(layout[2:4], "little")]
        elif version == 3 and kind == 1:
            address, length = struct.unpack_from("<QQ", layout, 2)
            content = b"" if address == _NOWHERE else self._file.take(address, length)
        else:
            raise Damage("an array in pieces")
        if len(content) < size:
            raise Damage("an array that is cut short")
        return content[:size]


def _shape(space: bytes) -> tuple[int, ...]:
    version, rank = space[0], space[1]
    place = {1: 8, 2: 4}.get(version)
    if place is None or rank > MAX_RANK:
        raise Damage("an unknown shape")
    if version == 2 and space[3] == 2:
        return (0,)
    return struct.unpack_from(f"<{rank}Q", space, place)


def _decoded(text: bytes) -> str:
    return text.split(b"\0", 1)[0].decode("utf-8")
