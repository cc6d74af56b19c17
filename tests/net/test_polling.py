"""The connections' epoll set below the reactor, with real sockets and a reactor that is turned by hand."""

from __future__ import annotations

import errno
import select
import socket
import struct
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any
from unittest import SkipTest

from twisted.internet import tcp, unix
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorFDSet
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txgearman.net import accepting, polling
from txgearman.net.accepting import AcceptedConnection
from txgearman.net.polling import BUSY_POLL_SECONDS, Poller

SECONDS = 5.0
"""How long a turn of the test's reactor may wait for the kernel, which delivers within the machine."""


def fail() -> None:
    raise RuntimeError("on purpose")


@implementer(IReactorFDSet)
class HandReactor(Clock):
    """Watches nothing but what it is told to look at."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        if reader not in self.readers:
            self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    def addWriter(self, writer: Any) -> None:
        raise AssertionError("nobody writes by this reactor")

    def removeWriter(self, writer: Any) -> None: ...

    def removeAll(self) -> list[Any]:
        readers, self.readers = self.readers, []
        return readers

    def getReaders(self) -> list[Any]:
        return self.readers

    def getWriters(self) -> list[Any]:
        return []


class Peer(Protocol):
    """Notes what happens to it, and does what the test says when it has read."""

    def __init__(self, number: int, notes: list[Any]) -> None:
        self.number = number
        self.notes = notes
        self.then: Callable[[], object] = lambda: None
        self.at_end: Callable[[], object] = lambda: None

    def dataReceived(self, data: bytes) -> None:
        self.notes.append((self.number, data))
        self.then()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.notes.append((self.number, reason.type))
        self.at_end()


@implementer(IHalfCloseableProtocol)
class HalfPeer(Peer):
    def readConnectionLost(self) -> None:
        self.notes.append((self.number, "no more to read"))

    def writeConnectionLost(self) -> None: ...


class Served(SynchronousTestCase):
    """A port whose connections a poller watches, and clients of it."""

    peer = Peer

    @staticmethod
    def clock() -> float:
        return monotonic()

    def setUp(self) -> None:
        if not hasattr(select, "epoll"):
            raise SkipTest("this system has no epoll")
        self.reactor = HandReactor()
        self.poller = Poller(self.reactor, self.clock)
        self.notes: list[Any] = []
        self.peers: list[Any] = []
        self.factory = Factory.forProtocol(Peer)
        self.factory.buildProtocol = self.build  # type: ignore[method-assign]
        self.port = self.listen(self.factory)
        self.poller.serve(self.port)
        self.addCleanup(self.end)

    def listen(self, factory: Factory) -> Any:
        port = tcp.Port(0, factory, interface="127.0.0.1", reactor=self.reactor)
        port.startListening()
        return port

    def end(self) -> None:
        for peer in self.peers:
            if peer.transport.connected:
                peer.transport.connectionLost(Failure(CONNECTION_LOST))
        if self.port.connected:
            self.port.connectionLost(Failure(CONNECTION_LOST))
        self.poller.close()

    def build(self, _address: object) -> Peer:
        peer = self.peer(len(self.peers), self.notes)
        self.peers.append(peer)
        return peer

    def connect(self) -> socket.socket:
        client = socket.socket(self.port.addressFamily)
        self.addCleanup(client.close)
        client.connect(self.port.socket.getsockname())
        client.settimeout(SECONDS)
        self.port.doRead()
        return client

    def ready(self) -> bool:
        """Whether the reactor sees the poller ready, within the time that the kernel may take."""
        return bool(
            self.reactor.readers[-1:] == [self.poller] and select.select([self.poller], [], [], SECONDS)[0]
        )

    def turn(self) -> list[Any]:
        """One turn of the poller, once there is something for it; what the connections noted."""
        self.assertTrue(self.ready())
        self.poller.doRead()
        return self.noted()

    def take(self, client: socket.socket, size: int) -> bytes:
        """So many bytes that the server sends, with turns of the poller as long as it has not sent all."""
        got = bytearray()
        while len(got) < size:
            ready = select.select([client, self.poller], [], [], SECONDS)[0]
            self.assertNotEqual([], ready)
            if self.poller in ready:
                self.poller.doRead()
            if client in ready:
                got += client.recv(size)
        return bytes(got)

    def noted(self) -> list[Any]:
        """What the connections noted since the last time."""
        notes, self.notes[:] = list(self.notes), []
        return notes


class ServedOnUnix(Served):
    """The same on a UNIX socket."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = str(Path(folder.name, "socket"))
        super().setUp()

    def listen(self, factory: Factory) -> Any:
        port = unix.Port(self.path, factory, reactor=self.reactor)
        port.startListening()
        return port


class PollerTests(Served):
    def test_all_that_are_ready_are_served_in_one_turn_and_then_what_is_to_be_done_at_its_end(self) -> None:
        clients = [self.connect() for _ in range(3)]
        for peer in self.peers:
            peer.then = lambda: self.poller.call_soon(lambda: self.notes.append("end"))
        for client in clients:
            client.send(b"hello")
        notes = self.turn()
        self.assertEqual({(0, b"hello"), (1, b"hello"), (2, b"hello")}, set(notes[:3]))
        self.assertEqual(["end"] * 3, notes[3:])
        self.assertFalse(select.select([self.poller], [], [], 0)[0])

    def read_bytewise(self) -> None:
        """Have each read bring one byte."""
        self.patch(accepting, "READ_SIZE", 1)
        self.patch(accepting, "LARGE_READ_SIZE", 1)
        self.patch(AcceptedConnection, "_read_size", 1)

    def test_nobody_is_passed_over_when_more_are_always_ready_than_are_served_in_a_turn(self) -> None:
        self.patch(polling, "MAX_EVENTS", 2)
        self.patch(polling, "TURNS_SECONDS", 0)
        self.read_bytewise()
        for client in [self.connect() for _ in range(5)]:
            client.send(b"x" * 20)
        served = [number for _ in range(5) for number, _ in self.turn()]
        self.assertEqual([2] * 5, [served.count(number) for number in range(5)])

    def test_turn_follows_upon_turn_as_long_as_somebody_is_ready(self) -> None:
        self.patch(polling, "TURNS_SECONDS", SECONDS)
        self.read_bytewise()
        clients = [self.connect() for _ in range(2)]
        self.peers[0].then = lambda: self.poller.call_soon(lambda: self.notes.append("end"))
        clients[0].send(b"1234")
        clients[1].send(b"12")
        notes = self.turn()
        self.assertEqual({(0, b"1"), (1, b"1")}, set(notes[:2]))
        self.assertEqual({(0, b"2"), (1, b"2")}, set(notes[3:5]))
        self.assertEqual(["end", "end", (0, b"3"), "end", (0, b"4"), "end"], [notes[2], *notes[5:]])

    def test_what_is_called_soon_outside_of_a_turn_waits_for_the_reactor(self) -> None:
        self.poller.call_soon(lambda: self.notes.append("called"))
        self.assertEqual([], self.notes)
        self.reactor.advance(0)
        self.assertEqual(["called"], self.notes)

    def test_what_fails_at_the_end_of_a_turn_is_logged_and_the_rest_is_done(self) -> None:
        client = self.connect()
        self.peers[0].then = lambda: [
            self.poller.call_soon(fail),
            self.poller.call_soon(lambda: self.notes.append("rest")),
        ]
        client.send(b"x")
        self.assertEqual([(0, b"x"), "rest"], self.turn())
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))

    def test_who_fails_loses_the_connection_and_the_others_go_on(self) -> None:
        clients = [self.connect() for _ in range(2)]
        self.peers[0].then = fail
        for client in clients:
            client.send(b"x")
        self.assertEqual({(0, b"x"), (0, RuntimeError), (1, b"x")}, set(self.turn()))
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))
        self.assertEqual(b"", clients[0].recv(1))
        clients[1].send(b"y")
        self.assertEqual([(1, b"y")], self.turn())

    def test_who_fails_at_the_end_of_the_connection_takes_no_other_along(self) -> None:
        clients = [self.connect() for _ in range(2)]
        self.peers[0].at_end = fail
        self.peers[0].then = lambda: self.poller.call_soon(lambda: self.notes.append("end"))
        clients[0].send(b"x")
        clients[0].close()
        clients[1].send(b"y")
        notes = self.turn()
        while len(notes) < 4:
            notes += self.turn()
        self.assertEqual({(0, b"x"), (0, ConnectionDone), (1, b"y"), "end"}, set(notes))
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))
        clients[1].send(b"z")
        self.assertEqual([(1, b"z")], self.turn())

    def test_no_kind_of_exception_ends_a_turn(self) -> None:
        clients = [self.connect() for _ in range(2)]

        def leave() -> None:
            self.poller.call_soon(lambda: self.notes.append("end"))
            raise SystemExit

        for peer in self.peers:
            peer.then = leave
        for client in clients:
            client.send(b"x")
        notes = self.turn()
        self.assertEqual(["end"] * 2, notes[-2:])
        self.assertEqual({(0, b"x"), (0, SystemExit), (1, b"x"), (1, SystemExit)}, set(notes[:-2]))
        self.assertEqual(2, len(self.flushLoggedErrors(SystemExit)))

    def test_a_peer_that_closes(self) -> None:
        self.connect().close()
        self.assertEqual([(0, ConnectionDone)], self.turn())

    def test_a_peer_that_resets(self) -> None:
        client = self.connect()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        ((number, why),) = self.turn()
        self.assertEqual(0, number)
        self.assertIn(why, (ConnectionLost, ConnectionDone))

    def test_one_that_is_not_read_hears_of_a_reset_all_the_same(self) -> None:
        client = self.connect()
        self.peers[0].transport.pauseProducing()
        # More than the socket takes, so that it is watched.
        self.peers[0].transport.write(bytes(10_000_000))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        self.assertEqual([(0, ConnectionLost)], self.turn())

    def test_a_turn_does_not_serve_whom_it_has_ended(self) -> None:
        clients = [self.connect() for _ in range(2)]
        for peer, other in zip(self.peers, reversed(self.peers), strict=True):
            peer.then = other.transport.abortConnection
        for client in clients:
            client.send(b"x")
        notes = self.turn()
        self.assertEqual(1, len(notes))
        self.reactor.advance(0)
        self.assertEqual([(1 - notes[0][0], ConnectionAborted)], self.notes)

    def test_what_the_socket_does_not_take_is_sent_when_it_does(self) -> None:
        client = self.connect()
        sent = bytes(range(256)) * 40_000
        self.peers[0].transport.write(sent)
        self.assertEqual(sent, self.take(client, len(sent)))
        self.assertEqual([], self.poller.getWriters())

    def test_closing_waits_for_what_is_to_be_sent(self) -> None:
        client = self.connect()
        sent = bytes(10_000_000)
        self.peers[0].transport.write(sent)
        self.peers[0].transport.loseConnection()
        self.assertEqual(sent, self.take(client, len(sent)))
        self.assertEqual([(0, ConnectionDone)], self.noted())
        self.assertEqual(b"", client.recv(1))

    def test_closing_with_all_sent_ends_the_connection_after_the_turn(self) -> None:
        client = self.connect()
        transport = self.peers[0].transport

        def answer() -> None:
            transport.write(b"answer")
            transport.loseConnection()
            transport.loseConnection()
            self.notes.append("answered")

        self.peers[0].then = answer
        client.send(b"hello")
        self.assertEqual([(0, b"hello"), "answered", (0, ConnectionDone)], self.turn())
        self.assertEqual([b"answer", b""], [client.recv(100), client.recv(100)])

    def test_closing_outside_a_turn(self) -> None:
        client = self.connect()
        self.peers[0].transport.loseConnection()
        self.assertEqual([], self.noted())
        self.reactor.advance(0)
        self.assertEqual([(0, ConnectionDone)], self.noted())
        self.assertEqual(b"", client.recv(1))

    def test_a_connection_that_is_lost_while_it_is_being_closed_is_lost_once(self) -> None:
        self.connect()
        self.peers[0].transport.loseConnection()
        self.peers[0].transport.abortConnection()
        self.reactor.advance(0)
        self.assertEqual(1, len(self.noted()))

    def test_a_paused_connection_is_not_read(self) -> None:
        client = self.connect()
        self.connect().send(b"other")
        self.peers[0].transport.pauseProducing()
        client.send(b"x")
        self.assertEqual([(1, b"other")], self.turn())
        self.assertEqual([self.port, self.peers[1].transport], self.poller.getReaders())
        self.peers[0].transport.resumeProducing()
        self.assertEqual([(0, b"x")], self.turn())

    def test_the_reactor_watches_as_long_as_there_is_a_port_or_a_connection(self) -> None:
        self.assertEqual([self.poller], self.reactor.readers)
        client = self.connect()
        self.port.connectionLost(Failure(CONNECTION_LOST))
        self.assertEqual([self.poller], self.reactor.readers)
        client.close()
        self.turn()
        self.assertEqual([], self.reactor.readers)

    def test_a_connection_takes_no_descriptor_but_its_own(self) -> None:
        def none_left() -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        self.patch(select, "epoll", none_left)
        client = self.connect()
        client.send(b"x")
        self.assertEqual([(0, b"x")], self.turn())

    def test_its_descriptor_is_given_back(self) -> None:
        client = self.connect()
        self.port.connectionLost(Failure(CONNECTION_LOST))
        self.poller.close()
        self.assertNotEqual(-1, self.poller.fileno())
        client.close()
        self.turn()
        self.poller.close()
        self.assertEqual(-1, self.poller.fileno())
        self.port = self.listen(self.factory)
        self.poller.serve(self.port)
        self.connect().send(b"x")
        self.assertEqual([(1, b"x")], self.turn())

    def test_the_end_of_the_reactor_is_that_of_the_port_and_the_connections(self) -> None:
        self.connect()
        self.connect()
        self.poller.connectionLost(Failure(CONNECTION_LOST))
        self.assertEqual([(0, ConnectionLost), (1, ConnectionLost)], self.notes)
        self.assertFalse(self.port.connected)
        self.assertEqual([], self.reactor.readers)

    def test_who_fails_at_the_end_of_the_reactor_takes_no_other_along(self) -> None:
        self.connect()
        self.connect()
        self.peers[0].at_end = fail
        self.poller.connectionLost(Failure(CONNECTION_LOST))
        self.assertEqual([(0, ConnectionLost), (1, ConnectionLost)], self.notes)
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))

    def test_a_port_of_another_kind_is_left_alone(self) -> None:
        port: Any = object()
        self.assertIs(port, self.poller.serve(port))

    def test_it_is_the_reactor_otherwise(self) -> None:
        self.assertEqual(self.reactor.seconds(), self.poller.seconds())


class HalfCloseTests(Served):
    peer = HalfPeer

    def test_a_protocol_that_hears_of_the_end_of_what_the_peer_says_goes_on_to_write(self) -> None:
        client = self.connect()
        client.shutdown(socket.SHUT_WR)
        self.assertEqual([(0, "no more to read")], self.turn())
        sent = bytes(10_000_000)
        self.peers[0].transport.write(sent)
        self.peers[0].transport.loseConnection()
        self.assertEqual(sent, self.take(client, len(sent)))
        self.assertEqual([(0, ConnectionDone)], self.noted())


class ReadTests(SynchronousTestCase):
    """How much is asked of a socket."""

    def test_more_as_long_as_much_comes(self) -> None:
        asked: list[int] = []
        brought = iter([100, 64 * 1024, 30 * 1024, 100 * 1024, 100, 100])

        def recv(size: int) -> bytes:
            asked.append(size)
            return b"x" * next(brought)

        connection = AcceptedConnection.__new__(AcceptedConnection)
        connection.socket = SimpleNamespace(recv=recv)
        connection.protocol = SimpleNamespace(dataReceived=lambda data: None)
        for _ in range(6):
            connection.doRead()
        little, much = 64 * 1024, 120 * 1024
        self.assertEqual([little, little, much, much, much, little], asked)


class AwakeTests(Served):
    """How long the poller busy polls for who is ready next, by a clock that a look at it moves on."""

    def setUp(self) -> None:
        super().setUp()
        self.now = 0.0
        self.looks = 0
        self.then: dict[int, Callable[[], object]] = {}
        """What happens at a look, by its number in the turn."""
        self.client = self.connect()

    def clock(self) -> float:
        self.looks += 1
        self.then.pop(self.looks, int)()
        self.now += BUSY_POLL_SECONDS / 10
        return self.now

    def served(self, *answers: tuple[int, bytes]) -> bytes:
        """What is served in one turn that begins with a byte, with what else comes at some looks."""
        self.looks = 0
        self.then = {look: lambda data=data: self.client.send(data) for look, data in answers}
        self.client.send(b"0")
        return b"".join(data for _, data in self.turn())

    def missed(self) -> bool:
        """Whether the poller waited awake for nobody in one turn."""
        self.assertEqual(b"0", self.served())
        return self.looks > 5

    def test_who_answers_at_once_is_served_in_the_same_turn(self) -> None:
        self.assertEqual(b"012", self.served((6, b"1"), (12, b"2")))

    def test_it_sleeps_when_nobody_has_come_for_a_while(self) -> None:
        began = self.now
        self.assertTrue(self.missed())
        self.assertLessEqual(BUSY_POLL_SECONDS, self.now - began)
        self.assertGreater(2 * BUSY_POLL_SECONDS, self.now - began)

    def test_it_sleeps_at_once_ever_more_often_where_nobody_comes(self) -> None:
        misses = [turn for turn in range(300) if self.missed()]
        between = [later - earlier - 1 for earlier, later in pairwise(misses)]
        self.assertEqual([1, 3, 7, 15, 31, 63, 64, 64], between)

    def test_it_waits_awake_again_each_time_once_that_was_worth_it(self) -> None:
        self.assertEqual([0, 2, 6], [turn for turn in range(14) if self.missed()])
        self.assertEqual(b"01", self.served((6, b"1")))
        self.assertEqual([False, True], [self.missed() for _ in range(2)])

    def test_the_reactor_has_its_turn_and_does_not_sleep_while_answers_come_at_once(self) -> None:
        self.patch(polling, "TURNS_SECONDS", BUSY_POLL_SECONDS)
        self.assertEqual(b"012", self.served((6, b"1"), (12, b"2"), (18, b"3")))
        self.assertEqual(1, len(self.reactor.getDelayedCalls()))
        self.reactor.advance(0)
        self.assertEqual([(0, b"3")], self.noted())

    def test_the_reactor_is_asked_once_however_often_it_calls(self) -> None:
        self.patch(polling, "TURNS_SECONDS", BUSY_POLL_SECONDS)
        for _ in range(2):
            self.served((6, b"1"), (12, b"2"))
            self.assertEqual(1, len(self.reactor.getDelayedCalls()))

    def test_the_reactor_is_not_asked_where_somebody_is_always_ready(self) -> None:
        self.patch(polling, "TURNS_SECONDS", 0)
        for _ in range(2):
            self.served()
            self.assertEqual([], self.reactor.getDelayedCalls())

    def test_nothing_is_left_to_the_reactor_when_all_is_closed(self) -> None:
        self.patch(polling, "TURNS_SECONDS", BUSY_POLL_SECONDS)
        self.served((6, b"1"), (12, b"2"))
        self.assertEqual(1, len(self.reactor.getDelayedCalls()))
        self.peers[0].transport.connectionLost(Failure(CONNECTION_LOST))
        self.port.connectionLost(Failure(CONNECTION_LOST))
        self.poller.close()
        self.assertEqual([], self.reactor.getDelayedCalls())


class UnixTests(ServedOnUnix, PollerTests):
    """On a UNIX socket."""
