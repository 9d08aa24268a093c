from __future__ import annotations

import gzip
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher

from rasa_core_api.exceptions import RasaCoreError
from rasa_core_api.model_poller import ModelPoller, State
from rasa_core_api.models.archives import unpack
from rasa_core_api.models.download import Delivery, Nothing, Target, fetch
from tests.conftest import LoggedFailures
from tests.models.archive_corpus import CORPUS, GOOD, tarred, zipped
from tests.models.wire import CLOSE, RESET, WireServer, reply

INTERVAL = 10.0


class Site:
    """A poller, its clock and its model server, which answers by `answer`."""

    def __init__(self, directory: Path, interval: float | None = INTERVAL, **target: float) -> None:
        self.clock = Clock()
        self.directory = directory
        self.served = "none-yet"
        self.ready = False
        self.installed: list[str] = []
        self.answer: list[object] = [reply(404), CLOSE]
        self.server = WireServer(self.clock, lambda _: self.answer)
        self.target = Target("http://models:8000/core@latest?token=secret", **target)  # type: ignore[arg-type]
        self.count = 0
        self.error: Exception | None = None
        self.poller = ModelPoller(
            self.clock,
            self.fetch,
            self.install,
            lambda delivery: delivery.path.unlink(),
            lambda: self.served,
            lambda: self.ready,
            interval,
            self.target.shown,
            self.clock.seconds,
            spread=lambda: 0.0,
        )

    async def fetch(self, fingerprint: str, unwanted: str | None) -> Delivery | Nothing:
        self.count += 1
        path = self.directory / f"download-{self.count}"
        return await fetch(self.server.client, self.target, fingerprint, path, self.clock, unwanted)

    async def install(self, delivery: Delivery) -> None:
        room = self.directory / "unpacked"
        try:
            if self.error is not None:
                raise self.error
            unpack(delivery.path, room)
            for path in sorted(room.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            room.rmdir()
        finally:
            delivery.path.unlink()
        self.served, self.ready = delivery.tag, True
        self.installed.append(delivery.tag)

    def start(self) -> Site:
        self.poller.start()
        self.settle()
        return self

    def settle(self) -> None:
        for _ in range(30):
            self.clock.advance(0)

    def wait(self, seconds: float = INTERVAL) -> None:
        self.clock.advance(seconds)
        self.settle()

    def publish(self, tag: str | None, body: bytes = zipped(*GOOD)) -> None:
        headers = {} if tag is None else {"ETag": tag}
        self.answer = [reply(200, body, **headers), CLOSE]

    @property
    def pulls(self) -> int:
        return len(self.server.requests)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A poller that is stopped at the end, leaving no call, connection or file behind."""
    site = Site(tmp_path)
    yield site
    Deferred.fromCoroutine(site.poller.stop())
    assert site.clock.getDelayedCalls() == []
    assert site.server.open == []
    assert os.listdir(tmp_path) == []


def test_first_pull(site: Site) -> None:
    """The first pull is made at once and names the fingerprint that stands for no model."""
    site.publish('"v1"')
    site.start()
    assert site.server.header("If-None-Match") == "none-yet"
    assert site.server.header("Content-Type") == "application/json"
    assert b"GET /core@latest?token=secret HTTP/1.1" in site.server.requests[0]
    assert site.installed == ['"v1"'] and site.poller.state is State.CURRENT


def test_etag_verbatim(site: Site) -> None:
    """The ETag goes back byte for byte, whatever it looks like."""
    tags = ['W/"a"', "d41d8cd98f00b204e9800998ecf8427e", 'caf\u00e9, "x"']
    for tag in tags:
        site.publish(tag)
        site.start().wait()
        site.answer = [reply(304), CLOSE]
        site.wait()
        assert site.server.header("If-None-Match") == tag
    assert site.installed == tags


def test_starting_to_absent(site: Site) -> None:
    """A server without a model (404) is asked again one interval later."""
    site.start()
    assert site.poller.state is State.ABSENT
    site.publish("v1")
    site.wait(INTERVAL - 0.1)
    assert site.installed == []
    site.wait(0.1)
    assert site.installed == ["v1"] and site.poller.state is State.CURRENT


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("headers", [{}, {"ETag": "v2"}])
def test_current_to_current(site: Site, status: int, headers: dict[str, str]) -> None:
    """204 and 304 change nothing, even where they carry an ETag."""
    site.publish("v1")
    site.start()
    site.answer = [reply(status, **headers), CLOSE]
    site.wait()
    assert site.pulls == 2 and site.installed == ["v1"] and site.poller.state is State.CURRENT


@pytest.mark.parametrize("status", [204, 304])
def test_starting_to_absent_by_nothing_new(site: Site, status: int) -> None:
    """"Nothing new" to a poller that has nothing means that there is no model yet."""
    site.answer = [reply(status), CLOSE]
    site.start()
    assert site.poller.state is State.ABSENT and not site.ready
    site.publish("v1")
    site.wait()
    assert site.installed == ["v1"]


def test_same_etag(site: Site) -> None:
    """200 with the fingerprint in service is not even downloaded."""
    site.publish("v1")
    site.start()
    site.answer = [reply(200, b"", length=1 << 20, ETag="v1")]  # the body never comes
    site.wait()
    assert site.installed == ["v1"] and site.poller.state is State.CURRENT and site.server.open == []


def test_new_etag(site: Site) -> None:
    """200 with another ETag is installed and becomes the fingerprint."""
    for tag in ("v1", "v2"):
        site.publish(tag)
        site.start().wait()
    assert site.installed == ["v1", "v2"] and site.served == "v2"


@pytest.mark.parametrize("tag", ["*", None, "", "x" * 2000, "a\tb"])
def test_no_etag(site: Site, tag: str | None) -> None:
    """Where no usable ETag comes, the content's hash stands in, and the same content is not installed twice."""
    site.publish(tag)
    site.start()
    assert len(site.served) == 64
    site.wait()
    assert site.installed == [site.served] and site.pulls == 2
    site.publish(tag, zipped(("domain.yml", b"other")))
    site.wait()
    assert len(site.installed) == 2


def test_current_to_absent(site: Site) -> None:
    """A model that is withdrawn stays in service."""
    site.publish("v1")
    site.start()
    site.answer = [reply(404), CLOSE]
    site.wait()
    assert site.poller.state is State.ABSENT and site.served == "v1"


BROKEN: dict[str, list[object]] = {
    "closed": [CLOSE],
    "reset": [RESET],
    "status 500": [reply(500), CLOSE],
    "status 401": [reply(401), CLOSE],
    "status 206": [reply(206, b"PK"), CLOSE],
    "no http": [b"SSH-2.0-OpenSSH\r\n\r\n", CLOSE],
    "garbage": [bytes(range(256)) * 4, CLOSE],
    "truncated": [reply(200, zipped(*GOOD)[:50], length=500, ETag="v9"), CLOSE],
    "reset in the body": [reply(200, b"PK", length=500, ETag="v9"), RESET],
    "bad chunks": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: v9\r\n\r\nzz\r\nPK", CLOSE],
    "no place": [reply(302), CLOSE],
    "other scheme": [reply(302, Location="file:///etc/passwd"), CLOSE],
    "redirect loop": [reply(302, Location="/core@latest"), CLOSE],
    "announced size": [reply(200, b"PK", length=1 << 40, ETag="v9")],
    "negative size": [reply(200, b"PK", length=-5, ETag="v9")],
    "endless headers": [b"HTTP/1.1 200 OK\r\n" + b"X-Y: %s\r\n" % (b"z" * 200) * 400],
    "endless folded header": [b"HTTP/1.1 200 OK\r\nX-Y: z\r\n" + b" %s\r\n" % (b"z" * 200) * 400],
    "interim answers": [b"HTTP/1.1 100 Continue\r\n\r\n" * 50],
    "interim answers with a plus": [b"HTTP/1.1 +100 Continue\n\n" * 50],
    "control characters in a redirect": [reply(302, Location="http://models/\x01 x"), CLOSE],
    "redirect to no host": [reply(302, Location="http://[::1"), CLOSE],
    "unknown transfer": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nETag: v9\r\n\r\nPK", CLOSE],
}


@pytest.mark.parametrize("name", BROKEN)
def test_to_unreachable_and_back(site: Site, name: str) -> None:
    """After an answer that cannot be used the model in service stays, and the next good answer counts at once."""
    site.publish("v1")
    site.start()
    site.answer = BROKEN[name]
    site.wait()
    assert site.poller.state is State.UNREACHABLE and site.served == "v1"
    assert site.poller.status()["failures"] == 1 and site.poller.status()["last_error"]
    site.publish("v2")
    site.wait()
    assert site.served == "v2" and site.poller.state is State.CURRENT
    assert site.poller.status()["failures"] == 0


#: A first state, and one that every state but the first leads to.
STATES = ("current", "absent", "unreachable", "unusable")
TRANSITIONS = [(before, after) for before in ("starting", *STATES) for after in STATES]


@pytest.mark.parametrize(("before", "after"), TRANSITIONS, ids=[f"{a}-to-{b}" for a, b in TRANSITIONS])
def test_transition(site: Site, before: str, after: str) -> None:
    """Each state leads to each other at the next pull, and only a model that loaded replaces the one in service."""
    tags = itertools.count(1)

    def answer(state: str) -> None:
        tag = f"v{next(tags)}"
        if state == "current":
            site.publish(tag)
        elif state == "unusable":
            site.publish(tag, CORPUS["zip_upwards"][0]())
        else:
            site.answer = [reply(404 if state == "absent" else 503), CLOSE]

    if before != "starting":
        answer(before)
        site.start()
        assert site.poller.state.value == before
    installed = list(site.installed)
    answer(after)
    pulls = site.pulls
    site.start().wait(site.poller._pause() if before != "starting" else 0.0)
    assert site.pulls == pulls + 1 and site.poller.state.value == after
    assert len(site.installed) == len(installed) + (after == "current") and site.ready == bool(site.installed)


def test_quick_interim_answer(site: Site) -> None:
    """An interim answer or two before the real one do no harm, and the body may hold blank lines."""
    site.publish("v1")
    site.answer = [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n", *site.answer]
    site.start()
    assert site.installed == ["v1"]


def test_byte_by_byte(site: Site) -> None:
    """It does not matter in what pieces an answer arrives."""
    site.publish("v1")
    site.answer = [*(bytes([byte]) for byte in site.answer[0]), CLOSE]  # type: ignore[attr-defined]
    site.start()
    for _ in range(50):
        site.settle()
    assert site.installed == ["v1"]


def test_two_etags(site: Site) -> None:
    """Of two ETags that differ neither counts."""
    site.publish("v1")
    site.answer = [site.answer[0].replace(b"ETag: v1", b"ETag: v1\r\nETag: v2"), CLOSE]  # type: ignore[attr-defined]
    site.start()
    assert len(site.served) == 64


def test_cut_off_without_a_length(site: Site) -> None:
    """A model whose end may be missing, since no length was told, is asked for again at the next pull."""
    body = zipped(*GOOD)
    head = b"HTTP/1.1 200 OK\r\nETag: v1\r\n\r\n"
    site.answer = [head + body[:-30], CLOSE]
    site.start()
    assert site.poller.state is State.UNUSABLE and "cut off" in str(site.poller.status()["last_error"])
    site.answer = [head + body, CLOSE]
    site.wait(1.0)
    assert site.installed == ["v1"]


def test_refused_connection(site: Site) -> None:
    """A server that is down is asked again."""
    site.server.refuses = True
    site.start()
    assert site.poller.state is State.UNREACHABLE
    site.server.refuses = False
    site.publish("v1")
    site.wait()
    assert site.served == "v1"


def test_silent_server(site: Site) -> None:
    """A server that accepts and says nothing is given up after the time limit."""
    site.answer = []
    site.start().wait(29.9)
    assert site.poller.state is State.STARTING
    site.wait(0.2)
    assert site.poller.state is State.UNREACHABLE and "30 s" in str(site.poller.status()["last_error"])
    assert site.server.open == []


def test_hang_in_body(site: Site) -> None:
    """A body that stops coming is given up after the time limit, and its file removed."""
    site.answer = [reply(200, b"PK", length=500, ETag="v1")]
    site.start().wait(30)
    assert site.poller.state is State.UNREACHABLE and os.listdir(site.directory) == []


def test_drip(tmp_path: Path) -> None:
    """A body that trickles in for ever is given up after the limit on the whole download."""
    site = Site(tmp_path, timeout=30.0, total=300.0)

    def drip(_: bytes) -> Iterable[object]:
        yield reply(200, b"PK", length=100_000, ETag="v1")
        while True:
            yield 20.0
            yield b"x"

    site.server.script = drip
    site.start()
    for _ in range(31):
        site.wait(10)
    assert "300 s" in str(site.poller.status()["last_error"])
    Deferred.fromCoroutine(site.poller.stop())
    assert os.listdir(tmp_path) == [] and site.server.open == []


def test_endless_body(tmp_path: Path) -> None:
    """A body beyond the size limit is cut, and its file removed."""
    site = Site(tmp_path, size=100_000)

    def endless(_: bytes) -> Iterable[object]:
        yield b"HTTP/1.1 200 OK\r\nETag: v1\r\n\r\n"
        while True:
            yield bytes(10_000)

    site.server.script = endless
    site.start()
    assert "100000 bytes" in str(site.poller.status()["last_error"])
    Deferred.fromCoroutine(site.poller.stop())
    assert os.listdir(tmp_path) == [] and site.server.open == []


@pytest.mark.parametrize("name", ["zip_upwards", "zip_symlink", "html_page", "tar_ratio"])
def test_to_unusable_and_back(site: Site, name: str) -> None:
    """An archive that cannot be served is told once; the next model is installed at the next pull."""
    site.publish("v1")
    site.start()
    site.publish("bad", CORPUS[name][0]())
    site.wait()
    assert site.poller.state is State.UNUSABLE and site.served == "v1"
    assert "refused archive" in str(site.poller.status()["last_error"])
    assert site.server.header("If-None-Match") == "v1"
    site.publish("v2")
    site.wait()
    assert site.served == "v2" and site.poller.state is State.CURRENT


def test_refused_model_again(site: Site) -> None:
    """A refused model is passed by for some pulls and tried again, in case its bytes were mended."""
    site.publish("v1", b"not an archive")
    site.start()
    site.publish("v1")
    for _ in range(4):
        site.wait()
    assert site.installed == [] and site.poller.state is State.UNUSABLE
    site.wait()
    assert site.installed == ["v1"]


def test_install_fails_here(site: Site) -> None:
    """Where a model cannot be installed for a reason of this machine, it is tried again with growing pauses."""
    site.error = RasaCoreError("the disk is full")
    site.publish("v1")
    site.start()
    assert site.poller.state is State.UNUSABLE
    site.wait(1.0)
    site.wait(2.0)
    assert site.pulls == 3
    site.error = None
    site.wait(4.0)
    assert site.served == "v1"


def test_unforeseen_error(site: Site, logged: LoggedFailures) -> None:
    """Even an error that nobody foresaw does not end the polling; it is logged once, however often it comes."""
    site.error = ZeroDivisionError()
    site.publish("v1")
    site.start()
    for _ in range(5):
        site.wait()
    assert site.pulls > 5 and logged.take() == [ZeroDivisionError]
    site.error = None
    site.wait()
    assert site.served == "v1"


def test_growing_pauses(site: Site) -> None:
    """Failures in a row make the pauses grow to eight intervals, and one answer makes them short again."""
    site.publish("v1")
    site.start()
    site.answer = [reply(503), CLOSE]
    moments = []
    for _ in range(400):
        before = site.pulls
        site.wait(1.0)
        moments += [site.clock.seconds()] * (site.pulls - before)
    pauses = [round(later - earlier) for earlier, later in itertools.pairwise(moments)]
    assert pauses[:5] == [10, 20, 40, 80, 80]
    site.answer = [reply(204), CLOSE]
    site.wait(80)
    before = site.pulls
    for _ in range(3):
        site.wait()
    assert site.pulls - before == 3


def test_eager_before_first_model(site: Site) -> None:
    """While there is nothing to serve, failures are followed by short pauses."""
    site.answer = [reply(503), CLOSE]
    site.start()
    for _ in range(7):
        site.wait(1.0)
    assert site.pulls == 4  # after 1, 2 and 4 seconds


def test_jitter(tmp_path: Path) -> None:
    """Pauses are up to a tenth shorter, so that many servers do not ask together."""
    site = Site(tmp_path)
    site.poller._spread = lambda: 1.0
    site.start()
    site.wait(9.0)
    assert site.pulls == 2
    Deferred.fromCoroutine(site.poller.stop())


def test_once(tmp_path: Path) -> None:
    """Without an interval the poller ends at the first answer, and not before."""
    site = Site(tmp_path, interval=None)
    site.answer = [reply(503), CLOSE]
    site.start()
    site.publish("v1")
    site.wait(1.0)
    assert site.served == "v1"
    site.wait(1000)
    assert site.pulls == 2 and site.clock.getDelayedCalls() == []


def test_redirect(tmp_path: Path) -> None:
    """A redirect is followed; secrets stay with the configured server."""
    site = Site(tmp_path, headers={"Authorization": "Basic eDp5"})  # type: ignore[arg-type]

    def script(request: bytes) -> list[object]:
        if b"Host: cdn" in request:
            return [reply(200, zipped(*GOOD), ETag="v1"), CLOSE]
        return [reply(302, Location="http://cdn/model.zip"), CLOSE]

    site.server.script = script
    site.start()
    assert site.installed == ["v1"] and site.server.hosts == ["models", "cdn"]
    assert site.server.header("Authorization", 0) == "Basic eDp5"
    assert site.server.header("Authorization", 1) is None
    Deferred.fromCoroutine(site.poller.stop())


@pytest.mark.parametrize(
    ("location", "asked"),
    [
        ("/a model.zip", "models:8000 /a%20model.zip"),
        ("/mod\u00e9le", "models:8000 /mod%E9le"),
        ("//eve:pw@cdn:81/x?a=%2B+b#top", "cdn:81 /x?a=%2B+b"),
        ("http://[::1]:82/x", "[::1]:82 /x"),
    ],
)
def test_odd_redirects(site: Site, location: str, asked: str) -> None:
    """Blanks and bytes in a place are escaped as browsers do; nobody's user name goes along."""
    first = [reply(302, Location=location), CLOSE]
    site.server.script = lambda request: first if b"/core@latest" in request else [reply(404), CLOSE]
    site.start()
    path = site.server.requests[-1].split(b" ")[1].decode()
    assert f"{site.server.header('Host')} {path}" == asked
    assert site.server.header("Authorization") is None


def test_cookies_are_not_kept(site: Site) -> None:
    """A server's session is not carried from one pull to the next."""
    site.answer = [reply(404, Set_Cookie="session=1; Path=/"), CLOSE]
    site.start()
    site.wait()
    assert len(site.server.requests) == 2 and site.server.header("Cookie") is None


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip"])
def test_content_encoding(site: Site, encoding: str) -> None:
    """A tar.gz that its server calls gzip is taken as it came, whatever it would grow to; no other is asked for."""
    site.answer = [reply(200, tarred(*GOOD), ETag="v1", Content_Encoding=encoding), CLOSE]
    site.start()
    assert site.installed == ["v1"] and site.server.header("Accept-Encoding") == "identity"
    site.answer = [reply(200, gzip.compress(zipped(*GOOD)), ETag="v2", Content_Encoding=encoding), CLOSE]
    site.wait()
    assert site.poller.state is State.UNUSABLE
    assert "packed once more by gzip" in str(site.poller.status()["last_error"])


def test_ipv6(site: Site) -> None:
    """A model server may have an IPv6 address; its URL is asked for as it was written."""
    site.target = Target("http://[::1]:8000/core%2Fa?token=a%2Bb+c&x=%7e")
    site.publish("v1")
    site.start()
    assert site.installed == ["v1"] and site.server.header("Host") == "[::1]:8000"
    assert site.server.requests[0].startswith(b"GET /core%2Fa?token=a%2Bb+c&x=%7e HTTP/1.1")


def test_stop_in_download(site: Site) -> None:
    """Stopping gives up a download at once."""
    site.answer = [reply(200, b"PK", length=500, ETag="v1")]
    site.start()
    assert len(os.listdir(site.directory)) == 1


def test_stop_while_asking(site: Site) -> None:
    """Stopping gives up a request that has no answer yet."""
    site.answer = []
    site.start()
    assert len(site.server.open) == 1


def test_log_lines(site: Site) -> None:
    """There is one line for a change of state and none for a quiet pull; no query is logged."""
    lines: list[LogEvent] = []
    globalLogPublisher.addObserver(lines.append)
    try:
        site.publish("v1")
        site.start()
        for _ in range(20):
            site.wait()
        site.answer = [reply(503), CLOSE]
        for _ in range(20):
            site.wait(80)
        site.publish("v1")
        site.wait(80)
    finally:
        globalLogPublisher.removeObserver(lines.append)
    lines = [line for line in lines if line["log_namespace"] == "rasa_core_api.model_poller"]
    assert [line["log_level"].name for line in lines] == ["warn", "info"]  # what is installed its installer tells
    assert all(line["url"] == "http://models:8000/core@latest" for line in lines)


def test_log_lines_of_a_changing_failure(site: Site) -> None:
    """A server that fails in another way each time is told once; its bytes are in no line."""
    lines: list[LogEvent] = []
    globalLogPublisher.addObserver(lines.append)
    try:
        site.publish("v1")
        site.start()
        for number in range(20):
            site.answer = [reply(500 + number), CLOSE] if number % 2 else [b"HTTP/1.1 %d-odd x\r\n\r\n" % number, CLOSE]
            site.wait(80)
    finally:
        globalLogPublisher.removeObserver(lines.append)
    lines = [line for line in lines if line["log_namespace"] == "rasa_core_api.model_poller"]
    told = [line for line in lines if line["log_level"] is not LogLevel.debug]
    assert [line["log_level"].name for line in told] == ["warn"] and site.poller.status()["last_error"]
    assert not any("odd" in formatEvent(line) for line in lines)


def test_log_lines_of_other_refused_models(site: Site) -> None:
    """Each model that is refused for another reason is told, up to a bound."""
    lines: list[LogEvent] = []
    globalLogPublisher.addObserver(lines.append)
    try:
        site.start()
        for number in range(30):
            site.publish(f"v{number}", zipped((f"../evil{number % 15}", b"x")))
            site.wait()
    finally:
        globalLogPublisher.removeObserver(lines.append)
    told = [line for line in lines if line["log_level"] is LogLevel.error]
    assert len(told) == 10 and "evil14" in str(site.poller.status()["last_error"])
