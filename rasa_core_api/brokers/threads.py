"""A thread of its own for work that blocks, one piece after another."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

T = TypeVar("T")

#: Runs a function somewhere where it may block; work that was given up still ends before the next begins.
Runner = Callable[[Callable[[], Any]], "Deferred[Any]"]


class _Daemon(Thread):
    """Does not keep the process alive."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, daemon=True, **options)


class _Pool(ThreadPool):
    threadFactory = _Daemon


def one_thread(reactor: Any, name: str) -> Runner:
    """A runner with at most one thread, which starts when it is first used and ends with the reactor.

    Work that is stuck then, as behind a lock of a database, is left behind: it ends with the process.
    """
    pool = _Pool(0, 1, name)

    def stop() -> None:
        if not pool.working:  # to stop is to wait for what is at work
            pool.stop()

    def run(work: Callable[[], T]) -> Deferred[T]:
        if not pool.started:
            pool.start()
            reactor.addSystemEventTrigger("after", "shutdown", stop)
        return deferToThreadPool(reactor, pool, work)

    return run
