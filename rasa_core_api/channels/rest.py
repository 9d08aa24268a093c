"""The `rest` channel: a message in, the answers in the response, at once or as they come."""

from __future__ import annotations

import json
from collections.abc import Mapping

from twisted.logger import Logger
from twisted.web.server import Request

from rasa_core_api.channels.channel import InputChannel, OnNewMessage, OutputChannel
from rasa_core_api.channels.collecting import collect
from rasa_core_api.concurrency import uninterrupted
from rasa_core_api.constants import DEFAULT_SENDER_ID, JSON
from rasa_core_api.exceptions import InvalidParameter
from rasa_core_api.http.context import body_json, identity_of
from rasa_core_api.http.reading import flag, query_of, sender_id_of
from rasa_core_api.http.routing import App
from rasa_core_api.http.sending import message_dict, send_json
from rasa_core_api.messages import BotMessage, UserMessage
from rasa_core_api.releases import LATEST

log = Logger()


def read_message(body: JSON) -> tuple[str, str]:
    """Sender id and text of a request. Raises `InvalidParameter`."""
    if not isinstance(body, Mapping):
        raise InvalidParameter("The body must be a JSON object.", parameter="", **{"in": "body"})
    text = body.get("message")
    if not isinstance(text, str):
        raise InvalidParameter("Missing the message parameter.", parameter="message", **{"in": "body"})
    sender = body.get("sender")
    if sender is None or sender == "":
        sender = DEFAULT_SENDER_ID
    if isinstance(sender, (int, float)) and not isinstance(sender, bool):
        sender = str(sender)
    if not isinstance(sender, str):
        raise InvalidParameter("The sender must be a text.", parameter="sender", **{"in": "body"})
    return sender_id_of(sender.encode("utf-8")), text


class QueueOutputChannel(OutputChannel):
    """Writes each message as a line of JSON while the turn goes on."""

    @classmethod
    def name(cls) -> str:
        return "queue"

    def __init__(self, request: Request) -> None:
        self._request = request
        self._open = True
        request.notifyFinish().addBoth(self._closed)

    def _closed(self, _: object) -> None:
        self._open = False

    async def send(self, recipient_id: str, response: Mapping[str, JSON]) -> None:
        for message in collect(recipient_id, response, LATEST):
            if self._open:
                self._request.write((json.dumps(message.as_dict()) + "\n").encode("ascii"))


class RestInput(InputChannel):
    """`POST /webhooks/rest/webhook` with `{"sender", "message"}`."""

    @classmethod
    def name(cls) -> str:
        return "rest"

    def blueprint(self, on_new_message: OnNewMessage) -> App:
        app = App()
        name = self.name()

        @app.route("/", methods=["GET"])
        def health(request: Request) -> bytes:
            return send_json(request, {"status": "ok"})

        @app.route("/webhook", methods=["POST"])
        async def receive(request: Request) -> bytes | None:
            sender_id, text = read_message(await body_json(request))
            identity_of(request).check(sender_id)
            if flag(query_of(request), "stream", False):
                await self._stream(request, sender_id, text, on_new_message)
                return None
            message = UserMessage(text=text, sender_id=sender_id, input_channel=name)
            answers = await uninterrupted(_as_coroutine(on_new_message, message))
            return send_json(request, [message_dict(answer) for answer in answers])

        return app

    async def _stream(
        self, request: Request, sender_id: str, text: str, on_new_message: OnNewMessage
    ) -> None:
        request.setHeader(b"Content-Type", b"text/event-stream")
        output = QueueOutputChannel(request)
        message = UserMessage(text=text, sender_id=sender_id, input_channel=self.name(), output=output)
        request.write(b"")  # the head leaves now
        try:
            await uninterrupted(_as_coroutine(on_new_message, message))
        except Exception:
            log.failure("a streamed turn failed")  # the stream just ends


async def _as_coroutine(on_new_message: OnNewMessage, message: UserMessage) -> list[BotMessage]:
    return await on_new_message(message)
