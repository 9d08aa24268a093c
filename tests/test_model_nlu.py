from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher

from rasa_core_api.models.archives import pack_directory
from rasa_core_api.nlu.storage import save_model
from tests.models.samples import write_model
from tests.models.wire import CLOSE, reply
from tests.nlu.test_training import train
from tests.test_model_delivery import Site


@pytest.fixture(scope="module")
def nlu_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that looks for keywords."""
    model, _ = train(["intent_classifier_keyword"])
    path = tmp_path_factory.mktemp("nlu") / "model"
    save_model(model, path)
    return path


def site_with(tmp_path: Path, answers: dict[str, bytes], **keys: Any) -> Site:
    """A delivery whose server has these archives by path."""
    site = Site(tmp_path, **keys)

    def script(request: bytes) -> list[object]:
        path = request.split(b" ")[1].decode().partition("?")[0].strip("/")
        body = answers.get(path)
        if body is None:
            return [reply(503), CLOSE]
        tag = f"{path}-{len(body)}"
        if f"If-None-Match: {tag}\r\n".encode() in request:
            return [reply(304), CLOSE]
        return [reply(200, body, ETag=tag), CLOSE]

    site.server.script = script
    return site


def parse(site: Site, text: str) -> dict[str, Any]:
    found: list[Any] = []
    Deferred.fromCoroutine(site.agent.parse(text)).addBoth(found.append)
    site.wait(0)
    assert isinstance(found[0], dict), found
    return found[0]


def understood(site: Site) -> bool:
    """Whether the NLU model was asked, which knows this text."""
    return bool(parse(site, "hello there")["intent"]["name"] == "greet")


def test_nlu_apart(tmp_path: Path, nlu_model: Path) -> None:
    """An NLU model of a server of its own is understood with, whatever dialogue model serves, and kept."""
    answers = {"nlu": pack_directory(nlu_model), "core": pack_directory(write_model(tmp_path / "a"))}
    site = site_with(tmp_path, answers, nlu=True).start()
    assert understood(site)
    status = site.status["nlu"]
    assert status["state"] == "current" and status["fingerprint"] == f"nlu-{len(answers['nlu'])}"
    answers["core"] = pack_directory(write_model(tmp_path / "b", "a longer greeting"))
    site.wait(100)
    assert site.greeting == "a longer greeting" and understood(site)
    site.stop()
    again = site_with(tmp_path, {}, nlu=True).start()
    assert again.status["nlu"]["fingerprint"] == status["fingerprint"]
    assert understood(again)
    again.stop()
    assert os.listdir(tmp_path / "kept-nlu") == ["last-nlu.model"]


def test_nlu_unusable(tmp_path: Path, nlu_model: Path) -> None:
    """An archive without an NLU model changes nothing."""
    core = pack_directory(write_model(tmp_path / "a"))
    answers = {"nlu": core, "core": core}
    site = site_with(tmp_path, answers, nlu=True).start()
    assert site.status["nlu"]["state"] == "unusable" and "no metadata.json" in site.status["nlu"]["last_error"]
    assert not understood(site)
    answers["nlu"] = pack_directory(nlu_model)
    site.wait(100)
    assert understood(site)
    site.stop()


def test_one_archive(tmp_path: Path, nlu_model: Path) -> None:
    """Where one archive holds both models they are swapped together."""
    combined = tmp_path / "combined"
    write_model(combined / "core")
    (combined / "fingerprint.json").write_text(json.dumps({}))
    (combined / "nlu").mkdir()
    for file in nlu_model.iterdir():
        (combined / "nlu" / file.name).write_bytes(file.read_bytes())
    answers = {"core": pack_directory(combined)}
    site = site_with(tmp_path, answers).start()
    assert understood(site)
    answers["core"] = pack_directory(write_model(tmp_path / "plain"))
    site.wait(100)
    assert not understood(site)
    site.stop()


def test_canary_understands_too(tmp_path: Path, nlu_model: Path) -> None:
    """A canary that serves already understands with an NLU model that comes later."""
    core = pack_directory(write_model(tmp_path / "a"))
    answers = {"next": core, "core": core}
    site = site_with(tmp_path, answers, nlu=True, canary={"url": "http://models/next", "share": 1}).start()
    assert site.status["canary"]["serving"] and site.bot.say("hello there") == []
    answers["nlu"] = pack_directory(nlu_model)
    site.wait(100)
    assert [message["text"] for message in site.bot.say("hello there", "another")] == ["hello"]
    assert site.status["canary"]["turns"] == 2
    site.stop()


def test_same_directory(tmp_path: Path, nlu_model: Path) -> None:
    """Dialogue and NLU models may be kept in one directory, and both are there after a restart."""
    answers = {"nlu": pack_directory(nlu_model), "core": pack_directory(write_model(tmp_path / "a"))}
    for given in (answers, {}):
        site = site_with(tmp_path, given, nlu=True, nlu_keep="kept").start()
        assert understood(site) and site.agent.is_ready
        site.stop()
        assert sorted(os.listdir(tmp_path / "kept")) == ["last-nlu.model", "last.model"]


def test_one_line_a_change(tmp_path: Path, nlu_model: Path) -> None:
    """NLU models too are told in one line when they change, and not at quiet pulls."""
    answers = {"core": pack_directory(write_model(tmp_path / "a"))}
    site = site_with(tmp_path, answers, nlu=True).start()
    lines: list[str] = []

    def hear(event: LogEvent) -> None:
        if event["log_namespace"].startswith("rasa") and event["log_level"] is not LogLevel.debug:
            lines.append(formatEvent(event) or "")

    globalLogPublisher.addObserver(hear)
    try:
        answers["nlu"] = pack_directory(nlu_model)
        site.wait(100)
        assert lines == ["understanding texts with the NLU model of http://models/nlu"]
        for _ in range(5):
            site.wait(100)
        assert len(lines) == 1
        del answers["nlu"]
        for _ in range(20):
            site.wait(800)
        assert len(lines) == 2 and lines[1].startswith("cannot get a model from http://models/nlu")
    finally:
        globalLogPublisher.removeObserver(hear)
    site.stop()
