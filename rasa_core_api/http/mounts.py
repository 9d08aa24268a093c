"""The channels' resources below `/webhooks/`, and what the server does for all of them."""

from __future__ import annotations

from collections.abc import Iterable

from klein import Klein
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request

from rasa_core_api.exceptions import RasaCoreError
from rasa_core_api.http.auth import EVERYBODY, Access
from rasa_core_api.http.context import Context, set_context
from rasa_core_api.http.cors import Origins
from rasa_core_api.http.reading import Bodies, body_size, too_large
from rasa_core_api.http.refusals import Refusals
from rasa_core_api.http.routing import App, Refusal, Routes, nothing_here
from rasa_core_api.version import DEFAULT_COMPATIBILITY_VERSION


class Channels(Resource):
    """Resources by URL prefix. Origins, rights and body limits are looked after before they see a request.

    `access`, when given, is asked for every request but preflights and health checks (the channel's `/`).
    """

    def __init__(
        self,
        mounts: Iterable[tuple[str, Klein | IResource]],
        bodies: Bodies,
        origins: Origins | None = None,
        access: Access | None = None,
        version: str = DEFAULT_COMPATIBILITY_VERSION,
        refusals: Refusals | None = None,
    ) -> None:
        Resource.__init__(self)
        self._refusals = refusals or Refusals()
        self._bodies = bodies
        self._origins = origins
        self._access = access
        self._version = version
        self._tree = _Branch(version, self._refusals)
        for prefix, mounted in mounts:
            self._tree.mount([part for part in prefix.split("/") if part], self._resource(mounted))

    def _resource(self, mounted: Klein | IResource) -> IResource:
        if isinstance(mounted, App):
            return Routes(mounted, version=self._version, refusals=self._refusals)
        if isinstance(mounted, Klein):
            resource: IResource = mounted.resource()
            return resource
        return mounted

    def getChildWithDefault(self, path: bytes, request: Request) -> IResource:
        if self._origins is not None:
            self._origins.apply(request)
        child: IResource = Resource.getChildWithDefault(self._tree, path, request)
        if request.method == b"OPTIONS":
            asked = request.requestHeaders.hasHeader(b"Access-Control-Request-Method")
            return _Preflight() if asked and not isinstance(child, (Routes, Refusal)) else child
        try:
            identity = EVERYBODY
            if self._access is not None and not _is_health_check(request):
                identity = self._access.identify(request)
            if body_size(request) > self._bodies.limit:
                raise too_large(self._bodies.limit)
        except RasaCoreError as error:
            return Refusal(error, self._version, self._refusals)
        set_context(request, Context(self._bodies, identity))
        return child


def _is_health_check(request: Request) -> bool:
    return request.method in (b"GET", b"HEAD") and request.postpath in ([], [b""])


class _Branch(Resource):
    """A prefix of several segments is a path through branches."""

    def __init__(self, version: str, refusals: Refusals) -> None:
        Resource.__init__(self)
        self._version = version
        self._refusals = refusals

    def mount(self, segments: list[str], resource: IResource) -> None:
        first = segments[0].encode("utf-8")
        if len(segments) == 1:
            self.putChild(first, resource)
            return
        branch = self.children.get(first)
        if not isinstance(branch, _Branch):
            branch = _Branch(self._version, self._refusals)
            self.putChild(first, branch)
        branch.mount(segments[1:], resource)

    def getChild(self, path: bytes, request: Request) -> IResource:
        return nothing_here(self._version, self._refusals)

    def render(self, request: Request) -> int:
        answer: int = nothing_here(self._version, self._refusals).render(request)
        return answer


class _Preflight(Resource):
    """Answers the preflight of a foreign resource, which may not know of such things."""

    isLeaf = True

    def __init__(self) -> None:
        Resource.__init__(self)

    def render(self, request: Request) -> int:
        Origins.preflight(request)
        request.responseHeaders.setRawHeaders(b"Content-Length", [b"0"])
        request.finish()
        return NOT_DONE_YET
