"""A trained model goes on learning from a conversation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rasa_core_api.events.reading import EventReader
from rasa_core_api.exceptions import InvalidParameter, TrainingFailed
from rasa_core_api.models.generation import Generation
from rasa_core_api.models.loader import load_generation
from rasa_core_api.trackers import Tracker
from rasa_core_api.train import main
from rasa_core_api.training.finetuning import answer_to, finetune
from rasa_core_api.training.kept import KeptPolicy, read_kept, write_kept
from rasa_core_api.training.learners.continuing import merged
from rasa_core_api.training.learners.network import Matrix
from rasa_core_api.training.learning_apart import KEPT_FILE, Lesson, Task

DOMAIN = """
intents: [greet, bye, chat, inform]
slots: {requested_slot: {type: unfeaturized}}
actions: [utter_greet, utter_bye, utter_chat]
forms: [book]
"""
STORIES = """
## hello
* greet
  - utter_greet
* bye
  - utter_bye

## chat
* chat
  - utter_chat
* bye
  - utter_bye
"""
EVERY = """
policies:
- name: MemoizationPolicy
  max_history: 3
- name: KerasPolicy
  epochs: 150
  max_history: 3
- name: SklearnPolicy
  max_history: 2
- name: FormPolicy
- name: FallbackPolicy
"""
WHOLE = """
policies:
- name: KerasPolicy
  epochs: 200
  featurizer:
  - name: FullDialogueTrackerFeaturizer
    state_featurizer:
    - name: LabelTokenizerSingleStateFeaturizer
- name: FormPolicy
"""
LISTEN = {"event": "action", "name": "action_listen"}


def said(intent: str | None, *actions: str) -> list[dict[str, Any]]:
    data = {"intent": {"name": intent, "confidence": 0.7}, "entities": [], "text": "x"}
    return [
        {"event": "user", "text": "x", "parse_data": data},
        *({"event": "action", "name": action} for action in actions),
    ]


#: Against the stories; the bot was about to go on.
CORRECTED = [LISTEN, *said("greet", "utter_chat")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A model for a policy file, trained once."""
    place, known = tmp_path_factory.mktemp("bot"), dict[str, Path]()
    (place / "domain.yml").write_text(DOMAIN)
    (place / "stories.md").write_text(STORIES)

    def train(policies: str) -> Path:
        if policies not in known:
            file, model = place / "policies.yml", place / f"model-{len(known)}"
            file.write_text(policies)
            files = ["-d", str(place / "domain.yml"), "-s", str(place / "stories.md"), "-c", str(file)]
            assert main([*files, "-o", str(model), "--augmentation", "0", "--quiet", "--no_check"]) == 0
            known[policies] = model
        return known[policies]

    return train


def learn(model: Path, log: list[dict[str, Any]], into: Path, **options: int) -> dict[str, Any]:
    lesson = Lesson(directory=model, fingerprint=load_generation(model).fingerprint, into=into, **options)
    return finetune(lesson, EventReader(lambda: 0.0, lambda: "id").read_list(log))


def choices(model: Generation, log: list[dict[str, Any]]) -> dict[str, str]:
    """What each policy that says anything would do."""
    tracker = Tracker("s", model.domain)
    tracker.extend(EventReader(lambda: 0.0, lambda: "id").read_list(log))
    scores = {policy.name: policy.predict(tracker, model.domain).to_list() for policy in model.ensemble.policies}
    names = model.domain.action_names
    return {name: names[found.index(max(found))] for name, found in scores.items() if max(found) > 0}


@pytest.mark.parametrize("policies", [EVERY, WHOLE], ids=["every", "whole dialogues"])
def test_learns_against_the_stories(trained: Callable[[str], Path], policies: str, tmp_path: Path) -> None:
    """What a conversation did is what every policy does from then on; what it did not touch stays."""
    old = trained(policies)
    before = {file: file.read_bytes() for file in old.rglob("*") if file.is_file()}
    learnt = learn(old, CORRECTED, tmp_path / "new", epochs=60)
    model = load_generation(tmp_path / "new")
    learners = {name.split("_")[-1] for name in learnt} - {"FormPolicy"}
    told = choices(model, [LISTEN, *said("greet")])
    assert {name: told[name] for name in learners} == dict.fromkeys(learners, "utter_chat")
    kept = choices(model, [LISTEN, *said("chat", "utter_chat", "action_listen"), *said("bye")])
    assert {name: kept[name] for name in learners} == dict.fromkeys(learners, "utter_bye")
    assert {file: file.read_bytes() for file in old.rglob("*") if file.is_file()} == before
    assert model.fingerprint != load_generation(old).fingerprint
    assert json.loads((tmp_path / "new" / "training_report.json").read_text())["finetuned"]["conversations"] == 1


def test_learns_on(trained: Callable[[str], Path], tmp_path: Path) -> None:
    """A second conversation is learnt on top of the first."""
    learn(trained(EVERY), CORRECTED, tmp_path / "one", epochs=60)
    learn(tmp_path / "one", [LISTEN, *said("chat", "utter_bye", "action_listen")], tmp_path / "two", epochs=60)
    model = load_generation(tmp_path / "two")
    for intent, action in (("greet", "utter_chat"), ("chat", "utter_bye")):
        told = choices(model, [LISTEN, *said(intent)])
        assert (told["MemoizationPolicy"], told["KerasPolicy"]) == (action, action)
    report = json.loads((tmp_path / "two" / "training_report.json").read_text())
    assert report["finetuned"]["conversations"] == 2


def test_goes_on_where_the_conversation_goes_on(trained: Callable[[str], Path], tmp_path: Path) -> None:
    """A listen is learnt where the conversation came to one, and not where it was cut off."""
    for log, expected in ((CORRECTED, None), ([*CORRECTED, LISTEN], "action_listen")):
        learn(trained(EVERY), log, tmp_path / "new")
        model = load_generation(tmp_path / "new")
        assert choices(model, CORRECTED).get("MemoizationPolicy") == expected
        shutil.rmtree(tmp_path / "new")


def test_unhappy_paths(trained: Callable[[str], Path], tmp_path: Path) -> None:
    """A form that was left for another action is remembered by the form policy, as from a story."""
    form, chat = {"event": "form", "name": "book"}, said("chat")[0]
    rejected = {"event": "action_execution_rejected", "name": "book"}
    log = [LISTEN, *said("inform", "book"), form, LISTEN, chat, rejected, *said("x", "utter_chat", "book")[1:], LISTEN]
    learnt = learn(trained(EVERY), log, tmp_path / "new")
    assert learnt["policy_3_FormPolicy"]["new"] > 0
    now = [LISTEN, *said("inform", "book"), form, LISTEN, chat, rejected]
    assert choices(load_generation(trained(EVERY)), now)["FormPolicy"] == "book"
    assert "FormPolicy" not in choices(load_generation(tmp_path / "new"), now)


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ([], "no action that follows"),
        ([LISTEN], "no action that follows"),
        ([LISTEN, *said("greet")], "no action that follows"),
        ([LISTEN, *said("greet", "utter_gone")], "'utter_gone', which is no action"),
        ([LISTEN, *said(None, "utter_bye")], "a message has no intent"),
        ([*CORRECTED, {"event": "restart"}], "no action that follows"),
    ],
)
def test_nothing_to_learn(trained: Callable[[str], Path], log: Any, message: str, tmp_path: Path) -> None:
    """A conversation that holds nothing to learn is refused with the reason."""
    with pytest.raises(InvalidParameter, match=message):
        learn(trained(EVERY), log, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_models_that_changed(trained: Callable[[str], Path], tmp_path: Path) -> None:
    """A directory that holds another model by now, or no training data, or broken ones, is not learnt from."""
    model = shutil.copytree(trained(EVERY), tmp_path / "model")
    events = EventReader(lambda: 0.0, lambda: "id").read_list(CORRECTED)
    with pytest.raises(TrainingFailed, match="have changed"):
        finetune(Lesson(directory=model, fingerprint="other", into=tmp_path / "new"), events)
    for content in (b"PK\3\4 no zip", write_kept([]), write_kept([KeptPolicy("X", {})])):
        (model / KEPT_FILE).write_bytes(content)
        with pytest.raises(TrainingFailed, match=KEPT_FILE):
            learn(model, CORRECTED, tmp_path / "new")
    (model / KEPT_FILE).unlink()
    with pytest.raises(TrainingFailed, match="keeps no training data"):
        learn(model, CORRECTED, tmp_path / "new")


def test_kept_data(tmp_path: Path) -> None:
    """Examples are kept as they are; numbers that fit no row are refused."""
    table = np.array([[0, 1], [1, 0.5], [-1, -1]], np.float32)
    matrix = Matrix(table, np.array([[-1, 0], [0, 1]], np.int32), np.array([1, 2]))
    path = tmp_path / KEPT_FILE
    path.write_bytes(write_kept([KeptPolicy("FormPolicy", {"a": None}), KeptPolicy("KerasPolicy", {}, matrix)]))
    form, network = read_kept(path)
    assert form == KeptPolicy("FormPolicy", {"a": None}) and network.examples is not None
    assert (network.examples.table == table).all() and network.examples.labels.tolist() == [1, 2]
    broken = Matrix(table, np.array([[7, 0]], np.int32), np.array([1]))
    path.write_bytes(write_kept([KeptPolicy("KerasPolicy", {}, broken)]))
    with pytest.raises(TrainingFailed, match="without a row"):
        read_kept(path)


def test_newer_examples_win() -> None:
    """An old example with the same states is left out; the rows of both stay what they were."""
    pad = [-1.0, -1.0]
    old = Matrix(np.array([[0, 0], [1, 0], pad], np.float32), np.array([[-1, 0], [0, 1]], np.int32), np.array([1, 2]))
    new = Matrix(np.array([[1, 0], [0, 0], pad], np.float32), np.array([[1, 0]], np.int32), np.array([3]))
    both, fresh = merged(old, new)
    assert both.labels.tolist() == [1, 3] and fresh.tolist() == [1]
    assert both.table[both.inputs].tolist() == [[pad, [0, 0]], [[0, 0], [1, 0]]]


def test_process(trained: Callable[[str], Path], tmp_path: Path) -> None:
    """The process answers with what was learnt, or with the reason and whose fault it is."""
    model = trained(EVERY)
    events = tmp_path / "events"
    events.write_text("".join(json.dumps(event) + "\n" for event in CORRECTED))
    fingerprint = load_generation(model).fingerprint
    task = Task(Lesson(directory=model, fingerprint=fingerprint, into=tmp_path / "new", epochs=3), events)
    assert answer_to(task.as_json())["learnt"]["policy_0_MemoizationPolicy"]["new"] == 1
    events.write_text(json.dumps(LISTEN) + "\n")
    task = Task(Lesson(directory=model, fingerprint=fingerprint, into=tmp_path / "newer"), events)
    assert answer_to(task.as_json())["invalid"] is True
    task = Task(Lesson(directory=model, fingerprint="other", into=tmp_path / "newer"), events)
    assert answer_to(task.as_json()) == {"error": "the model's files have changed since it was loaded"}
