"""Tests of request lines and headers as bytes."""

from __future__ import annotations

import pytest

from rasa_core_api.http.errors import BadRequest, UnknownTransferCoding, UnsupportedVersion
from rasa_core_api.http.framing import header_fault, request_line


@pytest.mark.parametrize(
    ("target", "taken"),
    [
        (b"/", b"/"),
        (b"*", b"*"),
        (b"/conversations/a%20b/tracker?until=1&token=%C3%A9", b"/conversations/a%20b/tracker?until=1&token=%C3%A9"),
        ("/conversations/é😀?q=ü".encode(), b"/conversations/%C3%A9%F0%9F%98%80?q=%C3%BC"),
        (b"/conversations/\xe9", b"/conversations/%E9"),
        (b"//version", b"/version"),
        (b"///conversations//tracker", b"/conversations//tracker"),
        (b"http://bot:5005/version?x=1", b"/version?x=1"),
        (b"HTTPS://user:pass@bot", b"/"),
        (b"http://bot?x=1", b"/?x=1"),
        (b"http://bot//version", b"/version"),
        (b"version", b"version"),
        (b"bot:443", b"bot:443"),
    ],
)
def test_targets(target: bytes, taken: bytes) -> None:
    """Raw UTF-8 is encoded, several slashes at the beginning are one, and a host is not part of a path."""
    assert request_line(b"GET " + target + b" HTTP/1.1") == b"GET " + taken + b" HTTP/1.1"


@pytest.mark.parametrize(
    "line",
    [
        b"GET /", b"GET / b HTTP/1.1", b"GET  / HTTP/1.1", b" GET / HTTP/1.1", b"GET / HTTP/1.1 ", b"GET\t/ HTTP/1.1",
        b"G(T / HTTP/1.1", "GÉT / HTTP/1.1".encode(), b"GET / http/1.1", b"GET / HTTP/1.", b"GET / HTTP/11.1",
        b"GET /\x7f HTTP/1.1", b"GET /\x00 HTTP/1.1", b"GET / HTTP/1.1\n", b"GET  HTTP/1.1", b"\x16\x03",
        b"x" * 9_000,
    ],
)  # fmt: skip
def test_lines_that_are_none(line: bytes) -> None:
    """What does not have three parts is refused."""
    with pytest.raises(BadRequest):
        request_line(line)


@pytest.mark.parametrize("version", [b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.2", b"HTTP/9.9"])
def test_other_versions(version: bytes) -> None:
    """A version that is none of ours is named."""
    with pytest.raises(UnsupportedVersion, match=version.decode()):
        request_line(b"GET / " + version)


@pytest.mark.parametrize(
    ("header", "kind", "told"),
    [
        (b"Content-Length: -1", BadRequest, "Content-Length"),
        (b"transfer-encoding: chunked", BadRequest, "Content-Length"),
        (b"Transfer-Encoding: gzip, chunked", UnknownTransferCoding, "chunked"),
        (b"Secret", BadRequest, "header"),
        (b"Secret : x", BadRequest, "header"),
    ],
)
def test_faults_of_headers(header: bytes, kind: type[Exception], told: str) -> None:
    """A refused header is explained without repeating it."""
    fault = header_fault(header)
    assert type(fault) is kind
    assert told in str(fault)
    assert "Secret" not in str(fault)
