"""Tests of the care of conversations while turns run, at this process and at others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from rasa_core_api.claims import LEASE
from rasa_core_api.exceptions import ConversationHeld, StoreUnavailable
from rasa_core_api.messages import RequestKey
from rasa_core_api.tracker_store.turns import Opening
from rasa_core_api.tracker_views import EventVerbosity
from tests.cluster import KEY, ONE_GREETING, SCRIPT, Cluster, SharedStore, said
from tests.fakes import Bot
from tests.samples import domain

CITY = {"event": "slot", "name": "city", "value": "rome", "timestamp": 5.0}
SIX = [CITY] * 5


def begun(work: Any) -> list[Any]:
    """Begin something; the list gets its result, or what it failed with, once it is over."""
    results: list[Any] = []
    Deferred.fromCoroutine(work).addCallbacks(results.append, lambda failure: results.append(failure.value))
    return results


def test_deletion_waits_for_the_turn_of_another_server() -> None:
    """A conversation goes when the turn that another server has in it is answered and stored."""
    cluster = Cluster()
    cluster.ask(0, "/greet")
    cluster.actions.slow = True
    turn = cluster.ask(0, "/inform")
    deleted = begun(cluster.bots[1].agent.care.delete("u"))
    cluster.advance(1)
    assert deleted == turn == []
    cluster.actions.answer()
    cluster.advance(1)
    assert said(turn[0]) == ["found", "hello None"] and deleted == [True]
    assert cluster.kinds() == []
    assert len(cluster.bots[0].agent.care.claims) == len(cluster.bots[1].agent.care.claims) == 0


def test_deletion_waits_for_a_conversation_that_begins() -> None:
    """One that another server is about to begin counts as there."""
    cluster = Cluster()
    cluster.actions.slow = True
    cluster.ask(0, "/inform")
    deleted = begun(cluster.bots[1].agent.care.delete("u"))
    cluster.actions.answer()
    cluster.advance(1)
    assert deleted == [True] and cluster.kinds() == []


def test_deletion_does_not_wait_for_ever() -> None:
    """A turn that does not end makes it fail, and it may be asked for again."""
    cluster = Cluster()
    cluster.ask(0, "/greet")
    cluster.actions.slow = True
    cluster.ask(0, "/inform")
    deleted = begun(cluster.bots[1].agent.care.delete("u"))
    cluster.advance(62)
    assert isinstance(deleted[0], ConversationHeld)


def test_deletion_after_a_server_was_killed() -> None:
    """The claim of a dead server runs out."""
    cluster = Cluster()
    cluster.ask(0, "/greet")
    cluster.actions.slow = True
    cluster.ask(0, "/inform")
    cluster.kill(0)
    deleted = begun(cluster.bots[1].agent.care.delete("u"))
    cluster.advance(LEASE + 1)
    assert deleted == [True]


def test_deleted_and_begun_anew_elsewhere() -> None:
    """What a server keeps of a conversation that was deleted is not taken for the one that began since."""
    cluster = Cluster()
    first, second = (bot.agent for bot in cluster.bots)
    cluster.bots[0].wait(first.append("u", SIX, False))
    assert cluster.bots[0].wait(first.tracker("u")).state["slots"]["city"] == "rome"
    assert cluster.bots[1].wait(second.care.delete("u"))
    cluster.ask(1, "/greet")
    cluster.ask(1, "/greet")
    assert said(cluster.ask(0, "/greet")[0]) == ["hello None"]
    view = cluster.bots[0].wait(first.tracker("u", EventVerbosity.ALL))
    assert view.state["slots"]["city"] is None and "slot" not in cluster.kinds()


def test_deleted_and_begun_anew_while_a_server_understands_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that began before is done anew in the conversation that is there now, however long that one is."""
    cluster = Cluster()
    first, second = (bot.agent for bot in cluster.bots)
    processor = first._processor
    understand, waiting = processor.parse, Deferred[None]()

    async def slowly(*arguments: Any) -> Any:
        if not waiting.called:
            await waiting
        return await understand(*arguments)

    cluster.bots[0].wait(first.append("u", SIX[1:], False))  # ends where one greeting does
    monkeypatch.setattr(type(processor), "parse", lambda self, *rest: slowly(*rest) if self is processor else None)
    turn = cluster.ask(0, "/greet")
    assert cluster.bots[1].wait(second.care.delete("u"))
    cluster.bots[1].wait(second.append("u", [{"event": "restart"}] * 4, False))
    waiting.callback(None)
    cluster.rounds()
    assert said(turn[0]) == ["hello None"]
    assert cluster.kinds() == ["action action_listen", *["restart"] * 4, *ONE_GREETING[1:]]


def test_key_after_anonymising() -> None:
    """A request that comes again runs nothing; what it was, and was answered, nobody knows any more."""
    cluster = Cluster()
    cluster.ask(0, "/inform", KEY)
    log = cluster.kinds()
    model = cluster.bots[0].agent.model
    assert cluster.bots[1].wait(cluster.bots[1].agent.care.anonymise("u", model.domain))
    assert [cluster.ask(bot, "/inform", KEY) for bot in (0, 1)] == [[[]], [[]]]
    assert len(cluster.actions.turn_ids) == 1 and cluster.kinds() == log


def test_key_after_a_deletion() -> None:
    """What was answered goes with its conversation: a repeat is another message then, at every server."""
    cluster = Cluster()
    cluster.ask(0, "/inform", KEY)
    cluster.bots[1].wait(cluster.bots[1].agent.care.delete("u"))
    cluster.ask(1, "/inform", KEY)
    cluster.ask(0, "/inform", KEY)
    assert len(cluster.actions.turn_ids) == 2 and cluster.kinds().count("user") == 1


class Overtaken(SharedStore):
    """Another server's turn is stored as soon as this one looked."""

    overtake: Callable[[], None] | None = None

    async def look(self, *arguments: Any, **members: Any) -> Opening:
        opening = await super().look(*arguments, **members)
        overtake, self.overtake = self.overtake, None
        if overtake is not None:
            overtake()
        return opening


def overtaken() -> Cluster:
    cluster = Cluster()
    cluster.store = Overtaken(cluster.clock)
    cluster.bots = [cluster._bot("0.11", name) for name in ("one", "two")]
    cluster.ask(0, "/greet")
    return cluster


def test_anonymising_loses_no_turn_of_another_server() -> None:
    """What another server stored since the log was looked at is there afterwards."""
    cluster = overtaken()
    cluster.store.overtake = lambda: cluster.ask(1, "/inform")  # type: ignore[attr-defined]
    model = cluster.bots[0].agent.served.current
    assert cluster.bots[0].wait(cluster.bots[0].agent.care.anonymise("u", model.domain))
    assert cluster.kinds().count("user") == 2
    cluster.ask(1, "/greet")
    assert cluster.kinds().count("user") == 3
    assert len(cluster.bots[0].agent.turns.claims) == 0


def test_what_is_old_is_left_when_another_server_goes_on_with_it() -> None:
    """A conversation that somebody began to talk in since it was looked at is not removed for its age."""
    cluster = overtaken()
    care = cluster.bots[0].agent.care
    later = cluster.clock.seconds() + 1e12
    cluster.store.overtake = lambda: cluster.ask(1, "/inform")  # type: ignore[attr-defined]
    assert not cluster.bots[0].wait(care.delete("u", later))
    assert cluster.kinds().count("user") == 2
    assert cluster.bots[0].wait(care.delete("u", later))
    assert cluster.bots[0].wait(cluster.store.read("u")) is None
    assert len(care.claims) == 0


@pytest.mark.parametrize("request_key", [None, KEY], ids=["no key", "a key"])
def test_replacement_that_was_done_though_nobody_knows(
    monkeypatch: pytest.MonkeyPatch, request_key: RequestKey | None
) -> None:
    """Where the connection breaks while the answer is due, the next one reads what is stored."""
    bot = Bot(domain(), SCRIPT)
    bot.say("/greet")
    replaced = bot.agent.store.replace

    async def lost(*arguments: Any) -> tuple[int, int]:
        await replaced(*arguments)
        raise StoreUnavailable("away")

    monkeypatch.setattr(bot.agent.store, "replace", lost)
    with pytest.raises(StoreUnavailable):
        bot.wait(bot.agent.replace("u", [], EventVerbosity.ALL, request_key))
    assert not bot.wait(bot.agent.tracker("u", EventVerbosity.ALL)).events


def test_replacing_twice_loses_no_turn_in_between() -> None:
    """A replacement that came again at another server, and was done there meanwhile, is not done once more."""
    cluster = overtaken()
    slot = {"event": "slot", "name": "city", "value": "rome", "timestamp": 5.0}
    first, second = (bot.agent for bot in cluster.bots)

    def overtake() -> None:
        cluster.bots[1].wait(second.replace("u", [slot], EventVerbosity.ALL, KEY))
        cluster.ask(1, "/greet")

    cluster.store.overtake = overtake  # type: ignore[attr-defined]
    cluster.bots[0].wait(first.replace("u", [slot], EventVerbosity.ALL, KEY))
    assert cluster.kinds().count("user") == 1
    assert len(first.turns.claims) == 0
