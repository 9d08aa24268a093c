"""Tar files, plain or packed by gzip, read strictly and member by member in one pass.

The layout is POSIX.1-2001 `ustar` with pax headers, and GNU's long names. Memory is bounded whatever the file
claims; links, devices, pipes and sparse files are refused.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from attrs import define

from rasa_core_api.models.members import CHUNK, Limits, Member, refuse

GZIP_MAGIC = b"\x1f\x8b"
_ARCHIVES = (b"PK\x03\x04", GZIP_MAGIC)
_BLOCK = 512
_LONGEST_HEADER = 64 * 1024  # bytes of one long name or pax header
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"K": "a link",
    b"S": "a sparse file",
    b"M": "a file split over several archives",
    b"V": "a volume label",
}
_PAX_LENGTH = re.compile(rb"([0-9]{1,6}) ")


def looks_like_tar(head: bytes) -> bool:
    """Whether the first 512 bytes are a tar header, by its checksum."""
    return len(head) >= _BLOCK and head[257:262] == b"ustar" and _checksum_fits(head[:_BLOCK])


def tar_members(file: BinaryIO, length: int, limits: Limits, gzipped: bool) -> Iterator[Member]:
    """The members of a tar file of `length` bytes. Raises UnsafeArchive.

    A member's content must be taken before the next member is asked for; what is left of it is skipped.
    """
    most = min(limits.ratio * length, limits.size) + 2 * _BLOCK * (limits.members + 20)
    stream = _Stream(_unzip(file) if gzipped else _chunks(file), most)
    long_name: str | None = None
    pax: dict[str, str] = {}
    headers = 0
    if gzipped and stream.begins(_ARCHIVES):
        raise refuse("an archive packed once more by gzip, perhaps by the server that sent it")
    while True:
        block = stream.take(_BLOCK)
        if block is None:
            raise refuse("it is cut off")
        if not any(block):
            break
        headers += 1
        if headers > 3 * limits.members:
            raise refuse(f"more than {limits.members} members")
        if not _checksum_fits(block):
            raise refuse("a damaged header")
        kind = block[156:157]
        size = _number(block[124:136])
        if kind in (b"L", b"x", b"g"):
            data = stream.payload(size)
            if kind == b"L":
                long_name = _text(data.rstrip(b"\0"))
            elif kind == b"x":
                pax = _read_pax(data)
            else:
                _check_global(_read_pax(data))
            continue
        name = pax.get("path") or long_name or _plain_name(block)
        if kind not in (b"0", b"\0", b"7", b"5"):
            raise refuse(_KINDS.get(kind, "neither a file nor a directory"), name)
        if any(key.startswith("GNU.sparse") for key in pax):
            raise refuse("a sparse file", name)
        if "linkpath" in pax or (kind in (b"0", b"\0", b"7") and any(block[157:257])):
            raise refuse("a link", name)
        if "size" in pax:
            size = _pax_size(pax["size"], name)
        directory = kind == b"5" or (kind in (b"0", b"\0") and name.endswith("/"))
        content = _Content(stream, name, size)
        yield Member(name, directory, size, None, content.chunks)
        content.skip()
        long_name, pax = None, {}
    stream.drain()


def _checksum_fits(block: bytes) -> bool:
    try:
        said = int(block[148:156].rstrip(b" \0").lstrip(b" ") or b"x", 8)
    except ValueError:
        return False
    return said == sum(block[:148]) + sum(block[156:]) + 8 * 32


def _number(raw: bytes) -> int:
    """A size: octal digits, or a big-endian number after a byte 0x80 (GNU's form for large ones)."""
    if raw[0] == 0x80:
        return int.from_bytes(raw[1:], "big")
    digits = raw.strip(b" \0")
    if digits.strip(b"01234567"):  # int() would take signs, prefixes and underscores too
        raise refuse("a damaged size")
    return int(digits or b"0", 8)


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise refuse("a name that is not UTF-8", ascii(raw)) from None


def _plain_name(block: bytes) -> str:
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    return _text(prefix + b"/" + name if prefix else name)


def _read_pax(data: bytes) -> dict[str, str]:
    """Records `LENGTH KEY=VALUE\\n`, the length counting itself."""
    found: dict[str, str] = {}
    at = 0
    while at < len(data) and data[at]:
        match = _PAX_LENGTH.match(data, at)
        end = at + int(match[1]) if match else 0
        if match is None or end <= match.end() or end > len(data) or data[end - 1] != 10:
            raise refuse("a damaged pax header")
        key, equals, value = data[match.end() : end - 1].partition(b"=")
        if not equals:
            raise refuse("a damaged pax header")
        if key in (b"path", b"linkpath", b"size") or key.startswith(b"GNU.sparse"):
            found[_text(key)] = _text(value)
        at = end
    return found


def _check_global(found: dict[str, str]) -> None:
    if found:
        raise refuse(f"a global header that sets the {sorted(found)[0]} of every member")


def _pax_size(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        raise refuse("a damaged size", name)
    return int(text)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while data := file.read(CHUNK):
        yield data


def _unzip(file: BinaryIO) -> Iterator[bytes]:
    """The content of a gzip file of one or more parts; checksums are zlib's work."""
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
    fresh = True  # nothing of this part was read
    for data in _chunks(file):
        while data:
            if inflater.eof:
                inflater, fresh = zlib.decompressobj(zlib.MAX_WBITS | 16), True
            if fresh and not data.strip(b"\0"):
                break  # padding behind the last part
            fresh = False
            try:
                chunk = inflater.decompress(data, CHUNK)
            except zlib.error:
                raise refuse("its gzip data is damaged") from None
            data = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
            if chunk:
                yield chunk
            elif not inflater.eof:
                break
    while not inflater.eof and not fresh:
        chunk = inflater.decompress(b"", CHUNK)
        if not chunk:
            raise refuse("it is cut off")
        yield chunk


@define
class _Stream:
    """Reads exact amounts from chunks, at most `most` bytes in all."""

    _source: Iterator[bytes]
    _most: int
    _buffer: bytes = b""
    _read: int = 0

    def _more(self) -> bool:
        chunk = next(self._source, None)
        if chunk is None:
            return False
        self._read += len(chunk)
        if self._read > self._most:
            raise refuse("more bytes when unpacked than allowed for its size")
        self._buffer += chunk
        return True

    def begins(self, starts: tuple[bytes, ...]) -> bool:
        """Whether the stream begins with one of these (four bytes at most); nothing is taken."""
        while len(self._buffer) < 4 and self._more():
            pass
        return self._buffer.startswith(starts)

    def take(self, size: int) -> bytes | None:
        """`size` bytes (small), or None where the stream ends before."""
        while len(self._buffer) < size:
            if not self._more():
                return None
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def some(self, most: int) -> bytes:
        """Between 1 and `most` bytes. Raises UnsafeArchive at the end."""
        if not self._buffer and not self._more():
            raise refuse("it is cut off")
        data, self._buffer = self._buffer[:most], self._buffer[most:]
        return data

    def payload(self, size: int) -> bytes:
        """The content of a header that describes the next member, with its padding taken."""
        if size > _LONGEST_HEADER:
            raise refuse(f"a header longer than {_LONGEST_HEADER} bytes")
        data = self.take(size + -size % _BLOCK)
        if data is None:
            raise refuse("it is cut off")
        return data[:size]

    def drain(self) -> None:
        """Read to the end, which checks the checksum; nothing but zeros may be left."""
        while True:
            if self._buffer.strip(b"\0"):
                raise refuse("content behind its end")
            self._buffer = b""
            if not self._more():
                return


@define
class _Content:
    _stream: _Stream
    _name: str
    _size: int
    _left: int = -1

    def chunks(self) -> Iterator[bytes]:
        """The content; the padding behind it is taken too."""
        left = self._size
        self._left = left
        while left:
            data = self._stream.some(min(CHUNK, left))
            left -= len(data)
            self._left = left
            yield data

    def skip(self) -> None:
        """Leave the stream at the next header."""
        left = self._size if self._left < 0 else self._left
        while left:
            left -= len(self._stream.some(min(CHUNK, left)))
        padding = -self._size % _BLOCK
        if padding and self._stream.take(padding) is None:
            raise refuse("it is cut off")
