"""A fake server for the parts that ask others, with no socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from klein import Klein
from treq.client import HTTPClient
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.web.iweb import IRequest

from rasa_core_api.endpoints import OutgoingHTTP
from rasa_core_api.http_client import body_producer


class FakeServer:
    """Answers every `parse` with the same status and JSON; `answer` None: it never answers."""

    app = Klein()

    def __init__(self, answer: Any = None, status: int = 200) -> None:
        self.answer = answer
        self.status = status
        self.reachable = True
        self.asked: list[IRequest] = []
        self.bodies: list[bytes] = []
        self.clock = Clock()
        self.agent = RequestTraversalAgent(self.app.resource())
        self.http = OutgoingHTTP(self.clock, self._client)

    def _client(self) -> Any:
        client = HTTPClient(self.agent, data_to_body_producer=body_producer)
        request = client.request

        def reaching(*args: Any, **keys: Any) -> Any:
            if not self.reachable:
                raise ConnectionRefusedError("refused")
            return request(*args, **keys)

        client.request = reaching  # type: ignore[method-assign]
        return client

    @app.route("/<path:path>", methods=["GET", "POST"])
    def parse(self, request: IRequest, path: str) -> Any:
        assert path.endswith("parse")
        self.asked.append(request)
        self.bodies.append(request.content.read())  # type: ignore[attr-defined]
        if self.answer is None:
            return Deferred()
        request.setResponseCode(self.status)
        return self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()

    def wait(self, asked: Any) -> Any:
        """What a Deferred or coroutine gives once the server has answered."""
        results: list[Any] = []
        (asked if isinstance(asked, Deferred) else Deferred.fromCoroutine(asked)).addBoth(results.append)
        self.agent.flush()
        assert results, "still waiting"
        if hasattr(results[0], "raiseException"):
            results[0].raiseException()
        return results[0]


@contextmanager
def logged_lines() -> Iterator[list[str]]:
    """The log lines of warning level and above, and those of info, that are written inside."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event["log_namespace"].startswith("rasa_core_api.nlu"):
            lines.append(f"{event['log_level'].name}: {formatEvent(event)}")

    globalLogPublisher.addObserver(observe)
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(observe)
