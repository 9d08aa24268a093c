"""From the `event_broker` entry of an endpoint file to a broker."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rasa_core_api.brokers import EventBroker
from rasa_core_api.brokers.threads import one_thread
from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.tracker_store.settings import Settings
from rasa_core_api.trusted import implementation

WHERE = "event_broker"
#: What librdkafka knows.
_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MECHANISMS = ("GSSAPI", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")


def create_broker(settings: Mapping[str, JSON], *, reactor: Any, trusted_modules: Collection[str] = ()) -> EventBroker:
    """The broker that an endpoint file asks for; no `type` means pika. Nothing is opened.

    Raises `InvalidConfiguration`, naming the key, for a type that is unknown or whose package is missing, and for
    options that the type does not have.
    """
    options = Settings(settings, WHERE)
    kind, _ = options.kind("type", None, "pika")
    build = _TYPES.get(kind)
    if build is not None:
        broker = build(options, reactor)
        options.finish(kind)
        return broker
    if "." not in kind:
        known = ", ".join(f"'{name}'" for name in _TYPES)
        raise InvalidConfiguration(f"{WHERE}.type: there is no broker '{kind}'; there are {known}, or a class path")
    made: EventBroker = implementation(kind, EventBroker, trusted_modules, f"{WHERE}.type").from_settings(
        dict(settings), reactor=reactor
    )
    return made


def _need(package: str, extra: str, kind: str) -> None:
    if find_spec(package) is None:
        raise InvalidConfiguration(
            f"{WHERE}.type: '{kind}' needs the package {package}: install rasa_core_api[{extra}]"
        )


def _url(options: Settings, kind: str, example: str) -> str:
    url = options.text("url", None)
    if not url:
        raise options.wrong("url", f"'{kind}' needs an address, such as {example}")
    return url


def _pika(options: Settings, reactor: Any) -> EventBroker:
    from rasa_core_api.brokers.pika import DEFAULT_QUEUE, Address, PikaBroker

    address = Address.from_url(
        _url(options, "pika", "localhost"),
        options.text("username", None),
        options.text("password", None),
        options.port("port", 0) or None,
        f"{WHERE}.url",
    )
    queue = options.text("queue", None) or DEFAULT_QUEUE
    _need("pika", "amqp", "pika")
    import pika.adapters.twisted_connection  # noqa: F401  now, and not amid turns

    return PikaBroker(reactor, address, queue)


def _file(options: Settings, reactor: Any) -> EventBroker:
    from rasa_core_api.brokers.file import DEFAULT_PATH, FileBroker

    path = Path(options.text("path", None) or DEFAULT_PATH)
    return FileBroker(path, one_thread(reactor, "event broker"))


def _kafka(options: Settings, reactor: Any) -> EventBroker:
    from rasa_core_api.brokers.kafka import DEFAULT_TOPIC, KafkaBroker

    username = options.text("sasl_username", None)
    settings = {
        "bootstrap.servers": _url(options, "kafka", "localhost:9092"),
        "security.protocol": options.one_of(
            "security_protocol", _PROTOCOLS, "PLAINTEXT" if username is None else "SASL_PLAINTEXT"
        ),
        "client.id": options.text("client_id", "rasa_core_api"),
        "sasl.username": username,
        "sasl.password": options.text("sasl_password", None),
        "sasl.mechanisms": options.one_of("sasl_mechanism", _MECHANISMS, None if username is None else "PLAIN"),
        "ssl.ca.location": options.text("ssl_cafile", None),
        "ssl.certificate.location": options.text("ssl_certfile", None),
        "ssl.key.location": options.text("ssl_keyfile", None),
    }
    topic = options.text("topic", None) or DEFAULT_TOPIC
    _need("confluent_kafka", "kafka", "kafka")
    given = {key: value for key, value in settings.items() if value is not None}
    return KafkaBroker(given, topic, one_thread(reactor, "event broker"))


def _sql(options: Settings, reactor: Any) -> EventBroker:
    from rasa_core_api.brokers.sql import SqlBroker

    dialect, url = options.text("dialect", None), options.text("url", None)
    port, name = options.port("port", 0) or None, options.text("db", None)
    username, password = options.text("username", None), options.text("password", None)
    _need("sqlalchemy", "sql", "sql")
    from sqlalchemy import URL, make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    try:
        if url is not None and "://" in url:
            beside: dict[str, Any] = {
                "drivername": dialect,
                "username": username,
                "password": password,
                "port": port,
                "database": name,
            }
            found = make_url(url).set(**{key: value for key, value in beside.items() if value is not None})
        else:
            dialect = dialect or "sqlite"
            if name is None:
                name = "events.db" if dialect == "sqlite" else "rasa"
            found = URL.create(dialect, username, password, url, port, name)
        found.get_dialect().import_dbapi()
    except NoSuchModuleError:
        raise options.wrong("dialect", f"there is no such dialect: {dialect or found.drivername}") from None
    except ArgumentError as error:
        raise options.wrong("url", str(error)) from None
    except ImportError as error:
        raise options.wrong("dialect", f"its driver is not installed: {error}") from None
    return SqlBroker(found, one_thread(reactor, "event broker"))


_TYPES: Mapping[str, Callable[[Settings, Any], EventBroker]] = {
    "pika": _pika,
    "kafka": _kafka,
    "file": _file,
    "sql": _sql,
}
