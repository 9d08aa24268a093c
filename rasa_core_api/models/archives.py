"""Model archives: unpacked into a private directory under strict rules, packed the same bytes each time."""

from __future__ import annotations

import errno
import os
import shutil
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from rasa_core_api.exceptions import RasaCoreError, UnsafeArchive, UnsupportedModel
from rasa_core_api.models.members import Inspector, Limits, Member, refuse
from rasa_core_api.models.tars import GZIP_MAGIC, looks_like_tar, tar_members
from rasa_core_api.models.zips import EMPTY_MAGIC, MAGIC, zip_members

__all__ = [
    "DEFAULT_LIMITS",
    "Limits",
    "UnsafeArchive",
    "is_archive",
    "pack_directory",
    "unpack",
    "unpacking",
    "write_archive",
]

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can tell
_HEAD = 512
#: What a disk says when it is full, broken or closed to us; no archive is to blame for that.
_OURS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE)
DEFAULT_LIMITS = Limits()


def _kind(head: bytes) -> str | None:
    if head.startswith((MAGIC, EMPTY_MAGIC)):
        return "zip"
    if head.startswith(GZIP_MAGIC):
        return "tar.gz"
    return "tar" if looks_like_tar(head) else None


def is_archive(path: Path) -> bool:
    """Whether this is a file that begins like a zip, tar.gz or tar; its name does not matter."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return _kind(file.read(_HEAD)) is not None


def unpack(archive: Path, into: Path, limits: Limits = DEFAULT_LIMITS) -> None:
    """Unpack a zip, tar.gz or tar into `into`, a directory that is empty or does not exist yet.

    Raises UnsafeArchive with the reason, and RasaCoreError where this machine is at fault (a full disk); nothing
    outside `into` was touched then and `into` is gone.
    Files are created anew, for their owner alone; times, owners and modes are not taken over.
    """
    for _ in unpacking(archive, into, limits):
        pass


def unpacking(archive: Path, into: Path, limits: Limits = DEFAULT_LIMITS) -> Iterator[int]:
    """`unpack` in steps: yields the bytes written by each, at most 64 KiB."""
    try:
        into.mkdir(mode=0o700, exist_ok=True)
        if any(into.iterdir()):
            raise FileExistsError(f"{into} is not empty")
    except OSError as error:
        raise _failed(f"cannot unpack into {into}: {error}", error) from None
    try:
        with archive.open("rb") as file:
            yield from _unpack(file, into, limits)
    except OSError as error:
        shutil.rmtree(into, ignore_errors=True)
        raise _failed(f"cannot unpack {archive.name}: {error.strerror or error}", error) from error
    except BaseException:
        shutil.rmtree(into, ignore_errors=True)
        raise


def _failed(reason: str, error: OSError) -> RasaCoreError:
    if error.errno in _OURS:
        return RasaCoreError(f"an archive cannot be unpacked on this machine: {error.strerror}")
    return UnsupportedModel(reason)


def _unpack(file: BinaryIO, into: Path, limits: Limits) -> Iterator[int]:
    length = os.fstat(file.fileno()).st_size
    kind = _kind(file.read(_HEAD))
    file.seek(0)
    inspector = Inspector(limits, length)
    if kind == "zip":
        admitted = [(member, inspector.admit(member)) for member in zip_members(file, length, limits)]
        for member, parts in admitted:
            yield from _write(member, into.joinpath(*parts))
    elif kind is not None:
        for member in tar_members(file, length, limits, kind == "tar.gz"):
            yield from _write(member, into.joinpath(*inspector.admit(member)))
    else:
        raise refuse("neither zip nor tar.gz")


def _write(member: Member, place: Path) -> Iterator[int]:
    directory = place if member.directory else place.parent
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if member.directory:
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(place, flags, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for chunk in member.chunks():
            file.write(chunk)
            yield len(chunk)


def pack_directory(directory: Path) -> bytes:
    """A zip of what is in this directory: the same bytes for the same names and contents.

    Hidden files and directories, whose names begin with a dot, are no part of a model and stay out.
    Raises UnsupportedModel for links that lead out of the directory, and for devices, sockets and pipes.
    """
    target = BytesIO()
    write_archive(directory, target)
    return target.getvalue()


def write_archive(directory: Path, target: BinaryIO) -> None:
    """`pack_directory` to an open file, which must be seekable."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for path in _files(directory):
            info = zipfile.ZipInfo(path.relative_to(directory).as_posix(), _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            info.external_attr = 0o100644 << 16
            info.file_size = path.stat().st_size
            with path.open("rb") as source, archive.open(info, "w") as member:
                shutil.copyfileobj(source, member, 64 * 1024)


def walk_visible(directory: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk` without hidden files and directories."""
    for parent, names, files in os.walk(directory):
        names[:] = [name for name in names if not name.startswith(".")]
        yield parent, names, [name for name in files if not name.startswith(".")]


def _files(directory: Path) -> list[Path]:
    root = directory.resolve()
    found = []
    for parent, names, files in walk_visible(directory):
        for name in [*names, *files]:
            path = Path(parent, name)
            if not path.is_symlink():
                continue
            if path.is_dir() or not path.resolve().is_relative_to(root):
                raise UnsupportedModel(f"cannot pack {path}: it is a link that leads elsewhere")
        for name in files:
            path = Path(parent, name)
            if not path.is_file():
                raise UnsupportedModel(f"cannot pack {path}: it is not a regular file")
            found.append(path)
    return sorted(found, key=lambda path: path.relative_to(directory).as_posix().encode("utf-8", "surrogateescape"))
