"""A thread of its own for work that blocks, one piece after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

T = TypeVar("T")

#: Runs a function somewhere where it may block; work that was given up still ends before the next begins.
Runner = Callable[[Callable[[], Any]], "Deferred[Any]"]


def one_thread(reactor: Any, name: str) -> Runner:
    """A runner with at most one thread, which starts when it is first used and ends with the reactor."""
    pool = ThreadPool(0, 1, name)

    def run(work: Callable[[], T]) -> Deferred[T]:
        if not pool.started:
            pool.start()
            reactor.addSystemEventTrigger("after", "shutdown", pool.stop)
        return deferToThreadPool(reactor, pool, work)

    return run
