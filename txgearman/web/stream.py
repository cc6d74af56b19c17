"""Server-sent events to one reader, of bounded memory however slowly that reads. No meaning of events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request
from zope.interface import implementer

from txgearman.web.answers import to_json
from txgearman.web.body import STALLED, cut_off

EVENT_STREAM: Final = b"text/event-stream"

MAX_UNSENT: Final = 16 * 1024 * 1024
"""Bytes that may wait for a reader that does not take them; then its connection is ended."""

HEARTBEAT: Final = 15.0
"""Seconds between signs of life. Proxies end connections that are silent for a minute. As often it is looked
whether the reader has taken nothing for `STALLED`, and is to be cut off."""


@implementer(IPushProducer)
class EventStream:
    """An answer that goes on. `paused` is true while the reader does not take what it was sent.

    `on_gone` is called once when the reader has gone, or did not read, and not when `end` was called.
    """

    def __init__(self, request: Request, reactor: IReactorTime, on_gone: Callable[[], None]) -> None:
        self.paused = False
        self._request = request
        self._reactor = reactor
        self._on_gone = on_gone
        self._waiting: list[bytes] = []
        self._unsent = 0
        self._live = True
        self._paused_at = 0.0
        self._beat: IDelayedCall = reactor.callLater(HEARTBEAT, self._send_sign_of_life)
        _set_headers(request)
        request.notifyFinish().addErrback(self._gone)
        request.registerProducer(self, True)
        # So that the reader learns at once that it is connected.
        self._write(b": txgearman\n\n")

    def send(self, event: str, value: Any) -> None:
        """Send an event; `value` is written as JSON, which has no line ends."""
        if self._live:
            self._write(b"event: %b\ndata: %b\n\n" % (event.encode("ascii"), to_json(value)))

    def end(self) -> None:
        """Nothing follows."""
        if not self._live:
            return
        self._stop()
        if self._waiting:
            self._request.write(b"".join(self._waiting))
        self._request.unregisterProducer()
        self._request.finish()

    def _write(self, data: bytes) -> None:
        if not self.paused:
            self._request.write(data)
            return
        self._waiting.append(data)
        self._unsent += len(data)
        if self._unsent > MAX_UNSENT:
            cut_off(self._request)

    def _send_sign_of_life(self) -> None:
        self._beat = self._reactor.callLater(HEARTBEAT, self._send_sign_of_life)
        if not self.paused:
            self._request.write(b":\n\n")
        elif self._reactor.seconds() - self._paused_at >= STALLED:
            cut_off(self._request)

    def _gone(self, _reason: Failure) -> None:
        if self._live:
            self._stop()
            self._waiting.clear()
            self._on_gone()

    def _stop(self) -> None:
        self._live = False
        if self._beat.active():
            self._beat.cancel()

    # -- the transport's calls ------------------------------------------------------------------

    def pauseProducing(self) -> None:
        if not self.paused:
            self._paused_at = self._reactor.seconds()
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        waiting, self._waiting, self._unsent = self._waiting, [], 0
        if waiting and self._live:
            self._request.write(b"".join(waiting))

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
