"""What workers report on their jobs, too late ones among it, and cancelling."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import Bench, leftovers, said
from txgearman.broker.entities import MAX_CANCELLED, Worker
from txgearman.broker.numbers import MAX_DIGITS
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
        self.assertEqual(self.bench.inspection.status(self.handle), JobStatus(True, True, 7, 10, 1))

    def test_status_that_is_no_number_counts_as_0(self) -> None:
        self.broker.report_status(self.worker, self.handle, b"3", b"4")
        for text in (b"", b"abc", b"-1", b".5", b"\xb2"):
            self.broker.report_status(self.worker, self.handle, text, text)
            self.assertEqual(said(self.client)[-1], ("status", self.handle, text, text))
            self.assertEqual(self.bench.inspection.status(self.handle), JobStatus(True, True, 0, 0, 1))

    def test_status_counts_as_the_number_it_begins_with(self) -> None:
        for text, number in ((b"1.5", 1), (b" 7", 7), (b"3/4", 3), (b"008", 8)):
            self.broker.report_status(self.worker, self.handle, text, text)
            self.assertEqual(said(self.client)[-1], ("status", self.handle, text, text))
            self.assertEqual(
                self.bench.inspection.status(self.handle), JobStatus(True, True, number, number, 1)
            )

    def test_status_with_more_digits_than_python_converts(self) -> None:
        digits = b"9" * 5000
        self.broker.report_status(self.worker, self.handle, b"1", digits)
        self.assertEqual(said(self.client), [("status", self.handle, b"1", digits)])
        self.assertTrue(self.bench.inspection.status(self.handle).known)

    def test_status_at_the_limit_of_digits_and_one_past_it(self) -> None:
        self.broker.report_status(self.worker, self.handle, b"9" * MAX_DIGITS, b"9" * (MAX_DIGITS + 1))
        self.assertEqual(
            self.bench.inspection.status(self.handle), JobStatus(True, True, 10**MAX_DIGITS - 1, 0, 1)
        )

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
            self.assertEqual(self.bench.inspection.status(handle), UNKNOWN)
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

    def test_a_job_ended_before_the_last(self) -> None:
        for end in (self.broker.complete, self.broker.exception):
            handle = self.bench.submit(self.client, b"f")
            self.bench.grab(self.worker)
            another = self.bench.submit(self.client, b"f")
            self.bench.grab(self.worker)
            end(self.worker, handle, b"")
            self.broker.fail(self.worker, another)
            self.assert_refused(self.worker, handle)

    def test_the_job_ended_last_is_met_with_silence(self) -> None:
        for end in (
            lambda handle: self.broker.complete(self.worker, handle, b""),
            lambda handle: self.broker.exception(self.worker, handle, b"x"),
            lambda handle: self.broker.fail(self.worker, handle),
        ):
            handle = self.bench.submit(self.client, b"f")
            self.bench.grab(self.worker)
            end(handle)
            said(self.client)
            self.broker.report_data(self.worker, handle, b"")
            self.broker.fail(self.worker, handle)
            self.broker.complete(self.worker, handle, b"")
            self.assertEqual(said(self.client), [])

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
        self.assertEqual(self.bench.inspection.status(handle), UNKNOWN)
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
        # Reports that were under way are dropped, however often they end the job.
        self.broker.report_data(self.worker, handle, b"")
        self.broker.report_warning(self.worker, handle, b"")
        self.broker.report_status(self.worker, handle, b"1", b"2")
        self.broker.complete(self.worker, handle, b"")
        self.broker.fail(self.worker, handle)
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

    def test_only_the_last_cancelled_handles_are_remembered(self) -> None:
        handles = [self.bench.queue(b"f") for _ in range(MAX_CANCELLED + 1)]
        for handle in handles:
            self.bench.grab(self.worker)
            self.broker.cancel(handle)
        with self.assertRaises(JobNotFound):
            self.broker.complete(self.worker, handles[0], b"")
        for handle in handles[1:]:
            self.broker.complete(self.worker, handle, b"")
