"""A trained NLU model: components in their order, and parsing with them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import Factory, define, field

from rasa_core_api.constants import JSON
from rasa_core_api.nlu.message import Component, Message, NetworkComponent, Stepwise, as_parse

if TYPE_CHECKING:
    from rasa_core_api.nlu.data import TrainingData

MAX_TEXT = 12_000  # characters that are looked at; the result holds the whole text all the same
LONG_TEXT = 800  # characters; longer texts are worked on in steps

#: Lets others have their turn, if it is their time.
Breathe = Callable[[], Awaitable[None]]


class NotConnected:
    """Stands for a network part where nothing may be sent: in training and evaluation. Finds nothing."""

    def __init__(self, name: str, settings: Mapping[str, JSON], extractor: str) -> None:
        self.name = name
        self.settings = settings
        self.extractor = extractor

    def process(self, message: Message) -> None:
        """Leave the message as it is."""


@define(eq=False)
class NluModel:
    """Parses texts. `data` is what it was trained on (None where unknown), `config` the pipeline that was asked for.

    `trained_at` is the time of training as `YYYYMMDD-HHMMSS` (UTC), `source` names where it was read from. An empty
    text has the intent `empty_intent`; it was the empty name before rasa_nlu 0.13.
    """

    language: str
    components: Sequence[Component | NetworkComponent]
    data: TrainingData | None = None
    config: Mapping[str, JSON] = Factory(dict)
    trained_at: str = ""
    source: str = ""
    empty_intent: str | None = None

    _local: list[Component] = field(init=False)
    _network: list[tuple[int, NetworkComponent]] = field(init=False)  # with the number of local parts before each

    def __attrs_post_init__(self) -> None:
        self._local, self._network = [], []
        for component in self.components:
            if isinstance(component, NetworkComponent):
                self._network.append((len(self._local), component))
            else:
                self._local.append(component)

    def parse(self, text: str, time: int | None = None) -> dict[str, JSON]:
        """The parse result of the local parts; network parts find nothing. `time` in milliseconds since the epoch."""
        message = Message(text[:MAX_TEXT], time=time)
        if text:  # for an empty text no part is asked
            for component in self._local:
                component.process(message)
        else:
            message.intent = {"name": self.empty_intent, "confidence": 0.0}
        message.text = text
        return as_parse(message)

    async def parse_message(
        self, text: str, message_id: str | None = None, time: int | None = None, breathe: Breathe | None = None
    ) -> dict[str, JSON]:
        """The parse result of all parts.

        Network parts are asked first, so that they work while the local parts do, and are waited for at their place.
        A long text is worked on in steps, with `breathe` between them. `message_id` is for remote servers and not
        used here.
        """
        if len(text) <= LONG_TEXT:
            breathe = None
        if not text or not (self._network or breathe):
            return self.parse(text, time)
        message = Message(text[:MAX_TEXT], time=time)
        asked = [(place, component.start(message)) for place, component in self._network]
        done = 0
        for place, answer in asked:
            await _work(self._local[done:place], message, breathe)
            done = place
            message.entities += await answer
        await _work(self._local[done:], message, breathe)
        message.text = text
        return as_parse(message)


async def _work(components: Sequence[Component], message: Message, breathe: Breathe | None) -> None:
    for component in components:
        if breathe is None:
            component.process(message)
            continue
        if isinstance(component, Stepwise):
            for _ in component.steps(message):
                await breathe()
        else:
            component.process(message)
        await breathe()
