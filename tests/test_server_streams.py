"""Tests of the routes that stream events: form, rights, and readers that go or stall."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import unquote

import pytest

from rasa_core_api.http.auth import TokenReader
from rasa_core_api.http.sending import STALL
from rasa_core_api.server import Server
from rasa_core_api.server_settings import ServerSettings
from tests.fakes import Bot
from tests.samples import domain
from tests.wire import Connection, Wire

SECRET = "a secret that is long enough for the method"

#: Of the first conversation, by the time at which the store began.
BIRTH = 1_000_000_000_001


@pytest.fixture
def bot() -> Bot:
    return Bot(domain("0.11"), {"greet": ["utter_hi"]})


def server_of(bot: Bot, **settings: Any) -> tuple[Server, Wire]:
    server = Server(bot.agent, ServerSettings(**settings))
    return server, Wire(server.site(), bot.clock)


def events_of(text: str) -> list[dict[str, str]]:
    """What an event source would dispatch."""
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]  # type: ignore[misc]


def test_a_conversation_is_followed(bot: Bot) -> None:
    """What was said is sent at once, what is said when it is said, each with its number."""
    _, wire = server_of(bot)
    bot.say("/greet")
    connection = wire.begin("GET", "/conversations/u/events?after=2")
    head, text = connection.streamed()
    assert head[0] == "HTTP/1.1 200 OK"
    assert "Content-Type: text/event-stream; charset=utf-8" in head and "Cache-Control: no-cache" in head
    first = events_of(text)
    assert [event["id"] for event in first] == [f"{n}-{BIRTH}" for n in range(3, len(bot.log()))]
    bot.say("/greet")
    connection.rounds()
    more = events_of(connection.streamed()[1])[len(first) :]
    assert [event["id"] for event in more] == [f"{n}-{BIRTH}" for n in range(len(first) + 3, len(bot.log()))]
    bot.clock.advance(15)
    assert connection.streamed()[1].endswith("\n\n:\n\n")


def test_last_event_id_wins(bot: Bot) -> None:
    """The header that event sources send when they come back counts before the query."""
    _, wire = server_of(bot)
    bot.say("/greet")
    last = len(bot.log()) - 1
    path = "/conversations/u/events?after=0"
    for text in (str(last - 1), f"{last - 1}-{BIRTH}"):
        connection = wire.begin("GET", path, headers={"Last-Event-ID": text})
        assert [event["id"] for event in events_of(connection.streamed()[1])] == [f"{last}-{BIRTH}"]


def test_all_conversations_are_followed(bot: Bot) -> None:
    """From now on, or from an id on; each event names its conversation."""
    _, wire = server_of(bot)
    connection = wire.begin("GET", "/events")
    bot.say("/greet", "a")
    bot.say("/greet", "b")
    connection.rounds()
    found = events_of(connection.streamed()[1])
    ours = [event for event in found if '"sender_id":"a"' in event["data"]]
    assert len(ours) == len(bot.log("a")) and len(found) == 2 * len(ours)
    ids = [event["id"] for event in found if "id" in event]
    again = wire.begin("GET", f"/events?after={ids[0]}")
    assert events_of(again.streamed()[1]) == found[len(ours) :]


@pytest.mark.parametrize("path", ["/conversations/u/events", "/events"])
@pytest.mark.parametrize("text", ["x", "1_0", "+5", "-2", "1.0", "1e3", "9" * 30, "%D9%A1", "1%20", "1-", "-", "1-x"])
def test_what_is_no_id(bot: Bot, path: str, text: str) -> None:
    """That is answered with 400, which names where it was said, before the stream begins."""
    _, wire = server_of(bot)
    answer = wire.get(f"{path}?after={text}")
    assert (answer.status, answer.json()["details"]) == (400, {"parameter": "after", "in": "query"})
    if text != "1%20":  # blanks around a header's value are none of it
        answer = wire.ask("GET", path, headers={"Last-Event-ID": unquote(text).encode().decode("latin-1")})
        assert (answer.status, answer.json()["details"]) == (400, {"parameter": "Last-Event-ID", "in": "header"})


def test_rights(bot: Bot) -> None:
    """The API's token is asked for; a user sees its own conversation and no stream of all."""
    import jwt

    _, wire = server_of(bot, auth_token="t", tokens=TokenReader.from_settings(SECRET))
    assert wire.get("/events").status == 401 and wire.get("/conversations/u/events").status == 401
    user = {"user": {"username": "u", "role": "user"}, "exp": time.time() + 1000}
    headers = {"Authorization": f"Bearer {jwt.encode(user, SECRET, 'HS256')}"}
    assert wire.ask("GET", "/events", headers=headers).status == 403
    assert wire.ask("GET", "/conversations/v/events", headers=headers).status == 403
    for path, sent in (("/conversations/u/events", headers), ("/events?token=t", {})):
        assert wire.begin("GET", path, headers=sent).streamed()[0][0] == "HTTP/1.1 200 OK"


def test_rights_end_with_their_token(bot: Bot) -> None:
    """A stream ends in order when the token that opened it expires; one that does not expire goes on."""
    import jwt

    server, wire = server_of(bot, tokens=TokenReader.from_settings(SECRET, now=bot.clock.seconds))
    now = int(bot.clock.seconds())
    claims = [
        {"user": {"username": "u", "role": "user"}, "exp": now + 60},
        {"user": {"user": "someone", "role": "admin"}, "exp": str(now + 90)},
        {"user": {"role": "admin"}, "exp": 10**30},
        {"user": {"role": "admin"}},
    ]
    tokens = [jwt.api_jws.encode(json.dumps(claim).encode(), SECRET, "HS256") for claim in claims]
    streams = [
        wire.begin("GET", "/conversations/u/events", headers={"Authorization": f"Bearer {token}"}) for token in tokens
    ]
    open_at = []
    for _ in range(4):
        open_at.append([not stream.transport.value().endswith(b"0\r\n\r\n") for stream in streams])
        bot.clock.pump([30.0, 0, 0])
    assert open_at == [[True] * 4, [True] * 4, [False, True, True, True], [False, False, True, True]]
    for stream in streams:
        stream.hang_up()
    assert server._streams._count == 0 and not bot.clock.getDelayedCalls()


def test_who_leaves_is_forgotten(bot: Bot) -> None:
    """A reader that hangs up costs nothing any more."""
    server, wire = server_of(bot)
    connections = [wire.begin("GET", "/conversations/u/events"), wire.begin("GET", "/events")]
    assert server._streams._count == 2
    for connection in connections:
        connection.hang_up()
    assert server._streams._count == 0
    bot.say("/greet")


def test_who_takes_nothing_is_cut_off(bot: Bot) -> None:
    """A reader that is slower than what is said is not waited for, and does not fill the memory."""
    server, wire = server_of(bot)
    connection = wire.begin("GET", "/conversations/u/events")
    connection.transport.capacity = 100
    for _ in range(30):
        bot.say("/greet")
        connection.rounds()
    size = len(connection.transport.value())
    assert size < 2_000
    bot.clock.advance(STALL)
    assert connection.transport.aborted
    connection.hang_up()
    assert server._streams._count == 0


def test_too_many_readers(bot: Bot) -> None:
    """The next one is told to come back later."""
    server, wire = server_of(bot)
    server._streams.limit = 1
    wire.begin("GET", "/events")
    response = wire.get("/events")
    assert response.status == 429 and "retry-after" in response.headers


def test_only_the_head(bot: Bot) -> None:
    """HEAD is answered and done."""
    server, wire = server_of(bot)
    assert wire.ask("HEAD", "/events").headers["content-type"].startswith("text/event-stream")
    assert server._streams._count == 0


def test_the_end(bot: Bot) -> None:
    """A server that stops ends its streams in order."""
    server, wire = server_of(bot)
    connection: Connection = wire.begin("GET", "/events")
    server.close()
    connection.rounds()
    assert connection.transport.value().endswith(b"0\r\n\r\n")
