"""One server as its users see it: a connection made when it is needed, and again after its loss.

Knows nothing of jobs, and nothing of other servers.
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


class Ends(Protocol):
    """What a link needs of a protocol: whether it can be used, whether it ended as the server hung, and to
    end it."""

    open: bool
    hung: bool

    def close(self, why: str) -> Deferred[None]: ...


_P = TypeVar("_P", bound=Ends)


class Link(Generic[_P]):
    """Keeps at most one connection to `endpoint`.

    `build` makes its protocol; it is given what the protocol shall call, with itself, when it cannot be
    used any more. `name` is what the server is called. `protocol` is the live connection, None without
    one.

    A connection is first made when somebody calls `connect`. From then on, with a `retry_policy`, a lost
    connection is made again and a failed attempt repeated: it takes the number of attempts that failed
    since the last connection, and returns seconds to wait. Without one only `connect` does that. To
    `connect` does not wait for the end of such a backoff.

    A server that hangs still takes connections: its system does. So behind one that was lost as the server
    hung the next counts only when `trial`, called with the protocol, fires.
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
        trial: Callable[[_P], Deferred[Any]] | None = None,
    ) -> None:
        self.name = name
        self.protocol: _P | None = None
        self.down = False
        """Whether there is no connection, and the newest news of the server is that there cannot be one."""
        self._clock = clock
        self._endpoint = endpoint
        self._factory = PacketFactory(lambda: build(self._ended))
        self._retry_policy = retry_policy
        self._trial = trial
        self._hung = False
        self._failures = 0
        self._backoff: IDelayedCall | None = None
        self._attempt: Deferred[Any] | None = None
        self._waiters: list[Deferred[_P]] = []
        self._patient: list[Deferred[_P]] = []
        self._last: _P | None = None
        self._closed = False

    @property
    def connecting(self) -> bool:
        """Whether an attempt is under way."""
        return self._attempt is not None

    def connect(self) -> Deferred[_P]:
        """The live connection, made if there is none.

        Those who ask while it is being made share one attempt; to cancel ends only the own waiting.
        Fails with `NotConnected`.
        """
        if self._closed:
            return fail(_closed())
        if self.protocol is not None:
            return succeed(self.protocol)
        waiter: Deferred[_P] = Deferred()
        self._waiters.append(waiter)
        if self._attempt is None:
            self._start()
        return waiter

    def wait(self) -> Deferred[_P]:
        """The next live connection, however many attempts it takes; it needs a retry policy.

        Fails with `NotConnected` only when the link is closed. To cancel ends only the own waiting.
        """
        if self._closed:
            return fail(_closed())
        if self.protocol is not None:
            return succeed(self.protocol)
        waiter: Deferred[_P] = Deferred(self._forget)
        self._patient.append(waiter)
        if self._attempt is None and self._backoff is None:
            self._start()
        return waiter

    def close(self) -> Deferred[None]:
        """End the connection, or the attempt at one, for good. Fires when it is gone."""
        self._closed = True
        self._stop_backoff()
        if self._attempt is not None:
            self._attempt.cancel()
        patient, self._patient = self._patient, []
        for waiter in patient:
            waiter.errback(_closed())
        return succeed(None) if self._last is None else self._last.close("the client was closed")

    def _start(self) -> None:
        self._stop_backoff()
        # An endpoint of the user's own may raise.
        attempt: Deferred[Any] = maybeDeferred(self._endpoint.connect, self._factory)
        self._attempt = attempt
        if self._hung and self._trial is not None:
            attempt.addCallback(self._try, self._trial)
        attempt.addCallbacks(self._connected, self._failed)

    def _try(self, protocol: _P, trial: Callable[[_P], Deferred[Any]]) -> Deferred[_P]:
        """The protocol, once its server has shown that it does not hang."""
        self._last = protocol
        return trial(protocol).addCallback(lambda _: protocol)

    def _connected(self, protocol: _P) -> None:
        self._attempt = None
        self._hung = False
        self._last = protocol
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
            waiters += self._patient
            self._patient = []
        for waiter in waiters:
            # Those before it may have closed the client.
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
        """The connection or an attempt at it was lost: try again after a backoff."""
        self.down = True
        if self._retry_policy is not None and not self._closed:
            self._backoff = self._clock.callLater(self._retry_policy(self._failures), self._start)
            self._failures += 1

    def _stop_backoff(self) -> None:
        backoff, self._backoff = self._backoff, None
        if backoff is not None and backoff.active():
            backoff.cancel()

    def _forget(self, waiter: Deferred[_P]) -> None:
        if waiter in self._patient:
            self._patient.remove(waiter)


def _closed() -> NotConnected:
    return NotConnected("the client is closed")
