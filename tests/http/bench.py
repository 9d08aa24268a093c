"""An application whose answers come at once, later, piece by piece, or by the path."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.web.server import Request

from rasa_core_api.http.routing import App
from rasa_core_api.http.sending import send_json


class Bench:
    """Answers of `/slow` wait for their gate."""

    app = App()

    def __init__(self) -> None:
        self.gates: list[Deferred[None]] = []

    @app.route("/", methods=["GET", "POST"])
    def quick(self, request: Request) -> bytes:
        return send_json(request, "quick")

    @app.route("/slow", methods=["GET", "POST"])
    async def slow(self, request: Request) -> bytes:
        gate: Deferred[None] = Deferred()
        self.gates.append(gate)
        await gate
        return send_json(request, "slow")

    @app.route("/stream", methods=["GET"])
    async def stream(self, request: Request) -> None:
        request.write(b"begun")
        await Deferred()

    @app.route("/of/<sender_id>", methods=["GET"])
    def whose(self, request: Request, sender_id: str) -> bytes:
        return send_json(request, sender_id)
