"""The frame of a request: its line and its headers as bytes, before they mean anything."""

from __future__ import annotations

import re

from rasa_core_api.http.errors import BadRequest, HTTPError, UnknownTransferCoding, UnsupportedVersion

_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([^\x00-\x20\x7f]+) (HTTP/\d\.\d)")
_USUAL = re.compile(rb"[A-Z]+ /(?:[!-.0-~][!-~]*)? HTTP/1\.[01]")
_ABSOLUTE = re.compile(rb"(?i)https?://[^/?#]*")
_VERSIONS = (b"HTTP/1.1", b"HTTP/1.0")


def request_line(line: bytes) -> bytes:
    """The line as routes understand it: raw bytes beyond ASCII are percent-encoded, as historical servers took them.

    A target with scheme and host loses both (RFC 9112, 3.2.2), and one slash stands for several at its beginning.
    Raises `BadRequest` and `UnsupportedVersion`.
    """
    if _USUAL.fullmatch(line):
        return line
    found = _LINE.fullmatch(line)
    if found is None:
        raise BadRequest("The request line is malformed: a method, a path and HTTP/1.1 are expected.")
    method, target, version = found.groups()
    if version not in _VERSIONS:
        raise UnsupportedVersion(f"{version.decode('ascii')} is not spoken here, HTTP/1.1 and HTTP/1.0 are.")
    host = _ABSOLUTE.match(target)
    if host is not None:
        target = b"/" + target[host.end() :].removeprefix(b"/")
    if target.startswith(b"//"):
        target = b"/" + target.lstrip(b"/")
    encoded = b"".join(b"%%%02X" % byte if byte > 126 else b"%c" % byte for byte in target)
    return b" ".join((method, encoded, version))


def header_fault(line: bytes) -> HTTPError:
    """What is wrong with a header that was refused."""
    name, _, value = line.partition(b":")
    key, value = name.strip().lower(), value.strip().lower()
    if key == b"transfer-encoding" and value not in (b"chunked", b"identity"):
        return UnknownTransferCoding("The only Transfer-Encoding that is understood is chunked.")
    if key in (b"content-length", b"transfer-encoding"):
        return BadRequest("Where the body ends is not clear: one Content-Length, or Transfer-Encoding, says so.")
    return BadRequest("A header is malformed: a name, a colon and a value without control characters are expected.")
