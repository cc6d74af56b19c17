"""The connection to one server: made when it is needed, and again after its loss.

Nothing here knows of jobs or of other servers.

Twisted's `ClientService`, which the worker uses, does not fit. It has no way to attempt at once during a
backoff, to stay down until somebody asks, or to tell of failed attempts, and its state machine raises
`NoTransition` for a connection that is lost while it is made or probed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from txgearman.connection.backoff import RetryPolicy
from txgearman.connection.protocol import PacketFactory
from txgearman.errors import NotConnected


class ManagedProtocol(Protocol):
    """What a connector needs of a protocol.

    Attributes:
        open: Whether requests can be sent.
        hung: Whether the connection ended because the server hung.
    """

    open: bool
    hung: bool

    def close(self, why: str) -> Deferred[None]:
        """End the connection. Fires when it is gone."""
        ...


_P = TypeVar("_P", bound=ManagedProtocol)


class Connector(Generic[_P]):
    """Keeps at most one connection to a server.

    The first connection is made when somebody calls `connect`. From then on, with a retry policy, a lost
    connection is made again and a failed attempt is repeated after a backoff. Without a policy only `connect`
    does that. `connect` does not wait for the end of a backoff.

    The system of a hung server still accepts connections. So after a connection that was lost because the
    server hung, the next one is used only once its probe has fired.

    Args:
        clock: Times the backoff.
        endpoint: Where the server is.
        build: Makes the protocol of a connection. The protocol calls what `build` is given, with itself, when
            it cannot be used any more.
        name: The server's name.
        retry_policy: Says how long each backoff is.
        probe: Called with a protocol; fires when its server has shown that it does not hang.

    Attributes:
        name: The server's name.
        protocol: The protocol of the live connection, None without one.
        down: Whether there is no connection, and by the newest news of the server there cannot be one.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: IStreamClientEndpoint,
        build: Callable[[Callable[[_P], object]], _P],
        *,
        name: str = "",
        retry_policy: RetryPolicy | None = None,
        probe: Callable[[_P], Deferred[Any]] | None = None,
    ) -> None:
        self.name = name
        self.protocol: _P | None = None
        self.down = False
        self._clock = clock
        self._endpoint = endpoint
        self._factory = PacketFactory(lambda: build(self._ended))
        self._retry_policy = retry_policy
        self._probe = probe
        self._hung = False
        self._failures = 0
        self._backoff: IDelayedCall | None = None
        self._attempt: Deferred[Any] | None = None
        self._waiters: list[Deferred[_P]] = []
        self._persistent_waiters: list[Deferred[_P]] = []
        self._last_protocol: _P | None = None
        self._closed = False

    @property
    def connecting(self) -> bool:
        """Whether an attempt is under way."""
        return self._attempt is not None

    def connect(self) -> Deferred[_P]:
        """The live connection, made at once if there is none. Concurrent callers share one attempt.

        Returns:
            A Deferred of its protocol. It fails with `NotConnected` if the attempt fails. Cancelling it ends
            this wait alone.
        """
        if self._closed:
            return fail(_closed())
        if self.protocol is not None:
            return succeed(self.protocol)
        waiter: Deferred[_P] = Deferred()
        self._waiters.append(waiter)
        if self._attempt is None:
            self._start_attempt()
        return waiter

    def when_connected(self) -> Deferred[_P]:
        """The next live connection, however many attempts it takes. It needs a retry policy.

        Returns:
            A Deferred of its protocol. It fails with `NotConnected` only when the connector is closed.
            Cancelling it ends this wait alone.
        """
        if self._closed:
            return fail(_closed())
        if self.protocol is not None:
            return succeed(self.protocol)
        waiter: Deferred[_P] = Deferred(self._forget)
        self._persistent_waiters.append(waiter)
        if self._attempt is None and self._backoff is None:
            self._start_attempt()
        return waiter

    def close(self) -> Deferred[None]:
        """End the connection, or the attempt at one, for good.

        Returns:
            A Deferred that fires when the connection is gone.
        """
        self._closed = True
        self._stop_backoff()
        if self._attempt is not None:
            self._attempt.cancel()
        waiters, self._persistent_waiters = self._persistent_waiters, []
        for waiter in waiters:
            waiter.errback(_closed())
        return (
            succeed(None)
            if self._last_protocol is None
            else self._last_protocol.close("the client was closed")
        )

    def _start_attempt(self) -> None:
        self._stop_backoff()
        # A user's own endpoint may raise.
        attempt: Deferred[Any] = maybeDeferred(self._endpoint.connect, self._factory)
        self._attempt = attempt
        if self._hung and self._probe is not None:
            attempt.addCallback(self._probed, self._probe)
        attempt.addCallbacks(self._connected, self._failed)

    def _probed(self, protocol: _P, probe: Callable[[_P], Deferred[Any]]) -> Deferred[_P]:
        """The protocol, once its server has shown that it does not hang."""
        self._last_protocol = protocol
        return probe(protocol).addCallback(lambda _: protocol)

    def _connected(self, protocol: _P) -> None:
        self._attempt = None
        self._hung = False
        self._last_protocol = protocol
        if self._closed:
            protocol.close("the client was closed")
        elif protocol.open:
            self._failures = 0
            self.down = False
            self.protocol = protocol
        else:
            self._retry()
        waiters, self._waiters = self._waiters, []
        if self.protocol is not None:
            waiters += self._persistent_waiters
            self._persistent_waiters = []
        for waiter in waiters:
            # A waiter before this one may have closed the client.
            if self.protocol is protocol:
                waiter.callback(protocol)
            else:
                waiter.errback(NotConnected("the connection ended as soon as it was made"))

    def _failed(self, failure: Failure) -> None:
        self._attempt = None
        why = "the client was closed" if self._closed else failure.getErrorMessage()
        if not self.down and not self._closed:
            self._log.info("No connection to the server {server}: {why}", server=self.name, why=why)
        self._retry()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            error = NotConnected(f"no connection to the server: {why}")
            error.__cause__ = failure.value
            waiter.errback(error)

    def _ended(self, protocol: _P) -> None:
        if self.protocol is protocol:
            self.protocol = None
            self._hung = protocol.hung
            self._retry()

    def _retry(self) -> None:
        """The connection was lost, or the attempt failed: try again after a backoff."""
        self.down = True
        if self._retry_policy is not None and not self._closed:
            self._backoff = self._clock.callLater(self._retry_policy(self._failures), self._start_attempt)
            self._failures += 1

    def _stop_backoff(self) -> None:
        backoff, self._backoff = self._backoff, None
        if backoff is not None and backoff.active():
            backoff.cancel()

    def _forget(self, waiter: Deferred[_P]) -> None:
        if waiter in self._persistent_waiters:
            self._persistent_waiters.remove(waiter)


def _closed() -> NotConnected:
    return NotConnected("the client is closed")
