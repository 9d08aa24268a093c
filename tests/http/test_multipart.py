"""Tests of files in forms."""

from __future__ import annotations

import glob
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.web.server import Request

from rasa_core_api.concurrency import Slices
from rasa_core_api.http.multipart import MAX_HEADERS, FormParser, Part, boundary_of, header_parameters, save_upload
from rasa_core_api.http.reading import Bodies
from rasa_core_api.http.routing import App, Routes
from rasa_core_api.http.sending import send_json
from tests.http.conftest import MakeWire
from tests.wire import Response, Wire

B = b"XyZ"


def form(*parts: tuple[str, bytes], boundary: bytes = B) -> bytes:
    """A form of parts, each with the rest of its Content-Disposition."""
    lines = [
        b"--" + boundary + b"\r\nContent-Disposition: form-data" + head.encode() + b"\r\n\r\n" + content + b"\r\n"
        for head, content in parts
    ]
    return b"".join(lines) + b"--" + boundary + b"--\r\n"


def parsed(body: bytes, size: int = 1 << 20) -> list[tuple[Part, bytes]]:
    """The parts of a body that comes in chunks of a size."""
    found: list[tuple[Part, list[bytes]]] = []

    def open_part(part: Part) -> Any:
        found.append((part, []))
        return found[-1][1].append

    parser = FormParser(B, open_part)
    for begin in range(0, len(body), size):
        parser.feed(body[begin : begin + size])
    parser.finish()
    return [(part, b"".join(chunks)) for part, chunks in found]


@given(
    st.lists(
        st.binary(max_size=60) | st.sampled_from([b"\r\n", b"\r\n--", b"\r\n--Xy", b"--XyZ", b"\r\n\r\n--Xy", b"-"])
    ),
    st.integers(1, 70),
    st.sampled_from([b"", b"preamble\r\n", b"\r\n"]),
    st.sampled_from([b"", b"epilogue --XyZ"]),
)
def test_parts_survive_any_cut(contents: list[bytes], size: int, before: bytes, after: bytes) -> None:
    """Parts come out as they went in, wherever the body is cut into chunks."""
    contents = [content for content in contents if b"\r\n--XyZ" not in b"\r\n" + content]
    body = before + form(*[(f'; name="n{i}"; filename="f"', content) for i, content in enumerate(contents)]) + after
    assert parsed(body, size) == [(Part(f"n{i}", "f"), content) for i, content in enumerate(contents)]


@pytest.mark.parametrize(
    ("head", "part"),
    [
        ('; name="model"; filename="m.zip"', Part("model", "m.zip")),
        ("; name=model; filename=m.zip", Part("model", "m.zip")),
        ('; filename="m.zip"; name="model"', Part("model", "m.zip")),
        ('; name="a\\"b;c"', Part('a"b;c', None)),
        ("; name=\"model\"; filename*=UTF-8''m.zip", Part("model", "")),
        ('; name="größe"; filename=""', Part("größe", "")),
        (' ; NAME = "x"', Part("x", None)),
        ('; name="x"\r\nContent-Type: application/zip\r\nX: y', Part("x", None)),
    ],
)
def test_part_headers(head: str, part: Part) -> None:
    """Names and file names in all the ways in which clients write them."""
    assert parsed(form((head, b"content"))) == [(part, b"content")]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form at all",
        form(('; name="a"', b"x"))[:-6],
        b"--XyZ\r\n\r\nx\r\n--XyZ--",
        b"--XyZ\r\nContent-Type: text/plain\r\n\r\nx\r\n--XyZ--",
        b'--XyZ\r\nContent-Disposition: attachment; name="a"\r\n\r\nx\r\n--XyZ--',
        b"--XyZjunk\r\n\r\n",
        b"--XyZ" + b" " * 10_000,
        b"--XyZ\r\n" + b"x" * (MAX_HEADERS + 10),
        b"--XyZ\r\n" + b"x" * (MAX_HEADERS + 10) + b"\r\n\r\n",
        form(*[('; name="a"', b"x")] * 101),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_what_is_no_form(body: bytes, size: int) -> None:
    """Bodies that are cut, nameless or endless are refused."""
    with pytest.raises(ValueError):
        parsed(body, size)


def test_memory_is_bounded() -> None:
    """A large file passes through in chunks; nothing is held back but the length of a boundary."""
    held = 0
    parser = FormParser(B, lambda part: lambda data: None)
    parser.feed(b'--XyZ\r\nContent-Disposition: form-data; name="a"\r\n\r\n')
    for _ in range(100):
        parser.feed(b"\r\n--" * 1_000)
        held = max(held, len(parser._buffer))
    assert held < 20


def test_boundaries() -> None:
    """The boundary of a content type, quoted or not."""
    assert boundary_of("multipart/form-data; boundary=XyZ") == B
    assert boundary_of('Multipart/Form-Data; charset=utf-8; boundary="a b"') == b"a b"
    for kind in ("", "text/plain; boundary=x", "multipart/form-data", "multipart/form-data; boundary=" + "x" * 201):
        with pytest.raises(ValueError):
            boundary_of(kind)
    assert header_parameters("a/B ; x=1;x=2") == ("a/b", {"x": "1"})


# --- uploads -------------------------------------------------------------------------------------------


class Uploads:
    app = App()

    def __init__(self, clock: Clock, limit: int) -> None:
        self.bodies = Bodies(limit, Slices(clock))

    @app.route("/model", methods=["POST"])
    async def model(self, request: Request) -> bytes:
        path = await save_upload(request, "model", self.bodies)
        content = path.read_bytes()
        path.unlink()
        return send_json(request, [len(content), content[:20].decode("latin-1")])


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files are made during the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def wire(clock: Clock, serve: MakeWire, temporary: Path) -> Wire:
    return serve(Routes(Uploads(clock, 2_000_000).app), 3_000_000)


def upload(wire: Wire, body: bytes, kind: str = "multipart/form-data; boundary=XyZ") -> Response:
    return wire.ask("POST", "/model", body, {"Content-Type": kind})


@pytest.mark.parametrize("size", [0, 10, 1_500_000])
def test_upload(wire: Wire, size: int) -> None:
    """The file of the field is found among other parts, whatever its size."""
    content = b"PK\x03\x04" * (size // 4)
    body = form(
        ('; name="other"', b"x"),
        ('; name="other"; filename="model"', b"y"),
        ('; name="model"; filename="m.zip"', content),
        ('; name="model"; filename="second.zip"', b"z"),
    )
    assert upload(wire, body).json()[0] == len(content)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "multipart/form-data; boundary=XyZ"),
        (form(('; name="other"; filename="m"', b"x")), "multipart/form-data; boundary=XyZ"),
        (form(('; name="model"', b"no file")), "multipart/form-data; boundary=XyZ"),
        (form(('; name="model"; filename="m"', b"x")), "multipart/form-data; boundary=other"),
        (form(('; name="model"; filename="m"', b"x"))[:-10], "multipart/form-data; boundary=XyZ"),
        (b"PK", "application/zip"),
        (b"{}", "application/json"),
    ],
)
def test_bad_upload(wire: Wire, temporary: Path, body: bytes, kind: str) -> None:
    """Without the file the answer names the parameter, and no temporary file stays."""
    response = upload(wire, body, kind)
    assert response.status == 400
    assert response.json()["details"] == {"parameter": "model", "in": "body"}
    assert glob.glob(str(temporary / "rasa_core_api-*")) == []


def test_too_large(wire: Wire, temporary: Path) -> None:
    """An upload beyond the limit is refused and not looked at."""
    body = form(('; name="model"; filename="m"', b"x" * 2_000_000))
    assert upload(wire, body).status == 413
    assert glob.glob(str(temporary / "rasa_core_api-*")) == []
