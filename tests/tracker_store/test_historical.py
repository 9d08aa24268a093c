from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from types import ModuleType
from typing import Any

import pytest

from rasa_core_api.events.reading import EventReader
from rasa_core_api.exceptions import UnreadableFile
from rasa_core_api.tracker_store.historical import read_stored

READER = EventReader(lambda: 0.0, lambda: "id")


class Past:
    """Builds objects of classes that exist only while they are pickled."""

    def __init__(self) -> None:
        self.modules = {name: ModuleType(name) for name in ("rasa_core", "rasa_core.conversation", "rasa_core.events")}

    def build(self, module: str, name: str, /, **attributes: Any) -> Any:
        where = self.modules[module]
        kind = vars(where).get(name)
        if kind is None:
            kind = type(name, (), {"__module__": module})
            setattr(where, name, kind)
        made = kind()
        made.__dict__.update(attributes)
        return made

    def event(self, name: str, /, **attributes: Any) -> Any:
        return self.build("rasa_core.events", name, **{"timestamp": 5.5, **attributes})

    def dialogue(self, *events: Any, protocol: int = 2) -> bytes:
        return pickle.dumps(
            self.build("rasa_core.conversation", "Dialogue", name="sam", events=list(events)), protocol
        )


@pytest.fixture
def past(monkeypatch: pytest.MonkeyPatch) -> Iterator[Past]:
    made = Past()
    for name, module in made.modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    yield made


@pytest.mark.parametrize("protocol", range(6))
def test_pickled_dialogue(past: Past, protocol: int) -> None:
    """A pickled dialogue gives its events, whatever the protocol and however old the writer."""
    data = past.dialogue(
        past.event("UserUttered", text="hi", intent={"name": "greet"}, entities=[], parse_data=None),
        past.event("ActionExecuted", action_name="utter_hi", policy="p", policy_confidence=0.5, unpredictable=False),
        past.event("TopicSet", topic="x"),
        past.event("SlotSet", key="x", value=[1, {"y": (None, True)}]),
        past.event("BotUttered", text="yo", data={"buttons": None}),
        past.event(
            "ReminderScheduled",
            action_name="r",
            trigger_date_time=datetime(2030, 1, 2, 3, 4, 5, 678, timezone(timedelta(hours=2))),
            name="n",
        ),
        past.event("StoryExported", path="x.md"),
        past.event("FormValidation", validate=False),
        protocol=protocol,
    )
    events = [event.as_dict() for event in read_stored(data, "sam", READER)]
    assert [event.pop("timestamp") for event in events] == [5.5] * 7
    assert events == [
        {
            "event": "user",
            "text": "hi",
            "input_channel": None,
            "parse_data": {"intent": {"name": "greet"}, "entities": [], "text": "hi"},
        },
        {"event": "action", "name": "utter_hi", "policy": "p", "confidence": 0.5},
        {"event": "slot", "name": "x", "value": [1, {"y": [None, True]}]},
        {"event": "bot", "text": "yo", "data": {"buttons": None}},
        {
            "event": "reminder",
            "action": "r",
            "date_time": "2030-01-02T03:04:05.000678+02:00",
            "name": "n",
            "kill_on_user_msg": True,
        },
        {"event": "export"},
        {"event": "form_validation", "validate": False},
    ]


def test_documents() -> None:
    """A tracker's document and a bare list of events are read as JSON."""
    for data in (b'{"sender_id": "a", "events": [{"event": "restart", "timestamp": 2}]}', b' [{"event": "restart"}]'):
        assert [event.type_name for event in read_stored(data, "a", READER)] == ["restart"]


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("boom",)


def test_nothing_is_called(past: Past, capsys: pytest.CaptureFixture[str]) -> None:
    """What a hostile pickle would call is not called, and the value is refused."""
    with pytest.raises(UnreadableFile, match="'a'"):
        read_stored(past.dialogue(past.event("SlotSet", key="x", value=_Bomb())), "'a'", READER)
    with pytest.raises(UnreadableFile):
        read_stored(pickle.dumps(_Bomb()), "a", READER)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b'{"events": 5}', b"\x80\x02}q\x00.", b"\x80\x02", b"plain text"])
def test_other_values(data: bytes) -> None:
    """What is no conversation is refused by name."""
    with pytest.raises(UnreadableFile, match="'a'"):
        read_stored(data, "'a'", READER)


def test_endless_dialogue(past: Past) -> None:
    """A value that contains itself is refused."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(UnreadableFile):
        read_stored(past.dialogue(past.event("SlotSet", key="x", value=endless)), "a", READER)
    with pytest.raises(UnreadableFile):
        read_stored(past.dialogue(past.event("Unknown")), "a", READER)
