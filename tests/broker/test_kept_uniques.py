"""Uniques that are kept for a time after their job's completion: submits with one do not run."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import Bench, KeeperNotes, said
from txgearman.broker.entities import Client
from txgearman.broker.job_options import JobOptions
from txgearman.broker.kept_unique import KeptUnique, unique_key
from txgearman.broker.policy import FunctionRules, Policy
from txgearman.errors import JobNotFound, TooManyUniques, UniqueKept

HOUR = JobOptions(unique_for=3600)


class KeyTests(SynchronousTestCase):
    def test_which_are_the_same(self) -> None:
        self.assertEqual(unique_key(b"u", b"data"), b"u")
        self.assertIsNone(unique_key(b"", b"data"))
        self.assertIsNone(unique_key(b"-", b""))
        key = unique_key(b"-", b"data")
        assert key is not None
        self.assertEqual(len(key), 33)
        self.assertTrue(key.startswith(b"\0"))
        self.assertNotEqual(unique_key(b"-", b"other"), key)


class KeptUniqueTestCase(SynchronousTestCase):
    def begin(self, unique_for: float | None = None, store: KeeperNotes | None = None, **how: Any) -> None:
        functions = ((b"f", FunctionRules(unique_for=unique_for)),)
        self.bench = Bench(Policy(handle_prefix=b"H:t", functions=functions, **how), job_store=store)
        self.broker = self.bench.broker
        self.worker = self.bench.worker("w", b"f", b"g")

    def done(self, unique: bytes, data: bytes = b"", **how: Any) -> bytes:
        """The handle of a job that was submitted and completed."""
        handle = self.bench.queue(b"f", unique, data, **how)
        self.assertEqual(self.bench.handles(self.worker), [handle])
        return handle


class AnswerTests(KeptUniqueTestCase):
    def test_for_so_long_a_submit_is_answered_with_the_job_and_does_not_run(self) -> None:
        self.begin()
        handle = self.done(b"u", options=HOUR)
        self.bench.advance(3599.9)
        for options in (None, HOUR, JobOptions(unique_for=0)):
            self.assertEqual(self.bench.queue(b"f", b"u", options=options), handle)
        self.assertEqual((self.broker.total, self.bench.handles(self.worker)), (0, []))
        self.bench.advance(0.1)
        self.assertNotEqual(self.done(b"u"), handle)

    def test_who_would_wait_for_a_result_is_refused(self) -> None:
        self.begin()
        handle = self.done(b"u", options=HOUR)
        client = self.bench.client()
        with self.assertRaises(UniqueKept) as raised:
            self.broker.submit(client, b"f", b"u", b"")
        self.assertEqual(raised.exception.code, b"UNIQUE_KEPT")
        self.assertEqual(raised.exception.text, f"Job was completed before, as {handle.decode()}")
        self.assertEqual((said(client), client.jobs, self.broker.total), ([], {}, 0))

    def test_others_are_not_concerned(self) -> None:
        self.begin()
        self.done(b"u", options=HOUR)
        self.bench.queue(b"f", b"v")
        self.bench.queue(b"g", b"u")
        self.bench.queue(b"f")
        self.assertEqual(len(self.bench.handles(self.worker)), 3)

    def test_by_function(self) -> None:
        self.begin(unique_for=60.0)
        first = self.done(b"u")
        self.assertEqual(self.bench.queue(b"f", b"u"), first)
        # What a job says of itself is over that.
        self.done(b"v", options=JobOptions(unique_for=0))
        self.done(b"v", options=JobOptions(unique_for=120))
        self.bench.advance(60)
        self.done(b"u")
        with self.assertRaises(UniqueKept):
            self.broker.submit(self.bench.client(), b"f", b"v", b"")

    def test_the_data_as_the_unique(self) -> None:
        self.begin(unique_for=60.0)
        handle = self.done(b"-", b"data")
        self.assertEqual(self.bench.queue(b"f", b"-", b"data"), handle)
        self.done(b"-", b"other")
        self.done(b"", b"data")
        # Without data such jobs are never the same.
        self.done(b"-", b"")
        self.done(b"-", b"")

    def test_a_foreground_job_keeps_its_unique_too(self) -> None:
        self.begin()
        handle = self.bench.submit(self.bench.client(), b"f", b"u", options=HOUR)
        self.bench.handles(self.worker)
        self.assertEqual(self.bench.queue(b"f", b"u"), handle)

    def test_only_a_job_that_is_completed_keeps_it(self) -> None:
        """All other ends go through `Lifecycle.discard`: failed, raised, cancelled, and so on."""
        self.begin(dead_jobs=0)
        for end in (
            lambda handle: self.broker.fail(self.worker, handle),
            lambda handle: self.broker.exception(self.worker, handle, b""),
            self.broker.cancel,
        ):
            self.bench.queue(b"f", b"u", options=HOUR)
            end(self.bench.grab(self.worker).handle)
        self.bench.queue(b"f", b"u", options=JobOptions(unique_for=60, expires=1))
        self.bench.advance(1)
        self.assertEqual(self.broker.total, 0)
        self.done(b"u")

    def test_the_live_job_comes_first(self) -> None:
        """A dead job that is retried may have the unique of one that was completed since."""
        self.begin()
        dead = self.bench.queue(b"f", b"u")
        self.broker.fail(self.worker, self.bench.grab(self.worker).handle)
        self.done(b"u", options=HOUR)
        self.bench.dead.retry(dead, lambda _: None)
        client: Client = self.bench.client()
        self.assertEqual(self.bench.submit(client, b"f", b"u"), dead)
        self.assertEqual(self.bench.handles(self.worker), [dead])
        self.assertEqual([note[:2] for note in said(client)], [("completed", dead)])

    def test_they_outlive_their_function(self) -> None:
        self.begin()
        handle = self.done(b"u", options=HOUR)
        self.broker.leave_worker(self.worker)
        self.bench.administration.drop_function(b"f")
        self.assertEqual(self.bench.queue(b"f", b"u"), handle)

    def test_the_late_report_is_refused_as_ever(self) -> None:
        self.begin()
        handle = self.done(b"u", options=HOUR)
        with self.assertRaises(JobNotFound):
            self.broker.complete(self.bench.worker("other", b"f"), handle, b"")


class LimitTests(KeptUniqueTestCase):
    def test_over_the_limit_no_job_is_taken_whose_unique_is_to_be_kept(self) -> None:
        self.begin(max_kept_uniques=2)
        kept = self.broker.ended_jobs.kept_uniques
        self.done(b"a", options=HOUR)
        self.bench.queue(b"f", b"b", options=HOUR)
        # Accepted ahead of the limit.
        self.bench.queue(b"f", b"c", options=HOUR)
        self.bench.handles(self.worker)
        self.assertEqual(len(kept), 3)
        with self.assertRaises(TooManyUniques) as raised:
            self.bench.queue(b"f", b"d", options=HOUR)
        self.assertEqual(raised.exception.code, b"QUEUE_ERROR")
        self.assertEqual(kept.refused, 1)
        # Nothing else is refused, and what is kept stays so.
        self.bench.queue(b"f", b"b")
        self.done(b"d")
        self.done(b"", options=HOUR)
        self.done(b"e", options=JobOptions(unique_for=0, attempts=2))
        self.bench.advance(3600)
        self.done(b"d", options=HOUR)
        self.assertEqual(len(kept), 1)

    def test_one_that_is_kept_anew_is_forgotten_once(self) -> None:
        self.begin()
        kept = self.broker.ended_jobs.kept_uniques
        now = self.bench.wall()
        kept.keep(KeptUnique(b"f", b"u", b"H:1", now + 10))
        kept.keep(KeptUnique(b"f", b"u", b"H:2", now + 20))
        self.bench.advance(10)
        self.assertEqual(self.bench.queue(b"f", b"u"), b"H:2")
        self.bench.advance(10)
        kept.keep(KeptUnique(b"g", b"u", b"H:3", now + 30))
        self.assertEqual((list(kept.by_function), len(kept)), ([b"g"], 1))


class StoreTests(KeptUniqueTestCase):
    def test_the_store_is_told_ahead_of_the_removal(self) -> None:
        store = KeeperNotes()
        self.begin(store=store)
        client = self.bench.client()
        self.broker.submit(client, b"f", b"u", b"", background=True, options=HOUR)
        self.bench.answers.saved(store.saves.pop())
        handle = said(client)[-1][-1]
        order: list[object] = []
        store.keep_unique = order.append  # type: ignore[method-assign]
        store.remove = lambda number, just_now=True: order.append(number)  # type: ignore[method-assign]
        self.assertEqual(self.bench.handles(self.worker), [handle])
        until = self.bench.wall() + 3600
        self.assertEqual(order, [KeptUnique(b"f", b"u", handle, until), 1])

    def test_a_foreground_job_that_is_not_stored(self) -> None:
        store = KeeperNotes()
        self.begin(store=store, unique_for=60.0)
        handle = self.bench.submit(self.bench.client(), b"f", b"u")
        self.bench.handles(self.worker)
        self.assertEqual(store.kept, [KeptUnique(b"f", b"u", handle, self.bench.wall() + 60)])
        # Nothing is saved for what does not run.
        self.assertEqual(self.bench.queue(b"f", b"u"), handle)
        self.assertEqual(store.saves, [])
