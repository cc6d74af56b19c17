"""Writing past the reactor: Twisted's own TCP connection on a socket that takes what the test says."""

from __future__ import annotations

import errno
import os
from typing import Any, cast

from twisted.internet.main import CONNECTION_LOST
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Connection
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txgearman.net import fast_write


class FakeSocket:
    """A socket that takes `room` bytes and then no more, or fails with the error number `failure`."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.failure = 0
        self.sent = b""
        self.sends = 0

    def setblocking(self, _blocking: bool) -> None:
        pass

    def fileno(self) -> int:
        return 99

    def shutdown(self, _how: int) -> None:
        pass

    def close(self) -> None:
        pass

    def sendmsg(self, pieces: list[bytes]) -> int:
        return self.send(b"".join(pieces))

    def send(self, data: bytes) -> int:
        self.sends += 1
        if self.failure:
            raise OSError(self.failure, os.strerror(self.failure))
        if not self.room:
            raise BlockingIOError(errno.EWOULDBLOCK, "full")
        taken = bytes(data[: self.room])
        self.room -= len(taken)
        self.sent += taken
        return len(taken)


class Producer:
    """Counts how often it is paused and resumed."""

    paused = resumed = 0

    def pauseProducing(self) -> None:
        self.paused += 1

    def resumeProducing(self) -> None:
        self.resumed += 1

    def stopProducing(self) -> None:
        pass


class LostProtocol(Protocol):
    """Remembers its loss."""

    lost: BaseException | None = None

    def connectionLost(self, reason: Failure = Failure(CONNECTION_LOST)) -> None:  # noqa: B008
        self.lost = reason.value


class DirectTest(SynchronousTestCase):
    """On a connected TCP connection."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.socket = FakeSocket(room=1 << 20)
        self.protocol = LostProtocol()
        self.connection = Connection(cast(Any, self.socket), self.protocol, cast(Any, self.reactor))
        self.connection.connected = 1
        self.protocol.makeConnection(self.connection)

    def write(self, data: bytes) -> None:
        fast_write.write(self.connection, data)

    @property
    def waiting(self) -> bool:
        """Whether the reactor was asked to tell when the socket takes more."""
        return self.connection in self.reactor.getWriters()

    def drain(self) -> None:
        """What the reactor does when the socket takes more."""
        while self.waiting:
            why = self.connection.doWrite()
            if why is not None:
                self.connection.connectionLost(Failure(why))

    def test_at_once(self) -> None:
        self.write(b"hello")
        self.assertEqual(self.socket.sent, b"hello")
        self.assertFalse(self.waiting)

    def test_nothing(self) -> None:
        self.write(b"")
        self.assertEqual(self.socket.sent, b"")
        self.assertFalse(self.waiting)

    def test_a_socket_that_takes_a_part(self) -> None:
        self.socket.room = 3
        self.write(b"hello")
        self.assertEqual(self.socket.sent, b"hel")
        self.assertTrue(self.waiting)
        self.write(b" world")
        self.assertEqual(self.socket.sent, b"hel", "nothing may overtake what waits")
        self.socket.room = 100
        self.drain()
        self.assertEqual(self.socket.sent, b"hello world")
        self.write(b"!")
        self.assertEqual(self.socket.sent, b"hello world!")

    def test_a_socket_that_takes_nothing(self) -> None:
        self.socket.room = 0
        self.write(b"hello")
        self.assertTrue(self.waiting)
        self.assertIsNone(self.protocol.lost)
        self.socket.room = 100
        self.drain()
        self.assertEqual(self.socket.sent, b"hello")

    def test_what_was_written_by_the_transport_comes_first(self) -> None:
        self.connection.write(b"first ")
        self.write(b"second")
        self.assertEqual(self.socket.sends, 0)
        self.drain()
        self.assertEqual(self.socket.sent, b"first second")

    def test_what_is_half_sent_comes_first(self) -> None:
        self.socket.room = 2
        self.connection.write(b"first ")
        self.connection.doWrite()
        self.assertEqual(self.socket.sent, b"fi")
        self.socket.room = 100
        self.write(b"second")
        self.assertEqual(self.socket.sent, b"fi")
        self.drain()
        self.assertEqual(self.socket.sent, b"first second")

    def test_more_than_twisted_sends_at_a_time(self) -> None:
        data = bytes(range(256)) * (3 * Connection.SEND_LIMIT // 256)
        self.write(data)
        self.assertGreaterEqual(len(self.socket.sent), Connection.SEND_LIMIT)
        self.drain()
        self.assertTrue(self.socket.sent == data)

    def test_a_broken_socket(self) -> None:
        for number in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
            with self.subTest(errno.errorcode[number]):
                self.setUp()
                self.socket.failure = number
                self.write(b"hello")
                self.assertIsNone(self.protocol.lost, "not while somebody else's packet is handled")
                self.drain()
                self.assertIs(type(self.protocol.lost), type(CONNECTION_LOST))
                self.assertEqual(self.socket.sent, b"")

    def test_a_producer_is_paused_when_much_is_left(self) -> None:
        producer = Producer()
        self.connection.registerProducer(producer, True)
        self.socket.room = 10
        self.write(bytes(10 + self.connection.bufferSize))
        self.assertEqual(producer.paused, 0)
        self.write(b"!")
        self.assertEqual(producer.paused, 1)
        self.socket.room = 1 << 20
        self.drain()
        self.assertEqual(producer.resumed, 1)

    def test_a_producer_is_not_paused_by_what_the_socket_takes(self) -> None:
        producer = Producer()
        self.connection.registerProducer(producer, True)
        self.write(bytes(Connection.SEND_LIMIT))
        self.assertEqual((producer.paused, producer.resumed), (0, 0))

    def test_a_connection_that_is_being_closed(self) -> None:
        self.connection.write(b"first ")
        self.connection.loseConnection()
        self.write(b"second")
        self.assertEqual(self.socket.sends, 0)
        self.drain()
        self.assertIsNotNone(self.protocol.lost)
        self.assertTrue(self.socket.sent.startswith(b"first "))

    def test_a_connection_that_is_lost(self) -> None:
        self.connection.connectionLost(Failure(CONNECTION_LOST))
        self.write(b"late")
        self.assertEqual(self.socket.sends, 0)

    def test_a_connection_whose_own_tls_is_on_top(self) -> None:
        # What startTLS leaves: the bytes must go through the TLS layer and not past it.
        written: list[bytes] = []
        self.connection.TLS = True
        self.patch(self.connection, "write", written.append)
        self.patch(self.connection, "writeSequence", written.extend)
        self.write(b"secret")
        self.assertEqual(self.socket.sends, 0)
        self.assertEqual(b"".join(written), b"secret")

    def test_a_transport_of_another_kind(self) -> None:
        transport = StringTransport()
        fast_write.write(transport, b"hello")
        self.assertEqual(transport.value(), b"hello")


class PiecesTest(DirectTest):
    """The same with bytes that come in pieces and are not joined."""

    def write(self, data: bytes) -> None:
        self.write_pieces([data[:2], data[2:3], data[3:]])

    def write_pieces(self, pieces: list[bytes]) -> None:
        """Offer them, and leave the rest to the transport."""
        taken = fast_write.offer(self.connection, pieces)
        rest = b"".join(pieces)[taken:]
        if rest:
            self.connection.write(rest)

    def test_more_pieces_than_the_socket_takes_in_one_call(self) -> None:
        pieces = [b"%d" % number for number in range(fast_write.MAX_PIECES + 2)]
        self.write_pieces(pieces)
        self.drain()
        self.assertEqual(self.socket.sent, b"".join(pieces))

    def test_a_part_that_ends_with_a_piece(self) -> None:
        for room in range(7):
            self.socket.sent, self.socket.room = b"", room
            self.write_pieces([b"ab", b"", b"cd", b"ef"])
            self.assertEqual(self.socket.sent, b"abcdef"[:room])
            self.socket.room = 100
            self.drain()
            self.assertEqual(self.socket.sent, b"abcdef")
