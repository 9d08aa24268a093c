"""What ends a program that does not run a reactor yet."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


@contextmanager
def ended_by(*names: str) -> Iterator[None]:
    """Let signals such as `SIGTERM` end the block by `SystemExit` with 128 and their number, as shells count.

    By themselves they end a process where it stands, and what it put into temporary directories stays there. A signal
    that is ignored, or that somebody else waits for, is left alone; so are blocks of other threads, which get none.
    """
    taken = []
    if threading.current_thread() is threading.main_thread():
        for name in names:
            number = getattr(signal, name, None)  # Windows lacks some
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _end)
                taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            if signal.getsignal(number) is _end:  # a reactor may have taken its place
                signal.signal(number, signal.SIG_DFL)


def _end(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)
