"""A message on its way through an NLU pipeline, and the two kinds of parts that work on it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from attrs import Factory, define

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from rasa_core_api.constants import JSON

T = TypeVar("T")

RANKING_LENGTH = 10  # items of `intent_ranking`, the winner included


@define(slots=True)
class Token:
    """One word; `text[offset:end]` of the message is where it stands."""

    text: str
    offset: int
    end: int


@define(slots=True, eq=False)
class Message:
    """What is known about one text so far.

    Parts run in pipeline order and each adds its findings. `counts` maps a feature column to its value; featurizers
    append blocks of columns behind the ones that are there, `width` says how many columns there are so far.
    `pattern_flags` has one mapping (pattern name -> matched) per token once a regex featurizer has run, else it
    is empty. `time` is the message's own time in milliseconds since the epoch, if the caller knows it.
    """

    text: str
    tokens: list[Token] = Factory(list)
    counts: dict[int, float] = Factory(dict)
    width: int = 0
    pattern_flags: list[dict[str, bool]] = Factory(list)
    intent: dict[str, JSON] | None = Factory(lambda: {"name": None, "confidence": 0.0})
    intent_ranking: list[dict[str, JSON]] | None = None
    entities: list[dict[str, JSON]] = Factory(list)
    time: int | None = None


def as_parse(message: Message) -> dict[str, JSON]:
    """The parse result as clients see it: `intent`, `entities`, `intent_ranking` (only if a part ranked), `text`."""
    parse: dict[str, Any] = {"intent": message.intent, "entities": message.entities}
    if message.intent_ranking is not None:
        parse["intent_ranking"] = message.intent_ranking
    parse["text"] = message.text
    return parse


def set_ranking(message: Message, ranking: list[tuple[str, float]]) -> None:
    """Store intents, best first: the winner as the intent, the first ten as the ranking.

    An empty list means that the text had nothing to go by: intent null, confidence 0, an empty ranking.
    """
    message.intent_ranking = [{"name": name, "confidence": value} for name, value in ranking[:RANKING_LENGTH]]
    if ranking:
        message.intent = {"name": ranking[0][0], "confidence": ranking[0][1]}
    else:
        message.intent = {"name": None, "confidence": 0.0}


def finished(steps: Generator[None, None, T]) -> T:
    """What work in steps comes to, without a stop."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result


class Component(Protocol):
    """A part that needs nothing but the message. `name` is the name of rasa_nlu 0.13 (`ner_crf`)."""

    @property
    def name(self) -> str: ...

    def process(self, message: Message) -> None:
        """Add this part's findings to the message; does no I/O, and takes well under a millisecond for a text that
        somebody typed. A part that takes longer than a millisecond or two for a long one is `Stepwise`."""


@runtime_checkable
class Stepwise(Protocol):
    """A part that can take a long text in steps."""

    def steps(self, message: Message) -> Iterator[None]:
        """The same as `process`; stops after every millisecond or two, and other messages may be worked on then."""


@runtime_checkable
class NetworkComponent(Protocol):
    """A part that asks another server for entities.

    The model calls `start` before the local parts run and joins the answer at the part's place in the pipeline.
    `settings` are the component's, `extractor` is the name its entities carry; a saved model holds both.
    """

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> Mapping[str, JSON]: ...

    @property
    def extractor(self) -> str: ...

    def start(self, message: Message) -> Deferred[list[dict[str, JSON]]]:
        """Send the question now; fires with the entities found, an empty list when the server fails, never fails."""


#: Makes a network part from its settings, the name its entities carry, and the language of the model.
Connect = Callable[["Mapping[str, JSON]", str, str], NetworkComponent]
