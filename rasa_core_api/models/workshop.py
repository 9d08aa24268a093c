"""The private directory where models are received and unpacked, and where the last good one is kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from itertools import count
from pathlib import Path

from attrs import asdict, define, field, frozen
from twisted.logger import Logger

from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import RasaCoreError

try:
    import fcntl

    _HAS_LOCKS = True
except ImportError:
    _HAS_LOCKS = False

log = Logger()

#: Names of what is kept: of the last dialogue model and the last NLU model.
KEPT, KEPT_NLU = "last.model", "last-nlu.model"
_TEMPORARY = "rasa-core-api-"
_TRIES = 20
_ROOM = "work-"
_LOCK = "lock"
_LONGEST_HEADER = 16 * 1024
_CHUNK = 256 * 1024


@frozen
class Kept:
    """What is known of a kept archive."""

    tag: str
    sha256: str
    signature: str | None
    source: str  # the URL it came from, without a query
    asked: str  # identity of the entry in the endpoint file that asked for it
    fetched: float  # seconds since the epoch


@define
class Workshop:
    """A directory of this process alone, inside one that outlives it (or a temporary one where that cannot be had).

    Several processes may share `root`: each has a room of its own, and what they keep is replaced as a whole.
    """

    root: Path
    keeps: bool = True  # whether `root` outlives the process
    kept_name: str = KEPT
    _kept_in: Path | None = None  # where to look for what was kept, in place of `root`
    _room: Path = field(init=False)
    _lock: int | None = field(default=None, init=False)
    _numbers: count[int] = field(factory=lambda: count(1), init=False)

    @classmethod
    def open(cls, root: Path | None, kept_name: str = KEPT) -> Workshop:
        """The workshop in `root`; where that is None, cannot be written or is not ours, a temporary one.

        Raises `RasaCoreError` where there is no place at all.
        """
        kept_in: Path | None = None
        if root is not None:
            try:
                _own_directory(root)
                kept_in = root  # good enough to read from, even if nothing can be written any more
                _check_writable(root)
                return cls(root, kept_name=kept_name)
            except OSError as error:
                log.warn(
                    "models cannot be kept in {root} ({error}); a restart will have to wait for the model server",
                    root=str(root),
                    error=error.strerror or str(error),
                )
        try:
            # one for all processes of this user, so that the next one clears up after one that was killed
            temporary = _own_directory(Path(tempfile.gettempdir()) / f"{_TEMPORARY}{_user()}")
            return cls(temporary, False, kept_name, kept_in)
        except OSError:
            pass
        try:
            return cls(Path(tempfile.mkdtemp(prefix=_TEMPORARY)), False, kept_name, kept_in)
        except OSError as error:
            raise _no_place(error) from error

    def __attrs_post_init__(self) -> None:
        self._sweep()
        self._open_room()

    def _open_room(self) -> None:
        """Make a room and lock it; another process may take one that is not locked yet for a dead one's."""
        for _ in range(_TRIES):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                room = Path(tempfile.mkdtemp(prefix=_ROOM, dir=self.root))
                lock = _try_lock(room / _LOCK)
            except FileNotFoundError:
                continue
            if lock is None and _HAS_LOCKS:
                continue
            self._room, self._lock = room, lock
            return
        raise FileNotFoundError(2, "it is removed again and again")

    def _sweep(self) -> None:
        """Remove what a process left that did not end well; a living one holds its lock."""
        for room in self.root.glob(f"{_ROOM}*"):
            with suppress(OSError):
                lock = _try_lock(room / _LOCK)
                if lock is not None:
                    shutil.rmtree(room, ignore_errors=True)
                    os.close(lock)

    def place(self, name: str) -> Path:
        """A path that does not exist yet. Raises `RasaCoreError` where the room is gone and cannot be had again."""
        if not self._room.is_dir():  # what clears up temporary directories may have found it
            self._unlock()
            try:
                self._open_room()
            except OSError as error:
                raise _no_place(error) from error
        return self._room / f"{next(self._numbers)}-{name}"

    def close(self) -> None:
        """Remove everything but the kept model."""
        shutil.rmtree(self._room, ignore_errors=True)
        self._unlock()
        if not self.keeps:
            with suppress(OSError):  # others may be at work there
                self.root.rmdir()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # --- the last good model -------------------------------------------------------------------------

    def keep(self, archive: Path, kept: Kept) -> None:
        """Remember an archive for the next start, in one rename. Raises `RasaCoreError`."""
        if not self.keeps:
            return
        header = json.dumps(asdict(kept))
        place = self.place("kept")
        try:
            with place.open("xb") as target, archive.open("rb") as source:
                target.write(header.encode("ascii") + b"\n")
                shutil.copyfileobj(source, target, _CHUNK)
                target.flush()
                os.fsync(target.fileno())
            os.replace(place, self.root / self.kept_name)
            _sync_directory(self.root)
        except OSError as error:
            with suppress(OSError):
                place.unlink()
            raise RasaCoreError(f"the model cannot be kept in {self.root}: {error.strerror}") from error

    def recall(self) -> tuple[Path, Kept] | None:
        """A copy of the kept archive, and what is known of it; None where none is kept or it is damaged."""
        place = self.place("recalled")
        try:
            with ((self._kept_in or self.root) / self.kept_name).open("rb") as source:
                kept = _read_header(source.readline(_LONGEST_HEADER))
                digest = hashlib.sha256()
                with place.open("xb") as target:
                    while chunk := source.read(_CHUNK):
                        digest.update(chunk)
                        target.write(chunk)
                if digest.hexdigest() != kept.sha256:
                    raise ValueError("its content was changed")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warn("the kept model in {root} cannot be read: {error}", root=str(self.root), error=str(error))
            with suppress(OSError):
                place.unlink()
            return None
        return place, kept


def _read_header(line: bytes) -> Kept:
    data: JSON = json.loads(line)
    signature = data["signature"]
    texts = [data["tag"], data["sha256"], data["source"], data["asked"], *([] if signature is None else [signature])]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("its header is damaged")
    return Kept(data["tag"], data["sha256"], signature, data["source"], data["asked"], float(data["fetched"]))


def _no_place(error: OSError) -> RasaCoreError:
    return RasaCoreError(f"there is no place on this machine for a model: {error.strerror or error}")


def _user() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else 0


def _own_directory(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_owner(path)
    return path


def _sync_directory(path: Path) -> None:
    """Make a rename last; where directories cannot be opened there is nothing to do."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _check_owner(root: Path) -> None:
    """Nobody else may write where our models lie."""
    if not hasattr(os, "geteuid"):
        return
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(1, "it belongs to somebody else")
    if found.st_mode & 0o022:
        raise PermissionError(1, "others may write there")


def _check_writable(root: Path) -> None:
    if not os.access(root, os.W_OK | os.X_OK):
        raise PermissionError(1, "it cannot be written")


def _try_lock(path: Path) -> int | None:
    """An open file that holds the lock; None where another process does, or where this system has no such locks."""
    if not _HAS_LOCKS:  # then rooms are only removed by their own process
        return None
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):  # else it was removed while we came
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None
