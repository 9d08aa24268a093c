from __future__ import annotations

import hashlib
import os
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from rasa_core_api.endpoints import EndpointConfig
from rasa_core_api.exceptions import RasaCoreError, UnsafeArchive, UnsupportedModel
from rasa_core_api.model_delivery import ModelDelivery
from rasa_core_api.models import archives, download
from rasa_core_api.models.installation import Installer
from rasa_core_api.models.pull_settings import PullSettings
from rasa_core_api.models.rehearsal import Rehearsal, rehearse
from rasa_core_api.models.workshop import Workshop
from rasa_core_api.nlu.loader import EmbeddedInterpreter, load_nlu
from tests.fakes import Bot
from tests.models.samples import packed
from tests.models.wire import CLOSE, WireServer, reply
from tests.samples import domain


async def inline(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    return function(*args, **options)


async def rehearse_here(task: Rehearsal) -> None:
    rehearse(task)


class Site:
    """An agent with a delivery and a model server without sockets."""

    def __init__(
        self,
        tmp_path: Path,
        ready: bool = False,
        pulls: bool = True,
        nlu: bool = False,
        nlu_keep: str = "kept-nlu",
        **keys: Any,
    ) -> None:
        self.bot = Bot(domain("0.11"), {"greet": ["utter_hi"]})
        self.agent = self.bot.agent
        if not ready:
            self.agent.served.current = None
        self.answer: list[object] = [reply(503), CLOSE]
        self.server = WireServer(self.bot.clock, lambda _: self.answer)
        keep = tmp_path / "kept"
        settings = None
        if pulls:
            endpoint = EndpointConfig.from_json(
                {"url": "http://models/core?token=secret", "keep": str(keep), **keys}, "endpoints.yml: model"
            )
            settings = PullSettings.from_endpoint(endpoint, {})
        installer = Installer(
            lambda: Workshop.open(keep),
            rehearse_here,
            inline,
            load_interpreter=lambda directory: EmbeddedInterpreter(load_nlu(directory)),
            new_fingerprint=self.agent.new_id,
        )
        nlu_settings = None
        if nlu:
            nlu_endpoint = EndpointConfig.from_json(
                {"url": "http://models/nlu", "keep": str(tmp_path / nlu_keep)}, "endpoints.yml: nlu_model"
            )
            nlu_settings = PullSettings.from_endpoint(nlu_endpoint, {})
        self.delivery = ModelDelivery(
            self.agent,
            installer,
            self.bot.clock,
            self.bot.clock.seconds,
            inline,
            lambda: self.server.client,
            settings,
            nlu_settings,
        )

    def start(self) -> Site:
        self.delivery.start()
        self.wait(0)
        return self

    def wait(self, seconds: float) -> None:
        self.bot.clock.advance(seconds)
        for _ in range(20):
            self.bot.clock.advance(0)

    def stop(self) -> None:
        found: list[Any] = []
        Deferred.fromCoroutine(self.delivery.stop()).addBoth(found.append)
        assert found == [None]
        self.wait(0)
        assert self.bot.clock.getDelayedCalls() == [] and self.server.open == []

    @property
    def status(self) -> dict[str, Any]:
        return self.agent.status()["model"]

    @property
    def greeting(self) -> str:
        return self.agent.domain.templates["utter_greet"][0]["text"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Not ready, with a server that answers 503; at the end nothing but a kept model may be left."""
    site = Site(tmp_path)
    yield site
    site.stop()
    assert os.listdir(tmp_path / "kept") in ([], ["last.model"])


def serve(site: Site, tmp_path: Path, tag: str, greeting: str) -> None:
    site.answer = [reply(200, packed(tmp_path / "model", greeting), ETag=tag), CLOSE]


def test_pulled(site: Site, tmp_path: Path) -> None:
    """A pulled model serves under the ETag as its fingerprint, and `/status` tells about it."""
    serve(site, tmp_path, '"v1"', "hello")
    site.start()
    assert site.agent.fingerprint == '"v1"' and site.greeting == "hello"
    site.wait(5)
    assert site.status == {
        "fingerprint": '"v1"',
        "release": "0.11",
        "source": "http://models/core",
        "loaded_at": 1_000_000.0,
        "age": 5.0,
        "installing": False,
        "server": "http://models/core",
        "state": "current",
        "last_check": 1_000_000.0,
        "last_error": None,
        "failures": 0,
    }


def test_not_ready(site: Site) -> None:
    """Before the first model `/status` says what is wrong."""
    site.start()
    assert not site.agent.is_ready
    assert site.status["state"] == "unreachable" and "503" in site.status["last_error"]
    assert site.status["loaded_at"] is None and site.status["age"] is None


def test_conversations_stay(site: Site, tmp_path: Path) -> None:
    """A swap changes the model and no conversation."""
    serve(site, tmp_path, "v1", "hello")
    site.start()
    assert [message["text"] for message in site.bot.say("/greet")] == ["hello"]
    serve(site, tmp_path, "v2", "good day")
    site.wait(100)
    assert [message["text"] for message in site.bot.say("/greet", "another")] == ["good day"]
    site.bot.say("/bye")
    assert site.bot.kinds().count("user") == 2


def test_restart_while_server_is_down(site: Site, tmp_path: Path) -> None:
    """The last good model serves at once after a restart, under its own ETag."""
    serve(site, tmp_path, "v1", "hello")
    site.start()
    again = Site(tmp_path)
    again.start()
    assert again.agent.fingerprint == "v1" and again.greeting == "hello"
    assert again.status["source"] == "http://models/core (kept)"
    assert again.server.header("If-None-Match") == "v1"
    again.stop()


def test_kept_of_another_server(site: Site, tmp_path: Path) -> None:
    """A model kept from another URL is not served."""
    serve(site, tmp_path, "v1", "hello")
    site.start()
    other = Site(tmp_path, url="http://models/other")
    other.start()
    assert not other.agent.is_ready
    other.stop()


def test_kept_by_another_query(tmp_path: Path) -> None:
    """Where the query names the model, one bot is not given what another one kept; a new token does not count."""
    first = Site(tmp_path, params={"model": "hotel"}, token="one")
    serve(first, tmp_path, "v1", "hotel")
    first.start().stop()
    second = Site(tmp_path, params={"model": "cafe"}, token="one").start()
    assert not second.agent.is_ready
    second.stop()
    third = Site(tmp_path, params={"model": "hotel"}, token="two").start()
    assert third.greeting == "hotel"
    third.stop()


@pytest.mark.parametrize("failure", [RasaCoreError("no process can be started"), UnsupportedModel("signal 9")])
def test_kept_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    """A kept model that cannot be loaded today is kept for tomorrow: the machine may be at fault."""
    first = Site(tmp_path)
    serve(first, tmp_path, "v1", "hello")
    first.start().stop()
    again = Site(tmp_path)

    async def fail(task: Rehearsal) -> None:
        raise failure

    again.delivery.installer._rehearse = fail
    again.start()
    assert not again.agent.is_ready
    again.stop()
    third = Site(tmp_path).start()
    assert third.greeting == "hello"
    third.stop()


@pytest.mark.parametrize("content", ["tampered with", "replaced"])
def test_kept_is_checked(tmp_path: Path, content: str) -> None:
    """With `sha256` a kept archive is held against the hash as well: of its bytes, not of what its header says."""
    data = packed(tmp_path / "model", "hello")
    pinned = hashlib.sha256(data).hexdigest()
    first = Site(tmp_path, sha256=pinned)
    first.answer = [reply(200, data, ETag="v1"), CLOSE]
    first.start().stop()
    kept = tmp_path / "kept" / "last.model"
    header, _, archive = kept.read_bytes().partition(b"\n")
    assert archive == data
    other = packed(tmp_path / "model", "evil")
    if content == "replaced":
        header = header.replace(pinned.encode(), hashlib.sha256(other).hexdigest().encode())
    kept.write_bytes(header + b"\n" + other)
    again = Site(tmp_path, sha256=pinned).start()
    assert not again.agent.is_ready
    again.stop()


def test_kept_is_damaged(site: Site, tmp_path: Path) -> None:
    """A kept model that was damaged is not served, and replaced by the next pull."""
    serve(site, tmp_path, "v1", "hello")
    site.start()
    kept = tmp_path / "kept" / "last.model"
    content = kept.read_bytes()
    kept.write_bytes(content[:-40])
    again = Site(tmp_path)
    again.start()
    assert not again.agent.is_ready
    serve(again, tmp_path, "v1", "hello")
    again.wait(2)
    assert again.agent.is_ready and kept.read_bytes()[-40:] == content[-40:]
    again.stop()


def test_pinned(tmp_path: Path) -> None:
    """With `sha256` nothing but that archive is served."""
    data = packed(tmp_path / "model", "hello")
    site = Site(tmp_path, sha256=hashlib.sha256(data).hexdigest())
    serve(site, tmp_path, "v1", "another")
    site.start()
    assert not site.agent.is_ready and "SHA-256" in site.status["last_error"]
    site.answer = [reply(200, data, ETag="v2"), CLOSE]
    site.wait(100)
    assert site.greeting == "hello"
    site.stop()


def test_same_bytes_under_another_tag(tmp_path: Path) -> None:
    """Replicas that disagree about the ETag of the same bytes cause no swap: only the fingerprint follows."""
    data = packed(tmp_path / "model", "hello")
    site = Site(tmp_path)
    lines: list[LogEvent] = []
    site.answer = [reply(200, data, ETag="a-1"), CLOSE]
    site.start()
    domain, loaded = site.agent.domain, site.status["loaded_at"]
    globalLogPublisher.addObserver(lines.append)
    try:
        for number in range(6):
            site.answer = [reply(200, data, ETag=f"{'ab'[number % 2]}-1"), CLOSE]
            site.wait(100)
            assert site.agent.fingerprint == f"{'ab'[number % 2]}-1"
    finally:
        globalLogPublisher.removeObserver(lines.append)
    assert site.agent.domain is domain and site.status["loaded_at"] == loaded
    assert [line for line in lines if line["log_namespace"].startswith("rasa")] == []
    site.stop()
    again = Site(tmp_path).start()
    assert again.agent.fingerprint == "b-1"
    upload(again, _file(tmp_path, packed(tmp_path / "model", "uploaded")))
    again.answer = [reply(200, data, ETag="b-1"), CLOSE]
    for _ in range(3):
        again.wait(100)
    assert again.greeting == "hello"  # the model server's again
    again.stop()


def _file(directory: Path, content: bytes) -> Path:
    path = directory / "upload"
    path.write_bytes(content)
    return path


def upload(site: Site, path: Path, signature: str | None = None) -> None:
    found: list[Any] = []
    Deferred.fromCoroutine(site.agent.install_archive(path, signature)).addBoth(found.append)
    if isinstance(found[0], Failure):
        found[0].raiseException()


def test_upload(tmp_path: Path) -> None:
    """An upload replaces domain and policies, changes the fingerprint and keeps conversations."""
    site = Site(tmp_path, ready=True, pulls=False).start()
    site.bot.say("/greet")
    before = site.agent.fingerprint
    (tmp_path / "upload").write_bytes(packed(tmp_path / "model", "uploaded"))
    upload(site, tmp_path / "upload")
    assert site.agent.fingerprint != before and site.status["source"] == "upload"
    assert [message["text"] for message in site.bot.say("/greet", "another")] == ["uploaded"]
    site.bot.say("/bye")
    assert site.bot.kinds().count("user") == 2
    (tmp_path / "upload").write_bytes(b"nonsense")
    with pytest.raises(UnsupportedModel):
        upload(site, tmp_path / "upload")
    assert site.greeting == "uploaded" and "neither zip" in site.status["last_error"]
    site.stop()
    assert os.listdir(tmp_path / "kept") == []


def test_upload_under_checks(tmp_path: Path) -> None:
    """What the endpoint file asks of pulled models is asked of uploads: the hash, or the signature."""
    data, other = packed(tmp_path / "a", "pinned"), packed(tmp_path / "b", "another")
    key = Ed25519PrivateKey.generate()
    public = tmp_path / "key.pub"
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    path = tmp_path / "upload"
    for keys, signature, wrong in (
        ({"sha256": hashlib.sha256(data).hexdigest()}, None, None),
        ({"public_key": str(public)}, b64encode(key.sign(data)).decode(), b64encode(key.sign(other)).decode()),
    ):
        site = Site(tmp_path, ready=True, **keys).start()
        path.write_bytes(other)
        with pytest.raises(UnsafeArchive):
            upload(site, path, signature)
        path.write_bytes(data)
        if signature is not None:
            for bad in (None, wrong, "no Base64"):
                with pytest.raises(UnsafeArchive):
                    upload(site, path, bad)
        upload(site, path, signature)
        assert site.greeting == "pinned" and site.status["last_error"] != "another"
        site.stop()


def test_signed_pulls(tmp_path: Path) -> None:
    """With `public_key` only what it signed is pulled: none, a wrong and a strange signature do not do."""
    key = Ed25519PrivateKey.generate()
    public = tmp_path / "key.pub"
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    site = Site(tmp_path, public_key=str(public))
    data = packed(tmp_path / "model", "hello")
    right = b64encode(key.sign(data)).decode()
    for number, (signature, reason) in enumerate(
        [
            (None, "no signature"),
            (b64encode(key.sign(data + b"x")).decode(), "signature is wrong"),
            (b64encode(Ed25519PrivateKey.generate().sign(data)).decode(), "signature is wrong"),
            ("?", "not Base64"),
            (right[:20], "signature is"),
        ]
    ):
        headers = {} if signature is None else {"X_Model_Signature": signature}
        site.answer = [reply(200, data, ETag=f"v{number}", **headers), CLOSE]
        site.start() if not number else site.wait(100)
        assert not site.agent.is_ready and reason in site.status["last_error"]
    site.answer = [reply(200, data, ETag="v9", X_Model_Signature=right), CLOSE]
    site.wait(100)
    assert site.greeting == "hello" and site.status["last_error"] is None
    site.stop()
    again = Site(tmp_path, public_key=str(public)).start()
    assert again.greeting == "hello"
    again.stop()


def test_one_line_a_change(tmp_path: Path) -> None:
    """One line of the log for each change, none for a quiet pull; no query in any of them."""
    site = Site(tmp_path)
    lines: list[str] = []

    def hear(event: LogEvent) -> None:
        namespace = event["log_namespace"]  # the loader's line is about what these small models lack
        if namespace.startswith("rasa") and not namespace.endswith("loader"):
            lines.append(f"{event['log_level'].name}: {formatEvent(event)}")

    def new_lines() -> list[str]:
        found, lines[:] = list(lines), []
        return found

    globalLogPublisher.addObserver(hear)
    try:
        site.start()
        (line,) = new_lines()
        assert line.startswith("warn: cannot get a model from http://models/core, will try again")
        for number in range(3):
            serve(site, tmp_path, f"v{number}", f"hello {number}")
            site.wait(100)
            assert new_lines() == ["info: serving the model http://models/core"]
            site.answer = [reply(304), CLOSE]
            for _ in range(5):
                site.wait(100)
            assert new_lines() == []
        changes = [
            ([reply(404), CLOSE], "info: the model server http://models/core has no model yet"),
            ([reply(503), CLOSE], "warn: cannot get a model"),
            ([reply(200, b"nonsense", ETag="bad"), CLOSE], "error: the model of http://models/core cannot be served"),
            ([reply(304), CLOSE], "info: the model server http://models/core has the model in service"),
        ]
        for answer, expected in changes:
            site.answer = answer
            site.wait(800)
            (line,) = new_lines()
            assert line.startswith(expected)
            for _ in range(20):
                site.wait(800)
            assert new_lines() == []
    finally:
        globalLogPublisher.removeObserver(hear)
    site.stop()


def test_no_delivery_leaves_no_directory(tmp_path: Path) -> None:
    """A server that takes no model makes no directory."""
    Site(tmp_path, ready=True, pulls=False).start().stop()
    assert not (tmp_path / "kept").exists()


def test_quiet(site: Site, tmp_path: Path) -> None:
    """Nothing is logged at quiet pulls, and no secret ever."""
    lines: list[LogEvent] = []
    globalLogPublisher.addObserver(lines.append)
    try:
        serve(site, tmp_path, "v1", "hello")
        site.start()
        count = len(lines)
        site.answer = [reply(304), CLOSE]
        for _ in range(10):
            site.wait(100)
    finally:
        globalLogPublisher.removeObserver(lines.append)
    assert len([line for line in lines[count:] if "rasa" in line["log_namespace"]]) == 0
    assert "secret" not in str(lines)


def test_no_disk(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is nowhere to put a model the server goes on, and recovers once there is."""

    def full() -> Workshop:
        raise RasaCoreError("there is no place on this machine for a model: No space left on device")

    monkeypatch.setattr(site.delivery.installer, "_open_workshop", full)
    serve(site, tmp_path, "v1", "hello")
    site.start()
    assert not site.agent.is_ready and "No space left" in site.status["last_error"]
    monkeypatch.setattr(site.delivery.installer, "_open_workshop", lambda: Workshop.open(tmp_path / "kept"))
    site.wait(2)
    assert site.agent.is_ready


class _Disk:
    """Fails to write like a disk that is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = True
        for module in (archives, download):
            monkeypatch.setattr(module.os, "fdopen", self._open)

    def _open(self, descriptor: int, mode: str) -> Any:
        file = open(descriptor, mode)  # noqa: SIM115
        if self.full:
            file.close()
            raise OSError(28, "No space left on device")
        return file


def test_disk_is_full(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full is told as such, and its model installed as soon as there is room: it is not to blame."""
    serve(site, tmp_path, "v1", "hello")
    disk = _Disk(monkeypatch)
    site.start()
    assert site.status["state"] == "unreachable" and "No space left" in site.status["last_error"]
    disk.full = False
    site.wait(1)
    assert site.greeting == "hello"


def test_disk_is_full_when_unpacking(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is where the archive still fits and its content does not."""
    serve(site, tmp_path, "v1", "hello")
    real, fails = archives._write, [True]

    def write(member: Any, place: Path) -> Iterator[int]:
        if fails:
            raise OSError(28, "No space left on device")
        return real(member, place)

    monkeypatch.setattr(archives, "_write", write)
    site.start()
    assert site.status["state"] == "unusable" and "No space left" in site.status["last_error"]
    fails.clear()
    site.wait(1)
    assert site.greeting == "hello"


def test_disk_is_full_when_keeping(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that cannot be kept serves all the same; what was kept before stays whole."""
    serve(site, tmp_path, "v1", "hello")
    site.start()
    kept = (tmp_path / "kept" / "last.model").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    serve(site, tmp_path, "v2", "good day")
    site.wait(100)
    assert site.greeting == "good day" and (tmp_path / "kept" / "last.model").read_bytes() == kept
