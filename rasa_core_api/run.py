"""`python -m rasa_core_api.run`: serve a bot."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rasa_core_api.constants import BACKLOG
from rasa_core_api.exceptions import InvalidConfiguration, RasaCoreError
from rasa_core_api.interruption import ended_by, stop_once
from rasa_core_api.settings import (
    PREFIX,
    RunSettings,
    by_variable,
    run_parser,
    settings_from_environment,
    settings_of,
)

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from rasa_core_api.server import Root
    from rasa_core_api.service import Service

#: The variable that tells a process that it is a worker.
WORKER = "RASA_CORE_API_WORKER"

#: New objects before the collector looks at the youngest: a turn makes some hundred, few of them cyclic.
_GC_THRESHOLD = 20_000


def prepare_process(environ: Any = os.environ) -> None:
    """One thread for numpy's small products, and as many descriptors as the system allows."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        environ.setdefault(name, "1")
    try:
        import resource
    except ImportError:  # not a Unix: it has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):
            return


def keep_time(reactor: Any, shows_dates: bool = False) -> None:
    """Let the reactor measure pauses and time limits by a clock that nobody sets, not by the time of day.

    Where that is set back by an hour, claims would not be renewed and nothing would time out for an hour; where it
    is set forward, all would time out at once. Where somebody shows the reactor's time as a date, that begins as the
    time of day and is not set with it.
    """
    if shows_dates:
        began = time.time() - time.monotonic()
        reactor.seconds = lambda: began + time.monotonic()
    elif not reactor.getDelayedCalls():  # those would be at another time
        reactor.seconds = time.monotonic


def settle_memory() -> None:
    """What was loaded stays: keep the collector from looking at it again and again."""
    gc.collect()
    gc.freeze()
    # a look at the second generation takes some 20 ms at most, after a large body too; the oldest one is seldom seen
    gc.set_threshold(_GC_THRESHOLD, 5, 200)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until stopped; the exit status."""
    arguments = run_parser().parse_args(argv)
    return serve(settings_of(arguments), os.environ)


def serve(settings: RunSettings, environ: Mapping[str, str]) -> int:
    """Serve with these settings until stopped; 1 where it could not begin."""
    try:
        prepare_process()
        from twisted.logger import Logger

        from rasa_core_api.logs import begin_logging

        log = Logger("rasa_core_api.run")
        if settings.workers > 1 and WORKER not in environ:
            from rasa_core_api.supervisor import supervise

            begin_logging(settings.log_level, settings.log_file, source="parent")
            log.info("Rasa process starting")
            return supervise(settings, environ)
        from twisted.internet import reactor

        with ended_by("SIGTERM", "SIGHUP"):
            from rasa_core_api.worker import Worker

            keep_time(reactor)
            worker = Worker.from_environment(environ)
            if worker is None:
                begin_logging(settings.log_level, settings.log_file)
                log.info("Rasa process starting")
            else:
                begin_logging(settings.log_level, settings.log_file, source=f"worker {worker.number}")
            from rasa_core_api.service import build_service

            service = build_service(settings, reactor, environ, worker)
    except RasaCoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return _run(service, reactor)


def _run(service: Service, reactor: Any) -> int:
    from twisted.internet.defer import Deferred
    from twisted.internet.error import CannotListenError
    from twisted.logger import Logger

    log = Logger("rasa_core_api.run")
    status = 0

    async def begin() -> None:
        nonlocal status
        try:
            await service.start()
            port = await _listen(service, reactor)
        except (RasaCoreError, CannotListenError) as error:
            print(f"error: {error}", file=sys.stderr)
            status = 1
            reactor.stop()
            return
        reactor.addSystemEventTrigger("before", "shutdown", port.stopListening)
        settle_memory()
        if service.worker is None:
            log.info("Rasa Core server is up and running on http://localhost:{port}", port=port.getHost().port)
        else:
            log.info("serving as process {pid}", pid=os.getpid())
        if not service.agent.is_ready:
            log.info("there is no model yet, which is no problem: until one arrives messages are dropped")
        if service.settings.log_level == "debug":
            log.debug("routes:\n{table}", table="\n".join(routes(service)))
        for channel in service.channels:
            channel.started(port.getHost().port)
        if service.settings.console and service.worker is None:
            _open_console(service, reactor)

    def started() -> None:
        stop_once(reactor)
        Deferred.fromCoroutine(begin()).addErrback(fail)

    def fail(failure: Any) -> None:
        nonlocal status
        log.failure("the server could not start", failure)
        status = 1
        reactor.stop()

    reactor.callWhenRunning(started)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopping)
    reactor.run()
    return status


async def _listen(service: Service, reactor: Any) -> Any:
    """Accept connections: on a port of our own, or with the other workers."""
    import socket

    from rasa_core_api.http.connections import keep_alive

    if service.worker is None:
        port = reactor.listenTCP(service.settings.port, service.site, backlog=BACKLOG)
    else:
        await service.may_listen()
        from rasa_core_api.accepting import Counts, FairPort

        worker, site = service.worker, service.site
        port = reactor.adoptStreamPort(worker.listens, socket.AF_INET, site)
        os.close(worker.listens)
        FairPort(port, reactor, Counts(worker.shared, worker.number, worker.of), site.crowd.__len__)
    keep_alive(port.socket)
    if service.worker is not None:
        service.listening()
    return port


def routes(service: Service) -> Iterator[str]:
    """The paths that are served, a line each."""
    if service.settings.enable_api:
        for rule in service.server.app.url_map.iter_rules():
            yield f"{', '.join(sorted(rule.methods or ())):20} {rule.rule}"
    for channel in service.channels:
        yield f"{channel.name():20} /webhooks/{channel.url_prefix()}/"


def _open_console(service: Service, reactor: Any) -> None:
    """The console is the one channel that wants more than HTTP."""
    names = [channel.name() for channel in service.channels]
    if "cmdline" in names:
        from rasa_core_api.channels.console import CmdlineInput

        channel = service.channels[names.index("cmdline")]
        if isinstance(channel, CmdlineInput):
            channel.open_terminal(reactor, reactor.stop)


def build_from_environment(environ: Mapping[str, str]) -> Root:
    """What `twistd web --class` serves: built now, opened once the reactor runs (twistd forks in between).

    Raises `InvalidConfiguration` and `UnsupportedModel`.
    """
    prepare_process()
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred
    from twisted.logger import Logger

    from rasa_core_api.logs import also_log_to_file
    from rasa_core_api.service import build_service

    log = Logger("rasa_core_api.run")
    settings = settings_from_environment(environ)
    if settings.workers > 1:
        raise InvalidConfiguration(f"{PREFIX}WORKERS: twistd serves in one process; use `run --workers`")
    keep_time(reactor, shows_dates=True)  # in the access log of twistd
    try:
        if settings.log_file is not None:
            also_log_to_file(settings.log_level, settings.log_file)  # now: a daemon has nobody to tell that it cannot
        with ended_by("SIGTERM", "SIGHUP"):
            service = build_service(settings, reactor, environ)
    except InvalidConfiguration as error:
        raise InvalidConfiguration(by_variable(str(error)), **error.details) from error

    def started() -> None:
        stop_once(reactor)
        settle_memory()
        Deferred.fromCoroutine(service.start()).addCallbacks(lambda _: service.root.release(), failed)

    def failed(failure: Failure) -> None:
        if failure.check(RasaCoreError):
            log.error("the server could not start: {reason}", reason=failure.getErrorMessage())
        else:
            log.failure("the server could not start", failure)
        atexit.register(_end_with_1)
        reactor.stop()

    service.root.hold()  # twistd listens before the store is open
    reactor.callWhenRunning(started)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopping)
    return service.root


def _end_with_1() -> None:
    """twistd ends with 0 whenever its reactor was stopped; who watches the process has to see that it failed."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def server_main(argv: Sequence[str] | None = None) -> int:
    """The deprecated command `python -m rasa_core_api.server`: `run` with the API and without a console."""
    parser = run_parser("python -m rasa_core_api.server")
    parser.description = "Deprecated: use `python -m rasa_core_api.run --enable_api`."
    arguments = parser.parse_args(argv)
    arguments.enable_api = True
    print(
        "warning: `python -m rasa_core_api.server` is deprecated, use `python -m rasa_core_api.run --enable_api`",
        file=sys.stderr,
    )
    return serve(settings_of(arguments, console=False), os.environ)


if __name__ == "__main__":
    sys.exit(main())
