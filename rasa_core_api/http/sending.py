"""Sending JSON: sorted and compact with a newline at the end; what may be long leaves in slices."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import define, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.web.server import Request
from zope.interface import implementer

from rasa_core_api.concurrency import Slices
from rasa_core_api.constants import JSON
from rasa_core_api.jsontext import encode
from rasa_core_api.messages import BotMessage
from rasa_core_api.tracker_views import TrackerView

log = Logger()

JSON_TYPE = [b"application/json"]
NO_CONTENT = 204

#: Pieces that are encoded between two pauses, and sizes in characters.
_AT_ONCE = 64
_SHORT = 60_000
_CHUNK = 65_536
#: Seconds that a client may take none of an answer before it is cut off.
STALL = 60.0


def json_bytes(request: Request, value: JSON) -> bytes:
    """The value as an answer's body; the content type is set. Raises ValueError for what is not JSON."""
    request.responseHeaders.setRawHeaders(b"Content-Type", JSON_TYPE)
    return (encode(value) + "\n").encode("ascii")


def send_json(request: Request, value: JSON, code: int = 200) -> bytes:
    """The body of an answer that is known to be small."""
    if code != 200:
        request.setResponseCode(code)
    return json_bytes(request, value)


def send_text(request: Request, text: str, content_type: bytes) -> bytes:
    """A body that is no JSON, in UTF-8."""
    request.responseHeaders.setRawHeaders(b"Content-Type", [content_type])
    return text.encode("utf-8")


def send_nothing(request: Request) -> bytes:
    """An answer without a body."""
    request.setResponseCode(NO_CONTENT)
    return b""


def message_dict(message: BotMessage) -> dict[str, JSON]:
    """A message as `respond`, `execute` and the rest channel show it: `buttons` are mirrored to `data`."""
    entries = message.as_dict()
    buttons = entries.get("buttons")
    if buttons is not None:
        entries["data"] = buttons
    return entries


def message_dicts(messages: Iterable[BotMessage]) -> list[dict[str, JSON]]:
    """All messages of a turn."""
    return [message_dict(message) for message in messages]


# --- texts of long values ------------------------------------------------------------------------------


def texts_of(members: Mapping[str, JSON | TrackerView]) -> Iterator[str]:
    """The JSON text of an object, in pieces; values may be views of trackers."""
    separator = "{"
    for name in sorted(members):
        value = members[name]
        if isinstance(value, TrackerView):
            yield f"{separator}{encode(name)}:"
            yield from view_texts(value)
        else:
            yield f"{separator}{encode(name)}:{encode(value)}"
        separator = ","
    yield "}" if members else "{}"


def view_texts(view: TrackerView) -> Iterator[str]:
    """The JSON text of a tracker, in pieces: one an event, whose text is encoded once and kept."""
    before = {name: value for name, value in view.state.items() if name < "events"}
    after = {name: value for name, value in view.state.items() if name > "events"}
    yield f'{encode(before)[:-1]}{"," if before else ""}"events":'
    if view.events is None:
        yield "null"
    else:
        yield "["
        separator = ""
        for event in view.events:
            yield separator + event.as_json()
            separator = ","
        yield "]"
    yield f",{encode(after)[1:]}" if after else "}"


def list_texts(values: Sequence[JSON]) -> Iterator[str]:
    """The JSON text of a list, in pieces."""
    separator = "["
    for value in values:
        yield separator + encode(value)
        separator = ","
    yield "]" if values else "[]"


# --- long answers --------------------------------------------------------------------------------------


@implementer(IPushProducer)
@define(eq=False)
class Flow:
    """Waits while the client is slower than the server; `abort` ends a client that takes nothing."""

    _clock: IReactorTime
    _request: Request
    _waiter: Deferred[None] | None = None
    _timer: IDelayedCall | None = None
    _paused: bool = False
    stopped: bool = False

    async def ready(self) -> None:
        """Come back when the client has taken what was sent."""
        if self._paused and not self.stopped:
            self._waiter = Deferred()
            self._timer = self._clock.callLater(STALL, self._abort)
            try:
                await self._waiter
            finally:
                self._waiter = None
                if self._timer.active():
                    self._timer.cancel()

    def _abort(self) -> None:
        log.warn("a client took none of its answer for {seconds} s and was cut off", seconds=STALL)
        channel: Any = self._request.channel
        channel.transport.abortConnection()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        if self._waiter is not None:
            self._waiter.callback(None)

    def stopProducing(self) -> None:
        self.stopped = True


@frozen
class Replies:
    """Sends answers of any length; `clock` bounds how long a client may take none of one."""

    slices: Slices
    clock: IReactorTime

    async def tracker(self, request: Request, view: TrackerView) -> bytes | None:
        """A tracker's state."""
        return await self.texts(request, lambda: view_texts(view))

    async def members(self, request: Request, members: Mapping[str, JSON | TrackerView]) -> bytes | None:
        """An object whose members may be trackers."""
        return await self.texts(request, lambda: texts_of(members))

    async def texts(self, request: Request, texts: Callable[[], Iterator[str]]) -> bytes | None:
        """Answer with these texts in a row, which are ASCII and the same at every call.

        Gives back a short body; a long one is sent from here, with its length told first, at the pace of
        the client. What is not sent yet is not kept: many slow clients of one long answer cost little.
        """
        parts: list[str] = []
        size = 1
        for number, part in enumerate(texts(), 1):
            size += len(part)
            if size <= _SHORT:
                parts.append(part)
            if not number % _AT_ONCE:
                await self.slices.breathe()
        request.responseHeaders.setRawHeaders(b"Content-Type", JSON_TYPE)
        if size <= _SHORT:
            return "".join([*parts, "\n"]).encode("ascii")
        request.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % size])
        if request.method == b"HEAD":
            request.write(b"")
        else:
            parts.clear()
            await self._send(request, texts())
        return None

    async def lines(self, request: Request, first: str, rest: AsyncIterator[str]) -> None:
        """Answer with lines of JSON as they come, at the pace of the client."""
        request.responseHeaders.setRawHeaders(b"Content-Type", [b"application/x-ndjson"])
        if request.method == b"HEAD":
            request.write(b"")
            return
        flow = Flow(self.clock, request)
        request.registerProducer(flow, True)
        try:
            request.write(first.encode("ascii"))
            async for line in rest:
                await flow.ready()
                request.write(line.encode("ascii"))
                await self.slices.breathe()
        finally:
            if not flow.stopped:
                request.unregisterProducer()

    async def _send(self, request: Request, parts: Iterator[str]) -> None:
        flow = Flow(self.clock, request)
        request.registerProducer(flow, True)
        try:
            chunk: list[str] = []
            size = 0
            for part in parts:
                chunk.append(part)
                size += len(part)
                if size >= _CHUNK:
                    request.write("".join(chunk).encode("ascii"))
                    chunk, size = [], 0
                    await flow.ready()
                    await self.slices.breathe()
            request.write("".join([*chunk, "\n"]).encode("ascii"))
        finally:
            if not flow.stopped:
                request.unregisterProducer()
