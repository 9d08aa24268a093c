"""What signals do to a program: before it runs a reactor, and then."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from twisted.logger import Logger

log = Logger()


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


def stop_once(reactor: Any) -> None:
    """Let the first of SIGINT, SIGTERM and SIGHUP stop the reactor; a further one changes nothing.

    To be called once the reactor runs. Its own handlers, which know by which signal it ends, are asked at the first
    signal only: they take a stop of what stops already for a defect. What is ignored stays ignored, as under `nohup`.
    """
    handlers: dict[int, Any] = {}

    def again(number: int, _: object) -> None:
        reactor.callFromThread(log.info, "the server is stopping already, turns under way may end first")

    def ignore_further() -> None:
        for number in handlers:
            signal.signal(number, again)

    def first(number: int, frame: object) -> None:
        ignore_further()
        handlers[number](number, frame)

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows lacks some
            number: int = getattr(signal, name)
            handler = signal.getsignal(number)
            if handler is signal.SIG_DFL and name == "SIGHUP":
                handlers[number] = lambda *_: reactor.callFromThread(reactor.stop)
            elif handler is not None and not isinstance(handler, (int, signal.Handlers)):
                handlers[number] = handler
    for number in handlers:
        signal.signal(number, first)
    reactor.addSystemEventTrigger("before", "shutdown", ignore_further)
