from __future__ import annotations

from typing import Any

import pytest
from treq.testing import StubTreq

from rasa_core_api.server import Server
from rasa_core_api.server_settings import ServerSettings
from tests.fakes import Bot
from tests.samples import domain


def get(bot: Bot, path: str, **settings: Any) -> tuple[int, Any]:
    """Status and JSON of an answer, asked without a token."""
    stub = StubTreq(Server(bot.agent, ServerSettings(auth_token="secret", **settings)).resource())
    found: list[Any] = []
    stub.get(f"http://bot{path}").addCallback(
        lambda response: response.json().addCallback(lambda body: found.append((response.code, body)))
    )
    stub.flush()
    status, body = found[0]
    return status, body


@pytest.mark.parametrize("ready", [True, False])
def test_health(ready: bool) -> None:
    """Watchers learn without a token whether the server lives and is ready, and nothing else."""
    bot = Bot(domain("0.11"), {})
    if not ready:
        bot.agent.served.current = None
    assert get(bot, "/healthz") == (200, {"status": "ok"})
    assert get(bot, "/readyz") == (200 if ready else 503, {"ready": ready})
    assert get(bot, "/status")[0] == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_nothing_leaks(path: str) -> None:
    """They name no version, no model and no error, in headers or body."""
    bot = Bot(domain("0.11"), {})
    stub = StubTreq(Server(bot.agent, ServerSettings(auth_token="secret")).resource())
    found: list[Any] = []
    stub.get(f"http://bot{path}").addCallback(found.append)
    stub.flush()
    names = {name.lower() for name, _ in found[0].headers.getAllRawHeaders()}
    assert names <= {b"date", b"content-type", b"content-length", b"content-encoding"}


def test_without_api() -> None:
    """They are there where only channels are served, and nothing else is."""
    bot = Bot(domain("0.11"), {})
    assert get(bot, "/healthz", enable_api=False)[0] == get(bot, "/readyz", enable_api=False)[0] == 200
    for path in ("/", "/status", "/version"):
        assert get(bot, path, enable_api=False)[0] == 404
