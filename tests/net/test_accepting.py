"""How connections are accepted and ended, with real sockets and a reactor that is turned by hand."""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import sys
from typing import Any
from unittest import SkipTest

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory

from tests.net.test_polling import SECONDS, Served, ServedOnUnix
from txgearman.net import accepting
from txgearman.net.accepting import AcceptedConnection
from txgearman.net.keepalive import Keepalive

OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", 0)),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPINTVL", 0)),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPCNT", 0)),
)


class Listening:
    """A listening socket that fails to accept as the test says."""

    def __init__(self, listening: Any, *numbers: int) -> None:
        self._listening = listening
        self._numbers = list(numbers)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listening, name)

    def _accept(self) -> Any:
        if self._numbers:
            number = self._numbers.pop(0)
            raise OSError(number, "on purpose")
        return self._listening._accept()

    def accept(self) -> Any:
        return self._listening.accept()


class AcceptTests(Served):
    addresses: list[Any]

    def setUp(self) -> None:
        super().setUp()
        self.addresses = []

    def build(self, address: object) -> Any:
        self.addresses.append(address)
        return super().build(address)

    def client(self) -> socket.socket:
        """A connection that the system has accepted, and the server has not."""
        client = socket.socket(self.port.addressFamily)
        self.addCleanup(client.close)
        client.connect(self.port.socket.getsockname())
        return client

    def options(self, number: int) -> list[int]:
        """The options of a connection's socket, as the system has them."""
        sock = self.peers[number].transport.socket
        return [sock.getsockopt(level, option) for level, option in OPTIONS]

    def test_the_address_is_made_once(self) -> None:
        client = self.client()
        self.port.doRead()
        transport = self.peers[0].transport
        self.assertEqual(IPv4Address("TCP", *client.getsockname()), transport.getPeer())
        self.assertIs(self.addresses[0], transport.getPeer())
        self.assertEqual(IPv4Address("TCP", *client.getpeername()), transport.getHost())

    def test_what_a_log_says_of_it(self) -> None:
        client = self.client()
        self.client()
        self.port.doRead()
        transport = self.peers[1].transport
        self.assertEqual("Peer,1,127.0.0.1", transport.logPrefix())
        self.assertEqual(f"<AcceptedConnection #1 on {client.getpeername()[1]}>", repr(transport))

    def test_options_are_inherited(self) -> None:
        keepalive = Keepalive(31, 7, 3)
        self.poller.use_keepalive(keepalive)
        self.port.doRead()
        self.client()
        self.port.doRead()
        self.assertEqual([1, 1, 31, 7, 3], [min(value, 31) for value in self.options(0)])
        transport = self.peers[0].transport
        self.assertIs(keepalive, transport.inherited)
        # It is not set once more.
        self.patch(AcceptedConnection, "setTcpNoDelay", None)
        keepalive.apply(transport)

    def test_a_port_that_is_served_later_has_them_too(self) -> None:
        keepalive = Keepalive(31, 7, 3)
        self.poller.use_keepalive(keepalive)
        port = self.listen(self.factory)
        self.addCleanup(port.connectionLost, None)
        self.poller.serve(port)
        port.doRead()
        with socket.create_connection(port.socket.getsockname()):
            port.doRead()
        self.assertEqual(31, self.options(0)[2])

    def test_who_was_there_ahead_of_a_change_has_it_set(self) -> None:
        self.poller.use_keepalive(Keepalive(31, 7, 3))
        self.port.doRead()
        self.client()
        changed = Keepalive(32, 8, 4)
        self.poller.use_keepalive(changed)
        self.client()
        for _ in range(3):
            self.port.doRead()
        self.assertIsNone(self.peers[0].transport.inherited)
        self.assertEqual([31, 7, 3], self.options(0)[2:])
        for peer in self.peers:
            changed.apply(peer.transport)
        self.assertEqual([32, 8, 4], self.options(0)[2:])
        self.assertEqual([32, 8, 4], self.options(1)[2:])
        self.client()
        self.port.doRead()
        self.assertIs(changed, self.peers[2].transport.inherited)
        self.assertEqual([32, 8, 4], self.options(2)[2:])

    def test_values_that_are_left_to_the_system_are_the_systems_again(self) -> None:
        before = [self.port.socket.getsockopt(level, option) for level, option in OPTIONS]
        self.poller.use_keepalive(Keepalive(31, 7, 3))
        self.poller.use_keepalive(Keepalive(interval=8))
        self.port.doRead()
        self.client()
        self.port.doRead()
        self.assertEqual([before[2], 8, before[4]], self.options(0)[2:])

    def test_a_port_that_is_closed_needs_no_options(self) -> None:
        self.port.connectionLost(None)
        self.poller.use_keepalive(Keepalive())

    def test_those_that_are_there_are_accepted_in_one_go_as_far_as_there_are_not_too_many(self) -> None:
        self.patch(accepting, "MAX_ACCEPTS", 4)
        self.port.doRead()
        for _ in range(9):
            self.client()
        counts = []
        while len(self.peers) < 9:
            self.port.doRead()
            counts.append(len(self.peers))
        self.assertEqual([1, 3, 7, 9], counts)

    def test_one_that_is_not_wanted_is_closed(self) -> None:
        self.factory.buildProtocol = lambda _address: None  # type: ignore[method-assign]
        client = self.client()
        self.port.doRead()
        self.assertEqual(b"", client.recv(1))

    def test_one_that_cannot_be_made_is_closed_and_the_others_go_on(self) -> None:
        def build(address: object) -> Any:
            if not self.addresses:
                self.addresses.append(address)
                raise RuntimeError("on purpose")
            return self.build(address)

        self.factory.buildProtocol = build  # type: ignore[method-assign]
        first, second = self.client(), self.client()
        self.port.doRead()
        self.assertEqual(b"", first.recv(1))
        second.send(b"x")
        self.assertEqual([(0, b"x")], self.turn())
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))

    def test_one_that_fails_at_its_beginning_is_ended_and_the_others_go_on(self) -> None:
        def fail() -> None:
            raise RuntimeError("on purpose")

        def build(address: object) -> Any:
            peer = self.build(address)
            if len(self.peers) == 1:
                peer.connectionMade = fail
            return peer

        self.factory.buildProtocol = build  # type: ignore[method-assign]
        first, second = self.client(), self.client()
        self.port.doRead()
        self.reactor.advance(0)
        self.assertEqual([(0, ConnectionAborted)], self.noted())
        self.assertRaises(ConnectionResetError, first.recv, 1)
        second.send(b"x")
        self.assertEqual([(1, b"x")], self.turn())
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))

    def test_what_goes_wrong_is_left_to_twisted(self) -> None:
        client = self.client()
        for number in (errno.EMFILE, errno.ECONNABORTED):
            self.port.socket = Listening(self.port.socket, number)
            self.port.doRead()
        # Twisted has accepted it the first time, and found nobody the second.
        client.send(b"x")
        self.assertEqual([(0, b"x")], self.turn())
        self.assertIsInstance(self.peers[0].transport, AcceptedConnection)

    def test_what_the_socket_takes_is_sent_at_once(self) -> None:
        client = self.connect()
        transport = self.peers[0].transport
        transport.write(b"a")
        transport.writeSequence([b"b", b"c"])
        self.assertEqual(b"abc", self.take(client, 3))
        transport.write(b"")
        transport.write(b"d")
        self.assertEqual(b"d", client.recv(10))
        self.assertEqual([], self.poller.getWriters())

    def test_nothing_is_sent_ahead_of_what_waits(self) -> None:
        client = self.connect()
        transport = self.peers[0].transport
        sent = b"".join(bytes([number]) * 1_000_000 for number in range(10))
        for start in range(0, len(sent), 1_000_000):
            transport.write(sent[start : start + 1_000_000])
        self.assertEqual([transport], self.poller.getWriters())
        self.assertEqual(sent, self.take(client, len(sent)))

    def test_a_socket_that_fails_ends_the_connection_as_usual(self) -> None:
        client = self.connect()
        transport = self.peers[0].transport
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        transport.write(b"a")
        transport.write(b"b")
        ((number, why),) = self.turn()
        self.assertEqual(0, number)
        self.assertIn(why, (ConnectionLost, ConnectionDone))

    def test_a_copy_of_the_process_keeps_no_connection_up(self) -> None:
        self.patch(accepting._forks, "happened", True)
        client = self.client()
        self.port.doRead()
        # As the copy has it.
        copy = os.dup(self.peers[0].transport.fileno())
        self.addCleanup(os.close, copy)
        client.shutdown(socket.SHUT_WR)
        self.turn()
        client.settimeout(SECONDS)
        self.assertEqual(b"", client.recv(1))

    def test_a_copy_of_the_process_is_noticed(self) -> None:
        program = """if True:
            import os
            from txgearman.net.accepting import _forks

            before = _forks.happened
            if not os.fork():
                os._exit(0)
            os.wait()
            print(before, _forks.happened)
        """
        said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        self.assertEqual("False True\n", said.stdout)

    def test_its_end_is_told_once(self) -> None:
        client = self.client()
        self.port.doRead()
        transport = self.peers[0].transport
        client.close()
        self.assertEqual([(0, ConnectionDone)], self.turn())
        transport.connectionLost(None)
        self.assertEqual([], self.noted())
        self.assertEqual(1, transport.disconnected)

    def test_a_producer_hears_of_the_end(self) -> None:
        client = self.client()
        self.port.doRead()
        heard = []

        class Producer:
            def stopProducing(self) -> None:
                heard.append("stop")

        self.peers[0].transport.registerProducer(Producer(), True)
        client.close()
        self.turn()
        self.assertEqual(["stop"], heard)


class V6Tests(Served):
    """Over IPv6."""

    def listen(self, factory: Factory) -> Any:
        port = tcp.Port(0, factory, interface="::1", reactor=self.reactor)
        try:
            port.startListening()
        except Exception as error:
            raise SkipTest("this machine has no IPv6") from error
        return port

    def test_the_address_is_that_of_the_peer(self) -> None:
        client = self.connect()
        self.assertEqual(IPv6Address("TCP", *client.getsockname()), self.peers[0].transport.getPeer())
        self.assertEqual(IPv6Address("TCP", *client.getpeername()), self.peers[0].transport.getHost())

    def test_a_scope_is_known_by_its_name(self) -> None:
        self.patch(socket, "getnameinfo", lambda *_: ("fe80::1%eth0", "4730"))
        self.assertEqual(("fe80::1%eth0", 4730, 0, 2), accepting._with_scope(("fe80::1", 4730, 0, 2)))


class UnixTests(ServedOnUnix):
    def test_it_passes_for_tcp_and_has_no_options_of_it(self) -> None:
        self.connect()
        transport = self.peers[0].transport
        self.assertEqual(UNIXAddress(None), transport.getPeer())
        self.assertEqual(UNIXAddress(self.path), transport.getHost())
        Keepalive(31, 7, 3).apply(transport)
        self.assertFalse(transport.getTcpNoDelay())
        self.assertEqual(0, transport.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))


del Served, ServedOnUnix
