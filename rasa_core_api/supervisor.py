"""The parent of several workers: binds the port, starts processes that share it, and replaces those that die.

It loads no model and serves no request. Workers are fresh processes of the same command line (a loaded reactor cannot
be forked). All accept from one socket: what waits there when a worker dies is taken by the others.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol

from attrs import define, field
from twisted.logger import Logger

from rasa_core_api.config import read_yaml_file
from rasa_core_api.constants import BACKLOG
from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.settings import RunSettings

log = Logger()

#: Seconds before a worker that died is replaced, by how often that happened in a row.
PAUSES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
#: A worker that served so many seconds was a good one.
GOOD = 10.0
#: Attempts in a row after which all is given up where no worker serves.
ATTEMPTS = 5
#: Seconds that a worker gets until it serves, to take an uploaded model, and to end its turns.
READY_LIMIT, INSTALL_LIMIT, STOP_LIMIT = 300.0, 120.0, 30.0
#: How a worker ends that is asked to while it starts.
_ASKED = (-signal.SIGTERM, 128 + signal.SIGTERM)

#: Seconds after which what lies for the workers in a temporary directory is made young again.
YOUNG = 600.0
#: Where uploaded models lie for the workers: a directory's name begins so, and its parent holds the lock in it.
_SHARED, _LOCK = "rasa_core_api-workers-", "parent.lock"


class Child(Protocol):
    """A worker's process."""

    pid: int

    def say(self, **message: object) -> None:
        """Tell it; one that is gone hears nothing."""

    def heard(self) -> list[dict[str, Any]]:
        """What it said since the last call."""

    def ended(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""

    def signal(self, number: int) -> None:
        """Send a signal."""

    def close(self) -> None:
        """Forget it."""


#: Starts worker `number`, with its owner id and that of the one before it.
Start = Callable[[int, str, str], Child]


@define(eq=False)
class _Seat:
    number: int
    owner: str = ""
    child: Child | None = None
    since: float = 0.0  # when it was started, then when it began to serve
    told: bool = False  # to listen: from then on it takes part in uploads
    serves: bool = False
    hangs: bool = False  # it was killed, since it was never ready
    killed: bool = False  # which takes the system a moment
    failures: int = 0
    next_start: float = 0.0
    installing: dict[str, float] = field(factory=dict)  # files, and since when


@define
class Supervisor:
    """Keeps `count` workers serving; `step` does what is to be done at a time (seconds, never going back)."""

    _count: int
    _start: Start
    _up: Callable[[], None]  # all workers serve for the first time
    _new_owner: Callable[[], str] = lambda: secrets.token_hex(16)
    status: int = field(default=0, init=False)
    _seats: list[_Seat] = field(init=False)
    _one_was_up: bool = field(default=False, init=False)
    _all_were_up: bool = field(default=False, init=False)
    _stop_since: float | None = field(default=None, init=False)
    _model: tuple[str, object] | None = field(default=None, init=False)  # file, and what the uploader says of it
    _uploads: deque[tuple[Child, str, object]] = field(factory=deque, init=False)
    _files: list[str] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self._seats = [_Seat(number) for number in range(1, self._count + 1)]

    @property
    def ends(self) -> bool:
        """Whether it was stopped, so that nothing is started any more."""
        return self._stop_since is not None

    @property
    def over(self) -> bool:
        """Whether there is nothing left to look after."""
        return self._stop_since is not None and not any(seat.child for seat in self._seats)

    def stop(self, now: float, hurry: bool = False) -> None:
        """Have all workers end their turns; a second call in a hurry does not wait for them."""
        again = self._stop_since is not None
        if again and not hurry:
            return
        if not again:
            self._stop_since = now
        for seat in self._seats:
            if seat.child is not None:
                seat.child.signal(signal.SIGKILL if again else signal.SIGTERM)

    def step(self, now: float) -> None:
        """Hear the workers, replace those that died, end what takes too long."""
        for seat in self._seats:
            child = seat.child
            if child is None:
                if self._stop_since is None and now >= seat.next_start:
                    self._begin(seat, now)
                continue
            for message in child.heard():
                self._heard(seat, child, message, now)
            status = child.ended()
            if status is not None:
                seat.child = None
                child.close()
                self._ended(seat, child.pid, status, now)
            elif not seat.killed and self._stuck(seat, now):
                seat.killed = True
                child.signal(signal.SIGKILL)
        self._spread(now)

    def _begin(self, seat: _Seat, now: float) -> None:
        owner = self._new_owner()
        try:
            seat.child = self._start(seat.number, owner, seat.owner)
        except OSError as error:  # no process, memory or descriptor is left, or the interpreter is just being replaced
            what = f"worker {seat.number} could not be started ({error})"
            self._again(seat, f"{what} and is tried again", what, now)
            return
        seat.owner, seat.since = owner, now
        seat.told = seat.serves = seat.hangs = seat.killed = False
        seat.installing.clear()
        if self._stop_since is not None:  # the signal came meanwhile, and this one was not there to be told
            seat.child.signal(signal.SIGTERM)

    def _heard(self, seat: _Seat, child: Child, message: Mapping[str, Any], now: float) -> None:
        if "ready" in message:
            if self._model is not None:
                self._install(seat, child, *self._model, now)
            seat.told = True
            child.say(listen=True)
        elif "listening" in message:
            seat.serves, seat.since, self._one_was_up = True, now, True
            if not self._all_were_up and all(each.serves for each in self._seats):
                self._all_were_up = True
                self._up()
        elif "upload" in message:
            self._uploads.append((child, message["upload"], message["facts"]))
        elif "installed" in message:
            seat.installing.pop(message["installed"], None)

    def _stuck(self, seat: _Seat, now: float) -> bool:
        if self._stop_since is not None:
            if now < self._stop_since + STOP_LIMIT:
                return False
            log.error("worker {number} does not end and is killed", number=seat.number)
            return True
        if not seat.serves and now > seat.since + READY_LIMIT:
            log.error("worker {n} was not ready after {s:g} s and is killed", n=seat.number, s=READY_LIMIT)
            seat.hangs = True
            return True
        if any(now > since + INSTALL_LIMIT for since in seat.installing.values()):
            log.error("worker {n} did not take a model in {s:g} s and is killed", n=seat.number, s=INSTALL_LIMIT)
            return True
        return False

    def _ended(self, seat: _Seat, pid: int, status: int, now: float) -> None:
        seat.installing.clear()
        served, seat.serves = seat.serves, False
        if self._stop_since is not None:
            if status != 0 and (served or status not in _ASKED):
                self.status = 1
            return
        how = f"signal {-status}" if status < 0 else f"status {status}"
        if served and now >= seat.since + GOOD:
            seat.failures = 0
        failed = status > 0 or seat.hangs  # by itself; somebody may have ended it, too
        reason = f"worker {seat.number} could not start ({how}); what it said stands above"
        what = f"worker {seat.number} (process {pid}) ended with {how} and is replaced"
        self._again(seat, what, reason if failed else None, now)

    def _again(self, seat: _Seat, what: str, reason: str | None, now: float) -> None:
        """Start it again, in a while; or give up, where none has served yet and this `reason` will keep all from it."""
        if self._stop_since is not None:
            return
        pause = PAUSES[min(seat.failures, len(PAUSES) - 1)]
        seat.failures += 1
        if reason is not None and not self._one_was_up:
            self._give_up(reason, now)
        elif seat.failures >= ATTEMPTS and not any(each.serves for each in self._seats):
            self._give_up(f"worker {seat.number} ended {seat.failures} times in a row and no other one serves", now)
        else:
            seat.next_start = now + pause
            log.error("{what}{when}", what=what, when=f" in {pause:g} s" if pause else "")

    def _give_up(self, reason: str, now: float) -> None:
        log.critical("the server gives up: {reason}", reason=reason)
        self.status = 1
        self.stop(now)

    # --- uploads -------------------------------------------------------------------------------------

    def _install(self, seat: _Seat, child: Child, path: str, facts: object, now: float) -> None:
        seat.installing[path] = now
        child.say(install=path, facts=facts)

    def _spread(self, now: float) -> None:
        """One upload after another, so that all workers serve the same one in the end."""
        while self._uploads:
            uploader, path, facts = self._uploads[0]
            if self._model is None or self._model[0] != path:
                if not any(seat.child is uploader for seat in self._seats):  # its client knows no answer
                    self._uploads.popleft()
                    Path(path).unlink(missing_ok=True)
                    continue
                self._model = path, facts
                self._files.append(path)
                for seat in self._seats:
                    if seat.child is not None and seat.told:
                        self._install(seat, seat.child, path, facts, now)
            if any(path in seat.installing for seat in self._seats):
                return
            uploader.say(uploaded=path)
            self._uploads.popleft()
            while len(self._files) > 2:  # the one before may still be read by a worker that starts
                Path(self._files.pop(0)).unlink(missing_ok=True)


# --- real processes ------------------------------------------------------------------------------------


class Process:
    """A worker that runs."""

    def __init__(self, process: subprocess.Popen[bytes], line: socket.socket) -> None:
        self._process = process
        self._line = line
        self._unread = b""
        self.pid = process.pid

    def fileno(self) -> int:
        return self._line.fileno()

    def say(self, **message: object) -> None:
        try:
            self._line.sendall(json.dumps(message).encode("ascii") + b"\n")
        except OSError:  # it is gone, or does not listen: the one is seen soon, the other by the time limits
            return

    def heard(self) -> list[dict[str, Any]]:
        try:
            while data := self._line.recv(65536):
                self._unread += data
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNRESET):
                raise
        *lines, self._unread = self._unread.split(b"\n")
        return [json.loads(line) for line in lines]

    def ended(self) -> int | None:
        return self._process.poll()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def close(self) -> None:
        self._line.close()


def check(settings: RunSettings, environ: Mapping[str, str]) -> None:
    """Refuse what several processes cannot do. Raises `InvalidConfiguration`."""
    names = [] if settings.connector is None else [settings.connector]
    if settings.credentials is not None and not names:
        names = list(read_yaml_file(settings.credentials, environ) or {})
    if "cmdline" in names:
        raise InvalidConfiguration("workers: the channel 'cmdline' is the terminal of one process; use --workers 1")
    endpoints = None if settings.endpoints is None else read_yaml_file(settings.endpoints, environ)
    entry = endpoints.get("tracker_store") if isinstance(endpoints, Mapping) else None
    kind = (entry.get("type") or entry.get("store_type")) if isinstance(entry, Mapping) else None
    if kind in (None, "memory"):
        raise InvalidConfiguration(
            "workers: without a store that all workers share each would know other conversations; name one as "
            "tracker_store in the endpoints file: sqlite, postgres, redis or mongod"
        )


def bind(port: int) -> socket.socket:
    """The socket that all workers accept from. Raises `OSError`."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("", port))
        bound.listen(BACKLOG)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


def supervise(settings: RunSettings, environ: Mapping[str, str]) -> int:
    """Serve with workers until stopped; the exit status. Raises `InvalidConfiguration`."""
    check(settings, environ)
    try:
        bound = bind(settings.port)
    except OSError as error:
        raise InvalidConfiguration(f"port {settings.port}: {error.strerror}") from error
    port = bound.getsockname()[1]
    _remove_left_over(Path(tempfile.gettempdir()))
    shared = tempfile.mkdtemp(prefix=_SHARED)
    held = _hold(Path(shared))
    children: list[Process] = []

    def start(number: int, owner: str, predecessor: str) -> Process:
        ours, theirs = socket.socketpair()
        with theirs, ExitStack() as undo:
            undo.callback(ours.close)
            told = {"number": number, "of": settings.workers, "listens": bound.fileno(), "line": theirs.fileno(),
                    "shared": shared}  # fmt: skip
            process = subprocess.Popen(
                [sys.executable, *sys.orig_argv[1:]],
                env={
                    **{name: value for name, value in environ.items() if name != "RASA_CORE_API_PREDECESSOR"},
                    "RASA_CORE_API_WORKER": json.dumps(told),
                    "RASA_CORE_API_OWNER": owner,
                    **({"RASA_CORE_API_PREDECESSOR": predecessor} if predecessor else {}),
                },
                stdin=subprocess.DEVNULL,
                pass_fds=(bound.fileno(), theirs.fileno()),
                start_new_session=True,  # Ctrl-C is for the parent, which tells its workers
            )
            undo.pop_all()
        ours.setblocking(False)
        child = Process(process, ours)
        children.append(child)
        return child

    def up() -> None:
        log.info("Rasa Core server is up and running on http://localhost:{port}", port=port)

    supervisor = Supervisor(settings.workers, start, up)
    woken, wakes = socket.socketpair()
    woken.setblocking(False)
    wakes.setblocking(False)
    signals = [number for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
               if signal.getsignal(number) != signal.SIG_IGN]  # fmt: skip
    for number in signals:
        signal.signal(number, lambda got, _: supervisor.stop(time.monotonic(), hurry=got == signal.SIGINT))
    signal.signal(signal.SIGCHLD, lambda *_: None)  # so that it wakes us
    signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    young_until = 0.0
    try:
        while not supervisor.over:
            supervisor.step(time.monotonic())
            if time.monotonic() >= young_until:
                young_until = time.monotonic() + YOUNG
                _keep_young(Path(shared))
            if supervisor.ends:
                bound.close()  # with the last worker's: who comes now is refused, and does not wait for our end
            children[:] = [child for child in children if child.fileno() >= 0]
            _wait(woken, children)
    finally:
        signal.set_wakeup_fd(-1)
        bound.close()
        shutil.rmtree(shared, ignore_errors=True)
        os.close(held)
    return supervisor.status


def _hold(directory: Path) -> int:
    """A lock on a directory's file, which ends with this process; its descriptor. Raises `OSError` where it is held."""
    descriptor = os.open(directory / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _keep_young(directory: Path) -> None:
    """Date a directory and its files to the present: what clears up temporary directories takes those of some days."""
    for path in (directory, *directory.glob("*")):
        with suppress(OSError):
            os.utime(path)


def _remove_left_over(directory: Path) -> None:
    """Remove what parents that were killed left: theirs are the directories that nobody holds."""
    for found in directory.glob(f"{_SHARED}*"):
        try:
            if found.is_symlink() or found.stat().st_uid != os.geteuid() or not (found / _LOCK).is_file():
                continue
            descriptor = _hold(found)
        except OSError:
            continue
        shutil.rmtree(found, ignore_errors=True)
        os.close(descriptor)


def _wait(woken: socket.socket, children: list[Process]) -> None:
    """Until something happened, half a second at most."""
    with selectors.DefaultSelector() as selector:
        selector.register(woken, selectors.EVENT_READ)
        for child in children:
            selector.register(child, selectors.EVENT_READ)
        if not selector.select(0.5):
            return
    try:
        while woken.recv(4096):
            pass
    except BlockingIOError:
        return
