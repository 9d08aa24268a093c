"""Response generation: from a template's name to what is said.

A response is a JSON object with any of `text`, `buttons`, `elements`, `image` and `attachment`; other
members are passed through to the channel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from rasa_core_api.constants import JSON
from rasa_core_api.trackers import Tracker

Response = dict[str, JSON]


class ResponseGenerator(ABC):
    """Turns the name of a template into a response."""

    @abstractmethod
    async def generate(
        self, template: str, tracker: Tracker, channel: str, arguments: Mapping[str, JSON]
    ) -> Response | None:
        """A fresh response, None where there is nothing to say.

        `channel` is the output channel's name. Raises `ResponseFailed`.
        """
