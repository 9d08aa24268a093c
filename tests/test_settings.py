"""Tests of the server's flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.settings import RunSettings, by_variable, run_parser, settings_from_environment, settings_of


def parse(line: str) -> RunSettings:
    return settings_of(run_parser().parse_args(line.split()))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--enable_api -d models/dialogue -u models/nlu/current -o out.log",
         {"enable_api": True, "core": Path("models/dialogue"), "nlu": "models/nlu/current", "log_file": "out.log"}),
        ("--enable_api --auth_token thisismysecret -d m", {"auth_token": "thisismysecret"}),
        ("--enable_api --jwt_secret thisismysecret --jwt_method RS256 -d m",
         {"jwt_secret": "thisismysecret", "jwt_method": "RS256"}),
        ("--core=m --port 80 -c my.module.Channel", {"port": 80, "connector": "my.module.Channel"}),
        ("-d m --cors a b", {"cors": ("a", "b")}),
        ("-d m --cors", {"cors": ()}),
        ("-d m", {"log_file": "rasa_core.log", "port": 5005, "enable_api": False, "log_level": "info"}),
        ("-d m --enab --cred c.yml", {"enable_api": True, "credentials": Path("c.yml")}),
        ("-d m -v --debug --quiet", {"log_level": "warn"}),
        ("-d m --quiet -vv", {"log_level": "debug"}),
        ("-d m --max_body_mb 0.5", {"max_body": 512 * 1024}),
        ("-d m --trusted_modules a,b.c", {"trusted_modules": ("a", "b.c")}),
    ],
)  # fmt: skip
def test_command_lines(line: str, expected: dict[str, Any]) -> None:
    """The command lines of all releases mean what they meant."""
    settings = parse(line)
    assert {name: getattr(settings, name) for name in expected} == expected


def test_no_log_file() -> None:
    """An empty name switches the log file off."""
    assert settings_of(run_parser().parse_args(["-d", "m", "-o", ""])).log_file is None


@pytest.mark.parametrize(
    "line",
    [
        "",
        "-d m -p 70000",
        "-d m -p x",
        "-d m --colour",
        "-d m --max_body_mb 0",
        "-d m --compatibility_version new",
        "-d m --compatibility_version 2.0",
        "-d m --compatibility_version 0.7.9",
        "-d m --compatibility_version 0.15",
    ],
)
def test_usage_errors(line: str) -> None:
    """A wrong command line ends with status 2."""
    with pytest.raises(SystemExit) as ended:
        parse(line)
    assert ended.value.code == 2


@pytest.mark.parametrize("flag", ["--auth_token", "--jwt_secret"])
def test_empty_secrets_are_refused(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A secret that is empty would leave the API open: the server does not start."""
    with pytest.raises(SystemExit):
        run_parser().parse_args(["-d", "m", flag, ""])
    assert "open to everybody" in capsys.readouterr().err
    with pytest.raises(InvalidConfiguration, match="open to everybody"):
        settings_from_environment({"RASA_CORE_API_CORE": "m", f"RASA_CORE_API_{flag[2:].upper()}": ""})


def test_environment() -> None:
    """Each flag has a variable; there is no log file unless one is named, and never a console."""
    settings = settings_from_environment(
        {
            "RASA_CORE_API_CORE": "models/dialogue",
            "RASA_CORE_API_ENABLE_API": "true",
            "RASA_CORE_API_CHANNEL_AUTH": "False",
            "RASA_CORE_API_CORS": "http://a http://b",
            "RASA_CORE_API_AUTH_TOKEN": "-x y",
            "RASA_CORE_API_DEBUG": "true",
            "PATH": "/bin",
        }
    )
    assert settings.core == Path("models/dialogue")
    assert settings.enable_api and not settings.channel_auth and not settings.console
    assert settings.cors == ("http://a", "http://b")
    assert settings.auth_token == "-x y"
    assert settings.log_file is None
    assert settings.log_level == "debug"


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({}, "RASA_CORE_API_CORE: the dialogue model is needed"),
        ({"RASA_CORE_API_ENABLE_API": "true"}, "RASA_CORE_API_CORE: "),
        ({"RASA_CORE_API_CORE": "m", "RASA_CORE_API_COLOUR": "red"}, "RASA_CORE_API_COLOUR"),
        ({"RASA_CORE_API_CORE": "m", "RASA_CORE_API_ENABLE_API": "yes"}, "RASA_CORE_API_ENABLE_API: true or false"),
        ({"RASA_CORE_API_CORE": "m", "RASA_CORE_API_MAX_CONNECTIONS": "5"}, "RASA_CORE_API_MAX_CONNECTIONS: twistd"),
        ({"RASA_CORE_API_CORE": "m", "RASA_CORE_API_MAX_BODY_MB": "many"}, "RASA_CORE_API_MAX_BODY_MB: "),
    ],
)
def test_wrong_environment(variables: dict[str, str], reason: str) -> None:
    """A variable that means nothing is refused by name."""
    with pytest.raises(InvalidConfiguration, match=reason):
        settings_from_environment(variables)


def test_secrets_are_not_shown() -> None:
    """Settings can be logged without giving secrets away."""
    assert "hidden" not in repr(parse("-d m --auth_token hidden --jwt_secret hidden"))


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("MAX_BODY_MB", "x", "more than 0 and at most 4096 MB are expected"),
        ("AUTH_TOKEN", " ", "it is empty, and the API would be open to everybody"),
        ("COMPATIBILITY_VERSION", "2", "'2' is not a version such as 0.11.12"),
    ],
)
def test_a_bad_value_in_the_environment_names_its_variable(name: str, value: str, reason: str) -> None:
    with pytest.raises(InvalidConfiguration) as refused:
        settings_from_environment({"RASA_CORE_API_CORE": "m", f"RASA_CORE_API_{name}": value})
    assert str(refused.value) == f"RASA_CORE_API_{name}: {reason}"


def test_other_reasons_by_the_variable() -> None:
    """What only turns out behind the reading of settings is told by the variable too; files have their own names."""
    assert by_variable("jwt_secret: key.pem: no key: none") == "RASA_CORE_API_JWT_SECRET: key.pem: no key: none"
    for reason in ("endpoints.yml: nlg: a mapping", "models: there is no such directory", "no reason", ""):
        assert by_variable(reason) == reason
