"""A response generation server of the bot's team, asked over HTTP."""

from __future__ import annotations

from collections.abc import Mapping

from rasa_core_api.concurrency import Slices
from rasa_core_api.constants import JSON
from rasa_core_api.encoding import tracker_json
from rasa_core_api.endpoints import EndpointConfig, OutgoingFailed, OutgoingHTTP
from rasa_core_api.exceptions import ResponseFailed
from rasa_core_api.http.json_pieces import decode_in_slices
from rasa_core_api.jsontext import encode
from rasa_core_api.nlg import Response, ResponseGenerator
from rasa_core_api.tracker_views import EventVerbosity
from rasa_core_api.trackers import Tracker


class CallbackGenerator(ResponseGenerator):
    """Posts the template's name and the whole conversation, and says what is answered."""

    def __init__(self, endpoint: EndpointConfig, http: OutgoingHTTP, slices: Slices) -> None:
        self._endpoint = endpoint
        self._http = http
        self._slices = slices

    async def generate(
        self, template: str, tracker: Tracker, channel: str, arguments: Mapping[str, JSON]
    ) -> Response | None:
        conversation = await tracker_json(tracker.view(EventVerbosity.ALL), self._slices)
        head = encode({"arguments": dict(arguments), "channel": {"name": channel}, "template": template})
        body = b"".join((head[:-1].encode("ascii"), b',"tracker":', conversation, b"}"))
        try:
            answer = await self._http.request_json(self._endpoint, "POST", body=body)
        except OutgoingFailed as error:
            raise ResponseFailed(f"the response generation server failed for {template!r}: {error}") from error
        if not 200 <= answer.status < 300:
            raise ResponseFailed(f"the response generation server answered {answer.status} for {template!r}")
        try:
            response = await decode_in_slices(answer.body, self._slices)
        except ValueError as error:
            raise ResponseFailed(
                f"the response generation server did not answer JSON for {template!r}: {error}"
            ) from None
        if response is None or response == "" or response == {}:
            return None
        return checked_response(response, template)


def checked_response(response: JSON, template: str) -> Response:
    """The response, where its members have the types that channels rely on. Raises `ResponseFailed`."""

    def objects(value: JSON) -> bool:
        return value is None or (isinstance(value, list) and all(isinstance(item, dict) for item in value))

    if not isinstance(response, dict):
        raise ResponseFailed(f"the answer for {template!r} is no JSON object")
    if not isinstance(response.get("text", ""), str):
        raise ResponseFailed(f"'text' of the answer for {template!r} is no text")
    for name in ("buttons", "elements"):
        if not objects(response.get(name)):
            raise ResponseFailed(f"'{name}' of the answer for {template!r} is no list of objects")
    if not isinstance(response.get("image"), (str, type(None))):
        raise ResponseFailed(f"'image' of the answer for {template!r} is no text")
    if not isinstance(response.get("attachment"), (dict, type(None))):
        raise ResponseFailed(f"'attachment' of the answer for {template!r} is no object")
    return response
