"""The root of all paths."""

from __future__ import annotations

from twisted.web.resource import IResource, Resource, getChildForRequest
from twisted.web.server import NOT_DONE_YET, Request

from rasa_core_api.http.mounts import Channels

#: Where channels live.
WEBHOOKS = b"webhooks"


class Root(Resource):
    """The API, and the channels below `/webhooks/`.

    Where the site listens before the store is open, `hold` keeps requests back until `release`.
    """

    def __init__(self, api: IResource, channels: Channels | None = None) -> None:
        Resource.__init__(self)
        self._api = api
        self._webhooks = channels
        self._held: list[Request] | None = None

    def hold(self) -> None:
        """Let requests wait."""
        self._held = []

    def release(self) -> None:
        """Answer those that waited, and all others at once."""
        held, self._held = self._held or [], None
        for request in held:
            request.render(getChildForRequest(self, request))

    def getChildWithDefault(self, path: bytes, request: Request) -> IResource:
        assert request.prepath is not None and request.postpath is not None
        if self._held is not None:
            request.postpath.insert(0, request.prepath.pop())
            return _Held(self._held)
        if path == WEBHOOKS and self._webhooks is not None and request.postpath:
            return self._webhooks
        request.postpath.insert(0, request.prepath.pop())
        return self._api


class _Held(Resource):
    """Keeps a request back for as long as its client is there."""

    isLeaf = True

    def __init__(self, held: list[Request]) -> None:
        Resource.__init__(self)
        self._held = held

    def render(self, request: Request) -> int:
        self._held.append(request)
        request.notifyFinish().addErrback(lambda _: self._held.remove(request) if request in self._held else None)
        return NOT_DONE_YET
