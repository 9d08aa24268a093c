"""Actions that the bot's team runs on an action server, called over HTTP."""

from __future__ import annotations

from twisted.logger import Logger

from rasa_core_api.actions import Action, ActionCall
from rasa_core_api.concurrency import Slices
from rasa_core_api.constants import JSON
from rasa_core_api.encoding import tracker_json
from rasa_core_api.endpoints import EndpointConfig, OutgoingFailed, OutgoingHTTP
from rasa_core_api.events import Event
from rasa_core_api.events.reading import EventReader
from rasa_core_api.exceptions import ActionFailed, ActionRejected, InvalidEvent
from rasa_core_api.http.json_pieces import decode_in_slices
from rasa_core_api.jsontext import decode, encode
from rasa_core_api.tracker_views import EventVerbosity

log = Logger()

#: Members of a response of which one at least is needed.
_SPEAKING = ("text", "buttons", "elements", "image", "attachment")
#: Parts of an answer that are named in the log.
_TOLD = 5
#: Events and responses that are looked at before the reactor gets its turn.
_AT_ONCE = 128


class RemoteAction(Action):
    """One action of an action server.

    The request carries the whole conversation, as the protocol wants it; the text of each event is made
    once. `endpoint` is None where no action server is configured: then the action fails and says so.
    """

    def __init__(
        self,
        name: str,
        endpoint: EndpointConfig | None,
        http: OutgoingHTTP,
        reader: EventReader,
        slices: Slices,
        version: str,
    ) -> None:
        self.name = name  # type: ignore[misc]
        self._endpoint = endpoint
        self._http = http
        self._reader = reader
        self._slices = slices
        self._version = version

    async def run(self, call: ActionCall) -> list[Event]:
        endpoint = self._endpoint
        if endpoint is None:
            raise ActionFailed(
                f"the action {self.name!r} needs an action server: name it as 'action_endpoint' in the endpoints file",
                action=self.name,
            )
        await call.claim()
        headers = {"X-Turn-Id": call.turn_id, "X-Turn-Step": str(call.step)}
        try:
            answer = await self._http.request_json(endpoint, "POST", body=await self._body(call), headers=headers)
        except OutgoingFailed as error:
            raise ActionFailed(f"the action {self.name!r} failed: {error}", action=self.name) from error
        if answer.status == 400 and call.domain.release.rejection:
            self._raise_rejection(answer.body)
        if not 200 <= answer.status < 300:
            raise ActionFailed(
                f"the action {self.name!r} failed: {endpoint.url} answered {answer.status}",
                action=self.name,
                status=answer.status,
            )
        try:
            content = await decode_in_slices(answer.body, self._slices)
        except ValueError as error:
            raise ActionFailed(
                f"the action {self.name!r} failed: {endpoint.url} did not answer JSON ({error})", action=self.name
            ) from None
        return await self._understand(content, call)

    async def _body(self, call: ActionCall) -> bytes:
        tracker = call.tracker
        conversation = await tracker_json(tracker.view(EventVerbosity.ALL), self._slices)
        tail = {"next_action": self.name, "sender_id": tracker.sender_id}
        if call.domain.release.sends_version:
            tail["version"] = self._version
        text = encode(tail)
        domain = call.domain.as_json().encode("ascii")
        return b"".join((b'{"domain":', domain, b",", text[1:-1].encode("ascii"), b',"tracker":', conversation, b"}"))

    def _raise_rejection(self, body: bytes) -> None:
        try:
            content = decode(body)
        except ValueError:
            return
        if isinstance(content, dict) and "action_name" in content:
            raise ActionRejected(self.name, str(content.get("error") or ""))

    async def _understand(self, content: JSON, call: ActionCall) -> list[Event]:
        if not isinstance(content, dict):
            raise self._bad("a JSON object with 'events' and 'responses' is expected")
        events, responses = content.get("events") or [], content.get("responses") or []
        for name, items in (("events", events), ("responses", responses)):
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise self._bad(f"'{name}' is no list of objects")
        breathe = self._slices.breathe
        unsaid: dict[str, None] = {}
        for number, response in enumerate(responses, 1):
            reason = await self._utter(response, call)
            if reason is not None:
                unsaid[reason] = None
            if not number % _AT_ONCE:
                await breathe()
        read: list[Event] = []
        try:
            for begin in range(0, len(events), _AT_ONCE):
                read += self._reader.read_list(events[begin : begin + _AT_ONCE])
                await breathe()
        except InvalidEvent as error:
            raise self._bad(str(error)) from error
        nameless = sum(event.get("event") is None for event in events)
        if nameless:
            unsaid[f"{nameless} events without a name"] = None
        if unsaid:
            self._warn(list(unsaid))
        return read

    def _warn(self, left_out: list[str]) -> None:
        shown = left_out[:_TOLD] + ([f"{len(left_out) - _TOLD} more"] if len(left_out) > _TOLD else [])
        log.warn(
            "the answer of the action {action} has parts that are left out: {parts}",
            action=self.name,
            parts=", ".join(shown),
        )

    def _bad(self, reason: str) -> ActionFailed:
        return ActionFailed(f"the answer of the action {self.name!r} cannot be used: {reason}", action=self.name)

    async def _utter(self, response: dict[str, JSON], call: ActionCall) -> str | None:
        """Say a response; what it is that says nothing, where it does not."""
        rest = dict(response)
        template = rest.pop("template", None)
        draft: dict[str, JSON] = {}
        if template:
            generated = await call.dispatcher.generate(str(template), call.tracker, rest)
            if generated is None:
                return f"the template {str(template)[:100]!r}, for which nothing is said"
            draft = generated
        buttons = rest.pop("buttons", None)
        if buttons is not None:
            if not isinstance(buttons, list) or not all(isinstance(button, dict) for button in buttons):
                raise self._bad("'buttons' is no list of objects")
            draft["buttons"] = [*(draft.get("buttons") or []), *buttons]
        draft.update(rest)
        self._check(draft)
        call.dispatcher.utter_response(draft)
        return None if any(draft.get(name) for name in _SPEAKING) else "responses without a text or anything to show"

    def _check(self, draft: dict[str, JSON]) -> None:
        text, elements = draft.get("text"), draft.get("elements")
        if text is not None and not isinstance(text, str):
            draft["text"] = str(text)
        if elements is not None and (
            not isinstance(elements, list) or not all(isinstance(element, dict) for element in elements)
        ):
            raise self._bad("'elements' is no list of objects")
