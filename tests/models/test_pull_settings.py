from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rasa_core_api.endpoints import EndpointConfig
from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.models.pull_settings import PullSettings

URL = "http://models:8000/core@latest"


def settings(environ: dict[str, str] | None = None, **keys: Any) -> PullSettings:
    endpoint = EndpointConfig.from_json({"url": URL, **keys}, "endpoints.yml: model")
    return PullSettings.from_endpoint(endpoint, {} if environ is None else environ)


def test_defaults() -> None:
    """A bare URL is asked every 100 s, and 512 MB are taken."""
    pulls = settings()
    assert pulls.interval == 100.0 and pulls.target.url == URL and pulls.target.size == 512 << 20
    assert pulls.checks.sha256 is None and pulls.shadow is None and pulls.canary is None and pulls.keep is None


@pytest.mark.parametrize(
    ("value", "interval"), [(None, None), (0, None), (10, 10.0), ("20", 20.0), (0.5, 0.5), ("0", None)]
)
def test_interval(value: Any, interval: float | None) -> None:
    """Numbers and texts of digits are seconds; null and 0 pull once."""
    assert settings(wait_time_between_pulls=value).interval == interval


def test_secrets() -> None:
    """Token, parameters and credentials go along, and are not shown."""
    pulls = settings(token="t1", params={"a": "b"}, basic_auth={"username": "u", "password": "p"}, headers={"X-A": "1"})
    assert pulls.target.url == f"{URL}?a=b&token=t1"
    assert pulls.target.headers == {"X-A": "1", "Authorization": "Basic dTpw"}
    assert pulls.target.shown == URL and "t1" not in pulls.target.shown


def test_keep() -> None:
    """The last good model is kept in the user's cache, one directory a URL, or where the operator says."""
    assert settings(keep="models").keep == Path("models")
    assert settings({"HOME": "/home/bot"}, keep=False).keep is None
    home = settings({"HOME": "/home/bot"}).keep
    assert home is not None and home.parent == Path("/home/bot/.cache/rasa_core_api/models")
    assert settings({"HOME": "/home/bot"}, token="other").keep == home
    xdg = settings({"HOME": "/home/bot", "XDG_CACHE_HOME": "/cache"}).keep
    assert xdg == Path("/cache/rasa_core_api/models") / home.name


def test_public_key(tmp_path: Path) -> None:
    """A key is read from PEM, Base64 or hexadecimal digits."""
    key = Ed25519PrivateKey.generate().public_key()
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for content in (pem, base64.b64encode(raw) + b"\n", raw.hex().encode()):
        (tmp_path / "key").write_bytes(content)
        assert settings(public_key=str(tmp_path / "key")).checks.public_key == base64.b64encode(raw).decode()


def test_shadow_and_canary() -> None:
    """Headers go along to other models of the same server, and to no other server."""
    pulls = settings(
        headers={"X-A": "1"},
        shadow="http://models:8000/core@next",
        canary={"url": "http://other/core", "share": 0.1, "min_turns": 5},
    )
    assert pulls.shadow is not None and pulls.shadow.headers == {"X-A": "1"}
    assert pulls.canary is not None and pulls.canary.target.headers == {} and pulls.canary.share == 0.1


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"wait_time_between_pulls": "soon"}, "model.wait_time_between_pulls"),
        ({"wait_time_between_pulls": -1}, "model.wait_time_between_pulls"),
        ({"wait_time_between_pulls": True}, "model.wait_time_between_pulls"),
        ({"sha256": "abc"}, "model.sha256: 64"),
        ({"sha256": 12}, "model.sha256"),
        ({"public_key": "/nowhere/key"}, "model.public_key: /nowhere/key cannot be read"),
        ({"public_key": "/dev/null"}, "holds no Ed25519"),
        ({"public_key": ["x"]}, "name of a file"),
        ({"max_mb": 0}, "model.max_mb"),
        ({"max_mb": "big"}, "model.max_mb"),
        ({"keep": 3}, "model.keep"),
        ({"shadow": "ftp://x"}, "model.shadow"),
        ({"canary": "http://x"}, "model.canary: a mapping"),
        ({"canary": {"share": 0.5}}, "model.canary.url"),
        ({"canary": {"url": URL, "share": 2}}, "model.canary.share"),
        ({"canary": {"url": URL}}, "model.canary.share"),
        ({"canary": {"url": URL, "share": 0.1, "shares": 1}}, "model.canary.shares"),
    ],
)
def test_bad(keys: dict[str, Any], reason: str) -> None:
    """A wrong value is named by its key path."""
    with pytest.raises(InvalidConfiguration, match=reason) as caught:
        settings(**keys)
    assert str(caught.value).startswith("endpoints.yml: model.")
