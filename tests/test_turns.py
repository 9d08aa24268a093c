"""Tests of turns as transactions: requests that come again, and processes that share a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from rasa_core_api.claims import LEASE, PATIENCE
from rasa_core_api.events import Event
from rasa_core_api.exceptions import ConversationHeld, KeyReused, StoreConflict, StoreUnavailable, UnknownAction
from rasa_core_api.messages import BotMessage, RequestKey, UserMessage
from rasa_core_api.nlg import Response
from rasa_core_api.processor import Processor
from rasa_core_api.tracker_store.memory import PROTECTED, MemoryStore
from rasa_core_api.tracker_store.turns import NO_NOTE, TurnNote
from rasa_core_api.tracker_views import EventVerbosity
from tests.cluster import ACTIONS, ENDPOINTS, FOUND, KEY, ONE_GREETING, SCRIPT, ActionServer, Cluster, SharedStore, said
from tests.conftest import LoggedFailures
from tests.fakes import Bot
from tests.samples import domain

# --- requests that come again ------------------------------------------------------------------------------


@pytest.fixture
def bot() -> Bot:
    return Bot(domain("0.12"), SCRIPT, http=ActionServer().http, endpoints=ENDPOINTS)


def test_repeat_gets_the_same_answer(bot: Bot) -> None:
    """A request that comes again runs nothing and is answered as before, whatever happened since."""
    first = bot.wait(bot.agent.handle_text("/inform", "u", KEY))
    bot.say("/bye")
    log = bot.log()
    assert bot.wait(bot.agent.handle_text("/inform", "u", KEY)) == first
    assert said(first) == ["found", "hello None"]
    assert len(bot.http.calls) == 1 and bot.log() == log


def test_keys_are_of_their_conversation(bot: Bot) -> None:
    """The same key in another conversation is another request, and so is another key in the same one."""
    for sender_id, key in (("u", "k"), ("v", "k"), ("u", "l")):
        bot.wait(bot.agent.handle_text("/inform", sender_id, RequestKey(key, "d")))
    assert len(bot.http.calls) == 3


def test_other_request_under_a_key_is_refused(bot: Bot) -> None:
    """A key that stands for something else already is an error; nothing is run or stored."""
    bot.wait(bot.agent.handle_text("/greet", "u", KEY))
    log = bot.log()
    with pytest.raises(KeyReused):
        bot.wait(bot.agent.handle_text("/bye", "u", RequestKey("k", "other")))
    assert bot.log() == log


def test_repeat_waits_for_the_first(bot: Bot) -> None:
    """A request that comes again while the first is under way waits for it and gets its answer."""
    gate: Deferred[Any] = Deferred()
    bot.http.answers[ACTIONS] = lambda call: gate
    answers: list[Any] = []
    for _ in range(3):
        Deferred.fromCoroutine(bot.agent.handle_text("/inform", "u", KEY)).addCallback(answers.append)
    bot.clock.pump([0] * 20)
    assert answers == []
    gate.callback(FOUND)
    bot.clock.pump([0] * 20)
    assert len(answers) == 3 and answers[0] == answers[1] == answers[2]
    assert len(bot.http.calls) == 1


def test_failed_request_may_come_again(bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is not kept: the request runs when it comes again."""

    async def away(*_: Any) -> int:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(bot.agent.store, "append", away)
        with pytest.raises(StoreUnavailable):
            bot.wait(bot.agent.handle_text("/greet", "u", KEY))
    assert bot.log() == []
    assert said(bot.wait(bot.agent.handle_text("/greet", "u", KEY))) == ["hello None"]
    assert bot.kinds() == ONE_GREETING


def test_answers_are_kept_for_a_time(bot: Bot) -> None:
    """Beyond its time a key stands for nothing."""
    request = RequestKey("k", "d", 60.0)
    bot.wait(bot.agent.handle_text("/greet", "u", request))
    bot.clock.advance(59.0)
    bot.wait(bot.agent.handle_text("/greet", "u", request))
    assert bot.kinds().count("user") == 1
    bot.clock.advance(2.0)
    bot.wait(bot.agent.handle_text("/greet", "u", request))
    assert bot.kinds().count("user") == 2


def test_message_ids_of_channels(bot: Bot) -> None:
    """A channel's own message id is a key; the same id of another channel is not the same."""
    for channel in ("rest", "rest", "other"):
        message = UserMessage(text="/greet", sender_id="u", input_channel=channel, message_id="m1")
        bot.wait(bot.agent.handle_message(message))
    assert bot.kinds().count("user") == 2


def test_views_are_those_of_then(bot: Bot) -> None:
    """Requests that are answered with the tracker show it as it was when they came first."""
    agent = bot.agent
    slot = {"event": "slot", "name": "city", "value": "rome", "timestamp": 5.0}
    keys = iter(f"k{number}" for number in range(10))

    def twice(work: Any) -> None:
        request = RequestKey(next(keys), "d")
        first = bot.wait(work(request))
        log = bot.log()
        bot.say("/bye")
        assert bot.wait(work(request)) == first
        assert len(bot.log()) == len(log) + 4

    everything = EventVerbosity.ALL
    twice(lambda key: agent.append("u", [slot], True, everything, key))
    twice(lambda key: agent.execute("u", "utter_hi", None, None, everything, key))
    twice(lambda key: agent.log_message("u", "/greet", None, everything, key))
    twice(lambda key: agent.parse_old("u", "/greet", key))
    twice(lambda key: agent.continue_old("u", "utter_hi", [], key))
    twice(lambda key: agent.replace("u", [slot, slot], everything, key))


def test_view_of_a_log_that_was_replaced(bot: Bot) -> None:
    """Where the log of then is gone, the tracker is shown as it is."""
    slot = {"event": "slot", "name": "city", "value": "rome", "timestamp": 5.0}
    bot.wait(bot.agent.append("u", [slot], True, EventVerbosity.ALL, KEY))
    bot.wait(bot.agent.replace("u", [slot, slot, slot]))
    view = bot.wait(bot.agent.append("u", [slot], True, EventVerbosity.ALL, KEY))
    assert len(view.events) == 3


class Stream:
    """A request that gets messages as they are said."""

    answers_request = True

    def __init__(self) -> None:
        self.texts: list[str | None] = []

    def channel_name(self) -> str:
        return "queue"

    async def send(self, recipient_id: str, response: Response) -> None:
        self.texts.append(response.get("text"))

    def keep(self, messages: Sequence[BotMessage]) -> None:
        self.texts += said(messages)


class Push(Stream):
    """A channel that posts messages to somebody else."""

    answers_request = False


def test_stream_is_given_again(bot: Bot) -> None:
    """A stream that is asked for again gets all messages again; what was pushed elsewhere is not pushed twice."""
    for kind, again in ((Stream, ["found", "hello None"]), (Push, [])):
        outputs = [kind(), kind()]
        for output in outputs:
            message = UserMessage(text="/inform", sender_id=kind.__name__, output=output, request=KEY)
            bot.wait(bot.agent.handle_message(message))
        assert [output.texts for output in outputs] == [["found", "hello None"], again]
    assert len(bot.http.calls) == 2


# --- several processes -------------------------------------------------------------------------------------


def test_turns_of_two_processes() -> None:
    """Two servers that are asked at once each do a whole turn, one after the other."""
    cluster = Cluster()
    answers = [cluster.ask(number % 2, "/greet") for number in range(6)]
    assert all(said(answer[0]) == ["hello None"] for answer in answers)
    assert cluster.kinds() == [ONE_GREETING[0], *(ONE_GREETING[1:] * 6)]


def test_kept_trackers_are_trusted_until_they_are_overtaken() -> None:
    """A process alone asks the store before its first turn only, one that is overtaken always; all turns are right."""
    cluster = Cluster()
    looks: list[str] = []
    look = cluster.store.look

    async def counted(sender_id: str, *arguments: Any) -> Any:
        looks.append(sender_id)
        return await look(sender_id, *arguments)

    cluster.store.look = counted  # type: ignore[method-assign]
    for _ in range(10):
        cluster.ask(0, "/greet")
    assert len(looks) == 1  # what there is; that it is still the conversation that was begun here is known
    for number in range(40):
        cluster.ask(number % 2, "/greet")
    assert cluster.kinds() == [ONE_GREETING[0], *(ONE_GREETING[1:] * 50)]
    del looks[:]
    cluster.ask(0, "/greet")
    cluster.ask(1, "/greet")
    assert len(looks) == 2  # by now both look first, and nothing is done twice
    cluster.bots[0].wait(cluster.bots[1].agent.replace("u", []))
    cluster.ask(0, "/greet")
    assert cluster.kinds() == ONE_GREETING[1:]


def test_action_keeps_others_out() -> None:
    """While an action of one server runs, the others wait with this conversation; then they see what it did."""
    cluster = Cluster()
    cluster.actions.slow = True
    first = cluster.ask(0, "/inform")
    second = cluster.ask(1, "/greet")
    cluster.advance(3 * LEASE)
    assert first == second == []
    cluster.actions.answer()
    cluster.advance(1)
    assert said(first[0]) == ["found", "hello None"] and said(second[0]) == ["hello None"]
    assert cluster.kinds().count("action action_search") == 1 and len(cluster.actions.turn_ids) == 1
    assert len(cluster.bots[0].agent.turns.claims) == 0


def test_repeat_at_another_server() -> None:
    """A request that comes again at another server while the first runs waits, and runs nothing."""
    cluster = Cluster()
    cluster.actions.slow = True
    answers = [cluster.ask(bot, "/inform", KEY) for bot in (0, 1, 0, 1)]
    cluster.advance(1)
    cluster.actions.answer()
    cluster.advance(1)
    assert [said(answer[0]) for answer in answers] == [["found", "hello None"]] * 4
    assert len(cluster.actions.turn_ids) == 1


def test_killed_server_is_succeeded() -> None:
    """When a server dies in an action its claim runs out; the repeat calls the action with the same turn id."""
    cluster = Cluster()
    cluster.actions.slow = True
    cluster.ask(0, "/inform", KEY)
    cluster.kill(0)
    cluster.actions.slow = False
    second = cluster.ask(1, "/inform", KEY)
    cluster.advance(LEASE / 2)
    assert second == []
    cluster.advance(LEASE)
    assert said(second[0]) == ["found", "hello None"]
    assert len(cluster.actions.turn_ids) == 2 and len(set(cluster.actions.turn_ids)) == 1
    assert [headers["X-Turn-Step"] for headers in cluster.actions.http.headers] == ["0", "0"]
    # the dead one wakes up and finds that it was succeeded: nothing of it is stored
    log = cluster.kinds()
    cluster.actions.answer()
    cluster.rounds()
    assert cluster.kinds() == log


def test_turn_ids_of_other_requests(bot: Bot) -> None:
    """A key that is free again, and a reminder of a conversation that begins anew, give other turn ids than before."""
    actions = bot.http
    for digest, date in (("d", "1970-01-12T13:46:50"), ("e", "1970-01-12T13:47:50")):
        reminder = {"event": "reminder", "action": "action_search", "date_time": date, "name": "r"}
        answers = iter([(200, {"events": [reminder]}), FOUND])
        actions.answers[ACTIONS] = lambda call, answers=answers: next(answers)
        bot.wait(bot.agent.handle_text("/inform", "u", RequestKey("k", digest)))
        bot.clock.pump([1.0] * 60)
        assert bot.wait(bot.agent.care.delete("u"))
    assert len(actions.headers) == len({headers["X-Turn-Id"] for headers in actions.headers}) == 4


def test_overtaken_server_gives_up() -> None:
    """A server whose claim ran out unnoticed fails its turn rather than doing it twice."""
    cluster = Cluster()
    cluster.actions.slow = True
    first = cluster.ask(0, "/inform")
    cluster.kill(0)
    cluster.advance(2 * LEASE)
    assert said(cluster.ask(1, "/greet")[0]) == ["hello None"]
    cluster.actions.answer()
    cluster.rounds()
    assert isinstance(first[0], StoreConflict)
    assert cluster.kinds() == ONE_GREETING
    assert said(cluster.ask(0, "/greet")[0]) == ["hello None"]


def test_nobody_waits_for_ever() -> None:
    """A turn that waits too long for another server's is refused; later ones go on."""
    cluster = Cluster()
    cluster.actions.slow = True
    cluster.ask(0, "/inform")
    second = cluster.ask(1, "/greet")
    cluster.advance(PATIENCE + 1)
    assert isinstance(second[0], ConversationHeld)
    cluster.actions.answer()
    cluster.advance(1)
    assert said(cluster.ask(1, "/greet")[0]) == ["hello None"]


def test_store_that_is_away_before_an_action(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a claim no action is called; the turn fails, and nothing of it is stored."""
    cluster = Cluster()

    async def away(*_: Any) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(cluster.store, "claim", away)
        assert isinstance(cluster.ask(0, "/inform")[0], StoreUnavailable)
    assert cluster.actions.turn_ids == [] and cluster.kinds() == []
    assert said(cluster.ask(1, "/inform")[0]) == ["found", "hello None"]


class DyingStore(SharedStore):
    """Loses the process "one" after so many appends: the next one never returns."""

    left = 99

    async def append(self, sender_id: str, end: int, events: Sequence[Event], note: TurnNote = NO_NOTE) -> int:
        if note.owner == "one":
            if not self.left:
                await Deferred()
            self.left -= 1
        return await super().append(sender_id, end, events, note)


def test_pushed_turn_goes_on_where_it_ended() -> None:
    """A turn whose parts were pushed before its server died is finished by the repeat, not begun anew."""
    cluster = Cluster()
    cluster.store = store = DyingStore(cluster.clock)
    store.left = 2  # the part, and that more is to come
    cluster.bots = [cluster._bot("0.11", name) for name in ("one", "two")]
    first, again = Stream(), Stream()
    cluster.ask(0, "/inform", KEY, output=first)
    assert first.texts == ["found"]
    cluster.kill(0)
    over = cluster.ask(1, "/inform", KEY, output=again)
    cluster.advance(2 * LEASE)
    assert over == [[]] and again.texts == ["found", "hello None"]
    assert cluster.kinds() == [
        "action action_listen", "user", "action action_search", "bot", "action utter_hi", "bot", "action action_listen",
    ]  # fmt: skip
    assert len(cluster.actions.turn_ids) == 1


@pytest.mark.parametrize("kind", [Stream, Push])
def test_torn_turn_that_the_conversation_left_behind(kind: type[Stream]) -> None:
    """Once the user said something else, a repeat gets what was said by then, and nothing runs."""
    cluster = Cluster()
    cluster.store = store = DyingStore(cluster.clock)
    store.left = 2  # the part, and that more is to come
    cluster.bots = [cluster._bot("0.11", name) for name in ("one", "two")]
    cluster.ask(0, "/inform", KEY, output=kind())
    cluster.kill(0)
    cluster.ask(1, "/inform")
    cluster.advance(2 * LEASE)
    log, outputs = cluster.kinds(), [kind(), kind()]
    for output in outputs:
        assert cluster.ask(1, "/inform", KEY, output=output) == [[]]
    assert [output.texts for output in outputs] == [["found"], ["found"] if kind is Stream else []]
    assert cluster.kinds() == log and len(cluster.actions.turn_ids) == 2


# --- turns that never come to their end --------------------------------------------------------------------


TORN = ["action action_listen", "user", "action action_search", "bot"]


def torn(appends: int, request: RequestKey | None, before: Sequence[str] = ()) -> Cluster:
    """A conversation whose streamed turn was cut off after so many appends of its own."""
    cluster = Cluster()
    cluster.store = store = DyingStore(cluster.clock)
    cluster.bots = [cluster._bot("0.11", name) for name in ("one", "two")]
    for text in before:
        cluster.ask(0, text)
    store.left = appends
    cluster.ask(0, "/inform", request, output=Stream())
    cluster.kill(0)
    cluster.advance(2 * LEASE)
    return cluster


@pytest.mark.parametrize(("appends", "request_key"), [(1, None), (2, KEY)], ids=["no key", "a key"])
@pytest.mark.parametrize("before", [[], ["/greet"]], ids=["new", "known"])
def test_message_after_a_torn_turn(appends: int, request_key: RequestKey | None, before: list[str]) -> None:
    """The bot listens first, so that the message is not taken for a part of the turn that was cut off."""
    cluster = torn(appends, request_key, before)
    whole = [ONE_GREETING[0], *(ONE_GREETING[1:] * len(before)), *TORN[1:]]
    assert cluster.kinds() == whole
    assert said(cluster.ask(1, "/inform")[0]) == ["found", "hello None"]
    whole += ["action action_listen", *TORN[1:], "action utter_hi", "bot", "action action_listen"]
    assert cluster.kinds() == whole
    cluster.ask(1, "/greet")
    assert cluster.kinds() == [*whole, *ONE_GREETING[1:]]


@pytest.mark.parametrize("before", [[], ["/greet"]], ids=["new", "known"])
def test_turn_that_is_cut_off_before_its_first_part(before: list[str]) -> None:
    """That it might be torn is known by then, and is no reason to listen twice."""
    cluster = torn(1, KEY, before)
    whole = [ONE_GREETING[0], *(ONE_GREETING[1:] * len(before))]
    assert cluster.kinds() == whole
    cluster.ask(1, "/greet")
    assert cluster.kinds() == [*whole, *ONE_GREETING[1:]]


def test_torn_turn_that_is_left_behind_by_no_message() -> None:
    """A repeat that came too late to finish a turn does not hide from the next message that the turn is torn."""
    cluster = torn(2, KEY)
    slot = {"event": "slot", "name": "city", "value": "rome", "timestamp": 5.0}
    cluster.bots[1].wait(cluster.bots[1].agent.append("u", [slot], True))
    again = Stream()
    cluster.ask(1, "/inform", KEY, output=again)
    assert again.texts == ["found"] and cluster.kinds() == [*TORN, "slot city"]
    cluster.ask(1, "/greet")
    assert cluster.kinds() == [*TORN, "slot city", *ONE_GREETING]


def test_torn_turn_of_a_log_that_was_replaced() -> None:
    """It is gone with its log: nobody goes on with it, and the new log is not torn."""
    cluster = torn(2, KEY)
    agent = cluster.bots[1].agent
    cluster.bots[1].wait(agent.replace("u", []))
    again = Stream()
    cluster.ask(1, "/inform", KEY, output=again)
    assert again.texts == ["found"] and cluster.kinds() == []
    driven = {"event": "action", "name": "utter_hi", "timestamp": 5.0}
    cluster.bots[1].wait(agent.replace("u", [driven]))
    cluster.ask(1, "/greet")
    assert cluster.kinds() == ["action utter_hi", *ONE_GREETING[1:]]


@pytest.mark.parametrize("before", [[], ["/greet"]], ids=["new", "known"])
def test_torn_turn_that_was_made_anonymous(before: list[str]) -> None:
    """It is cut off all the same, and nobody learns what its request was."""
    cluster = torn(2, KEY, before)
    agent = cluster.bots[1].agent
    for _ in range(2):
        assert cluster.bots[1].wait(agent.care.anonymise("u", agent.model.domain))
    again = Stream()
    cluster.ask(1, "/inform", KEY, output=again)
    whole = [ONE_GREETING[0], *(ONE_GREETING[1:] * len(before)), *TORN[1:]]
    assert again.texts == [] and cluster.kinds() == whole
    cluster.ask(1, "/greet")
    assert cluster.kinds() == [*whole, *ONE_GREETING]
    assert cluster.bots[1].wait(agent.care.anonymise("u", agent.model.domain))
    cluster.ask(1, "/greet")
    assert cluster.kinds() == [*whole, *ONE_GREETING, *ONE_GREETING[1:]]


def test_turn_that_fails_between_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same holds where the process lives on."""
    bot = Bot(domain("0.12"), SCRIPT, http=ActionServer().http, endpoints=ENDPOINTS)
    predict = Processor.predict

    def fails_later(model: Any, tracker: Any) -> Any:
        if tracker.latest_action_name == "action_search":
            raise UnknownAction("as a follow-up action may be")
        return predict(model, tracker)

    with monkeypatch.context() as patch:
        patch.setattr(Processor, "predict", staticmethod(fails_later))
        with pytest.raises(UnknownAction):
            bot.wait(bot.agent.handle_message(UserMessage(text="/inform", sender_id="u", output=Stream())))
    assert bot.kinds() == TORN
    bot.say("/greet")
    assert bot.kinds() == [*TORN, *ONE_GREETING]


@pytest.mark.parametrize("request_key", [None, KEY], ids=["no key", "a key"])
def test_turn_that_ends_without_a_listen(request_key: RequestKey | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that came to its end is not torn, though the bot never listened: nothing is added."""
    monkeypatch.setattr("rasa_core_api.processor.MAX_ACTIONS_PER_TURN", 2)
    bot = Bot(domain("0.12"), SCRIPT, http=ActionServer().http, endpoints=ENDPOINTS)
    message = UserMessage(text="/inform", sender_id="u", output=Stream(), request=request_key)
    bot.wait(bot.agent.handle_message(message))
    log = bot.kinds()
    assert log == [*TORN, "action utter_hi", "bot"]
    bot.say("/greet")
    assert bot.kinds() == [*log, "user", "action utter_hi", "bot", "action action_listen"]


def test_finished_turn_that_ends_without_a_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is one that another process brought to such an end."""
    monkeypatch.setattr("rasa_core_api.processor.MAX_ACTIONS_PER_TURN", 1)
    cluster = torn(2, KEY)
    assert cluster.kinds() == TORN
    cluster.ask(1, "/inform", KEY, output=Stream())
    assert cluster.kinds() == [*TORN, "action utter_hi", "bot"]
    cluster.ask(1, "/greet")
    assert cluster.kinds() == [*TORN, "action utter_hi", "bot", "user", "action utter_hi", "bot"]


def test_conversation_that_is_driven_over_the_api(bot: Bot) -> None:
    """Whoever runs actions one by one decides where the bot listens."""
    bot.wait(bot.agent.execute("u", "utter_hi", None, None, EventVerbosity.NONE))
    log = bot.kinds()
    bot.say("/greet")
    assert bot.kinds() == [*log, *ONE_GREETING[1:]]


def test_new_conversation_that_two_look_at() -> None:
    """Looking at an unknown conversation stores its beginning once, and never against somebody's claim."""
    cluster = Cluster()
    one, two = (bot.agent for bot in cluster.bots)
    for agent in (one, two):
        cluster.bots[0].wait(agent.tracker("u"))
    assert cluster.kinds() == ["action action_listen"]
    cluster.bots[0].wait(cluster.store.delete("u"))
    cluster.actions.slow = True
    cluster.ask(0, "/inform")
    assert cluster.bots[1].wait(two.tracker("u")).events
    assert cluster.kinds() == []
    cluster.actions.answer()
    cluster.advance(1)
    assert cluster.kinds().count("action action_listen") == 2


def test_reminder_fires_once_among_servers(logged: LoggedFailures) -> None:
    """A reminder that several servers know of fires at one of them."""
    cluster = Cluster()
    reminder = {"event": "reminder", "action": "utter_bye", "date_time": "1970-01-12T13:46:50", "name": "r"}
    cluster.actions.http.answers[ACTIONS] = lambda call: (200, {"events": [reminder]})
    for bot in cluster.bots:
        bot.agent.start()
    cluster.ask(0, "/inform")
    cluster.advance(20)
    assert cluster.kinds().count("action utter_bye") == 1
    assert cluster.bots[0].wait(cluster.store.reminders("u")) == []
    for bot in cluster.bots:
        bot.agent.stop()
    assert not logged.take()


def test_reminders_of_one_name_within_a_turn() -> None:
    """Only the last one is scheduled; stores need not cope with two."""
    cluster = Cluster()
    cluster.store = store = NotedStore(cluster.clock)
    cluster.bots = [cluster._bot("0.11", "one")]
    dates = ("1970-01-12T13:46:50", "1970-01-12T13:47:50")
    events = [{"event": "reminder", "action": "utter_bye", "date_time": date, "name": "r"} for date in dates]
    cluster.actions.http.answers[ACTIONS] = lambda call: (200, {"events": events})
    cluster.ask(0, "/inform")
    (reminder,) = store.notes[-1].reminders
    assert cluster.bots[0].wait(cluster.store.reminders("u")) == [reminder]
    cluster.advance(100)
    assert cluster.kinds().count("action utter_bye") == 1


class NotedStore(SharedStore):
    """Remembers the notes of appends."""

    def __init__(self, clock: Any) -> None:
        super().__init__(clock)
        self.notes: list[TurnNote] = []

    async def append(self, sender_id: str, end: int, events: Sequence[Event], note: TurnNote = NO_NOTE) -> int:
        self.notes.append(note)
        return await super().append(sender_id, end, events, note)


class TornAtReminder(DyingStore):
    """Loses the process once the first part of a reminder's turn is stored."""

    async def append(self, sender_id: str, end: int, events: Sequence[Event], note: TurnNote = NO_NOTE) -> int:
        end = await super().append(sender_id, end, events, note)
        if str(note.key).startswith("reminder"):
            self.left = 0
        return end


def test_torn_reminder_is_finished_by_another_server() -> None:
    """A reminder whose server died between storing and sending what it says is sent and ended by another one, once."""
    cluster = Cluster()
    cluster.store = TornAtReminder(cluster.clock)
    cluster.bots = [cluster._bot("0.11", name) for name in ("one", "two")]
    reminder = {"event": "reminder", "action": "action_search", "date_time": "1970-01-12T13:46:50", "name": "r"}
    answers = iter([(200, {"events": [reminder]}), FOUND])
    cluster.actions.http.answers[ACTIONS] = lambda call: next(answers)
    second = cluster.bots[1]
    pushes = [Push(), Push()]
    second.agent.output_of = {"queue": lambda: pushes[1]}
    cluster.ask(0, "/inform", output=pushes[0])
    cluster.advance(12)
    cluster.kill(0)
    second.agent.start()
    cluster.advance(20)
    assert len(cluster.actions.turn_ids) == 2 and pushes[1].texts == ["found"]
    assert cluster.kinds()[-4:] == ["user", "action action_search", "bot", "action action_listen"]
    assert second.wait(cluster.store.reminders("u")) == []
    for bot in cluster.bots:
        bot.agent.stop()


def test_conversation_that_the_store_dropped_at_its_bound() -> None:
    """It begins anew with its next turn, whose action is called once; what was kept of it outside the store is gone."""
    actions, clock = ActionServer(), Clock()
    store = MemoryStore(clock, max_conversations=1)
    bot = Bot(domain("0.11"), SCRIPT, store=store, http=actions.http, endpoints=ENDPOINTS, clock=clock)
    bot.say("/greet", "old")
    clock.advance(2 * PROTECTED)
    bot.say("/greet", "new")
    clock.advance(2 * PROTECTED)
    assert [answer["text"] for answer in bot.say("/inform", "old")] == ["found", "hello None"]
    assert len(actions.turn_ids) == 1
    assert bot.kinds("old") == [*TORN, "action utter_hi", "bot", "action action_listen"]
