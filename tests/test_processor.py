"""Tests of turns: what is predicted, run, stored and answered."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, globalLogPublisher

from rasa_core_api.endpoints import EndpointConfig, Endpoints, OutgoingFailed
from rasa_core_api.exceptions import StoreUnavailable, UnknownAction
from rasa_core_api.messages import UserMessage
from rasa_core_api.models.generation import Generation
from rasa_core_api.policies.ensemble import Ensemble
from rasa_core_api.tracker_store.memory import MemoryStore
from tests.fakes import Bot, FakeHTTP, ScriptPolicy
from tests.samples import domain

ACTIONS = "http://actions/webhook"
ENDPOINTS = Endpoints(action_endpoint=EndpointConfig(url=ACTIONS))
SCRIPT = {"greet": ["utter_hi"], "bye": ["utter_bye"], "inform": ["action_search", "utter_hi"]}


def bot_with(answer: Any, release: str = "0.11", **settings: Any) -> Bot:
    return Bot(domain(release), SCRIPT, http=FakeHTTP({ACTIONS: answer}), endpoints=ENDPOINTS, **settings)


def test_a_turn() -> None:
    """A message is logged, answered and followed by a listen; the events are stored in the order of history."""
    bot = Bot(domain("0.11"), SCRIPT)
    assert bot.say("/greet") == [{"recipient_id": "u", "text": "hello None"}]
    assert bot.kinds() == ["action action_listen", "user", "action utter_hi", "bot", "action action_listen"]
    assert bot.log()[2]["policy"] == "policy_0_ScriptPolicy"


def test_entities_fill_slots() -> None:
    """The entities of a message fill the slots of their names before anything is predicted."""
    bot = Bot(domain("0.11"), SCRIPT)
    assert bot.say('/greet{"city": "rome"}') == [{"recipient_id": "u", "text": "hello rome"}]
    assert bot.kinds()[:3] == ["action action_listen", "user", "slot city"]


def test_bot_events_come_first_in_0_9() -> None:
    """Up to 0.9 what was said is logged before the action."""
    bot = Bot(domain("0.9"), SCRIPT)
    bot.say("/greet")
    assert bot.kinds()[1:4] == ["user", "bot", "action utter_hi"]


def test_remote_action() -> None:
    """An action server is sent the whole conversation; its responses are said before its events are logged."""

    def answer(call: dict[str, Any]) -> tuple[int, Any]:
        assert call["next_action"] == "action_search" and call["sender_id"] == "u"
        assert [event["event"] for event in call["tracker"]["events"]] == ["action", "user"]
        assert call["domain"]["actions"] == ["utter_hi", "utter_bye", "action_search"]
        assert "version" not in call
        return 200, {
            "events": [{"event": "slot", "name": "city", "value": "oslo", "timestamp": 1.0}],
            "responses": [{"text": "found"}, {"template": "utter_bye", "buttons": [{"title": "more"}]}],
        }

    bot = bot_with(answer)
    said = bot.say("/inform")
    assert said[0] == {"recipient_id": "u", "text": "found"}
    assert [button["title"] for button in said[1]["buttons"]] == ["again", "more"]
    assert said[2] == {"recipient_id": "u", "text": "hello oslo"}
    assert bot.kinds()[2:6] == ["action action_search", "slot city", "bot", "bot"]
    assert bot.log()[3]["timestamp"] == bot.clock.seconds()


@pytest.mark.parametrize(
    ("slots", "told"),
    [(["mood"], [["city"]]), (["city", "mood"], []), (None, [["city", "mood"]]), (7, [["city", "mood"]])],
)
def test_slots_that_an_action_never_set_in_training(slots: Any, told: list[list[str]]) -> None:
    """Each of them is named once, however often it is set; slots without features do not matter."""
    names = ["mood", "city", "city", "note", "unknown"]
    answer = {"events": [{"event": "slot", "name": name, "value": "good"} for name in names]}
    bot = bot_with(lambda call: (200, answer))
    metadata = {"action_fingerprints": {"action_search": {"slots": slots}}}
    ensemble = Ensemble([ScriptPolicy(SCRIPT)], bot.domain)
    bot.agent.install(Generation(domain=bot.domain, ensemble=ensemble, fingerprint="f", metadata=metadata))
    lines: list[LogEvent] = []
    globalLogPublisher.addObserver(lines.append)  # type: ignore[arg-type]
    try:
        bot.say("/inform")
    finally:
        globalLogPublisher.removeObserver(lines.append)  # type: ignore[arg-type]
    assert [line["slots"] for line in lines if "slots" in line] == told


def test_version_is_sent_from_0_13() -> None:
    """Action servers of 0.13 and later are told the version."""
    calls: list[dict[str, Any]] = []
    bot = bot_with(lambda call: calls.append(call) or (200, {}), "0.13", version="0.14.5")
    bot.say("/inform")
    assert calls[0]["version"] == "0.14.5"


@pytest.mark.parametrize(
    "answer",
    [
        (500, {"error": "broken"}),
        (400, {"error": "no", "action_name": "action_search"}),
        (200, b"<html>"),
        (200, b'{"events": [], "resp'),
        (200, []),
        (200, {"events": "none"}),
        (200, {"events": [{"event": "nonsense"}]}),
        (200, {"events": [{"event": "slot", "name": 3}]}),
        (200, {"responses": ["hi"]}),
        (200, {"responses": [{"text": "hi", "buttons": "none"}]}),
        OutgoingFailed("nobody is there"),
    ],
    ids=str,
)
def test_an_action_that_fails_counts_as_executed(answer: Any) -> None:
    """Whatever goes wrong with an action, its events are lost, it counts as executed and the bot goes on."""

    def fail(call: dict[str, Any]) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    bot = bot_with(fail)
    assert [message["text"] for message in bot.say("/inform")][-1] == "hello None"
    assert "slot city" not in bot.kinds()
    assert bot.kinds().count("action action_search") == 1
    bot.say("/greet")


def test_a_failed_action_can_be_answered() -> None:
    """With a failure template the user is told that something went wrong."""
    bot = bot_with(lambda call: (500, {}), failure_template="utter_bye")
    assert bot.say("/inform")[0]["text"] == "bye"


def test_a_failed_generation_server_can_be_answered() -> None:
    """A server that should say the failure template and fails is not waited for twice: the model's own is said."""
    asked: list[str] = []

    def generate(call: dict[str, Any]) -> Any:
        asked.append(call["template"])
        return 500, {}

    endpoints = Endpoints(action_endpoint=EndpointConfig(url=ACTIONS), nlg=EndpointConfig(url="http://nlg"))
    http = FakeHTTP({ACTIONS: lambda call: (500, {}), "http://nlg": generate})
    bot = Bot(domain("0.11"), SCRIPT, http=http, endpoints=endpoints, failure_template="utter_bye")
    assert [message["text"] for message in bot.say("/inform")] == ["bye", "bye"]
    assert asked == ["utter_bye", "utter_hi"]


def test_without_an_action_server_actions_fail() -> None:
    """An action that nobody can run is logged as executed."""
    bot = Bot(domain("0.11"), SCRIPT)
    assert bot.say("/inform") == [{"recipient_id": "u", "text": "hello None"}]


def test_rejection() -> None:
    """From 0.12 on a 400 that names the action is a rejection: no action is logged, the policies choose again."""
    bot = bot_with(lambda call: (400, {"error": "no", "action_name": "action_search"}), "0.12")
    bot.say("/inform")
    assert "action action_search" not in bot.kinds()
    assert bot.kinds()[2] == "action_execution_rejected action_search"


def test_circuit_breaker() -> None:
    """A turn ends after ten actions."""
    bot = Bot(domain("0.11"), {"greet": ["utter_hi"] * 20})
    assert len(bot.say("/greet")) == 10
    assert bot.kinds()[-1] == "bot"


def test_paused_conversations_are_silent() -> None:
    """A paused bot logs messages and answers none, until it is restarted."""
    bot = Bot(domain("0.11"), SCRIPT)
    bot.wait(bot.agent.append("u", [{"event": "pause"}], single=True))
    assert bot.say("/greet") == []
    bot.say("/restart")
    assert bot.say("/greet") == [{"recipient_id": "u", "text": "hello None"}]


def test_restart_needs_no_policy_before_0_14() -> None:
    """The restart intent runs the restart action, and the bot listens after it."""
    bot = Bot(domain("0.11"), {})
    bot.say("/restart")
    assert bot.kinds()[1:] == ["user", "action action_restart", "restart", "action action_listen"]


def test_followup_action_runs_next() -> None:
    """A follow-up action that an action server asked for runs next, whatever the policies say."""
    bot = bot_with(lambda call: (200, {"events": [{"event": "followup", "name": "utter_bye"}]}))
    assert bot.say("/inform")[0]["text"] == "bye"


def test_unknown_followup_fails_the_turn_and_stores_nothing() -> None:
    """A follow-up action that does not exist fails the turn; the conversation stays as it was."""
    bot = bot_with(lambda call: (200, {"events": [{"event": "followup", "name": "utter_nothing"}]}))
    bot.say("/greet")
    before = bot.log()
    with pytest.raises(UnknownAction, match="utter_nothing"):
        bot.say("/inform")
    assert bot.log() == before
    assert bot.say("/greet") == [{"recipient_id": "u", "text": "hello None"}]


class FailingStore(MemoryStore):
    """A store that loses its connection now and then."""

    failing = False

    async def append(self, *arguments: Any) -> int:
        if self.failing:
            raise StoreUnavailable("no connection")
        return await super().append(*arguments)


def test_a_turn_that_cannot_be_stored_is_not_answered() -> None:
    """Where the store fails the turn fails, and the next one begins from what is stored."""
    from twisted.internet.task import Clock

    store = FailingStore(Clock())
    bot = Bot(domain("0.11"), SCRIPT, store=store)
    bot.say("/greet")
    before = bot.log()
    store.failing = True
    with pytest.raises(StoreUnavailable):
        bot.say("/bye")
    store.failing = False
    assert bot.log() == before
    bot.say("/bye")
    assert bot.kinds().count("user") == 2


def test_turns_of_one_conversation_go_in_order() -> None:
    """While an action runs the next message of that conversation waits; another conversation does not."""
    gate: Deferred[Any] = Deferred()
    bot = bot_with(lambda call: gate if call["sender_id"] == "slow" else (200, {}))
    slow: list[Any] = []
    Deferred.fromCoroutine(bot.agent.handle_text("/inform", "slow")).addCallback(slow.append)
    Deferred.fromCoroutine(bot.agent.handle_text("/bye", "slow")).addCallback(slow.append)
    assert bot.say("/greet", "other")
    assert slow == [] and bot.agent.busy == 1
    gate.callback((200, {}))
    bot.clock.advance(0)
    assert [answers[0].text for answers in slow] == ["hello None", "bye"]
    assert bot.kinds("slow").count("user") == 2


def test_repeated_turns_carry_one_id() -> None:
    """The id that an action server sees is the same for attempts at one turn and another one for the next turn."""
    bot = bot_with(lambda call: (200, {"events": [{"event": "followup", "name": "nowhere"}]}))
    for _ in range(2):
        with pytest.raises(UnknownAction):
            bot.say("/inform")
    bot.http.answers[ACTIONS] = lambda call: (200, {})
    bot.say("/inform")
    bot.say("/inform")
    ids = [headers["X-Turn-Id"] for headers in bot.http.headers]
    assert ids[0] == ids[1] == ids[2] != ids[3]


def test_turns_of_a_conversation_that_began_anew() -> None:
    """Where a conversation was lost with its server and begins anew, its turns are no repetitions of the old ones."""
    ids: list[str] = []
    for run in ("first", "second"):
        bot = bot_with(lambda call: (200, {}), new_id=lambda run=run: run)
        for _ in range(2):
            bot.clock.advance(1.0 if run == "first" else 2.0)
            bot.say("/inform")
        ids += [headers["X-Turn-Id"] for headers in bot.http.headers]
    assert len(set(ids)) == 4


def test_first_turn_after_a_deletion() -> None:
    """It is no repetition of the first turn before the deletion, at the same server."""
    bot = bot_with(lambda call: (200, {}))
    for _ in range(2):
        bot.say("/inform")
        assert bot.wait(bot.agent.care.delete("u"))
    assert len({headers["X-Turn-Id"] for headers in bot.http.headers}) == 2


class Channel:
    """A channel that records what is sent, and what is stored at that time."""

    def __init__(self, bot: Bot) -> None:
        self.bot = bot
        self.sent: list[tuple[str, int]] = []

    def channel_name(self) -> str:
        return "recorder"

    async def send(self, recipient_id: str, response: dict[str, Any]) -> None:
        self.sent.append((response["text"], len(self.bot.log())))


def test_what_is_pushed_leaves_after_it_is_stored() -> None:
    """A channel gets the messages of an action when its events are stored, before the next action runs."""
    bot = bot_with(lambda call: (200, {"responses": [{"text": "found"}]}))
    channel = Channel(bot)
    message = UserMessage(text=" /inform ", sender_id="u", input_channel="recorder", output=channel)
    assert bot.wait(bot.agent.handle_message(message)) == []
    assert channel.sent == [("found", 4), ("hello None", 6)]
    assert bot.log()[1]["text"] == "/inform"
    assert bot.log()[1]["input_channel"] == "recorder"
