"""What the routes take from query strings and bodies, as values that were looked at."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from urllib.parse import urlencode

from attrs import frozen

from rasa_core_api.constants import JSON
from rasa_core_api.events.reading import checked_parse_data
from rasa_core_api.exceptions import InvalidParameter, UnsupportedMessage
from rasa_core_api.http.errors import InvalidHeader
from rasa_core_api.http.reading import count, flag, wrong_body
from rasa_core_api.tracker_views import EventVerbosity


def invalid(message: str, parameter: str, where: str = "body") -> InvalidParameter:
    """What to raise for a parameter of the body, the query string or the path."""
    return InvalidParameter(message, parameter=parameter, **{"in": where})


# --- query strings -------------------------------------------------------------------------------------


def verbosity_of(query: Mapping[str, str], default: EventVerbosity = EventVerbosity.AFTER_RESTART) -> EventVerbosity:
    """`include_events`. Raises `UnknownVerbosity`."""
    text = query.get("include_events")
    return default if text is None else EventVerbosity.from_text(text)


def tracker_verbosity_of(query: Mapping[str, str]) -> EventVerbosity:
    """`include_events`, else what the two flags of 0.8 to 0.10 ask for."""
    default = EventVerbosity.AFTER_RESTART
    if not flag(query, "events", True):
        default = EventVerbosity.NONE
    elif flag(query, "ignore_restarts"):
        default = EventVerbosity.ALL
    return verbosity_of(query, default)


@frozen
class Page:
    """Which conversations a list has: `limit` of them (None: all) beyond `after` whose ids begin with `prefix`."""

    limit: int | None
    after: str | None
    prefix: str

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Page:
        """Raises `InvalidParameter`."""
        limit = count(query, "limit", 0) if "limit" in query else None
        return cls(limit, query.get("after"), query.get("prefix", ""))

    @property
    def more(self) -> int | None:
        """One more than are shown, to know whether there are any."""
        return None if self.limit is None else self.limit + 1

    def shown(self, found: list[str]) -> list[str]:
        return found if self.limit is None else found[: self.limit]

    def link(self, last: str) -> bytes:
        """The header that names the page behind `last`."""
        query = {"limit": self.limit, "after": last, **({"prefix": self.prefix} if self.prefix else {})}
        return f'</conversations?{urlencode(query)}>; rel="next"'.encode("ascii")


# --- headers -------------------------------------------------------------------------------------------

_YAML_TYPES = ("application/x-yml", "application/x-yaml", "application/yaml", "text/yaml")
_JSON_TYPES = ("application/json", "application/*", "*/*")


def wants_yaml(accept: str) -> bool:
    """Whether an `Accept` header asks for YAML rather than JSON. Raises `InvalidHeader` where it takes neither."""
    ranges = [_media_range(part) for part in accept.split(",") if part.strip()]
    for _, kind in sorted((found for found in ranges if found[0] > 0), key=lambda found: -found[0]):
        if kind in _JSON_TYPES or kind.endswith("json"):
            return False
        if kind in _YAML_TYPES or kind.endswith("yml"):
            return True
    if not ranges:
        return False
    raise InvalidHeader(
        'Invalid accept header. Domain can be provided as json ("Accept: application/json") or yml '
        '("Accept: application/x-yml"). Make sure you\'ve set the appropriate Accept header.'
    )


def _media_range(text: str) -> tuple[float, str]:
    """The weight of a media range, 1 where it has none that is a number, and its type."""
    kind, *parameters = (part.strip().lower() for part in text.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value), kind
            except ValueError:
                break
    return 1.0, kind


# --- members of bodies ---------------------------------------------------------------------------------


def first_of(members: Mapping[str, JSON], names: Sequence[str]) -> tuple[str, JSON] | None:
    """The first of these members that is there."""
    for name in names:
        if name in members:
            return name, members[name]
    return None


def message_text(members: Mapping[str, JSON], missing: str, where: str = "body") -> str:
    """`query`, else `q`: a text, or an object with a `text`. Raises `InvalidParameter` saying `missing`."""
    found = first_of(members, ("query", "q"))
    if found is None:
        raise invalid(missing, "query", "query")
    name, value = found
    if isinstance(value, dict):
        value = value.get("text")
    if not isinstance(value, str):
        raise invalid(f"{missing} '{name}' must be a text.", name, where)
    return value


def _optional_text(members: Mapping[str, JSON], name: str) -> str | None:
    value = members.get(name)
    if value is not None and not isinstance(value, str):
        raise invalid(f"'{name}' must be a text.", name)
    return value


@frozen
class ExecuteRequest:
    """Body of `execute`: `action` up to 0.11, `name` with policy and confidence later."""

    action: str
    policy: str | None
    confidence: float | None

    @classmethod
    def from_json(cls, members: Mapping[str, JSON]) -> ExecuteRequest:
        action = _optional_text(members, "name") or _optional_text(members, "action")
        if not action:
            raise invalid("Missing the name of the action: give it as 'name' or 'action'.", "name")
        confidence = members.get("confidence")
        if confidence is not None and (isinstance(confidence, bool) or not isinstance(confidence, (int, float))):
            raise invalid("'confidence' must be a number.", "confidence")
        return cls(action, _optional_text(members, "policy"), confidence)


@frozen
class MessageRequest:
    """Body of `messages`; `parse_data` None: the interpreter is asked."""

    text: str
    parse_data: Mapping[str, JSON] | None

    @classmethod
    def from_json(cls, members: Mapping[str, JSON]) -> MessageRequest:
        sender = members.get("sender")
        if sender != "user":
            raise UnsupportedMessage(
                "Currently, only user messages can be passed to this endpoint. "
                f"Messages of sender '{str(sender)[:100]}' can not be handled. ",
                parameter="sender",
                **{"in": "body"},
            )
        found = first_of(members, ("message", "text", "query"))
        if found is None or not isinstance(found[1], str):
            raise invalid("Missing the text of the message: give it as 'message' or 'text'.", "message")
        parse_data = members.get("parse_data")
        if parse_data is not None:
            if not isinstance(parse_data, dict):
                raise invalid("'parse_data' must be an object.", "parse_data")
            for name in ("intent", "entities"):
                if parse_data.get(name) is None:
                    raise invalid(f"'parse_data' must have the member '{name}'.", f"parse_data.{name}")
            parse_data = checked_parse_data(parse_data, found[1])
        return cls(found[1], parse_data)


@frozen
class ContinueRequest:
    """Body of `continue`: what the caller ran, and the events that came of it."""

    executed_action: str | None
    events: list[JSON]

    @classmethod
    def from_json(cls, members: Mapping[str, JSON]) -> ContinueRequest:
        events = members.get("events")
        if events is not None and not isinstance(events, list):
            raise invalid("'events' must be a list of events.", "events")
        return cls(_optional_text(members, "executed_action"), events or [])


def nlu_text(members: Mapping[str, JSON]) -> str:
    """Body of `/parse`: `q`."""
    text = members.get("q")
    if not isinstance(text, str):
        raise invalid("Missing the text to parse: give it as 'q'.", "q")
    return text


# --- lists of events -----------------------------------------------------------------------------------


async def _only(item: JSON) -> AsyncIterator[JSON]:
    yield item


def replacement(body: AsyncIterator[JSON] | JSON) -> AsyncIterator[JSON]:
    """The events of a replacement: a list, or one event, which counts as a list of it."""
    if isinstance(body, AsyncIterator):
        return body
    if isinstance(body, dict) and isinstance(body.get("event"), str):
        return _only(body)
    raise wrong_body("a list of events")


def addition(body: AsyncIterator[JSON] | JSON) -> tuple[AsyncIterator[JSON], bool]:
    """The events to append, and whether the body was one event rather than a list."""
    if isinstance(body, AsyncIterator):
        return body, False
    if isinstance(body, dict):
        return _only(body), True
    raise wrong_body("an event or a list of events")


def supplied(body: AsyncIterator[JSON] | JSON) -> AsyncIterator[JSON]:
    """The events of a conversation that is not stored."""
    if isinstance(body, AsyncIterator):
        return body
    raise invalid("Supplied events are not valid. The body must be a list of events.", "")


async def all_events(items: AsyncIterator[JSON]) -> AsyncIterator[JSON]:
    """The same items; what names no event is refused, as 0.11 did."""
    async for item in items:
        if not isinstance(item, dict) or item.get("event") is None:
            raise invalid("Invalid list of events provided.", "")
        yield item
