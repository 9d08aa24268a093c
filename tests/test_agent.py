"""Tests of the agent: what clients can do with conversations besides talking."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from rasa_core_api.endpoints import EndpointConfig, Endpoints
from rasa_core_api.exceptions import (
    AgentNotReady,
    InvalidParameter,
    PredictionFailed,
    TrainingFailed,
    UnknownAction,
    UnknownEvent,
)
from rasa_core_api.interpreter import Interpreter
from rasa_core_api.messages import UserMessage
from rasa_core_api.remote_protocol import NO_NEED_TO_CONTINUE, PAUSED
from rasa_core_api.tracker_views import EventVerbosity
from tests.conftest import LoggedFailures
from tests.fakes import Bot, FakeHTTP
from tests.samples import domain

ALL = EventVerbosity.ALL
SCRIPT = {"greet": ["utter_hi"], "bye": ["utter_bye"], "inform": ["action_search"]}


@pytest.fixture
def bot() -> Bot:
    return Bot(domain("0.11"), SCRIPT)


def texts(view: Any) -> list[str]:
    return [event.type_name for event in view.events]


def test_reading_creates_a_conversation(bot: Bot) -> None:
    """A conversation that is new begins with a listen and is stored when it is read."""
    view = bot.wait(bot.agent.tracker("new"))
    assert [event.as_dict() for event in view.events] == [
        {"event": "action", "name": "action_listen", "policy": None, "confidence": None, "timestamp": 1_000_000.0}
    ]
    assert view.state["followup_action"] is None
    assert bot.wait(bot.agent.sender_ids()) == ["new"]


def test_time_travel(bot: Bot) -> None:
    """A conversation can be seen as it was; its id stays and nothing is stored."""
    bot.say("/greet")
    bot.clock.advance(10)
    bot.say('/bye{"city": "rome"}')
    view = bot.wait(bot.agent.tracker("u", ALL, until=1_000_005.0))
    assert view.state["sender_id"] == "u"
    assert view.state["slots"]["city"] is None
    assert len(view.events) == 5
    empty = bot.wait(bot.agent.tracker("u", ALL, until=1.0))
    assert list(empty.events) == [] and empty.state["followup_action"] == "action_listen"
    assert len(bot.log()) == 10


def test_appending(bot: Bot) -> None:
    """Events are appended behind the listen of a new conversation; nothing is predicted."""
    view = bot.wait(bot.agent.append("u", [{"event": "slot", "name": "city", "value": "x"}], single=True))
    assert view.state["slots"]["city"] == "x"
    assert bot.kinds() == ["action action_listen", "slot city"]


@pytest.mark.parametrize(
    ("items", "error"),
    [
        ([{"event": "slot", "name": "city"}, {"event": "nonsense"}], UnknownEvent),
        ([{}, {}], InvalidParameter),
        ([], InvalidParameter),
    ],
)
def test_appending_is_all_or_nothing(bot: Bot, items: list[Any], error: type[Exception]) -> None:
    """Where one event is wrong, or none is there, nothing is stored, not even a conversation."""
    with pytest.raises(error):
        bot.wait(bot.agent.append("u", items, single=False))
    assert bot.wait(bot.agent.sender_ids()) == []


def test_topics_are_accepted(bot: Bot) -> None:
    """An event type of old releases that means nothing is accepted."""
    view = bot.wait(bot.agent.append("u", [{"event": "topic", "topic": "x"}], single=True))
    assert texts(view) == ["action"]


def test_replacing(bot: Bot) -> None:
    """A conversation is replaced by what is sent, without a listen of its own; turns go on from there."""
    bot.say("/greet")
    view = bot.wait(bot.agent.replace("u", [{"event": "slot", "name": "city", "value": "rome"}, {}]))
    assert texts(view) == ["slot"]
    assert bot.say("/greet") == [{"recipient_id": "u", "text": "hello rome"}]
    assert bot.kinds()[0] == "slot city"
    assert bot.wait(bot.agent.replace("u", [])).state["followup_action"] == "action_listen"
    with pytest.raises(UnknownEvent):
        bot.wait(bot.agent.replace("u", [{"event": "x"}]))
    assert bot.log() == []


def test_telling_of_what_was_stored(bot: Bot, logged: LoggedFailures) -> None:
    """Whoever follows the logs hears of each append and replacement, and cannot make one fail."""
    told: list[str] = []

    def fail(sender_id: str) -> None:
        raise ZeroDivisionError

    bot.agent.after_commit += [fail, told.append]
    bot.say("/greet")
    bot.wait(bot.agent.replace("v", []))
    bot.wait(bot.agent.append("w", [{"event": "slot", "name": "city"}], single=True))
    assert told == ["u", "v", "w"]
    assert logged.take() == [ZeroDivisionError] * 3
    bot.wait(bot.agent.predict_events([{"event": "slot", "name": "city"}]))
    assert told == ["u", "v", "w"]


def test_executing(bot: Bot) -> None:
    """Exactly one action runs; policy and confidence are recorded."""
    view, messages = bot.wait(bot.agent.execute("u", "utter_hi", "someone", 0.5))
    assert [message.text for message in messages] == ["hello None"]
    assert [event.type_name for event in view.events] == ["action", "action", "bot"]
    assert (view.events[1].policy, view.events[1].confidence) == ("someone", 0.5)


def test_executing_what_does_not_exist(bot: Bot) -> None:
    """An unknown action is refused and no conversation comes of it."""
    with pytest.raises(UnknownAction):
        bot.wait(bot.agent.execute("u", "utter_nothing"))
    assert bot.wait(bot.agent.sender_ids()) == []


def test_predicting_uses_a_followup_for_the_answer_only(bot: Bot) -> None:
    """A follow-up action decides a prediction and is there again for the next one."""
    bot.wait(bot.agent.append("u", [{"event": "followup", "name": "utter_bye"}], single=True))
    for _ in range(2):
        scored = bot.wait(bot.agent.predict("u"))
        assert dict(scored.scores)["utter_bye"] == 1.0
        assert scored.policy is None
        assert scored.view.state["followup_action"] is None
    assert bot.wait(bot.agent.tracker("u")).state["followup_action"] == "utter_bye"


def test_predicting_an_impossible_followup_says_why(bot: Bot) -> None:
    """A follow-up action that does not exist is a failure of the prediction."""
    bot.wait(bot.agent.append("u", [{"event": "followup", "name": "nowhere"}], single=True))
    with pytest.raises(PredictionFailed, match="Server failure. Error: Cannot access action 'nowhere'"):
        bot.wait(bot.agent.predict("u"))


def test_predicting_for_events_stores_nothing(bot: Bot) -> None:
    """A prediction for a list of events leaves no conversation behind."""
    events = [
        {"event": "action", "name": "action_listen"},
        {"event": "user", "text": "hi", "parse_data": {"intent": {"name": "greet"}}},
    ]
    scored = bot.wait(bot.agent.predict_events(events))
    assert scored.view.state["sender_id"] == "default"
    assert max(scored.scores, key=lambda score: score[1])[0] == "utter_hi"
    assert bot.wait(bot.agent.sender_ids()) == []
    with pytest.raises(InvalidParameter, match="Supplied events are not valid. Unknown event name 'x'"):
        bot.wait(bot.agent.predict_events([{"event": "x"}]))


def test_logging_a_message(bot: Bot) -> None:
    """A message is parsed and logged with its slots, nothing is answered."""
    view = bot.wait(bot.agent.log_message("u", '/greet{"city": "rome"}'))
    assert texts(view) == ["action", "user", "slot"]
    given = {"intent": {"name": "bye"}, "entities": [], "text": "x"}
    assert bot.wait(bot.agent.log_message("u", "x", given)).state["latest_message"] == given


class Understands(Interpreter):
    """A trained model in this process."""

    embedded = True

    async def parse(self, text: str, message_id: str | None = None) -> dict[str, Any]:
        return {"intent": {"name": "greet", "confidence": 0.5}, "entities": [], "text": text}


def test_parse_data_of_embedded_models_name_them_from_0_13() -> None:
    """From 0.13 on what a model in the process understood says so; intent messages never reach it."""
    for release, extra in (("0.12", {}), ("0.14", {"project": "default", "model": "current"})):
        bot = Bot(domain(release), SCRIPT, interpreter=Understands())
        assert bot.wait(bot.agent.parse("hi")) == {
            "intent": {"name": "greet", "confidence": 0.5},
            "entities": [],
            "text": "hi",
            **extra,
        }
        assert bot.wait(bot.agent.parse("/bye"))["intent"]["name"] == "bye"


def test_old_protocol(bot: Bot) -> None:
    """Clients of 0.8 to 0.10 run the actions themselves."""
    first = bot.wait(bot.agent.parse_old("u", "/greet"))
    assert (first.action, first.info, first.view.events) == ("utter_hi", None, None)
    second = bot.wait(
        bot.agent.continue_old("u", "utter_hi", [{"event": "slot", "name": "city", "value": "x", "timestamp": 5}])
    )
    assert second.action == "action_listen"
    assert bot.kinds() == ["action action_listen", "user", "action utter_hi", "slot city", "action action_listen"]
    assert bot.log()[3]["timestamp"] == 1_000_000.0
    last = bot.wait(bot.agent.continue_old("u", "action_listen", []))
    assert (last.action, last.info) == (None, NO_NEED_TO_CONTINUE)
    bot.wait(bot.agent.append("u", [{"event": "pause"}], single=True))
    stored = bot.kinds()
    assert bot.wait(bot.agent.parse_old("u", "/greet")).info == PAUSED
    assert bot.kinds() == stored
    assert bot.wait(bot.agent.continue_old("u", "utter_hi", [])).action is not None


def test_story(bot: Bot) -> None:
    """A conversation can be had as a story with its texts."""
    bot.say('/greet{"city": "rome"}')
    story = bot.wait(bot.agent.story("u"))
    assert story.startswith("## u\n* greet: ")
    assert '    - slot{"city": "rome"}\n    - utter_hi\n' in story


def test_not_ready() -> None:
    """Without a model messages of channels are dropped, everything else says that it has to wait."""
    bot = Bot(domain("0.11"), SCRIPT)
    bot.agent.served.current = None
    assert bot.wait(bot.agent.handle_message(UserMessage(text="hi"))) == []
    assert bot.agent.status()["is_ready"] is False
    for work in (
        lambda: bot.agent.handle_text("hi", "u"),
        lambda: bot.agent.tracker("u"),
        lambda: bot.agent.append("u", [{"event": "x"}], single=True),
        lambda: bot.agent.predict("u"),
    ):
        with pytest.raises(AgentNotReady):
            bot.wait(work())


def test_a_new_model_serves_the_next_turn() -> None:
    """A turn ends on the model it began with; the next one uses the new model, and conversations stay."""
    gate: Deferred[Any] = Deferred()
    url = "http://actions"
    bot = Bot(
        domain("0.11"), {"greet": ["action_search", "utter_hi"]}, http=FakeHTTP({url: lambda call: gate}),
        endpoints=Endpoints(action_endpoint=EndpointConfig(url=url)),
    )  # fmt: skip
    answers: list[Any] = []
    Deferred.fromCoroutine(bot.agent.handle_text("/greet", "u")).addCallback(answers.append)
    bot.clock.pump([0] * 10)
    bot.domain = domain("0.11", templates={"utter_hi": ["the new one"]})
    bot.install({"greet": ["utter_hi"]}, "f-2")
    gate.callback((200, {}))
    bot.clock.pump([0] * 10)  # a busy machine takes more than one slice
    assert [message.text for message in answers[0]] == ["hello None"]
    assert bot.say("/greet") == [{"recipient_id": "u", "text": "the new one"}]
    assert bot.agent.fingerprint == "f-2"
    assert bot.kinds().count("user") == 2


def test_loaded_models_cannot_learn(bot: Bot) -> None:
    """A model that was loaded has no stories to go on learning with; broken events are refused first."""
    with pytest.raises(TrainingFailed):
        bot.wait(bot.agent.finetune([], 30, 5))
    with pytest.raises(InvalidParameter):
        bot.wait(bot.agent.finetune([{"event": "x"}], 30, 5))


REMINDER = {"event": "reminder", "action": "utter_bye", "date_time": "1970-01-12T13:46:50", "name": "r"}


def reminding(reminder: dict[str, Any]) -> Bot:
    url = "http://actions"
    return Bot(
        domain("0.11"), SCRIPT, http=FakeHTTP({url: lambda call: (200, {"events": [reminder]})}),
        endpoints=Endpoints(action_endpoint=EndpointConfig(url=url)),
    )  # fmt: skip


def test_reminder_fires() -> None:
    """A reminder that an action returned runs its action when it is due, after an empty message."""
    bot = reminding(REMINDER)
    bot.say("/inform")
    stored = len(bot.log())
    bot.clock.advance(9)
    assert len(bot.log()) == stored
    bot.clock.advance(1)
    bot.clock.advance(0)
    assert bot.kinds()[stored:] == ["user", "action utter_bye", "bot", "action action_listen"]
    assert bot.log()[stored]["text"] is None


@pytest.mark.parametrize("then", ["/greet", "/restart"])
def test_reminder_is_void(then: str) -> None:
    """A reminder does nothing when the user spoke since, or the conversation was restarted."""
    bot = reminding({**REMINDER, "kill_on_user_msg": then == "/greet"})
    bot.say("/inform")
    bot.say(then)
    stored = len(bot.log())
    bot.clock.advance(20)
    bot.clock.advance(0)
    assert len(bot.log()) == stored


def test_late_reminder_is_dropped() -> None:
    """A reminder that is long past is not run."""
    bot = reminding({**REMINDER, "date_time": "1970-01-02"})
    bot.say("/inform")
    stored = len(bot.log())
    bot.clock.advance(20)
    assert len(bot.log()) == stored


def test_pushed_reminders_are_only_logged(bot: Bot) -> None:
    """A reminder that is pushed over the API never runs."""
    bot.wait(bot.agent.append("u", [REMINDER], single=True))
    bot.clock.advance(20)
    assert bot.kinds() == ["action action_listen", "reminder r"]
