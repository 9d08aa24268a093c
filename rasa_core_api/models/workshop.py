"""The private directory where models are received and unpacked, and where the last good one is kept."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from itertools import count
from pathlib import Path

from attrs import define, field, frozen
from twisted.logger import Logger

from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import RasaCoreError

log = Logger()

_KEPT = "last.model"
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
    fetched: float  # seconds since the epoch


@define
class Workshop:
    """A directory of this process alone, inside one that outlives it (or a temporary one where that cannot be had)."""

    root: Path
    keeps: bool = True  # whether `root` outlives the process
    _room: Path = field(init=False)
    _lock: int | None = field(default=None, init=False)
    _numbers: count[int] = field(factory=lambda: count(1), init=False)

    @classmethod
    def open(cls, root: Path | None) -> Workshop:
        """The workshop in `root`; where that is None, cannot be written or is not ours, a temporary one."""
        if root is not None:
            try:
                root.mkdir(mode=0o700, parents=True, exist_ok=True)
                _check_owner(root)
                return cls(root)
            except OSError as error:
                log.warn(
                    "models cannot be kept in {root} ({error}); a restart will have to wait for the model server",
                    root=str(root),
                    error=error.strerror or str(error),
                )
        return cls(Path(tempfile.mkdtemp(prefix="rasa-core-api-")), keeps=False)

    def __attrs_post_init__(self) -> None:
        self._sweep()
        self._room = Path(tempfile.mkdtemp(prefix=_ROOM, dir=self.root))
        self._lock = _try_lock(self._room / _LOCK)

    def _sweep(self) -> None:
        """Remove what a process left that did not end well; a living one holds its lock."""
        for room in self.root.glob(f"{_ROOM}*"):
            with suppress(OSError):
                lock = _try_lock(room / _LOCK)
                if lock is not None:
                    shutil.rmtree(room, ignore_errors=True)
                    os.close(lock)

    def place(self, name: str) -> Path:
        """A path that does not exist yet."""
        return self._room / f"{next(self._numbers)}-{name}"

    def close(self) -> None:
        """Remove everything but the kept model."""
        shutil.rmtree(self._room, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if not self.keeps:
            shutil.rmtree(self.root, ignore_errors=True)

    # --- the last good model -------------------------------------------------------------------------

    def keep(self, archive: Path, kept: Kept) -> None:
        """Remember an archive for the next start, in one rename. Raises `RasaCoreError`."""
        if not self.keeps:
            return
        header = json.dumps(
            {
                "tag": kept.tag,
                "sha256": kept.sha256,
                "signature": kept.signature,
                "source": kept.source,
                "fetched": kept.fetched,
            }
        )
        place = self.place("kept")
        try:
            with place.open("xb") as target, archive.open("rb") as source:
                target.write(header.encode("ascii") + b"\n")
                shutil.copyfileobj(source, target, _CHUNK)
                target.flush()
                os.fsync(target.fileno())
            os.replace(place, self.root / _KEPT)
        except OSError as error:
            with suppress(OSError):
                place.unlink()
            raise RasaCoreError(f"the model cannot be kept in {self.root}: {error.strerror}") from error

    def recall(self) -> tuple[Path, Kept] | None:
        """A copy of the kept archive, and what is known of it; None where none is kept or it is damaged."""
        place = self.place("recalled")
        try:
            with (self.root / _KEPT).open("rb") as source:
                kept = _read_header(source.readline(_LONGEST_HEADER))
                with place.open("xb") as target:
                    shutil.copyfileobj(source, target, _CHUNK)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warn("the kept model in {root} cannot be read: {error}", root=str(self.root), error=str(error))
            with suppress(OSError):
                place.unlink()
            return None
        return place, kept

    def forget(self) -> None:
        """Remove the kept archive."""
        with suppress(OSError):
            (self.root / _KEPT).unlink()


def _read_header(line: bytes) -> Kept:
    data: JSON = json.loads(line)
    signature = data["signature"]
    texts = [data["tag"], data["sha256"], data["source"], *([] if signature is None else [signature])]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("its header is damaged")
    return Kept(data["tag"], data["sha256"], signature, data["source"], float(data["fetched"]))


def _check_owner(root: Path) -> None:
    """Nobody else may write where our models lie."""
    if not hasattr(os, "geteuid"):
        return
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(1, "it belongs to somebody else")
    if found.st_mode & 0o022:
        raise PermissionError(1, "others may write there")
    if not os.access(root, os.W_OK | os.X_OK):
        raise PermissionError(1, "it cannot be written")


def _try_lock(path: Path) -> int | None:
    """An open file that holds the lock, None where another process does."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system; then rooms are only removed by their own process
        return None
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
