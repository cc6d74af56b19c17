"""What a follower is told of the ways of jobs."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import START, WALL_AHEAD, Bench, KeeperNotes
from tests.broker.test_model import POLICIES, Walk
from txgearman.broker.broker import Broker
from txgearman.broker.entities import Job
from txgearman.broker.job_states import FAILURES, Outcome
from txgearman.broker.policy import FunctionRules, Policy
from txgearman.broker.stored_job import StoredJob
from txgearman.broker.tracing import JobTracer
from txgearman.errors import NotSaved, QueueFull

BEGIN = START + WALL_AHEAD
"""Seconds since the epoch when each test begins."""

FAILED_RUNS = FAILURES - {Outcome.LOST}
"""How a run ends behind which the job may be retried."""

ROUNDING = 1e-5


class FollowerNotes:
    """A `Follower` that writes down what it is told, with times in seconds since `BEGIN`."""

    def __init__(self, wanted: bool = True) -> None:
        self.wanted = wanted
        self.asked: list[bytes] = []
        self.notes: list[tuple[Any, ...]] = []

    def follows(self, job: Job) -> bool:
        self.asked.append(job.handle)
        return self.wanted

    def waited(self, job: Job, since: float, until: float) -> None:
        self.notes.append(("waited", _round(since), _round(until)))

    def ran(self, job: Job, attempt: int, since: float, until: float, ending: int | None) -> None:
        self.notes.append(("ran", attempt, _round(since), _round(until), ending))

    def ended(self, job: Job, attempts: int, when: float, ending: int | None) -> None:
        self.notes.append(("ended", attempts, _round(when), ending))


class StepChecker(FollowerNotes):
    """Knows for each job where its way has come to, and fails where a step does not begin there."""

    def __init__(self) -> None:
        super().__init__()
        self.at: dict[bytes, float | None] = {}
        self.ran_last: dict[bytes, bool] = {}
        self.runs: dict[bytes, int] = {}
        self.dead: set[bytes] = set()
        self.revived = 0
        self.endings: list[int | None] = []

    def _step(self, job: Job, since: float, until: float, ran: bool) -> None:
        self._begin_anew(job)
        before = self.at.get(job.handle, since)
        assert before is not None, "it has ended"
        assert abs(before - since) < ROUNDING
        assert until >= since
        assert self.ran_last.get(job.handle, True) is not ran, "waiting and running take turns"
        self.at[job.handle], self.ran_last[job.handle] = until, ran

    def waited(self, job: Job, since: float, until: float) -> None:
        self._step(job, since, until, False)

    def ran(self, job: Job, attempt: int, since: float, until: float, ending: int | None) -> None:
        self._step(job, since, until, True)
        self.runs[job.handle] = self.runs.get(job.handle, 0) + 1
        assert attempt == self.runs[job.handle]
        if ending in FAILED_RUNS:
            # It may be retried: it is in no queue meanwhile.
            del self.at[job.handle]

    def _begin_anew(self, job: Job) -> None:
        """A dead job that is told of again has been retried."""
        if job.handle in self.dead:
            self.dead.remove(job.handle)
            self.revived += 1
            for known in (self.at, self.ran_last, self.runs):
                known.pop(job.handle, None)

    def ended(self, job: Job, attempts: int, when: float, ending: int | None) -> None:
        self._begin_anew(job)
        last = self.at.get(job.handle, when)
        assert last is not None, "it has ended before"
        assert abs(last - when) < ROUNDING
        assert attempts == self.runs.get(job.handle, 0)
        self.at[job.handle] = None
        if ending in FAILURES and job.background:
            self.dead.add(job.handle)
        self.endings.append(ending)


def ways(broker: Broker) -> int:
    """How many jobs a broker follows now."""
    assert isinstance(broker.life.trace, JobTracer)
    return len(broker.life.trace._jobs)


def _round(time: float) -> float:
    return round(time - BEGIN, 3)


class FollowingTestCase(SynchronousTestCase):
    def make(self, **policy: Any) -> None:
        self.follower = FollowerNotes()
        self._policy = Policy(b"H:t", **policy)
        self.bench = Bench(self._policy, follower=self.follower)
        self.broker = self.bench.broker

    def setUp(self) -> None:
        self.make()

    def keep(self) -> KeeperNotes:
        """Have a job_store from now on."""
        job_store = KeeperNotes()
        self.bench = Bench(self._policy, job_store=job_store, follower=self.follower)
        self.broker = self.bench.broker
        return job_store

    def assert_told(self, *notes: tuple[Any, ...]) -> None:
        self.assertEqual(self.follower.notes, list(notes))
        self.follower.notes.clear()

    def run_one(self, **how: Any) -> tuple[Any, bytes]:
        """A worker that has got a job, which waited for two seconds and runs for three; and its handle."""
        worker = self.bench.worker("w", b"f")
        handle = self.bench.queue(b"f", **how)
        self.bench.advance(2.0)
        self.bench.grab(worker)
        self.bench.advance(3.0)
        return worker, handle


class EndUnderAGrabTests(FollowingTestCase):
    """A job that is taken out of its queue for a worker and ends, as it is too old or nobody waits for it: it
    has waited until then."""

    def test_it_is_too_old(self) -> None:
        self.make(functions=((b"f", FunctionRules(expires=60.0)),))
        worker = self.bench.worker("w", b"f")
        self.bench.queue(b"f")
        # The alarm is late.
        self.bench.now += 61
        self.assertIsNone(self.broker.grab(worker))
        self.assert_told(("waited", 0.0, 61.0), ("ended", 0, 61.0, Outcome.EXPIRED))

    def test_nobody_waits_for_it(self) -> None:
        worker, client = self.bench.worker("w", b"f"), self.bench.client()
        self.bench.submit(client, b"f")
        self.bench.now += 2
        self.broker.slices.size = 0
        self.broker.leave_client(client)
        self.broker.slices.size = 10
        self.assertIsNone(self.broker.grab(worker))
        self.assert_told(("waited", 0.0, 2.0), ("ended", 0, 2.0, Outcome.ABANDONED))


class EndingTests(FollowingTestCase):
    def test_completed(self) -> None:
        worker, handle = self.run_one()
        self.assert_told(("waited", 0.0, 2.0))
        self.broker.complete(worker, handle, b"")
        self.assert_told(("ran", 1, 2.0, 5.0, None), ("ended", 1, 5.0, None))
        self.assertEqual(ways(self.broker), 0)

    def test_failed(self) -> None:
        worker, handle = self.run_one()
        self.broker.fail(worker, handle)
        ending = Outcome.FAILED
        self.assert_told(("waited", 0.0, 2.0), ("ran", 1, 2.0, 5.0, ending), ("ended", 1, 5.0, ending))

    def test_raised(self) -> None:
        worker, handle = self.run_one()
        self.broker.exception(worker, handle, b"")
        ending = Outcome.RAISED
        self.assert_told(("waited", 0.0, 2.0), ("ran", 1, 2.0, 5.0, ending), ("ended", 1, 5.0, ending))

    def test_a_worker_lost_it_and_another_did_it(self) -> None:
        worker, handle = self.run_one()
        self.broker.leave_worker(worker)
        self.assert_told(("waited", 0.0, 2.0), ("ran", 1, 2.0, 5.0, Outcome.LOST))
        self.bench.advance(1.0)
        other = self.bench.worker("o", b"f")
        self.bench.grab(other)
        self.bench.advance(1.0)
        self.broker.complete(other, handle, b"")
        self.assert_told(("waited", 5.0, 6.0), ("ran", 2, 6.0, 7.0, None), ("ended", 2, 7.0, None))

    def test_lost_for_good(self) -> None:
        self.make(job_retries=1)
        worker, _ = self.run_one()
        self.broker.leave_worker(worker)
        ending = Outcome.LOST
        self.assert_told(("waited", 0.0, 2.0), ("ran", 1, 2.0, 5.0, ending), ("ended", 1, 5.0, ending))

    def test_its_time_was_over(self) -> None:
        self.make(functions=((b"f", FunctionRules(time_limit=1.0)),))
        self.run_one()
        self.assert_told(("waited", 0.0, 2.0), ("ran", 1, 2.0, 3.0, Outcome.LOST))

    def test_cancelled_while_it_waits(self) -> None:
        handle = self.bench.queue(b"f")
        self.bench.advance(2.0)
        self.broker.cancel(handle)
        self.assert_told(("waited", 0.0, 2.0), ("ended", 0, 2.0, Outcome.CANCELLED))

    def test_cancelled_while_it_runs(self) -> None:
        worker, handle = self.run_one()
        self.broker.cancel(handle)
        ending = Outcome.CANCELLED
        self.assert_told(("waited", 0.0, 2.0), ("ran", 1, 2.0, 5.0, ending), ("ended", 1, 5.0, ending))
        self.broker.complete(worker, handle, b"")
        self.assert_told()

    def test_abandoned(self) -> None:
        client = self.bench.client()
        self.bench.submit(client, b"f")
        self.bench.advance(2.0)
        self.broker.leave_client(client)
        self.assert_told(("waited", 0.0, 2.0), ("ended", 0, 2.0, Outcome.ABANDONED))

    def test_a_refused_submit_is_no_job(self) -> None:
        self.make(functions=((b"f", FunctionRules(limits=(1, 1, 1))),))
        self.bench.queue(b"f")
        self.assertRaises(QueueFull, self.bench.queue, b"f")
        self.assertEqual(len(self.follower.asked), 1)

    def test_a_job_that_is_attached_to_is_one(self) -> None:
        handle = self.bench.queue(b"f", b"u")
        self.bench.queue(b"f", b"u")
        self.broker.cancel(handle)
        self.assert_told(("waited", 0.0, 0.0), ("ended", 0, 0.0, Outcome.CANCELLED))


class TimeTests(FollowingTestCase):
    def test_a_scheduled_job_waits_from_its_time_on(self) -> None:
        worker = self.bench.worker("w", b"f")
        self.bench.queue(b"f", run_at=BEGIN + 10.0)
        self.bench.advance(12.0)
        self.bench.grab(worker)
        self.assert_told(("waited", 10.0, 12.0))

    def test_cancelled_ahead_of_its_time(self) -> None:
        handle = self.bench.queue(b"f", run_at=BEGIN + 10.0)
        self.bench.advance(2.0)
        self.broker.cancel(handle)
        self.assert_told(("ended", 0, 2.0, Outcome.CANCELLED))

    def test_a_wall_clock_that_is_set_bends_nothing(self) -> None:
        worker, handle = self.run_one()
        self.bench.wall_ahead -= 3600.0
        self.broker.complete(worker, handle, b"")
        self.assert_told(("waited", 0.0, 2.0), ("ran", 1, 2.0, 5.0, None), ("ended", 1, 5.0, None))


class KeepingTests(FollowingTestCase):
    def saved(self, **how: Any) -> StoredJob:
        job = StoredJob(7, 7, b"H:t:7", b"f", b"", b"data", 1, None, 0, BEGIN - 60.0, None)
        return job._replace(**how)

    def test_a_job_waits_while_it_is_saved(self) -> None:
        job_store = self.keep()
        self.broker.submit(self.bench.client(), b"f", b"", b"", background=True)
        self.bench.advance(2.0)
        self.bench.answers.saved(job_store.saves[0])
        self.bench.advance(1.0)
        self.bench.grab(self.bench.worker("w", b"f"))
        self.assert_told(("waited", 0.0, 3.0))

    def test_not_saved(self) -> None:
        job_store = self.keep()
        self.broker.submit(self.bench.client(), b"f", b"", b"", background=True)
        self.bench.advance(2.0)
        self.bench.answers.not_saved(job_store.saves[0], NotSaved())
        self.assert_told(("ended", 0, 2.0, Outcome.NOT_SAVED))

    def test_a_restored_job_has_waited_since_it_came(self) -> None:
        self.keep()
        self.bench.answers.restore(self.saved())
        self.bench.advance(2.0)
        self.bench.grab(self.bench.worker("w", b"f"))
        self.assert_told(("waited", -60.0, 2.0))

    def test_one_that_ran_before_waits_since_it_is_here(self) -> None:
        self.keep()
        self.bench.answers.restore(self.saved(attempts=1))
        self.bench.advance(2.0)
        worker = self.bench.worker("w", b"f")
        self.bench.grab(worker)
        self.broker.complete(worker, b"H:t:7", b"")
        self.assert_told(("waited", 0.0, 2.0), ("ran", 2, 2.0, 2.0, None), ("ended", 2, 2.0, None))

    def test_the_way_of_a_taken_over_job_ends_elsewhere(self) -> None:
        self.keep()
        self.bench.answers.restore(self.saved())
        self.bench.advance(2.0)
        self.bench.answers.disown(1000)
        self.assert_told(("waited", -60.0, 2.0))
        self.assertEqual(ways(self.broker), 0)

    def test_a_job_that_only_the_keeper_has_is_followed_when_it_comes_back(self) -> None:
        self._policy = Policy(b"H:t", in_memory=1)
        job_store = self.keep()
        for _ in range(2):
            self.broker.submit(self.bench.client(), b"f", b"", b"", background=True)
            self.bench.answers.saved(job_store.saves.pop())
        self.assertEqual(ways(self.broker), 1)
        self.bench.advance(2.0)
        worker = self.bench.worker("w", b"f")
        self.bench.grab(worker)
        away = self.saved(number=2, position=2, handle=b"H:t:2", submitted=BEGIN)
        self.bench.answers.fetched(b"f", 1, [away], True)
        self.bench.advance(1.0)
        self.bench.grab(worker)
        self.assert_told(("waited", 0.0, 2.0), ("waited", 0.0, 3.0))


class AskingTests(FollowingTestCase):
    def test_who_is_not_followed_is_told_nothing_of(self) -> None:
        self.follower.wanted = False
        worker, handle = self.run_one()
        self.broker.complete(worker, handle, b"")
        self.bench.advance(1.0)
        self.broker.cancel(self.bench.queue(b"f"))
        self.assert_told()
        self.assertEqual(ways(self.broker), 0)

    def test_a_job_is_asked_for_once(self) -> None:
        worker, handle = self.run_one()
        self.broker.complete(worker, handle, b"")
        self.assertEqual(self.follower.asked, [handle])


class WalkTests(SynchronousTestCase):
    """The broker decides the same with a follower, and each job's way is told whole."""

    def test_long_walks(self) -> None:
        endings: set[int | None] = set()
        for number, policy in enumerate(POLICIES):
            checker = StepChecker()
            walk = Walk(policy, 5000 + number, checker)
            walk.go(300)
            self.assertEqual(ways(walk.pair.broker), 0)
            self.assertEqual([handle for handle, at in checker.at.items() if at is not None], [])
            self.assertEqual(len(checker.endings), len(checker.at) + checker.revived)
            endings |= set(checker.endings)
        expected = {None, *Outcome} - {Outcome.NOT_SAVED, Outcome.TAKEN_OVER}
        self.assertEqual(endings, expected)
