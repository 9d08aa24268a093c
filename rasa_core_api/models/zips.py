"""Zip files, read strictly: the directory at the end and the headers before each member must tell the same.

The layout is PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 to 4.5; stored and deflated members only. Every offset
and size is checked before it is followed, and memory is bounded whatever the file claims.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

from attrs import frozen

from rasa_core_api.models.members import CHUNK, Limits, Member, refuse

MAGIC = b"PK\x03\x04"
EMPTY_MAGIC = b"PK\x05\x06"

_END = struct.Struct("<4sHHHHIIH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_CENTRAL = struct.Struct("<4sBBHHHHHIIIHHHHHII")
_LOCAL = struct.Struct("<4sHHHHHIIIHH")

_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_DESCRIPTOR = 0x0008
_PATCH = 0x0020
_UTF8 = 0x0800
_OTHER_NAME = 0x7075  # Info-ZIP's extra field that other programs take a member's name from
_ALL16 = 0xFFFF
_ALL32 = 0xFFFFFFFF
_BYTES_PER_MEMBER = 2048  # of the directory, names and extra fields included
_UNIX = 3  # "version made by": the upper half of the attributes holds a mode
_APPLE = 19


@frozen
class _Entry:
    name: str
    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int  # of the local header


def zip_members(file: BinaryIO, length: int, limits: Limits) -> Iterator[Member]:
    """The members of a zip file of `length` bytes; all headers are checked before the first is yielded.

    Raises UnsafeArchive.
    """
    count, start, size = _find_directory(file, length)
    if count > limits.members:
        raise refuse(f"more than {limits.members} members")
    if size > count * _BYTES_PER_MEMBER:
        raise refuse("a directory larger than its members need")
    entries = _read_directory(_read_at(file, start, size), count)
    data = _check_places(file, entries, start)
    for entry, at in zip(entries, data, strict=True):
        directory = entry.name.endswith("/")
        yield Member(entry.name, directory, entry.size, entry.packed, partial(_content, file, entry, at))


def _read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise refuse("it is cut off")
    return data


def _find_directory(file: BinaryIO, length: int) -> tuple[int, int, int]:
    """Number of members, offset and size of the directory. It must lie right before its end record."""
    tail_size = min(length, _END.size + _ALL16)
    tail = _read_at(file, length - tail_size, tail_size)
    at = len(tail)
    while True:
        at = tail.rfind(EMPTY_MAGIC, 0, at)
        if at < 0:
            raise refuse("it has no directory at its end; is it cut off?")
        if at + _END.size <= len(tail):
            record = _END.unpack_from(tail, at)
            if at + _END.size + record[7] == len(tail):
                break
    _, disk, first_disk, here, count, size, start, _ = record
    end = length - tail_size + at
    if _ALL16 in (disk, first_disk, here, count) or _ALL32 in (size, start):
        here, count, size, start, disk, first_disk, end = _find_directory64(file, end)
    if disk or first_disk or here != count:
        raise refuse("it is split over several files")
    if start + size != end:
        raise refuse("its directory is not where its end says")
    return count, start, size


def _find_directory64(file: BinaryIO, end: int) -> tuple[int, int, int, int, int, int, int]:
    at = end - _END64_LOCATOR.size
    if at < 0:
        raise refuse("it has no directory at its end; is it cut off?")
    magic, disk, record_at, disks = _END64_LOCATOR.unpack(_read_at(file, at, _END64_LOCATOR.size))
    if magic != b"PK\x06\x07" or disk or disks > 1 or record_at + _END64.size != at:
        raise refuse("its 64-bit directory is damaged")
    magic, _, _, _, here_disk, first_disk, here, count, size, start = _END64.unpack(
        _read_at(file, record_at, _END64.size)
    )
    if magic != b"PK\x06\x06":
        raise refuse("its 64-bit directory is damaged")
    return here, count, size, start, here_disk, first_disk, record_at


def _read_directory(data: bytes, count: int) -> list[_Entry]:
    entries = []
    at = 0
    for _ in range(count):
        if at + _CENTRAL.size > len(data):
            raise refuse("its directory is cut off")
        fields = _CENTRAL.unpack_from(data, at)
        magic, _, system, _, flags, method, _, _, crc, packed, size = fields[:11]
        name_size, extra_size, comment_size, disk, _, attributes, offset = fields[11:]
        if magic != b"PK\x01\x02":
            raise refuse("its directory is damaged")
        at += _CENTRAL.size
        raw_name = data[at : at + name_size]
        extra = data[at + name_size : at + name_size + extra_size]
        at += name_size + extra_size + comment_size
        if at > len(data):
            raise refuse("its directory is cut off")
        name = _decode(raw_name, flags)
        size, packed, offset = _widen(extra, size, packed, offset, name)
        if disk not in (0, _ALL16):
            raise refuse("it is split over several files", name)
        entry = _Entry(name, raw_name, flags, method, crc, packed, size, offset)
        _check_kind(entry, system, attributes)
        entries.append(entry)
    if at != len(data):
        raise refuse("its directory holds more than it counts")
    return entries


def _decode(raw: bytes, flags: int) -> str:
    if not flags & _UTF8:
        return raw.decode("cp437")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise refuse("a name that is not UTF-8", ascii(raw)) from None


def _widen(extra: bytes, size: int, packed: int, offset: int, name: str) -> tuple[int, int, int]:
    """Take 64-bit values from the extra field 1, in place of those that do not fit (APPNOTE 4.5.3)."""
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<HH", extra, at)
        at += 4
        field = extra[at : at + length]
        at += length
        if tag == _OTHER_NAME and field[5:] != name.encode("utf-8"):
            raise refuse("two names", name)
        if tag != 1:
            continue
        values = [value for (value,) in struct.iter_unpack("<Q", field[: len(field) // 8 * 8])]
        try:
            size = values.pop(0) if size == _ALL32 else size
            packed = values.pop(0) if packed == _ALL32 else packed
            offset = values.pop(0) if offset == _ALL32 else offset
        except IndexError:
            raise refuse("a damaged 64-bit field", name) from None
    return size, packed, offset


def _check_kind(entry: _Entry, system: int, attributes: int) -> None:
    name = entry.name
    if entry.flags & _ENCRYPTED or entry.method == 99:
        raise refuse("an encrypted member", name)
    if entry.flags & _PATCH:
        raise refuse("a patch in place of a file", name)
    if entry.method not in (0, 8):
        raise refuse(f"packed by method {entry.method}; only stored and deflated are read", name)
    if entry.method == 0 and entry.size != entry.packed:
        raise refuse("a stored member of two sizes", name)
    mode = attributes >> 16 if system in (_UNIX, _APPLE) else 0
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFLNK:
        raise refuse("a symbolic link", name)
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        raise refuse("a device", name)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise refuse("neither a file nor a directory", name)
    if kind and (kind == stat.S_IFDIR) != name.endswith("/"):
        raise refuse("a directory by one field and a file by another", name)


def _check_places(file: BinaryIO, entries: list[_Entry], end: int) -> list[int]:
    """Where the data of each entry begins, after checking that headers agree and nothing overlaps."""
    begins: dict[int, int] = {}
    free = 0
    before: _Entry | None = None
    for index in sorted(range(len(entries)), key=lambda i: entries[i].offset):
        entry = entries[index]
        if entry.offset < free:
            raise refuse("it overlaps another member", entry.name)
        if entry.offset + _LOCAL.size > end:
            raise refuse("it lies outside the archive", entry.name)
        _check_gap(file, before, free, entry.offset)
        header = _LOCAL.unpack(_read_at(file, entry.offset, _LOCAL.size))
        magic, _, flags, method, _, _, crc, packed, size, name_size, extra_size = header
        names = _read_at(file, entry.offset + _LOCAL.size, name_size + extra_size)
        if magic != MAGIC or names[:name_size] != entry.raw_name or method != entry.method:
            raise refuse("its own header contradicts the directory", entry.name)
        if (flags ^ entry.flags) & (_ENCRYPTED | _DESCRIPTOR | _PATCH):
            raise refuse("its own header contradicts the directory", entry.name)
        if not flags & _DESCRIPTOR:
            size, packed, _ = _widen(names[name_size:], size, packed, 0, entry.name)
            if (size, packed, crc) != (entry.size, entry.packed, entry.crc):
                raise refuse("its own header contradicts the directory", entry.name)
        data = entry.offset + _LOCAL.size + name_size + extra_size
        free = data + entry.packed
        if free > end:
            raise refuse("it lies outside the archive", entry.name)
        begins[index] = data
        before = entry
    _check_gap(file, before, free, end)
    return [begins[index] for index in range(len(entries))]


def _check_gap(file: BinaryIO, before: _Entry | None, start: int, end: int) -> None:
    """Between two members lies nothing, but the sizes of the first where they were not known before it (4.3.9)."""
    described = before is not None and before.flags & _DESCRIPTOR
    if start == end and not described:
        return
    if described and end - start in (12, 16, 20, 24):
        assert before is not None
        gap = _read_at(file, start, end - start).removeprefix(b"PK\x07\x08")
        sizes = (before.crc, before.packed, before.size)
        if len(gap) in (12, 20) and struct.unpack("<III" if len(gap) == 12 else "<IQQ", gap) == sizes:
            return
        raise refuse("what follows its content contradicts the directory", before.name)
    raise refuse("bytes that belong to no member", None if before is None else before.name)


def _packed(file: BinaryIO, entry: _Entry, at: int) -> Iterator[bytes]:
    end = at + entry.packed
    while at < end:
        data = _read_at(file, at, min(CHUNK, end - at))
        at += len(data)
        yield data


def _content(file: BinaryIO, entry: _Entry, at: int) -> Iterator[bytes]:
    crc = 0
    left = entry.size
    source = _packed(file, entry, at)
    for chunk in source if entry.method == 0 else _inflate(source, entry.name):
        left -= len(chunk)
        if left < 0:
            raise refuse("more content than its header says", entry.name)
        crc = zlib.crc32(chunk, crc)
        yield chunk
    if left:
        raise refuse("less content than its header says", entry.name)
    if crc != entry.crc:
        raise refuse("its checksum is wrong", entry.name)


def _inflate(source: Iterator[bytes], name: str) -> Iterator[bytes]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    for data in source:
        if inflater.eof:
            raise refuse("bytes after its packed content", name)
        while data and not inflater.eof:
            chunk = _step(inflater, data, name)
            data = inflater.unconsumed_tail
            if chunk:
                yield chunk
        if inflater.unused_data:
            raise refuse("bytes after its packed content", name)
    while not inflater.eof:  # what the window still holds back
        chunk = _step(inflater, b"", name)
        if not chunk and not inflater.eof:
            raise refuse("its packed content is cut off", name)
        yield chunk


def _step(inflater: zlib._Decompress, data: bytes, name: str) -> bytes:
    try:
        return inflater.decompress(data, CHUNK)
    except zlib.error:
        raise refuse("its packed content is damaged", name) from None
