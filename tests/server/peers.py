"""The other end of a connection to a server under test: raw bytes out, raw bytes in. No tests here.

Packets are put together here by hand and not by the package, so that the two can disagree.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import pack
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txgearman.server import Settings
from txgearman.testing import HIGH_WATER, MemoryGearman, MemoryTransport

PREFIX = "H:test"
"""What the handles of the servers under test begin with; the first job is ``H:test:1``."""


def req(number: int, *fields: bytes) -> bytes:
    """A packet to a server."""
    body = b"\0".join(fields)
    return b"\0REQ" + pack(">II", number, len(body)) + body


def res(number: int, *fields: bytes) -> bytes:
    """A packet from a server."""
    body = b"\0".join(fields)
    return b"\0RES" + pack(">II", number, len(body)) + body


def error(code: bytes, text: bytes) -> bytes:
    """An ERROR packet."""
    return res(19, code, text)


class Peer(Protocol):
    """Sends raw bytes to the server of a `MemoryGearman` and keeps what comes back."""

    transport: MemoryTransport

    def __init__(self, gearman: MemoryGearman) -> None:
        self._gearman = gearman
        self._received = b""
        self.lost: BaseException | None = None

    def dataReceived(self, data: bytes) -> None:
        self._received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason.value

    def say(self, *messages: bytes) -> None:
        """Send `messages` in one write, without waiting for anything."""
        self.transport.write(b"".join(messages))

    def heard(self) -> bytes:
        """All that came since the last look."""
        self._gearman.turn()
        heard, self._received = self._received, b""
        return heard

    def ask(self, *messages: bytes) -> bytes:
        """Send `messages` in one write; returns all that has come since the last look."""
        self.say(*messages)
        return self.heard()

    def hang_up(self) -> None:
        """Close the connection."""
        self.transport.loseConnection()
        self._gearman.turn()


class ServerTestCase(SynchronousTestCase):
    """A test against a server in memory, `gearman`."""

    def setUp(self) -> None:
        self.gearman = self.serve()

    def serve(self, **settings: Any) -> MemoryGearman:
        """Another server, with these settings."""
        return MemoryGearman(Settings(handle_prefix=PREFIX, **settings))

    def peer(self, gearman: MemoryGearman | None = None) -> Peer:
        """A new connection, to `self.gearman` if no other is given."""
        server = self.gearman if gearman is None else gearman
        peer = Peer(server)
        server.connect(peer)
        return peer

    def worker(self, *functions: bytes) -> Peer:
        """A new connection that can do `functions`."""
        peer = self.peer()
        self.assertEqual(peer.ask(*(req(1, function) for function in functions)), b"")
        return peer


class SocketlikeTransport(StringTransport):
    """Keeps what is written, and pauses and resumes its producer as Twisted's sockets do.

    `writes` is what was written, call by call; `aborted` whether the connection was cut. `receive`
    hands bytes to the protocol unless reading is paused. `host` is the peer's address.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__(peerAddress=IPv4Address("TCP", host, 40001))
        self.writes: list[bytes] = []
        self.aborted = False
        self.most_unsent = 0
        self._producer_paused = False

    def connect(self, protocol: Any) -> Any:
        """Give `protocol` this transport; returns the protocol."""
        self._protocol = protocol
        protocol.makeConnection(self)
        return protocol

    @property
    def reading(self) -> bool:
        """Whether the protocol wants to hear more."""
        return cast(str, self.producerState) == "producing"

    @property
    def unsent(self) -> int:
        """Bytes that the peer has not taken."""
        return len(self.value())

    def receive(self, *messages: bytes) -> None:
        """What the peer sent arrives in one read."""
        assert self.reading, "a socket that is paused does not read"
        self._protocol.dataReceived(b"".join(messages))

    def write(self, data: bytes) -> None:
        super().write(data)
        self.writes.append(data)
        self.most_unsent = max(self.most_unsent, self.unsent)
        producer = cast("IPushProducer | None", self.producer)
        if self.unsent > HIGH_WATER and producer is not None and not self._producer_paused:
            self._producer_paused = True
            producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def taken(self) -> bytes:
        """The peer takes all that is written, and the socket asks for more whenever it had paused."""
        heard = bytearray()
        while data := self.take():
            heard += data
        return bytes(heard)

    def take(self) -> bytes:
        """The peer takes what the socket has, which asks for more if it had paused."""
        data = self.value()
        self.clear()
        producer = cast("IPushProducer | None", self.producer)
        if self._producer_paused and producer is not None:
            self._producer_paused = False
            producer.resumeProducing()
        return cast(bytes, data)

    def unregisterProducer(self) -> None:
        # Sockets do not mind when there is none.
        self.producer = None

    def abortConnection(self) -> None:
        self.aborted = True

    def lose(self) -> None:
        """The connection is gone: as sockets do, forget the producer and tell the protocol."""
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        protocol, self._protocol = self._protocol, None
        protocol.connectionLost(Failure(ConnectionDone()))


class TcpTransport(SocketlikeTransport):
    """Has the options of a TCP socket, without an effect."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass
