"""The channel `rest`: a message in, the answers out, at once or as a stream."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve
from klein import Klein
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import Request

from rasa_core_api.channels.channel import CollectingOutputChannel, InputChannel, OnNewMessage
from rasa_core_api.concurrency import uninterrupted
from rasa_core_api.constants import DEFAULT_SENDER_ID, JSON
from rasa_core_api.exceptions import InvalidParameter
from rasa_core_api.http.context import body_json, identity_of
from rasa_core_api.http.reading import flag, query_of, sender_id_of
from rasa_core_api.http.routing import App
from rasa_core_api.http.sending import message_dicts, send_json
from rasa_core_api.messages import BotMessage, UserMessage

#: Characters of a message's id.
MAX_MESSAGE_ID = 255
STREAM_TYPE = [b"text/event-stream"]


class RestInput(InputChannel):
    """`POST /webhook` with `{"sender", "message", "message_id"}`; `?stream=true` sends each answer when it is there."""

    app = App()
    _on_new_message: OnNewMessage

    @classmethod
    def name(cls) -> str:
        return "rest"

    def blueprint(self, on_new_message: OnNewMessage) -> Klein | IResource:
        self._on_new_message = on_new_message
        app: Klein = self.app
        return app

    async def sender_of(self, request: Request, body: Mapping[str, JSON]) -> str:
        """Whose message it is. Raises `InvalidParameter`."""
        return checked_sender(body.get("sender"))

    @app.route("/", methods=["GET"])
    def health(self, request: Request) -> bytes:
        """That the channel is there."""
        return send_json(request, {"status": "ok"})

    @app.route("/webhook", methods=["POST"])
    async def receive(self, request: Request) -> bytes | None:
        """Hand the message over and answer with what the bot says."""
        message = await self.message_of(request)
        if flag(query_of(request), "stream"):
            await self._stream(request, message)
            return None
        answers = await uninterrupted(self._on_new_message(message))
        return send_json(request, message_dicts(answers))

    async def message_of(self, request: Request, output: object = None) -> UserMessage:
        """The user's message in a request that may send it. Raises `InvalidParameter` and `NotAuthorized`."""
        body = await body_json(request)
        if not isinstance(body, dict):
            raise _bad("The body must be a JSON object with 'sender' and 'message'.", "")
        sender_id = await self.sender_of(request, body)
        identity_of(request).check(sender_id)
        text = body.get("message")
        if not isinstance(text, str):
            raise _bad("The body must have a 'message', a text.", "message")
        message_id = checked_message_id(body.get("message_id"))
        return UserMessage(
            text=text, sender_id=sender_id, input_channel=self.name(), message_id=message_id, output=output
        )

    async def _stream(self, request: Request, message: UserMessage) -> None:
        """Send each answer as a line of JSON; a failure cuts the stream off."""
        output = QueueOutputChannel(request)
        request.responseHeaders.setRawHeaders(b"Content-Type", STREAM_TYPE)
        try:
            await uninterrupted(self._on_new_message(evolve(message, output=output)))
        except Exception:
            if not request.startedWriting:
                request.responseHeaders.removeHeader(b"Content-Type")
            raise
        if not request.startedWriting:
            request.write(b"")


class QueueOutputChannel(CollectingOutputChannel):
    """Writes messages to a response, one line of JSON each, as soon as they are said."""

    answers_request = True

    def __init__(self, request: Request) -> None:
        super().__init__()
        self._request: Request | None = request
        request.notifyFinish().addBoth(self._over)

    @classmethod
    def name(cls) -> str:
        return "queue"

    def _over(self, _: Failure | None) -> None:
        self._request = None

    def keep(self, messages: Sequence[BotMessage]) -> Any:
        request = self._request
        if request is not None:
            lines = "".join(json.dumps(message.as_dict()) + "\n" for message in messages)
            request.write(lines.encode("ascii"))


def checked_sender(value: JSON) -> str:
    """A sender id out of a body: none or an empty one is the default's. Raises `InvalidParameter`."""
    if value is None or value == "":
        return DEFAULT_SENDER_ID
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise _bad("The 'sender' must be a text.", "sender")
    try:
        return sender_id_of(value.encode("utf-8"))
    except InvalidParameter as error:
        raise _bad(str(error), "sender") from None


def checked_message_id(value: JSON) -> str | None:
    """The channel's own id of a message, by which one that comes again is told. Raises `InvalidParameter`."""
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not (isinstance(value, str) and len(value) <= MAX_MESSAGE_ID and value.isprintable()):
        raise _bad(f"The 'message_id' must be a text of at most {MAX_MESSAGE_ID} printable characters.", "message_id")
    return value


def _bad(message: str, parameter: str) -> InvalidParameter:
    return InvalidParameter(message, parameter=parameter, **{"in": "body"})
