"""The routes that list, remove, export and anonymise conversations, and those of their reminders."""

from __future__ import annotations

from twisted.web.server import Request

from rasa_core_api.agent import Agent
from rasa_core_api.concurrency import uninterrupted
from rasa_core_api.http.errors import NotFound
from rasa_core_api.http.reading import query_of
from rasa_core_api.http.routing import App, rights
from rasa_core_api.http.sending import Replies, list_texts, send_json, send_nothing
from rasa_core_api.server_bodies import Page
from rasa_core_api.server_settings import ALWAYS, READY
from rasa_core_api.tracker_store.exporting import exported

#: The API: these routes, and those of the class that has them.
app = App()


class CareRoutes:
    """A part of the server."""

    _agent: Agent
    _replies: Replies

    @app.route("/conversations", methods=["GET"])
    @rights(ALWAYS)
    async def conversations(self, request: Request) -> bytes | None:
        """The ids of all conversations, or of one page; `Link` names the next one."""
        page = Page.of(query_of(request))
        found = await self._agent.sender_ids(page.after, page.more, page.prefix)
        shown = page.shown(found)
        if len(shown) < len(found):
            request.responseHeaders.setRawHeaders(b"Link", [page.link(shown[-1])])
        return await self._replies.texts(request, lambda: list_texts(shown))

    @app.route("/conversations/<sender_id>", methods=["DELETE"])
    @rights(ALWAYS)
    async def delete_conversation(self, request: Request, sender_id: str) -> bytes:
        """Remove a conversation and all that is kept of it."""
        if not await uninterrupted(self._agent.care.delete(sender_id)):
            raise NotFound(f"There is no conversation {sender_id!r}.")
        return send_nothing(request)

    @app.route("/conversations/<sender_id>/anonymise", methods=["POST"])
    @rights(READY)
    async def anonymise(self, request: Request, sender_id: str) -> bytes:
        """Take texts and values out of a conversation."""
        domain = self._agent.model_of(sender_id).domain
        if not await uninterrupted(self._agent.care.anonymise(sender_id, domain)):
            raise NotFound(f"There is no conversation {sender_id!r}.")
        return send_nothing(request)

    @app.route("/conversations/<sender_id>/export", methods=["GET"])
    @rights(ALWAYS)
    async def export(self, request: Request, sender_id: str) -> bytes | None:
        """A conversation as lines of JSON, as `conversations import` reads them."""
        lines = exported(self._agent.store, sender_id)
        async for first in lines:
            await self._replies.lines(request, first, lines)
            return None
        raise NotFound(f"There is no conversation {sender_id!r}.")

    @app.route("/conversations/<sender_id>/reminders", methods=["GET"])
    @rights(ALWAYS)
    async def reminders(self, request: Request, sender_id: str) -> bytes:
        """The reminders that wait for their time."""
        found = await self._agent.reminders(sender_id)
        return send_json(request, [{"name": reminder.name, "due": reminder.due} for reminder in found])

    @app.route("/conversations/<sender_id>/reminders", methods=["DELETE"])
    @rights(ALWAYS)
    async def delete_reminders(self, request: Request, sender_id: str) -> bytes:
        """Remove the reminder that the query names, or all."""
        return await self._forget(request, sender_id, query_of(request).get("name"))

    @app.route("/conversations/<sender_id>/reminders/<name>", methods=["DELETE"])
    @rights(ALWAYS)
    async def delete_reminder(self, request: Request, sender_id: str, name: str) -> bytes:
        """Remove a reminder."""
        return await self._forget(request, sender_id, name)

    async def _forget(self, request: Request, sender_id: str, name: str | None) -> bytes:
        found = await self._agent.store.reminders(sender_id)
        gone = [await self._agent.store.forget(one) for one in found if name is None or one.name == name]
        if name is not None and not any(gone):
            raise NotFound(f"There is no reminder {name!r}.")
        return send_nothing(request)
