"""Results of background jobs: what is kept, for how long, and what is said where nothing is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import Bench, KeeperNotes, leftovers, said
from txgearman.broker.entities import Job
from txgearman.broker.job_options import JobOptions
from txgearman.broker.job_states import Outcome
from txgearman.broker.kept_result import MAX_RESULT_BYTES, RESULT_OVERHEAD, KeptResult, ResultCounts
from txgearman.broker.policy import FunctionRules, Policy
from txgearman.broker.result_lookup import FoundResult, ResultLookup, ResultState
from txgearman.broker.results import _SLACK, PART_OVERHEAD, ResultsInMemory
from txgearman.errors import NotSaved


class ResultCase(SynchronousTestCase):
    def begin(self, store: KeeperNotes | None = None, results_bytes: int = 1 << 26, **rules: Any) -> None:
        rules.setdefault("keep_results", 60.0)
        self.policy = Policy(
            handle_prefix=b"H:t",
            functions=((b"f", FunctionRules(**rules)),),
            results_bytes=results_bytes,
        )
        self.bench = Bench(self.policy, job_store=store)
        self.broker = self.bench.broker
        self.ended: list[bytes] = []
        self.broker.ended_jobs.results.listener = self.ended.append
        self.worker = self.bench.worker("w", b"f", b"g")

    def find(self, handle: bytes) -> FoundResult:
        told: list[Any] = []
        ResultLookup(self.broker).find(handle, told.append)
        (found,) = told
        assert isinstance(found, FoundResult), found
        return found

    def state(self, handle: bytes) -> str:
        return self.find(handle).state.value

    def run_job(self, *parts: bytes, function: bytes = b"f", last: bytes = b"") -> bytes:
        """A background job that is done; returns its handle."""
        handle = self.bench.queue(function)
        self.bench.grab(self.worker)
        for part in parts:
            self.broker.report_data(self.worker, handle, part)
        self.broker.complete(self.worker, handle, last)
        return handle

    def counts(self) -> ResultCounts:
        return self.broker.ended_jobs.result_store.counts()

    def assert_nothing_collected(self) -> None:
        self.assertNotIn("results of running jobs", leftovers(self.broker))
        self.assertNotIn("bytes of these", leftovers(self.broker))


class OptionTests(ResultCase):
    """The option ``keep_result`` of a job, in place of what is said for its function."""

    def test_nothing_is_left_of_a_run_that_was_lost(self) -> None:
        """In a function that keeps none: the ways in which a run ends without a result."""
        for end in ("fail", "lost", "cancel"):
            with self.subTest(end):
                self.begin(keep_results=None)
                handle = self.bench.queue(b"f", options=JobOptions(keep_result=60.0))
                self.bench.grab(self.worker)
                self.broker.report_data(self.worker, handle, b"part")
                self.assertIn("bytes of these", leftovers(self.broker))
                if end == "fail":
                    self.broker.fail(self.worker, handle)
                elif end == "lost":
                    self.broker.leave_worker(self.worker)
                else:
                    self.broker.cancel(handle)
                self.assert_nothing_collected()

    def test_it_outlives_a_reload_that_keeps_none_of_the_function(self) -> None:
        self.begin()
        handles = [
            self.bench.queue(b"f", options=options) for options in (JobOptions(keep_result=60.0), None)
        ]
        for handle in handles:
            self.bench.grab(self.worker)
            self.broker.report_data(self.worker, handle, b"part ")
        self.bench.administration.change_policy(replace(self.policy, functions=()))
        for handle in handles:
            self.broker.complete(self.worker, handle, b"end")
        self.assertEqual(self.find(handles[0]).data, b"part end")
        self.assertEqual(self.state(handles[1]), "gone")
        self.assert_nothing_collected()


class KeepingTests(ResultCase):
    def test_parts_come_ahead_of_the_result(self) -> None:
        self.begin()
        handle = self.run_job(b"one ", b"", b"two ", last=b"three")
        self.assertEqual(self.find(handle), FoundResult(ResultState.COMPLETED, None, b"one two three"))
        self.assertEqual(self.ended, [handle])
        self.assert_nothing_collected()

    def test_while_the_job_waits_and_runs(self) -> None:
        self.begin(attempts=2, backoff=10.0)
        handle = self.bench.queue(b"f")
        self.assertEqual((self.state(handle), self.find(handle).reason), ("pending", "queued"))
        self.bench.grab(self.worker)
        self.assertEqual((self.state(handle), self.find(handle).reason), ("pending", "running"))
        self.broker.fail(self.worker, handle)
        self.assertEqual((self.state(handle), self.find(handle).reason), ("pending", "retrying"))

    def test_functions_that_do_not_say_so_keep_nothing(self) -> None:
        self.begin()
        handle = self.run_job(b"part", function=b"g", last=b"end")
        self.assertEqual((self.state(handle), self.find(handle).reason), ("gone", "completed"))
        self.assertEqual((self.ended, self.counts()), ([], ResultCounts(0, 0)))

    def test_online_jobs_keep_nothing(self) -> None:
        self.begin()
        handle = self.bench.submit(self.bench.client(), b"f")
        self.bench.grab(self.worker)
        self.broker.report_data(self.worker, handle, b"part")
        self.broker.complete(self.worker, handle, b"end")
        self.assertEqual((self.state(handle), self.counts()), ("gone", ResultCounts(0, 0)))
        self.assert_nothing_collected()

    def test_an_online_job_that_becomes_a_background_one(self) -> None:
        """What it sent before was not kept, so its result would not be whole."""
        for sent, state in (((), "completed"), ((b"part",), "too-large")):
            with self.subTest(sent):
                self.begin()
                handle = self.bench.submit(self.bench.client(), b"f", b"u")
                self.bench.grab(self.worker)
                for part in sent:
                    self.broker.report_data(self.worker, handle, part)
                self.assertEqual(self.bench.queue(b"f", b"u"), handle)
                self.broker.complete(self.worker, handle, b"end")
                self.assertEqual(self.state(handle), state)
                self.assert_nothing_collected()

    def test_a_run_that_failed_leaves_nothing_of_its_result(self) -> None:
        def fail(handle: bytes) -> None:
            self.broker.fail(self.worker, handle)

        def lose(_handle: bytes) -> None:
            self.broker.cant_do(self.worker, b"f")
            self.broker.can_do(self.worker, b"f")

        for end in (fail, lose):
            with self.subTest(end.__name__):
                self.begin(attempts=2, backoff=0.0)
                handle = self.bench.queue(b"f")
                self.bench.grab(self.worker)
                self.broker.report_data(self.worker, handle, b"half of it")
                end(handle)
                self.bench.advance(1)
                self.bench.grab(self.worker)
                self.broker.report_data(self.worker, handle, b"all ")
                self.broker.complete(self.worker, handle, b"of it")
                self.assertEqual(self.find(handle).data, b"all of it")
                self.assert_nothing_collected()

    def test_failed_jobs(self) -> None:
        self.begin()
        for outcome in (Outcome.FAILED, Outcome.RAISED):
            handle = self.bench.queue(b"f")
            self.bench.grab(self.worker)
            self.broker.report_data(self.worker, handle, b"part")
            if outcome is Outcome.FAILED:
                self.broker.fail(self.worker, handle)
            else:
                self.broker.exception(self.worker, handle, b"oh no")
            found = self.find(handle)
            self.assertEqual((found.state, found.reason), (ResultState.FAILED, outcome.name.lower()))
            self.assertEqual(found.data, b"" if outcome is Outcome.FAILED else b"oh no")
        self.assertEqual(len(self.ended), 2)
        self.assert_nothing_collected()

    def test_a_dead_job_that_runs_again(self) -> None:
        self.begin()
        handle = self.bench.queue(b"f")
        self.bench.grab(self.worker)
        self.broker.fail(self.worker, handle)
        self.bench.dead.retry(handle, lambda _refusal: None)
        self.assertEqual(self.state(handle), "pending")
        self.bench.grab(self.worker)
        self.broker.complete(self.worker, handle, b"at last")
        self.assertEqual(self.find(handle).data, b"at last")

    def test_jobs_that_others_ended(self) -> None:
        self.begin(expires=10.0)
        cancelled, expired = self.bench.queue(b"f"), self.bench.queue(b"f")
        self.bench.grab(self.worker)
        self.broker.report_data(self.worker, cancelled, b"part")
        self.broker.cancel(cancelled)
        self.bench.advance(10)
        for handle, reason in ((cancelled, "cancelled"), (expired, "expired")):
            self.assertEqual((self.state(handle), self.find(handle).reason), ("gone", reason))
        self.assertEqual(self.ended, [cancelled, expired])
        self.assert_nothing_collected()

    def test_what_nobody_knows(self) -> None:
        self.begin()
        self.run_job(last=b"x")
        for handle in (b"H:t:2", b"H:other:1", b"", b"no number", b"H:t:99999999999999999999999", b"\xff"):
            self.assertEqual(self.find(handle), FoundResult(ResultState.UNKNOWN), handle)


class LimitTests(ResultCase):
    def test_a_result_has_its_time(self) -> None:
        self.begin()
        handle = self.run_job(last=b"x")
        self.bench.advance(59.5)
        self.assertEqual(self.state(handle), "completed")
        self.bench.advance(0.5)
        self.assertEqual((self.state(handle), self.find(handle).reason), ("gone", "completed"))
        store = self.broker.ended_jobs.result_store
        self.assertEqual((store.expired, store.evicted, self.counts()), (1, 0, ResultCounts(0, 0)))

    def test_the_oldest_go_first(self) -> None:
        weight = RESULT_OVERHEAD + 10
        self.begin(results_bytes=3 * weight)
        handles = [self.run_job(last=b"x" * 10) for _ in range(3)]
        self.assertEqual([self.state(handle) for handle in handles], ["completed"] * 3)
        handles.append(self.run_job(last=b"x" * 10))
        self.assertEqual([self.state(handle) for handle in handles], ["gone"] + ["completed"] * 3)
        store = self.broker.ended_jobs.result_store
        self.assertEqual((store.expired, store.evicted, self.counts()), (0, 1, ResultCounts(3, 3 * weight)))

    def test_the_largest_result(self) -> None:
        """At the limit and one past it; a part counts more than its bytes."""
        self.begin()
        room = MAX_RESULT_BYTES - PART_OVERHEAD
        for parts, last, state in (
            ((), MAX_RESULT_BYTES, "completed"),
            ((), MAX_RESULT_BYTES + 1, "too-large"),
            ((room,), PART_OVERHEAD, "completed"),
            ((room,), PART_OVERHEAD + 1, "too-large"),
            ((room + 1,), 0, "too-large"),
            ((room + 1, 1), 0, "too-large"),
        ):
            with self.subTest(parts=parts, last=last):
                handle = self.run_job(*(bytes(part) for part in parts), last=bytes(last))
                self.assertEqual(self.state(handle), state)
                self.assert_nothing_collected()
        self.assertEqual(self.broker.ended_jobs.results.too_large, 4)

    def test_empty_parts_do_not_fill_the_memory(self) -> None:
        self.begin(results_bytes=10 * PART_OVERHEAD)
        for parts, state in ((10, "completed"), (11, "too-large")):
            self.assertEqual(self.state(self.run_job(*[b""] * parts)), state)

    def test_all_running_jobs_together(self) -> None:
        self.begin(results_bytes=3000)
        first, second = self.bench.queue(b"f"), self.bench.queue(b"f")
        for _ in range(2):
            self.bench.grab(self.worker)
        self.broker.report_data(self.worker, first, bytes(2000))
        self.broker.report_data(self.worker, second, bytes(1000))
        for handle, state in ((first, "completed"), (second, "too-large")):
            self.broker.complete(self.worker, handle, b"")
            self.assertEqual(self.state(handle), state)
        self.assert_nothing_collected()

    def test_without_room_nothing_is_kept(self) -> None:
        self.begin(results_bytes=0)
        self.assertEqual(self.state(self.run_job(b"part")), "gone")

    def test_another_policy(self) -> None:
        self.begin()
        kept = self.run_job(last=b"x")
        running = self.bench.queue(b"f")
        self.bench.grab(self.worker)
        self.broker.report_data(self.worker, running, b"part")
        self.bench.administration.change_policy(Policy(handle_prefix=b"H:t"))
        self.assert_nothing_collected()
        self.broker.complete(self.worker, running, b"")
        self.assertEqual((self.state(kept), self.state(running)), ("completed", "gone"))
        self.bench.administration.change_policy(Policy(handle_prefix=b"H:t", results_bytes=0))
        self.assertEqual(self.state(kept), "gone")

    def test_the_times_of_evicted_results_are_forgotten_too(self) -> None:
        memory = ResultsInMemory(2 * RESULT_OVERHEAD, lambda: 0.0)
        for number in range(10 * _SLACK):
            memory.add(KeptResult(number, b"h", b"f", 0.0, 1000.0 - number, b"", b"", 1, 0.0, 0, 0))
            self.assertLessEqual(len(memory._expiries), _SLACK + 2 * 2)


class StoredTests(ResultCase):
    """With something that stores jobs."""

    def begin_stored(self) -> KeeperNotes:
        store = KeeperNotes()
        self.begin(store)
        return store

    def submitted(self, unique: bytes = b"") -> Job:
        """A background job that waits to be saved."""
        client = self.bench.client()
        self.broker.submit(client, b"f", unique, b"data", background=True)
        return self.broker.life.job_store.saves[-1]  # type: ignore[union-attr]

    def test_the_store_is_told_of_the_end_and_the_result_at_once(self) -> None:
        store = self.begin_stored()
        job = self.submitted()
        self.bench.answers.saved(job)
        self.bench.grab(self.worker)
        self.broker.report_data(self.worker, job.handle, b"part ")
        self.broker.complete(self.worker, job.handle, b"end")
        now = self.bench.wall()
        self.assertEqual(
            store.results, [KeptResult(1, b"H:t:1", b"f", now, now + 60.0, b"part end", b"", 1, now, 0, 0)]
        )
        self.assertEqual(store.removed, [])

    def running_unsaved(self) -> Job:
        """A job that runs for a client and is to be saved for another."""
        self.bench.submit(self.bench.client(), b"f", b"u")
        job = self.bench.grab(self.worker)
        self.broker.submit(self.bench.client(), b"f", b"u", b"", background=True)
        self.broker.complete(self.worker, job.handle, b"end")
        return job

    def test_a_job_that_is_done_before_it_is_saved(self) -> None:
        store = self.begin_stored()
        job = self.running_unsaved()
        self.assertEqual(store.results, [])
        self.bench.answers.saved(job)
        self.assertEqual([kept.data for kept in store.results], [b"end"])
        self.assertEqual(store.removed, [])
        self.assertNotIn("unsaved results", leftovers(self.broker))

    def test_results_that_wait_for_a_slow_store_have_a_limit(self) -> None:
        """At the limit, and one byte past it. There is room again once one is saved."""
        one = RESULT_OVERHEAD + len(b"end")
        for limit, whole in ((2 * one, 2), (2 * one - 1, 1)):
            store = KeeperNotes()
            self.begin(store, results_bytes=limit)
            jobs = [self.running_unsaved() for _ in range(4)]
            for job in jobs:
                self.bench.answers.saved(job)
            kept = [b"end" if number < whole else None for number in range(4)]
            self.assertEqual([result.data for result in store.results], kept)
            self.assertEqual(self.broker.ended_jobs.results.too_large, 4 - whole)
            self.bench.answers.saved(self.running_unsaved())
            self.assertEqual(store.results[-1].data, b"end")

    def test_a_job_that_is_done_and_cannot_be_saved(self) -> None:
        store = self.begin_stored()
        self.bench.answers.not_saved(self.running_unsaved(), NotSaved())
        self.bench.answers.stored_before(self.running_unsaved(), b"H:t:9", 1)
        self.assertEqual(store.results, [])
        self.assertNotIn("unsaved results", leftovers(self.broker))

    def test_a_job_that_is_another_servers_by_now(self) -> None:
        store = self.begin_stored()
        job = self.submitted()
        self.bench.answers.saved(job)
        self.bench.grab(self.worker)
        self.broker.report_data(self.worker, job.handle, b"part")
        self.bench.answers.disown(1000)
        self.broker.complete(self.worker, job.handle, b"end")
        self.assertEqual((store.results, store.removed), ([], []))
        self.assert_nothing_collected()

    def test_clients_are_told_as_ever(self) -> None:
        self.begin_stored()
        client = self.bench.client()
        handle = self.bench.submit(client, b"f", b"u")
        self.bench.grab(self.worker)
        self.broker.submit(self.bench.client(), b"f", b"u", b"", background=True)
        self.broker.report_data(self.worker, handle, b"part")
        self.broker.complete(self.worker, handle, b"end")
        self.assertEqual(said(client), [("data", handle, b"part"), ("completed", handle, b"end")])
