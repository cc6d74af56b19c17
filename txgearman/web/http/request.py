"""One request: its body may not exceed the limit, and what goes wrong in it is a problem document."""

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
    """A request whose body is dropped, and answered with 413, once it exceeds its site's limit.

    `received` is how many bytes of the body have come.
    """

    defaultContentType = None
    channel: Any
    content: Any
    received = 0
    _refused = False

    def gotLength(self, length: int | None) -> None:
        # In memory, and not in a file as Twisted has it: it is counted, and a job's data is in memory anyway.
        self.content = BytesIO()
        if length is not None and length > self.channel.site.max_body:
            # It is not even begun to be read, so the connection cannot go on.
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
        """Who this is, for the log."""
        return f"HTTP request from {getattr(self.getClientAddress(), 'host', 'unix')}"

    def drop(self) -> None:
        """End the connection at once, and send nothing more."""
        self.channel.transport.abortConnection()

    def give_up_unfinished(self, why: str) -> None:
        """Keep nothing of the body that comes, say so, and end the connection."""
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
        """As Twisted's, but for forms: here a body is data, whatever its type says."""
        if self._refused:
            return
        self.channel.site.unfinished.note(self, 0)
        self.content.seek(0)
        self.method, self.uri, self.clientproto = command, path, version
        self.path, _, query = path.partition(b"?")
        self.args = parse_qs(query, 1)
        self.process()

    def render(self, resrc: IResource) -> None:
        """Send what the resource answers; to HEAD all but the body.

        Twisted's own takes a response to HEAD that has a body for a mistake and logs the request, which fails
        for a path that is not ASCII. It is none: so the length is known.
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
