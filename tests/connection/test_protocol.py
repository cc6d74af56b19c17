"""One connection: cutting it into packets, and its one end."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.connection.memory import PlayedServer, packet
from txgearman.connection.protocol import CLOSE_TIMEOUT, PacketProtocol
from txgearman.errors import BrokenStream
from txgearman.wire.codec import encode
from txgearman.wire.packets import ECHO_REQ, ECHO_RES, NO_JOB, NOOP, REQUEST

MAX = 1000
ECHO = encode(REQUEST, ECHO_REQ, (b"x",))


class Recorded(PacketProtocol):
    """Keeps what it is told. Subclasses of a test react to it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, MAX)
        self.events: list[Any] = []

    def opened(self) -> None:
        self.events.append("opened")

    def received(self, number: int, fields: list[Any]) -> None:
        self.events.append((number, *fields))

    def ended(self, why: str) -> None:
        self.events.append(why)


class PacketProtocolTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.protocol = Recorded(self.clock)
        self.server = PlayedServer(self.protocol)
        self.assertEqual(self.take(), ["opened"])

    def take(self) -> list[Any]:
        events, self.protocol.events = self.protocol.events, []
        return events

    def test_packets_arrive_whole_however_they_are_cut(self) -> None:
        stream = packet(NOOP) + packet(ECHO_RES, b"a\0b") + packet(NO_JOB)
        expected = [(NOOP,), (ECHO_RES, b"a\0b"), (NO_JOB,)]
        self.server.send(stream)
        self.assertEqual(self.take(), expected)
        for cut in range(1, len(stream)):
            self.server.send(stream[:cut])
            self.server.send(stream[cut:])
            self.assertEqual(self.take(), expected)
        for position in range(len(stream)):
            self.server.send(stream[position : position + 1])
        self.assertEqual(self.take(), expected)

    def test_what_breaks_the_stream_drops_the_connection_behind_the_packets_ahead(self) -> None:
        for name, garbage in {
            "text": b"ERR nothing here\n",
            "magic": b"\0BAD" + bytes(8),
            "a request": ECHO,
            "a type of no packet": b"\0RES\0\0\0\x63\0\0\0\0",
            "too few fields": b"\0RES\0\0\0\x14\0\0\0\x01H",
            "too large": b"\0RES\0\0\0\x11" + (MAX + 1).to_bytes(4, "big"),
        }.items():
            with self.subTest(name):
                self.setUp()
                with capturedLogs() as logs:
                    self.server.send(packet(NOOP) + garbage + packet(NOOP))
                noop, why = self.take()
                self.assertEqual(noop, (NOOP,))
                self.assertIn("the server broke the protocol", why)
                self.assertTrue(self.server.transport.disconnected)
                self.assertFalse(self.protocol.open)
                self.assertEqual([event["log_level"] for event in logs], [LogLevel.error])
                self.server.send(packet(NOOP))
                self.server.lose()
                self.assertEqual(self.take(), [], "the end is told once, and nothing behind it")

    def test_a_body_at_the_limit_is_received(self) -> None:
        self.server.send(packet(ECHO_RES, bytes(MAX)))
        self.assertEqual(self.take(), [(ECHO_RES, bytes(MAX))])

    def test_a_subclass_can_find_the_stream_broken(self) -> None:
        class Strict(Recorded):
            def received(self, number: int, fields: list[Any]) -> None:
                raise BrokenStream(b"", "not this one")

        protocol = Strict(self.clock)
        server = PlayedServer(protocol)
        server.send(packet(NOOP) * 2)
        self.assertEqual(protocol.events, ["opened", "the server broke the protocol: not this one"])
        self.assertTrue(server.transport.disconnected)

    def test_loss_is_told_once(self) -> None:
        self.server.lose(ConnectionDone())
        self.assertEqual(self.take(), ["Connection was closed cleanly."])
        self.assertFalse(self.protocol.open)

    def test_close_ends_at_once_and_fires_when_the_connection_is_gone(self) -> None:
        gone = self.protocol.close("enough")
        self.assertEqual(self.take(), ["enough"])
        self.assertTrue(self.server.transport.disconnecting)
        self.assertNoResult(gone)
        self.server.send(packet(NOOP))
        again = self.protocol.close("really")
        self.server.hang_up()
        self.assertEqual(self.take(), [], "nothing is received or told after the end")
        self.successResultOf(gone)
        self.successResultOf(again)
        self.successResultOf(self.protocol.close("once more"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_does_not_wait_for_ever(self) -> None:
        gone = self.protocol.close("enough")
        self.clock.advance(CLOSE_TIMEOUT - 0.1)
        self.assertFalse(self.server.transport.disconnected)
        self.clock.advance(0.1)
        self.assertTrue(self.server.transport.disconnected)
        self.server.hang_up()
        self.successResultOf(gone)

    def test_who_gives_up_waiting_for_the_close_is_not_told(self) -> None:
        gone = self.protocol.close("enough")
        gone.addErrback(lambda failure: None)
        gone.cancel()
        self.server.hang_up()
        self.assertIsNone(self.successResultOf(gone))

    def test_close_before_there_is_a_connection(self) -> None:
        self.successResultOf(Recorded(self.clock).close("never mind"))

    def test_close_while_packets_are_handled_leaves_the_rest(self) -> None:
        class Closing(Recorded):
            def received(self, number: int, fields: list[Any]) -> None:
                super().received(number, fields)
                self.write_buffered(ECHO)
                self.close("enough")

        protocol = Closing(self.clock)
        server = PlayedServer(protocol)
        server.send(packet(NOOP) + packet(NO_JOB))
        self.assertEqual(protocol.events, ["opened", (NOOP,), "enough"])
        self.assertEqual(server.heard(), [("ECHO_REQ", b"x")], "what was written before is sent")

    def test_what_is_written_soon_while_packets_are_handled_leaves_in_one_write_and_in_order(self) -> None:
        class Answering(Recorded):
            def received(self, number: int, fields: list[Any]) -> None:
                self.write_buffered(encode(REQUEST, ECHO_REQ, (b"%d" % number,)))
                if number == NO_JOB:
                    self.write(encode(REQUEST, ECHO_REQ, (b"now",)))

        server = PlayedServer(Answering(self.clock))
        writes: list[bytes] = []
        self.patch(server.transport, "write", writes.append)
        server.send(packet(NOOP) * 3)
        self.assertEqual(len(writes), 1)
        server.send(packet(NOOP) + packet(NO_JOB) + packet(NOOP))
        bodies = [data.split(b"\0REQ") for data in writes[1:]]
        self.assertEqual(
            [[part[8:] for part in parts[1:]] for parts in bodies], [[b"6", b"10"], [b"now"], [b"6"]]
        )

    def test_outside_of_it_it_is_left_to_the_transport(self) -> None:
        self.protocol.write_buffered(ECHO)
        self.assertEqual(self.server.heard(), [("ECHO_REQ", b"x")])
