"""Training examples: what policies learn from, cut out of the generated dialogues."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from rasa_core_api.constants import JSON
from rasa_core_api.events import ActionExecuted, Event, SlotSet
from rasa_core_api.training.generator import REVERTING, TrainingData, applied_events

#: Stands for the time before the dialogue in a window of states.
PADDING = -1


def turns(data: TrainingData, *, augmented: bool = True) -> Iterator[int]:
    """Every distinct turn once: nodes of `data.sequences`, in the order of the dialogues.

    Turns whose action opens a conversation unprompted are left out, and with `augmented` false the turns
    that only concatenated dialogues have.
    """
    sequences = data.sequences
    seen = bytearray(len(sequences.parent))
    seen[0] = 1
    for dialogue in data.dialogues:
        if dialogue.is_augmented and not augmented:
            continue
        fresh = []
        node = dialogue.turns
        while not seen[node]:
            seen[node] = 1
            fresh.append(node)
            node = sequences.parent[node]
        for node in reversed(fresh):
            if not sequences.unpredictable(node):
                yield node


def windows(data: TrainingData, length: int, *, augmented: bool = True) -> Iterator[tuple[tuple[int, ...], str]]:
    """The distinct examples of a history of `length` states: state numbers, oldest first, padded in front
    with `PADDING`, and the action that follows."""
    sequences = data.sequences
    seen = set()
    padding = (PADDING,) * length
    for node in turns(data, augmented=augmented):
        states = sequences.window(node, length)
        example = (padding[len(states) :] + states, sequences.action(node))
        if example not in seen:
            seen.add(example)
            yield example


def all_windows(data: TrainingData, length: int) -> Iterator[tuple[tuple[int, ...], str]]:
    """The examples of every dialogue, as often as they occur."""
    sequences = data.sequences
    padding = (PADDING,) * length
    for dialogue in data.dialogues:
        for node in sequences.turns(dialogue.turns):
            if not sequences.unpredictable(node):
                states = sequences.window(node, length)
                yield padding[len(states) :] + states, sequences.action(node)


@frozen
class DialogueExample:
    """One whole dialogue: its states, and the action taken in each."""

    states: tuple[int, ...]
    actions: tuple[str, ...]


def dialogues(data: TrainingData) -> Iterator[DialogueExample]:
    """Every dialogue, without the state it ends in and without an opening action that nobody can predict."""
    sequences = data.sequences
    for dialogue in data.dialogues:
        nodes = [node for node in sequences.turns(dialogue.turns) if not sequences.unpredictable(node)]
        yield DialogueExample(
            tuple(sequences.state[node] for node in nodes), tuple(sequences.action(node) for node in nodes)
        )


def action_fingerprints(data: TrainingData) -> dict[str, JSON] | None:
    """Per action the names of the slots that were set after it and before the next; None without dialogues.

    Every event files its action, whatever it is; what happens before any action is under the text `null`.
    """
    if not data.dialogues:
        return None
    found: dict[str, set[str]] = {}
    last_actions: dict[int, str] = {}
    for dialogue in data.dialogues:
        fresh = []
        chunk = dialogue.last_chunk
        while chunk is not None and id(chunk) not in last_actions:
            fresh.append(chunk)
            chunk = chunk.previous
        current = last_actions[id(chunk)] if chunk is not None else "null"
        for chunk in reversed(fresh):
            for event in chunk.events:
                if isinstance(event, ActionExecuted):
                    current = event.action_name
                    continue
                if isinstance(event, REVERTING):
                    current = _last_action(chunk.all_events())
                slots = found.setdefault(current, set())
                if isinstance(event, SlotSet):
                    slots.add(event.key)
            last_actions[id(chunk)] = current
    return {action: {"slots": sorted(slots)} for action, slots in sorted(found.items())}


def _last_action(events: list[Event]) -> str:
    names = [event.action_name for event in applied_events(events) if isinstance(event, ActionExecuted)]
    return names[-1] if names else "null"
