"""An action server that takes its time without using any: every action answers with one text after a delay."""

from __future__ import annotations

import json
import resource
import sys

from twisted.internet import endpoints, reactor
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

ANSWER = json.dumps({"events": [], "responses": [{"text": "done"}]}).encode()
DELAY = float(sys.argv[2])


class Webhook(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        return b"{}"

    def render_POST(self, request: Request) -> int:
        request.notifyFinish().addErrback(lambda _: call.cancel() if call.active() else None)
        call = reactor.callLater(DELAY, self.answer, request)
        return NOT_DONE_YET

    @staticmethod
    def answer(request: Request) -> None:
        request.setHeader(b"Content-Type", b"application/json")
        request.write(ANSWER)
        request.finish()


hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
site = Site(Webhook(), parsePOSTFormSubmission=False)
site.log = lambda request: None
endpoints.TCP4ServerEndpoint(reactor, int(sys.argv[1]), backlog=2048, interface="127.0.0.1").listen(site)
reactor.run()
