"""Learning from one more conversation: a trained model in, the model that also knows the conversation out.

The conversation counts as the story that it would be exported as. Memories take its turns, and where the stories
went on differently, what the conversation did. Networks take some steps on its turns among others of before.
As a program (`python -m rasa_core_api.training.finetuning`) it does one task for `training/learning_apart.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from attrs import evolve

from rasa_core_api.constants import ACTION_LISTEN, JSON
from rasa_core_api.domain import Domain
from rasa_core_api.events import ActionExecuted, Event, UserUttered
from rasa_core_api.events.reading import EventReader
from rasa_core_api.exceptions import InvalidParameter, InvalidTrainingData, RasaCoreError, TrainingFailed
from rasa_core_api.featurizers import StateEncoder, featurizer_from_json
from rasa_core_api.interpreter import RegexInterpreter
from rasa_core_api.legacy.keras_hdf5 import read_model
from rasa_core_api.models.layout import PolicyEntry, read_layout
from rasa_core_api.models.loader import fingerprint_of, load_domain
from rasa_core_api.models.persisting import REPORT_FILE
from rasa_core_api.policies.files import read_json, require_json
from rasa_core_api.policies.memoization import read_memory, write_key
from rasa_core_api.slots import ClassFinder, refuse_classes
from rasa_core_api.trackers import Tracker
from rasa_core_api.training.examples import PADDING, windows
from rasa_core_api.training.generator import Progress, Settings, TrainingData, generate
from rasa_core_api.training.kept import KeptPolicy, read_kept, write_kept
from rasa_core_api.training.learners.memoization import memorize_forms
from rasa_core_api.training.learners.network import Matrix
from rasa_core_api.training.learning_apart import KEPT_FILE, Lesson, Task
from rasa_core_api.training.pipeline import MEMORY_FILE, NETWORK_FILE, REGRESSION_FILE, logistic_settings
from rasa_core_api.training.story_reader import StoryReader
from rasa_core_api.training.story_writer import story_of
from rasa_core_api.trusted import class_finder

SEED = 42

_MEMORY = 4 << 30  # bytes of address space


def finetune(
    lesson: Lesson,
    events: Iterable[Event],
    find_class: ClassFinder = refuse_classes,
    progress: Progress = lambda share, what: None,
) -> dict[str, JSON]:
    """Write the model that also knows the conversation; the result says what was learnt, a member a policy.

    Raises `InvalidParameter` where the conversation is the reason, else `TrainingFailed` or `UnsupportedModel`.
    """
    layout = read_layout(lesson.directory)
    if fingerprint_of(layout.root) != lesson.fingerprint:
        raise TrainingFailed("the model's files have changed since it was loaded")
    kept = read_kept(layout.root / KEPT_FILE)
    if [policy.name for policy in kept] != [entry.path.rpartition(".")[2] for entry in layout.policies]:
        raise TrainingFailed(f"{KEPT_FILE} is not that of this model")
    domain = load_domain(layout, find_class)
    data = conversation(events, domain)
    shutil.copytree(layout.root, lesson.into)
    learnt: dict[str, JSON] = {}
    now = []
    for number, (policy, entry) in enumerate(zip(kept, layout.policies, strict=True)):
        learn = _LEARNERS.get(policy.name)
        if learn is None:
            now.append(policy)
            continue
        there = evolve(entry, directory=lesson.into / entry.directory.relative_to(layout.root))
        changed, report = learn(lesson, policy, there, data, progress)
        now.append(changed)
        learnt[f"policy_{number}_{policy.name}"] = report
    (lesson.into / KEPT_FILE).write_bytes(write_kept(now))
    _report(lesson.into / REPORT_FILE, learnt)
    return learnt


def _report(path: Path, learnt: Mapping[str, JSON]) -> None:
    report = read_json(path) or {}
    count = report.get("finetuned", {}).get("conversations", 0) if isinstance(report.get("finetuned"), dict) else 0
    report["finetuned"] = {"conversations": count + 1, "last": learnt}
    path.write_text(json.dumps(report, indent=2), "ascii")


def conversation(events: Iterable[Event], domain: Domain) -> TrainingData:
    """What there is to learn of a conversation. Raises `InvalidParameter` where that is nothing, or it makes no story.

    The listen that ends a story is only learnt where the conversation had come to one.
    """
    tracker = Tracker("finetune", domain)
    tracker.extend(events)
    applied = tracker.applied_events()
    actions = [event.action_name for event in applied if isinstance(event, ActionExecuted)]
    for name in actions:
        if name not in domain.action_index:
            raise _unusable(f"it runs {name!r}, which is no action of the domain")
    for event in applied:
        if isinstance(event, UserUttered) and not event.intent_name:
            raise _unusable("a message has no intent")
    heard = next((number for number, event in enumerate(applied) if isinstance(event, UserUttered)), len(applied))
    if not any(isinstance(event, ActionExecuted) for event in applied[heard:]):
        raise _unusable("it has no action that follows a message")
    reader = StoryReader(domain.release, RegexInterpreter(domain.release).parse_sync)
    try:
        reader.read_text(story_of("conversation", applied), "conversation")
        data = generate(reader.files.steps, domain, Settings(augmentation_factor=0))
    except InvalidTrainingData as error:
        raise _unusable(str(error)) from error
    if actions and actions[-1] != ACTION_LISTEN:
        parent = data.sequences.parent
        data.dialogues = [evolve(dialogue, turns=parent[dialogue.turns]) for dialogue in data.dialogues]
    return data


def _unusable(reason: str) -> InvalidParameter:
    return InvalidParameter(
        f"Supplied events are not valid. There is nothing to learn from this conversation: {reason}",
        parameter="",
        **{"in": "body"},
    )


_Learner = Callable[[Lesson, KeptPolicy, PolicyEntry, TrainingData, Progress], tuple[KeptPolicy, JSON]]


def _remember(
    lesson: Lesson, policy: KeptPolicy, entry: PolicyEntry, data: TrainingData, progress: Progress
) -> tuple[KeptPolicy, JSON]:
    history, actions = _history(entry), data.domain.action_index
    texts = data.contexts.text
    turns: dict[str, JSON] = {
        f"[{', '.join('null' if state == PADDING else texts(state) for state in window)}]": actions[action]
        for window, action in windows(data, history)
    }
    return policy, _write_turns(entry.directory / MEMORY_FILE, turns)


def _remember_forms(
    lesson: Lesson, policy: KeptPolicy, entry: PolicyEntry, data: TrainingData, progress: Progress
) -> tuple[KeptPolicy, JSON]:
    return policy, _write_turns(entry.directory / MEMORY_FILE, memorize_forms(data))


def _history(entry: PolicyEntry) -> int:
    if entry.max_history is None:
        raise TrainingFailed(f"{entry.path}: the model does not say how many states it looks at")
    return entry.max_history


def _write_turns(path: Path, turns: Mapping[str, JSON]) -> JSON:
    lookup, rest = read_memory(path)
    fresh = sum(lookup.get(key) != value for key, value in turns.items())
    lookup.update(turns)
    content = {**rest, "lookup": {write_key(key): value for key, value in lookup.items()}}
    path.write_text(json.dumps(content, indent=2), "ascii")
    return {"turns": len(lookup), "new": fresh}


def _train_network(
    lesson: Lesson, policy: KeptPolicy, entry: PolicyEntry, data: TrainingData, progress: Progress
) -> tuple[KeptPolicy, JSON]:
    from rasa_core_api.training.learners.continuing import learn_on, merged, network_of
    from rasa_core_api.training.learners.keras_file import keras_model
    from rasa_core_api.training.learners.network import dialogue_matrix, window_matrix

    old, encoder = _examples(policy), _encoder(entry, data.domain)
    history = entry.max_history
    new = dialogue_matrix(data, encoder) if history is None else window_matrix(data, encoder, history)
    matrix, fresh = merged(old, new)
    path = entry.directory / NETWORK_FILE
    network = network_of(read_model(path))
    seed = SEED if policy.options.get("random_seed") is None else policy.options["random_seed"]
    right = learn_on(
        network, matrix, fresh, epochs=lesson.epochs, batch_size=lesson.batch_size, random_seed=seed, progress=progress
    )
    path.write_bytes(keras_model(network, history, plain_layers=not data.domain.release.has_forms))
    return evolve(policy, examples=matrix), {"examples": len(matrix.inputs), "accuracy": round(right, 6)}


def _train_regression(
    lesson: Lesson, policy: KeptPolicy, entry: PolicyEntry, data: TrainingData, progress: Progress
) -> tuple[KeptPolicy, JSON]:
    from rasa_core_api.training.learners.continuing import merged, stressed
    from rasa_core_api.training.learners.logistic import fit_logistic
    from rasa_core_api.training.learners.network import window_matrix

    new = window_matrix(data, _encoder(entry, data.domain), _history(entry))
    matrix, fresh = merged(_examples(policy), new)
    fitted = fit_logistic(stressed(matrix, fresh), logistic_settings(policy.options), progress)
    (entry.directory / REGRESSION_FILE).write_bytes(fitted.as_npz())
    return evolve(policy, examples=matrix), {"examples": len(matrix.inputs), "accuracy": round(fitted.accuracy, 6)}


def _examples(policy: KeptPolicy) -> Matrix:
    if policy.examples is None:
        raise TrainingFailed(f"{KEPT_FILE} has no examples of the {policy.name}")
    return policy.examples


def _encoder(entry: PolicyEntry, domain: Domain) -> StateEncoder:
    encoder = featurizer_from_json(require_json(entry.directory / "featurizer.json"), domain).encoder
    if encoder is None:
        raise TrainingFailed(f"{entry.path}: its featurizer makes no numbers of states")
    return encoder


_LEARNERS: Mapping[str, _Learner] = {
    "MemoizationPolicy": _remember,
    "AugmentedMemoizationPolicy": _remember,
    "FormPolicy": _remember_forms,
    "KerasPolicy": _train_network,
    "SklearnPolicy": _train_regression,
}


# --- the process -----------------------------------------------------------------------------------------


def learn(task: Task) -> dict[str, JSON]:
    """Do the task here. Raises as `finetune` does."""
    with task.events.open(encoding="ascii") as lines:
        events = EventReader(lambda: 0.0, lambda: "").read_list([json.loads(line) for line in lines])
    return finetune(task.lesson, events, class_finder(task.trusted_modules))


def answer_to(data: JSON) -> dict[str, JSON]:
    """What the process says to a task."""
    try:
        return {"learnt": learn(Task.from_json(data))}
    except InvalidParameter as error:
        return {"error": str(error), "invalid": True}
    except RasaCoreError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "it needs too much memory"}
    except OSError as error:
        return {"error": f"the new model cannot be written: {error.strerror}"}


def _limit_resources() -> None:
    try:
        import resource
    except ImportError:  # no such limits on this system
        return
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(10)


if __name__ == "__main__":
    _limit_resources()
    sys.stdout.write(json.dumps(answer_to(json.loads(sys.stdin.buffer.read()))))
