"""Failed runs: backoff, retries, expiry, dead jobs, history."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import Bench, KeeperNotes, said
from txgearman.broker.dead_job import MAX_ERROR, DeadCursor, DeadFilter, DeadJob, DeadPage
from txgearman.broker.dead_job_administration import Progress
from txgearman.broker.entities import Client, Job, Worker
from txgearman.broker.history import EndedJob
from txgearman.broker.job_states import JobState, Outcome
from txgearman.broker.policy import FunctionRules, Policy
from txgearman.broker.retries import RetryPolicy
from txgearman.broker.stored_job import StoredJob
from txgearman.errors import JobNotFound, QueueFull, Refused, UniqueInUse


class BackoffTests(SynchronousTestCase):
    def test_it_doubles_up_to_its_maximum(self) -> None:
        policy = RetryPolicy(attempts=9, backoff=15, factor=2, backoff_max=100, jitter=0)
        self.assertEqual([policy.delay(attempts, 0.3) for attempts in range(1, 6)], [15, 30, 60, 100, 100])

    def test_jitter_goes_both_ways(self) -> None:
        policy = RetryPolicy(backoff=10, factor=1, jitter=0.1)
        self.assertEqual([policy.delay(3, chance) for chance in (0.0, 0.5, 1.0)], [9, 10, 11])

    def test_no_number_of_attempts_overflows(self) -> None:
        policy = RetryPolicy(backoff=15, factor=2, backoff_max=3600, jitter=0)
        self.assertEqual([policy.delay(attempts, 0) for attempts in (10**3, 10**6, 10**18)], [3600] * 3)
        self.assertEqual(RetryPolicy(backoff=0, factor=2, jitter=0).delay(10**6, 1.0), 0)
        self.assertTrue(math.isfinite(RetryPolicy(backoff=1e300, factor=1e300).delay(10**9, 1.0)))


class FailedRunTestCase(SynchronousTestCase):
    def begin(self, attempts: int | None = 3, **rules: Any) -> None:
        rules.setdefault("backoff", 10.0)
        rules.setdefault("jitter", 0.0)
        policy = Policy(handle_prefix=b"H:t", functions=((b"f", FunctionRules(attempts=attempts, **rules)),))
        self.store: KeeperNotes | None = None
        self.bench = Bench(policy)
        self.broker = self.bench.broker
        self.worker: Worker = self.bench.worker("w", b"f")

    def raise_in(self, handle: bytes, error: bytes = b"oh no") -> Job:
        """A worker gets the job, which must be this one, and says that its function raised."""
        job = self.bench.grab(self.worker)
        self.assertEqual(job.handle, handle)
        self.broker.exception(self.worker, handle, error)
        return job

    def dead(self, wanted: DeadFilter = DeadFilter()) -> list[DeadJob]:  # noqa: B008 (a tuple)
        pages: list[DeadPage | Refused] = []
        self.bench.dead.page(wanted, None, 1000, True, pages.append)
        (page,) = pages
        assert isinstance(page, DeadPage)
        return page.jobs

    def answer(self, verb: Any, *arguments: Any) -> Any:
        answers: list[Any] = []
        verb(*arguments, answers.append)
        (answer,) = answers
        return answer


class RetryTests(FailedRunTestCase):
    def test_it_runs_again_after_each_backoff_and_then_is_dead(self) -> None:
        self.begin()
        handle = self.bench.queue(b"f", b"u", b"data")
        job = self.raise_in(handle)
        self.assertIs(job.state, JobState.RETRYING)
        self.assertIsNone(self.broker.grab(self.worker))
        self.bench.advance(9.9)
        self.assertIsNone(self.broker.grab(self.worker))
        self.bench.advance(0.1)
        self.assertIs(self.raise_in(handle), job)
        self.bench.advance(19.9)
        self.assertIsNone(self.broker.grab(self.worker))
        self.bench.advance(0.1)
        self.raise_in(handle, b"the last")
        self.assertEqual(self.broker.total, 0)
        (dead,) = self.dead()
        self.assertEqual(
            (dead.handle, dead.unique, dead.data, dead.attempts, dead.outcome, dead.error, dead.worker),
            (handle, b"u", b"data", 3, Outcome.RAISED, b"the last", b"w"),
        )
        self.assertEqual(self.bench.deaths, [dead])

    def test_a_sleeper_is_woken_for_a_retry(self) -> None:
        self.begin()
        self.raise_in(self.bench.queue(b"f"))
        self.broker.sleep(self.worker)
        self.bench.take_woken()
        self.bench.advance(10)
        self.assertEqual(self.bench.take_woken(), ["w"])

    def test_to_clients_it_is_known_and_not_running(self) -> None:
        self.begin()
        handle = self.bench.queue(b"f")
        self.raise_in(handle)
        status = self.bench.inspection.status(handle)
        self.assertEqual((status.known, status.running), (True, False))
        (view,) = self.bench.inspection.functions()
        self.assertEqual((view.total, view.running, view.waiting), (1, 0, (0, 1, 0)))

    def test_submits_are_coalesced_with_it(self) -> None:
        self.begin()
        handle = self.bench.queue(b"f", b"u")
        self.raise_in(handle)
        self.assertEqual(self.bench.queue(b"f", b"u"), handle)

    def test_perls_two_reports_are_one_failure(self) -> None:
        self.begin(backoff=0.0)
        job = self.raise_in(self.bench.queue(b"f"))
        self.broker.fail(self.worker, job.handle)
        assert job.failures is not None
        self.assertEqual(job.failures.attempts, 1)

    def test_who_waits_for_a_background_job_is_told_of_the_first_failure(self) -> None:
        self.begin()
        handle = self.bench.queue(b"f", b"u")
        client: Client = self.bench.client()
        self.bench.submit(client, b"f", b"u")
        self.raise_in(handle)
        self.assertEqual(said(client), [("exception", handle, b"oh no")])
        self.assertEqual(client.jobs, {})
        self.bench.advance(10)
        self.broker.complete(self.worker, self.bench.grab(self.worker).handle, b"")
        self.assertEqual(said(client), [])

    def test_an_online_job_is_not_retried(self) -> None:
        self.begin()
        client = self.bench.client()
        handle = self.bench.submit(client, b"f")
        self.raise_in(handle)
        self.assertEqual(said(client), [("exception", handle, b"oh no")])
        self.assertEqual((self.broker.total, self.dead()), (0, []))

    def test_an_online_job_is_retried_where_the_function_says_so(self) -> None:
        self.begin(retry_online=True, attempts=2)
        client = self.bench.client()
        handle = self.bench.submit(client, b"f")
        self.raise_in(handle)
        self.assertEqual(said(client), [("retrying", handle, 1, 10.0)])
        self.bench.advance(10)
        self.raise_in(handle)
        self.assertEqual((said(client), self.dead()), ([("exception", handle, b"oh no")], []))

    def test_who_leaves_takes_a_retrying_online_job_along(self) -> None:
        self.begin(retry_online=True)
        client = self.bench.client()
        self.raise_in(self.bench.submit(client, b"f"))
        self.broker.leave_client(client)
        self.assertEqual(self.broker.total, 0)
        self.bench.advance(100)
        self.assertIsNone(self.broker.grab(self.worker))

    def test_a_lost_worker_costs_no_attempt_and_no_time(self) -> None:
        self.begin(attempts=2)
        handle = self.bench.queue(b"f")
        self.bench.grab(self.worker)
        self.broker.leave_worker(self.worker)
        self.worker = self.bench.worker("other", b"f")
        job = self.raise_in(handle)
        assert job.failures is not None
        self.assertEqual((job.losses, job.failures.attempts, job.state), (1, 1, JobState.RETRYING))

    def test_a_time_limit_is_an_attempt_where_these_are_said(self) -> None:
        self.begin(attempts=1, time_limit=5.0)
        self.bench.queue(b"f")
        self.bench.grab(self.worker)
        self.bench.advance(5)
        (dead,) = self.dead()
        self.assertEqual((dead.outcome, dead.attempts), (Outcome.TIMED_OUT, 1))

    def test_a_time_limit_is_a_lost_worker_elsewhere(self) -> None:
        self.begin(attempts=None, time_limit=5.0)
        handle = self.bench.queue(b"f")
        self.bench.grab(self.worker)
        self.bench.advance(5)
        job = self.bench.grab(self.bench.worker("other", b"f"))
        self.assertEqual((job.handle, job.losses, job.failures), (handle, 1, None))

    def test_what_holds_when_the_run_ends_counts(self) -> None:
        self.begin(attempts=1)
        handle = self.bench.queue(b"f")
        self.bench.grab(self.worker)
        rules = FunctionRules(attempts=2, backoff=3.0, jitter=0.0)
        self.bench.administration.change_policy(Policy(handle_prefix=b"H:t", functions=((b"f", rules),)))
        self.broker.fail(self.worker, handle)
        self.bench.advance(3)
        self.assertEqual(self.bench.grab(self.worker).handle, handle)

    def test_a_default_that_changes_reaches_functions_with_attempts_of_their_own(self) -> None:
        self.begin(attempts=3, backoff=None)
        rules = ((b"f", FunctionRules(attempts=3, jitter=0.0)),)
        handle = self.bench.queue(b"f")
        self.bench.administration.change_policy(Policy(handle_prefix=b"H:t", functions=rules, backoff=40.0))
        self.raise_in(handle)
        self.bench.advance(39.9)
        self.assertIsNone(self.broker.grab(self.worker))
        self.bench.advance(0.1)
        self.raise_in(handle)

    def test_defaults_for_all_functions_change_with_a_reload(self) -> None:
        self.bench = Bench(Policy(handle_prefix=b"H:t"))
        self.broker, self.worker = self.bench.broker, self.bench.worker("w", b"f")
        self.bench.administration.change_policy(Policy(handle_prefix=b"H:t", attempts=2, jitter=0.0))
        self.assertIs(self.raise_in(self.bench.queue(b"f")).state, JobState.RETRYING)

    def test_very_many_due_at_once_give_way(self) -> None:
        self.begin()
        handles = [self.bench.queue(b"f") for _ in range(2500)]
        for handle in handles:
            self.raise_in(handle)
        self.bench.now += 10
        self.broker.tick()
        self.assertEqual(sum(self.bench.inspection.function_detail(b"f").queued), 1000)
        self.bench.advance(0)
        self.assertEqual(len(self.bench.handles(self.worker)), 2500)

    def test_an_error_is_cut(self) -> None:
        self.begin(attempts=1)
        self.raise_in(self.bench.queue(b"f"), b"x" * (MAX_ERROR + 1))
        self.assertEqual(self.dead()[0].error, b"x" * MAX_ERROR)


class StoredRetryTests(SynchronousTestCase):
    def setUp(self) -> None:
        rules = FunctionRules(attempts=2, backoff=10.0, jitter=0.0)
        self.store = KeeperNotes()
        self.bench = Bench(Policy(handle_prefix=b"H:t", functions=((b"f", rules),)), job_store=self.store)
        self.broker = self.bench.broker
        self.worker = self.bench.worker("w", b"f")
        self.client = self.bench.client()

    def submit(self) -> Job:
        self.broker.submit(self.client, b"f", b"u", b"data", background=True)
        return self.store.saves.pop()

    def test_the_store_is_told_of_a_retry_and_of_the_death(self) -> None:
        job = self.submit()
        self.bench.answers.saved(job)
        self.bench.grab(self.worker)
        self.broker.fail(self.worker, job.handle)
        self.assertEqual(self.store.retries, [(job.handle, 1, self.bench.wall() + 10)])
        self.bench.advance(10)
        self.bench.grab(self.worker)
        self.broker.fail(self.worker, job.handle)
        self.assertEqual(([dead.handle for dead in self.store.dead], self.store.removed), ([job.handle], []))
        self.assertEqual(len(self.broker.ended_jobs.dead_jobs), 0)

    def be_deep(self) -> None:
        """From now on one job of the function waits in memory, and another behind it in the store alone."""
        self.bench.administration.change_policy(replace(self.broker.functions.policy, in_memory=1))
        for number in (101, 102):
            self.bench.answers.restore(self.stored(number))
        self.assertEqual((self.broker.life.live, self.broker.total), (1, 2))

    def stored(self, number: int, **what: Any) -> StoredJob:
        handle = b"H:t:%d" % number
        return StoredJob(number, number, handle, b"f", b"", b"", 1, None, 0, 5.0, None, **what)

    def test_a_retry_that_is_restored_is_not_left_to_the_store(self) -> None:
        """Nothing would bring it from there: jobs with a time are not in the stored part of a queue."""
        self.be_deep()
        retry_at = self.bench.wall() + 10
        self.bench.answers.restore(self.stored(103, attempts=1, retry_at=retry_at, outcome=0, error=b""))
        job = self.broker.life.handles.get(b"H:t:103")
        assert job is not None
        self.assertIs(job.state, JobState.RETRYING)

    def test_a_dead_job_is_retried_behind_those_that_the_store_alone_has(self) -> None:
        self.be_deep()
        self.broker.life.revive_dead(self.stored(103))
        self.assertEqual((self.broker.life.live, self.broker.total), (1, 3))

    def test_a_job_that_dies_while_it_is_saved_is_dead_once_it_is(self) -> None:
        # An online client waits for it already, so that a worker gets it before it is stored.
        online = self.bench.client()
        self.bench.submit(online, b"f", b"u", b"data")
        self.broker.submit(self.client, b"f", b"u", b"data", background=True)
        job = self.store.saves.pop()
        for _ in range(2):
            self.bench.grab(self.worker)
            self.broker.fail(self.worker, job.handle)
            self.bench.advance(10)
        self.assertEqual((job.state, self.store.dead), (JobState.GONE, []))
        self.bench.answers.saved(job)
        self.assertEqual(([dead.data for dead in self.store.dead], self.store.removed), ([b"data"], []))

    def test_a_retry_of_a_job_that_is_being_saved_is_told_once_it_is(self) -> None:
        online = self.bench.client()
        self.bench.submit(online, b"f", b"u", b"data")
        self.broker.submit(self.client, b"f", b"u", b"data", background=True)
        job = self.store.saves.pop()
        self.bench.grab(self.worker)
        self.broker.fail(self.worker, job.handle)
        self.assertEqual(self.store.retries, [])
        self.bench.answers.saved(job)
        self.assertEqual([attempts for _, attempts, _ in self.store.retries], [1])


class ExpiryTests(FailedRunTestCase):
    def test_it_ends_at_that_moment(self) -> None:
        self.begin(expires=60.0)
        client = self.bench.client()
        handle = self.bench.submit(client, b"f")
        self.bench.advance(59.9)
        self.assertEqual(said(client), [])
        self.bench.advance(0.1)
        self.assertEqual((said(client), self.broker.total, self.dead()), ([("failed", handle)], 0, []))
        function = self.broker.functions.by_name[b"f"]
        self.assertEqual(function.uncompleted[Outcome.EXPIRED], 1)

    def test_it_counts_from_the_time_to_run_at(self) -> None:
        self.begin(expires=60.0)
        handle = self.bench.queue(b"f", run_at=self.bench.wall() + 100)
        self.bench.advance(159)
        self.assertEqual(self.bench.grab(self.worker).handle, handle)

    def test_a_running_job_does_not_expire(self) -> None:
        self.begin(expires=60.0)
        handle = self.bench.queue(b"f")
        self.bench.grab(self.worker)
        self.bench.advance(100)
        self.broker.complete(self.worker, handle, b"")

    def test_no_worker_gets_it_where_the_alarm_is_late(self) -> None:
        self.begin(expires=60.0)
        self.bench.queue(b"f")
        self.bench.now += 30
        young = self.bench.queue(b"f")
        self.bench.now += 31
        self.assertEqual(self.bench.grab(self.worker).handle, young)

    def test_one_that_had_failed_is_dead(self) -> None:
        self.begin(expires=60.0, backoff=100.0, backoff_max=1000.0)
        self.raise_in(self.bench.queue(b"f"))
        self.bench.advance(60)
        (dead,) = self.dead()
        self.assertEqual((dead.outcome, dead.attempts), (Outcome.RAISED, 1))

    def test_one_that_was_lost_when_it_is_too_old_ends(self) -> None:
        """It is in no queue then, and must not be counted out of one. So it is with every job that is too old
        for its queue when it comes there: when it is submitted, lost, or its backoff is over."""
        self.begin(expires=60.0)
        self.bench.queue(b"f")
        self.bench.grab(self.worker)
        self.bench.advance(61)
        self.broker.leave_worker(self.worker)
        self.assertEqual(self.counts(), (0, [0, 0, 0], [0, 0, 0]))

    def test_one_that_is_too_old_when_it_is_submitted_ends(self) -> None:
        self.begin(expires=60.0)
        client = self.bench.client()
        handle = self.bench.queue(b"f", run_at=self.bench.wall() - 61)
        self.broker.submit(client, b"f", b"", b"", run_at=self.bench.wall() - 61)
        self.assertNotIn(handle, dict(self.broker.life.handles))
        self.assertEqual([what for what, *_ in said(client)], ["created", "failed"])
        self.assertEqual(self.counts(), (0, [0, 0, 0], [0, 0, 0]))

    def counts(self) -> tuple[int, list[int], list[int]]:
        """All jobs, and by priority those that wait in a queue and those that left it from its middle."""
        function = self.broker.functions.by_name[b"f"]
        return self.broker.total, list(function.waiting), list(function._gone)

    def test_many_that_expire_under_a_grab_do_not_change_the_order(self) -> None:
        """A grab that has passed over a slice of expired jobs gives none, and leaves the next where it is."""
        self.begin(expires=60.0)
        self.broker.slices.size = 2
        for _ in range(2):
            self.bench.queue(b"f")
        self.bench.now += 30
        young = [self.bench.queue(b"f") for _ in range(2)]
        self.bench.now += 31
        self.assertIsNone(self.broker.grab(self.worker))
        self.broker.sleep(self.worker)
        self.assertEqual(self.bench.take_woken(), ["w"])
        self.assertEqual(self.bench.handles(self.worker), young)

    def test_behind_one_that_expired_no_worker_gets_one_whose_client_leaves(self) -> None:
        self.begin(expires=60.0)
        self.bench.queue(b"f")
        self.bench.now += 61
        client = self.bench.client()
        self.bench.submit(client, b"f")
        self.broker.slices.size = 0
        self.broker.leave_client(client)
        self.broker.slices.size = 10
        self.assertIsNone(self.broker.grab(self.worker))


class SizeTests(FailedRunTestCase):
    def test_a_job_that_waits_for_its_retry_takes_little_more_than_one_in_a_queue(self) -> None:
        """A million may wait. What is added is its deadline and what is known of the failed run."""
        self.begin(attempts=2, backoff=60.0)
        jobs, client = 200, self.bench.client()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for _ in range(jobs):
            self.broker.submit(client, b"f", b"", b"", background=True)
        queued, _ = tracemalloc.get_traced_memory()
        for _ in range(jobs):
            self.broker.fail(self.worker, self.bench.grab(self.worker).handle)
        retrying, _ = tracemalloc.get_traced_memory()
        self.assertEqual(self.broker.functions.by_name[b"f"].retrying, jobs)
        self.assertLess((retrying - queued) / jobs, 600)


class DeadJobTests(FailedRunTestCase):
    def setUp(self) -> None:
        self.begin(attempts=1)

    def kill(self, unique: bytes = b"", data: bytes = b"data", error: bytes = b"oh no") -> bytes:
        handle = self.bench.queue(b"f", unique, data)
        self.raise_in(handle, error)
        return handle

    def test_without_any_rules_a_background_job_that_fails_is_dead(self) -> None:
        self.bench.worker("g", b"g")
        handle = self.bench.queue(b"g")
        worker = self.bench.worker("g", b"g")
        self.bench.grab(worker)
        self.broker.fail(worker, handle)
        self.assertEqual([dead.handle for dead in self.dead()], [handle])

    def test_cancelled_and_abandoned_jobs_are_not(self) -> None:
        self.broker.cancel(self.bench.queue(b"f"))
        client = self.bench.client()
        self.bench.submit(client, b"f")
        self.broker.leave_client(client)
        self.assertEqual((self.broker.total, self.dead()), (0, []))

    def test_one_that_too_many_workers_lost_is_dead(self) -> None:
        bench = Bench(Policy(handle_prefix=b"H:t", job_retries=2))
        handle = bench.queue(b"f")
        for name in "ab":
            worker = bench.worker(name, b"f")
            bench.grab(worker)
            bench.broker.leave_worker(worker)
        (dead,) = bench.deaths
        self.assertEqual((dead.handle, dead.outcome, dead.losses), (handle, Outcome.LOST, 2))
        # The history knows of as many losses.
        assert bench.broker.ended_jobs.history is not None
        ended = bench.broker.ended_jobs.history.get(handle)
        assert ended is not None
        self.assertEqual((ended.outcome, ended.job.losses), (Outcome.LOST, 2))

    def test_its_unique_is_free(self) -> None:
        first = self.kill(b"u")
        self.assertNotEqual(self.bench.queue(b"f", b"u"), first)

    def test_it_counts_in_no_total_and_no_limit(self) -> None:
        self.kill()
        self.broker.leave_worker(self.worker)
        self.assertEqual(self.broker.total, 0)
        self.bench.administration.drop_function(b"f")
        self.assertEqual(len(self.dead()), 1)

    def test_a_retried_one_comes_last_with_all_it_had(self) -> None:
        handle = self.kill(b"u", b"its data")
        other = self.bench.queue(b"f")
        self.assertIsNone(self.answer(self.bench.dead.retry, handle))
        self.assertEqual(self.bench.grab(self.worker).handle, other)
        job = self.bench.grab(self.worker)
        self.assertEqual((job.handle, job.unique, job.data, job.failures), (handle, b"u", b"its data", None))
        self.assertEqual(self.dead(), [])
        self.broker.complete(self.worker, handle, b"")
        self.assertEqual(self.broker.total, 1)

    def test_a_retried_one_is_as_young_as_a_new_job(self) -> None:
        """Otherwise a retry of a job that is older than its function allows would end the job unseen, and the
        time for which it was dead would count among the times that jobs wait for a worker."""
        self.bench = Bench(
            Policy(handle_prefix=b"H:t", functions=((b"f", FunctionRules(expires=60.0)),)), measured=1
        )
        self.broker, self.worker = self.bench.broker, self.bench.worker("w", b"f")
        handle = self.kill()
        self.bench.advance(1000)
        self.assertIsNone(self.answer(self.bench.dead.retry, handle))
        self.bench.advance(59)
        self.assertEqual(self.bench.inspection.job_detail(handle).seconds, 59.0)
        self.assertEqual(self.bench.grab(self.worker).handle, handle)

    def test_only_one_retry_wins(self) -> None:
        handle = self.kill()
        self.assertIsNone(self.answer(self.bench.dead.retry, handle))
        self.assertIsInstance(self.answer(self.bench.dead.retry, handle), JobNotFound)

    def test_a_live_job_with_its_unique_keeps_it_dead(self) -> None:
        handle = self.kill(b"u")
        self.bench.queue(b"f", b"u")
        self.assertIsInstance(self.answer(self.bench.dead.retry, handle), UniqueInUse)
        self.assertEqual(len(self.dead()), 1)

    def test_a_retry_obeys_the_limits(self) -> None:
        handle = self.kill()
        self.bench.administration.set_limits(b"f", (1, 1, 1))
        self.bench.queue(b"f")
        self.assertIsInstance(self.answer(self.bench.dead.retry, handle), QueueFull)
        self.assertEqual(len(self.dead()), 1)

    def test_one_is_forgotten(self) -> None:
        handle = self.kill()
        self.assertIsNone(self.answer(self.bench.dead.forget, handle))
        self.assertIsInstance(self.answer(self.bench.dead.forget, handle), JobNotFound)
        self.assertEqual(self.dead(), [])

    def test_what_is_no_handle_is_not_found(self) -> None:
        for handle in (b"", b":", b"H:t:", b"H:t:x", b"H:t:" + b"9" * 5000, b"H:other:1"):
            self.assertIsInstance(self.answer(self.bench.dead.retry, handle), JobNotFound)
            self.assertIsInstance(self.answer(self.bench.dead.forget, handle), JobNotFound)

    def test_all_of_a_function(self) -> None:
        handles = [self.kill(unique) for unique in (b"a", b"b", b"c")]
        live = self.bench.queue(b"f", b"b")
        self.assertEqual(
            self.answer(self.bench.dead.retry_some, DeadFilter(b"f"), None, 100), Progress(2, 1, None)
        )
        self.assertEqual([dead.handle for dead in self.dead()], [handles[1]])
        self.assertEqual(self.bench.handles(self.worker), [live, handles[2], handles[0]])
        self.assertEqual(
            self.answer(self.bench.dead.forget_some, DeadFilter(b"f"), None, 100), Progress(1, 0, None)
        )
        self.assertEqual(self.dead(), [])

    def test_pages_go_back_in_time(self) -> None:
        handles = []
        for _ in range(5):
            handles.append(self.kill())
            self.bench.now += 1
        cursor: DeadCursor | None = None
        pages = []
        while True:
            page = self.answer(self.bench.dead.page, DeadFilter(), cursor, 2, False)
            pages.append([job.handle for job in page.jobs])
            self.assertEqual([job.data for job in page.jobs], [None] * len(page.jobs))
            cursor = page.next
            if cursor is None:
                break
        self.assertEqual(pages, [handles[4:2:-1], handles[2:0:-1], handles[:1]])

    def test_search(self) -> None:
        found = self.kill(b"user:7", b"payload", b"ValueError: nine")
        self.kill(b"user:8", b"other", b"KeyError")
        for text in (b"user:7", b"payload", b"ValueError", found):
            self.assertEqual([dead.handle for dead in self.dead(DeadFilter(search=text))], [found])
        self.assertEqual(self.dead(DeadFilter(b"g")), [])

    def test_the_oldest_go_first(self) -> None:
        self.bench = Bench(Policy(handle_prefix=b"H:t", dead_jobs=2, dead_age=100.0))
        self.broker, self.worker = self.bench.broker, self.bench.worker("w", b"f")
        handles = [self.kill() for _ in range(3)]
        self.assertEqual([dead.handle for dead in self.dead()], handles[:0:-1])
        self.assertEqual((self.bench.dead.evicted, self.bench.dead.counts), (1, {b"f": 2}))
        self.bench.now += 101
        self.assertEqual((self.dead(), self.bench.dead.evicted, self.bench.dead.counts), ([], 3, {}))

    def test_their_bytes_are_bounded(self) -> None:
        self.bench = Bench(Policy(handle_prefix=b"H:t", dead_bytes=10_000))
        self.broker, self.worker = self.bench.broker, self.bench.worker("w", b"f")
        for _ in range(5):
            self.kill(data=b"x" * 4000)
        self.assertEqual(len(self.dead()), 2)

    def test_none_is_kept_where_that_is_off(self) -> None:
        self.bench = Bench(Policy(handle_prefix=b"H:t", dead_jobs=0))
        self.broker, self.worker = self.bench.broker, self.bench.worker("w", b"f")
        self.kill()
        self.assertEqual((self.dead(), self.bench.deaths), ([], []))

    def test_a_retrying_job_is_run_now_or_killed(self) -> None:
        self.begin(attempts=3)
        handle = self.bench.queue(b"f")
        self.raise_in(handle)
        self.assertIsNone(self.answer(self.bench.dead.retry, handle))
        job = self.raise_in(handle)
        assert job.failures is not None
        self.assertEqual(job.failures.attempts, 2)
        self.bench.dead.kill(handle)
        self.assertEqual([(dead.handle, dead.attempts) for dead in self.dead()], [(handle, 2)])
        self.assertRaises(JobNotFound, self.bench.dead.kill, handle)
        self.bench.advance(1000)
        self.assertIsNone(self.broker.grab(self.worker))


class HistoryTests(FailedRunTestCase):
    def history(self, handle: bytes) -> EndedJob:
        assert self.broker.ended_jobs.history is not None
        entry = self.broker.ended_jobs.history.get(handle)
        assert entry is not None
        return entry

    def test_what_ended_is_known_with_its_outcome(self) -> None:
        self.begin()
        handle = self.bench.queue(b"f", b"u", b"data")
        self.bench.advance(3)
        self.bench.grab(self.worker)
        self.bench.advance(4)
        self.broker.complete(self.worker, handle, b"")
        entry = self.history(handle)
        self.assertEqual(
            (
                entry.outcome,
                entry.worker,
                entry.job.started,
                entry.ended,
                entry.job.submitted,
                entry.job.data,
            ),
            (None, b"w", self.bench.wall() - 4, self.bench.wall(), self.bench.wall() - 7, b""),
        )
        self.assertFalse(self.bench.inspection.status(handle).known)

    def test_its_failed_runs_and_warnings_are_known(self) -> None:
        self.begin(attempts=2)
        handle = self.bench.queue(b"f")
        job = self.bench.grab(self.worker)
        self.broker.report_warning(self.worker, handle, b"careful")
        self.broker.exception(self.worker, handle, b"first")
        self.bench.advance(10)
        self.raise_in(handle, b"second")
        entry = self.history(handle)
        failures = entry.job.failures
        assert failures is not None
        self.assertEqual([run.error for run in failures.runs], [b"first", b"second"])
        self.assertEqual((list(failures.warnings), entry.outcome), ([b"careful"], Outcome.RAISED))
        self.assertIs(entry.job, job)

    def test_it_is_bounded(self) -> None:
        self.bench = Bench(Policy(handle_prefix=b"H:t", history=3))
        self.broker, self.worker = self.bench.broker, self.bench.worker("w", b"f")
        for _ in range(5):
            self.broker.cancel(self.bench.queue(b"f"))
        assert self.broker.ended_jobs.history is not None
        self.assertEqual(len(self.broker.ended_jobs.history), 3)

    def test_its_bytes_are_bounded(self) -> None:
        self.bench = Bench(Policy(handle_prefix=b"H:t", history_bytes=40_000))
        self.broker, self.worker = self.bench.broker, self.bench.worker("w", b"f")
        for _ in range(10):
            self.raise_in(self.bench.queue(b"f"), b"x" * 8000)
        assert self.broker.ended_jobs.history is not None
        self.assertEqual(len(self.broker.ended_jobs.history), 1)
        self.assertLessEqual(self.broker.ended_jobs.history.size, 20_000)

    def test_it_can_be_off(self) -> None:
        self.bench = Bench(Policy(handle_prefix=b"H:t", history=0))
        self.broker, self.worker = self.bench.broker, self.bench.worker("w", b"f")
        self.broker.cancel(self.bench.queue(b"f"))
        self.assertIsNone(self.broker.ended_jobs.history)
