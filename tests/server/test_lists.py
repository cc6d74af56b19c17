"""Long lists of the admin protocol: sent piece by piece, in order, and at nobody else's cost."""

from __future__ import annotations

from collections.abc import Iterator

from tests.server.peers import HIGH_WATER, SocketlikeTransport, req, res
from tests.server.test_flow import KIB, FlowTestCase
from txgearman.server.replies import sender
from txgearman.server.replies.pending import LINES_AT_ONCE, LIST_BYTES_AT_ONCE
from txgearman.server.replies.sender import LIST_WRITE

JOBS = 7 * LINES_AT_ONCE + 3
WRITE = 20 * KIB
"""Bytes of a list that one write has in most of these tests: what a turn makes, and some."""


class LongAnswersTestCase(FlowTestCase):
    """An administrator that takes what is sent to it when a test lets it."""

    def setUp(self) -> None:
        super().setUp()
        self.admin = self.connect()

    def turn(self) -> None:
        self.one_turn()

    def finish(self, transport: SocketlikeTransport | None = None) -> bytes:
        """All that comes, whatever turns it takes."""
        transport = self.admin if transport is None else transport
        heard = bytearray()
        while True:
            self.turn()
            data = transport.taken()
            heard += data
            if not data and not self.due():
                return bytes(heard)


class ListTestCase(LongAnswersTestCase):
    """A server with many jobs."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(sender, "LIST_WRITE", WRITE)
        self.fill(JOBS)

    def fill(self, jobs: int) -> None:
        client = self.connect()
        for number in range(jobs):
            client.receive(req(18, b"f", b"u%d" % number, b""))
        client.lose()
        self.turn()

    def list_of(self, jobs: int) -> bytes:
        return b"".join(b"H:test:%d\t0\t0\t1\n" % number for number in range(1, jobs + 1)) + b".\n"


class ListTest(ListTestCase):
    def test_it_comes_piece_by_piece(self) -> None:
        self.admin.receive(b"show jobs\n")
        self.assertEqual(self.finish(), self.list_of(JOBS))
        self.assertGreater(len(self.admin.writes), 2)
        self.assertLess(max(map(len, self.admin.writes)), 2 * WRITE)
        self.assertTrue(self.admin.reading)

    def test_what_a_turn_makes_is_bounded(self) -> None:
        made = []

        def lines(length: int) -> Iterator[bytes]:
            for number in range(10 * LINES_AT_ONCE):
                made.append(number)
                yield bytes(length) + b"\n"

        for length, most in ((5, LINES_AT_ONCE), (1023, LIST_BYTES_AT_ONCE // KIB)):
            (server,) = self.factory.connections.values()
            server.send_list(lines(length))
            while self.due():
                self.assertLessEqual(len(made), most)
                made.clear()
                self.turn()
                self.admin.taken()

    def test_no_write_looks_like_the_end_of_the_list(self) -> None:
        # Readers that take the first read that ends with LF for the end: check_gearman and gearman_top.
        for command in (
            b"show jobs\n",
            b"show unique jobs\n",
            b"workers\n",
            b"status\n",
            b"prioritystatus\n",
        ):
            with self.subTest(command):
                self.admin.writes.clear()
                self.admin.receive(command)
                heard = self.finish()
                self.assertTrue(heard.endswith(b"\n.\n"))
                self.assertEqual([write[-1:] == b"\n" for write in self.admin.writes[:-1]].count(True), 0)

    def test_a_list_of_many_functions_leaves_in_one_write_with_the_answer_behind_it(self) -> None:
        # gearmand writes a list in one go, and there are readers that read once: the C check_gearman.
        self.patch(sender, "LIST_WRITE", LIST_WRITE)
        worker = self.connect()
        worker.receive(*[req(1, b"hostgroup_%d" % number) for number in range(5000)])
        self.admin.receive(b"status\nversion\n")
        heard = self.finish()
        self.assertEqual(heard.count(b"\n"), 5000 + 3)
        self.assertEqual(self.admin.writes, [heard])
        self.assertEqual(self.factory.budget.used, 0)

    def test_uniques_that_are_all_empty_are_nothing_but_line_ends(self) -> None:
        self.factory = type(self.factory)(self.clock, self.factory.settings)
        self.admin = self.connect()
        client = self.connect()
        for _ in range(2 * WRITE + 5):
            client.receive(req(18, b"f", b"", b""))
        client.lose()
        self.admin.receive(b"show unique jobs\n")
        self.assertEqual(self.finish(), b"\n" * (2 * WRITE + 5) + b".\n")

    def test_what_is_held_of_it_counts_among_what_waits(self) -> None:
        self.patch(sender, "LIST_WRITE", LIST_WRITE)
        self.patch(sender, "UNCOUNTED", 0)
        self.admin.receive(b"show jobs\n")
        held = []
        while self.due():
            held.append(self.factory.budget.used)
            self.turn()
        self.assertEqual(max(held), len(self.list_of(7 * LINES_AT_ONCE)) - len(b".\n"))
        self.assertEqual(self.factory.budget.used, 0)

    def test_of_any_length_around_a_piece(self) -> None:
        for jobs in (0, 1, LINES_AT_ONCE - 2, LINES_AT_ONCE - 1, LINES_AT_ONCE, LINES_AT_ONCE + 1):
            self.factory = type(self.factory)(self.clock, self.factory.settings)
            self.admin = self.connect()
            self.fill(jobs)
            self.admin.receive(b"show jobs\n", req(16, b"x"))
            self.assertEqual(self.finish(), self.list_of(jobs) + res(17, b"x"), jobs)

    def test_unique_jobs(self) -> None:
        self.admin.receive(b"show unique jobs\n")
        expected = b"".join(b"u%d\n" % number for number in range(JOBS)) + b".\n"
        self.assertEqual(self.finish(), expected)

    def test_others_are_served_meanwhile(self) -> None:
        other = self.connect()
        self.admin.receive(b"show jobs\n")
        self.turn()
        other.receive(req(16, b"x"))
        self.turn()
        self.assertEqual(other.taken(), res(17, b"x"))
        self.assertNotIn(b"\n.\n", self.admin.value(), "the list is still under way")
        self.assertEqual(self.finish(), self.list_of(JOBS))

    def test_a_peer_that_does_not_read_stops_it(self) -> None:
        self.admin.receive(b"show jobs\n" * 20)
        for _ in range(200):
            self.turn()
        self.assertLess(self.admin.unsent, HIGH_WATER + 2 * WRITE)
        self.assertEqual(self.clock.getDelayedCalls(), [], "nothing is done for it meanwhile")
        self.assertEqual(self.finish(), self.list_of(JOBS) * 20)

    def test_ahead_of_it_and_behind_it_order_is_kept(self) -> None:
        self.admin.receive(req(16, b"1"), b"show jobs\nversion\n", req(16, b"2"), b"show jobs\n")
        self.admin_heard = self.finish()
        start, end = res(17, b"1"), res(17, b"2") + self.list_of(JOBS)
        self.assertTrue(self.admin_heard.startswith(start + self.list_of(JOBS) + b"OK txgearman-"))
        self.assertTrue(self.admin_heard.endswith(end))

    def test_what_arrives_meanwhile_is_answered_behind_it(self) -> None:
        self.admin.receive(b"show jobs\n")
        self.turn()
        self.assertFalse(self.admin.reading)
        heard = self.finish()
        self.admin.receive(req(16, b"x"))
        self.assertEqual(heard + self.finish(), self.list_of(JOBS) + res(17, b"x"))

    def test_news_for_the_peer_do_not_tear_it_apart(self) -> None:
        worker = self.connect()
        self.admin.receive(req(7, b"g", b"", b""))
        worker.receive(req(1, b"g"), req(9))
        self.turn()
        self.admin.taken()
        self.admin.receive(b"show jobs\n")
        self.turn()
        handle = b"H:test:%d" % (JOBS + 1)
        worker.receive(req(28, handle, b"data"), req(13, handle, b"result"))
        heard = self.finish()
        news = res(28, handle, b"data") + res(13, handle, b"result")
        self.assertTrue(heard.endswith(b"\n.\n" + news))
        self.assertEqual(heard.count(b"\0"), news.count(b"\0"))
        self.assertEqual(self.factory.budget.used, 0)

    def test_news_for_a_peer_that_does_not_read_have_a_limit(self) -> None:
        worker = self.connect()
        self.admin.receive(req(7, b"g", b"", b""))
        worker.receive(req(1, b"g"), req(9))
        self.turn()
        self.admin.receive(b"show jobs\n" * 10)
        for _ in range(100):
            self.turn()
        parts = 0
        while not self.admin.aborted:
            worker.receive(req(28, b"H:test:%d" % (JOBS + 1), bytes(1024 * KIB)))
            self.turn()
            parts += 1
            self.assertLess(parts, 80)
        self.assertGreaterEqual(parts, 64)
        self.assertEqual(self.factory.budget.used, 0)

    def test_jobs_may_come_and_go_meanwhile(self) -> None:
        self.admin.receive(b"show jobs\n")
        self.turn()
        worker = self.connect()
        worker.receive(req(1, b"f"))
        for number in range(1, JOBS + 1):
            worker.receive(req(9), req(13, b"H:test:%d" % number, b""))
        self.fill(10)
        lines = self.finish().splitlines()
        self.assertEqual(lines[-1], b".")
        handles = [line.split(b"\t")[0] for line in lines[:-1]]
        self.assertEqual(len(handles), len(set(handles)))
        self.assertLess(len(handles), JOBS)

    def test_workers_may_leave_meanwhile(self) -> None:
        peers = [self.connect() for _ in range(3 * LINES_AT_ONCE)]
        self.admin.receive(b"workers\n")
        for peer in peers[LINES_AT_ONCE:]:
            peer.lose()
        lines = self.finish().splitlines()
        self.assertEqual((lines[0], lines[-1]), (b"1 127.0.0.1 - :", b"."))
        self.assertLess(len(lines), LINES_AT_ONCE + 10)


class EndTest(ListTestCase):
    """A connection ends, or is to end, in the middle of a list."""

    def test_it_is_lost(self) -> None:
        self.admin.receive(b"show jobs\n", req(18, b"g", b"", b"never"))
        self.turn()
        self.admin.lose()
        self.turn()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual([view.name for view in self.factory.inspection.functions()], [b"f"])

    def test_the_server_stops(self) -> None:
        self.admin.receive(b"show jobs\n")
        self.turn()
        stopping = self.factory.stop()
        self.assertEqual(self.finish(), self.list_of(JOBS), "what was asked before is answered whole")
        self.assertTrue(self.admin.disconnecting)
        self.admin.lose()
        self.successResultOf(stopping)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_server_stops_and_the_peer_does_not_read(self) -> None:
        self.admin.receive(b"show jobs\n" * 10)
        for _ in range(100):
            self.turn()
        stopping = self.factory.stop()
        self.clock.advance(5)
        self.assertTrue(self.admin.aborted)
        self.admin.lose()
        self.successResultOf(stopping)
