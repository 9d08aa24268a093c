"""Which channels are opened: by name, by class path, with their sections of the credentials file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rasa_core_api.channels.callback import CallbackInput
from rasa_core_api.channels.channel import InputChannel
from rasa_core_api.channels.rest import RestInput
from rasa_core_api.config import read_yaml_file
from rasa_core_api.constants import JSON
from rasa_core_api.endpoints import OutgoingHTTP
from rasa_core_api.exceptions import InvalidConfiguration, InvalidDomain
from rasa_core_api.slots import ClassFinder

#: The console talks through the rest channel.
BUILT: Mapping[str, type[InputChannel]] = {"rest": RestInput, "callback": CallbackInput, "cmdline": RestInput}

#: Chat platforms that the historical server knew and this build does not.
NOT_BUILT = frozenset(
    {"facebook", "slack", "telegram", "mattermost", "twilio", "rasa", "botframework", "rocketchat", "socketio",
     "webexteams"}
)  # fmt: skip


def open_channels(
    connector: str | None,
    credentials: Path | None,
    *,
    environ: Mapping[str, str],
    find_class: ClassFinder,
    http: OutgoingHTTP,
) -> list[InputChannel]:
    """The channel that was asked for, or all of the credentials file, or the rest channel.

    Raises `InvalidConfiguration`, naming the file and the channel.
    """
    sections = {} if credentials is None else read_credentials(credentials, environ)
    if connector is not None:
        wanted = [(connector, sections.get(connector))]
    elif credentials is not None:
        wanted = list(sections.items())
    else:
        wanted = [("rest", None)]
    channels: dict[str, InputChannel] = {}
    for name, section in wanted:
        try:
            channel = _open(name, section, find_class)
        except InvalidConfiguration as error:
            if credentials is None or name not in sections:
                raise
            raise InvalidConfiguration(f"{credentials}: {name}: {error}") from error
        if isinstance(channel, CallbackInput):
            channel.http = http
        prefix = channel.url_prefix()
        if prefix in channels:
            raise InvalidConfiguration(f"two channels want the path /webhooks/{prefix}/")
        channels[prefix] = channel
    return list(channels.values())


def read_credentials(path: Path, environ: Mapping[str, str]) -> dict[str, JSON]:
    """The sections of a credentials file. Raises `InvalidConfiguration`."""
    data = read_yaml_file(path, environ)
    if data is None:
        return {}
    if not isinstance(data, Mapping):
        raise InvalidConfiguration(f"{path}: a map from channels to their settings is expected")
    for name, section in data.items():
        if section is not None and not isinstance(section, Mapping):
            raise InvalidConfiguration(f"{path}: {name}: a map of settings is expected")
    return dict(data)


def _open(name: str, section: Mapping[str, JSON] | None, find_class: ClassFinder) -> InputChannel:
    if name in NOT_BUILT:
        raise InvalidConfiguration(f"the channel '{name}' is not built yet; built are {', '.join(sorted(BUILT))}")
    kind: Any = BUILT.get(name)
    if kind is None:
        kind = _custom(name, find_class)
    channel: InputChannel = kind.from_credentials(section)
    return channel


def _custom(path: str, find_class: ClassFinder) -> Any:
    problem = (
        f"Failed to find input channel class for '{path}'. Unknown input channel. Check your credentials "
        "configuration to make sure the mentioned channel is not misspelled. If you are creating your own channel, "
        "make sure it is a proper name of a class in a module."
    )
    if "." not in path:
        raise InvalidConfiguration(problem)
    try:
        return find_class(path)
    except InvalidDomain as error:
        raise InvalidConfiguration(f"{problem} ({error})") from error
