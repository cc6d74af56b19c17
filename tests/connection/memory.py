"""A server's end in memory, played by the test: what the other side sent, and what it is told.

No server's rules live here; the test says each packet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from txgearman.wire.codec import Decoder, encode
from txgearman.wire.packets import REQUEST, RESPONSE, name_of

ADDRESS = IPv4Address("TCP", "127.0.0.1", 4730)


class PlayedServer:
    """The server's end of one connection with `protocol`, which is connected at once."""

    def __init__(self, protocol: IProtocol) -> None:
        self.protocol = protocol
        self.transport = StringTransport(peerAddress=ADDRESS)
        self.lost = False
        self._decoder = Decoder(REQUEST)
        protocol.makeConnection(self.transport)

    def heard(self) -> list[tuple[Any, ...]]:
        """The packets that came since the last call: name and fields of each."""
        clock = getattr(self.protocol, "clock", None)
        if isinstance(clock, Clock):
            clock.advance(0)  # what is sent at the end of the turn
        data = self.transport.value()
        self.transport.clear()
        return [(name_of(number), *fields) for number, fields in self._decoder.feed(data)]

    def say(self, number: int, *fields: bytes) -> None:
        """Send one packet."""
        self.send(packet(number, *fields))

    def send(self, data: bytes) -> None:
        """Send raw bytes in one piece."""
        self.protocol.dataReceived(data)

    def lose(self, reason: Exception | None = None) -> None:
        """Lose the connection, as a transport would tell it."""
        self.lost = True
        self.protocol.connectionLost(Failure(reason or ConnectionLost()))

    def hang_up(self) -> None:
        """Finish what the other side began: it closed or cut the connection."""
        assert self.transport.disconnecting
        self.lose(ConnectionDone())


@implementer(IStreamClientEndpoint)
class PlayedEndpoint:
    """Connects to a `PlayedServer`: at once, or with `hold` when the test calls `accept`.

    `servers` are those of all connections so far, the newest last; `attempts` counts how often a
    connection was asked for, `cancelled` how often that was taken back. With `refusal` each attempt
    fails with it; with `drop` each connection is lost before the attempt has succeeded.
    """

    def __init__(self, *, hold: bool = False) -> None:
        self.hold = hold
        self.refusal: Exception | None = None
        self.drop = False
        self.servers: list[PlayedServer] = []
        self.attempts = 0
        self.cancelled = 0
        self._held: list[tuple[Deferred[Any], IProtocolFactory]] = []

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        self.attempts += 1
        attempt: Deferred[Any] = Deferred(self._cancel)
        self._held.append((attempt, protocolFactory))
        if not self.hold:
            self.accept()
        return attempt

    def accept(self) -> None:
        """Let the oldest attempt succeed, or fail where `refusal` is set."""
        attempt, factory = self._held.pop(0)
        if self.refusal is not None:
            attempt.errback(Failure(self.refusal))
            return
        protocol = factory.buildProtocol(ADDRESS)
        assert protocol is not None
        self.servers.append(PlayedServer(protocol))
        if self.drop:
            self.server.lose()
        attempt.callback(protocol)

    @property
    def server(self) -> PlayedServer:
        """The server's end of the newest connection."""
        return self.servers[-1]

    def _cancel(self, cancelled: Deferred[Any]) -> None:
        self.cancelled += 1
        self._held = [held for held in self._held if held[0] is not cancelled]


def packet(number: int, *fields: bytes) -> bytes:
    """The bytes of a packet that a server sends."""
    return encode(RESPONSE, number, fields)


def recorder(into: list[Any]) -> Callable[..., None]:
    """A callback that appends its argument, or its arguments as a tuple, to `into`."""

    def record(*arguments: Any) -> None:
        into.append(arguments[0] if len(arguments) == 1 else arguments)

    return record
