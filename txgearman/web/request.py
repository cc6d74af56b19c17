"""One request: its body may not exceed the limit, and what goes wrong in it is a problem document."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import parse_qs
from twisted.web.server import Request

from txgearman.web.answers import HTTPProblem

_log = Logger()


class LimitedRequest(Request):
    """A request whose body is dropped, and answered with 413, once it exceeds its site's limit."""

    defaultContentType = None
    channel: Any
    content: Any
    _received = 0
    _too_large = False

    def gotLength(self, length: int | None) -> None:
        if length is not None and length > self.channel.site.max_body:
            # It is not even begun to be read, so the connection cannot go on.
            self.content = BytesIO()
            self._refuse_body()
        else:
            super().gotLength(length)

    def handleContentChunk(self, data: bytes) -> None:
        if self._too_large:
            return
        self._received += len(data)
        if self._received > self.channel.site.max_body:
            self._refuse_body()
        else:
            super().handleContentChunk(data)

    def _refuse_body(self) -> None:
        self._too_large = True
        limit = self.channel.site.max_body
        answer = HTTPProblem(413, "too-large", f"A request's body has at most {limit} bytes.").answer()
        head = (
            b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n"
            b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n" % (answer.content_type, len(answer.body))
        )
        self.channel.transport.write(head + answer.body)
        self.channel.loseConnection()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """As Twisted's, but for forms: here a body is data, whatever its type says."""
        if self._too_large:
            return
        self.content.seek(0)
        self.method, self.uri, self.clientproto = command, path, version
        self.path, _, query = path.partition(b"?")
        self.args = parse_qs(query, 1)
        self.process()

    def processingFailed(self, reason: Failure) -> Failure:
        _log.failure("A web request failed", failure=reason)
        if self.startedWriting:
            self.loseConnection()
        else:
            problem = HTTPProblem(500, "internal", "The server failed to answer this; its log says why.")
            self.write(problem.answer().send(self))
            self.finish()
        return reason
