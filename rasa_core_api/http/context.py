"""What the server tells a channel about a request: who asks, and how its body may be read."""

from __future__ import annotations

from attrs import frozen
from twisted.web.server import Request

from rasa_core_api.constants import JSON
from rasa_core_api.http.auth import EVERYBODY, Identity
from rasa_core_api.http.reading import DEFAULT_LIMIT, Bodies, read_json

_ATTRIBUTE = "rasa_core_api_context"


@frozen
class Context:
    """Set by the server on requests for channels."""

    bodies: Bodies
    identity: Identity = EVERYBODY


def set_context(request: Request, context: Context) -> None:
    """Leave the context on the request for the resource that renders it."""
    setattr(request, _ATTRIBUTE, context)


def identity_of(request: Request) -> Identity:
    """Who asks. A channel calls `check(sender_id)` on it once it knows which conversation the request is about."""
    context = getattr(request, _ATTRIBUTE, None)
    return EVERYBODY if context is None else context.identity


async def body_json(request: Request) -> JSON:
    """The body as JSON, within the server's limit and in slices. Raises `InvalidJson` and `PayloadTooLarge`."""
    context = getattr(request, _ATTRIBUTE, None)
    if context is None:  # a channel's resource on a site of its own
        return read_json(request, DEFAULT_LIMIT)
    return await context.bodies.value(request)
