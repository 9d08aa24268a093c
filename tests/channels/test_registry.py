"""Tests of opening channels by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from rasa_core_api.channels import InputChannel
from rasa_core_api.channels.callback import CallbackInput
from rasa_core_api.channels.registry import open_channels
from rasa_core_api.endpoints import OutgoingHTTP
from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.trusted import class_finder


class Mine(InputChannel):
    """A channel of somebody's own."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    @classmethod
    def from_credentials(cls, credentials: Any) -> Any:
        return cls(credentials)


class Rootless(Mine):
    """A channel without a path."""

    def url_prefix(self) -> str:
        return "/"


class Demanding(Mine):
    """A channel that cannot do without a setting."""

    def __init__(self, settings: Any) -> None:
        super().__init__(settings["password"])


PATH = f"{__name__}.Mine"


def opened(
    connector: str | None = None, credentials: Path | None = None, trusted: tuple[str, ...] = (__name__,)
) -> list[InputChannel]:
    return open_channels(
        connector,
        credentials,
        environ={"URL": "http://ours"},
        find_class=class_finder(trusted),
        http=OutgoingHTTP(Clock()),
    )


def names(channels: list[InputChannel]) -> list[str]:
    return [channel.name() for channel in channels]


@pytest.fixture
def file(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "credentials.yml"
        path.write_text(text)
        return path

    return write


def test_neither_connector_nor_credentials() -> None:
    """Without any choice the console is meant, whose routes are those of `rest`."""
    (channel,) = opened()
    assert (channel.name(), channel.url_prefix()) == ("cmdline", "rest")


def test_one_by_name(file: Any) -> None:
    """A connector is the only channel, with its section where there is one; others are not looked at."""
    path = file("rest:\ncallback: {url: '${URL}', token: x}\nfacebook: {verify: x}\n")
    assert names(opened("rest")) == ["rest"]
    (channel,) = opened("callback", path)
    assert isinstance(channel, CallbackInput)


def test_all_of_a_file(file: Any) -> None:
    """Each section is a channel; an empty file has none; the console brings `rest` along."""
    assert names(opened(None, file("callback: {url: 'http://x'}\nrest:\n"))) == ["callback", "rest"]
    assert opened(None, file("")) == []
    assert names(opened(None, file("rest:\ncmdline:\n"))) == ["cmdline"]


def test_by_module_path(file: Any) -> None:
    """A class of a trusted module gets its section, or None."""
    (channel,) = opened(PATH)
    assert isinstance(channel, Mine) and channel.settings is None and channel.http is not None
    (channel,) = opened(None, file(f"{PATH}: {{a: 1}}\n"))
    assert isinstance(channel, Mine) and channel.settings == {"a": 1}


@pytest.mark.parametrize(
    ("connector", "words"),
    [
        ("facebook", "the channel 'facebook' is not built yet; there are cmdline, rest, callback"),
        ("socketio", "not built yet"),
        ("foo", r"Failed to find input channel class for 'foo'\. Unknown input channel\. Check .* in a module\."),
        ("no.such.Channel", "Failed to find input channel class for 'no.such.Channel'"),
        (f"{__name__}.Nothing", "Failed to find input channel class .*Nothing"),
        ("pathlib.Path", "is no rasa_core_api.channels.InputChannel"),
        (f"{__name__}.Rootless", "no usable URL prefix"),
        (f"{__name__}.Demanding", r"'.*\.Demanding' cannot be made from its settings: TypeError: 'NoneType'"),
        ("..", r"Failed to find input channel class for .*is not the path of a class"),
        ("broken_module.Channel", "cannot import 'broken_module.Channel': ZeroDivisionError: division by zero"),
        ("callback", "To use the callback input channel, you need to pass a credentials file"),
    ],
)
def test_channels_that_cannot_be_opened(
    connector: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be opened is named, with the reason."""
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InvalidConfiguration, match=words):
        opened(connector, trusted=(__name__, "no", "pathlib", "broken_module", "."))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- rest\n", r"credentials\.yml: a mapping of channels"),
        ("rest: 1\n", r"credentials\.yml: rest: a mapping"),
        ("slack: {slack_token: x}\n", r"credentials\.yml: the channel 'slack' is not built yet"),
        ("callback:\n", r"credentials\.yml: To use the callback input channel"),
        ("callback: {url: x}\n", r"credentials\.yml: callback\.url: "),
        ("callback: {url: '${NOPE}'}\n", r"credentials\.yml, line 1: the environment variable NOPE is not set"),
        (f"{PATH}:\n{PATH}2:\n", "Failed to find input channel class"),
    ],
)
def test_bad_files(file: Any, text: str, words: str) -> None:
    """A file's error names the file and the channel."""
    with pytest.raises(InvalidConfiguration, match=words):
        opened(None, file(text))


def test_classes_of_files_need_trust(file: Any) -> None:
    """A class that only a file names is not imported unless its module is trusted."""
    with pytest.raises(InvalidConfiguration, match=r"credentials\.yml: Failed to find .*trusted"):
        opened(None, file(f"{PATH}:\n"), trusted=())


def test_the_same_path_twice(file: Any) -> None:
    """Two channels with one path are refused."""
    with pytest.raises(InvalidConfiguration, match="'callback' and .* have the same URL prefix 'callback'"):
        opened(None, file(f"callback: {{url: 'http://x'}}\n{__name__}.Twin:\n"))


class Twin(Mine):
    """Wants the path of another channel."""

    def url_prefix(self) -> str:
        return "callback"
