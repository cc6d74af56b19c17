"""One request: its body has a limit, and what goes wrong becomes a problem document."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import NO_BODY_CODES, parse_qs
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request

from txgearman.web.http.channel import write_problem
from txgearman.web.http.responses import HTTPProblem

_log = Logger()


class LimitedRequest(Request):
    """A request that is refused with 413 as soon as its body exceeds the site's limit.

    `received` is how many bytes of the body have come.
    """

    defaultContentType = None
    channel: Any
    content: Any
    received = 0
    _refused = False

    def gotLength(self, length: int | None) -> None:
        # In memory, not in a file as with Twisted: it is counted, and the data of jobs is in memory anyway.
        self.content = BytesIO()
        if length is not None and length > self.channel.site.max_body:
            # The body is not read, so the connection cannot be used again.
            self._refuse_large()

    def handleContentChunk(self, data: bytes) -> None:
        if self._refused:
            return
        self.received += len(data)
        if self.received > self.channel.site.max_body:
            self._refuse_large()
        else:
            super().handleContentChunk(data)
            self.channel.site.unfinished.note(self, self.received)

    def connectionLost(self, reason: Failure) -> None:
        self.channel.site.unfinished.note(self, 0)
        super().connectionLost(reason)
        # It refers to this request.
        self.producer = None

    @property
    def described(self) -> str:
        """The peer, for the log."""
        return f"HTTP request from {getattr(self.getClientAddress(), 'host', 'unix')}"

    def drop(self) -> None:
        """Abort the connection: the send budget has dropped this peer."""
        self.channel.transport.abortConnection()

    def give_up_unfinished(self, why: str) -> None:
        """Refuse the request, forget what came of its body, and end the connection. `why` is a sentence."""
        self._refuse(HTTPProblem(503, "too-much-unfinished", why + "."))

    def _refuse_large(self) -> None:
        limit = self.channel.site.max_body
        self._refuse(HTTPProblem(413, "too-large", f"A request's body has at most {limit} bytes."))

    def _refuse(self, problem: HTTPProblem) -> None:
        self._refused = True
        self.content = BytesIO()
        self.channel.site.unfinished.note(self, 0)
        write_problem(self.channel.transport, problem)
        self.channel.loseConnection()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """As Twisted's, but forms are not parsed: a body is data, whatever its type says."""
        if self._refused:
            return
        self.channel.site.unfinished.note(self, 0)
        self.content.seek(0)
        self.method, self.uri, self.clientproto = command, path, version
        self.path, _, query = path.partition(b"?")
        self.args = parse_qs(query, 1)
        self.process()

    def render(self, resrc: IResource) -> None:
        """Send what the resource returns; to HEAD all but the body.

        Twisted's own `render` takes a body for HEAD as a mistake and logs the request, which fails for a path
        that is not ASCII. Here resources return the body, as its length is sent.
        """
        body = resrc.render(self)
        if body is NOT_DONE_YET:
            return
        if self.code not in NO_BODY_CODES:
            self.setHeader(b"Content-Length", b"%d" % len(body))
        self.write(body)
        self.finish()

    def processingFailed(self, reason: Failure) -> Failure:
        _log.failure("A web request failed", failure=reason)
        if self.startedWriting:
            self.loseConnection()
        else:
            problem = HTTPProblem(500, "internal", "The server failed to answer this; its log says why.")
            self.write(problem.response().send(self))
            self.finish()
        return reason
