"""The HTTP API: Klein routes over an agent, and the resource that `twistd web --class` serves."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from klein import Klein
from twisted.logger import Logger
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request

from rasa_core_api.agent import Agent
from rasa_core_api.concurrency import uninterrupted
from rasa_core_api.constants import JSON
from rasa_core_api.domain import Domain
from rasa_core_api.event_streams import EventStreams
from rasa_core_api.exceptions import (
    ActionFailed,
    EvaluationFailed,
    InvalidConfiguration,
    InvalidParameter,
    MessageFailed,
    NoDomain,
    RasaCoreError,
    UnknownAction,
    UnsupportedModel,
)
from rasa_core_api.http.auth import Access
from rasa_core_api.http.cors import Origins
from rasa_core_api.http.errors import status_of
from rasa_core_api.http.idempotency import request_key
from rasa_core_api.http.mounts import Channels
from rasa_core_api.http.multipart import save_upload
from rasa_core_api.http.reading import Bodies, count, flag, hide_query, number, query_of
from rasa_core_api.http.refusals import Refusals
from rasa_core_api.http.routing import App, Route, Routes, rights
from rasa_core_api.http.sending import (
    Flow,
    Replies,
    message_dict,
    message_dicts,
    send_json,
    send_nothing,
    send_text,
)
from rasa_core_api.http.site import ApiSite
from rasa_core_api.http.streams import Stream, no_position, place_after, resume_after, send_stream
from rasa_core_api.messages import BotMessage, RequestKey
from rasa_core_api.releases import release_of
from rasa_core_api.remote_protocol import NextAction
from rasa_core_api.server_bodies import (
    ContinueRequest,
    ExecuteRequest,
    MessageRequest,
    addition,
    all_events,
    message_text,
    nlu_text,
    replacement,
    supplied,
    tracker_verbosity_of,
    verbosity_of,
    wants_yaml,
)
from rasa_core_api.server_care import CareRoutes, app
from rasa_core_api.server_root import Root as Root
from rasa_core_api.server_settings import ALWAYS, OPEN, READY, WITH_DOMAIN, Needs, Rights, ServerSettings
from rasa_core_api.store_health import StoreHealth
from rasa_core_api.tracker_views import EventVerbosity

log = Logger()

_NO_DOMAIN = "Could not retrieve tracker. Most likely because there is no domain set on the agent."


class Server(CareRoutes):
    """Serves an agent and its channels.

    `channels` are pairs of URL prefix and Klein application or resource, mounted below `/webhooks/`.
    """

    app = app
    #: What is open to those who watch the process, also where there is no API.
    probes = App()

    def __init__(
        self,
        agent: Agent,
        settings: ServerSettings | None = None,
        channels: Iterable[tuple[str, Klein | IResource]] = (),
    ) -> None:
        self._agent = agent
        self._settings = settings = settings or ServerSettings()
        self._access = Access(settings.auth_token, settings.tokens)
        self._bodies = Bodies(settings.max_body, agent.slices)
        self._replies = Replies(agent.slices, agent.clock)
        self._version = settings.compatibility_version
        self._release = release_of(self._version)
        self._refusals = Refusals(agent.clock)
        self._yaml: tuple[Domain, str] | None = None
        self._channels = list(channels)
        self._streams = EventStreams(agent.store, agent.clock)
        self._health = StoreHealth(agent.store, agent.clock)
        agent.after_commit.append(self._streams.stored)
        if settings.channel_auth and self._access.open:
            raise InvalidConfiguration("channel_auth: there is neither an auth_token nor a jwt_secret to ask for")

    def resource(self) -> Root:
        """The root of all paths."""
        settings = self._settings
        origins = Origins(settings.cors)
        app = self.app if settings.enable_api else self.probes
        api: IResource = Routes(app, self._guard, origins, self._version, self._refusals)
        channels: Channels | None = None
        if self._channels:
            channels = Channels(
                self._channels,
                self._bodies,
                Origins(["*"]) if settings.enable_api else origins,
                self._access if settings.channel_auth else None,
                self._version,
                self._refusals,
            )
            if not self._access.open and not settings.channel_auth:
                log.info(
                    "the channels under /webhooks/ are open to everybody; --channel_auth protects them like the API"
                )
        return Root(api, channels)

    def site(self, root: Root | None = None, max_connections: int | None = None) -> ApiSite:
        """The site to listen with; `root` is what `resource` made, if it was asked for it."""
        settings = self._settings
        return ApiSite(
            root or self.resource(),
            self._agent.clock,
            settings.max_body,
            settings.access_log,
            max_connections,
            self._version,
            self._refusals,
        )

    def _guard(self, request: Request, route: Route, sender_id: str | None) -> None:
        wanted: Rights = route.rights
        if wanted.authenticated and not self._access.open:
            self._access.check(request, sender_id)
        if wanted.needs is not Needs.NOTHING and not self._agent.is_ready:
            if wanted.needs is Needs.DOMAIN:
                raise NoDomain(_NO_DOMAIN)
            self._agent.model  # raises  # noqa: B018

    # --- the server and its model --------------------------------------------------------------------

    @app.route("/", methods=["GET"])
    @rights(OPEN)
    def hello(self, request: Request) -> bytes:
        """Say who is there."""
        return send_text(request, f"hello from Rasa Core: {self._version}", b"text/html; charset=utf-8")

    @app.route("/version", methods=["GET"])
    @rights(OPEN)
    def version(self, request: Request) -> bytes:
        """The release whose wire shapes are answered, and the oldest one whose models it loads."""
        oldest = self._release.minimum_model_version
        return send_json(request, {"version": self._version, "minimum_compatible_version": oldest})

    @app.route("/status", methods=["GET"])
    @rights(ALWAYS)
    def status(self, request: Request) -> bytes:
        """The model in service."""
        return send_json(request, {**self._agent.status(), **self._settings.process})

    @probes.route("/healthz", methods=["GET"])
    @app.route("/healthz", methods=["GET"])
    @rights(OPEN)
    def healthz(self, request: Request) -> bytes:
        """The process is alive: whoever watches it need not start it anew."""
        request.responseHeaders.removeHeader(b"Server")  # it tells a version to whoever asks
        return send_json(request, {"status": "ok"})

    @probes.route("/readyz", methods=["GET"])
    @app.route("/readyz", methods=["GET"])
    @rights(OPEN)
    async def readyz(self, request: Request) -> bytes:
        """Whether messages would be answered: 200 with a model and a store in service, else 503."""
        ready = self._agent.is_ready
        if ready and flag(query_of(request), "store", True):
            ready = await self._health.well()
        request.responseHeaders.removeHeader(b"Server")
        return send_json(request, {"ready": ready}, 200 if ready else 503)

    @app.route("/domain", methods=["GET"])
    @rights(READY)
    def domain(self, request: Request) -> bytes:
        """The domain, as JSON or as YAML."""
        domain = self._agent.domain
        accept = request.requestHeaders.getRawHeaders(b"Accept", [])
        if wants_yaml(b",".join(accept).decode("latin-1")):
            return send_text(request, self._domain_yaml(domain), b"application/x-yml")
        return send_text(request, domain.as_json() + "\n", b"application/json")

    def _domain_yaml(self, domain: Domain) -> str:
        if self._yaml is None or self._yaml[0] is not domain:
            from rasa_core_api.config import dump_yaml  # few ever ask

            self._yaml = domain, dump_yaml(domain.as_dict())
        return self._yaml[1]

    @app.route("/model", methods=["POST"])
    @rights(ALWAYS)
    async def upload_model(self, request: Request) -> bytes:
        """Serve the model of an uploaded archive."""
        await self._take_model(request)
        if self._release.answers_objects:
            return send_nothing(request)
        return send_json(request, {"success": 1})

    @app.route("/load", methods=["POST"])
    @rights(ALWAYS)
    async def load_model(self, request: Request) -> bytes:
        """What the clients of 0.9 to 0.14 call: they all look for status 200."""
        await self._take_model(request)
        return send_json(request, {"success": 1})

    async def _take_model(self, request: Request) -> None:
        archive = await save_upload(request, "model", self._bodies)
        signature = request.requestHeaders.getRawHeaders("X-Model-Signature", [None])[0]
        await uninterrupted(self._install(archive, signature))

    async def _install(self, archive: Path, signature: str | None) -> None:
        try:
            await self._agent.install_archive(archive, signature)
        except (UnsupportedModel, InvalidConfiguration) as error:
            raise InvalidParameter(
                f"The model cannot be served, the old one stays: {error}", parameter="model", **{"in": "body"}
            ) from error
        finally:
            os.unlink(archive)

    @app.route("/finetune", methods=["POST"])
    @rights(READY)
    async def finetune(self, request: Request) -> bytes:
        """Learn from a correct conversation."""
        query = query_of(request)
        epochs, batch_size = count(query, "epochs", 30), count(query, "batch_size", 5)
        items = supplied(await self._bodies.listed(request))
        await uninterrupted(self._agent.finetune(items, epochs, batch_size))
        return send_nothing(request)

    @app.route("/evaluate", methods=["POST"])
    @rights(READY)
    async def evaluate(self, request: Request) -> bytes:
        """How well the model predicts the stories in the body."""
        stories = await self._bodies.text(request)
        report = await self._agent.evaluate(stories, flag(query_of(request), "e2e"))
        if not report["actions"]:
            raise EvaluationFailed("Evaluation could not be created. Error: the stories hold no action to predict")
        return send_json(request, report)

    @app.route("/parse", methods=["POST"])
    @rights(READY)
    async def parse(self, request: Request) -> bytes:
        """What the interpreter makes of a text."""
        text = nlu_text(await self._bodies.object(request))
        return send_json(request, await self._agent.parse(text))

    @app.route("/predict", methods=["POST"])
    @rights(READY)
    async def predict_events(self, request: Request) -> bytes | None:
        """The next action after the events in the body, in the shape of 0.11 or of 0.12."""
        query = query_of(request)
        verbosity = verbosity_of(query)
        items = supplied(await self._bodies.listed(request))
        if not self._release.answers_objects and "include_events" not in query:
            scored = await self._agent.predict_events(all_events(items), EventVerbosity.NONE)
            return send_json(request, dict(scored.scores))
        scored = await self._agent.predict_events(items, verbosity, skip=True)
        scores = [{"action": action, "score": score} for action, score in scored.scores]
        return await self._replies.members(
            request,
            {"scores": scores, "policy": scored.policy, "confidence": scored.confidence, "tracker": scored.view},
        )

    # --- conversations -------------------------------------------------------------------------------

    @app.route("/conversations/<sender_id>/tracker", methods=["GET"])
    @rights(WITH_DOMAIN)
    async def tracker(self, request: Request, sender_id: str) -> bytes | None:
        """A conversation's state, now or as it was."""
        query = query_of(request)
        verbosity, until = tracker_verbosity_of(query), number(query, "until")
        view = await uninterrupted(self._agent.tracker(sender_id, verbosity, until))
        return await self._replies.tracker(request, view)

    @app.route("/conversations/<sender_id>/story", methods=["GET"])
    @rights(WITH_DOMAIN)
    async def story(self, request: Request, sender_id: str) -> bytes:
        """A conversation as an end-to-end story."""
        until = number(query_of(request), "until")
        story = await uninterrupted(self._agent.story(sender_id, until))
        return send_text(request, story, b"text/markdown; charset=utf-8")

    @app.route("/conversations/<sender_id>/tracker/events", methods=["POST"])
    @rights(READY)
    async def append_events(self, request: Request, sender_id: str) -> bytes | None:
        """Append one event or a list of them; a list is answered without events unless they are asked for."""
        query = query_of(request)
        verbosity_of(query)
        items, single = addition(await self._bodies.listed(request))
        verbosity = verbosity_of(query, EventVerbosity.AFTER_RESTART if single else EventVerbosity.NONE)
        key = await self._key(request)
        view = await uninterrupted(self._agent.append(sender_id, items, single, verbosity, key))
        return await self._replies.tracker(request, view)

    @app.route("/conversations/<sender_id>/tracker", methods=["PUT"], endpoint="replace_tracker")
    @app.route("/conversations/<sender_id>/tracker/events", methods=["PUT"])
    @rights(READY)
    async def replace_events(self, request: Request, sender_id: str) -> bytes | None:
        """Begin the conversation anew with these events."""
        verbosity = verbosity_of(query_of(request))
        items = replacement(await self._bodies.listed(request))
        key = await self._key(request)
        view = await uninterrupted(self._agent.replace(sender_id, items, verbosity, key))
        return await self._replies.tracker(request, view)

    @app.route("/conversations/<sender_id>/respond", methods=["GET", "POST"])
    @rights(READY)
    async def respond(self, request: Request, sender_id: str) -> bytes:
        """Handle one user message and answer with what the bot said."""
        text = await self._message(request, "Invalid respond parameter specified.")
        messages = await self._talk(text, sender_id, await self._key(request))
        return send_json(request, [message_dict(message) for message in messages])

    async def _talk(self, text: str, sender_id: str, key: RequestKey | None) -> list[BotMessage]:
        try:
            return await uninterrupted(self._agent.handle_text(text, sender_id, key))
        except RasaCoreError as error:
            raise _server_failure(error, ActionFailed) from error

    async def _key(self, request: Request) -> RequestKey | None:
        """What tells this request when it comes again."""
        return await request_key(request, self._agent.keep_answers, self._agent.slices)

    async def _message(self, request: Request, missing: str) -> str:
        if request.method == b"POST":
            return message_text(await self._bodies.object(request), missing)
        return message_text(query_of(request), missing, "query")

    @app.route("/conversations/<sender_id>/execute", methods=["POST"])
    @rights(READY)
    async def execute(self, request: Request, sender_id: str) -> bytes | None:
        """Run one action."""
        verbosity = verbosity_of(query_of(request))
        ask = ExecuteRequest.from_json(await self._bodies.object(request))
        key = await self._key(request)
        work = self._agent.execute(sender_id, ask.action, ask.policy, ask.confidence, verbosity, key)
        try:
            view, messages = await uninterrupted(work)
        except UnknownAction as error:
            raise UnknownAction(f"Server failure. Error: {error}", **error.details) from error
        except RasaCoreError as error:
            raise _server_failure(error, ActionFailed) from error
        return await self._replies.members(request, {"tracker": view, "messages": message_dicts(messages)})

    @app.route("/conversations/<sender_id>/predict", methods=["POST"])
    @rights(READY)
    async def predict(self, request: Request, sender_id: str) -> bytes | None:
        """What the bot would do next, the likeliest action first."""
        verbosity = verbosity_of(query_of(request))
        scored = await uninterrupted(self._agent.predict(sender_id, verbosity))
        scores = [
            {"action": action, "score": score}
            for action, score in sorted(scored.scores, key=lambda pair: (-pair[1], pair[0]))
        ]
        return await self._replies.members(
            request,
            {"scores": scores, "policy": scored.policy, "confidence": scored.confidence, "tracker": scored.view},
        )

    @app.route("/conversations/<sender_id>/messages", methods=["POST"])
    @rights(READY)
    async def log_message(self, request: Request, sender_id: str) -> bytes | None:
        """Log a message without answering it."""
        verbosity = verbosity_of(query_of(request))
        ask = MessageRequest.from_json(await self._bodies.object(request))
        key = await self._key(request)
        try:
            view = await uninterrupted(self._agent.log_message(sender_id, ask.text, ask.parse_data, verbosity, key))
        except RasaCoreError as error:
            raise _server_failure(error, MessageFailed) from error
        return await self._replies.tracker(request, view)

    @app.route("/conversations/<sender_id>/events", methods=["GET"])
    @rights(ALWAYS)
    async def conversation_events(self, request: Request, sender_id: str) -> None:
        """What is said in a conversation, as it is said."""
        after, birth = place_after(resume_after(request, query_of(request)))
        await self._send_stream(request, self._streams.conversation(sender_id, after, birth))

    @app.route("/events", methods=["GET"])
    @rights(ALWAYS)
    async def events_of_all(self, request: Request) -> None:
        """What is said in all conversations, as it is said."""
        after, where = resume_after(request, query_of(request)) or (None, "")
        try:
            stream = await self._streams.all(after)
        except InvalidParameter as error:
            raise no_position(str(error), where) from error
        await self._send_stream(request, stream)

    async def _send_stream(self, request: Request, stream: Stream) -> None:
        clock, left = self._agent.clock, self._access.seconds_left(request)
        await send_stream(request, stream, self._agent.slices, Flow(clock, request), clock, left)

    def close(self) -> None:
        """End the streams of events: nobody else waits for the server's end."""
        self._streams.close()

    # --- the remote-execution protocol of 0.8 to 0.10 ------------------------------------------------

    @app.route("/conversations/<sender_id>/parse", methods=["GET", "POST"])
    @rights(READY)
    async def parse_message(self, request: Request, sender_id: str) -> bytes | None:
        """Log a message and name the action that the caller is to run."""
        text = await self._message(request, "Invalid parse parameter specified.")
        key = await self._key(request)
        try:
            answer = await uninterrupted(self._agent.parse_old(sender_id, text, key))
        except RasaCoreError as error:
            raise _server_failure(error, MessageFailed) from error
        return await self._next_action(request, answer)

    @app.route("/conversations/<sender_id>/continue", methods=["POST"])
    @rights(READY)
    async def continue_turn(self, request: Request, sender_id: str) -> bytes | None:
        """Log what the caller ran and name the next action."""
        ask = ContinueRequest.from_json(await self._bodies.object(request))
        key = await self._key(request)
        work = self._agent.continue_old(sender_id, ask.executed_action, ask.events, key)
        try:
            answer = await uninterrupted(work)
        except UnknownAction as error:
            raise InvalidParameter(str(error), parameter="executed_action", **{"in": "body"}) from error
        except RasaCoreError as error:
            raise _server_failure(error, MessageFailed) from error
        return await self._next_action(request, answer)

    async def _next_action(self, request: Request, answer: NextAction) -> bytes | None:
        members: dict[str, JSON] = {"next_action": answer.action, "tracker": answer.view}
        if answer.info is not None:
            members["info"] = answer.info
        return await self._replies.members(request, members)


def _server_failure(error: RasaCoreError, kind: type[RasaCoreError]) -> RasaCoreError:
    """A failure that has no status of its own, told as the historical server did."""
    if isinstance(error, kind) or status_of(error) != status_of(RasaCoreError("")):
        return error
    return kind(f"Server failure. Error: {error}", **error.details)


class RasaCoreResource(Resource):
    """What `twistd web --class rasa_core_api.server.RasaCoreResource` serves.

    Configured by the environment, one variable a flag of `run` (`RASA_CORE_API_CORE`, ...). twistd makes it
    before it forks: objects are built here, and what needs threads, sockets or databases waits for the reactor.
    Where the settings or the model are no good the process ends with the reason and status 1: before 26.4 twistd ends
    with 0 after a usage error, which those who supervise it take for success.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        Resource.__init__(self)
        from rasa_core_api.run import build_from_environment

        try:
            self._root: Root = build_from_environment(os.environ if environ is None else environ)
        except RasaCoreError as error:
            raise SystemExit(f"rasa_core_api: {error}") from error

    def getChildWithDefault(self, path: bytes, request: Request) -> IResource:
        hide_query(request)
        return self._root.getChildWithDefault(path, request)


if __name__ == "__main__":
    from rasa_core_api.run import server_main

    raise SystemExit(server_main())
