"""What a submit says of its job alone: it holds for this job, over what its function says, as long as it
lives, dead or in a store."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import Bench, KeeperNotes, said
from txgearman.broker.dead_job import DeadFilter, DeadPage
from txgearman.broker.entities import Job
from txgearman.broker.job_options import (
    MAX_ATTEMPTS,
    MAX_SECONDS,
    JobOptions,
    decode_options,
    traceparent_from,
)
from txgearman.broker.job_states import JobState, Outcome, Priority
from txgearman.broker.policy import FunctionRules, Policy
from txgearman.broker.stored_job import StoredJob
from txgearman.errors import InvalidArgument

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class ValueTests(SynchronousTestCase):
    def test_bounds(self) -> None:
        for name in ("expires", "backoff", "keep_result", "unique_for"):
            for value in (0, 0.5, MAX_SECONDS):
                JobOptions(**{name: value})
            for value in (-0.001, MAX_SECONDS + 1, float("nan"), float("inf")):
                with self.subTest(name, value=value), self.assertRaisesRegex(InvalidArgument, name):
                    JobOptions(**{name: value})
        for value in (1, MAX_ATTEMPTS):
            JobOptions(attempts=value)
        for value in (0, -1, MAX_ATTEMPTS + 1):
            with self.subTest(value=value), self.assertRaisesRegex(InvalidArgument, "attempts"):
                JobOptions(attempts=value)

    def test_what_is_stored_comes_back(self) -> None:
        largest = JobOptions(
            123456789.12345678, MAX_ATTEMPTS, 1 / 3, MAX_SECONDS - 1 / 3, MAX_SECONDS - 0.1, TRACEPARENT
        )
        for options in (JobOptions(), largest, JobOptions(expires=0), JobOptions(attempts=2, backoff=0.5)):
            encoded = options.encode()
            self.assertEqual(decode_options(encoded), options)
            self.assertLessEqual(len(encoded), 300)
        self.assertNotIn(None, [getattr(largest, each.name) for each in fields(largest)])
        self.assertIsNone(decode_options(None))

    def test_of_what_a_newer_server_stored_the_known_part_is_read(self) -> None:
        self.assertEqual(decode_options(b'{"attempts":3,"new":[1]}'), JobOptions(attempts=3))

    def test_what_cannot_be_read_loses_no_job(self) -> None:
        for stored in (
            b"",
            b"{",
            b"\xff",
            b"[]",
            b"7",
            b'{"attempts":0}',
            b'{"expires":"x"}',
            b'{"traceparent":"x"}',
            b"[" * 100_000,
        ):
            self.assertIsNone(decode_options(stored), stored[:20])

    def test_traceparents(self) -> None:
        self.assertEqual(traceparent_from(TRACEPARENT), TRACEPARENT)
        later = "01" + TRACEPARENT[2:]
        self.assertEqual(traceparent_from(later), later)
        self.assertEqual(traceparent_from(later + "-what-may-come"), later)
        for malformed in (
            "",
            TRACEPARENT[:-1],
            TRACEPARENT + "-more",
            TRACEPARENT + "\n",
            later + "more",
            later + "-" + "x" * 500,
            "ff" + TRACEPARENT[2:],
            TRACEPARENT.upper(),
            TRACEPARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
            TRACEPARENT.replace("00f067aa0ba902b7", "0" * 16),
            TRACEPARENT.replace("-", "_"),
        ):
            self.assertIsNone(traceparent_from(malformed), malformed)


class JobOptionsTestCase(SynchronousTestCase):
    def begin(self, rules: FunctionRules | None = None, store: KeeperNotes | None = None, **how: Any) -> None:
        functions = () if rules is None else ((b"f", rules),)
        how.setdefault("jitter", 0.0)
        self.bench = Bench(Policy(handle_prefix=b"H:t", functions=functions, **how), job_store=store)
        self.broker = self.bench.broker
        self.worker = self.bench.worker("w", b"f")

    def fail(self) -> Job:
        """A worker gets the next job, and fails it."""
        job = self.bench.grab(self.worker)
        self.broker.fail(self.worker, job.handle)
        return job


class RetryTests(JobOptionsTestCase):
    def runs(self, options: JobOptions | None, background: bool = True) -> list[float]:
        """When runs of a job that always fails begin, in seconds from its submit."""
        began = self.bench.now
        self.client = self.bench.client()
        self.bench.submit(self.client, b"f", background=background, options=options)
        times = []
        for _ in range(4000):
            while (job := self.broker.grab(self.worker)) is not None:
                times.append(self.bench.now - began)
                self.broker.fail(self.worker, job.handle)
            self.bench.advance(1)
        return times

    def test_attempts_and_backoff_without_rules_of_the_function(self) -> None:
        self.begin(backoff=100.0)
        self.assertEqual(self.runs(None), [0])
        self.assertEqual(self.runs(JobOptions(attempts=3)), [0, 100, 300])
        self.assertEqual(self.runs(JobOptions(attempts=3, backoff=5)), [0, 5, 15])
        # A backoff alone makes no retries.
        self.assertEqual(self.runs(JobOptions(backoff=5)), [0])
        self.assertEqual(self.runs(JobOptions(expires=3000)), [0])

    def test_they_are_over_those_of_the_function(self) -> None:
        self.begin(FunctionRules(attempts=4, backoff=10.0, backoff_factor=1.0, backoff_max=50.0))
        self.assertEqual(self.runs(JobOptions(expires=3000)), [0, 10, 20, 30])
        self.assertEqual(self.runs(JobOptions(attempts=2)), [0, 10])
        self.assertEqual(self.runs(JobOptions(attempts=1)), [0])
        self.assertEqual(self.runs(JobOptions(backoff=20)), [0, 20, 40, 60])
        # The longest one is the operator's.
        self.assertEqual(self.runs(JobOptions(attempts=2, backoff=1000)), [0, 50])

    def test_who_waits_for_a_job_with_attempts_waits_for_all(self) -> None:
        self.begin()
        self.assertEqual(self.runs(JobOptions(attempts=3, backoff=5), background=False), [0, 5, 15])
        *retries, failed = said(self.client)
        self.assertEqual([note[0] for note in retries], ["retrying", "retrying"])
        self.assertEqual(failed[0], "failed")

    def test_a_time_limit_counts_as_a_failed_run(self) -> None:
        self.begin(FunctionRules(time_limit=2.0))
        handle = self.bench.queue(b"f", options=JobOptions(attempts=2, backoff=1))
        job = self.bench.grab(self.worker)
        self.assertEqual(job.handle, handle)
        self.bench.advance(2)
        self.assertIs(job.state, JobState.RETRYING)
        # Without attempts it is a lost worker.
        self.bench.queue(b"f", options=JobOptions(expires=1000))
        job = self.bench.grab(self.worker)
        self.bench.advance(2)
        self.assertIs(job.state, JobState.QUEUED)
        self.assertEqual(job.losses, 1)

    def test_a_dead_job_that_is_retried_keeps_its_options(self) -> None:
        self.begin()
        options = JobOptions(attempts=2, backoff=1, expires=500)
        handle = self.bench.queue(b"f", options=options)
        for _ in range(2):
            self.fail()
            self.bench.advance(1)
        pages: list[Any] = []
        self.bench.dead.page(DeadFilter(), None, 9, True, pages.append)
        (page,) = pages
        assert isinstance(page, DeadPage)
        self.assertEqual([decode_options(dead.attributes) for dead in page.jobs], [options])
        self.bench.dead.retry(handle, pages.append)
        job = self.bench.grab(self.worker)
        self.assertEqual(job.options, options)


class ExpiryTests(JobOptionsTestCase):
    def test_a_job_expires_for_itself(self) -> None:
        self.begin()
        for delay, lasts in ((None, 10), (100, 110)):
            run_at = None if delay is None else self.bench.wall() + delay
            before = self.broker.functions.restored(b"f").uncompleted[Outcome.EXPIRED]
            self.bench.queue(b"f", options=JobOptions(expires=10), run_at=run_at)
            self.bench.advance(lasts - 0.1)
            self.assertEqual(self.broker.total, 1)
            self.bench.advance(0.1)
            self.assertEqual(self.broker.total, 0)
            self.assertEqual(self.broker.functions.restored(b"f").uncompleted[Outcome.EXPIRED], before + 1)

    def test_it_is_over_that_of_the_function(self) -> None:
        self.begin(FunctionRules(expires=10.0))
        for options, lasts in ((JobOptions(expires=20), 20), (JobOptions(expires=5), 5), (JobOptions(), 10)):
            self.bench.queue(b"f", options=options)
            self.bench.advance(lasts - 0.1)
            self.assertEqual(self.broker.total, 1, options)
            self.bench.advance(0.1)
            self.assertEqual(self.broker.total, 0, options)

    def test_never(self) -> None:
        self.begin(FunctionRules(expires=10.0))
        handle = self.bench.queue(b"f", options=JobOptions(expires=0))
        self.bench.advance(10_000)
        self.assertEqual(self.bench.handles(self.worker), [handle])

    def test_between_two_runs(self) -> None:
        self.begin()
        self.bench.queue(b"f", options=JobOptions(expires=10, attempts=9, backoff=100))
        job = self.fail()
        self.bench.advance(10)
        self.assertIs(job.state, JobState.GONE)
        self.assertEqual([dead.outcome for dead in self.bench.deaths], [Outcome.FAILED])


class SubmitTests(JobOptionsTestCase):
    def test_a_priority_beside_a_time(self) -> None:
        self.begin()
        when = self.bench.wall() + 10
        order = (Priority.LOW, Priority.NORMAL, Priority.HIGH)
        low, normal, high = (self.bench.queue(b"f", priority=int(each), run_at=when) for each in order)
        self.bench.advance(10)
        self.assertEqual(self.bench.handles(self.worker), [high, normal, low])

    def test_a_duplicate_changes_no_options(self) -> None:
        self.begin()
        first = self.bench.queue(b"f", b"u", options=JobOptions(attempts=2))
        self.assertEqual(self.bench.queue(b"f", b"u", options=JobOptions(attempts=9)), first)
        self.assertEqual(self.bench.grab(self.worker).options, JobOptions(attempts=2))


class StoredTests(JobOptionsTestCase):
    def test_they_are_stored_and_restored(self) -> None:
        """The places that make a live job of a stored one share `Lifecycle.revive`; this is one of them."""
        options = JobOptions(attempts=2, backoff=1, expires=30)
        self.begin(store=KeeperNotes())
        self.bench.answers.restore(
            StoredJob(7, 7, b"H:t:7", b"f", b"", b"", 1, None, 0, self.bench.wall(), None, options.encode())
        )
        job = self.fail()
        self.assertEqual((job.options, job.state), (options, JobState.RETRYING))

    def test_a_foreground_job_that_is_looked_up_first_keeps_its_time_and_options(self) -> None:
        store = KeeperNotes()
        self.begin(store=store, in_memory=1)
        for _ in range(3):
            self.broker.submit(self.bench.client(), b"f", b"", b"", background=True)
            self.bench.answers.saved(store.saves.pop())
        when = self.bench.wall() + 5
        options = JobOptions(expires=7)
        client = self.bench.client()
        self.broker.submit(client, b"f", b"u", b"", run_at=when, options=options)
        store.searches.pop()[-1](None)
        job = self.broker.life.handles.get(said(client)[-1][-1])
        assert job is not None
        self.assertEqual((job.run_at, job.options, job.state), (when, options, JobState.SCHEDULED))
