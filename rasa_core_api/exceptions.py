"""Failures in the words of the domain; none of them knows HTTP."""

from __future__ import annotations

from rasa_core_api.constants import JSON


class RasaCoreError(Exception):
    """Base of every failure this package raises on purpose.

    `details` are JSON values that are safe to show to a client.
    """

    def __init__(self, message: str, **details: JSON) -> None:
        super().__init__(message)
        self.details = details


class AgentNotReady(RasaCoreError):
    """No dialogue model is loaded yet."""


class NoDomain(AgentNotReady):
    """A tracker was asked for before any domain is known."""


class InvalidParameter(RasaCoreError):
    """A body, a query parameter or a path segment is not what the operation takes.

    `details` name the `parameter` and where it was `in` (`query`, `body` or `path`).
    """


class UnknownVerbosity(InvalidParameter):
    """`include_events` names no verbosity."""


class InvalidEvent(InvalidParameter):
    """An event's JSON cannot be read."""


class UnknownEvent(InvalidEvent):
    """The event's type name is not known."""


class UnknownAction(RasaCoreError):
    """An action was named that the domain does not have."""


class UnsupportedMessage(RasaCoreError):
    """A message of a sender that cannot be logged (only users can)."""


class MessageFailed(RasaCoreError):
    """A message could not be handled for a reason that is not the client's."""


class PredictionFailed(RasaCoreError):
    """The next action could not be predicted."""


class TrainingFailed(RasaCoreError):
    """A model could not be trained or fine-tuned."""


class EvaluationFailed(RasaCoreError):
    """Stories could not be evaluated."""


class NotBuilt(RasaCoreError):
    """A documented feature that this build does not have."""


class ActionFailed(RasaCoreError):
    """An action could not be run or its answer could not be used."""


class ActionRejected(RasaCoreError):
    """An action server refused to run the action (status 400 naming it)."""

    def __init__(self, action_name: str, message: str = "") -> None:
        super().__init__(message or f"the action {action_name!r} was rejected", action=action_name)
        self.action_name = action_name


class ResponseFailed(RasaCoreError):
    """A response generation server failed or answered something else than a response."""


class InvalidConfiguration(RasaCoreError):
    """A file or option of the operator's is wrong; the message names file, key path and reason."""


class InvalidDomain(InvalidConfiguration):
    """A domain specification is wrong."""


class InvalidTrainingData(RasaCoreError):
    """Stories or NLU data are wrong; the message names file, line and reason."""


class UnsupportedModel(RasaCoreError):
    """A model that cannot be served; the message names the file and the reason."""


class UnreadableFile(UnsupportedModel):
    """A foreign binary file is damaged, hostile or of an unknown format."""


class UnsafeArchive(UnsupportedModel):
    """An archive with members that must not be unpacked, or too large."""


class ModelBusy(RasaCoreError):
    """Another model is being installed; try again later."""


class ModelServerError(RasaCoreError):
    """A model server's answer cannot be used."""


class StoreUnavailable(RasaCoreError):
    """The conversation store cannot be reached or is full; try again later."""


class StoreConflict(RasaCoreError):
    """Somebody else appended to the conversation in the meantime."""


class ConversationHeld(RasaCoreError):
    """Another process has a turn of this conversation under way; `seconds` is how long its claim lasts."""

    def __init__(self, sender_id: str, seconds: float = 0.0) -> None:
        super().__init__("Another turn of this conversation is under way.", sender_id=sender_id)
        self.seconds = seconds


class KeyReused(RasaCoreError):
    """A request has the idempotency key of another request that was answered already."""


class TooManyRequests(RasaCoreError):
    """A limit on waiting work is reached; try again later."""


class ServerBusy(RasaCoreError):
    """The server has as much work as it can hold; try again later."""


class NotAuthenticated(RasaCoreError):
    """Who asks is not known."""


class NotAuthorized(RasaCoreError):
    """Who asks is known and may not."""
