"""What workers report on their jobs, too late ones among it, and cancelling."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import Bench, leftovers, said
from txgearman.broker.broker import MAX_DIGITS
from txgearman.broker.peers import MAX_DISMISSED, Worker
from txgearman.broker.views import UNKNOWN, JobStatus
from txgearman.errors import JobNotFound


class ReportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = Bench()
        self.broker = self.bench.broker
        self.client = self.bench.client()
        self.worker = self.bench.worker("w", b"f")
        self.handle = self.bench.submit(self.client, b"f")
        self.bench.grab(self.worker)

    def test_data_and_warnings_are_passed_on(self) -> None:
        self.broker.report_data(self.worker, self.handle, b"\0d")
        self.broker.report_warning(self.worker, self.handle, b"")
        self.assertEqual(said(self.client), [("data", self.handle, b"\0d"), ("warning", self.handle, b"")])

    def test_status_is_passed_on_and_kept(self) -> None:
        self.broker.report_status(self.worker, self.handle, b"007", b"10")
        self.assertEqual(said(self.client), [("status", self.handle, b"007", b"10")])
        self.assertEqual(self.broker.status(self.handle), JobStatus(True, True, 7, 10, 1))

    def test_status_that_is_no_number_counts_as_0(self) -> None:
        self.broker.report_status(self.worker, self.handle, b"3", b"4")
        for text in (b"", b"abc", b"-1", b"1.5", b"\xb2", b" 1"):
            self.broker.report_status(self.worker, self.handle, text, text)
            self.assertEqual(said(self.client)[-1], ("status", self.handle, text, text))
            self.assertEqual(self.broker.status(self.handle), JobStatus(True, True, 0, 0, 1))

    def test_status_with_more_digits_than_python_converts(self) -> None:
        digits = b"9" * 5000
        self.broker.report_status(self.worker, self.handle, b"1", digits)
        self.assertEqual(said(self.client), [("status", self.handle, b"1", digits)])
        self.assertTrue(self.broker.status(self.handle).known)

    def test_status_at_the_limit_of_digits_and_one_past_it(self) -> None:
        self.broker.report_status(self.worker, self.handle, b"9" * MAX_DIGITS, b"9" * (MAX_DIGITS + 1))
        self.assertEqual(self.broker.status(self.handle), JobStatus(True, True, 10**MAX_DIGITS - 1, 0, 1))

    def test_ends(self) -> None:
        for end, expected in (
            (lambda handle: self.broker.complete(self.worker, handle, b"r"), ("completed", b"r")),
            (lambda handle: self.broker.fail(self.worker, handle), ("failed",)),
            (lambda handle: self.broker.exception(self.worker, handle, b"x"), ("exception", b"x")),
        ):
            handle = self.bench.submit(self.client, b"f")
            self.bench.grab(self.worker)
            end(handle)
            self.assertEqual(said(self.client), [(expected[0], handle, *expected[1:])])
            self.assertEqual(self.broker.status(handle), UNKNOWN)
            self.assertNotIn(handle, self.client.jobs)
            self.assertNotIn(handle, self.worker.jobs)

    def reports(self, worker: Worker, handle: bytes) -> list[tuple[Callable[[], None], str]]:
        """Each report, with how it is refused."""
        return [
            (lambda: self.broker.report_data(worker, handle, b""), "Job does not exist on server"),
            (lambda: self.broker.report_warning(worker, handle, b""), "Job does not exist on server"),
            (
                lambda: self.broker.report_status(worker, handle, b"1", b"2"),
                "Job given in work result not found",
            ),
            (lambda: self.broker.complete(worker, handle, b""), "Job given in work result not found"),
            (lambda: self.broker.fail(worker, handle), "Job given in work result not found"),
            (
                lambda: self.broker.exception(worker, handle, b""),
                "An exception was received for a job that does not exist",
            ),
        ]

    def assert_refused(self, worker: Worker, handle: bytes) -> None:
        for report, text in self.reports(worker, handle):
            error = self.assertRaises(JobNotFound, report)
            self.assertEqual((error.code, error.text), (b"JOB_NOT_FOUND", text))

    def test_unknown_handle(self) -> None:
        self.assert_refused(self.worker, b"H:nobody:1")

    def test_the_job_of_another_worker(self) -> None:
        self.assert_refused(self.bench.worker("other", b"f"), self.handle)
        self.assertEqual(said(self.client), [])
        self.broker.complete(self.worker, self.handle, b"")

    def test_a_job_that_waits(self) -> None:
        self.assert_refused(self.worker, self.bench.queue(b"f"))

    def test_a_completed_job(self) -> None:
        self.broker.complete(self.worker, self.handle, b"")
        self.assert_refused(self.worker, self.handle)

    def test_a_failed_job(self) -> None:
        self.broker.fail(self.worker, self.handle)
        self.assert_refused(self.worker, self.handle)

    def test_the_failure_behind_an_exception_is_silent_once(self) -> None:
        self.broker.exception(self.worker, self.handle, b"x")
        said(self.client)
        self.broker.fail(self.worker, self.handle)
        self.assertEqual(said(self.client), [])
        self.assert_refused(self.worker, self.handle)

    def test_another_worker_may_not_report_behind_an_exception(self) -> None:
        other = self.bench.worker("other", b"f")
        self.broker.exception(self.worker, self.handle, b"x")
        self.assert_refused(other, self.handle)


class CancelTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = Bench()
        self.broker = self.bench.broker
        self.client = self.bench.client()
        self.worker = self.bench.worker("w", b"f")

    def assert_cancelled(self, handle: bytes) -> None:
        self.assertEqual(said(self.client), [("failed", handle)])
        self.assertEqual(self.broker.status(handle), UNKNOWN)
        self.assertEqual(self.broker.total, 0)
        with self.assertRaises(JobNotFound):
            self.broker.cancel(handle)
        self.assertIsNone(self.broker.grab(self.worker))
        self.broker.leave_worker(self.worker)
        self.assertEqual(leftovers(self.broker), {})

    def test_unknown(self) -> None:
        with self.assertRaises(JobNotFound):
            self.broker.cancel(b"H:t:1")

    def test_queued(self) -> None:
        handle = self.bench.submit(self.client, b"f", b"u")
        self.broker.cancel(handle)
        self.assert_cancelled(handle)

    def test_held(self) -> None:
        handle = self.bench.submit(self.client, b"f", b"-", b"d", run_at=self.bench.wall() + 5)
        self.broker.cancel(handle)
        self.bench.advance(10)
        self.assert_cancelled(handle)

    def test_running(self) -> None:
        handle = self.bench.submit(self.client, b"f", b"u")
        self.bench.grab(self.worker)
        self.broker.cancel(handle)
        # Reports that were under way are dropped, up to the one that ends the job.
        self.broker.report_data(self.worker, handle, b"")
        self.broker.report_warning(self.worker, handle, b"")
        self.broker.report_status(self.worker, handle, b"1", b"2")
        self.broker.complete(self.worker, handle, b"")
        with self.assertRaises(JobNotFound):
            self.broker.complete(self.worker, handle, b"")
        self.assert_cancelled(handle)

    def test_running_with_a_time_limit(self) -> None:
        self.broker.can_do(self.worker, b"f", 5.0)
        handle = self.bench.submit(self.client, b"f")
        self.bench.grab(self.worker)
        self.broker.cancel(handle)
        self.bench.advance(10)
        self.assert_cancelled(handle)

    def test_the_others_in_the_queue_stay_in_order(self) -> None:
        handles = [self.bench.queue(b"f") for _ in range(7)]
        for index in (0, 3, 6):
            self.broker.cancel(handles[index])
        self.assertEqual(self.bench.handles(self.worker), [handles[index] for index in (1, 2, 4, 5)])

    def test_only_the_last_dismissed_handles_are_remembered(self) -> None:
        handles = [self.bench.queue(b"f") for _ in range(MAX_DISMISSED + 1)]
        for handle in handles:
            self.bench.grab(self.worker)
            self.broker.cancel(handle)
        with self.assertRaises(JobNotFound):
            self.broker.complete(self.worker, handles[0], b"")
        for handle in handles[1:]:
            self.broker.complete(self.worker, handle, b"")
        assert self.worker.dismissed is not None
        self.assertEqual(len(self.worker.dismissed), 0)
