"""A web application on Twisted: the page asks for a picture, and shows how far the worker is.

Run it as ``python web.py``, with a Gearman server and a worker; then open http://127.0.0.1:8080/.
"""

import base64
import json
import sys
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from txgearman import Client
from txgearman.client import StatusUpdate
from txgearman.errors import ClientError

LISTEN = "tcp:8080:interface=127.0.0.1"
WANTED = {"width": 360, "height": 240}


class Page(Resource):
    """The page that the browser shows."""

    isLeaf = True

    def render_GET(self, request):
        request.setHeader("Content-Type", "text/html; charset=utf-8")
        return Path(__file__).with_name("page.html").read_bytes()


class Picture(Resource):
    """Submits a job, and sends what becomes of it as server-sent events."""

    isLeaf = True
    log = Logger()

    def __init__(self, client):
        super().__init__()
        self.client = client

    def render_GET(self, request):
        request.setHeader("Content-Type", "text/event-stream")
        request.setHeader("Cache-Control", "no-store")
        finished = request.notifyFinish()
        following = Deferred.fromCoroutine(self.follow(request))
        # The browser has gone: nobody waits for the job any more.
        finished.addErrback(lambda _: following.cancel())
        following.addErrback(lambda failure: failure.trap(CancelledError))
        following.addErrback(lambda failure: self.log.failure("Not sent", failure))
        return NOT_DONE_YET

    async def follow(self, request):
        def send(event, data):
            request.write(f"event: {event}\ndata: {json.dumps(data)}\n\n".encode())

        try:
            wanted = json.dumps(WANTED).encode()
            job = await self.client.submit("picture", wanted, unique="-", timeout=10)
            send("accepted", job.handle.decode())
            async for update in job.updates():
                if isinstance(update, StatusUpdate):
                    send("status", [update.numerator, update.denominator])
            send("picture", base64.b64encode(await job.result()).decode())
        except ClientError as error:
            send("failed", str(error))
        request.finish()


def make_site(client):
    """The page, and what it asks for."""
    root = Resource()
    root.putChild(b"", Page())
    root.putChild(b"picture", Picture(client))
    return Site(root)


async def main(reactor, gearman="tcp:127.0.0.1:4730", listen=LISTEN):
    client = Client(reactor, gearman)
    port = await serverFromString(reactor, listen).listen(make_site(client))
    print(f"Open http://127.0.0.1:{port.getHost().port}/", flush=True)
    try:
        await Deferred()  # serves until the process is stopped
    finally:
        await maybeDeferred(port.stopListening)
        await client.close()


if __name__ == "__main__":
    react(main, sys.argv[1:])
