"""What `python -m rasa_core_api.conversations` does with the conversations of a store."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rasa_core_api.claims import Claims
from rasa_core_api.concurrency import Slices
from rasa_core_api.constants import JSON
from rasa_core_api.copying import Report, Target, import_lines, named
from rasa_core_api.domain import Domain
from rasa_core_api.endpoints import read_endpoints
from rasa_core_api.events.reading import EventReader
from rasa_core_api.exceptions import (
    ConversationHeld,
    InvalidConfiguration,
    InvalidParameter,
    NotBuilt,
    StoreConflict,
    StoreUnavailable,
    UnreadableFile,
)
from rasa_core_api.masking import mask
from rasa_core_api.reminders import unfired
from rasa_core_api.slots import refuse_classes
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.exporting import EVENTS, exported
from rasa_core_api.tracker_store.factory import WHERE, create_store
from rasa_core_api.tracker_store.memory import MemoryStore
from rasa_core_api.tracker_store.settings import RETENTION, Settings, split_retention
from rasa_core_api.tracker_store.sqlite import SqliteStore

if TYPE_CHECKING:
    from rasa_core_api.tracker_store.historical import HistoricalRedis
    from rasa_core_api.tracker_store.historical_mongo import HistoricalMongo

#: Sender ids that are asked for at once.
_IDS = 500
_SAME = "{} and {} name the same store"
#: Seconds for which a store is marked while another one is compared with it.
_MARKED = 10.0


async def run(
    options: argparse.Namespace,
    reactor: Any,
    environ: Mapping[str, str],
    stdin: TextIO,
    stdout: TextIO,
    stderr: TextIO,
    told: Callable[[Report], None] = lambda _: None,
) -> int:
    """Carry out one command; the exit code. Raises errors of the domain for wrong settings and lost stores.

    `told` gets the report of the work when it begins.
    """
    reader = EventReader(lambda: 0.0, lambda: secrets.token_hex(16))
    trusted = [name for name in options.trusted_modules.split(",") if name]

    if options.command == "migrate" and not options.historical:
        both = [read_endpoints(file, environ).tracker_store for file in (options.source, options.endpoints)]
        if both[0] and both[0] == both[1]:  # a log that is replaced while it is read would be cut
            raise InvalidConfiguration(_SAME.format(options.source, options.endpoints))

    def report(verb: str) -> Report:
        made = Report(stderr, verb, reactor.seconds)
        told(made)
        return made

    def store_of(file: str, there: bool) -> TrackerStore:
        """`there` means that conversations are looked for: a mistyped path is no reason to make a new file."""
        settings = read_endpoints(file, environ).tracker_store
        with _told_of(file):
            store = create_store(
                settings, reactor=reactor, event_reader=reader, trusted_modules=trusted, slices=Slices(reactor)
            )
        if isinstance(store, MemoryStore):
            raise InvalidConfiguration(f"{file}: {WHERE}.type: what is in a server's memory cannot be reached")
        if there and isinstance(store, SqliteStore) and not store.path.exists():
            raise InvalidConfiguration(f"{file}: {WHERE}.path: there is no file {store.path}")
        return store

    with ExitStack() as files:
        store = store_of(options.endpoints, options.command not in ("import", "migrate"))
        with _told_of(options.endpoints):
            await store.open()
        try:
            if options.command == "list":
                async for sender_id in _all_ids(store, options.prefix):
                    print(sender_id if sender_id.isprintable() and sender_id else json.dumps(sender_id), file=stdout)
                return 0
            if options.command in ("delete", "anonymise"):
                verb = "deleted" if options.command == "delete" else "anonymised"
                return await _change(store, options, reactor, stdout, report(verb))
            if options.command == "export":
                output = stdout
                if options.output != "-":
                    output = files.enter_context(_created(options.output))
                return await _export(store, options, output, report("exported"))
            target = Target(store, options.existing, report("stored"))
            if options.command == "import":
                lines, name, size = stdin, "standard input", None
                if options.input != "-":
                    lines = files.enter_context(open(options.input, encoding="utf-8"))  # noqa: ASYNC230
                    name, size = options.input, os.fstat(lines.fileno()).st_size
                await import_lines(lines, name, size, reader, target, time.time())
            elif options.historical:
                await _migrate_historical(options.source, environ, reactor, reader, target)
            else:
                source = store_of(options.source, True)
                with _told_of(options.source):
                    await source.open()
                try:
                    if await _are_one(source, store):
                        raise InvalidConfiguration(_SAME.format(options.source, options.endpoints))
                    total = await _count(source)
                    async for sender_id in _all_ids(source, ""):
                        await target.copy(source, sender_id)
                        target.report.advance(total)
                finally:
                    await source.close()
            return target.report.finish()
        finally:
            await store.close()


@contextmanager
def _told_of(file: str) -> Iterator[None]:
    """Name the endpoint file, of which there may be two, in what its store raises while it is built and opened."""
    try:
        yield
    except InvalidConfiguration as error:
        raise InvalidConfiguration(f"{file}: {error}", **error.details) from error
    except StoreUnavailable as error:
        raise StoreUnavailable(f"{file}: {WHERE}: {error}", **error.details) from error


async def _are_one(source: TrackerStore, target: TrackerStore) -> bool:
    """Whether two stores with different settings are the same: a role that is taken in one is gone in the other."""
    mine, other = secrets.token_hex(16), secrets.token_hex(16)
    role = f"migration {mine}"
    try:
        await source.hold(role, mine, _MARKED)
        try:
            return not await target.hold(role, other, 0.001)
        finally:
            await source.hold(role, mine, 0.001)
    except NotBuilt:  # a store of somebody's own
        return False


def _created(path: str) -> TextIO:
    """A new file for its owner alone."""
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8")


async def _all_ids(store: TrackerStore, prefix: str) -> AsyncIterator[str]:
    page = await store.sender_ids(None, _IDS, prefix)
    while True:
        for sender_id in page:
            yield sender_id
        if len(page) < _IDS:
            return
        page = await _page_behind(store, page, prefix)


async def _page_behind(store: TrackerStore, page: Sequence[str], prefix: str) -> list[str]:
    """The ids behind a page, of which some may be deleted by now. Raises `InvalidParameter` where all are."""
    for last in range(len(page) - 1, 0, -1):
        try:
            found = await store.sender_ids(page[last], _IDS + len(page), prefix)
        except InvalidParameter:
            continue
        seen = set(page)
        return [sender_id for sender_id in found if sender_id not in seen][:_IDS]
    return await store.sender_ids(page[0], _IDS, prefix)


async def _count(store: TrackerStore, prefix: str = "") -> int:
    total = 0
    async for _ in _all_ids(store, prefix):
        total += 1
    return total


async def _change(
    store: TrackerStore, options: argparse.Namespace, reactor: Any, stdout: TextIO, report: Report
) -> int:
    """Delete or anonymise the conversations that were named or chosen."""
    work: Callable[[str], Awaitable[bool]] = store.delete
    if options.command == "anonymise":
        from rasa_core_api.service import load_core

        domain = load_core(Path(options.core), refuse_classes).domain
        claims = Claims(store, reactor, secrets.token_hex(16))
        again = options.older_than is None  # as every night, when answers are no longer kept
        work = partial(_mask, store, domain, claims, Slices(reactor), again)
    chosen = await _chosen(store, options)
    for sender_id in chosen:
        if options.dry_run:
            print(sender_id if sender_id.isprintable() and sender_id else json.dumps(sender_id), file=stdout)
            continue
        try:
            found = await work(sender_id)
        except (ConversationHeld, StoreConflict) as error:
            report.one_failed(f"{named(sender_id)}: {error}")
            continue
        if found:
            report.done += 1
        else:
            report.one_failed(f"there is no conversation {named(sender_id)}")
        report.advance(len(chosen))
    return 0 if options.dry_run else report.finish()


async def _mask(
    store: TrackerStore, domain: Domain, claims: Claims, slices: Slices, again: bool, sender_id: str
) -> bool:
    """Anonymise a conversation, which a server may be talking in: what it stored meanwhile would be lost."""
    tail = await store.read(sender_id, 0, 0)
    if tail is None:
        return False
    async with claims.over(sender_id, tail.end, birth=tail.birth):
        return await mask(store, sender_id, domain, claims.owner, slices.breathe, again)


async def _chosen(store: TrackerStore, options: argparse.Namespace) -> list[str]:
    """The conversations that a command is for. Raises `InvalidConfiguration` where nothing chooses them."""
    if options.sender_id:
        if options.older_than is not None or options.prefix:
            raise InvalidConfiguration("name conversations, or choose them with --older-than or --prefix, not both")
        return list(options.sender_id)
    if options.older_than is not None:
        if not options.older_than > 0:
            raise InvalidConfiguration("--older-than: a number of days above 0 is expected")
        found = await store.idle(time.time() - options.older_than * 86_400, 1 << 31)
        return [sender_id for sender_id in found if sender_id.startswith(options.prefix)]
    if options.prefix:
        return [sender_id async for sender_id in _all_ids(store, options.prefix)]
    raise InvalidConfiguration("name conversations, or choose them with --older-than or --prefix")


async def _export(store: TrackerStore, options: argparse.Namespace, output: TextIO, report: Report) -> int:
    async def chosen() -> AsyncIterator[str]:
        if not options.sender_id:
            async for sender_id in _all_ids(store, options.prefix):
                yield sender_id
        for sender_id in options.sender_id:
            if sender_id.startswith(options.prefix):
                yield sender_id

    total = len(options.sender_id) or await _count(store, options.prefix)
    async for sender_id in chosen():
        lines = 0
        try:
            async for line in exported(store, sender_id):
                output.write(line)
                lines += 1
                if lines > 1:
                    report.within(sender_id, lines * EVENTS)
        except StoreConflict as error:
            report.one_failed(error)
        if lines:
            report.done += 1
        elif options.sender_id:
            report.one_failed(f"there is no conversation {named(sender_id)}")
        report.advance(total)
    output.flush()
    return report.finish()


def _historical_source(entry: Mapping[str, JSON] | None, reactor: Any) -> HistoricalRedis | HistoricalMongo:
    """The store that an endpoint file of Rasa Core names."""
    settings, _ = split_retention(entry, WHERE)
    options = Settings(settings or {}, WHERE)
    kind, key = options.kind("type", "store_type", "memory")
    if kind == "redis":
        from rasa_core_api.tracker_store.historical import HistoricalRedis

        options.whole("record_exp", 0, 0)  # how long keys have left to live is not carried over
        redis = HistoricalRedis(
            reactor,
            options.host("url", "localhost"),
            options.port("port", 6379),
            options.whole("db", 0, 0),
            options.text("password", None),
        )
        options.finish(kind, RETENTION)
        return redis
    if kind == "mongod":
        from rasa_core_api.tracker_store.historical_mongo import HistoricalMongo
        from rasa_core_api.tracker_store.mongo import connect_with

        mongo = HistoricalMongo(
            reactor,
            connect_with(options),
            options.text("db", None) or "rasa",
            options.text("collection", None) or "conversations",
        )
        options.finish(kind, RETENTION)
        return mongo
    raise options.wrong(key, f"historical stores are 'redis' and 'mongod', not {kind!r}")


async def _migrate_historical(
    file: str, environ: Mapping[str, str], reactor: Any, reader: EventReader, target: Target
) -> None:
    from rasa_core_api.tracker_store.historical import read_stored
    from rasa_core_api.tracker_store.redis import PREFIX

    settings = read_endpoints(file, environ).tracker_store
    with _told_of(file):
        source = _historical_source(settings, reactor)
        await source.open()
    try:
        total = await source.count()
        async for sender_id, data in source.conversations(PREFIX.encode()):
            try:
                events = read_stored(data, f"the conversation {named(sender_id)}", reader)
                await target.put(sender_id, events, unfired(sender_id, events, time.time()))
            except UnreadableFile as error:
                target.report.one_failed(error)
            target.report.advance(total)
    finally:
        await source.close()
