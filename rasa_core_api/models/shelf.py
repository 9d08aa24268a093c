"""The models in a directory, each published as one archive under a name and a tag.

DIR/                       a model itself             default_core@latest
DIR/NAME/                  a model directory          NAME@latest
DIR/NAME.zip, .tar.gz      an archive                 NAME@latest
DIR/NAME@TAG/, ...         either                     NAME@TAG
DIR/NAME/TAG/, TAG.zip     a directory of models      NAME@TAG, and the newest as NAME@latest
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from attrs import define, field, frozen

from rasa_core_api.exceptions import RasaCoreError, UnsupportedModel
from rasa_core_api.models.archives import is_archive, walk_visible, write_archive

DEFAULT_NAME = "default_core"
LATEST = "latest"
#: Files that make a directory a model: of dialogue models, of NLU models, of both in one.
_METADATA = ("metadata.json", "policy_metadata.json", "fingerprint.json")
_SUFFIXES = (".zip", ".tar.gz", ".tgz", ".tar")
#: Seconds that a model must have been left alone before it is published: it may still be written.
SETTLED = 1.0
_MAX_FILES = 10_000
_CHUNK = 256 * 1024

#: What changes when any file changes: `(name, size, modification time in ns)` of each.
_Signature = tuple[tuple[str, int, int], ...]


class UnknownModel(RasaCoreError):
    """No model has this name and tag."""


@frozen
class Place:
    """A model directory or an archive, with all its tags."""

    path: Path
    name: str
    tags: tuple[str, ...]


@frozen
class Published:
    """An archive ready to be sent; `file` belongs to the shelf and stays as it is."""

    file: Path
    size: int  # bytes
    sha256: str
    signature: str | None  # Ed25519 over the archive's bytes, Base64


@define
class _Packed:
    signature: _Signature
    published: Published


@define
class Shelf:
    """Finds and packs models. Every method reads files: call them in a worker thread, one at a time.

    `scratch` is a private directory for packed archives; `sign` signs an archive's bytes; `now` is in seconds.
    """

    root: Path
    _scratch: Path
    _now: Callable[[], float]
    _sign: Callable[[bytes], bytes] | None = None
    _packed: dict[Path, _Packed] = field(factory=dict, init=False)
    _seen: dict[Path, tuple[_Signature, float]] = field(factory=dict, init=False)  # dated ahead, and since when

    def places(self) -> list[Place]:
        """All models there are now, by name and tag; what was packed of others is removed."""
        found = self._places()
        here = {place.path for place in found}
        for path in [path for path in self._packed if path not in here]:
            self._packed.pop(path).published.file.unlink(missing_ok=True)  # who sends it has it open
        for path in [path for path in self._seen if path not in here]:
            del self._seen[path]
        return found

    def _places(self) -> list[Place]:
        if _is_model(self.root):
            return [Place(self.root, DEFAULT_NAME, (LATEST,))]
        found: list[Place] = []
        for path in _entries(self.root):
            if _is_model(path):
                name, _, tag = _stem(path).partition("@")
                if name:
                    found.append(Place(path, name, (tag or LATEST,)))
            elif path.is_dir():
                inner = [entry for entry in _entries(path) if _is_model(entry)]
                if inner:
                    newest = max(inner, key=lambda entry: (_changed(_signature(entry)), entry.name))
                    found += [
                        Place(entry, path.name, (_stem(entry), *((LATEST,) if entry is newest else ())))
                        for entry in inner
                    ]
        return sorted(found, key=lambda place: (place.name, place.tags))

    def find(self, name: str, tag: str = LATEST) -> Published:
        """The archive of a model. Raises `UnknownModel`, also for a model that is still being written."""
        for place in self.places():
            if place.name == name and tag in place.tags:
                return self._publish(place.path)
        raise UnknownModel(f"there is no model {name}@{tag}")

    def only(self) -> Published:
        """The archive of the one model there is. Raises `UnknownModel` where there is none, or several."""
        places = self.places()
        if len(places) != 1:
            raise UnknownModel(f"there are {len(places)} models: ask for one by its name")
        return self._publish(places[0].path)

    def _publish(self, path: Path) -> Published:
        signature = _signature(path)
        known = self._packed.get(path)
        if known is not None and not known.published.file.exists():  # somebody cleared up
            known = None
        if known is not None and known.signature == signature:
            return known.published
        if not self._settled(path, signature):
            if known is not None:
                return known.published
            raise UnknownModel(f"the model {path.name} is still being written")
        target = self._scratch / f"{hashlib.sha256(str(path).encode('utf-8', 'surrogateescape')).hexdigest()[:16]}.new"
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        with target.open("wb+") as file:
            if path.is_dir():
                write_archive(path, file)
            else:
                with path.open("rb") as source:
                    shutil.copyfileobj(source, file, _CHUNK)
            published = self._describe(target, file)
        if _signature(path) != signature:
            target.unlink()
            raise UnknownModel(f"the model {path.name} changed while it was packed")
        os.replace(target, published.file)
        if known is not None and known.published.file != published.file:
            known.published.file.unlink(missing_ok=True)  # who sends it has it open
        self._packed[path] = _Packed(signature, published)
        return published

    def _settled(self, path: Path, signature: _Signature) -> bool:
        """Whether a model was left alone for a while; of files dated ahead that is only known by looking twice."""
        now, changed = self._now(), _changed(signature)
        if changed <= now:
            self._seen.pop(path, None)
            return changed <= now - SETTLED
        seen = self._seen.get(path)
        if seen is None or seen[0] != signature:
            self._seen[path] = (signature, now)
            return False
        return now - seen[1] >= SETTLED

    def _describe(self, target: Path, file: BinaryIO) -> Published:
        file.flush()
        digest = hashlib.sha256()
        file.seek(0)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
        size = file.tell()
        signed = None
        if self._sign is not None:
            file.seek(0)
            signed = base64.b64encode(self._sign(file.read())).decode("ascii")
        sha256 = digest.hexdigest()
        return Published(target.with_name(f"{target.stem}-{sha256[:16]}"), size, sha256, signed)


def _entries(directory: Path) -> Iterator[Path]:
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise UnknownModel(f"{directory.name} cannot be read: {error.strerror}") from error
    return (directory / name for name in names if not name.startswith("."))


def _is_model(path: Path) -> bool:
    if path.is_dir():
        return any((path / name).is_file() for name in _METADATA)
    return path.name.endswith(_SUFFIXES) and is_archive(path)


def _stem(path: Path) -> str:
    for suffix in _SUFFIXES:
        if not path.is_dir() and path.name.endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name


def _signature(path: Path) -> _Signature:
    try:
        if not path.is_dir():
            stat = path.stat()
            return ((path.name, stat.st_size, stat.st_mtime_ns),)
        found = []
        for parent, _, names in walk_visible(path):
            for name in names:
                file = Path(parent, name)
                stat = file.stat()
                found.append((file.relative_to(path).as_posix(), stat.st_size, stat.st_mtime_ns))
            if len(found) > _MAX_FILES:
                raise UnsupportedModel(f"{path} has more than {_MAX_FILES} files")
    except OSError as error:
        raise UnknownModel(f"the model {path.name} cannot be read: {error.strerror}") from error
    return tuple(sorted(found))


def _changed(signature: _Signature) -> float:
    """When the newest file was written, in seconds since the epoch."""
    return max((time for _, _, time in signature), default=0) / 1e9
