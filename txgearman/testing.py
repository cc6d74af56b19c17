"""For your own tests: a server, clients and workers connected in memory, and a clock that you advance.

Nothing here opens a socket or needs a running reactor. The server, client and worker are the real ones. Only
the network between them is not.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from txgearman.client import Admin, Client, JobInfo
from txgearman.client import Job as ClientJob
from txgearman.server import GearmanServerFactory, Settings
from txgearman.server.schedules.scheduling import schedules_of
from txgearman.worker import Worker

T = TypeVar("T")

HIGH_WATER: Final = 64 * 1024
"""Unsent bytes above which a sender is asked to pause. Twisted's sockets have the same limit."""

WAIT_LIMIT: Final = 3600.0
"""Default of ``limit``: seconds by which `MemoryGearman.wait` advances the clock at most."""


class NotFired(AssertionError):
    """The time of `MemoryGearman.wait` is over, or nothing is left that could fire the Deferred."""


class MemoryGearman:
    """A job server in memory, with a clock that stands still until you advance it.

    Args:
        settings: The server's settings.
        clock: The clock of server, clients and workers. For several servers pass the clock of the first to
            the others. By default a new one, which starts at 0.

    Attributes:
        clock: The clock. It is the wall clock too, by which scheduled jobs run.
        endpoint: A client endpoint that leads to the server.
        running: Whether the server runs.
        server: The server's `GearmanServerFactory`.
    """

    def __init__(self, settings: Settings | None = None, clock: Clock | None = None) -> None:
        self.clock = Clock() if clock is None else clock
        self.endpoint: IStreamClientEndpoint = _MemoryEndpoint(self)
        self.running = False
        self._settings = settings
        self._connections: list[MemoryTransport] = []
        self._connection_count = 0
        self.start()

    # -- the server -----------------------------------------------------------------------------

    def start(self) -> None:
        """Start a new server, without jobs."""
        self.server = GearmanServerFactory(self.clock, self._settings, wall_clock=self.clock.seconds)
        self.server.scheduling.begin(schedules_of(self.server.settings))
        self.running = True

    def stop(self) -> None:
        """Stop the server: it loses its connections, refuses new ones, and forgets its jobs."""
        self.running = False
        self.cut()
        # After its connections have ended: that may have set its timer.
        self.server.stop()

    def cut(self) -> None:
        """Lose all connections. The server keeps running."""
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.abortConnection()
        self.turn()

    # -- clients and workers --------------------------------------------------------------------

    def client(self, *others: MemoryGearman, **options: Any) -> Client:
        """Make a client.

        Its liveness check is off by default: here both sides learn of the end of each connection. Without its
        timers `wait` notices when nothing is left to happen.

        Args:
            *others: Other servers for the client, beside this one.
            **options: Options of `Client`.

        Returns:
            The client.
        """
        options.setdefault("check_interval", None)
        return Client(self.clock, [self.endpoint, *(other.endpoint for other in others)], **options)

    def worker(self, *others: MemoryGearman, **options: Any) -> Worker:
        """Make a worker, which is not started. Its liveness check is off by default, as of a client.

        Args:
            *others: Other servers for the worker, beside this one.
            **options: Options of `Worker`.

        Returns:
            The worker.
        """
        options.setdefault("check_interval", None)
        endpoints: Any = [self.endpoint, *(other.endpoint for other in others)] if others else self.endpoint
        return Worker(self.clock, endpoints, **options)

    def admin(self, **options: Any) -> Admin:
        """Make an `Admin`, which sends admin commands to this server.

        Args:
            **options: Options of `Admin`.

        Returns:
            The admin.
        """
        return Admin(self.clock, self.endpoint, **options)

    def job(self, handle: str | bytes | ClientJob) -> JobInfo:
        """Ask the server what it knows of a job. That includes dead jobs, and the last ones that ended.

        Args:
            handle: The job's handle, or what `Client.submit` returned.

        Returns:
            Its state, outcome, attempts, error and more.

        Raises:
            AdminError: The server knows of no such job.
        """
        admin = self.admin()
        try:
            return self.wait(admin.job(handle if isinstance(handle, (str, bytes)) else handle.handle))
        finally:
            self.wait(admin.close())

    def connect(self, protocol: IProtocol) -> MemoryTransport:
        """Connect any protocol to the server.

        Args:
            protocol: The protocol.

        Returns:
            The protocol's transport.

        Raises:
            ConnectionRefusedError: The server is stopped. This is Twisted's error of that name.
        """
        if not self.running:
            raise error.ConnectionRefusedError
        return self._connect(protocol)

    # -- time -----------------------------------------------------------------------------------

    def turn(self, seconds: float = 0) -> None:
        """Advance the clock, and deliver all bytes. Each call that is due meanwhile happens at its own time.

        Args:
            seconds: Seconds by which to advance.
        """
        end = self.clock.seconds() + seconds
        self.clock.advance(0)
        while (call := self._next_call()) is not None and call <= end:
            self.clock.advance(call - self.clock.seconds())
        self.clock.advance(end - self.clock.seconds())

    def turn_to_next_retry(self, limit: float = WAIT_LIMIT) -> float:
        """Advance the clock until the next job that waits for its retry is run again. If none waits yet, the
        first one that will is meant: a run may take some time until it fails.

        Args:
            limit: Seconds by which to advance at most.

        Returns:
            The seconds by which the clock was advanced.

        Raises:
            NotFired: No job is retried within `limit` seconds.
        """
        begin = self.clock.seconds()
        self.turn()
        waiting = self._next_retry()
        # When its time has come it may run, fail and wait anew in the same turn.
        while waiting is None or waiting in self._retries():
            call = self._next_call()
            if call is None or call > begin + limit:
                raise NotFired(f"no job is retried within {limit} seconds")
            self.turn(call - self.clock.seconds())
            waiting = waiting or self._next_retry()
        return self.clock.seconds() - begin

    def wait(self, awaitable: Deferred[T] | Coroutine[Any, Any, T], limit: float = WAIT_LIMIT) -> T:
        """Advance the clock until a Deferred or coroutine has a result.

        Args:
            awaitable: The Deferred or coroutine.
            limit: Seconds by which to advance at most.

        Returns:
            Its result.

        Raises:
            NotFired: The time is over, or nothing is left to wait for.
            Exception: What it failed with.
        """
        deferred = awaitable if isinstance(awaitable, Deferred) else Deferred.fromCoroutine(awaitable)
        results: list[Any] = []

        def record(result: Any) -> Any:
            results.append(result)
            return None if isinstance(result, Failure) else result

        deferred.addBoth(record)
        end = self.clock.seconds() + limit
        self.turn()
        while not results:
            call = self._next_call()
            if call is None:
                raise NotFired(f"nothing is under way that could fire {deferred}")
            if call > end:
                raise NotFired(f"{deferred} did not fire within {limit} seconds")
            self.turn(call - self.clock.seconds())
        (result,) = results
        if isinstance(result, Failure):
            result.raiseException()
        return result  # type: ignore[no-any-return]

    def _next_retry(self) -> tuple[float, bytes] | None:
        return min(self._retries(), default=None)

    def _retries(self) -> set[tuple[float, bytes]]:
        """When each job that waits for its retry is due, and its handle."""
        return {
            (job.failures.retry_at, handle)
            for handle, job in self.server.broker.life.handles
            if job.failures is not None and job.failures.retry_at is not None
        }

    def _next_call(self) -> float | None:
        """When the clock's next call is due."""
        return min((call.getTime() for call in self.clock.getDelayedCalls()), default=None)

    def _connect(self, protocol: IProtocol) -> MemoryTransport:
        self._connection_count += 1
        client_end = MemoryTransport(self.clock, self._connection_count)
        server_end = MemoryTransport(self.clock, self._connection_count)
        client_end.pair_with(server_end)
        server_protocol = self.server.buildProtocol(client_end.getHost())
        self._connections = [*(other for other in self._connections if other.connected), client_end]
        server_end.attach(server_protocol)
        client_end.attach(protocol)
        return client_end


@implementer(IStreamClientEndpoint)
class _MemoryEndpoint:
    """The endpoint of the server of a `MemoryGearman`."""

    def __init__(self, gearman: MemoryGearman) -> None:
        self._gearman = gearman

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        if not self._gearman.running:
            return fail(error.ConnectionRefusedError())
        protocol = protocolFactory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 4730))
        if protocol is None:
            return fail(error.ConnectionAborted())
        self._gearman._connect(protocol)
        return succeed(protocol)


@implementer(ITransport, IConsumer, IPushProducer)
class MemoryTransport:
    """One end of a connection in memory. It behaves as Twisted's sockets do.

    Written bytes arrive in the clock's next call. `loseConnection` reads nothing more, and ends the
    connection when the written bytes have arrived. `abortConnection` ends it in the clock's next call, and
    drops bytes that have not arrived.

    Args:
        clock: Delivers the bytes.
        number: The number of the connection, from which its port is made.
    """

    disconnecting = False

    def __init__(self, clock: Clock, number: int) -> None:
        self._clock = clock
        self._address = IPv4Address("TCP", "127.0.0.1", 40000 + number)
        self._protocol: IProtocol | None = None
        self._peer: MemoryTransport
        self._unsent = bytearray()
        self._delivery_scheduled = False
        self._reading = True
        self._aborting = False
        self._producer: IPushProducer | None = None
        self._producer_paused = False

    def pair_with(self, peer: MemoryTransport) -> None:
        """Make this end and `peer` the two ends of a connection."""
        self._peer, peer._peer = peer, self

    def attach(self, protocol: IProtocol) -> None:
        """Attach the protocol of this end, which is connected then."""
        self._protocol = protocol
        protocol.makeConnection(self)

    @property
    def connected(self) -> bool:
        """Whether the connection has not ended."""
        return self._protocol is not None

    # -- ITransport -----------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._protocol is None or self.disconnecting or self._aborting:
            return
        self._unsent += data
        if len(self._unsent) > HIGH_WATER and self._producer is not None and not self._producer_paused:
            self._producer_paused = True
            self._producer.pauseProducing()
        self._deliver_soon()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.disconnecting = True
        self._deliver_soon()

    def abortConnection(self) -> None:
        if self._protocol is None or self._aborting:
            return
        self._aborting = True
        self._unsent.clear()
        # Not now: the protocol may have called this while it handles something.
        self._clock.callLater(0, self._end_both, error.ConnectionAborted(), error.ConnectionLost())

    def getPeer(self) -> IAddress:
        return self._address

    def getHost(self) -> IAddress:
        return self._address

    # -- flow control ---------------------------------------------------------------------------

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming, "only streaming producers"
        if self._producer is not None:
            raise RuntimeError(f"{self._producer!r} is still registered")
        if self._protocol is None:
            producer.stopProducing()
        else:
            self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None
        self._producer_paused = False

    def pauseProducing(self) -> None:
        self._reading = False

    def resumeProducing(self) -> None:
        self._reading = True
        self._peer._deliver_soon()

    def stopProducing(self) -> None:
        self.loseConnection()

    # -- delivery -------------------------------------------------------------------------------

    def _deliver_soon(self) -> None:
        if not self._delivery_scheduled:
            self._delivery_scheduled = True
            self._clock.callLater(0, self._deliver)

    def _deliver(self) -> None:
        self._delivery_scheduled = False
        if self._unsent and self._protocol is not None:
            if not self._peer._reading:
                return
            data = bytes(self._unsent)
            self._unsent.clear()
            self._peer._receive(data)
        if self._producer is not None and self._producer_paused:
            self._producer_paused = False
            self._producer.resumeProducing()
        if self.disconnecting and not self._unsent:
            self._end_both(error.ConnectionDone(), error.ConnectionDone())

    def _receive(self, data: bytes) -> None:
        # A socket that is closing reads nothing.
        if self._protocol is not None and not self.disconnecting and not self._aborting:
            self._protocol.dataReceived(data)

    def _end_both(self, reason: Exception, reason_of_peer: Exception) -> None:
        self._lose(reason)
        self._peer._lose(reason_of_peer)

    def _lose(self, reason: Exception) -> None:
        protocol, self._protocol = self._protocol, None
        producer, self._producer = self._producer, None
        self._unsent.clear()
        if producer is not None:
            producer.stopProducing()
        if protocol is not None:
            protocol.connectionLost(Failure(reason))
