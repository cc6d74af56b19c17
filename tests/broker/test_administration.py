"""Limits, functions made and dropped, and what the broker shows of itself."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import Bench, said
from txgearman.broker.policy import Policy
from txgearman.broker.views import UNKNOWN, FunctionView, JobStatus, JobView
from txgearman.errors import FunctionInUse, FunctionNotFound, QueueFull

HIGH, NORMAL, LOW = 0, 1, 2


class LimitTests(SynchronousTestCase):
    def assert_admitted(self, bench: Bench, *expected: bool) -> None:
        """Whether one more job of each priority is let in; none stays."""
        for priority, admitted in zip((HIGH, NORMAL, LOW), expected, strict=True):
            try:
                bench.broker.cancel(bench.queue(b"f", priority=priority))
            except QueueFull:
                self.assertFalse(admitted, priority)
            else:
                self.assertTrue(admitted, priority)

    def test_each_priority_has_its_own(self) -> None:
        bench = Bench()
        bench.administration.set_limits(b"f", (3, 2, 1))
        self.assert_admitted(bench, True, True, True)
        bench.queue(b"f")
        self.assert_admitted(bench, True, True, False)
        bench.queue(b"f")
        self.assert_admitted(bench, True, False, False)
        bench.queue(b"f", priority=HIGH)
        self.assert_admitted(bench, False, False, False)

    def test_none_is_no_limit(self) -> None:
        bench = Bench()
        bench.administration.set_limits(b"f", (1, None, 2))
        for _ in range(5):
            bench.queue(b"f")
        self.assert_admitted(bench, False, True, False)
        bench.administration.set_limits(b"f", (None, None, None))
        self.assert_admitted(bench, True, True, True)

    def test_running_and_held_jobs_count(self) -> None:
        bench = Bench()
        bench.administration.set_limits(b"f", (2, 2, 2))
        bench.queue(b"f")
        bench.grab(bench.worker("w", b"f"))
        bench.queue(b"f", run_at=bench.wall() + 10)
        self.assert_admitted(bench, False, False, False)

    def test_other_functions_do_not_count(self) -> None:
        bench = Bench()
        bench.administration.set_limits(b"f", (1, 1, 1))
        bench.queue(b"g")
        self.assert_admitted(bench, True, True, True)

    def test_a_refusal_changes_nothing(self) -> None:
        bench = Bench()
        bench.administration.set_limits(b"f", (1, 1, 1))
        last = bench.queue(b"f")
        client = bench.client()
        with self.assertRaises(QueueFull) as caught:
            bench.submit(client, b"f", b"u", b"d")
        self.assertEqual(
            (caught.exception.code, caught.exception.text), (b"QUEUE_ERROR", "Job queue is full")
        )
        self.assertEqual(said(client), [])
        self.assertEqual(client.jobs, {})
        self.assertEqual(bench.broker.total, 1)
        self.assertEqual(bench.inspection.status_by_unique(b"u"), UNKNOWN)
        self.assertEqual(bench.handles(bench.worker("w", b"f")), [last])
        # The handle was not used up either.
        self.assertEqual(bench.queue(b"f"), b"H:t:2")

    def test_a_job_given_back_is_never_refused(self) -> None:
        bench = Bench()
        handle = bench.queue(b"f")
        worker = bench.worker("w", b"f")
        bench.grab(worker)
        bench.administration.set_limits(b"f", (1, 1, 1))
        bench.broker.leave_worker(worker)
        self.assertEqual(bench.handles(bench.worker("x", b"f")), [handle])

    def test_may_be_set_ahead_of_the_first_job(self) -> None:
        bench = Bench()
        bench.administration.set_limits(b"f", (None, 1, None))
        self.assertEqual([view.name for view in bench.inspection.functions()], [b"f"])
        bench.queue(b"f")
        self.assert_admitted(bench, True, False, True)

    def test_room_again_once_a_job_ended(self) -> None:
        bench = Bench()
        bench.administration.set_limits(b"f", (1, 1, 1))
        worker = bench.worker("w", b"f")
        for _ in range(3):
            bench.queue(b"f")
            with self.assertRaises(QueueFull):
                bench.queue(b"f")
            bench.broker.complete(worker, bench.grab(worker).handle, b"")


class FunctionTests(SynchronousTestCase):
    def test_create_twice_is_create_once(self) -> None:
        bench = Bench()
        self.assertIs(bench.administration.create_function(b"f"), bench.administration.create_function(b"f"))
        self.assertEqual(list(bench.inspection.functions()), [FunctionView(b"f", 0, 0, 0, (0, 0, 0))])

    def test_drop(self) -> None:
        bench = Bench()
        bench.administration.set_limits(b"f", (1, 1, 1))
        bench.administration.drop_function(b"f")
        self.assertEqual(list(bench.inspection.functions()), [])
        # One made later knows nothing of the limits.
        bench.queue(b"f")
        bench.queue(b"f")

    def test_drop_of_an_unknown_one(self) -> None:
        with self.assertRaises(FunctionNotFound):
            Bench().administration.drop_function(b"f")

    def test_drop_is_refused_while_it_has_workers_or_jobs(self) -> None:
        bench = Bench()
        worker = bench.worker("w", b"f")

        def refused() -> None:
            with self.assertRaises(FunctionInUse):
                bench.administration.drop_function(b"f")

        refused()
        bench.broker.cant_do(worker, b"f")
        held = bench.queue(b"f", run_at=bench.wall() + 10)
        refused()
        bench.broker.cancel(held)
        queued = bench.queue(b"f")
        refused()
        bench.broker.can_do(worker, b"f")
        bench.grab(worker)
        refused()
        bench.broker.complete(worker, queued, b"")
        refused()
        bench.broker.leave_worker(worker)
        bench.administration.drop_function(b"f")

    def test_a_dropped_function_made_anew(self) -> None:
        bench = Bench()
        worker = bench.sleeper("w", b"f", b"g")
        bench.broker.cant_do(worker, b"f")
        bench.administration.drop_function(b"f")
        bench.broker.can_do(worker, b"f")
        bench.broker.sleep(worker)
        bench.take_woken()
        handle = bench.queue(b"f")
        self.assertEqual(bench.take_woken(), ["w"])
        self.assertEqual(bench.grab(worker).handle, handle)


class ViewTests(SynchronousTestCase):
    def test_counters_of_a_function(self) -> None:
        bench = Bench()
        for priority in (HIGH, NORMAL, NORMAL, LOW, LOW, LOW):
            bench.queue(b"f", priority=priority)
        bench.queue(b"f", run_at=bench.wall() + 10)
        worker = bench.worker("w", b"f")
        bench.worker("x", b"f")
        bench.grab(worker)
        bench.grab(worker)
        self.assertEqual(list(bench.inspection.functions()), [FunctionView(b"f", 7, 2, 2, (0, 2, 3))])
        self.assertEqual(bench.broker.total, 7)

    def test_a_held_job_is_counted_at_its_own_priority(self) -> None:
        bench = Bench()
        bench.queue(b"f", priority=LOW, run_at=bench.wall() + 10)
        self.assertEqual(next(bench.inspection.functions()).waiting, (0, 0, 1))

    def test_registering_twice_counts_once(self) -> None:
        bench = Bench()
        worker = bench.worker("w", b"f", b"f", b"f")
        self.assertEqual(next(bench.inspection.functions()).workers, 1)
        bench.broker.cant_do(worker, b"f")
        bench.broker.cant_do(worker, b"f")
        self.assertEqual(next(bench.inspection.functions()).workers, 0)

    def test_functions_in_the_order_they_were_made(self) -> None:
        bench = Bench()
        bench.queue(b"z")
        bench.worker("w", b"a")
        bench.administration.create_function(b"m")
        self.assertEqual([view.name for view in bench.inspection.functions()], [b"z", b"a", b"m"])

    def test_functions_may_change_while_they_are_walked(self) -> None:
        bench = Bench()
        bench.queue(b"f")
        walk = bench.inspection.functions()
        next(walk)
        bench.queue(b"g")
        self.assertEqual(list(walk), [])

    def test_jobs(self) -> None:
        bench = Bench()
        client = bench.client()
        first = bench.submit(client, b"f", b"u")
        second = bench.queue(b"g", b"-", b"d")
        bench.submit(client, b"f", b"u")
        bench.grab(bench.worker("w", b"f"))
        third = bench.queue(b"f", run_at=bench.wall() + 10)
        self.assertEqual(
            list(bench.inspection.jobs()),
            [
                JobView(first, b"f", b"u", 0, False, True),
                JobView(second, b"g", b"-", 0, True, False),
                JobView(third, b"f", b"", 0, True, False),
            ],
        )

    def test_jobs_may_end_while_they_are_walked(self) -> None:
        bench = Bench()
        first, second, third = (bench.queue(b"f") for _ in range(3))
        walk = bench.inspection.jobs()
        self.assertEqual(next(walk).handle, first)
        bench.broker.cancel(second)
        self.assertEqual([view.handle for view in walk], [third])

    def test_status(self) -> None:
        bench = Bench()
        self.assertEqual(bench.inspection.status(b"H:t:1"), JobStatus())
        handle = bench.submit(bench.client(), b"f", run_at=bench.wall() + 10)
        self.assertEqual(bench.inspection.status(handle), JobStatus(True, False, 0, 0, 1))
        bench.advance(11)
        self.assertEqual(bench.inspection.status(handle), JobStatus(True, False, 0, 0, 1))
        bench.grab(bench.worker("w", b"f"))
        self.assertEqual(bench.inspection.status(handle), JobStatus(True, True, 0, 0, 1))


class HandleTests(SynchronousTestCase):
    def test_prefix_and_a_number_from_1(self) -> None:
        bench = Bench(Policy(b"H:host.example"))
        self.assertEqual([bench.queue(b"f") for _ in range(2)], [b"H:host.example:1", b"H:host.example:2"])

    def test_percent_signs_in_the_prefix(self) -> None:
        self.assertEqual(Bench(Policy(b"%d%%s")).queue(b"f"), b"%d%%s:1")
