"""A thread of its own for a database: jobs are handed to it in groups, and are worked off a group at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread
from time import perf_counter
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from rasa_core_api.exceptions import StoreUnavailable

log = Logger()
T = TypeVar("T")

#: Jobs that may wait for a thread; the next one is refused.
MAX_WAITING = 20_000
#: Most jobs of one group.
MAX_GROUP = 1_000
#: Seconds after which a caller is told that there is no answer, though the job may yet be done.
TIME_LIMIT = 30.0
#: Seconds after which a group is interrupted, and then given up, where all is to end.
END_LIMIT, LAST_LIMIT = 12.0, 2.0
#: Seconds of the reactor's time for callers at once.
_BUDGET = 0.005


class Reactor(Protocol):
    """What is needed of a reactor."""

    def callFromThread(self, callable: Callable[..., Any], *args: object) -> None: ...

    def callLater(self, delay: float, callable: Callable[..., object], *args: object) -> IDelayedCall: ...

    def seconds(self) -> float: ...


class Job(Generic[T]):
    """One thing to do. Whoever works it off sets `result` or `error`; the caller waits for `done`."""

    __slots__ = ("done", "error", "result", "since")

    def __init__(self) -> None:
        self.done: Deferred[T] = Deferred()
        self.result: T | None = None
        self.error: Exception | None = None
        self.since = 0.0


class CallJob(Job[Any]):
    """Asks or changes something with a function of the database's connection and its arguments."""

    __slots__ = ("arguments", "function")

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        super().__init__()
        self.function = function
        self.arguments = arguments


JobT = TypeVar("JobT", bound=Job[Any])
WorkT = TypeVar("WorkT", bound=Job[Any], contravariant=True)


class Worker(Protocol[WorkT]):
    """Lives in the thread: opened, run and closed there."""

    def open(self) -> None: ...

    def run(self, jobs: Sequence[WorkT]) -> None: ...

    def close(self) -> None: ...


class _Stop(Job[None]):
    """The last job of a thread."""

    __slots__ = ()


class JobThread(Generic[JobT]):
    """Runs a worker in a thread and hands its results to the reactor, a group in one go.

    One group is at the thread, what comes meanwhile waits here and is the next one. Each hand-over makes the thread and
    the reactor contend for the interpreter, so that the fewer there are the less a job costs.
    """

    def __init__(
        self,
        reactor: Reactor,
        name: str,
        worker: Worker[JobT],
        time_limit: float = TIME_LIMIT,
        interrupt: Callable[[], None] | None = None,
    ) -> None:
        """`interrupt` makes what blocks the thread fail; it is called elsewhere."""
        self._reactor = reactor
        self._interrupt = interrupt
        self._name = name
        self._worker = worker
        self._time_limit = time_limit
        self._queue: SimpleQueue[list[JobT] | _Stop] = SimpleQueue()  # to the thread
        self._waiting: dict[int, JobT] = {}  # for an answer, in the order they came
        self._next: list[JobT] = []  # not handed over yet
        self._handing = False  # a group is at the thread, or is about to be handed over
        self._handed = 0.0  # since when; while it is about to be, since it came
        self._end: IDelayedCall | None = None
        self._stop: _Stop | None = None
        self._watch: IDelayedCall | None = None
        self._running = False

    def start(self) -> Deferred[None]:
        """Open the worker in its thread; fails with what `Worker.open` raises."""
        opened: Deferred[None] = Deferred()
        Thread(target=self._live, args=(opened,), name=self._name, daemon=True).start()
        self._running = True
        return opened

    def submit(self, job: JobT) -> Deferred[Any]:
        """Queue a job. Raises `StoreUnavailable` where too many wait, or the thread does not run."""
        if not self._running or len(self._waiting) >= MAX_WAITING or len(self._next) >= MAX_WAITING:
            raise StoreUnavailable(
                "The conversation store is overloaded: too much is waiting to be written."
                if self._running
                else "The conversation store is closed."
            )
        job.since = self._reactor.seconds()
        self._waiting[id(job)] = job
        if self._watch is None:
            self._watch = self._reactor.callLater(self._time_limit, self._look)
        self._next.append(job)
        if not self._handing:
            self._handing, self._handed = True, job.since
            self._reactor.callLater(0, self._hand_over)  # with all that this round of the reactor brings
        return job.done

    def stop(self) -> Deferred[None]:
        """Work off what waits, close the worker and end the thread; leave it behind where it is stuck."""
        stop = _Stop()
        if not self._running:
            stop.done.callback(None)
            return stop.done
        self._running = False
        self._stop = stop
        stuck = self._reactor.seconds() - self._handed if self._handing else 0.0
        self._end = self._reactor.callLater(max(0.0, END_LIMIT - stuck), self._hurry)
        if not self._handing:
            self._queue.put(stop)
        return stop.done

    def _hand_over(self) -> None:
        jobs = self._next
        group: list[JobT] = []
        while jobs and not group:
            group = [job for job in jobs[:MAX_GROUP] if not job.done.called]  # some were given up
            del jobs[:MAX_GROUP]
        if group:
            self._handed = self._reactor.seconds()
            self._queue.put(group)
            return
        self._handing = False
        if self._stop is not None:
            self._queue.put(self._stop)

    def _look(self) -> None:
        """Give up the jobs that wait for too long: the disk may be stuck."""
        self._watch = None
        now = self._reactor.seconds()
        again: list[float] = []
        if self._handing and self._interrupt is not None:
            left = self._handed + self._time_limit - now
            if left > 0:  # it was handed over a moment after its jobs came, of which none may be waited for any more
                again.append(left)
            else:
                log.error("the database says nothing: {name} gives its connection up", name=self._name)
                self._interrupt()
        late: list[JobT] = []
        for job in self._waiting.values():
            left = job.since + self._time_limit - now
            if left > 0:
                again.append(left)
                break
            late.append(job)
        if again:
            self._watch = self._reactor.callLater(min(again), self._look)
        for job in late:
            del self._waiting[id(job)]
        for job in late:
            if not job.done.called:
                job.done.errback(StoreUnavailable(f"The conversation store gave no answer in {self._time_limit:g} s."))

    def _hurry(self) -> None:
        """The thread does not come to its end."""
        if self._interrupt is not None:
            self._interrupt()
        self._end = self._reactor.callLater(LAST_LIMIT, self._leave)

    def _leave(self) -> None:
        """It is a daemon: the process ends without it. What was to be written was never said to be stored."""
        log.error("the database does not answer: {name} is left behind", name=self._name)
        assert self._stop is not None
        stop, self._end = self._stop, None
        self._closed(stop, None)

    # --- in the thread ---------------------------------------------------------------------------------

    def _live(self, opened: Deferred[None]) -> None:
        worker, queue = self._worker, self._queue
        call = self._reactor.callFromThread
        try:
            worker.open()
        except Exception as error:
            call(self._refused, opened, error)
            return
        call(opened.callback, None)
        while not isinstance(group := queue.get(), _Stop):
            self._work(group)
            call(self._done, group)
        try:
            worker.close()
        except Exception as error:
            call(self._closed, group, Failure(error))
        else:
            call(self._closed, group, None)

    def _work(self, group: list[JobT]) -> None:
        try:
            self._worker.run(group)
        except Exception as error:
            self._reactor.callFromThread(log.failure, "the conversation store failed", Failure())
            for job in group:
                job.error = StoreUnavailable(f"The conversation store cannot be used: {error}.")

    # --- in the reactor --------------------------------------------------------------------------------

    def _refused(self, opened: Deferred[None], error: Exception) -> None:
        self._running = False
        opened.errback(error)

    def _closed(self, stop: _Stop, failure: Failure | None) -> None:
        for call in (self._watch, self._end):
            if call is not None:
                call.cancel()
        self._watch = self._end = None
        if stop.done.called:  # it was left behind
            return
        if failure is None:
            stop.done.callback(None)
        else:
            stop.done.errback(failure)

    def _done(self, group: list[JobT]) -> None:
        """Give the thread its next group before the callers of this one go on."""
        self._hand_over()
        self._deliver(group, 0)

    def _deliver(self, group: list[JobT], begin: int) -> None:
        began = perf_counter()
        for index in range(begin, len(group)):
            job = group[index]
            if self._waiting.pop(id(job), None) is None or job.done.called:  # given up
                continue
            error = job.error
            if error is None:
                job.done.callback(job.result)
            else:
                job.done.errback(error)
            if perf_counter() - began > _BUDGET and index + 1 < len(group):
                self._reactor.callLater(0, self._deliver, group, index + 1)
                return
