"""From names and credentials to channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from traceback import format_exc
from typing import Any

from twisted.logger import Logger

from rasa_core_api.channels.channel import InputChannel
from rasa_core_api.config import read_yaml_file
from rasa_core_api.constants import JSON
from rasa_core_api.endpoints import OutgoingHTTP
from rasa_core_api.exceptions import InvalidConfiguration

log = Logger()

#: Modules and classes of the channels that are built in.
_BUILT: Mapping[str, tuple[str, str]] = {
    "cmdline": ("console", "CmdlineInput"),
    "rest": ("rest", "RestInput"),
    "callback": ("callback", "CallbackInput"),
}
_NOT_BUILT = frozenset(
    {
        "botframework",
        "facebook",
        "mattermost",
        "rasa",
        "rocketchat",
        "slack",
        "socketio",
        "telegram",
        "twilio",
        "webexteams",
    }
)
#: Channels that have no settings.
_PLAIN = frozenset({"cmdline", "rest"})

#: Names of the channels that can be opened.
CHANNELS = tuple(_BUILT)

Sections = Mapping[str, "Mapping[str, JSON] | None"]


def open_channels(
    connector: str | None,
    credentials: Path | None,
    *,
    environ: Mapping[str, str],
    find_class: Callable[[str], type[Any]],
    http: OutgoingHTTP,
) -> list[InputChannel]:
    """The one channel `connector`, else those of the credentials file, else the console with its REST routes.

    `find_class` finds classes by module path where the operator trusts the module. Raises
    `InvalidConfiguration` with file, channel and reason.
    """
    sections: Sections = {} if credentials is None else read_credentials(credentials, environ)
    source = "" if credentials is None else f"{credentials}: "
    if connector is not None:
        names = [connector]
    elif credentials is not None:
        # the console brings the routes of the channel rest along
        names = [name for name in sections if name != "rest" or "cmdline" not in sections]
    else:
        names = ["cmdline"]
    channels: list[InputChannel] = []
    taken: dict[str, str] = {}
    for name in names:
        try:
            channel = _open(name, sections.get(name), find_class)
            _check_prefix(channel, name, taken)
        except InvalidConfiguration as error:
            raise InvalidConfiguration(f"{source}{error}", channel=name) from error
        channel.connect(http)
        channels.append(channel)
    return channels


def read_credentials(path: Path, environ: Mapping[str, str]) -> dict[str, Mapping[str, JSON] | None]:
    """The settings of each channel, None where a section is empty. Raises `InvalidConfiguration`."""
    content = read_yaml_file(path, environ)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InvalidConfiguration(f"{path}: a mapping of channels to their settings is expected", file=str(path))
    for name, section in content.items():
        if section is not None and not isinstance(section, dict):
            raise InvalidConfiguration(f"{path}: {name}: a mapping of settings is expected", file=str(path))
    return content


def channel_kind(name: str) -> str:
    """`built`, `missing` (the releases had it), `class` (a module path) or `unknown`."""
    if name in _BUILT:
        return "built"
    return "missing" if name in _NOT_BUILT else "class" if "." in name else "unknown"


def _open(name: str, settings: Mapping[str, JSON] | None, find_class: Callable[[str], type[Any]]) -> InputChannel:
    if name in _NOT_BUILT:
        raise InvalidConfiguration(
            f"the channel '{name}' is not built yet; there are {', '.join(_BUILT)}, and classes by module path"
        )
    built = _BUILT.get(name)
    if built is not None:
        module, attribute = built
        kind: type[InputChannel] = getattr(import_module(f"rasa_core_api.channels.{module}"), attribute)
        if name in _PLAIN and settings:
            log.warn("the channel {name} has no settings, ignored: {keys}", name=name, keys=", ".join(settings))
        return kind.from_credentials(settings)
    kind = _class_of(name, find_class)
    try:
        return kind.from_credentials(settings)
    except InvalidConfiguration:
        raise
    except Exception as error:
        log.debug("the channel {name} cannot be made:\n{trace}", name=name, trace=format_exc())
        raise InvalidConfiguration(
            f"the channel '{name}' cannot be made from its settings: {type(error).__name__}: {error}"
        ) from error


def _class_of(path: str, find_class: Callable[[str], type[Any]]) -> type[InputChannel]:
    reason = "it is neither a channel that is built in nor a module path"
    if "." in path:
        try:
            found = find_class(path)
        except InvalidConfiguration as error:
            reason = str(error)
        else:
            if issubclass(found, InputChannel):
                return found
            reason = "the class is no rasa_core_api.channels.InputChannel"
    raise InvalidConfiguration(
        f"Failed to find input channel class for '{path}'. Unknown input channel. Check your credentials "
        "configuration to make sure the mentioned channel is not misspelled. If you are creating your own channel, "
        f"make sure it is a proper name of a class in a module. ({reason})"
    )


def _check_prefix(channel: InputChannel, name: str, taken: dict[str, str]) -> None:
    prefix = channel.url_prefix().strip("/")
    if not prefix or not prefix.isascii() or any(part in ("", ".", "..") for part in prefix.split("/")):
        raise InvalidConfiguration(f"the channel '{name}' has no usable URL prefix: {channel.url_prefix()!r}")
    other = taken.setdefault(prefix, name)
    if other != name:
        raise InvalidConfiguration(f"the channels '{other}' and '{name}' have the same URL prefix '{prefix}'")
