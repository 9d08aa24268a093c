"""Tests of the console, on a pseudo terminal."""

from __future__ import annotations

import io
import os
import pty
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from rasa_core_api.channels.console import GREETING, PROMPT, CmdlineInput, Terminal, is_interactive, lines_of
from rasa_core_api.messages import BotMessage, UserMessage
from tests.conftest import LoggedFailures
from tests.fakes import Bot
from tests.samples import domain


class FakeReactor:
    """Knows its readers."""

    def __init__(self) -> None:
        self.readers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)


class Keyboard:
    """A terminal whose other end is in the test's hands."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        self.reactor = FakeReactor()
        self.screen = io.StringIO()
        self.stopped = 0
        self.messages: list[UserMessage] = []
        self.answers: list[Deferred[Any]] = []
        self.terminal = Terminal(self.reactor, self.slave, self.screen, self.handle, self.stop)

    async def handle(self, message: UserMessage) -> list[BotMessage]:
        self.messages.append(message)
        self.answers.append(Deferred())
        return await self.answers[-1]

    def stop(self) -> None:
        self.stopped += 1

    def type(self, text: bytes) -> None:
        os.write(self.master, text)
        self.terminal.doRead()

    def shown(self) -> str:
        text = self.screen.getvalue()
        self.screen.seek(0)
        self.screen.truncate()
        return text

    def close(self) -> None:
        for descriptor in (self.master, self.slave):
            try:
                os.close(descriptor)
            except OSError:
                continue


@pytest.fixture
def keyboard() -> Iterator[Keyboard]:
    keyboard = Keyboard()
    keyboard.terminal.begin()
    yield keyboard
    keyboard.close()


def test_the_greeting(keyboard: Keyboard) -> None:
    """The console says how to begin and how to end."""
    assert keyboard.shown() == f"{GREETING}\n{PROMPT}"
    assert keyboard.reactor.readers == {keyboard.terminal}


def test_a_conversation(keyboard: Keyboard) -> None:
    """Messages are handed over one after another, stripped, as those of the default sender."""
    keyboard.type(b"  hello \n")
    (message,) = keyboard.messages
    assert (message.text, message.sender_id, message.input_channel) == ("hello", "default", "cmdline")
    keyboard.type(b"again\n")
    assert len(keyboard.messages) == 1
    keyboard.shown()
    output: Any = message.output
    Deferred.fromCoroutine(output.send("default", {"text": "a\n\nb", "buttons": None, "image": "i"}))
    assert keyboard.shown() == "a\nb\nImage: i\n"
    keyboard.answers[0].callback([])
    assert keyboard.shown() == PROMPT
    assert [message.text for message in keyboard.messages] == ["hello", "again"]


def test_a_line_comes_in_parts(keyboard: Keyboard) -> None:
    """A line counts when it is complete, and bytes that are no text do not matter."""
    keyboard.terminal._unread = b"hel"
    keyboard.type(b"lo \xff\n")
    assert keyboard.messages[0].text == "hello \ufffd"


def test_an_empty_line(keyboard: Keyboard) -> None:
    """An empty line only asks again."""
    keyboard.shown()
    keyboard.type(b"\n")
    assert (keyboard.messages, keyboard.shown()) == ([], PROMPT)


def test_stop(keyboard: Keyboard) -> None:
    """`/stop` ends the console and stops the server; what was typed behind it does not count."""
    keyboard.type(b"/stop\nhello\n")
    assert keyboard.stopped == 1
    assert keyboard.messages == [] and not keyboard.reactor.readers


def test_the_end_of_input(keyboard: Keyboard) -> None:
    """The end of input ends the console alone."""
    keyboard.type(b"\x04")
    assert keyboard.stopped == 0 and not keyboard.reactor.readers


def test_a_terminal_that_goes_away(keyboard: Keyboard) -> None:
    """A terminal that is closed ends the console alone."""
    os.close(keyboard.master)
    keyboard.terminal.doRead()
    assert keyboard.stopped == 0 and not keyboard.reactor.readers


def test_a_turn_that_fails(keyboard: Keyboard, logged: LoggedFailures) -> None:
    """A failure is logged and the console asks again."""
    keyboard.type(b"hello\n")
    keyboard.shown()
    keyboard.answers[0].errback(RuntimeError("broken"))
    assert logged.take() == [RuntimeError]
    assert keyboard.shown() == PROMPT


def test_lines() -> None:
    """Every part of a message has its lines; control characters never reach the terminal."""
    message = BotMessage("u", "a\n\x1b[2Jb", "i", [{"title": "Yes", "payload": "/affirm"}], {"x": 1})
    assert lines_of(message) == [
        "a",
        "[2Jb",
        "Image: i",
        "Attachment: {'x': 1}",
        "Buttons:",
        "1: Yes (/affirm)",
    ]


def test_with_a_bot() -> None:
    """The whole way: a typed line, the bot's answer on the screen, in the log as `cmdline`."""
    bot = Bot(domain("0.11"), {"greet": ["utter_bye"]})
    keyboard = Keyboard()
    try:
        keyboard.terminal._on_new_message = bot.agent.handle_message
        keyboard.type(b"/greet\n")
        for _ in range(20):
            bot.clock.advance(0)
        assert keyboard.shown().endswith(PROMPT)
        (user,) = [event for event in bot.log("default") if event["event"] == "user"]
        assert user["input_channel"] == "cmdline"
    finally:
        keyboard.close()


def test_nobody_sits_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where standard input is no terminal there is no console."""
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
    assert not is_interactive()
    assert CmdlineInput().open_terminal(FakeReactor(), lambda: None) is None
