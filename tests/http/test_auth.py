"""Tests of tokens and JSON Web Tokens, with the statuses and texts that old clients tell apart."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from twisted.logger import LogEvent, globalLogPublisher
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.http.auth import METHODS, Access, Identity, TokenReader
from rasa_core_api.http.errors import InvalidToken
from rasa_core_api.http.routing import App, Route, Routes
from tests.http.conftest import MakeWire
from tests.wire import Response, Wire

SECRET = "thisismysecret" * 5
NOW = 1_600_000_000.0

app = App()


@app.route("/conversations/<sender_id>/tracker", methods=["GET", "POST"])
def tracker(request: Request, sender_id: str) -> bytes:
    return b"ok"


@app.route("/domain", methods=["GET"])
def domain(request: Request) -> bytes:
    return b"ok"


def now() -> float:
    return NOW


@pytest.fixture(scope="module")
def reader() -> TokenReader:
    return TokenReader.from_settings(SECRET, "HS256", now)


def guarded(serve: MakeWire, access: Access) -> Wire:
    def guard(request: Request, route: Route, sender_id: str | None) -> None:
        access.check(request, sender_id)

    return serve(Routes(app, guard))


def signed(claims: Any, key: Any = SECRET, method: str = "HS256") -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return jwt.api_jws.encode(json.dumps(claims).encode(), key, method)


def user(role: str, **names: str) -> dict[str, Any]:
    return {"user": {"role": role, **names}}


def bearer(wire: Wire, claims: Any, path: str = "/conversations/alice/tracker") -> Response:
    return wire.get(path, Authorization=f"Bearer {signed(claims)}")


# --- the shared token ----------------------------------------------------------------------------------


def test_open(serve: MakeWire) -> None:
    """Without any setting everybody may do everything."""
    assert Access().open
    assert guarded(serve, Access(None)).get("/domain").status == 200
    assert Access("").open


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?token=x%2By", 200),
        ("?a=1&token=x%2by&b", 200),
        ("?token=x%2By&token=bad", 200),
        ("?token=bad&token=x%2By", 401),
        ("?token=x+y", 401),
        ("?token=", 401),
        ("?Token=x%2By", 401),
        ("?token=x%2By%00", 401),
        ("", 401),
    ],
)
@pytest.mark.parametrize("path", ["/domain", "/conversations/bob/tracker"])
def test_token(serve: MakeWire, path: str, query: str, status: int) -> None:
    """The token is a parameter of the query string; the first of several counts."""
    response = guarded(serve, Access("x+y")).get(path + query)
    assert response.status == status
    if status == 401:
        body = response.json()
        assert (body["reason"], body["message"]) == ("NotAuthenticated", "User is not authenticated.")
        assert "msg" not in body


def test_token_in_the_body(serve: MakeWire) -> None:
    """A token in the body is none, whatever type the body has."""
    wire = guarded(serve, Access("t"))
    for kind in ("application/x-www-form-urlencoded", "application/json"):
        response = wire.ask("POST", "/conversations/a/tracker", b"token=t", {"Content-Type": kind})
        assert response.status == 401


def test_token_that_is_not_ascii(serve: MakeWire) -> None:
    """Tokens compare as UTF-8."""
    assert guarded(serve, Access("schlüssel")).get("/domain?token=schl%C3%BCssel").status == 200


# --- JSON Web Tokens -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "own", "other", "general"),
    [
        (user("admin"), 200, 200, 200),
        (user("admin", username="bob"), 200, 200, 200),
        (user("user", username="alice"), 200, 403, 403),
        (user("user", user="alice"), 200, 403, 403),
        (user("user", username="alice", user="bob"), 200, 403, 403),
        (user("user", username="bob", user="alice"), 403, 200, 403),
        (user("user"), 403, 403, 403),
        (user("guest", username="alice"), 403, 403, 403),
        (user("Admin"), 403, 403, 403),
        ({"user": {"username": "alice"}}, 403, 403, 403),
        ({"user": {"role": "user", "username": None}}, 403, 403, 403),
        ({"user": {"role": ["admin"]}}, 403, 403, 403),
        ({"user": "admin"}, 403, 403, 403),
        ({"user": None}, 403, 403, 403),
        ({"user": ["admin"]}, 403, 403, 403),
        ({"sub": "1234567890", "name": "John Doe", "iat": 1516239022}, 403, 403, 403),
        ({}, 403, 403, 403),
    ],
)
def test_roles(
    serve: MakeWire, reader: TokenReader, claims: dict[str, Any], own: int, other: int, general: int
) -> None:
    """An admin may do everything, a user what is about the conversation of that name."""
    wire = guarded(serve, Access(None, reader))
    assert bearer(wire, claims).status == own
    assert bearer(wire, claims, "/conversations/bob/tracker").status == other
    response = bearer(wire, claims, "/domain")
    assert response.status == general
    if general == 403:
        body = response.json()
        assert (body["reason"], body["message"]) == ("NotAuthorized", "User has insufficient permissions.")


def test_user_with_an_encoded_name(serve: MakeWire, reader: TokenReader) -> None:
    """The name is compared with the decoded sender id."""
    wire = guarded(serve, Access(None, reader))
    assert bearer(wire, user("user", username="a ü"), "/conversations/a%20%C3%BC/tracker").status == 200


@pytest.mark.parametrize(
    ("header", "status", "message"),
    [
        (None, 401, "Missing Authorization Header"),
        ("Bearer", 422, "Bad Authorization header. Expected value 'Bearer <JWT>'"),
        ("bearer x", 422, "Bad Authorization header. Expected value 'Bearer <JWT>'"),
        ("Basic x", 422, "Bad Authorization header. Expected value 'Bearer <JWT>'"),
        ("Bearer a b", 422, "Bad Authorization header. Expected value 'Bearer <JWT>'"),
        ("Bearer x", 422, "Not enough segments"),
        ("Bearer x.y.z", 422, None),
        ("Bearer \xff", 422, None),
        ("Bearer " + "x" * 8_000, 422, None),
    ],
)
def test_headers(serve: MakeWire, reader: TokenReader, header: str | None, status: int, message: str | None) -> None:
    """What is no bearer token is told as it was, in the envelope and in `msg`."""
    wire = guarded(serve, Access(None, reader))
    response = wire.ask("GET", "/domain", headers={"Authorization": header} if header else None)
    assert response.status == status
    body = response.json()
    assert body["msg"] == body["message"] == body["error"]
    assert body["code"] == status
    if message is not None:
        assert body["msg"] == message
    assert response.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)


@pytest.mark.parametrize(
    ("claims", "status", "message"),
    [
        ({"exp": NOW + 1}, 200, None),
        ({"exp": NOW}, 401, "Token has expired"),
        ({"exp": NOW - 1}, 401, "Token has expired"),
        ({"nbf": NOW + 1}, 422, "The token is not yet valid (nbf)"),
        ({"nbf": NOW}, 200, None),
        ({"iat": NOW + 1000}, 200, None),
        ({"iat": str(int(NOW))}, 200, None),
        ({"exp": "soon"}, 422, "Expiration Time claim (exp) must be an integer."),
        ({"exp": None}, 422, "Expiration Time claim (exp) must be an integer."),
        ({"nbf": {}}, 422, "Not Before claim (nbf) must be an integer."),
        ({"iat": []}, 422, "Issued At claim (iat) must be an integer."),
        ({"aud": "me"}, 422, "Invalid audience"),
        ({"aud": None}, 422, "Invalid audience"),
        ({"sub": 42}, 200, None),
        ({"jti": 42}, 200, None),
        ({"iss": "anybody"}, 200, None),
    ],
)
def test_claims(serve: MakeWire, reader: TokenReader, claims: dict[str, Any], status: int, message: str | None) -> None:
    """Times are checked where they are given; an audience is refused; a subject may be anything."""
    response = bearer(guarded(serve, Access(None, reader)), {**user("admin"), **claims})
    assert response.status == status
    if message is not None:
        assert response.json()["msg"] == message


@pytest.mark.parametrize("payload", [b"[]", b'"x"', b"{", b"\xff", b'{"exp": NaN}', b'{"exp": 1e999}'])
def test_payloads(reader: TokenReader, payload: bytes) -> None:
    """A payload that is no JSON object is refused though it is signed."""
    token = jwt.api_jws.encode(payload, SECRET, "HS256")
    with pytest.raises(InvalidToken, match="must be a json object"):
        reader.claims(token.encode())


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (signed(user("admin"), "another" * 10), "Signature verification failed"),
        (signed(user("admin")).rpartition(".")[0] + "." + "A" * 43, "Signature verification failed"),
        (signed(user("admin"), SECRET, "HS512"), "The specified alg value is not allowed"),
        (signed(user("admin"), None, "none"), "The specified alg value is not allowed"),
    ],
)
def test_forgeries(reader: TokenReader, token: str, message: str) -> None:
    """Another key, another algorithm and no algorithm are refused."""
    with pytest.raises(InvalidToken, match=message) as caught:
        reader.claims(token.encode())
    assert caught.value.status == 422


def test_unknown_critical_header(reader: TokenReader) -> None:
    """A token that demands an extension nobody knows here is refused."""
    token = jwt.api_jws.encode(b"{}", SECRET, "HS256", headers={"x": 1})
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","crit":["x"],"x":1}').rstrip(b"=").decode()
    forged = ".".join([header, *token.split(".")[1:]])
    with pytest.raises(InvalidToken):
        reader.claims(forged.encode())


def test_both(serve: MakeWire, reader: TokenReader) -> None:
    """Where both are configured the token opens everything, and a wrong token leaves the JWT's error."""
    wire = guarded(serve, Access("t", reader))
    assert wire.get("/domain?token=t").status == 200
    assert wire.get("/domain?token=bad").json()["msg"] == "Missing Authorization Header"
    token = signed(user("user", username="alice"))
    assert wire.get("/conversations/alice/tracker?token=bad", Authorization=f"Bearer {token}").status == 200


# --- keys ----------------------------------------------------------------------------------------------

RSA = rsa.generate_private_key(65537, 2048)
CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


def public_pem(private: Any) -> str:
    pem: bytes = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem.decode()


def private_pem(private: Any) -> str:
    pem: bytes = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem.decode()


def private_key(method: str) -> Any:
    return ec.generate_private_key(CURVES[method]) if method.startswith("ES") else RSA


@pytest.mark.parametrize("method", METHODS)
def test_methods(method: str, tmp_path: Path) -> None:
    """All twelve methods verify; the key of an asymmetric one may be text, a file, or the private half."""
    if method.startswith("HS"):
        readers = [TokenReader.from_settings(SECRET, method, now)]
        key: Any = SECRET
    else:
        key = private_key(method)
        (tmp_path / "key.pem").write_text(public_pem(key))
        readers = [
            TokenReader.from_settings(secret, method, now)
            for secret in (public_pem(key), f"@{tmp_path / 'key.pem'}", private_pem(key))
        ]
    for reader in readers:
        assert reader.identify(signed(user("user", username="a"), key, method).encode()) == Identity("a")
        with pytest.raises(InvalidToken):
            reader.identify(signed(user("admin"), SECRET, "HS256" if method != "HS256" else "HS384").encode())


def test_key_confusion() -> None:
    """A token that is signed with the public key as a shared secret is refused."""
    reader = TokenReader.from_settings(public_pem(RSA), "RS256", now)
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=")
    body = base64.urlsafe_b64encode(b'{"user":{"role":"admin"}}').rstrip(b"=")
    mac = hmac.digest(public_pem(RSA).encode(), header + b"." + body, hashlib.sha256)
    with pytest.raises(InvalidToken, match="alg value"):
        reader.identify(b".".join([header, body, base64.urlsafe_b64encode(mac).rstrip(b"=")]))


def test_several_headers(reader: TokenReader) -> None:
    """Of two `Authorization` headers a proxy may have looked at the other one: such a request is refused."""
    token = b"Bearer " + signed(user("admin")).encode()
    for headers in ([token, token], [token, b"Bearer x"], [b"Basic x", token]):
        request = SimpleNamespace(requestHeaders=Headers({b"Authorization": headers}))
        with pytest.raises(InvalidToken, match="Bad Authorization header"):
            Access(None, reader).check(cast(Request, request))


@pytest.mark.parametrize(
    ("secret", "method", "reason"),
    [
        ("x", "none", "jwt_method"),
        ("x", "hs256", "jwt_method"),
        ("x", "EdDSA", "jwt_method"),
        ("x", "RS256", "jwt_secret"),
        ("@/nowhere/key.pem", "RS256", "/nowhere/key.pem"),
        (public_pem(RSA), "HS256", "jwt_secret"),
        (public_pem(RSA), "ES256", "jwt_secret: not a public key for ES256 in PEM form: it is one of another kind"),
        ("", "HS256", "jwt_secret"),
    ],
)
def test_bad_settings(secret: str, method: str, reason: str) -> None:
    """A method or a key that cannot work is refused at the start, by the name of the setting."""
    with pytest.raises(InvalidConfiguration, match=reason):
        TokenReader.from_settings(secret, method, now)


def test_short_keys_are_mentioned_once() -> None:
    """A short key is worth one line when the server starts, and not a word for each token."""
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            reader = TokenReader.from_settings("thisismysecret", "HS256", now)
            token = None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                token = signed(user("admin"), "thisismysecret").encode()
            for _ in range(3):
                reader.identify(token)
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert [event["bits"] for event in events if "bits" in event] == [112]
