"""Peers that do not read: the server asks them nothing, keeps little for them, and at last drops them."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import HIGH_WATER, PREFIX, SocketlikeTransport, req, res
from txgearman.server import GearmanServerFactory, Settings

KIB = 1024


class FlowTestCase(SynchronousTestCase):
    """A server on transports that pause as sockets do."""

    SETTINGS: dict[str, Any] = {}

    def setUp(self) -> None:
        self.clock = Clock()
        self.factory = GearmanServerFactory(self.clock, Settings(handle_prefix=PREFIX, **self.SETTINGS))

    def connect(self) -> SocketlikeTransport:
        transport = SocketlikeTransport()
        transport.connect(self.factory.buildProtocol(None))
        return transport

    def turn(self) -> None:
        self.clock.advance(0)

    def one_turn(self) -> None:
        """One turn of the reactor: what is put off until the next one is not done, as `Clock` would."""
        due = self.due()
        for call in due:
            self.clock.calls.remove(call)
        for call in due:
            call.called = 1
            call.func(*call.args, **call.kw)

    def due(self) -> list[Any]:
        """What is to be done in the next turn of the reactor."""
        now = self.clock.seconds()
        return [call for call in self.clock.getDelayedCalls() if call.getTime() <= now]

    def hear_all(self, transport: SocketlikeTransport) -> bytes:
        """All that the server has to say to a peer that begins to read."""
        heard = bytearray()
        while True:
            self.turn()
            data = transport.taken()
            if not data:
                return bytes(heard)
            heard += data


class FloodTest(FlowTestCase):
    """Many requests in one read whose answers are large."""

    SIZE = 32 * KIB
    JOBS = 100

    def test_grabs_of_large_jobs(self) -> None:
        client, worker = self.connect(), self.connect()
        for number in range(self.JOBS):
            client.receive(req(18, b"f", b"", b"%03d" % number + bytes(self.SIZE)))
        worker.receive(req(1, b"f"), *[req(9)] * (self.JOBS + 5))
        self.turn()
        self.assertFalse(worker.reading)
        self.assertLess(worker.most_unsent, HIGH_WATER + 2 * self.SIZE)
        heard = self.hear_all(worker)
        self.assertTrue(worker.reading)
        self.assertLess(worker.most_unsent, HIGH_WATER + 2 * self.SIZE)
        expected = b"".join(
            res(11, b"H:test:%d" % (number + 1), b"f", b"%03d" % number + bytes(self.SIZE))
            for number in range(self.JOBS)
        )
        self.assertTrue(heard == expected + res(10) * 5)

    def test_no_job_is_taken_for_a_worker_that_is_paused(self) -> None:
        client, worker = self.connect(), self.connect()
        for _ in range(self.JOBS):
            client.receive(req(18, b"f", b"", bytes(self.SIZE)))
        worker.receive(req(1, b"f"), *[req(9)] * self.JOBS)
        (view,) = self.factory.inspection.functions()
        self.assertLess(view.running, 10)

    def test_what_was_read_before_the_pause_keeps_its_order(self) -> None:
        transport = self.connect()
        protocol = self.factory.connections[1]
        stream = b"".join(req(16, b"%03d" % number + bytes(self.SIZE)) for number in range(30))
        stream += b"version\n" + req(9)
        # As TLS, which delivers what it had read although it was told to pause.
        for start in range(0, len(stream), 50_000):
            protocol.dataReceived(stream[start : start + 50_000])
        self.assertFalse(transport.reading)
        heard = self.hear_all(transport)
        self.assertTrue(transport.reading)
        position = -1
        for number in range(30):
            position = heard.index(res(17, b"%03d" % number + bytes(self.SIZE)), position + 1)
        self.assertRegex(heard[-60:], rb"OK txgearman-[^\n]+\n\0RES\0\0\0\x0a\0\0\0\0$")

    def test_the_connection_is_lost_while_packets_are_pending(self) -> None:
        client, worker = self.connect(), self.connect()
        for _ in range(10):
            client.receive(req(18, b"f", b"", bytes(self.SIZE)))
        worker.receive(req(1, b"f"), *[req(9)] * 10, req(18, b"g", b"", b"never"))
        self.assertFalse(worker.reading)
        written = len(worker.writes)
        worker.lose()
        self.turn()
        worker.taken()
        self.turn()
        self.assertEqual(len(worker.writes), written)
        (view,) = self.factory.inspection.functions()
        self.assertEqual((view.name, view.total, view.running, view.workers), (b"f", 10, 0, 0))

    def test_a_broken_stream_behind_a_pause(self) -> None:
        transport = self.connect()
        flood = [req(16, bytes(self.SIZE))] * 5
        transport.receive(*flood, b"\0BAD" + bytes(8))
        self.assertFalse(transport.reading)
        self.assertFalse(transport.disconnecting)
        self.assertEqual(len(self.hear_all(transport)), 5 * (12 + self.SIZE))
        self.assertTrue(transport.disconnecting)

    def test_one_that_is_paused_does_not_hold_up_others(self) -> None:
        slow, other = self.connect(), self.connect()
        slow.receive(*[req(16, bytes(self.SIZE))] * 5)
        other.receive(req(16, b"x"))
        self.turn()
        self.assertEqual(other.taken(), res(17, b"x"))


class SlowReaderTest(FlowTestCase):
    """A client that does not read what its workers send."""

    LIMIT = 300 * KIB
    SETTINGS = {"max_unsent": LIMIT}
    PART = 16 * KIB

    def setUp(self) -> None:
        super().setUp()
        self.client, self.worker = self.connect(), self.connect()
        self.client.receive(req(7, b"f", b"", b"x"))
        self.worker.receive(req(1, b"f"), req(9))
        self.turn()
        self.client.taken()

    def send_part(self) -> None:
        self.worker.receive(req(28, b"H:test:1", bytes(self.PART)))
        self.turn()

    def test_it_is_dropped(self) -> None:
        with capturedLogs() as events:
            parts = 0
            while not self.client.aborted:
                self.send_part()
                parts += 1
                self.assertLess(parts * self.PART, 2 * (HIGH_WATER + self.LIMIT))
        self.assertGreaterEqual(parts * self.PART, HIGH_WATER + self.LIMIT)
        self.assertLessEqual(self.client.most_unsent, HIGH_WATER + self.LIMIT + 3 * self.PART)
        (event,) = events
        self.assertIn("does not read", event["log_format"].format(**event))

    def test_the_worker_is_left_alone(self) -> None:
        while not self.client.aborted:
            self.send_part()
        self.client.lose()
        self.worker.taken()
        self.worker.receive(req(28, b"H:test:1", b"d"), req(13, b"H:test:1", b"r"), req(16, b"x"))
        self.turn()
        self.assertEqual(self.worker.taken(), res(17, b"x"))

    def test_one_that_reads_now_and_then_is_not(self) -> None:
        heard = 0
        parts = 5 * (HIGH_WATER + self.LIMIT) // self.PART
        for number in range(parts):
            self.send_part()
            if number % 10 == 9:
                heard += len(self.client.taken())
        heard += len(self.client.taken())
        self.assertFalse(self.client.aborted)
        self.assertEqual(heard, parts * len(res(28, b"H:test:1", bytes(self.PART))))

    def test_one_large_packet_is_not_too_much(self) -> None:
        while self.client.unsent <= HIGH_WATER:
            self.send_part()
        self.worker.receive(req(13, b"H:test:1", bytes(2 * self.LIMIT)))
        self.turn()
        self.assertFalse(self.client.aborted)
        self.assertTrue(self.client.taken().endswith(bytes(2 * self.LIMIT)))
