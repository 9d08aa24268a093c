"""What a client is told when something fails: one table, one envelope."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from rasa_core_api import exceptions as domain
from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import RasaCoreError

#: Where clients of the 0.12+ era were pointed at when no model was loaded.
HELP_NO_AGENT = "https://rasa.com/docs/core/server.html#running-the-http-server"

#: Seconds after which a client may try again when a limit was reached or a store was down.
RETRY_AFTER = b"1"


class HTTPError(RasaCoreError):
    """A request that fails before it reaches the domain."""


class BadRequest(HTTPError):
    """What came is no HTTP."""


class UnsupportedVersion(HTTPError):
    """The request is of another HTTP than 1.0 and 1.1."""


class UnknownTransferCoding(HTTPError):
    """The body is encoded in a way that is not understood."""


class TargetTooLong(HTTPError):
    """The request line is too long."""


class HeadersTooLarge(HTTPError):
    """The request has too many headers, or too long ones."""


class RequestTimeout(HTTPError):
    """The request did not arrive in time."""


class NotFound(HTTPError):
    """No route has this path."""


class MethodNotAllowed(HTTPError):
    """The route has other methods; `allow` is the value of the header."""

    def __init__(self, method: str, allow: bytes) -> None:
        super().__init__(f"The method {method} is not allowed here.")
        self.allow = allow


class InvalidJson(HTTPError):
    """The body is not JSON."""


class PayloadTooLarge(HTTPError):
    """The body is larger than the operator accepts."""


class InvalidHeader(HTTPError):
    """A request header asks for what cannot be given."""


class InvalidToken(HTTPError):
    """A JSON Web Token, or the header that carries it, is no good.

    `status` is 401 for a token that is missing or expired, else 422.
    """

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status


#: Status and reason of a failure: the entry of its closest listed ancestor counts.
STATUS: Mapping[type[RasaCoreError], tuple[int, str]] = {
    RasaCoreError: (500, "ServerError"),
    domain.AgentNotReady: (503, "NoAgent"),
    domain.NoDomain: (503, "NoDomain"),
    domain.InvalidParameter: (400, "InvalidParameter"),
    domain.UnknownVerbosity: (404, "InvalidParameter"),
    domain.UnknownAction: (500, "ValueError"),
    domain.UnsupportedMessage: (500, "NotSupported"),
    domain.MessageFailed: (500, "MessageException"),
    domain.PredictionFailed: (500, "PredictionException"),
    domain.TrainingFailed: (500, "TrainingException"),
    domain.EvaluationFailed: (400, "FailedEvaluation"),
    domain.NotBuilt: (501, "NotImplemented"),
    domain.ActionFailed: (500, "ActionException"),
    domain.UnsupportedModel: (400, "InvalidParameter"),
    domain.ModelBusy: (409, "Conflict"),
    domain.InvalidConfiguration: (400, "InvalidParameter"),
    domain.StoreUnavailable: (503, "Unavailable"),
    domain.StoreConflict: (503, "Unavailable"),
    domain.ConversationHeld: (503, "Unavailable"),
    domain.KeyReused: (422, "IdempotencyKeyReused"),
    domain.TooManyRequests: (429, "TooManyRequests"),
    domain.ServerBusy: (503, "Unavailable"),
    domain.NotAuthenticated: (401, "NotAuthenticated"),
    domain.NotAuthorized: (403, "NotAuthorized"),
    BadRequest: (400, "BadRequest"),
    NotFound: (404, "NotFound"),
    MethodNotAllowed: (405, "MethodNotAllowed"),
    InvalidJson: (400, "InvalidJson"),
    PayloadTooLarge: (413, "PayloadTooLarge"),
    InvalidHeader: (406, "InvalidHeader"),
    RequestTimeout: (408, "RequestTimeout"),
    TargetTooLong: (414, "URITooLong"),
    HeadersTooLarge: (431, "HeadersTooLarge"),
    UnknownTransferCoding: (501, "NotImplemented"),
    UnsupportedVersion: (505, "HTTPVersionNotSupported"),
    InvalidToken: (422, "NotAuthenticated"),
}


@frozen
class Answer:
    """A failure as the client sees it."""

    status: int
    body: Mapping[str, JSON]
    headers: Mapping[bytes, bytes] = field(factory=dict)


def error_body(
    version: str,
    status: int,
    reason: str,
    message: str,
    details: Mapping[str, JSON] | None = None,
    help_url: str | None = None,
) -> dict[str, JSON]:
    """The envelope: the members of 0.12-0.14 and the `error` of 0.8-0.11."""
    return {
        "version": version,
        "status": "failure",
        "message": message,
        "reason": reason,
        "details": dict(details or {}),
        "help": help_url,
        "code": status,
        "error": message,
    }


def status_of(error: RasaCoreError) -> tuple[int, str]:
    """Status and reason of the closest listed ancestor."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def answer_to(error: RasaCoreError, version: str) -> Answer:
    """The answer to a request that failed on purpose; `version` is the release that clients are told."""
    status, reason = status_of(error)
    help_url: str | None = None
    headers: dict[bytes, bytes] = {}
    if isinstance(error, domain.AgentNotReady):
        help_url = HELP_NO_AGENT
    elif isinstance(error, MethodNotAllowed):
        headers[b"Allow"] = error.allow
    elif isinstance(error, InvalidToken):
        status = error.status
        if status == 401:
            headers[b"WWW-Authenticate"] = b"Bearer"
    elif status == 429 or reason == "Unavailable":
        headers[b"Retry-After"] = RETRY_AFTER
    body = error_body(version, status, reason, str(error), error.details, help_url)
    if isinstance(error, InvalidToken):
        body["msg"] = str(error)
    return Answer(status, body, headers)


def internal_error(version: str) -> Answer:
    """The answer to what nobody expected; it tells nothing."""
    return Answer(500, error_body(version, 500, "ServerError", "internal error"))
