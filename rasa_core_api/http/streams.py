"""Server-sent events: a stream to a client that listens, with signs of life, at the client's pace."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from rasa_core_api.concurrency import Slices
from rasa_core_api.exceptions import InvalidParameter
from rasa_core_api.http.sending import Flow

#: Seconds without an event after which a comment shows that the connection lives.
HEARTBEAT = 15.0

_HEADERS = {
    b"Content-Type": [b"text/event-stream; charset=utf-8"],
    b"Cache-Control": [b"no-cache"],
    b"X-Accel-Buffering": [b"no"],  # proxies are to pass it on at once
}


class Item(Protocol):
    """One event; a reader that lost its connection comes back with the last `id` it saw."""

    @property
    def id(self) -> str | None: ...

    @property
    def data(self) -> str: ...

    @property
    def kind(self) -> str | None: ...


class Stream(Protocol):
    """What is sent."""

    closed: bool

    def next(self, seconds: float) -> Awaitable[Sequence[Item]]: ...

    def close(self) -> None: ...


def resume_after(request: Request, query: Mapping[str, str]) -> tuple[str, str] | None:
    """Where a reader wants to go on, with the name of where it was said: the header wins over the query."""
    header = request.requestHeaders.getRawHeaders(b"Last-Event-ID")
    if header and header[0].strip():
        return header[0].decode("latin-1").strip(), "header"
    if "after" in query:
        return query["after"], "query"
    return None


def place_after(given: tuple[str, str] | None) -> tuple[int, int]:
    """The number of the last event that a reader has, -1 for none, and the birth of its conversation, 0 for any.

    Raises `InvalidParameter`.
    """
    if given is None:
        return -1, 0
    text, where = given
    if text == "-1":
        return -1, 0
    number, dash, birth = text.partition("-")
    if not _is_number(number) or (dash and not _is_number(birth)):
        raise no_position("The id of an event is expected, or its number.", where)
    return int(number), int(birth or 0)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


def no_position(message: str, where: str) -> InvalidParameter:
    """The error of a stream that is to go on after what is no position; `where` that was said."""
    name = "Last-Event-ID" if where == "header" else "after"
    return InvalidParameter(message, parameter=name, **{"in": where})


async def send_stream(
    request: Request, stream: Stream, slices: Slices, flow: Flow, clock: IReactorTime, seconds: float | None = None
) -> None:
    """Send what comes until the client leaves, the stream ends or so many seconds are over, then close the stream."""
    end = None if seconds is None else clock.callLater(max(0.0, seconds), stream.close)
    try:
        for name, values in _HEADERS.items():
            request.responseHeaders.setRawHeaders(name, values)
        if request.method == b"HEAD":
            request.write(b"")
            return
        request.registerProducer(flow, True)
        request.write(b": here is what happens\n\n")
        while not (flow.stopped or stream.closed):
            items = await stream.next(HEARTBEAT)
            if items:
                request.write("".join([_text(item) for item in items]).encode("ascii"))
            elif not stream.closed:
                request.write(b":\n\n")
            await flow.ready()
            await slices.breathe()
    finally:
        if end is not None and end.active():
            end.cancel()
        stream.close()
        if request.producer is not None and request.channel is not None and not flow.stopped:
            request.unregisterProducer()


def _text(item: Item) -> str:
    kind = "" if item.kind is None else f"event: {item.kind}\n"
    number = "" if item.id is None else f"id: {item.id}\n"
    return f"{kind}{number}data: {item.data}\n\n"
