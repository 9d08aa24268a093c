"""Tests of trackers, against a slow tracker that replays everything."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasa_core_api.events import (
    ActionExecutionRejected,
    ActionReverted,
    Event,
    FollowupAction,
    Form,
    Restarted,
    SlotSet,
    UserUtteranceReverted,
)
from rasa_core_api.exceptions import UnknownVerbosity
from rasa_core_api.tracker_views import EventVerbosity
from rasa_core_api.trackers import Tracker
from tests import naive
from tests.samples import FORMLESS_LOGS, LOGS, action, domain, user

DOMAINS = {name: domain(name) for name in ("0.9", "0.11", "0.12", "0.14")}


def tracker_of(release: str, events: list[Event]) -> Tracker:
    tracker = Tracker("u", DOMAINS[release])
    tracker.extend(events)
    return tracker


def window_entries(tracker: Tracker) -> list[dict[str, float]]:
    node, entries = tracker.newest_state(), []
    while node is not None:
        entries.append(node.entries)
        node = node.previous
    return entries[::-1]


@given(st.sampled_from(sorted(DOMAINS)), LOGS)
@settings(max_examples=250, deadline=None)
def test_state_equals_replay(release: str, events: list[Event]) -> None:
    """Keeping the state event by event gives what replaying the events that count gives."""
    tracker = tracker_of(release, events)
    counting = naive.applied(events)
    slow = naive.Naive(DOMAINS[release], counting)
    assert tracker.applied_events() == counting
    assert tracker.slots == slow.slots
    assert tracker.paused == slow.paused
    assert tracker.latest_message == slow.message
    assert tracker.latest_action_name == slow.action
    assert tracker.followup_action == slow.followup
    assert tracker.active_form == slow.form


@given(st.sampled_from(sorted(DOMAINS)), LOGS)
@settings(max_examples=250, deadline=None)
def test_states_equal_replay(release: str, events: list[Event]) -> None:
    """The chain of states is the sequence that replaying the events that count gives, forms included."""
    if not DOMAINS[release].release.has_forms:
        events = [event for event in events if not isinstance(event, Form)]
    tracker = tracker_of(release, events)
    assert window_entries(tracker) == naive.states(DOMAINS[release], naive.applied(events))


@given(FORMLESS_LOGS)
@settings(max_examples=100, deadline=None)
def test_asking_changes_nothing(events: list[Event]) -> None:
    """Looking at the states after every event does not change them."""
    asked, quiet = Tracker("u", DOMAINS["0.11"]), Tracker("u", DOMAINS["0.11"])
    for event in events:
        asked.update(event)
        quiet.update(event)
        window_entries(asked)
    assert window_entries(asked) == window_entries(quiet)


def form_log() -> list[Event]:
    return [
        action("action_listen"),
        user("bye"),
        action("f"),
        Form(name="f", timestamp=1.0),
        action("action_listen"),
        user("inform"),
    ]


@pytest.mark.parametrize(
    ("then", "last"),
    [
        ([], []),
        ([action("f"), Form(name=None, timestamp=1.0)], [{"intent_bye", "prev_f"}]),
        (
            [ActionExecutionRejected(action_name="f", timestamp=1.0)],
            [
                {"active_form_f", "intent_bye", "prev_f"},
                {"active_form_f", "intent_inform", "prev_action_listen"},
            ],
        ),
        (
            [ActionExecutionRejected(action_name="f", timestamp=1.0), action("utter_hi")],
            [
                {"active_form_f", "intent_bye", "prev_f"},
                {"active_form_f", "intent_inform", "prev_action_listen"},
                {"active_form_f", "intent_inform", "prev_utter_hi"},
            ],
        ),
        ([action("utter_hi")], []),
    ],
    ids=["running", "finished", "rejected", "unhappy path", "interrupted"],
)
def test_form_states(then: list[Event], last: list[set[str]]) -> None:
    """A form that runs undisturbed is no state; a rejection brings the hidden states back."""
    tracker = tracker_of("0.14", [*form_log(), *then])
    always = [{"slot_place_0"}, {"intent_bye", "prev_action_listen", "slot_place_0"}]
    assert [set(entries) for entries in window_entries(tracker)] == [
        *always,
        *({*entries, "slot_place_0"} for entries in last),
    ]


def test_undo_keeps_the_message() -> None:
    """`undo` takes the last action back, the user's message stays."""
    tracker = tracker_of(
        "0.11",
        [action("action_listen"), user("greet"), action("utter_hi"), action("action_listen"), user("bye"),
         action("utter_bye"), ActionReverted(timestamp=1.0)],
    )  # fmt: skip
    assert tracker.intent_name == "bye"
    assert tracker.latest_action_name == "action_listen"


def test_rewind_forgets_the_message() -> None:
    """`rewind` takes the user's message back with the listen before it, and the slots set since."""
    tracker = tracker_of(
        "0.11",
        [action("action_listen"), user("greet"), action("utter_hi"), action("action_listen"), user("bye"),
         SlotSet(key="city", value="rome", timestamp=1.0), UserUtteranceReverted(timestamp=1.0)],
    )  # fmt: skip
    assert tracker.intent_name == "greet"
    assert tracker.slots["city"] is None
    assert tracker.latest_action_name == "utter_hi"


def test_followup_is_used_for_one_request() -> None:
    """A follow-up action that was used is back in the next request, until an event clears it."""
    tracker = tracker_of("0.11", [action("action_listen"), FollowupAction(action_name="utter_bye", timestamp=1.0)])
    tracker.take_followup()
    assert tracker.followup_action is None
    tracker.release_followup()
    assert tracker.followup_action == "utter_bye"
    tracker.update(action("utter_bye"))
    assert tracker.followup_action is None


@pytest.mark.parametrize("release", DOMAINS)
def test_followup_ends_with_the_next_message(release: str) -> None:
    """A follow-up action does not outlive the turn, in releases that had none neither: it may be one that fails."""
    tracker = tracker_of(release, [FollowupAction(action_name="nowhere", timestamp=1.0)])
    assert tracker.followup_action == "nowhere"
    tracker.update(user("greet"))
    assert tracker.followup_action is None


def test_verbosities() -> None:
    """Each verbosity shows its part of the log."""
    log = [action("action_listen", 1.0), user("greet", 2.0), Restarted(timestamp=3.0), action("action_listen", 4.0),
           user("bye", 5.0), UserUtteranceReverted(timestamp=6.0)]  # fmt: skip
    tracker = tracker_of("0.11", log)
    assert tracker.view(EventVerbosity.NONE).events is None
    assert tracker.view(EventVerbosity.ALL).events == log
    assert tracker.view(EventVerbosity.AFTER_RESTART).events == log[3:]
    assert tracker.view(EventVerbosity.APPLIED).events == []
    assert tracker.view(EventVerbosity.NONE).state["latest_event_time"] == 6.0


def test_unknown_verbosity() -> None:
    """A verbosity that does not exist is refused with the list of those that do."""
    with pytest.raises(UnknownVerbosity, match="NONE, APPLIED, AFTER_RESTART, ALL"):
        EventVerbosity.from_text("SOME")


def test_views_do_not_change() -> None:
    """A view stays as it was while the conversation goes on."""
    tracker = tracker_of("0.11", [action("action_listen")])
    view = tracker.view(EventVerbosity.ALL)
    tracker.extend([user("greet"), SlotSet(key="city", value="rome", timestamp=1.0)])
    assert view.state["slots"]["city"] is None
    assert len(view.events or ()) == 1
