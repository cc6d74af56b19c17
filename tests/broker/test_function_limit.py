"""How many functions there may be, and which are forgotten.

Functions are made by submits (also those that are refused then), by registering, by administrators and from
the store. They come to be idle when their last job is cancelled, given up or left by its client, or is
another server's, and when their last worker unregisters or leaves.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import Bench, KeeperNotes
from tests.broker.test_many_functions import skip_if_compiled
from txgearman.broker import broker
from txgearman.broker.administration import Administration
from txgearman.broker.entities import Function
from txgearman.broker.histograms import Histogram
from txgearman.broker.inspection import Inspection
from txgearman.broker.meters import FunctionMeasures
from txgearman.broker.policy import FunctionRules, Policy
from txgearman.broker.stored_job import StoredJob
from txgearman.errors import NotSaved, QueueFull, RateExceeded, TooManyFunctions

POLICY = Policy(b"H:t", max_functions=10)


def names(bench: Bench) -> list[bytes]:
    return [view.name for view in bench.inspection.functions()]


def saved(number: int) -> StoredJob:
    return StoredJob(number, number, b"H:t:%d" % number, b"s%d" % number, b"", b"", 1, None, 0, 0.0, None)


class LimitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = Bench(POLICY)

    def fill(self) -> None:
        for number in range(10):
            self.bench.queue(b"f%d" % number)

    def test_one_more_is_refused(self) -> None:
        self.fill()
        broker, worker, client = self.bench.broker, self.bench.worker(), self.bench.client()
        attempts: tuple[Callable[[], object], ...] = (
            lambda: broker.submit(client, b"g", b"", b""),
            lambda: broker.submit(client, b"g", b"u", b"", background=True),
            lambda: broker.can_do(worker, b"g"),
            lambda: broker.can_do(worker, b"g", 5.0),
            lambda: Administration(broker).create_function(b"g"),
            lambda: Administration(broker).set_limits(b"g", (1, 1, 1)),
            lambda: Administration(broker).set_rate(b"g", 1.0),
        )
        for refused, attempt in enumerate(attempts, 1):
            with self.assertRaises(TooManyFunctions) as caught:
                attempt()
            self.assertEqual(caught.exception.text, "Server has its limit of 10 functions")
            self.assertIsInstance(caught.exception, QueueFull)
            self.assertEqual(Inspection(broker).functions_refused, refused)
        self.assertEqual(names(self.bench), [b"f%d" % number for number in range(10)])
        self.assertEqual((worker.abilities, client.jobs, broker.total), ({}, {}, 10))

    def test_those_that_are_there_take_jobs_and_workers(self) -> None:
        self.fill()
        self.bench.queue(b"f0")
        self.assertEqual(len(self.bench.handles(self.bench.worker("w", b"f0", b"f9"))), 3)

    def test_0_is_no_limit(self) -> None:
        bench = Bench(Policy(b"H:t"))
        for number in range(200):
            bench.administration.create_function(b"%d" % number).pinned = False
        self.assertEqual(bench.inspection.function_count, 200)

    def test_what_the_store_has_is_not_lost_for_it(self) -> None:
        bench = Bench(POLICY, job_store=KeeperNotes())
        for number in range(1, 16):
            bench.answers.restore(saved(number))
        bench.answers.restore_stored_queue(b"more", 1, 5)
        self.assertEqual(bench.inspection.function_count, 16)
        self.assertRaises(TooManyFunctions, bench.queue, b"g")

    def test_another_policy(self) -> None:
        self.fill()
        change = self.bench.administration.change_policy
        change(Policy(b"H:t", max_functions=11))
        self.bench.queue(b"g")
        self.assertRaises(TooManyFunctions, self.bench.queue, b"h")
        change(Policy(b"H:t", max_functions=2))
        self.assertEqual(self.bench.inspection.function_count, 11)
        for _, job in list(self.bench.broker.life.handles):
            self.bench.broker.cancel(job.handle)
        self.assertEqual(self.bench.inspection.function_count, 1)
        change(Policy(b"H:t"))
        for number in range(100):
            self.bench.queue(b"n%d" % number)


class ForgettingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = Bench(POLICY, measured=1)
        self.broker = self.bench.broker

    def use(self, *functions: bytes) -> None:
        """Somebody submits a job of each, and leaves."""
        for name in functions:
            client = self.bench.client()
            self.bench.submit(client, name)
            self.broker.leave_client(client)

    def test_up_to_half_of_them_none(self) -> None:
        self.use(b"a", b"b", b"c", b"d", b"e")
        self.bench.advance(1e6)
        self.assertEqual(names(self.bench), [b"a", b"b", b"c", b"d", b"e"])

    def test_above_half_those_that_are_unused_for_longest(self) -> None:
        self.use(b"a", b"b", b"c", b"d", b"e", b"a", b"f")
        self.assertEqual(names(self.bench), [b"a", b"c", b"d", b"e", b"f"])
        self.use(b"c", b"g", b"h")
        self.assertEqual(names(self.bench), [b"a", b"c", b"f", b"g", b"h"])

    def test_who_leaves_all_at_once(self) -> None:
        client = self.bench.client()
        for number in range(10):
            self.bench.submit(client, b"f%d" % number)
        self.assertEqual(self.bench.inspection.function_count, 10)
        self.broker.leave_client(client)
        self.assertEqual(names(self.bench), [b"f%d" % number for number in range(5, 10)])

    def test_whatever_makes_them_idle(self) -> None:
        """Each way by which a function loses its last job or worker."""
        bench, broker = self.bench, self.broker
        worker = bench.worker()

        def cancelled(name: bytes) -> None:
            broker.cancel(bench.queue(name))

        def abandoned(name: bytes) -> None:
            self.use(name)

        def unregistered(name: bytes) -> None:
            broker.can_do(worker, name)
            broker.cant_do(worker, name)

        def reset(name: bytes) -> None:
            broker.can_do(worker, name)
            broker.reset_abilities(worker)

        def left(name: bytes) -> None:
            broker.leave_worker(bench.worker("w", name))

        def done(name: bytes) -> None:
            bench.queue(name)
            other = bench.worker("w", name)
            bench.handles(other)
            broker.leave_worker(other)

        def lost(name: bytes) -> None:
            client, other = bench.client(), bench.worker("w", name)
            bench.submit(client, name)
            bench.grab(other)
            broker.leave_client(client)
            broker.leave_worker(other)

        for number, way in enumerate((cancelled, abandoned, unregistered, reset, left, done, lost)):
            for one in range(8):
                way(b"%d-%d" % (number, one))
                self.assertLessEqual(Inspection(broker).function_count, 6, way)
            self.assertIn(b"%d-7" % number, names(bench))

    def test_refused_submits_keep_none(self) -> None:
        job_store = KeeperNotes()
        bench = Bench(
            Policy(b"H:t", max_functions=10, functions=((b"r*", FunctionRules(limits=(0, 0, 0))),)),
            job_store=job_store,
        )
        for number in range(20):
            self.assertRaises(QueueFull, bench.queue, b"r%d" % number)
            self.assertLessEqual(bench.inspection.function_count, 6)
        job_store.refusal = NotSaved()
        for number in range(20):
            self.assertRaises(NotSaved, bench.queue, b"n%d" % number)
            self.assertLessEqual(bench.inspection.function_count, 6)

    def test_jobs_that_are_another_servers_now(self) -> None:
        bench = Bench(POLICY, job_store=KeeperNotes())
        for number in range(1, 16):
            bench.answers.restore(saved(number))
        bench.answers.restore_stored_queue(b"more", 1, 5)
        bench.answers.disown(100)
        self.assertEqual(bench.inspection.function_count, 5)

    def test_not_those_with_jobs_workers_or_settings(self) -> None:
        bench, broker = self.bench, self.broker
        self.use(b"paused")
        Administration(broker).pause_function(b"paused")
        Administration(broker).set_limits(b"limited", (1, 1, 1))
        Administration(broker).set_rate(b"slow", 5.0)
        Administration(broker).create_function(b"made")
        bench.queue(b"waiting")
        bench.queue(b"scheduled", run_at=bench.wall() + 1e6)
        bench.worker("w", b"registered")
        busy = bench.worker("v", b"running")
        bench.queue(b"running")
        bench.grab(busy)
        kept = [b"paused", b"limited", b"slow", b"made", b"waiting", b"scheduled", b"registered", b"running"]
        self.use(*(b"x%d" % number for number in range(50)))
        self.assertEqual(names(bench), kept)
        Administration(broker).drop_function(b"made")
        self.assertNotIn(b"made", names(bench))

    def test_one_that_was_forgotten_comes_back_as_new(self) -> None:
        bench = Bench(
            Policy(
                b"H:t", max_functions=10, functions=((b"a", FunctionRules(submit_rate=1.0, job_retries=2)),)
            )
        )
        for name in (b"a", *(b"x%d" % number for number in range(8))):
            bench.broker.cancel(bench.queue(name))
        self.assertNotIn(b"a", names(bench))
        bench.queue(b"a")
        self.assertRaises(RateExceeded, bench.queue, b"a")
        sleeper = bench.sleeper("w", b"b")
        bench.queue(b"b")
        self.assertEqual(bench.take_woken(), ["w"])
        self.assertEqual(len(bench.handles(sleeper)), 1)

    def test_as_by_a_list(self) -> None:
        """Random uses, against a list of the idle ones in the order in which they came to be so."""
        random = Random(3)
        bench = Bench(POLICY)
        jobs: dict[bytes, list[bytes]] = {}
        idle: OrderedDict[bytes, None] = OrderedDict()
        known: set[bytes] = set()
        for _ in range(3_000):
            name = b"%d" % random.randrange(14)
            # The first to go makes room for the new one, whatever becomes of that.
            if name not in known and (len(known) < 10 or jobs.get(name)):
                while idle and len(known) > 5:
                    known.discard(idle.popitem(last=False)[0])
            if jobs.get(name) and random.random() < 0.6:
                bench.broker.cancel(jobs[name].pop())
                if not jobs[name]:
                    idle[name] = None
                    while idle and len(known) > 5:
                        known.discard(idle.popitem(last=False)[0])
            else:
                try:
                    jobs.setdefault(name, []).append(bench.queue(name))
                except TooManyFunctions:
                    self.assertEqual((len(known), name in known, len(idle)), (10, False, 0))
                else:
                    known.add(name)
                    idle.pop(name, None)
            self.assertEqual(set(names(bench)), known)
            self.assertLessEqual(len(bench.broker.functions._idle), len(known))


class CountsTests(SynchronousTestCase):
    """No count falls when a function is forgotten, told apart or not."""

    def summed(self, rows: list[FunctionMeasures]) -> dict[str, float]:
        return {
            "submitted": sum(row.counts.submitted for row in rows),
            "ended": sum(row.counts.ended for row in rows),
            "uncompleted": sum(sum(row.counts.uncompleted) for row in rows),
            "joined": sum(row.counts.coalesced for row in rows),
            "requeued": sum(row.counts.requeued for row in rows),
            "waited": sum(row.waited.cumulated[-1] for row in rows),
            "ran": sum(row.ran.cumulated[-1] for row in rows),
            "waited for": sum(row.waited.sum for row in rows),
            "ran for": sum(row.ran.sum for row in rows),
        }

    def test_sums(self) -> None:
        for measured in (0, 3, 100):
            bench = Bench(POLICY, measured=measured)
            before: dict[str, float] = {}
            for number in range(40):
                name = b"%d" % number
                client = bench.client()
                bench.submit(client, name, b"u")
                bench.submit(client, name, b"u")
                bench.queue(name)
                bench.advance(0.1)
                worker = bench.worker("w", name)
                bench.grab(worker)
                bench.broker.cant_do(worker, name)
                bench.broker.can_do(worker, name)
                bench.grab(worker)
                bench.advance(0.25)
                bench.broker.leave_client(client)
                for handle in list(worker.jobs):
                    bench.broker.complete(worker, handle, b"")
                bench.broker.leave_worker(worker)
                bench.broker.cancel(bench.queue(name))
                now = self.summed(bench.inspection.measures())
                for what, count in before.items():
                    self.assertGreaterEqual(now[what] + 1e-9, count, (what, measured, number))
                before = now
            self.assertEqual(before["submitted"], 40 * 3)
            self.assertEqual(before["ended"], 40 * 3)
            self.assertEqual(before["joined"], 40)
            rows = bench.inspection.measures()
            self.assertLessEqual(len(rows), min(measured, 6) + 1)

    def test_functions_that_come_take_the_places_of_those_that_are_forgotten(self) -> None:
        bench = Bench(POLICY, measured=3)
        for number in range(20):
            bench.broker.cancel(bench.queue(b"%d" % number))
            self.assertLessEqual(len(bench.inspection.measures()), 4)
        # The last one that was forgotten may have left a place.
        self.assertGreaterEqual(len(bench.inspection.measures()), 3)

    def test_a_histogram_takes_over_another(self) -> None:
        both, first, second = Histogram(), Histogram(), Histogram()
        random = Random(5)
        for histogram in (first, second):
            for _ in range(200):
                duration = random.choice((0.0, 0.002, 0.3, 7.0, 5000.0)) * random.random()
                histogram.add(duration)
                both.add(duration)
        first.take_over(second)
        self.assertEqual(first.so_far().cumulated, both.so_far().cumulated)
        self.assertAlmostEqual(first.so_far().sum, both.so_far().sum)


class CostTests(SynchronousTestCase):
    def test_each_is_looked_at_once_for_each_time_that_it_came_to_be_idle(self) -> None:
        looks = 0

        class Looked(Function):
            @property
            def idle(self) -> bool:
                nonlocal looks
                looks += 1
                return super().idle

        skip_if_compiled()
        self.patch(broker, "Function", Looked)
        bench = Bench(Policy(b"H:t", max_functions=2_000))
        busy = bench.client()
        for number in range(1_500):
            # They are in the way, as they were idle for a moment when they were made.
            bench.submit(busy, b"busy%d" % number)
        for number in range(5_000):
            bench.broker.cancel(bench.queue(b"%d" % number))
        self.assertLess(looks, 4 * (1_500 + 5_000))
