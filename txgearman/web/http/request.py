"""One request: its body has a limit, and what goes wrong becomes a problem document."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import NO_BODY_CODES, parse_qs
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request

from txgearman.web.http.body import PIECE, queue_of, send_queue
from txgearman.web.http.channel import write_problem
from txgearman.web.http.responses import HTTPProblem, Response

_log = Logger()


SHORT_QUERY: Final = 64
"""Bytes of a query whose parsed form is remembered: programs send the same again and again, and to parse it
anew took a twenty-fifth of a request."""


@lru_cache(maxsize=256)
def _short_query(query: bytes) -> dict[bytes, list[bytes]]:
    return parse_qs(query, 1)  # type: ignore[no-any-return]


class LimitedRequest(Request):
    """A request that is refused with 413 as soon as its body exceeds the site's limit.

    `received` is how many bytes of the body have come. `headers` are there when it is whole: the names in
    canonical form, and the last value of each.
    """

    defaultContentType = None
    channel: Any
    content: Any
    headers: dict[bytes, bytes]
    received = 0
    _refused = False
    # The length of the body, if it was said, and whether a part of it is counted as unfinished.
    _length: int | None = None
    _is_unfinished = False

    def gotLength(self, length: int | None) -> None:
        # In memory, not in a file as with Twisted: it is counted, and the data of jobs is in memory anyway.
        self.content = BytesIO()
        self._length = length
        if length is not None and length > self.channel.site.max_body:
            # The body is not read, so the connection cannot be used again.
            self._refuse_large()

    def parseCookies(self) -> None:
        """Nothing here has cookies."""

    def handleContentChunk(self, data: bytes) -> None:
        if self._refused:
            return
        self.received += len(data)
        if self.received > self.channel.site.max_body:
            self._refuse_large()
        else:
            self.content.write(data)
            if self.received != self._length:
                self._is_unfinished = True
                self.channel.site.unfinished.note(self, self.received)

    def connectionLost(self, reason: Failure) -> None:
        self._count_no_more()
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
        self._count_no_more()
        write_problem(self.channel.transport, problem)
        self.channel.loseConnection()

    def _count_no_more(self) -> None:
        """No part of the body is counted as unfinished: it is whole, or gone."""
        if self._is_unfinished:
            self._is_unfinished = False
            self.channel.site.unfinished.note(self, 0)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """As Twisted's, but forms are not parsed: a body is data, whatever its type says."""
        if self._refused:
            return
        self._count_no_more()
        self.content.seek(0)
        self.method, self.uri, self.clientproto = command, path, version
        self.path, _, query = path.partition(b"?")
        self.args = dict(_short_query(query)) if len(query) <= SHORT_QUERY else parse_qs(query, 1)
        self.headers = {name: values[-1] for name, values in self.requestHeaders.getAllRawHeaders()}
        self.process()

    def getHeader(self, key: Any) -> Any:
        """As Twisted's, without a look at how the name is written.

        Args:
            key: The name in its canonical form, such as ``b"Content-Type"``.

        Returns:
            The value, the last if there are several; None if there is none.
        """
        return self.headers.get(key)

    def process(self) -> None:
        """As Twisted's, without headers that the channel sends itself, and without encoders."""
        self.site = self.channel.site
        if self.path == b"*":
            # Twisted answers this itself.
            self._handleStar()
            return
        self.prepath = []
        parts = self.path[1:].split(b"/")
        self.postpath = [unquote_to_bytes(part) for part in parts] if b"%" in self.path else parts
        try:
            self.render(self.site.getResourceFor(self))
        except BaseException:
            self.processingFailed(Failure())

    def respond(self, response: Response) -> None:
        """Send a whole response, and finish.

        Args:
            response: The response.
        """
        if len(response.body) > PIECE:
            queue = queue_of(self)
            queue.append(response.send(self))
            send_queue(self, queue, self.channel.site.reactor)
            return
        has_body = self.method != b"HEAD" and response.status not in NO_BODY_CODES
        self.code = response.status
        self.startedWriting = 1
        body = response.body if has_body else b""
        self.channel.write_response(self, response.status, response.header_lines(), body)
        self.finish()

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
