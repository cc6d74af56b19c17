"""Connections that are accepted, made and ended in fewer steps than Twisted's.

Many programs connect for each job, those that make web pages for example. Twisted makes texts for a log that
nobody reads, an address for each who asks for it, and a `Failure` at the end; it looks for adapters, and asks
the system to set what a socket can inherit. What is not written here is Twisted's.

Nothing about Gearman here.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from twisted.internet import tcp, unix
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv6Address, UNIXAddress
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger

from txgearman.net import fast_write
from txgearman.net.keepalive import Keepalive

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IProtocol
    from twisted.python.failure import Failure

MAX_ACCEPTS: Final = 64
"""Connections that are accepted in one go at one port, so that those which are there already are not kept
waiting: as many take about a millisecond."""

READ_SIZE: Final = 64 * 1024
"""Bytes that are read in one go, as Twisted does."""

LARGE_READ_SIZE: Final = 120 * 1024
"""Bytes that are read in one go from a connection that had `READ_SIZE` to read. With packets of 100 KiB
this is a tenth more of them per second. From 128 KiB on, the C library would ask the system for the memory
of each read."""

SMALL_READ: Final = 8 * 1024
"""Bytes that a read brings at least from a connection that goes on sending much."""

_log = Logger()


class _Forks:
    """Whether this process has made a copy of itself, which may have sockets open that are closed here.

    Then only ``shutdown`` ends a connection to its peer for certain. A copy that becomes another program at
    once does not count: what was accepted is closed there.
    """

    def __init__(self) -> None:
        self.happened = False
        if hasattr(os, "register_at_fork"):  # not on Windows
            os.register_at_fork(after_in_parent=self._note)

    def _note(self) -> None:
        self.happened = True


_forks: Final = _Forks()


class AcceptedConnection(tcp.Server):
    """A connection over TCP, as Twisted's own.

    Args:
        sock: Its socket.
        protocol: What handles it.
        client: The peer's address, as the system has it.
        server: The port that has accepted it.
        sessionno: How many that port had accepted before.
        reactor: The poller that watches it.

    Attributes:
        reactor: The poller.
        inherited: What its socket has got from the one that listens; None where that is not certain.
    """

    reactor: Any
    inherited: Keepalive | None = None
    _read_size = READ_SIZE
    _peer: IAddress | None = None

    def __init__(
        self, sock: Any, protocol: IProtocol, client: Any, server: tcp.Port, sessionno: int, reactor: Any
    ) -> None:
        FileDescriptor.__init__(self, reactor)
        sock.setblocking(False)
        self.socket = sock
        self.fileno = sock.fileno
        self.protocol = protocol
        if len(client) == 4:
            self._addressType = IPv6Address
        self.client = client
        self.server = server
        self.sessionno = sessionno
        self.startReading()
        self.connected = 1

    # Texts that Twisted makes for each connection, and that hardly anybody asks for.

    @property
    def hostname(self) -> Any:  # type: ignore[override]
        """The peer's host."""
        return self.client[0]

    @property
    def logstr(self) -> str:  # type: ignore[override]
        """What Twisted writes ahead of a line in its log."""
        return f"{self._getLogPrefix(self.protocol)},{self.sessionno},{self.hostname}"

    @property
    def repstr(self) -> str:  # type: ignore[override]
        """What stands for this in texts."""
        return f"<{type(self).__name__} #{self.sessionno} on {self.server._realPortNumber}>"

    def keep_peer(self, peer: IAddress) -> None:
        """Take the address that was made for the factory.

        Args:
            peer: The peer's address.
        """
        self._peer = peer

    def getPeer(self) -> Any:
        return super().getPeer() if self._peer is None else self._peer

    def doRead(self) -> Any:
        try:
            data = self.socket.recv(self._read_size)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        if len(data) == READ_SIZE:
            self._read_size = LARGE_READ_SIZE
        elif len(data) < SMALL_READ:
            self._read_size = READ_SIZE
        self.protocol.dataReceived(data)
        return None

    def write(self, data: bytes) -> None:
        """Send at once what the socket takes, if nothing waits ahead: TLS writes its records by this."""
        if fast_write.takes_bytes(self):
            try:
                sent = self.socket.send(data)
            except OSError:
                # The reactor is to meet the error itself.
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        super().write(data)

    def setTcpNoDelay(self, enabled: bool) -> None:
        # What listens has it wherever something is inherited.
        if not enabled or self.inherited is None:
            super().setTcpNoDelay(enabled)

    def loseConnection(self) -> None:
        """End the connection when all is sent, which mostly it is.

        Twisted then waits until the socket is writable, and sends nothing: two calls of the system for the
        one, and one for the other.
        """
        if self.disconnecting or self.producer is not None or not fast_write.takes_bytes(self):
            super().loseConnection()
            return
        self.disconnecting = True
        self.stopReading()
        self.reactor.call_soon(self._end)

    def _end(self) -> None:
        if self.connected:
            self.connectionLost(connectionDone)

    def readConnectionLost(self, reason: Failure) -> None:
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self.stopReading()
            super().readConnectionLost(reason)
        else:
            self.connectionLost(reason)

    def connectionLost(self, reason: Failure) -> None:
        if reason is not connectionDone or not hasattr(self, "socket"):
            super().connectionLost(reason)
            return
        # The peer has closed, as nearly all do at last. In the order of Twisted's own.
        self.disconnected = 1
        self.connected = 0
        if self.producer is not None:
            self.producer.stopProducing()
            self.producer = None
        self.reactor.forget(self)
        if _forks.happened:
            self._closeSocket(True)
        else:
            self.socket.close()
        protocol = self.protocol
        del self.protocol, self.socket, self.fileno
        protocol.connectionLost(reason)


class AcceptedUnixConnection(AcceptedConnection):
    """A connection over a UNIX socket. File descriptors that a peer sends along are closed."""

    @property
    def hostname(self) -> Any:  # type: ignore[override]
        return self.client

    def getHost(self) -> Any:
        return UNIXAddress(self.socket.getsockname())

    def getPeer(self) -> Any:
        return UNIXAddress(cast(str, self.client) or None) if self._peer is None else self._peer

    def getTcpNoDelay(self) -> bool:
        return False

    def setTcpNoDelay(self, enabled: bool) -> None:
        """It has no such thing, and no delay."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """It has no such thing: the system knows when its peer is gone."""


KINDS: Final[dict[Any, type[AcceptedConnection]]] = {
    tcp.Server: AcceptedConnection,
    unix.Server: AcceptedUnixConnection,
}
"""By the kinds of Twisted's that they stand for."""


class Acceptor:
    """Accepts the connections of one port, in place of its `doRead`.

    What goes wrong is left to Twisted's own, which knows what to do where no descriptor is left.

    Args:
        port: The port, whose `transport` is one of `KINDS`.
    """

    def __init__(self, port: Any) -> None:
        self._port = port
        self._kind = KINDS[port.transport]
        port.transport = self._connection
        self._twisteds: Callable[[], object] = port.doRead
        self._expected = MAX_ACCEPTS
        self._keepalive: Keepalive | None = None
        # What the socket had before any was set.
        self._first_keepalive: Keepalive | None = None
        self._is_inherited = False

    @property
    def listens(self) -> bool:
        """Whether the port is open."""
        return bool(self._port.connected)

    def use(self, keepalive: Keepalive) -> None:
        """Set this, and no delay of small packets, on the socket that listens: accepted ones inherit it.

        Args:
            keepalive: What connections get from now on.
        """
        if self._kind is AcceptedConnection:
            if self._first_keepalive is None:
                self._first_keepalive = Keepalive.of(self._port.socket)
            keepalive.set_on(self._port.socket, self._first_keepalive)
            self._keepalive = keepalive
            # Connections that wait to be accepted have what was set before.
            self._is_inherited = False

    def doRead(self) -> None:
        """Accept the connections that are there."""
        accept = self._port.socket._accept
        for count in range(self._expected):
            try:
                number, address = accept()
            except BlockingIOError:
                self._expected = max(1, count)
                self._is_inherited = True
                return
            except OSError:
                self._twisteds()
                return
            self._take(number, address)
        self._expected = min(2 * self._expected, MAX_ACCEPTS)

    def _take(self, number: int, address: Any) -> None:
        port = self._port
        # Not the subclass that is written in Python: this one costs less to make and to close.
        sock = socket.SocketType(port.addressFamily, socket.SOCK_STREAM, 0, number)
        connection = None
        try:
            if port.addressFamily == socket.AF_INET6:
                address = _with_scope(address)
            # A client's UNIX socket has no name.
            peer = port._buildAddr(address or None)
            protocol = port.factory.buildProtocol(peer)
            if protocol is None:
                sock.close()
                return
            connection = self._connection(sock, protocol, address, port, port.sessionno, port.reactor)
            connection.keep_peer(peer)
            port.sessionno += 1
            protocol.makeConnection(connection)
        except BaseException:
            # As the reactor does it: who fails loses the connection, and the others go on.
            _log.failure("A connection could not be accepted")
            if connection is None:
                sock.close()
            else:
                connection.abortConnection()

    def _connection(
        self, sock: Any, protocol: IProtocol, client: Any, server: Any, sessionno: int, reactor: Any
    ) -> AcceptedConnection:
        """As the constructor of Twisted's own."""
        connection = self._kind(sock, protocol, client, server, sessionno, reactor)
        if self._is_inherited:
            connection.inherited = self._keepalive
        return connection


def _with_scope(address: tuple[Any, ...]) -> tuple[Any, ...]:
    """An IPv6 address with the name of its scope, as Twisted has it."""
    host, *rest = address
    if rest[-1]:
        host = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]
    return (host, *rest)
