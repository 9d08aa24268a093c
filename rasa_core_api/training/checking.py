"""Looking for mistakes in a project before it is trained or served."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rasa_core_api.constants import ACTION_BACK
from rasa_core_api.domain import Domain
from rasa_core_api.events import ActionExecuted, FollowupAction, Form, SlotSet, UserUttered
from rasa_core_api.training.examples import PADDING
from rasa_core_api.training.findings import DomainText, Finding, check_templates, nearest
from rasa_core_api.training.generator import Settings, TrainingData, generate
from rasa_core_api.training.structures import Place, StoryFiles, story_paths

#: Histories in which contradicting stories are looked for.
HISTORY = 5
_SHOWN = 3  # stories of one contradiction


def check_stories(domain: Domain, files: StoryFiles, domain_file: str) -> list[Finding]:
    """Names in stories that the domain does not have, in the order of the files, each once."""
    found: dict[tuple[str, str], Finding] = {}

    def report(code: str, kind: str, name: str, place: Place, known: Iterable[str], section: str) -> None:
        remedy = nearest(name, known, f"add it to {section!r} in {domain_file}")
        found.setdefault((code, name), Finding("error", code, place, f"the domain has no {kind} {name!r}", remedy))

    for step in files.steps:
        for event, place in zip(step.events, step.places, strict=True):
            if isinstance(event, UserUttered):
                intent = event.intent_name
                if intent and intent not in domain.intents and intent not in _built_in_intents(domain):
                    report("unknown-intent", "intent", intent, place, domain.intents, "intents")
                for entity in event.entities:
                    if entity["entity"] not in domain.entities:
                        report("unknown-entity", "entity", entity["entity"], place, domain.entities, "entities")
            elif isinstance(event, (ActionExecuted, FollowupAction)):
                if event.action_name not in domain.action_index:
                    report("unknown-action", "action", event.action_name, place, domain.action_names, "actions")
            elif isinstance(event, SlotSet):
                if event.key not in domain.slot_by_name:
                    report("unknown-slot", "slot", event.key, place, domain.slot_by_name, "slots")
            elif isinstance(event, Form) and event.name is not None and event.name not in domain.forms:
                report("unknown-form", "form", event.name, place, domain.forms, "forms")
        for start in step.starts:
            for slot in start.conditions:
                if slot not in domain.slot_by_name:
                    report("unknown-slot", "slot", slot, step.place, domain.slot_by_name, "slots")
    return list(found.values())


def _built_in_intents(domain: Domain) -> set[str]:
    return {domain.restart_intent, "back"} if ACTION_BACK in domain.action_index else {domain.restart_intent}


def check_unused(domain: Domain, files: StoryFiles, text: DomainText) -> list[Finding]:
    """What the domain has and no story uses."""
    used = _Used(domain, files)
    found = []

    def report(code: str, section: str, names: Iterable[str], what: str) -> None:
        for name in names:
            place = text.place(section, name)
            remedy = f"use it in a story or remove it from {section!r}"
            found.append(Finding("warning", code, place, f"{what} {name!r} is in no story", remedy))

    triggered = {action for intent in domain.intents if (action := domain.triggered_action(intent))}
    needed = used.actions | triggered | domain.overridden_defaults
    actions = [name for name in domain.user_actions if name not in needed]
    silent = [name for name in domain.intents if name not in used.intents and not domain.triggered_action(name)]
    report("unused-intent", "intents", silent, "the intent")
    report("unused-action", "actions", actions, "the action")
    report("unused-form", "forms", [name for name in domain.forms if name not in used.actions], "the form")
    report("unused-entity", "entities", [name for name in domain.entities if name not in used.entities], "the entity")
    for slot in domain.slots:
        if slot.name not in used.slots and slot.feature_dimensionality():
            place = text.place("slots", slot.name)
            message = f"no story sets the slot {slot.name!r}, so no policy learns what it means"
            remedy = "set it where an action does, make it 'unfeaturized' or remove it from 'slots'"
            found.append(Finding("warning", "unused-slot", place, message, remedy))
    return found + check_templates(domain, text)


def check_examples(
    domain: Domain, intents: Sequence[str], entities: Sequence[str], text: DomainText, source: str
) -> list[Finding]:
    """Intents and entities of the NLU data in `source`, a file or folder, that do not fit the domain."""
    found = []
    for name in intents:
        if name not in domain.intents:
            remedy = nearest(name, domain.intents, "add it to 'intents' or remove its examples")
            message = f"the NLU data have examples of {name!r}, which the domain does not know"
            found.append(Finding("error", "unknown-intent", _first_line(source, name), message, remedy))
    for name in entities:
        if name not in domain.entities:
            remedy = nearest(name, domain.entities, "add it to 'entities' or remove its marks")
            message = f"the NLU data mark the entity {name!r}, which the domain does not know"
            found.append(Finding("warning", "unknown-entity", _first_line(source, name), message, remedy))
    for name in domain.intents if intents else ():
        if name not in intents and name not in _built_in_intents(domain):
            place = text.place("intents", name)
            message = f"the NLU data have no examples of the intent {name!r}"
            found.append(Finding("warning", "no-examples", place, message, "add some, or nobody can say it"))
    return found


def _first_line(source: str, name: str) -> Place:
    """Where a name first stands as an intent or entity in NLU data."""
    pattern = re.compile(rf"(?:intent:\s*|\]\(|\"){re.escape(name)}(?![\w-])")
    for path in story_paths(Path(source)):
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
            if pattern.search(line):
                return Place(str(path), number)
    return Place(source)


class _Used:
    def __init__(self, domain: Domain, files: StoryFiles) -> None:
        self.intents: set[str] = set()
        self.actions: set[str] = set()
        self.entities: set[str] = set()
        self.slots: set[str] = set()
        for step in files.steps:
            self.slots.update(slot for start in step.starts for slot in start.conditions)
            for event in step.events:
                if isinstance(event, UserUttered):
                    self.intents.add(event.intent_name or "")
                    self.entities.update(entity["entity"] for entity in event.entities)
                    self.slots.update(name for name, _ in domain.slots_from_entities(event.entities))
                elif isinstance(event, SlotSet):
                    self.slots.add(event.key)
                elif isinstance(event, (ActionExecuted, FollowupAction)):
                    self.actions.add(event.action_name)


def check_contradictions(domain: Domain, files: StoryFiles, history: int = HISTORY) -> list[Finding]:
    """Situations in which stories go on differently, with the stories side by side."""
    blocks = {step.block_name: step.place for step in reversed(files.steps)}
    settings = Settings(augmentation_factor=0, unique_last_num_states=history)
    data = generate(files.steps, domain, settings)
    found = []
    for window, continuations in _branches(data, history):
        shown = []
        for action, names in continuations.items():
            listing = " and ".join(f"{name!r} ({blocks[name]})" for name in names[:_SHOWN] if name in blocks)
            shown.append(f"{action!r} in {listing}")
        last = data.contexts.states[window[-1]] if window[-1] != PADDING else {}
        heard = ", ".join(name for name in last if name.startswith(("intent_", "prev_"))) or "the beginning"
        place = blocks.get(next(iter(continuations.values()))[0], Place())
        message = f"after {heard} the stories go on differently: {' but '.join(shown)}"
        remedy = f"make the last {history} states differ (a slot, an earlier message) or agree on one continuation"
        found.append(Finding("error", "contradiction", place, message, remedy))
    return found


def _branches(data: TrainingData, history: int) -> Iterator[tuple[tuple[int, ...], Mapping[str, Sequence[str]]]]:
    """Windows with several continuations: each action, and the blocks it comes from."""
    sequences = data.sequences
    owners: dict[tuple[int, ...], dict[str, list[str]]] = {}
    for dialogue in data.dialogues:
        blocks = dialogue.blocks_of_actions()
        for node, block in zip(sequences.turns(dialogue.turns), blocks, strict=True):
            if sequences.unpredictable(node):
                continue
            states = sequences.window(node, history)
            key = (PADDING,) * (history - len(states)) + states
            names = owners.setdefault(key, {}).setdefault(sequences.action(node), [])
            if block not in names:
                names.append(block)
    for key, continuations in owners.items():
        if len(continuations) > 1:
            yield key, continuations
