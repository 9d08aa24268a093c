"""`python -m rasa_core_api.conversations`: list, export, import, delete, anonymise and migrate stored
conversations."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred

from rasa_core_api.copying import Report
from rasa_core_api.exceptions import RasaCoreError
from rasa_core_api.stored_conversations import run

#: What to do after an interruption.
_ADVICE = {
    "export": "; what was written is only a part",
    "import": "; with --existing skip it goes on where it stopped",
    "migrate": "; with --existing skip it goes on where it stopped",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when all went well, 1 when some conversations were left out, 2 for wrong settings, 130 after SIGINT."""
    options = _parser().parse_args(arguments)
    if options.command == "migrate" and not options.historical and options.source == options.endpoints:
        print("--from and --endpoints name the same file", file=sys.stderr)
        return 2
    from twisted.internet import reactor  # the command line chooses the reactor, not who imports this

    codes: list[int] = []
    reports: list[Report] = []

    async def work() -> None:
        try:
            code = await run(options, reactor, os.environ, sys.stdin, sys.stdout, sys.stderr, reports.append)
            sys.stdout.flush()
            codes.append(code)
        except RasaCoreError as error:
            print(error, file=sys.stderr)
            codes.append(2)
        except BrokenPipeError:  # whoever read has seen enough
            _drop_output()
            codes.append(1)
        except OSError as error:
            output = vars(options).get("output", "-")
            name = error.filename or (output if output != "-" else "standard output")
            print(f"{name}: {error.strerror}", file=sys.stderr)
            _drop_output()
            codes.append(2)
        finally:
            reactor.stop()

    def failed(failure: Any) -> None:
        failure.printTraceback(file=sys.stderr)
        codes.append(1)

    def begin() -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, stop)
        Deferred.fromCoroutine(work()).addErrback(failed)

    def stop(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one does not wait for a line of standard input
        ended.append(number)
        any_reactor.callFromThread(any_reactor.stop)

    ended: list[int] = []
    any_reactor: Any = reactor
    reactor.callWhenRunning(begin)
    reactor.run()
    if codes:
        return codes[0]
    for report in reports:
        report.interrupted(_ADVICE.get(options.command, ""))
    if not reports:
        print("interrupted", file=sys.stderr)
    return 128 + ended[0]


def _drop_output() -> None:
    """What is left of the output goes nowhere: it would fail once more at the end of the program."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rasa_core_api.conversations",
        description="List, export, import, delete, anonymise and migrate stored conversations.",
        epilog="example: python -m rasa_core_api.conversations export --endpoints endpoints.yml -o conversations.jsonl",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, text: str, rest: str = "") -> argparse.ArgumentParser:
        example = f"python -m rasa_core_api.conversations {name} --endpoints endpoints.yml{rest}"
        found = commands.add_parser(name, help=text, description=text, epilog=f"example: {example}")
        found.add_argument("--endpoints", required=True, help="endpoint file whose tracker_store is meant")
        found.add_argument(
            "--trusted_modules", default="", help="modules from which a store class may come, separated by commas"
        )
        return found

    listing = command("list", "print sender ids in the order of creation, one a line", " --prefix web-")
    exporting = command("export", "write conversations as lines of JSON", " -o conversations.jsonl")
    exporting.add_argument("sender_id", nargs="*", help="conversations to export (default: all)")
    exporting.add_argument("-o", "--output", default="-", help="file to write, created anew (default: standard output)")
    for one in (listing, exporting):
        one.add_argument("--prefix", default="", help="only ids that begin so")
    importing = command(
        "import", "store conversations from lines of JSON, as export wrote them", " -i conversations.jsonl"
    )
    importing.add_argument("-i", "--input", default="-", help="file to read (default: standard input)")
    deleting = command("delete", "delete conversations and all that is kept of them", " --older-than 90 --dry-run")
    masking = command(
        "anonymise",
        "take texts and values out of conversations, such that predictions stay the same",
        " -d models/dialogue --older-than 30",
    )
    masking.add_argument("-d", "--core", required=True, metavar="MODEL",
                         help="the dialogue model, whose domain tells which values are features")  # fmt: skip
    for one in (deleting, masking):
        one.add_argument("sender_id", nargs="*", help="conversations; without any, --older-than or --prefix chooses")
        one.add_argument("--older-than", type=float, metavar="DAYS", help="those whose last event is older")
        one.add_argument("--prefix", default="", help="only ids that begin so")
        one.add_argument("--dry-run", action="store_true", help="print which ones, and leave them as they are")
    migrating = command("migrate", "copy all conversations of another store into this one", " --from old_endpoints.yml")
    migrating.add_argument("--from", dest="source", required=True, help="endpoint file whose tracker_store is read")
    migrating.add_argument(
        "--historical", action="store_true", help="the other store is a Redis or MongoDB that Rasa Core wrote"
    )
    for one in (importing, migrating):
        one.add_argument(
            "--existing",
            choices=("fail", "skip", "replace"),
            default="fail",
            help="what to do with a conversation that is there already (default: leave it and report it)",
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
