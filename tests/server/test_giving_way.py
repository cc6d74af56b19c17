"""A read whose packets take long gives way: others are served between its parts, and nothing else differs.

The clock is moved by the packets themselves. What stands in the way of a read may come together: a peer that
does not take its answers, answers of the store, lists, the end of the connection.
"""

from __future__ import annotations

from twisted.logger import capturedLogs

from tests.server.peers import SocketlikeTransport, req, res
from tests.server.test_flow import KIB, FlowTestCase
from txgearman.server import commands, protocol
from txgearman.server.protocol import HANDLE_SECONDS, SHORT_READ, UNTIMED_PACKETS, GearmanServerProtocol
from txgearman.server.replies import pending
from txgearman.wire.packets import ECHO_REQ

PART = UNTIMED_PACKETS + 1
"""Packets between two looks at the clock, the one included that shows that there is one behind them."""

MANY = 10 * PART


class GivingWayTestCase(FlowTestCase):
    """Each ECHO takes `seconds`, by the server's clock."""

    seconds = 1.001 * HANDLE_SECONDS / PART

    def setUp(self) -> None:
        super().setUp()
        self.echoed = 0
        self.now = 0.0
        self.looks = 0
        self.factory.clock = self.look
        self.patch(protocol, "COMMANDS", {**commands.COMMANDS, ECHO_REQ: self.echo})

    def turn(self) -> None:
        """One turn of a reactor: what is to be called in the next comes in the next."""
        due = [call for call in self.clock.calls if call.getTime() <= self.clock.seconds()]
        for call in due:
            if call.active():
                self.clock.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)

    def look(self) -> float:
        self.looks += 1
        return self.now

    def echo(self, peer: GearmanServerProtocol, data: bytes) -> None:
        self.echoed += 1
        self.now += self.seconds
        commands.COMMANDS[ECHO_REQ](peer, data)

    def echoes(self, count: int, begin: int = 0) -> bytes:
        return b"".join(req(16, b"%06d" % number) for number in range(begin, begin + count))

    def answers(self, count: int, begin: int = 0) -> bytes:
        return b"".join(res(17, b"%06d" % number) for number in range(begin, begin + count))


class TurnTest(GivingWayTestCase):
    def test_the_rest_goes_on_in_later_turns(self) -> None:
        transport = self.connect()
        transport.receive(self.echoes(MANY))
        # The first ones, and those until the time is over.
        self.assertEqual(self.echoed, 2 * PART)
        self.assertFalse(transport.reading)
        heard = b""
        turns = 0
        while self.echoed < MANY:
            before = self.echoed
            self.turn()
            self.assertLessEqual(self.echoed - before, 2 * PART)
            heard += transport.taken()
            turns += 1
        self.assertEqual(turns, MANY // (2 * PART) - 1)
        self.turn()
        heard += transport.taken()
        self.assertEqual(heard, self.answers(MANY))
        self.assertTrue(transport.reading)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_others_are_served_between(self) -> None:
        busy, other = self.connect(), self.connect()
        busy.receive(self.echoes(MANY))
        other.receive(b"version\n")
        self.turn()
        self.assertIn(b"OK txgearman", other.taken())
        self.assertLess(self.echoed, MANY)
        both = [busy, self.connect()]
        both[1].receive(self.echoes(MANY, MANY))
        while self.echoed < 2 * MANY:
            before = self.echoed
            self.turn()
            self.assertLessEqual(self.echoed - before, 4 * PART)
        self.turn()
        self.assertEqual([each.taken() for each in both], [self.answers(MANY), self.answers(MANY, MANY)])

    def test_what_is_quick_is_done_in_one_turn(self) -> None:
        self.seconds = 0.0
        transport = self.connect()
        transport.receive(self.echoes(MANY))
        self.assertEqual(self.echoed, MANY)
        self.turn()
        self.assertEqual(transport.taken(), self.answers(MANY))

    def test_few_packets_cost_no_look_at_the_clock(self) -> None:
        transport = self.connect()
        for data in (self.echoes(1), self.echoes(UNTIMED_PACKETS), b"version\n" * (SHORT_READ // 8)):
            self.looks = 0
            transport.receive(data)
            self.assertEqual(self.looks, 0)
            self.turn()
            transport.taken()

    def test_looks_at_the_clock_are_rare(self) -> None:
        self.seconds = 0.0
        transport = self.connect()
        transport.receive(self.echoes(MANY))
        self.assertLessEqual(self.looks, MANY // PART)

    def test_dear_packets(self) -> None:
        """However dear, no more than the untimed ones are handled in a turn."""
        self.seconds = 1.0
        transport = self.connect()
        transport.receive(self.echoes(MANY))
        while self.echoed < MANY:
            before = self.echoed
            self.turn()
            self.assertLessEqual(self.echoed - before, 2 * PART)
        self.turn()
        self.assertEqual(transport.taken(), self.answers(MANY))


class TogetherTest(GivingWayTestCase):
    """Giving way, and whatever else stands in the way of a read."""

    def test_what_arrives_meanwhile_comes_behind(self) -> None:
        """A transport may deliver what it had read when it was paused: TLS does."""
        transport = self.connect()
        server = self.factory.connections[1]
        transport.receive(self.echoes(MANY))
        stream = self.echoes(MANY, MANY)
        for start in range(0, len(stream), 777):
            server.dataReceived(stream[start : start + 777])
            self.turn()
        while self.echoed < 2 * MANY:
            self.turn()
        self.turn()
        self.assertEqual(transport.taken(), self.answers(2 * MANY))
        self.assertTrue(transport.reading)

    def test_a_peer_that_does_not_read(self) -> None:
        transport = self.connect()
        large = bytes(16 * KIB)
        transport.receive(*(req(16, b"%06d" % number + large) for number in range(MANY)))
        for _ in range(5 * MANY):
            self.turn()
        # The transport's pause is not over because others were served.
        self.assertLess(self.echoed, 2 * PART)
        self.assertFalse(transport.reading)
        heard = self.hear_all(transport)
        for _ in range(MANY):
            heard += self.hear_all(transport)
        self.assertTrue(
            heard == b"".join(res(17, b"%06d" % number + large) for number in range(MANY)), "other answers"
        )
        self.assertTrue(transport.reading)

    def test_a_list_of_which_the_rest_is_to_come(self) -> None:
        transport = self.connect()
        for number in range(2 * pending.LINES_AT_ONCE):
            self.factory.administration.create_function(b"f%04d" % number)
        transport.receive(self.echoes(MANY) + b"status\n" + self.echoes(MANY, MANY))
        heard = b""
        for _ in range(MANY):
            self.turn()
            heard += transport.taken()
        self.assertEqual(self.echoed, 2 * MANY)
        self.assertTrue(heard.startswith(self.answers(MANY) + b"f0000\t"))
        self.assertTrue(heard.endswith(b"\n.\n" + self.answers(MANY, MANY)))

    def test_the_connection_is_lost_meanwhile(self) -> None:
        transport = self.connect()
        server = self.factory.connections[1]
        submits = b"".join(req(7, b"f", b"", b"") for _ in range(5))
        transport.receive(submits + self.echoes(MANY) + req(18, b"f", b"", b""))
        self.assertEqual(self.factory.broker.total, 5)
        transport.lose()
        echoed = self.echoed
        self.assertEqual(self.factory.broker.total, 0)
        with capturedLogs() as logged:
            for _ in range(MANY):
                self.turn()
        self.assertEqual(logged, [])
        # Nothing more of what it sent is done, and nothing of it is kept.
        self.assertEqual((self.echoed, self.factory.broker.total), (echoed, 0))
        self.assertIsNone(server._unhandled)
        self.assertEqual((len(server._undecoded), self.clock.getDelayedCalls()), (0, []))

    def test_it_is_closed_by_what_was_read(self) -> None:
        transport = self.connect()
        with capturedLogs() as logged:
            transport.receive(self.echoes(MANY) + b"\0BAD" + bytes(8) + self.echoes(1, MANY))
            for _ in range(MANY):
                self.turn()
        self.assertEqual(len(logged), 1)
        self.assertEqual(transport.taken(), self.answers(MANY))
        self.assertTrue(transport.disconnecting)

    def test_the_server_closes_it_meanwhile(self) -> None:
        transport = self.connect()
        transport.receive(self.echoes(MANY))
        self.factory.stop()
        for _ in range(3):
            self.turn()
        self.assertTrue(transport.disconnecting)
        self.assertEqual(transport.taken(), self.answers(self.echoed))
        self.assertLess(self.echoed, MANY)

    def test_at_every_place_of_a_packet(self) -> None:
        """The rest of a read may end anywhere."""
        expected = self.answers(3 * PART)
        stream = self.echoes(3 * PART)
        for cut in range(len(stream) - 40, len(stream)):
            transport: SocketlikeTransport = self.connect()
            transport.receive(stream[:cut])
            heard = b""
            while not transport.reading:
                self.turn()
            transport.receive(stream[cut:])
            self.turn()
            heard += transport.taken()
            self.assertEqual(heard, expected)
