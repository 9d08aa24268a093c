"""`python -m rasa_core_api.model_server DIR [-p PORT] [--token T]`: publish models for servers that pull them."""

from __future__ import annotations

import argparse
import hmac
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request as AnyRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import RasaCoreError, UnsupportedModel
from rasa_core_api.jsontext import encode
from rasa_core_api.models.shelf import LATEST, Published, Shelf, UnknownModel

log = Logger("rasa_core_api.model_server")  # as a program it is `__main__`

DEFAULT_PORT = 8000
_CHUNK = 64 * 1024
_PREFIX = "/models"


@implementer(IPushProducer)
class _Sender:
    """Sends a file as fast as the client takes it; holds one chunk of it in memory."""

    def __init__(self, request: Request, file: BinaryIO) -> None:
        self._request = request
        self._file = file
        self._sending = False
        self._paused = False

    def start(self) -> None:
        """Begin; the file is closed at the end, whoever ends it."""
        self._request.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        if self._sending:  # called while we write
            return
        self._sending = True
        try:
            while not self._paused and not self._file.closed:
                chunk = self._file.read(_CHUNK)
                if not chunk:
                    self.stopProducing()
                    self._request.unregisterProducer()
                    self._request.finish()
                    return
                self._request.write(chunk)
        finally:
            self._sending = False

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self._file.close()


class ModelResource(Resource):
    """All paths of the server.

    `/models/NAME@TAG`, `/models/NAME` and `/NAME@TAG` are archives, `/` is the only one there is, and `/models`
    the list of all. `unchanged` is the status for a model that the client has already: 204 as the published
    protocol has it, or 304.
    """

    isLeaf = True

    def __init__(
        self,
        shelf: Shelf,
        worker: Callable[..., Awaitable[Any]],
        token: str | None = None,
        unchanged: int = 204,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._shelf = shelf
        self._worker = worker
        self._token = token
        self._unchanged = unchanged
        self._line = DeferredLock()

    def render_GET(self, request: Request) -> int:
        """GET, and HEAD, whose body the server leaves out."""
        work = Deferred.fromCoroutine(self._answer(request))
        gone = request.notifyFinish()
        gone.addErrback(lambda _: work.cancel())
        work.addErrback(self._failed, request)
        return NOT_DONE_YET

    def _failed(self, failure: Failure, request: Request) -> None:
        if failure.check(CancelledError):
            return
        log.failure("a request failed", failure)
        _finish(request, 500, {"error": "internal error"})

    async def _answer(self, request: Request, again: bool = True) -> None:
        path = unquote(request.path.decode("latin-1"), errors="replace").rstrip("/")
        if path == "/healthz":
            return _finish(request, 200, {"status": "ok"})
        if not self._may(request):
            request.setHeader(b"WWW-Authenticate", b"Bearer")
            return _finish(request, 401, {"error": "a token is needed"})
        try:
            if path == _PREFIX:
                return _finish(request, 200, await self._ask(self._list))
            published = await self._ask(self._find, path)
            self._send(request, published)
        except FileNotFoundError:  # what was packed is gone: the model changed just now, or somebody cleared up
            if not again:
                raise
            return await self._answer(request, again=False)
        except UnknownModel as error:
            return _finish(request, 404, {"error": str(error)})
        except UnsupportedModel as error:
            log.error("a model cannot be published: {error}", error=str(error))
            return _finish(request, 500, {"error": "the model cannot be packed; the server's log says why"})

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """One look at the files after another: a model is packed once, however many ask for it.

        It is looked to the end even where the client leaves; a thread cannot be stopped, and two at a time would
        write to the same file.
        """
        waiter: Deferred[Any] = Deferred()

        async def look() -> Any:
            await self._line.acquire()
            try:
                return await self._worker(function, *arguments)
            finally:
                self._line.release()

        def tell(result: Any) -> None:
            if not waiter.called:
                waiter.callback(result)  # a failure is passed on as one

        Deferred.fromCoroutine(look()).addBoth(tell)
        return waiter

    def _may(self, request: Request) -> bool:
        if self._token is None:
            return True
        expected = self._token.encode("utf-8")
        given = list(request.args.get(b"token", []))
        for header in request.requestHeaders.getRawHeaders(b"Authorization", []):
            scheme, _, value = header.partition(b" ")
            if scheme.lower() == b"bearer":
                given.append(value.strip())
        return any(hmac.compare_digest(value, expected) for value in given)

    def _find(self, path: str) -> Published:
        if not path:
            return self._shelf.only()
        name = path.removeprefix(_PREFIX).lstrip("/")
        name, _, tag = name.partition("@")
        return self._shelf.find(name, tag or LATEST)

    def _list(self) -> list[JSON]:
        found: list[JSON] = []
        for place in self._shelf.places():
            for tag in place.tags:
                try:
                    published = self._shelf.find(place.name, tag)
                except UnknownModel:
                    continue  # still being written
                except UnsupportedModel as error:  # one that cannot be packed hides no other
                    log.error("a model cannot be published: {error}", error=str(error))
                    continue
                found.append({"name": place.name, "tag": tag, "sha256": published.sha256, "bytes": published.size})
        return found

    def _send(self, request: Request, published: Published) -> None:
        tag = f'"{published.sha256}"'
        if _has(request, published.sha256):
            request.setResponseCode(self._unchanged)
            if self._unchanged == 304:  # clients of 0.11 stop polling for good at a 204 with an ETag
                request.setHeader(b"ETag", tag.encode("ascii"))
            request.finish()
            return
        request.setHeader(b"ETag", tag.encode("ascii"))
        request.setHeader(b"Content-Type", b"application/octet-stream")
        request.setHeader(b"Content-Length", b"%d" % published.size)
        request.setHeader(b"Cache-Control", b"no-cache")
        if published.signature is not None:
            request.setHeader(b"X-Model-Signature", published.signature.encode("ascii"))
        if request.method == b"HEAD":
            request.write(b"")
            request.finish()
            return
        _Sender(request, published.file.open("rb")).start()


def _has(request: Request, sha256: str) -> bool:
    """Whether `If-None-Match` names this model: quoted or not, weak or not, alone or in a list."""
    for header in request.requestHeaders.getRawHeaders(b"If-None-Match", []):
        for entry in header.split(b","):
            if entry.strip().removeprefix(b"W/").strip(b'"') in (sha256.encode("ascii"), b"*"):
                return True
    return False


def _finish(request: Request, status: int, value: JSON) -> None:
    body = (encode(value) + "\n").encode("ascii")
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", b"application/json")
    request.setHeader(b"Content-Length", b"%d" % len(body))
    request.write(b"" if request.method == b"HEAD" else body)
    request.finish()


class _QuietSite(Site):
    """Without an access log: URLs carry tokens."""

    noisy = False

    def log(self, request: AnyRequest) -> None:
        """Nothing."""


def signer(key_file: Path) -> Callable[[bytes], bytes]:
    """Signs with the Ed25519 private key of a PEM file. Raises `RasaCoreError`."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(key_file.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise RasaCoreError(f"{key_file}: no private key without a password can be read: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise RasaCoreError(f"{key_file}: this is no Ed25519 key")
    return key.sign


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m rasa_core_api.model_server",
        description="Publish the models in a directory for dialogue servers that pull them.",
        epilog="example: python -m rasa_core_api.model_server models -p 8000 --token SECRET",
    )
    parser.add_argument("directory", type=Path, help="a model, or a directory of models and archives")
    parser.add_argument("-p", "--port", type=int, default=DEFAULT_PORT, help="port to listen on (default: %(default)s)")
    parser.add_argument("--interface", default="", help="address to listen on (default: all)")
    parser.add_argument("--token", help="token that clients must send (?token=, or Authorization: Bearer)")
    parser.add_argument("--private_key", type=Path, help="PEM file of an Ed25519 key to sign the models with")
    parser.add_argument(
        "--unchanged", type=int, choices=(204, 304), default=204, help="status where nothing is new (default: 204)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until stopped; the exit status."""
    arguments = parser().parse_args(argv)
    from twisted.internet import reactor as installed
    from twisted.internet.error import CannotListenError
    from twisted.internet.threads import deferToThread

    from rasa_core_api.logs import begin_logging

    reactor: Any = installed
    begin_logging("info", None)
    if not arguments.directory.is_dir():
        print(f"error: {arguments.directory} is no directory", file=sys.stderr)
        return 1
    scratch = tempfile.mkdtemp(prefix="rasa-core-api-")
    try:
        sign = None if arguments.private_key is None else signer(arguments.private_key)
        shelf = Shelf(arguments.directory, Path(scratch), time.time, sign)
        places = shelf.places()
        resource = ModelResource(shelf, deferToThread, arguments.token, arguments.unchanged)
        site = _QuietSite(resource)  # type: ignore[no-untyped-call]
        port = reactor.listenTCP(arguments.port, site, interface=arguments.interface)
    except (RasaCoreError, CannotListenError) as error:
        shutil.rmtree(scratch, ignore_errors=True)
        print(f"error: {error}", file=sys.stderr)
        return 1
    number = port.getHost().port
    for place in places:
        for tag in place.tags:
            log.info("http://localhost:{port}/models/{name}@{tag}", port=number, name=place.name, tag=tag)
    if arguments.token is None:
        log.info("the models are open to everybody who reaches this port; --token protects them")
    log.info("Model server is up and running on http://localhost:{port}", port=number)
    try:
        reactor.run()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
