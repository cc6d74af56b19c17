"""Peers that say one thing by two writes without TCP_NODELAY do not stand still between them.

Two kinds of reads end with nothing to send, so that such a peer waits for the acknowledgement. One is a
worker's report: WORK_*, CAN_DO, PRE_SLEEP and all else without an answer. The other is a part of a packet, of
which header and body are two writes. Both are here, with real sockets and a reactor that is turned by hand.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
from collections.abc import Callable
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any
from unittest import SkipTest, skipUnless

from twisted.internet import tcp
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.net.test_polling import SECONDS, HandReactor
from tests.server.peers import PREFIX, ServerTestCase, req, res
from txgearman.net import quickack
from txgearman.net.polling import Poller
from txgearman.net.quickack import (
    FIRST_STOCK,
    NEXT_STOCK,
    STANDSTILL,
    WATCH_EVERY,
    WATCHED,
    QuickAck,
    quick_ack,
)
from txgearman.server import GearmanServerFactory, Settings

SUBMIT_JOB, GRAB_JOB, CAN_DO, WORK_STATUS, WORK_COMPLETE, ECHO_REQ, PRE_SLEEP = 7, 9, 1, 12, 13, 16, 4

DELAY = 0.04
"""Seconds for which Linux delays an acknowledgement at least."""

JOBS = 40
MOST_DELAYED = 4
"""Of `JOBS` reports so many may be seen before their acknowledgement on a machine that is busy."""

UNACKED = struct.Struct("24x I")
"""Where ``struct tcp_info`` has the number of segments that the peer has not acknowledged."""


def unacknowledged(peer: socket.socket) -> int:
    """Segments that `peer` has sent and has no acknowledgement of."""
    count: int = UNACKED.unpack(peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, UNACKED.size))[0]
    return count


class RealSockets(SynchronousTestCase):
    def setUp(self) -> None:
        if not hasattr(select, "epoll") or not hasattr(socket, "TCP_QUICKACK"):
            raise SkipTest("this system cannot acknowledge at once")
        self.reactor = HandReactor()
        self.poller = Poller(self.reactor)
        self.factory = GearmanServerFactory(
            self.reactor, Settings(handle_prefix=PREFIX), call_soon=self.poller.call_soon
        )
        self.port: Any = tcp.Port(0, self.listened(), interface="127.0.0.1", reactor=self.reactor)
        self.port.startListening()
        self.poller.serve(self.port)
        self.addCleanup(self.end)

    def listened(self) -> Any:
        """What makes the connections of the port."""
        return self.factory

    def end(self) -> None:
        for connection in list(self.factory.connections.values()):
            transport: Any = connection.transport
            getattr(transport, "transport", transport).connectionLost(Failure(CONNECTION_LOST))
        self.port.connectionLost(Failure(CONNECTION_LOST))
        self.poller.close()

    def connect(self) -> socket.socket:
        peer = socket.create_connection(self.port.socket.getsockname())
        self.addCleanup(peer.close)
        peer.settimeout(SECONDS)
        self.port.doRead()
        return peer

    def say(self, peer: socket.socket, *packets: bytes) -> None:
        """Send by one write, and let the server handle it."""
        peer.send(b"".join(packets))
        self.assertTrue(select.select([self.poller], [], [], SECONDS)[0])
        self.poller.doRead()

    def ask(self, peer: socket.socket, packet: bytes) -> bytes:
        self.say(peer, packet)
        return peer.recv(65536)

    def unanswered(self) -> int:
        """Of `JOBS` reports of a worker the number of those that were not acknowledged at once."""
        worker, delayed = self.worker_with_jobs(), 0
        for number in range(1, JOBS + 1):
            handle = f"{PREFIX}:{number}".encode()
            self.assertEqual(self.ask(worker, req(GRAB_JOB)), res(11, handle, b"f", b""))
            self.say(worker, req(WORK_COMPLETE, handle, b""))
            delayed += bool(unacknowledged(worker))
        return delayed

    def worker_with_jobs(self) -> socket.socket:
        """A worker for whom jobs wait, past the first reads that the system itself acknowledges at once."""
        client, worker = self.connect(), self.connect()
        for _ in range(JOBS):
            self.ask(client, req(SUBMIT_JOB, b"f", b"", b""))
        self.say(worker, req(CAN_DO, b"f"))
        for _ in range(JOBS):
            self.ask(worker, req(ECHO_REQ, b"x"))
        return worker


class PlainTests(RealSockets):
    def test_reports_are_acknowledged_before_the_next_request_comes(self) -> None:
        self.assertLessEqual(self.unanswered(), MOST_DELAYED)

    def test_parts_of_packets_are_acknowledged_before_the_rest_comes(self) -> None:
        worker, delayed = self.worker_with_jobs(), 0
        echo = req(ECHO_REQ, b"hello")
        for _ in range(JOBS):
            self.say(worker, echo[:12])
            delayed += bool(unacknowledged(worker))
            self.assertEqual(self.ask(worker, echo[12:]), res(17, b"hello"))
        self.assertLessEqual(delayed, MOST_DELAYED)

    def test_a_peer_that_stands_still_when_its_stock_is_used_up_gets_another(self) -> None:
        self.patch(quickack, "FIRST_STOCK", 0)
        worker, delayed = self.worker_with_jobs(), 0
        for number in range(1, JOBS + 1):
            handle = f"{PREFIX}:{number}".encode()
            self.assertEqual(self.ask(worker, req(GRAB_JOB)), res(11, handle, b"f", b""))
            self.say(worker, req(WORK_STATUS, handle, b"1", b"2"))
            self.reactor.advance(DELAY if number == 1 else 0.0)
            self.say(worker, req(WORK_COMPLETE, handle, b""), req(ECHO_REQ, b""))
            worker.recv(65536)
            self.say(worker, req(CAN_DO, b"f"))
            delayed += bool(unacknowledged(worker))
        self.assertLessEqual(delayed, MOST_DELAYED + 1)

    def test_a_connection_that_is_lost_while_its_read_is_handled(self) -> None:
        peer = self.connect()
        (connection,) = self.factory.connections.values()
        connection._quick_ack = QuickAck(socket.socket(), lambda: 0.0)
        connection._quick_ack._peer.close()
        self.say(peer, req(CAN_DO, b"f"))
        self.assertEqual(self.ask(peer, req(ECHO_REQ, b"x")), res(17, b"x"))


@skipUnless(find_spec("OpenSSL"), "not installed: pyOpenSSL")
class TlsTests(RealSockets):
    """Over TLS a write is a record, which waits for the acknowledgement of the one before."""

    def listened(self) -> Any:
        from tests.certificates import authorities
        from txgearman.server.config.tls_options import TlsFiles
        from txgearman.server.tls import ServerTls

        made = authorities()
        folder, ours, _ = made.__enter__()
        self.addCleanup(made.__exit__, None, None, None)
        certificate = str(ours.issue(folder / "server.pem", "jobs.example.com"))
        return ServerTls(TlsFiles(certificate), self.reactor).wrap(self.factory)

    def connect(self) -> Any:
        return TlsPeer(super().connect(), self.turn)

    def turn(self) -> None:
        """One turn of the server, once something has come."""
        self.assertTrue(select.select([self.poller], [], [], SECONDS)[0])
        self.poller.doRead()
        # TLS collects what is to be sent in a turn.
        self.reactor.advance(0)
        self.poller.doRead()

    def say(self, peer: Any, *packets: bytes) -> None:
        peer.send(b"".join(packets))
        self.turn()

    def test_reports_are_acknowledged_before_the_next_request_comes(self) -> None:
        self.assertLessEqual(self.unanswered(), MOST_DELAYED)


class TlsPeer:
    """A socket that speaks TLS while `turn` lets the server answer."""

    def __init__(self, peer: socket.socket, turn: Callable[[], None]) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._peer = peer
        self._came, self._goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._came, self._goes)
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._send()
                turn()
                self._came.write(peer.recv(65536))
        self._send()
        turn()

    def _send(self) -> None:
        self._peer.send(self._goes.read())

    def send(self, data: bytes) -> None:
        self._tls.write(data)
        self._send()

    def recv(self, size: int) -> bytes:
        while True:
            try:
                return self._tls.read(size)
            except ssl.SSLWantReadError:
                self._came.write(self._peer.recv(65536))

    def getsockopt(self, *option: int) -> Any:
        return self._peer.getsockopt(*option)


class Stock(SynchronousTestCase):
    """What a connection has, and when it gets more, without a kernel."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.options: list[tuple[int, int, int]] = []
        peer: Any = SimpleNamespace(setsockopt=lambda *option: self.options.append(option))
        self.acks = QuickAck(peer, self.clock.seconds)
        self.patch(quickack, "_QUICKACK", 12)

    def read(self, pause: float) -> None:
        """A read without an answer, and `pause` seconds later one that completes a request."""
        timed = self.acks.unanswered()
        self.clock.advance(pause)
        if timed:
            self.acks.resumed()

    def reads(self, count: int, pause: float = 0.001) -> int:
        """So many of them; returns how many were acknowledged at once."""
        before = len(self.options)
        for _ in range(count):
            self.read(pause)
        return len(self.options) - before

    def test_first_stock(self) -> None:
        self.assertEqual(self.reads(FIRST_STOCK + 1), FIRST_STOCK)
        self.assertEqual(set(self.options), {(socket.IPPROTO_TCP, 12, 1)})

    def test_a_peer_that_never_stands_still_gets_no_more(self) -> None:
        self.reads(FIRST_STOCK)
        self.assertEqual(self.reads(10 * WATCH_EVERY, STANDSTILL - 0.005), 0)

    def test_a_peer_that_stands_still_gets_the_next_stock_again_and_again(self) -> None:
        self.reads(FIRST_STOCK)
        for _ in range(3):
            self.assertEqual(self.reads(1, DELAY), 0)
            self.assertEqual(self.reads(NEXT_STOCK, 0.0), NEXT_STOCK)

    def test_a_peer_that_begins_to_stand_still_is_seen_within_so_many_reads(self) -> None:
        self.reads(FIRST_STOCK + WATCHED)
        self.assertEqual(self.reads(WATCH_EVERY - WATCHED, DELAY), 0)
        self.assertEqual(self.reads(1, DELAY), 0)
        self.assertEqual(self.reads(1), 1)

    def test_few_reads_are_timed(self) -> None:
        self.reads(FIRST_STOCK)
        timed = sum(self.acks.unanswered() for _ in range(10 * WATCH_EVERY))
        self.assertEqual(timed, 10 * WATCHED)


class Calls(ServerTestCase):
    """Which reads of a connection are told, and which cost nothing."""

    def setUp(self) -> None:
        super().setUp()
        self.calls: list[str] = []
        self.timed = True

    def watched(self) -> Any:
        """A peer, and from now on the calls for its connection."""
        peer = self.peer()
        connection = list(self.gearman.server.connections.values())[-1]
        connection._quick_ack = self  # type: ignore[assignment]
        return peer

    def unanswered(self) -> bool:
        self.calls.append("unanswered")
        return self.timed

    def resumed(self) -> None:
        self.calls.append("resumed")

    def called(self) -> list[str]:
        calls, self.calls = self.calls, []
        return calls

    def test_answered_reads_cost_nothing(self) -> None:
        peer = self.watched()
        peer.ask(req(CAN_DO, b"f"), req(SUBMIT_JOB, b"f", b"", b""), req(GRAB_JOB))
        peer.ask(req(WORK_COMPLETE, b"H:test:1", b""), req(GRAB_JOB))
        self.assertEqual(self.called(), [])

    def test_a_report_alone_and_the_request_behind_it(self) -> None:
        peer = self.watched()
        peer.ask(req(CAN_DO, b"f"))
        self.assertEqual(self.called(), ["unanswered"])
        peer.ask(req(GRAB_JOB))
        self.assertEqual(self.called(), ["resumed"])
        peer.ask(req(GRAB_JOB))
        self.assertEqual(self.called(), [])

    def test_what_is_not_timed_is_not_looked_at_again(self) -> None:
        self.timed = False
        peer = self.watched()
        peer.ask(req(CAN_DO, b"f"))
        peer.ask(req(GRAB_JOB))
        self.assertEqual(self.called(), ["unanswered"])

    def test_a_sleeper_that_is_woken_did_not_stand_still(self) -> None:
        worker, client = self.watched(), self.peer()
        worker.ask(req(CAN_DO, b"f"), req(PRE_SLEEP))
        self.assertEqual(client.ask(req(SUBMIT_JOB, b"f", b"", b"")), res(8, b"H:test:1"))
        self.assertEqual(worker.heard(), res(6))
        worker.ask(req(GRAB_JOB))
        self.assertEqual(self.called(), ["unanswered"])


class Possible(SynchronousTestCase):
    """Where there is nothing to acknowledge, or no way to do it."""

    def test_transports_that_are_no_tcp_connections(self) -> None:
        self.assertIsNone(quick_ack(StringTransport(), lambda: 0.0))

    def connection(self, family: int) -> Any:
        with socket.socket(family) as skt:
            return quick_ack(tcp.Connection(skt, None, Clock()), lambda: 0.0)  # type: ignore[arg-type]

    def test_families(self) -> None:
        self.patch(quickack, "_QUICKACK", 12)
        self.assertIsNotNone(self.connection(socket.AF_INET))
        self.assertIsNotNone(self.connection(socket.AF_INET6))
        self.assertIsNone(self.connection(socket.AF_UNIX))

    def test_systems_without_it(self) -> None:
        self.patch(quickack, "_QUICKACK", None)
        self.assertIsNone(self.connection(socket.AF_INET))
