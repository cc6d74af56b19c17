"""Whether a transport takes more bytes, and waiting until it does. What is sent is others' business."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer


@implementer(IPushProducer)
class Flow:
    """Hears from `transport` when it has enough, 64 KiB with Twisted's sockets, and when it wants more.

    Until `end` it is the transport's producer.
    """

    def __init__(self, transport: IConsumer) -> None:
        self._transport = transport
        self._full = False
        self._ended = False
        self._waiters: list[Deferred[None]] = []
        transport.registerProducer(self, True)

    def room(self) -> Deferred[None]:
        """Fires when the transport takes more, and when there is none any more.

        To cancel ends only the own waiting.
        """
        if not self._full or self._ended:
            return succeed(None)
        waiter: Deferred[None] = Deferred(self._waiters.remove)
        self._waiters.append(waiter)
        return waiter

    def end(self) -> None:
        """The transport is used no more."""
        self._ended = True
        # A transport with a producer would wait for that before it closes.
        self._transport.unregisterProducer()
        self._wake()

    def pauseProducing(self) -> None:
        self._full = True

    def resumeProducing(self) -> None:
        self._full = False
        self._wake()

    def stopProducing(self) -> None:
        """The connection is lost, which its protocol hears too and says by `end`."""

    def _wake(self) -> None:
        # One that was woken may fill it again.
        while self._waiters and (self._ended or not self._full):
            self._waiters.pop(0).callback(None)
