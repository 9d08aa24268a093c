"""Tests of the policy that keeps a form going."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rasa_core_api.events import ActionExecutionRejected, Event, Form, FormValidation
from rasa_core_api.exceptions import UnsupportedModel
from rasa_core_api.policies.form import FormPolicy, form_key
from rasa_core_api.policies.memoization import write_key
from rasa_core_api.policies.policy import LoadContext
from rasa_core_api.trackers import Tracker
from tests.policies.test_fallback import LISTEN, scores
from tests.samples import action, domain, user

BOT = domain("0.14")
STARTED: tuple[Event, ...] = (LISTEN, user("greet"), action("f"), Form(name="f", timestamp=1.0))
REJECTED = (*STARTED, LISTEN, user("inform", city="rome"), ActionExecutionRejected(action_name="f", timestamp=5.0))
KEY = (
    "[{prev_f: 1.0}, "
    "{active_form_f: 1.0, entity_city: 1.0, intent_inform: 1.0, prev_action_listen: 1.0, slot_place_0: 1.0}]"
)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ((LISTEN, user("greet")), {}),
        (STARTED, {"action_listen": 1.0}),
        ((*STARTED, LISTEN, user("inform")), {"f": 1.0}),
        ((*STARTED, LISTEN, user("inform"), action("utter_hi")), {}),
        ((Form(name="f", timestamp=1.0),), {}),
        (REJECTED, {"f": 1.0}),
        ((*STARTED, Form(name=None, timestamp=1.0), LISTEN), {}),
    ],
)
def test_prediction(events: tuple[Event, ...], expected: dict[str, float]) -> None:
    """The form runs after a message, listening follows the form, everything else is left to others."""
    assert scores(FormPolicy({}), BOT, *events) == expected


@pytest.mark.parametrize(("release", "score"), [("0.12", 1.2), ("0.13", 1.3), ("0.14", 1.0)])
def test_score_of_the_release(release: str, score: float) -> None:
    """Each release had its way of letting the form win."""
    assert scores(FormPolicy({}), domain(release), *STARTED, LISTEN, user("inform")) == {"f": score}


def test_leaving_the_form() -> None:
    """Where a story leaves the form after a rejection, the policy is silent and calls the validation off."""
    tracker = Tracker("u", BOT)
    tracker.extend(REJECTED)
    assert form_key(tracker.state_window(2)) == KEY
    policy = FormPolicy({KEY: "f"})
    assert policy.predict(tracker, BOT).best() == (0, 0.0)
    assert tracker.events[len(REJECTED) :] == [FormValidation(validate=False, timestamp=0.0)]
    assert tracker.latest_event_time == 5.0
    assert tracker.active_form["validate"] is False


def test_story_of_another_form() -> None:
    """A situation remembered for another form does not count."""
    assert scores(FormPolicy({KEY: "g"}), BOT, *REJECTED) == {"f": 1.0}


def test_known_situation_without_rejection() -> None:
    """The memory counts only after a rejection."""
    assert scores(FormPolicy({KEY: "f"}), BOT, *REJECTED[:-1]) == {"f": 1.0}


def test_padding() -> None:
    """A form may be the first thing that ever happened."""
    tracker = Tracker("u", BOT)
    tracker.extend([Form(name="f", timestamp=1.0), ActionExecutionRejected(action_name="f", timestamp=1.0)])
    assert form_key(tracker.state_window(2)) == "[null, {active_form_f: 1.0, slot_place_0: 1.0}]"


def test_unknown_form() -> None:
    """A form that the domain does not have, of a model that was replaced, is left alone: the talk goes on."""
    assert scores(FormPolicy({}), BOT, LISTEN, Form(name="nowhere", timestamp=1.0)) == {}


def test_loading(tmp_path: Path) -> None:
    """The memory is read as other memories are; none is an empty one."""
    content = {"priority": 7, "max_history": 2, "lookup": {write_key(KEY): "f"}}
    (tmp_path / "memorized_turns.json").write_text(json.dumps(content))
    policy = FormPolicy.load(tmp_path, LoadContext(domain=BOT))
    assert (policy.lookup, policy.priority) == ({KEY: "f"}, 7)
    assert FormPolicy.load(tmp_path / "nowhere", LoadContext(domain=BOT)).lookup == {}


def test_refused(tmp_path: Path) -> None:
    """A memory of action numbers is not one of forms."""
    (tmp_path / "memorized_turns.json").write_text(json.dumps({"lookup": {"[]": 3}}))
    with pytest.raises(UnsupportedModel, match=r"memorized_turns\.json: 3 is not the name of a form"):
        FormPolicy.load(tmp_path, LoadContext(domain=BOT))
