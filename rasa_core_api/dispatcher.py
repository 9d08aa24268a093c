"""Collects what a bot says during a turn: for the log, and for the channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen
from twisted.logger import Logger

from rasa_core_api.constants import JSON
from rasa_core_api.nlg import Response, ResponseGenerator
from rasa_core_api.releases import Release
from rasa_core_api.trackers import Tracker

log = Logger()


@frozen
class Utterance:
    """What a `bot` event records."""

    text: str | None
    data: JSON


class Dispatcher:
    """Gathers the responses of one turn.

    `said` waits to be logged after the action that is running; `responses` waits to be sent. Nothing
    reaches a channel before the events are stored.
    """

    def __init__(self, generator: ResponseGenerator, channel: str, release: Release) -> None:
        self._generator = generator
        self.channel = channel
        self._release = release
        self.said: list[Utterance] = []
        self.responses: list[Response] = []

    async def utter_template(self, name: str, tracker: Tracker, silent: bool = False, **arguments: JSON) -> bool:
        """Say a template; False where there is none, which is an error in the log unless `silent`."""
        response = await self._generator.generate(name, tracker, self.channel, arguments)
        if response is None:
            if not silent:
                log.error("there is no template {name}: nothing is said", name=name)
            return False
        self.utter_response(response)
        return True

    async def generate(self, name: str, tracker: Tracker, arguments: Mapping[str, JSON]) -> Response | None:
        """A response from a template, to be completed before it is uttered."""
        return await self._generator.generate(name, tracker, self.channel, arguments)

    def utter_response(self, response: Response) -> None:
        """Say a response with any of text, buttons, elements, image and attachment."""
        self.responses.append(response)
        text = response.get("text")
        buttons, elements, image = response.get("buttons"), response.get("elements"), response.get("image")
        if not self._release.composed_responses:
            self.said.append(Utterance(text, {"elements": elements, "buttons": buttons, "attachment": image}))
            return
        if elements:
            self.said.append(Utterance(None, {"elements": elements}))
        elif buttons:
            self.said.append(Utterance(text, {"buttons": buttons}))
        else:
            self.said.append(Utterance(text, None))
        if image:
            self.said.append(Utterance(None, {"attachment": image}))

    def utter_text(self, text: str) -> None:
        """Say a plain text."""
        self.responses.append({"text": text})
        self.said.append(Utterance(text, None))

    def utter_buttons(self, text: str, buttons: list[dict[str, Any]]) -> None:
        """Say a text with buttons."""
        self.responses.append({"text": text, "buttons": buttons})
        self.said.append(Utterance(text, {"buttons": buttons}))

    def take_said(self) -> list[Utterance]:
        said, self.said = self.said, []
        return said

    def take_responses(self) -> list[Response]:
        responses, self.responses = self.responses, []
        return responses
