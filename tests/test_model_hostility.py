"""A model server that means harm, against the whole delivery: agent, installer, workshop and HTTP client."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.models.archive_corpus import CORPUS
from tests.models.samples import packed
from tests.models.wire import CLOSE, reply
from tests.test_model_delivery import Site
from tests.test_model_poller import BROKEN

#: Methods of `Hostile`; one is drawn for each request.
KINDS = ["new", "no_tag", "same", "same", "unchanged", "absent", "refused"]
KINDS += ["broken", "broken", "hang", "drip", "endless", "redirect", "status"]
#: Kinds of archives that take too long to be sent some hundred times.
_SLOW = ("many", "wide", "diluted", "zeros_behind", "ratio", "gzip", "in_parts")


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some hundred models are kept here, and a disk may take its time for each."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def endless() -> Iterable[object]:
    """A body without an end."""
    yield b"HTTP/1.1 200 OK\r\nETag: endless\r\n\r\n"
    while True:
        yield bytes(20_000)


def drip() -> Iterable[object]:
    """A body that comes byte by byte, each just before the patience of the client ends."""
    yield reply(200, b"PK", length=1_000, ETag="drip")
    while True:
        yield 25.0
        yield b"x"


class Hostile:
    """Answers at random; `expected` is the greeting of the last good model that was sent."""

    def __init__(self, site: Site, directory: Path, seed: int) -> None:
        self.site = site
        self.draw = random.Random(seed)
        self.kinds: dict[str, int] = {}
        self.good = itertools.count(1)
        self.expected: str | None = None
        self.archives = [maker() for name, (maker, _) in CORPUS.items() if not any(word in name for word in _SLOW)]
        self.models = {word: packed(directory / word, word) for word in ("one", "two", "three")}
        self.served = b""

    def script(self, _: bytes) -> Iterable[object]:
        kind = self.draw.choice(KINDS)
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        answer: Iterable[object] = getattr(self, kind)()
        return answer

    def _model(self) -> bytes:
        self.expected = self.draw.choice(list(self.models))
        self.served = self.models[self.expected]
        return self.served

    def new(self) -> list[object]:
        return [reply(200, self._model(), ETag=f"good-{next(self.good)}"), CLOSE]

    def no_tag(self) -> list[object]:
        bad = self.draw.choice([{}, {"ETag": ""}, {"ETag": "x" * 5_000}, {"ETag": "a\x07b"}])
        return [reply(200, self._model(), **bad), CLOSE]

    def same(self) -> list[object]:
        return [reply(200, self.served, ETag=self.site.agent.fingerprint), CLOSE] if self.served else self.absent()

    def unchanged(self) -> list[object]:
        return [reply(self.draw.choice([204, 304]), **self.draw.choice([{}, {"ETag": "x"}])), CLOSE]

    def absent(self) -> list[object]:
        return [reply(404, b"<html>"), CLOSE]

    def status(self) -> list[object]:
        return [reply(self.draw.choice([400, 401, 403, 410, 429, 500, 502, 503, 504, 599, 206]), b"x"), CLOSE]

    def refused(self) -> list[object]:
        return [reply(200, self.draw.choice(self.archives), ETag=f"bad-{self.draw.randrange(9)}"), CLOSE]

    def broken(self) -> list[object]:
        return self.draw.choice(list(BROKEN.values()))

    def hang(self) -> list[object]:
        return self.draw.choice([[], [b"HTTP/1.1 200"], [reply(200, b"PK", length=50, ETag="hang")]])

    def redirect(self) -> list[object]:
        places = ["/core", "http://[::1", "https://models/core", "ftp://x/", "//", "http://other:99999/", "\x00"]
        return [reply(self.draw.choice([301, 302, 303, 307, 308]), Location=self.draw.choice(places)), CLOSE]

    def drip(self) -> Iterable[object]:
        return drip()

    def endless(self) -> Iterable[object]:
        return endless()


def survive(tmp_path: Path, polls: int, seed: int) -> dict[str, int]:
    """Poll; in all that time the last good model serves, and nothing is left at the end. The kinds of answers."""
    site = Site(tmp_path, max_mb=0.1, timeout=30)
    hostile = Hostile(site, tmp_path, seed)
    site.server.script = hostile.script
    descriptors = len(os.listdir("/proc/self/fd"))
    site.start()
    steps = pulls = 0
    poller = site.delivery.poller
    assert poller is not None
    fetch = poller._fetch

    def counted(fingerprint: str, unwanted: str | None) -> Any:
        nonlocal pulls
        pulls += 1
        return fetch(fingerprint, unwanted)

    poller._fetch = counted
    while pulls < polls:
        site.server.refuses = hostile.draw.random() < 0.05
        site.bot.clock.advance(hostile.draw.choice([1.0, 30.0, 100.0, 400.0]))
        for _ in range(12):
            site.bot.clock.advance(0)
        site.server.requests.clear()
        steps += 1
        assert steps < 20 * polls, "polling has ended"
        if hostile.expected is not None:
            assert site.greeting == hostile.expected
            if not steps % 20:
                said = site.bot.say("/greet", f"s{steps}")
                assert [message["text"] for message in said] == [hostile.expected]
    site.server.script = lambda _: hostile.new()  # a good answer counts at once
    site.server.refuses = False
    for _ in range(12):  # what is under way is given up after 300 s, and the longest pause is 800 s
        site.wait(100)
    assert site.greeting == hostile.expected and site.status["state"] == "current"
    site.server.script = lambda _: hostile.absent()
    site.wait(30)  # what is still sent to closed connections
    site.stop()
    assert [name for name in os.listdir(tmp_path / "kept") if name != "last.model"] == []
    assert len(os.listdir("/proc/self/fd")) == descriptors
    return hostile.kinds


def test_hostile_server(tmp_path: Path) -> None:
    """Whatever it answers the last good model is served, polling goes on, and no file or descriptor is left."""
    kinds = survive(tmp_path, 500, 1)
    assert len(kinds) == 12


@pytest.mark.integration
def test_hostile_server_for_long(tmp_path: Path) -> None:
    """The same for ten thousand polls."""
    kinds = survive(tmp_path, 10_000, 2)
    assert min(kinds.values()) > 500
