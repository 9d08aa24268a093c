"""Entities from a duckling server: dates, numbers, amounts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import time as time_of_day
from typing import Any
from urllib.parse import urlencode

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rasa_core_api.constants import JSON
from rasa_core_api.endpoints import EndpointConfig, OutgoingFailed, OutgoingHTTP
from rasa_core_api.jsontext import decode
from rasa_core_api.nlu.message import Connect, Message, NetworkComponent
from rasa_core_api.nlu.outage import Outage

log = Logger()

TIME_LIMIT = 3.0  # seconds for one question
PATIENCE = 3  # failures in a row before a pause
PAUSE = 10.0  # seconds
MAX_TEXT = 10_000  # characters that are asked about
MAX_ANSWER = 1 << 20  # bytes
URL_VARIABLE = "RASA_DUCKLING_HTTP_URL"  # environment variable that replaces the URL of every model


class DucklingEntities:
    """`ner_duckling_http`: asks a server for entities while the local parts work.

    A server that fails or is slower than `TIME_LIMIT` costs the message nothing but these entities; after some
    failures it is left alone for a while.
    """

    name = "ner_duckling_http"

    def __init__(
        self,
        settings: Mapping[str, JSON],
        extractor: str,
        language: str,
        *,
        http: OutgoingHTTP,
        clock: IReactorTime,
        url: str | None = None,
        now: Callable[[], float] = time_of_day,
    ) -> None:
        """`settings` as the pipeline has them: `url`, `dimensions`, `locale`, `timezone`; `url` replaces theirs.

        `now` gives seconds since the epoch, to which relative times refer.

        Raises InvalidConfiguration for an URL that is none.
        """
        self.settings = dict(settings)
        self.extractor = extractor
        self._http = http
        self._clock = clock
        self._now = now
        self._endpoint: EndpointConfig | None = None
        url = url or settings.get("url")
        if url:
            self._endpoint = EndpointConfig.from_json({"url": url, "timeout": TIME_LIMIT}, self.name)
        else:
            log.warn("{part} has no url and finds nothing; set {variable}", part=extractor, variable=URL_VARIABLE)
        self._dimensions = frozenset(settings.get("dimensions") or ())
        self._locale = settings.get("locale") or f"{language}_{language.upper()}"
        self._timezone = settings.get("timezone")
        self._outage = Outage(clock, f"duckling at {self._endpoint.url if self._endpoint else '?'}", PATIENCE, PAUSE)

    def start(self, message: Message) -> Deferred[list[dict[str, JSON]]]:
        """Ask now; fires with the entities, an empty list when the server cannot be used."""
        return Deferred.fromCoroutine(self._ask(message.text, message.time))

    async def _ask(self, text: str, time: int | None) -> list[dict[str, JSON]]:
        if self._endpoint is None or self._outage.paused:
            return []
        if time is None:
            time = int(self._now()) * 1000
        form = {"text": text[:MAX_TEXT], "locale": self._locale, "tz": self._timezone, "reftime": time}
        body = urlencode({key: value for key, value in form.items() if value is not None}, errors="replace")
        try:
            answer = await self._http.request_json(
                self._endpoint,
                "POST",
                "parse",
                body=body.encode("ascii"),
                headers={"content-type": "application/x-www-form-urlencoded; charset=UTF-8"},
                max_bytes=MAX_ANSWER,
            )
            if answer.status != 200:
                raise ValueError(f"it answered with the status {answer.status}")
            entities = self._read(decode(answer.body))
        except OutgoingFailed as error:
            self._outage.failed(str(error))
            return []
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            self._outage.failed(str(error) if type(error) is ValueError else "it answered something else than entities")
            return []
        self._outage.worked()
        return entities

    def _read(self, found: JSON) -> list[dict[str, JSON]]:
        if not isinstance(found, list):
            raise ValueError("it answered something else than a list of entities")
        return [
            {
                "start": _place(match["start"]),
                "end": _place(match["end"]),
                "text": str(match["body"]),
                "value": _value(match["value"]),
                "confidence": 1.0,
                "additional_info": match["value"],
                "entity": str(match["dim"]),
                "extractor": self.extractor,
            }
            for match in found
            if not self._dimensions or match["dim"] in self._dimensions
        ]


def duckling_factory(http: OutgoingHTTP, clock: IReactorTime, environ: Mapping[str, str]) -> Connect:
    """What makes the duckling parts of models; the environment may replace the URL of all of them."""
    url = environ.get(URL_VARIABLE) or None

    def connect(settings: Mapping[str, JSON], extractor: str, language: str) -> NetworkComponent:
        return DucklingEntities(settings, extractor, language, http=http, clock=clock, url=url)

    return connect


def _place(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("it answered an entity without a place")
    return value


def _value(value: Mapping[str, JSON]) -> JSON:
    if value.get("type") == "interval":
        return {end: (value.get(end) or {}).get("value") for end in ("to", "from")}
    return value.get("value")
