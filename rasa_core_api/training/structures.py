"""What story files hold: steps of events between checkpoints, and the builder that forks them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from attrs import define, evolve, field, frozen

from rasa_core_api.constants import ACTION_LISTEN, JSON
from rasa_core_api.events import ActionExecuted, Event, SlotSet, UserUttered

#: The checkpoint where a conversation begins.
STORY_START = "STORY_START"

#: Names of checkpoints that no story file wrote begin so.
GENERATED = "GENR_"
GENERATED_OR = "GENR_OR_"


@frozen
class Place:
    """A line of a story file, counted from 1; 0 where there is none."""

    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@frozen
class Checkpoint:
    """A name that stories end with and start from; a start may demand slot values (`==`)."""

    name: str
    conditions: Mapping[str, JSON] = field(factory=dict)


@define(eq=False)
class StoryStep:
    """The events of one story block between two of its checkpoints.

    `starts` may be one list of several steps: copies that OR or consecutive `>` lines made share it, and
    what is added for one is added for all.
    """

    id: str
    block_name: str
    starts: list[Checkpoint]
    events: list[Event]
    ends: list[Checkpoint]
    place: Place
    places: list[Place]  # of each event

    def explicit_events(self, entity_slots: Callable[[UserUttered], Sequence[SlotSet]], guard: bool) -> list[Event]:
        """All events, with the listens before messages and at the end, and the slots that entities fill.

        `guard` (0.12 and later) adds no listen after a listen.
        """
        events: list[Event] = []

        def listen() -> None:
            if not (guard and events and _is_listen(events[-1])):
                events.append(ActionExecuted(action_name=ACTION_LISTEN, timestamp=0.0))

        for event in self.events:
            if isinstance(event, UserUttered):
                listen()
                events.append(event)
                events += entity_slots(event)
            else:
                events.append(event)
        if not self.ends:
            listen()
        return events


def _is_listen(event: Event) -> bool:
    return isinstance(event, ActionExecuted) and event.action_name == ACTION_LISTEN


@define
class StepIds:
    """Numbers the steps as 0.13 did: every step ever made takes a number, replaced ones too."""

    _count: int = 0
    _forks: int = 0

    def step(self) -> str:
        self._count += 1
        return f"{self._count}_"  # the underscore counts: "10_" sorts before "1_"

    def fork(self) -> str:
        self._forks += 1
        return f"{GENERATED_OR}{self._forks:05x}"


#: Ways that one story block may fork into at a time.
MAX_FORKS = 4096


class TooManyForks(Exception):
    """A line would fork its block into more than `MAX_FORKS` ways."""


@define(eq=False)
class BlockBuilder:
    """Collects the lines of one story block and makes steps of them. Raises `TooManyForks`."""

    name: str
    place: Place
    _ids: StepIds
    _done: list[StoryStep] = field(factory=list)
    _current: list[StoryStep] = field(factory=list)
    _starts: list[Checkpoint] = field(factory=list)

    def add_checkpoint(self, checkpoint: Checkpoint) -> bool:
        """A start while nothing has happened, else an end; False where conditions of an end are ignored."""
        if not self._current:
            self._starts.append(checkpoint)
            return True
        self._check_forks(len(self._current) + sum(bool(step.ends) for step in self._current))
        end = Checkpoint(checkpoint.name)
        forks = []
        for step in self._current:
            if step.ends:
                fork = self._copy(step)
                fork.ends = [end]
                forks.append(fork)
            else:
                step.ends = [end]
        self._current += forks
        return not checkpoint.conditions

    def add_event(self, event: Event, place: Place) -> None:
        self.continue_story()
        for step in self._current:
            step.events.append(event)
            step.places.append(place)

    def add_messages(self, messages: Sequence[UserUttered], place: Place) -> None:
        """One message, or alternatives that each fork the block and meet at a generated checkpoint."""
        if len(messages) == 1:
            self.add_event(messages[0], place)
            return
        self.continue_story()
        self._check_forks(len(self._current) * len(messages))
        meeting = self._ids.fork()
        forks = []
        for step in self._current:
            for message in messages:
                fork = self._copy(step)
                fork.events.append(message)
                fork.places.append(place)
                fork.ends = [Checkpoint(meeting)]
                forks.append(fork)
        self._current = forks

    @staticmethod
    def _check_forks(count: int) -> None:
        if count > MAX_FORKS:
            raise TooManyForks

    def finish(self) -> list[StoryStep]:
        """The steps of the block, oldest first."""
        return [*self._done, *self._current]

    def continue_story(self) -> None:
        """Go on after the checkpoints read so far; a step begins even if nothing follows."""
        finished = [step for step in self._current if step.ends]
        going_on = [step for step in self._current if not step.ends]
        self._done += finished
        if going_on:
            self._current = going_on
            return
        names = dict.fromkeys(end.name for step in self._current for end in step.ends)
        starts = [Checkpoint(name) for name in names] if self._current else self._starts
        starts = starts or [Checkpoint(STORY_START)]
        self._current = [StoryStep(self._ids.step(), self.name, starts, [], [], self.place, [])]

    def _copy(self, step: StoryStep) -> StoryStep:
        return StoryStep(
            self._ids.step(),
            step.block_name,
            step.starts,
            list(step.events),
            list(step.ends),
            step.place,
            list(step.places),
        )


def copies(steps: Sequence[StoryStep]) -> list[StoryStep]:
    """Steps whose lists can be changed; what the originals share, the copies share."""
    starts: dict[int, list[Checkpoint]] = {}
    return [
        evolve(step, starts=starts.setdefault(id(step.starts), list(step.starts)), ends=list(step.ends))
        for step in steps
    ]


@frozen
class Notice:
    """Something in a story file that is skipped or looks wrong; training goes on."""

    place: Place
    text: str


@define(eq=False)
class StoryFiles:
    """All steps of a story resource, in reading order, and what was strange about it."""

    steps: list[StoryStep] = field(factory=list)
    notices: list[Notice] = field(factory=list)
    blocks: int = 0

    def messages(self) -> Iterator[tuple[UserUttered, Place]]:
        """Every message with its line; copies of a step repeat theirs."""
        for step in self.steps:
            for event, place in zip(step.events, step.places, strict=True):
                if isinstance(event, UserUttered):
                    yield event, place


def story_paths(path: Path) -> list[Path]:
    """The file, or all files below the folder without hidden ones, sorted by path."""
    if not path.is_dir():
        return [path]
    return sorted(
        found
        for found in path.rglob("*")
        if found.is_file() and not any(part.startswith(".") for part in found.relative_to(path).parts)
    )
