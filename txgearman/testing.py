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
    it begins at 0, also as the wall clock by which EPOCH jobs run. To have several servers, give the
    others the clock of the first. `server` is the server's `GearmanServerFactory`. `endpoint` is a client
    endpoint that leads to it.
    """

    def __init__(self, settings: Settings | None = None, clock: Clock | None = None) -> None:
        self.clock = Clock() if clock is None else clock
        self.endpoint: IStreamClientEndpoint = _MemoryEndpoint(self)
        self.running = False
        self._settings = settings
        self._connections: list[MemoryTransport] = []
        self._joined = 0
        self.start()

    # -- the server's life ----------------------------------------------------------------------

    def start(self) -> None:
        """Start a new server, which knows of no job."""
        self.server = GearmanServerFactory(self.clock, self._settings, wall_clock=self.clock.seconds)
        self.running = True

    def stop(self) -> None:
        """Stop the server: its connections are lost, new ones refused, its jobs forgotten."""
        self.running = False
        self.cut()
        # Behind the end of its connections, which may have set its timer.
        self.server.stop()

    def cut(self) -> None:
        """Lose all connections; the server goes on."""
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.abortConnection()
        self.turn()

    # -- its users ------------------------------------------------------------------------------

    def client(self, *others: MemoryGearman, **options: Any) -> Client:
        """A client of this server, and of the `others`; `options` are those of `Client`.

        Its connections are not checked for life if nothing is said of it: here no connection ends without
        both sides being told, and `wait` sees better that nothing is under way.
        """
        options.setdefault("check_interval", None)
        return Client(self.clock, [self.endpoint, *(other.endpoint for other in others)], **options)

    def worker(self, *others: MemoryGearman, **options: Any) -> Worker:
        """A worker of this server, and of the `others`, not started; `options` are those of `Worker`.

        Its connections are not checked for life either.
        """
        options.setdefault("check_interval", None)
        endpoints: Any = [self.endpoint, *(other.endpoint for other in others)] if others else self.endpoint
        return Worker(self.clock, endpoints, **options)

    def connect(self, protocol: IProtocol) -> MemoryTransport:
        """Join any protocol to the server; returns the protocol's transport.

        Raises Twisted's `ConnectionRefusedError` while the server is stopped.
        """
        if not self.running:
            raise error.ConnectionRefusedError
        return self._join(protocol)

    # -- time -----------------------------------------------------------------------------------

    def turn(self, seconds: float = 0) -> None:
        """Let `seconds` pass, and all that is under way arrive.

        What is due on the way happens at its own time, and not all of it at the end.
        """
        end = self.clock.seconds() + seconds
        self.clock.advance(0)
        while (call := self._next_call()) is not None and call <= end:
            self.clock.advance(call - self.clock.seconds())
        self.clock.advance(end - self.clock.seconds())

    def wait(self, awaitable: Deferred[T] | Coroutine[Any, Any, T], limit: float = LONGEST_WAIT) -> T:
        """Turn the clock until `awaitable` has a result, and return that.

        Raises what it failed with, and `NotFired` if `limit` seconds pass or nothing is left to wait for.
        """
        deferred = awaitable if isinstance(awaitable, Deferred) else Deferred.fromCoroutine(awaitable)
        results: list[Any] = []

        def keep(result: Any) -> Any:
            results.append(result)
            return None if isinstance(result, Failure) else result

        deferred.addBoth(keep)
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

    def _next_call(self) -> float | None:
        """When the clock's next call is due."""
        return min((call.getTime() for call in self.clock.getDelayedCalls()), default=None)

    def _join(self, protocol: IProtocol) -> MemoryTransport:
        self._joined += 1
        near = MemoryTransport(self.clock, self._joined)
        far = MemoryTransport(self.clock, self._joined)
        near.meet(far)
        served = self.server.buildProtocol(near.getHost())
        self._connections = [*(other for other in self._connections if other.connected), near]
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
    """One end of a connection in memory, which does as Twisted's sockets do.

    What is written arrives in the clock's next call. `loseConnection` ends the connection when what was
    written has arrived, and hears nothing more; `abortConnection` ends it in the clock's next call and
    drops what is on its way.
    """

    disconnecting = False

    def __init__(self, clock: Clock, number: int) -> None:
        self._clock = clock
        self._address = IPv4Address("TCP", "127.0.0.1", 40000 + number)
        self._protocol: IProtocol | None = None
        self._peer: MemoryTransport
        self._outgoing = bytearray()
        self._delivering = False
        self._reading = True
        self._aborting = False
        self._producer: IPushProducer | None = None
        self._producer_paused = False

    def meet(self, peer: MemoryTransport) -> None:
        """Join two ends."""
        self._peer, peer._peer = peer, self

    def begin(self, protocol: IProtocol) -> None:
        """Give this end its protocol."""
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
        if self._protocol is None or self._aborting:
            return
        self._aborting = True
        self._outgoing.clear()
        # Not now: the protocol may be in the middle of something.
        self._clock.callLater(0, self._end, error.ConnectionAborted(), error.ConnectionLost())

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
        if not self._delivering:
            self._delivering = True
            self._clock.callLater(0, self._deliver)

    def _deliver(self) -> None:
        self._delivering = False
        if self._outgoing and self._protocol is not None:
            if not self._peer._reading:
                return
            data = bytes(self._outgoing)
            self._outgoing.clear()
            self._peer._receive(data)
        if self._producer is not None and self._producer_paused:
            self._producer_paused = False
            self._producer.resumeProducing()
        if self.disconnecting and not self._outgoing:
            self._end(error.ConnectionDone(), error.ConnectionDone())

    def _receive(self, data: bytes) -> None:
        # A socket that is being closed reads no more.
        if self._protocol is not None and not self.disconnecting and not self._aborting:
            self._protocol.dataReceived(data)

    def _end(self, reason: Exception, reason_of_peer: Exception) -> None:
        self._lose(reason)
        self._peer._lose(reason_of_peer)

    def _lose(self, reason: Exception) -> None:
        protocol, self._protocol = self._protocol, None
        producer, self._producer = self._producer, None
        self._outgoing.clear()
        if producer is not None:
            producer.stopProducing()
        if protocol is not None:
            protocol.connectionLost(Failure(reason))
