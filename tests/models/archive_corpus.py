"""Archives that must be refused, each made by a small function; `CORPUS` maps a kind to maker and reason."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

Maker = Callable[[], bytes]
CORPUS: dict[str, tuple[Maker, str]] = {}


def kind(reason: str) -> Callable[[Maker], Maker]:
    """Put a maker into the corpus under its name; the refusal must hold `reason`."""

    def add(maker: Maker) -> Maker:
        CORPUS[maker.__name__] = (maker, reason)
        return maker

    return add


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of these members, in order."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return target.getvalue()


def tarred(*members: tuple[str | tarfile.TarInfo, bytes], packed: bool = True, form: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar (gzipped unless told) of these members, in order."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form, encoding="utf-8") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            if info.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    data = target.getvalue()
    return gzip.compress(data, mtime=0) if packed else data


def tar_info(name: str, type: bytes, linkname: str = "") -> tarfile.TarInfo:
    """A header of this type."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = type, linkname
    return info


def zip_info(name: str, mode: int) -> zipfile.ZipInfo:
    """A header with this Unix mode."""
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def patched(data: bytes, old: bytes, new: bytes, count: int = -1) -> bytes:
    """The bytes with a part replaced, which must be there and keep its length."""
    assert old in data and len(old) == len(new)
    return data.replace(old, new, count)


def local(data: bytes, at: int, form: str, value: int) -> bytes:
    """The first local header with one field replaced."""
    return data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :]


def central(data: bytes, at: int, form: str, value: int) -> bytes:
    """The first directory entry with one field replaced."""
    return local(data, data.index(b"PK\x01\x02") + at, form, value)


def end(data: bytes, at: int, form: str, value: int) -> bytes:
    """The end record with one field replaced."""
    return local(data, data.rindex(b"PK\x05\x06") + at, form, value)


GOOD = [("domain.yml", b"actions: []\n"), ("policy_0_MemoizationPolicy/memorized_turns.json", b"{}" * 50)]


@kind("absolute path")
def zip_absolute() -> bytes:
    return zipped(*GOOD, ("/tmp/evil", b"x"))


@kind("leads upwards")
def zip_upwards() -> bytes:
    return zipped(*GOOD, ("../evil", b"x"))


@kind("leads upwards")
def zip_upwards_inside() -> bytes:
    return zipped(*GOOD, ("a/b/../../../evil", b"x"))


@kind("backslash")
def zip_backslashes() -> bytes:
    return patched(zipped(*GOOD, ("..!evil", b"x")), b"..!evil", b"..\\evil")


@kind("drive letter")
def zip_drive() -> bytes:
    return zipped(*GOOD, ("C:evil", b"x"))


@kind("NUL")
def zip_nul() -> bytes:
    return patched(zipped(*GOOD, ("evil.json!.yml", b"x")), b"evil.json!", b"evil.json\0")


@kind("control characters")
def zip_newline() -> bytes:
    return zipped(*GOOD, ("evil\nname", b"x"))


@kind("control characters")
def zip_right_to_left() -> bytes:
    return zipped(*GOOD, ("lmth.\u202elive", b"x"))


@kind("not UTF-8")
def zip_not_utf8() -> bytes:
    return patched(zipped(("\u00e9vil", b"x")), "\u00e9".encode(), b"\xff\xfe")


@kind("empty name")
def zip_no_name() -> bytes:
    return zipped(*GOOD, (zipfile.ZipInfo(""), b"x"))


@kind("in place of the root")
def zip_root_as_file() -> bytes:
    return zipped(*GOOD, (".", b"x"))


@kind("blank or a dot")
def zip_trailing_dot() -> bytes:
    return zipped(*GOOD, ("domain.yml.", b"x"))


@kind("longer than 255")
def zip_long_part() -> bytes:
    return zipped(*GOOD, ("a" * 256, b"x"))


@kind("longer than 1024")
def zip_long_name() -> bytes:
    return zipped(*GOOD, ("/".join(["a" * 100] * 12), b"x"))


@kind("nested deeper")
def zip_deep() -> bytes:
    return zipped(*GOOD, ("/".join("a" * 40), b"x"))


@kind("duplicate name")
def zip_duplicate() -> bytes:
    return patched(zipped(*GOOD, ("domain.ym!", b"x")), b"domain.ym!", b"domain.yml")


@kind("duplicate name")
def zip_duplicate_by_dots() -> bytes:
    return zipped(*GOOD, ("./domain.yml", b"x"))


@kind("case or accents")
def zip_case() -> bytes:
    return zipped(*GOOD, ("Domain.YML", b"x"))


@kind("case or accents")
def zip_accents() -> bytes:
    return zipped(("\u00e9", b"x"), ("e\u0301", b"x"))


@kind("directory elsewhere")
def zip_file_as_directory() -> bytes:
    return zipped(*GOOD, ("domain.yml/evil", b"x"))


@kind("directory elsewhere")
def zip_directory_as_file() -> bytes:
    return zipped(*GOOD, ("policy_0_MemoizationPolicy", b"x"))


@kind("directory with content")
def zip_directory_with_content() -> bytes:
    return patched(zipped(*GOOD, ("evil!", b"x")), b"evil!", b"evil/")


@kind("symbolic link")
def zip_symlink() -> bytes:
    return zipped(*GOOD, (zip_info("evil", 0o120777), b"/etc/passwd"))


@kind("a device")
def zip_device() -> bytes:
    return zipped(*GOOD, (zip_info("evil", 0o020666), b""))


@kind("neither a file")
def zip_pipe() -> bytes:
    return zipped(*GOOD, (zip_info("evil", 0o010666), b""))


@kind("file by another")
def zip_directory_mode() -> bytes:
    return zipped(*GOOD, (zip_info("evil", 0o040755), b""))


@kind("encrypted")
def zip_encrypted() -> bytes:
    return central(local(zipped(*GOOD), 6, "<H", 1), 8, "<H", 1)


@kind("encrypted")
def zip_aes() -> bytes:
    return central(local(zipped(*GOOD), 8, "<H", 99), 10, "<H", 99)


@kind("patch")
def zip_patch() -> bytes:
    return central(local(zipped(*GOOD), 6, "<H", 0x20), 8, "<H", 0x20)


@kind("method 12")
def zip_bzip2() -> bytes:
    return zipped(*GOOD, method=zipfile.ZIP_BZIP2)


@kind("1000 members")
def zip_many() -> bytes:
    return zipped(*[(f"{number}", b"") for number in range(1_001)], method=zipfile.ZIP_STORED)


@kind("members need")
def zip_wide_directory() -> bytes:
    """A directory of few members that would fill memory."""
    info = zipfile.ZipInfo("evil")
    info.comment = b"x" * 60_000
    return zipped((info, b"x"))


@kind("times its size")
def zip_ratio() -> bytes:
    return zipped(("zeros", bytes(4_000_000)))


@kind("times its packed size")
def zip_diluted_ratio() -> bytes:
    import random

    return zipped(("noise", random.Random(0).randbytes(100_000)), ("zeros", bytes(4_000_000)))


@kind("1073741824 bytes")
def zip_huge() -> bytes:
    data = zipped(("noise", b"x" * 1000))
    size = (1 << 30) + 1
    return central(local(data, 22, "<I", size), 24, "<I", size)


@kind("1073741824 bytes")
def zip_huge_64() -> bytes:
    """Sizes of 64 bits in the extra field."""
    extra = struct.pack("<HHQQ", 1, 16, 1 << 60, 1)
    header = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 45, 0, 8, 0, 0, 0, (1 << 32) - 1, (1 << 32) - 1, 4, len(extra))
    first = header + b"evil" + extra + b"\3"
    entry = struct.pack(
        "<4sBBHHHHHIIIHHHHHII",
        b"PK\1\2",
        45,
        3,
        45,
        0,
        8,
        0,
        0,
        0,
        (1 << 32) - 1,
        (1 << 32) - 1,
        4,
        len(extra),
        0,
        0,
        0,
        0,
        0,
    )
    entry += b"evil" + extra
    return first + entry + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, len(entry), len(first), 0)


@kind("more content than")
def zip_lies_small() -> bytes:
    data = zipped(("domain.yml", b"actions: []\n" * 10))
    return central(local(data, 22, "<I", 60), 24, "<I", 60)


@kind("less content than")
def zip_lies_large() -> bytes:
    data = zipped(("domain.yml", b"actions: []\n" * 10))
    return central(local(data, 22, "<I", 130), 24, "<I", 130)


@kind("two sizes")
def zip_stored_lies() -> bytes:
    data = zipped(("domain.yml", b"actions: []\n"), method=zipfile.ZIP_STORED)
    return central(local(data, 22, "<I", 600), 24, "<I", 600)


@kind("checksum")
def zip_checksum() -> bytes:
    data = zipped(("domain.yml", b"actions: []\n"))
    return central(local(data, 14, "<I", 1), 16, "<I", 1)


@kind("contradicts")
def zip_two_names() -> bytes:
    """A scanner that reads headers sees another name than one that reads the directory."""
    data = zipped(*GOOD)
    return data.replace(b"domain.yml", b"domain.txt", 1)


@kind("contradicts")
def zip_two_sizes() -> bytes:
    return local(zipped(*GOOD), 22, "<I", 1)


@kind("overlaps")
def zip_overlap() -> bytes:
    """Two names for the same bytes, as in the bombs that need no nesting."""
    data = zipped(("aaaa", b"x" * 500), ("bbbb", b"y"), method=zipfile.ZIP_STORED)
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    return data[: second + 42] + struct.pack("<I", 0) + data[second + 46 :]


@kind("overlaps")
def zip_inside() -> bytes:
    """A member whose header lies inside the content of another."""
    inner = zipped(("evil", b"x" * 9), method=zipfile.ZIP_STORED)
    inner_local = inner[: inner.index(b"PK\x01\x02")]
    data = zipped(("outer", inner_local), ("evil", b"x" * 9), method=zipfile.ZIP_STORED)
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    return data[: second + 42] + struct.pack("<I", data.index(inner_local)) + data[second + 46 :]


@kind("outside the archive")
def zip_offset_outside() -> bytes:
    return central(zipped(("domain.yml", b"x")), 42, "<I", 1 << 20)


@kind("outside the archive")
def zip_packed_outside() -> bytes:
    data = zipped(("domain.yml", b"x"), method=zipfile.ZIP_STORED)
    for at, form in ((18, "<I"), (22, "<I")):
        data = central(local(data, at, form, 60), at + 2, form, 60)
    return data


@kind("after its packed content")
def zip_behind_content() -> bytes:
    """Bytes smuggled behind the end of a deflated stream."""
    content = b"actions: []\n"
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(content) + packer.flush() + b"smuggled"
    header = (0, 8, 0, 0, zlib.crc32(content), len(packed), len(content))
    first = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, *header, 4, 0) + b"evil" + packed
    entry = struct.pack("<4sBBHHHHHIIIHHHHHII", b"PK\1\2", 20, 3, 20, *header, 4, 0, 0, 0, 0, 0, 0) + b"evil"
    return first + entry + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, len(entry), len(first), 0)


@kind("content is damaged")
def zip_damaged() -> bytes:
    data = bytearray(zipped(("domain.yml", b"actions: []\n" * 20)))
    data[40] = 0xFF
    return bytes(data)


@kind("cut off")
def zip_cut() -> bytes:
    return zipped(*GOOD)[:-30]


@kind("several files")
def zip_split() -> bytes:
    return end(zipped(*GOOD), 4, "<H", 1)


@kind("not where its end says")
def zip_prefixed() -> bytes:
    """Bytes before the archive: two programs may see two archives."""
    return b"PK\3\4" + b"x" * 60 + zipped(*GOOD)


@kind("more than it counts")
def zip_counts_less() -> bytes:
    data = zipped(*GOOD)
    return end(end(data, 8, "<H", 1), 10, "<H", 1)


@kind("cut off")
def zip_counts_more() -> bytes:
    data = zipped(*GOOD)
    return end(end(data, 8, "<H", 3), 10, "<H", 3)


@kind("64-bit directory is damaged")
def zip_damaged_64() -> bytes:
    data = zipped(*GOOD)
    return end(end(data, 8, "<H", 0xFFFF), 10, "<H", 0xFFFF)


def streamed(
    name: str = "domain.yml", content: bytes = b"actions: []\n", claim: tuple[int, int, int] | None = None
) -> bytes:
    """A zip of one member whose sizes follow its content, as `claim` tells them."""
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(content) + packer.flush()
    raw = name.encode()
    told = (zlib.crc32(content), len(packed), len(content))
    first = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 8, 8, 0, 0, 0, 0, 0, len(raw), 0) + raw + packed
    first += b"PK\7\x08" + struct.pack("<III", *(claim or told))
    entry = (
        struct.pack("<4sBBHHHHHIIIHHHHHII", b"PK\1\2", 20, 3, 20, 8, 8, 0, 0, *told, len(raw), 0, 0, 0, 0, 0, 0) + raw
    )
    return first + entry + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, len(entry), len(first), 0)


@kind("follows its content contradicts")
def zip_descriptor_lies() -> bytes:
    """A reader that believes the sizes behind the content sees another member."""
    return streamed(claim=(0, 3, 1 << 31))


@kind("belong to no member")
def zip_hidden_member() -> bytes:
    """A member that only a reader of headers sees, between two that the directory names."""
    data = zipped(*GOOD, ("evil", b"x" * 50))
    return _without_entry(data, b"evil")


@kind("belong to no member")
def zip_hidden_first() -> bytes:
    """The same before the first member."""
    return _without_entry(zipped(("evil", b"x" * 50), *GOOD), b"evil")


def _without_entry(data: bytes, name: bytes) -> bytes:
    """Remove a member from the directory and leave its content."""
    at = data.index(b"PK\1\2")
    while data[at + 46 : at + 46 + len(name)] != name:
        at = data.index(b"PK\1\2", at + 4)
    size = 46 + sum(struct.unpack_from("<HHH", data, at + 28))
    data = data[:at] + data[at + size :]
    end_at = data.rindex(b"PK\5\6")
    here, count, length = struct.unpack_from("<HHI", data, end_at + 8)
    return end(end(end(data, 8, "<H", here - 1), 10, "<H", count - 1), 12, "<I", length - size)


@kind("two names")
def zip_name_in_extra_field() -> bytes:
    """Some programs take the name from an extra field."""
    info = zipfile.ZipInfo("harmless")
    name = b"../../evil"
    info.extra = struct.pack("<HHBI", 0x7075, 5 + len(name), 1, zlib.crc32(b"harmless")) + name
    return zipped(*GOOD, (info, b"x"))


@kind("1000 directories")
def zip_many_directories() -> bytes:
    """Few members, each in thirty directories of its own: inodes are the bomb."""
    deep = "/".join("d" * 30)
    return zipped(*[(f"{number}/{deep}/f", b"") for number in range(40)], method=zipfile.ZIP_STORED)


@kind("a colon")
def zip_stream_name() -> bytes:
    """A second stream of a file, where the file system has them."""
    return zipped(*GOOD, ("domain.yml:evil", b"x"))


@kind("device on some systems")
def zip_device_name() -> bytes:
    return zipped(*GOOD, ("policy/NUL.json", b"x"))


@kind("64-bit field")
def zip_short_64() -> bytes:
    """A size that is announced as one of 64 bits, and is not there."""
    info = zipfile.ZipInfo("evil")
    info.extra = struct.pack("<HHI", 1, 4, 7)
    data = zipped((info, b"x"))
    return central(local(data, 22, "<I", 0xFFFFFFFF), 24, "<I", 0xFFFFFFFF)


@kind("contradicts the directory")
def zip_two_64() -> bytes:
    """Of two 64-bit fields programs may believe the first or the last."""
    data = zip_huge_64()
    return data.replace(struct.pack("<QQ", 1 << 60, 1), struct.pack("<QQ", 1 << 20, 1), 1).replace(
        struct.pack("<QQ", 1 << 60, 1), struct.pack("<QQ", 1 << 10, 1)
    )


@kind("overlaps")
def zip_same_content_twice() -> bytes:
    """A quoted bomb: many members share one packed content."""
    data = zipped(*[(f"{number:03}", b"x" * 500) for number in range(20)], method=zipfile.ZIP_STORED)
    at = data.index(b"PK\1\2")
    first = data.index(b"PK\3\4")
    while at >= 0:
        data = data[: at + 42] + struct.pack("<I", first) + data[at + 46 :]
        at = data.find(b"PK\1\2", at + 4)
    return data


@kind("absolute path")
def tar_absolute() -> bytes:
    return tarred(*GOOD, ("/tmp/evil", b"x"))


@kind("leads upwards")
def tar_upwards() -> bytes:
    return tarred(*GOOD, ("../evil", b"x"))


@kind("leads upwards")
def tar_upwards_by_pax() -> bytes:
    """A harmless name in the header, another in the extended header."""
    info = tarfile.TarInfo("harmless")
    info.pax_headers = {"path": "../evil"}
    return tarred(*GOOD, (info, b"x"), form=tarfile.PAX_FORMAT)


@kind("leads upwards")
def tar_upwards_by_long_name() -> bytes:
    return tarred(*GOOD, ("../" + "e" * 150, b"x"))


@kind("symbolic link")
def tar_symlink() -> bytes:
    return tarred(*GOOD, (tar_info("evil", tarfile.SYMTYPE, "/etc"), b""), ("evil/passwd", b"x"))


@kind("hard link")
def tar_hard_link() -> bytes:
    return tarred(*GOOD, (tar_info("evil", tarfile.LNKTYPE, "/etc/passwd"), b""))


@kind("a device")
def tar_character_device() -> bytes:
    return tarred(*GOOD, (tar_info("evil", tarfile.CHRTYPE), b""))


@kind("a device")
def tar_block_device() -> bytes:
    return tarred(*GOOD, (tar_info("evil", tarfile.BLKTYPE), b""))


@kind("a pipe")
def tar_pipe() -> bytes:
    return tarred(*GOOD, (tar_info("evil", tarfile.FIFOTYPE), b""))


@kind("sparse")
def tar_sparse() -> bytes:
    return tarred(*GOOD, (tar_info("evil", tarfile.GNUTYPE_SPARSE), b""))


@kind("sparse")
def tar_sparse_by_pax() -> bytes:
    info = tarfile.TarInfo("evil")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": str(1 << 40)}
    return tarred(*GOOD, (info, b"x"), form=tarfile.PAX_FORMAT)


@kind("neither a file")
def tar_unknown() -> bytes:
    return tarred(*GOOD, (tar_info("evil", b"Z"), b""))


@kind("duplicate")
def tar_duplicate() -> bytes:
    return tarred(*GOOD, ("domain.yml", b"x"))


@kind("global header")
def tar_global_path() -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "../evil"}) as archive:
        archive.addfile(tarfile.TarInfo("a"), io.BytesIO())
    return gzip.compress(target.getvalue(), mtime=0)


@kind("1000 members")
def tar_many() -> bytes:
    return tarred(*[(f"{number}", b"") for number in range(1_001)])


@kind("times its size")
def tar_ratio() -> bytes:
    return tarred(("zeros", bytes(4_000_000)))


@kind("1073741824 bytes")
def tar_huge() -> bytes:
    info = tarfile.TarInfo("evil")
    info.size = (1 << 30) + 1
    return gzip.compress(info.tobuf() + b"x" * 512, mtime=0)


@kind("1073741824 bytes")
def tar_huge_binary_size() -> bytes:
    """A size in GNU's binary form."""
    info = tarfile.TarInfo("evil")
    info.size = 1 << 70
    return gzip.compress(info.tobuf(format=tarfile.GNU_FORMAT), mtime=0)


@kind("header longer")
def tar_endless_name() -> bytes:
    info = tar_info("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    info.size = 1 << 30
    return gzip.compress(info.tobuf() + b"a" * 5000, mtime=0)


@kind("times its size")
def tar_lies_about_gzip() -> bytes:
    """The length that gzip's last bytes tell is not believed."""
    data = tar_ratio()
    return data[:-4] + struct.pack("<I", 100)


@kind("allowed for its size")
def tar_zeros_behind() -> bytes:
    """A bomb of padding behind the end of the archive."""
    return gzip.compress(gzip.decompress(tarred(("a", b"x"))) + bytes(40_000_000), mtime=0)


@kind("content behind its end")
def tar_behind_end() -> bytes:
    return gzip.compress(gzip.decompress(tarred(*GOOD)) + b"smuggled", mtime=0)


@kind("cut off")
def tar_cut() -> bytes:
    return tarred(*GOOD)[:-40]


@kind("cut off")
def tar_cut_plain() -> bytes:
    return tarred(*GOOD, packed=False)[:1100]


@kind("damaged header")
def tar_damaged_header() -> bytes:
    data = bytearray(tarred(*GOOD, packed=False))
    data[1030] ^= 0xFF
    return gzip.compress(bytes(data), mtime=0)


@kind("gzip data is damaged")
def tar_damaged() -> bytes:
    data = bytearray(tarred(*GOOD))
    data[-6] ^= 0xFF  # the checksum
    return bytes(data)


@kind("not UTF-8")
def tar_not_utf8() -> bytes:
    info = tarfile.TarInfo("\udcff\udcfe")
    return gzip.compress(
        info.tobuf(format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape") + bytes(1024)
    )


@kind("times its size")
def tar_bomb_in_parts() -> bytes:
    """Two gzip parts, the second of which is the bomb."""
    plain = tarred(("zeros", bytes(4_000_000)), packed=False)
    return gzip.compress(plain[:512], mtime=0) + gzip.compress(plain[512:], mtime=0)


@kind("behind its end|allowed for its size|gzip data is damaged")
def tar_two_archives() -> bytes:
    """A second archive in a second gzip part: some programs read on."""
    return tarred(*GOOD) + tarred(("../evil", b"x"))


@kind("gzip data is damaged")
def tar_garbage_behind_gzip() -> bytes:
    return tarred(*GOOD) + b"garbage"


@kind("damaged pax header")
def tar_damaged_pax() -> bytes:
    info = tar_info("pax", b"x")
    info.size = 20
    return gzip.compress(info.tobuf() + b"999 path=../evil\n".ljust(512, b"\0") + bytes(1024), mtime=0)


@kind("a link")
def tar_link_by_pax() -> bytes:
    """A regular file with the target of a link in its extended header."""
    info = tarfile.TarInfo("evil")
    info.pax_headers = {"linkpath": "/etc/passwd"}
    return tarred(*GOOD, (info, b"x"), form=tarfile.PAX_FORMAT)


@kind("1073741824 bytes")
def tar_huge_by_pax() -> bytes:
    """A small size in the header and another in the extended header."""
    info = tarfile.TarInfo("evil")
    info.pax_headers = {"size": str(1 << 40)}
    return tarred((info, b"x"), form=tarfile.PAX_FORMAT)


@kind("damaged size")
def tar_negative_size() -> bytes:
    return _sized(b"-0000000001\0")


@kind("damaged size")
def tar_size_with_a_prefix() -> bytes:
    return _sized(b"0o00000001\0\0")


@kind("damaged size")
def tar_size_with_underscores() -> bytes:
    return _sized(b"0000_000001\0")


def _sized(size: bytes) -> bytes:
    data = bytearray(tarred(("evil", b"x"), packed=False))
    data[124:136] = size
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


@kind("packed once more by gzip")
def tar_zip_in_gzip() -> bytes:
    return gzip.compress(zipped(*GOOD), mtime=0)


@kind("1000 directories")
def tar_many_directories() -> bytes:
    deep = "/".join("d" * 30)
    return tarred(*[(f"{number}/{deep}/f", b"") for number in range(40)])


@kind("split over several")
def tar_volumes() -> bytes:
    return tarred(*GOOD, (tar_info("evil", b"M"), b""))


@kind("case or accents")
def tar_case() -> bytes:
    return tarred(*GOOD, ("DOMAIN.yml", b"x"))


@kind("directory elsewhere")
def tar_file_as_directory() -> bytes:
    """Written first as a file and then used as a directory: with a link in place of the file this leads out."""
    return tarred(*GOOD, ("domain.yml/evil", b"x"))


@kind("control characters")
def tar_terminal_codes() -> bytes:
    """A name that would paint the terminal of whoever reads the log."""
    return tarred(*GOOD, ("\x1b[2Jevil", b"x"))


@kind("neither zip nor tar")
def html_page() -> bytes:
    return b"<html><body>404</body></html>"


@kind("neither zip nor tar")
def nothing() -> bytes:
    return b""


@kind("neither zip nor tar")
def pickled() -> bytes:
    return b"\x80\x04\x95cos\nsystem\n(S'true'\ntR."
