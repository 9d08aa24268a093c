"""The channel `cmdline`: the routes of `rest`, and a conversation on the terminal of the server."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rasa_core_api.channels.channel import CollectingOutputChannel, OnNewMessage, button_lines
from rasa_core_api.channels.rest import RestInput
from rasa_core_api.messages import BotMessage, UserMessage

log = Logger()

STOP = "/stop"
GREETING = f"Bot loaded. Type a message and press enter (use '{STOP}' to exit): "
PROMPT = "Your input ->  "

_GREEN, _BLUE, _PLAIN = "\033[92m", "\033[94m", "\033[0m"
#: Bytes of a line beyond which it is cut.
_LONGEST = 64 * 1024


class CmdlineInput(RestInput):
    """The channel `rest` under another name; the terminal is opened by `open_terminal`."""

    @classmethod
    def name(cls) -> str:
        return "cmdline"

    def url_prefix(self) -> str:
        return RestInput.name()

    def open_terminal(self, reactor: Any, stop: Callable[[], None]) -> Terminal | None:
        """Talk on standard input and output; `stop` is called at `/stop`. None where nobody sits there."""
        if not is_interactive():
            log.info("standard input is no terminal: no console is started")
            return None
        terminal = Terminal(reactor, sys.stdin.fileno(), sys.stdout, self._on_new_message, stop, sys.stdout.isatty())
        terminal.begin()
        return terminal


def is_interactive() -> bool:
    """Whether standard input is a terminal, and this process may read from it.

    A process in the background that reads would be stopped by the system.
    """
    try:
        descriptor = sys.stdin.fileno()
        return os.isatty(descriptor) and os.tcgetpgrp(descriptor) == os.getpgrp()
    except (AttributeError, OSError, ValueError):
        return False


@implementer(IReadDescriptor)
class Terminal:
    """Reads lines when the reactor says there are some, and prints the answers in the same order.

    The descriptor stays in blocking mode, since standard error often is the same one: a terminal that is
    ready has a whole line.
    """

    def __init__(
        self,
        reactor: Any,
        descriptor: int,
        output: TextIO,
        on_new_message: OnNewMessage,
        stop: Callable[[], None],
        coloured: bool = False,
    ) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._output = output
        self._on_new_message = on_new_message
        self._stop = stop
        self._coloured = coloured
        self._unread = b""
        self._lines: deque[str] = deque()
        self._busy = False

    def begin(self) -> None:
        """Greet and listen."""
        self._print(GREETING, _GREEN)
        self._prompt()
        self._reactor.addReader(self)

    # what the reactor wants of a reader

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "console"

    def connectionLost(self, reason: Failure) -> None:
        self._reactor.removeReader(self)

    def doRead(self) -> None:
        """Take what was typed."""
        try:
            data = os.read(self._descriptor, 4096)
        except OSError:  # the terminal is gone
            data = b""
        if not data:
            self.connectionLost(Failure(CONNECTION_DONE))
            log.info("the input of the console ended; the server goes on")
            return
        *lines, self._unread = (self._unread + data).split(b"\n")
        self._unread = self._unread[:_LONGEST]
        self._lines.extend(line[:_LONGEST].decode("utf-8", "replace").strip() for line in lines)
        self._next()

    # the conversation

    def _next(self) -> None:
        while self._lines and not self._busy:
            line = self._lines.popleft()
            if line == STOP:
                self.connectionLost(Failure(CONNECTION_DONE))
                self._lines.clear()
                self._stop()
            elif line:
                self._busy = True
                Deferred.fromCoroutine(self._turn(line)).addBoth(self._done)
            else:
                self._prompt()

    async def _turn(self, text: str) -> None:
        message = UserMessage(text=text, input_channel=CmdlineInput.name(), output=TerminalOutput(self.say))
        await self._on_new_message(message)

    def _done(self, result: object) -> None:
        self._busy = False
        if isinstance(result, Failure):
            log.failure("a message of the console could not be handled", result)
        self._prompt()
        self._next()

    def say(self, message: BotMessage) -> None:
        """Print a message of the bot."""
        for line in lines_of(message):
            self._print(line, _BLUE)

    def _prompt(self) -> None:
        self._write(PROMPT)

    def _print(self, text: str, colour: str) -> None:
        self._write(f"{colour}{text}{_PLAIN}\n" if self._coloured else f"{text}\n")

    def _write(self, text: str) -> None:
        try:
            self._output.write(text)
            self._output.flush()
        except (OSError, ValueError):  # nobody reads any more; the server goes on
            return


class TerminalOutput(CollectingOutputChannel):
    """Hands each message over to be printed."""

    def __init__(self, say: Callable[[BotMessage], None]) -> None:
        super().__init__()
        self._say = say

    @classmethod
    def name(cls) -> str:
        return CmdlineInput.name()

    def keep(self, messages: Sequence[BotMessage]) -> Any:
        for message in messages:
            self._say(message)


def lines_of(message: BotMessage) -> list[str]:
    """A message as lines of a terminal; control characters are left out."""
    lines: list[str] = []
    if message.text is not None:
        lines += message.text.split("\n")
    if message.image is not None:
        lines.append(f"Image: {message.image}")
    if message.attachment is not None:
        lines.append(f"Attachment: {message.attachment}")
    if message.buttons:
        lines += ["Buttons:", *button_lines(message.buttons)]
    return ["".join(character for character in line if character.isprintable()) for line in lines]
