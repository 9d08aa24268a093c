"""Who may do what: a shared token, JSON Web Tokens, or both.

The table of statuses and texts is that of the historical server, whose clients tell failures apart by them.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen
from twisted.logger import Logger
from twisted.web.server import Request

from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import InvalidConfiguration, NotAuthenticated, NotAuthorized
from rasa_core_api.http.errors import InvalidToken
from rasa_core_api.http.reading import query_of
from rasa_core_api.jsontext import decode

if TYPE_CHECKING:
    from jwt import PyJWS

log = Logger()

METHODS = tuple(f"{family}{size}" for family in ("HS", "RS", "ES", "PS") for size in ("256", "384", "512"))
DEFAULT_METHOD = "HS256"

#: A moment that is late enough for whoever wants none, and no number too large for a clock.
_FOR_EVER = 1 << 40

_BAD_HEADER = "Bad Authorization header. Expected value 'Bearer <JWT>'"


@frozen
class Identity:
    """Who asks: `user` is None for those who may do everything; `until` (epoch seconds) is when that ends."""

    user: str | None = None
    until: float | None = None

    def check(self, sender_id: str | None) -> None:
        """Raises `NotAuthorized` unless this conversation (None: all that is no conversation) is theirs."""
        if self.user is not None and self.user != sender_id:
            raise _insufficient()


EVERYBODY = Identity()


def _insufficient() -> NotAuthorized:
    return NotAuthorized("User has insufficient permissions.")


class Access:
    """Checks requests against the token and the JWT settings; without either, everybody may do everything."""

    def __init__(self, token: str | None = None, tokens: TokenReader | None = None) -> None:
        self._token = token.encode("utf-8") if token else None
        self._tokens = tokens
        #: Whether there is nothing to check.
        self.open = self._token is None and tokens is None

    def check(self, request: Request, sender_id: str | None = None) -> None:
        """Whether the request may go on; `sender_id` is the conversation it is about.

        Raises `NotAuthenticated`, `InvalidToken` and `NotAuthorized`.
        """
        if not self.open:
            self.identify(request).check(sender_id)

    def seconds_left(self, request: Request) -> float | None:
        """How long the request's rights last; None where they do not end. Raises like `check`."""
        until = self.identify(request).until
        return None if until is None or self._tokens is None else self._tokens.seconds_until(until)

    def identify(self, request: Request) -> Identity:
        """Who asks, for callers that learn later which conversation it is about. Raises like `check`."""
        if self.open:
            return EVERYBODY
        if self._token is not None:
            given = query_of(request).get("token")
            if given is not None and hmac.compare_digest(given.encode("utf-8"), self._token):
                return EVERYBODY
        if self._tokens is not None:
            return self._tokens.identify(_bearer(request))
        raise NotAuthenticated("User is not authenticated.")


def _bearer(request: Request) -> bytes:
    header = request.requestHeaders.getRawHeaders(b"Authorization")
    if not header:
        raise InvalidToken("Missing Authorization Header", 401)
    parts = header[0].split()  # of two headers a proxy may have looked at the other one
    if len(header) != 1 or len(parts) != 2 or parts[0] != b"Bearer":
        raise InvalidToken(_BAD_HEADER)
    return parts[1]


class TokenReader:
    """Verifies JSON Web Tokens with one key and one algorithm; claims are held against `now` (epoch seconds)."""

    def __init__(self, jws: PyJWS, method: str, key: Any, now: Callable[[], float] = time.time) -> None:
        self._jws = jws
        self._methods = [method]
        self._key = key
        self._now = now

    @classmethod
    def from_settings(
        cls, secret: str, method: str = DEFAULT_METHOD, now: Callable[[], float] = time.time
    ) -> TokenReader:
        """The shared secret of an HMAC method; for the others a PEM key, or `@` and the file that holds it.

        Raises `InvalidConfiguration`, naming the setting.
        """
        if method not in METHODS:
            raise InvalidConfiguration(f"jwt_method: {method!r} is none of {', '.join(METHODS)}")
        import jwt  # only servers that check tokens pay for it

        jws = jwt.PyJWS(algorithms=[method])
        algorithm: Any = jws.get_algorithm_by_name(method)
        if method.startswith("HS"):
            key: Any = _shared_secret(algorithm, secret, method)
        else:
            key = _public_key(algorithm, secret, method)
        # the key was looked at once and for all: not again, with another warning, for every token
        algorithm.prepare_key = lambda key: key
        algorithm.check_key_length = lambda key: None
        return cls(jws, method, key, now)

    def identify(self, token: bytes) -> Identity:
        """Whose token this is. Raises `InvalidToken`, and `NotAuthorized` for claims that grant nothing."""
        return _identity_of(self.claims(token))

    def seconds_until(self, moment: float) -> float:
        """From now to a moment in epoch seconds."""
        return moment - self._now()

    def claims(self, token: bytes) -> Mapping[str, JSON]:
        """The claims of a token that is valid now. Raises `InvalidToken`."""
        from jwt.exceptions import InvalidSignatureError, PyJWTError

        try:
            payload = self._jws.decode_complete(token, self._key, algorithms=self._methods)["payload"]
        except InvalidSignatureError:
            raise InvalidToken("Signature verification failed") from None
        except (PyJWTError, ValueError, TypeError) as error:
            raise InvalidToken(str(error) or "Invalid token") from None
        try:
            claims = decode(payload)
        except ValueError:
            claims = None
        if not isinstance(claims, dict):
            raise InvalidToken("Invalid payload string: must be a json object")
        self._check_times(claims)
        if "aud" in claims:
            raise InvalidToken("Invalid audience")
        return claims

    def _check_times(self, claims: Mapping[str, JSON]) -> None:
        now = self._now()
        for name, title in (("iat", "Issued At"), ("nbf", "Not Before"), ("exp", "Expiration Time")):
            if name not in claims:
                continue
            value = claims[name]
            try:
                seconds = int(value)
            except (ValueError, TypeError, OverflowError):
                raise InvalidToken(f"{title} claim ({name}) must be an integer.") from None
            if name == "exp":
                if seconds <= now:
                    raise InvalidToken("Token has expired", 401)
            elif name == "nbf" and seconds > now:  # an `iat` in the future only tells that clocks differ
                raise InvalidToken(f"The token is not yet valid ({name})")


def _identity_of(claims: Mapping[str, JSON]) -> Identity:
    """0.11 called the person `user.user`, 0.12 and later `user.username`."""
    user = claims.get("user")
    until = min(int(claims["exp"]), _FOR_EVER) if "exp" in claims else None
    if isinstance(user, dict):
        role = user.get("role")
        if role == "admin":
            return Identity(until=until)
        if role == "user":
            name = user["username"] if "username" in user else user.get("user")
            if isinstance(name, str):
                return Identity(name, until)
    raise _insufficient()


def _shared_secret(algorithm: Any, secret: str, method: str) -> Any:
    try:
        key = algorithm.prepare_key(secret)
    except Exception as error:  # what it raises differs between releases
        raise InvalidConfiguration(f"jwt_secret: not a shared secret for {method}: {error}") from None
    _warn_if_short(len(key) * 8, int(method[2:]), method)
    return key


def _public_key(algorithm: Any, secret: str, method: str) -> Any:
    where = "jwt_secret"
    if secret.startswith("@"):
        where = f"jwt_secret: {secret[1:]}"
        try:
            secret = Path(secret[1:]).read_text("ascii")
        except (OSError, ValueError) as error:
            raise InvalidConfiguration(f"{where}: cannot be read: {error}") from None
    try:
        key = algorithm.prepare_key(secret)
    except Exception as error:
        reason = "it is one of another kind" if "Expected one of" in str(error) else str(error)
        raise InvalidConfiguration(f"{where}: not a public key for {method} in PEM form: {reason}") from None
    if hasattr(key, "public_key"):  # who gave the private key meant its other half
        key = key.public_key()
    if not method.startswith("ES"):
        _warn_if_short(key.key_size, 2048, method)
    return key


def _warn_if_short(bits: int, wanted: int, method: str) -> None:
    if bits < wanted:
        log.warn(
            "jwt_secret: the key has {bits} bits, {method} wants at least {wanted}: tokens may be forged",
            bits=bits,
            method=method,
            wanted=wanted,
        )
