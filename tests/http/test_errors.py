"""Tests of the envelope and of the table behind it."""

from __future__ import annotations

import inspect

import pytest

from rasa_core_api import exceptions
from rasa_core_api.exceptions import (
    ActionRejected,
    AgentNotReady,
    InvalidEvent,
    NoDomain,
    RasaCoreError,
    StoreConflict,
    UnknownVerbosity,
    UnsafeArchive,
)
from rasa_core_api.http.errors import InvalidToken, MethodNotAllowed, answer_to, internal_error, status_of


def test_envelope() -> None:
    """The members of 0.12 to 0.14, and the `error` of the releases before."""
    error = InvalidEvent("wrong", parameter="name", **{"in": "body"})
    assert answer_to(error, "0.11.12").body == {
        "version": "0.11.12",
        "status": "failure",
        "message": "wrong",
        "reason": "InvalidParameter",
        "details": {"parameter": "name", "in": "body"},
        "help": None,
        "code": 400,
        "error": "wrong",
    }


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (AgentNotReady("x"), 503, "NoAgent"),
        (NoDomain("x"), 503, "NoDomain"),
        (UnknownVerbosity("x"), 404, "InvalidParameter"),
        (UnsafeArchive("x"), 400, "InvalidParameter"),
        (StoreConflict("x"), 503, "Unavailable"),
        (ActionRejected("a"), 500, "ServerError"),
        (RasaCoreError("x"), 500, "ServerError"),
    ],
)
def test_closest_ancestor(error: RasaCoreError, status: int, reason: str) -> None:
    """A failure that is not listed is told as its closest listed ancestor."""
    assert status_of(error) == (status, reason)


def test_every_failure_has_a_status() -> None:
    """No exception of the domain is without an answer."""
    kinds = [kind for _, kind in inspect.getmembers(exceptions, inspect.isclass) if issubclass(kind, RasaCoreError)]
    assert len(kinds) > 20
    for kind in kinds:
        assert status_of(kind("x"))[0] in (400, 401, 403, 404, 409, 422, 429, 500, 501, 503)


def test_extras() -> None:
    """Some failures say more: where help is, what is allowed, when to come back, and the `msg` of JWT clients."""
    no_agent = answer_to(AgentNotReady("x"), "v").body["help"]
    assert no_agent.endswith("/server.html#running-the-http-server")
    assert answer_to(MethodNotAllowed("PUT", b"GET"), "v").headers == {b"Allow": b"GET"}
    assert answer_to(StoreConflict("x"), "v").headers == {b"Retry-After": b"1"}
    expired = answer_to(InvalidToken("Token has expired", 401), "v")
    assert (expired.status, expired.body["code"], expired.body["msg"]) == (401, 401, "Token has expired")
    assert internal_error("v").body["message"] == "internal error"
