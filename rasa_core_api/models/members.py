"""What an archive may hold: the rules each member is checked against before a byte of it is written."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from os import fsencode

from attrs import define, field, frozen

from rasa_core_api.exceptions import UnsafeArchive

#: Bytes that are read, inflated or written at a time.
CHUNK = 64 * 1024

_DRIVE = re.compile(r"^[A-Za-z]:")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])(?: *\..*)?", re.I)
_LONGEST_PART = 255  # bytes, as most file systems have it
_LONGEST_NAME = 1024  # bytes
_DEEPEST = 32
_LOOKALIKE = "a name that differs from another in case or accents only"
_SMALL = 1024 * 1024  # bytes; a member below may be of any ratio, the archive as a whole may not


@frozen
class Limits:
    """Bounds of one archive: how many members, unpacked bytes in all, unpacked bytes per packed byte."""

    members: int = 10_000
    size: int = 1024 * 1024 * 1024
    ratio: int = 200


@frozen
class Member:
    """One entry of an archive as its header describes it; `chunks()` yields the content, in order, once."""

    name: str
    directory: bool
    size: int  # bytes when unpacked, as the header says
    packed: int | None  # bytes in the archive, where members are packed one by one
    chunks: Callable[[], Iterator[bytes]]


def refuse(reason: str, name: str | None = None) -> UnsafeArchive:
    """The refusal of a member (by its name, shortened and made printable) or of a whole archive."""
    if name is None:
        return UnsafeArchive(f"refused archive: {reason}", reason=reason)
    shown = ascii(name if len(name) <= 80 else name[:77] + "...")
    return UnsafeArchive(f"refused archive: {reason}: member {shown}", reason=reason, member=shown)


def safe_parts(name: str) -> tuple[str, ...]:
    """The components of a member's name below the root; empty for the root itself.

    Raises UnsafeArchive for a name that leaves the root or that some file system would understand differently.
    """
    if not name:
        raise refuse("an empty name", name)
    if "\0" in name:
        raise refuse("a name with a NUL", name)
    if name.startswith("/"):
        raise refuse("an absolute path", name)
    if "\\" in name:
        raise refuse("a name with a backslash", name)
    if _DRIVE.match(name):
        raise refuse("a name with a drive letter", name)
    if any(unicodedata.category(char) in ("Cc", "Cf", "Cs") for char in name):
        raise refuse("a name with control characters", name)
    if len(name.encode("utf-8")) > _LONGEST_NAME:
        raise refuse(f"a name longer than {_LONGEST_NAME} bytes", name)
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise refuse("a path that leads upwards", name)
    if len(parts) > _DEEPEST:
        raise refuse(f"nested deeper than {_DEEPEST} directories", name)
    for part in parts:
        if len(part.encode("utf-8")) > _LONGEST_PART:
            raise refuse(f"a file name longer than {_LONGEST_PART} bytes", name)
        if part.endswith((" ", ".")):
            raise refuse("a file name that ends in a blank or a dot", name)
        if ":" in part:
            raise refuse("a file name with a colon", name)
        if _DEVICE.fullmatch(part):
            raise refuse("a file name that is a device on some systems", name)
    try:
        fsencode(name)
    except UnicodeEncodeError:  # where the locale is no UTF-8
        raise refuse("a name that file names of this system cannot be", name) from None
    return parts


@define
class Inspector:
    """Admits the members of one archive in their order, or raises UnsafeArchive with the reason."""

    _limits: Limits
    _packed: int  # bytes of the whole archive
    _count: int = 0
    _size: int = 0
    _files: dict[str, str] = field(factory=dict)  # folded path -> name
    _directories: dict[str, str] = field(factory=dict)  # folded path -> path, parents of files included

    def admit(self, member: Member) -> tuple[str, ...]:
        """The place of this member below the root. Counts it against the limits."""
        self._count += 1
        if self._count > self._limits.members:
            raise refuse(f"more than {self._limits.members} members")
        parts = safe_parts(member.name)
        if not parts and not member.directory:
            raise refuse("a file in place of the root", member.name)
        self._claim(parts, member)
        if member.directory and member.size:
            raise refuse("a directory with content", member.name)
        self._weigh(member)
        return parts

    def _claim(self, parts: tuple[str, ...], member: Member) -> None:
        parents = range(1, len(parts) + 1 if member.directory else len(parts))
        for end in parents:
            path = "/".join(parts[:end])
            folded = fold(path)
            if folded in self._files:
                raise refuse("a file that is a directory elsewhere", member.name)
            if self._directories.setdefault(folded, path) != path:
                raise refuse(_LOOKALIKE, member.name)
            if len(self._directories) > self._limits.members:  # most may be told by longer names only
                raise refuse(f"more than {self._limits.members} directories", member.name)
        if member.directory:
            return
        path = "/".join(parts)
        folded = fold(path)
        if folded in self._directories:
            raise refuse("a file that is a directory elsewhere", member.name)
        known = self._files.get(folded)
        if known is not None:
            raise refuse("a duplicate name" if known == path else _LOOKALIKE, member.name)
        self._files[folded] = path

    def _weigh(self, member: Member) -> None:
        limits = self._limits
        self._size += member.size
        if self._size > limits.size:
            raise refuse(f"more than {limits.size} bytes when unpacked", member.name)
        if self._size > limits.ratio * self._packed:
            raise refuse(f"more than {limits.ratio} times its size when unpacked", member.name)
        if member.packed is not None and member.size > max(_SMALL, limits.ratio * member.packed):
            raise refuse(f"a member of more than {limits.ratio} times its packed size", member.name)


def fold(path: str) -> str:
    """What is left of a path where case and composition of accents do not count."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
