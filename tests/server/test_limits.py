"""The limits on connections and on what waits for them, and the admin commands for all limits."""

from __future__ import annotations

import sys

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress, ISSLTransport
from twisted.logger import capturedLogs, formatEvent
from zope.interface import directlyProvides

from tests.server.peers import (
    HIGH_WATER,
    PREFIX,
    ServerTestCase,
    SocketlikeTransport,
    TcpTransport,
    error,
    req,
    res,
)
from tests.server.test_flow import KIB, FlowTestCase
from txgearman.server.admission import files_for_connections, origin_of
from txgearman.server.budgets.unfinished import COUNTED_FROM
from txgearman.server.config.options import FunctionSettings, Settings
from txgearman.server.factory import SILENCE, GearmanServerFactory
from txgearman.server.monitoring.rate_limited_log import LOG_INTERVAL

ADDRESS = "192.0.2.1"


NO_RUN_LIMITS = b"\t0\t0\t0\t0\t:\t0\t0\t0"
"""The columns of ``show function limits`` for a function whose runs are not limited."""


class TLSlikeTransport(TcpTransport):
    """Passes for a connection with TLS."""

    def __init__(self) -> None:
        super().__init__()
        directlyProvides(self, ISSLTransport)


class Connecting(FlowTestCase):
    """Connections of chosen addresses."""

    def connect_from(self, host: str = ADDRESS, *, talks: bool = True) -> SocketlikeTransport:
        transport = SocketlikeTransport(host)
        transport.connect(self.factory.buildProtocol(transport.getPeer()))
        if talks:
            transport.receive(req(16, b"x"))
            self.turn()
        return transport

    def assert_served(self, transport: SocketlikeTransport) -> None:
        transport.taken()
        transport.receive(req(16, b"there?"))
        self.turn()
        self.assertEqual(transport.taken(), res(17, b"there?"))

    def assert_refused(self, text: bytes, host: str = ADDRESS) -> None:
        transport = self.connect_from(host, talks=False)
        self.assertEqual(transport.taken(), error(b"TOO_MANY_CONNECTIONS", text))
        self.assertTrue(transport.disconnecting)


class ConnectionsInAllTest(Connecting):
    SETTINGS = {"max_connections": 3}
    FULL = b"There are 3 connections, as many as may be"

    def test_at_the_limit_and_one_past_it(self) -> None:
        there = [self.connect_from() for _ in range(3)]
        self.assert_refused(self.FULL)
        self.assertEqual(len(self.factory.connections), 3)
        for transport in there:
            self.assert_served(transport)

    def test_room_again_once_one_is_gone(self) -> None:
        there = [self.connect_from() for _ in range(3)]
        there[1].lose()
        self.assert_served(self.connect_from())
        self.assert_refused(self.FULL)

    def test_the_log_says_so_now_and_then(self) -> None:
        for _ in range(3):
            self.connect_from()
        with capturedLogs() as events:
            for _ in range(100):
                self.assert_refused(self.FULL)
            self.clock.advance(LOG_INTERVAL)
            self.assert_refused(self.FULL, "192.0.2.2")
        said = "Connection from {} refused: there are 3 (max-connections)"
        self.assertEqual(
            [event["log_format"].format(**event) for event in events],
            [said.format("192.0.2.1"), said.format("192.0.2.2") + "; 100 since the last such line"],
        )
        self.assertEqual(self.factory.admission.refused, 101)

    def test_over_tls_it_is_only_cut(self) -> None:
        for _ in range(3):
            self.connect_from()
        transport = TLSlikeTransport()
        transport.connect(self.factory.buildProtocol(transport.getPeer()))
        self.assertEqual((transport.aborted, transport.value()), (True, b""))

    def test_the_default_leaves_files_for_others(self) -> None:
        import resource

        limits = {-1: 2**63 - 1, 10: 1, 20: 4, 40: 24, 1024: 922, 1048576: 943719}
        for files, connections in limits.items():
            self.patch(resource, "getrlimit", lambda _which, files=files: (files, -1))
            self.assertEqual(files_for_connections(), connections)


class SilentTest(Connecting):
    """Connections that never say anything make room, and only then."""

    SETTINGS = {"max_connections": 3}

    def test_the_oldest_makes_room(self) -> None:
        talking = self.connect_from()
        silent = [self.connect_from(talks=False) for _ in range(2)]
        self.clock.advance(SILENCE)
        with capturedLogs() as events:
            new = self.connect_from()
        self.assertEqual([transport.aborted for transport in (talking, *silent)], [False, True, False])
        self.assert_served(new)
        (event,) = events
        self.assertIn("has never sent anything", event["log_format"])

    def test_half_a_packet_is_nothing(self) -> None:
        half = self.connect_from(talks=False)
        half.receive(req(16, b"xyz")[:14])
        for _ in range(2):
            self.connect_from()
        self.clock.advance(SILENCE)
        self.connect_from()
        self.assertTrue(half.aborted)

    def test_a_new_one_has_time_to_speak(self) -> None:
        silent = [self.connect_from(talks=False) for _ in range(3)]
        self.clock.advance(SILENCE - 0.1)
        self.assert_refused(ConnectionsInAllTest.FULL)
        self.assertEqual([transport.aborted for transport in silent], [False] * 3)

    def test_each_makes_room_once(self) -> None:
        silent = [self.connect_from(talks=False) for _ in range(3)]
        self.clock.advance(SILENCE)
        for _ in range(3):
            self.assert_served(self.connect_from())
        self.assertEqual([transport.aborted for transport in silent], [True] * 3)
        self.assert_refused(ConnectionsInAllTest.FULL)

    def test_idle_ones_stay_for_ever(self) -> None:
        worker, client, silent = self.connect_from(), self.connect_from(), self.connect_from(talks=False)
        worker.receive(req(1, b"f"), req(4))
        client.receive(req(7, b"g", b"", b""))
        self.clock.pump([86400.0] * 30)
        for transport in (worker, client):
            self.assert_served(transport)
        self.assert_served(silent)  # so it has said something at last, and makes no room either
        self.assert_refused(ConnectionsInAllTest.FULL)
        self.assertFalse(worker.aborted or client.aborted or silent.aborted)


class ByAddressTest(Connecting):
    SETTINGS = {"max_connections_per_address": 2}
    FULL = b"There are 2 connections of this address, as many as may be"

    def test_at_the_limit_and_one_past_it(self) -> None:
        first, _ = self.connect_from(), self.connect_from()
        self.assert_refused(self.FULL)
        self.assert_served(self.connect_from("192.0.2.2"))
        first.lose()
        self.assert_served(self.connect_from())
        self.assert_refused(self.FULL)
        self.assertEqual(self.factory.admission.refused_per_address, 2)

    def test_who_is_counted_together(self) -> None:
        def origin(host: str) -> str | None:
            return origin_of(IPv6Address("TCP", host, 1))

        self.assertEqual(origin_of(IPv4Address("TCP", "192.0.2.1", 1)), "192.0.2.1")
        self.assertEqual(origin("::ffff:192.0.2.1"), "192.0.2.1")
        self.assertEqual(origin("2001:db8:0:1::5"), "2001:db8:0:1::/64")
        self.assertEqual(origin("2001:db8:0:1:ffff::"), "2001:db8:0:1::/64")
        self.assertEqual(origin("fe80::1%eth0"), "fe80::/64")

    def test_unix_sockets_are_not_counted(self) -> None:
        address: IAddress
        for address in (UNIXAddress(b"/run/socket"), UNIXAddress(None)):
            self.assertIsNone(origin_of(address))

    def test_nothing_is_kept_of_those_who_left(self) -> None:
        for number in range(50):
            self.connect_from(f"192.0.2.{number}").lose()
        self.assertEqual(self.factory.admission._of, {})
        self.assertEqual((self.factory.silent, self.factory.budget.used), ({}, 0))


class HandshakeTest(FlowTestCase):
    """A TLS handshake that does not come to its end."""

    SETTINGS = {"handshake_timeout": 7.0}

    def connect_tls(self) -> SocketlikeTransport:
        transport = TLSlikeTransport()
        self.protocol = transport.connect(self.factory.buildProtocol(None))
        return transport

    def test_is_dropped(self) -> None:
        transport = self.connect_tls()
        self.clock.advance(6.9)
        self.assertFalse(transport.aborted)
        with capturedLogs() as events:
            self.clock.advance(0.1)
        self.assertTrue(transport.aborted)
        self.assertIn("TLS was not agreed in 7 seconds", events[0]["log_format"].format(**events[0]))
        self.assertEqual(self.factory.traffic.dropped, {"handshake-timeout": 1})

    def test_one_that_comes_to_its_end_is_not(self) -> None:
        transport = self.connect_tls()
        self.clock.advance(6.9)
        self.protocol.handshakeCompleted()
        self.clock.advance(100)
        self.assertFalse(transport.aborted)

    def test_one_that_is_gone_leaves_nothing_behind(self) -> None:
        self.connect_tls().lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_server_stops_meanwhile(self) -> None:
        transport = self.connect_tls()
        stopping = self.factory.stop()
        self.protocol.handshakeCompleted()
        self.clock.advance(100)
        self.assertTrue(transport.aborted)
        transport.lose()
        self.successResultOf(stopping)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class UnsentTestCase(FlowTestCase):
    """A worker with a job of each of four clients, which it sends data for and which do not read."""

    PART = 32 * KIB

    def setUp(self) -> None:
        super().setUp()
        self.worker = self.connect()
        self.worker.receive(req(1, b"f"))
        self.clients = []
        for _ in range(4):
            client = self.connect()
            client.receive(req(7, b"f", b"", b"x"))
            self.worker.receive(req(9))
            self.clients.append(client)
        self.turn()
        self.worker.taken()

    def send(self, place: int, size: int = PART) -> None:
        self.worker.receive(req(28, b"H:test:%d" % (place + 1), bytes(size)))
        self.turn()

    def pause(self, place: int) -> None:
        """Let the transport of a client pause, so that what follows waits."""
        while self.clients[place].unsent <= HIGH_WATER:
            self.send(place)


class UnsentInAllTest(UnsentTestCase):
    """Many peers that do not read, each of them within its limit."""

    LIMIT = 1024 * KIB
    SETTINGS = {"max_unsent_total": LIMIT}

    def test_the_one_for_whom_most_waits_is_dropped(self) -> None:
        for place in range(3):
            self.pause(place)
        with capturedLogs() as events:
            while not any(client.aborted for client in self.clients):
                for place, parts in enumerate((2, 5, 3)):
                    for _ in range(parts):
                        self.send(place)
        self.assertEqual([client.aborted for client in self.clients], [False, True, False, False])
        self.assertIn("(max-unsent-total)", events[0]["log_format"].format(**events[0]))
        self.assertLessEqual(self.factory.budget.used, self.LIMIT)
        self.send(3)
        self.assertTrue(self.clients[3].taken())

    def test_what_was_taken_does_not_count(self) -> None:
        self.pause(0)
        self.send(0, self.LIMIT // 2)
        self.assertGreater(self.factory.budget.used, self.LIMIT // 2)
        self.clients[0].taken()
        self.assertEqual(self.factory.budget.used, 0)

    def test_what_waited_for_one_that_is_gone_does_not_count(self) -> None:
        self.pause(0)
        self.send(0, self.LIMIT // 2)
        self.clients[0].lose()
        self.assertEqual(self.factory.budget.used, 0)

    def test_who_reads_slowly_is_not_dropped_for_what_it_has_taken(self) -> None:
        self.pause(0)
        self.send(0, self.LIMIT // 4)
        for _ in range(50):
            self.send(0, 100 * KIB)
            self.clients[0].take()
        self.assertFalse(self.clients[0].aborted)
        self.assertGreater(self.factory.budget.used, 100 * KIB)


class UnsentByConnectionTest(UnsentTestCase):
    """One peer that does not read, or does so slowly."""

    SETTINGS = {"max_unsent": 200 * KIB}

    def test_who_reads_slowly_is_not_dropped_for_what_it_has_taken(self) -> None:
        self.pause(0)
        for _ in range(100):
            self.send(0)
            self.clients[0].take()
        self.assertFalse(self.clients[0].aborted)
        for _ in range(10):
            self.send(0)
        self.assertTrue(self.clients[0].aborted)
        self.assertEqual(self.factory.traffic.dropped, {"max-unsent": 1})


class UnfinishedTest(FlowTestCase):
    """Packets of which only a part has come."""

    PACKET = 200 * KIB
    LIMIT = 500 * KIB
    SETTINGS = {"max_packet": 256 * KIB, "max_unfinished_total": LIMIT}
    WHOLE = req(16, bytes(PACKET))

    def begin(self, size: int = COUNTED_FROM) -> SocketlikeTransport:
        """A connection that has sent so many bytes of a packet."""
        transport = self.connect()
        transport.receive(self.WHOLE[:size])
        self.turn()
        return transport

    def total(self) -> int:
        return self.factory.unfinished.total

    def test_at_the_limit_and_one_past_it(self) -> None:
        first, second = self.begin(100 * KIB), self.begin(200 * KIB)
        third = self.begin(200 * KIB)
        self.assertEqual(self.total(), self.LIMIT)
        with capturedLogs() as events:
            third.receive(b"\0")
            self.turn()
        why = b"More than 512000 bytes have come of what is not whole, and this began first"
        self.assertEqual(first.taken(), error(b"TOO_MUCH_UNFINISHED", why))
        self.assertEqual((first.disconnecting, second.disconnecting), (True, False))
        self.assertEqual(self.total(), 400 * KIB + 1)
        self.assertIn("(max-unfinished-total)", events[0]["log_format"])
        self.assertEqual(self.factory.traffic.dropped, {"max-unfinished-total": 1})
        (shown,) = [row for row in self.factory.limits() if row.name == "max-unfinished-total"]
        self.assertEqual((shown.limit, shown.used, shown.refused), (self.LIMIT, self.total(), 1))

    def test_the_one_that_began_first_makes_room_though_it_still_sends(self) -> None:
        trickles = self.begin()
        others = [self.begin(150 * KIB) for _ in range(3)]
        while not trickles.disconnecting:
            others.append(self.begin(20 * KIB))
            trickles.receive(b"\0")
        self.assertFalse(any(transport.disconnecting for transport in others))

    def test_one_that_began_anew_is_a_new_one(self) -> None:
        first, second = self.begin(100 * KIB), self.begin(100 * KIB)
        first.receive(self.WHOLE[100 * KIB :] + self.WHOLE[: 100 * KIB])
        self.hear_all(first)
        self.begin(200 * KIB)
        self.begin(101 * KIB)
        self.assertEqual((first.disconnecting, second.disconnecting), (False, True))

    def test_what_is_whole_does_not_count(self) -> None:
        transport = self.begin(100 * KIB)
        transport.receive(self.WHOLE[100 * KIB :])
        self.turn()
        self.assertEqual(self.total(), 0)
        self.assertTrue(transport.taken() == res(17, bytes(self.PACKET)))

    def test_what_belongs_to_a_connection_that_is_gone_does_not_count(self) -> None:
        self.begin(100 * KIB).lose()
        self.assertEqual(self.total(), 0)

    def test_little_of_a_packet_is_not_counted(self) -> None:
        transport = self.begin(COUNTED_FROM - 1)
        self.assertEqual(self.total(), 0)
        transport.receive(b"\0")
        self.assertEqual(self.total(), COUNTED_FROM)

    def test_one_that_makes_room_by_its_own_bytes_is_heard_no_more(self) -> None:
        self.factory.unfinished.limit = 100 * KIB
        transport = self.begin(100 * KIB)
        transport.receive(bytes(KIB))
        self.assertTrue(transport.disconnecting)
        self.assertEqual(self.total(), 0)
        transport.receive(bytes(KIB), req(18, b"f", b"", b""))
        self.turn()
        self.assertEqual((self.total(), self.factory.broker.total), (0, 0))

    def test_one_packet_of_any_size_may_always_come(self) -> None:
        settings = Settings(max_packet=self.PACKET, max_unfinished_total=1024)
        self.assertEqual(GearmanServerFactory(self.clock, settings).unfinished.limit, self.PACKET)

    def test_0_is_no_limit(self) -> None:
        factory = GearmanServerFactory(self.clock, Settings(max_unfinished_total=0))
        self.assertEqual(factory.unfinished.limit, sys.maxsize)
        (shown,) = [row for row in factory.limits() if row.name == "max-unfinished-total"]
        self.assertEqual(shown.limit, 0)

    def test_one_that_has_sent_only_a_part_still_makes_room_for_others(self) -> None:
        self.factory.admission.limit = 1
        transport = self.begin(100 * KIB)
        self.clock.advance(SILENCE)
        self.connect()
        self.assertTrue(transport.aborted)


class FunctionsTest(ServerTestCase):
    """How many functions there may be; which are forgotten is tested with the broker."""

    def setUp(self) -> None:
        self.gearman = self.serve(max_functions=2)
        self.ask = self.peer().ask
        self.ask(req(18, b"a", b"", b""), req(18, b"b", b"", b""))
        self.refused = error(b"QUEUE_ERROR", b"Server has its limit of 2 functions")

    def test_packets(self) -> None:
        for packet in (req(7, b"c", b"", b""), req(36, b"c", b"", b"4102444800", b""), req(1, b"c")):
            self.assertEqual(self.ask(packet, req(16, b"x")), self.refused + res(17, b"x"))
        self.assertEqual(self.ask(req(23, b"c", b"5000")), self.refused)
        self.assertEqual(self.ask(req(18, b"a", b"", b"")), res(8, b"H:test:3"))

    def test_a_worker_goes_on_with_those_that_it_could_register(self) -> None:
        worker = self.peer()
        self.assertEqual(worker.ask(req(1, b"c"), req(1, b"a"), req(39))[: len(self.refused)], self.refused)
        self.assertIn(b"H:test:1", self.peer().ask(b"show jobs\n"))
        self.assertEqual(worker.ask(req(13, b"H:test:1", b""), req(39)), res(10))

    def test_admin_lines(self) -> None:
        for line in (b"create function c", b"maxqueue c 5", b"maxrate c 5"):
            self.assertEqual(
                self.ask(line + b"\n"), b"ERR QUEUE_ERROR Server+has+its+limit+of+2+functions\r\n"
            )
        self.assertEqual(self.ask(b"maxqueue a 5\n"), b"OK\r\n")

    def test_show_limits(self) -> None:
        self.ask(req(1, b"c"))
        self.assertIn(b"\nmax-functions\t2\t2\t1\n", self.ask(b"show limits\n"))

    def test_kept_uniques(self) -> None:
        gearman = self.serve(max_kept_uniques=1, functions={"f": FunctionSettings(unique_for=60.0)})
        client, worker = self.peer(gearman), self.peer(gearman)
        worker.ask(req(1, b"f"))
        self.assertEqual(client.ask(req(18, b"f", b"u", b"")), res(8, b"H:test:1"))
        worker.ask(req(9), req(13, b"H:test:1", b""))
        text = b"Server has its limit of 1 kept uniques"
        self.assertEqual(client.ask(req(18, b"f", b"v", b"")), error(b"QUEUE_ERROR", text))
        self.assertIn(b"\nmax-kept-uniques\t1\t1\t1\n", client.ask(b"show limits\n"))
        gearman.server.reconfigure(
            Settings(
                handle_prefix=PREFIX, max_kept_uniques=2, functions={"f": FunctionSettings(unique_for=60.0)}
            )
        )
        self.assertEqual(client.ask(req(18, b"f", b"v", b"")), res(8, b"H:test:2"))

    def test_a_changed_limit(self) -> None:
        self.gearman.server.reconfigure(Settings(handle_prefix=PREFIX, max_functions=3))
        self.assertEqual(
            self.ask(req(1, b"c"), req(1, b"d")),
            error(b"QUEUE_ERROR", b"Server has its limit of 3 functions"),
        )


class CommandsTest(ServerTestCase):
    """``show limits``, ``show function limits`` and ``maxrate``."""

    def test_show_limits(self) -> None:
        gearman = self.serve(max_connections=9, max_connections_per_address=5, max_jobs=2, max_packet=2048)
        client, admin = self.peer(gearman), self.peer(gearman)
        client.ask(*[req(18, b"f", b"", b"")] * 3)
        self.peer(gearman).ask(req(16, bytes(4000)))
        self.assertEqual(
            admin.ask(b"show limits\n"),
            b"max-connections\t9\t2\t0\n"
            b"max-connections-per-address\t5\t2\t0\n"
            b"handshake-timeout\t10\t0\t0\n"
            b"max-packet\t2048\t0\t1\n"
            b"max-unfinished-total\t1073741824\t0\t0\n"
            b"max-unsent\t67108864\t0\t0\n"
            b"max-unsent-total\t1073741824\t0\t0\n"
            b"max-jobs\t2\t2\t1\n"
            b"max-functions\t50000\t1\t0\n"
            b"max-kept-uniques\t100000\t0\t0\n"
            b"results-bytes\t16777216\t0\t0\n"
            b"max-schedules\t1000\t0\t0\n"
            b".\n",
        )

    def test_no_limit_is_shown_as_0(self) -> None:
        shown = self.peer().ask(b"SHOW LIMITS\r\n")
        self.assertIn(b"max-connections-per-address\t0\t1\t0\n", shown)
        self.assertIn(b"max-jobs\t0\t0\t0\n", shown)

    def test_refused_jobs_say_by_which_limit(self) -> None:
        peer = self.peer(self.serve(max_jobs=1))
        created = res(8, b"H:test:1")
        refused = error(b"QUEUE_ERROR", b"Server has its limit of 1 jobs")
        self.assertEqual(peer.ask(*[req(18, b"f", b"", b"")] * 2), created + refused)

    def test_the_rate_of_the_settings(self) -> None:
        peer = self.peer(self.serve(submit_rate=0.5, submit_burst=2))
        heard = peer.ask(*[req(18, b"f", b"", b"")] * 3)
        self.assertTrue(
            heard.endswith(error(b"RATE_EXCEEDED", b"Function takes at most 0.5 new jobs a second")), heard
        )

    def test_maxrate(self) -> None:
        peer = self.peer()
        self.assertEqual(peer.ask(b"maxrate f 0.5 2\n", b"maxqueue g 3\n"), b"OK\r\nOK\r\n")
        peer.ask(*[req(18, b"f", b"", b"")] * 5)
        shown = b"f\t0\t0\t0\t0.5\t2\t3%b\ng\t3\t3\t3\t0\t0\t0%b\n.\n" % (NO_RUN_LIMITS, NO_RUN_LIMITS)
        self.assertEqual(peer.ask(b"show function limits\n"), shown)
        self.gearman.turn(4)
        self.assertEqual(peer.ask(req(18, b"f", b"", b"")), res(8, b"H:test:3"))
        self.assertEqual(peer.ask(b"maxrate f\n"), b"OK\r\n")
        self.assertEqual(peer.ask(*[req(18, b"f", b"", b"")] * 100).count(b"\0RES\0\0\0\x08"), 100)

    def test_maxrate_of_what_is_no_rate(self) -> None:
        peer = self.peer()
        for words in (b"x", b"-1", b"nan", b"inf", b"1 x", b"1 -1", b"1e99", b"1 1.5", b"1 99999999999"):
            self.assertTrue(peer.ask(b"maxrate f %b\n" % words).startswith(b"ERR INVALID_ARGUMENTS"), words)
        self.assertTrue(peer.ask(b"maxrate\n").startswith(b"ERR INVALID_ARGUMENTS"))
        self.assertEqual(peer.ask(b"show function limits\n"), b".\n")

    def test_names_cannot_forge_lines(self) -> None:
        self.gearman.server.administration.set_rate(b"a\nmax\t1", 1.0)
        shown = b"a\\nmax\\t1\t0\t0\t0\t1\t1\t0%b\n.\n" % NO_RUN_LIMITS
        self.assertEqual(self.peer().ask(b"show function limits\n"), shown)

    def test_limit(self) -> None:
        peer = self.peer()
        for words in (
            b"max-running 2",
            b"start-rate 0.5",
            b"start-burst 9",
            b"max-running-per-key 1",
            rb"key-separator \x20",
            b"pause-after 3",
        ):
            self.assertEqual(peer.ask(b"limit f %b\n" % words), b"OK\r\n")
        shown = b"f\t0\t0\t0\t0\t0\t0\t2\t0.5\t9\t1\t \t3\t0\t0\n.\n"
        self.assertEqual(peer.ask(b"show function limits\n"), shown)
        self.assertEqual(peer.ask(b"limit f\n"), b"OK\r\n")
        self.assertEqual(peer.ask(b"show function limits\n"), b".\n")

    def test_limit_of_what_is_no_limit(self) -> None:
        peer = self.peer()
        for words in (
            b"f max-running x",
            b"f max-running -1",
            b"f max-running 1.5",
            b"f max-running",
            b"f start-rate nan",
            b"f start-rate 1e99",
            b"f maxqueue 1",
            b"f key-separator " + b"x" * 17,
            b"f key-separator \xff",
            b"f \xff 1",
            b"f max_running 1",
        ):
            heard = peer.ask(b"limit %b\n" % words)
            self.assertTrue(heard.startswith(b"ERR INVALID_ARGUMENTS"), (words, heard))
            self.assertEqual(heard.count(b" "), 2, heard)
        self.assertEqual(peer.ask(b"show function limits\n"), b".\n")

    def test_what_runs_is_limited(self) -> None:
        """By the settings of all functions, and of one."""
        gearman = self.serve(max_running=1, functions={"g": FunctionSettings(max_running=0)})
        worker, client = self.peer(gearman), self.peer(gearman)
        client.ask(*[req(18, b"f", b"", b"")] * 2)
        self.assertEqual(worker.ask(req(1, b"f"), req(9)), res(11, b"H:test:1", b"f", b""))
        self.assertEqual(worker.ask(req(9)), res(10))
        self.assertEqual(worker.ask(req(4)), b"", "it sleeps")
        self.assertEqual(self.peer(gearman).ask(b"limit f max-running 2\n"), b"OK\r\n")
        self.assertEqual(worker.heard(), res(6))
        client.ask(*[req(18, b"g", b"", b"")] * 2)
        self.assertEqual(worker.ask(req(1, b"g"), req(9), req(9), req(9)).count(b"\0RES\0\0\0\x0b"), 3)

    def test_complete_and_grab_in_one_write_wake_nobody(self) -> None:
        gearman = self.serve(max_running=1)
        busy, asleep, client = self.peer(gearman), self.peer(gearman), self.peer(gearman)
        client.ask(*[req(18, b"f", b"", b"")] * 3)
        busy.ask(req(1, b"f"), req(9))
        self.assertEqual(asleep.ask(req(1, b"f"), req(9), req(4)), res(10))
        heard = busy.ask(req(13, b"H:test:1", b""), req(9))
        self.assertEqual(heard, res(11, b"H:test:2", b"f", b""))
        self.assertEqual(asleep.heard(), b"")
        busy.ask(req(13, b"H:test:2", b""))
        self.assertEqual(asleep.heard(), res(6))

    def test_a_function_that_pauses_itself_is_logged(self) -> None:
        gearman = self.serve(pause_after=2)
        worker, client = self.peer(gearman), self.peer(gearman)
        client.ask(*[req(18, b"f", b"", b"")] * 3)
        worker.ask(req(1, b"f"))
        with capturedLogs() as logged:
            for number in (1, 2):
                worker.ask(req(9), req(14, b"H:test:%d" % number))
        self.assertEqual(worker.ask(req(9)), res(10))
        texts = [str(formatEvent(event)) for event in logged]
        self.assertTrue(any("Function f is paused: 2 of its runs" in text for text in texts), texts)
