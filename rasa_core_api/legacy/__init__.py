"""Readers for files that other programs wrote.

Whatever such a file says is data: nothing in it is imported or called, no number in it is believed before it was
compared with the bytes that are there. Every reader raises `UnreadableFile`, and nothing else, for a file that it
cannot read.
"""

from __future__ import annotations

import stat
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rasa_core_api.exceptions import UnreadableFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# what damaged content ends in; anything else would be an error of the reader
FAILURES = (ArithmeticError, AttributeError, LookupError, MemoryError, struct.error, TypeError, ValueError)


def read_bounded(path: Path, limit: int) -> bytes:
    """The bytes of a file of at most `limit` bytes.

    Raises UnreadableFile for a larger file, one that is missing or cannot be opened, a directory and a pipe.
    """
    try:
        # looked at before it is opened: opening a pipe would wait for its writer
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise damaged(str(path), "is not a file")
        if found.st_size <= limit:
            with path.open("rb") as file:
                data = file.read(found.st_size + 1)
            if len(data) <= found.st_size:
                return data
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or "cannot be opened"
        raise damaged(str(path), reason) from error
    raise damaged(str(path), f"is larger than {limit} bytes")


def damaged(source: str, reason: str) -> UnreadableFile:
    """The error for a file that cannot be read; `source` says which."""
    name = source.replace("\\", "/").rsplit("/", 1)[-1]
    return UnreadableFile(f"cannot read {source}: {reason}", file=name, reason=reason)


class Damage(ValueError):
    """Damage that a reader itself found; its text can be shown."""


@contextmanager
def reading(source: str) -> Iterator[None]:
    """Turn what damaged content ends in into UnreadableFile that names `source`."""
    try:
        yield
    except FAILURES as error:
        raise damaged(source, str(error) if isinstance(error, Damage) else "the content is damaged") from error
