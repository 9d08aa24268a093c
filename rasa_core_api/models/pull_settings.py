"""What the entries `model` and `nlu_model` of an endpoints file say, as checked values."""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import re
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

from attrs import evolve, frozen

from rasa_core_api.constants import JSON
from rasa_core_api.endpoints import EndpointConfig
from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.models.download import Target
from rasa_core_api.models.installation import Checks

DEFAULT_INTERVAL = 100.0
DEFAULT_MB = 512
#: The longest download (seconds) is at least this, and ten times the longest silence.
_TOTAL = 300.0

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----(.*?)-----END PUBLIC KEY-----", re.S)
#: What an Ed25519 public key in DER begins with (RFC 8410, section 4).
_DER = bytes.fromhex("302a300506032b6570032100")


@frozen
class CanarySettings:
    """A second model that serves a share (0 to 1) of the conversations until one of its rates passes a limit."""

    target: Target
    share: float
    max_error_rate: float = 0.05
    max_disagreement: float = 0.5
    min_turns: int = 50  # turns before a rate counts


@frozen(kw_only=True)
class PullSettings:
    """Where a model is pulled from and under which conditions. `interval` None: until the first answer.

    `identity` tells entries of the endpoint file apart that ask for different models; a new token changes nothing.
    """

    target: Target
    identity: str
    interval: float | None
    checks: Checks
    keep: Path | None
    shadow: Target | None = None
    canary: CanarySettings | None = None

    @classmethod
    def from_endpoint(cls, endpoint: EndpointConfig, environ: Mapping[str, str]) -> PullSettings:
        """Raises `InvalidConfiguration` naming the key."""
        options, where = endpoint.options, endpoint.where
        size = int(_number(options.get("max_mb", DEFAULT_MB), f"{where}.max_mb", 0.001, 100_000) * 1024 * 1024)
        target = Target(
            endpoint.target(), _headers(endpoint), endpoint.timeout, max(_TOTAL, 10 * endpoint.timeout), size
        )
        checks = Checks(
            _sha256(options.get("sha256"), f"{where}.sha256"),
            _public_key(options.get("public_key"), f"{where}.public_key"),
        )
        asked = evolve(endpoint, token=None).target().encode("utf-8")
        identity = hashlib.sha256(asked).hexdigest()[:16]
        return cls(
            target=target,
            identity=identity,
            interval=_interval(options.get("wait_time_between_pulls", DEFAULT_INTERVAL), where),
            checks=checks,
            keep=_keep(options.get("keep", True), f"{where}.keep", identity, environ),
            shadow=_other(options.get("shadow"), f"{where}.shadow", target),
            canary=_canary(options.get("canary"), f"{where}.canary", target),
        )


def _bad(where: str, reason: str) -> InvalidConfiguration:
    return InvalidConfiguration(f"{where}: {reason}", key=where)


def _headers(endpoint: EndpointConfig) -> dict[str, str]:
    headers = dict(endpoint.headers)
    if endpoint.basic_auth is not None:
        credentials = b64encode(":".join(endpoint.basic_auth).encode("utf-8")).decode("ascii")
        headers.setdefault("Authorization", f"Basic {credentials}")
    return headers


def _number(value: JSON, where: str, least: float, most: float) -> float:
    number = value if type(value) in (int, float) else math.nan
    if not least <= number <= most:
        raise _bad(where, f"a number from {least:g} to {most:g} is expected")
    return float(number)


def _interval(value: JSON, where: str) -> float | None:
    """Seconds; a text of digits counts as a number, as it did."""
    if value is None:
        return None
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    return _number(value, f"{where}.wait_time_between_pulls", 0, 31_536_000) or None


def _sha256(value: JSON, where: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise _bad(where, "64 hexadecimal digits are expected (put them in quotes)")
    return value.lower()


def _public_key(value: JSON, where: str) -> str | None:
    """The key in a file: PEM, or its 32 bytes in Base64 or hexadecimal digits."""
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise _bad(where, "the name of a file is expected")
    try:
        with Path(value).open("rb") as file:
            content = file.read(16 * 1024).strip()
    except OSError as error:
        raise _bad(where, f"{value} cannot be read: {error.strerror}") from None
    raw = _key_bytes(content)
    if raw is None:
        raise _bad(where, f"{value} holds no Ed25519 public key (PEM, or 32 bytes in Base64 or hexadecimal digits)")
    return b64encode(raw).decode("ascii")


def _key_bytes(content: bytes) -> bytes | None:
    pem = _PEM.search(content)
    try:
        if pem is not None:
            der = base64.b64decode(b"".join(pem[1].split()), validate=True)
            return der[len(_DER) :] if der.startswith(_DER) and len(der) == len(_DER) + 32 else None
        if len(content) == 64:
            return bytes.fromhex(content.decode("ascii"))
        raw = base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == 32 else None


def _keep(value: JSON, where: str, identity: str, environ: Mapping[str, str]) -> Path | None:
    """The directory of the last good model: named, or one in the user's cache for this entry."""
    if value is False:
        return None
    if isinstance(value, str) and value:
        return Path(value)
    if value is not True:
        raise _bad(where, "a directory is expected, or `false`")
    cache = environ.get("XDG_CACHE_HOME") or (f"{environ['HOME']}/.cache" if environ.get("HOME") else None)
    if cache is None:
        return None
    return Path(cache) / "rasa_core_api" / "models" / identity


def _other(value: JSON, where: str, target: Target) -> Target | None:
    """Another model's URL. Headers, with the secrets in them, go along to the same host only."""
    if value is None:
        return None
    endpoint = EndpointConfig.from_json({"url": value}, where)
    headers = _headers(endpoint)
    same = endpoint.url.split("/")[:3] == target.url.split("/")[:3]
    return evolve(target, url=endpoint.target(), headers={**target.headers, **headers} if same else headers)


def _canary(value: JSON, where: str, target: Target) -> CanarySettings | None:
    if value is None:
        return None
    known = ("url", "share", "max_error_rate", "max_disagreement", "min_turns")
    if not isinstance(value, Mapping):
        raise _bad(where, "a mapping with 'url' and 'share' is expected")
    for key in value:
        if key not in known:
            raise _bad(f"{where}.{key}", f"there is no such key; known are {', '.join(known)}")
    other = _other(value.get("url"), f"{where}.url", target)
    if other is None:
        raise _bad(f"{where}.url", "this key is missing")
    return CanarySettings(
        other,
        _number(value.get("share"), f"{where}.share", 0, 1),
        _number(value.get("max_error_rate", 0.05), f"{where}.max_error_rate", 0, 1),
        _number(value.get("max_disagreement", 0.5), f"{where}.max_disagreement", 0, 1),
        int(_number(value.get("min_turns", 50), f"{where}.min_turns", 1, 1_000_000)),
    )
