"""Arrays of numbers in an `.npz` file: written the same for the same numbers, read without believing what it claims."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rasa_core_api.exceptions import UnreadableFile

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

_EPOCH = (1980, 1, 1, 0, 0, 0)  # no time stamp: the earliest that the format knows
_KINDS = "fiu"
_MOST_MEMBERS = 1000


def write_arrays(arrays: Mapping[str, Array]) -> bytes:
    """The file, not compressed (it is read at every start), members in alphabetical order."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(arrays[name]), (1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), member.getvalue())
    return stream.getvalue()


def read_arrays(content: bytes, source: str) -> dict[str, Array]:
    """The arrays of a file, not writable. Raises UnreadableFile for anything but uncompressed arrays of numbers."""
    arrays: dict[str, Array] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if len(members) > _MOST_MEMBERS:
                raise ValueError("it has too many members")
            for member in members:
                if member.compress_type != zipfile.ZIP_STORED or member.file_size > len(content):
                    raise ValueError(f"{member.filename} is compressed")
                arrays[member.filename.removesuffix(".npy")] = _array(archive.read(member))
    except (ValueError, KeyError, EOFError, NotImplementedError, RuntimeError, OSError, zipfile.BadZipFile) as error:
        raise UnreadableFile(f"{source}: {error}", file=source, reason=str(error)) from None
    return arrays


def _array(content: bytes) -> Array:
    stream = io.BytesIO(content)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("a member has an unknown version")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.kind not in _KINDS or dtype.hasobject:
        raise ValueError("a member holds something else than numbers")
    rest = content[stream.tell() :]
    if fortran or any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != len(rest):
        raise ValueError("a member's size is not what its header says")
    array: Array = np.frombuffer(rest, dtype).reshape(shape)
    return array
