"""Backpressure: whether a transport takes more bytes, and waiting until it does. Nothing is sent here."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer


@implementer(IPushProducer)
class Backpressure:
    """The producer of `transport` until `close`.

    A transport pauses its producer when it has enough to send, 64 KiB with Twisted's sockets, and resumes it
    when it wants more.
    """

    def __init__(self, transport: IConsumer) -> None:
        self._transport = transport
        self._paused = False
        self._closed = False
        self._waiters: list[Deferred[None]] = []
        transport.registerProducer(self, True)

    def writable(self) -> Deferred[None]:
        """Wait until the transport takes more bytes.

        Returns:
            A Deferred that fires then, or when the connection has ended. Cancelling it ends this wait alone.
        """
        if not self._paused or self._closed:
            return succeed(None)
        waiter: Deferred[None] = Deferred(self._waiters.remove)
        self._waiters.append(waiter)
        return waiter

    def close(self) -> None:
        """The transport is used no more."""
        self._closed = True
        # A transport waits for its producer before it closes.
        self._transport.unregisterProducer()
        self._wake()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._wake()

    def stopProducing(self) -> None:
        """The connection is lost. Its protocol hears that too, and calls `close`."""

    def _wake(self) -> None:
        # A woken caller may write, and pause the transport again.
        while self._waiters and (self._closed or not self._paused):
            self._waiters.pop(0).callback(None)
