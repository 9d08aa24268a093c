"""Training dialogues out of a story graph: checkpoints, augmentation, deduplication, subsampling.

Source of the rules: the observed behaviour of 0.9 to 0.14; with seed 42 the dialogues are those that
0.14.5 generates (0.9 to 0.12 differ from run to run with augmentation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

from attrs import define, evolve, field, frozen
from twisted.logger import Logger

from rasa_core_api.domain import Domain
from rasa_core_api.events import (
    ActionExecuted,
    ActionReverted,
    Event,
    Restarted,
    SlotSet,
    UserUtteranceReverted,
    UserUttered,
)
from rasa_core_api.exceptions import InvalidTrainingData
from rasa_core_api.training.contexts import Context, Contexts, Sequences
from rasa_core_api.training.graph import StoryGraph, story_graph
from rasa_core_api.training.structures import GENERATED, STORY_START, StoryStep, copies

log = Logger()

#: More dialogues than this at once, before any are joined, are refused, and more turns in all.
MAX_DIALOGUES = 100_000
MAX_TURNS = 8_000_000

#: The seed of the releases for subsampling.
SEED = 42

#: Called with the part of the work that is done (0 to 1) and what is being done.
Progress = Callable[[float, str], None]


@frozen(eq=False)
class Chunk:
    """Events of a dialogue, the story block they are from (None where dialogues were joined), and the events before."""

    previous: Chunk | None
    events: Sequence[Event]
    block: str | None

    def chain(self) -> list[Chunk]:
        """This one and all before it, oldest first."""
        chunks = []
        chunk: Chunk | None = self
        while chunk is not None:
            chunks.append(chunk)
            chunk = chunk.previous
        return chunks[::-1]

    def all_events(self) -> list[Event]:
        """All events up to the last of these, oldest first."""
        return [event for chunk in self.chain() for event in chunk.events]


@frozen(eq=False)
class Dialogue:
    """A generated conversation; immutable, and sharing its past with those it was forked from.

    `turns` is the node of its turns without the state it ends in, which `context` holds.
    """

    turns: int
    context: Context
    is_augmented: bool = False
    last_chunk: Chunk | None = None

    def events(self, limit: int | None = None) -> list[Event]:
        """All events, oldest first, or only the last `limit`."""
        found = self.last_chunk.all_events() if self.last_chunk else []
        return found if limit is None else found[-limit:]

    def blocks_of_actions(self) -> list[str]:
        """The story block of each action that counts, oldest first."""
        if self.last_chunk is None:
            return []
        pairs = [(event, chunk.block or "") for chunk in self.last_chunk.chain() for event in chunk.events]
        kept = applied_positions([event for event, _ in pairs])
        return [pairs[index][1] for index in kept if isinstance(pairs[index][0], ActionExecuted)]

    @property
    def name(self) -> str:
        """The names of the story blocks it runs through since it was joined.

        One that is among them, split at ` > `, is not added again.
        """
        name = ""
        for chunk in self.last_chunk.chain() if self.last_chunk else ():
            block = chunk.block
            if not name or block is None:
                name = block or ""
            elif block not in name.split(" > "):
                name += f" > {block}"
        return name


def applied_positions(events: Sequence[Event]) -> list[int]:
    """The places of the events that count: after the last restart, without what was taken back."""
    applied: list[int] = []

    def cut(kind: type[Event]) -> None:
        while applied and not isinstance(events[applied.pop()], kind):
            pass

    for index, event in enumerate(events):
        if isinstance(event, Restarted):
            applied.clear()
        elif isinstance(event, ActionReverted):
            cut(ActionExecuted)
        elif isinstance(event, UserUtteranceReverted):
            cut(UserUttered)
            cut(ActionExecuted)
        else:
            applied.append(index)
    return applied


def applied_events(events: Sequence[Event]) -> list[Event]:
    """The events that count."""
    return [events[index] for index in applied_positions(events)]


@frozen
class Settings:
    """How to generate. `unique_last_num_states` is the longest history that any policy looks at."""

    augmentation_factor: int = 20
    remove_duplicates: bool = True
    unique_last_num_states: int | None = None
    event_limit: int | None = None  # a dialogue forgets all but its last events
    use_story_concatenation: bool = True
    max_dialogues: int = MAX_DIALOGUES


@define(eq=False)
class TrainingData:
    """The generated dialogues with the numbers of their states and turns."""

    domain: Domain
    contexts: Contexts
    sequences: Sequences
    dialogues: list[Dialogue]
    unreached: list[str]  # checkpoints that stories start from and nothing leads to

    def states(self, dialogue: Dialogue) -> list[int]:
        """Its states, oldest first, with the one it ends in."""
        nodes = self.sequences.turns(dialogue.turns)
        return [*(self.sequences.state[node] for node in nodes), dialogue.context.state]


def generate(
    steps: Sequence[StoryStep], domain: Domain, settings: Settings = Settings(), progress: Progress | None = None
) -> TrainingData:
    """The training dialogues of story steps.

    Raises `InvalidTrainingData` naming the checkpoints where there are too many of them.
    """
    graph = story_graph(copies(steps), domain.release)
    return _Generator(domain, graph, settings, progress or (lambda share, what: None)).run()


@frozen(eq=False)
class _Part:
    """A step ready to play: its events with their numbers, up to each that takes something back."""

    step: StoryStep
    events: tuple[Event, ...]
    numbers: tuple[int, ...]
    reverts: bool
    outcomes: dict[int, tuple[tuple[tuple[int, str, bool], ...], Context]]  # by identity of a context


REVERTING = (ActionReverted, UserUtteranceReverted, Restarted)


@define(eq=False)
class _Generator:
    domain: Domain
    graph: StoryGraph
    settings: Settings
    progress: Progress
    random: Random = field(factory=lambda: Random(SEED))
    contexts: Contexts = field(init=False)
    sequences: Sequences = field(factory=Sequences)
    parts: list[_Part] = field(init=False)
    all_reached: bool = False  # every checkpoint that can be: from now on dialogues are joined
    finished: list[Dialogue] = field(factory=list)
    story_ends: list[Dialogue] = field(factory=list)
    turns: dict[tuple[int, str, bool], tuple[int, str, bool]] = field(factory=dict)  # each kept once
    seen: set[object] = field(factory=set)  # complete sequences that ended somewhere

    def __attrs_post_init__(self) -> None:
        self.contexts = Contexts(self.domain)
        self.parts = [self._part(step) for step in self.graph.steps]

    def _part(self, step: StoryStep) -> _Part:
        if any(start.name == STORY_START for start in step.starts):
            step = evolve(step, events=_mark_unpredictable(step.events))
        events = step.explicit_events(self._entity_slots, self.domain.release.keeps_listen_lines)
        numbers = tuple(self.contexts.number_of(event) for event in events)
        return _Part(step, tuple(events), numbers, any(isinstance(event, REVERTING) for event in events), {})

    def _entity_slots(self, event: UserUttered) -> list[SlotSet]:
        found = self.domain.slots_from_entities(event.entities)
        return [SlotSet(key=name, value=value, timestamp=0.0) for name, value in found]

    # --- the main loop -------------------------------------------------------------------------------

    def run(self) -> TrainingData:
        release, factor = self.domain.release, self.settings.augmentation_factor
        active: dict[str, list[Dialogue]] = {STORY_START: [Dialogue(0, self.contexts.start)]}
        used: set[str] = set()
        before: set[str] = set()
        phase = rounds = 0
        while not self.all_reached or phase < (3 if factor > 0 else 0):
            if release.revisits_checkpoints and not any(active.values()):
                break
            unused: set[str] = set()
            for index, part in enumerate(self.parts):
                if not index % 64:
                    self._report(phase, index, rounds)
                self._play_step(part, active, used, unused)
            phase += 1
            rounds += 1
            if not self.all_reached:
                if release.revisits_checkpoints:
                    unused |= {name for name, waiting in active.items() if waiting and name not in used}
                    unused.discard(STORY_START)
                active = {name: waiting for name, waiting in active.items() if name in unused}
                self.all_reached = unused == before or not any(active.values())
                before = unused
                if self.all_reached:
                    before = before - used
                    phase = 0
                    if release.revisits_checkpoints:
                        for name, waiting in active.items():
                            if name in before:
                                self.finished += waiting
            if self.all_reached:
                used = set()
                active = self._augmented()
        self.finished += self.story_ends
        if release.drops_augmented_trackers and factor > 0:
            self._limit_augmented(10 * factor)
        self.progress(1.0, "generating training dialogues")
        unreached = sorted(name for name in before if not name.startswith(GENERATED))
        return TrainingData(self.domain, self.contexts, self.sequences, self.finished, unreached)

    def _report(self, phase: int, index: int, rounds: int) -> None:
        share = index / max(1, len(self.parts))
        if self.settings.augmentation_factor == 0:
            done = rounds + share
            self.progress(1 - 0.5**done, "generating training dialogues")
        elif self.all_reached:
            self.progress(0.25 + 0.25 * (phase + share), f"augmenting, round {phase + 1} of 3")
        else:
            self.progress(0.25 * (1 - 0.5 ** (rounds + share)), "connecting checkpoints")

    def _play_step(self, part: _Part, active: dict[str, list[Dialogue]], used: set[str], unused: set[str]) -> None:
        incoming: list[Dialogue] = []
        for start in part.step.starts:
            waiting = active.get(start.name)
            if waiting:
                incoming += _fulfilling(waiting, start.conditions) if start.conditions else waiting
                used.add(start.name)
            elif start.name not in used:
                unused.add(start.name)
        if not incoming:
            return
        if self.settings.remove_duplicates:
            incoming = self._without_duplicates(incoming)
        if self.all_reached:
            self.random.shuffle(incoming)
            incoming = incoming[: 10 * self.settings.augmentation_factor]
        dialogues = self._play(part, incoming)
        for end in part.step.ends:
            name = self.graph.target(end)
            active.setdefault(name, []).extend(dialogues)
            self._check_size(active[name], name, active)
            if name in used:
                unused.add(name)
        if not part.step.ends:
            for dialogue in dialogues:
                key = self._complete_key(dialogue)
                if key not in self.seen:
                    self.seen.add(key)
                    self.story_ends.append(dialogue)
            self._check_size(self.story_ends, part.step.block_name, active)

    def _check_size(self, dialogues: list[Dialogue], name: str, active: dict[str, list[Dialogue]]) -> None:
        limit = self.settings.max_dialogues
        crowd = 0 if self.all_reached else max(len(dialogues), len(self.finished))
        if crowd <= limit and len(self.sequences) <= MAX_TURNS:
            return
        crowded = sorted(active, key=lambda key: -len(active[key]))[:5]
        listing = ", ".join(f"{key} ({len(active[key])})" for key in crowded if not key.startswith(GENERATED))
        raise InvalidTrainingData(
            f"the stories multiply beyond {limit} dialogues or {MAX_TURNS} turns at {name!r}. Dialogues wait at the "
            f"checkpoints {listing or name}: join fewer stories there, add conditions, or write the paths out",
            checkpoints=[key for key in crowded if not key.startswith(GENERATED)] or [name],
        )

    # --- duplicates ----------------------------------------------------------------------------------

    def _complete_key(self, dialogue: Dialogue) -> object:
        last = self.settings.unique_last_num_states
        if last is not None and self.sequences.depth[dialogue.turns] < last:
            return self._last_states(dialogue, last)
        return self.sequences.path(dialogue.turns, dialogue.context.state)

    def _last_states(self, dialogue: Dialogue, length: int) -> tuple[int, ...]:
        return (*self.sequences.window(dialogue.turns, length - 1), dialogue.context.state)

    def _without_duplicates(self, dialogues: list[Dialogue]) -> list[Dialogue]:
        last = self.settings.unique_last_num_states
        seen: set[object] = set()
        kept = []
        for dialogue in dialogues:
            complete = self._complete_key(dialogue)
            if complete in seen:
                continue
            if last is None:
                kept.append(dialogue)
            else:
                recent = self._last_states(dialogue, last)
                if recent not in seen:
                    seen.add(recent)
                    kept.append(dialogue)
                elif recent != complete and complete not in self.seen:
                    self.seen.add(complete)
                    self.finished.append(dialogue)
            seen.add(complete)
        return kept

    # --- playing -------------------------------------------------------------------------------------

    def _play(self, part: _Part, incoming: list[Dialogue]) -> list[Dialogue]:
        if not part.events:
            return []  # 0.9 to 0.11: a step of left out listens alone leads nowhere
        if part.reverts or self.settings.event_limit is not None:
            return self._play_reverting(part, incoming)
        played = []
        for dialogue in incoming:
            turns, context = self._outcome(part, dialogue.context)
            node = dialogue.turns
            for state, action, unpredictable in turns:
                node = self.sequences.append(node, state, action, unpredictable)
            played.append(self._continued(dialogue, part, node, context))
        return played

    def _outcome(self, part: _Part, context: Context) -> tuple[tuple[tuple[int, str, bool], ...], Context]:
        key = id(context)
        found = part.outcomes.get(key)
        if found is None:
            turns = []
            for event, number in zip(part.events, part.numbers, strict=True):
                if isinstance(event, ActionExecuted):
                    turn = (context.state, event.action_name, event.unpredictable)
                    turns.append(self.turns.setdefault(turn, turn))
                context = self.contexts.after(context, number)
            found = part.outcomes[key] = (tuple(turns), context)
        return found

    def _continued(self, dialogue: Dialogue, part: _Part, turns: int, context: Context) -> Dialogue:
        return Dialogue(
            turns,
            context,
            dialogue.is_augmented,
            Chunk(dialogue.last_chunk, part.events, part.step.block_name),
        )

    def _play_reverting(self, part: _Part, incoming: list[Dialogue]) -> list[Dialogue]:
        finishes = self.domain.release.finishes_reverted
        going, block = incoming, part.step.block_name
        ended: list[Dialogue] = []
        if finishes:
            going = [evolve(dialogue, last_chunk=Chunk(dialogue.last_chunk, (), block)) for dialogue in going]
        for event, number in zip(part.events, part.numbers, strict=True):
            if isinstance(event, REVERTING) and (finishes or not isinstance(event, Restarted)):
                ended += going
            going = [self._after(dialogue, event, number, block) for dialogue in going]
        if finishes:
            self.finished += ended
            return going
        return [*going, *ended]

    def _after(self, dialogue: Dialogue, event: Event, number: int, block: str | None) -> Dialogue:
        chunk = Chunk(dialogue.last_chunk, (event,), block)
        context, turns = dialogue.context, dialogue.turns
        if isinstance(event, ActionReverted):
            if turns > 0:
                turns = self.sequences.parent[turns]
            context = self._replayed(evolve(dialogue, last_chunk=chunk))[1]
        elif isinstance(event, (UserUtteranceReverted, Restarted)):
            turns, context = self._replayed(evolve(dialogue, last_chunk=chunk))
        else:
            if isinstance(event, ActionExecuted):
                turns = self.sequences.append(turns, context.state, event.action_name, event.unpredictable)
            context = self.contexts.after(context, number)
        return evolve(dialogue, turns=turns, context=context, last_chunk=chunk)

    def _replayed(self, dialogue: Dialogue) -> tuple[int, Context]:
        turns, context = 0, self.contexts.start
        for event in applied_events(dialogue.events(self.settings.event_limit)):
            if isinstance(event, ActionExecuted):
                turns = self.sequences.append(turns, context.state, event.action_name, event.unpredictable)
            context = self.contexts.after(context, self.contexts.number_of(event))
        return turns, context

    # --- augmentation --------------------------------------------------------------------------------

    def _augmented(self) -> dict[str, list[Dialogue]]:
        if not self.settings.use_story_concatenation:
            return {}
        self.random.shuffle(self.story_ends)
        undo = ActionReverted(timestamp=0.0)
        chosen = self.story_ends[: self.settings.augmentation_factor]
        started = []
        for dialogue in chosen:
            started.append(self._after(evolve(dialogue, is_augmented=True), undo, -1, None))
        return {STORY_START: started}

    def _limit_augmented(self, limit: int) -> None:
        augmented = [dialogue for dialogue in self.finished if dialogue.is_augmented]
        self.finished = [dialogue for dialogue in self.finished if not dialogue.is_augmented]
        self.random.shuffle(augmented)
        self.finished += augmented[:limit]


def _mark_unpredictable(events: list[Event]) -> list[Event]:
    """An action that opens a conversation before any message is nothing that a policy can learn."""
    for index, event in enumerate(events):
        if isinstance(event, UserUttered):
            break
        if isinstance(event, ActionExecuted):
            return [*events[:index], event.changed(unpredictable=True), *events[index + 1 :]]
    return events


def _fulfilling(dialogues: list[Dialogue], conditions: object) -> Iterator[Dialogue]:
    assert hasattr(conditions, "items")
    for dialogue in dialogues:
        if all(dialogue.context.slots.get(name) == value for name, value in conditions.items()):
            yield dialogue
