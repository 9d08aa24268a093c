"""Story files are read as the releases read them; mistakes are named by file and line."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasa_core_api.events import ActionExecuted, AllSlotsReset, Event, Form, ReminderScheduled, SlotSet, UserUttered
from rasa_core_api.exceptions import InvalidTrainingData
from rasa_core_api.releases import BY_NAME
from rasa_core_api.training.story_reader import StoryReader, _alternatives, _without_comments, read_marked, read_stories
from rasa_core_api.training.story_writer import marked_text
from rasa_core_api.training.structures import STORY_START, StoryStep
from tests.cpu import cpu_limit
from tests.training.helpers import parse, read


def words(events: list[Event]) -> list[str]:
    found = []
    for event in events:
        if isinstance(event, UserUttered):
            found.append(f"* {event.text}")
        elif isinstance(event, ActionExecuted):
            found.append(event.action_name)
        elif isinstance(event, SlotSet):
            found.append(f"{event.key}={event.value}")
        else:
            found.append(event.type_name)
    return found


def shape(step: StoryStep) -> tuple[list[str], list[str], list[str]]:
    return [start.name for start in step.starts], words(step.events), [end.name for end in step.ends]


def test_language() -> None:
    """Comments, blanks and indentation do not count; parameters are JSON; one slot line may set several slots."""
    files = read(
        """## one <!-- not the name -->
* greet{"name": "Ada"} <!-- hello -->
    - utter_a

    - slot{"a": 1, "b": null}
  - reset_slots
- form{"name": "f"}
* form: inform
    - form: f
"""
    )
    (step,) = files.steps
    assert step.block_name == "one"
    assert shape(step) == (
        [STORY_START],
        ['* greet{"name": "Ada"}', "utter_a", "a=1", "b=None", "reset_slots", "form"],
        [],
    )
    assert isinstance(step.events[4], AllSlotsReset)
    assert step.events[5] == Form(name="f", timestamp=0.0)
    assert [place.line for place in step.places] == [2, 3, 5, 5, 6, 7]
    assert files.notices == []


def test_before_forms() -> None:
    """Up to 0.11 there are no forms: such lines are actions and messages; listens are dropped."""
    (step,) = read('## one\n* greet\n - form{"name": "f"}\n - action_listen\n', "0.11").steps
    assert words(step.events) == ["* greet", "f"]
    (step,) = read("## one\n* greet\n - action_listen\n", "0.12").steps
    assert words(step.events) == ["* greet", "action_listen"]


def test_alternatives() -> None:
    """Alternatives fork the story; the forks meet again at a generated checkpoint."""
    files = read("## one\n* a OR b\n - u1\n* c OR d\n")
    shapes = [shape(step) for step in files.steps]
    meeting, last = shapes[0][2], shapes[3][2]
    assert meeting[0].startswith("GENR_OR_") and last[0].startswith("GENR_OR_") and meeting != last
    assert shapes == [
        ([STORY_START], ["* a"], meeting),
        ([STORY_START], ["* b"], meeting),
        (meeting, ["u1", "* c"], last),
        (meeting, ["u1", "* d"], last),
    ]
    assert files.steps[0].starts is files.steps[1].starts, "copies share their starts"


def test_checkpoints() -> None:
    """Checkpoints before the first event start a story, later ones end it; consecutive ones fork."""
    files = read('## one\n> x{"e": 1}\n> y\n - u1\n> v\n> w\n - u2\n')
    assert [shape(step) for step in files.steps] == [
        (["x", "y"], ["u1"], ["v"]),
        (["x", "y"], ["u1"], ["w"]),
        (["v", "w"], ["u2"], []),
    ]
    assert files.steps[0].starts[0].conditions == {"e": 1}


def test_ignored_conditions() -> None:
    """Conditions where a story ends have no effect, and that is said."""
    (notice,) = read('## one\n* a\n> x{"e": 1}\n').notices
    assert str(notice.place) == "stories.md:3" and "ignored" in notice.text


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("* greet\n", 1, "expected '## story name'"),
        ("## s\n* greet{\n", 2, "expected an intent"),
        ("## s\n* a\n - slot\n", 3, "slot without parameters"),
        ("## s\n* a\n - slot{1}\n", 3, "JSON object"),
        ("## s\n* a\n - utter_a[1]{oops}\n", 3, "JSON object"),
        ("## s\n* a\n - say `name`\n", 3, "unknown template variable `name`"),
        ('## s\n* a\n - reminder{"action": "x"}\n', 3, "date_time"),
        ("## s\n* {}\n", 2, "expected an intent"),
        ('## s\n* a\n - go{"name": 1}\n', 3, "expected a text as the name"),
    ],
)
def test_errors(text: str, line: int, expected: str) -> None:
    """A mistake names the file, the line and what was expected."""
    with pytest.raises(InvalidTrainingData) as caught:
        read(text)
    assert str(caught.value).startswith(f"stories.md:{line}: ")
    assert expected in str(caught.value)
    assert caught.value.details == {"file": "stories.md", "line": line}


def test_values_of_entities() -> None:
    """An OR, a brace or a line separator of Unicode inside quotes belongs to the value."""
    (step,) = read('## s\r\n* a{"e": "x OR \u2028 y}\u0085{"}\r- u1\n').steps
    event = step.events[0]
    assert isinstance(event, UserUttered) and event.entities[0]["value"] == "x OR \u2028 y}\u0085{"
    assert [len(step.events) for step in read('## s\n* a{"e": "x\\" OR y"} OR b OR c{"e": "OR"}\n').steps] == [1, 1, 1]


def test_left_out_listen() -> None:
    """Up to 0.11 an `action_listen` is left out, but the story goes on there, as after an OR."""
    text = "## s\n* a OR b\n- action_listen\n"
    assert [shape(step)[1] for step in read(text, "0.11").steps] == [["* a"], ["* b"], []]
    assert [shape(step)[1] for step in read(text, "0.14").steps] == [["* a"], ["* b"], ["action_listen"]]


def test_reminder() -> None:
    """A reminder without an action has its name for one."""
    (step,) = read('## s\n* a\n- reminder{"name": "u1", "date_time": "2018-09-03T11:41:10"}\n').steps
    assert isinstance(step.events[1], ReminderScheduled) and step.events[1].action_name == "u1"


def test_strange_lines() -> None:
    """Lines that are no part of the language are skipped, and that is said."""
    files = read("intro\n## s\n* a\nwhat is this\n- {}\n- u1\n")
    assert [(notice.place.line, notice.text[:7]) for notice in files.notices] == [
        (1, "skipped"),
        (4, "skipped"),
        (5, "skipped"),
    ]
    assert words(files.steps[0].events) == ["* a", "u1"]


def test_folder(tmp_path: Path) -> None:
    """All files below a folder are read, hidden ones are not; a missing one and a binary one are named."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.md").write_text("## two\n* b\n")
    (tmp_path / "sub" / "a.md").write_text("## three\n* c\n")
    (tmp_path / "a.md").write_text("\ufeff## one\n* a\n", "utf-8")
    (tmp_path / ".hidden").write_text("* broken")
    release = BY_NAME["0.14"]
    assert [step.block_name for step in read_stories([tmp_path], release, parse).steps] == ["one", "two", "three"]
    with pytest.raises(InvalidTrainingData, match="no such file"):
        read_stories([tmp_path / "none"], release, parse)
    (tmp_path / "c.md").write_bytes(b"## x\n\xff\xfe")
    with pytest.raises(InvalidTrainingData, match=r"c\.md:2: not UTF-8"):
        read_stories([tmp_path], release, parse)


def test_exclusion(tmp_path: Path) -> None:
    """A share of the steps can be left out at random."""
    (tmp_path / "s.md").write_text("".join(f"## s{i}\n* a\n" for i in range(10)))
    release = BY_NAME["0.14"]
    kept = read_stories([tmp_path], release, parse, exclusion_percentage=30, random=Random(1)).steps
    assert len(kept) == 7
    assert len(read_stories([tmp_path], release, parse, exclusion_percentage=100).steps) == 10


def test_end_to_end() -> None:
    """The end-to-end form carries the true intent and the marked entities."""
    (step,) = read("## s\n* inform: to [Rome](city:rome) by [train](mean)\n - u1\n", e2e=True).steps
    event = step.events[0]
    assert isinstance(event, UserUttered)
    assert event.text == "to Rome by train"
    assert event.parse_data["true_intent"] == "inform"
    assert event.parse_data["true_entities"] == [
        {"entity": "city", "value": "rome", "start": 3, "end": 7},
        {"entity": "mean", "value": "train", "start": 11, "end": 16},
    ]
    with pytest.raises(InvalidTrainingData, match="intent: message"):
        read("## s\n* inform\n", e2e=True)
    assert read_marked("no [](e) words") == ("no [](e) words", [])


@given(st.lists(st.tuples(st.text("abc ", max_size=4), st.text("xyz", min_size=1, max_size=4)), max_size=4))
def test_marks_round_trip(parts: list[tuple[str, str]]) -> None:
    """What the writer marks, the reader reads."""
    text, entities = "", []
    for before, value in parts:
        start = len(text) + len(before)
        text += before + value
        entities.append({"entity": "e", "value": value, "start": start, "end": start + len(value)})
    assert read_marked(marked_text(text, entities)) == (text, entities)


@pytest.mark.parametrize("line", ["> a\n" * 40, "* " + " OR ".join(["a"] * 5000) + "\n"])
def test_forks_without_end(line: str) -> None:
    """A block that forks without bounds is refused at the line that goes too far."""
    with pytest.raises(InvalidTrainingData, match=r"stories\.md:\d+: this line forks the story into more than 4096"):
        read("## s\n* a\n- u1\n" + line)


@pytest.mark.parametrize(
    "line",
    [
        "* a: " + "[" * 50_000,
        "* a: " + "[a](b:" * 10_000,
        "* a: " + "[a](" * 10_000,
        "<!--" * 20_000,
        '* a{"' + " OR a" * 20_000,
    ],
)
def test_hostile_lines_take_no_time(line: str) -> None:
    """Marks, comments and alternatives without an end are read once: a server reads the stories that clients send."""
    reader = StoryReader(BY_NAME["0.14"], parse, e2e=line.startswith("* a:"))
    with cpu_limit(), suppress(InvalidTrainingData):
        reader.read_text(f"## story\n{line}\n", "here")


_MARK = r"\[([^\]]+)\]\(([^():]*?)(?::([^)]*))?\)"
_HALVES = ["[", "]", "(", ")", ":", "a", "<!--", "-->", "-", " OR ", '"', "\\", "{"]


@given(st.lists(st.sampled_from(_HALVES), max_size=20).map("".join))
def test_halves(text: str) -> None:
    """What is half a mark or half a comment stays text, as with the expressions that say it shortest."""
    plain, entities = read_marked(text)
    marks = [(mark[2], mark[1] if mark[3] is None else mark[3]) for mark in re.finditer(_MARK, text)]
    assert [(one["entity"], one["value"]) for one in entities] == marks
    assert plain == re.sub(_MARK, r"\1", text)
    assert _without_comments(text) == re.sub(r"<!--.*?-->", "", text)
    assert " OR ".join(_alternatives(text)) == text
