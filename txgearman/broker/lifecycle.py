"""The steps of a job's life.

Two stand elsewhere, in `Broker`, as they are its hot path: a worker gets the job, and a worker ends it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from txgearman.broker.deadlines import Deadlines
from txgearman.broker.entities import NO_PROGRESS, NOBODY, Client, Function, Job, Worker
from txgearman.broker.functions import Functions
from txgearman.broker.handles import Handles, number_of
from txgearman.broker.interfaces import JobStore, JobTrace
from txgearman.broker.job_states import PRIORITIES, Ending, JobState
from txgearman.broker.policy import UNLIMITED, Policy, levels_of
from txgearman.broker.stored_job import StoredJob
from txgearman.broker.stored_queues import StoredQueues
from txgearman.broker.timer import Timer
from txgearman.broker.uniques import Duplicates
from txgearman.broker.waking import Waking

LONGEST_NAP: Final = 60.0
"""Seconds after which the clocks are compared again while an EPOCH job waits, so that a step of the
wall clock is noticed."""

# Names local to the module: an enum's member costs two look-ups each time on the hot path.
_QUEUED: Final = JobState.QUEUED
_RUNNING: Final = JobState.RUNNING
_SCHEDULED: Final = JobState.SCHEDULED
_GONE: Final = JobState.GONE
_LOST: Final = int(Ending.LOST)
_ABANDONED: Final = int(Ending.ABANDONED)


class Lifecycle:
    """The jobs in memory, by handle and by unique, and the steps of their lives.

    `live` counts them. `job_store` is told of what becomes of stored ones, and `trace`, if anybody traces
    jobs, of every step. `timeouts` has when jobs are
    taken from their workers, `epochs` when scheduled jobs are queued, by the wall clock.
    """

    __slots__ = (
        "_functions",
        "_level_of",
        "_stored_queues",
        "_timer",
        "_waking",
        "duplicates",
        "epochs",
        "handles",
        "job_store",
        "live",
        "timeouts",
        "trace",
    )

    def __init__(
        self,
        policy: Policy,
        functions: Functions,
        stored_queues: StoredQueues,
        waking: Waking,
        timer: Timer,
        job_store: JobStore | None,
        last_number: int,
        trace: JobTrace | None,
    ) -> None:
        self._functions = functions
        self._stored_queues = stored_queues
        self._waking = waking
        self._timer = timer
        self.job_store = job_store
        self.trace = trace
        self.live = 0
        self.handles = Handles(policy.handle_prefix, last_number)
        self.duplicates = Duplicates()
        self.timeouts = Deadlines()
        self.epochs = Deadlines()
        # The index in the levels of an ability set of each priority.
        self._level_of = tuple(
            next(index for index, level in enumerate(levels_of(policy)) if priority in level)
            for priority in range(PRIORITIES)
        )

    def let_in(self, job: Job) -> None:
        """Queue a job, at its time if it has one."""
        job.state = _QUEUED
        if job.run_at is None or not self.schedule(job, job.run_at):
            self.enqueue(job)

    def schedule(self, job: Job, run_at: float) -> bool:
        """Let a job wait for its time. Returns false if that has come."""
        wait = run_at - self._timer.wall_clock()
        if wait <= 0:
            return False
        job.state = _SCHEDULED
        job.function.scheduled[job.priority] += 1
        job.deadline = self.epochs.add(run_at, job)
        self._timer.ring_at(self._timer.clock() + min(wait, LONGEST_NAP))
        return True

    def enqueue(self, job: Job) -> None:
        """Put a job into its queue, and wake workers for it."""
        if self.trace is not None:
            self.trace.queueing(job)
        function = job.function
        if function.meter is not None:
            now = self._timer.turn_time
            job.since = self._timer.clock() if now is None else now
        function.push(job)
        level = self._level_of[job.priority]
        unready = function.unready[level]
        if unready and not function.dispatch_suspended:
            for ability_set, slot in unready.items():
                ability_set.list_ready(level, slot)
            unready.clear()
        if function.resting:
            self._waking.wake(function)

    def revive(self, function: Function, stored: StoredJob) -> Job:
        """Make a live job of a stored one."""
        job = Job(
            stored.handle,
            function,
            stored.unique,
            stored.data,
            stored.priority,
            True,
            stored.reducer,
            stored.submitted,
            stored.run_at,
        )
        job.attempts = stored.attempts
        job.stored = True
        self.live += 1
        self.handles.put(stored.handle, job)
        if stored.unique and self.duplicates.find(function, stored.unique, stored.data) is None:
            self.duplicates.add(job)
        self.let_in(job)
        if function.meter is not None and job.state is _QUEUED and not job.attempts:
            # It waits since it was submitted, or since its time, wherever it was.
            job.since -= max(0.0, self._timer.wall_clock() - max(stored.submitted, stored.run_at or 0.0))
        return job

    def take_back(self, job: Job) -> None:
        """The job's worker is gone or too slow: give the job to another, behind those that wait."""
        worker = job.worker
        assert worker is not None, "only a running job can be taken back"
        retries = job.function.retries
        if retries is None:
            retries = self._functions.policy.job_retries
        exhausted = retries != UNLIMITED and job.attempts + 1 >= max(retries, 1)
        if exhausted or not (job.background or job.watchers or job.saving):
            self.give_up(job, _LOST if exhausted else _ABANDONED)
            return
        # It is not there where the worker has lost all of its jobs, or all of the function.
        worker.jobs.pop(job.handle, None)
        if worker.by_function is not None:
            worker.by_function.forget(job)
        if job.deadline is not None:
            self._forget_deadline(job)
        job.worker = None
        job.attempts += 1
        if job.stored and self.job_store is not None:
            self.job_store.attempted(job)
        job.progress = NO_PROGRESS
        job.function.running -= 1
        job.function.retried += 1
        job.state = _QUEUED
        self.enqueue(job)

    def take_back_all(self, worker: Worker, jobs: Iterable[Job]) -> Iterator[None]:
        """Take jobs back that were taken out of `Worker.jobs`, one at a time."""
        for job in jobs:
            # Meanwhile it may have been cancelled, or have timed out, and even this worker may have it again.
            if job.state is _RUNNING and job.worker is worker and job.handle not in worker.jobs:
                self.take_back(job)
            yield

    def give_up(self, job: Job, ending: int) -> None:
        """End a job that was not completed, and tell who waits for it that it failed."""
        for client, name in self.discard(job, ending):
            client.connection.failed(name)

    def discard(self, job: Job, ending: int) -> Collection[tuple[Client, bytes]]:
        """End a job in whatever state it is; returns who waited for it."""
        if self.trace is not None:
            self.trace.ending(job, ending)
        job.function.uncompleted[ending] += 1
        if job.state is _RUNNING:
            assert job.worker is not None
            job.worker.jobs.pop(job.handle, None)
            job.function.running -= 1
        queued = job.state is _QUEUED
        if job.state is _SCHEDULED:
            job.function.scheduled[job.priority] -= 1
        watchers = self.end(job)
        if queued:
            # The object may stay in its queue for long.
            job.data = b""
            function = job.function
            function.dropped(job)
            if function.stored_queue is not None:
                self._stored_queues.fetch_ahead(function, function.stored_queue, job.priority)
        # A job that its worker ends leaves it with a worker. Here that need not be so.
        self._functions.note_idle(job.function)
        return watchers

    def end(self, job: Job) -> Collection[tuple[Client, bytes]]:
        """Forget a job, but for its worker and queue, which the caller sees to; returns who waited for it."""
        job.function.ended += 1
        self.live -= 1
        if job.deadline is not None:
            self._forget_deadline(job)
        job.state = _GONE
        job.worker = None
        if job.stored and self.job_store is not None:
            self.job_store.remove(number_of(job.handle))
        if job.unique:
            self.duplicates.remove(job)
        self.handles.remove(job.handle)
        watchers = job.watchers
        for client, name in watchers:
            del client.jobs[name]
            if name != job.handle:
                self.handles.remove(name)
                client.joins.pop(job.handle, None)
        job.watchers = NOBODY
        return watchers

    def _forget_deadline(self, job: Job) -> None:
        assert job.deadline is not None
        (self.timeouts if job.state is _RUNNING else self.epochs).cancel(job.deadline)
        job.deadline = None
