"""Stories are written as 0.11.12 and 0.14.5 wrote them; the expected texts are their output."""

from __future__ import annotations

from typing import Any

import pytest

from rasa_core_api.events import (
    ActionExecuted,
    ActionExecutionRejected,
    AllSlotsReset,
    BotUttered,
    Event,
    FollowupAction,
    Form,
    FormValidation,
    SlotSet,
    UserUttered,
)
from rasa_core_api.events.reading import EventReader
from rasa_core_api.training.story_writer import marked_text, story_of


def said(intent: str | None, *entities: dict[str, Any], text: str | None = "hi é") -> Event:
    parse_data = {"intent": {"name": intent}, "entities": list(entities), "text": text}
    return UserUttered(text=text, parse_data=parse_data, timestamp=1.0)


def did(name: str) -> Event:
    return ActionExecuted(action_name=name, timestamp=1.0)


LISTEN = did("action_listen")
REJECTED = ActionExecutionRejected(action_name="f", timestamp=1.0)
FORM_STARTED = [
    LISTEN,
    said("req"),
    did("f"),
    Form(name="f", timestamp=1.0),
    SlotSet(key="requested_slot", value="c", timestamp=1.0),
    LISTEN,
]
OPENING = '## sid\n* req\n    - f\n    - form{"name": "f"}\n    - slot{"requested_slot": "c"}\n'


def test_plain_conversation() -> None:
    """Listens and utterances have no line; JSON escapes what is not ASCII; the last of equal entities wins."""
    reminder = EventReader(lambda: 1.0, lambda: "id").read(
        {"event": "reminder", "action": "a", "date_time": "2018-09-03T11:41:10+02:00", "name": "n"}
    )
    assert reminder is not None
    events = [
        LISTEN,
        said("é", {"entity": "é", "value": "x"}, {"entity": "b", "value": 2}, {"entity": "é", "value": "ü"}),
        SlotSet(key="q", timestamp=1.0),
        did("utter_x"),
        BotUttered(text="no line", timestamp=1.0),
        AllSlotsReset(timestamp=1.0),
        FollowupAction(action_name="ü", timestamp=1.0),
        reminder,
    ]
    assert story_of("sid", events) == (
        '## sid\n* é{"\\u00e9": "\\u00fc", "b": 2}\n    - slot{"q": null}\n    - utter_x\n    - reset_slots\n'
        '    - followup{"name": "\\u00fc"}\n    - reminder{"action": "a", "date_time": "2018-09-03T11:41:10+02:00",'
        ' "name": "n", "kill_on_user_msg": true}\n'
    )


def test_message_without_intent() -> None:
    """A message that no intent was found for appears as its text, on one line whatever it holds."""
    assert story_of("a\nb", [said(None, text="hello\nthere")]) == "## a b\n* hello there\n"


def test_happy_form() -> None:
    """What a form took is prefixed, slots are not, and nothing is once the form has ended."""
    story = story_of(
        "sid",
        [
            *FORM_STARTED,
            said("inform", {"entity": "c", "value": 1}),
            SlotSet(key="c", value=1, timestamp=1.0),
            did("f"),
            SlotSet(key="k", value=2, timestamp=1.0),
            Form(name=None, timestamp=1.0),
            did("done"),
            LISTEN,
        ],
    )
    assert story == OPENING + (
        '* form: inform{"c": 1}\n    - slot{"c": 1}\n    - form: f\n    - slot{"k": 2}\n'
        '    - form{"name": null}\n    - done\n'
    )


def test_rejected_form() -> None:
    """After a rejection another action and its message are plain; the form's return is announced by a listen."""
    story = story_of(
        "sid",
        [*FORM_STARTED, said("stop"), REJECTED, did("utter_a"), did("f"), LISTEN, said("inform"), did("f")],
    )
    assert story == OPENING + (
        "* stop\n    - utter_a\n    - action_listen\n    - f\n* form: inform\n    - form: f\n"
    )


def test_rejected_form_without_validation() -> None:
    """A form that returns without validating is an ordinary continuation."""
    unvalidated = FormValidation(validate=False, timestamp=1.0)
    story = story_of("sid", [*FORM_STARTED, said("stop"), REJECTED, unvalidated, did("f")])
    assert story == OPENING + "* stop\n    - f\n"


def test_unfinished_form() -> None:
    """What still waits at the end counts as taken by the form."""
    assert story_of("sid", [*FORM_STARTED, said("stop")]) == OPENING + "* form: stop\n"


def test_end_to_end() -> None:
    """The end-to-end form holds the message with its entities marked."""
    city = {"entity": "c", "value": "rome", "start": 3, "end": 7}
    other = {"entity": "d", "value": "x", "start": 8, "end": 9}
    assert story_of("sid", [said("a", other, city, text="in Rome x y")], e2e=True) == (
        "## sid\n* a: in [Rome](c:rome) [x](d) y\n"
    )


def test_entities_in_one_place() -> None:
    """As in 0.12 to 0.14 entities of one place, and such that overlap, are marked one after another in a story."""
    b = {"entity": "b", "value": "y", "start": 5, "end": 8}
    a = {"entity": "a", "value": "x", "start": 5, "end": 8}
    c = {"entity": "c", "value": "z", "start": 6, "end": 9}
    text = "0123456789ab"
    assert story_of("sid", [said("i", c, b, a, text=text)], e2e=True) == (
        "## sid\n* i: 01234[567](b:y)[567](a:x)[678](c:z)9ab\n"
    )
    assert marked_text(text, [c, b, a]) == "01234[567](b:y)89ab"


@pytest.mark.parametrize("place", [{}, {"start": None, "end": 2}, {"start": 1, "end": 90}, {"start": 3, "end": 3}])
def test_entities_without_a_place(place: dict[str, Any]) -> None:
    """An entity that lies nowhere in the text leaves it unmarked."""
    assert marked_text("abc", [{"entity": "c", "value": "b", **place}]) == "abc"
