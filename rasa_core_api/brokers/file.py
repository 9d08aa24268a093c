"""Events in a file, a JSON object a line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rasa_core_api.brokers import EventBroker, Message
from rasa_core_api.brokers.threads import Runner

DEFAULT_PATH = "rasa_event.log"


class FileBroker(EventBroker):
    """Appends to a file and syncs it. The file is opened for each batch, so that it can be rotated away."""

    name = "file"

    def __init__(self, path: Path, run: Runner) -> None:
        self._path = path
        self._run = run

    async def open(self) -> None:
        await self._run(lambda: self._append(b""))

    async def publish(self, messages: Sequence[Message]) -> None:
        data = "".join([message.body + "\n" for message in messages]).encode("ascii")
        await self._run(lambda: self._append(data))

    async def close(self) -> None:
        return None

    def _append(self, data: bytes) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                data = b"\n" + data  # a line that was torn by a crash or a full disk ends here
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
