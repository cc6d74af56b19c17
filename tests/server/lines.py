"""Raw connections on real sockets. No tests here."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from tests.interop.programs import HOST, RUN_LIMIT
from tests.server.peers import req, res


class Line(Protocol):
    """Sends raw bytes and collects what comes; `lost` fires when the connection is gone."""

    transport: ITCPTransport

    def __init__(self) -> None:
        self.received = b""
        self.lost: Deferred[None] = Deferred()
        self._waiting: tuple[bytes, Deferred[None]] | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self._waiting is not None and self.received.endswith(self._waiting[0]):
            waiting, self._waiting = self._waiting[1], None
            waiting.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)
        if self._waiting is not None:
            waiting, self._waiting = self._waiting[1], None
            waiting.errback(ConnectionDone(f"closed after {self.received!r}"))

    async def heard(self, ending: bytes) -> bytes:
        """All that came since the last look, once that ends with `ending`.

        Raises `ConnectionDone` if the connection ends before, and `TimeoutError` after `RUN_LIMIT`.
        """
        from twisted.internet import reactor

        if not self.received.endswith(ending):
            if self.lost.called:
                raise ConnectionDone(f"closed after {self.received!r}")
            waiting: Deferred[None] = Deferred()
            self._waiting = ending, waiting
            await waiting.addTimeout(RUN_LIMIT, reactor)
        received, self.received = self.received, b""
        return received

    async def ask(self, message: bytes, ending: bytes) -> bytes:
        """Send `message`; returns what comes, once that ends with `ending`."""
        self.transport.write(message)
        return await self.heard(ending)

    async def say(self, *packets: bytes) -> bytes:
        """Send packets and an ECHO_REQ; returns what comes ahead of its answer."""
        end = res(17, b"all of it")
        return (await self.ask(b"".join(packets) + req(16, b"all of it"), end)).removesuffix(end)


async def connect(port: int) -> Line:
    """A connection to a port of 127.0.0.1."""
    from twisted.internet import reactor

    line: Line = await connectProtocol(TCP4ClientEndpoint(reactor, HOST, port), Line())
    return line


async def close(*lines: Line) -> None:
    """End connections, and wait until they are gone."""
    for line in lines:
        line.transport.loseConnection()
    for line in lines:
        await line.lost
