"""The baseline: a Klein route that reads a JSON body and answers JSON of the size of a bot's answer."""

from __future__ import annotations

import json
import sys

from klein import Klein
from twisted.internet import endpoints, reactor
from twisted.web.iweb import IRequest
from twisted.web.server import Site

app = Klein()
ANSWER = [
    {
        "buttons": [{"payload": "/order", "title": "A coffee"}, {"payload": "/ask_price", "title": "Prices"}],
        "recipient_id": "b17",
        "text": "Welcome to the corner cafe!",
    }
]


@app.route("/version")
def version(request: IRequest) -> bytes:
    return b"{}"


@app.route("/conversations/<sender_id>/respond", methods=["POST"])
def respond(request: IRequest, sender_id: str) -> bytes:
    json.loads(request.content.read())
    request.setHeader(b"Content-Type", b"application/json")
    return json.dumps(ANSWER).encode()


site = Site(app.resource(), parsePOSTFormSubmission=False)
site.displayTracebacks = False
site.log = lambda request: None
endpoints.TCP4ServerEndpoint(reactor, int(sys.argv[1]), backlog=1024, interface="127.0.0.1").listen(site)
reactor.run()
