"""Tests of claims whose store is away for a while."""

from __future__ import annotations

from typing import Any

import pytest

from rasa_core_api.claims import LEASE
from rasa_core_api.exceptions import StoreUnavailable
from tests.cluster import Cluster, said
from tests.conftest import LoggedFailures


def away(*_: Any) -> Any:
    raise StoreUnavailable("away")


def busy_cluster() -> Cluster:
    """The first server has a turn under way in another conversation, and goes on renewing its claims for it."""
    cluster = Cluster()
    cluster.actions.slow = True
    cluster.ask(0, "/inform", sender_id="other")
    return cluster


def test_claim_that_could_not_be_given_up(monkeypatch: pytest.MonkeyPatch, logged: LoggedFailures) -> None:
    """It ends when the store is back, though the server's other claims are renewed all the time."""
    cluster = busy_cluster()
    with monkeypatch.context() as patch:
        patch.setattr(cluster.store, "append", away)
        patch.setattr(cluster.store, "release", away)
        turn = cluster.ask(0, "/inform")
        cluster.actions.waiting[-1].callback((200, {"events": [], "responses": []}))
        cluster.rounds()
        assert isinstance(turn[0], StoreUnavailable)
    second = cluster.ask(1, "/greet")
    cluster.advance(LEASE + 1)
    assert said(second[0]) == ["hello None"]
    assert len(cluster.bots[0].agent.care.claims) == 1


def test_claim_that_was_stored_though_the_connection_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody was told of it: it is given up when the store is back."""
    cluster = busy_cluster()
    claim = cluster.store.claim

    async def breaks(*arguments: Any) -> None:
        await claim(*arguments)
        away()

    with monkeypatch.context() as patch:
        patch.setattr(cluster.store, "claim", breaks)
        assert isinstance(cluster.ask(0, "/inform")[0], StoreUnavailable)
    second = cluster.ask(1, "/greet")
    cluster.advance(LEASE + 1)
    assert said(second[0]) == ["hello None"]


def test_claim_that_is_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that waits to be given up, and is wanted again meanwhile, stays."""
    cluster = busy_cluster()
    with monkeypatch.context() as patch:
        patch.setattr(cluster.store, "claim", away)
        assert isinstance(cluster.ask(0, "/inform")[0], StoreUnavailable)
    first = cluster.ask(0, "/inform")
    second = cluster.ask(1, "/greet")
    cluster.advance(3 * LEASE)
    assert first == second == []
    cluster.actions.answer()
    cluster.advance(1)
    assert said(first[0]) == ["found", "hello None"] and said(second[0]) == ["hello None"]
