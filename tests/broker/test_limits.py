"""The limits of the whole server, the rate at which jobs come in, and draining.

The limits of a function's queue are in `test_administration`.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import Bench, said
from txgearman.broker.policy import FunctionRules, Policy
from txgearman.broker.views import FunctionLimits, FunctionView
from txgearman.errors import QueueFull, RateExceeded, Refused, ServerFull, ShuttingDown


class JobsInAllTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = Bench(Policy(handle_prefix=b"H:t", max_jobs=3))

    def test_at_the_limit_and_one_past_it(self) -> None:
        for function in (b"f", b"g", b"h"):
            self.bench.queue(function)
        with self.assertRaises(ServerFull) as caught:
            self.bench.queue(b"f")
        self.assertEqual(caught.exception.code, b"QUEUE_ERROR")
        self.assertEqual(caught.exception.text, "Server has its limit of 3 jobs")
        self.assertEqual((self.bench.broker.total, self.bench.inspection.refused), (3, 1))

    def test_room_again_once_a_job_ended(self) -> None:
        worker = self.bench.worker("w", b"f")
        for _ in range(3):
            self.bench.queue(b"f")
        job = self.bench.grab(worker)
        self.assertRaises(ServerFull, self.bench.queue, b"f")
        self.bench.broker.complete(worker, job.handle, b"")
        self.bench.queue(b"f")
        self.assertRaises(ServerFull, self.bench.queue, b"f")

    def test_who_attaches_is_not_refused(self) -> None:
        first = self.bench.queue(b"f", b"u")
        self.bench.queue(b"f")
        self.bench.queue(b"f")
        self.assertEqual(self.bench.queue(b"f", b"u"), first)

    def test_a_refused_job_makes_no_function(self) -> None:
        for _ in range(3):
            self.bench.queue(b"f")
        for number in range(5):
            self.assertRaises(ServerFull, self.bench.queue, b"function %d" % number)
        self.assertEqual([view.name for view in self.bench.inspection.functions()], [b"f"])


class RateTest(SynchronousTestCase):
    def admitted(self, bench: Bench, tries: int, function: bytes = b"f") -> int:
        """How many of so many new jobs are let in at this moment."""
        count = 0
        for _ in range(tries):
            try:
                bench.queue(function)
            except RateExceeded:
                continue
            count += 1
        return count

    def test_a_burst_and_then_the_rate(self) -> None:
        bench = Bench()
        bench.administration.set_rate(b"f", 2.0, 5)
        self.assertEqual(self.admitted(bench, 20), 5)
        bench.advance(0.49)
        self.assertEqual(self.admitted(bench, 20), 0)
        bench.advance(0.01)
        self.assertEqual(self.admitted(bench, 20), 1)
        bench.advance(1.0)
        self.assertEqual(self.admitted(bench, 20), 2)

    def test_what_was_not_used_is_kept_up_to_the_burst(self) -> None:
        bench = Bench()
        bench.administration.set_rate(b"f", 100.0, 3)
        self.assertEqual(self.admitted(bench, 1), 1)
        bench.advance(3600)
        self.assertEqual(self.admitted(bench, 20), 3)

    def test_over_a_long_time_it_is_the_rate(self) -> None:
        bench = Bench()
        bench.administration.set_rate(b"f", 7.0, 2)
        count = 0
        for _ in range(1000):
            bench.advance(0.1)
            count += self.admitted(bench, 3)
        self.assertIn(count, (700, 701, 702))

    def test_without_a_burst_it_is_the_rate(self) -> None:
        for rate, burst in ((2.5, 3), (0.1, 1), (1000.0, 1000)):
            bench = Bench()
            bench.administration.set_rate(b"f", rate)
            self.assertEqual(self.admitted(bench, burst + 5), burst)

    def test_less_than_one_a_second(self) -> None:
        bench = Bench()
        bench.administration.set_rate(b"f", 0.1)
        self.assertEqual(self.admitted(bench, 2), 1)
        bench.advance(9.9)
        self.assertEqual(self.admitted(bench, 2), 0)
        bench.advance(0.2)
        self.assertEqual(self.admitted(bench, 2), 1)

    def test_the_error_says_what_is_exceeded(self) -> None:
        bench = Bench()
        bench.administration.set_rate(b"f", 2.5, 1)
        bench.queue(b"f")
        with self.assertRaises(RateExceeded) as caught:
            bench.queue(b"f")
        self.assertEqual(caught.exception.code, b"RATE_EXCEEDED")
        self.assertEqual(caught.exception.text, "Function takes at most 2.5 new jobs a second")

    def test_each_function_has_its_own_by_the_policy(self) -> None:
        bench = Bench(Policy(submit_rate=1.0, submit_burst=2))
        self.assertEqual(self.admitted(bench, 5, b"f"), 2)
        self.assertEqual(self.admitted(bench, 5, b"g"), 2)
        bench.administration.set_rate(b"f", 0)
        self.assertEqual(self.admitted(bench, 50, b"f"), 50)

    def test_rules_of_functions_go_before_the_policy(self) -> None:
        rules = (
            (b"slow", FunctionRules(submit_rate=1.0, submit_burst=1)),
            (b"free", FunctionRules(submit_rate=0.0)),
        )
        bench = Bench(Policy(submit_rate=1.0, submit_burst=2, functions=rules))
        admitted = {name: self.admitted(bench, 50, name) for name in (b"slow", b"free", b"other")}
        self.assertEqual(admitted, {b"slow": 1, b"free": 50, b"other": 2})

    def test_a_change_of_the_policy_leaves_alone_what_was_set(self) -> None:
        bench = Bench()
        bench.administration.set_rate(b"set", 1.0, 3)
        bench.queue(b"other")
        bench.administration.change_policy(Policy(handle_prefix=b"H:t", max_jobs=6))
        self.assertEqual(self.admitted(bench, 3, b"set"), 3)
        self.assertEqual(self.admitted(bench, 1, b"set"), 0)
        bench.queue(b"other")
        bench.queue(b"other")
        self.assertRaises(ServerFull, bench.queue, b"other")

    def test_what_is_refused_or_attached_uses_nothing_up(self) -> None:
        bench = Bench()
        bench.administration.set_rate(b"f", 1.0, 2)
        bench.administration.set_limits(b"f", (1, 1, 1))
        first = bench.queue(b"f", b"u")
        for _ in range(5):
            self.assertRaises(QueueFull, bench.queue, b"f")
            bench.queue(b"f", b"u")
        bench.broker.cancel(first)
        bench.queue(b"f")

    def test_a_job_given_back_is_not_refused(self) -> None:
        bench = Bench()
        bench.administration.set_rate(b"f", 1.0, 1)
        handle = bench.queue(b"f")
        worker = bench.worker("w", b"f")
        bench.grab(worker)
        bench.broker.leave_worker(worker)
        self.assertEqual(bench.handles(bench.worker("x", b"f")), [handle])

    def test_limits_of_queue_and_rate_do_not_undo_each_other(self) -> None:
        bench = Bench()
        bench.administration.set_rate(b"f", 1.0, 3)
        bench.administration.set_limits(b"f", (2, 2, None))
        view = FunctionLimits(b"f", (2, 2, None), 1.0, 3, 0)
        self.assertEqual(list(bench.inspection.limits()), [view])
        bench.administration.set_limits(b"f", (None, None, None))
        self.assertEqual(self.admitted(bench, 5), 3)
        self.assertEqual(list(bench.inspection.limits()), [FunctionLimits(b"f", (None,) * 3, 1.0, 3, 2)])
        bench.administration.set_rate(b"f", 0)
        self.assertEqual(self.admitted(bench, 5), 5)

    def test_functions_without_limits_are_not_shown(self) -> None:
        bench = Bench()
        bench.queue(b"f")
        self.assertEqual(list(bench.inspection.limits()), [])


class DrainTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = Bench()

    def test_no_job_is_given_out(self) -> None:
        bench = self.bench
        awake, never = bench.worker("awake", b"f", b"g"), bench.worker("never grabbed", b"f")
        for function in (b"f", b"f", b"g"):
            bench.queue(function)
        running = bench.grab(awake)
        bench.administration.drain()
        self.assertIsNone(bench.broker.grab(awake))
        self.assertIsNone(bench.broker.grab(never))
        self.assertEqual(bench.inspection.running, 1)
        bench.broker.complete(awake, running.handle, b"")
        self.assertEqual((bench.inspection.running, bench.broker.total), (0, 2))
        self.assertIsNone(bench.broker.grab(awake))

    def test_who_waits_for_a_running_job_is_told(self) -> None:
        bench, client = self.bench, self.bench.client()
        handle = bench.submit(client, b"f")
        worker = bench.worker("w", b"f")
        bench.grab(worker)
        bench.administration.drain()
        bench.broker.report_data(worker, handle, b"d")
        bench.broker.complete(worker, handle, b"r")
        self.assertEqual(said(client), [("data", handle, b"d"), ("completed", handle, b"r")])

    def test_functions_made_meanwhile_give_none_either(self) -> None:
        self.bench.administration.drain()
        self.assertTrue(self.bench.administration.create_function(b"new").paused)

    def test_a_change_of_the_policy_does_not_end_it(self) -> None:
        self.bench.administration.drain()
        self.bench.administration.change_policy(Policy(handle_prefix=b"H:t", max_jobs=6))
        self.assertRaises(ShuttingDown, self.bench.queue, b"f")

    def test_no_job_is_taken(self) -> None:
        bench = self.bench
        bench.queue(b"f")
        bench.administration.drain()
        bench.worker("w", b"made by a worker")
        for function in (b"f", b"new", b"made by a worker"):
            with self.assertRaises(ShuttingDown) as caught:
                bench.queue(function)
            self.assertIsInstance(caught.exception, Refused)
            self.assertEqual(caught.exception.code, b"SHUTTING_DOWN")
        shown = [
            FunctionView(b"f", 1, 0, 0, (0, 1, 0)),
            FunctionView(b"made by a worker", 0, 0, 1, (0, 0, 0)),
        ]
        self.assertEqual(list(bench.inspection.functions()), shown, "none is made either")
        self.assertEqual(
            (bench.inspection.refused, list(bench.inspection.limits())), (0, []), "that is no limit"
        )

    def test_nobody_is_woken_in_vain(self) -> None:
        bench = self.bench
        for number in range(3):
            bench.sleeper(f"sleeper {number}", b"f")
        runner = bench.worker("runner", b"f", timeout=5.0)
        bench.queue(b"f")
        bench.grab(runner)
        bench.queue(b"f", run_at=bench.wall() + 2)
        bench.take_woken()
        bench.administration.drain()
        bench.advance(10)  # the held job is due, and the running one is taken from its worker
        self.assertEqual(bench.take_woken(), [])
        self.assertEqual(bench.broker.total, 2)

    def test_one_that_was_woken_before_goes_back_to_sleep(self) -> None:
        bench = self.bench
        sleepers = [bench.sleeper(f"sleeper {number}", b"f") for number in range(3)]
        bench.queue(b"f")
        (woken,) = bench.take_woken()
        bench.administration.drain()
        (worker,) = [worker for worker in sleepers if worker.connection.name == woken]  # type: ignore[attr-defined]
        self.assertIsNone(bench.broker.grab(worker))
        bench.broker.sleep(worker)
        bench.advance(10)
        self.assertEqual(bench.take_woken(), [])
