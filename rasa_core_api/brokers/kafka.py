"""Events in a topic of Kafka, by confluent-kafka, whose calls that block have a thread."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from rasa_core_api.brokers import BrokerFailed, EventBroker, Message, MessageRefused
from rasa_core_api.brokers.threads import Runner

DEFAULT_TOPIC = "rasa_core_events"
#: Names of errors that a message gets which is too large for the client, or for the topic.
_TOO_LARGE = ("_MSG_SIZE_TOO_LARGE", "MSG_SIZE_TOO_LARGE")
#: Bytes of a message: what the topic takes (`max.message.bytes`) decides.
_MAX_BYTES = 64 << 20
#: Seconds that a batch may take.
TIME_LIMIT = 8.0


class KafkaBroker(EventBroker):
    """Produces with the conversation's id as key, so that one partition has all of its events, in order."""

    name = "kafka"

    def __init__(self, settings: Mapping[str, Any], topic: str, run: Runner, time_limit: float = TIME_LIMIT) -> None:
        self._settings = {
            "enable.idempotence": True,  # no batch overtakes another, every replica has it
            "linger.ms": 0,
            "delivery.timeout.ms": int(time_limit * 1000),
            "reconnect.backoff.max.ms": 10_000,
            "message.max.bytes": _MAX_BYTES,
            **settings,
        }
        self._topic = topic
        self._run = run
        self._time_limit = time_limit
        self._producer: Any = None

    async def open(self) -> None:
        await self._run(self._connect)

    async def publish(self, messages: Sequence[Message]) -> None:
        await self._run(lambda: self._produce(messages))

    async def close(self) -> None:
        await self._run(self._drop)

    def _failed(self, error: Any) -> BrokerFailed:
        return BrokerFailed(f"Kafka at {self._settings['bootstrap.servers']}: {error.str()}")

    def _connect(self) -> None:
        from confluent_kafka import KafkaException, Producer

        silent = logging.getLogger("rasa_core_api.kafka")
        silent.setLevel(logging.CRITICAL)  # who waits for the broker tells of it, once
        try:
            producer = Producer(self._settings, logger=silent)
            producer.list_topics(self._topic, timeout=self._time_limit)
        except KafkaException as error:  # nobody answers, or a file of certificates is not there
            raise self._failed(error.args[0]) from error
        self._producer = producer

    def _produce(self, messages: Sequence[Message]) -> None:
        from confluent_kafka import KafkaException

        producer = self._producer
        if producer is None:
            raise BrokerFailed("the connection is closed")
        failures: list[Any] = []
        delivered = 0

        def told(error: Any, _: object) -> None:
            nonlocal delivered
            if error is None:
                delivered += 1
            else:
                failures.append(error)

        for message in messages:
            try:
                producer.produce(
                    self._topic,
                    message.body.encode("ascii"),
                    key=message.sender_id.encode("utf-8"),
                    headers={"seq": str(message.seq)},
                    on_delivery=told,
                )
            except KafkaException as error:
                failures.append(error.args[0])
                break
        producer.flush(self._time_limit)
        if failures or delivered < len(messages):
            if not failures:
                raise BrokerFailed("the messages were not taken in time")
            if len(messages) == 1 and failures[0].name() in _TOO_LARGE:
                raise MessageRefused(failures[0].str())
            raise self._failed(failures[0])

    def _drop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.flush(0)
