"""Bytes as they come: in pieces, in heaps, in both protocols at once, and broken."""

from __future__ import annotations

import contextlib
from typing import Any
from unittest import mock

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs

from tests.server.peers import PREFIX, ServerTestCase, SocketlikeTransport, error, req, res
from txgearman.server import GearmanServerFactory, GearmanServerProtocol, Settings

H1, H2 = b"H:test:1", b"H:test:2"

CONVERSATION = (
    req(16, b"\0one\n"),
    b"version\r\n",
    req(18, b"f", b"u", b"some\0data\n"),
    b"show jobs\n",
    req(1, b"f"),
    req(30),
    b"STATUS\n",
    req(13, H1, b""),
    req(9),
    b"\n",
    req(99, b"?"),
    req(16, b"last"),
)


class PiecesTest(ServerTestCase):
    """However a conversation is cut into reads, its answers are the same, and in order."""

    def expected(self) -> bytes:
        from txgearman import __version__

        return b"".join(
            (
                res(17, b"\0one\n"),
                b"OK txgearman-%b\n" % __version__.encode(),
                res(8, H1),
                H1 + b"\t0\t0\t1\n.\n",
                res(31, H1, b"f", b"u", b"some\0data\n"),
                b"f\t1\t1\t1\n.\n",
                res(10),
                b"ERR UNKNOWN_COMMAND Unknown+server+command\r\n",
                error(b"INVALID_COMMAND", b"Unknown packet type 99"),
                res(17, b"last"),
            )
        )

    def test_in_one_read(self) -> None:
        self.assertEqual(self.peer().ask(*CONVERSATION), self.expected())

    def test_byte_by_byte(self) -> None:
        peer = self.peer()
        for byte in b"".join(CONVERSATION):
            peer.say(bytes([byte]))
            self.gearman.turn()
        self.assertEqual(peer.heard(), self.expected())

    def test_cut_in_two_anywhere(self) -> None:
        stream = b"".join(CONVERSATION)
        for place in range(1, len(stream)):
            gearman = self.serve()
            peer = self.peer(gearman)
            peer.say(stream[:place])
            gearman.turn()
            peer.say(stream[place:])
            self.assertEqual(peer.heard(), self.expected(), place)

    def test_an_unfinished_packet_is_not_answered(self) -> None:
        peer = self.peer()
        self.assertEqual(peer.ask(req(16, b"data")[:-1]), b"")
        peer.hang_up()
        self.assertEqual(self.peer().ask(b"status\n"), b".\n")


class BrokenStreamTest(ServerTestCase):
    """What cannot be read on from ends its connection, and nothing else."""

    def test_bad_magic(self) -> None:
        peer = self.peer()
        self.assertEqual(peer.ask(req(16, b"first"), b"\0XYZ" + bytes(8), req(16, b"x")), res(17, b"first"))
        self.assertIsNotNone(peer.lost)

    def test_a_packet_over_the_limit(self) -> None:
        self.gearman = self.serve(max_packet=2000)
        peer = self.peer()
        self.assertEqual(peer.ask(req(16, b"x" * 2000)), res(17, b"x" * 2000))
        # Its header is enough.
        self.assertEqual(
            peer.ask(req(18, b"f", b"", b"x" * 1998)[:12]),
            error(b"ARGUMENT_TOO_LARGE", b"SUBMIT_JOB_BG of 2001 bytes exceeds the limit of 2000"),
        )
        self.assertIsNotNone(peer.lost)

    def test_an_endless_line(self) -> None:
        peer = self.peer()
        self.assertTrue(peer.ask(b"x" * 8192 + b"\n").startswith(b"ERR UNKNOWN_COMMAND "))
        self.assertEqual(peer.ask(b"x" * 8194), b"")
        self.assertIsNotNone(peer.lost)

    def test_others_and_their_jobs_are_left_alone(self) -> None:
        client, worker, bad = self.peer(), self.worker(b"f"), self.worker(b"f")
        client.ask(req(7, b"f", b"", b"1"), req(7, b"f", b"", b"2"))
        self.assertEqual(worker.ask(req(9)), res(11, H1, b"f", b"1"))
        self.assertEqual(bad.ask(req(9)), res(11, H2, b"f", b"2"))
        bad.ask(b"\0BAD" + bytes(8))
        self.assertIsNotNone(bad.lost)
        self.assertEqual(worker.ask(req(13, H1, b"r")), b"")
        self.assertEqual(client.heard(), res(13, H1, b"r"))
        # What the bad one had is given to somebody else.
        self.assertEqual(worker.ask(req(9)), res(11, H2, b"f", b"2"))

    def test_what_comes_behind_the_break_is_not_heard(self) -> None:
        self.broken_then(b"\0BAD" + bytes(8), req(18, b"f", b"", b"x"))

    def test_what_comes_in_later_reads_is_not_heard(self) -> None:
        # A TLS transport delivers what it has decrypted also after loseConnection.
        factory = GearmanServerFactory(Clock())
        transport = SocketlikeTransport()
        transport.connect(factory.buildProtocol(None))
        transport.receive(b"\0BAD" + bytes(8))
        transport.receive(req(18, b"f", b"", b"x"))
        self.assertEqual(factory.broker.total, 0)

    def broken_then(self, *messages: bytes) -> None:
        peer = self.peer()
        self.assertEqual(peer.ask(*messages), b"")
        self.assertIsNotNone(peer.lost)
        self.assertEqual(self.peer().ask(b"status\n"), b".\n")

    def test_a_defect_of_ours_ends_one_connection_only(self) -> None:
        good, bad = self.peer(), self.peer()

        def broken(*_arguments: Any) -> None:
            raise ZeroDivisionError

        # Of the protocol, as a compiled build calls the broker without looking it up.
        with mock.patch.object(GearmanServerProtocol, "send_packet", broken):
            bad.say(req(15, b"h"))
            self.assertRaises(ZeroDivisionError, self.gearman.turn)
        self.assertEqual(good.ask(req(16, b"x")), res(17, b"x"))


class LogTest(ServerTestCase):
    """A bad client must not fill the disk."""

    def test_a_bad_connection_is_logged_once(self) -> None:
        peer = self.peer()
        peer.ask(req(22, b"name\xff"))
        with capturedLogs() as events:
            peer.ask(*[req(99)] * 1000, req(8, b"x"), res(16, b"x"))
            peer.ask(b"\0BAD" + bytes(8))
        self.assertEqual(len(events), 1, events)
        self.assertEqual(events[0]["log_level"], LogLevel.warn)
        text = events[0]["log_format"].format(**events[0])
        self.assertIn("127.0.0.1", text)
        self.assertIn("name\\xff", text)
        self.assertIn("Unknown packet type 99", text)

    def test_each_bad_connection_is_logged(self) -> None:
        with capturedLogs() as events:
            for _ in range(3):
                self.peer().ask(b"\0BAD" + bytes(8))
        self.assertEqual(len(events), 3)

    def test_refusals_and_good_connections_are_not_logged(self) -> None:
        peer = self.peer()
        with capturedLogs() as events:
            peer.ask(req(26, b"unknown"), req(14, H1), req(7, b"f" * 999, b"", b""), b"nonsense\n")
            peer.hang_up()
        self.assertEqual(events, [])


class OneWriteTest(ServerTestCase):
    """What one read brings is answered in one write."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.factory = GearmanServerFactory(self.clock, Settings(handle_prefix=PREFIX))

    def connect(self) -> SocketlikeTransport:
        transport = SocketlikeTransport()
        transport.connect(self.factory.buildProtocol(None))
        return transport

    def test_answers_to_one_read(self) -> None:
        transport = self.connect()
        transport.receive(*[req(16, b"%d" % number) for number in range(100)], b"version\n", req(9))
        self.clock.advance(0)
        (written,) = transport.writes
        self.assertTrue(written.startswith(res(17, b"0") + res(17, b"1")))
        self.assertTrue(written.endswith(res(10)))

    def test_answers_to_several_reads_of_one_turn(self) -> None:
        transport = self.connect()
        for _ in range(3):
            transport.receive(req(9))
        self.clock.advance(0)
        self.assertEqual(transport.writes, [res(10) * 3])

    def test_news_from_many_others(self) -> None:
        client, workers = self.connect(), [self.connect() for _ in range(3)]
        client.receive(*[req(7, b"f", b"", b"")] * 3)
        for worker in workers:
            worker.receive(req(1, b"f"), req(9))
        self.clock.advance(0)
        client.writes.clear()
        for number, worker in enumerate(workers, 1):
            worker.receive(req(13, b"H:test:%d" % number, b"r"))
        self.clock.advance(0)
        self.assertEqual(client.writes, [b"".join(res(13, b"H:test:%d" % n, b"r") for n in (1, 2, 3))])

    def test_nothing_to_say_is_not_written(self) -> None:
        transport = self.connect()
        transport.receive(req(1, b"f"), req(4))
        self.clock.advance(0)
        self.assertEqual(transport.writes, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_connection_is_lost_before_the_answers_leave(self) -> None:
        transport = self.connect()
        transport.receive(req(16, b"x"))
        transport.lose()
        self.clock.advance(0)
        self.assertEqual(transport.writes, [])
        self.assertEqual(self.factory.connections, {})

    def test_news_for_a_connection_that_is_lost(self) -> None:
        client, worker = self.connect(), self.connect()
        client.receive(req(7, b"f", b"u", b"x"))
        worker.receive(req(1, b"f"), req(9), req(28, H1, b"news"))
        client.lose()
        self.clock.advance(0)
        self.assertEqual(client.writes, [])
        self.assertEqual(worker.writes, [res(11, H1, b"f", b"x")])

    def test_one_failing_transport_does_not_silence_the_others(self) -> None:
        one, two = self.connect(), self.connect()

        def broken(data: bytes) -> None:
            raise ZeroDivisionError

        one.write = broken
        one.receive(req(16, b"x"))
        two.receive(req(16, b"x"))
        with contextlib.suppress(ZeroDivisionError):
            self.clock.advance(0)
        self.flushLoggedErrors(ZeroDivisionError)
        two.receive(req(16, b"y"))
        self.clock.advance(0)
        self.assertEqual(b"".join(two.writes), res(17, b"x") + res(17, b"y"))
