"""A broker whose jobs' ways are told to a `Follower`.

What is told is taken from the steps of `Broker`, which knows nothing of it: where nobody follows, that class
is used as it is, and the way of a job costs nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from txgearman.broker.broker import Broker
from txgearman.broker.interfaces import Alarm, Follower, JobStore
from txgearman.broker.job import Ending, Job, JobState
from txgearman.broker.peers import Client, Worker
from txgearman.broker.policy import Policy

_QUEUED: Final = JobState.QUEUED
_RUNNING: Final = JobState.RUNNING
_LOST: Final = int(Ending.LOST)
_ADOPTED: Final = int(Ending.ADOPTED)


class _Way:
    """Where a followed job is: `since` is when it was queued last, or given to its worker, in seconds since
    the epoch.

    `ahead` is what the wall clock was ahead of the monotonic one when the job was first queued. All times of
    a job go by that, so that a wall clock that is set meanwhile bends none of them.
    """

    __slots__ = ("ahead", "since")

    def __init__(self, ahead: float, since: float) -> None:
        self.ahead = ahead
        self.since = since


class FollowedBroker(Broker):
    """A `Broker` that tells `follower` of the jobs that it follows. The other arguments are those of
    `Broker`.

    A job is in `_ways` from when it is first queued to its end. The follower is asked once, then.
    """

    __slots__ = ("_follower", "_ways")

    def __init__(
        self,
        policy: Policy,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        alarm: Alarm,
        measured_functions: int = 0,
        job_store: JobStore | None = None,
        last_number: int = 0,
        *,
        follower: Follower,
    ) -> None:
        super().__init__(policy, clock, wall_clock, alarm, measured_functions, job_store, last_number)
        self._follower = follower
        self._ways: dict[bytes, _Way] = {}

    def grab(self, worker: Worker) -> Job | None:
        job = super().grab(worker)
        if job is not None:
            way = self._ways.get(job.handle)
            if way is not None:
                now = self._now(way)
                self._follower.waited(job, way.since, now)
                way.since = now
        return job

    def _enqueue(self, job: Job) -> None:
        way = self._ways.get(job.handle)
        if way is not None:
            # No job is queued twice, unless it was taken back from a worker.
            now = self._now(way)
            self._follower.ran(job, job.attempts, way.since, now, _LOST)
            way.since = now
        elif self._follower.follows(job.handle):
            self._ways[job.handle] = self._set_out(job)
        super()._enqueue(job)

    def _ended(
        self, worker: Worker, handle: bytes, text: str, ending: int | None = None
    ) -> Collection[tuple[Client, bytes]]:
        if handle in self._ways:
            job = worker.jobs.get(handle)
            if job is not None:
                self._arrive(job, self._ways.pop(handle), ending)
        return super()._ended(worker, handle, text, ending)

    def _discard(self, job: Job, ending: int) -> Collection[tuple[Client, bytes]]:
        way = self._ways.pop(job.handle, None)
        if way is None and self._follower.follows(job.handle):
            # It was never in a queue.
            way = self._set_out(job)
        if way is not None:
            self._arrive(job, way, ending)
        return super()._discard(job, ending)

    def _now(self, way: _Way) -> float:
        """The time, by the clock that goes for this job."""
        return max(way.since, self._clock() + way.ahead)

    def _set_out(self, job: Job) -> _Way:
        now = self._wall_clock()
        ahead = now - self._clock()
        # One that was restored has waited since it came, wherever it was, unless it ran meanwhile.
        since = now if job.attempts else min(now, max(job.submitted, job.run_at or 0.0))
        return _Way(ahead, since)

    def _arrive(self, job: Job, way: _Way, ending: int | None) -> None:
        now = self._now(way)
        attempts = job.attempts
        if job.state is _RUNNING:
            attempts += 1
            self._follower.ran(job, attempts, way.since, now, ending)
        elif job.state is _QUEUED:
            self._follower.waited(job, way.since, now)
        if ending != _ADOPTED:
            # Otherwise its way goes on elsewhere.
            self._follower.ended(job, attempts, now, ending)
