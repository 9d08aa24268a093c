from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from treq.testing import StubTreq
from twisted.internet.defer import Deferred

from rasa_core_api.exceptions import RasaCoreError
from rasa_core_api.model_server import ModelResource, parser, signer
from rasa_core_api.models.archives import pack_directory, unpack
from rasa_core_api.models.shelf import Shelf
from tests.models.samples import write_model


class Site:
    """A model server without a socket, over the directory `models`."""

    def __init__(self, tmp_path: Path, token: str | None = None, unchanged: int = 204, sign: Any = None) -> None:
        self.root = tmp_path / "models"
        self.root.mkdir(exist_ok=True)
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        self.time = 2_000_000_000.0
        self.packings = 0
        self.shelf = Shelf(self.root, scratch, lambda: self.time, sign)
        self.stub = StubTreq(ModelResource(self.shelf, self.work, token, unchanged))

    async def work(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    def model(self, name: str, greeting: str = "hello", age: float = 100.0) -> Path:
        path = write_model(self.root / name, greeting)
        for file in path.rglob("*"):
            os.utime(file, (self.time - age, self.time - age))
        return path

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        found: list[Any] = []
        self.stub.request(method, f"http://models{path}", headers=named).addCallback(
            lambda response: response.content().addCallback(lambda body: found.append((response, body)))
        )
        for _ in range(100):
            self.stub.flush()
        response, body = found[0]
        sent = {name.decode().lower(): values[0].decode() for name, values in response.headers.getAllRawHeaders()}
        return response.code, sent, body


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    yield Site(tmp_path)


def test_protocol(site: Site, tmp_path: Path) -> None:
    """A model comes as a zip with an ETag; who has it already gets an empty 204 without one."""
    model = site.model("default_core")
    status, headers, body = site.ask("/models/default_core@latest", If_None_Match="d41d8cd98f00b204e9800998ecf8427e")
    assert status == 200 and body == pack_directory(model)
    assert headers["etag"] == f'"{hashlib.sha256(body).hexdigest()}"'
    (tmp_path / "archive").write_bytes(body)
    unpack(tmp_path / "archive", tmp_path / "unpacked")
    tag = headers["etag"]
    for sent in (tag, tag.strip('"'), f"W/{tag}", f'"x", {tag}', "*"):
        status, headers, body = site.ask("/models/default_core@latest", If_None_Match=sent)
        assert (status, body) == (204, b"") and "etag" not in headers


def test_not_modified(tmp_path: Path) -> None:
    """Where it is asked for, 304 is sent in place of 204, with the ETag."""
    site = Site(tmp_path, unchanged=304)
    site.model("core")
    tag = site.ask("/models/core")[1]["etag"]
    status, headers, body = site.ask("/models/core", If_None_Match=tag)
    assert (status, headers["etag"], body) == (304, tag, b"")


def test_head(site: Site) -> None:
    """HEAD tells size and tag and sends nothing."""
    site.model("core")
    _, headers, body = site.ask("/models/core")
    status, only, nothing = site.ask("/models/core", "HEAD")
    assert (status, only["etag"], only["content-length"], nothing) == (200, headers["etag"], str(len(body)), b"")


def test_same_bytes(site: Site, tmp_path: Path) -> None:
    """Two servers of the same files send the same bytes under the same tag."""
    site.model("core")
    first = site.ask("/models/core")
    second_site = Site(tmp_path)
    second_site.model("core", age=50.0)
    assert second_site.ask("/models/core")[2] == first[2]


def test_reload_on_change(site: Site) -> None:
    """A model that is written anew is published once it is left alone; until then the old one is."""
    site.model("core", "one")
    first = site.ask("/models/core")
    site.model("core", "two", age=0.5)
    assert site.ask("/models/core")[1]["etag"] == first[1]["etag"]
    site.time += 10
    assert site.ask("/models/core")[1]["etag"] != first[1]["etag"]
    assert len(list((site.root.parent / "scratch").iterdir())) == 1


def test_still_written(site: Site) -> None:
    """A new model is not published while it is written."""
    site.model("core", age=0.1)
    assert site.ask("/models/core")[0] == 404
    site.time += 2
    assert site.ask("/models/core")[0] == 200


def test_dated_ahead(site: Site) -> None:
    """A model with files dated ahead is published once it was seen twice unchanged."""
    model = site.model("core", age=-5_000)
    assert site.ask("/models/core")[0] == 404
    site.time += 0.5
    assert site.ask("/models/core")[0] == 404
    site.time += 1
    first = site.ask("/models/core")
    assert first[0] == 200
    (model / "domain.yml").write_text("intents: []")
    os.utime(model / "domain.yml", (site.time + 900, site.time + 900))
    assert site.ask("/models/core")[1]["etag"] == first[1]["etag"]
    site.time += 2
    assert site.ask("/models/core")[1]["etag"] != first[1]["etag"]


def test_removed_model(site: Site, tmp_path: Path) -> None:
    """What was packed of a model that is gone is removed with it."""
    for number in range(3):
        model = site.model(f"project/model_{number}")
        assert site.ask("/models/project@latest")[0] == site.ask(f"/models/project@model_{number}")[0] == 200
        shutil.rmtree(model)
    assert site.ask("/models/project")[0] == 404
    assert os.listdir(tmp_path / "scratch") == []


def test_client_that_leaves(site: Site) -> None:
    """A model is packed by one thread at a time, though clients leave while it is packed."""
    site.model("core")
    busy: list[Deferred[None]] = []

    async def slow(function: Callable[..., Any], *arguments: Any) -> Any:
        gate: Deferred[None] = Deferred()
        busy.append(gate)
        await gate
        busy.remove(gate)
        return function(*arguments)

    site.stub = StubTreq(ModelResource(site.shelf, slow))
    for _ in range(5):
        site.stub.get("http://models/models/core").addErrback(lambda failure: None).cancel()
        site.stub.flush()
    codes: list[int] = []
    site.stub.get("http://models/models/core").addCallback(lambda response: codes.append(response.code))
    for _ in range(20):
        site.stub.flush()
        assert len(busy) <= 1
        for gate in list(busy):
            gate.callback(None)
    assert codes == [200] and busy == []


def test_replaced_while_asked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that is replaced between finding and sending it is found anew."""
    site.model("core", "one")
    first = site.ask("/models/core")
    real, gone = Path.open, [True]

    def open_once(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.parent.name == "scratch" and gone:
            gone.clear()
            raise FileNotFoundError(2, "No such file")
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", open_once)
    assert site.ask("/models/core") == first


def test_cleared_up(site: Site, tmp_path: Path) -> None:
    """Where temporary directories are cleared away models are packed again."""
    site.model("core")
    first = site.ask("/models/core")
    shutil.rmtree(tmp_path / "scratch")
    assert site.ask("/models/core") == first


def test_tags(site: Site) -> None:
    """Names and tags come from the names of files; `latest` is the newest."""
    site.model("alone")
    site.model("tagged@v1")
    site.model("project/model_1", "one", age=300)
    site.model("project/model_2", "two", age=200)
    packed = site.root / "zipped.zip"
    packed.write_bytes(pack_directory(site.root / "alone"))
    (site.root / "notes.txt").write_text("no model")
    (site.root / ".hidden").mkdir()
    os.utime(packed, (1, 1))
    names = {f"{entry['name']}@{entry['tag']}": entry for entry in _json(site.ask("/models"))}
    assert sorted(names) == [
        "alone@latest",
        "project@latest",
        "project@model_1",
        "project@model_2",
        "tagged@v1",
        "zipped@latest",
    ]
    assert names["project@latest"]["sha256"] == names["project@model_2"]["sha256"]
    assert names["zipped@latest"]["sha256"] == names["alone@latest"]["sha256"]
    assert site.ask("/tagged@v1")[0] == 200 and site.ask("/models/tagged")[0] == 404
    assert site.ask("/")[0] == 404


def _json(answer: tuple[int, dict[str, str], bytes]) -> Any:
    import json

    assert answer[0] == 200
    return json.loads(answer[2])


def test_directory_is_a_model(tmp_path: Path) -> None:
    """A directory that is a model is served as the default one, also without a name."""
    site = Site(tmp_path)
    site.model(".")
    body = site.ask("/models/default_core@latest")[2]
    assert site.ask("/")[2] == body != b""


@pytest.mark.parametrize(
    "path", ["/models/../../etc/passwd", "/models/%2e%2e/x", "/models/nothing", "/x/y/z", "/models/@", "/%ff"]
)
def test_unknown(site: Site, path: str) -> None:
    """Paths that are no model are none, whatever they look like."""
    site.model("core")
    assert site.ask(path)[0] == 404


def test_token(tmp_path: Path) -> None:
    """With a token nothing but the health check is open."""
    site = Site(tmp_path, token="s\u00e9cret")
    site.model("core")
    assert site.ask("/models/core")[0] == site.ask("/models")[0] == site.ask("/models/core?token=other")[0] == 401
    assert site.ask("/models/core?token=s%C3%A9cret")[0] == 200
    assert site.ask("/healthz")[0] == 200


def test_bearer(tmp_path: Path) -> None:
    """The token may come in a header."""
    site = Site(tmp_path, token="secret")
    site.model("core")
    assert site.ask("/models/core", Authorization="Bearer secret")[0] == 200
    assert site.ask("/models/core", Authorization="Basic secret")[0] == 401


def test_signature(tmp_path: Path) -> None:
    """With a private key every archive is signed."""
    key = Ed25519PrivateKey.generate()
    pem = tmp_path / "key.pem"
    pem.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    site = Site(tmp_path, sign=signer(pem))
    site.model("core")
    _, headers, body = site.ask("/models/core")
    import base64

    key.public_key().verify(base64.b64decode(headers["x-model-signature"]), body)
    pem.write_bytes(b"nonsense")
    with pytest.raises(RasaCoreError, match="no private key"):
        signer(pem)


def test_link_out(site: Site) -> None:
    """A model with a link that leads out of it is not published, and the client is not told where it leads."""
    model = site.model("core")
    (model / "link").symlink_to("/etc/hostname")
    status, _, body = site.ask("/models/core")
    assert status == 500 and b"hostname" not in body


def test_list_beside_an_unusable_model(site: Site) -> None:
    """A model that cannot be packed hides no other in the list."""
    (site.model("bad") / "link").symlink_to("/etc/hostname")
    site.model("core")
    status, _, body = site.ask("/models")
    assert status == 200 and [entry["name"] for entry in json.loads(body)] == ["core"]


def test_hidden_files(site: Site, tmp_path: Path) -> None:
    """Hidden files are no part of a model: they are not sent, and what is written there publishes nothing anew."""
    model = site.model("core")
    plain = site.ask("/models/core")
    (model / ".env").write_text("PASSWORD=x")
    (model / ".git").mkdir()
    (model / ".git" / "config").write_text("x")
    (model / ".git" / "link").symlink_to("/etc/hostname")
    assert site.ask("/models/core") == plain
    assert pack_directory(model) == plain[2]


def test_unreadable_model(site: Site) -> None:
    """The client is not told where models lie."""
    (site.model("core") / "broken").symlink_to("nowhere")
    status, _, body = site.ask("/models/core")
    assert status == 404 and b"core" in body and str(site.root).encode() not in body


def test_command_line() -> None:
    """The options are the documented ones."""
    arguments = parser().parse_args(["models", "-p", "8001", "--token", "t"])
    assert (arguments.directory, arguments.port, arguments.token) == (Path("models"), 8001, "t")
