"""Conversations as the historical store kept them in MongoDB: one document each, with the tracker's state."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import islice
from typing import Any

from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from rasa_core_api.exceptions import InvalidConfiguration, StoreUnavailable
from rasa_core_api.tracker_store.mongo import reason

#: Documents that are fetched between two turns of the reactor.
_PAGE = 100


class HistoricalMongo:
    """Reads a collection that the historical store wrote. Nothing in it is changed.

    `connect` makes a client like pymongo's; it is called in a thread.
    """

    def __init__(self, reactor: Any, connect: Callable[[], Any], database: str, collection: str) -> None:
        self._reactor = reactor
        self._connect = connect
        self._database = database
        self._collection = collection
        self._client: Any = None
        self._pool = ThreadPool(1, 1, "historical-conversations")

    async def open(self) -> None:
        """Connect. Raises `StoreUnavailable`, and `InvalidConfiguration` without pymongo."""
        try:
            import pymongo  # noqa: F401
        except ImportError as error:
            raise InvalidConfiguration("reading MongoDB needs pymongo; install rasa_core_api[mongo]") from error
        self._pool.start()
        self._client = await self._run(self._connect)

    async def close(self) -> None:
        """Disconnect."""
        self._pool.stop()
        if self._client is not None:
            self._client.close()

    async def _run(self, function: Callable[..., Any], *arguments: object) -> Any:
        from pymongo.errors import PyMongoError

        try:
            return await deferToThreadPool(self._reactor, self._pool, function, *arguments)
        except PyMongoError as error:
            raise StoreUnavailable(f"MongoDB cannot be read: {reason(error)}.") from error

    async def count(self) -> int:
        """About how many conversations there are."""
        collection = self._client[self._database][self._collection]
        return int(await self._run(collection.estimated_document_count))

    async def conversations(self, ours: bytes) -> AsyncIterator[tuple[str, bytes]]:
        """Every sender id and its events as JSON; ids that are numbers count as their text."""
        documents = iter(self._client[self._database][self._collection].find({}, {"sender_id": 1, "events": 1}))
        while True:
            page: list[tuple[str, bytes]] = await self._run(_page, documents)
            for item in page:
                yield item
            if len(page) < _PAGE:
                return


def _page(documents: Iterator[Any]) -> list[tuple[str, bytes]]:
    found = []
    for document in islice(documents, _PAGE):
        events = json.dumps(document.get("events"), default=str)
        found.append((str(document.get("sender_id")), events.encode()))
    return found
