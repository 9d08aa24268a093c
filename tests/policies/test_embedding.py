"""EmbeddingPolicy: model directories, whole dialogues, and what was recorded of the real one."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rasa_core_api.domain import Domain
from rasa_core_api.events import Event
from rasa_core_api.events.reading import EventReader
from rasa_core_api.exceptions import UnsupportedModel
from rasa_core_api.models.loader import load_generation
from rasa_core_api.policies import embedding
from rasa_core_api.policies.embedding import EmbeddingPolicy
from rasa_core_api.policies.policy import LoadContext
from rasa_core_api.states import StateNode
from rasa_core_api.trackers import Tracker
from tests.legacy import writers
from tests.policies.embedding_samples import CELL, random_values, reference
from tests.samples import LOGS, action, domain, user

BOT = domain("0.14")
_USER = [name for name in BOT.states if name.startswith(("intent_", "entity_"))]
_SLOTS = [name for name in BOT.states if name.startswith("slot_")]


def vocabulary(labels: list[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(sorted({t for label in labels for t in label.split("_")}))}


USER_WORDS, BOT_WORDS = vocabulary(_USER), vocabulary(list(BOT.action_names))
FEATURIZER = {
    "py/object": "rasa_core.featurizers.FullDialogueTrackerFeaturizer",
    "max_len": 12,
    "use_intent_probabilities": False,
    "state_featurizer": {
        "py/object": "rasa_core.featurizers.LabelTokenizerSingleStateFeaturizer",
        "user_labels": _USER, "slot_labels": _SLOTS, "bot_labels": list(BOT.action_names),
        "user_vocab": USER_WORDS, "bot_vocab": BOT_WORDS, "use_shared_vocab": False, "split_symbol": "_",
        "user_feature_len": len(USER_WORDS), "slot_feature_len": len(_SLOTS),
        "num_features": len(USER_WORDS) + len(_SLOTS) + len(BOT_WORDS),
    },
}  # fmt: skip
VALUES, BIAS = random_values(6, len(USER_WORDS), len(_SLOTS), len(BOT_WORDS), copying=0.3)
CONTEXT = LoadContext(domain=BOT)
MATRIX = np.array([[float(word in name.split("_")) for word in BOT_WORDS] for name in BOT.action_names])


def write(directory: Path) -> Path:
    """A policy's directory as TensorFlow wrote it."""
    directory.mkdir(exist_ok=True)
    (directory / "featurizer.json").write_text(json.dumps(FEATURIZER))
    writers.tensor_bundle(directory / embedding.STEM, {**VALUES, "embed_layer_a/kernel/Adam": np.zeros(3, np.float32)})
    prefix = "rnn_decoder/while/" + CELL
    nodes = [
        writers.constant("other/add/y", BIAS),
        writers.constant(f"{prefix}add/y", BIAS),
        writers.constant(f"{prefix}add_1/y", -BIAS),
        writers.constant("l2_normalize/Maximum/y", np.array(1e-12, np.float32)),
    ]
    (directory / f"{embedding.STEM}.meta").write_bytes(writers.graph(*nodes))
    return directory


@pytest.fixture
def policy(tmp_path: Path) -> EmbeddingPolicy:
    return EmbeddingPolicy.load(write(tmp_path / "policy"), CONTEXT)


def rows_of(policy: EmbeddingPolicy, tracker: Tracker) -> np.ndarray:
    rows: list[np.ndarray] = []
    node: StateNode | None = tracker.newest_state()
    while node is not None:
        row = np.zeros(policy.network.width)
        for column, value in policy.featurizer.row(node).items():
            row[column] = value
        rows.insert(0, row)
        node = node.previous
    return np.array(rows)


def expected(policy: EmbeddingPolicy, rows: np.ndarray) -> list[float]:
    listen = BOT.action_names.index("action_listen")
    return reference(VALUES, BIAS, rows, len(USER_WORDS), len(_SLOTS), MATRIX, listen)[0]


def test_loading(tmp_path: Path) -> None:
    """The priority of 0.14 is read; 0.11 stores none."""
    directory = write(tmp_path / "policy")
    assert EmbeddingPolicy.load(directory, CONTEXT).priority == 1
    (directory / "embedding_policy.json").write_text('{"priority": 4}')
    assert EmbeddingPolicy.load(directory, CONTEXT).priority == 4


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LOGS, st.lists(st.booleans(), min_size=40, max_size=40))
def test_whole_dialogue(policy: EmbeddingPolicy, log: list[Event], asks: list[bool]) -> None:
    """Whatever was predicted before, taken back or left out, all states count as if they were seen at once."""
    tracker = Tracker("u", BOT)
    for event, asked in itertools.zip_longest(log, asks[: len(log)], fillvalue=False):
        assert isinstance(event, Event)
        tracker.update(event)
        if asked:
            policy.predict(tracker, BOT)
    if tracker.newest_state() is not None:
        scores = policy.predict(tracker, BOT).to_list()
        assert scores == pytest.approx(expected(policy, rows_of(policy, tracker)), abs=1e-4)


def long_dialogue(turns: int) -> list[Event]:
    events: list[Event] = [action("action_listen")]
    for turn in range(turns):
        events += [user(("greet", "bye", "inform")[turn % 3]), action(("utter_hi", "utter_bye")[turn % 2])]
        events.append(action("action_listen"))
    return events


def test_long_dialogues(policy: EmbeddingPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long dialogue the last one or two blocks of states count, whether it was followed or read at once."""
    monkeypatch.setattr(embedding, "BLOCK", 8)
    followed = Tracker("u", BOT)
    for number, event in enumerate(long_dialogue(30)):
        followed.update(event)
        scores = policy.predict(followed, BOT).to_list()
        if number % 7 == 0:
            rows = rows_of(policy, followed)
            begin = max(0, ((len(rows) - 1) // 8 - 1) * 8)
            assert scores == pytest.approx(expected(policy, rows[begin:]), abs=1e-4)
            at_once = Tracker("u", BOT)
            for item in long_dialogue(30)[: number + 1]:
                at_once.update(item)
            assert policy.predict(at_once, BOT).to_list() == pytest.approx(scores, abs=1e-6)


def test_work_of_a_turn(policy: EmbeddingPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn goes on from the one before it: at most one step of the network an event, however long the dialogue."""
    steps = 0
    step = policy.network.step

    def counting(*arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        return step(*arguments)

    monkeypatch.setattr(policy.network, "step", counting)
    tracker = Tracker("u", BOT)
    events = long_dialogue(60)
    for event in events:
        tracker.update(event)
        policy.predict(tracker, BOT)
    assert steps <= len(events) + 1


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("featurizer.json", None),
        ("featurizer.json", b"{}"),
        ("featurizer.json", json.dumps({**FEATURIZER, "state_featurizer": None}).encode()),
        ("tensorflow_embedding.ckpt.index", None),
        ("tensorflow_embedding.ckpt.index", b"nothing"),
        ("tensorflow_embedding.ckpt.data-00000-of-00001", None),
        ("tensorflow_embedding.ckpt.data-00000-of-00001", b"\0" * 50),
        ("tensorflow_embedding.ckpt.meta", None),
        ("tensorflow_embedding.ckpt.meta", b""),
        ("tensorflow_embedding.ckpt.meta", b"\xff" * 9),
    ],
)
def test_broken_models(tmp_path: Path, file: str, content: bytes | None) -> None:
    """A file that is missing or damaged is named."""
    path = write(tmp_path / "policy") / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(UnsupportedModel, match=file):
        EmbeddingPolicy.load(path.parent, CONTEXT)


def test_other_domains(tmp_path: Path) -> None:
    """A domain whose actions need words that the model does not know is still served; another layout is refused."""
    directory = write(tmp_path / "policy")
    other = domain("0.14", actions=["utter_hi", "utter_bye", "action_search", "utter_unheard"])
    loaded = EmbeddingPolicy.load(directory, LoadContext(domain=other))
    tracker = Tracker("u", other)
    tracker.update(action("action_listen"))
    assert len(loaded.predict(tracker, other).to_list()) == len(other.action_names)
    changed = json.loads(json.dumps(FEATURIZER))
    changed["state_featurizer"]["slot_labels"].append("slot_new_0")
    del changed["state_featurizer"]["num_features"]
    (directory / "featurizer.json").write_text(json.dumps(changed))
    with pytest.raises(UnsupportedModel, match="features of user, slots and bot"):
        EmbeddingPolicy.load(directory, CONTEXT)


@pytest.mark.conformance
@pytest.mark.parametrize(
    ("model", "transcript"),
    [
        ("rasa-core-0.11.12/cafe-embedding", "cafe-embedding"),
        ("rasa-core-0.14.5/hotel-embedding", "hotel14-embedding"),
    ],
)
def test_recordings(conformance: Path, model: str, transcript: str) -> None:
    """The scores that the real releases answered are reproduced to 1e-6."""
    generation = load_generation(conformance / "models" / model)
    policy = next(item for item in generation.ensemble.policies if isinstance(item, EmbeddingPolicy))
    compared = 0
    for line in (conformance / "transcripts" / f"{transcript}.jsonl").read_text().splitlines():
        for step in json.loads(line)["steps"]:
            answer = step["answer"]
            if not step["path"].endswith("/predict") or "EmbeddingPolicy" not in str(answer.get("policy")):
                continue
            tracker = _tracker(generation.domain, answer["tracker"]["events"])
            scores = np.array(policy.predict(tracker, generation.domain).to_list())
            found = dict(zip(generation.domain.action_names, scores / scores.sum(), strict=True))
            assert found == pytest.approx({item["action"]: item["score"] for item in answer["scores"]}, abs=1e-6)
            compared += 1
    assert compared


def _tracker(bot: Domain, events: list[Any]) -> Tracker:
    count = itertools.count()
    reader = EventReader(lambda: float(next(count)), lambda: "id")
    tracker = Tracker("u", bot)
    for event in reader.read_list(events):
        tracker.update(event)
    return tracker
