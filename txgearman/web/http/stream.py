"""Server-sent events to one reader, in bounded memory however slowly it reads. Nothing about jobs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request
from zope.interface import implementer

from txgearman.web.http.body import PIECE, STALLED, budget_of, cut_off, queue_of
from txgearman.web.http.encoding import payload, payload_pieces
from txgearman.web.http.responses import to_json

EVENT_STREAM: Final = b"text/event-stream"

MAX_UNSENT: Final = 16 * 1024 * 1024
"""Bytes that may wait for a reader. Over this limit its connection is ended. A payload waits as it came. It
becomes JSON, of up to six times as many bytes, as the reader takes it. The event that is being written does
not count, so a result of any size reaches a reader that reads."""

HEARTBEAT: Final = 15.0
"""Seconds between heartbeats. Proxies end connections that are silent for a minute. A heartbeat also cuts off
a reader that has taken nothing for `STALLED`, or for this time while more than `MAX_UNSENT` waits for it."""

AT_ONCE: Final = 4 * 1024
"""Bytes of a payload up to which it becomes JSON when it comes: for so few that costs less than queueing."""


@implementer(IPushProducer)
class EventStream:
    """A response of events, with backpressure: `paused` is true while the reader does not read.

    Args:
        request: The request to respond to.
        reactor: The clock.
        on_gone: Called once when the reader has gone or was cut off; not after `end`.
    """

    def __init__(self, request: Request, reactor: IReactorTime, on_gone: Callable[[], None]) -> None:
        self.paused = False
        self._request = request
        self._reactor = reactor
        self._on_gone: Callable[[], None] | None = on_gone
        # The events to write, each with its number of bytes in the queue. A payload becomes JSON as it is
        # written.
        self._events: deque[tuple[int, Iterator[bytes]]] = deque()
        self._budget = budget_of(request)
        self._queue = queue_of(request)
        # Bytes of the event that is being written.
        self._under_way = 0
        self._ending = False
        self._is_over = False
        self._paused_at = 0.0
        self._writing: IDelayedCall | None = None
        self._beat: IDelayedCall = reactor.callLater(HEARTBEAT, self._send_heartbeat)
        _set_headers(request)
        request.notifyFinish().addErrback(self._gone)
        request.registerProducer(self, True)
        # So that the reader learns at once that it is connected.
        self._send(b": txgearman\n\n")

    def send(self, event: str, value: Any) -> None:
        """Send an event with a value as JSON, which has no line ends."""
        self._send(b"event: %b\ndata: %b\n\n" % (event.encode("ascii"), to_json(value)))

    def send_payload(self, event: str, data: bytes) -> None:
        """Send an event with bytes, written as `encoding.payload` does."""
        if len(data) <= AT_ONCE:
            self.send(event, payload(data))
        else:
            self._wait(data, _pieces_of_event(event, data))

    def end(self) -> None:
        """Finish the response after the events that wait."""
        self._on_gone = None
        self._ending = True
        if not self._events:
            self._finish()

    # -- writing --------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        if len(data) <= PIECE and not (self.paused or self._events or self._is_over):
            self._request.write(data)
        else:
            self._wait(data, _cut(data))

    def _wait(self, data: bytes, pieces: Iterator[bytes]) -> None:
        """Write `pieces`, which are made of `data`, as the reader takes them."""
        if self._is_over:
            return
        if self.paused or self._events:
            behind = self._queue.size - self._under_way + len(data)
            if behind > MAX_UNSENT:
                cut_off(self._request)
                return
        self._queue.append(data)
        self._events.append((len(data), pieces))
        if not self.paused and self._writing is None:
            self._write()
        self._budget.enforce()

    def _write(self) -> None:
        """Write about `PIECE`, and the rest in later turns of the reactor: making JSON takes time."""
        self._writing = None
        written = 0
        while self._events and not (self.paused or self._is_over):
            self._under_way, pieces = self._events[0]
            piece = next(pieces, None)
            if piece is None:
                self._events.popleft()
                self._queue.skip(self._under_way)
                self._under_way = 0
                continue
            if piece:
                self._request.write(piece)
                written += len(piece)
                if written < PIECE:
                    continue
            self._writing = self._reactor.callLater(0, self._write)
            return
        if self._ending and not self._events:
            self._finish()

    def _finish(self) -> None:
        if not self._is_over:
            self._stop()
            self._request.unregisterProducer()
            self._request.finish()

    def _send_heartbeat(self) -> None:
        self._beat = self._reactor.callLater(HEARTBEAT, self._send_heartbeat)
        if not self.paused:
            if not self._events:
                self._request.write(b":\n\n")
            return
        patience = STALLED if self._queue.size <= MAX_UNSENT else HEARTBEAT
        if self._reactor.seconds() - self._paused_at >= patience:
            cut_off(self._request)

    # -- the end --------------------------------------------------------------------------------

    def _gone(self, _reason: Failure) -> None:
        self._stop()
        # The callback refers to this stream.
        on_gone, self._on_gone = self._on_gone, None
        if on_gone is not None:
            on_gone()

    def _stop(self) -> None:
        self._is_over = True
        self._events.clear()
        self._queue.clear()
        for call in (self._beat, self._writing):
            if call is not None and call.active():
                call.cancel()
        self._writing = None

    # -- the transport's calls ------------------------------------------------------------------

    def pauseProducing(self) -> None:
        if not self.paused:
            self._paused_at = self._reactor.seconds()
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        if self._writing is None:
            self._write()

    def stopProducing(self) -> None:
        """The reader is gone; `notifyFinish` says so too."""


def send_stream_head(request: Request) -> None:
    """Respond to HEAD: send the headers of an event stream, and finish the request."""
    _set_headers(request)
    request.finish()


def _set_headers(request: Request) -> None:
    request.setHeader(b"Content-Type", EVENT_STREAM)
    # Without it nginx buffers events.
    request.setHeader(b"X-Accel-Buffering", b"no")


def _cut(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]


def _pieces_of_event(event: str, data: bytes) -> Iterator[bytes]:
    yield b"event: %b\ndata: " % event.encode("ascii")
    yield from payload_pieces(data)
    yield b"\n\n"
