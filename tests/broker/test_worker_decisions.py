"""What workers decide by the extensions: failures with a text, retries, rejections, heartbeats."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.broker.bench import Bench, KeeperNotes, leftovers, said
from tests.broker.test_retries import FailedRunTestCase
from txgearman.broker.entities import Worker
from txgearman.broker.failures import MAX_SNOOZES
from txgearman.broker.job_states import JobState, Outcome
from txgearman.broker.policy import FunctionRules, Policy
from txgearman.broker.retries import DEFAULT_BACKOFF, WORKER_ATTEMPTS
from txgearman.broker.worker_decisions import WorkerDecisions
from txgearman.errors import JobNotFound


class DecisionTestCase(FailedRunTestCase):
    def begin(self, attempts: int | None = None, **rules: Any) -> None:
        super().begin(attempts, **rules)
        self.decisions = WorkerDecisions(self.broker)

    def grab_again(self, handle: bytes, after: float) -> None:
        """The job is queued after so many seconds, no sooner, and the worker has it then."""
        if after:
            self.bench.advance(after - 0.01)
            self.assertIsNone(self.broker.grab(self.worker))
            self.bench.advance(0.01)
        self.assertEqual(self.bench.grab(self.worker).handle, handle)

    def retry(self, handle: bytes, delay: float | None = 5.0, counts: bool = True, text: bytes = b"") -> int:
        return self.decisions.retry(self.worker, handle, delay, counts, text)


class RetryTests(DecisionTestCase):
    def test_the_workers_delay_holds(self) -> None:
        self.begin(attempts=3)
        handle = self.bench.queue(b"f", b"u", b"data")
        self.bench.grab(self.worker)
        self.retry(handle, 5.0, text=b"busy")
        detail = self.bench.inspection.job_detail(handle)
        assert detail is not None
        self.assertEqual(
            (detail.state, detail.attempts, detail.outcome_name, detail.error),
            (JobState.RETRYING, 1, "failed", b"busy"),
        )
        self.grab_again(handle, 5.0)

    def test_without_a_delay_it_is_the_functions_backoff(self) -> None:
        self.begin(attempts=3)
        handle = self.bench.queue(b"f")
        self.bench.grab(self.worker)
        for backoff in (10.0, 20.0):
            self.retry(handle, None)
            self.grab_again(handle, backoff)

    def test_no_delay_is_at_once(self) -> None:
        self.begin(attempts=3)
        handle = self.bench.queue(b"f")
        self.bench.grab(self.worker)
        self.retry(handle, 0.0)
        self.bench.advance(0)
        self.grab_again(handle, 0)

    def test_it_is_one_of_the_functions_attempts(self) -> None:
        for attempts in (1, 3):
            with self.subTest(attempts):
                self.begin(attempts=attempts)
                handle = self.bench.queue(b"f")
                self.bench.grab(self.worker)
                for _ in range(attempts - 1):
                    self.retry(handle)
                    self.grab_again(handle, 5.0)
                self.retry(handle, text=b"the last")
                (dead,) = self.dead()
                self.assertEqual(
                    (dead.attempts, dead.outcome, dead.error), (attempts, Outcome.FAILED, b"the last")
                )

    def test_where_nothing_is_said_of_attempts_the_workers_word_is_enough_but_not_for_ever(self) -> None:
        self.begin()
        handle = self.bench.queue(b"f")
        self.bench.grab(self.worker)
        for _ in range(WORKER_ATTEMPTS - 1):
            self.retry(handle)
            self.grab_again(handle, 5.0)
        self.retry(handle)
        (dead,) = self.dead()
        self.assertEqual(dead.attempts, WORKER_ATTEMPTS)

    def test_where_nothing_is_said_at_all_the_backoff_is_the_default(self) -> None:
        self.begin()
        self.bench = Bench(Policy(jitter=0.0))
        self.broker, self.worker = self.bench.broker, self.bench.worker("w", b"f")
        self.decisions = WorkerDecisions(self.broker)
        handle = self.bench.queue(b"f")
        self.bench.grab(self.worker)
        self.retry(handle, None)
        self.grab_again(handle, DEFAULT_BACKOFF)

    def test_a_failure_of_such_a_job_still_ends_it(self) -> None:
        self.begin()
        handle = self.bench.queue(b"f")
        self.bench.grab(self.worker)
        self.retry(handle)
        self.grab_again(handle, 5.0)
        self.broker.fail(self.worker, handle)
        self.assertEqual([dead.attempts for dead in self.dead()], [2])

    def test_an_online_job_ends(self) -> None:
        self.begin(attempts=3)
        for text, news in ((b"busy", ("exception", b"busy")), (b"", ("failed",))):
            client = self.bench.client()
            handle = self.bench.submit(client, b"f")
            self.bench.grab(self.worker)
            self.assertEqual(self.retry(handle, text=text), 1)
            self.assertEqual(said(client), [(news[0], handle, *news[1:])])
        self.assertEqual((self.broker.total, self.dead()), (0, []))

    def test_with_retry_online_its_clients_wait(self) -> None:
        self.begin(attempts=2, retry_online=True)
        client = self.bench.client()
        handle = self.bench.submit(client, b"f")
        self.bench.grab(self.worker)
        self.assertEqual(self.retry(handle, text=b"busy"), 0)
        self.assertEqual(said(client), [("retrying", handle, 1, 5.0)])
        self.grab_again(handle, 5.0)
        self.assertEqual(self.retry(handle, text=b"busy"), 1)
        self.assertEqual(said(client), [("exception", handle, b"busy")])

    def test_an_online_client_of_a_background_job_is_told_at_once(self) -> None:
        self.begin()
        handle = self.bench.queue(b"f", b"u")
        client = self.bench.client()
        self.bench.submit(client, b"f", b"u")
        self.bench.grab(self.worker)
        self.retry(handle, text=b"busy")
        self.assertEqual(said(client), [("exception", handle, b"busy")])
        self.grab_again(handle, 5.0)

    def test_a_second_end_of_the_same_run_is_dropped(self) -> None:
        self.begin()
        handle = self.bench.queue(b"f")
        job = self.bench.grab(self.worker)
        self.retry(handle)
        for again in (self.retry, lambda handle: self.decisions.reject(self.worker, handle, b"")):
            self.assertEqual(again(handle), 0)
        assert job.failures is not None
        self.assertEqual((job.failures.attempts, job.state), (1, JobState.RETRYING))

    def test_a_job_of_another_worker(self) -> None:
        self.begin()
        handle = self.bench.queue(b"f")
        self.bench.grab(self.worker)
        other = self.bench.worker("other", b"f")
        self.assertRaises(JobNotFound, self.decisions.retry, other, handle, None, True, b"")
        self.assertRaises(JobNotFound, self.decisions.reject, other, handle, b"")
        self.assertRaises(JobNotFound, self.decisions.fail, other, handle, b"")
        self.decisions.heartbeat(other, handle)

    def test_a_stored_job_is_durable_as_retrying(self) -> None:
        store = KeeperNotes()
        bench = Bench(Policy(b"H:t"), job_store=store)
        worker = bench.worker("w", b"f")
        client = bench.client()
        bench.broker.submit(client, b"f", b"", b"", background=True)
        bench.answers.saved(store.saves[0])
        handle = bench.grab(worker).handle
        WorkerDecisions(bench.broker).retry(worker, handle, 5.0, False, b"")
        self.assertEqual(store.retries, [(handle, 0, bench.wall() + 5.0)])


class UncountedTests(DecisionTestCase):
    """Runs that do not count: no attempt and no loss, but not without end either."""

    def test_it_costs_no_attempt_and_no_loss(self) -> None:
        self.begin(attempts=1)
        handle = self.bench.queue(b"f")
        job = self.bench.grab(self.worker)
        for _ in range(10):
            self.retry(handle, counts=False, text=b"not yet")
            self.grab_again(handle, 5.0)
        assert job.failures is not None
        self.assertEqual((job.failures.attempts, job.losses, job.failures.error), (0, 0, b"not yet"))
        self.broker.complete(self.worker, handle, b"")
        self.assertEqual(self.dead(), [])

    def test_without_a_delay_it_is_the_first_backoff_each_time(self) -> None:
        self.begin(attempts=5)
        handle = self.bench.queue(b"f")
        self.bench.grab(self.worker)
        for _ in range(3):
            self.retry(handle, None, counts=False)
            self.grab_again(handle, 10.0)

    def test_too_many_of_them_count(self) -> None:
        self.begin(attempts=2)
        handle = self.bench.queue(b"f")
        job = self.bench.grab(self.worker)
        job.note_failures().snoozes = MAX_SNOOZES - 3
        for attempts in (0, 0, 0, 1):
            self.retry(handle, counts=False)
            self.assertEqual(job.failures.attempts, attempts)
            self.grab_again(handle, 5.0)
        self.retry(handle, counts=False)
        self.assertEqual([dead.attempts for dead in self.dead()], [2])

    def test_one_that_expires_or_is_killed_meanwhile(self) -> None:
        self.begin(attempts=3, expires=3.0)
        client = self.bench.client()
        handle = self.bench.queue(b"f")
        self.bench.grab(self.worker)
        self.retry(handle, counts=False)
        self.bench.advance(3.0)
        self.assertEqual((self.broker.total, self.dead(), said(client)), (0, [], []))
        handle = self.bench.queue(b"f")
        self.bench.grab(self.worker)
        self.retry(handle, 1.0, counts=False, text=b"not yet")
        self.bench.dead.kill(handle)
        self.assertEqual([(dead.attempts, dead.error) for dead in self.dead()], [(0, b"not yet")])


class RejectTests(DecisionTestCase):
    def test_a_background_job_is_dead_whatever_attempts_are_left(self) -> None:
        self.begin(attempts=9)
        handle = self.bench.queue(b"f", b"u", b"data")
        self.bench.grab(self.worker)
        self.assertEqual(self.decisions.reject(self.worker, handle, b"no such user"), 0)
        (dead,) = self.dead()
        self.assertEqual(
            (dead.handle, dead.data, dead.attempts, dead.outcome, dead.error, dead.worker),
            (handle, b"data", 1, Outcome.FAILED, b"no such user", b"w"),
        )

    def test_who_waits_is_told(self) -> None:
        self.begin(attempts=9, retry_online=True)
        for text, news in ((b"no", ("exception", b"no")), (b"", ("failed",))):
            client = self.bench.client()
            handle = self.bench.submit(client, b"f")
            self.bench.grab(self.worker)
            self.assertEqual(self.decisions.reject(self.worker, handle, text), 1)
            self.assertEqual(said(client), [(news[0], handle, *news[1:])])
        self.assertEqual((self.broker.total, self.dead()), (0, []))


class FailTests(DecisionTestCase):
    def test_it_counts_as_failed_and_is_retried_as_the_function_says(self) -> None:
        self.begin(attempts=2)
        handle = self.bench.queue(b"f")
        self.bench.grab(self.worker)
        self.decisions.fail(self.worker, handle, b"why")
        self.grab_again(handle, 10.0)
        self.decisions.fail(self.worker, handle, b"why again")
        (dead,) = self.dead()
        self.assertEqual((dead.attempts, dead.outcome, dead.error), (2, Outcome.FAILED, b"why again"))

    def test_clients_get_the_text_as_of_an_exception(self) -> None:
        self.begin()
        client = self.bench.client()
        handle = self.bench.submit(client, b"f")
        self.bench.grab(self.worker)
        self.assertEqual(self.decisions.fail(self.worker, handle, b"why"), 1)
        self.assertEqual(said(client), [("exception", handle, b"why")])


class HeartbeatTests(DecisionTestCase):
    """Each report of a worker renews a heartbeat: WORK_DATA, WORK_WARNING, WORK_STATUS, WORK_HEARTBEAT."""

    def begin(self, attempts: int | None = None, **rules: Any) -> None:
        rules.setdefault("heartbeat", 4.0)
        super().begin(attempts, **rules)
        notes: Any = self.worker.connection
        notes.hears_cancel = True
        self.other = self.bench.worker("other", b"f")

    def is_taken_back(self, handle: bytes) -> bool:
        return handle not in self.worker.jobs

    def cancelled(self, worker: Worker) -> list[tuple[bytes, bytes]]:
        notes: Any = worker.connection
        return list(notes.cancelled)

    def test_a_silent_worker_loses_its_job_without_delay(self) -> None:
        self.begin(attempts=3)
        notes: Any = self.worker.connection
        notes.hears_cancel = True
        handle = self.bench.queue(b"f")
        job = self.bench.grab(self.worker)
        self.bench.advance(3.99)
        self.assertFalse(self.is_taken_back(handle))
        self.bench.advance(0.01)
        self.assertIs(self.bench.grab(self.other), job)
        self.assertEqual((job.losses, job.failures), (1, None))
        self.assertEqual(self.cancelled(self.worker), [(handle, b"silent")])

    def test_each_report_renews_it(self) -> None:
        self.begin()
        handle = self.bench.queue(b"f")
        self.bench.grab(self.worker)
        for report in (
            lambda: self.broker.report_data(self.worker, handle, b"part"),
            lambda: self.broker.report_warning(self.worker, handle, b"careful"),
            lambda: self.broker.report_status(self.worker, handle, b"1", b"2"),
            lambda: self.decisions.heartbeat(self.worker, handle),
        ):
            self.bench.advance(3.5)
            report()
            self.bench.advance(3.99)
            self.assertFalse(self.is_taken_back(handle), report)
            report()
        self.bench.advance(4.0)
        self.assertTrue(self.is_taken_back(handle))

    def test_reports_add_nothing_to_what_is_due(self) -> None:
        """A stream of data is very many reports, and each is to cost the same however many jobs run."""
        self.begin()
        handle = self.bench.queue(b"f")
        self.bench.grab(self.worker)
        for _ in range(100):
            self.broker.report_data(self.worker, handle, b"part")
        self.assertEqual(len(self.broker.life.timeouts._heap), 1)

    def test_the_time_limit_stays_the_ceiling(self) -> None:
        self.begin(time_limit=6.0, attempts=1)
        handle = self.bench.queue(b"f")
        self.bench.grab(self.worker)
        for _ in range(5):
            self.bench.advance(1.0)
            self.decisions.heartbeat(self.worker, handle)
        self.bench.advance(1.0)
        self.assertEqual([dead.outcome for dead in self.dead()], [Outcome.TIMED_OUT])

    def test_a_time_limit_that_is_shorter(self) -> None:
        self.begin(time_limit=2.0)
        handle = self.bench.queue(b"f")
        self.bench.grab(self.worker)
        self.bench.advance(2.0)
        self.assertTrue(self.is_taken_back(handle))

    def test_a_server_that_stood_still_takes_nothing_back_for_that(self) -> None:
        """What its workers said meanwhile it has not read. Their time begins anew, that of the limit not."""
        self.begin(time_limit=300.0)
        handle = self.bench.queue(b"f")
        self.bench.grab(self.worker)
        self.bench.now += 100.0
        self.broker.tick()
        self.assertFalse(self.is_taken_back(handle))
        self.bench.advance(3.99)
        self.assertFalse(self.is_taken_back(handle))
        self.bench.advance(0.01)
        self.assertTrue(self.is_taken_back(handle))
        self.bench.grab(self.worker)
        self.bench.now += 301.0
        self.broker.tick()
        self.assertTrue(self.is_taken_back(handle))

    def test_too_many_losses_end_the_job(self) -> None:
        self.begin(job_retries=2)
        self.bench.queue(b"f")
        for _ in range(2):
            self.bench.grab(self.worker)
            self.bench.advance(4.0)
        self.assertEqual([(dead.losses, dead.outcome) for dead in self.dead()], [(2, Outcome.LOST)])

    def test_what_the_silent_worker_says_late_is_dropped(self) -> None:
        self.begin()
        handle = self.bench.queue(b"f")
        self.bench.grab(self.worker)
        self.bench.advance(4.0)
        self.bench.grab(self.other)
        self.decisions.heartbeat(self.worker, handle)
        self.assertEqual(self.broker.report_data(self.worker, handle, b"part"), 0)
        self.assertEqual(self.broker.complete(self.worker, handle, b"late"), 0)
        self.assertIn(handle, self.other.jobs)
        self.broker.complete(self.other, handle, b"")
        self.assertEqual(self.broker.total, 0)

    def test_nothing_is_left_of_a_job_that_ended(self) -> None:
        self.begin()
        for _ in range(3):
            handle = self.bench.queue(b"f")
            self.bench.grab(self.worker)
            self.broker.complete(self.worker, handle, b"")
        self.bench.leave(self.bench.client(), self.worker)
        self.bench.leave(self.bench.client(), self.other)
        self.assertEqual(leftovers(self.broker), {})

    def test_for_all_functions_and_none_for_one(self) -> None:
        policy = Policy(b"H:t", heartbeat=4.0, functions=((b"f", FunctionRules(heartbeat=0.0)),))
        bench = Bench(policy)
        worker = bench.worker("w", b"f", b"g")
        for function in (b"f", b"g"):
            bench.queue(function)
            bench.grab(worker)
        bench.advance(5.0)
        self.assertEqual([job.function.name for job in worker.jobs.values()], [b"f"])

    def test_a_reload_is_for_the_runs_that_begin_then(self) -> None:
        """The worker of a run has been told what it was at its begin."""
        self.begin()
        policy = self.broker.functions.policy
        first = self.bench.queue(b"f")
        self.bench.grab(self.worker)
        rules = FunctionRules(heartbeat=9.0)
        self.bench.administration.change_policy(replace(policy, functions=((b"f", rules),)))
        second = self.bench.queue(b"f")
        self.bench.grab(self.other)
        self.bench.advance(4.0)
        self.assertTrue(self.is_taken_back(first))
        self.bench.advance(4.99)
        self.assertIn(second, self.other.jobs)
        self.bench.advance(0.01)
        self.assertNotIn(second, self.other.jobs)
