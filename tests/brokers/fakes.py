"""A broker that can be down, hang, or lose its connection after it took a batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred

from rasa_core_api.brokers import BATCH, BrokerFailed, EventBroker, Message, MessageRefused


class FakeBroker(EventBroker):
    """`mode` is "up", "down" (refuses), "hangs" (answers nothing) or "deaf" (takes a batch, confirms nothing).

    `room` is how many messages it still takes, `never` the numbers of those that it never takes, `most` how
    many it takes at once.
    """

    name = "fake"

    def __init__(self) -> None:
        self.mode = "up"
        self.taken: list[Message] = []
        self.batches: list[int] = []
        self.opened = 0
        self.is_open = False
        self.room = 1 << 30
        self.never: set[int] = set()
        self.most = BATCH

    @property
    def at_once(self) -> int:
        return self.most

    async def open(self) -> None:
        self.opened += 1
        if self.mode == "hangs":
            await Deferred()
        if self.mode == "down":
            raise BrokerFailed("nobody answers")
        self.is_open = True

    async def publish(self, messages: Sequence[Message]) -> None:
        assert self.is_open
        if self.mode == "down":
            raise BrokerFailed("the connection broke")
        if self.mode == "hangs":
            await Deferred()
        if len(messages) > self.room:
            self.taken += messages[: self.room]
            taken, self.room = self.room, 0
            raise BrokerFailed("full", taken)
        refused = [message.seq in self.never for message in messages]
        if refused == [True]:
            raise MessageRefused("too large")
        if any(refused):
            raise BrokerFailed("something of it is too large")
        self.room -= len(messages)
        self.taken += messages
        self.batches.append(len(messages))
        if self.mode == "deaf":
            raise BrokerFailed("the connection broke")

    async def close(self) -> None:
        self.is_open = False

    def seqs(self, sender_id: str) -> list[int]:
        return [message.seq for message in self.taken if message.sender_id == sender_id]

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(message.body) for message in self.taken]
