from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure

from rasa_core_api.endpoints import EndpointConfig
from rasa_core_api.exceptions import UnsupportedModel
from rasa_core_api.model_delivery import ModelDelivery
from rasa_core_api.models.installation import Installer
from rasa_core_api.models.pull_settings import PullSettings
from rasa_core_api.models.rehearsal import Rehearsal, rehearse
from rasa_core_api.models.workshop import Workshop
from rasa_core_api.nlu.loader import EmbeddedInterpreter, load_nlu
from tests.conftest import LoggedFailures
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

    def __init__(self, tmp_path: Path, ready: bool = False, pulls: bool = True, nlu: bool = False, **keys: Any) -> None:
        self.bot = Bot(domain("0.11"), {"greet": ["utter_hi"]})
        self.agent = self.bot.agent
        if not ready:
            self.agent._model = None
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
                {"url": "http://models/nlu", "keep": str(tmp_path / "kept-nlu")}, "endpoints.yml: nlu_model"
            )
            nlu_settings = PullSettings.from_endpoint(nlu_endpoint, {})
        self.delivery = ModelDelivery(
            self.agent,
            installer,
            self.bot.clock,
            self.bot.clock.seconds,
            inline,
            lambda: self.server.agent,
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


def test_kept_is_damaged(site: Site, tmp_path: Path) -> None:
    """A kept model that was damaged is told, forgotten and replaced by the next pull."""
    serve(site, tmp_path, "v1", "hello")
    site.start()
    kept = tmp_path / "kept" / "last.model"
    content = kept.read_bytes()
    kept.write_bytes(content[:-40])
    again = Site(tmp_path)
    again.start()
    assert not again.agent.is_ready and not kept.exists()
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


def upload(site: Site, path: Path) -> None:
    found: list[Any] = []
    Deferred.fromCoroutine(site.agent.install_archive(path)).addBoth(found.append)
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


def test_no_disk(site: Site, tmp_path: Path, logged: LoggedFailures, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is nowhere to put a model the server goes on, and recovers once there is."""

    def full() -> Workshop:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(site.delivery.installer, "_open_workshop", full)
    serve(site, tmp_path, "v1", "hello")
    site.start()
    assert set(logged.take()) == {OSError} and not site.agent.is_ready
    monkeypatch.setattr(site.delivery.installer, "_open_workshop", lambda: Workshop.open(tmp_path / "kept"))
    site.wait(2)
    assert site.agent.is_ready
