"""Serves the routes that a Klein application declares, with this project's rules for paths and failures.

The table is built once from the application's rules. That leaves a handful of dictionary look-ups to a
request, where a general URL map binds, decodes and matches anew; and percent-encoded segments are decoded
one by one, so that `%2F` is never mistaken for a separator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from attrs import define, field, frozen
from klein import Klein
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from werkzeug.routing import Rule

from rasa_core_api.exceptions import RasaCoreError
from rasa_core_api.http.cors import Origins
from rasa_core_api.http.errors import MethodNotAllowed, NotFound, answer_to, internal_error
from rasa_core_api.http.reading import query_string, sender_id_of
from rasa_core_api.http.refusals import Refusals
from rasa_core_api.http.sending import NO_CONTENT, json_bytes
from rasa_core_api.version import DEFAULT_COMPATIBILITY_VERSION

NOTHING_HERE = "There is nothing at this path."

_HTML = [b"text/html; charset=utf-8"]


@frozen
class Route:
    """One path and method; `rights` is what the handler was marked with."""

    endpoint: str
    path: str
    rights: Any = None
    variables: tuple[str, ...] = ()


#: Checks a request before its handler runs; raises what the client is to be told.
Guard = Callable[[Request, Route, "str | None"], None]


@define
class _Node:
    """A place in the tree of paths."""

    children: dict[bytes, _Node] = field(factory=dict)
    wildcard: _Node | None = None
    methods: dict[bytes, Route] = field(factory=dict)
    allow: bytes = b""


class App(Klein):
    """A Klein application whose resource answers as the API does.

    Its rules know static segments, one `<sender_id>` and behind it one `<name>`; failures become the error envelope, so
    that `handle_errors` is not needed and has no effect.
    """

    def resource(self) -> Routes:  # type: ignore[override]
        return Routes(self)


def rights(value: object) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark a handler with what its guard is to check."""

    def mark(handler: Callable[..., Any]) -> Callable[..., Any]:
        handler.rights = value  # type: ignore[attr-defined]
        return handler

    return mark


class Routes(Resource):
    """The routes of an `App` as a resource, at the root or below it.

    `version` is the release that error envelopes name.
    """

    isLeaf = True

    def __init__(
        self,
        app: Klein,
        guard: Guard | None = None,
        origins: Origins | None = None,
        version: str = DEFAULT_COMPATIBILITY_VERSION,
        refusals: Refusals | None = None,
    ) -> None:
        Resource.__init__(self)
        self._refusals = refusals or Refusals()
        self._app = app
        self._guard = guard
        self._origins = origins
        self._version = version
        self._root = _Node()
        for rule in app.url_map.iter_rules():
            self._add(rule)

    def _add(self, rule: Rule) -> None:
        assert rule.methods is not None, f"the route {rule.rule} names no methods"
        node = self._root
        variables: list[str] = []
        for segment in rule.rule[1:].split("/"):
            if segment in ("<sender_id>", "<name>"):
                variables.append(segment[1:-1])
                if node.wildcard is None:
                    node.wildcard = _Node()
                node = node.wildcard
            else:
                assert "<" not in segment, f"the route {rule.rule} has a variable that is not <sender_id> or <name>"
                node = node.children.setdefault(segment.encode("ascii"), _Node())
        rights = getattr(self._app.endpoints[rule.endpoint], "rights", None)
        route = Route(rule.endpoint, rule.rule, rights, tuple(variables))
        for method in rule.methods:
            node.methods[method.encode("ascii")] = route
        node.allow = ", ".join(sorted({"OPTIONS", *(name.decode() for name in node.methods)})).encode("ascii")

    # --- one request ---------------------------------------------------------------------------------

    def render(self, request: Request) -> int:
        """Answer the request, now or later."""
        if self._origins is not None:
            self._origins.apply(request)
        answer = _Response(request, self._version, self._refusals)
        try:
            result = self._begin(request)
        except Exception:
            answer.failed(Failure())
            return NOT_DONE_YET
        if isinstance(result, Deferred):
            result.addCallbacks(answer.succeeded, answer.failed).addErrback(answer.broken)
            if not answer.over:
                answer.watch(result)
        else:
            answer.succeeded(result)
        return NOT_DONE_YET

    def _begin(self, request: Request) -> Any:
        node, segments = self._find(request)
        method = request.method
        route = node.methods.get(method)
        if route is None:
            if method == b"OPTIONS":
                return self._options(request, node)
            raise MethodNotAllowed(method.decode("latin-1")[:40], node.allow)
        if not segments:
            if self._guard is not None:
                self._guard(request, route, None)
            return self._app.execute_endpoint(route.endpoint, request)
        found = {name: sender_id_of(segment) for name, segment in zip(route.variables, segments, strict=True)}
        if self._guard is not None:
            self._guard(request, route, found["sender_id"])
        return self._app.execute_endpoint(route.endpoint, request, **found)

    def _find(self, request: Request) -> tuple[_Node, list[bytes]]:
        """The node of the request's path, and the segments of its variables. Raises `NotFound`."""
        if request.path[:1] != b"/":  # the target of CONNECT, or none at all
            raise NotFound(NOTHING_HERE)
        node: _Node | None = self._root
        found: list[bytes] = []
        segments = request.path.split(b"/")[1 + len(request.prepath or ()) :]
        for segment in segments:
            assert node is not None
            if b"%" in segment:
                segment = unquote_to_bytes(segment)
                if b"/" in segment:
                    node = None
                    break
            child = node.children.get(segment)
            if child is None:
                child = node.wildcard
                if child is None or not segment:
                    node = None
                    break
                found.append(segment)
            node = child
        if node is None or not node.methods:
            if node is not None and b"" in node.children:
                raise _Redirect(request)
            raise NotFound(NOTHING_HERE)
        return node, found

    def _options(self, request: Request, node: _Node) -> bytes:
        headers = request.responseHeaders
        headers.setRawHeaders(b"Allow", [node.allow])
        headers.setRawHeaders(b"Content-Type", _HTML)
        Origins.preflight(request)
        return b""


class _Redirect(Exception):
    """The same path with a slash at its end is a route."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        query = query_string(request)
        self.location = request.path + b"/" + (b"?" + query if query else b"")


class _Response:
    """The answer to one request, which may come late or never be wanted."""

    __slots__ = ("_refusals", "_request", "_version", "gone", "over")

    def __init__(self, request: Request, version: str, refusals: Refusals) -> None:
        self._request = request
        self._version = version
        self._refusals = refusals
        self.over = False
        self.gone = False

    def watch(self, result: Deferred[Any]) -> None:
        """Cancel the handler when its client hangs up."""

        def hung_up(_: Failure) -> None:
            self.gone = True
            if not self.over:
                result.cancel()

        self._request.notifyFinish().addErrback(hung_up)

    def succeeded(self, body: Any) -> None:
        """Send a whole body; a handler that sent it already returns nothing."""
        self.over = True
        if self.gone:
            return
        request = self._request
        if not request.startedWriting:
            if request.code != NO_CONTENT:
                request.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % len(body)])
            request.write(body)
        request.finish()

    def broken(self, failure: Failure) -> None:
        """Even the answer failed: end the connection."""
        self._refusals.failed(self._request.method, self._request.path, failure, "could not be answered")
        if not self.gone and not self._request.finished:
            self._request.loseConnection()

    def failed(self, failure: Failure) -> None:
        """Send the envelope; a client that hung up is told nothing."""
        self.over = True
        request = self._request
        error = failure.value
        if self.gone:
            if not isinstance(error, (CancelledError, RasaCoreError)):
                self._refusals.failed(request.method, request.path, failure, "failed after the client left")
            return
        if isinstance(error, _Redirect):
            request.setResponseCode(308)
            request.responseHeaders.setRawHeaders(b"Location", [error.location])
            self.succeeded(b"")
            return
        body = failure_body(request, failure, self._version, self._refusals)
        if request.startedWriting:  # too late to tell: cut it off, so that it cannot pass for complete
            request.loseConnection()
        else:
            self.succeeded(body)


def failure_body(request: Request, failure: Failure, version: str, refusals: Refusals) -> bytes:
    """The envelope of a failure, which is logged; status and headers are set."""
    error = failure.value
    if isinstance(error, RasaCoreError):
        answer = answer_to(error, version)
        refusals.refused(request.method, request.path, answer.status, str(answer.body["reason"]), error)
    else:
        refusals.failed(request.method, request.path, failure, "failed")
        answer = internal_error(version)
    request.setResponseCode(answer.status)
    for name, value in answer.headers.items():
        request.responseHeaders.setRawHeaders(name, [value])
    return json_bytes(request, answer.body)


class Refusal(Resource):
    """Answers every request with the same failure."""

    isLeaf = True

    def __init__(
        self,
        error: RasaCoreError,
        version: str = DEFAULT_COMPATIBILITY_VERSION,
        refusals: Refusals | None = None,
    ) -> None:
        Resource.__init__(self)
        self._error = error
        self._version = version
        self._refusals = refusals or Refusals()

    def render(self, request: Request) -> int:
        _Response(request, self._version, self._refusals).failed(Failure(self._error))
        return NOT_DONE_YET


def nothing_here(version: str = DEFAULT_COMPATIBILITY_VERSION, refusals: Refusals | None = None) -> Refusal:
    """The 404 of paths that no route has."""
    return Refusal(NotFound(NOTHING_HERE), version, refusals)

