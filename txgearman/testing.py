"""For your own tests: a server, clients and workers joined in memory, and a clock that you turn.

Nothing here opens a socket or needs a running reactor. The server, client and worker are the real ones;
only what lies between them is not.
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

from txgearman.client import Client
from txgearman.server import GearmanServerFactory, Settings
from txgearman.worker import Worker

T = TypeVar("T")

HIGH_WATER: Final = 64 * 1024
"""Bytes on their way from which a sender is asked to pause: what Twisted's sockets have."""

LONGEST_WAIT: Final = 3600.0
"""Seconds of the clock that `MemoryGearman.wait` turns it by at most, if nothing else is said."""


class NotFired(AssertionError):
    """`MemoryGearman.wait` ran out of time, or nothing was left that could fire the Deferred."""


class MemoryGearman:
    """A job server in memory, with a clock that stands still until it is turned.

    `settings` are those of the server. `clock` is what server, clients and workers take the time from;
    it begins at 0, also as the wall clock by which EPOCH jobs run. `server` is the server's
    `GearmanServerFactory`. `endpoint` is a client endpoint that leads to it.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.clock = Clock()
        self.endpoint: IStreamClientEndpoint = _MemoryEndpoint(self)
        self.running = False
        self._settings = settings
        self._connections: list[MemoryTransport] = []
        self.start()

    # -- the server's life ----------------------------------------------------------------------

    def start(self) -> None:
        """Start a new server, which knows of no job."""
        self.server = GearmanServerFactory(self.clock, self._settings, wall_clock=self.clock.seconds)
        self.running = True

    def stop(self) -> None:
        """Stop the server: its connections are lost, new ones refused, its jobs forgotten."""
        self.running = False
        self.server.stop()
        self.cut()

    def cut(self) -> None:
        """Lose all connections; the server goes on."""
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.abortConnection()
        self.turn()

    # -- its users ------------------------------------------------------------------------------

    def client(self, **options: Any) -> Client:
        """A client of this server; `options` are those of `Client`."""
        return Client(self.clock, self.endpoint, **options)

    def worker(self, **options: Any) -> Worker:
        """A worker of this server, not started; `options` are those of `Worker`."""
        return Worker(self.clock, self.endpoint, **options)

    def connect(self, protocol: IProtocol) -> MemoryTransport:
        """Join any protocol to the server; returns the protocol's transport."""
        return self._join(protocol)

    # -- time -----------------------------------------------------------------------------------

    def turn(self, seconds: float = 0) -> None:
        """Let `seconds` pass, and all that is under way arrive."""
        self.clock.advance(seconds)

    def wait(self, awaitable: Deferred[T] | Coroutine[Any, Any, T], limit: float = LONGEST_WAIT) -> T:
        """Turn the clock until `awaitable` has a result, and return that.

        Raises what it failed with, and `NotFired` if `limit` seconds pass or nothing is left to wait for.
        """
        deferred = awaitable if isinstance(awaitable, Deferred) else Deferred.fromCoroutine(awaitable)
        results: list[Any] = []
        deferred.addBoth(results.append)
        end = self.clock.seconds() + limit
        self.turn()
        while not results:
            calls = self.clock.getDelayedCalls()
            if not calls:
                raise NotFired(f"nothing is under way that could fire {deferred}")
            step = min(call.getTime() for call in calls)
            if step > end:
                raise NotFired(f"{deferred} did not fire within {limit} seconds")
            self.turn(max(0.0, step - self.clock.seconds()))
        (result,) = results
        if isinstance(result, Failure):
            result.raiseException()
        return result  # type: ignore[no-any-return]

    def _join(self, protocol: IProtocol) -> MemoryTransport:
        near = MemoryTransport(self.clock, len(self._connections) + 1)
        far = MemoryTransport(self.clock, len(self._connections) + 1)
        near.meet(far)
        served = self.server.buildProtocol(near.getHost())
        self._connections.append(near)
        far.begin(served)
        near.begin(protocol)
        return near


@implementer(IStreamClientEndpoint)
class _MemoryEndpoint:
    """Leads to the server of a `MemoryGearman`."""

    def __init__(self, gearman: MemoryGearman) -> None:
        self._gearman = gearman

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        if not self._gearman.running:
            return fail(error.ConnectionRefusedError())
        protocol = protocolFactory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 4730))
        if protocol is None:
            return fail(error.ConnectionAborted())
        self._gearman._join(protocol)
        return succeed(protocol)


@implementer(ITransport, IConsumer, IPushProducer)
class MemoryTransport:
    """One end of a connection in memory. What is written arrives in the clock's next call."""

    disconnecting = False

    def __init__(self, clock: Clock, number: int) -> None:
        self._clock = clock
        self._address = IPv4Address("TCP", "127.0.0.1", 40000 + number)
        self._protocol: IProtocol | None = None
        self._peer: MemoryTransport
        self._outgoing = bytearray()
        self._delivering = False
        self._reading = True
        self._producer: IPushProducer | None = None
        self._producer_paused = False

    def meet(self, peer: MemoryTransport) -> None:
        """Join two ends."""
        self._peer, peer._peer = peer, self

    def begin(self, protocol: IProtocol) -> None:
        """Give this end its protocol."""
        self._protocol = protocol
        protocol.makeConnection(self)

    # -- ITransport -----------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._protocol is None or self.disconnecting:
            return
        self._outgoing += data
        if len(self._outgoing) > HIGH_WATER and self._producer is not None and not self._producer_paused:
            self._producer_paused = True
            self._producer.pauseProducing()
        self._deliver_soon()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.disconnecting = True
        self._deliver_soon()

    def abortConnection(self) -> None:
        self._outgoing.clear()
        self._end(error.ConnectionAborted())

    def getPeer(self) -> IAddress:
        return self._address

    def getHost(self) -> IAddress:
        return self._address

    # -- flow control ---------------------------------------------------------------------------

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming, "only streaming producers"
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        self._reading = False

    def resumeProducing(self) -> None:
        self._reading = True
        self._peer._deliver_soon()

    def stopProducing(self) -> None:
        self.loseConnection()

    # -- delivery -------------------------------------------------------------------------------

    def _deliver_soon(self) -> None:
        if not self._delivering:
            self._delivering = True
            self._clock.callLater(0, self._deliver)

    def _deliver(self) -> None:
        self._delivering = False
        receiver = self._peer
        if self._outgoing and receiver._protocol is not None:
            if not receiver._reading:
                return
            data = bytes(self._outgoing)
            self._outgoing.clear()
            receiver._protocol.dataReceived(data)
        if self._producer is not None and self._producer_paused:
            self._producer_paused = False
            self._producer.resumeProducing()
        if self.disconnecting and not self._outgoing:
            self._end(error.ConnectionDone())

    def _end(self, reason: Exception) -> None:
        for end in (self, self._peer):
            protocol, end._protocol = end._protocol, None
            if protocol is not None:
                protocol.connectionLost(Failure(reason))
