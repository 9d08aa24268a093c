"""Tests of event brokers as endpoint files ask for them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from twisted.internet.task import Clock

from rasa_core_api.brokers import EventBroker, Message
from rasa_core_api.brokers.factory import create_broker
from rasa_core_api.brokers.pika import Address, PikaBroker
from rasa_core_api.brokers.sql import SqlBroker
from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import InvalidConfiguration


class Mine(EventBroker):
    """A broker of an operator's own."""

    def __init__(self, settings: Mapping[str, JSON]) -> None:
        self.settings = settings

    @classmethod
    def from_settings(cls, settings: Mapping[str, JSON], *, reactor: Any) -> Mine:
        return cls(settings)

    async def open(self) -> None:
        return None

    async def publish(self, messages: Sequence[Message]) -> None:
        return None

    async def close(self) -> None:
        return None


def make(settings: dict[str, Any], trusted: Sequence[str] = ()) -> EventBroker:
    return create_broker(settings, reactor=Clock(), trusted_modules=trusted)


def test_without_a_type_it_is_pika() -> None:
    """As in Rasa Core: `url` is a host, and the queue has its name of old."""
    pytest.importorskip("pika")
    broker = make({"url": "mq.example", "username": "u", "password": "p"})
    assert isinstance(broker, PikaBroker)
    assert broker._address == Address(host="mq.example", port=5672, username="u", password="p")
    assert broker._queue == "rasa_core_events"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        (
            "amqps://u:p%40@mq/bots",
            Address(host="mq", port=5671, username="u", password="p@", virtual_host="bots", tls=True),
        ),
        ("mq:5673", Address(host="mq", port=5673, username="guest", password="guest")),
        ("amqp://[::1]:99/", Address(host="::1", port=99, username="guest", password="guest")),
    ],
)  # fmt: skip
def test_addresses_of_rabbitmq(url: str, address: Address) -> None:
    """Hosts, hosts with a port, and URLs are understood."""
    assert Address.from_url(url, None, None, None, "key") == address


def test_custom_brokers() -> None:
    """A class of a module that the operator trusts gets its settings; no other is imported."""
    broker = make({"type": f"{__name__}.Mine", "answer": 42}, ["tests.brokers"])
    assert isinstance(broker, Mine) and broker.settings["answer"] == 42
    with pytest.raises(InvalidConfiguration, match=r"event_broker.type: the module 'os' is not trusted"):
        make({"type": "os.PathLike"})
    with pytest.raises(InvalidConfiguration, match=r"event_broker.type: 'os.PathLike' is no subclass"):
        make({"type": "os.PathLike"}, ["os"])
    with pytest.raises(InvalidConfiguration, match=r"event_broker.type: cannot import 'nowhere.X'"):
        make({"type": "nowhere.X"}, ["nowhere"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"type": "rabbit"}, "event_broker.type: there is no broker 'rabbit'; there are 'pika', 'kafka', 'file', "),
        ({}, "event_broker.url: 'pika' needs an address"),
        ({"url": "http://mq"}, "event_broker.url: the name of a host is expected"),
        ({"type": "file", "pfad": "x"}, "event_broker.pfad: 'file' has no such option; it has path, type"),
        ({"type": "kafka"}, "event_broker.url: 'kafka' needs an address"),
        ({"type": ""}, "event_broker.type: is empty"),
        ({"url": "mq", "port": 70000}, "event_broker.port: must be a port"),
        ({"type": "sql", "port": 70000}, "event_broker.port: must be a port"),
        ({"type": "kafka", "url": "k:1", "security_protocol": "TLS"}, "event_broker.security_protocol: must be one "),
        ({"type": "kafka", "url": "k:1", "sasl_mechanism": "SCRAM"}, "event_broker.sasl_mechanism: must be one of "),
    ],
)  # fmt: skip
def test_mistakes(settings: dict[str, Any], message: str) -> None:
    """What is wrong is named by its key."""
    with pytest.raises(InvalidConfiguration) as caught:
        make(settings)
    assert message in str(caught.value)


def test_members_beside_a_database_url() -> None:
    """What is given beside a whole URL counts, as for RabbitMQ."""
    pytest.importorskip("sqlalchemy")
    beside = {"username": "u", "password": "p", "port": 7, "db": "bots"}
    broker = make({"type": "sql", "url": "sqlite://host/other", **beside})
    assert isinstance(broker, SqlBroker)
    assert broker._url.render_as_string(hide_password=False) == "sqlite://u:p@host:7/bots"


@pytest.mark.parametrize(
    ("kind", "package", "extra"),
    [("pika", "pika", "amqp"), ("kafka", "confluent_kafka", "kafka"), ("sql", "sqlalchemy", "sql")],
)
def test_missing_packages(kind: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever lacks a package is told which extra brings it."""
    import rasa_core_api.brokers.factory as factory

    monkeypatch.setattr(factory, "find_spec", lambda name: None if name == package else ModuleType(name))
    with pytest.raises(InvalidConfiguration, match=rf"event_broker.type: '{kind}' needs .*rasa_core_api\[{extra}\]"):
        make({"type": kind, "url": "localhost"})


def test_settings_load_no_package(tmp_path: Path) -> None:
    """A file broker brings none of the packages of the others into the process."""
    before = {"sqlalchemy", "confluent_kafka", "pika"} & set(sys.modules)
    make({"type": "file", "path": str(tmp_path / "x")})
    assert {"sqlalchemy", "confluent_kafka", "pika"} & set(sys.modules) == before
    assert not (tmp_path / "x").exists()
