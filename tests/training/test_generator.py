"""Training dialogues are those that the releases generate."""

from __future__ import annotations

import pytest

from rasa_core_api.events import ActionExecuted
from rasa_core_api.exceptions import InvalidTrainingData
from rasa_core_api.training.examples import action_fingerprints, dialogues, windows
from rasa_core_api.training.generator import Dialogue, TrainingData, applied_events
from tests.training.helpers import generated


def actions(dialogue: Dialogue) -> str:
    names = [event.action_name for event in applied_events(dialogue.events()) if isinstance(event, ActionExecuted)]
    return " ".join("-" if name == "action_listen" else name for name in names)


def all_actions(data: TrainingData) -> list[str]:
    return sorted(actions(dialogue) for dialogue in data.dialogues)


def test_worked_example() -> None:
    """States and actions of one story are those of the published example."""
    slots = "{city: {type: text}, ok: {type: bool}}"
    domain = f"{{intents: [greet, bye], entities: [city], slots: {slots}, actions: [utter_hi]}}"
    data = generated('## s\n* greet{"city": "rome"}\n- utter_hi\n', "0.11", domain=domain, history=2)
    heard = {"entity_city": 1.0, "intent_greet": 1.0, "slot_city_0": 1.0}
    second, third = {**heard, "prev_action_listen": 1.0}, {**heard, "prev_utter_hi": 1.0}
    states = [None if number < 0 else data.contexts.states[number] for number in (-1, 0)]
    found = [
        ([None if number < 0 else data.contexts.states[number] for number in window], action)
        for window, action in windows(data, 2)
    ]
    assert states == [None, {}]
    assert found == [
        ([None, {}], "action_listen"),
        ([{}, second], "utter_hi"),
        ([second, third], "action_listen"),
    ]


def test_conditions() -> None:
    """A story goes on from a checkpoint only where the slots are as it demands."""
    stories = (
        '## one\n* a\n- slot{"t": true}\n- u1\n> x\n## two\n* b\n- u2\n> x\n'
        '## yes\n> x{"t": true}\n* c\n- u3\n## no\n> x{"t": null}\n* d\n- u4\n'
    )
    assert all_actions(generated(stories)) == ["- u1 - u3 -", "- u2 - u4 -"]


def test_cycle() -> None:
    """A checkpoint that leads back to itself is followed a few times, as by 0.14.5, not for ever."""
    data = generated("## one\n* a\n- u1\n> x\n## loop\n> x\n* b\n- u2\n> x\n## end\n> x\n* c\n- u3\n", history=5)
    assert all_actions(data) == [
        "- u1 - u2 - u2 - u2 - u3 -",
        "- u1 - u2 - u2 - u3 -",
        "- u1 - u2 - u3 -",
        "- u1 - u3 -",
    ]


def test_unreached_checkpoint() -> None:
    """A checkpoint that nothing leads to is reported; its stories are left out."""
    data = generated("## one\n* a\n- u1\n## two\n> nowhere\n* b\n- u2\n")
    assert data.unreached == ["nowhere"]
    assert all_actions(data) == ["- u1 -"]


def test_concatenation() -> None:
    """Augmentation joins stories end to end; the listen between them occurs once."""
    data = generated("## one\n* a\n- u1\n## two\n* b\n- u2\n", factor=5, history=4)
    joined = [actions(dialogue) for dialogue in data.dialogues if dialogue.is_augmented]
    assert "- u1 - u2 -" in joined and "- u2 - u1 -" in joined
    assert [actions(dialogue) for dialogue in data.dialogues if not dialogue.is_augmented] == ["- u1 -", "- u2 -"]
    assert not any(dialogue.is_augmented for dialogue in generated("## s\n* a\n- u1\n").dialogues)
    data = generated("## one\n* a\n- u1\n## two\n* b\n- u2\n", factor=5, use_story_concatenation=False)
    assert all_actions(data) == ["- u1 -", "- u2 -"]


def test_repeatable() -> None:
    """The same stories give the same dialogues in the same order."""
    stories = "".join(f"## s{i}\n* {'abcd'[i % 4]}\n- u{i % 3 + 1}\n* {'abcd'[i // 2]}\n- u4\n" for i in range(8))
    first, second = (generated(stories, "0.13", factor=20) for _ in range(2))
    assert [actions(dialogue) for dialogue in first.dialogues] == [actions(dialogue) for dialogue in second.dialogues]


@pytest.mark.parametrize(("release", "also"), [("0.14", ["- u1 u2", "- u1 u3 -"]), ("0.11", ["- u1 u2", "- u1 u3 -"])])
def test_undo(release: str, also: list[str]) -> None:
    """Before something is taken back the dialogue also ends; afterwards it goes on without it."""
    assert all_actions(generated("## s\n* a\n- u1\n- u2\n- undo\n- u3\n", release)) == also


def test_rewind_and_restart() -> None:
    """A rewind forgets the message, a restart everything."""
    assert all_actions(generated("## s\n* a\n- u1\n* b\n- rewind\n* c\n- u2\n")) == ["- u1 -", "- u1 - u2 -"]
    assert all_actions(generated('## s\n* a\n- slot{"t": true}\n- u1\n- restart\n* c\n- u2\n')) == ["- u1", "- u2 -"]


def test_left_out_listens() -> None:
    """What consists of left out listens alone is a story of 0.11 where it ends, and leads nowhere."""
    assert all_actions(generated("## s\n* a OR b\n- action_listen\n", "0.11")) == ["- -", "- -"]
    text = "## s\n- action_listen\n> x\n## t\n> x\n* b\n- u2\n"
    assert all_actions(generated(text, "0.11")) == []
    assert all_actions(generated(text, "0.14")) == ["- - u2 -"]


def test_names() -> None:
    """A dialogue is named by its blocks, each once, from where it was joined on."""
    text = "## one\n* a\n> x\n## two\n> x\n* b\n- u1\n> y\n## one\n> y\n* c\n- undo\n- u2\n## four\n* d\n- u3\n"
    assert sorted(dialogue.name for dialogue in generated(text).dialogues) == ["four", "one > two", "one > two"]
    joined = {dialogue.name for dialogue in generated(text, factor=5).dialogues if dialogue.is_augmented}
    assert {"", "four", "one > two"} <= joined and not any(name.startswith("four >") for name in joined)


def test_opening_action() -> None:
    """An action before any message is no example."""
    data = generated("## s\n- u1\n* a\n- u2\n", history=2)
    assert [action for _, action in windows(data, 2)] == ["action_listen", "u2", "action_listen"]
    (example,) = dialogues(data)
    assert example.actions == ("action_listen", "u2", "action_listen")
    assert len(example.states) == 3


def test_explosion() -> None:
    """Stories that multiply without end are refused with the checkpoints where they do."""
    stories = "## start\n* a\n- u1\n> x0\n" + "".join(
        f"## s{level}{branch}\n> x{level}\n* {'abcd'[branch]}\n- u{branch + 1}\n> x{level + 1}\n"
        for level in range(9)
        for branch in range(4)
    )
    with pytest.raises(InvalidTrainingData, match="multiply beyond 500") as caught:
        generated(stories, history=30, max_dialogues=500)
    assert any(name.startswith("x") for name in caught.value.details["checkpoints"])


def test_fingerprints() -> None:
    """Per action the slots that follow it; an action that nothing follows is left out."""
    data = generated('## s\n* a{"e": "v"}\n- u1\n- slot{"t": true}\n- u2\n')
    assert action_fingerprints(data) == {"action_listen": {"slots": ["e"]}, "u1": {"slots": ["t"]}}
    assert action_fingerprints(generated("")) is None
