"""A worker's connection to one server: kept up, and drained at the end.

What is said on it is in `protocol`.
"""

from __future__ import annotations

from twisted.application.internet import ClientService
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from txgearman.connection.backoff import RetryPolicy
from txgearman.connection.protocol import PacketFactory
from txgearman.connection.shield import shield
from txgearman.errors import ServerError
from txgearman.worker.functions import Function
from txgearman.worker.protocol import ConnectionConfig, WorkerProtocol


class ServerConnection:
    """A connection to the server at `endpoint`, which is made again when it is lost."""

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: IStreamClientEndpoint,
        config: ConnectionConfig,
        retry_policy: RetryPolicy,
        max_packet: int,
    ) -> None:
        self._clock = clock
        self._config = config
        self._max_packet = max_packet
        self._protocol: WorkerProtocol | None = None
        # The newest one; it may be on its way out.
        self._last_protocol: WorkerProtocol | None = None
        self._drained: Deferred[None] | None = None
        # What the server has refused of the first introduction, once it has answered that.
        self._introduction: tuple[ServerError | None] | None = None
        self._waiters: list[Deferred[ServerError | None]] = []
        self._service = ClientService(endpoint, PacketFactory(self._build), retry_policy, clock)

    def start(self) -> None:
        """Connect, and keep connected. Does nothing if it does that already."""
        if not self._service.running:
            self._drained = None
            self._introduction = None
            self._service.startService()

    def when_introduced(self) -> Deferred[ServerError | None]:
        """Wait until the server has answered the worker's introduction, on whichever connection.

        Returns:
            A Deferred of the first thing that the server has refused, None if that is nothing. It fails with
            `CancelledError` if this is drained before.
        """
        if self._introduction is not None:
            return succeed(self._introduction[0])
        waiter: Deferred[ServerError | None] = Deferred()
        self._waiters.append(waiter)
        return waiter

    def announce(self, function: Function) -> None:
        """Offer a function from now on."""
        if self._protocol is not None:
            self._protocol.announce(function)

    def withdraw(self, name: bytes) -> None:
        """Stop offering a function."""
        if self._protocol is not None:
            self._protocol.withdraw(name)

    def drain(self) -> Deferred[None]:
        """Disconnect once no job runs on the connection and no pending grab can bring one.

        Returns:
            A Deferred that fires when the connection is gone.
        """
        if self._drained is None:
            self._drained = Deferred()
            if self._protocol is None:
                self._disconnect()
            else:
                self._protocol.when_idle(self._disconnect)
        return shield(self._drained)

    def disconnect(self) -> None:
        """End a drain: disconnect at once."""
        if self._protocol is not None:
            self._disconnect()

    def _disconnect(self) -> None:
        drained = self._drained
        assert drained is not None
        self._protocol = None
        # Not by the end of the service's own stop, inside of which it could not be started again.
        last = self._last_protocol
        gone = succeed(None) if last is None else last.close("the worker was stopped")
        self._service.stopService()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.cancel()
        gone.addBoth(_fire, drained)

    def _build(self) -> WorkerProtocol:
        return WorkerProtocol(
            self._clock, self._max_packet, self._config, self._opened, self._introduced, self._ended
        )

    def _opened(self, protocol: WorkerProtocol) -> None:
        self._protocol = self._last_protocol = protocol

    def _introduced(self, refusal: ServerError | None) -> None:
        self._introduction = (refusal,)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(refusal)

    def _ended(self, protocol: WorkerProtocol) -> None:
        if self._protocol is protocol:
            self._protocol = None
            if self._drained is not None:
                # Its jobs are gone with it, and it must not be made again.
                self._disconnect()


def _fire(_: object, drained: Deferred[None]) -> None:
    # A drain that was cut short ends twice.
    if not drained.called:
        drained.callback(None)
