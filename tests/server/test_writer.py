"""A server that saves background jobs before it answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import PREFIX, error, req, res
from tests.server.sites import LEASE, DurableServer
from tests.server.stores import UNAVAILABLE, ListStore
from txgearman.broker.dead_job import DeadFilter
from txgearman.broker.job_states import Outcome
from txgearman.broker.store_answers import StoreAnswers
from txgearman.errors import LookupFailed
from txgearman.server.config.function_options import FunctionSettings
from txgearman.server.persistence import dead_jobs as dead_jobs_module
from txgearman.server.persistence import lookups, pending_changes
from txgearman.server.persistence.dead_jobs import EVICTION_INTERVAL, MIN_DEATHS
from txgearman.server.persistence.lease import NUMBERS_PER_START
from txgearman.server.persistence.pending_changes import MAX_BATCH_BYTES, MAX_BATCH_JOBS
from txgearman.server.persistence.writer import REMOVAL_DELAY
from txgearman.server.replies.pending import MAX_PENDING, MAX_PENDING_BYTES
from txgearman.store.contract import StoredJob

NOT_SAVED = error(b"QUEUE_ERROR", b"Job could not be saved")


def handle(number: int, start: int = 1) -> bytes:
    """The handle of the job with this number of a start of the server."""
    return b"%b:%d" % (PREFIX.encode(), start * NUMBERS_PER_START + number)


def submit(data: bytes = b"data", unique: bytes = b"", kind: int = 18) -> bytes:
    """A background job, if it is not said otherwise."""
    return req(kind, b"f", unique, data)


class SavingTestCase(DurableServer, SynchronousTestCase):
    """A server whose store remembers what it was told. `now` is the time of its wall clock."""

    now = 1e9

    def setUp(self) -> None:
        self.store = ListStore()
        self.start()

    def start(self, **settings: Any) -> None:
        self.loaded = self.launch(self.store, "test", lambda: self.now, LEASE, **settings)

    def stop(self) -> None:
        super().stop()
        self.turn()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def fail_to_write_twice(self) -> None:
        """Ends are written at the third attempt: the first was lost, and the answer of the second."""
        for committed in (False, True):
            self.turn(REMOVAL_DELAY)
            self.turn(10.0)
            (changes,) = (arguments[0] for _, _, arguments in self.thread.calls if arguments)
            if committed:
                self.store.write(changes)
            self.store.failing = UNAVAILABLE
            self.commit()
            self.store.failing = None
            self.assertEqual(self.store_writer.pending.unremoved, 1)
        self.turn(10.0)
        self.commit()


class AnswerTests(SavingTestCase):
    def test_the_answer_leaves_behind_the_commit(self) -> None:
        client = self.connect()
        client.receive(submit())
        self.assertEqual(self.heard(client), b"")
        (job,) = self.begun()
        self.assertEqual(
            job,
            StoredJob(
                NUMBERS_PER_START + 1,
                NUMBERS_PER_START + 1,
                handle(1),
                b"f",
                b"",
                b"data",
                1,
                None,
                0,
                1e9,
                None,
            ),
        )
        self.thread.run()
        self.assertEqual(self.heard(client), res(8, handle(1)))
        self.assertEqual(list(self.store.jobs.values()), [job])

    def test_options_of_a_job_are_stored_with_it(self) -> None:
        client = self.connect()
        client.receive(req(26, b"submit-extended"))
        client.receive(req(1007, b"f", b"", b"background=1\nattempts=3\nexpires=60.5", b"data"))
        self.turn()
        (job,) = self.begun()
        self.assertEqual(job.attributes, b'{"expires":60.5,"attempts":3}')

    def begun(self) -> list[StoredJob]:
        """The jobs of the transaction that is under way."""
        ((_, _, (changes,)),) = self.thread.calls
        return list(changes.saves)

    def test_all_of_a_turn_share_a_commit_and_what_comes_meanwhile_the_next(self) -> None:
        first, second = self.connect(), self.connect()
        first.receive(submit(), submit())
        second.receive(submit())
        self.turn()
        self.assertEqual(len(self.begun()), 3)
        for client in (first, second, first):
            client.receive(submit())
            self.turn()
        self.assertEqual(len(self.thread.calls), 1)
        self.commit()
        self.assertEqual([len(changes.saves) for changes in self.store.writes], [3, 3])
        self.assertEqual(self.heard(first), b"".join(res(8, handle(n)) for n in (1, 2, 4, 6)))
        self.assertEqual(self.heard(second), b"".join(res(8, handle(n)) for n in (3, 5)))

    def test_answers_keep_the_order_of_requests(self) -> None:
        client = self.connect()
        client.receive(submit(), req(16, b"echo"), submit(kind=7), b"version\n")
        client.receive(req(18, b"f" * 600, b"", b""), submit(), req(99))
        self.assertEqual(self.heard(client), b"")
        self.commit()
        heard = self.heard(client)
        order = [
            res(8, handle(1)),
            res(17, b"echo"),
            res(8, handle(2)),
            b"OK txgearman",
            b"ERROR",
            b"ARGUMENT_TOO",
        ]
        places = [heard.find(answer) for answer in order if answer != b"ERROR"]
        self.assertNotIn(-1, places)
        self.assertEqual(places, sorted(places))
        self.assertLess(places[-1], heard.find(res(8, handle(3))))

    def test_news_of_other_jobs_wait_behind_too(self) -> None:
        client, worker = self.connect(), self.worker()
        client.receive(submit(kind=7))
        worker.receive(req(9))
        client.receive(submit())
        worker.receive(req(13, handle(1), b"result"))
        self.assertEqual(self.heard(client), res(8, handle(1)))
        self.commit()
        self.assertEqual(self.heard(client), res(8, handle(2)) + res(13, handle(1), b"result"))

    def test_other_connections_do_not_wait(self) -> None:
        client, other = self.connect(), self.connect()
        client.receive(submit())
        other.receive(submit(kind=7), req(16, b"echo"))
        self.assertEqual(self.heard(other), res(8, handle(2)) + res(17, b"echo"))

    def test_a_connection_that_ends_meanwhile(self) -> None:
        client = self.connect()
        client.receive(submit())
        self.turn()
        client.lose()
        self.commit()
        worker = self.worker()
        worker.receive(req(9))
        self.assertEqual(self.heard(worker), res(11, handle(1), b"f", b"data"))

    def test_a_bad_stream_is_answered_behind_the_commit_and_closed(self) -> None:
        client = self.connect()
        client.receive(submit(), b"\0BAD" + bytes(8))
        self.assertEqual(self.heard(client), b"")
        self.assertFalse(client.disconnecting)
        self.commit()
        self.assertEqual(self.heard(client)[: len(res(8, handle(1)))], res(8, handle(1)))
        self.assertTrue(client.disconnecting)

    def test_a_client_that_does_not_wait_is_read_no_more(self) -> None:
        client = self.connect()
        client.receive(*[submit(b"")] * (MAX_PENDING + 500))
        self.assertFalse(client.reading)
        self.turn()
        heard = b""
        while self.thread.calls:
            self.thread.run()
            heard += self.heard(client)
        self.assertTrue(client.reading)
        self.assertEqual(len(self.store.jobs), MAX_PENDING + 500)
        self.assertEqual(heard, b"".join(res(8, handle(n + 1)) for n in range(MAX_PENDING + 500)))

    def test_what_waits_behind_an_answer_has_a_limit_too(self) -> None:
        client = self.connect()
        for request, answer, few in (
            (req(16, bytes(MAX_PENDING_BYTES // 10)), res(17, bytes(MAX_PENDING_BYTES // 10)), 10),
            (req(16, b""), res(17, b""), MAX_PENDING),
        ):
            client.receive(submit(), *[request] * few, *[request] * few)
            self.assertFalse(client.reading)
            (connection,) = self.factory.connections.values()
            self.assertLessEqual(len(connection._pending), MAX_PENDING + 1)
            self.assertLess(connection._replies.size, 1.2 * MAX_PENDING_BYTES)
            self.commit()
            heard = b""
            while some := self.heard(client):
                heard += some
            self.assertTrue(heard.endswith(answer * 2 * few))
            self.assertTrue(client.reading)
            self.assertEqual(connection._replies.size, 0)

    def test_transactions_have_a_limit_in_jobs_and_bytes(self) -> None:
        self.store.largest_data = MAX_BATCH_BYTES
        client = self.connect()
        client.receive(*[submit(b"")] * (MAX_BATCH_JOBS + 1))
        client.receive(*[submit(bytes(MAX_BATCH_BYTES // 4))] * 7)
        self.commit()
        self.assertEqual([len(changes.saves) for changes in self.store.writes], [MAX_BATCH_JOBS, 5, 3])


class LifeTests(SavingTestCase):
    def test_a_job_s_end_is_written_soon_and_with_others(self) -> None:
        client, worker = self.connect(), self.worker()
        client.receive(submit(), submit())
        self.commit()
        worker.receive(req(9), req(13, handle(1), b""), req(9), req(13, handle(2), b""))
        self.turn(REMOVAL_DELAY / 2)
        self.assertEqual(self.thread.calls, [])
        self.turn(REMOVAL_DELAY / 2)
        self.commit()
        self.assertEqual(self.store.jobs, {})
        self.assertEqual(len(self.store.writes), 2)

    def test_a_save_takes_the_ends_along(self) -> None:
        client, worker = self.connect(), self.worker()
        client.receive(submit(unique=b"u"))
        self.commit()
        worker.receive(req(9), req(13, handle(1), b""))
        client.receive(submit(unique=b"u"))
        self.commit()
        self.assertEqual([job.handle for job in self.store.jobs.values()], [handle(2)])
        self.assertEqual(len(self.store.writes), 2)

    def test_jobs_survive(self) -> None:
        client, worker = self.connect(), self.worker()
        client.receive(
            submit(b"low", b"u", kind=34),
            submit(b"high\0", b"-", kind=32),
            req(36, b"f", b"", b"%d" % 2e9, b"later"),
            req(38, b"f", b"", b"reducer", b"", b"reduce"),
        )
        self.commit()
        worker.receive(req(9))
        self.assertIn(b"high", self.heard(worker))
        worker.lose()
        self.stop()
        self.start()
        self.assertEqual(self.loaded, 4)
        self.commit()
        client, worker = self.connect(), self.worker()
        client.receive(submit(kind=7))
        self.assertEqual(self.heard(client), res(8, handle(1, start=2)))
        client.receive(b"show jobs\n")
        self.assertIn(handle(2) + b"\t1\t0\t1\n", self.heard(client))
        worker.receive(*[req(39)] * 5)
        self.assertEqual(
            self.heard(worker),
            res(31, handle(2), b"f", b"-", b"high\0")
            + res(40, handle(4), b"f", b"", b"reducer", b"reduce")
            + res(31, handle(1, start=2), b"f", b"", b"data")
            + res(31, handle(1), b"f", b"u", b"low")
            + res(10),
        )

    def test_kept_uniques_survive(self) -> None:
        functions = {"f": FunctionSettings(unique_for=60.0)}
        self.stop()
        self.start(functions=functions)
        client, worker = self.connect(), self.worker()
        client.receive(submit(unique=b"u"), submit(b"x" * 40, unique=b"-"))
        self.commit()
        first, second = handle(1, start=2), handle(2, start=2)
        worker.receive(req(9), req(13, first, b""), req(9), req(13, second, b""))
        self.turn(REMOVAL_DELAY)
        self.commit()
        self.assertEqual(self.store.jobs, {})
        self.stop()
        # The next one keeps none itself.
        self.start()
        client, online = self.connect(), self.connect()
        client.receive(submit(unique=b"u"), submit(b"x" * 40, unique=b"-"))
        self.assertEqual(self.heard(client), res(8, first) + res(8, second))
        online.receive(submit(unique=b"u", kind=7))
        text = b"Job was completed before, as " + first
        self.assertEqual(self.heard(online), error(b"UNIQUE_KEPT", text))
        self.now += 60
        client.receive(submit(unique=b"u"))
        self.commit()
        self.assertEqual([job.handle for job in self.store.jobs.values()], [handle(1, start=3)])

    def test_what_waits_for_an_answer_keeps_its_place_before_a_kept_unique(self) -> None:
        self.stop()
        self.start(functions={"f": FunctionSettings(unique_for=60.0)})
        client, worker = self.connect(), self.worker()
        client.receive(submit(unique=b"u", kind=7))
        worker.receive(req(9), req(13, handle(1, start=2), b""))
        self.heard(client)
        client.receive(submit(b"saved"), submit(unique=b"u"), submit(unique=b"u", kind=7))
        self.assertEqual(self.heard(client), b"")
        self.commit()
        heard = self.heard(client)
        self.assertTrue(heard.startswith(res(8, handle(2, start=2)) + res(8, handle(1, start=2))), heard)
        self.assertIn(b"UNIQUE_KEPT", heard)

    def test_the_end_of_the_server_writes_what_waits(self) -> None:
        client, worker = self.connect(), self.worker()
        client.receive(submit(), submit())
        self.commit()
        worker.receive(req(9), req(13, handle(1), b""), req(9))
        client.receive(submit(b"last"))
        self.stop()
        self.assertEqual([job.data for job in self.store.jobs.values()], [b"data", b"last"])
        self.assertEqual([job.losses for job in self.store.jobs.values()], [0, 0])
        self.assertIn(handle(3), client.taken())
        self.assertFalse(self.store.is_open)

    def test_a_unique_of_a_job_that_ends_before_it_is_written(self) -> None:
        client, worker = self.connect(), self.worker()
        client.receive(submit(b"online", b"u", kind=7))
        worker.receive(req(9))
        client.receive(submit(b"joins", b"u"))
        worker.receive(req(13, handle(1), b""))
        client.receive(submit(b"again", b"u"))
        self.commit()
        self.assertEqual(
            self.heard(client),
            res(8, handle(1)) + res(8, handle(1)) + res(13, handle(1), b"") + res(8, handle(2)),
        )
        self.assertEqual([job.data for job in self.store.jobs.values()], [b"again"])
        worker.receive(req(9))
        self.assertIn(b"again", self.heard(worker))

    def test_a_time_before_all_times(self) -> None:
        self.connect().receive(req(36, b"f", b"", b"-" + b"9" * 19, b""))
        self.commit()
        self.assertEqual([job.run_at for job in self.store.jobs.values()], [0])

    def test_the_store_is_read_alone_at_the_start(self) -> None:
        client = self.connect()
        client.receive(submit(), req(36, b"f", b"", b"%d" % 2e9, b"later"))
        self.commit()
        self.stop()
        asked: list[int] = []
        scheduled = self.store.scheduled
        self.store.scheduled = lambda *where: asked.append(len(self.thread.calls)) or scheduled(*where)  # type: ignore[method-assign, func-returns-value]
        self.start()
        self.assertEqual(set(asked), {0}, "the thread has nothing to do yet")
        self.assertEqual(len(self.thread.calls), 1)

    def test_what_the_store_has_already_is_not_saved_again(self) -> None:
        other = StoredJob(7, 7, b"H:other:7", b"f", b"u", b"", 1, None, 0, 0.0, None)
        client = self.connect()
        self.store.jobs[7] = other
        client.receive(submit(unique=b"u"), submit(unique=b"v"))
        self.commit()
        self.assertEqual(self.heard(client), res(8, b"H:other:7") + res(8, handle(2)))


class OutageTests(SavingTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.client, self.running = self.connect(), self.worker()
        self.client.receive(submit(b"before"))
        self.commit()
        self.running.receive(req(9))
        self.heard(self.client)
        self.heard(self.running)
        self.store.failing = UNAVAILABLE

    def break_off(self) -> None:
        self.client.receive(submit(b"refused"))
        self.turn()
        self.thread.run()
        self.assertEqual(self.heard(self.client), NOT_SAVED)

    def recover(self) -> None:
        self.store.failing = None
        self.turn(60)
        self.commit()
        self.assertIsNone(self.store_writer.outage)

    def test_it_is_refused_and_forgotten(self) -> None:
        self.break_off()
        self.assertEqual(self.factory.broker.total, 1)
        self.assertEqual(self.store_writer.outage, "the disk is full")
        self.client.receive(submit(), req(16, b"echo"))
        self.assertEqual(self.heard(self.client), NOT_SAVED + res(17, b"echo"), "and the next at once")

    def test_an_administrator_sees_it(self) -> None:
        self.client.receive(b"show store\n")
        self.assertTrue(self.heard(self.client).startswith(b"state\tavailable\nsaved\t1\ncommits\t1\n"))
        self.break_off()
        self.running.receive(req(13, handle(1), b""))
        self.client.receive(b"show store\n")
        self.assertEqual(
            self.heard(self.client),
            b"state\tunavailable: the disk is full\n"
            b"saved\t1\ncommits\t1\nwaiting\t0\nunremoved\t2\ntaken-over\t0\ndone-twice\t0\nlate-duplicates\t0\n"
            b"slots-leased\t0\nslots-wanted\t0\n.\n",
        )

    def test_what_ended_in_a_long_one_is_removed_bit_by_bit(self) -> None:
        self.patch(pending_changes, "MAX_REMOVALS", 3)
        self.store.failing = None
        self.client.receive(*[submit()] * 10)
        self.commit()
        self.heard(self.client)
        self.running.receive(req(13, handle(1), b""))
        for number in range(2, 9):
            self.running.receive(req(9), req(13, handle(number), b""))
        self.store.failing = UNAVAILABLE
        self.break_off()
        self.assertEqual(self.store_writer.pending.unremoved, 9, "and one that was refused")
        self.store.writes.clear()
        self.recover()
        self.turn(1)
        self.commit()
        self.turn(1)
        self.commit()
        removals = [changes.removals for changes in self.store.writes if changes.removals]
        self.assertEqual([len(some) for some in removals], [3, 3, 3])
        self.assertIn(NUMBERS_PER_START + 12, removals[0], "what may be saved again is removed first")
        self.assertEqual(len(self.store.jobs), 3)

    def test_those_behind_in_line_are_refused_too(self) -> None:
        self.client.receive(submit())
        self.turn()
        self.client.receive(submit())
        self.turn()
        self.thread.run()
        self.assertEqual(self.heard(self.client), NOT_SAVED * 2)

    def test_jobs_go_on_and_their_ends_are_written_later(self) -> None:
        self.break_off()
        self.running.receive(req(13, handle(1), b""), req(9))
        self.client.receive(submit(b"online", kind=7))
        self.assertEqual(self.heard(self.client), res(8, handle(3)))
        self.assertIn(NUMBERS_PER_START + 1, self.store.jobs)
        self.recover()
        self.assertEqual(self.store.jobs, {})

    def test_what_may_have_been_committed_is_removed(self) -> None:
        self.break_off()
        refused = StoredJob(NUMBERS_PER_START + 2, 0, handle(2), b"f", b"", b"refused", 1, None, 0, 0.0, None)
        self.store.jobs[refused.number] = refused
        self.recover()
        self.assertNotIn(refused.number, self.store.jobs)

    def test_it_is_tried_again_less_and_less_often(self) -> None:
        self.break_off()
        tries = 0
        for _ in range(600):
            self.turn(0.1)
            tries += len(self.thread.calls)
            self.thread.run_all()
        self.assertGreater(tries, 12)
        self.assertLess(tries, 20)
        self.recover()
        self.client.receive(submit(b"after"))
        self.commit()
        self.assertEqual(self.heard(self.client), res(8, handle(3)))

    def test_a_job_too_large_for_the_store_is_refused_alone(self) -> None:
        self.store.failing = None
        self.client.receive(submit(bytes(1001)), submit(bytes(1000)))
        self.commit()
        self.assertEqual(
            self.heard(self.client),
            error(b"ARGUMENT_TOO_LARGE", b"The store takes at most 1000 bytes of data") + res(8, handle(2)),
        )

    def test_a_lookup_that_meets_a_defect_is_no_outage(self) -> None:
        self.store.failing = RuntimeError("surprise")
        found: list[object] = []
        self.store_writer.find(1, found.append)
        self.thread.run()
        self.assertIsInstance(found[0], LookupFailed)
        self.assertIsNone(self.store_writer.outage)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_a_defect_of_the_store_is_logged_and_costs_no_job(self) -> None:
        self.store.failing = RuntimeError("surprise")
        self.break_off()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.recover()

    def test_the_end_of_the_server_in_an_outage(self) -> None:
        self.break_off()
        self.running.receive(req(13, handle(1), b""))
        self.stop()
        self.assertIn(NUMBERS_PER_START + 1, self.store.jobs, "it runs again, and is not lost")

    def test_the_end_of_the_server_when_the_store_is_just_back(self) -> None:
        self.break_off()
        self.running.receive(req(13, handle(1), b""))
        self.store.failing = None
        self.stop()
        self.assertEqual(self.store.jobs, {})

    def test_a_unique_that_is_kept_in_an_outage(self) -> None:
        self.store.failing = None
        self.client.receive(req(26, b"submit-extended"))
        self.client.receive(req(1007, b"f", b"u", b"background=1\nunique_for=60", b""))
        self.commit()
        self.running.receive(req(13, handle(1), b""), req(9))
        self.store.failing = UNAVAILABLE
        self.running.receive(req(13, handle(2), b""))
        self.turn(1)
        self.thread.run_all()
        self.assertEqual((self.store.uniques, len(self.store.jobs)), ({}, 2))
        self.recover()
        self.assertEqual([kept.handle for kept in self.store.uniques.values()], [handle(2)])
        self.assertEqual(self.store.jobs, {})

    def complete_foreground(self, jobs: int, options: bytes) -> None:
        """Jobs that are never stored, whose uniques are to be kept all the same."""
        for number in range(jobs):
            self.client.receive(req(1007, b"f", b"u%d" % number, options, b""))
            self.running.receive(req(9))
            (name,) = re.findall(rb"H:[^\0]+?:\d+", self.heard(self.running))
            self.running.receive(req(13, name, b""))
            self.heard(self.client)

    def test_uniques_that_need_not_be_kept_any_more_do_not_gather(self) -> None:
        """Foreground jobs go on in an outage. However long it lasts, what waits is limited by the number of
        uniques that the server keeps."""
        self.client.receive(req(26, b"submit-extended"))
        self.heard(self.client)
        self.break_off()
        for _ in range(3):
            self.complete_foreground(10, b"unique_for=5")
            self.now += 6
            self.turn(60)
            self.thread.run_all()
        self.assertEqual(self.store_writer.pending.kept_uniques, [])
        self.complete_foreground(1, b"unique_for=100")
        self.recover()
        self.assertEqual([kept.key for kept in self.store.uniques.values()], [b"u0"])

    def test_no_job_is_removed_ahead_of_its_unique(self) -> None:
        """Be its result kept or not: a crash in between would let another submit run it again."""
        self.patch(pending_changes, "MAX_REMOVALS", 3)
        for keep_results in (None, 3600.0):
            self.stop()
            self.flushLoggedErrors()
            self.store = ListStore()
            self.start(functions={"f": FunctionSettings(unique_for=60.0, keep_results=keep_results)})
            client, worker = self.connect(), self.worker()
            client.receive(*[submit(unique=b"u%d" % number) for number in range(8)])
            self.commit()
            for number in range(1, 9):
                worker.receive(req(9), req(13, handle(number), b""))
            while self.store_writer.pending:
                self.turn(1)
                self.commit()
                kept = {unique.key for unique in self.store.uniques.values()}
                stored = {job.unique for job in self.store.jobs.values()}
                self.assertEqual(kept | stored, {b"u%d" % number for number in range(8)})
            self.assertEqual(self.store.jobs, {})

    def test_anything_that_works_ends_it(self) -> None:
        self.break_off()
        self.turn(20)
        self.thread.run_all()
        self.store.failing = None
        self.store_writer.find(1, lambda _found: None)
        self.commit()
        self.assertIsNone(self.store_writer.outage)


class BacklogTests(SavingTestCase):
    """A queue that is deeper than memory."""

    AHEAD = 4

    def setUp(self) -> None:
        self.store = ListStore()
        self.start(store_ahead=self.AHEAD)
        self.client = self.connect()

    def submit(self, jobs: int, **how: Any) -> None:
        self.client.receive(*[submit(b"%d" % number, **how) for number in range(jobs)])
        self.commit()
        self.heard(self.client)

    def drain(self) -> list[bytes]:
        """What a worker gets that works on as long as there are jobs."""
        worker, got = self.worker(), []
        while True:
            worker.receive(req(9))
            heard = self.heard(worker)
            self.commit()
            if heard == res(10):
                worker.receive(req(4))
                if self.heard(worker) != res(6):
                    worker.lose()
                    return got
                continue
            job, data = heard[12:].split(b"\0")[::2]
            worker.receive(req(13, job, b""))
            got.append(data)

    def in_memory(self) -> int:
        return sum(1 for _ in self.factory.inspection.jobs())

    def test_only_the_head_is_in_memory(self) -> None:
        self.submit(20)
        self.assertEqual(self.in_memory(), self.AHEAD)
        (view,) = self.factory.inspection.functions()
        self.assertEqual((view.total, view.waiting), (20, (0, 20, 0)))
        self.assertEqual(self.factory.broker.total, 20)

    def test_all_come_in_order(self) -> None:
        self.submit(20)
        self.submit(5)
        self.assertEqual(self.drain(), [b"%d" % n for n in [*range(20), *range(5)]])
        self.turn(1)
        self.commit()
        self.assertEqual(self.store.jobs, {})
        self.assertEqual(self.factory.broker.total, 0)
        self.assertFalse(self.factory.inspection.may_have_stored_jobs)

    def test_their_turn_comes_though_all_of_the_head_is_too_old(self) -> None:
        """And a worker is the first to find that out, as the wall clock was set on."""
        self.client.receive(
            req(26, b"submit-extended"),
            *[req(1007, b"f", b"", b"background=1\nexpires=5", b"old")] * self.AHEAD,
        )
        self.commit()
        self.heard(self.client)
        self.submit(10)
        self.now += 10
        self.assertEqual(self.drain(), [b"%d" % number for number in range(10)])

    def test_their_turn_comes_though_foreground_jobs_always_wait(self) -> None:
        self.patch(lookups, "INITIAL_FETCH_LIMIT", 3)
        self.patch(lookups, "MAX_BATCH_JOBS", 3)
        for is_restarted in (False, True):
            with self.subTest(is_restarted=is_restarted):
                self.setUp()
                self.submit(20)
                if is_restarted:
                    self.stop()
                    self.start(store_ahead=self.AHEAD)
                    self.client = self.connect()
                worker, got = self.worker(), []
                self.client.receive(*[submit(b"online", kind=7)] * 10)
                for _ in range(120):
                    worker.receive(req(9))
                    job, data = self.heard(worker)[12:].split(b"\0")[::2]
                    worker.receive(req(13, job, b""))
                    if data == b"online":
                        self.client.receive(submit(b"online", kind=7))
                    else:
                        got.append(data)
                    self.commit()
                    self.assertLessEqual(self.in_memory(), 10 + self.AHEAD + 3)
                self.assertEqual(got, [b"%d" % n for n in range(20)])

    def test_a_page_of_the_tail(self) -> None:
        self.submit(20)
        told: list[Any] = []
        self.store_writer.page(b"f", 1, NUMBERS_PER_START + self.AHEAD, 3, told.append)
        self.assertEqual(told, [])
        self.thread.run()
        (page,) = told
        self.assertEqual([job.data for job in page.jobs], [b"4", b"5", b"6"])
        self.assertEqual(page.next, NUMBERS_PER_START + 7)
        self.store_writer.page(b"f", 1, NUMBERS_PER_START + 17, 50, told.append)
        self.thread.run()
        self.assertEqual(([job.data for job in told[1].jobs], told[1].next), ([b"17", b"18", b"19"], None))

    def test_a_page_of_large_jobs_is_short(self) -> None:
        self.submit(20)
        self.store_writer._lookups._fetch_limit = 2
        told: list[Any] = []
        self.store_writer.page(b"f", 1, 0, 50, told.append)
        self.thread.run()
        self.assertEqual((len(told[0].jobs), told[0].next), (2, NUMBERS_PER_START + 2))

    def test_no_page_in_an_outage(self) -> None:
        self.submit(20)
        self.store.failing = UNAVAILABLE
        told: list[Any] = []
        self.store_writer.page(b"f", 1, 0, 50, told.append)
        self.thread.run()
        self.assertIsInstance(told[0], LookupFailed)

    def test_also_behind_a_restart(self) -> None:
        self.submit(20)
        self.stop()
        self.start(store_ahead=self.AHEAD)
        self.assertEqual(self.loaded, 20)
        self.client = self.connect()
        self.submit(1)
        self.assertLessEqual(self.in_memory(), self.AHEAD + 100, "what is fetched at first")
        self.assertEqual(self.drain(), [b"%d" % n for n in [*range(20), 0]])

    def test_priorities(self) -> None:
        for kind in (34, 18, 32):
            self.submit(10, kind=kind)
        self.assertEqual(self.in_memory(), 3 * self.AHEAD)
        self.assertEqual(self.drain(), [b"%d" % n for n in range(10)] * 3)

    def test_status_is_known(self) -> None:
        self.submit(20, unique=b"")
        self.client.receive(submit(b"last", b"u"))
        self.commit()
        self.heard(self.client)
        self.client.receive(
            req(15, handle(21)), req(15, handle(99)), req(41, b"u"), req(41, b"v"), req(16, b"")
        )
        self.assertEqual(self.heard(self.client), b"")
        self.commit()
        self.assertEqual(
            self.heard(self.client),
            res(20, handle(21), b"1", b"0", b"0", b"0")
            + res(20, handle(99), b"0", b"0", b"0", b"0")
            + res(42, b"u", b"1", b"0", b"0", b"0", b"0")
            + res(42, b"v", b"0", b"0", b"0", b"0", b"0")
            + res(17, b""),
        )

    def test_status_of_a_job_that_has_just_ended(self) -> None:
        self.submit(20)
        worker = self.worker()
        worker.receive(req(9), req(13, handle(1), b""))
        self.client.receive(req(15, handle(1)))
        self.thread.run_all()
        self.assertEqual(self.heard(self.client), res(20, handle(1), b"0", b"0", b"0", b"0"))

    def test_status_in_an_outage(self) -> None:
        self.submit(20)
        self.store.failing = UNAVAILABLE
        self.client.receive(req(15, handle(20)), req(15, handle(1)))
        self.commit()
        self.assertEqual(
            self.heard(self.client),
            error(b"SERVER_ERROR", b"Job could not be looked up")
            + res(20, handle(1), b"1", b"0", b"0", b"0"),
        )

    def test_cancelling(self) -> None:
        self.submit(20)
        for words in (handle(20), handle(20), handle(1), b"nonsense"):
            self.client.receive(b"cancel job " + words + b"\n")
            self.commit()
        self.assertEqual(self.heard(self.client), b"OK\r\nERR UNKNOWN_JOB\r\nOK\r\nERR UNKNOWN_JOB\r\n")
        self.assertEqual(self.drain(), [b"%d" % n for n in range(1, 19)])
        self.assertEqual(self.factory.broker.total, 0)

    def test_a_background_submit_of_a_unique_that_waits_there(self) -> None:
        self.submit(20)
        self.client.receive(submit(b"first", b"u"))
        self.commit()
        self.client.receive(submit(b"second", b"u"))
        self.commit()
        self.assertEqual(self.heard(self.client), res(8, handle(21)) * 2)
        self.assertEqual(self.drain()[-1], b"first")

    def test_a_foreground_submit_of_a_unique_that_waits_there(self) -> None:
        self.submit(20)
        self.client.receive(submit(b"first", b"u"))
        self.commit()
        self.heard(self.client)
        self.client.receive(submit(b"second", b"u", kind=7), submit(b"third", b"v", kind=7), req(16, b""))
        self.assertEqual(self.heard(self.client), b"")
        self.commit()
        self.assertEqual(self.heard(self.client), res(8, handle(21)) + res(8, handle(22)) + res(17, b""))
        got = self.drain()
        self.assertEqual(sorted(got), sorted([b"%d" % n for n in range(20)] + [b"first", b"third"]))
        heard = self.heard(self.client)
        self.assertEqual(heard.count(res(13, handle(21), b"")), 1)
        self.assertEqual(self.factory.broker.total, 0)

    def test_a_foreground_client_that_leaves_meanwhile(self) -> None:
        self.submit(20)
        self.client.receive(submit(b"online", b"u", kind=7))
        self.client.lose()
        self.commit()
        self.assertEqual(self.factory.broker.total, 20)

    def test_an_outage_while_jobs_are_fetched(self) -> None:
        self.submit(20)
        self.store.failing = UNAVAILABLE
        got = self.drain()
        self.assertEqual(got, [b"%d" % n for n in range(self.AHEAD)])
        self.assertEqual(self.store_writer.outage, "the disk is full")
        self.store.failing = None
        self.turn(60)
        self.commit()
        self.assertIsNone(self.store_writer.outage)
        self.assertEqual(self.drain(), [b"%d" % n for n in range(self.AHEAD, 20)])

    def test_a_function_that_is_dropped_while_its_jobs_are_fetched(self) -> None:
        self.submit(self.AHEAD + 1)
        worker = self.worker()
        worker.receive(*[req(9)] * self.AHEAD, req(3))
        for number in range(1, self.AHEAD + 1):
            self.client.receive(b"cancel job " + handle(number) + b"\n")
        (fetch,) = self.thread.calls[:1]
        self.assertEqual(fetch[1], self.store.fetch)
        self.store.jobs.clear()
        self.thread.calls.clear()
        StoreAnswers(self.factory.broker).fetched(b"f", 1, [], True)
        worker.lose()
        self.client.receive(b"drop function f\n")
        self.assertTrue(self.heard(self.client).endswith(b"OK\r\n"))
        fetch[0].callback([])
        self.assertEqual(self.factory.broker.total, 0)

    def test_jobs_that_somebody_took_out_of_the_store(self) -> None:
        self.submit(20)
        for number in list(self.store.jobs)[-5:]:
            del self.store.jobs[number]
        self.assertEqual(len(self.drain()), 15)
        self.assertEqual(self.factory.broker.total, 0)

    def test_a_job_taken_over_does_not_fall_behind_the_head_that_was_fetched(self) -> None:
        self.submit(20)
        late = StoredJob(5, 5, b"H:other:5", b"f", b"", b"taken over", 1, None, 0, 0.0, None)
        StoreAnswers(self.factory.broker).restore(late)
        self.store.jobs[5] = late
        self.assertEqual(len(self.drain()), 21)


class RandomTests(SavingTestCase):
    """Whatever happens in whatever order, each job that was acknowledged runs, once if no worker is lost."""

    def test_random_histories(self) -> None:
        for seed in range(60):
            with self.subTest(seed=seed):
                self.store = ListStore()
                self.start(store_ahead=3)
                History(self, Random(seed)).run(300)


class History:
    """What happened to each job, by its data."""

    def __init__(self, case: SavingTestCase, random: Random) -> None:
        self.case = case
        self.random = random
        self.client = case.connect()
        self.workers = [case.worker() for _ in range(3)]
        self.has: list[dict[bytes, bytes]] = [{}, {}, {}]
        self.asked: list[tuple[bytes, bytes]] = []
        self.accepted: dict[bytes, bytes] = {}
        self.runs: dict[bytes, int] = {}
        self.lost: set[bytes] = set()
        self.submitted = 0

    def run(self, steps: int) -> None:
        actions = [self.submit] * 4 + [self.grab] * 4 + [self.complete] * 3 + [self.thread] * 4
        actions += [self.lose_worker, self.fail]
        for _ in range(steps):
            self.random.choice(actions)()
        self.case.store.failing = None
        for _ in range(200):
            self.case.turn(1)
            self.case.commit()
            self.grab()
            self.complete()
        self.hear()
        self.check()

    def submit(self) -> None:
        for _ in range(self.random.randrange(1, 6)):
            self.submitted += 1
            data = b"%d" % self.submitted
            unique = self.random.choice([b"", b"", data, b"same"])
            self.asked.append((data, unique))
            self.client.receive(submit(data, unique, kind=self.random.choice([18, 32, 34])))

    def hear(self) -> None:
        """Match the answers to the submits."""
        for answer in self.case.heard(self.client).split(b"\0RES")[1:]:
            data, unique = self.asked.pop(0)
            if answer.startswith(b"\0\0\0\x08") and unique != b"same":
                self.accepted[data] = answer[8:]

    def grab(self) -> None:
        index = self.random.randrange(3)
        worker = self.workers[index]
        worker.receive(req(9))
        heard = self.case.heard(worker)
        if heard != res(10):
            name, data = heard[12:].split(b"\0")[::2]
            self.runs[data] = self.runs.get(data, 0) + 1
            self.has[index][name] = data

    def complete(self) -> None:
        for worker, has in zip(self.workers, self.has, strict=True):
            for name in list(has):
                worker.receive(req(13, name, b""))
                del has[name]

    def thread(self) -> None:
        self.case.turn(self.random.choice([0, 0.01, 0.1]))
        if self.case.thread.calls:
            self.case.thread.run()
            self.hear()

    def fail(self) -> None:
        self.case.store.failing = UNAVAILABLE if self.random.random() < 0.3 else None

    def lose_worker(self) -> None:
        index = self.random.randrange(3)
        self.workers[index].lose()
        self.lost.update(self.has[index].values())
        self.workers[index], self.has[index] = self.case.worker(), {}

    def check(self) -> None:
        case = self.case
        case.assertEqual(self.asked, [], "every submit is answered")
        case.assertEqual(len(set(self.accepted.values())), len(self.accepted), "no handle is given twice")
        case.assertEqual(set(self.accepted) - set(self.runs), set(), "every acknowledged job runs")
        twice = {data for data, runs in self.runs.items() if runs > 1}
        case.assertEqual(twice - self.lost, set(), "and once, but where a worker was lost")
        case.assertEqual(case.factory.broker.total, 0)
        case.assertEqual(case.store.jobs, {})
        case.assertFalse(case.factory.inspection.may_have_stored_jobs)


class MeasuresTests(SavingTestCase):
    """What is counted and timed of saving, and of jobs that are saved."""

    def setUp(self) -> None:
        self.store = ListStore()
        self.start(metrics_functions=2)

    def counts(self) -> Any:
        return self.factory.inspection.measures()[0].counts

    def test_a_transaction(self) -> None:
        client = self.connect()
        self.assertEqual((self.store_writer.pending.unsaved, self.store_writer.pending.lag), (0, 0.0))
        client.receive(submit(), submit())
        self.turn(2)
        self.assertEqual(
            (self.store_writer.pending.unsaved, self.store_writer.pending.lag, self.counts().saving),
            (2, 2.0, 2),
        )
        client.receive(submit())
        self.turn(3)
        self.assertEqual(
            (self.store_writer.pending.unsaved, self.store_writer.pending.lag, self.store_writer.commits),
            (3, 5.0, 0),
        )
        self.thread.run()
        self.assertEqual(
            (self.store_writer.pending.unsaved, self.store_writer.pending.lag, self.store_writer.commits),
            (1, 3.0, 1),
        )
        self.assertEqual(self.store_writer.times.so_far().cumulated[-1], 1)
        self.commit()
        self.assertEqual(
            (self.store_writer.pending.unsaved, self.store_writer.pending.lag, self.counts().saving),
            (0, 0.0, 0),
        )
        self.assertEqual((sum(self.counts().waiting), self.counts().submitted), (3, 3))

    def test_one_that_fails(self) -> None:
        self.store.failing = UNAVAILABLE
        client = self.connect()
        client.receive(submit())
        self.turn()
        self.thread.run()
        self.assertEqual(
            (self.store_writer.failures, self.store_writer.pending.unsaved, self.store_writer.pending.lag),
            (1, 0, 0.0),
        )
        self.assertEqual(self.counts().uncompleted[Outcome.NOT_SAVED], 1)
        self.heard(client)
        self.assertEqual(self.factory.traffic.refused, {b"QUEUE_ERROR": 1})

    def test_jobs_that_were_kept_are_not_submitted_again(self) -> None:
        self.connect().receive(submit(), submit())
        self.commit()
        self.stop()
        self.start(metrics_functions=2)
        counts = self.counts()
        self.assertEqual((counts.submitted - counts.restored, counts.restored), (0, 2))
        self.assertEqual(sum(counts.waiting), 2, "they wait, wherever they are")

    def test_a_job_s_wait_goes_on_where_it_is_kept(self) -> None:
        self.connect().receive(submit())
        self.commit()
        self.stop()
        self.start(metrics_functions=2)
        self.factory.broker.timer.wall_clock = lambda: 1e9 + 500
        self.commit()
        worker = self.worker()
        worker.receive(req(9))
        self.assertEqual(self.factory.inspection.measures()[0].waited.sum, 500)


class FailureTests(SavingTestCase):
    """Retries and deaths: what is written of them, and what happens while that is not done or not known."""

    def start(self, **settings: Any) -> None:
        """Jobs of ``f`` die at once, those of ``g`` are retried once."""
        rules = FunctionSettings(attempts=2, backoff=100.0, jitter=0.0)
        super().start(functions={"g": rules}, **settings)

    def let_fail(self, *functions: bytes, error: bytes = b"oh no") -> None:
        """Submit a job of each of these functions, and let it fail."""
        client, worker = self.connect(), self.worker()
        worker.receive(req(1, b"g"))
        client.receive(*(req(18, function, b"", b"data") for function in functions))
        self.commit()
        for _ in functions:
            worker.receive(req(9))
            (name,) = re.findall(rb"H:[^\0]+?:\d+", self.heard(worker))
            worker.receive(req(25, name, error))
        worker.lose()

    def write_failures(self) -> None:
        self.turn(REMOVAL_DELAY)
        self.commit()

    def answers(self, ask: Callable[[Callable[[Any], None]], None]) -> list[Any]:
        """What the store's dead jobs tell."""
        told: list[Any] = []
        ask(told.append)
        self.commit()
        return told

    def number(self, of: int = 1) -> int:
        return NUMBERS_PER_START + of

    def retry(self, of: int = 1) -> list[Any]:
        """What comes of a retry of a dead job."""
        return self.answers(partial(self.store_writer.dead_jobs.retry, self.number(of)))

    def test_a_retry_is_written_as_soon_as_an_end(self) -> None:
        self.let_fail(b"g", error=b"why\n")
        self.turn(REMOVAL_DELAY * 0.9)
        self.assertEqual(len(self.store.writes), 1)
        self.write_failures()
        (job,) = self.store.jobs.values()
        self.assertEqual((job.attempts, job.retry_at, job.error), (1, 1e9 + 100, b"why\n"))
        self.stop()
        self.now += 50.0
        self.start()
        self.assertEqual(self.loaded, 1)
        worker = self.connect()
        worker.receive(req(1, b"g"), req(9))
        self.assertEqual(self.heard(worker), res(10))
        self.now += 50.0
        self.turn(60.0)
        worker.receive(req(9))
        self.assertEqual(self.heard(worker), res(11, handle(1), b"g", b"data"))
        worker.receive(req(25, handle(1), b"again"))
        self.write_failures()
        self.assertEqual((self.store.dead[self.number()].attempts, self.store.jobs), (2, {}))

    def test_a_run_that_does_not_count_waits_for_its_time_behind_a_restart_too(self) -> None:
        client, worker = self.connect(), self.worker()
        client.receive(req(18, b"f", b"", b"data"))
        self.commit()
        worker.receive(req(26, b"outcomes"), req(39))
        worker.receive(req(1002, handle(1), b"100000", b"0", b"not yet"))
        self.write_failures()
        (job,) = self.store.jobs.values()
        self.assertEqual((job.attempts, job.snoozes, job.retry_at, job.error), (0, 1, 1e9 + 100, b"not yet"))
        self.stop()
        self.start()
        worker = self.worker()
        worker.receive(req(9))
        self.assertEqual(self.heard(worker), res(10))
        self.now += 100.0
        self.turn(60.0)
        worker.receive(req(26, b"outcomes"), req(39))
        self.assertIn(res(1001, handle(1), b"f", b"", b"", b"", b"data"), self.heard(worker))
        worker.receive(req(1002, handle(1), b"100000", b"0", b"not yet"))
        self.write_failures()
        (job,) = self.store.jobs.values()
        self.assertEqual((job.attempts, job.snoozes), (0, 2), "so that they come to an end")

    def test_a_death_is_written_as_soon_as_an_end(self) -> None:
        self.let_fail(b"f", error=b"why")
        self.write_failures()
        (dead,) = self.store.dead.values()
        self.assertEqual((dead.handle, dead.data, dead.attempts, dead.error), (handle(1), b"data", 1, b"why"))
        self.assertEqual(self.store.jobs, {})
        self.assertEqual(self.store_writer.dead_jobs.counts(), {b"f": 1})
        self.stop()
        self.start()
        self.assertEqual((self.loaded, self.store_writer.dead_jobs.counts()), (0, {b"f": 1}))

    def test_the_end_of_the_server_writes_them(self) -> None:
        self.let_fail(b"g", b"f")
        self.stop()
        self.assertEqual([job.attempts for job in self.store.jobs.values()], [1])
        self.assertEqual(len(self.store.dead), 1)

    def test_both_are_tried_again(self) -> None:
        """Also where the first attempt was committed and nobody was told."""
        self.let_fail(b"g", b"f")
        self.fail_to_write_twice()
        self.assertEqual([job.attempts for job in self.store.jobs.values()], [1])
        self.assertEqual(list(self.store.dead), [self.number(2)])
        self.flushLoggedErrors()

    def test_a_dead_job_is_not_found_alive_meanwhile(self) -> None:
        self.let_fail(b"f")
        client = self.connect()
        client.receive(req(15, handle(1)))
        self.commit()
        self.assertEqual(self.heard(client), res(20, handle(1), b"0", b"0", b"0", b"0"))
        self.assertEqual(list(self.store.jobs), [self.number()])

    def test_who_asks_for_dead_jobs_sees_those_that_have_just_died(self) -> None:
        dead_jobs = self.store_writer.dead_jobs
        for number, ask in enumerate(
            (
                lambda tell: dead_jobs.page(DeadFilter(), None, 9, True, tell),
                partial(dead_jobs.find, self.number(2)),
                partial(dead_jobs.forget, [self.number(3)]),
                partial(dead_jobs.retry, self.number(4)),
            ),
            1,
        ):
            self.let_fail(b"f")
            if number == 2:
                # Its transaction is under way already.
                self.turn(REMOVAL_DELAY)
            (told,) = self.answers(ask)
            if number == 3:
                self.assertEqual(told, 1)
            else:
                found = told.jobs[0] if number == 1 else told
                self.assertEqual(found.number, self.number(number))

    def test_a_dead_job_that_is_retried_runs_and_may_die_again(self) -> None:
        self.let_fail(b"f")
        (stored,) = self.retry()
        self.assertGreater(stored.position, self.number())
        self.assertEqual((stored.attempts, self.store_writer.dead_jobs.counts()), (0, {}))
        self.store_writer._answers.restore(stored)  # type: ignore[union-attr]
        worker = self.worker()
        worker.receive(req(9))
        self.assertEqual(self.heard(worker), res(11, handle(1), b"f", b"data"))
        worker.receive(req(14, handle(1)))
        self.write_failures()
        self.assertEqual((list(self.store.dead), self.store.jobs), ([self.number()], {}))
        self.assertEqual(self.retry(of=7), [None])

    def test_no_retry_while_it_is_not_known_whether_its_death_is_written(self) -> None:
        """The death is written once more, and would be that of the job that lives."""
        self.let_fail(b"f")
        self.turn(REMOVAL_DELAY)
        ((_, _, (changes,)),) = self.thread.calls
        self.store.write(changes)
        self.store.failing = UNAVAILABLE
        self.commit()
        self.store.failing = None
        (refusal,) = self.retry()
        self.assertIsInstance(refusal, LookupFailed)
        self.turn(10.0)
        self.commit()
        (stored,) = self.retry()
        self.assertEqual(list(self.store.jobs), [stored.number])
        self.flushLoggedErrors()

    def test_a_retry_whose_answer_is_lost_is_noticed(self) -> None:
        self.let_fail(b"f")
        self.write_failures()
        retry_dead = self.store.dead_jobs.retry

        def retry_and_fail(number: int, position: int, submitted: float) -> StoredJob | None:
            retry_dead(number, position, submitted)
            raise UNAVAILABLE

        self.patch(self.store.dead_jobs, "retry", retry_and_fail)
        (refusal,) = self.retry()
        self.assertIsInstance(refusal, LookupFailed)
        self.patch(self.store.dead_jobs, "retry", retry_dead)
        self.turn(EVICTION_INTERVAL)
        self.commit()
        worker = self.worker()
        worker.receive(req(9))
        self.assertEqual(self.heard(worker), res(11, handle(1), b"f", b"data"))

    def test_the_oldest_are_evicted(self) -> None:
        dead_jobs = self.store_writer.dead_jobs
        self.let_fail(*[b"f"] * 5)
        self.write_failures()
        dead_jobs.limit(3, 1 << 40, 1e9)
        self.commit()
        self.assertEqual(list(self.store.dead), [self.number(of) for of in (3, 4, 5)])
        self.assertEqual((dead_jobs.evicted, dead_jobs.counts()), (2, {b"f": 3}))
        self.let_fail(b"f")
        self.write_failures()
        self.assertEqual(dead_jobs.evicted, 2)
        self.turn(EVICTION_INTERVAL)
        self.commit()
        self.assertEqual((dead_jobs.evicted, dead_jobs.counts()), (3, {b"f": 3}))

    def test_they_are_evicted_behind_many_deaths_too(self) -> None:
        dead_jobs = self.store_writer.dead_jobs
        dead_jobs.limit(10, 1 << 40, 1e9)
        self.commit()
        self.let_fail(*[b"f"] * MIN_DEATHS)
        self.write_failures()
        self.assertEqual(dead_jobs.evicted, 0)
        self.let_fail(b"f")
        self.commit()
        self.assertEqual((dead_jobs.evicted, len(self.store.dead)), (MIN_DEATHS - 9, 10))

    def test_an_eviction_of_very_many_gives_way(self) -> None:
        self.patch(dead_jobs_module, "EVICTED_AT_ONCE", 2)
        self.let_fail(*[b"f"] * 7)
        self.write_failures()
        self.store_writer.dead_jobs.limit(0, 0, 1e9)
        steps = 0
        while self.store.dead:
            self.thread.run()
            steps += 1
        self.assertEqual(steps, 4)
        self.commit()

    def test_so_many_failures_are_written_at_once(self) -> None:
        self.patch(pending_changes, "MAX_FAILURES", 3)
        self.let_fail(*[b"f", b"g"] * 4)
        self.write_failures()
        self.write_failures()
        counts = [(len(changes.retries), len(changes.deaths)) for changes in self.store.writes]
        self.assertLessEqual(max(counts), (3, 3))
        self.assertEqual(len(self.store.dead), 4)
        self.assertEqual([job.attempts for job in self.store.jobs.values()], [1] * 4)
