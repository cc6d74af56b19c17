"""One HTTP connection: how long a request may take to arrive. No knowledge of what is asked.

Twisted's own time limit begins anew with every byte, so that a peer could keep a connection for hours by
sending one now and then.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, ISSLTransport
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Request

from txgearman.web.http.body import STALLED
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


class LimitedChannel(HTTPChannel):
    """A connection whose peer has to send in time.

    `site` is the `WebSite`. `waits_since` is since when the peer has not been owed a response, by the
    reactor's clock, and None while it is.
    """

    site: Any
    transport: Any
    waits_since: float | None = None
    _deadline: IDelayedCall | None = None
    _ahead = False
    _ending = False

    def connectionMade(self) -> None:
        super().connectionMade()
        self.waits_since = self.site.reactor.seconds()
        self._expect(HEAD_LIMIT, self._took_too_long)

    def dataReceived(self, data: bytes) -> None:
        if self._ending:
            # TLS reads on until its peer agrees to the end.
            return
        if self.waits_since is None:
            self._ahead = True
        elif self._deadline is None:
            self._expect(HEAD_LIMIT, self._took_too_long)
        super().dataReceived(data)

    def headerReceived(self, line: bytes) -> bool:
        name, _, value = line.partition(b":")
        if len(value) > LONGEST_LENGTH and name.strip().lower() == b"content-length":
            # Twisted would make a number of it, which Python refuses beyond some thousand digits.
            self._respondToBadRequestAndDisconnect()
            return False
        return super().headerReceived(line)  # type: ignore[no-any-return]

    def allHeadersReceived(self) -> None:
        self._expect(BODY_LIMIT, self._look_at_body, self.site.reactor.seconds())
        super().allHeadersReceived()

    def allContentReceived(self) -> None:
        if not self._ending:
            self._expect_nothing()
            self.waits_since = None
        super().allContentReceived()

    def requestDone(self, request: Request) -> None:
        self.waits_since = self.site.reactor.seconds()
        if self._ahead and not self._ending:
            # A part of the next request may be there already; it is looked at within the next call.
            self._ahead = False
            self._expect(HEAD_LIMIT, self._took_too_long)
        super().requestDone(request)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._expect_nothing()
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
            self._ending = True
            self.setTimeout(None)
            self._expect(STALLED, self.forceAbortClient)
            super().loseConnection()

    def forceAbortClient(self) -> None:
        """End the connection at once."""
        self._expect_nothing()
        self.transport.abortConnection()

    def _send100Continue(self) -> None:
        # Not behind the response that the body is too large.
        if not self._ending:
            super()._send100Continue()

    # -- deadlines ------------------------------------------------------------------------------

    def _expect(self, seconds: float, otherwise: Any, *arguments: Any) -> None:
        self._expect_nothing()
        self._deadline = self.site.reactor.callLater(seconds, otherwise, *arguments)

    def _expect_nothing(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

    def _look_at_body(self, since: float) -> None:
        allowed = BODY_LIMIT + self.requests[-1].received / SLOWEST
        left = since + allowed - self.site.reactor.seconds()
        if left > 0:
            self._expect(left, self._look_at_body, since)
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


class Crowded(Protocol):
    """A connection that is told why it is refused, and ended."""

    def __init__(self, why: str) -> None:
        self._why = why

    def connectionMade(self) -> None:
        assert self.transport is not None
        if ISSLTransport.providedBy(self.transport):
            # It would take a whole handshake to tell it.
            self.transport.abortConnection()
            return
        write_problem(self.transport, HTTPProblem(503, "too-many-connections", self._why + "."))
        self.transport.loseConnection()


def write_problem(transport: Any, problem: HTTPProblem) -> None:
    """Answer in the middle of a request, past Twisted's queue of requests. The connection is to be ended."""
    answer = problem.response()
    head = b"HTTP/1.1 %d %b\r\nConnection: close\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (
        answer.status,
        problem.phrase.encode("ascii"),
        answer.content_type,
        len(answer.body),
    )
    transport.write(head + answer.body)
