"""What a server counts of its connections, and what time it gives its broker."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import SocketlikeTransport, req
from txgearman.server import GearmanServerFactory, Settings

MEASURING = Settings(handle_prefix="H:test", metrics_functions=10, max_unsent=100_000)


class ConnectionsTestCase(SynchronousTestCase):
    """A server that measures, on transports that pause as sockets do."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.factory = GearmanServerFactory(self.clock, MEASURING, wall_clock=self.clock.seconds)
        self.traffic = self.factory.traffic

    def connect(self) -> SocketlikeTransport:
        transport = SocketlikeTransport()
        transport.connect(self.factory.buildProtocol(None))
        return transport

    def heard(self, transport: SocketlikeTransport) -> bytes:
        self.clock.advance(0)
        return transport.taken()


class TrafficTest(ConnectionsTestCase):
    def test_bytes_and_connections(self) -> None:
        first, second = self.connect(), self.connect()
        said = [req(16, b"x"), req(16, bytes(20_000)), b"version\n"]
        first.receive(said[0], said[1])
        heard = self.heard(first)
        second.receive(said[2])
        heard += self.heard(second)
        self.assertEqual(self.traffic.received, sum(map(len, said)))
        self.assertEqual(self.traffic.sent, len(heard))
        self.assertEqual(self.traffic.connections, 2)

    def test_what_a_peer_says_that_does_not_read(self) -> None:
        """It is counted when it is handled."""
        transport = self.connect()
        transport.receive(*[req(16, bytes(40_000))] * 4)
        self.clock.advance(0)
        self.assertFalse(transport.reading)
        heard = b""
        while taken := self.heard(transport):
            heard += taken
        self.assertEqual(self.traffic.received, 4 * 40_012)
        self.assertEqual(self.traffic.sent, len(heard))

    def test_refused_packets(self) -> None:
        transport = self.connect()
        transport.receive(b"maxqueue f 1\n", *[req(18, b"f", b"", b"")] * 3, req(13, b"H:test:9", b""))
        transport.receive(req(99), req(26, b"nonsense"))
        self.heard(transport)
        self.assertEqual(
            self.traffic.refused,
            {b"QUEUE_ERROR": 2, b"JOB_NOT_FOUND": 1, b"INVALID_COMMAND": 1, b"UNKNOWN_OPTION": 1},
        )

    def test_dropped_connections(self) -> None:
        self.connect().receive(b"\0BAD" + bytes(8))
        self.assertEqual(self.traffic.dropped, {"broken-stream": 1})
        client, worker = self.connect(), self.connect()
        client.receive(req(7, b"f", b"", b""))
        worker.receive(req(1, b"f"), req(9))
        while not client.aborted:
            worker.receive(req(28, b"H:test:1", bytes(40_000)))
            self.clock.advance(0)
        self.assertEqual(self.traffic.dropped, {"broken-stream": 1, "max-unsent": 1})

    def test_without_measuring(self) -> None:
        self.factory = GearmanServerFactory(self.clock, Settings())
        self.connect().receive(req(16, b"x"))
        self.clock.advance(0)
        self.assertEqual((self.factory.traffic.received, self.factory.traffic.sent), (0, 0))


class TimeTest(ConnectionsTestCase):
    """The time is asked for once a turn, and forgotten at its end."""

    def setUp(self) -> None:
        super().setUp()
        self.asked = 0

        def seconds() -> float:
            self.asked += 1
            return self.clock.seconds()

        self.factory.broker.timer.clock = seconds

    def test_once_for_all_reads_of_a_turn(self) -> None:
        client, worker = self.connect(), self.connect()
        client.receive(*[req(18, b"f", b"", b"")] * 5)
        worker.receive(req(1, b"f"), *[req(9)] * 3)
        self.assertEqual(self.asked, 1)
        self.heard(worker)
        self.assertFalse(self.factory.broker.in_turn)
        self.clock.advance(3)
        worker.receive(req(13, b"H:test:1", b""), req(9))
        self.assertEqual(self.asked, 2)
        self.assertTrue(self.factory.broker.in_turn)
        self.assertEqual(self.factory.broker.timer.turn_time, 3)

    def test_a_read_without_an_answer(self) -> None:
        client, worker = self.connect(), self.connect()
        client.receive(req(18, b"f", b"", b""))
        worker.receive(req(1, b"f"), req(9))
        self.clock.advance(0)
        self.assertFalse(self.factory.broker.in_turn)
        worker.receive(req(13, b"H:test:1", b""))
        self.assertFalse(self.factory.broker.in_turn, "nothing is flushed that could end it")
        (row, _others) = self.factory.inspection.measures()
        self.assertEqual(row.counts.completed, 1)

    def test_a_broken_stream_forgets_it_too(self) -> None:
        self.connect().receive(b"\0BAD" + bytes(8))
        self.clock.advance(0)
        self.assertFalse(self.factory.broker.in_turn)
