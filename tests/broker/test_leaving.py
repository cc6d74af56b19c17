"""Connections that end, workers that lose jobs, and how often a job is tried."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import Bench, leftovers, said
from txgearman.broker.policy import UNLIMITED, Policy
from txgearman.broker.views import UNKNOWN
from txgearman.errors import JobNotFound


class ClientLeavesTests(SynchronousTestCase):
    def test_a_waiting_job_goes_with_its_only_client(self) -> None:
        bench = Bench()
        client = bench.client()
        handle = bench.submit(client, b"f", b"u")
        bench.submit(client, b"f", b"-", b"d")
        bench.submit(client, b"f", b"later", run_at=bench.wall() + 9)
        bench.broker.leave_client(client)
        self.assertEqual(bench.inspection.status(handle), UNKNOWN)
        self.assertEqual(leftovers(bench.broker), {})
        self.assertIsNone(bench.broker.grab(bench.worker("w", b"f")))
        self.assertEqual(said(client), [])

    def test_a_new_client_of_the_unique_gets_a_new_job(self) -> None:
        bench = Bench()
        leaver, new = bench.client(), bench.client()
        old = bench.submit(leaver, b"f", b"u")
        bench.broker.leave_client(leaver)
        handle = bench.submit(new, b"f", b"u")
        self.assertNotEqual(handle, old)
        self.assertEqual(bench.handles(bench.worker("w", b"f")), [handle])
        self.assertEqual(said(new), [("completed", handle, b"")])

    def test_a_background_job_stays(self) -> None:
        bench = Bench()
        client = bench.client()
        handles = [bench.submit(client, b"f", unique, background=True) for unique in (b"", b"u")]
        bench.broker.leave_client(client)
        self.assertEqual(bench.handles(bench.worker("w", b"f")), handles)

    def test_a_running_job_goes_on(self) -> None:
        bench = Bench()
        client = bench.client()
        worker = bench.worker("w", b"f")
        handle = bench.submit(client, b"f", b"u")
        bench.grab(worker)
        bench.broker.leave_client(client)
        bench.broker.report_data(worker, handle, b"")
        bench.broker.report_warning(worker, handle, b"")
        bench.broker.report_status(worker, handle, b"1", b"2")
        self.assertTrue(bench.inspection.status(handle).running)
        bench.broker.complete(worker, handle, b"")
        self.assertEqual(said(client), [])

    def test_a_new_client_may_join_the_running_job(self) -> None:
        bench = Bench()
        leaver, new = bench.client(), bench.client()
        worker = bench.worker("w", b"f")
        handle = bench.submit(leaver, b"f", b"u")
        bench.grab(worker)
        bench.broker.leave_client(leaver)
        self.assertEqual(bench.submit(new, b"f", b"u"), handle)
        bench.broker.complete(worker, handle, b"r")
        self.assertEqual(said(new), [("completed", handle, b"r")])

    def test_a_running_job_that_nobody_waits_for_ends_with_its_worker(self) -> None:
        bench = Bench()
        client = bench.client()
        worker = bench.worker("w", b"f")
        bench.submit(client, b"f", b"u")
        bench.grab(worker)
        bench.broker.leave_client(client)
        bench.broker.leave_worker(worker)
        self.assertEqual(leftovers(bench.broker), {})

    def test_one_that_has_no_jobs(self) -> None:
        bench = Bench()
        bench.broker.leave_client(bench.client())
        self.assertEqual(leftovers(bench.broker), {})

    def test_only_its_own_jobs_go(self) -> None:
        bench = Bench()
        leaver, other = bench.client(), bench.client()
        bench.submit(leaver, b"f")
        handle = bench.submit(other, b"f")
        bench.submit(leaver, b"f")
        bench.broker.leave_client(leaver)
        self.assertEqual(bench.handles(bench.worker("w", b"f")), [handle])


class WorkerLosesTests(SynchronousTestCase):
    """Each way to lose a job: the job is queued again, clients are told nothing."""

    def check(self, how: str) -> None:
        bench = Bench()
        client = bench.client()
        handle = bench.submit(client, b"f")
        kept = bench.submit(client, b"g")
        worker = bench.worker("w", b"g", b"f")
        bench.grab(worker)
        bench.grab(worker)
        bench.broker.report_status(worker, handle, b"1", b"2")
        bench.broker.report_status(worker, kept, b"3", b"4")
        said(client)
        lose = {
            "leave_worker": lambda: bench.broker.leave_worker(worker),
            "reset_abilities": lambda: bench.broker.reset_abilities(worker),
            "cant_do": lambda: bench.broker.cant_do(worker, b"f"),
        }[how]
        lose()
        self.assertEqual(said(client), [])
        status = bench.inspection.status(handle)
        self.assertEqual((status.running, status.numerator, status.denominator), (False, 0, 0))
        self.assertEqual(next(bench.inspection.jobs()).losses, 1)
        with self.assertRaises(JobNotFound):
            bench.broker.complete(worker, handle, b"late")
        self.assertEqual(bench.inspection.status(kept).running, how == "cant_do")
        self.assertEqual(bench.grab(bench.worker("x", b"f")).handle, handle)

    def test_the_connection_ends(self) -> None:
        self.check("leave_worker")

    def test_all_functions_are_unregistered(self) -> None:
        self.check("reset_abilities")

    def test_the_function_is_unregistered(self) -> None:
        self.check("cant_do")

    def test_several_jobs_keep_their_order(self) -> None:
        bench = Bench()
        handles = [bench.queue(b"f") for _ in range(4)]
        worker = bench.worker("w", b"f")
        for _ in handles:
            bench.grab(worker)
        bench.broker.leave_worker(worker)
        self.assertEqual(bench.handles(bench.worker("x", b"f")), handles)

    def test_a_worker_may_register_again_after_a_reset(self) -> None:
        bench = Bench()
        handle = bench.queue(b"f")
        worker = bench.worker("w", b"f")
        bench.grab(worker)
        bench.broker.reset_abilities(worker)
        self.assertIsNone(bench.broker.grab(worker))
        bench.broker.can_do(worker, b"f")
        self.assertEqual(bench.grab(worker).handle, handle)


class RetryTests(SynchronousTestCase):
    def lose(self, retries: int, times: int) -> tuple[Bench, bytes, list[object]]:
        """A job that so many workers get and lose."""
        bench = Bench(Policy(job_retries=retries))
        client = bench.client()
        handle = bench.submit(client, b"f", b"u")
        for _ in range(times):
            worker = bench.worker("w", b"f")
            self.assertEqual(bench.grab(worker).handle, handle)
            bench.broker.leave_worker(worker)
        return bench, handle, list(said(client))

    def assert_given_up_at(self, retries: int, times: int) -> None:
        if times > 1:
            bench, handle, told = self.lose(retries, times - 1)
            self.assertEqual(told, [])
            self.assertTrue(bench.inspection.status(handle).known)
            self.assertEqual(next(bench.inspection.jobs()).losses, times - 1)
        bench, handle, told = self.lose(retries, times)
        self.assertEqual(told, [("failed", handle)])
        self.assertEqual(leftovers(bench.broker), {})

    def test_0_gives_up_at_the_first_loss(self) -> None:
        self.assert_given_up_at(0, 1)

    def test_1_gives_up_at_the_first_loss_too(self) -> None:
        self.assert_given_up_at(1, 1)

    def test_2(self) -> None:
        self.assert_given_up_at(2, 2)

    def test_3(self) -> None:
        self.assert_given_up_at(3, 3)

    def test_unlimited_never_gives_up(self) -> None:
        self.assertEqual(UNLIMITED, -1)
        bench, handle, told = self.lose(UNLIMITED, 300)
        self.assertEqual(told, [])
        self.assertEqual(bench.handles(bench.worker("w", b"f")), [handle])

    def test_background_jobs_are_given_up_too(self) -> None:
        bench = Bench(Policy(job_retries=1))
        bench.queue(b"f", b"u")
        worker = bench.worker("w", b"f")
        bench.grab(worker)
        bench.broker.cant_do(worker, b"f")
        self.assertEqual(bench.broker.total, 0)

    def test_a_failure_is_never_tried_again(self) -> None:
        bench = Bench()
        handle = bench.queue(b"f")
        worker = bench.worker("w", b"f")
        bench.grab(worker)
        bench.broker.fail(worker, handle)
        self.assertIsNone(bench.broker.grab(worker))
        self.assertEqual(bench.broker.total, 0)


class BothEndsTests(SynchronousTestCase):
    """One connection may be client and worker of the same job."""

    def test_its_running_job_ends_with_it(self) -> None:
        bench = Bench()
        client, worker = bench.client(), bench.worker("w", b"f")
        bench.submit(client, b"f", b"u")
        bench.grab(worker)
        bench.leave(client, worker)
        self.assertEqual(leftovers(bench.broker), {})

    def test_its_background_job_outlives_it(self) -> None:
        bench = Bench()
        client, worker = bench.client(), bench.worker("w", b"f")
        handle = bench.submit(client, b"f", background=True)
        bench.grab(worker)
        bench.leave(client, worker)
        self.assertEqual(bench.handles(bench.worker("x", b"f")), [handle])

    def test_a_worker_that_leaves_in_every_state(self) -> None:
        bench = Bench()
        fresh = bench.worker("fresh", b"f")
        idle = bench.worker("idle")
        asleep = bench.sleeper("asleep", b"f")
        woken = bench.sleeper("woken", b"g")
        handle = bench.queue(b"g")
        unregistered = bench.sleeper("unregistered", b"f")
        bench.broker.reset_abilities(unregistered)
        for worker in (fresh, idle, asleep, woken, unregistered):
            bench.broker.leave_worker(worker)
        bench.broker.cancel(handle)
        self.assertEqual(leftovers(bench.broker), {})
