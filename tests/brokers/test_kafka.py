"""Tests of events in Kafka, against the broker that librdkafka brings along for tests, over the loopback interface."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from rasa_core_api.brokers import BrokerFailed, Message, MessageRefused
from rasa_core_api.brokers.kafka import KafkaBroker
from tests.brokers.test_file import do, inline, messages

confluent_kafka = pytest.importorskip("confluent_kafka")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A cluster's address; it lives as long as the client that holds it."""
    holder = confluent_kafka.Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 0})
    (node,) = holder.list_topics(timeout=10).brokers.values()
    yield f"{node.host}:{node.port}"


def test_events_arrive_in_order(cluster: str) -> None:
    """Each event is a record with the conversation's id as key and its number in a header."""
    broker = KafkaBroker({"bootstrap.servers": cluster}, "events", inline)
    do(broker.open())
    do(broker.publish(messages(*range(50))))
    do(broker.close())
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": cluster, "group.id": "test", "auto.offset.reset": "earliest"}
    )
    try:
        partitions = consumer.list_topics("events", timeout=10).topics["events"].partitions
        consumer.assign([confluent_kafka.TopicPartition("events", number, 0) for number in partitions])
        records = []
        while len(records) < 50:
            found = consumer.consume(50, timeout=10)
            assert found, records
            records += found
    finally:
        consumer.close()
    assert {record.key() for record in records} == {"ü".encode()}
    assert [json.loads(record.value())["seq"] for record in records] == list(range(50))
    assert [dict(record.headers())["seq"] for record in records] == [b"%d" % seq for seq in range(50)]


def test_nobody_answers() -> None:
    """A cluster that is not there is an outage, told after the time limit."""
    broker = KafkaBroker({"bootstrap.servers": "127.0.0.1:1"}, "events", inline, time_limit=0.3)
    with pytest.raises(BrokerFailed, match=r"127\.0\.0\.1:1: .*transport"):
        do(broker.open())
    with pytest.raises(BrokerFailed):
        do(broker.publish(messages(0)))
    do(broker.close())


def test_settings_that_cannot_be_used() -> None:
    """What the client finds wrong before it connects is told in its words."""
    settings = {"bootstrap.servers": "127.0.0.1:1", "security.protocol": "SSL", "ssl.ca.location": "/nowhere.pem"}
    with pytest.raises(BrokerFailed, match="ssl.ca.location failed"):
        do(KafkaBroker(settings, "events", inline).open())


def test_a_message_that_no_topic_takes(cluster: str) -> None:
    """One event that is too large is refused alone; with others it is an outage, after which it is sent alone."""
    broker = KafkaBroker({"bootstrap.servers": cluster, "message.max.bytes": 2000}, "large", inline)
    do(broker.open())
    large = Message("u", 1, "x" * 3000)
    with pytest.raises(MessageRefused, match="too large"):
        do(broker.publish([large]))
    with pytest.raises(BrokerFailed) as failed:
        do(broker.publish([*messages(0), large]))
    assert not isinstance(failed.value, MessageRefused)
    do(broker.publish(messages(2)))
    do(broker.close())
