"""One HTTP connection: how long a request may take to arrive, and when it is handled. No knowledge of what is
asked.

Twisted's own time limit begins anew with every byte, so that a peer could keep a connection for hours by
sending one now and then. Twisted also handles all requests that a read has brought before anything else, and
keeps the answers of a peer that does not take them.
"""

from __future__ import annotations

from http import HTTPStatus
from time import time
from typing import Any, Final

from twisted.internet.interfaces import IAddress, ISSLTransport
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, datetimeToString
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from txgearman.net.quickack import QuickAck, quick_ack
from txgearman.net.refusal import RefusedConnection
from txgearman.version import VERSION
from txgearman.web.http.body import STALLED
from txgearman.web.http.deadline import Deadline
from txgearman.web.http.guard import SECURITY_HEADERS
from txgearman.web.http.responses import HTTPProblem

HEAD_LIMIT: Final = 20.0
"""Seconds from the first byte of a request, or from the connection's begin if it is the first, until its head
is there, a TLS handshake included. Apache's mod_reqtimeout has 20 to 40."""

BODY_LIMIT: Final = 20.0
"""Seconds until its body is there, and one more for each `SLOWEST` bytes of it, as mod_reqtimeout has it."""

SLOWEST: Final = 500
"""Bytes a second."""

LONGEST_LENGTH: Final = 20
"""Characters of a Content-Length, white space included: a number of 64 bits has 19 or 20 digits."""

PIECE: Final = 4 * 1024
"""Bytes that are parsed in one step. The head of a request mostly has fewer. Chunks of one byte take longest,
1.8 ms. For each line of a head Twisted copies all of the piece that is behind it."""

MAX_UNREAD: Final = 16 * 1024
"""Bytes that may wait to be parsed while more is read from the peer; the last read may go beyond. Without
reading, the end of the connection would not be noticed while a request is answered. Twisted has the same."""


_FIXED_HEADERS: Final = b"".join(
    b"%b: %b\r\n" % header for header in ((b"Server", f"txgearman/{VERSION}".encode()), *SECURITY_HEADERS)
)
"""The head of every response has these. As bytes: to set and check each of them took a tenth of a request."""

_NOT_STORED: Final = b"Cache-Control: no-store\r\n"

_REASONS: Final = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}

_SHORT_LINE: Final = len(b"Content-Length:") + LONGEST_LENGTH
"""Bytes of a header's line in which no Content-Length is too long."""


class _Date:
    """The header with the time of a response, which is made once a second: to make it took a fortieth of a
    request."""

    def __init__(self) -> None:
        self._second = 0
        self._line = b""

    def line(self) -> bytes:
        """The header of now."""
        second = int(time())
        if second != self._second:
            self._second = second
            self._line = b"Date: %b\r\n" % datetimeToString(second)
        return self._line


_date: Final = _Date()


class LimitedChannel(HTTPChannel):
    """A connection whose peer has to send in time, and to take its answers to be asked for more requests.

    `site` is the `WebSite`. `waits_since` is since when the peer has not been owed a response, by the
    reactor's clock, and None while it is. `registry` is the `LimitedSite` that counts the connection, if any.
    """

    site: Any
    transport: Any
    waits_since: float | None = None
    registry: Any = None
    # The time limits of what is to arrive, and of a connection on which nothing comes.
    _arrival: Deadline
    _idle: Deadline
    _host: IAddress | None = None
    _ending = False
    # What has come and was not parsed.
    _unread = b""
    _in_step = False
    # Whether there is too much of that to read on.
    _is_full = False
    # Whether the peer does not take its answers.
    _backpressure = False
    # Whether the peer may be waiting for an acknowledgement of its last read, and is timed for that.
    _quick_ack: QuickAck | None = None
    _awaits_acknowledgement = False
    # Whether the head of a request has come, and its body has not.
    _in_body = False
    # Whether a response ended since the last read came.
    _has_answered = False

    def connectionMade(self) -> None:
        reactor = self.site.reactor
        self._arrival, self._idle = Deadline(reactor), Deadline(reactor)
        if self.registry is not None:
            self.registry.entered(self)
        super().connectionMade()
        self.waits_since = reactor.seconds()
        self._quick_ack = quick_ack(self.transport, reactor.seconds)
        self._arrival.set(HEAD_LIMIT, self._took_too_long)

    def getHost(self) -> IAddress:
        """The address of this end, which sockets ask the system for."""
        if self._host is None:
            self._host = self.transport.getHost()
        return self._host

    def dataReceived(self, data: bytes) -> None:
        if self._ending:
            # TLS reads on until its peer agrees to the end.
            return
        self._unread = self._unread + data if self._unread else data
        self._has_answered = False
        self.resetTimeout()
        self.site.time_slice.run(self)
        if self._quick_ack is not None:
            is_part = self.waits_since is not None and not (self._has_answered or self._unread)
            self._acknowledge(self._quick_ack, is_part)
        if len(self._unread) > MAX_UNREAD and not (self._is_full or self._ending):
            self._is_full = True
            self.transport.pauseProducing()

    def _acknowledge(self, quick_ack: QuickAck, is_part: bool) -> None:
        """Acknowledge what was read if it was a part of a request: many programs write its head and its body
        one by one, and the body may wait for that."""
        if is_part:
            self._awaits_acknowledgement = quick_ack.unanswered()
        elif self._awaits_acknowledgement:
            self._awaits_acknowledgement = False
            quick_ack.resumed()

    def step(self) -> bool:
        """Parse a piece of what has come, or less if a request ends within it, and begin to answer that.

        Returns whether the next step can be taken at once.
        """
        if not self._can_step():
            return False
        # A body of known length is only copied.
        size = len(self._unread) if self.length and not self.line_mode else PIECE
        piece, self._unread = self._unread[:size], self._unread[size:]
        self._in_step, self.paused = True, False
        try:
            # Not Twisted's `dataReceived`, which would reset the time limit for each piece.
            LineReceiver.dataReceived(self, piece)
        finally:
            self._in_step = False
        if self.paused:
            self._unread = self.clearLineBuffer() + self._unread
        elif not self._arrival.is_set:
            self._limit_arrival()
        if self._is_full and len(self._unread) <= MAX_UNREAD and not self._ending:
            self._is_full = False
            if not self._backpressure:
                self.transport.resumeProducing()
        return self._can_step()

    def _can_step(self) -> bool:
        """Whether there is something to parse, and nothing to wait for."""
        return (
            bool(self._unread) and self.waits_since is not None and not (self._backpressure or self._ending)
        )

    def setLineMode(self, extra: bytes = b"") -> None:
        """A request was answered, so what is after it is parsed next. `extra` came with its body."""
        self._unread = extra + self._unread
        super().setLineMode()

    def headerReceived(self, line: bytes) -> bool:
        if len(line) > _SHORT_LINE:
            name, _, value = line.partition(b":")
            if len(value) > LONGEST_LENGTH and name.strip().lower() == b"content-length":
                # Twisted would make a number of it, which Python refuses beyond some thousand digits.
                self._respondToBadRequestAndDisconnect()
                return False
        return super().headerReceived(line)  # type: ignore[no-any-return]

    def allHeadersReceived(self) -> None:
        # The body mostly has come, too.
        self._arrival.lift()
        self._in_body = True
        super().allHeadersReceived()

    def allContentReceived(self) -> None:
        self._in_body = False
        if not self._ending:
            self._arrival.lift()
            self.waits_since = None
        # What is behind this request is parsed when it was answered.
        self.paused = True
        super().allContentReceived()

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """As Twisted's, with the headers of every response."""
        head = [b"%b %b %b\r\n%b%b" % (version, code, reason, _FIXED_HEADERS, _date.line())]
        if not headers.hasHeader(b"Cache-Control"):
            head.append(_NOT_STORED)
        for name, values in headers.getAllRawHeaders():
            # To ``*`` Twisted sends these itself.
            if name not in (b"Server", b"Date"):
                head += [b"%b: %b\r\n" % (name, value) for value in values]
        head.append(b"\r\n")
        self.transport.write(b"".join(head))

    def write_response(self, request: Request, status: int, headers: bytes, body: bytes) -> None:
        """Write a whole response. By `setHeader`, `writeHeaders` and `write` it took three times as long.

        Args:
            request: The request. What was set of its response's headers is sent too.
            status: HTTP's status.
            headers: Further headers, as lines.
            body: The body, empty for none.
        """
        for name, values in request.responseHeaders.getAllRawHeaders():
            headers += b"".join([b"%b: %b\r\n" % (name, value) for value in values])
        first = (request.clientproto, status, _REASONS[status])
        fixed = (_FIXED_HEADERS, _NOT_STORED, _date.line())
        self.transport.write(b"%b %d %b\r\n%b%b%b%b\r\n%b" % (*first, *fixed, headers, body))

    def requestDone(self, request: Request) -> None:
        self.waits_since = self.site.reactor.seconds()
        self._has_answered = True
        super().requestDone(request)
        self._go_on()

    def pauseProducing(self) -> None:
        self._backpressure = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        self._backpressure = False
        super().resumeProducing()
        self._go_on()

    def _go_on(self) -> None:
        """Go on with what has come, in its turn. Twisted may read again now, though there is no room."""
        if self._is_full and not self._ending:
            self.transport.pauseProducing()
        if not self._in_step and self._can_step():
            self.site.time_slice.run_later(self)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._ending = self.paused = True
        self._unread = b""
        self.site.time_slice.forget(self)
        self._arrival.close()
        self._idle.close()
        if self.registry is not None:
            self.registry.left(self)
        super().connectionLost(reason)
        # Both refer to this channel: TLS keeps its producer, and a decoder tells it of a body that comes.
        self.transport.unregisterProducer()
        self._transferDecoder = None

    def timeoutConnection(self) -> None:
        """Nothing has come for `IDLE_LIMIT`: that is as usual, and not worth the line that Twisted logs."""
        self.loseConnection()

    def loseConnection(self) -> None:
        """Send what was written, and end the connection, at the latest in `STALLED`: a peer may not take
        it, or not agree to the end of TLS."""
        if not self._ending:
            self._ending = self.paused = True
            self._unread = b""
            self.setTimeout(None)
            self._arrival.set(STALLED, self.forceAbortClient)
            super().loseConnection()

    def forceAbortClient(self) -> None:
        """End the connection at once."""
        self._arrival.lift()
        self.transport.abortConnection()

    def _send100Continue(self) -> None:
        # Not after the response that the body is too large.
        if not self._ending:
            super()._send100Continue()

    # -- deadlines ------------------------------------------------------------------------------

    def _limit_arrival(self) -> None:
        """Part of a request has come: the rest has to come in time."""
        if self._in_body:
            since = self.site.reactor.seconds()
            self._arrival.set(BODY_LIMIT, lambda: self._look_at_body(since))
        else:
            self._arrival.set(HEAD_LIMIT, self._took_too_long)

    def setTimeout(self, period: Any) -> Any:
        """As Twisted's, without a timer for each request."""
        before, self.timeOut = self.timeOut, period
        self.resetTimeout()
        return before

    def resetTimeout(self) -> None:
        if self.timeOut is None:
            self._idle.lift()
        else:
            self._idle.set(self.timeOut, self.timeoutConnection)

    def _look_at_body(self, since: float) -> None:
        allowed = BODY_LIMIT + self.requests[-1].received / SLOWEST
        left = since + allowed - self.site.reactor.seconds()
        if left > 0:
            self._arrival.set(left, lambda: self._look_at_body(since))
        else:
            self._took_too_long()

    def _took_too_long(self) -> None:
        self.site.admission.note_late(self.transport.getPeer())
        if ISSLTransport.providedBy(self.transport):
            # It may not even be agreed, and would keep what is written.
            self.forceAbortClient()
            return
        write_problem(self.transport, HTTPProblem(408, "too-slow", "The request did not arrive in time."))
        self.loseConnection()


def refusal(why: str) -> RefusedConnection:
    """A connection that is sent a response, which says `why` it is refused."""
    return RefusedConnection(_response(HTTPProblem(503, "too-many-connections", why + ".")))


def write_problem(transport: Any, problem: HTTPProblem) -> None:
    """Answer in the middle of a request, past Twisted's queue of requests. The connection is to be ended."""
    transport.write(_response(problem))


def _response(problem: HTTPProblem) -> bytes:
    answer = problem.response()
    head = b"HTTP/1.1 %d %b\r\nConnection: close\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (
        answer.status,
        problem.phrase.encode("ascii"),
        answer.content_type,
        len(answer.body),
    )
    return head + answer.body
