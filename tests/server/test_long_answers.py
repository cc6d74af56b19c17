"""``show job`` of a large payload and ``show dead`` of many jobs: made as the peer takes them.

These two are the answers that may be long and for which the store may be asked. The other lists, and what all
lists have in common, are in `test_lists`.
"""

from __future__ import annotations

import gc
import weakref
from base64 import b64decode
from typing import Any
from unittest.mock import patch

from twisted.internet.task import Clock

from tests.server.peers import HIGH_WATER, PREFIX, req, res
from tests.server.stores import UNAVAILABLE, ListStore, Thread
from tests.server.test_death_webhook import dead_job
from tests.server.test_lists import LongAnswersTestCase
from txgearman.server import GearmanServerFactory, Settings
from txgearman.server.admin.dead_jobs import DEAD_PAGE
from txgearman.server.admin.jobs import DATA_PIECE
from txgearman.server.persistence.writer import StoreWriter
from txgearman.server.replies import sender
from txgearman.server.replies.pending import LINES_AT_ONCE, LIST_BYTES_AT_ONCE
from txgearman.server.replies.sender import LIST_WRITE

MIB = 1024 * 1024
TURNS = 200
"""Far more turns than a list of these tests may take while its peer does not read."""


class DataTestCase(LongAnswersTestCase):
    def submit(self, data: bytes) -> None:
        client = self.connect()
        client.receive(req(18, b"f", b"", data))
        client.lose()

    def data_in(self, answer: bytes) -> bytes:
        """The payload that an answer to ``show job`` shows."""
        lines = answer.splitlines()
        self.assertEqual(lines[-1], b".")
        name, _, value = lines[-2].partition(b"\t")
        self.assertEqual(name, b"data")
        return b64decode(value, validate=True)


class JobTest(DataTestCase):
    SETTINGS = {"max_packet": 128 * MIB}

    def test_a_payload_beyond_what_may_wait_for_a_peer_arrives_whole(self) -> None:
        """100 MiB, more than ``max-unsent``, are never held as base64."""
        data = bytes(range(251)) * (100 * MIB // 251)
        self.assertGreater(len(data) * 4 // 3, self.factory.settings.max_unsent)
        self.submit(data)
        self.admin.receive(b"show job H:test:1\n", req(16, b"behind"))
        answer = self.finish()
        self.assertTrue(answer.endswith(b"\n.\n" + res(17, b"behind")))
        self.assertTrue(self.data_in(answer.removesuffix(res(17, b"behind"))) == data)
        self.assertLess(self.admin.most_unsent, HIGH_WATER + 2 * LIST_WRITE)
        self.assertLess(max(map(len, self.admin.writes)), 2 * LIST_WRITE)
        self.assertEqual(self.factory.budget.used, 0)

    def test_of_any_length_around_a_piece(self) -> None:
        sizes = (0, 1, 2, 3, DATA_PIECE - 1, DATA_PIECE, DATA_PIECE + 1, 9 * DATA_PIECE + 2)
        for number, size in enumerate(sizes, 1):
            data = bytes(number) * (size // number) + b"x" * (size % number)
            self.submit(data)
            self.admin.receive(b"show job H:test:%d\n" % number)
            self.assertEqual(self.data_in(self.finish()), data)

    def test_a_small_one_is_one_write(self) -> None:
        self.submit(b"data")
        self.admin.receive(b"show job H:test:1\nversion\n")
        self.turn()
        self.assertEqual(len(self.admin.writes), 1)
        self.assertIn(b"data\tZGF0YQ==\n.\nOK txgearman", self.admin.taken())

    def test_what_a_turn_makes_is_bounded(self) -> None:
        self.submit(bytes(MIB))
        self.patch(sender, "LIST_WRITE", 1)
        self.admin.receive(b"show job H:test:1\n")
        self.turn()
        while self.due():
            self.assertLess(len(self.admin.taken()), LIST_BYTES_AT_ONCE + 500)
            self.turn()

    def test_others_are_served_meanwhile(self) -> None:
        other = self.connect()
        self.submit(bytes(MIB))
        self.admin.receive(b"show job H:test:1\n")
        self.turn()
        other.receive(req(16, b"x"))
        self.turn()
        self.assertEqual(other.taken(), res(17, b"x"))
        self.assertNotIn(b"\n.\n", self.admin.value(), "the answer is still under way")

    def test_a_peer_that_does_not_read_stops_it_and_what_is_held_for_it_counts(self) -> None:
        self.submit(bytes(10 * MIB))
        self.admin.receive(b"show job H:test:1\n")
        for _ in range(TURNS):
            self.turn()
        self.assertLess(self.admin.unsent, HIGH_WATER + 2 * LIST_WRITE)
        self.assertEqual(self.clock.getDelayedCalls(), [], "nothing is done for it meanwhile")
        self.assertGreater(self.factory.budget.used, 10 * MIB)
        self.assertLess(self.factory.budget.used, 11 * MIB)
        self.assertEqual(len(self.data_in(self.finish())), 10 * MIB)
        self.assertEqual(self.factory.budget.used, 0)

    def test_what_is_held_for_several_counts_once(self) -> None:
        self.submit(bytes(10 * MIB))
        peers = [self.connect() for _ in range(3)]
        for peer in peers:
            peer.receive(b"show job H:test:1\n")
        for _ in range(TURNS):
            self.turn()
        self.assertGreater(self.factory.budget.most, 10 * MIB)
        self.assertTrue(10 * MIB < self.factory.budget.used < 12 * MIB)
        for peer in peers:
            self.assertEqual(len(self.data_in(self.finish(peer))), 10 * MIB)
        self.assertEqual(self.factory.budget.used, 0)

    def test_its_job_may_end_meanwhile(self) -> None:
        self.submit(bytes(MIB))
        self.admin.receive(b"show job H:test:1\n")
        self.turn()
        worker = self.connect()
        worker.receive(req(1, b"f"), req(9), req(13, b"H:test:1", b""))
        self.assertEqual(self.data_in(self.finish()), bytes(MIB))


class LimitTest(DataTestCase):
    SETTINGS = {"max_unsent_total": 4 * MIB}

    def test_those_that_hold_too_much_in_all_are_dropped(self) -> None:
        """The jobs end, so that each payload is held for its peer alone."""
        peers = []
        worker = self.connect()
        worker.receive(req(1, b"f"))
        for number in range(1, 9):
            self.submit(bytes(MIB))
            peers.append(self.connect())
            peers[-1].receive(b"show job H:test:%d\n" % number)
            worker.receive(req(9))
            worker.taken()
            worker.receive(req(13, b"H:test:%d" % number, b""))
            for _ in range(TURNS):
                self.turn()
            self.assertLessEqual(self.factory.budget.used, 4 * MIB)
        self.assertTrue(2 < sum(peer.aborted for peer in peers) < 8)

    def test_it_is_freed_with_the_connection(self) -> None:
        self.submit(bytes(MIB))
        self.admin.receive(b"show job H:test:1\n")
        self.turn()
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        (connection,) = [weakref.ref(each) for each in self.factory.connections.values()]
        self.admin.lose()
        self.turn()
        self.assertIsNone(connection())
        self.assertEqual(self.factory.budget.used, 0)


class StoredTest(DataTestCase):
    """A server whose dead jobs are in a store, which answers when its thread is told to."""

    DEAD = 3 * DEAD_PAGE + 7

    def setUp(self) -> None:
        self.clock, self.thread, self.store = Clock(), Thread(), ListStore()
        self.factory = GearmanServerFactory(self.clock, Settings(handle_prefix=PREFIX))
        store_writer = StoreWriter(self.store, self.clock, self.thread)
        self.store.dead = {
            number: dead_job(number)._replace(ended=1000.0 + number) for number in range(1, self.DEAD + 1)
        }
        self.factory.use_store(store_writer, store_writer.open("t", 10.0))
        store_writer.load(self.factory.broker)
        self.pages = 0
        self.admin = self.connect()

    def turn(self) -> None:
        super().turn()
        self.thread.run_all()

    def expected(self) -> bytes:
        line = b"H:test:%d\tf\tu\xff\t%d\t2\traised\toh\n"
        rows = [line % (number, 1000 + number) for number in range(self.DEAD, 0, -1)]
        return b"".join(rows) + b".\n"

    def count_pages(self) -> Any:
        ask = self.store.dead_jobs.page

        def count(*arguments: Any) -> Any:
            self.pages += 1
            return ask(*arguments)

        return patch.object(self.store.dead_jobs, "page", count)

    def test_all_pages_in_order_and_the_answer_behind(self) -> None:
        self.admin.receive(b"show dead\n", req(16, b"behind"))
        self.assertEqual(self.finish(), self.expected() + res(17, b"behind"))

    def test_a_peer_that_does_not_read_has_no_more_pages_read(self) -> None:
        self.DEAD = 50 * DEAD_PAGE
        self.setUp()
        with self.count_pages():
            self.admin.receive(b"show dead\n")
            for _ in range(TURNS):
                self.turn()
            self.assertLess(self.pages, 50)
            self.assertLess(self.admin.unsent, HIGH_WATER + 2 * LIST_WRITE)
            self.assertEqual(self.thread.calls, [])
            self.assertEqual(self.finish(), self.expected())
            self.assertEqual(self.pages, 50)

    def test_what_a_turn_makes_is_bounded(self) -> None:
        self.patch(sender, "LIST_WRITE", 1)
        self.admin.receive(b"show dead\n")
        while self.due() or self.thread.calls:
            self.assertLessEqual(self.admin.taken().count(b"\n"), LINES_AT_ONCE)
            self.turn()

    def test_nothing_is_read_of_the_peer_meanwhile_and_it_is_not_asked_again(self) -> None:
        self.admin.receive(b"show dead\n")
        self.assertFalse(self.admin.reading)
        self.assertEqual(len(self.thread.calls), 1)
        self.one_turn()
        self.assertEqual(len(self.thread.calls), 1)

    def test_a_store_that_fails_at_once(self) -> None:
        self.store.failing = UNAVAILABLE
        self.admin.receive(b"show dead\n", req(16, b"behind"))
        answer = self.finish()
        self.assertTrue(answer.startswith(b"ERR "), answer)
        self.assertEqual(answer.split(b"\r\n")[1], res(17, b"behind"))
        self.assertFalse(self.admin.disconnecting)

    def test_a_store_that_fails_in_the_middle_ends_the_connection(self) -> None:
        """So no reader takes for whole what it has got, or waits for the rest."""
        self.admin.receive(b"show dead\n")
        super().turn()
        self.thread.run_all()
        super().turn()
        self.store.failing = UNAVAILABLE
        lines = self.finish().splitlines()
        self.assertTrue(lines[-1].startswith(b"ERR "), lines[-1])
        self.assertTrue(DEAD_PAGE <= len(lines) < self.DEAD)
        self.assertTrue(self.admin.disconnecting)

    def test_a_job_that_the_store_has(self) -> None:
        self.store.dead[1] = dead_job(1, data=bytes(MIB))
        self.admin.receive(b"show job H:test:1\n")
        self.assertEqual(self.data_in(self.finish()), bytes(MIB))
        self.admin.receive(b"show job H:test:999\n")
        self.assertEqual(self.finish(), b"ERR UNKNOWN_JOB\r\n")

    def test_the_connection_is_lost_while_the_store_is_asked(self) -> None:
        for command in (b"show dead\n", b"show job H:test:1\n"):
            admin = self.connect()
            admin.receive(command)
            admin.lose()
            self.turn()
            self.turn()
            self.assertEqual(self.due(), [])

    def test_the_server_stops_meanwhile(self) -> None:
        self.admin.receive(b"show dead\n")
        stopping = self.factory.stop()
        self.assertEqual(self.finish(), self.expected(), "what was asked before is answered whole")
        self.assertTrue(self.admin.disconnecting)
        self.admin.lose()
        self.successResultOf(stopping)
