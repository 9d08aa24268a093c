"""The session in docs/http-api.md goes as it is written."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from twisted.internet.defer import succeed

from rasa_core_api.config import read_yaml_text
from rasa_core_api.domain import Domain
from rasa_core_api.http.auth import TokenReader
from rasa_core_api.models.generation import Generation
from rasa_core_api.releases import BY_NAME
from rasa_core_api.server import Server
from rasa_core_api.server_settings import ServerSettings
from tests.fakes import Bot
from tests.http.test_multipart import form
from tests.wire import Response, Wire

PAGE = Path(__file__).resolve().parents[1] / "docs" / "http-api.md"
_BLOCK = re.compile(r"(?:<!-- with (\w+)=(\S+) -->\n)?```console\n(.*?)```", re.S)
_DOMAIN = re.compile(r"<!-- domain -->\n```yaml\n(.*?)```", re.S)
_STATUS = re.compile(r"HTTP/1.1 (\d{3})")
SCRIPT: dict[str | None, list[str]] = {"greet": ["utter_greet"], "order": ["utter_order"]}


@frozen
class Exchange:
    """A command of the page, and what stands below it."""

    command: str
    shown: str
    setting: tuple[str, str] | None

    @property
    def route(self) -> tuple[str, str]:
        """Method and path, with `<id>` for the conversation's id."""
        method, target, *_ = request_of(self.command)
        path = target.partition("?")[0]
        path = re.sub(r"^/conversations/[^/]+", "/conversations/<sender_id>", path)
        return method, re.sub(r"/reminders/[^/]+$", "/reminders/<name>", path)


def exchanges() -> list[Exchange]:
    found = []
    for name, value, block in _BLOCK.findall(PAGE.read_text("utf-8")):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, shown = part.partition("\n")
            found.append(Exchange(command, shown.strip("\n"), (name, value) if name else None))
    return found


def request_of(command: str) -> tuple[str, str, bytes | None, dict[str, str], bool]:
    """What curl would send: method, target, body, headers; and whether it shows the answer's headers."""
    words = shlex.split(re.sub(r"\$'([^']*)'", lambda match: shlex.quote(match[1].replace("\\n", "\n")), command))
    assert words.pop(0) == "curl"
    method, body, headers, verbose, target = "", None, {}, False, ""
    while words:
        word = words.pop(0)
        if word == "-X":
            method = words.pop(0)
        elif word == "-d":
            body = words.pop(0).encode()
        elif word == "-H":
            name, _, value = words.pop(0).partition(": ")
            headers[name] = value
        elif word == "-F":
            field, _, file = words.pop(0).partition("=@")
            body = form((f'; name="{field}"; filename="{file}"', b"PK"))
            headers["Content-Type"] = "multipart/form-data; boundary=XyZ"
        elif word == "-i":
            verbose = True
        else:
            target = word.removeprefix("localhost:5005")
    return method or ("GET" if body is None else "POST"), target, body, headers, verbose


class Session:
    """The server that the page talks to, one for each setting of an example."""

    def __init__(self) -> None:
        found = _DOMAIN.search(PAGE.read_text("utf-8"))
        assert found is not None
        self.bot = Bot(Domain.from_json(read_yaml_text(found[1], "page"), BY_NAME["0.11"]), SCRIPT)
        self.bot.clock.rightNow = 1_535_967_670.0
        self.bot.agent.install(generation(self.bot, 0))
        self.bot.agent.installer = self  # type: ignore[assignment]
        self.uploads = 0

    async def install_archive(self, archive: Path, signature: str | None = None) -> Generation:
        self.uploads += 1
        return await succeed(generation(self.bot, self.uploads))

    def status(self) -> dict[str, Any]:
        return {"uploads": self.uploads}

    def ask(self, exchange: Exchange) -> Response:
        name, value = exchange.setting or ("", "")
        settings: dict[str, Any] = {
            "": {},
            "auth_token": {"auth_token": value},
            "jwt_secret": {"tokens": TokenReader.from_settings(value or "-")},
            "cors": {"cors": (value,)},
        }[name]
        method, target, body, headers, _ = request_of(exchange.command)
        site = Server(self.bot.agent, ServerSettings(**settings)).site()
        connection = Wire(site, self.bot.clock).begin(method, target, body, headers)
        if b"text/event-stream" not in connection.transport.value():
            return connection.response(method)
        head, text = connection.streamed()
        connection.hang_up()
        shown = dict(line.split(": ", 1) for line in head[1:])
        return Response(int(head[0].split()[1]), {name.lower(): shown[name] for name in shown}, text.encode())


def generation(bot: Bot, number: int) -> Generation:
    model = bot.agent.model
    return Generation(domain=model.domain, ensemble=model.ensemble, fingerprint=f"{number:032x}", metadata={})


def value_of(text: str) -> Any:
    """An answer's JSON, or its text."""
    try:
        return json.loads(text)
    except ValueError:
        return text.strip("\n")


@pytest.fixture(scope="module")
def session() -> Session:
    return Session()


@pytest.mark.parametrize("number", range(len(exchanges())), ids=lambda number: exchanges()[number].command[:60])
def test_exchange(session: Session, number: int) -> None:
    """The answer is what the page shows: status, shown headers and body."""
    exchange = exchanges()[number]
    response = session.ask(exchange)
    head, _, body = exchange.shown.partition("\n")
    status = _STATUS.match(head)
    assert status is not None, f"{exchange.command!r} is followed by {head!r}"
    assert response.status == int(status[1])
    while re.match(r"[\w-]+: ", body):
        header, _, body = body.partition("\n")
        name, _, value = header.partition(": ")
        assert response.headers[name.lower()] == value
    assert value_of(response.text) == value_of(body)


def test_every_route_has_an_example() -> None:
    """No route is without one."""
    shown = {exchange.route for exchange in exchanges()}
    routes = {
        (method, rule.rule) for rule in Server.app.url_map.iter_rules() for method in (rule.methods or set()) - {"HEAD"}
    }
    missing = routes - shown - {("GET", "/conversations/<sender_id>/parse")}  # shown with POST
    assert not missing, sorted(missing)
