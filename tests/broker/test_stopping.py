"""A worker that has asked for it is told when a job that it runs is to stop; any other is told nothing.

These take a running job from its worker: `Broker.cancel` (alone, by `cancel_some`, or after a search in the
store), the time limit, the last client that leaves, an unsaved job without clients, a lost lease, and
`Broker.cant_do` where the access policy calls it. A worker that does it itself, by CANT_DO or by
RESET_ABILITIES or by leaving, is told nothing.
"""

from __future__ import annotations

from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import Bench, KeeperNotes, WorkerNotes, leftovers, said
from txgearman.broker.entities import MAX_CANCELLED, Client, Worker
from txgearman.broker.job_states import Outcome
from txgearman.broker.policy import FunctionRules, Policy
from txgearman.broker.stopping import ABANDONED, CANCELLED, DENIED, TAKEN_OVER, TIMED_OUT
from txgearman.errors import JobNotFound, NotSaved

HANDLE = b"H:t:1"


class StoppingTestCase(SynchronousTestCase):
    """Has a bench with a store, and a worker that can be told if `hears_cancel`."""

    hears_cancel: ClassVar[bool]

    def setUp(self) -> None:
        self.begin(Policy(handle_prefix=b"H:t"))

    def begin(self, policy: Policy) -> None:
        self.bench = Bench(policy, job_store=KeeperNotes())
        self.broker = self.bench.broker
        self.client: Client = self.bench.client()
        self.worker: Worker = self.bench.worker("w", b"f", hears_cancel=self.hears_cancel)

    @property
    def notes(self) -> WorkerNotes:
        connection = self.worker.connection
        assert isinstance(connection, WorkerNotes)
        return connection

    def run_online(self, client: Client | None = None) -> bytes:
        """A foreground job that the worker runs."""
        handle = self.bench.submit(client or self.client, b"f")
        self.assertEqual(self.bench.grab(self.worker).handle, handle)
        return handle

    def run_offline(self) -> bytes:
        """A stored background job that the worker runs."""
        self.broker.submit(self.client, b"f", b"u", b"", background=True)
        store = self.broker.life.job_store
        assert isinstance(store, KeeperNotes)
        self.bench.answers.saved(store.saves.pop())
        said(self.client)
        return self.bench.grab(self.worker).handle

    def outcomes(self) -> dict[Outcome, int]:
        counts = self.broker.functions.by_name[b"f"].uncompleted
        return {outcome: counts[outcome] for outcome in Outcome if counts[outcome]}

    def report_all(self, handle: bytes) -> None:
        """What a worker may have sent ahead of what it is told: nothing of it is an error."""
        self.broker.report_data(self.worker, handle, b"part")
        self.broker.report_status(self.worker, handle, b"1", b"2")
        self.broker.complete(self.worker, handle, b"late")
        self.broker.fail(self.worker, handle)


class ToldTests(StoppingTestCase):
    hears_cancel = True

    def assert_told(self, handle: bytes, reason: bytes) -> None:
        """The worker was told once, its reports are dropped, and it works on."""
        self.assertEqual(self.notes.cancelled, [(handle, reason)])
        self.assertNotIn(handle, self.worker.jobs)
        self.report_all(handle)
        self.notes.cancelled.clear()

    def test_cancel(self) -> None:
        handle = self.run_online()
        self.broker.cancel(handle)
        self.assert_told(handle, CANCELLED)
        self.assertEqual(said(self.client), [("failed", handle)])
        self.assertEqual(self.outcomes(), {Outcome.CANCELLED: 1})

    def test_force_spares_the_connection(self) -> None:
        handle, other = self.run_online(), self.run_online()
        self.broker.cancel(handle, True)
        self.assert_told(handle, CANCELLED)
        self.assertFalse(self.notes.disconnected)
        self.assertEqual(list(self.worker.jobs), [other])

    def test_all_of_a_function(self) -> None:
        handles = [self.run_online() for _ in range(MAX_CANCELLED)]
        self.bench.administration.cancel_some(b"f", 0, self.bench.inspection.last_number)
        self.assertEqual(self.notes.cancelled, [(handle, CANCELLED) for handle in handles])
        # Each may have been reported on just before.
        for handle in handles:
            self.report_all(handle)

    def test_time_limit(self) -> None:
        self.broker.can_do(self.worker, b"f", 5.0)
        handle = self.run_offline()
        self.bench.advance(5)
        self.assert_told(handle, TIMED_OUT)
        # It is queued again, and even this worker may have it.
        self.assertEqual(self.bench.grab(self.worker).handle, handle)
        self.broker.complete(self.worker, handle, b"")
        self.assertEqual(self.broker.total, 0)

    def test_a_time_limit_that_is_a_failed_run(self) -> None:
        for attempts, left in ((1, 0), (2, 1)):
            with self.subTest(attempts=attempts):
                rules = FunctionRules(attempts=attempts, time_limit=5.0)
                self.begin(Policy(handle_prefix=b"H:t", functions=((b"f", rules),)))
                handle = self.run_offline()
                self.bench.advance(5)
                self.assert_told(handle, TIMED_OUT)
                self.assertEqual(self.broker.total, left)

    def test_the_last_client_leaves(self) -> None:
        handle = self.run_online()
        other = self.bench.client()
        self.broker.watch(other, handle)
        self.broker.leave_client(self.client)
        self.assertEqual(self.notes.cancelled, [], "somebody waits still")
        self.broker.leave_client(other)
        self.assert_told(handle, ABANDONED)
        self.assertEqual(self.outcomes(), {Outcome.ABANDONED: 1})
        self.broker.leave_worker(self.worker)
        self.assertEqual(leftovers(self.broker), {})

    def test_an_offline_job_goes_on_without_clients(self) -> None:
        handle = self.run_offline()
        self.broker.watch(self.client, handle)
        self.broker.leave_client(self.client)
        self.assertEqual(self.notes.cancelled, [])
        self.assertEqual(self.broker.complete(self.worker, handle, b""), 0)

    def test_a_job_that_could_not_be_saved_when_its_last_client_has_left(self) -> None:
        self.bench.submit(self.client, b"f", b"u")
        job = self.bench.grab(self.worker)
        self.broker.submit(self.bench.client(), b"f", b"u", b"", background=True)
        self.broker.leave_client(self.client)
        self.assertEqual(self.notes.cancelled, [], "it may be wanted still")
        self.bench.answers.not_saved(job, NotSaved())
        self.assert_told(job.handle, ABANDONED)
        self.assertEqual(self.outcomes(), {Outcome.ABANDONED: 1})

    def test_a_lost_lease(self) -> None:
        stored, online = self.run_offline(), self.run_online()
        self.bench.answers.disown(1000)
        self.assert_told(stored, TAKEN_OVER)
        self.assertEqual(list(self.worker.jobs), [online], "no other server has this one")
        self.assertEqual(self.outcomes(), {Outcome.TAKEN_OVER: 1})

    def test_a_lost_lease_beside_a_client_that_waits_here(self) -> None:
        handle = self.run_offline()
        self.broker.watch(self.client, handle)
        self.bench.answers.disown(1000)
        self.assertEqual(self.notes.cancelled, [])
        self.broker.complete(self.worker, handle, b"done")
        self.assertEqual(said(self.client), [("completed", handle, b"done")])

    def test_a_function_that_the_worker_may_not_do_any_more(self) -> None:
        handle = self.run_online()
        self.broker.cant_do(self.worker, b"f", DENIED)
        self.assert_told(handle, DENIED)
        self.assertEqual(self.bench.grab(self.bench.worker("other", b"f")).handle, handle)

    def test_not_what_the_worker_does_itself(self) -> None:
        for do in (
            lambda: self.broker.cant_do(self.worker, b"f"),
            lambda: self.broker.reset_abilities(self.worker),
            lambda: self.broker.leave_worker(self.worker),
        ):
            self.setUp()
            self.run_online()
            do()
            self.assertEqual(self.notes.cancelled, [])

    def test_never_after_its_own_report(self) -> None:
        self.broker.can_do(self.worker, b"f", 5.0)
        handle = self.run_online()
        self.broker.complete(self.worker, handle, b"")
        self.bench.advance(10)
        self.broker.leave_client(self.client)
        with self.assertRaises(JobNotFound):
            self.broker.cancel(handle, True)
        self.assertEqual(self.notes.cancelled, [])

    def test_jobs_that_wait_concern_no_worker(self) -> None:
        rules = FunctionRules(expires=5.0)
        self.begin(Policy(handle_prefix=b"H:t", functions=((b"f", rules),)))
        running = self.run_online()
        cancelled, _expiring = (self.bench.submit(self.client, b"f") for _ in range(2))
        self.broker.cancel(cancelled, True)
        self.bench.advance(10)
        self.assertEqual(self.outcomes(), {Outcome.CANCELLED: 1, Outcome.EXPIRED: 1})
        self.assertEqual((self.notes.cancelled, self.notes.disconnected), ([], False))
        self.assertEqual(list(self.worker.jobs), [running], "a run that has begun does not expire")

    def test_as_many_handles_are_remembered_as_are_said(self) -> None:
        handles = [self.run_online() for _ in range(MAX_CANCELLED + 1)]
        for handle in (handles[1], *handles):
            if handle in self.worker.jobs:
                self.broker.cancel(handle)
        self.assertEqual(len(self.worker.cancelled or ()), MAX_CANCELLED)
        with self.assertRaises(JobNotFound):
            self.broker.complete(self.worker, handles[1], b"")
        for handle in (handles[0], *handles[2:]):
            self.report_all(handle)

    def test_a_job_that_is_stopped_again_is_remembered_as_the_last(self) -> None:
        for number in range(MAX_CANCELLED):
            self.worker.note_cancelled(b"%d" % number)
        self.worker.note_cancelled(b"0")
        self.worker.note_cancelled(b"new")
        remembered = self.worker.cancelled or {}
        self.assertEqual(len(remembered), MAX_CANCELLED)
        self.assertEqual((b"0" in remembered, b"1" in remembered), (True, False))


class UntoldTests(StoppingTestCase):
    """A worker that has not asked for it: all is as it is with gearmand, unless the connection is cut."""

    hears_cancel = False

    def test_the_last_client_leaves(self) -> None:
        handle = self.run_online()
        self.broker.leave_client(self.client)
        self.assertEqual(list(self.worker.jobs), [handle])
        self.assertEqual(self.broker.complete(self.worker, handle, b""), 0)
        self.assertEqual(self.outcomes(), {})

    def test_a_lost_lease(self) -> None:
        handle = self.run_offline()
        self.bench.answers.disown(1000)
        self.broker.complete(self.worker, handle, b"")
        self.assertEqual(self.outcomes(), {})

    def test_what_it_reports_after_a_time_limit_is_refused(self) -> None:
        self.broker.can_do(self.worker, b"f", 5.0)
        handle = self.run_online()
        self.bench.advance(5)
        with self.assertRaises(JobNotFound):
            self.broker.complete(self.worker, handle, b"")

    def test_cancel(self) -> None:
        handle = self.run_online()
        self.broker.cancel(handle)
        self.assertFalse(self.notes.disconnected)
        self.report_all(handle)

    def test_cancel_by_force(self) -> None:
        handle, other = self.run_online(), self.run_online()
        self.broker.cancel(handle, True)
        self.assertTrue(self.notes.disconnected)
        self.assertEqual(said(self.client), [("failed", handle)])
        self.broker.leave_worker(self.worker)
        self.assertEqual(self.bench.grab(self.bench.worker("next", b"f")).handle, other)
        self.assertEqual(self.outcomes(), {Outcome.CANCELLED: 1})

    def test_cancel_by_force_after_a_search_in_the_store(self) -> None:
        handle = self.run_offline()
        told: list[object] = []
        self.bench.search.seek_and_cancel(handle, told.append, True)
        store = self.broker.life.job_store
        assert isinstance(store, KeeperNotes)
        ((_, _, found),) = store.searches
        found(None)
        self.assertEqual((told, self.notes.disconnected), ([None], True))
