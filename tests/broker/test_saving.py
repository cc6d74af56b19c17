"""Background jobs when there is somebody to keep them: who is told what, and when."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import Bench, KeeperNotes, leftovers, said
from txgearman.broker.entities import Client, Job
from txgearman.broker.handles import number_of
from txgearman.broker.job_states import JobState
from txgearman.broker.policy import Policy
from txgearman.broker.stored_job import StoredJob
from txgearman.broker.views import JobStatus
from txgearman.errors import NotSaved, QueueFull

HANDLE = b"H:t:101"
NUMBER = 101


class SavingTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.make()

    def make(self, policy: Policy = Policy(handle_prefix=b"H:t")) -> None:  # noqa: B008  # it is frozen
        self.job_store = KeeperNotes()
        self.bench = Bench(policy, 0, self.job_store, last_number=100)
        self.broker = self.bench.broker

    def submit(self, unique: bytes = b"", **how: object) -> Client:
        """Submit a background job; returns its client, which was told nothing yet but that it waits."""
        client = self.bench.client()
        self.broker.submit(client, b"f", unique, b"data", background=True, **how)  # type: ignore[arg-type]
        self.assertEqual(said(client), [("saving", 1)])
        return client

    def save(self) -> Job:
        """The oldest job that waits for it is saved."""
        job = self.job_store.saves.pop(0)
        self.bench.answers.saved(job)
        return job


class NewJobTests(SavingTestCase):
    def test_the_client_is_told_when_the_job_is_saved(self) -> None:
        client = self.submit()
        self.save()
        self.assertEqual(said(client), [("saved", 1, HANDLE)])

    def test_no_worker_gets_it_before(self) -> None:
        worker = self.bench.sleeper("w", b"f")
        self.submit()
        self.assertEqual(self.bench.take_woken(), [])
        self.assertIsNone(self.broker.grab(worker))
        self.broker.sleep(worker)
        self.save()
        self.assertEqual(self.bench.take_woken(), ["w"])
        self.assertEqual(self.bench.grab(worker).handle, HANDLE)

    def test_it_is_removed_when_it_ends(self) -> None:
        endings: list[Callable[[Job], object]] = [
            lambda job: self.broker.complete(self.worker, job.handle, b""),
            lambda job: self.broker.cancel(job.handle),
        ]
        self.worker = self.bench.worker("w", b"f")
        for end in endings:
            self.submit()
            self.save()
            job = self.bench.grab(self.worker)
            self.assertEqual(self.job_store.removed, [])
            end(job)
            self.assertEqual(self.job_store.removed, [number_of(job.handle)])
            self.job_store.removed.clear()

    def test_it_waits_for_its_time_behind_the_save(self) -> None:
        run_at = self.bench.wall() + 10
        self.submit(run_at=run_at)
        job = self.save()
        self.assertEqual((job.state, job.run_at), (JobState.SCHEDULED, run_at))
        self.bench.advance(10)
        self.assertEqual(job.state, JobState.QUEUED)

    def test_when_it_was_submitted_is_known(self) -> None:
        self.submit()
        self.assertEqual(self.job_store.saves[0].submitted, self.bench.wall())

    def test_attempts_are_told(self) -> None:
        self.submit()
        self.save()
        worker = self.bench.worker("w", b"f")
        self.bench.grab(worker)
        self.broker.leave_worker(worker)
        self.assertEqual(self.job_store.losses, [(HANDLE, 1)])

    def test_foreground_jobs_are_not_kept(self) -> None:
        client = self.bench.client()
        self.assertEqual(self.bench.submit(client, b"f"), HANDLE)
        worker = self.bench.worker("w", b"f")
        self.bench.handles(worker)
        self.assertEqual((self.job_store.saves, self.job_store.removed), ([], []))

    def test_the_client_may_be_gone_before(self) -> None:
        client = self.submit()
        self.broker.leave_client(client)
        self.save()
        self.assertEqual(self.bench.handles(self.bench.worker("w", b"f")), [HANDLE])


class RefusalTests(SavingTestCase):
    def test_what_cannot_be_saved_is_refused_at_once(self) -> None:
        self.job_store.refusal = NotSaved()
        client = self.bench.client()
        with self.assertRaises(NotSaved):
            self.broker.submit(client, b"f", b"u", b"", background=True)
        self.assertEqual(said(client), [])
        self.assertEqual(self.broker.total, 0)
        self.assertEqual(self.bench.inspection.status_by_unique(b"u"), JobStatus(False, False, 0, 0, 0))

    def test_a_failed_save_refuses_all_who_wait_for_it(self) -> None:
        clients = [self.submit(b"u"), self.submit(b"u")]
        (job,) = self.job_store.saves
        self.bench.answers.not_saved(job, NotSaved())
        for client in clients:
            self.assertEqual(said(client), [("refused", 1, "Job could not be saved")])
        self.assertEqual(self.broker.total, 0)
        self.assertEqual(self.job_store.removed, [])
        for client in clients:
            self.broker.leave_client(client)
        self.assertEqual(leftovers(self.broker), {})

    def test_limits_count_jobs_that_are_being_saved(self) -> None:
        self.bench.administration.set_limits(b"f", (1, 1, 1))
        self.submit()
        with self.assertRaises(QueueFull):
            self.broker.submit(self.bench.client(), b"f", b"", b"", background=True)


class TwinTests(SavingTestCase):
    """A second submit while the first is being saved, and other meetings."""

    def test_a_second_background_submit_waits_for_the_same_save(self) -> None:
        first, second = self.submit(b"u"), self.submit(b"u")
        self.save()
        self.assertEqual(self.job_store.saves, [])
        for client in (first, second):
            self.assertEqual(said(client), [("saved", 1, HANDLE)])

    def test_one_behind_the_save_is_told_at_once(self) -> None:
        self.submit(b"u")
        self.save()
        client = self.bench.client()
        self.assertEqual(self.bench.submit(client, b"f", b"u", background=True), HANDLE)
        self.assertEqual(self.job_store.saves, [])

    def test_a_foreground_submit_joins_a_job_that_is_being_saved(self) -> None:
        self.submit(b"u")
        client = self.bench.client()
        self.assertEqual(self.bench.submit(client, b"f", b"u"), HANDLE)
        self.save()
        worker = self.bench.worker("w", b"f")
        self.bench.grab(worker)
        self.broker.complete(worker, HANDLE, b"result")
        self.assertEqual(said(client), [("completed", HANDLE, b"result")])

    def test_and_keeps_it_online_when_it_cannot_be_saved(self) -> None:
        background, client = self.submit(b"u"), self.bench.client()
        self.bench.submit(client, b"f", b"u")
        self.bench.answers.not_saved(self.job_store.saves.pop(), NotSaved())
        self.assertEqual(said(background), [("refused", 1, "Job could not be saved")])
        worker = self.bench.worker("w", b"f")
        self.bench.grab(worker)
        self.broker.complete(worker, HANDLE, b"result")
        self.assertEqual(said(client), [("completed", HANDLE, b"result")])
        self.assertEqual(self.job_store.removed, [])

    def test_a_background_submit_makes_an_online_job_durable(self) -> None:
        online = self.bench.client()
        self.bench.submit(online, b"f", b"u")
        background = self.submit(b"u")
        self.save()
        self.assertEqual(said(background), [("saved", 1, HANDLE)])
        self.broker.leave_client(online)
        self.assertEqual(self.bench.handles(self.bench.worker("w", b"f")), [HANDLE])
        self.assertEqual(self.job_store.removed, [NUMBER])

    def test_which_may_be_done_before_it_is_saved(self) -> None:
        online, worker = self.bench.client(), self.bench.worker("w", b"f")
        self.bench.submit(online, b"f", b"u")
        self.bench.grab(worker)
        background = self.submit(b"u")
        self.broker.complete(worker, HANDLE, b"result")
        self.assertEqual(self.job_store.removed, [], "nothing is there to be removed yet")
        self.save()
        self.assertEqual(said(background), [("saved", 1, HANDLE)])
        self.assertEqual(self.job_store.removed, [NUMBER])

    def test_or_lose_its_worker_and_its_client(self) -> None:
        online, worker = self.bench.client(), self.bench.worker("w", b"f")
        self.bench.submit(online, b"f", b"u")
        self.bench.grab(worker)
        self.submit(b"u")
        self.broker.leave_client(online)
        self.broker.leave_worker(worker)
        self.save()
        self.assertEqual(self.bench.handles(self.bench.worker("w2", b"f")), [HANDLE])

    def test_or_lose_its_client_and_not_be_saved(self) -> None:
        online = self.bench.client()
        self.bench.submit(online, b"f", b"u")
        self.submit(b"u")
        self.broker.leave_client(online)
        self.assertEqual(self.broker.total, 1)
        self.bench.answers.not_saved(self.job_store.saves.pop(), NotSaved())
        self.assertEqual(self.broker.total, 0)

    def test_the_store_may_have_one_that_is_not_here(self) -> None:
        client = self.submit(b"u")
        self.assertIs(self.bench.answers.stored_before(self.job_store.saves.pop(), b"H:other:7", 1), False)
        self.assertEqual(said(client), [("saved", 1, b"H:other:7")])
        self.assertEqual(self.broker.total, 0)
        self.assertEqual(self.job_store.removed, [])

    def test_it_answers_nobody_who_came_since_it_was_looked_for(self) -> None:
        first, second = self.submit(b"u"), self.submit(b"u")
        job = self.job_store.saves.pop()
        self.assertIs(self.bench.answers.stored_before(job, b"H:other:7", 1), True)
        self.assertEqual(said(first), [("saved", 1, b"H:other:7")])
        self.assertEqual(said(second), [])
        third = self.submit(b"u")
        self.assertEqual(self.job_store.saves, [])
        self.bench.answers.saved(job)
        self.assertEqual([said(client) for client in (second, third)], [[("saved", 1, job.handle)]] * 2)


class RestoreTests(SavingTestCase):
    def restore(
        self, handle: bytes, unique: bytes = b"", attempts: int = 0, run_at: float | None = None
    ) -> None:
        number = number_of(handle)
        self.bench.answers.restore(
            StoredJob(number, number, handle, b"f", unique, b"data", 1, run_at, attempts, 5.0, None)
        )

    def test_it_is_as_it_was(self) -> None:
        self.make(Policy(handle_prefix=b"H:t", job_retries=3))
        self.restore(b"H:t:7", b"u", attempts=1)
        self.assertEqual(self.bench.inspection.status(b"H:t:7"), JobStatus(True, False, 0, 0, 0))
        self.assertTrue(self.bench.inspection.status_by_unique(b"u").known)
        worker = self.bench.worker("w", b"f")
        job = self.bench.grab(worker)
        self.assertEqual(
            (job.handle, job.unique, job.data, job.losses, job.submitted),
            (b"H:t:7", b"u", b"data", 1, 5.0),
        )
        self.broker.leave_worker(worker)
        self.assertEqual(self.job_store.losses, [(b"H:t:7", 2)])
        worker = self.bench.worker("w2", b"f")
        self.bench.grab(worker)
        self.broker.leave_worker(worker)
        self.assertEqual([dead.number for dead in self.job_store.dead], [7], "the third attempt was the last")

    def test_handles_of_another_prefix(self) -> None:
        # The last has the length of ours, and digits where ours has them.
        for handle in (b"H:old-name:7", b"nonsense:8", b"H:u:9"):
            self.restore(handle)
            self.assertTrue(self.bench.inspection.status(handle).known)
            self.assertEqual([view.handle for view in self.bench.inspection.jobs()], [handle])
            self.broker.cancel(handle)
            self.assertFalse(self.bench.inspection.status(handle).known)
            self.assertEqual(list(self.bench.inspection.jobs()), [])

    def test_new_handles_are_behind_all_from_before(self) -> None:
        self.restore(b"H:t:7")
        self.submit()
        self.assertEqual(self.save().handle, HANDLE)

    def test_twice_is_once(self) -> None:
        self.restore(b"H:t:7")
        self.restore(b"H:t:7")
        self.assertEqual(self.broker.total, 1)

    def test_sleepers_are_woken(self) -> None:
        self.bench.sleeper("w", b"f")
        self.restore(b"H:t:7")
        self.assertEqual(self.bench.take_woken(), ["w"])

    def test_its_time_still_counts(self) -> None:
        worker = self.bench.worker("w", b"f")
        self.restore(b"H:t:7", run_at=self.bench.wall() + 5)
        self.restore(b"H:t:8", run_at=self.bench.wall() - 5)
        self.assertEqual(self.bench.handles(worker), [b"H:t:8"])
        self.bench.advance(5)
        self.assertEqual(self.bench.handles(worker), [b"H:t:7"])

    def test_beside_a_live_job_of_the_same_unique(self) -> None:
        client = self.bench.client()
        online = self.bench.submit(client, b"f", b"u")
        self.restore(b"H:t:7", b"u")
        worker = self.bench.worker("w", b"f")
        self.assertEqual(self.bench.handles(worker), [online, b"H:t:7"])
        self.assertFalse(self.bench.inspection.status_by_unique(b"u").known)


class EndTests(SavingTestCase):
    def test_the_end_of_the_server_is_no_news_of_its_jobs(self) -> None:
        self.make(Policy(handle_prefix=b"H:t", job_retries=1))
        self.submit()
        self.save()
        worker = self.bench.worker("w", b"f")
        self.bench.grab(worker)
        self.bench.answers.detach_store()
        self.broker.leave_worker(worker)
        self.assertEqual((self.job_store.losses, self.job_store.removed), ([], []))
