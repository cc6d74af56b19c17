"""Limits of what runs: how many jobs at a time, of a key, how many begin in a second, and how many may fail.

The ways in which a function that may run no more has to look empty are GRAB, PRE_SLEEP, a submit and an
enqueueing of any other kind; the ways in which a slot becomes free are a report, a lost worker, a time limit,
a cancelled job, a retry, and a limit that is raised.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import POLICY, Bench, said
from txgearman.broker.keyed_queue import KeyedQueue
from txgearman.broker.policy import FunctionOrder, FunctionRules, Policy, RunRules
from txgearman.broker.worker_decisions import WorkerDecisions


def limited(**rules: Any) -> Policy:
    """A policy that limits the function ``f``."""
    return replace(POLICY, functions=((b"f", FunctionRules(**rules)),))


class Limited(SynchronousTestCase):
    """A bench whose function ``f`` has the `rules`."""

    rules: dict[str, Any] = {}

    def setUp(self) -> None:
        self.bench = Bench(limited(**self.rules))
        self.broker = self.bench.broker

    def woken(self) -> list[str]:
        return self.bench.take_woken()

    def queue_of(self, function: bytes = b"f") -> KeyedQueue[Any]:
        queue = self.broker.functions.by_name[function].keyed_queue
        assert queue is not None
        return queue

    def uniques(self, worker: Any) -> list[bytes]:
        """The uniques of the jobs that a worker gets, without ending them."""
        found = []
        while (job := self.broker.grab(worker)) is not None:
            found.append(job.unique)
        return found


class MaxRunning(Limited):
    rules = {"max_running": 2}

    def test_no_more_are_given(self) -> None:
        handles = [self.bench.queue(b"f") for _ in range(4)]
        worker = self.bench.worker("w", b"f")
        self.assertEqual([self.bench.grab(worker).handle for _ in range(2)], handles[:2])
        self.assertIsNone(self.broker.grab(worker))
        self.broker.complete(worker, handles[1], b"")
        self.assertEqual(self.bench.grab(worker).handle, handles[2])
        self.assertIsNone(self.broker.grab(worker))

    def test_other_functions_go_on(self) -> None:
        for _ in range(3):
            self.bench.queue(b"f")
        other = self.bench.queue(b"g")
        worker = self.bench.worker("w", b"g", b"f")
        given = [self.bench.grab(worker).handle for _ in range(3)]
        self.assertIn(other, given)
        self.assertIsNone(self.broker.grab(worker))

    def test_a_worker_sleeps_beside_jobs_that_may_not_run(self) -> None:
        for _ in range(3):
            self.bench.queue(b"f")
        worker = self.bench.worker("w", b"f")
        first, _ = self.bench.grab(worker), self.bench.grab(worker)
        sleeper = self.bench.sleeper("s", b"f")
        self.assertEqual(self.woken(), [])
        self.bench.queue(b"f")
        self.assertEqual(self.woken(), [], "a submit to a full function wakes nobody")
        self.broker.complete(worker, first.handle, b"")
        self.assertEqual(self.woken(), ["s"])
        self.bench.grab(sleeper)
        self.assertIsNone(self.broker.grab(sleeper))

    def test_a_worker_that_takes_the_slot_itself_wakes_nobody(self) -> None:
        for _ in range(4):
            self.bench.queue(b"f")
        worker = self.bench.worker("w", b"f")
        first, _ = self.bench.grab(worker), self.bench.grab(worker)
        self.bench.sleeper("s", b"f")
        self.broker.begin_turn()
        self.broker.complete(worker, first.handle, b"")
        self.bench.grab(worker)
        self.broker.end_turn()
        self.assertEqual(self.woken(), [])

    def test_a_slot_that_is_free_at_the_turns_end_wakes(self) -> None:
        for _ in range(4):
            self.bench.queue(b"f")
        worker = self.bench.worker("w", b"f")
        first, second = self.bench.grab(worker), self.bench.grab(worker)
        for name in ("s", "t", "u"):
            self.bench.sleeper(name, b"f")
        self.broker.begin_turn()
        self.broker.complete(worker, first.handle, b"")
        self.broker.fail(worker, second.handle)
        self.assertEqual(self.woken(), [])
        self.broker.end_turn()
        self.assertEqual(self.woken(), ["s", "t"])

    def test_a_submit_behind_a_grab_in_one_turn_wakes(self) -> None:
        """The sleeper that was woken for the first job must not count for the second."""
        worker = self.bench.sleeper("w", b"f")
        self.bench.queue(b"f")
        self.assertEqual(self.woken(), ["w"])
        self.broker.begin_turn()
        self.bench.grab(worker)
        self.bench.sleeper("s", b"f")
        self.bench.queue(b"f")
        self.broker.end_turn()
        self.assertEqual(self.woken(), ["s"])

    def test_a_job_that_is_dropped_and_one_that_comes(self) -> None:
        """The one that was woken for the first has looked, and sleeps again."""
        worker = self.bench.sleeper("w", b"f")
        handle = self.bench.queue(b"f")
        self.broker.cancel(handle)
        self.assertIsNone(self.broker.grab(worker))
        self.broker.sleep(worker)
        self.woken()
        self.bench.queue(b"f")
        self.assertEqual(self.woken(), ["w"])

    def test_every_end_of_a_run_frees_a_slot(self) -> None:
        def lose(worker: Any, handle: bytes) -> None:
            self.broker.leave_worker(worker)

        def unregister(worker: Any, handle: bytes) -> None:
            self.broker.cant_do(worker, b"f")

        ends = {
            "completed": lambda worker, handle: self.broker.complete(worker, handle, b""),
            "failed": lambda worker, handle: self.broker.fail(worker, handle),  # noqa: PLW0108 (that of then)
            "raised": lambda worker, handle: self.broker.exception(worker, handle, b""),
            "cancelled": lambda worker, handle: self.broker.cancel(handle),
            "lost": lose,
            "unregistered": unregister,
            "late": lambda worker, handle: self.bench.advance(10),
        }
        for name, end in ends.items():
            with self.subTest(name):
                self.bench = Bench(limited(max_running=1, time_limit=5))
                self.broker = self.bench.broker
                for _ in range(2):
                    self.bench.queue(b"f")
                worker = self.bench.worker("w", b"f")
                job = self.bench.grab(worker)
                sleeper = self.bench.sleeper("s", b"f")
                end(worker, job.handle)
                self.assertEqual(self.woken(), ["s"])
                self.bench.grab(sleeper)
                self.assertIsNone(self.broker.grab(sleeper))

    def test_a_retry_waits_for_a_slot(self) -> None:
        self.bench = Bench(limited(max_running=1, attempts=2, backoff=1))
        self.broker = self.bench.broker
        failed = self.bench.queue(b"f")
        other = self.bench.queue(b"f")
        worker = self.bench.worker("w", b"f")
        self.bench.grab(worker)
        self.broker.fail(worker, failed)
        self.assertEqual(self.bench.grab(worker).handle, other)
        self.bench.advance(2)
        self.assertIsNone(self.broker.grab(worker))
        self.broker.complete(worker, other, b"")
        self.assertEqual(self.bench.grab(worker).handle, failed)

    def test_a_job_nobody_wants_takes_no_slot(self) -> None:
        self.broker.slices.size = 2
        client = self.bench.client()
        for _ in range(5):
            self.bench.submit(client, b"f")
        last = self.bench.queue(b"f")
        worker = self.bench.worker("w", b"f")
        self.broker.leave_client(client)
        self.assertIsNone(self.broker.grab(worker), "a slice of unwanted jobs")
        while self.broker.slices:
            self.broker.slices.go_on()
        self.bench.queue(b"f")
        self.assertEqual(self.bench.grab(worker).handle, last)
        self.bench.grab(worker)
        self.assertIsNone(self.broker.grab(worker))

    def test_paused_and_resumed(self) -> None:
        for _ in range(4):
            self.bench.queue(b"f")
        for name in ("s", "t", "u"):
            self.bench.administration.pause_function(b"f")
            self.bench.sleeper(name, b"f")
        self.assertEqual(self.woken(), [])
        self.bench.administration.resume_function(b"f")
        self.assertEqual(self.woken(), ["s", "t"])
        self.bench.administration.pause_function(b"f")
        self.bench.administration.resume_function(b"f")
        self.assertEqual(self.woken(), ["u"], "one more than may run, as nobody knows who comes")

    def test_the_lease(self) -> None:
        """A function that is full when the lease is extended again stays so."""
        for _ in range(3):
            self.bench.queue(b"f")
        worker = self.bench.worker("w", b"f")
        first, _ = self.bench.grab(worker), self.bench.grab(worker)
        self.bench.answers.extend_lease(self.bench.now - 1)
        self.bench.answers.extend_lease(self.bench.now + 100)
        self.assertIsNone(self.broker.grab(worker))
        self.broker.complete(worker, first.handle, b"")
        self.bench.grab(worker)


class ChangedLimits(Limited):
    def limit(self, **rules: Any) -> None:
        self.bench.administration.limit_runs(b"f", RunRules(**rules))

    def test_lowering_stops_nothing(self) -> None:
        self.limit(max_running=3)
        handles = [self.bench.queue(b"f") for _ in range(5)]
        worker = self.bench.worker("w", b"f")
        for _ in range(3):
            self.bench.grab(worker)
        self.limit(max_running=1)
        self.assertEqual(len(worker.jobs), 3)
        for handle in handles[:2]:
            self.broker.complete(worker, handle, b"")
            self.assertIsNone(self.broker.grab(worker))
        self.broker.complete(worker, handles[2], b"")
        self.bench.grab(worker)
        self.assertIsNone(self.broker.grab(worker))

    def test_raising_wakes(self) -> None:
        self.limit(max_running=1)
        for _ in range(5):
            self.bench.queue(b"f")
        self.bench.grab(self.bench.worker("w", b"f"))
        for name in ("s", "t", "u"):
            self.bench.sleeper(name, b"f")
        self.limit(max_running=3)
        self.assertEqual(self.woken(), ["s", "t"])
        self.limit()
        self.assertEqual(self.woken(), ["u"])
        self.assertIsNone(self.broker.functions.by_name[b"f"].run_limits)

    def test_a_limit_ahead_of_the_first_job_stays(self) -> None:
        self.limit(max_running=1)
        self.bench.queue(b"f")
        self.bench.queue(b"f")
        worker = self.bench.worker("w", b"f")
        self.bench.grab(worker)
        self.assertIsNone(self.broker.grab(worker))

    def test_by_reload(self) -> None:
        for _ in range(3):
            self.bench.queue(b"f")
        worker = self.bench.worker("w", b"f")
        self.bench.grab(worker)
        self.bench.administration.change_policy(limited(max_running=1))
        self.assertIsNone(self.broker.grab(worker))
        self.bench.sleeper("s", b"f")
        self.bench.administration.change_policy(replace(POLICY, defaults=FunctionRules(max_running=2)))
        self.assertEqual(self.woken(), ["s"])
        self.limit(max_running=1)
        self.bench.administration.change_policy(
            replace(POLICY, defaults=FunctionRules(max_running=2), job_retries=3)
        )
        self.assertIsNone(self.broker.grab(worker), "an administrator's limit stays")

    def test_a_limit_by_key_comes_and_goes(self) -> None:
        """Jobs that wait keep their order, and those that run count."""
        uniques = [b"a:1", b"a:2", b"b:1", b"a:3", b"", b"b:2"]
        for unique in uniques:
            self.bench.queue(b"f", unique)
        worker = self.bench.worker("w", b"f")
        self.bench.grab(worker)
        self.limit(max_running_per_key=1)
        self.assertEqual(self.uniques(worker), [b"b:1", b""])
        self.limit(max_running_per_key=2)
        self.assertEqual(self.uniques(worker), [b"a:2", b"b:2"])
        self.limit()
        self.assertEqual(self.uniques(worker), [b"a:3"])

    def test_by_reload_for_many_functions(self) -> None:
        """The jobs that run are found once, and counted with their own function."""
        names = [b"f%d" % number for number in range(20)]
        worker = self.bench.worker("w", *names)
        for name in names:
            self.bench.queue(name, b"a:1")
            self.bench.queue(name, b"a:2")
        for _ in names:
            self.bench.grab(worker)
        self.bench.administration.change_policy(
            replace(POLICY, defaults=FunctionRules(max_running_per_key=1))
        )
        self.assertIsNone(self.broker.grab(worker))

    def test_another_separator(self) -> None:
        for unique in (b"a:1/x", b"a:1/y", b"a:2/z"):
            self.bench.queue(b"f", unique)
        self.limit(max_running_per_key=1)
        worker = self.bench.worker("w", b"f")
        self.assertEqual(self.uniques(worker), [b"a:1/x"])
        self.limit(max_running_per_key=1, key_separator=b"/")
        self.assertEqual(self.uniques(worker), [b"a:2/z"])

    def test_by_key_and_in_all(self) -> None:
        self.limit(max_running_per_key=1, max_running=2)
        for unique in (b"a:1", b"a:2", b"b:1", b"c:1"):
            self.bench.queue(b"f", unique)
        worker = self.bench.worker("w", b"f")
        self.assertEqual(self.uniques(worker), [b"a:1", b"b:1"])
        self.bench.sleeper("s", b"f")
        self.broker.complete(worker, next(iter(worker.jobs)), b"")
        self.assertEqual(self.woken(), ["s"])
        self.assertEqual(self.uniques(worker), [b"a:2"])


class MaxRunningPerKey(Limited):
    rules = {"max_running_per_key": 1}

    def test_jobs_of_a_full_key_are_passed_over(self) -> None:
        for unique in (b"a:1", b"a:2", b"a:3", b"b", b"c:1", b"b:x"):
            self.bench.queue(b"f", unique)
        worker = self.bench.worker("w", b"f")
        self.assertEqual(self.uniques(worker), [b"a:1", b"b", b"c:1"])
        for handle, job in list(worker.jobs.items()):
            if job.unique in (b"a:1", b"b"):
                self.broker.complete(worker, handle, b"")
        self.assertEqual(self.uniques(worker), [b"a:2", b"b:x"], "in the order in which they came")

    def test_without_a_key(self) -> None:
        """No unique, one of the data, and an empty part before the separator."""
        for unique, data in ((b"", b""), (b"", b""), (b"-", b"1"), (b"-", b"2"), (b":1", b""), (b":2", b"")):
            self.bench.queue(b"f", unique, data)
        self.assertEqual(len(self.uniques(self.bench.worker("w", b"f"))), 6)

    def test_priorities_hold_within_a_key(self) -> None:
        for unique, priority in ((b"a:low", 2), (b"b:low", 2), (b"a:normal", 1), (b"a:high", 0)):
            self.bench.queue(b"f", unique, priority=priority)
        for order in (FunctionOrder.PRIORITY, FunctionOrder.REGISTRATION):
            with self.subTest(order):
                bench = Bench(replace(limited(max_running_per_key=1), order=order))
                for unique, priority in ((b"a:low", 2), (b"b:low", 2), (b"a:normal", 1), (b"a:high", 0)):
                    bench.queue(b"f", unique, priority=priority)
                worker = bench.worker("w", b"f")
                given = []
                while (job := bench.broker.grab(worker)) is not None:
                    given.append(job.unique)
                    if job.unique.startswith(b"a"):
                        bench.broker.complete(worker, job.handle, b"")
                self.assertEqual(given, [b"a:high", b"a:normal", b"a:low", b"b:low"])

    def test_one_that_comes_overtakes_a_lower_one_of_its_key(self) -> None:
        self.bench.queue(b"f", b"a:low", priority=2)
        self.bench.queue(b"f", b"a:high", priority=0)
        self.assertEqual(self.uniques(self.bench.worker("w", b"f")), [b"a:high"])

    def test_a_lost_job_comes_behind_those_that_wait(self) -> None:
        for unique in (b"a:1", b"a:2", b"a:3"):
            self.bench.queue(b"f", unique)
        worker = self.bench.worker("w", b"f")
        other = self.bench.worker("v", b"f")
        self.bench.grab(other)
        self.broker.leave_worker(other)
        given = []
        while (job := self.broker.grab(worker)) is not None:
            given.append(job.unique)
            self.broker.complete(worker, job.handle, b"")
        self.assertEqual(given, [b"a:2", b"a:3", b"a:1"])

    def test_blocked_jobs_are_queued_ones(self) -> None:
        handles = [self.bench.queue(b"f", b"a:%d" % number) for number in range(4)]
        self.bench.grab(self.bench.worker("w", b"f"))
        (view,) = self.bench.inspection.functions()
        self.assertEqual((view.total, view.running, view.waiting), (4, 1, (0, 3, 0)))
        self.broker.cancel(handles[2])
        (view,) = self.bench.inspection.functions()
        self.assertEqual((view.total, view.running, view.waiting), (3, 1, (0, 2, 0)))
        self.assertEqual(self.bench.administration.cancel_some(b"f", 0, 100), 4)
        (view,) = self.bench.inspection.functions()
        self.assertEqual((view.total, view.running, view.waiting), (0, 0, (0, 0, 0)))
        self.assertEqual(len(self.queue_of()), 0)
        self.bench.administration.set_limits(b"f", (None, None, None))

    def test_a_cancelled_head_lets_the_next_one_run(self) -> None:
        handles = [self.bench.queue(b"f", b"a:%d" % number) for number in range(3)]
        self.broker.cancel(handles[0])
        self.broker.cancel(handles[1])
        self.assertEqual(self.uniques(self.bench.worker("w", b"f")), [b"a:2"])

    def test_blocked_jobs_whose_client_leaves(self) -> None:
        client = self.bench.client()
        for number in range(3):
            self.bench.submit(client, b"f", b"a:%d" % number)
        worker = self.bench.worker("w", b"f")
        job = self.bench.grab(worker)
        self.broker.leave_client(client)
        self.broker.complete(worker, job.handle, b"")
        self.assertIsNone(self.broker.grab(worker))
        self.assertEqual(self.broker.total, 0)
        self.assertEqual(len(self.queue_of()), 0)

    def test_blocked_jobs_expire(self) -> None:
        self.bench = Bench(limited(max_running_per_key=1, expires=10))
        self.broker = self.bench.broker
        for number in range(3):
            self.bench.queue(b"f", b"a:%d" % number)
        worker = self.bench.worker("w", b"f")
        job = self.bench.grab(worker)
        self.bench.advance(11)
        self.assertEqual(self.broker.total, 1)
        self.broker.complete(worker, job.handle, b"")
        self.assertEqual(len(self.queue_of()), 0)

    def test_one_that_is_late_gives_its_slot_back(self) -> None:
        """A worker was about to get it, before the alarm rang."""
        self.bench = Bench(limited(max_running_per_key=1, expires=10))
        self.broker = self.bench.broker
        self.bench.queue(b"f", b"a:1")
        self.bench.now += 5
        self.bench.queue(b"f", b"a:2")
        self.bench.now += 6
        worker = self.bench.worker("w", b"f")
        self.assertEqual(self.uniques(worker), [b"a:2"])

    def test_sleepers(self) -> None:
        self.bench.queue(b"f", b"a:1")
        worker = self.bench.worker("w", b"f")
        job = self.bench.grab(worker)
        self.bench.sleeper("s", b"f")
        self.bench.sleeper("t", b"f")
        self.bench.queue(b"f", b"a:2")
        self.bench.queue(b"f", b"a:3")
        self.assertEqual(self.woken(), [])
        self.bench.queue(b"f", b"b:1")
        self.assertEqual(self.woken(), ["s"])
        self.broker.complete(worker, job.handle, b"")
        self.assertEqual(self.woken(), ["t"])

    def test_a_worker_that_takes_the_slot_itself_wakes_nobody(self) -> None:
        for number in range(3):
            self.bench.queue(b"f", b"a:%d" % number)
        worker = self.bench.worker("w", b"f")
        job = self.bench.grab(worker)
        self.bench.sleeper("s", b"f")
        self.broker.begin_turn()
        self.broker.complete(worker, job.handle, b"")
        self.bench.grab(worker)
        self.broker.end_turn()
        self.assertEqual(self.woken(), [])

    def test_several_sets_of_workers_see_a_job_again(self) -> None:
        """Sets that had found the function empty at one priority, and at all."""
        self.bench.queue(b"f", b"a:1")
        workers = [self.bench.worker("w", b"f"), self.bench.worker("v", b"f", b"g")]
        job = self.bench.grab(workers[0])
        self.bench.queue(b"f", b"a:2", priority=0)
        self.bench.queue(b"f", b"a:3", priority=2)
        for worker in workers:
            self.assertIsNone(self.broker.grab(worker))
        self.broker.complete(workers[0], job.handle, b"")
        job = self.bench.grab(workers[1])
        self.assertIsNone(self.broker.grab(workers[0]))
        self.broker.complete(workers[1], job.handle, b"")
        self.assertEqual(self.bench.grab(workers[0]).unique, b"a:3")

    def test_memory(self) -> None:
        """Keys without jobs are forgotten, and what has gone of one, or of their list, is cleaned up."""
        worker = self.bench.worker("w", b"f")
        for number in range(1000):
            self.bench.queue(b"f", b"%d:x" % number)
        self.bench.handles(worker)
        queue = self.queue_of()
        self.assertEqual(len(queue), 0)
        self.bench.queue(b"f", b"a:first", priority=0)
        self.bench.grab(worker)
        for number in range(1000):
            self.broker.cancel(self.bench.queue(b"f", b"a:%d" % number))
        (key,) = queue._keys.values()
        self.assertLess(key.queued + key.gone, 200)
        for number in range(1000):
            # The key of this is listed, and then with another job.
            self.bench.queue(b"f", b"b%d:low" % number, priority=2)
            self.broker.cancel(self.bench.queue(b"f", b"b%d:high" % number, priority=0))
        for handle in [job.handle for _, job in self.broker.life.handles if job.unique.startswith(b"b")]:
            self.broker.cancel(handle)
        self.assertLess(sum(map(len, queue._heads)), 300)
        self.assertEqual(queue.runnable, 0)

    def test_several_of_a_key(self) -> None:
        self.bench = Bench(limited(max_running_per_key=2))
        self.broker = self.bench.broker
        for name in ("s", "t", "u"):
            self.bench.sleeper(name, b"f")
        for number in range(4):
            self.bench.queue(b"f", b"a:%d" % number)
        self.assertEqual(self.woken(), ["s", "t"])
        worker = self.bench.worker("w", b"f")
        self.assertEqual(self.uniques(worker), [b"a:0", b"a:1"])

    def test_the_oldest_head(self) -> None:
        bench = Bench(limited(max_running_per_key=1), measured=1)
        bench.queue(b"f", b"a:1")
        bench.queue(b"f", b"a:2")
        bench.now += 3
        bench.queue(b"f", b"b:1")
        worker = bench.worker("w", b"f")
        self.assertEqual(bench.inspection.function_detail(b"f").oldest, 3)
        bench.grab(worker)
        self.assertEqual(bench.inspection.function_detail(b"f").oldest, 0)

    def test_coalesced_with_a_blocked_job(self) -> None:
        self.bench.queue(b"f", b"a:1")
        self.bench.grab(self.bench.worker("w", b"f"))
        handle = self.bench.queue(b"f", b"a:2")
        client = self.bench.client()
        self.assertEqual(self.bench.submit(client, b"f", b"a:2"), handle)
        self.broker.cancel(handle)
        self.assertEqual(said(client), [("failed", handle)])


class StartRate(Limited):
    rules = {"start_rate": 2.0, "start_burst": 3}

    def test_a_burst_and_then_the_rate(self) -> None:
        for _ in range(10):
            self.bench.queue(b"f")
        worker = self.bench.worker("w", b"f")
        self.assertEqual(len(self.bench.handles(worker)), 3)
        self.broker.sleep(worker)
        self.bench.advance(0.49)
        self.assertEqual(self.woken(), [])
        self.bench.advance(0.01)
        self.assertEqual(self.woken(), ["w"])
        self.assertEqual(len(self.bench.handles(worker)), 1)
        self.bench.advance(100)
        self.assertEqual(len(self.bench.handles(worker)), 3)

    def test_a_sleeper_for_each_that_may_begin(self) -> None:
        """The first that is woken does not come for a while."""
        worker = self.bench.worker("w", b"f")
        for _ in range(3):
            self.bench.queue(b"f")
        self.bench.handles(worker)
        for name in ("s", "t", "u"):
            self.bench.sleeper(name, b"f")
        for _ in range(2):
            self.bench.queue(b"f")
        self.bench.now += 0.5
        self.broker.tick()
        self.assertEqual(self.woken(), ["s"])
        self.bench.now += 0.5
        self.bench.broker.throttle.tick(self.bench.now)
        self.assertEqual(self.woken(), ["t"])
        self.bench.broker.throttle.tick(self.bench.now + 10)
        self.assertEqual(self.woken(), [], "no job waits any more that nobody was woken for")

    def test_the_alarm_is_quiet_where_nothing_waits(self) -> None:
        worker = self.bench.worker("w", b"f")
        for _ in range(3):
            self.bench.queue(b"f")
        self.bench.handles(worker)
        self.bench.rings_at = None
        self.bench.advance(1000)
        self.assertIsNone(self.bench.rings_at)

    def test_the_alarm_is_quiet_where_as_many_as_may_wait_for_workers(self) -> None:
        """However many more wait: a full bucket gets no fuller."""
        for _ in range(10):
            self.bench.queue(b"f")
        self.bench.advance(1000)
        self.assertIsNone(self.bench.rings_at)
        worker = self.bench.worker("w", b"f")
        self.assertEqual(len(self.bench.handles(worker)), 3)
        self.assertIsNotNone(self.bench.rings_at)
        self.bench.advance(1.5)
        self.assertIsNone(self.bench.rings_at)
        self.assertEqual(len(self.bench.handles(worker)), 3)

    def test_many_functions(self) -> None:
        """More than a slice comes due at once."""
        bench = Bench(replace(POLICY, defaults=FunctionRules(start_rate=1.0)))
        worker = bench.worker("w", *(b"f%d" % number for number in range(1500)))
        for number in range(1500):
            bench.queue(b"f%d" % number)
            bench.queue(b"f%d" % number)
        self.assertEqual(len(bench.handles(worker)), 1500)
        bench.advance(1.1)
        self.assertEqual(len(bench.handles(worker)), 1500)

    def test_a_very_small_rate(self) -> None:
        """The alarm rings at a time that there is."""
        self.bench.administration.limit_runs(b"f", RunRules(start_rate=5e-324))
        self.bench.queue(b"f")
        self.bench.queue(b"f")
        worker = self.bench.worker("w", b"f")
        self.bench.grab(worker)
        self.bench.advance(1000)
        self.assertIsNone(self.broker.grab(worker))
        assert self.bench.rings_at is not None
        self.assertLess(self.bench.rings_at, self.bench.now + 100)

    def test_with_a_limit_at_a_time(self) -> None:
        self.bench.administration.limit_runs(b"f", RunRules(max_running=1, start_rate=2.0, start_burst=1))
        for _ in range(3):
            self.bench.queue(b"f")
        worker = self.bench.worker("w", b"f")
        job = self.bench.grab(worker)
        sleeper = self.bench.sleeper("s", b"f")
        self.bench.advance(5)
        self.assertEqual(self.woken(), [], "its slot is not free")
        self.broker.complete(worker, job.handle, b"")
        self.assertEqual(self.woken(), ["s"])
        job = self.bench.grab(sleeper)
        self.broker.complete(sleeper, job.handle, b"")
        self.assertIsNone(self.broker.grab(sleeper), "the rate allows none yet")


class Pauses:
    """A `PauseListener` that writes down its calls."""

    def __init__(self) -> None:
        self.pauses: list[tuple[bytes, int]] = []

    def paused(self, function: bytes, failures: int) -> None:
        self.pauses.append((function, failures))


class PauseAfter(Limited):
    rules = {"pause_after": 3}

    def setUp(self) -> None:
        self.listener = Pauses()
        super().setUp()
        self.broker.throttle._pause_listener = self.listener
        self.worker = self.bench.worker("w", b"f")

    def run_jobs(self, ends: str) -> None:
        """Let jobs end: ``f`` by a failure, ``r`` by an exception, ``c`` completed, ``x`` cancelled; or by
        what a worker decides: ``t`` a failure with a text, ``j`` a rejection, ``a`` a retry, ``s`` a retry
        after a run that does not count."""
        decisions = WorkerDecisions(self.broker)
        for end in ends:
            self.bench.queue(b"f")
            handle = self.bench.grab(self.worker).handle
            if end == "c":
                self.broker.complete(self.worker, handle, b"")
            elif end == "f":
                self.broker.fail(self.worker, handle)
            elif end == "r":
                self.broker.exception(self.worker, handle, b"")
            elif end == "t":
                decisions.fail(self.worker, handle, b"why")
            elif end == "j":
                decisions.reject(self.worker, handle, b"why")
            elif end in "as":
                decisions.retry(self.worker, handle, 1000.0, end == "a", b"why")
            else:
                self.broker.cancel(handle)

    def test_so_many_in_a_row(self) -> None:
        self.run_jobs("ffcffxcf")
        self.run_jobs("r")
        self.assertEqual(self.listener.pauses, [])
        self.run_jobs("f")
        self.assertEqual(self.listener.pauses, [(b"f", 3)])
        self.assertTrue(self.bench.inspection.function_detail(b"f").paused)
        self.bench.queue(b"f")
        self.assertIsNone(self.broker.grab(self.worker))
        self.bench.administration.resume_function(b"f")
        self.assertIsNotNone(self.broker.grab(self.worker))

    def test_what_a_worker_decides_counts_as_well(self) -> None:
        """The ways in which a run fails: WORK_FAIL, WORK_EXCEPTION, a time limit, too many lost workers, and
        the packets of the option ``outcomes``: WORK_FAIL_EXTENDED, WORK_REJECT and WORK_RETRY."""
        for pauses, end in enumerate("taj", 1):
            self.run_jobs(end * 2)
            self.assertEqual(len(self.listener.pauses), pauses - 1)
            self.run_jobs(end)
            self.assertEqual(len(self.listener.pauses), pauses, end)
            self.bench.administration.resume_function(b"f")

    def test_a_run_that_does_not_count_is_no_failure(self) -> None:
        self.run_jobs("ffssss")
        self.assertEqual(self.listener.pauses, [])
        self.run_jobs("a")
        self.assertEqual(self.listener.pauses, [(b"f", 3)])

    def test_it_counts_anew_once_it_is_resumed(self) -> None:
        self.run_jobs("fff")
        self.bench.administration.resume_function(b"f")
        self.run_jobs("ff")
        self.assertEqual(len(self.listener.pauses), 1)
        self.run_jobs("f")
        self.assertEqual(len(self.listener.pauses), 2)

    def test_a_lease_that_was_lost_resumes_nothing(self) -> None:
        self.run_jobs("ff")
        self.bench.answers.extend_lease(self.bench.now - 1)
        self.bench.answers.extend_lease(self.bench.now + 100)
        self.run_jobs("f")
        self.bench.answers.extend_lease(self.bench.now - 1)
        self.bench.answers.extend_lease(self.bench.now + 100)
        self.assertTrue(self.bench.inspection.function_detail(b"f").paused_itself)

    def test_failed_runs_that_are_retried_count(self) -> None:
        self.bench.administration.change_policy(limited(pause_after=3, attempts=10, backoff=0))
        self.bench.queue(b"f")
        for _ in range(3):
            self.broker.fail(self.worker, self.bench.grab(self.worker).handle)
            self.bench.advance(0)
        self.assertEqual(self.listener.pauses, [(b"f", 3)])

    def test_jobs_that_no_worker_keeps_count(self) -> None:
        self.bench.administration.change_policy(limited(pause_after=2, job_retries=1))
        for _ in range(2):
            self.bench.queue(b"f")
            worker = self.bench.worker("v", b"f")
            self.bench.grab(worker)
            self.broker.leave_worker(worker)
        self.assertEqual(self.listener.pauses, [(b"f", 2)])

    def test_what_runs_still_does_not_pause_it_again(self) -> None:
        for _ in range(7):
            self.bench.queue(b"f")
        handles = [self.bench.grab(self.worker).handle for _ in range(7)]
        for handle in handles:
            self.broker.fail(self.worker, handle)
        self.assertEqual(len(self.listener.pauses), 1)


class FirstKeyLimit(Limited):
    """A limit by key that is set for a function with very many jobs: its queue is moved in slices."""

    def setUp(self) -> None:
        super().setUp()
        self.broker.slices.size = 2
        self.worker = self.bench.worker("w", b"f")

    def limit(self, **rules: Any) -> None:
        self.bench.administration.limit_runs(b"f", RunRules(**rules))

    def queue(self, *uniques: bytes, **how: Any) -> list[bytes]:
        return [self.bench.queue(b"f", unique, **how) for unique in uniques]

    def settle(self) -> None:
        while self.broker.slices:
            self.broker.tick()

    def work(self) -> list[bytes]:
        """The uniques of all jobs, in the order in which they can run."""
        done = []
        while (job := self.broker.grab(self.worker)) is not None:
            done.append(job.unique)
            self.broker.complete(self.worker, job.handle, b"")
        return done

    def waiting(self) -> int:
        return sum(next(self.bench.inspection.functions()).waiting)

    def test_a_call_moves_a_slice(self) -> None:
        self.queue(*(b"%d" % number for number in range(9)))
        self.limit(max_running_per_key=1)
        for moved in (2, 4, 6, 8, 9):
            self.assertEqual((self.queue_of().runnable, self.waiting()), (moved, 9))
            self.assertEqual(bool(self.broker.slices), moved < 9)
            self.broker.tick()

    def test_workers_get_what_is_moved(self) -> None:
        self.queue(b"a:1", b"a:2", b"b:1", b"a:3")
        self.limit(max_running_per_key=1)
        self.assertEqual(self.uniques(self.worker), [b"a:1"])
        self.bench.sleeper("s", b"f")
        self.settle()
        self.assertEqual(self.woken(), ["s"], "for the other key, once that is moved")
        self.assertEqual(self.uniques(self.worker), [b"b:1"])

    def test_those_that_come_meanwhile_come_last(self) -> None:
        self.queue(b"a:1", b"a:2", b"b:1", b"a:3")
        self.limit(max_running_per_key=1)
        self.queue(b"a:4")
        self.queue(b"c:high", priority=0)
        self.settle()
        self.queue(b"a:5")
        self.assertEqual(self.work(), [b"c:high", b"a:1", b"a:2", b"b:1", b"a:3", b"a:4", b"a:5"])

    def test_one_that_is_taken_back_meanwhile_comes_last(self) -> None:
        self.queue(b"a:1", b"b:1", b"c:1", b"d:1")
        self.limit(max_running_per_key=1)
        job = self.bench.grab(self.worker)
        self.broker.leave_worker(self.worker)
        self.worker = self.bench.worker("x", b"f")
        self.assertEqual(job.unique, b"a:1")
        self.broker.cancel(job.handle)
        self.settle()
        self.assertEqual(self.work(), [b"b:1", b"c:1", b"d:1"])
        self.assertEqual(len(self.queue_of()), 0)

    def test_cancelled_meanwhile(self) -> None:
        handles = self.queue(*(b"a:%d" % number for number in range(8)))
        self.limit(max_running_per_key=1)
        for gone in (0, 1, 3, 7):
            self.broker.cancel(handles[gone])
        self.assertEqual(self.waiting(), 4)
        self.settle()
        self.assertEqual(self.work(), [b"a:2", b"a:4", b"a:5", b"a:6"])
        self.assertEqual((self.waiting(), len(self.queue_of())), (0, 0))

    def test_all_cancelled_meanwhile(self) -> None:
        handles = self.queue(b"a:1", b"a:2", b"a:3")
        self.limit(max_running_per_key=1)
        for handle in handles:
            self.broker.cancel(handle)
        self.queue(b"a:4")
        self.settle()
        self.assertEqual(self.work(), [b"a:4"])

    def test_runs_are_counted_before_any_begins(self) -> None:
        self.queue(*(b"%d:x" % number for number in range(6)))
        runs = [self.bench.grab(self.worker) for _ in range(4)]
        self.queue(*(b"%d:y" % number for number in range(6)))
        self.bench.sleeper("s")
        self.limit(max_running_per_key=1)
        self.assertIsNone(self.broker.grab(self.worker))
        # Of these one is counted already, and one is not.
        self.broker.complete(self.worker, runs[0].handle, b"")
        self.broker.complete(self.worker, runs[3].handle, b"")
        self.settle()
        self.assertEqual(self.uniques(self.worker), [b"4:x", b"5:x", b"0:y", b"3:y"])
        for run in runs[1:3]:
            self.broker.complete(self.worker, run.handle, b"")
        self.assertEqual(self.uniques(self.worker), [b"1:y", b"2:y"])

    def test_another_limit_while_runs_are_counted(self) -> None:
        self.queue(*(b"%d:x" % number for number in range(6)))
        self.bench.grab(self.worker)
        self.queue(b"0:y", b"1:y")
        self.limit(max_running_per_key=1)
        self.limit(max_running_per_key=1, max_running=2)
        self.assertIsNone(self.broker.grab(self.worker))
        self.settle()
        self.assertEqual(self.uniques(self.worker), [b"1:x"])

    def test_taken_back_and_set_anew_meanwhile(self) -> None:
        uniques = [b"a:1", b"a:2", b"b-1", b"b-2", b"a:3", b"c:1"]
        for rules in ({}, {"max_running_per_key": 1, "key_separator": b"-"}, {"max_running": 1}):
            self.queue(*uniques)
            self.limit(max_running_per_key=1)
            self.broker.tick()
            self.limit(**rules)
            self.settle()
            self.assertEqual(self.work(), uniques, rules)
            self.assertEqual(self.waiting(), 0)
            self.limit()

    def test_by_a_reload(self) -> None:
        for function in (b"f", b"g"):
            self.broker.can_do(self.worker, function)
            for number in range(5):
                self.bench.queue(function, b"a:%d" % number)
        self.bench.grab(self.worker)
        rules = FunctionRules(max_running_per_key=1)
        self.bench.administration.change_policy(replace(POLICY, functions=((b"*", rules),)))
        self.settle()
        self.assertEqual(self.uniques(self.worker), [b"a:0"])
