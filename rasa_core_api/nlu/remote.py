"""Understanding by a rasa_nlu server."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.interfaces import IReactorTime

from rasa_core_api.constants import JSON
from rasa_core_api.endpoints import EndpointConfig, OutgoingFailed, OutgoingHTTP
from rasa_core_api.interpreter import Interpreter
from rasa_core_api.jsontext import decode
from rasa_core_api.nlu.outage import Outage

MAX_ANSWER = 4 << 20  # bytes
MAX_QUESTION = 4_000  # characters of a text; more do not fit into the request line that servers take


class NluUnavailable(OutgoingFailed):
    """The NLU server gave no parse result; the message names its URL and the reason."""


class RemoteInterpreter(Interpreter):
    """Asks a rasa_nlu server: `GET {url}/parse?token=..&model=..&project=..&q=..&message_id=..`.

    Headers, query parameters, basic authentication, token and time limit are those of the endpoint's entry.
    """

    def __init__(
        self,
        endpoint: EndpointConfig,
        *,
        http: OutgoingHTTP,
        clock: IReactorTime,
        project: str | None = None,
        model: str | None = None,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        """Parameters that are None are not sent; an empty project is the server's `default`.

        `new_id` gives a message that has none its id.
        """
        self._new_id = new_id
        self._endpoint = endpoint
        self._http = http
        self._parameters = {
            name: value for name, value in (("model", model), ("project", project)) if value is not None
        }
        self._outage = Outage(clock, f"the NLU server at {endpoint.url}")

    @property
    def is_down(self) -> bool:
        """Whether the last question was not answered."""
        return self._outage.is_down

    async def parse(self, text: str, message_id: str | None = None) -> dict[str, JSON]:
        """The server's parse result unchanged, or, while it cannot be used, `fallback()`; never fails."""
        try:
            result = await self.ask(text, message_id)
        except OutgoingFailed as error:
            self._outage.failed(str(error))
            return fallback()
        self._outage.worked()
        return result

    async def ask(self, text: str, message_id: str | None = None) -> dict[str, JSON]:
        """The server's parse result. Raises OutgoingFailed where there is none, to tell that from an empty one."""
        question = text[:MAX_QUESTION].encode("utf-8", "replace").decode("utf-8")
        parameters = {**self._parameters, "q": question}
        if message_id is None and self._new_id is not None:
            message_id = self._new_id()
        if message_id is not None:
            parameters["message_id"] = message_id
        answer = await self._http.request_json(self._endpoint, "GET", "parse", params=parameters, max_bytes=MAX_ANSWER)
        url = self._endpoint.url_for("parse")
        if answer.status != 200:
            raise NluUnavailable(f"{url} answered with the status {answer.status}", url=url, status=answer.status)
        try:
            result = decode(answer.body)
        except ValueError as error:
            raise NluUnavailable(f"{url} answered something else than JSON: {error}", url=url) from None
        if not _is_parse(result):
            raise NluUnavailable(f"{url} answered something else than a parse result", url=url)
        assert isinstance(result, dict)
        return result


def fallback() -> dict[str, JSON]:
    """What a message means while the server cannot be used; the name is the empty text, not null."""
    return {"intent": {"name": "", "confidence": 0.0}, "entities": [], "text": ""}


def project_and_model(path: str) -> tuple[str, str]:
    """The project and the model that `-u` names: `models/nlu/current` is the model `current` of `models/nlu`."""
    project, _, model = path.rpartition("/")
    return project, model


def _is_parse(result: JSON) -> bool:
    """Whether the members that a conversation reads have their types; the intent of an empty model is null."""
    if not isinstance(result, Mapping) or "intent" not in result:
        return False
    ranking = result.get("intent_ranking")
    intents = [result["intent"] or {}, *(ranking if isinstance(ranking, list) else [])]
    if not (ranking is None or isinstance(ranking, list)):
        return False
    for intent in intents:
        if not isinstance(intent, Mapping) or not isinstance(intent.get("name"), (str, type(None))):
            return False
        confidence = intent.get("confidence")
        if isinstance(confidence, bool) or not isinstance(confidence, (int, float, type(None))):
            return False
    entities = result.get("entities")
    if entities is None:
        return True
    return isinstance(entities, list) and all(
        isinstance(entity, Mapping) and isinstance(entity.get("entity"), str) and "value" in entity
        for entity in entities
    )
