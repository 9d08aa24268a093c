"""The flags of the server, from a command line or from the environment."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import field, fields, frozen

from rasa_core_api.constants import DEFAULT_PORT
from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.messages import KEEP_ANSWERS
from rasa_core_api.releases import RELEASES, release_of
from rasa_core_api.version import DEFAULT_COMPATIBILITY_VERSION

#: What the names of environment variables begin with.
PREFIX = "RASA_CORE_API_"

#: Variables with the prefix that are no flags.
_OTHER_VARIABLES = frozenset({"CONFORMANCE", "OWNER", "PREDECESSOR", "WORKER"})

#: Messages that may wait in one conversation, and requests to conversations under way or waiting in one process.
MAX_WAITING, MAX_TURNS = 100, 10_000
#: Open connections of one process; half of the descriptors are left to calls.
MAX_CONNECTIONS = 20_000

DEFAULT_LOG_FILE = "rasa_core.log"

#: What argparse says of a flag's value: the flag's long name, and what is wrong.
_FLAG_ERROR = re.compile(r"argument (?:-\w+/)?--(\w+): (.*)", re.DOTALL)


@frozen(kw_only=True)
class RunSettings:
    """What an operator chose; one field a flag."""

    core: Path
    nlu: str | None = None
    port: int = DEFAULT_PORT
    auth_token: str | None = field(default=None, repr=False)
    cors: tuple[str, ...] = ()
    log_file: str | None = DEFAULT_LOG_FILE
    credentials: Path | None = None
    endpoints: Path | None = None
    connector: str | None = None
    enable_api: bool = False
    jwt_secret: str | None = field(default=None, repr=False)
    jwt_method: str = "HS256"
    log_level: str = "info"
    compatibility_version: str = DEFAULT_COMPATIBILITY_VERSION
    max_body: int = 32 << 20  # bytes
    channel_auth: bool = False
    failure_template: str | None = None
    trusted_modules: tuple[str, ...] = ()
    keep_answers: float = KEEP_ANSWERS  # seconds
    workers: int = 1
    max_waiting: int = MAX_WAITING  # messages of one conversation
    max_turns: int = MAX_TURNS
    max_connections: int = MAX_CONNECTIONS
    console: bool = True  # the console may be started where no channel is named


def add_logging_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that every command has; the last one on the line counts."""
    group = parser.add_argument_group("logging")
    for flags, level, text in (
        (("-v", "--verbose"), "info", "log what is going on (the default)"),
        (("-vv", "--debug"), "debug", "log everything; only here message texts and slot values appear"),
        (("--quiet",), "warn", "log warnings and errors only"),
    ):
        group.add_argument(*flags, dest="log_level", action="store_const", const=level, default="info", help=text)


def run_parser(program: str = "python -m rasa_core_api.run") -> argparse.ArgumentParser:
    """The flags of `run`, those of all historical releases and ours."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Serve a bot: its channels, and with --enable_api the HTTP API.",
        epilog="example: python -m rasa_core_api.run --enable_api -d models/dialogue -u models/nlu/current -o out.log",
    )
    bot = parser.add_argument_group("the bot")
    bot.add_argument("-d", "--core", required=True, metavar="MODEL",
                     help="dialogue model: a directory, or a zip or tar.gz of one. Not read where the endpoints file "
                     "names a model server")  # fmt: skip
    bot.add_argument("-u", "--nlu", metavar="MODEL",
                     help="NLU model: a directory or an archive of one; project/model where the endpoints file names "
                     "an NLU server. Without it only messages such as /greet are understood")  # fmt: skip
    bot.add_argument(
        "--endpoints",
        metavar="FILE",
        help="YAML file that names other servers (action_endpoint, nlg, nlu), what models are pulled from (model or "
        "models, nlu_model), where conversations are kept (tracker_store) and events are published (event_broker)",
    )
    bot.add_argument("--failure_template", metavar="NAME",
                     help="template that is said when an action fails (default: nothing is said)")  # fmt: skip
    bot.add_argument("--trusted_modules", metavar="A,B", default="",
                     help="modules whose classes may be named in models and files (default: none)")  # fmt: skip
    network = parser.add_argument_group("the network")
    network.add_argument("-p", "--port", type=_port, default=DEFAULT_PORT, help="port to listen on (%(default)s)")
    network.add_argument("-c", "--connector", metavar="NAME",
                         help="the only channel: rest, callback, cmdline, or a class as module.Class")  # fmt: skip
    network.add_argument("--credentials", metavar="FILE",
                         help="YAML file with the settings of the channels; without -c each channel in it is opened. "
                         "With neither, a console is started beside the rest channel")  # fmt: skip
    network.add_argument("--enable_api", action="store_true", help="serve the HTTP API beside the channels")
    network.add_argument("--cors", nargs="*", default=[], metavar="ORIGIN",
                         help="origins whose pages may call the API; * stands for all")  # fmt: skip
    network.add_argument("--max_body_mb", type=_megabytes, default=32, metavar="MB",
                         help="largest request body that is read (%(default)s)")  # fmt: skip
    network.add_argument("--compatibility_version", type=_version, default=DEFAULT_COMPATIBILITY_VERSION,
                         metavar="VERSION", help="release whose answers clients expect (%(default)s)")  # fmt: skip
    network.add_argument("--workers", type=_whole(1, 64), default=1, metavar="N",
                         help="processes that serve together; more than one need a store that they can share "
                         "(%(default)s)")  # fmt: skip
    network.add_argument("--max_waiting", type=_whole(1, 1_000_000), default=MAX_WAITING, metavar="N",
                         help="messages that may wait in one conversation; the next is answered with 429 "
                         "(%(default)s)")  # fmt: skip
    network.add_argument("--max_turns", type=_whole(1, 10_000_000), default=MAX_TURNS, metavar="N",
                         help="turns that may be under way or wait in one process; the next is answered with 503 "
                         "(%(default)s)")  # fmt: skip
    network.add_argument("--max_connections", type=_whole(1, 1_000_000), default=MAX_CONNECTIONS, metavar="N",
                         help="connections that one process keeps open, as far as half of its descriptors reach "
                         "(%(default)s)")  # fmt: skip
    network.add_argument("--keep_answers", type=_seconds, default=KEEP_ANSWERS, metavar="SECONDS",
                         help="how long a request that comes again is known by its Idempotency-Key or message_id and "
                         "gets the answer of the first one (%(default)g)")  # fmt: skip
    rights = parser.add_argument_group("who may")
    rights.add_argument("--auth_token", type=_secret, metavar="TOKEN",
                        help="token that API requests carry as ?token=TOKEN")  # fmt: skip
    rights.add_argument("--jwt_secret", type=_secret, metavar="KEY",
                        help="JSON web tokens: the shared secret of an HS method; for others the public key in "
                        "PEM form, or @file")  # fmt: skip
    rights.add_argument("--jwt_method", default="HS256", metavar="ALGORITHM",
                        help="the only accepted signature algorithm (%(default)s)")  # fmt: skip
    rights.add_argument("--channel_auth", action="store_true",
                        help="channels ask for the same token or JSON web token as the API")  # fmt: skip
    parser.add_argument("-o", "--log_file", default=DEFAULT_LOG_FILE, metavar="FILE",
                        help="file that the log is appended to (%(default)s); '' for none")  # fmt: skip
    add_logging_flags(parser)
    return parser


def _secret(text: str) -> str:
    if not text.strip():  # as when a variable of the shell is not set
        raise argparse.ArgumentTypeError("it is empty, and the API would be open to everybody")
    return text


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:9]) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port; there are 0 (any free one) to 65535")
    return int(text)


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text[:9]) <= most):
            raise argparse.ArgumentTypeError(f"a whole number from {least} to {most} is expected, not {text!r}")
        return int(text)

    return read


def _megabytes(text: str) -> float:
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size <= 4096:
        raise argparse.ArgumentTypeError("more than 0 and at most 4096 MB are expected")
    return size


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 366 * 86_400:
        raise argparse.ArgumentTypeError("more than 0 seconds and at most a year are expected")
    return seconds


def _version(text: str) -> str:
    try:
        release = release_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if text.split(".")[:2] != release.name.split("."):  # the rows of unknown releases are those of known ones
        raise argparse.ArgumentTypeError(f"{text!r} is no release from {RELEASES[0].name} to {RELEASES[-1].name}")
    return text


def settings_of(arguments: argparse.Namespace, console: bool = True) -> RunSettings:
    """The settings that parsed arguments mean."""
    return RunSettings(
        core=Path(arguments.core),
        nlu=arguments.nlu or None,
        port=arguments.port,
        auth_token=arguments.auth_token,
        cors=tuple(arguments.cors),
        log_file=arguments.log_file or None,
        credentials=Path(arguments.credentials) if arguments.credentials else None,
        endpoints=Path(arguments.endpoints) if arguments.endpoints else None,
        connector=arguments.connector,
        enable_api=arguments.enable_api,
        jwt_secret=arguments.jwt_secret,
        jwt_method=arguments.jwt_method,
        log_level=arguments.log_level,
        compatibility_version=arguments.compatibility_version,
        max_body=int(arguments.max_body_mb * (1 << 20)),
        channel_auth=arguments.channel_auth,
        failure_template=arguments.failure_template,
        keep_answers=arguments.keep_answers,
        workers=arguments.workers,
        max_waiting=arguments.max_waiting,
        max_turns=arguments.max_turns,
        max_connections=arguments.max_connections,
        trusted_modules=tuple(name.strip() for name in arguments.trusted_modules.split(",") if name.strip()),
        console=console,
    )


class _EnvironmentParser(argparse.ArgumentParser):
    """Reports an error instead of ending the process."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise InvalidConfiguration(message)


def settings_from_environment(environ: Mapping[str, str]) -> RunSettings:
    """The settings that the variables `RASA_CORE_API_<FLAG>` mean; there is no console and no log file by default.

    Flags without a value are `true` or `false`, several values are separated by blanks. Raises
    `InvalidConfiguration`, naming the variable.
    """
    parser = run_parser("rasa_core_api.server.RasaCoreResource")
    parser.__class__ = _EnvironmentParser
    flags = {
        option[2:].upper(): (option, action)
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--") and option not in ("--help", "--port")
    }
    arguments: list[str] = []
    for name, value in sorted(environ.items()):
        if not name.startswith(PREFIX) or name[len(PREFIX) :] in _OTHER_VARIABLES:
            continue
        if name == f"{PREFIX}PORT":
            raise InvalidConfiguration(f"{name}: who serves this resource chooses the port: twistd web --port tcp:5005")
        if name == f"{PREFIX}MAX_CONNECTIONS":
            raise InvalidConfiguration(f"{name}: twistd keeps its connections itself; use `run --max_connections`")
        flag = flags.get(name[len(PREFIX) :])
        if flag is None:
            raise InvalidConfiguration(f"{name}: there is no such setting; there are {', '.join(sorted(flags))}")
        arguments += _argument(name, value, *flag)
    if f"{PREFIX}CORE" not in environ:
        raise InvalidConfiguration(f"{PREFIX}CORE: the dialogue model is needed, a directory or an archive of one")
    if f"{PREFIX}LOG_FILE" not in environ:
        arguments.append("--log_file=")
    try:
        return settings_of(parser.parse_args(arguments), console=False)
    except InvalidConfiguration as error:
        flag_error = _FLAG_ERROR.fullmatch(str(error))
        where, reason = (flag_error[1].upper(), flag_error[2]) if flag_error else ("*", error)
        raise InvalidConfiguration(f"{PREFIX}{where}: {reason}") from None


def by_variable(reason: str) -> str:
    """What is wrong with a setting, such as `jwt_secret: ...`, by the name of its variable; anything else as it is."""
    name, found, rest = reason.partition(": ")
    return f"{PREFIX}{name.upper()}: {rest}" if found and name in {one.name for one in fields(RunSettings)} else reason


def _argument(name: str, value: str, option: str, action: argparse.Action) -> Sequence[str]:
    if action.nargs == 0:
        if value.lower() not in ("true", "false"):
            raise InvalidConfiguration(f"{name}: true or false is expected, not {value!r}")
        return [option] if value.lower() == "true" else []
    if action.nargs == "*":
        return [option, *value.split()]
    return [f"{option}={value}"]
