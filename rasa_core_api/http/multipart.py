"""Files in `multipart/form-data` bodies (RFC 7578), taken apart as they stream by."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from attrs import frozen
from twisted.web.server import Request

from rasa_core_api.exceptions import InvalidParameter
from rasa_core_api.http.reading import Bodies, body_size, too_large

MAX_PARTS = 100
MAX_HEADERS = 8_192  # bytes of one part's headers
MAX_BOUNDARY = 200
_CHUNK = 262_144

_PARAMETER = re.compile(r""";\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s"]*))""")
_ESCAPED = re.compile(r"\\(.)")

#: Takes the bytes of one part.
Sink = Callable[[bytes], object]


@frozen
class Part:
    """What the headers of a part say; `filename` is None for a field that is no file."""

    name: str
    filename: str | None


def header_parameters(value: str) -> tuple[str, dict[str, str]]:
    """A header such as `form-data; name="model"`: its first word in lower case, and the parameters."""
    word, _, _ = value.partition(";")
    parameters: dict[str, str] = {}
    for match in _PARAMETER.finditer(value):
        quoted, plain = match[2], match[3]
        parameters.setdefault(match[1].lower(), plain if quoted is None else _ESCAPED.sub(r"\1", quoted))
    return word.strip().lower(), parameters


def boundary_of(content_type: str) -> bytes:
    """The boundary of a `multipart/form-data` type. Raises ValueError for any other type."""
    kind, parameters = header_parameters(content_type)
    if kind != "multipart/form-data":
        raise ValueError("the body is not multipart/form-data")
    boundary = parameters.get("boundary", "").encode("latin-1", "replace")
    if not 0 < len(boundary) <= MAX_BOUNDARY or b"\n" in boundary or b"\r" in boundary:
        raise ValueError("the content type has no usable boundary")
    return boundary


class FormParser:
    """Finds the parts of a body that arrives in chunks.

    `open_part` is told of each part and gives the sink for its bytes, or None to skip them. Memory is
    bounded by a chunk and one part's headers. Raises ValueError for what is no form.
    """

    def __init__(self, boundary: bytes, open_part: Callable[[Part], Sink | None]) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._open_part = open_part
        self._sink: Sink | None = None
        self._buffer = b"\r\n"  # so that the first delimiter looks like the others
        self._state: Callable[[], bool] = self._skip_preamble
        self._parts = 0
        self.complete = False

    def feed(self, data: bytes) -> None:
        """The next bytes of the body."""
        self._buffer += data
        while self._state():
            pass

    def finish(self) -> None:
        """The body is over."""
        if not self.complete:
            raise ValueError("the form ends before its last boundary")

    def _skip_preamble(self) -> bool:
        return self._until_delimiter(None)

    def _read_content(self) -> bool:
        return self._until_delimiter(self._sink)

    def _until_delimiter(self, sink: Sink | None) -> bool:
        at = self._buffer.find(self._delimiter)
        if at < 0:
            keep = len(self._delimiter) - 1
            if len(self._buffer) > keep:
                if sink is not None:
                    sink(self._buffer[:-keep])
                self._buffer = self._buffer[-keep:]
            return False
        if sink is not None and at:
            sink(self._buffer[:at])
        self._buffer = self._buffer[at + len(self._delimiter) :]
        self._sink = None
        self._state = self._after_delimiter
        return True

    def _after_delimiter(self) -> bool:
        if self._buffer.startswith(b"--"):
            self.complete = True
            self._state = self._skip_epilogue
            return True
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEADERS:
                raise ValueError("a boundary does not end its line")
            return False
        if self._buffer[:end].strip(b" \t"):
            raise ValueError("something follows a boundary on its line")
        self._buffer = self._buffer[end:]  # the line end stays: it may be that of empty headers
        self._state = self._read_headers
        return True

    def _read_headers(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end > MAX_HEADERS or (end < 0 and len(self._buffer) > MAX_HEADERS):
            raise ValueError(f"the headers of a part have more than {MAX_HEADERS} bytes")
        if end < 0:
            return False
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise ValueError(f"the form has more than {MAX_PARTS} parts")
        part = _part_of(self._buffer[:end])
        self._buffer = self._buffer[end + 4 :]
        self._sink = self._open_part(part)
        self._state = self._read_content
        return True

    def _skip_epilogue(self) -> bool:
        self._buffer = b""
        return False


def _part_of(raw: bytes) -> Part:
    for line in raw.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            kind, parameters = header_parameters(value.decode("utf-8", "replace"))
            if kind == "form-data" and "name" in parameters:
                is_file = "filename" in parameters or "filename*" in parameters
                return Part(parameters["name"], parameters.get("filename", "") if is_file else None)
    raise ValueError("a part has no name")


def _missing(field: str) -> InvalidParameter:
    return InvalidParameter(f"You did not supply a {field} as part of your request.", parameter=field, **{"in": "body"})


async def save_upload(request: Request, field: str, bodies: Bodies) -> Path:
    """Write the file in this field to a temporary file, which belongs to the caller.

    Raises `InvalidParameter` where there is none, `PayloadTooLarge` before anything is read.
    """
    if body_size(request) > bodies.limit:
        raise too_large(bodies.limit)
    content_type = request.requestHeaders.getRawHeaders(b"Content-Type", [b""])[0].decode("latin-1")
    try:
        boundary = boundary_of(content_type)
    except ValueError:
        raise _missing(field) from None
    handle, name = tempfile.mkstemp(prefix="rasa_core_api-upload-")
    path = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            found: dict[str, bool] = {}

            def open_part(part: Part) -> Sink | None:
                if part.name != field or part.filename is None or found:
                    return None
                found[field] = True
                return file.write

            parser = FormParser(boundary, open_part)
            content = request.content
            assert content is not None  # a body has a size, so there is one
            content.seek(0)
            try:
                while chunk := content.read(_CHUNK):
                    parser.feed(chunk)
                    await bodies.slices.breathe()
                parser.finish()
            except ValueError as error:
                raise InvalidParameter(
                    f"The form cannot be read: {error}.", parameter=field, **{"in": "body"}
                ) from None
        if not found:
            raise _missing(field)
        return path
    except BaseException:
        os.unlink(path)
        raise
