"""The channel `callback`: each answer is posted to a URL of the operator's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.server import Request

from rasa_core_api.channels.channel import CollectingOutputChannel
from rasa_core_api.channels.rest import RestInput
from rasa_core_api.concurrency import uninterrupted
from rasa_core_api.constants import JSON
from rasa_core_api.endpoints import EndpointConfig, OutgoingFailed, OutgoingHTTP
from rasa_core_api.http.routing import App
from rasa_core_api.http.sending import send_json, send_text
from rasa_core_api.jsontext import encode
from rasa_core_api.messages import BotMessage

log = Logger()


class CallbackInput(RestInput):
    """The webhook of the channel `rest`, whose answers go to an endpoint; what it answers is `success`."""

    app = App()

    def __init__(self, endpoint: EndpointConfig) -> None:
        self._endpoint = endpoint

    @classmethod
    def name(cls) -> str:
        return "callback"

    @classmethod
    def from_credentials(cls, credentials: Mapping[str, JSON] | None) -> CallbackInput:
        if not credentials:
            cls.raise_missing_credentials_exception(cls.name())
        endpoint = EndpointConfig.from_json(credentials, cls.name())
        for option in endpoint.options:
            log.warn("{where}.{key}: nothing uses this key", where=endpoint.where, key=option)
        return cls(endpoint)

    def connect(self, http: OutgoingHTTP) -> None:
        super().connect(http)
        http.prepare()

    def reminder_output(self) -> CallbackOutput:
        return CallbackOutput(self._endpoint, self.http)

    @app.route("/", methods=["GET"])
    def health(self, request: Request) -> bytes:
        """That the channel is there."""
        return send_json(request, {"status": "ok"})

    @app.route("/webhook", methods=["POST"])
    async def receive(self, request: Request) -> bytes:
        """Hand the message over; when all answers are posted, say so."""
        message = await self.message_of(request, CallbackOutput(self._endpoint, self.http))
        await uninterrupted(self._on_new_message(message))
        return send_text(request, "success", b"text/html; charset=utf-8")


class CallbackOutput(CollectingOutputChannel):
    """Posts messages one after another; one that cannot be posted is logged and lost."""

    def __init__(self, endpoint: EndpointConfig, http: OutgoingHTTP) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._http = http

    @classmethod
    def name(cls) -> str:
        return "callback"

    def keep(self, messages: Sequence[BotMessage]) -> Any:
        return Deferred.fromCoroutine(self._post(messages))

    async def _post(self, messages: Sequence[BotMessage]) -> None:
        for message in messages:
            body = encode(message.as_dict()).encode("ascii")
            try:
                answer = await self._http.request_json(self._endpoint, "POST", body=body)
            except OutgoingFailed as error:
                log.error("a message could not be posted: {reason}", reason=str(error))
                continue
            if not 200 <= answer.status < 300:
                log.error(
                    "a message could not be posted: {url} answered {status}",
                    url=self._endpoint.url,
                    status=answer.status,
                )
