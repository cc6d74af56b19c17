"""Server-sent events to one reader, of bounded memory however slowly that reads. No meaning of events."""

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
"""Bytes that may wait for a reader that does not take them; then its connection is ended. A payload waits as
it came, and becomes JSON as the reader takes it: that has up to six times as many bytes. The event that is
being written does not count: a result of any size reaches a reader who reads."""

HEARTBEAT: Final = 15.0
"""Seconds between signs of life. Proxies end connections that are silent for a minute. As often it is looked
whether the reader has taken nothing for `STALLED`, and is to be cut off. With more than `MAX_UNSENT` waiting
it has only this long."""

AT_ONCE: Final = 4 * 1024
"""Bytes of a payload up to which it becomes JSON when it comes. Below, that is less than to remember it."""


@implementer(IPushProducer)
class EventStream:
    """A response that goes on. `paused` is true while the reader does not take what it was sent.

    `on_gone` is called once when the reader has gone, or did not read, and not when `end` was called.
    """

    def __init__(self, request: Request, reactor: IReactorTime, on_gone: Callable[[], None]) -> None:
        self.paused = False
        self._request = request
        self._reactor = reactor
        self._on_gone: Callable[[], None] | None = on_gone
        # What is to be written, and of how many bytes of the queue each is made. JSON is made of a payload
        # as it is written.
        self._events: deque[tuple[int, Iterator[bytes]]] = deque()
        self._budget = budget_of(request)
        self._queue = queue_of(request)
        # Bytes of the event that is being written.
        self._under_way = 0
        self._ending = False
        self._is_over = False
        self._paused_at = 0.0
        self._writing: IDelayedCall | None = None
        self._beat: IDelayedCall = reactor.callLater(HEARTBEAT, self._send_sign_of_life)
        _set_headers(request)
        request.notifyFinish().addErrback(self._gone)
        request.registerProducer(self, True)
        # So that the reader learns at once that it is connected.
        self._send(b": txgearman\n\n")

    def send(self, event: str, value: Any) -> None:
        """Send an event; `value` is written as JSON, which has no line ends."""
        self._send(b"event: %b\ndata: %b\n\n" % (event.encode("ascii"), to_json(value)))

    def send_payload(self, event: str, data: bytes) -> None:
        """Send an event with `data` as `payload` shows it."""
        if len(data) <= AT_ONCE:
            self.send(event, payload(data))
        else:
            self._wait(data, _pieces_of_event(event, data))

    def end(self) -> None:
        """Nothing follows."""
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
        """Write about `PIECE`, and the rest in the next turns: to make it takes time."""
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

    def _send_sign_of_life(self) -> None:
        self._beat = self._reactor.callLater(HEARTBEAT, self._send_sign_of_life)
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
        # It refers to this stream.
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
    """Answer HEAD: send what is ahead of the events, and finish the request."""
    _set_headers(request)
    request.finish()


def _set_headers(request: Request) -> None:
    request.setHeader(b"Content-Type", EVENT_STREAM)
    # nginx would hold events back otherwise.
    request.setHeader(b"X-Accel-Buffering", b"no")


def _cut(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]


def _pieces_of_event(event: str, data: bytes) -> Iterator[bytes]:
    yield b"event: %b\ndata: " % event.encode("ascii")
    yield from payload_pieces(data)
    yield b"\n\n"
