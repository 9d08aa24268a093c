"""What an operator decides about the HTTP side, and what routes demand."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from attrs import field, frozen

from rasa_core_api.constants import JSON
from rasa_core_api.http.auth import TokenReader
from rasa_core_api.http.reading import DEFAULT_LIMIT
from rasa_core_api.version import DEFAULT_COMPATIBILITY_VERSION


@frozen(kw_only=True)
class ServerSettings:
    """What an operator decides about the HTTP side. `max_body` is in bytes."""

    enable_api: bool = True
    auth_token: str | None = field(default=None, repr=False)
    tokens: TokenReader | None = None
    cors: tuple[str, ...] = ()
    compatibility_version: str = DEFAULT_COMPATIBILITY_VERSION
    max_body: int = DEFAULT_LIMIT
    channel_auth: bool = False
    access_log: bool = False
    process: Mapping[str, JSON] = field(factory=dict)  # members of `/status`


class Needs(Enum):
    """What must be loaded before a route's handler runs."""

    NOTHING = 0
    AGENT = 1
    DOMAIN = 2


@frozen
class Rights:
    """What is checked before a route's handler runs."""

    authenticated: bool = True
    needs: Needs = Needs.AGENT


OPEN = Rights(authenticated=False, needs=Needs.NOTHING)
ALWAYS = Rights(needs=Needs.NOTHING)
READY = Rights()
WITH_DOMAIN = Rights(needs=Needs.DOMAIN)
