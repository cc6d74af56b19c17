"""Traces of chosen jobs: when each waited, ran and ended.

The broker tells `JobTracer` of the steps of every job, and that tells a `Follower` of the times between them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from txgearman.broker.entities import Job
from txgearman.broker.interfaces import Follower
from txgearman.broker.job_states import JobState, Outcome

_QUEUED: Final = JobState.QUEUED
_RUNNING: Final = JobState.RUNNING
_LOST: Final = int(Outcome.LOST)
_TAKEN_OVER: Final = int(Outcome.TAKEN_OVER)


class _TracedJob:
    """Where a traced job is: `since` is when it was queued last, or given to its worker, in seconds since
    the epoch, and `run` the number of its last run, 0 before the first.

    `ahead` is what the wall clock was ahead of the monotonic one when the job was first queued. All times of
    a job are the monotonic clock's plus that, so clock steps do not distort them.
    """

    __slots__ = ("ahead", "run", "since")

    def __init__(self, ahead: float, since: float) -> None:
        self.ahead = ahead
        self.since = since
        self.run = 0


class JobTracer:
    """A `JobTrace` that tells `follower` of the jobs that it follows. The clocks are those of the broker.

    A job is in `_jobs` from when it is first queued to its end. The follower is asked once, then.
    """

    __slots__ = ("_clock", "_follower", "_jobs", "_wall_clock")

    def __init__(
        self, follower: Follower, clock: Callable[[], float], wall_clock: Callable[[], float]
    ) -> None:
        self._follower = follower
        self._clock = clock
        self._wall_clock = wall_clock
        self._jobs: dict[bytes, _TracedJob] = {}

    def queueing(self, job: Job) -> None:
        traced = self._jobs.get(job.handle)
        if traced is not None:
            # No job is queued twice, unless it was taken back from a worker.
            now = self._now(traced)
            self._follower.ran(job, _runs(job), traced.since, now, _LOST)
            traced.since = now
        elif self._follower.follows(job):
            self._jobs[job.handle] = self._begin(job)

    def started(self, job: Job) -> None:
        traced = self._jobs.get(job.handle)
        if traced is not None:
            now = self._now(traced)
            self._follower.waited(job, traced.since, now)
            traced.since = now
            traced.run = _runs(job) + 1

    def failing(self, job: Job, ending: int) -> None:
        traced = self._jobs.get(job.handle)
        if traced is not None:
            self._follower.ran(job, _runs(job), traced.since, self._now(traced), ending)
            # It is told of again when it is queued, and is in no queue until then.
            del self._jobs[job.handle]

    def ending(self, job: Job, ending: int | None) -> None:
        traced = self._jobs.pop(job.handle, None)
        if traced is None:
            if job.state is _RUNNING or not self._follower.follows(job):
                return
            # It was never in a queue.
            traced = self._begin(job)
        now = self._now(traced)
        runs = _runs(job)
        if job.state is _RUNNING:
            runs = traced.run
            self._follower.ran(job, runs, traced.since, now, ending)
        elif job.state is _QUEUED:
            self._follower.waited(job, traced.since, now)
        if ending != _TAKEN_OVER:
            # Otherwise it goes on with another server.
            self._follower.ended(job, runs, now, ending)

    def _now(self, traced: _TracedJob) -> float:
        """The time, by the clock that goes for this job."""
        return max(traced.since, self._clock() + traced.ahead)

    def _begin(self, job: Job) -> _TracedJob:
        now = self._wall_clock()
        ahead = now - self._clock()
        # One that was restored has waited since it came, wherever it was, unless it ran meanwhile.
        since = now if _runs(job) else min(now, max(job.submitted, job.run_at or 0.0))
        return _TracedJob(ahead, since)


def _runs(job: Job) -> int:
    """How many runs of a job have ended, by the loss of a worker, by a failure or by a retry asked for."""
    return job.losses + (job.failures.ended_runs if job.failures is not None else 0)
