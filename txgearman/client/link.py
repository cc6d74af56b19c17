"""One server as the client sees it: a connection made when it is needed, and again after its loss.

Knows nothing of jobs.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.python.failure import Failure

from txgearman.client.protocol import ClientProtocol
from txgearman.connection.protocol import PacketFactory
from txgearman.errors import NotConnected


class Link:
    """Keeps at most one connection to `endpoint`.

    `protocol` is the live connection, None without one. A lost connection is not made again until
    somebody calls `connect`.
    """

    def __init__(self, clock: IReactorTime, endpoint: IStreamClientEndpoint, max_packet: int) -> None:
        self.protocol: ClientProtocol | None = None
        self._clock = clock
        self._endpoint = endpoint
        self._max_packet = max_packet
        self._attempt: Deferred[Any] | None = None
        self._waiters: list[Deferred[ClientProtocol]] = []
        self._last: ClientProtocol | None = None
        self._closed = False

    def connect(self) -> Deferred[ClientProtocol]:
        """The live connection, made if there is none.

        Those who ask while it is being made share one attempt; to cancel ends only the own waiting.
        Fails with `NotConnected`.
        """
        if self._closed:
            return fail(NotConnected("the client is closed"))
        if self.protocol is not None:
            return succeed(self.protocol)
        waiter: Deferred[ClientProtocol] = Deferred()
        self._waiters.append(waiter)
        if self._attempt is None:
            self._start()
        return waiter

    def close(self) -> Deferred[None]:
        """End the connection, or the attempt at one, for good. Fires when it is gone."""
        self._closed = True
        if self._attempt is not None:
            self._attempt.cancel()
        return succeed(None) if self._last is None else self._last.close("the client was closed")

    def _start(self) -> None:
        factory = PacketFactory(lambda: ClientProtocol(self._clock, self._max_packet, self._ended))
        self._attempt = self._endpoint.connect(factory)
        self._attempt.addCallbacks(self._connected, self._failed)

    def _connected(self, protocol: ClientProtocol) -> None:
        self._attempt = None
        self._last = protocol
        if self._closed:
            protocol.close("the client was closed")
        elif protocol.open:
            self.protocol = protocol
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            # Those before it may have closed the client.
            if self.protocol is protocol:
                waiter.callback(protocol)
            else:
                waiter.errback(NotConnected("the connection ended as soon as it was made"))

    def _failed(self, failure: Failure) -> None:
        self._attempt = None
        why = "the client was closed" if self._closed else failure.getErrorMessage()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            error = NotConnected(f"no connection to the server: {why}")
            error.__cause__ = failure.value
            waiter.errback(error)

    def _ended(self, protocol: ClientProtocol) -> None:
        if self.protocol is protocol:
            self.protocol = None
