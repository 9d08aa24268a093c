"""Events in a file, a JSON object a line."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from rasa_core_api.brokers import BrokerFailed, EventBroker, Message
from rasa_core_api.brokers.threads import Runner

DEFAULT_PATH = "rasa_event.log"
#: How our lines begin, and how many bytes of the file's end are searched for the beginning of the last one.
_BEGINNING = b'{"sender_id":'
_LONGEST = 64 << 20


class FileBroker(EventBroker):
    """Appends to a file and syncs it. The file is opened for each batch, so that it can be rotated away."""

    name = "file"

    def __init__(self, path: Path, run: Runner) -> None:
        self._path = path
        self._run = run
        self._named = False  # a file of this name was synced with its directory

    async def open(self) -> None:
        await self._run(lambda: self._append(b""))

    async def publish(self, messages: Sequence[Message]) -> None:
        data = "".join([message.body + "\n" for message in messages]).encode("ascii")
        await self._run(lambda: self._append(data))

    async def close(self) -> None:
        return None

    def _append(self, data: bytes) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise BrokerFailed(f"{self._path} is no file")
            size = found.st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                size = _end(descriptor, size)
            _write(descriptor, data, size)
            os.fdatasync(descriptor)
            if not (self._named and found.st_size):
                _sync_name(self._path)
                self._named = True
        finally:
            os.close(descriptor)


def _sync_name(path: Path) -> None:
    """A file that was just made is not lost by a power cut, where its folder may be read and can be synced."""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # to write the file needs less
        return
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(folder)


def _end(descriptor: int, size: int) -> int:
    """End a last line that lacks its newline; the new size.

    What a crash tore off one of our lines goes, since its event is written again; anything else is ended where it is.
    """
    begin = max(0, size - _LONGEST)
    tail = os.pread(descriptor, size - begin, begin)
    last = tail.rfind(b"\n") + 1
    if (last or not begin) and _BEGINNING.startswith(tail[last : last + len(_BEGINNING)]) and not _is_json(tail[last:]):
        os.ftruncate(descriptor, begin + last)
        return begin + last
    _write(descriptor, b"\n", size)
    return size + 1


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _write(descriptor: int, data: bytes, size: int) -> None:
    """Append to a file of `size` bytes; what a full disk lets through of it does not stay."""
    written = 0
    try:
        while written < len(data):
            written += os.write(descriptor, memoryview(data)[written:])
    except OSError:
        if written and os.fstat(descriptor).st_size == size + written:  # nobody else wrote behind it
            os.ftruncate(descriptor, size)
        raise
