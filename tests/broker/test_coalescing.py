"""When a submit joins a job that is there, and what each of the submitters is told."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import Bench, leftovers, said
from txgearman.broker.views import UNKNOWN
from txgearman.errors import JobNotFound, QueueFull


class TwinTests(SynchronousTestCase):
    def assert_joined(self, joined: bool, first: tuple[bytes, bytes], second: tuple[bytes, bytes]) -> None:
        """Whether jobs of one function with these uniques and data are one, submitted either way."""
        for one, other in ((first, second), (second, first)):
            bench = Bench()
            handles = {bench.queue(b"f", *one), bench.queue(b"f", *other)}
            self.assertEqual(len(handles), 1 if joined else 2)
            self.assertEqual(bench.broker.total, len(handles))

    def test_same_unique(self) -> None:
        self.assert_joined(True, (b"u", b"1"), (b"u", b"2"))

    def test_other_unique(self) -> None:
        self.assert_joined(False, (b"u", b"1"), (b"v", b"1"))

    def test_empty_unique_never(self) -> None:
        self.assert_joined(False, (b"", b"1"), (b"", b"1"))

    def test_dash_by_data(self) -> None:
        self.assert_joined(True, (b"-", b"1"), (b"-", b"1"))
        self.assert_joined(False, (b"-", b"1"), (b"-", b"2"))

    def test_dash_without_data_never(self) -> None:
        self.assert_joined(False, (b"-", b""), (b"-", b""))

    def test_dash_is_kept_apart_from_a_unique_spelled_like_the_data(self) -> None:
        self.assert_joined(False, (b"-", b"u"), (b"u", b"u"))
        self.assert_joined(False, (b"-", b"u"), (b"u", b""))

    def test_not_across_functions(self) -> None:
        for unique, data in ((b"u", b""), (b"-", b"d")):
            bench = Bench()
            self.assertNotEqual(bench.queue(b"f", unique, data), bench.queue(b"g", unique, data))
            self.assertEqual(bench.broker.total, 2)

    def test_data_and_priority_of_the_first_stay(self) -> None:
        bench = Bench()
        bench.queue(b"f", b"u", b"first", priority=2, reducer=b"r")
        bench.queue(b"f", b"u", b"second", priority=0, reducer=b"s")
        ahead = bench.queue(b"f")
        worker = bench.worker("w", b"f")
        self.assertEqual(bench.grab(worker).handle, ahead)
        job = bench.grab(worker)
        self.assertEqual((job.data, job.reducer), (b"first", b"r"))

    def test_with_a_running_job(self) -> None:
        bench = Bench()
        handle = bench.queue(b"f", b"u")
        bench.grab(bench.worker("w", b"f"))
        self.assertEqual(bench.queue(b"f", b"u"), handle)

    def test_with_a_held_job_that_is_not_made_due(self) -> None:
        bench = Bench()
        handle = bench.queue(b"f", b"u", run_at=bench.wall() + 100)
        self.assertEqual(bench.queue(b"f", b"u"), handle)
        self.assertIsNone(bench.broker.grab(bench.worker("w", b"f")))

    def test_not_with_one_that_ended(self) -> None:
        for unique, data in ((b"u", b""), (b"-", b"d")):
            bench = Bench()
            worker = bench.worker("w", b"f")
            ended = bench.queue(b"f", unique, data)
            bench.grab(worker)
            bench.broker.complete(worker, ended, b"")
            cancelled = bench.queue(b"f", unique, data)
            bench.broker.cancel(cancelled)
            fresh = bench.queue(b"f", unique, data)
            self.assertEqual(len({ended, cancelled, fresh}), 3)
            self.assertEqual(bench.handles(worker), [fresh])

    def test_a_full_queue_does_not_refuse_it(self) -> None:
        bench = Bench()
        bench.administration.set_limits(b"f", (1, 1, 1))
        handle = bench.queue(b"f", b"u")
        self.assertEqual(bench.queue(b"f", b"u"), handle)
        with self.assertRaises(QueueFull):
            bench.queue(b"f", b"v")


class SeveralClientsTests(SynchronousTestCase):
    def test_each_is_told_everything_from_now_on(self) -> None:
        bench = Bench()
        one, two = bench.client(), bench.client()
        worker = bench.worker("w", b"f")
        handle = bench.submit(one, b"f", b"u")
        bench.grab(worker)
        bench.broker.report_data(worker, handle, b"early")
        self.assertEqual(bench.submit(two, b"f", b"u"), handle)
        bench.broker.report_data(worker, handle, b"late")
        bench.broker.complete(worker, handle, b"result")
        both: list[tuple[Any, ...]] = [("data", handle, b"late"), ("completed", handle, b"result")]
        self.assertEqual(said(one), [("data", handle, b"early"), *both])
        self.assertEqual(said(two), both)

    def test_a_background_submitter_keeps_the_job_of_one_who_leaves(self) -> None:
        bench = Bench()
        client = bench.client()
        handle = bench.submit(client, b"f", b"u")
        self.assertEqual(bench.queue(b"f", b"u"), handle)
        bench.broker.leave_client(client)
        self.assertEqual(bench.handles(bench.worker("w", b"f")), [handle])

    def test_one_who_waits_for_a_background_job_does_not_take_it_along(self) -> None:
        bench = Bench()
        handle = bench.queue(b"f", b"u")
        client = bench.client()
        self.assertEqual(bench.submit(client, b"f", b"u"), handle)
        bench.broker.leave_client(client)
        self.assertEqual(bench.handles(bench.worker("w", b"f")), [handle])

    def test_the_job_stays_while_one_waits(self) -> None:
        bench = Bench()
        one, two = bench.client(), bench.client()
        handle = bench.submit(one, b"f", b"u")
        bench.submit(two, b"f", b"u")
        bench.broker.leave_client(one)
        self.assertEqual(bench.inspection.status(handle).clients, 1)
        self.assertEqual(bench.handles(bench.worker("w", b"f")), [handle])
        self.assertEqual(said(one), [])
        self.assertEqual(said(two), [("completed", handle, b"")])

    def test_the_clients_are_counted(self) -> None:
        bench = Bench()
        handle = bench.submit(bench.client(), b"f", b"u")
        bench.submit(bench.client(), b"f", b"u")
        bench.queue(b"f", b"u")
        self.assertEqual(bench.inspection.status(handle).clients, 2)


class OneClientTwiceTests(SynchronousTestCase):
    """A client that submits the same again gets a handle for each submit."""

    def setUp(self) -> None:
        self.bench = Bench()
        self.broker = self.bench.broker
        self.client = self.bench.client()
        self.worker = self.bench.worker("w", b"f")
        self.first = self.bench.submit(self.client, b"f", b"u")
        self.second = self.bench.submit(self.client, b"f", b"u")
        self.third = self.bench.submit(self.client, b"f", b"u")
        self.handles = [self.first, self.second, self.third]

    def test_handles_differ_and_the_job_is_one(self) -> None:
        self.assertEqual(len(set(self.handles)), 3)
        self.assertEqual(self.broker.total, 1)
        self.assertEqual([view.handle for view in self.bench.inspection.jobs()], [self.first])

    def test_each_handle_gets_each_update_once(self) -> None:
        self.assertEqual(self.bench.grab(self.worker).handle, self.first)
        self.broker.report_data(self.worker, self.first, b"d")
        self.assertEqual(said(self.client), [("data", handle, b"d") for handle in self.handles])
        self.broker.report_warning(self.worker, self.first, b"w")
        self.assertEqual(said(self.client), [("warning", handle, b"w") for handle in self.handles])
        self.broker.report_status(self.worker, self.first, b"1", b"2")
        self.assertEqual(said(self.client), [("status", handle, b"1", b"2") for handle in self.handles])
        self.broker.complete(self.worker, self.first, b"r")
        self.assertEqual(said(self.client), [("completed", handle, b"r") for handle in self.handles])
        self.assert_forgotten()

    def assert_forgotten(self) -> None:
        for handle in self.handles:
            self.assertEqual(self.bench.inspection.status(handle), UNKNOWN)
        self.broker.leave_worker(self.worker)
        self.assertEqual(leftovers(self.broker), {})
        self.assertEqual(self.client.jobs, {})

    def test_failure_and_exception(self) -> None:
        self.bench.grab(self.worker)
        self.broker.fail(self.worker, self.first)
        self.assertEqual(said(self.client), [("failed", handle) for handle in self.handles])
        self.assert_forgotten()

    def test_exception(self) -> None:
        self.bench.grab(self.worker)
        self.broker.exception(self.worker, self.first, b"x")
        self.assertEqual(said(self.client), [("exception", handle, b"x") for handle in self.handles])
        self.assert_forgotten()

    def test_status_by_each_handle(self) -> None:
        self.bench.grab(self.worker)
        self.broker.report_status(self.worker, self.first, b"3", b"4")
        for handle in self.handles:
            status = self.bench.inspection.status(handle)
            self.assertEqual((status.known, status.running, status.numerator), (True, True, 3))

    def test_cancel_by_another_handle(self) -> None:
        self.broker.cancel(self.second)
        self.assertEqual(said(self.client), [("failed", handle) for handle in self.handles])
        self.assert_forgotten()

    def test_cancel_by_another_handle_while_it_runs(self) -> None:
        self.bench.grab(self.worker)
        self.broker.cancel(self.third)
        self.assertEqual(said(self.client), [("failed", handle) for handle in self.handles])
        self.broker.complete(self.worker, self.first, b"late")
        self.assertEqual(said(self.client), [])
        self.assert_forgotten()

    def test_the_client_leaves(self) -> None:
        self.broker.leave_client(self.client)
        self.assert_forgotten()

    def test_the_client_leaves_while_it_runs(self) -> None:
        self.bench.grab(self.worker)
        self.broker.leave_client(self.client)
        self.assertEqual(self.bench.inspection.status(self.second), UNKNOWN)
        self.assertTrue(self.bench.inspection.status(self.first).running)
        self.broker.complete(self.worker, self.first, b"")
        self.assertEqual(said(self.client), [])
        self.assert_forgotten()

    def test_the_client_leaves_and_another_stays(self) -> None:
        other = self.bench.client()
        self.assertEqual(self.bench.submit(other, b"f", b"u"), self.first)
        self.broker.leave_client(self.client)
        self.assertEqual(self.bench.inspection.status(self.second), UNKNOWN)
        self.bench.handles(self.worker)
        self.assertEqual(said(other), [("completed", self.first, b"")])
        self.assert_forgotten()

    def test_a_second_client_with_two_handles(self) -> None:
        other = self.bench.client()
        handles = [self.bench.submit(other, b"f", b"u") for _ in range(2)]
        self.assertEqual(handles[0], self.first)
        self.assertNotIn(handles[1], self.handles)
        self.bench.handles(self.worker)
        self.assertEqual(said(self.client), [("completed", handle, b"") for handle in self.handles])
        self.assertEqual(said(other), [("completed", handle, b"") for handle in handles])
        self.assert_forgotten()

    def test_a_worker_cannot_report_on_another_handle(self) -> None:
        self.bench.grab(self.worker)
        with self.assertRaises(JobNotFound):
            self.broker.complete(self.worker, self.second, b"")

    def test_background_after_foreground_has_no_handle_of_its_own(self) -> None:
        self.assertEqual(self.bench.submit(self.client, b"f", b"u", background=True), self.first)
        self.broker.leave_client(self.client)
        self.assertEqual(self.bench.handles(self.worker), [self.first])

    def test_background_first(self) -> None:
        client = self.bench.client()
        handle = self.bench.submit(client, b"g", b"u", background=True)
        self.assertEqual(self.bench.submit(client, b"g", b"u"), handle)
        self.assertNotEqual(self.bench.submit(client, b"g", b"u"), handle)

    def test_handles_are_never_used_again(self) -> None:
        self.bench.handles(self.worker)
        self.assertNotIn(self.bench.queue(b"f"), self.handles)


class StatusByUniqueTests(SynchronousTestCase):
    def test_unknown(self) -> None:
        bench = Bench()
        bench.queue(b"f", b"-", b"data")
        bench.queue(b"f", b"")
        for unique in (b"u", b"-", b"", b"data"):
            self.assertEqual(bench.inspection.status_by_unique(unique), UNKNOWN)

    def test_known(self) -> None:
        bench = Bench()
        bench.submit(bench.client(), b"f", b"u")
        status = bench.inspection.status_by_unique(b"u")
        self.assertEqual((status.known, status.running, status.clients), (True, False, 1))

    def test_the_newest_across_functions(self) -> None:
        bench = Bench()
        handles = {}
        for count, name in enumerate((b"f", b"g", b"h"), 1):
            # So many clients that the answer tells which job it is about.
            for _ in range(count):
                handles[name] = bench.submit(bench.client(), name, b"u")
            self.assertEqual(bench.inspection.status_by_unique(b"u").clients, count)
        bench.broker.cancel(handles[b"h"])
        self.assertEqual(bench.inspection.status_by_unique(b"u").clients, 2)
        bench.broker.cancel(handles[b"f"])
        self.assertEqual(bench.inspection.status_by_unique(b"u").clients, 2)
        bench.submit(bench.client(), b"f", b"u")
        self.assertEqual(bench.inspection.status_by_unique(b"u").clients, 1)
        bench.broker.cancel(handles[b"g"])
        self.assertEqual(bench.inspection.status_by_unique(b"u").clients, 1)

    def test_joining_does_not_make_it_newer(self) -> None:
        bench = Bench()
        bench.queue(b"f", b"u")
        bench.submit(bench.client(), b"g", b"u")
        bench.queue(b"f", b"u")
        self.assertEqual(bench.inspection.status_by_unique(b"u").clients, 1)
