from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone, tzinfo
from types import ModuleType
from typing import Any

import numpy as np
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

    def zone(self, module: str, name: str) -> type[tzinfo]:
        """A class of time zones, pickled by its attributes."""
        where = self.modules[module]
        members = {"__module__": module, "__reduce__": object.__reduce__, "utcoffset": lambda self, when: timedelta(0)}
        kind: type[tzinfo] = type(name, (tzinfo,), members)
        setattr(where, name, kind)
        return kind

    def event(self, name: str, /, **attributes: Any) -> Any:
        return self.build("rasa_core.events", name, **{"timestamp": 5.5, **attributes})

    def dialogue(self, *events: Any, protocol: int = 2) -> bytes:
        return pickle.dumps(
            self.build("rasa_core.conversation", "Dialogue", name="sam", events=list(events)), protocol
        )


@pytest.fixture
def past(monkeypatch: pytest.MonkeyPatch) -> Iterator[Past]:
    made = Past()
    for name in (*made.modules, "dateutil", "dateutil.tz", "dateutil.tz.tz"):
        monkeypatch.setitem(sys.modules, name, made.modules.setdefault(name, ModuleType(name)))
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


@pytest.mark.parametrize("protocol", range(6))
def test_numbers_of_numpy(past: Past, protocol: int) -> None:
    """Confidences, which policies left as numpy scalars, are read as the numbers that they are."""
    data = past.dialogue(
        past.event("ActionExecuted", action_name="a", policy="p", confidence=np.float32(0.75)),
        past.event("ActionExecuted", action_name="b", policy="p", confidence=np.float64(0.1)),
        past.event("SlotSet", key="n", value=[np.int64(-7), {"flag": np.bool_(True)}]),
        protocol=protocol,
    )
    first, second, slot = (event.as_dict() for event in read_stored(data, "sam", READER))
    assert (first["confidence"], second["confidence"]) == (0.75, 0.1)
    assert slot["value"] == [-7, {"flag": True}]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("zone", "offset"),
    [
        (None, ""),
        (timezone.utc, "+00:00"),
        ("dateutil.tz.tz.tzutc", "+00:00"),
        ("dateutil.tz.tz.tzoffset", "-03:30"),
        ("dateutil.tz.tz.tzlocal", "+01:00"),
    ],
)
def test_times_of_reminders(past: Past, protocol: int, zone: Any, offset: str) -> None:
    """Reminders keep their moment, whichever library made the time zone."""
    if isinstance(zone, str):
        module, _, name = zone.rpartition(".")
        kind = past.zone(module, name)
        zone = kind()
        zone.__dict__.update(
            _name=None, _offset=timedelta(hours=-3.5), _std_offset=timedelta(hours=1), _hasdst=False
        )  # fmt: skip
    when = datetime(2031, 5, 6, 7, 8, 9, 0, zone)
    data = past.dialogue(past.event("ReminderScheduled", action_name="a", trigger_date_time=when), protocol=protocol)
    (event,) = read_stored(data, "sam", READER)
    assert event.as_dict()["date_time"] == f"2031-05-06T07:08:09{offset}"


def test_rules_for_summer_time(past: Past) -> None:
    """A zone that is more than an offset is refused by name: the moment would be a guess."""
    zone = past.zone("dateutil.tz.tz", "tzlocal")()
    zone.__dict__.update(_std_offset=timedelta(hours=1), _hasdst=True)
    when = datetime(2031, 5, 6, tzinfo=zone)
    data = past.dialogue(past.event("ReminderScheduled", action_name="a", trigger_date_time=when))
    with pytest.raises(UnreadableFile, match="'sam'.*tzlocal"):
        read_stored(data, "'sam'", READER)


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


def test_a_dialogue_that_repeats_itself(past: Past) -> None:
    """A few hundred bytes that stand for billions of values, of letters or of events are refused, soon."""
    many: list[Any] = ["ha"] * 10
    for _ in range(30):
        many = [many] * 10
    keys: dict[str, Any] = {}
    for _ in range(30):
        keys = {str(number): keys for number in range(8)}
    text = "x" * 100_000
    event = past.event("Restarted")
    for events in (
        [past.event("SlotSet", key="x", value=many)],
        [past.event("SlotSet", key="x", value=keys)],
        [past.event("SlotSet", key="x", value=[text] * 1_000)],
        [event] * 100_000,
    ):
        with pytest.raises(UnreadableFile, match="'sam'.*too often"):
            read_stored(past.dialogue(*events), "'sam'", READER)


@pytest.mark.parametrize(
    "value",
    [
        b"cdatetime\ndatetime\n)R",
        b"cdatetime\ndatetime\n(C\x0a" + b"\xff" * 10 + b"tR",
        b"cdatetime\ndatetime\n(C\x0a\x07\xef\x05\x06\x07\x08\t\x00\x00\x00cdatetime\ntimezone\n)RtR",
        b"cdatetime\ndatetime\n(C\x0a\x07\xef\x05\x06\x07\x08\t\x00\x00\x00cdatetime\ntimezone\n"
        b"(cdatetime\ntimedelta\n(J\xff\xff\xff\x7fK\x00K\x00tRtRtR",
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(X\x02\0\0\0f8K\0K\x01tRC\x03abctR",
    ],
)
def test_damaged_values(value: bytes) -> None:
    """Whatever a damaged value would raise, the conversation is refused by name."""
    data = (
        b"\x80\x03crasa_core.conversation\nDialogue\n)\x81}(X\x06\x00\x00\x00events]crasa_core.events\nSlotSet\n)\x81}"
        b"(X\x03\x00\x00\x00keyX\x01\x00\x00\x00kX\x05\x00\x00\x00value" + value + b"ubaub."
    )
    with pytest.raises(UnreadableFile, match="'sam'"):
        read_stored(data, "'sam'", READER)
