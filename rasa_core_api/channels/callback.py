"""The `callback` channel: a message in, each answer posted to a URL of the operator's."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.logger import Logger
from twisted.web.server import Request

from rasa_core_api.channels.channel import InputChannel, OnNewMessage, OutputChannel
from rasa_core_api.channels.collecting import collect
from rasa_core_api.channels.rest import read_message
from rasa_core_api.concurrency import uninterrupted
from rasa_core_api.constants import JSON
from rasa_core_api.endpoints import EndpointConfig, OutgoingFailed, OutgoingHTTP
from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.http.context import body_json, identity_of
from rasa_core_api.http.routing import App
from rasa_core_api.http.sending import send_json, send_text
from rasa_core_api.jsontext import encode
from rasa_core_api.messages import BotMessage, UserMessage
from rasa_core_api.releases import LATEST

log = Logger()


class CallbackOutput(OutputChannel):
    """Posts each message, in order; one that cannot be delivered is logged and lost."""

    @classmethod
    def name(cls) -> str:
        return "callback"

    def __init__(self, endpoint: EndpointConfig, http: OutgoingHTTP) -> None:
        self._endpoint = endpoint
        self._http = http

    async def send(self, recipient_id: str, response: Mapping[str, JSON]) -> None:
        for message in collect(recipient_id, response, LATEST):
            body = encode(message.as_dict()).encode("ascii")
            try:
                answer = await self._http.request_json(self._endpoint, "POST", body=body)
            except OutgoingFailed as error:
                log.error("a message could not be delivered: {reason}", reason=str(error))
                continue
            if not 200 <= answer.status < 300:
                log.error(
                    "a message was not taken: {url} answered {status}", url=self._endpoint.url, status=answer.status
                )


class CallbackInput(InputChannel):
    """`POST /webhooks/callback/webhook` with `{"sender", "message"}`, answered `success` after the turn."""

    @classmethod
    def name(cls) -> str:
        return "callback"

    def __init__(self, endpoint: EndpointConfig) -> None:
        self.endpoint = endpoint
        self.http: OutgoingHTTP | None = None

    @classmethod
    def from_credentials(cls, credentials: Mapping[str, JSON] | None) -> CallbackInput:
        if not credentials:
            raise InvalidConfiguration(
                "To use the callback input channel, you need to pass a credentials file using '--credentials'. "
                "Its section 'callback' needs the 'url' that messages are posted to."
            )
        return cls(EndpointConfig.from_json(credentials, "callback"))

    def blueprint(self, on_new_message: OnNewMessage) -> App:
        app = App()

        @app.route("/", methods=["GET"])
        def health(request: Request) -> bytes:
            return send_json(request, {"status": "ok"})

        @app.route("/webhook", methods=["POST"])
        async def receive(request: Request) -> bytes:
            sender_id, text = read_message(await body_json(request))
            identity_of(request).check(sender_id)
            assert self.http is not None
            message = UserMessage(
                text=text,
                sender_id=sender_id,
                input_channel=self.name(),
                output=CallbackOutput(self.endpoint, self.http),
            )

            async def turn() -> list[BotMessage]:
                return await on_new_message(message)

            await uninterrupted(turn())
            return send_text(request, "success", b"text/html; charset=utf-8")

        return app
