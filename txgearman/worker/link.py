"""Keeping one connection of a worker, and letting it go. What is said on it is in `protocol`."""

from __future__ import annotations

from twisted.application.internet import ClientService
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from txgearman.connection.backoff import RetryPolicy
from txgearman.connection.protocol import PacketFactory
from txgearman.connection.shield import shield
from txgearman.worker.functions import Function
from txgearman.worker.protocol import Offer, WorkerProtocol


class Link:
    """A connection to the server at `endpoint`, which makes `offer`. It is made again when it is lost."""

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: IStreamClientEndpoint,
        offer: Offer,
        retry_policy: RetryPolicy,
        max_packet: int,
    ) -> None:
        self._clock = clock
        self._offer = offer
        self._max_packet = max_packet
        self._protocol: WorkerProtocol | None = None
        # It may be on its way out.
        self._last: WorkerProtocol | None = None
        self._released: Deferred[None] | None = None
        self._connector = ClientService(endpoint, PacketFactory(self._build), retry_policy, clock)

    def start(self) -> None:
        """Connect, and keep connected; nothing new if it does already."""
        if not self._connector.running:
            self._released = None
            self._connector.startService()

    def connected(self) -> Deferred[None]:
        """Fires once there is a connection; fails if it is let go before."""
        return self._connector.whenConnected().addCallback(lambda _: None)

    def announce(self, function: Function) -> None:
        """Offer a function from now on."""
        if self._protocol is not None:
            self._protocol.announce(function)

    def withdraw(self, name: bytes) -> None:
        """Offer a function no more."""
        if self._protocol is not None:
            self._protocol.withdraw(name)

    def release(self) -> Deferred[None]:
        """Disconnect when no job runs on the connection, or may still come. Fires when it is gone."""
        if self._released is None:
            self._released = Deferred()
            if self._protocol is None:
                self._let_go()
            else:
                self._protocol.when_idle(self._let_go)
        return shield(self._released)

    def cut(self) -> None:
        """Disconnect at once, behind `release`."""
        if self._protocol is not None:
            self._let_go()

    def _let_go(self) -> None:
        released = self._released
        assert released is not None
        self._protocol = None
        # Not by the end of the service itself, inside of which it could not be started again.
        gone = succeed(None) if self._last is None else self._last.close("the worker was stopped")
        self._connector.stopService()
        gone.addBoth(_fire, released)

    def _build(self) -> WorkerProtocol:
        return WorkerProtocol(self._clock, self._max_packet, self._offer, self._opened, self._ended)

    def _opened(self, protocol: WorkerProtocol) -> None:
        self._protocol = self._last = protocol

    def _ended(self, protocol: WorkerProtocol) -> None:
        if self._protocol is protocol:
            self._protocol = None
            if self._released is not None:
                # Nothing runs on it any more, and it must not be made again.
                self._let_go()


def _fire(_: object, released: Deferred[None]) -> None:
    # What was cut ends twice.
    if not released.called:
        released.callback(None)
