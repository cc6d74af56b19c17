"""Large bodies, sent as the reader takes them: without this backpressure slow readers would fill memory."""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request
from zope.interface import implementer

from txgearman.web.interfaces import SendBudget, SendQueue

PIECE: Final = 64 * 1024
"""Bytes that are written at a time. A body that is not larger is written at once."""

STALLED: Final = 60.0
"""Seconds in which a reader must take some of what it is sent. Then its connection is ended."""


def send_queue(request: Request, queue: SendQueue, reactor: IReactorTime) -> None:
    """Send what is in `queue` as the whole body of a response whose head is set, and finish the request."""
    _Body(request, queue, reactor).begin()


def budget_of(request: Request) -> SendBudget:
    """The send budget that counts the bytes held for the peer of a request."""
    channel: Any = request.channel
    budget: SendBudget = channel.site.budget
    return budget


def queue_of(request: Request) -> SendQueue:
    """An empty queue of bytes for the peer of a request."""
    return budget_of(request).queue(request)


def cut_off(request: Request) -> None:
    """Abort the connection of a request. `loseConnection` would wait for the reader."""
    channel: Any = request.channel
    channel.transport.abortConnection()


@implementer(IPushProducer)
class _Body:
    def __init__(self, request: Request, queue: SendQueue, reactor: IReactorTime) -> None:
        self._request = request
        self._queue = queue
        self._budget = budget_of(request)
        self._reactor = reactor
        self._paused = False
        self._is_gone = False
        self._limit: IDelayedCall | None = None

    def begin(self) -> None:
        """Send the first pieces."""
        self._request.notifyFinish().addErrback(self._gone)
        self._request.registerProducer(self, True)
        self.resumeProducing()
        self._budget.enforce()

    def resumeProducing(self) -> None:
        if self._is_gone:
            return
        self._paused = False
        self._stop_waiting()
        while not self._paused and self._queue:
            self._request.write(self._queue.take(PIECE))
        if self._queue:
            self._limit = self._reactor.callLater(STALLED, cut_off, self._request)
        else:
            self._request.unregisterProducer()
            self._request.finish()

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        """The reader is gone; `notifyFinish` says so too."""

    def _gone(self, _reason: Failure) -> None:
        self._is_gone = True
        self._queue.clear()
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self._limit is not None and self._limit.active():
            self._limit.cancel()
        self._limit = None
