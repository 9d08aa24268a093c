from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import LogEvent, globalLogPublisher

from rasa_core_api.exceptions import UnsupportedModel
from rasa_core_api.models.rollout import chosen
from tests.models.samples import LOOKUP, packed, write_model
from tests.models.wire import CLOSE, reply
from tests.test_model_delivery import Site, upload

PACKED: dict[str, bytes] = {}


@pytest.fixture(autouse=True)
def models(tmp_path: Path) -> None:
    """Three models: one that greets, one that greets in other words, one that says goodbye in place of greeting."""
    from rasa_core_api.models.archives import pack_directory

    PACKED["main"] = packed(tmp_path / "a", "main")
    PACKED["same"] = packed(tmp_path / "b", "same")
    keys = list(LOOKUP)
    PACKED["other"] = pack_directory(write_model(tmp_path / "c", "other", {keys[0]: 4}))


def site_with(tmp_path: Path, seconds: dict[str, str], **keys: Any) -> Site:
    """A delivery whose server has `main`, and others under their names."""
    site = Site(tmp_path, **keys)

    def script(request: bytes) -> list[object]:
        path = request.split(b" ")[1].decode().partition("?")[0].strip("/")
        name = seconds.get(path, "main")
        tag = f"{path}-{name}".encode()
        if b"If-None-Match: " + tag + b"\r\n" in request:
            return [reply(304), CLOSE]
        return [reply(200, PACKED[name], ETag=tag.decode()), CLOSE]

    site.server.script = script
    return site


def test_chosen() -> None:
    """A share of the senders is chosen, the same ones each time."""
    senders = [f"sender-{number}" for number in range(10_000)]
    assert 900 < sum(chosen(sender, 0.1) for sender in senders) < 1100
    assert not any(chosen(sender, 0.0) for sender in senders) and all(chosen(sender, 1.0) for sender in senders)
    assert {sender for sender in senders if chosen(sender, 0.1)} < {sender for sender in senders if chosen(sender, 0.3)}


def test_shadow_agrees(tmp_path: Path) -> None:
    """A shadow says nothing and counts where it agrees, by action."""
    site = site_with(tmp_path, {"next": "same"}, shadow="http://models/next").start()
    for number in range(3):
        assert [message["text"] for message in site.bot.say("/greet", f"s{number}")] == ["main"]
    site.wait(0)
    found = site.status["shadow"]
    assert (found["fingerprint"], found["state"]) == ("next-same", "current")
    assert (found["predictions"], found["agreed"], found["skipped"], found["failed"]) == (6, 6, 0, 0)
    assert found["by_action"]["utter_greet"] == {"predictions": 3, "agreed": 3, "agreement": 1.0}
    site.stop()


def test_shadow_disagrees(tmp_path: Path) -> None:
    """What the shadow would have done otherwise is counted as disagreement."""
    site = site_with(tmp_path, {"next": "other"}, shadow="http://models/next").start()
    site.bot.say("/greet")
    site.wait(0)
    assert site.status["shadow"]["by_action"]["utter_greet"]["agreed"] == 0
    site.stop()


def test_shadow_counts_anew(tmp_path: Path) -> None:
    """With a new model in service the counts begin anew, and comparing goes on."""
    seconds = {"next": "same", "core": "main"}
    site = site_with(tmp_path, seconds, shadow="http://models/next").start()
    site.bot.say("/greet")
    site.wait(0)
    seconds["core"] = "other"
    site.wait(100)
    site.bot.say("/greet", "another")
    site.wait(0)
    assert list(site.status["shadow"]["by_action"]) == ["action_listen", "utter_bye"]
    site.stop()


def canary(**limits: Any) -> dict[str, Any]:
    return {"canary": {"url": "http://models/next", "share": 0.5, "min_turns": 4, **limits}}


def senders(share: bool) -> Iterator[str]:
    """Senders inside or outside of the canary's half."""
    return (f"s{number}" for number in range(1000) if chosen(f"s{number}", 0.5) is share)


def test_canary_serves_its_share(tmp_path: Path) -> None:
    """The canary answers the senders of its share, the model in service all others."""
    site = site_with(tmp_path, {"next": "same"}, **canary()).start()
    inside, outside = senders(True), senders(False)
    for _ in range(10):
        assert [message["text"] for message in site.bot.say("/greet", next(inside))] == ["same"]
        assert [message["text"] for message in site.bot.say("/greet", next(outside))] == ["main"]
    site.wait(0)
    found = site.status["canary"]
    assert found["serving"] and found["turns"] == 10 and found["errors"] == 0 and found["agreement"] == 1.0
    site.stop()
    assert [message["text"] for message in site.bot.say("/greet", next(inside))] == ["main"]


def test_canary_disagrees(tmp_path: Path) -> None:
    """A canary that disagrees too often is withdrawn by itself, told once, and comes back with a new model only."""
    seconds = {"next": "other"}
    site = site_with(tmp_path, seconds, **canary(max_disagreement=0.2)).start()
    inside = senders(True)
    lines: list[LogEvent] = []
    globalLogPublisher.addObserver(lines.append)
    try:
        for _ in range(6):
            site.bot.say("/greet", next(inside))
            site.wait(0)
    finally:
        globalLogPublisher.removeObserver(lines.append)
    assert len([line for line in lines if line["log_level"].name == "error"]) == 1
    found = site.status["canary"]
    assert not found["serving"] and "predictions differ" in found["withdrawn"]
    assert [message["text"] for message in site.bot.say("/greet", next(inside))] == ["main"]
    site.wait(200)
    assert not site.status["canary"]["serving"]
    seconds["next"] = "same"
    site.wait(100)
    assert site.status["canary"]["serving"] and site.status["canary"]["withdrawn"] is None
    site.stop()


def test_canary_fails(tmp_path: Path, logged: Any) -> None:
    """A canary whose turns fail is withdrawn."""
    site = site_with(tmp_path, {"next": "same"}, **canary()).start()
    inside = senders(True)
    assert site.delivery._canary is not None and site.delivery._canary._model is not None

    class Broken(type(site.delivery._canary._model.generator)):  # type: ignore[misc]
        async def generate(self, *args: Any, **options: Any) -> Any:
            raise ZeroDivisionError

    site.delivery._canary._model.generator.__class__ = Broken
    for _ in range(4):
        site.bot.say("/greet", next(inside))
    assert "4 of 4 turns failed" in site.status["canary"]["withdrawn"]
    assert logged.take()
    site.stop()


def test_bad_canary(tmp_path: Path) -> None:
    """A canary that cannot be loaded changes nothing for anybody."""
    PACKED["same"] = b"nonsense"
    site = site_with(tmp_path, {"next": "same"}, **canary()).start()
    assert [message["text"] for message in site.bot.say("/greet", next(senders(True)))] == ["main"]
    assert site.status["canary"]["state"] == "unusable" and site.status["state"] == "current"
    site.stop()


def test_same_canary_under_another_tag(tmp_path: Path) -> None:
    """The same bytes under another ETag are no other canary: its trial goes on, and a withdrawn one does not return."""
    site = Site(tmp_path, **canary(max_disagreement=0.2))
    count = 0

    def script(request: bytes) -> list[object]:
        nonlocal count
        count += 1
        name = "other" if request.split(b" ")[1].startswith(b"/next") else "main"
        return [reply(200, PACKED[name], ETag=f"{name}-{count}"), CLOSE]

    site.server.script = script
    site.start()
    inside = senders(True)
    for _ in range(3):
        site.bot.say("/greet", next(inside))
        site.wait(100)
    assert site.status["canary"]["turns"] == 3 and site.status["canary"]["serving"]
    for _ in range(3):
        site.bot.say("/greet", next(inside))
        site.wait(100)
    assert "predictions differ" in site.status["canary"]["withdrawn"]
    site.wait(100)
    assert not site.status["canary"]["serving"]
    site.stop()


def test_upload_beside_a_canary(tmp_path: Path) -> None:
    """An upload replaces the model in service and leaves the canary its share; counting begins anew, for both."""
    site = site_with(tmp_path, {"next": "same"}, shadow="http://models/next", **canary()).start()
    inside, outside = senders(True), senders(False)
    for _ in range(4):
        site.bot.say("/greet", next(inside))
        site.bot.say("/greet", next(outside))
        site.wait(0)
    assert site.status["canary"]["agreement"] == site.status["shadow"]["agreement"] == 1.0
    (tmp_path / "upload").write_bytes(PACKED["other"])
    site.wait(1)
    upload(site, tmp_path / "upload")
    assert [message["text"] for message in site.bot.say("/greet", next(outside))] == ["bye"]
    assert [message["text"] for message in site.bot.say("/greet", next(inside))] == ["same"]
    site.wait(0)
    for name in ("canary", "shadow"):
        counts = site.status[name]
        assert counts["predictions"] > 0 and counts["agreement"] < 1.0, name
    (tmp_path / "upload").write_bytes(b"half of an arch")
    with pytest.raises(UnsupportedModel):
        upload(site, tmp_path / "upload")
    assert site.status["canary"]["serving"] and "neither zip" in site.status["last_error"]
    site.stop()
