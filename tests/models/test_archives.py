from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasa_core_api.exceptions import UnsafeArchive, UnsupportedModel
from rasa_core_api.models import members
from rasa_core_api.models.archives import Limits, is_archive, pack_directory, unpack, unpacking
from tests.models.archive_corpus import CORPUS, GOOD, streamed, tarred, zipped


def files(directory: Path) -> dict[str, bytes]:
    """Name to content of every file below."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def write(directory: Path, data: bytes) -> Path:
    path = directory / "model.bin"
    path.write_bytes(data)
    return path


#: As by default, but for the number of members: ten thousand files take their time.
LIMITS = Limits(members=1_000)


def state(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Mode, size and time of change of everything below."""
    found = {}
    for path in [directory, *directory.rglob("*")]:
        stat = path.lstat()
        found[str(path)] = (stat.st_mode, stat.st_size, stat.st_mtime_ns)
    return found


@pytest.mark.parametrize("name", CORPUS)
def test_corpus(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile or damaged archive is refused with its reason, nothing is left of it, and nothing outside changed."""
    maker, reason = CORPUS[name]
    for place in ("work", "work/here", "outside"):
        (tmp_path / place).mkdir()
    (tmp_path / "outside" / "precious").write_text("x")
    archive = write(tmp_path / "work", maker())
    (tmp_path / "work" / "evil").write_text("was here before")
    monkeypatch.chdir(tmp_path / "work" / "here")
    before = {path: value for path, value in state(tmp_path).items() if path != str(tmp_path / "work")}
    with pytest.raises(UnsafeArchive, match=reason):
        unpack(archive, tmp_path / "work" / "private", LIMITS)
    after = {path: value for path, value in state(tmp_path).items() if path != str(tmp_path / "work")}
    assert after == before
    assert not Path("/tmp/evil").exists() and not Path("/etc/evil").exists()


def test_corpus_size() -> None:
    """The corpus holds enough kinds of both formats, and the bounds are the documented ones."""
    assert len([name for name in CORPUS if name.startswith("zip")]) >= 60
    assert len([name for name in CORPUS if name.startswith("tar")]) >= 35
    assert Limits() == Limits(members=10_000, size=1 << 30, ratio=200)


def test_descriptors(tmp_path: Path) -> None:
    """Sizes may follow the content."""
    unpack(write(tmp_path, streamed()), tmp_path / "model")
    assert files(tmp_path / "model") == {"domain.yml": b"actions: []\n"}


def test_same_name_in_extra_field(tmp_path: Path) -> None:
    """A name that is told twice is no other name."""
    info = zipfile.ZipInfo("domain.yml")
    info.extra = struct.pack("<HHBI", 0x7075, 15, 1, 0) + b"domain.yml"
    unpack(write(tmp_path, zipped((info, b"x"))), tmp_path / "model")
    assert files(tmp_path / "model") == {"domain.yml": b"x"}


def test_archive_in_an_archive(tmp_path: Path) -> None:
    """An archive inside is a file like any other: what it holds stays packed."""
    unpack(write(tmp_path, zipped(("inner.zip", zipped(("../evil", b"x"))))), tmp_path / "model")
    assert list(files(tmp_path / "model")) == ["inner.zip"]


@pytest.mark.parametrize(
    "data",
    [
        zipped(*GOOD),
        zipped(*GOOD, method=zipfile.ZIP_STORED),
        tarred(*GOOD),
        tarred(*GOOD, packed=False),
        tarred(*GOOD, form=tarfile.PAX_FORMAT),
        tarred(*GOOD, form=tarfile.USTAR_FORMAT),
    ],
)
def test_good(data: bytes, tmp_path: Path) -> None:
    """A zip, tar or tar.gz is unpacked to the files it holds."""
    archive = write(tmp_path, data)
    assert is_archive(archive)
    unpack(archive, tmp_path / "model")
    assert files(tmp_path / "model") == dict(GOOD)


def test_long_names(tmp_path: Path) -> None:
    """Names beyond the header's 100 bytes are read in all three forms."""
    name = "/".join(["d" * 60, "\u00e9" * 50, "f" * 60])
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        unpack(write(tmp_path, tarred((name, b"x"), form=form)), tmp_path / str(form))
        assert files(tmp_path / str(form)) == {name: b"x"}


def test_locale_without_the_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where file names are encoded such that a name cannot be written, it is refused and nothing stays."""
    monkeypatch.setattr(members, "fsencode", lambda name: name.encode("ascii"))
    with pytest.raises(UnsafeArchive, match="a name that file names of this system cannot be: member"):
        unpack(write(tmp_path, zipped(("a", b"x"), ("\u00e9", b"x"))), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_streamed_zip(tmp_path: Path) -> None:
    """A zip written to a pipe tells the sizes behind each member and in 64 bits."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:  # type: ignore[override]
            self.data += bytes(data)
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[arg-type]
        for name, content in GOOD:
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(content)
    unpack(write(tmp_path, pipe.data), tmp_path / "model")
    assert files(tmp_path / "model") == dict(GOOD)


def test_large_member(tmp_path: Path) -> None:
    """A member of many chunks arrives whole, in steps of at most 64 KiB."""
    content = os.urandom(700_000) + bytes(800_000)
    for number, data in enumerate([zipped(("weights", content)), tarred(("weights", content))]):
        steps = list(unpacking(write(tmp_path, data), tmp_path / str(number)))
        assert max(steps) <= 64 * 1024
        assert files(tmp_path / str(number)) == {"weights": content}


def test_concatenated_gzip(tmp_path: Path) -> None:
    """A gzip file of several parts is one stream."""
    plain = tarred(*GOOD, packed=False)
    data = gzip.compress(plain[:700]) + gzip.compress(plain[700:]) + bytes(100)
    unpack(write(tmp_path, data), tmp_path / "model")
    assert files(tmp_path / "model") == dict(GOOD)


def test_directory_in_use(tmp_path: Path) -> None:
    """What lies in the target already is neither overwritten nor removed."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").write_text("x")
    with pytest.raises(UnsupportedModel, match="not empty"):
        unpack(write(tmp_path, zipped(*GOOD)), tmp_path / "model")
    assert files(tmp_path / "model") == {"mine": b"x"}


def test_missing_archive(tmp_path: Path) -> None:
    """A file that cannot be read is told by name, and no directory is left."""
    with pytest.raises(UnsupportedModel, match=r"nowhere\.zip"):
        unpack(tmp_path / "nowhere.zip", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_given_up(tmp_path: Path) -> None:
    """Whoever stops in the middle leaves nothing behind."""
    steps = unpacking(write(tmp_path, zipped(*GOOD)), tmp_path / "model")
    next(steps)
    steps.close()
    assert not (tmp_path / "model").exists()


def test_limits(tmp_path: Path) -> None:
    """The bounds are the caller's."""
    with pytest.raises(UnsafeArchive, match="more than 1 members"):
        unpack(write(tmp_path, zipped(*GOOD)), tmp_path / "a", Limits(members=1))
    with pytest.raises(UnsafeArchive, match="more than 50 bytes"):
        unpack(write(tmp_path, tarred(*GOOD)), tmp_path / "b", Limits(size=50))


def test_is_archive(tmp_path: Path) -> None:
    """Directories and other files are none."""
    assert not is_archive(tmp_path)
    assert not is_archive(tmp_path / "nowhere")
    assert not is_archive(write(tmp_path, b"actions: []\n" * 100))


def test_pack_same_bytes(tmp_path: Path) -> None:
    """The same files make the same bytes, whenever and wherever they were written."""
    packed = []
    for number, order in enumerate([GOOD, GOOD[::-1]]):
        directory = tmp_path / str(number)
        for name, content in order:
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            os.utime(path, (number * 1e9, number * 1e9))
            path.chmod(0o600 + number * 0o44)
        packed.append(pack_directory(directory))
    assert packed[0] == packed[1]
    unpack(write(tmp_path, packed[0]), tmp_path / "again")
    assert files(tmp_path / "again") == dict(GOOD)


def test_pack_links(tmp_path: Path) -> None:
    """A link to a file inside is packed as that file; one that leads out is refused."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "domain.yml").write_bytes(b"x")
    (model / "alias.yml").symlink_to("domain.yml")
    unpack(write(tmp_path, pack_directory(model)), tmp_path / "copy")
    assert files(tmp_path / "copy") == {"domain.yml": b"x", "alias.yml": b"x"}
    (model / "secret").symlink_to("/etc/passwd")
    with pytest.raises(UnsupportedModel, match="secret"):
        pack_directory(model)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([zipped(*GOOD), tarred(*GOOD), tarred(*GOOD, packed=False)]), st.data())
def test_damage(tmp_path_factory: pytest.TempPathFactory, data: bytes, draw: st.DataObject) -> None:
    """Whatever bytes are changed: the files come out under harmless names, or the archive is refused."""
    broken = bytearray(data)
    for at, value in draw.draw(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=4)):
        broken[at] = value
    directory = tmp_path_factory.mktemp("damage")
    archive = write(directory, bytes(broken[: draw.draw(st.integers(len(data) // 2, len(data)))]))
    try:
        unpack(archive, directory / "model")
    except UnsafeArchive:
        assert os.listdir(directory) == ["model.bin"]
    else:
        assert sorted(os.listdir(directory)) == ["model", "model.bin"]
