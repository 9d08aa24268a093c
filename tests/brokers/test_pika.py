"""Tests of the broker for RabbitMQ without a RabbitMQ; `tests/integration/test_brokers.py` has one."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from rasa_core_api.brokers import BATCH, BrokerFailed
from rasa_core_api.brokers.pika import CAREFUL, Address, PikaBroker
from tests.brokers.test_file import messages

exceptions = pytest.importorskip("pika.exceptions")


class FullQueue:
    """A channel to a queue that rejects the first of its messages, and then has room."""

    is_closed = False

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.rejected = False

    def basic_publish(self, exchange: str, queue: str, body: bytes, properties: Any, mandatory: bool) -> Deferred[None]:
        if not self.rejected:
            self.rejected = True
            return fail(exceptions.NackError([]))
        self.taken.append(properties.headers["seq"])
        return succeed(None)


def test_one_by_one_after_a_rejection() -> None:
    """A message behind the one that was rejected may be taken: from then on there is none, for a while."""
    clock = Clock()
    broker = PikaBroker(clock, Address(host="h", port=1, username="u", password="p"))
    broker._channel = channel = FullQueue()
    assert broker.at_once == BATCH
    results: list[Any] = []
    Deferred.fromCoroutine(broker.publish(messages(0, 1))).addBoth(results.append)
    assert channel.taken == [1] and results[0].check(BrokerFailed) and results[0].value.taken == 0
    assert broker.at_once == 1
    clock.advance(CAREFUL)
    assert broker.at_once == BATCH
