"""The send budget: every byte that waits for a peer is counted, and who holds most is dropped.

Where bytes wait: see `txgearman.server.budgets.unsent`. Each has a test here; those of HTTP are in
`tests/web/test_budget.py`, packets that are not whole in `test_limits.py`.
"""

from __future__ import annotations

import tracemalloc
from collections import Counter
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.server.held import really_held
from tests.server.peers import HIGH_WATER, SocketlikeTransport, req, res
from tests.server.sites import Site
from tests.server.test_flow import KIB, FlowTestCase
from tests.store.model import ModelDatabase
from txgearman.broker.submissions import MAX_COALESCED
from txgearman.server.budgets.unsent import JOINED_TO, SHARED_FROM, SendBudget, SendQueue
from txgearman.server.factory import TURN_OUTPUT
from txgearman.server.protocol import HELD_UNHANDLED
from txgearman.server.replies.sender import HELD_BY_TRANSPORT, LIST_WRITE, WRITE_PIECE

MIB = 1024 * KIB


class Peer:
    """Whose queue it is, for the budget."""

    described = "Peer"

    def __init__(self) -> None:
        self.dropped = False

    def drop(self) -> None:
        self.dropped = True


class QueueTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.dropped: Counter[str] = Counter()
        self.budget = SendBudget(lambda: 0.0, self.dropped)

    def queue(self, *pieces: bytes) -> SendQueue:
        queue = self.budget.queue(Peer())
        for piece in pieces:
            queue.append(piece)
        return queue

    def test_random_pieces_come_out_as_they_went_in(self) -> None:
        random = Random(7)
        for _ in range(200):
            queue, expected, heard = self.queue(), b"", b""
            for _ in range(30):
                if random.random() < 0.5:
                    size = random.choice((0, 1, 50, SHARED_FROM - 1, SHARED_FROM, 3 * SHARED_FROM))
                    piece = random.randbytes(size)
                    queue.append(piece)
                    expected += piece
                elif random.random() < 0.5:
                    heard += queue.take(random.choice((1, 100, SHARED_FROM, 5 * SHARED_FROM)))
                else:
                    first = b"".join(queue.first(3))
                    taken = random.randint(0, len(first))
                    heard += first[:taken]
                    queue.skip(taken)
                self.assertEqual(queue.size, len(expected) - len(heard))
                self.assertEqual(bool(queue), queue.size > 0)
                self.assertEqual(self.budget.used, really_held(self.budget))
            heard += queue.take(1 << 30)
            self.assertTrue(heard == expected)
            self.assertEqual((self.budget.used, self.budget.most), (0, 0))

    def test_what_many_wait_for_is_held_and_counted_once(self) -> None:
        result = bytes(MIB)
        queues = [self.queue(b"head", result) for _ in range(60)]
        self.assertEqual(self.budget.used, MIB + 60 * len(b"head"))
        self.assertEqual(self.budget.most, MIB + len(b"head"))
        for queue in queues[:59]:
            queue.clear()
        self.assertEqual(self.budget.used, MIB + len(b"head"))
        queues[59].skip(MIB)
        self.assertEqual(self.budget.used, MIB, "an object is held until its last byte is taken")
        queues[59].skip(len(b"head"))
        self.assertEqual(self.budget.used, 0)

    def test_small_pieces_are_put_together(self) -> None:
        queue = self.queue(*[b"x" * 10] * (3 * JOINED_TO // 10))
        self.assertLessEqual(len(queue.first(1000)), 4)

    def test_the_limit_and_one_past_it(self) -> None:
        self.budget.limit = 100
        queues = [self.queue(b"x" * size) for size in (20, 50, 30)]
        self.budget.enforce()
        self.assertEqual(self.dropped, {})
        queues[0].append(b"x")
        self.budget.enforce()
        self.assertEqual(self.dropped, {"max-unsent-total": 1})
        holders: list[Any] = [queue.holder for queue in queues]
        self.assertEqual([holder.dropped for holder in holders], [False, True, False])
        self.assertEqual(self.budget.used, 51)

    def test_what_is_beside_the_queue_counts(self) -> None:
        self.budget.limit = 100
        queue = self.queue()
        queue.note_beside(60)
        queue.note_beside(101)
        self.assertEqual((self.budget.used, self.budget.most, queue.held), (101, 101, 101))
        self.budget.enforce()
        self.assertEqual((self.budget.used, queue.held, self.dropped.total()), (0, 0, 1))


class PlacesTest(FlowTestCase):
    """Each place where bytes wait for a connection, the first packet for it included."""

    SIZE = 2 * MIB
    SETTINGS = {"max_unsent_total": 5 * MIB}

    def shown(self) -> tuple[int, int]:
        """What ``show limits`` says is used in all, and by the one for whom most waits."""
        used = {row.name: row.used for row in self.factory.limits()}
        self.assertEqual(used["max-unsent-total"], really_held(self.factory.budget))
        return used["max-unsent-total"], used["max-unsent"]

    def test_the_first_answer(self) -> None:
        transport = self.connect()
        transport.receive(req(16, bytes(self.SIZE)))
        total, most = self.shown()
        self.assertGreaterEqual(total, self.SIZE)
        self.assertGreaterEqual(total, most)
        self.assertLessEqual(transport.unsent, WRITE_PIECE)
        self.assertEqual(transport.taken(), res(17, bytes(self.SIZE)))
        self.assertEqual(self.shown(), (0, 0))

    def test_first_answers_to_many_are_limited_in_all(self) -> None:
        peers = [self.connect() for _ in range(10)]
        for transport in peers:
            transport.receive(req(16, bytes(self.SIZE)))
            self.assertLessEqual(self.shown()[0], 5 * MIB)
        self.assertGreaterEqual(sum(transport.aborted for transport in peers), 8)
        self.assertEqual(self.factory.traffic.dropped["max-unsent-total"], self.dropped(peers))

    def dropped(self, peers: list[SocketlikeTransport]) -> int:
        return sum(transport.aborted for transport in peers)

    def test_a_result_for_many_is_held_once(self) -> None:
        clients = [self.connect() for _ in range(60)]
        for client in clients:
            client.receive(req(7, b"f", b"u", b""))
        worker = self.connect()
        worker.receive(req(1, b"f"), req(9))
        self.turn()
        for client in clients:
            client.taken()
        report = req(13, b"H:test:1", bytes(self.SIZE))
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        worker.receive(report)
        self.turn()
        held, _peak = tracemalloc.get_traced_memory()
        self.assertLess(held, 2 * self.SIZE + 60 * 3 * WRITE_PIECE)
        # Each transport has a piece of it, and is counted with what it may have.
        self.assertEqual(self.shown()[0], really_held(self.factory.budget))
        heard = {client.taken() for client in clients if not client.aborted}
        self.assertTrue(heard == {res(13, b"H:test:1", bytes(self.SIZE))})

    def test_what_was_delivered_behind_a_pause(self) -> None:
        transport = self.connect()
        protocol = self.factory.connections[1]
        transport.receive(*[req(16, bytes(30_000))] * 3)
        self.assertFalse(transport.reading)
        before = self.shown()[0]
        protocol.dataReceived(bytes(50_000))
        self.assertEqual(self.shown()[0], before + 50_000)

    def test_what_was_read_and_is_not_handled(self) -> None:
        """It is taken for as much as a read brings at most."""
        first, second = self.connect(), self.connect()
        flood = [req(16, bytes(30_000))] * 4
        first.receive(*flood)
        before = self.shown()[0]
        self.assertEqual(before, HELD_BY_TRANSPORT + HELD_UNHANDLED)
        second.receive(*flood)
        self.assertEqual(self.shown()[0], 2 * before)
        self.hear_all(first)
        self.hear_all(second)
        self.assertEqual(self.shown(), (0, 0))

    def test_behind_a_list(self) -> None:
        client, worker = self.connect(), self.connect()
        client.receive(req(7, b"f", b"", b""), *[req(18, b"g", b"", b"")] * 2000)
        worker.receive(req(1, b"f"), req(9))
        self.turn()
        client.taken()
        client.receive(b"show jobs\n")
        worker.receive(req(28, b"H:test:1", bytes(self.SIZE)))
        self.assertGreaterEqual(self.shown()[0], self.SIZE)
        self.assertTrue(self.hear_all(client).endswith(bytes(self.SIZE)))
        self.assertEqual(self.shown(), (0, 0))

    def test_a_list_whose_lines_are_long(self) -> None:
        admin = self.connect()
        for worker in range(20):
            names = [b"%d-%d" % (worker, number) + bytes(400).replace(b"\0", b"x") for number in range(200)]
            self.connect().receive(*[req(1, name) for name in names])
        admin.receive(b"workers\n")
        for _ in range(50):
            self.turn()
        self.assertLess(admin.most_unsent, 2 * LIST_WRITE)
        self.assertEqual(self.hear_all(admin).count(b" : "), 20)

    def test_a_peer_with_its_connection_closing_gets_all_that_waits(self) -> None:
        transport = self.connect()
        transport.receive(req(16, bytes(self.SIZE)), b"\0BAD" + bytes(8))
        self.factory.connections[1].close()
        self.turn()
        self.assertFalse(transport.disconnecting)
        self.assertEqual(transport.taken(), res(17, bytes(self.SIZE)))
        self.assertTrue(transport.disconnecting)


class PendingReplyTest(SynchronousTestCase):
    """What waits behind an answer of the store."""

    def test_it_counts(self) -> None:
        site = Site("here", ModelDatabase(), lambda: 0.0, max_unsent_total=4 * MIB)
        budget = site.factory.budget
        client, worker = site.connect(), site.worker()
        client.receive(req(7, b"f", b"", b""))
        worker.receive(req(9))
        handle = site.heard(client)[12:]
        client.receive(req(18, b"g", b"", b""))
        worker.receive(req(28, handle, bytes(MIB)))
        self.assertGreaterEqual(budget.used, MIB)
        self.assertEqual(budget.used, really_held(budget))
        site.commit()
        self.assertTrue(site.heard(client).endswith(bytes(MIB)))
        self.assertEqual(budget.used, 0)
        client.receive(req(18, b"g", b"", b""))
        for _ in range(5):
            worker.receive(req(28, handle, bytes(MIB)))
        self.assertTrue(client.aborted)
        self.assertEqual(budget.used, 0)
        client.lose()
        site.commit()


class FanOutTest(FlowTestCase):
    """Reports on a job for which one connection, or many, wait many times."""

    def join(self, times: int) -> SocketlikeTransport:
        client = self.connect()
        client.receive(*[req(7, b"f", b"u", b"")] * times)
        self.turn()
        client.taken()
        return client

    def start(self) -> SocketlikeTransport:
        worker = self.connect()
        worker.receive(req(1, b"f"), req(9))
        self.turn()
        worker.taken()
        return worker

    def test_joins_at_the_limit_and_one_past_it(self) -> None:
        client = self.connect()
        client.receive(*[req(7, b"f", b"u", b"")] * (MAX_COALESCED + 1), req(16, b"x"))
        self.turn()
        heard = client.taken()
        self.assertEqual(heard.count(b"\0RES\0\0\0\x08"), MAX_COALESCED)
        text = b"Connection waits for this job %d times, as often as it may" % MAX_COALESCED
        self.assertTrue(heard.endswith(res(19, b"QUEUE_ERROR", text) + res(17, b"x")), heard[-200:])
        self.assertEqual(self.factory.traffic.refused, {b"QUEUE_ERROR": 1})
        # Another connection may, and so may this one again, once the job has ended.
        self.join(MAX_COALESCED)
        self.start().receive(req(13, b"H:test:1", b""))
        self.turn()
        client.taken()
        client.receive(*[req(7, b"f", b"u", b"")] * MAX_COALESCED)
        self.turn()
        self.assertNotIn(b"QUEUE_ERROR", client.taken())

    def test_what_reports_make_in_one_turn_is_bounded(self) -> None:
        """Many connections too: what counts is what all of them are sent."""
        clients = [self.join(MAX_COALESCED // 10) for _ in range(10)]
        worker = self.start()
        report = req(12, b"H:test:1", b"1", b"2")
        told = MAX_COALESCED * (len(res(12, b"H:test:1", b"1", b"2")) + 5)
        worker.receive(report * 1000)
        turns = 0
        while not worker.reading:
            self.one_turn()
            self.assertLess(sum(len(client.taken()) for client in clients), TURN_OUTPUT + 2 * told)
            turns += 1
        self.assertGreater(turns, 1000 * MAX_COALESCED * 32 // TURN_OUTPUT // 2)
        worker.receive(req(16, b"x"))
        self.turn()
        self.assertEqual(worker.taken(), res(17, b"x"))

    def test_all_reports_arrive_in_order(self) -> None:
        client, worker = self.join(100), self.start()
        worker.receive(*[req(28, b"H:test:1", b"%04d" % number + bytes(1000)) for number in range(50)])
        worker_waits = not worker.reading
        heard = b""
        for _ in range(100):
            heard += client.taken()
            self.one_turn()
        self.assertTrue(worker_waits)
        for handle in (b"H:test:1", b"H:test:2", b"H:test:100"):
            parts = heard.split(handle + b"\0")[1:]
            self.assertEqual([part[:4] for part in parts], [b"%04d" % number for number in range(50)])

    def test_a_large_part_many_times_to_one_that_does_not_read(self) -> None:
        client, worker = self.join(MAX_COALESCED), self.start()
        worker.receive(req(28, b"H:test:1", bytes(MIB)))
        self.turn()
        self.assertTrue(client.aborted)
        self.assertEqual(self.factory.traffic.dropped, {"max-unsent": 1})
        self.assertLess(client.most_unsent, HIGH_WATER + WRITE_PIECE)

    def test_one_for_whom_nobody_else_waits_never_gives_way(self) -> None:
        client, worker = self.join(1), self.start()
        worker.receive(*[req(28, b"H:test:1", bytes(100))] * 5000)
        self.assertTrue(worker.reading)
        self.turn()
        self.assertEqual(client.taken().count(b"\0RES"), 5000)

    def test_it_gives_way_and_ends(self) -> None:
        for end in ("lose", "close", "stop"):
            self.setUp()
            self.join(MAX_COALESCED)
            worker = self.start()
            worker.receive(req(12, b"H:test:1", b"1", b"2") * 100)
            self.assertFalse(worker.reading)
            if end == "lose":
                worker.lose()
            elif end == "close":
                self.factory.connections[2].close()
            else:
                self.factory.stop()
            self.clock.advance(6)
            self.assertEqual(self.clock.getDelayedCalls(), [])
