"""Servers that this one calls: their entries in endpoint files, and the calls themselves."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from attrs import field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.logger import Logger
from twisted.python.failure import Failure

from rasa_core_api.config import read_yaml_file
from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import InvalidConfiguration, RasaCoreError
from rasa_core_api.version import __version__

log = Logger()

#: Seconds for one call unless the entry has its own `timeout`; the historical releases waited 300.
DEFAULT_TIMEOUT = 30.0
#: Bytes of an answer beyond which a call is cut off.
MAX_ANSWER = 32 * 1024 * 1024
#: Connections to one server that are kept for the next call, and for how many seconds. Servers close idle
#: connections after 2 s and more; a shorter time here keeps a call from meeting a connection just closed.
KEPT_CONNECTIONS = 1000
KEPT_SECONDS = 1.5
CONNECT_SECONDS = 10.0


class OutgoingFailed(RasaCoreError):
    """A call of another server brought no answer; the message names its URL without the query."""


class ConnectionFailed(OutgoingFailed):
    """The server cannot be reached, or the connection broke before the answer was complete."""


class TimedOut(OutgoingFailed):
    """The answer was not complete within the endpoint's time limit."""


class AnswerTooLarge(OutgoingFailed):
    """The answer has more bytes than are taken."""


@frozen(kw_only=True, eq=False)
class EndpointConfig:
    """One server that is called, as an entry of an endpoints file describes it.

    `url` holds neither a query nor credentials, so that it may be logged. `options` are the keys that are
    not the same for every entry. `where` is the entry's place, for errors.
    """

    url: str
    params: Sequence[tuple[str, str]] = field(default=(), repr=False)
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    basic_auth: tuple[str, str] | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    token_name: str = "token"
    timeout: float = DEFAULT_TIMEOUT  # seconds for one call
    options: Mapping[str, JSON] = field(factory=dict, repr=False)
    where: str = ""

    @classmethod
    def from_json(cls, data: JSON, where: str) -> EndpointConfig:
        """The entry of a file. Raises `InvalidConfiguration` naming `where` and the key."""
        if not isinstance(data, Mapping):
            raise InvalidConfiguration(f"{where}: a mapping with 'url' is expected", key=where)
        rest = dict(data)
        url, params, basic_auth = _read_url(rest.pop("url", None), f"{where}.url")
        given = rest.pop("params", None)
        params += _read_params(given, f"{where}.params")
        auth = rest.pop("basic_auth", None)
        if auth is not None:
            basic_auth = _read_basic_auth(auth, f"{where}.basic_auth")
        return cls(
            url=url,
            params=tuple(params),
            headers=_read_headers(rest.pop("headers", None), f"{where}.headers"),
            basic_auth=basic_auth,
            token=_text_or_none(rest.pop("token", None), f"{where}.token"),
            token_name=_text_or_none(rest.pop("token_name", None), f"{where}.token_name") or "token",
            timeout=_read_timeout(rest.pop("timeout", None), f"{where}.timeout"),
            options=rest,
            where=where,
        )

    def url_for(self, subpath: str | None = None) -> str:
        """The URL without its query; exactly one slash joins the sub-path."""
        return f"{self.url.rstrip('/')}/{subpath.lstrip('/')}" if subpath else self.url

    def target(self, subpath: str | None = None, params: Mapping[str, str] | None = None) -> str:
        """The URL with its query: the call's own `params` replace configured ones, the token replaces both."""
        own: dict[str, str] = dict(params or {})
        if self.token is not None:
            own[self.token_name] = self.token
        pairs = [(name, value) for name, value in self.params if name not in own]
        pairs += own.items()
        path, question, query = self.url_for(subpath).partition("?")
        if question:  # a sub-path may bring a query
            pairs = [*parse_qsl(query, keep_blank_values=True), *pairs]
        return f"{path}?{urlencode(pairs)}" if pairs else path


def _bad(where: str, reason: str) -> InvalidConfiguration:
    return InvalidConfiguration(f"{where}: {reason}", key=where)


def _text_or_none(value: JSON, where: str) -> str | None:
    """A text; numbers count as their text, as an unquoted token of digits is read as one."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _bad(where, "a text is expected (put it in quotes)")
    return str(value)


def _read_url(value: JSON, where: str) -> tuple[str, list[tuple[str, str]], tuple[str, str] | None]:
    """The URL's part that may be logged, its query, and the credentials in it."""
    if not isinstance(value, str) or not value:
        raise _bad(where, "the server's URL is expected, such as http://127.0.0.1:5055/webhook")
    try:
        parts = urlsplit(value.strip())
        port = parts.port
    except ValueError as error:
        raise _bad(where, f"this is no URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _bad(where, "the URL must begin with http:// or https:// and name a host")
    if any(character <= " " or character == "\x7f" for character in value.strip()):
        raise _bad(where, "the URL holds blanks or control characters")
    host = parts.hostname
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            raise _bad(where, "the host's name cannot be encoded") from None
    netloc = f"[{host}]" if ":" in host else host
    if port is not None:
        netloc += f":{port}"
    credentials = None
    if parts.username is not None:
        credentials = (unquote(parts.username), unquote(parts.password or ""))
    path = quote(parts.path, safe="/%:@!$&'()*+,;=~")
    return f"{parts.scheme}://{netloc}{path}", parse_qsl(parts.query, keep_blank_values=True), credentials


def _read_params(value: JSON, where: str) -> list[tuple[str, str]]:
    if value is None:
        return []
    if not isinstance(value, Mapping):
        raise _bad(where, "a mapping of query parameters is expected")
    pairs: list[tuple[str, str]] = []
    for name, entry in value.items():
        for item in entry if isinstance(entry, list) else [entry]:
            if isinstance(item, (Mapping, list)):
                raise _bad(f"{where}.{name}", "a text or a list of texts is expected")
            if item is not None:
                pairs.append((name, _param(item)))
    return pairs


def _param(value: JSON) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read_headers(value: JSON, where: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _bad(where, "a mapping of headers is expected")
    headers: dict[str, str] = {}
    for name, entry in value.items():
        text = _text_or_none(entry, f"{where}.{name}")
        if text is None:
            continue
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise _bad(f"{where}.{name}", "this is no header's name")
        if any((character < " " and character != "\t") or character == "\x7f" for character in text):
            raise _bad(f"{where}.{name}", "a header holds no line breaks or control characters")
        headers[name] = text
    return headers


def _read_basic_auth(value: JSON, where: str) -> tuple[str, str]:
    if not isinstance(value, Mapping):
        raise _bad(where, "a mapping with 'username' and 'password' is expected")
    for name in value:
        if name not in ("username", "password"):
            raise _bad(f"{where}.{name}", "only 'username' and 'password' are known here")
    username = _text_or_none(value.get("username"), f"{where}.username")
    if username is None:
        raise _bad(f"{where}.username", "this key is missing")
    return username, _text_or_none(value.get("password"), f"{where}.password") or ""


def _read_timeout(value: JSON, where: str) -> float:
    if value is None:
        return DEFAULT_TIMEOUT
    try:
        if isinstance(value, bool):
            raise ValueError
        seconds = float(value)
    except (TypeError, ValueError):
        raise _bad(where, "a number of seconds is expected") from None
    if not 0 < seconds <= 86400 or math.isnan(seconds):
        raise _bad(where, "more than 0 and at most 86400 seconds are expected")
    return seconds


# --- endpoint files --------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Endpoints:
    """What an endpoints file configures; None where it says nothing.

    `tracker_store` and `event_broker` are checked where they are built. `source` is the file.
    """

    nlg: EndpointConfig | None = None
    nlu: EndpointConfig | None = None
    action_endpoint: EndpointConfig | None = None
    model: EndpointConfig | None = None
    nlu_model: EndpointConfig | None = None
    tracker_store: Mapping[str, JSON] | None = field(default=None, repr=False)
    event_broker: Mapping[str, JSON] | None = field(default=None, repr=False)
    source: str = ""

    def calls(self) -> bool:
        """Whether any other server is called over HTTP."""
        return any((self.nlg, self.nlu, self.action_endpoint, self.model))


#: Keys of HTTP entries by the field they fill; of two that are there the first counts.
SERVERS = {
    "nlg": ("nlg",),
    "nlu": ("nlu",),
    "action_endpoint": ("action_endpoint", "action"),
    "model": ("model", "models"),
    "nlu_model": ("nlu_model",),
}
_SECTIONS = ("tracker_store", "event_broker")
_KNOWN = (*(key for keys in SERVERS.values() for key in keys), *_SECTIONS)
#: Keys that an entry has beside those of every entry.
_PULLS = ("wait_time_between_pulls", "sha256", "public_key", "max_mb", "keep")
_OPTIONS = {"model": (*_PULLS, "shadow", "canary"), "nlu_model": _PULLS}
_ENTRY = ("url", "params", "headers", "basic_auth", "token", "token_name", "timeout")


def unused_keys(name: str, endpoint: EndpointConfig) -> Iterator[tuple[str, str]]:
    """Keys of an entry that mean nothing, each with what may have been meant.

    Files of the historical releases may hold such keys, so they do not keep a server down.
    """
    known = (*_ENTRY, *_OPTIONS.get(name, ()))
    for key in endpoint.options:
        if key not in known:
            near = get_close_matches(key, known, 1)
            yield key, f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"


def read_endpoints(path: str | Path, environ: Mapping[str, str]) -> Endpoints:
    """The endpoints file of an operator. Raises `InvalidConfiguration` with file, key path and reason."""
    return endpoints_from_json(read_yaml_file(path, environ), str(path))


def endpoints_from_json(data: JSON, source: str) -> Endpoints:
    """Like `read_endpoints`, for content that is read already."""
    if data is None:
        return Endpoints(source=source)
    if not isinstance(data, Mapping):
        raise InvalidConfiguration(f"{source}: a mapping of endpoints is expected", file=source)
    for key in data:
        if key not in _KNOWN:
            near = get_close_matches(key, _KNOWN, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(_KNOWN)}"
            raise InvalidConfiguration(f"{source}: {key}: there is no such endpoint; {hint}", file=source, key=key)
    found: dict[str, Any] = {}
    for name, keys in SERVERS.items():
        present = [key for key in keys if data.get(key) is not None]
        if len(present) > 1:
            log.warn("{file}: {other} is ignored, since {first} is there", file=source, first=present[0], other=keys[1])
        if present:
            found[name] = endpoint = EndpointConfig.from_json(data[present[0]], f"{source}: {present[0]}")
            for option, hint in unused_keys(name, endpoint):
                log.warn("{where}.{key}: nothing uses this key; {hint}", where=endpoint.where, key=option, hint=hint)
    for name in _SECTIONS:
        section = data.get(name)
        if section is not None and not isinstance(section, Mapping):
            raise InvalidConfiguration(f"{source}: {name}: a mapping is expected", file=source, key=name)
        found[name] = section
    return Endpoints(**found, source=source)


# --- calls -----------------------------------------------------------------------------------------------


@frozen
class Answer:
    """What a server answered."""

    status: int
    body: bytes = field(repr=False)


class OutgoingHTTP:
    """Calls of other servers, over one pool of persistent connections.

    `client_factory` makes an object like `treq.client.HTTPClient`; the default one is made at the first
    call, because a server that calls nobody should not pay for it. `reactor` also times the calls.
    """

    def __init__(self, reactor: Any, client_factory: Callable[[], Any] | None = None) -> None:
        self._reactor = reactor
        self._client_factory = client_factory
        self._client: Any = None
        self._pool: Any = None
        self._once: Any = None  # the client for connections that are used once
        self._used_once: set[str] = set()  # URLs of servers that close each connection

    def prepare(self) -> None:
        """Import what calls need now rather than in the middle of the first one."""
        if self._client is None:
            self._client = self._new_client() if self._client_factory is None else self._client_factory()

    def _new_client(self) -> Any:
        from rasa_core_api.http_client import new_client, new_pool

        self._pool = new_pool(self._reactor)
        return new_client(self._reactor, self._pool)

    def _client_for(self, endpoint: EndpointConfig) -> Any:
        """A kept connection of a server that closes each one looks open for a moment: the next call would fail."""
        if endpoint.url not in self._used_once or self._client_factory is not None:
            return self._client
        if self._once is None:
            from rasa_core_api.http_client import new_client, new_pool

            self._once = new_client(self._reactor, new_pool(self._reactor, persistent=False))
        return self._once

    async def request_json(
        self,
        endpoint: EndpointConfig,
        method: str,
        subpath: str | None = None,
        *,
        body: bytes | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = MAX_ANSWER,
    ) -> Answer:
        """Send a JSON text, or nothing, and wait for the whole answer, whatever its status.

        `params` and `headers` replace those of the entry; a `content-type` among them says what else the body is.
        Redirects are followed for GET only. Raises `OutgoingFailed`: `ConnectionFailed`, `TimedOut` or
        `AnswerTooLarge`.
        """
        self.prepare()
        call = self._exchange(endpoint, method, subpath, body, params, headers, max_bytes)
        url = endpoint.url_for(subpath).partition("?")[0]
        waiting = Deferred.fromCoroutine(call)
        # a call that is cancelled fails in as many ways as it has stages: only the timer knows why
        timer = self._reactor.callLater(endpoint.timeout, waiting.cancel)
        try:
            return await waiting
        except OutgoingFailed:
            raise
        except Exception as error:
            if not timer.active():
                raise TimedOut(f"{url} did not answer within {endpoint.timeout:g} s", url=url) from None
            reason = innermost(error)
            if isinstance(reason, CancelledError):
                raise reason from None
            raise ConnectionFailed(f"{url} {_fault(reason)}", url=url) from error
        finally:
            if timer.active():
                timer.cancel()

    async def _exchange(
        self,
        endpoint: EndpointConfig,
        method: str,
        subpath: str | None,
        body: bytes | None,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        max_bytes: int,
    ) -> Answer:
        from rasa_core_api.http_client import closes, whole_body

        response = await self._client_for(endpoint).request(
            method,
            endpoint.target(subpath, params),
            headers=_request_headers(endpoint, headers),
            data=body,
            allow_redirects=method == "GET",
            unbuffered=True,
        )
        if closes(response):
            self._used_once.add(endpoint.url)
        content = await whole_body(response, max_bytes, endpoint.url_for(subpath))
        return Answer(response.code, content)

    async def close(self) -> None:
        """Close the connections that are kept."""
        if self._pool is not None:
            await self._pool.closeCachedConnections()


def _request_headers(endpoint: EndpointConfig, own: Mapping[str, str] | None) -> dict[str, str | bytes]:
    merged: dict[str, str | bytes] = {"user-agent": f"rasa_core_api/{__version__}", "accept": "application/json"}
    merged.update((name.lower(), value.encode("utf-8")) for name, value in endpoint.headers.items())
    if endpoint.basic_auth is not None:
        merged["authorization"] = b"Basic " + b64encode(":".join(endpoint.basic_auth).encode("utf-8"))
    merged["content-type"] = "application/json"
    if own:
        merged.update((name.lower(), value) for name, value in own.items())
    return merged


def innermost(error: BaseException) -> BaseException:
    """What is inside of Twisted's wrappers, which collect the reasons of a failed request."""
    for _ in range(5):
        reasons = getattr(error, "reasons", None)
        if not reasons or not isinstance(reasons[-1], Failure) or reasons[-1].value is None:
            break
        error = reasons[-1].value
    return error


def _fault(error: BaseException) -> str:
    """What is wrong with a server whose call failed for this reason; never what it sent."""
    from twisted.web.client import ResponseDone
    from twisted.web.http import PotentialDataLoss, _DataLoss

    if type(error).__name__ == "ParseError":  # of a private module of Twisted
        return "does not speak HTTP"
    if isinstance(error, (ConnectionDone, ConnectionLost, ResponseDone, PotentialDataLoss, _DataLoss)):
        return "closed the connection before its answer was complete"
    return f"cannot be reached: {words_of(error)}"


def words_of(error: BaseException) -> str:
    """Why a call failed, on one short line."""
    return (str(error) or type(error).__name__).split("\n")[0][:200]
