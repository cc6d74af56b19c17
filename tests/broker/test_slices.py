"""Peers that leave very much behind: it is seen to in slices, and nobody can tell but by the clock.

What a peer can leave, or throw away, of which there may be any number: the jobs that a client waits for (its
end), the jobs that a worker has (its end, RESET_ABILITIES, CANT_DO), the functions that it registered (its
end, RESET_ABILITIES), and the lists that its functions have of its kind of workers (all of these, and each
change). What may become due at one moment: scheduled jobs and time limits. Cancelling all jobs of a function
is cut up by its caller, see `Broker.cancel_some`; a function with jobs cannot be dropped. Walks over
everything are made for operators and the store, and for no peer: `Broker.change_policy`, `drain`,
`extend_lease` and `disown`.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import Bench, leftovers, said
from txgearman.broker.entities import Client, Job, Worker
from txgearman.broker.job_states import JobState
from txgearman.broker.policy import Policy
from txgearman.broker.slices import SLICE, Slices
from txgearman.errors import JobNotFound

MANY = 5 * SLICE


class SlicesTests(SynchronousTestCase):
    """The mechanism by itself."""

    def test_a_slice_at_a_time_and_tasks_in_turn(self) -> None:
        done: list[str] = []

        def task(name: str, things: int) -> Any:
            for _ in range(things):
                done.append(name)
                yield

        bench = Bench()
        slices = Slices(bench.broker.timer)
        slices.size = 3
        slices.begin(task("a", 7))
        slices.begin(task("b", 3))
        slices.begin(task("c", 2))
        slices.begin(task("d", 0))
        self.assertEqual("".join(done), "aaabbbcc")
        self.assertEqual(len(slices), 2)
        for expected in ("aaa", "", "a"):
            done.clear()
            slices.go_on()
            self.assertEqual("".join(done), expected)
        self.assertEqual(len(slices), 0)
        slices.go_on()


class ClientTests(SynchronousTestCase):
    """A client that leaves with many waiting jobs."""

    def setUp(self) -> None:
        self.bench = Bench()
        self.client = self.bench.client()
        self.broker = self.bench.broker

    def submit(self, count: int, **how: Any) -> list[bytes]:
        return [self.bench.submit(self.client, b"f", **how) for _ in range(count)]

    def turn(self) -> int:
        """Let one turn pass; returns how many jobs ended in it."""
        before = self.broker.total
        self.broker.tick()
        return before - self.broker.total

    def counts(self) -> tuple[int, int]:
        view = next(self.bench.inspection.functions())
        return view.total, sum(view.waiting)

    def test_few_go_at_once(self) -> None:
        self.submit(SLICE - 1)
        self.broker.leave_client(self.client)
        self.assertEqual(self.broker.total, 0)
        self.assertIsNone(self.bench.rings_at)

    def test_many_go_a_slice_a_turn(self) -> None:
        self.submit(MANY)
        self.broker.leave_client(self.client)
        left = MANY - SLICE
        while left:
            self.assertEqual((self.broker.total, self.counts()), (left, (left, left)))
            self.assertEqual(self.bench.rings_at, self.bench.now)
            self.assertEqual(self.turn(), SLICE)
            left -= SLICE
        self.bench.advance(0)
        self.assertEqual(leftovers(self.broker), {})
        self.assertFalse(self.client.jobs)

    def test_no_worker_gets_one_meanwhile(self) -> None:
        self.submit(MANY)
        other = self.bench.client()
        wanted = self.bench.submit(other, b"f")
        background = self.bench.queue(b"f")
        worker = self.bench.worker("w", b"f")
        self.broker.leave_client(self.client)
        given: list[bytes] = []
        asked = 0
        while len(given) < 2:
            asked += 1
            job = self.broker.grab(worker)
            if job is not None:
                given.append(job.handle)
            else:
                # It is told at once that there is a job, and asks again.
                self.broker.sleep(worker)
                self.assertEqual(self.bench.take_woken(), ["w"])
        self.assertEqual(given, [wanted, background])
        self.assertLess(asked, MANY / SLICE + 3)
        self.assertEqual(self.broker.total, 2)
        self.bench.advance(0)
        self.assertEqual(self.broker.total, 2)

    def test_what_others_want_stays(self) -> None:
        shared = self.submit(MANY)[-1]
        # Behind all others, so that they are not come to in the first slice.
        ours = self.bench.submit(self.client, b"f", b"ours")
        joined = self.bench.submit(self.client, b"f", b"joined")
        twice = self.bench.submit(self.client, b"f", b"twice")
        again = self.bench.submit(self.client, b"f", b"twice")
        running = self.bench.submit(self.client, b"g")
        worker = self.bench.worker("w", b"g")
        self.assertEqual(self.bench.grab(worker).handle, running)
        other = self.bench.client()
        self.broker.watch(other, shared)
        self.broker.leave_client(self.client)
        self.assertEqual(self.bench.submit(other, b"f", b"joined"), joined)
        self.assertEqual(self.bench.submit(other, b"f", b"ours", background=True), ours)
        self.assertTrue(
            self.bench.inspection.status(twice).known and self.bench.inspection.status(again).known
        )
        self.bench.advance(0)
        left = [view.handle for view in self.bench.inspection.jobs()]
        self.assertEqual(left, [shared, ours, joined, running])
        self.broker.complete(worker, running, b"")
        able = self.bench.worker("v", b"f")
        self.assertEqual(self.bench.handles(able), [shared, ours, joined])
        self.assertEqual(
            [note[:2] for note in said(other)][-2:], [("completed", shared), ("completed", joined)]
        )

    def test_jobs_that_end_meanwhile(self) -> None:
        handles = self.submit(MANY)
        running = self.bench.submit(self.client, b"g")
        worker = self.bench.worker("w", b"g")
        self.bench.grab(worker)
        self.broker.leave_client(self.client)
        for handle in handles[-10:]:
            self.broker.cancel(handle)
        self.broker.complete(worker, running, b"")
        self.assertEqual(self.counts(), (MANY - SLICE - 10, MANY - SLICE - 10))
        self.bench.advance(0)
        self.broker.leave_worker(worker)
        self.assertEqual(leftovers(self.broker), {})

    def test_a_job_that_its_worker_loses_meanwhile(self) -> None:
        bench = self.bench
        handles = [bench.submit(self.client, b"g") for _ in range(3)]
        worker = bench.worker("w", b"g")
        for _ in handles:
            bench.grab(worker)
        self.submit(MANY)
        for handle in handles:
            # They are the last to be come to.
            self.client.jobs[handle] = self.client.jobs.pop(handle)
        self.broker.leave_client(self.client)
        self.broker.leave_worker(worker)
        self.assertIsNone(self.broker.grab(bench.worker("v", b"g")))
        bench.advance(0)
        self.assertEqual(self.broker.total, 0)

    def test_several_take_turns(self) -> None:
        self.submit(MANY)
        small = self.bench.client()
        for _ in range(SLICE + 1):
            self.bench.submit(small, b"g")
        self.broker.leave_client(self.client)
        self.broker.leave_client(small)
        self.turn()
        self.turn()
        self.assertFalse(small.jobs)
        self.assertEqual(self.broker.total, MANY - 2 * SLICE)
        self.bench.advance(0)
        self.assertEqual(leftovers(self.broker), {})


class WorkerTests(SynchronousTestCase):
    """A worker that loses many jobs, in each of the ways there are."""

    def prepared(self, timeout: float | None = None) -> tuple[Bench, Worker, list[bytes]]:
        bench = Bench(Policy(b"H:t", job_retries=3))
        handles = [bench.queue(b"f") for _ in range(MANY)]
        worker = bench.worker("w", b"f", b"g", timeout=timeout)
        for _ in handles:
            bench.grab(worker)
        return bench, worker, handles

    def lose(self, bench: Bench, worker: Worker, how: str) -> None:
        if how == "cant_do":
            bench.broker.cant_do(worker, b"f")
        else:
            getattr(bench.broker, how)(worker)

    def test_they_go_to_others_a_slice_a_turn(self) -> None:
        for how in ("leave_worker", "reset_abilities", "cant_do"):
            bench, worker, handles = self.prepared()
            self.lose(bench, worker, how)
            self.assertEqual(worker.jobs, {})
            for running in range(MANY - SLICE, -1, -SLICE):
                self.assertEqual(bench.inspection.running, running, how)
                self.assertEqual(sum(next(bench.inspection.functions()).waiting), MANY - running)
                bench.broker.tick()
            bench.advance(0)
            other = bench.worker("other", b"f")
            self.assertEqual(bench.handles(other), handles)
            bench.leave(bench.client(), other)
            bench.broker.leave_worker(worker)
            self.assertEqual(leftovers(bench.broker), {})

    def test_their_worker_may_not_report_on_them_any_more(self) -> None:
        for how in ("reset_abilities", "cant_do"):
            bench, worker, handles = self.prepared()
            self.lose(bench, worker, how)
            for handle in (handles[0], handles[-1]):
                self.assertRaises(JobNotFound, bench.broker.complete, worker, handle, b"")
                self.assertTrue(bench.inspection.status(handle).known)

    def test_it_may_get_them_again_meanwhile(self) -> None:
        for how in ("reset_abilities", "cant_do"):
            bench, worker, handles = self.prepared()
            self.lose(bench, worker, how)
            bench.broker.can_do(worker, b"f")
            again = [bench.grab(worker).handle for _ in range(SLICE)]
            self.assertEqual(again, handles[:SLICE])
            bench.advance(0)
            self.assertEqual(list(worker.jobs), again)
            self.assertEqual(bench.inspection.running, SLICE)

    def test_they_may_end_or_time_out_meanwhile(self) -> None:
        for how in ("leave_worker", "reset_abilities", "cant_do"):
            bench, worker, handles = self.prepared(timeout=0.5)
            bench.now += 0.5
            self.lose(bench, worker, how)
            for handle in handles[-5:]:
                bench.broker.cancel(handle)
            # In each turn some are come to, and others have timed out.
            bench.advance(0)
            self.assertEqual(bench.inspection.running, 0)
            self.assertEqual(bench.broker.total, MANY - 5)
            attempts = Counter(view.losses for view in bench.inspection.jobs())
            self.assertEqual(attempts, {1: MANY - 5})

    def test_the_functions_are_given_up_in_slices_too(self) -> None:
        for how in ("leave_worker", "reset_abilities"):
            bench = Bench()
            worker = bench.sleeper("w", *[b"f%d" % number for number in range(MANY)])
            self.lose(bench, worker, how)
            self.assertEqual(worker.abilities, {})
            registered = sum(view.workers for view in bench.inspection.functions())
            self.assertEqual(registered, MANY - SLICE)
            # It is not woken for what it cannot do any more.
            bench.take_woken()
            bench.queue(b"f%d" % (MANY - 1))
            self.assertEqual(bench.take_woken(), [])
            bench.advance(0)
            self.assertEqual(sum(view.workers for view in bench.inspection.functions()), 0)
            other = bench.worker("other", b"f%d" % (MANY - 1))
            self.assertEqual(len(bench.handles(other)), 1)
            bench.broker.leave_worker(other)
            bench.broker.leave_worker(worker)
            bench.advance(0)
            self.assertEqual(leftovers(bench.broker), {})


class DueTests(SynchronousTestCase):
    """Many jobs whose time comes at the same moment."""

    def test_scheduled_jobs_are_queued_in_slices(self) -> None:
        bench = Bench()
        when = bench.wall() + 5
        handles = [bench.queue(b"f", run_at=when) for _ in range(MANY)]
        bench.now += 5
        for queued in range(SLICE, MANY + 1, SLICE):
            bench.broker.tick()
            detail = bench.inspection.function_detail(b"f")
            self.assertEqual((sum(detail.queued), sum(detail.scheduled)), (queued, MANY - queued))
            self.assertEqual(bench.rings_at, bench.now if queued < MANY else None)
            bench.rings_at = None
        self.assertEqual(bench.handles(bench.worker("w", b"f")), handles)

    def test_jobs_that_took_too_long_are_taken_back_in_slices(self) -> None:
        bench = Bench()
        handles = [bench.queue(b"f") for _ in range(MANY)]
        worker = bench.worker("w", b"f", timeout=5.0)
        for _ in handles:
            bench.grab(worker)
        bench.now += 5
        for back in range(SLICE, MANY + 1, SLICE):
            bench.broker.tick()
            self.assertEqual(bench.inspection.running, MANY - back)
            self.assertEqual(bench.rings_at, bench.now if back < MANY else None)
            bench.rings_at = None
        self.assertEqual(bench.handles(bench.worker("v", b"f")), handles)


class RandomTests(SynchronousTestCase):
    """Anything may happen between two slices."""

    FUNCTIONS = (b"f", b"g", b"h")

    def setUp(self) -> None:
        self.random = Random(7)

    def test_the_rules_hold(self) -> None:
        for _ in range(20):
            self.bench = Bench(Policy(b"H:t", job_retries=4), measured=1)
            self.bench.broker.slices.size = 2
            self.bench.broker.waking.free_walk = 1
            self.clients = [self.bench.client() for _ in range(3)]
            self.workers = [self.bench.worker() for _ in range(3)]
            for _ in range(300):
                self.step()
                self.check()
            for client in self.clients:
                self.bench.broker.leave_client(client)
            for worker in self.workers:
                self.bench.broker.leave_worker(worker)
            self.bench.advance(0)
            last = self.bench.worker("last", *self.FUNCTIONS)
            self.bench.handles(last)
            self.bench.broker.leave_worker(last)
            self.bench.advance(10)
            self.assertEqual(leftovers(self.bench.broker), {})

    def step(self) -> None:
        bench, broker, random = self.bench, self.bench.broker, self.random
        worker, function = random.choice(self.workers), random.choice(self.FUNCTIONS)
        what = random.randrange(16)
        if what < 6:
            unique = random.choice((b"", b"", b"u", b"v"))
            bench.submit(random.choice(self.clients), function, unique, background=not random.randrange(4))
        elif what < 9:
            job = broker.grab(worker)
            if job is not None:
                self.assertTrue(wanted(job), "a worker got a job that nobody wants")
        elif what == 9 and worker.jobs:
            broker.complete(worker, random.choice(list(worker.jobs)), b"")
        elif what == 10:
            broker.can_do(worker, function, random.choice((None, 1.0)))
        elif what == 11:
            broker.cant_do(worker, function)
        elif what == 12:
            self.replace(random.randrange(3))
        elif what == 13:
            broker.sleep(worker)
        elif what == 14:
            bench.advance(1.0)
        else:
            broker.tick()

    def replace(self, place: int) -> None:
        """One leaves, as a client, as a worker, or unregisters everything."""
        broker = self.bench.broker
        what = self.random.randrange(3)
        if what == 0:
            client: Client = self.clients[place]
            self.clients[place] = self.bench.client()
            broker.leave_client(client)
        elif what == 1:
            worker = self.workers[place]
            self.workers[place] = self.bench.worker()
            broker.leave_worker(worker)
        else:
            broker.reset_abilities(self.workers[place])

    def check(self) -> None:
        """The counts are those of the jobs, at any time."""
        jobs: dict[bytes, Job] = {job.handle: job for _, job in self.bench.broker.life.handles}
        states = Counter(job.state for job in jobs.values())
        views = list(self.bench.inspection.functions())
        self.assertEqual(sum(view.total for view in views), len(jobs))
        self.assertEqual(self.bench.broker.total, len(jobs))
        self.assertEqual(self.bench.inspection.running, states[JobState.RUNNING])
        self.assertEqual(sum(sum(view.waiting) for view in views), states[JobState.QUEUED])
        for worker in self.workers:
            for handle, job in worker.jobs.items():
                self.assertIs(jobs[handle], job)
                self.assertIs(job.worker, worker)
                self.assertIn(job.function, worker.abilities)


def wanted(job: Job) -> bool:
    return job.background or any(not client.gone for client, _ in job.watchers)
