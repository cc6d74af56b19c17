"""Routing: which of several servers a request goes to, and where it fails over to.

This knows the connectors of the servers. What a request asks is up to its caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeGuard, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from txgearman.client.connector import Connector
from txgearman.client.hashing import score
from txgearman.client.protocol import ClientProtocol
from txgearman.client.send_budget import SendBudget
from txgearman.connection.shield import shield
from txgearman.errors import ClientError, ConnectionLost, NotConnected, ServerError, ShuttingDown

_T = TypeVar("_T")

Server = Connector[ClientProtocol]
Ask = Callable[[ClientProtocol], Deferred[_T]]

CONNECT_PATIENCE: Final = 5.0
"""Seconds for which a request waits for the first connection to its server before it fails over. Far more
than a connection takes on a network that works."""

_SHUTTING_DOWN_CODE: Final = ShuttingDown.code.decode()


class Dispatch:
    """Sends requests to servers: with a routing key always to the same, without one to each in turn.

    Servers that are known to be down are passed over while another is up. Where none is up, all are tried at
    once, whatever backoff they are in.

    Args:
        clock: Times the waits.
        servers: The servers' connectors.
        budget: Charged for requests that wait for a connection.

    Attributes:
        servers: The servers' connectors.
        single: Whether there is one server only.
        closed: Whether `close` was called.
    """

    def __init__(self, clock: IReactorTime, servers: Sequence[Server], budget: SendBudget) -> None:
        self.servers = tuple(servers)
        self._budget = budget
        self.closed = False
        self._clock = clock
        self.single = len(self.servers) == 1
        self._connecting_all = False
        self._next_index = 0
        self._backoffs: set[Deferred[None]] = set()

    # -- connecting -----------------------------------------------------------------------------

    def connect(self) -> Deferred[Any]:
        """Connect to all servers.

        Returns:
            A Deferred that fires with the first connection. It fails with `NotConnected` if no attempt
            succeeds.
        """
        if self.single:
            return self.servers[0].connect()
        self._connecting_all = True
        return Deferred.fromCoroutine(self._first_connected(self.servers))

    async def when_connected(self, size: int) -> None:
        """Wait until a server is up, however many attempts that takes.

        Args:
            size: Bytes of the request that waits.

        Raises:
            NotConnected: The client was closed.
        """
        waiting = [server.when_connected() for server in self.servers]
        first: Deferred[Any] = DeferredList(waiting, fireOnOneCallback=True, consumeErrors=True)
        outcome = await self._budget.charged_until(size, first)
        if isinstance(outcome, tuple):
            for waiter in waiting:
                waiter.cancel()
        else:
            (_succeeded, failure), *_others = outcome
            raise failure.value

    async def back_off(self, size: int, seconds: float) -> None:
        """Wait before the next attempt.

        Args:
            size: Bytes of the request that waits.
            seconds: How long.

        Raises:
            NotConnected: The client was closed.
        """
        waiting: Deferred[None] = deferLater(self._clock, seconds)
        self._backoffs.add(waiting)
        try:
            await self._budget.charged_until(size, waiting)
        except CancelledError:
            if not self.closed:
                raise
            raise NotConnected("the client is closed") from None
        finally:
            self._backoffs.discard(waiting)

    def close(self) -> Deferred[None]:
        """End all connections for good.

        Returns:
            A Deferred that fires when they are gone. Cancelling it ends this wait alone.
        """
        # Set it first, so that a request that one server loses does not fail over to the other.
        self.closed = True
        for waiting in list(self._backoffs):
            waiting.cancel()
        return shield(DeferredList([server.close() for server in self.servers]))

    # -- sending --------------------------------------------------------------------------------

    def send(self, ask: Ask[_T], key: bytes | None, size: int) -> Deferred[_T]:
        """Send a request to the right server.

        It fails over to the next server, until each was asked once, if the connection is lost before the
        answer or cannot be made, or if the server says that it is shutting down.

        Args:
            ask: Sends the request on a connection.
            key: The routing key; None for none.
            size: Bytes of the request.

        Returns:
            What `ask` returns. It fails with `NotConnected` if nothing was sent to any server.
        """
        if self.single:
            protocol = self.servers[0].protocol
            if protocol is not None:
                return ask(protocol)
            return self._budget.charged_until(size, self.servers[0].connect()).addCallback(ask)
        server = self._preferred_server(key)
        if server is None or server.protocol is None:
            return Deferred.fromCoroutine(self._send(ask, key, size, set(), None))
        return ask(server.protocol).addErrback(self._fail_over_if_lost, ask, key, size, server)

    def fail_over(
        self, ask: Ask[_T], key: bytes | None, size: int, lost: Server, error: ClientError
    ) -> Deferred[_T]:
        """Send a request that a server has lost to the next server, as `send` does.

        Args:
            ask: Sends the request on a connection.
            key: The routing key; None for none.
            size: Bytes of the request.
            lost: The server that lost it.
            error: How it was lost.

        Returns:
            What `ask` returns. It fails with `error` if there is no other server.
        """
        return Deferred.fromCoroutine(self._send(ask, key, size, {lost}, error))

    def ensure_connected(self) -> Deferred[Any] | None:
        """Connect if there is no connection to any server.

        Returns:
            None if there is one. Otherwise a Deferred that fires with the first connection, and fails with
            `NotConnected` if no attempt succeeds.
        """
        if any(server.protocol is not None for server in self.servers):
            return None
        if self.single:
            return self.servers[0].connect()
        self._connect_to_all()
        return Deferred.fromCoroutine(self._first_connected(self.servers))

    def round_robin(self, count: int) -> dict[Server, slice]:
        """Spread requests without a key over the connected servers.

        Args:
            count: How many requests.

        Returns:
            Which of them go to which server.
        """
        live: list[Server] = []
        while (server := self._next_connected(self.servers)) is not None and server not in live:
            live.append(server)
        if not live:
            return {}
        self._next_index = self.servers.index(live[count % len(live)])
        return {server: slice(index, count, len(live)) for index, server in enumerate(live[:count])}

    def connected_server(self, key: bytes | None) -> Server | None:
        """The server to ask by this routing key, if it is connected; None where `send` must wait."""
        server = self.servers[0] if self.single else self._preferred_server(key)
        return None if server is None or server.protocol is None else server

    def ask_each(self, ask: Ask[_T]) -> dict[str, Deferred[_T]]:
        """What `ask` returns for each server by name, without those that are down if one is up."""
        self._connect_to_all()
        servers = [server for server in self.servers if not server.down] or self.servers
        return {server.name: self._connect_in_time(server).addCallback(ask) for server in servers}

    def ask_one(self, name: str, ask: Ask[_T]) -> Deferred[_T] | None:
        """What `ask` returns for the server with this name; None if there is no such server."""
        for server in self.servers:
            if server.name == name:
                return server.connect().addCallback(ask)
        return None

    def _preferred_server(self, key: bytes | None) -> Server | None:
        """The server to ask by this key, connected or not; without a key the next connected one."""
        if key is None:
            return self._next_connected(self.servers)
        best: Server | None = None
        best_score = b""
        for server in self.servers:
            if not server.down:
                its_score = score(server.name, key)
                if its_score > best_score:
                    best, best_score = server, its_score
        return best

    def _next_connected(self, candidates: Sequence[Server]) -> Server | None:
        """The next connected server of `candidates`, in turn."""
        count = len(self.servers)
        for turn in range(self._next_index, self._next_index + count):
            server = self.servers[turn % count]
            if server.protocol is not None and server in candidates:
                self._next_index = (turn + 1) % count
                return server
        return None

    def _connect_to_all(self) -> None:
        """At the first use, connect to all servers, whichever is needed first."""
        if not self._connecting_all:
            self._connecting_all = True
            for server in self.servers:
                server.connect().addErrback(lambda _failure: None)

    def _fail_over_if_lost(
        self, failure: Failure, ask: Ask[_T], key: bytes | None, size: int, lost: Server
    ) -> Any:
        """Fail over if the connection was lost, or the server is shutting down."""
        error = failure.value
        if self.closed or not _calls_for_failover(error):
            return failure
        return self.fail_over(ask, key, size, lost, error)

    async def _send(
        self, ask: Ask[_T], key: bytes | None, size: int, tried: set[Server], error: ClientError | None
    ) -> _T:
        self._connect_to_all()
        while len(tried) < len(self.servers):
            try:
                untried = [one for one in self.servers if one not in tried]
                finding = Deferred.fromCoroutine(self._choose(key, untried))
                server = await self._budget.charged_until(size, finding)
            except NotConnected:
                if error is None:
                    raise
                # The loss tells the caller more than that the request could not be sent again.
                break
            if server.protocol is None:
                continue
            try:
                return await ask(server.protocol)
            except (ConnectionLost, ServerError) as lost:
                if self.closed or not _calls_for_failover(lost):
                    raise
                error = lost
                tried.add(server)
        assert error is not None
        raise error

    async def _choose(self, key: bytes | None, untried: list[Server]) -> Server:
        """The server of `untried` to ask, once it is connected; otherwise this raises `NotConnected`."""
        if key is None:
            # Without a key no server is better than another, so the first connection will do.
            return self._next_connected(untried) or await self._first_connected(untried)
        order = sorted(untried, key=lambda server: score(server.name, key), reverse=True)
        later = [server for server in order if server.down]
        refusal = NotConnected("no server can be reached")
        for server in [server for server in order if not server.down]:
            # Meanwhile an attempt may have failed that others wait for.
            if not server.down:
                try:
                    await self._connect_in_time(server)
                except NotConnected as error:
                    refusal = error
                    if server.connecting:
                        later.append(server)
                else:
                    return server
        if not later:
            raise refusal
        return await self._first_connected(later)

    def _connect_in_time(self, server: Server) -> Deferred[ClientProtocol]:
        """The connection to a server, within `CONNECT_PATIENCE` if there are others; or `NotConnected`."""
        if server.protocol is not None or self.single:
            return server.connect()
        return (
            server.connect()
            .addTimeout(CONNECT_PATIENCE, self._clock)
            .addErrback(_timed_out_connecting, server)
        )

    async def _first_connected(self, servers: Sequence[Server]) -> Server:
        """The first of `servers` to be connected. Raises `NotConnected` if no attempt succeeds."""
        connecting = [server.connect() for server in servers]
        outcome: Any = await DeferredList(connecting, fireOnOneCallback=True, consumeErrors=True)
        if isinstance(outcome, tuple):
            return servers[outcome[1]]
        (_succeeded, failure), *_others = outcome
        raise failure.value


def _timed_out_connecting(failure: Failure, server: Server) -> Failure:
    if not isinstance(failure.value, DeferredTimeout):
        return failure
    server.down = True
    raise NotConnected(f"no connection to {server.name} within {CONNECT_PATIENCE:g} seconds")


def _calls_for_failover(error: object) -> TypeGuard[ConnectionLost | ServerError]:
    """Whether another server may take the request, as this error tells."""
    return isinstance(error, ConnectionLost) or is_shutting_down(error)


def is_shutting_down(error: object) -> TypeGuard[ServerError]:
    """Whether a server has refused a job because it is shutting down."""
    return isinstance(error, ServerError) and error.code == _SHUTTING_DOWN_CODE
