"""Small domains and event strategies for tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from rasa_core_api.domain import Domain
from rasa_core_api.events import (
    ActionExecuted,
    ActionExecutionRejected,
    ActionReverted,
    AllSlotsReset,
    BotUttered,
    ConversationPaused,
    ConversationResumed,
    Event,
    FollowupAction,
    Form,
    FormValidation,
    Restarted,
    SlotSet,
    UserUtteranceReverted,
    UserUttered,
)
from rasa_core_api.releases import BY_NAME

SPECIFICATION: dict[str, Any] = {
    "intents": ["greet", {"bye": {"use_entities": False}}, "inform"],
    "entities": ["city", "count"],
    "slots": {
        "city": {"type": "text"},
        "mood": {"type": "categorical", "values": ["Good", "bad"]},
        "place": {"type": "text", "initial_value": "window"},
        "sure": {"type": "bool"},
        "note": {"type": "unfeaturized"},
    },
    "templates": {
        "utter_hi": ["hello {city}"],
        "utter_bye": [{"text": "bye", "buttons": [{"title": "again", "payload": "/greet"}]}],
    },
    "actions": ["utter_hi", "utter_bye", "action_search"],
    "forms": ["f"],
}


def domain(release: str = "0.11", **changes: Any) -> Domain:
    """A domain with one slot of most kinds."""
    data = {**SPECIFICATION, **changes}
    if not BY_NAME[release].has_forms:
        data.pop("forms")
    return Domain.from_json(data, BY_NAME[release])


def user(intent: str | None, time: float = 1.0, text: str | None = None, **entities: Any) -> UserUttered:
    return UserUttered(
        text=text if text is not None else f"/{intent}",
        parse_data={
            "intent": {"name": intent, "confidence": 1.0},
            "entities": [{"entity": name, "value": value} for name, value in entities.items()],
            "text": f"/{intent}",
        },
        timestamp=time,
    )


def action(name: str, time: float = 1.0) -> ActionExecuted:
    return ActionExecuted(action_name=name, timestamp=time)


def _events() -> st.SearchStrategy[Event]:
    t = 1.0
    names = st.sampled_from(["action_listen", "utter_hi", "utter_bye", "action_search", "f", "nowhere"])
    return st.one_of(
        st.builds(lambda n: action(n), names),
        st.builds(lambda n: action(n), names),
        st.builds(lambda i: user(i), st.sampled_from(["greet", "bye", "inform", None])),
        st.builds(lambda v: user("inform", city=v), st.sampled_from(["rome", "oslo"])),
        st.builds(
            lambda k, v: SlotSet(key=k, value=v, timestamp=t),
            st.sampled_from(["city", "mood", "place", "sure", "note", "unknown"]),
            st.sampled_from([None, "good", "bad", True, 0]),
        ),
        st.sampled_from(
            [
                AllSlotsReset(timestamp=t),
                BotUttered(text="hi", timestamp=t),
                ConversationPaused(timestamp=t),
                ConversationResumed(timestamp=t),
                FollowupAction(action_name="utter_bye", timestamp=t),
                ActionReverted(timestamp=t),
                ActionReverted(timestamp=t),
                UserUtteranceReverted(timestamp=t),
                UserUtteranceReverted(timestamp=t),
                Form(name="f", timestamp=t),
                Form(name=None, timestamp=t),
                FormValidation(validate=False, timestamp=t),
                ActionExecutionRejected(action_name="f", timestamp=t),
            ]
        ),
    )


EVENTS = _events()
LOGS = st.lists(st.one_of(EVENTS, EVENTS, EVENTS, EVENTS, EVENTS, st.just(Restarted(timestamp=1.0))), max_size=40)
FORMLESS_LOGS = LOGS.map(
    lambda log: [e for e in log if not isinstance(e, Form | FormValidation | ActionExecutionRejected)]
)
